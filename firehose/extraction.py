"""Owns MetadataExtraction: partition keys taken from records by jq, run by libjq.

A query that is an object of paths and slices is answered from the parsed record directly, about ten times faster; any
value that isn't a plain string or a small whole number there, and any record that isn't strict JSON, goes to libjq,
so that both ways give the same keys (a test compares them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jq
import orjson

from firehose.jq_query import PlainPath, made_keys, plain_paths, refused_words
from firehose.processing import Chunk, Reason, Refused
from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ExtractKeys", "QueryError", "compile_query"]

# No source says which error-output-type a failed extraction has. It is a processor's failure and gets the processors'.
_OUTPUT_TYPE = "processing-failed"
_CODE = "DynamicPartitioning.MetadataExtractionFailed"
_EMPTY = Reason(_OUTPUT_TYPE, _CODE, "partitionKeys values must not be null or empty")
# The service's words for these are not known; they say what happened.
_NOT_SCALAR = Reason(_OUTPUT_TYPE, _CODE, "partitionKeys values must be strings, numbers or booleans")
_NOT_OBJECT = Reason(_OUTPUT_TYPE, _CODE, "The query must return one object of partitionKeys for a record")
_NOT_ONE_VALUE = "The record is not valid JSON: it holds no value, or more than one"
_SMALL = 10**15
"""Whole numbers up to here look the same to Python and jq."""
# jq 1.6 knows only doubles; adding 0 takes from libjq the literal's own digits, which later versions keep.
_RENDER = jq.compile("(. + 0) | tostring")


class QueryError(TerminalError):
    """A MetadataExtractionQuery that can't be used."""


def compile_query(query: str) -> ExtractKeys:
    """Compile a query once for a stream.

    Raises:
        QueryError: libjq doesn't compile it, or it uses what jq 1.6 lacks or what reaches outside of a record.
    """
    try:
        jq.compile(query)
        program = jq.compile(f'try [({query}\n)] catch {{"error": .}}')
    except ValueError as error:
        raise QueryError(f"MetadataExtractionQuery {query!r}: {str(error).splitlines()[0]}") from None
    refused = refused_words(query)
    if refused:
        raise QueryError(
            f"MetadataExtractionQuery {query!r}: {', '.join(refused)}: not in jq 1.6, or reaches outside of the record"
        )
    return ExtractKeys(program, _keys(query, program), plain_paths(query))


def _keys(query: str, program: Any) -> tuple[str, ...] | None:
    keys = made_keys(query)
    if keys is None:
        # its text doesn't show the keys; what it makes of nothing often does
        made = program.input_text("null").first()
        if not isinstance(made, list) or not made or not all(isinstance(one, dict) for one in made):
            return None
        keys = [key for one in made for key in one]
    return tuple(dict.fromkeys(keys))


