"""Owns bringing a release back to a revision, out of a change that was cut off or failed as well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pyhelm3 import errors as helm_errors

from charts.contents import placed
from charts.problems import is_unowned
from k8s.cluster import place

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
    namespace = newest.release.namespace
    before = await (await newest.release.revision(number)).resources()
    wanted = {place(one) for one in placed(before, namespace)}
    listed = placed(await newest.resources(), namespace)
    made = [one for one in listed if place(one) not in wanted and not _is_kept(one)]
    found = await newest.release.rollback(number, **options)
    for one in made:
        await asyncio.to_thread(cluster.delete, one)
    return found


def _is_kept(one: Mapping[str, Any]) -> bool:
    name, value = _KEEP
    return bool((one["metadata"].get("annotations") or {}).get(name) == value)
