"""Owns the manifests: all objects of a lake, by file, in the order they are applied, as YAML that stays the same.

`kubectl apply -f k8s/manifests/` takes the files in the order of their names: namespaces first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from k8s.applications import scheduled
from k8s.namespaces import namespace, priority_classes, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lake.declaration import Lake

__all__ = ["HEADER", "manifests", "to_yaml"]

HEADER = "# Made by `lakehose k8s render` from lake.yaml. Change that, and render again.\n"


def manifests(lake: Lake, declaration: Path, *, endpoint: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """All objects of a lake, by the name of their file.

    Args:
        lake: the declaration.
        declaration: its file; contracts are relative to it.
        endpoint: URL at which pods find AWS; AWS itself without it.

    Raises:
        DeclarationError: declaration and contracts are larger than a ConfigMap may be, or a contract lies outside of
            the declaration's folder.
    """
    spaces = lake.workspaces()
    files = {"00-namespaces.yaml": [*priority_classes(lake), *(namespace(lake, one) for one in spaces)]}
    for one in spaces:
        jobs = [job for job in lake.jobs_of(one) if job.schedule]
        files[f"10-{one.owner}.yaml"] = [
            *surroundings(lake, one, declaration, endpoint),
            *(scheduled(lake, job, one, endpoint=endpoint).to_dict() for job in jobs),
        ]
    return files


def to_yaml(objects: Iterable[dict[str, Any]]) -> str:
    """Objects as one file of YAML; the same objects give the same text."""
    style: dict[str, Any] = {"sort_keys": False, "width": 120, "allow_unicode": True, "default_flow_style": False}
    parts = (yaml.dump(_headed(one), Dumper=_Dumper, **style) for one in objects)
    return HEADER + "---\n".join(["", *parts])


def _headed(one: dict[str, Any]) -> dict[str, Any]:
    """An object with what it is and what it is called first, as people write them."""
    head = {key: one[key] for key in ("apiVersion", "kind", "metadata")}
    return head | {key: value for key, value in one.items() if key not in head}


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and repeats what is there twice rather than refer to it."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        """No `&id001`: a person reads this."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
