"""Owns what a run's changes mean: a line for each that matters, said once, and how the run ends.

It is fed with applications, pods and events as they are seen, in any order, and holds no connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k8s.pod_state import Trouble, event_trouble, is_driver, pod_name, pod_state

if TYPE_CHECKING:
    from k8s.watch import Observation

__all__ = ["FINAL", "Outcome", "Progress", "application_state", "outcome_of"]

FINAL = ("COMPLETED", "FAILED")
"""States of an application that it stays in."""

_EXIT_CODE = re.compile(r"ExitCode: (\d+)")
_OWN_CODES = {1, 2}
"""What our jobs exit with when they fail; anything else comes from whatever ended them."""
_FORBIDDEN = re.compile(r"Message: (.+?)(?:\. Received status:|$)", re.MULTILINE)
_MISSING_FOR_GOOD = re.compile(r"serviceaccount \"[^\"]+\" not found|no PriorityClass with name \S+ was found")
_LONGEST = 400


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    state: str
    exit_code: int
    """The job's own: 0, 1 or 2."""
    text: str


def application_state(application: dict[str, Any]) -> str:
    """The operator's word for how a run is; empty before it has taken it up."""
    return str(((application.get("status") or {}).get("applicationState") or {}).get("state") or "")


def _message(application: dict[str, Any]) -> str:
    return str(((application.get("status") or {}).get("applicationState") or {}).get("errorMessage") or "")


def _condensed(message: str) -> str:
    """What matters of a message: spark-submit's is its whole log."""
    found = _FORBIDDEN.findall(message)
    said = found[-1] if found else message.strip().rpartition("\n")[2]
    return str(said)[:_LONGEST]


def outcome_of(application: dict[str, Any], last_exit_code: int | None = None) -> Outcome | None:
    """How a run ended; None while it hasn't.

    Args:
        application: the run.
        last_exit_code: of its last driver, where that was seen.
    """
    state = application_state(application)
    if state not in FINAL:
        return None
    if state == "COMPLETED":
        return Outcome(state, 0, "completed")
    message = _message(application)
    told = _EXIT_CODE.search(message)
    code = int(told[1]) if told else last_exit_code
    attempts = (application.get("status") or {}).get("executionAttempts") or 0
    many = f" after {attempts} attempts" if attempts > 1 else ""
    return Outcome(
        state, code if code in _OWN_CODES else 1, f"failed{many}: {_condensed(message) or 'no reason given'}"
    )


