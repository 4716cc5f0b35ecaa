"""What erasure reads of gzip that is damaged: a subject may be in whatever can be unpacked."""

import gzip
import random
import zlib

import pytest

from spark_jobs.erase_unpacked import unpacked

NOISE = random.Random(7).randbytes(60_000).hex().encode()  # noqa: S311 - no secret is drawn
MOST = 2**20
FIRST, SECOND = gzip.compress(b"first\n" + NOISE), gzip.compress(b"second\n" + NOISE)


@pytest.mark.parametrize(
    ("body", "least"),
    [
        (FIRST + SECOND, b"first\n" + NOISE + b"second\n" + NOISE),
        # cut short, in the first of them and in one behind it
        (FIRST[:-9], b"first\n" + NOISE),
        (FIRST + SECOND[:-9], b"first\n" + NOISE + b"second\n" + NOISE),
        (FIRST + SECOND[:40_000], b"first\n" + NOISE + b"second\n" + NOISE[:60_000]),
        # damaged in the middle, and followed by what is no gzip
        (FIRST + SECOND[:30_000] + b"\xff" * 30_000, b"first\n" + NOISE + b"second\n" + NOISE[:40_000]),
    ],
    ids=["whole", "cut", "second cut", "half of the second", "second damaged"],
)
def test_all_that_can_be_unpacked_is_read(body, least):
    found, is_damaged = unpacked(body, MOST)
    assert found.startswith(least)
    assert (b"first\n" + NOISE + b"second\n" + NOISE).startswith(found) or b"\xff" in body
    assert is_damaged is (body != FIRST + SECOND)


@pytest.mark.parametrize("padding", [b"", b"\0" * 9])
@pytest.mark.parametrize("packed", [FIRST, FIRST + SECOND])
def test_what_stands_behind_a_gzip_and_is_none_is_read_as_it_is(packed, padding):
    assert unpacked(packed + padding + b"tail\n" + NOISE, MOST) == (
        gzip.decompress(packed) + b"tail\n" + NOISE,
        False,
    )


@pytest.mark.parametrize("end", [b"", b"tail"])
def test_what_unpacks_to_more_than_fits_is_given_up_behind_it(end):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush() + end
    found, is_damaged = unpacked(bomb, 2**20)
    assert 2**20 < len(found) <= 8 * 2**20
    assert not is_damaged
