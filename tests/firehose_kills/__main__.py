"""Runs the campaign that kills the Firehose server: `make firehose-kills KILLS=1000 SEED=7`.

Each kill is a line of build/firehose-kills.jsonl; a table of strikes and counts ends it. The strikes and what writers
send come from the seed; how processes interleave doesn't.
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
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import running_ministack
from tests.faults.processes import ROOT
from tests.firehose_kills.campaign import STRIKES, Campaign
from tests.firehose_kills.model import DifferenceError

if TYPE_CHECKING:
    from tests.firehose_kills.campaign import Life


def main() -> int:
    """Run it; answers 1 when there was a difference."""
    parser = argparse.ArgumentParser(prog="make firehose-kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how many")
    parser.add_argument("--every", type=int, default=10, help="deliver and compare after so many")
    parser.add_argument("--processes", type=int, default=1, help="of the server; some starts are with another number")
    parser.add_argument("--seed", type=int, help="what everything is drawn from; a new one without it")
    parser.add_argument("--minutes", type=float, default=0, help="begin nothing after so long")
    parser.add_argument(
        "--log", type=Path, default=ROOT / "build" / "firehose-kills.jsonl", help="a line of JSON a kill"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended too
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    given.log.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="lakehose-kills-"))
    _say(f"seed {seed}; the server's folder and log are in {folder}")
    done: list[Life] = []
    started, difference = time.monotonic(), ""
    with running_ministack(folder) as endpoint, Campaign(seed, endpoint, folder, given.processes) as campaign:
        try:
            for lives in campaign.rounds(given.kills, given.every):
                done += lives
                with given.log.open("a", encoding="utf-8") as log:
                    log.writelines(f"{json.dumps({'seed': seed, **asdict(one)})}\n" for one in lives)
                _say(f"{len(done)} kills: same; {dict(campaign.model.total)}, {dict(campaign.puts)}")
                if given.minutes and time.monotonic() > started + given.minutes * 60:
                    break
        except DifferenceError as error:
            difference = str(error)
        totals = {**campaign.model.total, **campaign.puts}
        places = Counter(campaign.model.places)
    _say("\nkills by strike (in brackets: those that found what they wait for, those that took one process of several)")
    kills, struck = Counter(one.strike for one in done), Counter(one.strike for one in done if one.struck)
    alone = Counter(one.strike for one in done if one.alone)
    for strike in STRIKES:
        _say(f"  {strike:26} {kills[strike]:5} ({struck[strike]}, {alone[strike]})")
    _say("items found, by stream and place")
    for (stream, place), times in sorted(places.items()):
        _say(f"  {f'{stream} {place}':45} {times:8}")
    _say(f"records and puts: {totals}")
    recovered = sum(1 for one in done if one.pending)
    outcome = f"DIFFERENCE: {difference}" if difference else "no difference"
    took = time.monotonic() - started
    _say(f"{len(done)} kills of seed {seed}, {recovered} starts with records in the log, {took:.0f} s: {outcome}")
    return 1 if difference else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
