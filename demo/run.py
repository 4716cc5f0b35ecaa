"""Owns the demo's order of events: from an empty folder to answered questions, a balanced audit and a report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyathena
from rich.console import Console
from rich.table import Table

from athena.client import run_query
from demo import questions
from demo.flights import BAD_EACH, Kind, expected, flights
from demo.questions import Answer
from demo.report import Question, RunFacts, write_report
from demo.sites import Sites
from firehose.commands import flush_streams
from firehose.provision import provision_streams
from lake.audit import Sheet, balance, gather
from lake.audit_report import print_sheet
from lake.clients import Cloud
from lake.commands import print_changes
from lake.declaration import read_lake
from lake.errors import EnvironmentProblemError, FindingError
from lake.manifest import Manifest
from lake.provision import Outcome, provision_storage
from local.commands import how_to_point
from local.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo.flights import Expected
    from lake.declaration import Lake

__all__ = ["Demo"]

_DATASET = "flights"
_MARK = "demo.json"
_SHOWN = 10


@dataclass
class Demo:
    """One run of the demo."""

    lake_path: Path
    state: Path
    """Folder of the local endpoint and the sites' spools."""
    port: int
    events: int | None
    """Flights of all sites together; all 336,776 when None."""
    report_path: Path
    stages: list[tuple[str, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def run(self, *, resume: bool, chaos: bool) -> int:
        """Run it; answers the exit status: 1 when anything doesn't balance or an answer is wrong."""
        lake = read_lake(self.lake_path)
        self._claim_state(resume=resume)
        with self._stage("start the endpoint"):
            cloud = self._start_endpoint(lake)
        with self._stage("apply the lake"):
            self._apply(lake, cloud)
        wanted = {tenant.id: expected(tenant.id, self.events) for tenant in lake.tenants}
        with self._stage("push"):
            self._push(cloud, wanted, chaos=chaos)
        with self._stage("flush"):
            self._flush(cloud)
        with self._stage("ingest"):
            self._job("ingest", cloud)
        asked: list[Question] = []
        with self._stage("start Trino, ask $files"):
            asked.append(self._ask_files(lake, cloud, "Data files before compaction"))
            before = self._file_sizes(lake, cloud)
        with self._stage("compact"):
            self._job("compact", cloud)
        with self._stage("ask Athena"):
            asked.append(self._ask_files(lake, cloud, "Data files after compaction"))
            after = self._file_sizes(lake, cloud)
            asked += self._ask(lake, cloud)
        for question in asked:
            _show(question)
            self.problems += [f"{question.title}: {one}" for one in question.differences]
        with self._stage("audit"):
            sheet = balance(gather(lake, cloud, _DATASET))
        print_sheet(sheet)
        self._check_fates(sheet, wanted)
        facts = RunFacts(
            title=f"lakehose: {sum(one.ingested for one in wanted.values()):,} flights, from producers to answers",
            flights=flights(self.events),
            stages=tuple(self.stages),
            sheet=sheet,
            questions=tuple(asked),
            sizes={tenant.id: (before[tenant.id], after[tenant.id]) for tenant in lake.tenants},
            objects=self._objects(lake, cloud),
            problems=tuple(self.problems),
        )
        write_report(facts, self.report_path)
        self._close(cloud, lake)
        return 1 if self.problems else 0

    def _claim_state(self, *, resume: bool) -> None:
        endpoint, mark = Endpoint(self.state), self.state / _MARK
        given = {"events": self.events}
        if resume:
            if not mark.exists():
                raise EnvironmentProblemError(f"{self.state} holds no demo to go on with; run it without RESUME")
            found = json.loads(mark.read_text(encoding="utf-8"))
            if found != given:
                raise EnvironmentProblemError(
                    f"the demo in {self.state} was started with EVENTS={found['events'] or ''}; "
                    f"go on with the same, got EVENTS={self.events or ''}"
                )
            return
        if self.state.exists() and any(self.state.iterdir()):
            if not mark.exists():
                raise EnvironmentProblemError(
                    f"{self.state} holds a lake that is not the demo's; the demo would remove it. "
                    f"Remove it yourself with `lakehose local reset --state {self.state}`, or move it away"
                )
            endpoint.reset(self._say)
        self.state.mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps(given), encoding="utf-8")

    def _start_endpoint(self, lake: Lake) -> Cloud:
        url = Endpoint(self.state).up(self.port, lake.region, self._say)
        self._say("point any AWS client at it with")
        print(f"    {how_to_point(url, lake.region)}", flush=True)
        cloud = Cloud(lake.region, url)
        os.environ.update(cloud.environment())
        return cloud

    def _apply(self, lake: Lake, cloud: Cloud) -> None:
        print_changes([*provision_storage(lake, cloud), *provision_streams(lake, cloud)])
        again = [*provision_storage(lake, cloud), *provision_streams(lake, cloud)]
        changed = [one for one in again if one.outcome is not Outcome.UNCHANGED]
        self._say(f"applied once more: {len(again) - len(changed)} of {len(again)} unchanged")
        self.problems += [f"applying twice: {one.kind} {one.name} was {one.outcome}" for one in changed]

    def _push(self, cloud: Cloud, wanted: dict[str, Expected], *, chaos: bool) -> None:
        total = sum(one.sent for one in wanted.values())
        bad = sum(one.sent - one.ingested for one in wanted.values())
        kinds = ", ".join(kind for kind in Kind if kind is not Kind.GOOD)
        self._say(f"{len(wanted)} sites push {total:,} events, {bad:,} of them bad: {BAD_EACH} each of {kinds}")
        sites = Sites(
            tenants=tuple(wanted),
            events=self.events,
            folder=self.state / "sites",
            lake_path=self.lake_path,
            cloud=cloud,
            say=self._say,
            # a dead letter is never acknowledged
            wanted={tenant: one.sent - one.dead_lettered for tenant, one in wanted.items()},
        )
        sites.push(midway=self._chaos if chaos else None)

    def _chaos(self, sites: Sites) -> None:
        """Kill the Firehose server and a producer as a power cut would, and bring the server up again."""
        server = Endpoint(self.state).parts()["firehose"]
        process = server.process()
        if process is None:
            raise FindingError("the Firehose server had ended before it was to be killed")
        victim = sites.tenants[1]
        self._say(f"killing the Firehose server (process {server.pid}) and site {victim} with -9")
        sites.kill(victim)  # first, as it may be about to end
        process.kill()
        process.wait(30)  # on a busy machine it takes a while to die, and would be taken for one that is up
        Endpoint(self.state).up(self.port, sites.cloud.region, self._say)

    def _flush(self, cloud: Cloud) -> None:
        # a year in a minute: waiting for the buffers' 60 s would show nothing more
        for name, done in flush_streams(cloud.endpoint)["streams"].items():
            self._say(f"stream {name}: {done['objects']:,} objects with {done['records']:,} records at the flush")

    def _job(self, job: str, cloud: Cloud) -> None:
        command = [sys.executable, "-m", f"spark_jobs.{job}", "--lake", str(self.lake_path)]
        command += ["--endpoint", cloud.endpoint] if cloud.endpoint else []
        done = subprocess.run(command, env={**os.environ, **cloud.environment()}, check=False)
        if done.returncode:
            raise FindingError(f"job {job} ended with status {done.returncode}; what it printed says why")

    def _ask(self, lake: Lake, cloud: Cloud) -> list[Question]:
        source = flights(self.events)
        sql = questions.busiest_routes(lake)
        clock = time.monotonic()
        answer = _by_boto3(lake, cloud, sql)
        took = time.monotonic() - clock
        wrong = tuple(questions.differences(answer, questions.busiest_routes_of(source)))
        routes = Question("Busiest routes", "boto3", sql, answer, took, wrong)
        sql = questions.delays(lake)
        clock = time.monotonic()
        answer = _by_pyathena(lake, cloud, sql)
        took = time.monotonic() - clock
        wrong = tuple(questions.differences(answer, questions.delays_of(source)))
        return [routes, Question("Delay by carrier and month", "PyAthena", sql, answer, took, wrong)]

    def _ask_files(self, lake: Lake, cloud: Cloud, title: str) -> Question:
        sql = questions.files(lake)
        clock = time.monotonic()
        answer = _by_boto3(lake, cloud, sql)
        took = time.monotonic() - clock
        counts = flights(self.events).groupby("origin").size()
        wrong = tuple(
            f"{row[0]}: {row[3]} records in the files, {counts.get(str(row[0]).upper(), 0)} in the source"
            for row in answer.rows
            if row[3] != str(counts.get(str(row[0]).upper(), 0))
        )
        return Question(title, "boto3", sql, answer, took, wrong)

    def _file_sizes(self, lake: Lake, cloud: Cloud) -> dict[str, list[int]]:
        sizes: dict[str, list[int]] = {tenant.id: [] for tenant in lake.tenants}
        for tenant, size in _by_boto3(lake, cloud, questions.file_sizes(lake)).rows:
            sizes[str(tenant)].append(int(str(size)))
        return sizes

    def _objects(self, lake: Lake, cloud: Cloud) -> int:
        manifest = Manifest(cloud.dynamodb, lake.names.manifest_table())
        streams = lake.streams()
        return sum(len(manifest.taken(one.owner, _DATASET, f"s3://{one.bucket}/")) for one in streams)

    def _check_fates(self, sheet: Sheet, wanted: dict[str, Expected]) -> None:
        if not sheet.balanced:
            self.problems.append("the audit does not balance")
        rows = {row.tenant: row for row in sheet.rows}
        for tenant, fate in wanted.items():
            row = rows[tenant]
            # what a crash delivers twice is dropped, refused or quarantined twice, and the audit tells how often
            twice = row.duplicates + row.refused + row.quarantined
            twice -= fate.duplicates + fate.refused + fate.quarantined
            found = (row.sent, row.ingested, row.dead_lettered, twice)
            if found != (fate.sent, fate.ingested, fate.dead_lettered, row.redelivered):
                self.problems.append(f"fate of {tenant}'s events: expected {fate}, found {row}")

    def _close(self, cloud: Cloud, lake: Lake) -> None:
        table = Table("stage", title="times", title_justify="left", box=None)
        table.add_column("seconds", justify="right")
        for name, seconds in self.stages:
            table.add_row(name, f"{seconds:.1f}")
        table.add_row("in all", f"{time.monotonic() - self.started:.1f}", style="bold")
        Console(highlight=False).print(table)
        for problem in self.problems:
            print(f"PROBLEM: {problem}")
        database = lake.names.database(lake.tenants[0].id)
        print(f"The endpoint stays up on {cloud.endpoint}. Ask it something of your own:")
        command = f".venv/bin/lakehose --endpoint {cloud.endpoint} query --database {database}"
        print("   ", command, "'SELECT count(*) FROM flights'")
        print(f"End it: .venv/bin/lakehose local down --state {self.state}")
        print(self.report_path.resolve().as_uri().removeprefix("file://"), flush=True)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._say(f"== {name}")
        clock = time.monotonic()
        yield
        self.stages.append((name, time.monotonic() - clock))

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)


