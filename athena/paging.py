"""Owns the pages of lists: tokens that say how many were given before."""

from __future__ import annotations

from typing import Any

from athena.wire import invalid_request

__all__ = ["page_bounds", "paged"]


def page_bounds(request: dict[str, Any], most: int) -> tuple[int, int]:
    """Where a list's page starts and how long it may be.

    Raises:
        ServiceError: the token is none of ours.
    """
    token = request.get("NextToken")
    if token is not None and not token.isdecimal():
        raise invalid_request(f"Invalid NextToken {token!r}")
    return int(token or 0), min(request.get("MaxResults", most), most)


def paged(name: str, found: list[Any], start: int, total: int) -> dict[str, Any]:
    """A page under its name, with a token where more follows."""
    end = start + len(found)
    return {name: found} | ({"NextToken": str(end)} if end < total else {})
