"""Unmodified SDKs of other languages against the server: JavaScript v3, Go v2; boto3 and aws-cli are in tests/firehose.

Each SDK is fetched and built once, into the user's cache, by its own tool and held to its lock file. Without the tool,
or where it can't fetch, the language is left out, and that is said.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "firehose"))
from conftest import Bucket, client, running

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakehose"


def built(language, tool, command, *sources):
    """A folder with the sources, where `command` was run once."""
    program = shutil.which(tool) or (
        f"/usr/local/go/bin/{tool}" if Path(f"/usr/local/go/bin/{tool}").is_file() else None
    )
    if program is None:
        pytest.skip(f"{language}: there is no {tool} on PATH")
    contents = b"".join((HERE / language / one).read_bytes() for one in sources)
    place = CACHE / f"sdk-{language}-{hashlib.sha256(contents).hexdigest()[:16]}"
    if not (place / "built").is_file():
        place.mkdir(parents=True, exist_ok=True)
        for one in sources:
            shutil.copy(HERE / language / one, place)
        done = subprocess.run([program, *command], cwd=place, capture_output=True, text=True, check=False, timeout=540)
        if done.returncode:
            pytest.skip(f"{language}: {tool} can't fetch or build the SDK: {done.stderr.strip()[-400:]}")
        (place / "built").touch()
    return place


def javascript():
    place = built("js", "npm", ["ci", "--no-audit", "--no-fund"], "package.json", "package-lock.json", "client.mjs")
    return ["node", str(place / "client.mjs")]


def go():
    place = built("go", "go", ["build", "-o", "client", "."], "go.mod", "go.sum", "main.go")
    return [str(place / "client")]


@pytest.fixture
def bucket(ministack):
    s3 = client("s3", ministack)
    made = Bucket("sdk-clients", s3)
    s3.create_bucket(Bucket=made.name)
    yield made
    for key in made.objects():
        s3.delete_object(Bucket=made.name, Key=key)
    s3.delete_bucket(Bucket=made.name)


@pytest.fixture
def server(ministack, tmp_path):
    for make in running(tmp_path, ministack):
        yield make()


def seen(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("program", [javascript, go])
def test_an_sdk_creates_puts_describes_updates_tags_lists_and_deletes(program, server, bucket):
    command = program()
    name = program.__name__
    expected = {
        "arn": f"arn:aws:firehose:us-east-1:000000000000:deliverystream/{name}",
        "recordId": "string",
        "encrypted": False,
        "failedPutCount": 0,
        "responses": 2,
        "tags": [["stage", "test"]],
        "status": "ACTIVE",
        "created": True,
        "versions": ["1", "2"],
        "prefixes": ["events/", "later/"],
        "listed": True,
        "errors": ["ResourceNotFoundException", "ResourceInUseException", "ValidationException"],
    }
    assert seen([*command, server.url, name, bucket.name, "keep"]) == {**expected, "deleted": False}
    server.flush()
    (key,) = bucket.objects()
    assert key.startswith("events/")
    assert gzip.decompress(bucket.body(key)).decode().splitlines() == ["one", "two", "größer"]

    assert seen([*command, server.url, f"{name}-2", bucket.name])["deleted"] is True
    assert server.firehose.list_delivery_streams()["DeliveryStreamNames"] == [name]
