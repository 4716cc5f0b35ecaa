"""Owns how a statement reaches Trino: one HTTP session a query, values as Trino wrote them, and a way to break off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from trino.client import ClientSession, TrinoQuery, TrinoRequest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Session"]

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 60.0


@dataclass(frozen=True)
class Session:
    """Where statements run."""

    url: str
    """Trino's, for example `http://127.0.0.1:8080`."""
    catalog: str | None = None
    schema: str | None = None

    def query(self, sql: str, progress: Callable[[dict[str, Any]], None] | None = None) -> TrinoQuery:
        """Make a query; `execute()` on it starts it and answers its rows, page by page.

        Args:
            sql: one statement without a semicolon.
            progress: gets Trino's statistics with every answer of the server; what it raises ends the wait.
        """
        place = urlsplit(self.url)
        http = requests.Session()
        http.trust_env = False  # a proxy has no business between two processes of this machine
        request = TrinoRequest(
            host=place.hostname or "127.0.0.1",
            port=place.port or 80,
            client_session=ClientSession(
                user="athena",
                catalog=self.catalog,
                schema=self.schema,
                source="lakehose",
                timezone="UTC",
                encoding=[],
            ),
            http_session=http,
            http_scheme="http",
            max_attempts=3,
            request_timeout=(_CONNECT_SECONDS, _READ_SECONDS),
        )
        return TrinoQuery(request, sql, legacy_primitive_types=True, stats_callback=progress)

    def value(self, sql: str) -> Any:
        """The first value of a statement's answer."""
        return next(iter(self.query(sql).execute()))[0]
