"""Owns which jobs run together: each job runs on its own schedule, and behind the jobs it comes after.

A chain becomes one DAG. Jobs of the same schedule share a chain, and a job without a schedule runs in the chain of the
job it comes after. A chain begins with what its jobs come after, even where that has a schedule of its own too: so a
run is always in order, and what a job reads is there. That a job then may run twice at the same moment is allowed to
every runner (a run finds what another is at, and leaves it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lake.errors import DeclarationError, known_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lake.jobs import Job, Schedule

__all__ = ["Chain", "chain_of", "chains"]


@dataclass(frozen=True)
class Chain:
    """Jobs that run in one go, in order."""

    name: str
    """The job it is there for: the last one that has the chain's schedule."""
    schedule: Schedule | None
    """None: only by hand."""
    jobs: tuple[Job, ...]
    """In the order of the pipeline."""
    own: tuple[str, ...]
    """Those of the jobs that the schedule is for; the others run here because these come after them."""

    def before(self, job: Job) -> tuple[Job, ...]:
        """The jobs of the chain that a job comes directly after."""
        return tuple(one for one in self.jobs if one.name in job.after)

    def names(self) -> list[str]:
        """Names of its jobs, in order."""
        return [one.name for one in self.jobs]


def chains(pipeline: Sequence[Job]) -> tuple[Chain, ...]:
    """Sort jobs into chains.

    Args:
        pipeline: every job, each behind those it comes after.
    """
    jobs = {one.name: one for one in pipeline}
    leaders: dict[str, Job] = {}
    for job in pipeline:
        # a scheduled job leads itself, one without a schedule has the leader of what it comes after
        before = [leaders[name] for name in job.after if name in leaders]
        leaders[job.name] = job if job.schedule or not before else before[-1]
    members: dict[str, list[Job]] = {}
    for job in pipeline:
        leader = leaders[job.name]
        # jobs by hand have nothing in common but that
        key = leader.schedule.text if leader.schedule else f"by hand: {leader.name}"
        members.setdefault(key, []).append(job)
    return tuple(_chain(jobs, leaders[own[0].name].schedule, own) for own in members.values())


def _chain(jobs: dict[str, Job], schedule: Schedule | None, own: list[Job]) -> Chain:
    wanted = {one.name for one in own}
    waiting = list(own)
    while waiting:
        for name in waiting.pop().after:
            before = jobs.get(name)
            # a job that runs only by hand is nobody's to start
            if before and name not in wanted and (before.schedule or before.after):
                wanted.add(name)
                waiting.append(before)
    scheduled = [one for one in own if one.schedule] or own
    in_order = tuple(one for name, one in jobs.items() if name in wanted)
    return Chain(scheduled[-1].name, schedule, in_order, tuple(one.name for one in own))


def chain_of(found: Sequence[Chain], job: str) -> Chain:
    """The chain that is there for a job, not one that only begins with it.

    Raises:
        DeclarationError: there is no such job.
    """
    for one in found:
        if job in one.own:
            return one
    raise DeclarationError(f"job: {known_values(job, [name for one in found for name in one.own])}")
