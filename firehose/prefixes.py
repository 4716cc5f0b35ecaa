"""Owns S3 prefixes with expressions, and the keys of objects made from them.

`!{timestamp:…}`, `!{firehose:random-string}`, `!{firehose:error-output-type}`, `!{partitionKeyFromQuery:…}` and
`!{partitionKeyFromLambda:…}` are parsed once, when a stream is created; every instance in one key shares the arrival
time of the object's oldest record.
Source: https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from firehose.java_time import JavaPattern, PatternError, parse_pattern
from lake.errors import TerminalError, known_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

__all__ = [
    "FROM_LAMBDA",
    "FROM_QUERY",
    "DefaultSuffix",
    "Part",
    "Prefix",
    "PrefixError",
    "object_key",
    "parse_prefix",
    "unsafe_key",
]

_RAW_LENGTH, _EVALUATED_LENGTH, _KEY_BYTES = 1024, 512, 1024
FROM_QUERY, FROM_LAMBDA = "partitionKeyFromQuery", "partitionKeyFromLambda"
"""Namespaces of partition keys, by what makes them."""
_NAMESPACES = ("timestamp", "firehose", FROM_QUERY, FROM_LAMBDA)
_FIREHOSE = ("random-string", "error-output-type")
_EXPRESSION = re.compile(r"!\{([^}]*)\}")
_RANDOM_LETTERS = string.ascii_letters + string.digits
_RANDOM_LENGTH = 11
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class DefaultSuffix(StrEnum):
    """When the default `yyyy/MM/dd/HH/` goes behind a prefix: the documentation and the service differ."""

    OBSERVED = "no expression at all"
    """What the service was seen to do (floci compared with it), by concatenation, with no slash between."""
    DOCUMENTED = "no timestamp expression"


DEFAULT_SUFFIX = DefaultSuffix.OBSERVED
_SUFFIX = parse_pattern("yyyy/MM/dd/HH/")
_OBJECT_TIME = parse_pattern("yyyy-MM-dd-HH-mm-ss")


class PrefixError(TerminalError):
    """A prefix that the service would refuse."""


@dataclass(frozen=True, slots=True)
class Part:
    """One expression of a prefix."""

    namespace: str
    value: str
    pattern: JavaPattern | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """A parsed prefix: literals and expressions in order."""

    text: str
    parts: tuple[str | Part, ...]

    def has(self, namespace: str, value: str | None = None) -> bool:
        """Tell whether an expression of the namespace (and value) is there."""
        return any(
            isinstance(part, Part) and part.namespace == namespace and value in {None, part.value}
            for part in self.parts
        )

    @property
    def has_expressions(self) -> bool:
        """Whether there is any expression."""
        return any(isinstance(part, Part) for part in self.parts)

    def keys(self, namespace: str) -> set[str]:
        """Names of the partition keys of a namespace that are used."""
        return {part.value for part in self.parts if isinstance(part, Part) and part.namespace == namespace}

    def evaluate(
        self,
        oldest: datetime,
        values: Mapping[tuple[str, str], str],
        choose: Callable[[str], str],
        error_type: str = "",
    ) -> str:
        """Make the prefix of one object, default suffix included.

        `oldest` is the arrival of the object's oldest record, in the stream's zone; `values` are the partition keys',
        by namespace and name; `choose` picks one letter of a string at random.
        """
        made = "".join(
            part if isinstance(part, str) else _evaluate(part, oldest, values, choose, error_type)
            for part in self.parts
        )
        if error_type and not self.has_expressions:
            # a literal error prefix is followed by the kind of error and the time, as the documentation's table has it
            made += f"{error_type}/"
        with_time = self.has_expressions if DEFAULT_SUFFIX is DefaultSuffix.OBSERVED else self.has("timestamp")
        return made if with_time else made + _SUFFIX.format(oldest)


def parse_prefix(text: str) -> Prefix:
    """Parse a prefix.

    Raises:
        PrefixError: too long, an expression that isn't closed, an unknown namespace or value, a bad time pattern.
    """
    if len(text) > _RAW_LENGTH:
        raise PrefixError(f"the prefix has {len(text)} characters, at most {_RAW_LENGTH} are allowed")
    parts: list[str | Part] = []
    position = 0
    for match in _EXPRESSION.finditer(text):
        parts.append(text[position : match.start()])
        parts.append(_part(match[1], text))
        position = match.end()
    parts.append(text[position:])
    if any("!{" in part for part in parts if isinstance(part, str)):
        raise PrefixError(f"prefix {text!r}: an expression is opened by '!{{' and not closed by '}}'")
    return Prefix(text, tuple(part for part in parts if part))


def _part(expression: str, text: str) -> Part:
    namespace, colon, value = expression.partition(":")
    if not colon or not value:
        raise PrefixError(f"prefix {text!r}: '!{{{expression}}}' is not !{{namespace:value}}")
    if namespace not in _NAMESPACES:
        raise PrefixError(f"prefix {text!r}: namespace: {known_values(namespace, _NAMESPACES)}")
    if namespace == "timestamp":
        try:
            return Part(namespace, value, parse_pattern(value))
        except PatternError as error:
            raise PrefixError(f"prefix {text!r}: {error}") from None
    if namespace == "firehose" and value not in _FIREHOSE:
        raise PrefixError(f"prefix {text!r}: !{{firehose:…}}: {known_values(value, _FIREHOSE)}")
    return Part(namespace, value)


def _evaluate(
    part: Part, oldest: datetime, values: Mapping[tuple[str, str], str], choose: Callable[[str], str], error_type: str
) -> str:
    if part.pattern is not None:
        return part.pattern.format(oldest)
    if part.namespace in {FROM_QUERY, FROM_LAMBDA}:
        return values[part.namespace, part.value]
    if part.value == "error-output-type":
        return error_type
    return "".join(choose(_RANDOM_LETTERS) for _ in range(_RANDOM_LENGTH))


def object_key(prefix: str, stream: str, version: int, oldest: datetime, *, unique: str, extension: str) -> str:
    """Name an object: `<prefix><stream>-<version>-yyyy-MM-dd-HH-mm-ss-<uuid><ext>`."""
    return f"{prefix}{stream}-{version}-{_OBJECT_TIME.format(oldest)}-{unique}{extension}"


def unsafe_key(prefix: str, key: str) -> str | None:
    """Say why S3 would not take an object under this key, or None.

    Partition values come from records, so a record could otherwise hold up its partition for ever.
    """
    if len(prefix) > _EVALUATED_LENGTH:
        return f"the evaluated prefix has {len(prefix)} characters, at most {_EVALUATED_LENGTH} are allowed"
    if len(key.encode("utf-8", "surrogatepass")) > _KEY_BYTES:
        return f"the object key is longer than the {_KEY_BYTES} bytes S3 allows"
    if _CONTROL.search(key):
        return "the object key would hold a control character"
    if any(segment in {".", ".."} for segment in key.split("/")):
        return "the object key would hold '.' or '..' as a folder"
    return None