class Progress:
    """One run, as far as it was seen."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.outcome: Outcome | None = None
        self.removed = False
        """Whether the application was deleted under our eyes."""
        self.taken_up = False
        """Whether an operator has done anything about it."""
        self.driver: dict[str, Any] | None = None
        """Its newest driver's pod."""
        self._said: set[tuple[str, str]] = set()
        self._states: dict[str, str] = {}
        self._troubles: dict[str, tuple[Trouble, float]] = {}
        self._exit_code: int | None = None
        self._attempt = 0

    @property
    def running(self) -> bool:
        """Whether its driver runs, or has run to its end."""
        return self.driver is not None and pod_state(self.driver).started

    def hopeless(self, now: float) -> str | None:
        """Why waiting on for the driver is of no use; None while it may be."""
        for trouble, since in self._troubles.values():
            if trouble.hopeless_after is not None and now - since >= trouble.hopeless_after:
                return trouble.text
        return None

    def trouble(self) -> str | None:
        """Why the driver doesn't run yet, as far as that is known."""
        return next((trouble.text for trouble, _ in self._troubles.values()), None)

    def take(self, seen: Observation, now: float) -> list[str]:
        """Learn of a change; answers what there is to say about it.

        Args:
            seen: an application, a pod or an event.
            now: seconds of a clock that only goes forward.
        """
        match seen.kind:
            case "SparkApplication":
                return self._application(seen)
            case "Pod":
                return self._pod(seen, now)
        return self._event(seen.object, now)

    def _application(self, seen: Observation) -> list[str]:
        application = seen.object
        if seen.gone:
            self.removed = True
            return []
        state = application_state(application)
        self.taken_up = self.taken_up or bool(state)
        attempt = int((application.get("status") or {}).get("executionAttempts") or 0)
        if not self._changed("application", f"{state} {attempt}"):
            return []
        if state == "SUBMITTED":
            self._troubles.pop("submission", None)
            again = f", attempt {attempt}" if attempt > 1 else ""
            return [f"submitted{again}"]
        self.outcome = outcome_of(application, self._exit_code)
        if self.outcome:
            return [self.outcome.text]
        return self._in_between(application, state)

    def _in_between(self, application: dict[str, Any], state: str) -> list[str]:
        said = _condensed(_message(application))
        match state:
            case "SUBMISSION_FAILED":
                trouble = _submission_trouble(said)
                self._troubles["submission"] = (trouble, 0.0)
                return [trouble.text]
            case "FAILING":
                return [f"attempt failed: {said}"]
            case "PENDING_RERUN":
                return ["to be tried again"]
            case "UNKNOWN":
                return ["the operator has lost sight of its driver"]
        return []

    def _pod(self, seen: Observation, now: float) -> list[str]:
        pod = seen.object
        uid, name = pod["metadata"]["uid"], pod_name(pod)
        if seen.gone:
            self._note(uid, None, now)
            self._note(f"event {uid}", None, now)
            ended = pod_state(pod).ended
            return [] if ended or not self._changed(uid, "gone") else [f"{name}: deleted"]
        state = pod_state(pod)
        if is_driver(pod):
            self._driver(pod, now)
        # a pod that is to go is said once, when it is gone
        going = pod["metadata"].get("deletionTimestamp") and not state.ended
        return [f"{name}: {state.text}"] if not going and self._changed(uid, state.text) else []

    def _driver(self, pod: dict[str, Any], now: float) -> None:
        newer = self.driver is None or _made(pod) >= _made(self.driver)
        if not newer:
            return
        self.driver = pod
        self.taken_up = True
        state = pod_state(pod)
        self._exit_code = state.exit_code if state.exit_code is not None else self._exit_code
        self._note(pod["metadata"]["uid"], state.trouble, now)
        if state.started or state.ended or state.trouble:
            # it is past what the events told of
            self._note(f"event {pod['metadata']['uid']}", None, now)

    def _note(self, uid: str, trouble: Trouble | None, now: float) -> None:
        """Remember a driver's trouble since it began; images that can't be pulled change their reason to and fro."""
        before = self._troubles.get(uid)
        if trouble is None:
            self._troubles.pop(uid, None)
        elif before is None or before[0].hopeless_after != trouble.hopeless_after:
            self._troubles[uid] = (trouble, now)

    def _event(self, event: dict[str, Any], now: float) -> list[str]:
        about = event.get("involvedObject") or {}
        trouble = event_trouble(event)
        if trouble is None or about.get("kind") != "Pod" or not str(about.get("name", "")).startswith(self.name):
            return []
        driver = self.driver is not None and about.get("uid") == self.driver["metadata"]["uid"]
        if driver and not self.running:
            self._note(f"event {about['uid']}", trouble, now)
        key = (str(about.get("uid")), trouble.text)
        if key in self._said:
            return []
        self._said.add(key)
        return [f"{'driver' if driver else about['name']}: {trouble.text}"]

    def _changed(self, what: str, state: str) -> bool:
        before = self._states.get(what)
        self._states[what] = state
        return before != state


def _made(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["creationTimestamp"])


def _submission_trouble(said: str) -> Trouble:
    text = f"the operator couldn't submit it: {said}"
    if _MISSING_FOR_GOOD.search(said):
        return Trouble(f"{text}; `lakehose k8s apply` makes it", 0.0)
    if "exceeded quota" in said:
        return Trouble(f"{text}; it fits when other runs have ended, or with larger `kubernetes.tiers`")
    return Trouble(text)
