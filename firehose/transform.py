"""Owns our Lambda function: each event is checked against its contract, stamped, and passed on or failed with a reason.

It runs as a transform of a delivery stream, in AWS and here, and needs the standard library alone (Python 3.11 or
newer) and what is packed with it (`firehose.transform_package`). An event keeps its bytes: `processed_at`, and
`schema_version` where the event has none, are put before its first key. Firehose keeps of a failed event what came in
and says only that it failed, so the reason is in the function's log, a JSON object a line, without the event's content.
Source: https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firehose.contract_check import EventCheck, RefusedError, parse_event
from lake.spellings import LONGEST_KEY, identity_texts

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONTRACTS", "PROCESSED_AT", "Transform", "handler"]

CONTRACTS = "contracts.json"
"""The file that is packed at the top: `{"contracts": {dataset: Contract}, "streams": {name: Stream}}`."""
PROCESSED_AT = "processed_at"
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z", re.ASCII)
_BREAKS = re.compile(rb"\r\n|\r|\n")
_TOLD = 20
"""Lines of the log about single events, an invocation and reason; all are counted."""


class Transform:
    """The events of all streams whose contracts are packed.

    Args:
        packed: content of `contracts.json`. A stream is known by its dataset and tenants; a stream that isn't there
            may carry any dataset of any tenant.
        now: the clock.
        log: takes a line.
    """

    def __init__(self, packed: dict[str, Any], now: Callable[[], datetime], log: Callable[[str], object]) -> None:
        self._contracts: dict[str, dict[str, Any]] = packed["contracts"]
        self._streams: dict[str, dict[str, Any]] = packed["streams"]
        self._checks: dict[tuple[str, str | None], EventCheck] = {}
        self._now = now
        self._log = log

    def run(self, event: dict[str, Any]) -> dict[str, Any]:
        """Transform a batch; the event and the answer have Firehose's shapes."""
        stream = event["deliveryStreamArn"].rpartition("/")[2]
        now = self._now()
        counts: Counter[str] = Counter()
        answered = [self._one(one, stream, now, counts) for one in event["records"]]
        if counts:
            told = {"stream": stream, "invocation": event["invocationId"], "records": len(answered)}
            self._log(json.dumps({"level": "warning", "message": "events failed", **told, "failed": dict(counts)}))
        return {"records": answered}

    def _one(self, given: dict[str, Any], stream: str, now: datetime, counts: Counter[str]) -> dict[str, Any]:
        raw = base64.b64decode(given["data"])
        record: dict[str, Any] = {}
        try:
            check, record = self._parsed(raw, stream)
            inserted = _stamps(record, check.version, now)
            found = check.check(record, now)
        except RefusedError as error:
            counts[error.code] += 1
            if counts[error.code] <= _TOLD:
                told = {"reason": error.code, "message": str(error), "stream": stream, "recordId": given["recordId"]}
                self._log(json.dumps({"level": "warning", **told, "identity": _identity(record)}))
            return {"recordId": given["recordId"], "result": "ProcessingFailed", "data": given["data"]}
        moment = found.event_time
        day = {"year": f"{moment.year:04d}", "month": f"{moment.month:02d}", "day": f"{moment.day:02d}"}
        return {
            "recordId": given["recordId"],
            "result": "Ok",
            "data": base64.b64encode(_with(raw, inserted)).decode(),
            "metadata": {"partitionKeys": {"dataset": record["dataset"], "tenant": found.tenant, **day}},
        }

    def _parsed(self, raw: bytes, stream: str) -> tuple[EventCheck, dict[str, Any]]:
        declared = self._streams.get(stream)
        record = parse_event(raw)
        dataset = record.get("dataset") if declared is None else declared["dataset"]
        if type(dataset) is not str:
            raise RefusedError(*(("missing_field", "missing: dataset") if dataset is None else _WRONG_DATASET))
        if dataset not in self._contracts:
            known = ", ".join(sorted(self._contracts))
            raise RefusedError(
                "unknown_dataset", f"the record says dataset {dataset[:LONGEST_KEY]}, known are: {known}"
            )
        key = (dataset, None if declared is None else stream)
        check = self._checks.get(key)
        if check is None:
            tenants = None if declared is None else frozenset(declared["tenants"])
            check = self._checks[key] = EventCheck(dataset, self._contracts[dataset], tenants)
        return check, parse_event(raw, exact=True) if check.exact else record


_WRONG_DATASET = ("wrong_type", "dataset: allowed is a string")


def _stamps(record: dict[str, Any], version: str, now: datetime) -> dict[str, str]:
    """Keys that an event lacks; they are put into the record too, as it is checked as it will be."""
    if PROCESSED_AT in record:
        # it comes round again, after a fix: the first time counts
        stamp = record[PROCESSED_AT]
        if type(stamp) is not str or not _MOMENT.fullmatch(stamp):
            raise RefusedError("wrong_type", f"{PROCESSED_AT}: allowed is a moment as 2013-01-31T10:00:00.000Z")
        made = {}
    else:
        made = {PROCESSED_AT: now.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    if "schema_version" not in record:
        made["schema_version"] = version
    record |= made
    return made


def _with(raw: bytes, inserted: dict[str, str]) -> bytes:
    """An event's own bytes, on one line, with keys put before its first."""
    # outside of strings a newline is white space, and inside of them JSON has none
    line = _BREAKS.sub(b" ", raw.strip())
    if not inserted:
        return line
    return json.dumps(inserted, separators=(",", ":")).encode()[:-1] + b"," + line[1:].lstrip()


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = identity_texts(record)
    if type(sequence := record.get("sequence")) is int:
        found["sequence"] = sequence
    return found


_loaded: list[Transform] = []


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Answer an invocation; what AWS Lambda calls."""
    if not _loaded:  # once for each environment that Lambda keeps
        packed = json.loads((Path(__file__).parents[1] / CONTRACTS).read_text(encoding="utf-8"))
        _loaded.append(Transform(packed, lambda: datetime.now(UTC), lambda line: sys.stdout.write(f"{line}\n")))
    return _loaded[0].run(event)
