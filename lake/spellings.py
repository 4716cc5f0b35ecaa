"""Owns how a contract's types are spelled in JSON, and what is said of a value that isn't.

Ingest and the Lambda function judge events by the same rules. The function is packed with this module, which therefore
needs the standard library alone and nothing else of ours.
"""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Any

__all__ = [
    "ASKED",
    "BITS",
    "EXACT",
    "IDENTITY_KEYS",
    "JSON_NAMES",
    "LARGEST_FLOAT",
    "LONGEST_KEY",
    "SPELLED",
    "VERSION",
    "envelope_troubles",
    "identity_texts",
]

BITS = {"int": 31, "long": 63}
"""Of whole numbers, beside the sign."""
LARGEST_FLOAT = 3.4028234663852886e38
"""Of 32 bits."""
ASKED = {
    "boolean": "true or false",
    "int": "a whole number of 32 bits",
    "long": "a whole number of 64 bits",
    "float": "a number of 32 bits",
    "double": "a number",
    "string": "a string",
    "date": "a date as 2013-01-31",
    "timestamptz": "a moment with its zone as 2013-01-31T10:00:00Z",
    "timestamp": "a moment without a zone as 2013-01-31T10:00:00",
    "binary": "a string in base64",
}
"""What a message says is allowed."""
_CLOCK = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?"
SPELLED = {
    "date": re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII),
    "timestamp": re.compile(_CLOCK, re.ASCII),
    "timestamptz": re.compile(rf"{_CLOCK}(?:Z|[+-]\d{{2}}:?\d{{2}})", re.ASCII),
}
"""The form of a date and of moments; not each string of the form is one."""
JSON_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a fraction",
    Decimal: "a fraction",
    str: "a string",
    dict: "an object",
    list: "a list",
}
"""What a message calls a parsed value."""
EXACT = Context(prec=100, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""For decimals: the usual context rounds at 28 digits."""
VERSION = re.compile(r"(\d+)\.\d+\.\d+", re.ASCII)
"""A schema version, and its major one."""
IDENTITY_KEYS = ("event_id", "tenant", "producer_id")
"""Members of the envelope that tell an event from all others."""
LONGEST_KEY = 256
"""Characters of each at most."""


def envelope_troubles(record: dict[str, Any], payload: Any) -> tuple[list[str], list[str]]:
    """What the envelope asks for beyond its types; returns what is missing, and what is wrong.

    Args:
        record: the event.
        payload: of it; None where there is none.
    """
    missing, wrong = [], []
    for name in IDENTITY_KEYS:
        value = record.get(name)
        if value == "":
            missing.append(name)
        elif type(value) is str and len(value) > LONGEST_KEY:
            wrong.append(f"{name}: allowed are at most {LONGEST_KEY} characters")
    sequence = record.get("sequence")
    if type(sequence) is int and sequence < 0:
        wrong.append(f"sequence: got {sequence}, allowed are numbers from 0")
    if payload is None:
        missing.append("payload")
    elif type(payload) is not dict:
        wrong.append("payload: allowed is an object")
    return missing, wrong


def identity_texts(record: dict[str, Any]) -> dict[str, Any]:
    """Those of `IDENTITY_KEYS` that can be believed, of any event: what is no string, empty or endless is nobody's."""
    return {
        name: value
        for name in IDENTITY_KEYS
        if type(value := record.get(name)) is str and 0 < len(value) <= LONGEST_KEY
    }
