"""A process among others: what it asks of whom, where no client can time it from outside."""

from __future__ import annotations

import asyncio

import pytest

from firehose.encryption import Encryption
from firehose.group import Group, Shared
from firehose.handing_on import Door, Peer, Request, listen_at
from firehose.layout import owner
from lake.aws_json import Reply, ServiceError

TAG = Request("POST", "/", target="Firehose_20150804.TagDeliveryStream")


async def here(request):
    return Reply(b"done here: " + request.body)


async def joined(folder, index, count):
    group = Group(folder, index, count)
    await group.join(here, group.take, Shared(None, None, None, Encryption(lambda: 0.0)))
    return group


def test_a_change_is_told_again_where_a_process_ended_before_it_answered(tmp_path):
    """The one that came in its place may have read the definitions before they changed."""
    heard = []

    async def main():
        first = await joined(tmp_path, 0, 2)
        await first._greeting  # nobody is there yet
        doors = []

        async def hear(request):
            heard.append(request.path)
            return Reply(b"{}")

        async def end(_):
            doors.append(Door(hear))
            await doors[1].open(listen_at(tmp_path / "process-1.sock"))
            await doors[0].close(0)
            await asyncio.Event().wait()

        doors.append(Door(end))
        await doors[0].open(listen_at(tmp_path / "process-1.sock"))
        assert (await first.answer(TAG)).body == b"done here: "
        await first.leave()
        await doors[1].close(5)

    asyncio.run(main())
    assert heard == ["/_lakehose/reload"]


def test_a_change_is_answered_while_another_process_is_not_there(tmp_path):
    async def main():
        first = await joined(tmp_path, 0, 2)
        assert (await first.answer(TAG)).body == b"done here: "
        await first.leave()

    asyncio.run(main())


def test_a_change_that_another_process_could_not_take_is_told(tmp_path):
    async def main():
        first = await joined(tmp_path, 0, 2)

        async def fail(_):
            return Reply(b"it can't", status=500)

        door = Door(fail)
        await door.open(listen_at(tmp_path / "process-1.sock"))
        with pytest.raises(ServiceError, match="the change is made, but not known everywhere: it can't"):
            await first.answer(TAG)
        await first.leave()
        await door.close(5)

    asyncio.run(main())


def test_a_change_is_refused_only_when_what_it_is_refused_by_is_known_everywhere(tmp_path):
    there = asyncio.Event()
    made = []

    async def create(request):
        if made:
            raise ServiceError("ResourceInUseException", "it is there")
        made.append(request)
        return Reply(b"created")

    async def main():
        first = Group(tmp_path, 0, 2)
        shared = Shared(None, None, None, Encryption(lambda: 0.0))
        await first.join(create, first.take, shared)
        await first._greeting

        async def stands_still(_):
            await there.wait()
            return Reply(b"{}")

        door = Door(stands_still)
        await door.open(listen_at(tmp_path / "process-1.sock"))
        creating = asyncio.create_task(first.answer(TAG))
        await asyncio.sleep(0.1)
        again = asyncio.create_task(first.answer(TAG))
        await asyncio.sleep(0.2)
        assert made
        assert not again.done()
        there.set()
        assert (await creating).body == b"created"
        with pytest.raises(ServiceError, match="it is there"):
            await again
        await first.leave()
        await door.close(5)

    asyncio.run(main())


def test_each_request_goes_to_whom_it_concerns(tmp_path):
    mine = next(name for name in map(str, range(99)) if owner(name, 2) == 1)
    theirs = next(name for name in map(str, range(99)) if owner(name, 2) == 0)
    heard = []

    async def main():
        async def hear(request):
            heard.append(request)
            return Reply(b"done there")

        door = Door(hear)
        await door.open(listen_at(tmp_path / "process-0.sock"))
        second = await joined(tmp_path, 1, 2)

        def put(name, operation="PutRecord"):
            body = b'{"Record": {"Data": "YQ=="}, "DeliveryStreamName":"%s"}' % name.encode()
            return Request("POST", "/", target=f"Firehose_20150804.{operation}", body=body)

        def call(operation, service="Firehose_20150804"):
            return Request("POST", "/", target=f"{service}.{operation}", body=b"{}")

        at_home = [put(mine), put(mine, "PutRecordBatch"), call("DescribeDeliveryStream"), call("PutRecord")]
        at_home += [call("ListDeliveryStreams"), call("ListTagsForDeliveryStream"), call("Get", "Other")]
        at_home += [call("ListServiceQuotas", "ServiceQuotasV20190624"), Request("GET", "/_lakehose/other")]
        for request in at_home:
            assert (await second.answer(request)).body == b"done here: " + request.body
        away = [put(theirs), put(theirs, "PutRecordBatch"), call("CreateDeliveryStream"), call("UpdateDestination")]
        away += [call("StartDeliveryStreamEncryption"), call("RequestServiceQuotaIncrease", "ServiceQuotasV20190624")]
        away += [Request("POST", "/_lakehose/flush", f"stream={theirs}")]
        for request in away:
            assert (await second.answer(request)).body == b"done there"
        assert heard == away
        await second.leave()
        await door.close(5)

    asyncio.run(main())


def test_a_process_goes_when_the_others_have_nothing_to_ask_any_more(tmp_path):
    async def main():
        second = await joined(tmp_path, 1, 2)
        peer = Peer(tmp_path / "process-1.sock")
        put = Request("POST", "/", target="Firehose_20150804.PutRecord", body=b"x")
        assert (await peer.ask(put, timeout=5)).body == b"done here: x"
        leaving = asyncio.create_task(second.leave())
        await asyncio.sleep(0.2)
        assert not leaving.done()
        assert (await peer.ask(put, timeout=5)).body == b"done here: x"
        peer.close()
        await asyncio.wait_for(leaving, 5)
        assert not (tmp_path / "process-1.sock").exists()

    asyncio.run(main())
