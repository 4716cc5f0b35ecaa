import asyncio
import json

import httpx
import pytest

from local.gateway import Gateway, ministack_environment


def saying(name):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"{name} {scope['path']}".encode()})

    return app


def firehose_server(request):
    return httpx.Response(
        200,
        headers={"x-amzn-requestid": "r1", "connection": "close"},
        json={"path": request.url.path, "query": request.url.query.decode(), "body": request.content.decode()},
    )


def call(firehose, method="POST", path="/", target=None, content=b""):
    async def once():
        away = httpx.AsyncClient(base_url="http://firehose", transport=firehose)
        gateway = Gateway(saying("ministack"), saying("athena"), away)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway") as client:
            headers = {"x-amz-target": target} if target else {}
            return await client.request(method, path, headers=headers, content=content)

    return asyncio.run(once())


UP = httpx.MockTransport(firehose_server)


@pytest.mark.parametrize("target", ["Firehose_20150804.PutRecord", "ServiceQuotasV20190624.ListServiceQuotas"])
def test_firehose_and_its_quotas_go_to_the_firehose_server(target):
    answer = call(UP, target=target, content=b'{"a":1}')
    assert answer.json() == {"path": "/", "query": "", "body": '{"a":1}'}
    assert answer.headers["x-amzn-requestid"] == "r1"


def test_athena_goes_to_athena():
    assert call(UP, target="AmazonAthena.StartQueryExecution").text == "athena /"


def test_everything_else_goes_to_ministack():
    assert call(UP, target="AWSGlue.GetTables").text == "ministack /"
    assert call(UP, method="GET", path="/bucket/key").text == "ministack /bucket/key"


def test_the_servers_own_calls_are_forwarded_below_their_prefix():
    answer = call(UP, path="/_lakehose/firehose/flush?stream=a")
    assert answer.json() == {"path": "/_lakehose/flush", "query": "stream=a", "body": ""}


def test_a_server_that_is_away_is_answered_with_awss_word_for_try_again():
    def refuse(request):
        raise httpx.ConnectError("refused", request=request)

    answer = call(httpx.MockTransport(refuse), target="Firehose_20150804.PutRecordBatch")
    assert answer.status_code == 503
    assert answer.json()["__type"] == "ServiceUnavailableException"
    assert "`lakehose local up`" in json.loads(answer.content)["message"]


def test_ministack_is_told_to_stay_on_loopback_and_to_keep_all_below_the_state_folder(tmp_path):
    settings = ministack_environment(tmp_path, 4566, "eu-west-1")
    assert settings["BIND_HOST"] == "127.0.0.1"
    assert {settings["STATE_DIR"], settings["S3_DATA_DIR"]} == {str(tmp_path / "services"), str(tmp_path / "s3")}
    assert (settings["PERSIST_STATE"], settings["S3_PERSIST"]) == ("1", "1")
