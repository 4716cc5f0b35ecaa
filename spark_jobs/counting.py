"""Owns counting judged records where they are judged: a worker counts what it has in hand, the driver adds up.

What a worker hands on is small: sums, the ends of runs of sequence numbers, the ends of event ids by their hours, and
for each event id a fingerprint of 64 bits, by which the driver sees whether any could be there twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lake.envelope import made_day
from lake.manifest import NO_TENANT

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from lake.envelope import Identity

__all__ = ["count_rows", "fingerprints", "made_days", "merge_counts"]

_UUID = 36  # characters of an id in its usual form
_DAY_MS = 86_400_000
_DAY_US = 86_400_000_000
_NO_DAY = -1
_HOURS_DIGITS = 6  # of an id: 24 of its 48 bits of time, so 2^24 ms, 4.7 hours
_HYPHENS = (8, 13, 18, 23)
_VERSION_AT, _VARIANT_AT = 14, 19
_NIBBLES = np.full(256, 255, np.uint8)
for _index, _digit in enumerate(b"0123456789abcdef"):
    _NIBBLES[_digit] = _index
_MIX = tuple(np.uint64(one) for one in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xFF51AFD7ED558CCD))


_COUNTED = pa.schema([("event_id", pa.string()), ("producer_id", pa.string()), ("sequence", pa.int64())])
_NOTHING = tuple(pa.array([], one) for one in _COUNTED.types)


def _letters(ids: pa.StringArray) -> npt.NDArray[np.uint8] | None:
    """Ids of 36 bytes as a matrix; None where any is of another length or null."""
    count = len(ids)
    if ids.null_count or not count:
        return None
    offsets = np.frombuffer(ids.buffers()[1], np.int32, count + 1, ids.offset * 4)
    if not (np.diff(offsets) == _UUID).all():
        return None
    return np.frombuffer(ids.buffers()[2], np.uint8, count * _UUID, int(offsets[0])).reshape(count, _UUID)


def made_days(ids: pa.StringArray) -> npt.NDArray[np.int64]:
    """`lake.envelope.made_day` of many ids, in days since 1970; -1 where an id is no UUIDv7."""
    letters = _letters(ids)
    if letters is None:
        return np.array([_day_number(one) for one in ids.to_pylist()], np.int64)
    nibbles = _NIBBLES[letters]
    usual = (letters[:, _HYPHENS] == ord("-")).all(axis=1)
    nibbles[:, _HYPHENS] = 0
    usual &= (nibbles < 16).all(axis=1)  # noqa: PLR2004 - hexadecimal digits
    usual &= (nibbles[:, _VERSION_AT] == 7) & (nibbles[:, _VARIANT_AT] >> 2 == 2)  # noqa: PLR2004 - of a UUIDv7
    moments = np.zeros(len(ids), np.int64)
    for place in (*range(8), *range(9, 13)):
        moments = moments << 4 | nibbles[:, place]
    return np.where(usual, moments // _DAY_MS, _NO_DAY)


def _day_number(event_id: str | None) -> int:
    text = made_day(event_id)
    return int(np.datetime64(text, "D").astype(np.int64)) if text[0] != "-" else _NO_DAY


def fingerprints(ids: pa.StringArray) -> npt.NDArray[np.uint64]:
    """64 bits of each id, the same wherever it is met; of two ids hardly ever the same."""
    letters = _letters(ids)
    if letters is not None:
        return _mixed(letters)
    found = np.zeros(len(ids), np.uint64)
    texts = ids.to_pylist()
    usual = [at for at, one in enumerate(texts) if one is not None and len(one.encode()) == _UUID]
    if usual:
        # an id has one fingerprint, whatever lies beside it
        found[usual] = _mixed(np.frombuffer("".join(texts[at] for at in usual).encode(), np.uint8).reshape(-1, _UUID))
    for at in sorted({*range(len(texts))}.difference(usual)):
        found[at] = _hashed(texts[at])
    return found


def _hashed(text: str | None) -> np.uint64:
    """The fingerprint of an id of another length than a UUID's."""
    return np.uint64(int.from_bytes(hashlib.blake2b((text or "").encode(), digest_size=8).digest(), "big"))


