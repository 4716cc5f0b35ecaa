"""Owns where Trino comes from: fetched once, checked, unpacked into a cache folder, and warmed up there.

Trino's server-core and the two plugins that read a lake come from Maven Central, each pinned by its SHA-256. They are
unpacked beside the place they go to and renamed as a whole, so that a killed unpack is not taken for a whole one.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tarfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from jgo.maven import MavenContext
from jgo.maven import PythonResolver as Resolver

from lake.cache import cache_folder
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ARCHIVE", "VERSION", "installed"]

VERSION = "476"
ARCHIVE = "lakehose.aot"
"""The JVM's ahead-of-time cache inside Trino's folder; a start works without it, only slower."""
_READY = "lakehose.ready"
_KEPT_PLUGINS = {"geospatial"}
"""Of server-core's own; the rest is for clusters: exchanges, passwords, resource groups."""


@dataclass(frozen=True)
class _Artifact:
    name: str
    packaging: str
    sha256: str
    mib: int


_CORE = _Artifact(
    "trino-server-core", "tar.gz", "0f388f9967c177ae70a47c099082fc95387f0c3cb96d8000d1d41fc3a5223158", 185
)
_PLUGINS = {
    "iceberg": _Artifact(
        "trino-iceberg", "zip", "99edba5b491ed94d599aeb61e0794272d3569d8b563f3bb8569e8a49daa87b6c", 330
    ),
    "hive": _Artifact("trino-hive", "zip", "611bacdb07d9f3cf7b9d47f97ecc76fa2e7ff8bfe8a9728c3d06adc1bfb8662e", 246),
}


def installed(say: Callable[[str], None], warm_up: Callable[[Path], None], cache: Path | None = None) -> Path:
    """Trino's folder, fetched and unpacked if it isn't there; safe to call from many processes at once.

    Args:
        say: takes sentences on what is going on.
        warm_up: called once with a fresh folder, to leave the JVM's archive in it.
        cache: folder to install into; see `lake.cache`.

    Raises:
        EnvironmentProblemError: it can't be fetched, or what came is not what it should be.
    """
    folder = cache_folder(cache)
    home = folder / f"trino-{VERSION}"
    ready = home / _READY
    if ready.exists():
        return home
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f"trino-{VERSION}.lock", say):
            if not home.is_dir():
                _install(folder, home, say)
            if not ready.exists():
                warm_up(home)
                ready.touch()
    except OSError as error:
        raise EnvironmentProblemError(f"Trino can't be installed into {folder}: {error}") from error
    return home


@contextmanager
def _lock(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    with path.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is installing Trino; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _install(folder: Path, home: Path, say: Callable[[str], None]) -> None:
    part = folder / f".trino-{VERSION}.part"
    if part.exists():
        shutil.rmtree(part)  # of an install that was killed
    part.mkdir()
    total = sum(one.mib for one in (_CORE, *_PLUGINS.values()))
    say(f"fetching Trino {VERSION} from Maven Central, once: {total} MiB into {folder}")
    core = _fetch(_CORE, part, say)
    with tarfile.open(core) as archive:
        archive.extractall(part, filter="data")
    core.unlink()
    root = part / f"{_CORE.name}-{VERSION}"
    for plugin in (root / "plugin").iterdir():
        if plugin.name not in _KEPT_PLUGINS:
            shutil.rmtree(plugin)
    seen: dict[tuple[str, int, int], Path] = {}
    for name, artifact in _PLUGINS.items():
        fetched = _fetch(artifact, part, say)
        _unzip(fetched, root / "plugin" / name, seen)
        fetched.unlink()
    root.rename(home)
    shutil.rmtree(part)
    say(f"Trino {VERSION} is in {home}")


def _unzip(path: Path, target: Path, seen: dict[tuple[str, int, int], Path]) -> None:
    # the plugins carry the same libraries: one that was there already becomes a hard link
    target.mkdir()
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            if one.is_dir():
                continue
            name = Path(one.filename).name
            key = (name, one.file_size, one.CRC)
            if key in seen:
                (target / name).hardlink_to(seen[key])
                continue
            with archive.open(one) as packed, (target / name).open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
            seen[key] = target / name


def _fetch(artifact: _Artifact, part: Path, say: Callable[[str], None]) -> Path:
    # a copy of Maven's own is taken if it is whole; it may be the rest of a killed download
    local = _resolve(artifact, Path.home() / ".m2" / "repository", offline=True)
    if local is not None and _sha256(local) == artifact.sha256:
        say(f"  {artifact.name}: found in {local.parent}")
        copy = part / local.name
        shutil.copyfile(local, copy)
        return copy
    say(f"  {artifact.name}: {artifact.mib} MiB")
    fetched = _resolve(artifact, part / "maven", offline=False)
    if fetched is None:
        raise EnvironmentProblemError(f"{artifact.name} {VERSION} is not on Maven Central")
    found = _sha256(fetched)
    if found != artifact.sha256:
        raise EnvironmentProblemError(
            f"{fetched.name} came with SHA-256 {found}, expected {artifact.sha256}; it is not used. Try again, and if "
            "it stays so, ask whoever runs the network what stands between this machine and Maven Central"
        )
    return fetched


def _resolve(artifact: _Artifact, repository: Path, *, offline: bool) -> Path | None:
    context = MavenContext(resolver=Resolver(), repo_cache=repository, offline=offline, timeout=60)
    wanted = context.project("io.trino", artifact.name).at_version(VERSION).artifact(packaging=artifact.packaging)
    if offline:
        cached: Path | None = wanted.cached_path
        return cached if cached and cached.exists() else None
    try:
        fetched: Path = wanted.resolve()
    except (RuntimeError, requests.RequestException) as error:
        raise EnvironmentProblemError(f"{artifact.name} {VERSION} can't be fetched from Maven Central: {error}") from (
            error
        )
    return fetched


def _sha256(path: Path) -> str:
    with path.open("rb") as packed:
        return hashlib.file_digest(packed, "sha256").hexdigest()
