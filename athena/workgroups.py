"""Owns workgroups: what they prescribe, kept in one JSON file; `primary` is always there."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from athena.paging import page_bounds, paged
from athena.wire import invalid_request

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ENGINE_VERSION", "PRIMARY", "Workgroup", "Workgroups"]

PRIMARY = "primary"
ENGINE_VERSION = {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"}
_PAGE = 50


@dataclass(frozen=True)
class Workgroup:
    """Queries that share where results go."""

    name: str
    created: float
    """Seconds since 1970."""
    state: str = "ENABLED"
    description: str = ""
    output_location: str | None = None
    enforced: bool = False
    """Whether its output location wins over a query's own."""
    publishes_metrics: bool = False
    bytes_cutoff: int | None = None
    """Most bytes a query may scan; kept and told, not enforced here."""

    def described(self) -> dict[str, Any]:
        """The shape of GetWorkGroup."""
        configuration: dict[str, Any] = {
            "ResultConfiguration": {"OutputLocation": self.output_location} if self.output_location else {},
            "EnforceWorkGroupConfiguration": self.enforced,
            "PublishCloudWatchMetricsEnabled": self.publishes_metrics,
            "RequesterPaysEnabled": False,
            "EngineVersion": ENGINE_VERSION,
        }
        if self.bytes_cutoff is not None:
            configuration["BytesScannedCutoffPerQuery"] = self.bytes_cutoff
        return {**self.summary(), "Configuration": configuration}

    def summary(self) -> dict[str, Any]:
        """The shape of ListWorkGroups."""
        return {
            "Name": self.name,
            "State": self.state,
            "Description": self.description,
            "CreationTime": self.created,
        }


class Workgroups:
    """The workgroups of one state folder; safe to use from many threads of one process."""

    def __init__(self, path: Path, now: float) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._all: dict[str, Workgroup] = {PRIMARY: Workgroup(PRIMARY, now)}
        if path.exists():
            self._all |= {one["name"]: Workgroup(**one) for one in orjson.loads(path.read_bytes())}

    def get(self, name: str) -> Workgroup:
        """Find a workgroup.

        Raises:
            ServiceError: there is none of this name.
        """
        with self._lock:
            return self._get(name)

    def listed(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListWorkGroups."""
        start, most = page_bounds(request, _PAGE)
        with self._lock:
            names = sorted(self._all)
            found = [self._all[name].summary() | {"EngineVersion": ENGINE_VERSION} for name in names]
        return paged("WorkGroups", found[start : start + most], start, len(found))

    def create(self, request: dict[str, Any], now: float) -> dict[str, Any]:
        """CreateWorkGroup."""
        name = request["Name"]
        given = request.get("Configuration", {})
        with self._lock:
            if name in self._all:
                raise invalid_request("WorkGroup is already created")
            self._all[name] = Workgroup(
                name,
                now,
                description=request.get("Description", ""),
                output_location=given.get("ResultConfiguration", {}).get("OutputLocation"),
                # Athena's default for a workgroup that is made, unlike primary's
                enforced=given.get("EnforceWorkGroupConfiguration", True),
                publishes_metrics=given.get("PublishCloudWatchMetricsEnabled", False),
                bytes_cutoff=given.get("BytesScannedCutoffPerQuery"),
            )
            self._save()
        return {}

    def update(self, request: dict[str, Any]) -> dict[str, Any]:
        """UpdateWorkGroup."""
        given = request.get("ConfigurationUpdates", {})
        results = given.get("ResultConfigurationUpdates", {})
        with self._lock:
            found = self._get(request["WorkGroup"])
            location = results.get("OutputLocation", found.output_location)
            cutoff = given.get("BytesScannedCutoffPerQuery", found.bytes_cutoff)
            self._all[found.name] = replace(
                found,
                state=request.get("State", found.state),
                description=request.get("Description", found.description),
                output_location=None if results.get("RemoveOutputLocation") else location,
                enforced=given.get("EnforceWorkGroupConfiguration", found.enforced),
                publishes_metrics=given.get("PublishCloudWatchMetricsEnabled", found.publishes_metrics),
                bytes_cutoff=None if given.get("RemoveBytesScannedCutoffPerQuery") else cutoff,
            )
            self._save()
        return {}

    def delete(self, request: dict[str, Any], *, has_queries: bool) -> dict[str, Any]:
        """DeleteWorkGroup; one that ran queries goes with RecursiveDeleteOption only."""
        name = request["WorkGroup"]
        with self._lock:
            self._get(name)
            if name == PRIMARY:
                raise invalid_request("WorkGroup primary can't be deleted")
            if has_queries and not request.get("RecursiveDeleteOption"):
                raise invalid_request(f"WorkGroup {name} is not empty")
            del self._all[name]
            self._save()
        return {}

    def _get(self, name: str) -> Workgroup:
        found = self._all.get(name)
        if found is None:
            raise invalid_request(f"WorkGroup {name} is not found")
        return found

    def _save(self) -> None:
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.write_bytes(orjson.dumps([asdict(one) for one in self._all.values()], option=orjson.OPT_INDENT_2))
        fresh.replace(self._path)
