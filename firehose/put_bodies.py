"""Owns taking the records of a PutRecordBatch out of its body, as SDKs write it, without making objects of its JSON.

SDKs write a body without a word too many, and base64 has no quotes: cut at what stands between two records, each piece
is one record's base64. Where each piece is, and what stands before and behind them is what SDKs write, the body can
mean nothing else; whatever is written in another way is for a parser.
"""

from __future__ import annotations

import binascii
import re

from pybase64 import b64decode

__all__ = ["read_batch"]

# those of Python put a space behind a comma and a colon; members are in the order that the caller gave them in
_NAME = rb'"DeliveryStreamName": ?"([a-zA-Z0-9_.-]{1,64})"'
_HEAD = re.compile(rb'\{(?:%b, ?)?"Records": ?\[\{"Data":( ?)"' % _NAME)
_TAIL = re.compile(rb'"\}\](?:, ?%b)?\}' % _NAME)
_MOST_TAIL = 128
"""Bytes; with the longest name it has 91."""
_BETWEEN = {b"": b'"},{"Data":"', b" ": b'"}, {"Data": "'}


def read_batch(body: bytes) -> tuple[str, list[bytes]] | None:
    """Read the stream's name and the records, decoded; None where a parser has to say what the body is."""
    head = _HEAD.match(body)
    end = body.rfind(b'"}]', max(0, len(body) - _MOST_TAIL))
    if head is None or end < head.end():
        return None
    tail = _TAIL.fullmatch(body, end)
    if tail is None or (head[1] is None) == (tail[1] is None):
        return None
    pieces = body.split(_BETWEEN[head[2]])
    # a quote that is missing makes what stands between records share one with the head or the tail
    if len(pieces[0]) < head.end() or len(pieces[-1]) < len(body) - end:
        return None
    pieces[-1] = pieces[-1][: end - len(body)]
    pieces[0] = pieces[0][head.end() :]
    try:
        data = [b64decode(one, None, True) for one in pieces]
    except (binascii.Error, ValueError):
        return None
    return (head[1] or tail[1]).decode("ascii"), data
