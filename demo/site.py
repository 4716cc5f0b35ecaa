"""Owns one site: a process that pushes its airport's departures through the producer SDK.

`python -m demo.site --tenant ewr …` tells its progress as lines of JSON on standard output. Killed at any moment and
started again, it goes on with the first event that its spool doesn't have.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from demo.flights import departures, encode
from lake.clients import Cloud
from lake.declaration import read_lake
from lake.errors import LakehoseError
from lake.manifest import Manifest
from producers import NewEvent, Producer

__all__ = ["Site", "main"]

_CHUNK = 2000
"""Events written to the spool with one fsync."""
_PATIENCE = 1800.0
"""Seconds to keep trying when the stream takes nothing."""


@dataclass(frozen=True)
class Site:
    """What a site needs to know."""

    tenant: str
    events: int | None
    spool: Path
    lake_path: Path
    endpoint: str | None

    def push(self) -> None:
        """Send everything the site has, and wait until all of it is acknowledged."""
        lake = read_lake(self.lake_path)
        cloud = Cloud.from_environment(lake.region, self.endpoint)
        stream = lake.stream_of("flights", self.tenant)
        manifest = Manifest(cloud.dynamodb, lake.names.manifest_table())
        with Producer(
            stream.name,
            tenant=self.tenant,
            dataset="flights",
            producer_id=f"site-{self.tenant}",
            schema_version=stream.dataset.contract.version,
            spool=self.spool,
            firehose=cloud.firehose,
            encode=encode,
            ledger_to=manifest.report,
        ) as producer:
            producer.start()  # sends while the site goes on writing to the spool
            rest = islice(departures(self.tenant, self.events), producer.next_sequence, None)
            while chunk := [NewEvent(one.payload, one.event_time, one.event_id) for one in islice(rest, _CHUNK)]:
                producer.send_many(chunk)
                _tell(producer)
            producer.flush(timeout=_PATIENCE)
            _tell(producer)


def _tell(producer: Producer) -> None:
    ledger = producer.ledger()
    progress = {"sent": ledger.sent, "acknowledged": ledger.acknowledged, "dead_lettered": ledger.dead_lettered}
    print(json.dumps(progress), flush=True)


def main() -> int:
    """Run one site; exits with the error's status and its sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m demo.site", description=__doc__)
    parser.add_argument("--tenant", required=True, choices=["ewr", "jfk", "lga"])
    parser.add_argument("--events", type=int, default=None)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--endpoint", default=None)
    given = parser.parse_args()
    # the SDK warns of every event it dead-letters; here they are meant, and the audit counts them
    logging.getLogger("producers").setLevel(logging.ERROR)
    try:
        Site(given.tenant, given.events, given.spool, given.lake, given.endpoint).push()
    except LakehoseError as error:
        sys.stderr.write(f"site {given.tenant}: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
