"""Owns where results go: S3 locations as users write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from athena.wire import invalid_request

__all__ = ["Location"]

_LOCATION = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Location:
    """A bucket and a key or prefix in it."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read `s3://bucket/…`.

        Raises:
            ServiceError: InvalidRequestException, it is none.
        """
        found = _LOCATION.fullmatch(text)
        if found is None:
            raise invalid_request(f"outputLocation is not a valid S3 path: {text!r}, expected s3://bucket/prefix/")
        return cls(found.group(1), found.group(2) or "")

    def below(self, name: str) -> str:
        """The location of a file in this prefix."""
        prefix = f"{self.key.rstrip('/')}/" if self.key.strip("/") else ""
        return f"s3://{self.bucket}/{prefix}{name}"
