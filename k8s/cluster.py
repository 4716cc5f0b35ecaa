"""Owns requests to a cluster: of any kind of object, with refusals that are sentences.

The `kubernetes` client does TLS and credentials. Its generated calls know only the kinds it was generated for; what is
applied here is of any kind, so requests go to the paths that the API server itself tells.
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from k8s.errors import NotFoundError, UnreachableError, refusal
from k8s.specs import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FIELD_MANAGER", "Cluster", "Kind", "Stream", "place"]

FIELD_MANAGER = "lakehose"
"""Whose fields they are that we apply."""

_CONNECT_SECONDS, _READ_SECONDS = 10, 60
_QUIET_SECONDS = 330
"""A stream in which nothing comes for so long is taken for dead: the server ends a watch after five minutes."""
_OK = range(200, 300)
_JSON, _APPLY = "application/json", "application/apply-patch+yaml"


@dataclass(frozen=True)
class Kind:
    """A kind of object, as the API server tells of it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """Path of one object, or of all in a namespace, or of all."""
        root = "/api" if "/" not in self.api_version else "/apis"
        parts = [root, self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *([name] if name else [])])


def place(one: Mapping[str, Any]) -> str:
    """What an object is called in messages: kind, namespace and name.

    >>> place({"kind": "Pod", "metadata": {"namespace": "acme", "name": "one"}})
    'Pod acme/one'
    """
    metadata = one["metadata"]
    return f"{one['kind']} " + "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)


class Stream:
    """The lines of an answer that goes on: a watch, or a log. Another thread may close it."""

    def __init__(self, answer: urllib3.BaseHTTPResponse, where: str) -> None:
        self._answer = answer
        self._where = where

    def __iter__(self) -> Iterator[bytes]:
        """Each line without its newline, as it comes; what is left without one at the end is the last.

        Raises:
            UnreachableError: the connection broke.
        """
        rest = b""
        try:
            for piece in self._answer.stream(amt=None):
                *lines, rest = (rest + piece).split(b"\n")
                yield from lines
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(f"{self._where}: the connection broke: {_cause(error)}") from None
        finally:
            self.close()
        if rest:
            yield rest

    def close(self) -> None:
        """End it; an iteration under way in another thread ends at its next line."""
        self._answer.close()


