"""The run of a harvest: shard after shard, each made, written and receipted before the next begins."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..engine.mapping.trial import in_eval_mode
from ..engine.progress import Amount
from ..errors import NoSpace, StoreMismatch
from ..host import Host
from .examples import Cursor
from .feeds import Feed
from .landing import Landing, ShardBuffer
from .layout import ShardLayout
from .planning import Coming, ShardPlan, next_shard
from .receipts import INDEX, Names, Receipt, dump, parse, sealed, shard_of, store_hash
from .recipe import Recipe, warn_of_last_bits
from .storage import Storage
from .tables import Vocabulary, as_parquet, content_hash, document_table, sinks, token_table, with_mask
from .writer import ShardWriter

if TYPE_CHECKING:
    import pyarrow as pa


class HarvestRun:
    """What is left to do of a harvest. Holds the right to write; `lock.renew` tells others that it lives."""

    def __init__(self, host: Host, storage: Storage, recipe: Recipe, feed: Feed, lock: Any):
        self.host, self.storage, self.recipe, self.feed, self.lock = host, storage, recipe, feed, lock
        self.sites = recipe.sites
        self.buffer = ShardBuffer()
        self.vocabulary = Vocabulary(host.tokenizer)
        self.rows = 0
        self.receipts: dict[int, Receipt] = {}

    def safe(self) -> str:
        """How much is written and stays."""
        return f"{sum(receipt.rows for receipt in self.receipts.values()):,} rows are safe"

    def go(self) -> None:
        """Make every shard that is not there, and close the store. Nothing is done for a store that is closed."""
        names = self.storage.names()
        self.receipts = receipts_in(self.storage, names)
        if INDEX in names and self._is_closed():
            return
        warn_of_last_bits(self.storage.where, self.recipe)
        self._sweep(names)
        with in_eval_mode(self.host.module), ShardWriter() as writer, self._bar() as bar:
            self._shards(writer, bar)
        self._close()

    def _bar(self) -> Amount:
        return Amount("harvesting", self.recipe.entries["tokens"], {"token": "tokens", "patch": "patches"}.get(
            self.feed.unit, "examples"
        ))  # fmt: skip

    def _is_closed(self) -> bool:
        """Whether all shards up to the last are there."""
        last = self.receipts.get(len(self.receipts) - 1)
        return last is not None and last.ends

    def _sweep(self, names: set[str]) -> None:
        """Remove what killed runs left: files aside, and files of shards without receipt."""
        self.storage.remove(INDEX)
        self.storage.sweep()
        for name in names:
            number = shard_of(name)
            if number is not None and number not in self.receipts:
                self.storage.remove(name)

    def _shards(self, writer: ShardWriter, bar: Amount) -> None:
        cursor, number, examples = Cursor(), 0, 0
        coming: Coming | None = None
        while True:
            known = self.receipts.get(number)
            if known is not None:
                bar.skip(known.rows)
                coming = None
            else:
                coming = coming or Coming(self.feed.starting(cursor))
                plan = self._plan(coming, cursor)
                if plan is None:
                    raise StoreMismatch(f"the data of '{self.storage.where}' ends before shard {number}, which it had")
                self._check_next(number, plan)
                known = self._shard(number, plan, examples, writer, bar)
            self.rows += known.rows
            if known.ends:
                return
            cursor, examples, number = known.next, examples + known.examples, number + 1

    def _plan(self, coming: Coming, cursor: Cursor) -> ShardPlan | None:
        entries = self.recipe.entries
        left = None if entries["tokens"] is None else entries["tokens"] - self.rows
        return next_shard(coming, cursor, entries["shard_rows"], left, entries["tokens_per_forward"])

    def _check_next(self, number: int, plan: ShardPlan) -> None:
        """A shard that is made again must end where the next one begins."""
        following = self.receipts.get(number + 1)
        if following is not None and (plan.ends or following.start != plan.next):
            raise StoreMismatch(f"shard {number} of '{self.storage.where}' no longer ends where the next one begins")

    def _shard(self, number: int, plan: ShardPlan, examples: int, writer: ShardWriter, bar: Amount) -> Receipt:
        names, layout = Names(number), ShardLayout.of(self.sites, plan.rows, len(plan.forwards))
        self._make_room(layout.size)
        header = layout.header({"optrode": dump(self.recipe.as_json()).decode("utf-8", "surrogatepass")})
        self.buffer.begin(self.sites, layout, plan.rows)
        aside = self.storage.create(names.values, len(header) + layout.size)
        try:
            aside.write_at(0, header)
            writer.begin(self.buffer, aside, len(header), len(plan.forwards))
            tables = writer.compute(lambda: self._tables(plan, examples))
            for block in range(len(plan.forwards)):
                bar.add(self._forward(plan, block, writer))
            writer.finish()
            aside.commit()
        except BaseException:
            writer.abandon()
            aside.discard()
            raise
        receipt = self._receipt(number, plan, header, writer, self._write_tables(names, plan, *tables()))
        self.storage.settle()
        self.storage.write(names.receipt, dump(receipt.as_json()))
        self.storage.settle()
        self.receipts[number] = receipt
        self.lock.renew()
        return receipt

    def _forward(self, plan: ShardPlan, block: int, writer: ShardWriter) -> int:
        """Run one forward of a shard; gives how many rows it brought."""
        examples = [plan.examples[number] for number in plan.forwards[block]]
        landing = Landing(plan, block, self.feed.columns(examples))

        def put(address: str, h: Tensor) -> None:
            landing.put(self.buffer, self.buffer.sites[address], h)
            writer.block(address, landing)

        self.feed.forward(examples, put)
        writer.flush()
        return sum(stop - first for first, stop in landing.rows)

    def _tables(self, plan: ShardPlan, first_example: int) -> tuple[pa.Table, pa.Table]:
        """What is known of a shard's rows and examples before its activations are."""
        tokens = token_table(plan, first_example, self.vocabulary)
        return tokens, document_table(plan, first_example, self.host.tokenizer)

    def _write_tables(self, names: Names, plan: ShardPlan, tokens: pa.Table, documents: pa.Table) -> dict[str, str]:
        """Write the two tables of a shard; gives their hashes."""
        tokens = with_mask(tokens, sinks(self.buffer.norms, plan.rows))
        hashes = {"content": content_hash([tokens, documents])}
        for kind, name, table in (("tokens", names.tokens, tokens), ("documents", names.documents, documents)):
            data = as_parquet(table)
            self.storage.write(name, data)
            hashes[kind] = sha256(data)
        return hashes

    def _receipt(
        self, number: int, plan: ShardPlan, header: bytes, writer: ShardWriter, tables: dict[str, str]
    ) -> Receipt:
        return Receipt(
            shard=number,
            rows=plan.rows,
            examples=len(plan.examples),
            blocks=len(plan.forwards),
            start=plan.start,
            next=plan.next,
            ends=plan.ends,
            begins=len(header),
            header=f"{zlib.crc32(header):08x}",
            checksums=writer.checksums,
            scales=writer.scales,
            tables=tables,
            rounding={site: rounding.figures() for site, rounding in self.buffer.rounding.items()},
        )

    def _make_room(self, size: int) -> None:
        free = self.storage.free()
        if free is not None and free < size:
            needs = f"a shard takes {size / 1e6:,.3g} MB and {free / 1e6:,.3g} MB are free"
            raise NoSpace(f"there is no space left for '{self.storage.where}' ({needs})")

    def _close(self) -> None:
        write_index(self.storage, self.recipe, [self.receipts[number] for number in sorted(self.receipts)])


def write_index(storage: Storage, recipe: Recipe, receipts: list[Receipt]) -> None:
    """All receipts in one file, so that a store opens with two reads, and the hash of the whole."""
    value = {"shards": [receipt.as_json() for receipt in receipts], "hash": store_hash(recipe.entries, receipts)}
    storage.write(INDEX, dump(sealed(value)))
    storage.settle()


def receipts_in(storage: Storage, names: set[str]) -> dict[int, Receipt]:
    """The receipts of all shards that are there. Raises `BadFile` for one that is damaged."""
    found = {}
    for name in sorted(names):
        number = shard_of(name)
        if number is not None and name == Names(number).receipt:
            found[number] = Receipt.from_json(parse(storage.read(name), name), name)
    return found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
