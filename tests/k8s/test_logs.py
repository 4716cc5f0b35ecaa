"""A log over a line that breaks: every line once, also of the second in which it broke; and of this pod only."""

from __future__ import annotations

import pytest

from k8s.errors import NotFoundError, RefusedError, UnreachableError
from k8s.logs import ContainerLog

POD = {
    "kind": "Pod",
    "metadata": {"namespace": "acme", "name": "run-driver", "uid": "first"},
    "status": {"phase": "Running"},
}


class Pods:
    @staticmethod
    def path(namespace, name):
        return f"/api/v1/namespaces/{namespace}/pods/{name}"


class Kubelet:
    """Answers as the API server does for a log: from a second on, cut off where the test says."""

    def __init__(self, lines, *cuts, uid="first"):
        self._lines = lines
        self._cuts = list(cuts)
        self._uid = uid
        self.asked = []

    def kind(self, *_):
        return Pods

    def get(self, *_):
        phase = "Running" if self._cuts else "Succeeded"
        return {**POD, "metadata": {**POD["metadata"], "uid": self._uid}, "status": {"phase": phase}}

    def stream(self, path, _where, query):
        assert path == "/api/v1/namespaces/acme/pods/run-driver/log"
        self.asked.append(query.get("sinceTime"))
        since = query.get("sinceTime", "").removesuffix("Z")
        cut = self._cuts.pop(0) if self._cuts else None
        if isinstance(cut, Exception):
            raise cut
        return self._answer([one for one in self._lines[:cut] if one[:19].decode() >= since], broken=cut is not None)

    @staticmethod
    def _answer(lines, *, broken):
        yield from lines
        if broken:
            raise UnreachableError("the connection broke")


LINES = [
    b"2026-11-21T11:00:00.100000000Z one",
    b"2026-11-21T11:00:00.200000000Z two",
    b"2026-11-21T11:00:00.2Z also at two",
    b"2026-11-21T11:00:00.200000000Z also at two",
    b"2026-11-21T11:00:01.000000001Z three",
    b"2026-11-21T11:00:01.000000001Z ",
    b"2026-11-21T11:00:02Z four",
]
TEXTS = ["one", "two", "also at two", "also at two", "three", "", "four"]


def read(kubelet, *, follow=True):
    return list(ContainerLog(kubelet, POD, "spark-kubernetes-driver", sleep=lambda _: None).lines(follow=follow))


@pytest.mark.parametrize(
    "cuts", [(), (0,), (1,), (2,), (3,), (4,), (5,), (6,), (1, 2, 3, 4, 5, 6), (3, 3, 3), (6, 1, 2)]
)
def test_every_line_comes_once_wherever_the_line_breaks(cuts):
    assert read(Kubelet(LINES, *cuts)) == TEXTS


def test_after_a_break_it_asks_from_the_second_of_the_last_line():
    kubelet = Kubelet(LINES, 2, 5)
    read(kubelet)
    assert kubelet.asked == [None, "2026-11-21T11:00:00Z", "2026-11-21T11:00:01Z"]


def test_a_container_that_has_not_started_is_waited_for():
    waiting = RefusedError('container "x" in pod "run-driver" is waiting to start: ContainerCreating')
    assert read(Kubelet(LINES, waiting, waiting)) == TEXTS


def test_a_refusal_for_another_reason_is_raised():
    with pytest.raises(RefusedError, match="no permission"):
        read(Kubelet(LINES, RefusedError("no permission")))


def test_a_pod_that_is_gone_ends_the_log():
    assert read(Kubelet(LINES, 2, NotFoundError("gone"))) == ["one", "two"]


def test_another_pod_of_the_same_name_is_not_read():
    assert read(Kubelet(LINES, uid="second")) == []


def test_without_following_it_ends_with_what_there_is():
    kubelet = Kubelet(LINES[:3], None, None)
    kubelet._cuts = []
    assert read(kubelet, follow=False) == TEXTS[:3]
    assert kubelet.asked == [None]


def test_what_is_no_text_is_told_with_marks_in_its_place():
    assert read(Kubelet([b"2026-11-21T11:00:00Z caf\xe9"])) == ["caf\ufffd"]


def test_an_api_server_that_stays_away_is_given_up_after_five_minutes():
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    away = Kubelet(LINES, *[UnreachableError("it is away")] * 1000)
    log = ContainerLog(away, POD, "spark-kubernetes-driver", sleep=sleep, clock=lambda: now[0])
    with pytest.raises(UnreachableError, match="it is away"):
        list(log.lines(follow=True))
    assert 300 < now[0] < 310