class ExtractKeys:
    """The step that takes partition keys."""

    def __init__(self, program: Any, keys: tuple[str, ...] | None, plain: list[PlainPath] | None) -> None:
        self._program = program
        self.known_keys = keys
        """Keys the query makes; None when that depends on the record."""
        self.keys = keys or ()
        """Keys whose values are taken, in order."""
        self._getters = [_getter(path) for path in plain] if plain else None

    def using(self, keys: Sequence[str]) -> ExtractKeys:
        """Take the values of these keys, in this order, for a query whose keys depend on the record."""
        other = ExtractKeys(self._program, self.known_keys, None)
        other._getters = self._getters if tuple(keys) == self.keys else None
        other.keys = tuple(keys)
        return other

    def apply(self, chunk: Chunk, now_ms: int) -> Chunk:
        """Take each record's keys; a record that has none is refused."""
        found: list[tuple[str, ...] | None] = [None] * len(chunk.data)
        reasons: dict[int, Reason] = {}
        for_jq = range(len(chunk.data)) if self._getters is None else self._directly(chunk.data, found)
        if for_jq:
            self._by_jq(chunk.data, for_jq, found, reasons)
        if not reasons:
            chunk.keys = found  # type: ignore[assignment]  # none is left without keys
            return chunk
        refused = [
            Refused(chunk.numbers[index], chunk.data[index], chunk.arrival_ms, now_ms, reason)
            for index, reason in sorted(reasons.items())
        ]
        kept = [index for index in range(len(found)) if index not in reasons]
        return Chunk(
            data=[chunk.data[index] for index in kept],
            numbers=[chunk.numbers[index] for index in kept],
            arrival_ms=chunk.arrival_ms,
            keys=[keys for index in kept if (keys := found[index]) is not None],
            suffix=chunk.suffix,
            refused=[*chunk.refused, *refused],
        )

    def _directly(self, data: list[bytes], found: list[tuple[str, ...] | None]) -> list[int]:
        # returns the records that libjq has to look at
        getters = self._getters or []
        loads = orjson.loads
        left: list[int] = []
        for index, raw in enumerate(data):
            try:
                document = loads(raw)
                values = [get(document) for get in getters]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                left.append(index)
                continue
            for position, value in enumerate(values):
                if type(value) is not str:
                    if type(value) is not int or not 0 < abs(value) < _SMALL:
                        left.append(index)
                        break
                    values[position] = str(value)
                elif not value:
                    left.append(index)
                    break
            else:
                found[index] = tuple(values)
        return left

    def _by_jq(
        self,
        data: list[bytes],
        which: Sequence[int],
        found: list[tuple[str, ...] | None],
        reasons: dict[int, Reason],
    ) -> None:
        strict: list[int] = []
        for index in which:
            try:
                orjson.loads(data[index])
                strict.append(index)
            except orjson.JSONDecodeError:
                self._one(data[index], index, found, reasons)
        if not strict:
            return
        # each strict record is exactly one value, and the program gives exactly one answer a value
        try:
            answers = self._program.input_text("\n".join(data[index].decode() for index in strict)).all()
        except ValueError:
            answers = []  # a record is deeper than libjq goes: find out which
        if len(answers) != len(strict):
            for index in strict:
                self._one(data[index], index, found, reasons)
            return
        for index, answer in zip(strict, answers, strict=True):
            self._settle(answer, index, found, reasons)

    def _one(self, raw: bytes, index: int, found: list[tuple[str, ...] | None], reasons: dict[int, Reason]) -> None:
        try:
            answers = self._program.input_text(raw.decode("utf-8", "replace")).all()
        except ValueError as error:
            reasons[index] = Reason(_OUTPUT_TYPE, _CODE, f"The record is not valid JSON: {error}")
            return
        if len(answers) != 1:
            reasons[index] = Reason(_OUTPUT_TYPE, _CODE, _NOT_ONE_VALUE)
            return
        self._settle(answers[0], index, found, reasons)

    def _settle(self, answer: Any, index: int, found: list[tuple[str, ...] | None], reasons: dict[int, Reason]) -> None:
        if isinstance(answer, dict):
            reasons[index] = Reason(_OUTPUT_TYPE, _CODE, f"jq: {answer['error']}")
        elif not answer:
            reasons[index] = _EMPTY
        elif len(answer) != 1 or not isinstance(answer[0], dict):
            reasons[index] = _NOT_OBJECT
        else:
            values = [answer[0].get(key) for key in self.keys]
            if any(value is None or value == "" for value in values):
                reasons[index] = _EMPTY
            elif any(isinstance(value, (list, dict)) for value in values):
                reasons[index] = _NOT_SCALAR
            else:
                found[index] = tuple(_rendered(value) for value in values)


def _rendered(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else _number(value)


def _number(value: float) -> str:
    return str(_RENDER.input_value(value).first())


def _getter(path: PlainPath) -> Callable[[Any], Any]:
    """Make a function that follows a path; KeyError or TypeError where libjq has to say what happens."""
    names, start, stop = path.names, path.start, path.stop
    sliced = start is not None or stop is not None
    if len(names) == 1 and not sliced:
        name = names[0]
        return lambda document: document[name]
    if len(names) == 1:
        name, cut = names[0], slice(start, stop)
        return lambda document: document[name][cut]

    def follow(document: Any) -> Any:
        for step in names:
            document = document[step]
        return document[slice(start, stop)] if sliced else document

    return follow
