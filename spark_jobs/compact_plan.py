"""Owns the decision what to compact: pure, from a table's layout.

A partition's files come in runs: one write sorts its own files, so only files of different runs can overlap. As in a
log-structured merge tree, runs are merged by their size: one is taken in when it is at most a few times as large as all
smaller ones together. So a late event doesn't rewrite a whole month, and a byte is rewritten a few times in its life,
however many batches follow. After a rewrite what took part is one run, and there is nothing left to do: whether
something is to be gained depends on the files alone, not on how often one asks.

The log-structured merge tree: https://doi.org/10.1007/s002360050048
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from spark_jobs.layout import FileFacts, Layout, Place

__all__ = ["SMALL", "Group", "Rules", "disorder", "groups_of", "is_closed", "slot_bounds", "units_of", "within_budget"]

SMALL = 0.75
"""Part of the target size below which a file is small; Iceberg's own default for `min-file-size-bytes`."""
_LIGHT_BYTES = 2**20  # a run up to this is merged with whatever comes: opening it costs a reader more than rewriting it
_TIMES = 3  # larger than all smaller runs together, which a run may be to be merged with them
_SCATTERED = 4  # times as many files as its bytes would fill: such a run is no better than many
_DEEP = 3  # runs over the same keys that are worth a rewrite
_DELETED = 0.1  # of a file's rows
_DELETE_FILES = 5  # that a reader has to open beside one data file
_GRACE = timedelta(days=1)  # for late events, before a partition is taken as closed
_UNIT_FILES, _UNIT_GROUPS = 5_000, 100  # in one rewrite and commit


@dataclass(frozen=True)
class Rules:
    """What a table's compaction aims at."""

    target_bytes: int
    """Size of a data file."""
    least: int = 2
    """Files of one partition that are worth a rewrite."""
    arrow_bytes: int = 2**26
    """As stored: up to so much is rewritten in the driver, where that carries the table; 0 leaves all to Spark."""


@dataclass(frozen=True)
class Group:
    """Files of one partition that become one run."""

    table: str
    """`database.table`."""
    place: Place
    files: tuple[FileFacts, ...]
    outputs: int
    """Files that they become, about."""
    closed: bool
    """Whether the partition's time is over."""
    reasons: tuple[str, ...]
    """Of `small`, `deletes`, `disorder`."""

    @property
    def name(self) -> str:
        """The table, and its partition where it has any."""
        return f"{self.table}, {self.place.name}" if self.place.name else self.table

    @property
    def bytes(self) -> int:
        """As stored."""
        return sum(one.bytes for one in self.files)

    @property
    def rows(self) -> int:
        """In the files, those deleted by position or value included."""
        return sum(one.rows for one in self.files)

    @property
    def gain(self) -> int:
        """Files fewer."""
        return len(self.files) - self.outputs

    @property
    def has_deletes(self) -> bool:
        """Whether any file has rows that are deleted."""
        return any(one.delete_files for one in self.files)


def is_closed(place: Place, now: datetime) -> bool:
    """Whether a partition's time is over, late events' grace included."""
    return place.until is not None and place.until <= now - _GRACE


def groups_of(table: str, layout: Layout, rules: Rules, now: datetime) -> list[Group]:
    """What is to be gained in a table."""
    return [one for place in layout.places if (one := _group(table, place, rules, now)) is not None]


def within_budget(groups: Sequence[Group], budget: int, rules: Rules) -> tuple[list[Group], list[Group]]:
    """The groups that a budget of bytes allows, and those that were left out or cut.

    Closed partitions come first, then what gains most files for a byte. A group that is larger than the whole budget is
    cut to its smallest runs; at least two, so that each run of the job gets on.
    """
    order = sorted(groups, key=lambda one: (not one.closed, -one.gain / max(one.bytes, 1), one.name))
    taken: list[Group] = []
    left: list[Group] = []
    room = budget
    for one in order:
        if one.bytes <= room:
            taken.append(one)
            room -= one.bytes
            continue
        left.append(one)
        if not taken:
            taken.append(_cut(one, budget, rules))
            room = 0
    return taken, left


