"""Owns what a change of a release does to its objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k8s.cluster import place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Plan"]

_CHART = ("helm.sh/chart", "app.kubernetes.io/version")


@dataclass(frozen=True)
class Plan:
    """Objects by what happens to them, as `StatefulSet firehose`."""

    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @classmethod
    def between(cls, before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> Plan:
        """What turns one set of objects into another.

        Labels that only tell the chart's version don't count: they change on everything with each change of anything.
        """
        old, new = ({place(one): _without_version(one) for one in some} for some in (before, after))
        return cls(
            tuple(sorted(new.keys() - old.keys())),
            tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
            tuple(sorted(old.keys() - new.keys())),
        )

    def __bool__(self) -> bool:
        return bool(self.created or self.changed or self.removed)

    def lines(self) -> Iterator[str]:
        """One for each object, with a mark before it."""
        for mark, names in (("+", self.created), ("~", self.changed), ("-", self.removed)):
            yield from (f"{mark} {name}" for name in names)

    def __str__(self) -> str:
        parts = (
            f"{len(names)} {'object' if len(names) == 1 else 'objects'} {word}"
            for word, names in (("created", self.created), ("changed", self.changed), ("removed", self.removed))
            if names
        )
        return ", ".join(parts) or "nothing changed"


def _without_version(one: Mapping[str, Any]) -> dict[str, Any]:
    about = dict(one["metadata"])
    about["labels"] = {key: value for key, value in (about.get("labels") or {}).items() if key not in _CHART}
    return {**one, "metadata": about}
