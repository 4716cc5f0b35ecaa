"""Owns the writers: a process that delivers objects while jobs run, and that changes tables as another engine would.

It takes commands as JSON, a line each, and answers with what it has delivered, an object a line, and `{"done": true}`
at the end of each command. It talks to S3 and Glue directly: Firehose isn't what is put to the test. What it draws
comes from one seed, so the same seed delivers the same records.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import time
from dataclasses import asdict, replace
from typing import Any

from pyiceberg.exceptions import CommitFailedException

from lake.clients import Cloud
from lake.manifest import Manifest, ProducerLedger
from lake.tables import QUARANTINE, glue_catalog
from tests.faults.world import DATASET, REFUSED, REGION, TENANT, Line, error_line, lake_of, new_line

_PRODUCERS = ("phone-1", "phone-2")
_USERS = 12
_FATES = ("row",) * 24 + ("malformed_json", "missing_field", "wrong_type", "clock_skew")
_NOISE = "noise"


class Writer:
    """Delivers into one lake."""

    def __init__(self, company: str, endpoint: str, seed: int) -> None:
        self._lake = lake_of(company)
        self._cloud = Cloud(REGION, endpoint)
        self._bucket = self._lake.names.bucket(TENANT)
        self._rng = random.Random(seed)  # noqa: S311 - no secret is drawn
        self._next = dict.fromkeys(_PRODUCERS, 0)
        self._users = [f"user-{number:03d}" for number in range(_USERS)]
        self._retired: set[str] = set()
        self._sent: list[Line] = []
        self._objects = 0

    def retire(self, user: str, *, silent: bool) -> None:
        """Send nothing new of a user; nothing old either, as long as it is silent."""
        if user in self._users:
            self._users[self._users.index(user)] = f"user-{_USERS + self._objects + len(self._retired):03d}"
        (self._retired.add if silent else self._retired.discard)(user)

    def write(self, objects: int, pause: float, *, rival: bool = False, kind: str = "") -> None:
        """Deliver some objects, of a kind or of any, and tell of each that S3 has taken."""
        for _ in range(objects):
            self._objects += 1
            self._deliver(kind or self._rng.choices(("events", "errors", "broken"), (12, 3, 1))[0])
            if rival:
                self._change_tables()
            time.sleep(pause)
        self._report()

    def _deliver(self, kind: str) -> None:
        name = f"{self._objects:05d}-{self._rng.getrandbits(32):08x}.gz"
        if kind == "errors":
            key = f"errors/metadata-extraction-failed/{DATASET}/2013/01/01/{name}"
            lines = [self._new("row") for _ in range(self._rng.randrange(1, 4))]
            self._put(key, kind, lines, [error_line(one.text) for one in lines])
            return
        key = f"processed/{DATASET}/tenant={TENANT}/year=2013/month=01/day=0{self._rng.randrange(1, 4)}/{name}"
        if kind == "broken":
            self._cloud.s3.put_object(Bucket=self._bucket, Key=key, Body=b"no gzip")
            self._tell(key, kind, [Line("unreadable_object")])
            return
        lines = []
        for _ in range(self._rng.randrange(2, 9)):
            lines.append(self._record())
            if self._rng.random() < 0.1:
                lines.append(lines[-1] if lines[-1].fate == "row" else self._new("row"))
        self._put(key, kind, lines, [one.text for one in lines])

    def _record(self) -> Line:
        draw = self._rng.random()
        old = [one for one in self._sent if one.user not in self._retired]
        if draw < 0.18 and old:
            return self._rng.choice(old[-60:])
        if draw < 0.2:
            return Line("malformed_json", text=_NOISE)
        return self._new(self._rng.choice(_FATES))

    def _new(self, fate: str) -> Line:
        producer = self._rng.choice(_PRODUCERS)
        sequence = self._next[producer]
        self._next[producer] += 1
        user = self._rng.choice(self._users)
        now_ms = round(time.time() * 1000)
        made = new_line(self._rng, now_ms=now_ms, producer=producer, sequence=sequence, user=user, fate=fate)
        if fate == "row":
            self._sent.append(made)
        return made

    def _put(self, key: str, kind: str, lines: list[Line], texts: list[str]) -> None:
        body = gzip.compress("".join(f"{one}\n" for one in texts).encode())
        self._cloud.s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        told = [replace(one, fate=REFUSED) for one in lines] if kind == "errors" else lines
        self._tell(key, kind, told)

    def _tell(self, key: str, kind: str, lines: list[Line]) -> None:
        told = [asdict(replace(one, text="")) for one in lines]
        _say({"object": f"s3://{self._bucket}/{key}", "kind": kind, "lines": told})

    def _report(self) -> None:
        manifest = Manifest(self._cloud.dynamodb, self._lake.names.manifest_table())
        for producer, sent in self._next.items():
            manifest.report(ProducerLedger(TENANT, DATASET, producer, sent, sent, 0, round(time.time() * 1000)))

    def _change_tables(self) -> None:
        """Commit to both tables what changes no row: whoever is at them has to commit upon it."""
        catalog = glue_catalog(self._cloud)
        for name in (DATASET, QUARANTINE):
            table = catalog.load_table((self._lake.names.database(TENANT), name))
            try:
                with table.transaction() as change:
                    change.set_properties({"tests.rival": str(self._objects)})
            except CommitFailedException:
                continue  # the job was faster


def _say(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _main() -> None:
    writer: Writer | None = None
    for line in sys.stdin:
        given = json.loads(line)
        match given.pop("do"):
            case "begin":
                writer = Writer(**given)
            case "retire" if writer:
                writer.retire(**given)
            case "write" if writer:
                writer.write(**given)
        _say({"done": True})


if __name__ == "__main__":
    _main()
