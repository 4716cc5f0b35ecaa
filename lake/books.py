"""Owns the books: sums of all batches up to a number, so that an audit reads them and the few batches behind.

Every series of batches has one item with the sums of all days, `sum#LANE#TENANT`, and one for each month in which it
has events, `month#MONTH#LANE#TENANT`. Each tells the number of the batch up to which it is drawn up (`through`), and is
replaced as a whole, on the condition that nobody else has replaced it since it was read. Months are drawn up before the
sums, so whatever was ended in between is found by these numbers: a batch is added to an item that is not through with
it, and to no other. What doesn't fit into an item lies in pieces that bear the version of the item they belong to.

`epoch` tells the months that belong to a sum: drawing the books up anew starts another, and older months count no more.
"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from lake.defaults import silent
from lake.errors import TransientError
from lake.figures import Figures, from_pieces, summed, to_pieces
from lake.items import Items, item_key
from lake.manifest import BatchId, Lane, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mypy_boto3_dynamodb import DynamoDBClient

    from lake.items import Item
    from lake.manifest import BatchReceipt

__all__ = ["FOLD_EVERY", "Account", "Books"]

FOLD_EVERY = 32
"""Batches that may lie behind the sums of a series before they are added to them."""
_AT_ONCE = 500  # batches added in one step, as they are held in memory
_ATTEMPTS = 12
_WORKERS = 8
_LATER = ":"  # the next sign after 9


@dataclass(frozen=True)
class Account:
    """One series as it stands."""

    series: BatchId
    """With the number of the newest batch that is in the figures."""
    total: Figures
    """All days in one."""
    days: Figures
    """By day, where asked for."""
    behind: int
    """Batches that aren't in the sums yet."""


@dataclass(frozen=True)
class _Entry:
    """An item of the books."""

    version: str = ""
    """Changes with each writing; empty where there is no such item."""
    epoch: int = 0
    through: int = 0
    figures: Figures = Figures()  # noqa: RUF009 - frozen


class _ReplacedError(Exception):
    """Somebody else was faster."""


