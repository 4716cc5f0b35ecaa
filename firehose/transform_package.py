"""Owns the package of our Lambda function: one zip with its code and the contracts, the same bytes every time.

Source: https://docs.aws.amazon.com/lambda/latest/dg/python-package.html
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firehose.transform import CONTRACTS
from lake.contract import ListOf, Primitive

if TYPE_CHECKING:
    from lake.contract import Contract, Field, FieldType
    from lake.declaration import Lake

__all__ = ["HANDLER", "RUNTIME", "package", "packed_contract"]

HANDLER = "firehose.transform.handler"
"""What AWS Lambda is told to call."""
RUNTIME = "python3.13"
"""Any from 3.11 on."""
_MODULES = (
    *("firehose/__init__.py", "firehose/contract_check.py", "firehose/transform.py"),
    *("lake/__init__.py", "lake/spellings.py"),
)
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX, _MODE = 3, 0o100644
"""Lambda runs the code as another user, who has to be able to read it."""


def package(lake: Lake) -> bytes:
    """Make the zip for all streams of a lake."""
    streams = {
        stream.name: {"dataset": stream.dataset.name, "tenants": sorted(stream.tenants)} for stream in lake.streams()
    }
    contracts = {one.name: packed_contract(one.contract) for one in lake.datasets}
    files = {name: (Path(__file__).parents[1] / name).read_bytes() for name in _MODULES}
    text = json.dumps({"contracts": contracts, "streams": streams}, indent=1, sort_keys=True)
    return _zipped({**files, CONTRACTS: f"{text}\n".encode()})


def _zipped(files: dict[str, bytes]) -> bytes:
    """Zip files by their names, in the names' order and without times."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system, entry.external_attr = _UNIX, _MODE << 16
            # not deflated: another zlib would make other bytes of the same files
            archive.writestr(entry, content, zipfile.ZIP_STORED)
    return made.getvalue()


def packed_contract(contract: Contract) -> dict[str, Any]:
    """What of a contract `firehose.contract_check` needs, as JSON."""
    return {
        "version": contract.version,
        "skew_minutes": contract.skew_minutes,
        "fields": [_field(one) for one in contract.fields],
    }


def _field(one: Field) -> dict[str, Any]:
    return {"name": one.name, "type": _type(one.type), "required": one.required}


def _type(kind: FieldType) -> dict[str, Any]:
    if isinstance(kind, ListOf):
        return {"list": _type(kind.element)}
    if not isinstance(kind, Primitive):
        return {"struct": [_field(one) for one in kind.fields]}
    if kind.name == "decimal":
        return {"name": kind.name, "precision": kind.precision, "scale": kind.scale}
    return {"name": kind.name}