def units_of(groups: Sequence[Group], rules: Rules) -> list[tuple[Group, ...]]:
    """Groups that are rewritten and committed together.

    What becomes one file each is gathered, as a Spark job and a commit cost more than such a partition; what becomes
    several is rewritten alone.
    """
    most = max(rules.target_bytes, 2**28)
    units: list[list[Group]] = []
    spec: int | None = None
    for one in groups:
        last = units[-1] if units else []
        fits = (
            last
            and one.outputs == 1 == last[0].outputs
            and spec == one.place.spec_id
            and len(last) < _UNIT_GROUPS
            and sum(each.bytes for each in last) + one.bytes <= most
            and sum(len(each.files) for each in last) + len(one.files) <= _UNIT_FILES
        )
        if fits:
            last.append(one)
        else:
            units.append([one])
        spec = one.place.spec_id
    return [tuple(one) for one in units]


def slot_bounds(group: Group) -> list[float] | None:
    """Keys at which a group's outputs begin, but the first; rows are taken to be even within each file.

    None where the key is no number (as times and dates are in manifests), or isn't known of all files.
    """
    spans = [(one.low, one.high, one.rows - one.deleted) for one in group.files]
    if not all(isinstance(low, (int, float)) and isinstance(high, (int, float)) for low, high, _ in spans):
        return None
    total = sum(rows for _, _, rows in spans)
    keys = sorted({key for low, high, _ in spans for key in (low, high)})
    below = _rows_below(spans, keys)
    bounds: list[float] = []
    for number in range(1, group.outputs):
        wanted = total * number / group.outputs
        place = min(bisect_left(below, wanted), len(keys) - 1)
        if place == 0 or below[place] == below[place - 1]:
            bounds.append(keys[place])
        else:
            share = (wanted - below[place - 1]) / (below[place] - below[place - 1])
            bounds.append(keys[place - 1] + share * (keys[place] - keys[place - 1]))
    return sorted(set(bounds))


def _rows_below(spans: Sequence[tuple[float, float, int]], keys: Sequence[float]) -> list[float]:
    """Rows that lie below each key, or at it, in one sweep over the sorted keys, which are all bounds of the spans."""
    begin: dict[float, list[tuple[float, float, int]]] = {}
    end: dict[float, list[tuple[float, float, int]]] = {}
    for one in spans:
        begin.setdefault(one[0], []).append(one)
        end.setdefault(one[1], []).append(one)
    found: list[float] = []
    total = rate = 0.0
    done = open_ = 0
    last = keys[0] if keys else 0.0
    for key in keys:
        total += rate * (key - last)
        for low, high, rows in end.get(key, ()):
            done += rows
            if low < high:
                rate -= rows / (high - low)
                open_ -= 1
            else:
                total += rows
        if open_ == 0:
            # what rounding left behind would grow with the distance to the next file
            total, rate = float(done), 0.0
        for low, high, rows in begin.get(key, ()):
            if low < high:
                rate += rows / (high - low)
                open_ += 1
        found.append(max(total, found[-1]) if found else total)
        rate, last = max(rate, 0.0), key
    return found


def disorder(files: Iterable[FileFacts]) -> int:
    """Most runs that lie over the same key: 1 is perfect order, 0 where no file tells its keys."""
    ranges = _ranges(files)
    return max((depth for _, depth in _depths(ranges)), default=1 if ranges else 0)


def _group(table: str, place: Place, rules: Rules, now: datetime) -> Group | None:
    deleted = {one.path for one in place.files if _is_deleted(one)}
    deep = _overlapping(place.files)
    small = {one.path for one in place.files if one.bytes < SMALL * rules.target_bytes}
    eligible = [one for one in place.files if one.path in small or one.path in deep]
    merged = _merged(_runs(eligible, rules))
    if len(merged) < rules.least and not deep.intersection(one.path for one in merged):
        merged = []
    chosen = {one.path for one in merged} | deleted
    files = tuple(one for one in place.files if one.path in chosen)
    if not files:
        return None
    names = {one.path for one in merged}
    reasons = [
        *(["small"] if names & small else []),
        *(["deletes"] if deleted else []),
        *(["disorder"] if names & deep else []),
    ]
    return _made(Group(table, place, files, 1, is_closed(place, now), tuple(reasons)), rules)


