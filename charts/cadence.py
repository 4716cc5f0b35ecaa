"""Owns how long a job may go without a good run before it is overdue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lake.jobs import Job

__all__ = ["longest_wait", "overdue_minutes"]

_LEAST = 30
"""Minutes: below it a run that waits for a node would be an alarm."""
_YEARS = 5
"""Any pattern of days in a cron expression comes round in so many, the 29th of February too."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES = {name: number for number, name in enumerate(_MONTHS, 1)} | {name: day for day, name in enumerate(_DAYS)}


def overdue_minutes(job: Job) -> int | None:
    """Minutes after a good run at which its job is overdue; None for one without a schedule.

    It is the longest time between two starts, and as long again for a run, at most its time-out.
    """
    if job.schedule is None:
        return None
    seconds = job.schedule.seconds
    wait = -(-seconds // 60) if seconds else longest_wait(str(job.schedule.cron))
    return wait + max(_LEAST, min(wait, job.timeout_minutes))


def longest_wait(cron: str) -> int:
    """Minutes between two starts of a cron expression, at most.

    >>> longest_wait("*/5 * * * *"), longest_wait("0 3 * * 1")
    (5, 10080)

    Args:
        cron: five fields, as `Schedule` has checked them.
    """
    minutes, hours, days, months, weekdays = (
        _field(text, low, high)
        for text, (low, high) in zip(cron.split(), ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7)), strict=True)
    )
    weekdays = {day % 7 for day in weekdays}
    any_day, any_weekday = (part.startswith("*") for part in (cron.split()[2], cron.split()[4]))
    times = sorted(hour * 60 + minute for hour in hours for minute in minutes)
    within = max((later - earlier for earlier, later in pairwise(times)), default=0)
    overnight = times[0] - times[-1]
    longest, last = within, None
    first = datetime(2024, 1, 1, tzinfo=UTC)
    for offset in range(366 * _YEARS):
        day = first + timedelta(days=offset)
        by_date, by_week = day.day in days, (day.weekday() + 1) % 7 in weekdays
        # cron's own rule: where both are given, either will do
        fits = (by_date and by_week) if any_day or any_weekday else (by_date or by_week)
        if day.month not in months or not fits:
            continue
        if last is not None:
            longest = max(longest, (offset - last) * 1440 + overnight)
        last = offset
    return longest


def _field(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        span, _, step = part.partition("/")
        begin, _, end = span.partition("-")
        start = low if begin == "*" else _number(begin)
        # 5/15 is every 15 from 5 on
        stop = high if begin == "*" or (step and not end) else _number(end or begin)
        found |= set(range(start, stop + 1, int(step or 1)))
    return found


def _number(text: str) -> int:
    return _NAMES[text] if text in _NAMES else int(text)
