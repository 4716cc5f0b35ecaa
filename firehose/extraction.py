"""Owns MetadataExtraction: partition keys taken from records by jq, run by libjq.

A query that is an object of paths and slices is answered from the record directly, in a fraction of the time; any value
that isn't a plain string or a small whole number there, and any record that isn't strict JSON, goes to libjq, so that
both ways give the same keys (tests compare them).
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, TypeGuard

import jq
import orjson

from firehose.jq_query import PlainPath, made_keys, plain_paths, refused_words
from firehose.jq_runner import EndlessQueryError, Query
from firehose.plain_keys import PlainKeys
from firehose.processing import NO_KEY, Chunk, Reason
from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ExtractKeys", "QueryError", "compile_query"]

_OUTPUT_TYPE, _CODE = NO_KEY.output_type, NO_KEY.code
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
        collected = f'try [({query}\n)] catch {{"error": .}}'
        jq.compile(collected)
    except ValueError as error:
        raise QueryError(f"MetadataExtractionQuery {query!r}: {str(error).splitlines()[0]}") from None
    refused = refused_words(query)
    if refused:
        raise QueryError(
            f"MetadataExtractionQuery {query!r}: {', '.join(refused)}: not in jq 1.6, or reaches outside of the record"
        )
    program = Query(collected)
    return ExtractKeys(program, _keys(query, program), plain_paths(query))


def _keys(query: str, program: Query) -> tuple[str, ...] | None:
    keys = made_keys(query)
    if keys is None:
        # its text doesn't show the keys; what it makes of nothing often does
        try:
            (made,) = program.answers("null")
        except EndlessQueryError as error:
            raise QueryError(f"MetadataExtractionQuery {query!r}: {error}, on null") from None
        if not isinstance(made, list) or not made or not all(isinstance(one, dict) for one in made):
            return None
        keys = [key for one in made for key in one]
    return tuple(dict.fromkeys(keys))


class ExtractKeys:
    """The step that takes partition keys."""

    def __init__(self, program: Query, keys: tuple[str, ...] | None, plain: list[PlainPath] | None) -> None:
        self._program = program
        self.known_keys = keys
        """Keys the query makes; None when that depends on the record."""
        self.keys = keys or ()
        """Keys whose values are taken, in order."""
        self._plain = PlainKeys(plain) if plain else None

    def using(self, keys: Sequence[str]) -> ExtractKeys:
        """Take the values of these keys, in this order, for a query whose keys depend on the record."""
        other = ExtractKeys(self._program, self.known_keys, None)
        other._plain = self._plain if tuple(keys) == self.keys else None
        other.keys = tuple(keys)
        return other

    def apply(self, chunk: Chunk, now_ms: int) -> Chunk:
        """Take each record's keys; a record that has none is refused."""
        reasons: dict[int, Reason] = {}
        found, for_jq = self._directly(chunk.data)
        if for_jq:
            self._by_jq(chunk.data, for_jq, found, reasons)
        if chunk.keys is None:
            chunk.keys = [keys or () for keys in found]
        else:  # behind those that a Lambda function gave
            chunk.keys = [(*before, *(keys or ())) for before, keys in zip(chunk.keys, found, strict=True)]
        return chunk.without(reasons, now_ms)

    def _directly(self, data: list[bytes]) -> tuple[list[tuple[str, ...] | None], Sequence[int]]:
        # returns what was found, and the records that libjq has to look at
        if self._plain is None:
            return [None] * len(data), range(len(data))
        values = self._plain.read_all(data)
        if _are_texts(values):
            return values, ()
        texts = [_texts(one) if one is not None else ("",) for one in values]
        found = [one if "" not in one else None for one in texts]
        return found, [index for index, one in enumerate(found) if one is None]

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
            answers = self._program.answers("\n".join(data[index].decode() for index in strict), len(strict))
        except (ValueError, EndlessQueryError):
            answers = []  # a record is deeper than libjq goes, or the query never ends for it: find out which
        if len(answers) != len(strict):
            for index in strict:
                self._one(data[index], index, found, reasons)
            return
        for index, answer in zip(strict, answers, strict=True):
            self._settle(answer, index, found, reasons)

    def _one(self, raw: bytes, index: int, found: list[tuple[str, ...] | None], reasons: dict[int, Reason]) -> None:
        try:
            answers = self._program.answers(raw.decode("utf-8", "replace"))
        except EndlessQueryError as error:
            reasons[index] = Reason(_OUTPUT_TYPE, _CODE, f"jq: {error}")
            return
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
            reasons[index] = NO_KEY
        elif len(answer) != 1 or not isinstance(answer[0], dict):
            reasons[index] = _NOT_OBJECT
        else:
            values = [answer[0].get(key) for key in self.keys]
            if any(value is None or value == "" for value in values):
                reasons[index] = NO_KEY
            elif any(isinstance(value, (list, dict)) for value in values):
                reasons[index] = _NOT_SCALAR
            else:
                found[index] = tuple(_rendered(value) for value in values)


def _rendered(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else _number(value)


def _number(value: float) -> str:
    return str(_RENDER.input_value(value).first())


def _are_texts(values: list[tuple[Any, ...] | None]) -> TypeGuard[list[tuple[str, ...] | None]]:
    """Whether all values of all records were found, and are strings that aren't empty."""
    try:
        every = [*chain.from_iterable(values)]  # type: ignore[arg-type]  # what wasn't found is a TypeError
        "".join(every)  # a look at the type of each, in one call
    except TypeError:
        return False
    return all(every)


def _texts(values: tuple[Any, ...]) -> tuple[str, ...]:
    """Write whole numbers as jq does; empty where libjq has to say what becomes of a value."""
    return tuple(
        one if type(one) is str else str(one) if type(one) is int and 0 < abs(one) < _SMALL else "" for one in values
    )
