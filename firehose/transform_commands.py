"""Owns `lakehose streams pack-transform`: writes the package of our Lambda function."""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firehose.transform_package import HANDLER, RUNTIME, package
from lake.errors import TerminalError

if TYPE_CHECKING:
    from lake.context import CommandContext

__all__ = ["pack_transform_command"]

_DEFAULT = Path("build/transform.zip")


def pack_transform_command(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(metavar="[OUT.zip]", help="File to write.")] = _DEFAULT,
) -> None:
    """Pack the Lambda function that checks and stamps events, with all contracts; the same bytes every time."""
    given: CommandContext = context.obj
    made = package(given.lake())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(made)
    except OSError as error:
        raise TerminalError(f"pack-transform: {out}: can't be written: {error.strerror}") from None
    # what AWS Lambda answers as CodeSha256 of a function
    digest = base64.b64encode(hashlib.sha256(made).digest()).decode()
    sys.stdout.write(f"{out}: {len(made):,} bytes, sha256 {digest}; handler {HANDLER}, runtime {RUNTIME}\n")
