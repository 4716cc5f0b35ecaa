"""Measures the Firehose server: records a second on one core, its processor beside the bare limit, puts' time, memory.

A record counts once it was acknowledged behind an fsync, partitioned, compressed, and taken by an S3; the clock stops
when the last one is. Client and S3 are on another core, and the requests are made beforehand. On a machine that does
other things too, the clock's seconds are stretched, the processor's hardly: on a core of its own the two are the same.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from rows import Row, at_most

from tests.bench.put_load import Load
from tests.bench.put_servers import MOTO, limit, ministack, moto, ours, put, sink, taken

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.bench.put_servers import Put, Server

_MIB = 1 << 20
_SMALL, _LARGE = 300, 2048
_RECORDS_A_SECOND, _MIB_A_SECOND = 100_000, 100
_LIMIT, _PEERS = 2.5, 10
_BUFFER_MIB = 5
_P99_MS = 50
_LOADS = {
    "300 B, 3 partitions": Load(0, "bench", _SMALL, 3, 500, 1_200),
    "300 B, 300 partitions": Load(0, "bench", _SMALL, 300, 500, 2_400),
    "2 KiB, 3 partitions": Load(0, "bench", _LARGE, 3, 500, 300),
    "2 KiB, 300 partitions": Load(0, "bench", _LARGE, 300, 500, 600),
}
_FEW = Load(0, "bench", _SMALL, 3, 10, 3_000)
# puts of many producers: 20 connections, 16,000 records a second together
_STEADY = Load(0, "bench", _SMALL, 30, 50, connections=20, every=0.0625, seconds=15)
_PENDING_MIB = 256
_AWAY = Load(0, "bench", _SMALL, 30, 500, connections=8, seconds=30)
"""Long enough to fill that memory several times over."""
_NOBODY = "http://127.0.0.1:9"


def rows(folder: Path, scale: float) -> list[Row]:
    """Throughput, beside the bare limit, MiniStack and moto; p99 of a put; memory while S3 is away."""
    found: list[Row] = []
    costs = []
    for name, full in _LOADS.items():
        load = replace(full, requests=max(40, int(full.requests * scale)))
        done = _ours(folder / name.replace(" ", "-"), load)
        found += _throughput(name, load, done)
        costs.append(done.cpu / done.acknowledged)
    few = replace(_FEW, requests=max(40, int(_FEW.requests * scale)))
    done = _ours(folder / "few", few)
    first = next(iter(_LOADS))
    beside = {
        first: (replace(_LOADS[first], requests=max(8, int(100 * scale))), costs[0]),
        f"300 B, {few.records} records a put": (few, done.cpu / done.acknowledged),
    }
    found += _beside("MiniStack", ministack(folder), {first: beside[first]})
    if MOTO.is_file():
        found += _beside("moto", moto(folder), beside)
    else:
        sys.stdout.write(f"moto is left out: there is no {MOTO}, which `make moto-setup` makes\n")
    return [*found, *_steady(folder, scale), _memory(folder, scale)]


def _ours(folder: Path, load: Load) -> Put:
    with sink() as s3_url, ours(folder, s3_url) as server:
        server.create(size_mib=_BUFFER_MIB)
        put(server, replace(load, requests=20), flush=True)  # what is made at the first time is made
        taken(s3_url)
        done = put(server, load, flush=True)
        lines = taken(s3_url)["lines"]
    if lines != done.acknowledged:
        raise RuntimeError(f"{done.acknowledged} records were acknowledged, and {lines} are in S3")
    return done


def _throughput(name: str, load: Load, done: Put) -> list[Row]:
    bare_seconds, bare_cpu = limit(load, _BUFFER_MIB)
    bare = load.requests * load.records
    # 100,000 records of 300 B are 28.6 MiB, so that aim holds the other one
    small = load.event_bytes == _SMALL
    least, unit = (_RECORDS_A_SECOND, 1.0) if small else (_MIB_A_SECOND, load.event_bytes / _MIB)
    what = "records" if small else "MiB"
    found = []
    for by, ours_seconds, bare_took in (("the clock", done.seconds, bare_seconds), ("processor", done.cpu, bare_cpu)):
        rate = done.acknowledged * unit / ours_seconds
        measure = f"{what} in S3 a second of {by}"
        found.append(
            Row(name, measure, rate, bare * unit / bare_took, "the bare limit", f"at least {least:,}", rate >= least)
        )
    ours_us, bare_us = done.cpu / done.acknowledged * 1e6, bare_cpu / bare * 1e6
    found.append(at_most(name, "µs of processor a record", ours_us, bare_us, "the bare limit", _LIMIT))
    return found


def _beside(who: str, other: AbstractContextManager[Server], loads: Mapping[str, tuple[Load, float]]) -> list[Row]:
    # theirs deliver at once, so nothing is left out
    found = []
    with other as server:
        server.create(size_mib=_BUFFER_MIB)
        for name, (load, cost) in loads.items():
            done = put(server, replace(load, connections=4), flush=False)
            rate, theirs = 1 / cost, done.acknowledged / done.cpu
            measure, aim = "records a second of processor", f"at least {_PEERS} times"
            found.append(Row(name, measure, rate, theirs, who, aim, rate >= _PEERS * theirs))
    return found


def _steady(folder: Path, scale: float) -> list[Row]:
    load = replace(_STEADY, seconds=max(3.0, _STEADY.seconds * scale))
    with sink() as s3_url, ours(folder / "steady", s3_url) as server:
        server.create(size_mib=_BUFFER_MIB)
        done = put(server, load, flush=True)
    name = f"{load.connections / load.every:.0f} puts of {load.records} records a second"
    p50, p99 = done.p50 * 1000, done.p99 * 1000
    return [
        Row(name, f"ms of a put, p50 of {done.requests:,}", p50, None, "", "", holds=True),
        Row(name, f"ms of a put, p99 of {done.requests:,}", p99, None, "", f"under {_P99_MS}", p99 < _P99_MS),
    ]


def _memory(folder: Path, scale: float) -> Row:
    load = replace(_AWAY, seconds=max(20.0, _AWAY.seconds * scale))
    with ours(folder / "away", _NOBODY, "--max-pending-mib", str(_PENDING_MIB)) as server:
        server.create(size_mib=_BUFFER_MIB)
        done = put(server, load, flush=False)
        peak = server.peak_mib()
    if not done.refused:
        raise RuntimeError(f"{done.acknowledged} records were taken in {done.seconds:.0f} s and none was refused")
    allowed = 2 * _PENDING_MIB + 128
    measure = f"MiB of memory at most, --max-pending-mib {_PENDING_MIB}"
    return Row("S3 away", measure, peak, _PENDING_MIB, "the setting", f"under {allowed}", peak < allowed)
