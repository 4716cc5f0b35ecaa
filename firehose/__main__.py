"""Runs the room's own commands: `python -m firehose serve …`, without the rest of the `lakehose` command."""

from firehose.commands import app

app(prog_name="firehose")
