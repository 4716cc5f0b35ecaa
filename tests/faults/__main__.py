"""Runs the campaign: `make faults ROUNDS=200 SEED=7`.

Each strike is a line of build/faults.jsonl; a table of jobs, steps and faults ends it. `--first N` repeats round N of a
seed, with those before it on the same lake.
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import running_ministack
from tests.faults.campaign import Campaign
from tests.faults.processes import ROOT

if TYPE_CHECKING:
    from tests.faults.campaign import Round, Struck


def main() -> int:
    """Run it; answers 1 when there was a difference."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="how many")
    parser.add_argument("--strikes", type=int, default=3, help="runs that are broken off in a round")
    parser.add_argument("--seed", type=int, help="what everything is drawn from; a new one without it")
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--minutes", type=float, default=0, help="begin no round after so long")
    parser.add_argument("--trino-every", type=int, default=1, help="Trino reads after each so-many-th round; 0: never")
    parser.add_argument("--master", default="", help="Spark's, as in local-cluster[1,1,1024]")
    parser.add_argument("--log", type=Path, default=ROOT / "build" / "faults.jsonl", help="a line of JSON a strike")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended too
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    given.log.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="lakehose-faults-"))
    _say(f"seed {seed}; logs of the processes are in {folder}")
    done: list[Round] = []
    ends = time.monotonic() + given.minutes * 60 if given.minutes else None
    options = {"at_once": given.strikes, "trino_every": given.trino_every, "master": given.master}
    with running_ministack(folder) as endpoint, Campaign(seed, endpoint, folder, _say, **options) as campaign:
        for one in campaign.rounds(given.first, given.rounds):
            done.append(one)
            with given.log.open("a", encoding="utf-8") as log:
                log.writelines(_line(seed, one, struck) for struck in one.struck)
            _tell(one)
            if ends and time.monotonic() > ends:
                break
    _summarise(done)
    if done and done[-1].difference:
        failed = done[-1]
        _say(f"\nround {failed.number}: {failed.difference}")
        _say(f"repeat it with: make faults SEED={seed} FIRST={failed.number} ROUNDS=1 STRIKES={given.strikes}")
        return 1
    return 0


def _line(seed: int, one: Round, struck: Struck) -> str:
    place = {"seed": seed, "round": one.number, **{name: getattr(struck.strike, name) for name in _OF_STRIKE}}
    told = {name: value for name, value in vars(struck).items() if name != "strike"}
    whole = {"round_seconds": one.seconds, "parts": one.parts, "checks": one.checks, "difference": one.difference}
    return json.dumps({**place, **told, **whole}) + "\n"


_OF_STRIKE = ("number", "job", "step", "nth", "fault")


def _tell(one: Round) -> None:
    for struck in one.struck:
        how = struck.outcome if struck.is_set or struck.strike.fault == "none" else f"{struck.outcome}, not reached"
        hits = f", {struck.hits} requests" if struck.hits else ""
        _say(f"  {struck.strike}: {how}{hits}; {struck.seconds:.0f} s")
    sign = "DIFFERENCE" if one.difference else "same"
    _say(f"round {one.number}: {sign}; {one.rows} rows, {one.quarantine} refused; {one.seconds:.0f} s")


def _summarise(done: list[Round]) -> None:
    """Strikes by job and step, and by fault."""
    struck = [one for each in done for one in each.struck]
    _say("\nstrikes by job and step (in brackets: those whose fault was set)")
    places = Counter((one.strike.job, one.strike.step) for one in struck)
    is_set = Counter((one.strike.job, one.strike.step) for one in struck if one.is_set)
    for place, number in sorted(places.items()):
        _say(f"  {place[0]:9} {place[1]:12} {number:4} ({is_set[place]})")
    _say("\nstrikes by fault and outcome")
    for fault in sorted({one.strike.fault for one in struck}):
        of = [one for one in struck if one.strike.fault == fault]
        outcomes = ", ".join(f"{name} {number}" for name, number in sorted(Counter(one.outcome for one in of).items()))
        _say(f"  {fault:32} {len(of):4} ({sum(one.is_set for one in of)}): {outcomes}")
    differences = sum(1 for one in done if one.difference)
    took, all_set = sum(one.seconds for one in done), sum(one.is_set for one in struck)
    _say(f"\n{len(done)} rounds, {len(struck)} strikes, {all_set} faults set, {differences} differences; {took:.0f} s")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
