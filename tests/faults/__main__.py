"""Runs the campaign: `make faults ROUNDS=200 SEED=7`.

Each round is a line of build/faults.jsonl; a table of jobs, steps and faults ends it. `--first N` repeats the round N
of a seed, with those before it on the same lake.
"""

from __future__ import annotations

import argparse
import json
import secrets
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
    from tests.faults.campaign import Outcome


def main() -> int:
    """Run it; answers 1 when there was a difference."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="how many")
    parser.add_argument("--seed", type=int, help="what everything is drawn from; a new one without it")
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--minutes", type=float, default=0, help="begin no round after so long")
    parser.add_argument("--trino-every", type=int, default=1, help="Trino reads after each so-many-th round; 0: never")
    parser.add_argument("--log", type=Path, default=ROOT / "build" / "faults.jsonl", help="a line of JSON a round")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    given.log.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="lakehose-faults-"))
    _say(f"seed {seed}; logs of the processes are in {folder}")
    done: list[Outcome] = []
    ends = time.monotonic() + given.minutes * 60 if given.minutes else None
    with (
        running_ministack(folder) as endpoint,
        Campaign(seed, endpoint, folder, _say, trino_every=given.trino_every) as campaign,
    ):
        for one in campaign.rounds(given.first, given.rounds):
            done.append(one)
            with given.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(one.as_json(seed)) + "\n")
            _say(_told(one))
            if ends and time.monotonic() > ends:
                break
    _summarise(done)
    if done and done[-1].difference:
        failed = done[-1].round
        _say(f"\n{failed}: {done[-1].difference}")
        _say(f"repeat it with: make faults SEED={seed} FIRST={failed.number} ROUNDS=1")
        return 1
    return 0


def _told(one: Outcome) -> str:
    how = one.outcome if one.struck or one.round.fault == "none" else f"{one.outcome}, step not reached"
    hits = f", {one.hits} requests" if one.hits else ""
    sign = "DIFFERENCE" if one.difference else "same"
    return f"{one.round}: {how}{hits}; {sign}; {one.rows} rows, {one.quarantine} refused; {one.seconds:.0f} s"


def _summarise(done: list[Outcome]) -> None:
    """Rounds by job, step and fault."""
    _say("\nrounds by job and step (in brackets: those whose fault was set)")
    places = Counter((one.round.job, one.round.step) for one in done)
    struck = Counter((one.round.job, one.round.step) for one in done if one.struck)
    for place, number in sorted(places.items()):
        _say(f"  {place[0]:9} {place[1]:12} {number:4} ({struck[place]})")
    _say("\nrounds by fault and outcome")
    for fault in sorted({one.round.fault for one in done}):
        of = [one for one in done if one.round.fault == fault]
        outcomes = ", ".join(f"{name} {number}" for name, number in sorted(Counter(one.outcome for one in of).items()))
        _say(f"  {fault:32} {len(of):4} ({sum(one.struck for one in of)}): {outcomes}")
    differences = sum(1 for one in done if one.difference)
    seconds = sum(one.seconds for one in done)
    struck_in_all = sum(one.struck for one in done)
    _say(f"\n{len(done)} rounds, {struck_in_all} faults set, {differences} differences; {seconds:.0f} s")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
