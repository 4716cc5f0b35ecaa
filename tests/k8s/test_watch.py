"""Watching a real API server over a line that is cut: every change comes, in order, and none twice."""

from __future__ import annotations

import json
import queue
import threading

import pytest

from k8s.errors import PermissionProblemError, UnreachableError
from k8s.watch import Watch
from tests.k8s.conftest import config_map

WAIT = 30


class Watched:
    """What a watch tells, as it tells it."""

    def __init__(self, watch):
        self._queue = queue.SimpleQueue()
        self._watch = watch
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        for one in self._watch:
            self._queue.put(one)
        self._queue.put(None)

    def next(self):
        one = self._queue.get(timeout=WAIT)
        value = (one.object.get("data") or {}).get("n")
        return one.object["metadata"]["name"], "gone" if one.gone else value

    def end(self):
        self._watch.end()


@pytest.fixture
def watched():
    started = []

    def start(watch):
        started.append(Watched(watch))
        return started[-1]

    yield start
    for one in started:
        one.end()


def ours(cluster, namespace):
    """A watch of a test's objects; the cluster puts one of its own into each namespace."""
    return Watch(
        cluster, cluster.kind("v1", "ConfigMap"), namespace, {"fieldSelector": "metadata.name!=kube-root-ca.crt"}
    )


def test_what_is_there_comes_first_and_then_each_change(bare_cluster, namespace, watched):
    bare_cluster.create(config_map(namespace, "one", n="1"))
    seen = watched(ours(bare_cluster, namespace))
    assert seen.next() == ("one", "1")
    bare_cluster.apply(config_map(namespace, "one", n="2"), force=True)
    assert seen.next() == ("one", "2")
    bare_cluster.delete(config_map(namespace, "one"))
    assert seen.next() == ("one", "gone")


def test_changes_made_while_the_line_was_cut_come_once_each_and_in_order(bare_cluster, namespace, watched, cutter):
    relay, far = cutter
    bare_cluster.create(config_map(namespace, "one", n="0"))
    seen = watched(ours(far, namespace))
    assert seen.next() == ("one", "0")
    told = []
    for number in range(1, 10):
        if number % 3 == 0:
            assert relay.cut() >= 1
        bare_cluster.apply(config_map(namespace, "one", n=str(number)), force=True)
        if number % 3 == 2:
            told += [seen.next() for _ in range(3 if told else 2)]
    told.append(seen.next())
    assert told == [("one", str(number)) for number in range(1, 10)]


def test_a_round_that_the_server_ends_is_followed_by_the_next(bare_cluster, namespace, watched):
    watch = ours(bare_cluster, namespace)
    watch.round_seconds = 1
    seen = watched(watch)
    for number in range(3):
        threading.Event().wait(1.2)
        bare_cluster.apply(config_map(namespace, "one", n=str(number)), force=True)
        assert seen.next() == ("one", str(number))


def test_a_missing_right_ends_the_watch(account, namespace):
    from k8s.kubeconfig import connect  # noqa: PLC0415

    poor = connect(account({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}))
    with pytest.raises(PermissionProblemError, match="may not watch pods"):
        list(Watch(poor, poor.kind("v1", "Pod"), namespace))


class Script:
    """A cluster that answers as it was told to: for what a real one does when it was compacted, or is away for long."""

    def __init__(self, lists, streams):
        self._lists, self._streams = iter(lists), iter(streams)
        self.asked = []

    def list(self, _kind, _namespace, **_selectors):
        version, *items = next(self._lists)
        return {"metadata": {"resourceVersion": version}, "items": items}

    def stream(self, _path, _where, query):
        self.asked.append(query["resourceVersion"])
        found = next(self._streams)
        if isinstance(found, Exception):
            raise found
        return iter(found)


class Kind:
    kind = plural = "things"

    @staticmethod
    def path(_namespace):
        return "/things"


def thing(name, version):
    return {"kind": "Thing", "metadata": {"uid": name, "name": name, "resourceVersion": version}}


def change(kind, one):
    return json.dumps({"type": kind, "object": one}).encode()


GONE = change("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version: 5 (900)"})


def test_a_version_that_is_too_old_lists_anew_and_tells_only_what_is_different():
    lists = [("5", thing("a", "1"), thing("b", "2"), thing("c", "3")), ("900", thing("a", "1"), thing("b", "800"))]
    script = Script(lists, [[GONE], [change("ADDED", thing("d", "901"))]])
    watch = Watch(script, Kind, "here", sleep=lambda _: None)
    told = []
    for one in watch:
        told.append((one.object["metadata"]["name"], one.object["metadata"]["resourceVersion"], one.gone))
        if one.object["metadata"]["name"] == "d":
            break
    assert told == [
        ("a", "1", False),
        ("b", "2", False),
        ("c", "3", False),
        ("c", "3", True),
        ("b", "800", False),
        ("d", "901", False),
    ]
    assert script.asked == ["5", "900"]


def test_a_bookmark_moves_the_version_that_is_gone_on_from_and_is_not_told():
    mark = change("BOOKMARK", {"kind": "Thing", "metadata": {"resourceVersion": "70"}})
    script = Script([("5",)], [[mark], [change("ADDED", thing("d", "71"))]])
    told = next(iter(Watch(script, Kind, "here", sleep=lambda _: None)))
    assert told.object["metadata"]["name"] == "d"
    assert script.asked == ["5", "70"]


def test_a_change_that_was_cut_short_is_asked_for_again():
    script = Script([("5",)], [[b'{"type": "ADDED", "obj'], [change("ADDED", thing("d", "6"))]])
    told = next(iter(Watch(script, Kind, "here", sleep=lambda _: None)))
    assert told.object["metadata"]["name"] == "d"
    assert script.asked == ["5", "5"]


def test_a_cluster_that_stays_away_is_given_up_after_five_minutes_of_longer_and_longer_pauses():
    now, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    away = (UnreachableError("it is away") for _ in iter(int, 1))
    watch = Watch(Script([("5",)], away), Kind, "here", sleep=sleep, clock=lambda: now[0])
    with pytest.raises(UnreachableError, match="it is away"):
        list(watch)
    assert pauses[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0]
    assert 300 < now[0] < 320