class Books:
    """The books in a manifest table.

    Args:
        dynamodb: the client.
        table: the table's name.
        clock: milliseconds since 1970.
        after: called with `months`, `piece`, `sum`, `swept` after each step of adding to the sums; tests stop it there.
    """

    def __init__(
        self,
        dynamodb: DynamoDBClient,
        table: str,
        *,
        clock: Callable[[], int] = lambda: round(time.time() * 1000),
        after: Callable[[str], None] = silent,
    ) -> None:
        self._items = Items(dynamodb, table)
        self.manifest = Manifest(dynamodb, table)
        """The receipts that it adds up."""
        self._clock = clock
        self._after = after

    def record(self, receipt: BatchReceipt) -> None:
        """Note a receipt in the manifest, and add to the sums now and then; the same again changes nothing."""
        if receipt.batch.number == 1:
            self._open(receipt.batch)  # first, as a series is known by its sums
        self.manifest.record(receipt)
        if receipt.batch.number % FOLD_EVERY == 0:
            self.fold(receipt.batch, at_least=FOLD_EVERY)

    def accounts(self, owner: str, dataset: str, *, days: bool = False, since: str | None = None) -> list[Account]:
        """All series of an owner's dataset.

        Args:
            owner: a tenant, or the pool.
            dataset: the dataset.
            days: read the days too.
            since: no day before the month of this one, as in `2013-01-31`; the days that can't be told are read always.
        """
        for _ in range(_ATTEMPTS):
            try:
                return self._accounts(owner, dataset, days=days, since=since)
            except _ReplacedError:
                continue  # added to the sums while they were read
        raise TransientError(f"manifest table {self._items.table}: the books of {owner}#{dataset} change all the time")

    def fold(self, series: BatchId, *, at_least: int) -> int:
        """Add the batches that lie behind the sums of a series to them, if they are so many.

        Returns:
            the number of the batch that the sums are through with.
        """
        for _ in range(_ATTEMPTS):
            total = self._entry(series, _sum_key(series))
            tail = list(_in_line(total.through, self.manifest.behind(_at(series, total.through), _AT_ONCE)))
            if not total.version or len(tail) < at_least or not tail:
                return total.through
            try:
                self._add(series, total, tail)
            except _ReplacedError:
                continue
        return self._entry(series, _sum_key(series)).through

    def start_anew(self, series: BatchId) -> None:
        """Throw the sums of a series away; its receipts are added up again."""
        for _ in range(_ATTEMPTS):
            old = self._entry(series, _sum_key(series))
            try:
                self._replace(series, _sum_key(series), old, _Entry(epoch=max(self._clock(), old.epoch + 1)))
            except _ReplacedError:
                continue
            while self.fold(series, at_least=1) < self.manifest.last_receipt(series):
                if not next(_in_line(*self._behind(series)), None):
                    break  # a receipt is missing in between: what follows it stays behind the sums
            self._sweep(series)
            return
        raise TransientError(f"manifest table {self._items.table}: others go on adding to the books of {series.series}")

    def _behind(self, series: BatchId) -> tuple[int, Iterator[tuple[int, Figures]]]:
        through = self._entry(series, _sum_key(series)).through
        return through, self.manifest.behind(_at(series, through), 1)

    def _accounts(self, owner: str, dataset: str, *, days: bool, since: str | None) -> list[Account]:
        pk = f"{owner}#{dataset}"
        totals = self._totals(owner, dataset)
        with ThreadPoolExecutor(_WORKERS) as pool:
            tails = dict(zip(totals, pool.map(self._tail, totals.items()), strict=True))
        # after the sums: they are drawn up before them
        months: dict[BatchId, list[tuple[str, _Entry]]] = {}
        for item in self._months(pk, since) if days else ():
            entry = self._read(pk, item)
            months.setdefault(_series_of(owner, dataset, item), []).append((item["sk"]["S"].split("#")[1], entry))
        if days and _epochs(self._totals(owner, dataset)) != _epochs(totals):
            raise _ReplacedError  # begun anew since: the months of these sums may be gone, and read as no events
        found = []
        for series, total in totals.items():
            tail = tails[series]
            last = tail[-1][0] if tail else total.through
            current = {month: one for month, one in months.get(series, ()) if one.epoch == total.epoch}
            if any(one.through > last for one in current.values()):
                raise _ReplacedError
            whole = summed([total.figures, *(figures.without_days() for _, figures in tail)])
            of_days = _days(current, tail, since) if days else Figures()
            found.append(Account(_at(series, last), whole, of_days, len(tail)))
        return found

    def _totals(self, owner: str, dataset: str) -> dict[BatchId, _Entry]:
        pk = f"{owner}#{dataset}"
        return {_series_of(owner, dataset, item): self._read(pk, item) for item in self._items.beginning(pk, "sum#")}

    def _tail(self, one: tuple[BatchId, _Entry]) -> list[tuple[int, Figures]]:
        series, total = one
        return list(self.manifest.behind(_at(series, total.through)))

    def _add(self, series: BatchId, total: _Entry, tail: Sequence[tuple[int, Figures]]) -> None:
        last = tail[-1][0]
        of_months: dict[str, list[tuple[int, Figures]]] = {}
        for number, figures in tail:
            for month, part in figures.by_month().items():
                of_months.setdefault(month, []).append((number, part))
        with ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(lambda one: self._add_month(series, total.epoch, one, last), sorted(of_months.items())))
        self._after("months")
        added = summed([total.figures, *(figures.without_days() for _, figures in tail)])
        self._replace(series, _sum_key(series), total, _Entry(epoch=total.epoch, through=last, figures=added))
        self._after("sum")

    def _add_month(
        self, series: BatchId, epoch: int, named: tuple[str, Sequence[tuple[int, Figures]]], last: int
    ) -> None:
        month, parts = named
        key = f"month#{month}#{_tail_key(series)}"
        for _ in range(_ATTEMPTS):
            old = self._entry(series, key)
            if old.epoch > epoch:
                raise _ReplacedError  # the books were begun anew
            known = old if old.epoch == epoch else _Entry()
            new = [figures for number, figures in parts if number > known.through]
            if not new:
                return
            try:
                added = summed([known.figures, *new])
                self._replace(series, key, old, _Entry(epoch=epoch, through=last, figures=added))
            except _ReplacedError:
                continue
            return
        raise _ReplacedError

    def _open(self, series: BatchId) -> None:
        try:
            self._replace(series, _sum_key(series), _Entry(), _Entry(epoch=self._clock()))
        except _ReplacedError:
            return  # there already

    def _replace(self, series: BatchId, key: str, old: _Entry, new: _Entry) -> None:
        """Write an item in place of the one that was read.

        Raises:
            _ReplacedError: it isn't there any more.
        """
        pk = f"{series.owner}#{series.dataset}"
        version = uuid.uuid4().hex
        first, *more = to_pieces(new.figures)
        for number, piece in enumerate(more):
            self._items.put({**item_key(pk, f"{_piece_prefix(version)}{number:04d}"), **piece})
            self._after("piece")
        item = {
            **item_key(pk, key),
            "version": {"S": version},
            "epoch": {"N": str(new.epoch)},
            "through": {"N": str(new.through)},
            "more": {"N": str(len(more))},
            **first,
        }
        if old.version:
            written = self._items.put_if(item, "version = :old", {":old": {"S": old.version}})
        else:
            written = self._items.put_if(item, "attribute_not_exists(pk)")
        # a put whose answer was lost is made again by the client, and finds its own
        if not written and self._entry(series, key).version != version:
            self._drop_pieces(pk, version)
            raise _ReplacedError
        if old.version:
            self._drop_pieces(pk, old.version)
        self._after("swept")

    def _drop_pieces(self, pk: str, version: str) -> None:
        pieces = self._items.beginning(pk, _piece_prefix(version), keys_only=True)
        self._items.delete((pk, item["sk"]["S"]) for item in pieces)

    def _sweep(self, series: BatchId) -> None:
        """Delete the months of epochs before."""
        pk = f"{series.owner}#{series.dataset}"
        epoch = self._entry(series, _sum_key(series)).epoch
        for item in self._months(pk, None):
            older = int(item["epoch"]["N"]) < epoch
            if older and _series_of(series.owner, series.dataset, item) == _at(series, 0):
                self._remove(pk, item["sk"]["S"], item["version"]["S"])

    def _remove(self, pk: str, key: str, version: str) -> None:
        """Delete an item and its pieces, unless it was replaced since it was read."""
        if not self._items.delete_if(pk, key, "version = :old", {":old": {"S": version}}):
            return  # drawn up for the newer epoch meanwhile
        # after the item, which can't be read without them
        self._drop_pieces(pk, version)

    def _entry(self, series: BatchId, key: str) -> _Entry:
        pk = f"{series.owner}#{series.dataset}"
        for _ in range(_ATTEMPTS):
            item = self._items.get(pk, key)
            if not item:
                return _Entry()
            try:
                return self._read(pk, item)
            except _ReplacedError:
                continue
        raise TransientError(f"manifest table {self._items.table}: item {key} of {pk} changes all the time")

    def _read(self, pk: str, item: Mapping[str, Any]) -> _Entry:
        version, count = item["version"]["S"], int(item["more"]["N"])
        more = list(self._items.beginning(pk, _piece_prefix(version))) if count else []
        if len(more) != count:
            raise _ReplacedError  # its pieces went with it while they were read
        return _Entry(version, int(item["epoch"]["N"]), int(item["through"]["N"]), from_pieces([item, *more]))

    def _months(self, pk: str, since: str | None) -> Iterator[Item]:
        if since is None:
            yield from self._items.beginning(pk, "month#")
            return
        yield from self._items.beginning(pk, "month#-#")
        yield from self._items.between(pk, f"month#{since[:7]}", "month#~")


