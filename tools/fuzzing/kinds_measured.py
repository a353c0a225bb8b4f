"""What was measured: stores, statistics, maps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .kinds import kind
from .models import TEXTS, llama
from .tensors import parts_of, whole
from .trees import Tree

# Stores -------------------------------------------------------------------------------------------------------------


def _read_store(folder: Path) -> None:
    import optrode as op
    from optrode.store.verify import verify

    store = op.open(folder)
    repr(store), store.complete, store.hash, store.nbytes, store.unit
    for address in store.sites:
        rows = store[address]
        repr(rows), rows.shape, rows[0:3]
        if len(store):
            rows[-1], rows[[0, len(store) - 1]]
    if store.sites:
        next(iter(store.shuffled(64)), None)
    for batch in store.batches(256):
        batch["row"]
    store.metadata(), store.metadata([0] if len(store) else []), store.documents(), store.rounding()
    for shard in store.shards:
        shard.mask.sum()
    [str(fault) for fault in verify(folder)]
    op.open(folder, check=True).batches(4096)


def seal_store(tree: Tree, before: Tree) -> Tree:
    """Hashes of tables, receipts, index and settings made to fit again."""
    from optrode.store.receipts import dump, sealed

    tables = {name: thing for name, thing in tree.items() if name.endswith(".parquet") and thing != before.get(name)}

    def again(receipt: dict[str, Any]) -> dict[str, Any]:
        for name, data in tables.items():
            stem, kind_of = name.split(".")[:2]
            if isinstance(data, bytes) and receipt.get("shard") == int(stem.removeprefix("shard-")):
                receipt["tables"][kind_of] = hashlib.sha256(data).hexdigest()
        return sealed({key: part for key, part in receipt.items() if key != "seal"})

    found = dict(tree)
    for name, data in tree.items():
        if not name.endswith(".json") or not isinstance(data, bytes) or (data == before.get(name) and not tables):
            continue
        value = json.loads(data)
        if name == "index.json" and isinstance(value["shards"], list):
            value["shards"] = [again(part) if isinstance(part, dict) else part for part in value["shards"]]
        found[name] = dump(again(value))
    return found


@kind(share=7, read=_read_store, seal=seal_store)
def store(box: Path) -> None:
    """Stores of several shards: rounded, scaled, of heads, one that was stopped."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    import optrode as op

    settings: dict[str, Any] = {"shard_rows": 40, "tokens_per_forward": 40, "tokens": 100}
    op.harvest(llama(), TEXTS, "layers.{0,1}.out", to=box / "plain", **settings)
    op.harvest(llama(), TEXTS, "layers.1.out", to=box / "scaled", dtype="float16_scaled", **settings)
    op.harvest(llama(), TEXTS, "layers.1.attn.heads", to=box / "heads", dtype="bfloat16", **settings)
    op.harvest(llama(), TEXTS, "layers.0.out", to=box / "stopped", **settings)
    (box / "stopped" / "index.json").unlink()
    for name in ("safetensors", "tokens.parquet", "documents.parquet", "json"):
        (box / "stopped" / f"shard-00001.{name}").unlink()
    for folder in list(box.iterdir()):
        for name in ("writer.lock", "writer.json"):
            (folder / name).unlink(missing_ok=True)
    table = pq.ParquetFile(pa.BufferReader((box / "plain" / "shard-00000.documents.parquet").read_bytes())).read()
    from .tables import bomb

    (box / "bomb.parquet").write_bytes(bomb(table))


# Statistics ---------------------------------------------------------------------------------------------------------


def _read_statistics(folder: Path) -> None:
    from optrode.stats.accumulator import Accumulator
    from optrode.stats.statistics import Statistics

    if (folder / "one.stats").exists() or (folder / "one.stats").is_symlink():
        found = Accumulator.load(folder / "one.stats")
        repr(found), found.result(), found.merge(found)
        return
    whole_of = Statistics.load(folder / "input.stats")
    repr(whole_of), whole_of.merge(whole_of)
    for site in whole_of.values():
        repr(site)
    for cross in whole_of.cross.values():
        repr(cross), cross.result()


def seal_statistics(tree: Tree, before: Tree) -> Tree:
    """The checksum made to fit again."""
    from safetensors.torch import load as tensors_of

    from optrode.stats.file import _checksum

    (name,) = tree
    parts = parts_of(tree[name])  # type: ignore[arg-type]
    described = json.loads(parts.metadata["optrode"])
    described.pop("crc32", None)
    described["crc32"] = _checksum(described, tensors_of(tree[name]))
    parts.metadata["optrode"] = json.dumps(described)
    return {name: whole(parts)}


@kind(share=11, read=_read_statistics, seal=seal_statistics)
def statistics(box: Path) -> None:
    """Statistics of all kinds over sites with and without heads, and single accumulators."""
    import torch

    import optrode as op
    from optrode.stats.choice import NAMES, accumulators

    sites = "layers.1.attn.heads"
    cross = [("layers.0.out", "layers.1.out")]
    for name, collect in {"default": ("mean", "norms", "extremes"), "all": NAMES}.items():
        found = op.stats(llama(), TEXTS, ["layers.{0,1}.out", sites], collect=collect, cross=cross, tokens=60)
        (box / name).mkdir(parents=True)
        found.save(box / name / "input.stats")
    torch.manual_seed(0)
    for name, one in accumulators(NAMES, (3,)).items():
        one.update(torch.randn(20, 3))
        (box / f"one-{name}").mkdir()
        one.save(box / f"one-{name}" / "one.stats")


# Maps ---------------------------------------------------------------------------------------------------------------


def _read_map(folder: Path) -> None:
    from optrode.maps import Map

    (name,) = [path.name for path in folder.iterdir()]
    found = Map.load(folder / name)
    repr(found.labels), found.to_pandas(), found.top(3), found.plot()


@kind(share=9, read=_read_map)
def map(box: Path) -> None:
    """Maps with and without base and donor, as JSON and as arrays."""
    import numpy as np

    from optrode.maps import Map

    values = np.arange(6.0).reshape(2, 3)
    labels = {"layer": [0, 1], "head": ["a", "b", "c"]}
    made = {
        "plain": Map(values, labels, "nats"),
        "gaps": Map(np.where(values == 2, np.nan, values), labels, "", {"site": "layers.*.out", "seed": 0}),
        "base": Map(values, labels, "nats", {}, np.array(1.0), np.array(3.0)),
        "base-each": Map(values, labels, "nats", {}, values * 0, values + 1),
        "line": Map(values[0], {"layer": [0, 1, 2]}, "nats"),
    }
    for name, one in made.items():
        for ending in ("json", "npz"):
            folder = box / f"{name}-{ending}"
            folder.mkdir(parents=True)
            one.save(folder / f"input.{ending}")
