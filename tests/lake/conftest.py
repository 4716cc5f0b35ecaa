"""Fixtures of the lake's tests: manifest tables, and a DynamoDB that leaves some of what it is asked for."""

from __future__ import annotations

import json
import uuid

import pytest
from botocore.awsrequest import AWSResponse

from lake.clients import Cloud
from lake.provision import _manifest


@pytest.fixture
def table(cloud):
    """Name of an empty manifest table."""
    name = f"manifest-{uuid.uuid4()}"
    _manifest(cloud, name)
    return name


@pytest.fixture
def busy(cloud):
    """Make clients whose first calls of a kind find DynamoDB busy: of a batch it does a few items, and leaves the rest.

    What it does it does in truth; the rest goes from the request into the answer, as DynamoDB would put it there.
    """

    def make(call, *, times, takes=0):
        client = Cloud(cloud.region, cloud.endpoint).dynamodb
        client.calls = []
        unprocessed = {"BatchWriteItem": "UnprocessedItems", "BatchGetItem": "UnprocessedKeys"}[call]

        def before(params, context, **_):
            body = json.loads(params["body"])
            ((table, batch),) = body["RequestItems"].items()
            requests = batch if isinstance(batch, list) else batch["Keys"]
            client.calls.append(len(requests))
            if len(client.calls) > times:
                return None
            done, left = (one if batch is requests else {**batch, "Keys": one} for one in halves(requests))
            if not takes:
                answer = {"Responses": {}, unprocessed: {table: left}, "ResponseMetadata": {"HTTPStatusCode": 200}}
                return AWSResponse("", 200, {}, None), answer
            context["left"] = {table: left}
            params["body"] = json.dumps({**body, "RequestItems": {table: done}}).encode()
            return None

        def after(parsed, context, **_):
            if "left" in context:
                parsed[unprocessed] = context.pop("left")

        def halves(requests):
            return requests[:takes], requests[takes:]

        client.meta.events.register(f"before-call.dynamodb.{call}", before)
        client.meta.events.register(f"after-call.dynamodb.{call}", after)
        return client

    return make
