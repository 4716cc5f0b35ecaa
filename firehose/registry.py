"""Owns what the server keeps beside the log: definitions and the quota, each one JSON file replaced as a whole."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from firehose.conversion import TableSchema
from firehose.conversion_config import converts
from firehose.converted import destination_of
from firehose.streams import DeliveryStream, requested_destination
from firehose.wal import sync_folder
from lake.aws_json import ServiceError
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from io import BufferedRandom
    from pathlib import Path

__all__ = ["DataFolder", "Registry"]

DEFAULT_PARTITIONS = 500


class DataFolder:
    """The server's folder, held for one server by a lock that ends with the process."""

    def __init__(self, path: Path) -> None:
        """Take the folder, making it if it's missing.

        Raises:
            EnvironmentProblemError: it can't be written, or another server has it.
        """
        self.path = path
        self.log = path / "log"
        """Where the log's segments are; of one process's, where there are several."""
        try:
            self.log.mkdir(parents=True, exist_ok=True)
            self._lock: BufferedRandom = (path / "lock").open("a+b")
        except OSError as error:
            raise EnvironmentProblemError(f"--data-dir {path}: can't be written: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().decode("ascii", "replace").strip() or "unknown"
            self._lock.close()
            raise EnvironmentProblemError(
                f"--data-dir {path}: another Firehose server has it (pid {owner}); stop it, or take another folder"
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()).encode())
        self._lock.flush()

    def release(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def write(self, name: str, value: Any) -> None:
        """Replace a JSON file durably: after a crash it is the old one or the new one."""
        path, fresh = self.path / name, self.path / f"{name}.new"
        with fresh.open("wb") as file:
            file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(self.path)

    def read(self, name: str) -> Any:
        """Read a JSON file; None where there is none.

        Raises:
            EnvironmentProblemError: it isn't JSON.
        """
        path = self.path / name
        try:
            return orjson.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError as error:
            raise EnvironmentProblemError(f"{path}: damaged, not JSON: {error}") from None


class Registry:
    """Streams by name, and the quota of active partitions a stream; kept across restarts."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._streams = {
            one["name"]: _stream(one, folder.path / "streams.json") for one in folder.read("streams.json") or []
        }
        quotas = folder.read("quotas.json") or {}
        self._partitions: int = quotas.get("dynamic_partitions", DEFAULT_PARTITIONS)

    @property
    def streams(self) -> dict[str, DeliveryStream]:
        """All streams, in order of their names."""
        return dict(sorted(self._streams.items()))

    def get(self, name: str) -> DeliveryStream | None:
        """Find a stream."""
        return self._streams.get(name)

    def put(self, stream: DeliveryStream) -> None:
        """Add a stream, or replace the one of its name; it is on disk when this returns."""
        self._write({**self._streams, stream.name: stream})

    def remove(self, name: str) -> None:
        """Remove a stream; its definition is off the disk when this returns."""
        self._write({key: stream for key, stream in self._streams.items() if key != name})

    @property
    def partitions(self) -> int:
        """How many partitions of a stream may be active."""
        return self._partitions

    @partitions.setter
    def partitions(self, value: int) -> None:
        self._folder.write("quotas.json", {"dynamic_partitions": value})
        self._partitions = value

    def reload(self) -> list[tuple[DeliveryStream | None, DeliveryStream | None]]:
        """Read again what another process wrote; returns each stream that changed, as it was and as it is.

        Raises:
            EnvironmentProblemError: a file is damaged.
        """
        found: dict[str, DeliveryStream] = {}
        for one in self._folder.read("streams.json") or []:
            there = self._streams.get(one.get("name"))
            # a definition takes a while to parse, and few change at once
            same = there is not None and orjson.loads(orjson.dumps(_written(there))) == one
            stream = there if same and there is not None else _stream(one, self._folder.path / "streams.json")
            found[stream.name] = stream
        self._partitions = (self._folder.read("quotas.json") or {}).get("dynamic_partitions", DEFAULT_PARTITIONS)
        before, self._streams = self._streams, found
        names = [name for name in {**before, **found} if before.get(name) is not found.get(name)]
        return [(before.get(name), found.get(name)) for name in names]

    def _write(self, streams: dict[str, DeliveryStream]) -> None:
        self._folder.write("streams.json", [_written(stream) for stream in streams.values()])
        self._streams = streams


def _written(stream: DeliveryStream) -> dict[str, Any]:
    return {
        "name": stream.name,
        "identity": stream.identity.hex,
        "arn": stream.arn,
        "version": stream.version,
        "created": stream.created,
        "updated": stream.updated,
        "tags": stream.tags,
        "request": stream.request,
        "schema": None if stream.schema is None else stream.schema.to_dict(),
    }


def _schema(one: dict[str, Any]) -> TableSchema | None:
    if one.get("schema"):
        return TableSchema.from_dict(one["schema"])
    if converts(requested_destination(one["request"])):
        raise ValueError("it converts, and the schema that it converts by is missing")
    return None


def _stream(one: dict[str, Any], path: Path) -> DeliveryStream:
    try:
        schema = _schema(one)
        return DeliveryStream(
            name=one["name"],
            identity=UUID(one["identity"]),
            arn=one["arn"],
            version=one["version"],
            created=one["created"],
            # older files have neither
            updated=one.get("updated"),
            tags=one.get("tags", {}),
            request=one["request"],
            destination=destination_of(one["request"], schema),
            schema=schema,
        )
    except (ServiceError, KeyError, ValueError) as error:
        raise EnvironmentProblemError(f"{path}: the definition of {one.get('name')!r} can't be used: {error}") from None
