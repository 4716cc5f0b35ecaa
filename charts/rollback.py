"""Owns bringing a release back to a revision, out of a change that was cut off or failed as well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pyhelm3 import errors as helm_errors

from charts.problems import is_unowned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyhelm3 import ReleaseRevision

    from k8s.cluster import Cluster

__all__ = ["rolled_back"]

_KEEP = ("helm.sh/resource-policy", "keep")


async def rolled_back(cluster: Cluster, newest: ReleaseRevision, number: int, **options: Any) -> ReleaseRevision:
    """Bring a release back to a revision.

    A change that was to take custom resources out, and didn't come so far, leaves them with a revision that doesn't
    list them. Helm 3.22 then compares the revision that it goes back to with the cluster's whole object, and sends a
    patch that takes away the object's resourceVersion, which the API server refuses. The revision that it notes for
    this attempt lists them again, so that a second attempt goes through. That one knows no more what the unfinished
    change had made, which is why it is removed here.

    Args:
        cluster: the cluster.
        newest: the release's newest revision, in whatever state.
        number: the revision to go back to.
        options: as of pyhelm3's `Release.rollback`.

    Returns:
        the revision that is there then.
    """
    try:
        found: ReleaseRevision = await newest.release.rollback(number, **options)
    except helm_errors.Error as error:
        if not is_unowned(error):
            raise
    else:
        return found
    wanted = {_identity(one) for one in await (await newest.release.revision(number)).resources()}
    made = [one for one in await newest.resources() if _identity(one) not in wanted and not _is_kept(one)]
    found = await newest.release.rollback(number, **options)
    for one in made:
        await asyncio.to_thread(cluster.delete, _placed(one, newest.release.namespace))
    return found


def _identity(one: Mapping[str, Any]) -> tuple[str, str, str, str]:
    # without the version: a kind that was moved to another is the same object
    return (
        one["apiVersion"].rpartition("/")[0],
        one["kind"],
        one["metadata"].get("namespace", ""),
        one["metadata"]["name"],
    )


def _is_kept(one: Mapping[str, Any]) -> bool:
    name, value = _KEEP
    return bool((one["metadata"].get("annotations") or {}).get(name) == value)


def _placed(one: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    return {**one, "metadata": {"namespace": namespace, **one["metadata"]}}
