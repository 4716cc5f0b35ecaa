"""Requests between processes: their stream found, their bytes untouched, their failures told apart."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import stat

import orjson
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from firehose import handing_on
from firehose.handing_on import Door, Peer, PeerAwayError, PeerLostError, Request, listen_at, stream_name
from firehose.merging import merge_metrics, merge_statuses
from lake.aws_json import Reply
from lake.errors import EnvironmentProblemError


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"DeliveryStreamName": "clicks", "Records": [{"Data": "YQ=="}]}', "clicks"),
        (b'{"Records":[{"Data":"YQ=="}],"DeliveryStreamName":"clicks"}\n', "clicks"),
        (b'{"A":1,"DeliveryStreamName":"in.the_middle-1","Records":[]}', "in.the_middle-1"),
        (b'{"DeliveryStreamName":"first","DeliveryStreamName":"last"}', "last"),
        (b'{"DeliveryStreamName":"first","Delivery\\u0053treamName":"last"}', "last"),
        (b'{"Delivery\\u0053treamName":"clicks"}', "clicks"),
        (b'{"Records":[{"DeliveryStreamName":"inside"}]}', None),
        (b'{"Records":[],"X":{"DeliveryStreamName":"inside"}}', None),
        (b'{"X":"DeliveryStreamName","Y":":"}', None),
        (b'{"X":"\\",\\"DeliveryStreamName\\":\\"said\\"","DeliveryStreamName":"meant"}', "meant"),
        (b'{"DeliveryStreamName": 5}', None),
        (b'{"DeliveryStreamName": "a b"}', "a b"),
        (b'[{"DeliveryStreamName":"clicks"}]', None),
        (b"{", None),
        (b"", None),
    ],
)
def test_the_stream_of_a_put_is_found(body, name):
    assert stream_name(body) == name


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from(["DeliveryStreamName", '"DeliveryStreamName"']),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["DeliveryStreamName", "Records", "Data", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(
    st.lists(st.tuples(st.sampled_from(["DeliveryStreamName", "Records", "x"]), values), max_size=4),
    st.booleans(),
    st.sampled_from(["", " ", "\n\t"]),
)
def test_the_stream_is_the_one_that_a_parser_finds(members, ascii_, space):
    pairs = [f"{json.dumps(name)}{space}:{json.dumps(value, ensure_ascii=ascii_)}" for name, value in members]
    body = ("{" + f",{space}".join(pairs) + "}" + space).encode("utf-8", "surrogatepass")
    try:
        parsed = orjson.loads(body).get("DeliveryStreamName")
    except orjson.JSONDecodeError:
        parsed = None
    assert stream_name(body) == (parsed if isinstance(parsed, str) else None)


def test_a_usual_body_is_not_parsed_for_its_stream(monkeypatch):
    def loads(_):
        raise AssertionError("it was parsed")

    monkeypatch.setattr(handing_on.orjson, "loads", loads)
    data = base64.b64encode(bytes(range(256)) * 8).decode()
    for body in (
        {"DeliveryStreamName": "clicks", "Records": [{"Data": data}] * 400},
        {"Records": [{"Data": data}] * 400, "DeliveryStreamName": "clicks"},
    ):
        assert stream_name(json.dumps(body).encode()) == "clicks"
        assert stream_name(json.dumps(body, separators=(",", ":")).encode()) == "clicks"


async def opened(path, answer):
    door = Door(answer)
    await door.open(listen_at(path))
    return door


def test_requests_and_replies_come_as_they_are_many_at_once(tmp_path):
    async def answer(request):
        await asyncio.sleep(0.05 if request.body.startswith(b"slow") else 0)
        told = f"{request.method} {request.path}?{request.query} {request.target}"
        return Reply(request.body[::-1], status=418, headers={"x-told": told}, content_type="text/x")

    async def main():
        door = await opened(tmp_path / "p.sock", answer)
        peer = Peer(tmp_path / "p.sock")
        bodies = [b"slow first", b"", bytes(range(256)) * 20_000, *(b"%d" % number for number in range(200))]
        replies = await asyncio.gather(
            *(peer.ask(Request("POST", "/x", "a=b", "T.Op", body), timeout=30) for body in bodies)
        )
        assert [one.body for one in replies] == [body[::-1] for body in bodies]
        assert {(one.status, one.headers["x-told"], one.content_type) for one in replies} == {
            (418, "POST /x?a=b T.Op", "text/x")
        }
        peer.close()
        await door.close(5)

    asyncio.run(main())
    assert stat.S_IMODE((tmp_path / "p.sock").stat().st_mode) == 0o600


def test_who_is_not_there_is_told_apart_from_who_went_away(tmp_path):
    async def main():
        path = tmp_path / "p.sock"
        peer = Peer(path)
        with pytest.raises(PeerAwayError):
            await peer.ask(Request("GET", "/"), timeout=5)
        held = asyncio.Event()

        async def never(_):
            await held.wait()

        door = await opened(path, never)
        with pytest.raises(PeerLostError, match=r"within 0\.1 s"):
            await peer.ask(Request("GET", "/"), timeout=0.1)
        asking = asyncio.create_task(peer.ask(Request("GET", "/"), timeout=30))
        await asyncio.sleep(0.1)
        await door.close(0)
        with pytest.raises(PeerLostError, match="ended"):
            await asking

        async def quick(_):
            return Reply(b"again")

        door = await opened(path, quick)
        assert (await peer.ask(Request("GET", "/"), timeout=5)).body == b"again"
        peer.close()
        await door.close(5)
        with pytest.raises(PeerAwayError):
            await peer.ask(Request("GET", "/"), timeout=5)

    asyncio.run(main())


def test_a_connection_that_was_closed_under_uvloop_is_one_that_was_lost(tmp_path):
    told = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        held = asyncio.Event()

        async def late(_):
            await held.wait()
            return Reply(b"late")

        door = await opened(tmp_path / "p.sock", late)
        peer = Peer(tmp_path / "p.sock")
        asking = asyncio.create_task(peer.ask(Request("GET", "/"), timeout=30))
        await asyncio.sleep(0.1)
        # as by a process that is killed: the connection is closed, and whoever reads of it isn't told yet
        peer._connection.writer.transport.abort()
        another = asyncio.create_task(peer.ask(Request("GET", "/"), timeout=30))
        with pytest.raises(PeerLostError, match="ended"):
            await another
        with pytest.raises(PeerLostError, match="ended"):
            await asking
        await asyncio.sleep(0.1)
        held.set()  # nobody is there any more to be answered
        await asyncio.sleep(0.1)
        await door.close(5)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
        gc.collect()
    assert not told


def test_who_takes_nothing_is_given_only_so_much(tmp_path, monkeypatch):
    monkeypatch.setattr(handing_on, "_MOST_WAITING", 2 << 20)

    async def main():
        listener = listen_at(tmp_path / "p.sock")  # connected to, and never read
        peer = Peer(tmp_path / "p.sock")
        body = b"x" * (1 << 20)
        told = []
        for _ in range(6):
            with pytest.raises(PeerLostError) as caught:
                await peer.ask(Request("POST", "/", body=body), timeout=0.05)
            told.append(str(caught.value))
        assert told[0] == "p didn't answer within 0.05 s"
        assert told[-3:] == ["p takes nothing"] * 3
        peer.close()
        listener.close()

    asyncio.run(main())


def test_a_socket_whose_name_is_too_long_is_told(tmp_path):
    with pytest.raises(EnvironmentProblemError, match=r"longer than the 107 bytes of a socket's name"):
        listen_at(tmp_path / ("x" * 120) / "p.sock")


def test_figures_of_processes_are_told_apart_and_those_of_streams_left_as_they_are():
    text = (
        "# HELP a_total A thing\n# TYPE a_total counter\n{streams}"
        "# HELP b B\n# TYPE b gauge\nb {b}\n"
        '# HELP c_total C\n# TYPE c_total counter\nc_total{{code="x"}} 1.0\n'
        "# HELP firehose_active_partition_quota Q\n# TYPE firehose_active_partition_quota gauge\n"
        "firehose_active_partition_quota 500.0\n"
    )
    found = {
        0: text.format(streams='a_total{stream="s"} 4.0\n', b="1.0"),
        1: text.format(streams='a_total{stream="t",code="process"} 5.0\n', b="2.0"),
        2: None,
    }
    assert merge_metrics(found).splitlines() == [
        "# HELP a_total A thing",
        "# TYPE a_total counter",
        'a_total{stream="s"} 4.0',
        'a_total{stream="t",code="process"} 5.0',
        "# HELP b B",
        "# TYPE b gauge",
        'b{process="0"} 1.0',
        'b{process="1"} 2.0',
        "# HELP c_total C",
        "# TYPE c_total counter",
        'c_total{process="0",code="x"} 1.0',
        'c_total{process="1",code="x"} 1.0',
        "# HELP firehose_active_partition_quota Q",
        "# TYPE firehose_active_partition_quota gauge",
        "firehose_active_partition_quota 500.0",
        "# HELP firehose_process_up 1 while a process of the server answers",
        "# TYPE firehose_process_up gauge",
        'firehose_process_up{process="0"} 1.0',
        'firehose_process_up{process="1"} 1.0',
        'firehose_process_up{process="2"} 0.0',
    ]


def test_statuses_are_added_up():
    one = {"streams": {"b": 1}, "bytes": 3, "full": False, "limit": None, "activePartitionQuota": 500, "pid": 7}
    other = {"streams": {"a": 2}, "bytes": 4, "full": True, "limit": 10, "activePartitionQuota": 500, "pid": 8}
    assert merge_statuses({0: one, 1: None, 2: other}) == {
        "streams": {"a": 2, "b": 1},
        "bytes": 7,
        "full": True,
        "limit": 10,
        "activePartitionQuota": 500,
        "processes": [
            {"process": 0, "bytes": 3, "full": False, "limit": None, "activePartitionQuota": 500, "pid": 7},
            {"process": 2, "bytes": 4, "full": True, "limit": 10, "activePartitionQuota": 500, "pid": 8},
        ],
        "away": [1],
    }
