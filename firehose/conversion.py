"""Owns format conversion: what it is made of, and the step that judges records by it.

A record is judged when it is taken in: what doesn't fit the table is refused there, and the good ones go on as the
bytes they came as. They are read once more, by the same rules, when their object is made (`columnar`): an object that
is written again after a crash is made by the conversion that its intent holds, whatever the table says by then.
Source: https://docs.aws.amazon.com/firehose/latest/dev/record-format-conversion.html
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from firehose.hive_types import parse_hive_type
from firehose.joda_time import parse_joda
from firehose.processing import Reason
from firehose.serdes import ConversionError, RowReader, Serde

if TYPE_CHECKING:
    from collections.abc import Mapping

    from firehose.processing import Chunk

__all__ = [
    "OUTPUT_TYPE",
    "Conversion",
    "ConvertFormat",
    "TableSchema",
    "Unconverted",
    "serde_of",
]

OUTPUT_TYPE = "format-conversion-failed"
"""What `!{firehose:error-output-type}` is for records that can't be converted."""


@dataclass(frozen=True, slots=True)
class Unconverted(Reason):
    """Why a record couldn't be converted."""

    table: Mapping[str, str] = field(default_factory=dict)
    """What its error record tells of the table, as `dataCatalogTable`."""


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A Glue table as it was read."""

    columns: tuple[tuple[str, str], ...]
    """Names and Hive types; partition keys aren't among them, as they are no columns of the files."""
    version: str
    """Its VersionId then."""
    table: Mapping[str, str] = field(default_factory=dict)
    """What error records tell of it, as `dataCatalogTable`."""

    def to_dict(self) -> dict[str, Any]:
        """Render for the definitions' file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, made: dict[str, Any]) -> TableSchema:
        """Read what `to_dict` wrote."""
        return cls(tuple((name, hive) for name, hive in made["columns"]), made["version"], made["table"])


@dataclass(frozen=True, slots=True)
class Conversion:
    """How records become a file of columns."""

    columns: tuple[tuple[str, str], ...]
    """Names and Hive types."""
    deserializer: Mapping[str, Any]
    """As in the request: `OpenXJsonSerDe` or `HiveJsonSerDe`, with its options."""
    serializer: Mapping[str, Any]
    """As in the request: `ParquetSerDe` or `OrcSerDe`, with its options."""
    table: Mapping[str, str] = field(default_factory=dict)
    """What error records tell of the table."""

    @property
    def is_orc(self) -> bool:
        """Whether files are ORC; otherwise Parquet."""
        return self.serializer.get("OrcSerDe") is not None

    @property
    def options(self) -> Mapping[str, Any]:
        """The serializer's options."""
        found: Mapping[str, Any] = self.serializer["OrcSerDe" if self.is_orc else "ParquetSerDe"]
        return found

    @property
    def reader(self) -> RowReader:
        """Reads the records by it that were let through."""
        return self._reader(for_orc=False)

    @property
    def judge(self) -> RowReader:
        """Reads records to tell whether they are let through: what it refuses, `reader` may still read.

        So a stricter judge leaves no object unwritten that an intent in the log has announced.
        """
        return self._reader(for_orc=self.is_orc)

    def _reader(self, *, for_orc: bool) -> RowReader:
        return _reader(orjson.dumps([self.columns, self.deserializer, for_orc]))

    def to_dict(self) -> dict[str, Any]:
        """Render for the log."""
        return asdict(self)

    @classmethod
    def from_dict(cls, made: dict[str, Any]) -> Conversion:
        """Read what `to_dict` wrote."""
        columns = tuple((name, hive) for name, hive in made["columns"])
        return cls(columns, made["deserializer"], made["serializer"], made["table"])


def serde_of(deserializer: Mapping[str, Any]) -> Serde:
    """Make the deserializer of a request.

    Raises:
        PatternError: one of Hive's TimestampFormats isn't Joda's.
    """
    openx = deserializer.get("OpenXJsonSerDe")
    if openx is not None:
        return Serde(
            lenient=True,
            case_insensitive=openx.get("CaseInsensitive") is not False,
            dots=bool(openx.get("ConvertDotsInJsonKeysToUnderscores")),
            keys=openx.get("ColumnToJsonKeyMappings") or {},
        )
    given = deserializer["HiveJsonSerDe"].get("TimestampFormats") or []
    return Serde(lenient=False, formats=tuple(parse_joda(one) for one in given))


@lru_cache(maxsize=64)
def _reader(made_of: bytes) -> RowReader:
    columns, deserializer, for_orc = orjson.loads(made_of)
    serde = replace(serde_of(deserializer), for_orc=for_orc)
    return RowReader([(name, parse_hive_type(hive)) for name, hive in columns], serde)


@dataclass(frozen=True, slots=True)
class ConvertFormat:
    """The step behind all processors: refuses records that can't be converted, and lets the others by as they are."""

    conversion: Conversion

    def apply(self, chunk: Chunk, now_ms: int) -> Chunk:
        """Read each record by the conversion."""
        check = self.conversion.judge.check
        wrong: dict[int, Reason] = {}
        for index, raw in enumerate(chunk.data):
            try:
                check(raw)
            except ConversionError as error:
                wrong[index] = Unconverted(OUTPUT_TYPE, error.code, str(error), table=self.conversion.table)
        return chunk.without(wrong, now_ms)
