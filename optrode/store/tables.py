"""What the rows and examples of a shard are, as two Parquet tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..batches import Role
from ..messages import one_line
from ..stats.token_mask import SINK_FACTOR
from .examples import Example
from .planning import ShardPlan

if TYPE_CHECKING:
    import pyarrow as pa

ROLES = [role.name.lower() for role in Role]


class Vocabulary:
    """Text and name of tokens, each looked up once in a harvest."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, str]] = {}

    def columns(self, ids: np.ndarray) -> tuple[pa.Array, pa.Array]:
        """Text and vocabulary entry of each token, as dictionary arrays. Empty texts without a tokenizer."""
        unique, places = np.unique(ids, return_inverse=True)
        entries = [self._entry(int(token)) for token in unique]
        text, token = ([entry[part] for entry in entries] for part in (0, 1))
        return _dictionary(text, places.reshape(-1)), _dictionary(token, places.reshape(-1))

    def _entry(self, token: int) -> tuple[str, str]:
        if token not in self._known:
            if self._tokenizer is None or token < 0:
                self._known[token] = ("", "")
            else:
                name = self._tokenizer.convert_ids_to_tokens(token)
                self._known[token] = (_clean(self._tokenizer.decode([token])), _clean(str(name)))
        return self._known[token]


def _dictionary(entries: list[str], places: np.ndarray) -> pa.Array:
    """`entries[place]` of each place. Tokens may share a text, and with equal entries no file would come out twice."""
    import pyarrow as pa

    unique = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    numbers = np.array([unique[entry] for entry in entries], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(numbers[places]), pa.array(list(unique), pa.string()))


def _clean(text: str) -> str:
    """Arrow takes no half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def sinks(norms: dict[str, Tensor], rows: int) -> Tensor:
    """Rows whose norm exceeds `SINK_FACTOR` times the median norm of the shard at any site: bool [row]."""
    found = torch.zeros(rows, dtype=torch.bool)
    for norm in norms.values():
        found |= norm > SINK_FACTOR * norm.median()
    return found


def token_table(plan: ShardPlan, first_example: int, vocabulary: Vocabulary) -> pa.Table:
    """One entry for each row of a shard, known before its activations are."""
    import pyarrow as pa

    counts = [example.rows for example in plan.examples]
    ids = _kept(plan.examples, lambda example: example.ids, -1)
    special = _kept(plan.examples, lambda example: example.special, 0).astype(bool)
    roles = _kept(plan.examples, lambda example: example.roles, int(Role.IMAGE))
    text, token = vocabulary.columns(ids)
    return pa.table(
        {
            "document": np.repeat([example.document for example in plan.examples], counts).astype(np.int64),
            "example": np.repeat(np.arange(first_example, first_example + len(counts)), counts).astype(np.int64),
            "position": _kept(plan.examples, lambda example: torch.arange(example.length), 0).astype(np.int32),
            "token_id": ids.astype(np.int32),
            "token": token,
            "text": text,
            "role": pa.DictionaryArray.from_arrays(pa.array(roles.astype(np.int8)), pa.array(ROLES)),
            "special": special,
        }
    )


def with_mask(tokens: pa.Table, sink: Tensor) -> pa.Table:
    """The table with `mask`, the tokens that means and probes should use: no special tokens, no sinks."""
    import pyarrow as pa

    return tokens.append_column("mask", pa.array(~tokens["special"].to_numpy() & ~sink.numpy()))


def _kept(examples: Sequence[Example], of: Any, absent: int) -> np.ndarray:
    """A number of each place that is kept, over all examples."""
    parts = []
    for example in examples:
        value = of(example)
        value = torch.full((example.length,), absent) if value is None else value
        parts.append(value[example.keep].numpy())
    return np.concatenate(parts)


def document_table(plan: ShardPlan, first_example: int, tokenizer: Any) -> pa.Table:
    """One entry for each example of a shard: its document and text, its first row in the shard, and its block."""
    import pyarrow as pa

    block = np.zeros(len(plan.examples), np.int32)
    for number, forward in enumerate(plan.forwards):
        block[forward] = number
    return pa.table(
        {
            "document": np.array([example.document for example in plan.examples], np.int64),
            "example": np.arange(first_example, first_example + len(plan.examples), dtype=np.int64),
            "piece": np.array([example.piece for example in plan.examples], np.int32),
            "source": pa.array([_clean(example.source) for example in plan.examples]),
            "text": pa.array([_clean(_text(example, tokenizer)) for example in plan.examples]),
            "length": np.array([example.length for example in plan.examples], np.int32),
            "row": np.array(plan.first_row, np.int64),
            "rows": np.array([example.rows for example in plan.examples], np.int64),
            "block": block,
        }
    )


def _text(example: Example, tokenizer: Any) -> str:
    """The text of a piece: that of its document from its first token to its last."""
    if example.ids is None or example.offsets is None:
        return example.text
    real = example.offsets[example.offsets[:, 0] < example.offsets[:, 1]]
    if len(real):
        return example.text if example.whole else example.text[int(real[0, 0]) : int(real[-1, 1])]
    return tokenizer.decode(example.ids.tolist()) if tokenizer is not None else ""


def as_parquet(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def from_parquet(data: bytes, rows: int, columns: Mapping[str, str]) -> pa.Table:
    """A table of so many rows. Raises `ValueError` for another or a damaged one.

    `columns` are some that it must have, without gaps: `integer` or `boolean` by name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        # Some kilobytes can say that they are billions of rows, so look before they are made.
        if file.metadata.num_rows != rows or file.metadata.num_row_groups > max(1, rows):
            raise ValueError(f"a table of {file.metadata.num_rows} rows where {rows} should be")
        # In this thread: a process that ends while pyarrow's own threads still start up is aborted.
        table = file.read(use_threads=False)
        if len(table) != rows or len(set(table.column_names)) < table.num_columns:
            raise ValueError("other rows or columns than it says")
        for name, kind in columns.items():
            if table[name].null_count or not getattr(pa.types, f"is_{kind}")(table[name].type):
                raise ValueError("a column of another kind, or with gaps")
        table.validate(full=True)
    except (LookupError, ArithmeticError, ValueError, TypeError, RuntimeError, OSError, MemoryError) as problem:
        raise ValueError(one_line(problem)) from problem
    return table


def content_hash(tables: Sequence[pa.Table]) -> str:
    """Hash of what tables say, whatever release of the Parquet writer wrote them."""
    import pyarrow as pa

    digest = hashlib.sha256()
    for table in tables:
        for name in table.column_names:
            column = table[name]
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            digest.update(f"{name}:{column.type}:{len(column)}\n".encode())
            if pa.types.is_string(column.type):
                digest.update(json.dumps(column.to_pylist()).encode())
            else:
                digest.update(np.ascontiguousarray(column.to_numpy()).tobytes())
    return digest.hexdigest()
