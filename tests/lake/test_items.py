"""The manifest table's items on a real DynamoDB, one that leaves things undone among them."""

import pytest

from lake.errors import TransientError
from lake.items import Items, item_key

ME = "solo#visits"


def numbered(count):
    return [{**item_key(ME, f"n#{one:03d}"), "value": {"N": str(one)}} for one in range(count)]


def keys(items):
    return [one["sk"]["S"] for one in items]


def test_items_come_in_the_order_of_their_keys_whatever_a_page_holds(cloud, table):
    items = Items(cloud.dynamodb, table)
    items.write([*reversed(numbered(60)), item_key(ME, "m"), item_key(ME, "n$"), item_key("other#visits", "n#001")])
    assert list(items.beginning(ME, "n#", page=7)) == numbered(60)
    assert keys(items.between(ME, "n#010", "n#012")) == ["n#010", "n#011", "n#012"]
    assert keys(items.between(ME, "n#010", "n#012", newest_first=True, page=1)) == ["n#012", "n#011", "n#010"]
    assert list(items.beginning(ME, "n#00", newest_first=True, keys_only=True, page=1))[-1] == {"sk": {"S": "n#000"}}


def test_the_first_of_many_costs_one_request_of_one_item(cloud, table, busy):
    Items(cloud.dynamodb, table).write(numbered(30))
    client, asked = busy("BatchWriteItem", times=0), []
    client.meta.events.register("before-call.dynamodb.Query", lambda params, **_: asked.append(params["body"]))
    assert next(Items(client, table).beginning(ME, "n#", page=1)) == numbered(1)[0]
    assert len(asked) == 1
    assert b'"Limit": 1' in asked[0]


def test_of_two_items_with_one_key_the_later_is_written(cloud, table):
    items = Items(cloud.dynamodb, table)
    items.write([{**item_key(ME, "one"), "value": {"N": "1"}}, {**item_key(ME, "one"), "value": {"N": "2"}}])
    assert items.get(ME, "one") == {**item_key(ME, "one"), "value": {"N": "2"}}
    assert items.get(ME, "two") is None


def test_an_item_is_written_and_deleted_under_a_condition(cloud, table):
    items = Items(cloud.dynamodb, table)
    first, second = ({**item_key(ME, "one"), "version": {"S": name}} for name in "ab")
    assert items.put_if(first, "attribute_not_exists(pk)")
    assert not items.put_if(second, "attribute_not_exists(pk)")
    assert not items.put_if(second, "version = :old", {":old": {"S": "x"}})
    assert items.get(ME, "one") == first
    assert items.put_if(second, "version = :old", {":old": {"S": "a"}})
    assert not items.delete_if(ME, "one", "version = :old", {":old": {"S": "a"}})
    assert items.get(ME, "one") == second
    assert items.delete_if(ME, "one", "version = :old", {":old": {"S": "b"}})
    assert items.get(ME, "one") is None


def test_keys_are_looked_up_by_the_hundred(cloud, table):
    items = Items(cloud.dynamodb, table)
    items.write(numbered(130))
    asked = [(ME, f"n#{number:03d}") for number in range(250)] * 2
    assert items.existing(asked) == {(ME, f"n#{number:03d}") for number in range(130)}
    assert items.existing([]) == set()


def test_what_dynamodb_leaves_is_written_after_a_pause(table, cloud, busy):
    pauses = []
    client = busy("BatchWriteItem", times=3, takes=4)
    Items(client, table, pause=pauses.append).write(numbered(60))
    assert client.calls == [25, 21, 17, 13, 25, 10]
    assert list(Items(cloud.dynamodb, table).beginning(ME, "n#")) == numbered(60)
    assert pauses == [0.05, 0.1, 0.2]


def test_what_dynamodb_leaves_is_deleted_after_a_pause(table, cloud, busy):
    Items(cloud.dynamodb, table).write(numbered(30))
    items = Items(busy("BatchWriteItem", times=2), table, pause=lambda _: None)
    items.delete((ME, f"n#{number:03d}") for number in (*range(29), 77))
    assert list(Items(cloud.dynamodb, table).beginning(ME, "n#")) == numbered(30)[29:]


def test_what_dynamodb_leaves_is_looked_up_after_a_pause(table, cloud, busy):
    Items(cloud.dynamodb, table).write(numbered(40))
    wanted = {(ME, f"n#{number:03d}") for number in range(40)}
    client = busy("BatchGetItem", times=3, takes=7)
    assert Items(client, table, pause=lambda _: None).existing(wanted) == wanted
    assert client.calls == [40, 33, 26, 19]


@pytest.mark.parametrize(
    ("call", "act", "left"),
    [
        ("BatchWriteItem", lambda items: items.write(numbered(30)), "25 of 25 items unwritten"),
        ("BatchWriteItem", lambda items: items.delete([(ME, "one")]), "1 of 1 items unwritten"),
        ("BatchGetItem", lambda items: items.existing([(ME, "one"), (ME, "two")]), "2 of 2 keys unread"),
    ],
)
def test_what_dynamodb_leaves_again_and_again_is_an_error(table, busy, call, act, left):
    pauses = []
    client = busy(call, times=1000)
    with pytest.raises(TransientError) as told:
        act(Items(client, table, pause=pauses.append))
    assert str(told.value) == f"manifest table {table}: DynamoDB left {left}; try again"
    assert len(client.calls) == 10
    assert 9 < sum(pauses) < 10
