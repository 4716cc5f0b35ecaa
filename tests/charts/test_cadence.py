"""When a job is overdue."""

from __future__ import annotations

import pytest

from charts.cadence import longest_wait, overdue_minutes
from lake.jobs import Job, Schedule


@pytest.mark.parametrize(
    ("cron", "minutes"),
    [
        ("*/5 * * * *", 5),
        ("17 * * * *", 60),
        ("5/15 * * * *", 15),
        ("0 3 * * *", 1440),
        ("0 3 * * 1", 10_080),
        # from Friday 17:45 to Monday 8:00
        ("0,45 8-17 * * mon-fri", 3735),
        # January and its like: 31 days
        ("0 0 1 * *", 44_640),
        # every day 13 and every Friday, as cron has it where both are given: 7 days at most
        ("0 0 13 * fri", 10_080),
        # four years
        ("0 0 29 2 *", 2_103_840),
    ],
)
def test_the_longest_wait_of_a_schedule(cron, minutes):
    assert longest_wait(cron) == minutes


@pytest.mark.parametrize(
    ("schedule", "timeout", "minutes"),
    [("*/5 * * * *", 120, 35), ("17 * * * *", 120, 120), ("@every 90s", 120, 32), ("@daily", 120, 1560)],
)
def test_a_job_is_overdue_after_the_wait_and_a_run(schedule, timeout, minutes):
    assert overdue_minutes(Job("x", schedule=Schedule(schedule), timeout_minutes=timeout)) == minutes


def test_a_job_without_a_schedule_is_never_overdue():
    assert overdue_minutes(Job("x")) is None
