"""Owns the chart as it is handed to helm: with the dependencies asked for, and a version that tells its content.

Helm refuses a chart whose dependencies aren't in its folder, whether they are enabled or not. So the chart is copied
with those only that the values enable; they come from a folder of charts, or from their public repositories.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import tarfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from lake.errors import DeclarationError, EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from pyhelm3 import Chart, Client

__all__ = [
    "CHART",
    "LARGEST_RELEASE",
    "Dependency",
    "dependencies",
    "dependency_chart",
    "prepared_chart",
    "release_size",
]

CHART = Path(__file__).parent / "lakehose"
"""The chart's source."""
LARGEST_RELEASE = 1_048_576
"""Bytes of a Secret, in which Helm keeps a release whole."""


@dataclass(frozen=True)
class Dependency:
    """A chart that ours depends on."""

    name: str
    version: str
    repository: str


def dependencies() -> dict[str, Dependency]:
    """The charts that ours depends on, by name."""
    listed = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["dependencies"]
    return {one["name"]: Dependency(one["name"], one["version"], one["repository"]) for one in listed}


async def dependency_chart(client: Client, wanted: Dependency, folder: Path | None, target: Path) -> Chart:
    """A dependency's chart, unpacked.

    Args:
        client: helm.
        wanted: which.
        folder: folder with charts, unpacked or as `.tgz`, in place of the repository.
        target: folder that takes what has to be unpacked.

    Raises:
        EnvironmentProblemError: the folder doesn't hold it at this version.
    """
    if folder is None:
        pulled = await client._command.pull(wanted.name, repo=wanted.repository, version=wanted.version)  # noqa: SLF001 - Client.pull_chart removes it again when its block ends
        return await client.get_chart(pulled / wanted.name)
    return await client.get_chart(_in_folder(wanted, folder, target))


@asynccontextmanager
async def prepared_chart(client: Client, values: Mapping[str, Any], folder: Path | None) -> AsyncIterator[Chart]:
    """Our chart with the dependencies that the values enable; gone when the block ends.

    Its version carries a hash of its content, so that a change of a template is a change for helm too.

    Args:
        client: helm.
        values: for our chart.
        folder: folder with dependencies, in place of their repositories.

    Raises:
        EnvironmentProblemError: the folder lacks one.
    """
    with TemporaryDirectory(prefix="lakehose-chart-") as temporary:
        copy = Path(temporary) / CHART.name
        shutil.copytree(CHART, copy)
        about = yaml.safe_load((copy / "Chart.yaml").read_text(encoding="utf-8"))
        kept = [one for one in about["dependencies"] if _enabled(values, one["name"])]
        for one in kept:
            chart = await dependency_chart(client, dependencies()[one["name"]], folder, Path(temporary))
            shutil.copytree(chart.ref, copy / "charts" / one["name"])
        about["dependencies"] = kept
        (copy / "Chart.yaml").write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")
        about["version"] += f"+{_digest(copy)}"
        (copy / "Chart.yaml").write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")
        yield await client.get_chart(copy)


def release_size(chart: Path, values: Mapping[str, Any], resources: Iterable[Mapping[str, Any]]) -> int:
    """Bytes that a release takes in the Secret in which Helm keeps it, within a few percent.

    Helm keeps the chart's files, the values and what was rendered: as JSON, gzipped, in base64.
    """
    files = {str(path): path.read_text(encoding="utf-8") for path in sorted(chart.rglob("*")) if path.is_file()}
    # files are base64 of their own in it; what was rendered is one text
    texts = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
    manifest = "---\n".join(yaml.dump(dict(one), Dumper=_FAST) for one in resources)
    whole = json.dumps({"chart": texts, "config": values, "manifest": manifest}, separators=(",", ":"))
    return 4 * -(-len(gzip.compress(whole.encode(), 9)) // 3)


def _in_folder(wanted: Dependency, folder: Path, target: Path) -> Path:
    if not folder.is_dir():
        raise EnvironmentProblemError(f"--charts {folder}: no such folder; name one that holds {wanted.name}")
    found = []
    for path in sorted(folder.iterdir()):
        name, version = _named(path)
        if name == wanted.name and version == wanted.version:
            return path if path.is_dir() else _unpacked(path, target)
        if name == wanted.name:
            found.append(version or "no version")
    told = f"has it at {', '.join(found)}" if found else "has none of this name"
    raise EnvironmentProblemError(
        f"--charts {folder}: {wanted.name} {wanted.version} is needed, the folder {told}; put there what "
        f"`helm pull {wanted.name} --repo {wanted.repository} --version {wanted.version}` fetches"
    )


_FAST = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _enabled(values: Mapping[str, Any], name: str) -> bool:
    return bool(values.get(name, {}).get("enabled", False))


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:8]


def _named(path: Path) -> tuple[str | None, str | None]:
    """Name and version of the chart in a folder or an archive; neither for anything else."""
    try:
        if path.is_dir():
            text = (path / "Chart.yaml").read_bytes()
        elif path.suffix == ".tgz":
            with tarfile.open(path) as archive:
                inner = next(one for one in archive.getnames() if one.count("/") == 1 and one.endswith("/Chart.yaml"))
                read = archive.extractfile(inner)
                text = read.read() if read else b""
        else:
            return None, None
        about = yaml.safe_load(text)
        return about["name"], str(about["version"])
    except (OSError, tarfile.TarError, StopIteration, yaml.YAMLError, KeyError, TypeError):
        return None, None


def _unpacked(path: Path, target: Path) -> Path:
    try:
        with tarfile.open(path) as archive:
            archive.extractall(target / path.stem, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise DeclarationError(f"--charts {path}: can't be unpacked: {error}") from None
    return next(one for one in (target / path.stem).iterdir() if (one / "Chart.yaml").is_file())