def _mixed(letters: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    words = np.ascontiguousarray(letters[:, :32]).view(np.uint64)
    last = np.ascontiguousarray(letters[:, 32:]).view(np.uint32)[:, 0].astype(np.uint64)
    found = last * _MIX[3]
    with np.errstate(over="ignore"):
        for place, factor in enumerate(_MIX):
            found = (found ^ words[:, place]) * factor
            found ^= found >> np.uint64(29)
    return found


def count_rows(
    uris: Iterable[tuple[str, int]],
    tenant: str | None,
    rows: pa.RecordBatch | None,
    refused: Iterable[tuple[str, str | None, Identity]],
) -> tuple[bytes, bytes, bytes]:
    """Count some records.

    Args:
        uris: objects of the good ones, and how many each has.
        tenant: of the good ones.
        rows: the good ones: `event_id`, `event_time`, `producer_id` and `sequence`; None where there are none.
        refused: of the others the object, the tenant they are counted under, and what is known of them.

    Returns:
        sums (JSON), runs of sequence numbers (JSON), and the fingerprints of the good ones' ids.
    """
    objects: Counter[str] = Counter()
    for uri, count in uris:
        objects[uri] += count
    ids, producers, sequences = _NOTHING if rows is None else map(rows.column, _COUNTED.names)
    days = made_days(ids)
    good = [[int(day), int(count)] for day, count in zip(*np.unique(days, return_counts=True), strict=True)]
    runs = [[tenant, *one] for one in _runs(producers, days, sequences)]
    bad: Counter[tuple[str, int, bool]] = Counter()
    for uri, owner, who in refused:
        objects[uri] += 1
        day = _day_number(who.event_id)
        known = owner is not None and who.producer_id is not None and who.sequence is not None
        bad[owner or NO_TENANT, day, known] += 1
        if known:
            runs.append([owner, who.producer_id, day, who.sequence, who.sequence])
    sums: dict[str, Any] = {
        "objects": objects,
        "good": good,
        "tenant": tenant,
        "bad": [[*key, count] for key, count in bad.items()],
        "ends": _ends(ids),
        "happened": []
        if rows is None
        else np.unique(rows.column("event_time").cast(pa.int64()).to_numpy() // _DAY_US).tolist(),
        "runs": len(runs),
    }
    return orjson.dumps(sums), orjson.dumps(runs), fingerprints(ids).tobytes()


def _ends(ids: pa.StringArray) -> list[list[str]]:
    """Smallest and largest id of each span of hours."""
    if not len(ids):
        return []
    whole = pc.min_max(ids).as_py()
    if whole["min"][:_HOURS_DIGITS] == whole["max"][:_HOURS_DIGITS]:
        return [[whole["min"], whole["max"]]]
    ordered = ids.take(pc.array_sort_indices(ids))
    hours = pc.run_end_encode(pc.utf8_slice_codeunits(ordered, 0, _HOURS_DIGITS))
    lasts = hours.run_ends.to_pylist()
    return [
        [ordered[first].as_py(), ordered[last - 1].as_py()] for first, last in zip([0, *lasts], lasts, strict=False)
    ]


def _runs(
    producers: pa.StringArray, days: npt.NDArray[np.int64], sequences: pa.Int64Array
) -> Iterable[tuple[str, int, int, int]]:
    """Runs without a gap: producer, day, first and last sequence number."""
    if not len(producers):
        return
    coded = producers.dictionary_encode()
    names, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    numbers = sequences.to_numpy()
    order = np.lexsort((numbers, days, codes))
    codes, when, numbers = codes[order], days[order], numbers[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (np.diff(codes) != 0) | (np.diff(when) != 0) | (np.diff(numbers) > 1)
    starts = np.flatnonzero(begins)
    stops = np.append(starts[1:], len(order)) - 1
    found = (codes[starts].tolist(), when[starts].tolist(), numbers[starts].tolist(), numbers[stops].tolist())
    for code, day, first, last in zip(*found, strict=True):
        yield names[code], day, first, last


def merge_counts(given: Iterable[bytes]) -> dict[str, Any]:
    """Add sums up.

    Returns:
        `objects`, `good`, `bad` and `unidentified` as counters; `ends` by hours; days on which events `happened`; how
        many `runs` there are in all.
    """
    objects: Counter[str] = Counter()
    good: Counter[tuple[str, int]] = Counter()
    bad: Counter[tuple[str, int]] = Counter()
    unidentified: Counter[tuple[str, int]] = Counter()
    ends: dict[str, tuple[str, str]] = {}
    happened: set[int] = set()
    runs = 0
    for one in map(orjson.loads, given):
        objects.update(one["objects"])
        for day, count in one["good"]:
            good[one["tenant"], day] += count
        for owner, day, known, count in one["bad"]:
            bad[owner, day] += count
            if not known:
                unidentified[owner, day] += count
        for first, last in one["ends"]:
            known_first, known_last = ends.setdefault(first[:_HOURS_DIGITS], (first, last))
            ends[first[:_HOURS_DIGITS]] = (min(known_first, first), max(known_last, last))
        happened.update(one["happened"])
        runs += one["runs"]
    return {
        "objects": objects,
        "good": good,
        "bad": bad,
        "unidentified": unidentified,
        "ends": sorted(ends.values()),
        "happened": happened,
        "runs": runs,
    }


def merge_runs(given: Iterable[bytes]) -> dict[tuple[str, str, int], list[tuple[int, int]]]:
    """Runs of sequence numbers by (tenant, producer, day)."""
    found: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
    for one in given:
        for tenant, producer, day, first, last in orjson.loads(one):
            found.setdefault((tenant, producer, day), []).append((first, last))
    return found
