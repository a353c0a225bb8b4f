"""Parquet files rebuilt with other columns, types and rows."""

from __future__ import annotations

import io
from random import Random
from typing import Any

from .damage import bytes_of


def parquet_of(random: Random, data: bytes) -> bytes:
    """A Parquet file damaged in its bytes or rebuilt from a table that says other things."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if random.random() < 0.4:
        return bytes_of(random, data)
    try:
        table = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)
        return parquet(_changed(random, table))
    except (pa.ArrowException, OSError, ValueError, IndexError, TypeError, OverflowError):
        return bytes_of(random, data)


def parquet(table: Any) -> bytes:
    """The bytes of a Parquet file of a table."""
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def _changed(random: Random, table: Any) -> Any:
    place = random.randrange(table.num_columns)
    name = table.column_names[place]
    choice = random.randrange(8)
    if choice == 0:
        return table.drop_columns([name])
    if choice == 1:
        other = [random.choice(("", "x\ny", "A" * 2000)) if known == name else known for known in table.column_names]
        return table.rename_columns(other)
    if choice == 2:
        return table.slice(0, random.choice((0, 1, max(0, len(table) - 1))))
    if choice == 3:
        import pyarrow as pa

        return pa.concat_tables([table] * random.choice((2, 3, 20)))
    if choice == 4:
        return table.append_column(name, table.column(place))
    if choice == 5:
        return table.select(table.column_names[::-1])
    return table.set_column(place, name, _column(random, len(table)))


def _column(random: Random, rows: int) -> Any:
    import pyarrow as pa

    value: Any = random.choice((
        None, 0, -1, 2**62, -(2**62), 1.5, float("nan"), True, "", "x", "A" * 5000, b"\xff\xfe", [1, 2], [], {"a": 1},
        [[1]],
        {"role": "user", "content": "x"}, [{"role": "user", "content": None}], [{"from": "human", "value": "x"}],
    ))  # fmt: skip
    array = pa.array([value] * rows)
    if value == b"\xff\xfe":
        # Text that is none: Arrow does not look until somebody reads it.
        return pa.Array.from_buffers(pa.string(), rows, pa.array([value] * rows, pa.binary()).buffers())
    return array


def bomb(table: Any, rows: int = 200_000_000) -> bytes:
    """A small file of the columns of a table, whose rows take gigabytes: one value, run-length coded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    chunk = 2_000_000
    first = table.slice(0, 1).combine_chunks()
    names = [name for name in first.column_names if pa.types.is_integer(first.schema.field(name).type)]
    whole = pa.table({name: pa.repeat(first[name][0], chunk) for name in names[:2]})
    with pq.ParquetWriter(out, whole.schema, compression="zstd") as writer:
        for _ in range(rows // chunk):
            writer.write_table(whole, row_group_size=chunk)
    return out.getvalue()


def arrow_of(random: Random, data: bytes) -> bytes:
    """An Arrow stream damaged in its bytes or rebuilt from a table that says other things."""
    import pyarrow as pa

    if random.random() < 0.6:
        return bytes_of(random, data)
    try:
        with pa.ipc.open_stream(data) as stream:
            table = _changed(random, stream.read_all())
    except (pa.ArrowException, OSError, ValueError, IndexError, TypeError, OverflowError):
        return bytes_of(random, data)
    return arrow(table)


def arrow(table: Any) -> bytes:
    """The bytes of an Arrow stream of a table."""
    import pyarrow as pa

    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()
