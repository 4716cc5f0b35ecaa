"""Owns the process that runs jq's queries: each within its time and memory, or the process ends.

It is started as a script, and takes nothing but the standard library and libjq. It reads questions from its standard
input and writes answers to its standard output, each as its length in eight bytes and JSON behind it:

- `[query, text, seconds]`: run the query on the JSON values of a text, in so much time of the processor;
- `[answer, seconds]`: the time of the processor that it took, and `[[outputs of the first value], …]`, as the query
  collects them, or a string that tells why the text is no JSON.

Whoever asks needs no more of an output than its keys and their scalars, so of deeper values only the kind is told, and
of a long text the beginning: it makes no key of an object.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from functools import lru_cache
from typing import Any

import jq

__all__ = ["HEAD", "MEMORY_BYTES"]

HEAD = 8
"""Bytes of a length, big-endian."""
MEMORY_BYTES = 1 << 30
"""Address space; a put's records are at most 4 MiB, which libjq holds some twenty times over."""
_OUTPUTS = 100
"""Of one value that are told; all but one are too many anyway."""
_TEXT = 2_000
"""Characters of a text; a key of S3 has at most 1,024 bytes."""
_TOLD = 500
"""Characters of an error's message."""


@lru_cache(maxsize=64)
def _program(query: str) -> Any:
    return jq.compile(query)


def _shallow(answer: Any) -> Any:
    if isinstance(answer, dict):  # the query caught an error
        return {"error": str(answer["error"])[:_TOLD]}
    return [
        {key: _scalar(value) for key, value in one.items()} if isinstance(one, dict) else _scalar(one)
        for one in answer[:_OUTPUTS]
    ]


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_TEXT]
    return [] if isinstance(value, list) else {} if isinstance(value, dict) else value


def _answer(query: str, text: str, seconds: float) -> Any:
    # The default of this signal ends the process. It counts time of the processor: on a busy machine a query doesn't
    # get less.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return [_shallow(one) for one in _program(query).input_text(text)]
    except (ValueError, RecursionError) as error:
        return str(error)[:_TOLD]
    except MemoryError:
        os._exit(1)  # nothing that needs memory
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _read(count: int) -> bytes:
    parts = []
    while count and (part := os.read(0, min(count, 1 << 20))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts) if not count else b""


def _write(reply: bytes) -> None:
    left = memoryview(reply)
    try:
        while left:
            left = left[os.write(1, left) :]
    except BrokenPipeError:
        os._exit(0)  # whoever asked was killed


def _main() -> None:
    # who asks ends it by closing the pipe; what is sent to all processes of a terminal or a unit is not for this one
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (head := _read(HEAD)) and (question := _read(int.from_bytes(head))):
        started = time.process_time()
        reply = json.dumps([_answer(*json.loads(question)), time.process_time() - started]).encode()
        _write(len(reply).to_bytes(HEAD) + reply)


if __name__ == "__main__":
    _main()