def _made(group: Group, rules: Rules) -> Group:
    live = sum(one.bytes * (one.rows - one.deleted) // max(one.rows, 1) for one in group.files)
    return replace(group, outputs=max(1, round(live / rules.target_bytes)))


def _is_deleted(one: FileFacts) -> bool:
    return one.delete_files >= _DELETE_FILES or (one.deleted > 0 and one.deleted >= _DELETED * one.rows)


def _runs(files: Iterable[FileFacts], rules: Rules) -> list[list[FileFacts]]:
    """Files by run, the smallest run first; where one write left a lot of tiny ones, each counts by itself."""
    runs: dict[str, list[FileFacts]] = {}
    for one in files:
        runs.setdefault(one.run, []).append(one)
    found: list[list[FileFacts]] = []
    for run in runs.values():
        scattered = len(run) > _SCATTERED * max(1, round(_size(run) / rules.target_bytes))
        found += [[one] for one in run] if scattered else [run]
    return sorted(found, key=lambda run: (_size(run), run[0].run, run[0].path))


def _size(run: Iterable[FileFacts]) -> int:
    return sum(one.bytes for one in run)


def _merged(runs: Sequence[list[FileFacts]]) -> list[FileFacts]:
    """The runs to merge: up to the largest that isn't much larger than all before it together."""
    before = [0, *accumulate(_size(run) for run in runs)]
    last = 0
    for index, run in enumerate(runs):
        if index and _size(run) <= max(_LIGHT_BYTES, _TIMES * before[index]):
            last = index
    return [one for run in runs[: last + 1] for one in run] if last else []


def _cut(group: Group, budget: int, rules: Rules) -> Group:
    taken: list[FileFacts] = []
    for count, run in enumerate(_runs(group.files, rules)):
        if count >= 2 and _size(taken) + _size(run) > budget:  # noqa: PLR2004 - two runs are the least to merge
            break
        taken += run
    paths = {one.path for one in taken}
    return _made(replace(group, files=tuple(one for one in group.files if one.path in paths)), rules)


def _overlapping(files: Iterable[FileFacts]) -> set[str]:
    """Files that lie, somewhere in their keys, under too many runs."""
    ranges = _ranges(files)
    deep = [stretch for stretch, depth in _depths(ranges) if depth >= _DEEP]
    starts = [start for start, _ in deep]
    found: set[str] = set()
    for low, high, _, path in ranges:
        first = bisect_left(starts, low)
        if first < len(deep) and deep[first][1] <= high:
            found.add(path)
    return found


_Range = tuple[Any, Any, str, str]


def _ranges(files: Iterable[FileFacts]) -> list[_Range]:
    return [(one.low, one.high, one.run, one.path) for one in files if one.low is not None]


def _depths(ranges: Sequence[_Range]) -> list[tuple[tuple[Any, Any], int]]:
    """How many runs lie over each stretch of keys between two neighbouring bounds.

    Ranges that only touch in a bound don't overlap: neighbours in perfect order share a key there.
    """
    starts: dict[Any, list[str]] = {}
    ends: dict[Any, list[str]] = {}
    for low, high, run, _ in ranges:
        if low < high:
            starts.setdefault(low, []).append(run)
            ends.setdefault(high, []).append(run)
    over: Counter[str] = Counter()
    depth = 0
    found: list[tuple[tuple[Any, Any], int]] = []
    for here, there in pairwise(sorted({*starts, *ends})):
        for run in ends.get(here, ()):
            over[run] -= 1
            depth -= over[run] == 0
        for run in starts.get(here, ()):
            depth += over[run] == 0
            over[run] += 1
        found.append(((here, there), depth))
    return found
