"""What erasure reads of gzip that is damaged: a subject may be in whatever can be unpacked."""

import gzip
import random

import pytest

from spark_jobs.erase_files import _unpacked

NOISE = random.Random(7).randbytes(60_000).hex().encode()  # noqa: S311 - no secret is drawn
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
        (FIRST + b"tail", b"first\n" + NOISE),
    ],
    ids=["whole", "cut", "second cut", "half of the second", "second damaged", "tail"],
)
def test_all_that_can_be_unpacked_is_read(body, least):
    found = _unpacked(body)
    assert found.startswith(least)
    assert (b"first\n" + NOISE + b"second\n" + NOISE).startswith(found) or b"\xff" in body
