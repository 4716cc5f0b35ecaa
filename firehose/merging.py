"""Owns what several processes tell as one: their status, their faults, their figures for Prometheus.

A stream's figures are its process's alone, so they stand as they are, and its counters begin anew only when that
process does, as those of a server with one. Figures of a process itself, its errors and its memory, get its number as
a label: a sum of counters would fall when one process begins anew, and Prometheus would take that for growth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["merge_faults", "merge_metrics", "merge_statuses"]

_SAME = ("activePartitionQuota",)
"""Members of a status that all processes have alike."""
_SAME_METRICS = ("firehose_active_partition_quota",)
_COUNTED = ("occasions", "struck", "over")
"""Members of a fault that aren't what was asked for."""
_STREAM = '{stream="'


def merge_statuses(found: Mapping[int, dict[str, Any] | None]) -> dict[str, Any]:
    """Make one status of those of the processes, by number; None where one is away.

    Streams are put together, numbers are added up, and what is true of one is true of all. `processes` has what each
    said of itself, and `away` those that said nothing.
    """
    streams: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    processes = []
    for number, status in sorted(found.items()):
        if status is None:
            continue
        streams |= status["streams"]
        own = {name: value for name, value in status.items() if name != "streams"}
        processes.append({"process": number, **own})
        for name, value in own.items():
            if name != "pid":
                merged[name] = value if name in _SAME else _added(merged.get(name), value)
    away = sorted(number for number, status in found.items() if status is None)
    return {"streams": dict(sorted(streams.items())), **merged, "processes": processes, "away": away}


def _added(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, bool):
        return one or other
    return one + other if isinstance(one, int | float) else one


def merge_faults(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make one list of faults of those of the processes: what each struck is added up, and it is over where all are.

    A process that was started again has none of before, so they are found by what they are and not by their place.
    """
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for told in found:
        seen: dict[tuple[Any, ...], int] = {}
        for fault in told["faults"]:
            what = tuple(value for name, value in fault.items() if name not in _COUNTED)
            seen[what] = seen.get(what, 0) + 1
            there = merged.setdefault((*what, seen[what]), {**fault, "occasions": 0, "struck": 0, "over": True})
            there["occasions"] += fault["occasions"]
            there["struck"] += fault["struck"]
            there["over"] = there["over"] and fault["over"]
    return {"faults": list(merged.values())}


def merge_metrics(found: Mapping[int, str | None]) -> str:
    """Make one text for Prometheus of those of the processes, by number; None where one is away."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for number, text in sorted(found.items()):
        if text is None:
            continue
        heads, samples = families.setdefault("", ([], []))
        for line in text.splitlines():
            if line.startswith("# HELP "):
                heads, samples = families.setdefault(line.split(" ", 3)[2], ([], []))
            if line.startswith("#"):
                if line not in heads:
                    heads.append(line)
                continue
            name = line.partition("{")[0].partition(" ")[0]
            if name not in _SAME_METRICS:
                samples.append(_of_process(line, number))
            elif not samples:
                samples.append(line)
    up = [f'firehose_process_up{{process="{number}"}} {float(text is not None)}' for number, text in found.items()]
    heads = ["# HELP firehose_process_up 1 while a process of the server answers", "# TYPE firehose_process_up gauge"]
    families["firehose_process_up"] = (heads, sorted(up))
    return "".join(f"{line}\n" for heads, samples in families.values() for line in (*heads, *samples))


def _of_process(line: str, number: int) -> str:
    if _STREAM in line:
        return line
    label = f'process="{number}"'
    name, brace, rest = line.partition("{")
    if brace:
        return f"{name}{{{label},{rest}"
    name, _, value = line.partition(" ")
    return f"{name}{{{label}}} {value}"
