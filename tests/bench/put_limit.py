"""Owns the bare limit of the Firehose benchmark: what the work on the same bytes costs where nothing else is done.

`python -m tests.bench.put_limit '{…}'` with the members of `Load`: parses the requests, decodes base64, parses each
record, and compresses as many bytes at a time as the stream buffers. Prints seconds, by the clock and of the processor.
"""

from __future__ import annotations

import json
import sys
import time

import orjson
from pybase64 import b64decode

from firehose.containers import gzipped
from tests.bench.put_load import Load, request_bodies


def main() -> None:
    """Do it once."""
    load, buffer_bytes = Load(**json.loads(sys.argv[1])), int(sys.argv[2])
    bodies = request_bodies(load)
    wall, cpu = time.monotonic(), time.process_time()
    held: list[bytes] = []
    size = 0
    for number in range(load.requests):
        for record in orjson.loads(bodies[number % len(bodies)])["Records"]:
            raw = b64decode(record["Data"], validate=True)
            orjson.loads(raw)
            held.append(raw)
            size += len(raw) + 1
        if size >= buffer_bytes:
            gzipped(b"\n".join([*held, b""]))
            held, size = [], 0
    gzipped(b"\n".join([*held, b""]))
    told = {"seconds": time.monotonic() - wall, "cpu": time.process_time() - cpu}
    sys.stdout.write(f"{json.dumps(told)}\n")


if __name__ == "__main__":
    main()