def _days(current: Mapping[str, _Entry], tail: Sequence[tuple[int, Figures]], since: str | None) -> Figures:
    parts = [entry.figures for entry in current.values()]
    for number, figures in tail:
        for month, part in figures.by_month().items():
            if month not in current or number > current[month].through:
                parts.append(part)
    found = summed(parts)
    if since is None:
        return found
    return Figures(
        {key: one for key, one in found.counts.items() if key[1] >= since or key[1] == "-"},
        {key: one for key, one in found.seen.items() if key[2] >= since or key[2] == "-"},
    )


def _epochs(totals: Mapping[BatchId, _Entry]) -> dict[BatchId, int]:
    return {series: one.epoch for series, one in totals.items()}


def _in_line(through: int, numbered: Iterator[tuple[int, Figures]]) -> Iterator[tuple[int, Figures]]:
    """Batches that follow one another without a gap."""
    for expected, one in enumerate(numbered, through + 1):
        if one[0] != expected:
            return
        yield one


def _at(series: BatchId, number: int) -> BatchId:
    return replace(series, number=number)


def _tail_key(series: BatchId) -> str:
    return f"{series.lane}#{quote(series.tenant, safe='')}"


def _sum_key(series: BatchId) -> str:
    return f"sum#{_tail_key(series)}"


def _piece_prefix(version: str) -> str:
    return f"piece#{version}#"


def _series_of(owner: str, dataset: str, item: Mapping[str, Any]) -> BatchId:
    *_, lane, tenant = item["sk"]["S"].split("#")
    return BatchId(owner, dataset, Lane(lane), unquote(tenant), 0)
