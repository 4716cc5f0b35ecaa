"""Runs the benchmarks: `make bench`, `make bench ONLY=spark_jobs`, `make bench SCALE=0.1` to try it out.

Each row is a ratio of two things measured in the same run on the same machine; what it aims at is said beside it. The
table is printed, and all rows go to build/bench.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import audit_bench
import compact_bench
import firehose_bench
import flat_bench
import freshness_bench
import table_bench
from rows import print_rows, write_rows

# each starts what it needs, and stops it
ROOMS = {
    "lake": (audit_bench.rows,),
    "spark_jobs": (table_bench.rows, flat_bench.rows, compact_bench.rows),
    "freshness": (freshness_bench.rows,),
    "firehose": (firehose_bench.rows,),
}
RESULTS = Path(__file__).parents[2] / "build" / "bench.json"


def main() -> int:
    """Run them; answers 1 when an aim was missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=sorted(ROOMS), help="one room")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes, to try it out")
    given = parser.parse_args()
    found = []
    for run in [one for room, runs in ROOMS.items() if given.only in {None, room} for one in runs]:
        with tempfile.TemporaryDirectory(prefix="lakehose-bench-") as folder:
            found += run(Path(folder), given.scale)
        # an hour's results aren't lost to what comes after
        write_rows(found, RESULTS)
    print_rows(found)
    return 0 if all(one.holds for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