class Cluster:
    """A cluster, as one context of a kubeconfig sees it."""

    def __init__(self, configuration: client.Configuration, context: str) -> None:
        # urllib3 says each retry in a warning; the one retry that is worth it is below
        configuration.retries = False
        # a watch of applications, pods and events and a log, for each of some runs
        configuration.connection_pool_maxsize = 64
        self._api: Any = client.ApiClient(configuration)
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._lock = threading.Lock()
        self.context = context
        self.address: str = configuration.host

    def __str__(self) -> str:
        return f"cluster {self.address} (context {self.context})"

    def close(self) -> None:
        """Close the connections."""
        self._api.rest_client.pool_manager.clear()

    def kind(self, api_version: str, kind: str) -> Kind:
        """What the cluster knows of a kind.

        Raises:
            NotFoundError: it knows none of this name.
        """
        with self._lock:
            found = self._kinds.get((api_version, kind))
        return found or self._discovered(api_version, kind)

    def _discovered(self, api_version: str, kind: str) -> Kind:
        root = "/api" if "/" not in api_version else "/apis"
        try:
            answer = self._call("GET", f"{root}/{api_version}", f"{kind} ({api_version})")
            resources = answer["resources"]
        except NotFoundError:
            resources = []
        with self._lock:
            for one in resources:
                if "/" not in one["name"]:  # `pods/log` and its like are parts of another
                    made = Kind(api_version, one["kind"], one["name"], one["namespaced"])
                    self._kinds[api_version, one["kind"]] = made
            found = self._kinds.get((api_version, kind))
        if found:
            return found
        if api_version.startswith(f"{GROUP}/"):
            raise NotFoundError(
                f"{self} knows no {kind} ({api_version}): the Spark Operator isn't installed; "
                "`lakehose deploy install` installs it"
            )
        raise NotFoundError(f"{self} knows no {kind} ({api_version}); is the cluster too old, or a CRD missing?")

    def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any] | None:
        """An object, or None where there is none of this name."""
        where = f"{kind.kind} " + "/".join(part for part in (namespace, name) if part)
        try:
            return self._call("GET", kind.path(namespace, name), where)
        except NotFoundError:
            return None

    def list(self, kind: Kind, namespace: str | None, **selectors: str) -> dict[str, Any]:
        """The list of objects, whole, with its `metadata.resourceVersion`.

        Args:
            kind: what.
            namespace: where; None is everywhere.
            selectors: `labelSelector`, `fieldSelector`.
        """
        where = f"{kind.plural} of {namespace or 'the cluster'}"
        found = self._call("GET", kind.path(namespace), where, query=selectors | {"limit": "500"})
        while found["metadata"].get("continue"):
            more = {"limit": "500", "continue": found["metadata"]["continue"]}
            page = self._call("GET", kind.path(namespace), where, query=selectors | more)
            found = {**page, "items": [*found["items"], *page["items"]]}
        # a list leaves kind and version out of its items
        head = {"apiVersion": kind.api_version, "kind": kind.kind}
        return {**found, "items": [head | one for one in found["items"]]}

    def create(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object.

        Raises:
            RefusedError: the cluster refuses it.
        """
        kind = self.kind(one["apiVersion"], one["kind"])
        path = kind.path(one["metadata"].get("namespace"))
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return self._call("POST", path, place(one), query=query, body=dict(one))

    def apply(self, one: Mapping[str, Any], *, dry_run: bool = False, force: bool = False) -> dict[str, Any]:
        """Make an object as given, by server-side apply; answers the object as it is then.

        Raises:
            ConflictError: another manager has set one of its fields to something else.
            RefusedError: the cluster refuses it.
        """
        kind = self.kind(one["apiVersion"], one["kind"])
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": str(force).lower()}
        query |= {"dryRun": "All"} if dry_run else {}
        path = kind.path(one["metadata"].get("namespace"), one["metadata"]["name"])
        return self._call("PATCH", path, place(one), query=query, body=dict(one), content=_APPLY)

    def delete(self, one: Mapping[str, Any]) -> bool:
        """Delete an object, and in the background what belongs to it; answers whether it was there."""
        kind = self.kind(one["apiVersion"], one["kind"])
        path = kind.path(one["metadata"].get("namespace"), one["metadata"]["name"])
        try:
            self._call("DELETE", path, place(one), body={"propagationPolicy": "Background"})
        except NotFoundError:
            return False
        return True

    def stream(self, path: str, where: str, query: Mapping[str, str]) -> Stream:
        """Open an answer that goes on: a watch, or a log.

        Raises:
            GoneError: the watch's version is too old.
            UnreachableError: there is no answer.
        """
        answer = self._send("GET", path, where, query, read_seconds=_QUIET_SECONDS)
        if answer.status not in _OK:
            raise refusal(answer.status, _status(answer.read()), where)
        return Stream(answer, where)

    def _call(
        self,
        method: str,
        path: str,
        where: str,
        *,
        query: Mapping[str, str] | None = None,
        body: dict[str, Any] | None = None,
        content: str = _JSON,
    ) -> dict[str, Any]:
        try:
            answer = self._send(method, path, where, query or {}, body=body, content=content)
            data = answer.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(f"{where}: the connection broke: {_cause(error)}") from None
        status = _status(data)
        if answer.status not in _OK:
            raise refusal(answer.status, status, where)
        return status

    def _send(
        self,
        method: str,
        path: str,
        where: str,
        query: Mapping[str, str],
        *,
        body: dict[str, Any] | None = None,
        content: str = _JSON,
        read_seconds: int = _READ_SECONDS,
    ) -> urllib3.BaseHTTPResponse:
        request = self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": _JSON, "Content-Type": content},
            body=body,
            post_params=[],
            files={},
            auth_settings=["BearerToken"],
        )
        # a connection kept open may have been closed by the other side; making an object twice is the one thing that
        # must not happen by itself
        attempts = 1 if method == "POST" else 2
        for attempt in range(1, attempts + 1):
            try:
                answer: urllib3.BaseHTTPResponse = self._api.call_api(
                    *request, _request_timeout=(_CONNECT_SECONDS, read_seconds)
                ).response
            except urllib3.exceptions.ProtocolError as error:
                if attempt == attempts:
                    raise UnreachableError(f"{where}: the connection broke: {_cause(error)}") from None
            except (urllib3.exceptions.HTTPError, ApiException) as error:
                raise UnreachableError(
                    f"{self} can't be reached: {_cause(error)}; is it up, and is it the right context? "
                    "`kubectl config get-contexts` lists them, --context chooses"
                ) from None
            else:
                return answer
        raise AssertionError  # the loop returns or raises


def _status(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {"message": data[:500].decode(errors="replace").strip()}
    return found if isinstance(found, dict) else {}


def _cause(error: BaseException) -> str:
    """The innermost of what a connection's failure says, without addresses of objects in memory."""
    if isinstance(error, ApiException):
        return str(error.reason).partition("\n")[2] or str(error.reason)
    found = getattr(error, "reason", None) or error
    return re.sub(r"^<[^>]*>: |^HTTPS?Connection\([^)]*\): ", "", str(found))