def _results(lake: Lake) -> str:
    owner = lake.owners()[-1]
    return f"s3://{lake.names.bucket(owner)}/query-results/"


def _by_boto3(lake: Lake, cloud: Cloud, sql: str) -> Answer:
    database = lake.names.database(lake.tenants[0].id)
    found = run_query(cloud, sql, database=database, output_location=_results(lake))
    return Answer(tuple(column.name for column in found.columns), tuple(tuple(row) for row in found.rows))


def _by_pyathena(lake: Lake, cloud: Cloud, sql: str) -> Answer:
    connection = pyathena.connect(
        s3_staging_dir=_results(lake),
        region_name=lake.region,
        schema_name=lake.names.database(lake.tenants[0].id),
        endpoint_url=cloud.endpoint,
        poll_interval=0.2,
    )
    with connection.cursor() as cursor:
        cursor.execute(sql)
        columns = tuple(str(one[0]) for one in cursor.description or ())
        rows = tuple(tuple(None if cell is None else str(cell) for cell in row) for row in cursor.fetchall())
    return Answer(columns, rows)


def _show(question: Question) -> None:
    table = Table(
        *question.answer.columns, title=f"{question.title} ({question.asked_by})", title_justify="left", box=None
    )
    for row in question.answer.rows[:_SHOWN]:
        table.add_row(*("" if cell is None else cell for cell in row))
    Console(highlight=False).print(table)
    if len(question.answer.rows) > _SHOWN:
        print(f"  … {len(question.answer.rows) - _SHOWN} rows more, in the report")
    print("  equals the source" if not question.differences else "  DIFFERS from the source", flush=True)
