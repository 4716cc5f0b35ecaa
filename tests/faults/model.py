"""Owns the model: what was delivered, erased and replayed, and so what tables, quarantine and audit have to hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.world import REFUSED, Line

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Model"]


@dataclass
class Model:
    """A set of events, by their ids."""

    objects: dict[str, list[Line]] = field(default_factory=dict)
    """Lines of each object, by `s3://…`."""
    rows: dict[str, Line] = field(default_factory=dict)
    """Events that are rows once everything is ingested, erased ones included."""
    refused: dict[str, Line] = field(default_factory=dict)
    """Whole events that Firehose refused and no replay has sent round yet."""
    quarantine: dict[tuple[str, int], Line] = field(default_factory=dict)
    """Records that were refused, by object and line, erased ones included."""
    erased: set[str] = field(default_factory=set)
    """Users whose data was erased."""
    gone: set[tuple[str, int]] = field(default_factory=set)
    """Refused records that an erasure took out."""
    delivered: int = 0
    """Records that came by the way of events, each time they did."""

    def deliver(self, told: Mapping[str, Any]) -> None:
        """Take note of an object that S3 has taken."""
        lines = [Line(**one) for one in told["lines"]]
        self.objects[told["object"]] = lines
        for position, line in enumerate(lines):
            place = (told["object"], -1 if told["kind"] == "broken" else position)
            if line.fate == "row":
                # of somebody who was erased only what was sent before comes again; if it had been refused, it never was
                # a row, and isn't let in now: its tombstone makes it a duplicate
                if line.user not in self.erased:
                    self.rows.setdefault(line.event_id, line)
            else:
                self.quarantine[place] = line
            if line.fate == REFUSED:
                self.refused[line.event_id] = line
            else:
                self.delivered += 1

    def erase(self, user: str) -> None:
        """Take note of an erasure that came to its end."""
        self.erased.add(user)
        self.gone |= {place for place, line in self.quarantine.items() if _is_whole(line) and line.user == user}

    def replay(self) -> None:
        """Take note of a replay, of all that Firehose had refused, that came to its end."""
        for event_id, line in self.refused.items():
            if line.user not in self.erased:
                self.rows.setdefault(event_id, line)
        self.refused = {}

    @property
    def users(self) -> list[str]:
        """Users with rows, or refused records, that weren't erased."""
        lines = (*self.rows.values(), *self.quarantine.values())
        return sorted({one.user for one in lines if one.user} - self.erased)

    def expected_rows(self) -> list[tuple[Any, ...]]:
        """The table's rows, sorted."""
        return sorted(one.row for one in self.rows.values() if one.user not in self.erased)

    def expected_quarantine(self) -> list[tuple[str, int, str]]:
        """The quarantine's rows as object, line (-1 is the object as a whole) and reason, sorted."""
        return sorted((*place, line.fate) for place, line in self.quarantine.items() if place not in self.gone)

    def expected_counts(self, replayed: int) -> dict[str, int]:
        """What the audit's sheet has to say: every record that was delivered, whatever was erased since.

        Args:
            replayed: records that replays have sent round. An event that had come another way before a replay is left
                out by it, and one that comes so after it was broken off is there twice: the model can't know which.
        """
        bad = sum(1 for line in self.quarantine.values() if line.fate != REFUSED)
        delivered = self.delivered + replayed
        return {
            "delivered": delivered,
            "ingested": len(self.rows),
            "quarantined": bad,
            "refused": len(self.quarantine) - bad,
            "duplicates": delivered - len(self.rows) - bad,
            "in_flight": 0,
            "difference": 0,
        }


def _is_whole(line: Line) -> bool:
    """Whether the record still names its user."""
    return line.fate not in {"malformed_json", "unreadable_object"}
