from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from lake.clients import Cloud
from lake.declaration import read_lake
from lake.errors import DeclarationError, TerminalError, TransientError
from lake.manifest import Manifest
from lake.provision import _manifest
from producers.commands import send
from producers.testing import THROTTLE, RecordedFirehose

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lake():
    """The repository's own, with a manifest table for each test."""
    return replace(read_lake(ROOT / "lake.yaml"), environment=f"t{uuid.uuid4().hex[:8]}")


@pytest.fixture
def run(lake, ministack, tmp_path):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(send)

    def run(firehose, *arguments, given=None, table=True):
        cloud = Cloud("us-east-1", ministack)
        cloud.__dict__["firehose"] = firehose.client
        if table:
            _manifest(cloud, lake.names.manifest_table())
        command = ["--tenant", "ewr", "--dataset", "flights", "--spool", str(tmp_path / "spool"), *arguments]
        context = SimpleNamespace(lake=lambda: lake, cloud=lambda: cloud)
        result = CliRunner().invoke(app, command, input=given, obj=context, catch_exceptions=True)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def lines_of(tmp_path, *lines):
    path = tmp_path / "events.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_each_line_of_a_file_becomes_an_event_and_the_ledger_reaches_the_manifest(run, lake, tmp_path, cloud):
    firehose = RecordedFirehose()
    path = lines_of(tmp_path, '{"n":0,"at":"2026-01-31T12:00:00Z"}', '{"n":1,"at":"2026-01-31T13:00:00+01:00"}')
    result = run(firehose, "--producer-id", "site-1", "--event-time-field", "at", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "sent 2, acknowledged 2, dead-lettered 0, waiting 0 (producer site-1)\n"
    assert {call.stream for call in firehose.calls} == {f"acme-{lake.environment}-flights-ewr"}
    assert [(one["sequence"], one["event_time"], one["payload"]["n"]) for one in firehose.events()] == [
        (0, "2026-01-31T12:00:00.000Z", 0),
        (1, "2026-01-31T12:00:00.000Z", 1),
    ]
    assert [one["schema_version"] for one in firehose.events()] == ["1.0.0", "1.0.0"]
    (ledger,) = Manifest(cloud.dynamodb, lake.names.manifest_table()).ledgers("ewr", "flights")
    assert (ledger.producer_id, ledger.sent, ledger.acknowledged, ledger.dead_lettered) == ("site-1", 2, 2, 0)


def test_standard_input_is_read_for_a_dash(run):
    firehose = RecordedFirehose()
    assert run(firehose, "-", given=b'{"n":0}\n{"n":1}').exit_code == 0
    assert [one["payload"] for one in firehose.events()] == [{"n": 0}, {"n": 1}]


def test_bad_lines_are_named_the_others_are_sent_and_the_status_is_1(run, tmp_path):
    firehose = RecordedFirehose()
    path = lines_of(tmp_path, '{"n":0}', "[1]", '{"n":2}', "nonsense", '{"n":4}')
    result = run(firehose, path)
    assert result.exit_code == 1
    assert [one["payload"]["n"] for one in firehose.events()] == [0, 2, 4]
    first, second = result.stderr.splitlines()
    assert first == f"{path}: line 2: got [1], allowed is a JSON object"
    assert second.startswith(f"{path}: line 4: not JSON (")


def test_of_many_bad_lines_twenty_are_shown(run):
    result = run(RecordedFirehose(), "-", given=b"x\n" * 123)
    *shown, last = result.stderr.splitlines()
    assert (len(shown), last) == (20, "standard input: and 103 more lines that are no events")


def test_an_oversize_line_is_told_as_a_dead_letter_and_the_status_is_1(run, tmp_path):
    firehose = RecordedFirehose()
    path = lines_of(tmp_path, '{"n":0}', '{"text":"%s"}' % ("x" * 1_024_000))
    result = run(firehose, path)
    assert result.exit_code == 1
    assert "dead-lettered 1, waiting 0" in result.stdout
    assert result.stderr.startswith("dead letter: event 1 (")


def test_what_waits_after_the_timeout_is_sent_by_the_next_run(run, tmp_path):
    path = lines_of(tmp_path, '{"n":0}', '{"n":1}')
    with pytest.raises(TransientError, match=r"after 0\.2 s 2 events still wait"):
        run(RecordedFirehose(*[THROTTLE] * 1000), "--timeout", "0.2", path)
    firehose = RecordedFirehose()
    result = run(firehose, "/dev/null")
    assert result.stderr == "2 events of earlier runs were waiting\n"
    assert result.stdout.startswith("sent 0, acknowledged 2, dead-lettered 0, waiting 0 (producer send-")
    assert [one["payload"]["n"] for one in firehose.events()] == [0, 1]


def test_without_an_id_the_spool_folder_keeps_one_of_its_own(run, tmp_path):
    firehose = RecordedFirehose()
    for _ in range(2):
        run(firehose, "-", given=b"{}")
    assert len({one["producer_id"] for one in firehose.events()}) == 1
    assert [one["sequence"] for one in firehose.events()] == [0, 1]
    assert firehose.events()[0]["producer_id"].startswith("send-")


def test_an_unknown_tenant_is_refused_with_those_there_are(run):
    with pytest.raises(DeclarationError, match="tenant: got 'ewx', allowed are: ewr, jfk, lga; did you mean 'ewr'"):
        run(RecordedFirehose(), "--tenant", "ewx", "-", given=b"{}")


@pytest.mark.parametrize(("name", "why"), [("missing.jsonl", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(run, name, why):
    with pytest.raises(TerminalError, match=rf"{name}: can't be read: {why}; give a file, or - for standard input"):
        run(RecordedFirehose(), name)


def test_without_the_manifest_table_the_events_are_sent_and_the_sentence_says_what_to_do(run, lake):
    firehose = RecordedFirehose()
    with pytest.raises(
        TerminalError, match=r"manifest table acme-t\w+-manifest: there is none; `lakehose apply` makes"
    ):
        run(firehose, "-", given=b"{}", table=False)
    assert len(firehose.taken) == 1
