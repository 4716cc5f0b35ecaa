"""Clients of AWS, as they are set up for an endpoint."""

from __future__ import annotations

from base64 import b64encode
from zlib import crc32

import pytest
from botocore.awsrequest import AWSResponse

from lake.clients import Cloud

BODY = b"records" * 1000
SUM = b64encode(crc32(BODY).to_bytes(4, "big")).decode()


class Raw:
    def stream(self, *_, **__):
        return iter([b""])


@pytest.mark.parametrize(
    ("endpoint", "hashed"),
    [("http://127.0.0.1:9", False), ("http://localhost:9", False), ("http://s3.example:9000", True)],
)
def test_a_body_is_signed_where_others_stand_between_and_carries_its_checksum_everywhere(monkeypatch, endpoint, hashed):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    client = Cloud("us-east-1", endpoint).single_try("s3")
    seen = []

    def answer(request, **_):
        seen.append(dict(request.headers.items()))
        return AWSResponse(request.url, 200, {}, Raw())

    client.meta.events.register("before-send.s3.PutObject", answer)
    client.put_object(Bucket="bucket", Key="key", Body=BODY)
    headers = {name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in seen[0].items()}
    assert (headers["x-amz-content-sha256"] != "UNSIGNED-PAYLOAD") is hashed
    assert headers["x-amz-checksum-crc32"] == SUM
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
