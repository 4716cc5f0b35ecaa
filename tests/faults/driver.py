"""Owns the driver: a process with one warm Spark that runs the jobs it is told, and dies where it is told.

Commands and answers are JSON, a line each. A run may carry a fault: after the n-th time that a job says a named step is
done, the driver kills what it was told to, or sets the relay's or toxiproxy's faults. It is the jobs' own code, with
their own errors: an answer tells what `python -m spark_jobs.<job>` would have ended with.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
import urllib.request
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psutil
from botocore.exceptions import BotoCoreError, ClientError

from lake import arrivals
from lake.clients import Cloud, is_passing
from lake.erasure import parse_subject
from lake.errors import CommitConflictError, FindingError, LakehoseError, TransientError
from spark_jobs import compact, erase, ingest, maintain, replay
from spark_jobs.erase_verify import verify
from spark_jobs.session import CATALOG, create_session
from tests.faults.world import DATASET, REFUSED, REGION, TENANT, lake_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

# a message whose reader was killed is seen again so late: long enough that the next job goes on without it, but two
# minutes would be most of the campaign
arrivals._INVISIBLE_SECONDS = 10


def _say(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _processes(pattern: str) -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [one for one in found if pattern in " ".join(_command(one))]


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def _call(url: str, method: str, body: Any = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    urllib.request.urlopen(request, timeout=10).close()


class Fault:
    """What happens after a step."""

    def __init__(self, given: dict[str, Any] | None) -> None:
        self._given = given or {}
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.steps: list[str] = []
        self.is_set = False

    def begin(self) -> None:
        """Let happen what is to happen before the first step."""
        if self._given and self._given["step"] is None:
            self.is_set = True
            self.set()

    def after(self, step: str) -> None:
        """What the jobs call after each of their steps."""
        with self._lock:
            self.steps.append(step)
            self._seen[step] += 1
            if self.is_set or step != self._given.get("step") or self._seen[step] != self._given.get("nth", 1):
                return
            self.is_set = True
        self.set()

    def set(self) -> None:
        """Let it happen."""
        _say({"fault": self._given.get("name"), "at": self._given.get("step")})
        match self._given.get("kill"):
            case "driver":
                os.killpg(os.getpgid(0), signal.SIGKILL)
            case "python":
                os.kill(os.getpid(), signal.SIGKILL)
            case "jvm":
                for one in _processes("SparkSubmit"):
                    one.kill()
            case "executor":
                for one in _processes("CoarseGrainedExecutorBackend"):
                    one.kill()
            case "workers":
                threading.Timer(self._given.get("delay", 0.0), _kill_workers).start()
        if rules := self._given.get("rules"):
            own = [{**one, **({"group": os.getpgid(0)} if one["action"].startswith("kill") else {})} for one in rules]
            _call(self._given["relay"] + "/_faults", "PUT", own)
        if toxic := self._given.get("toxic"):
            self._poison(toxic)

    def _poison(self, toxic: dict[str, Any]) -> None:
        url = f"{self._given['toxiproxy']}/proxies/aws"
        if toxic["type"] == "down":
            _call(url, "POST", {"enabled": False})
            heal = threading.Timer(toxic["seconds"], lambda: _call(url, "POST", {"enabled": True}))
        else:
            made = {"name": "fault", "type": toxic["type"], "stream": toxic["stream"], "attributes": toxic["with"]}
            _call(f"{url}/toxics", "POST", made)
            heal = threading.Timer(toxic["seconds"], lambda: _call(f"{url}/toxics/fault", "DELETE"))
        heal.daemon = True
        heal.start()


def _kill_workers() -> None:
    """Kill the Python processes that carry out tasks, with the one that makes them."""
    for _ in range(50):
        found = _processes("pyspark.daemon")
        for one in found:
            with suppress(psutil.Error):
                one.kill()
        if found:
            return
        time.sleep(0.05)


class Driver:
    """Runs commands on one Spark session."""

    def __init__(self, endpoint: str, master: str) -> None:
        self._cloud = Cloud(REGION, endpoint)
        cores, extra = (master, {}) if not master.startswith("local") else ("2", {"spark.master": master})
        small = {"spark.sql.shuffle.partitions": "2", "spark.executor.memory": "1g", **extra}
        self._spark: SparkSession = create_session(self._cloud, app_name="faults", cores=cores, extra=small)

    def run(self, given: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command; answers what became of it."""
        fault = Fault(given.get("fault"))
        said: list[str] = []
        started = time.monotonic()
        told: dict[str, Any] = {"outcome": "done"}
        try:
            fault.begin()
            told["report"] = self._job(given, fault.after, said.append)
        except (TransientError, ClientError, BotoCoreError) as error:
            passing = isinstance(error, TransientError) or is_passing(error)
            kind = "conflict" if isinstance(error, CommitConflictError) else "transient" if passing else "refused"
            told = {"outcome": kind, "error": f"{type(error).__name__}: {error}"}
        except LakehoseError as error:
            kind = "finding" if isinstance(error, FindingError) else "terminal"
            told = {"outcome": kind, "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        except Exception as error:  # noqa: BLE001 - the campaign tells what nobody meant to raise
            told = {"outcome": "crash", "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        return {**told, "steps": fault.steps, "said": said[-12:], "seconds": round(time.monotonic() - started, 2)}

    def _job(self, given: dict[str, Any], after: Callable[[str], None], say: Callable[[str], None]) -> Any:
        lake = lake_of(given["company"])
        common: dict[str, Any] = {"say": say, "after": after}
        match given["job"]:
            case "ingest":
                done = ingest.run(self._spark, lake, self._cloud, **common)
                return {"batches": len(done.batches), "rebuilt": len(done.rebuilt), "busy": list(done.busy)}
            case "compact":
                packed = compact.run(self._spark, lake, self._cloud, **common)
                conflicts = [sentence for one in packed.tables for sentence in one.conflicts]
                return {"rewritten": [one.table for one in packed.tables if one.rewritten], "conflicts": conflicts}
            case "maintain":
                later = datetime.now(UTC) + timedelta(days=given.get("days", 0))
                kept = maintain.run(self._spark, lake, self._cloud, clock=lambda: later, **common)
                names = ("expired", "delete_files_removed", "orphans", "waiting")
                return {name: sum(getattr(one, name) for one in kept.tables) for name in names}
            case "erase":
                who = parse_subject(lake, TENANT, [f"user_id={given['user']}"])
                receipt = erase.run(self._spark, lake, self._cloud, who, given["erasure"], **common)
                return {"id": receipt.id, "notes": list(receipt.notes)}
            case "verify":
                who = parse_subject(lake, TENANT, [f"user_id={given['user']}"])
                found = verify(self._spark, lake, self._cloud, who, given["erasure"])
                left = {name: count for name, count in found.remaining.items() if count}
                return {"clean": found.is_clean, "left": left, "snapshots": dict(found.snapshots)}
            case "replay":
                sent = replay.run(self._spark, lake, self._cloud, dataset=DATASET, reason=REFUSED, **common)
                return {"replayed": sent.total, "already": sent.already, "erased": sent.erased}
            case "rows":
                return self._rows(lake.names.database(TENANT))
            case "touch":
                return self._touch(f"{CATALOG}.{lake.names.database(TENANT)}.{DATASET}")
        raise ValueError(given["job"])

    def _touch(self, table: str) -> None:
        """Write every row anew as it is, and delete the old by their positions: as another engine's update does."""
        self._spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('write.update.mode' = 'merge-on-read')")
        self._spark.sql(f"UPDATE {table} SET page = page")  # noqa: S608 - names of the campaign

    def _rows(self, database: str) -> Any:
        rows = self._spark.table(f"{CATALOG}.{database}.{DATASET}").selectExpr(
            *("event_id", "producer_id", "sequence", "unix_millis(event_time)", "page", "user_id", "seconds")
        )
        bad = self._spark.table(f"{CATALOG}.{database}.quarantine").select("object", "position", "reason")
        return {"rows": [list(one) for one in rows.collect()], "quarantine": [list(one) for one in bad.collect()]}


def _main() -> None:
    endpoint, master = sys.argv[1:]
    # what Spark prints is no answer
    answers = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(answers, "w")
    driver = Driver(endpoint, master)
    _say({"ready": os.getpid()})
    for line in sys.stdin:
        _say(driver.run(json.loads(line)))


if __name__ == "__main__":
    _main()
