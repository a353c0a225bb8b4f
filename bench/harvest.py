"""Harvesting all 30 residual sites against the bare forward, and shuffled reading against a plain memory map."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import optrode as op

from .alternate import Result, alternate, at_least
from .subject import LAYERS, Subject, subject

HARVEST_LIMIT, SHUFFLE_LIMIT = 0.97, 0.5
FORWARDS, ROWS, TOKENS = 6, 16, 128
# Reading: a store of one site, and batches as a trainer of dictionaries takes them.
STORED_ROWS, BATCH = 65536, 4096


class _Stop(Exception):
    pass


def ids() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1000, 40000, (FORWARDS * ROWS, TOKENS), generator=generator)


@torch.no_grad()
def bare(own: Subject, tokens: Tensor) -> None:
    """The network alone with a hook on every block that looks and copies nothing, stopped after the last block."""
    seen: dict[int, Tensor] = {}

    def look(layer: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen[layer] = output[0] if isinstance(output, tuple) else output
            if layer == LAYERS - 1:
                raise _Stop

        return hook

    base = own.network.model
    handles = [block.register_forward_hook(look(layer)) for layer, block in enumerate(base.layers)]
    try:
        for part in tokens.split(ROWS):
            try:
                base(input_ids=part, attention_mask=torch.ones_like(part), use_cache=False)
            except _Stop:
                seen.clear()
    finally:
        for handle in handles:
            handle.remove()


def harvested(own: Subject, data: list[list[int]], box: Path, dtype: str) -> None:
    """A new store each time; the old ones go when the bench ends, since deleting takes time too."""
    to = box / f"{dtype}-{len(list(box.glob('*')))}"
    op.harvest(own.model, data, "layers.*.out", to=to, dtype=dtype)


def measure(rounds: int = 5) -> Result:
    """Speed of harvesting float16, checksums and rounding errors included, as a share of the bare forward's."""
    own, tokens = subject(), ids()
    data = tokens.tolist()
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder)
        harvested(own, data, box, "float16")
        _check(own, tokens, box / "float16-0")
        rows = alternate(
            {
                "bare forward, stopped after the last block": lambda: bare(own, tokens),
                "harvest, float16": lambda: harvested(own, data, box, "float16"),
                "harvest, as it is (float32)": lambda: harvested(own, data, box, "own"),
            },
            "bare forward, stopped after the last block",
            rounds,
            warm=0,
        )
    result = Result("Harvest 30 residual sites", rows[0].name, rows, [], [])
    speed = 1 / result.ratio("harvest, float16")
    result.targets.append(at_least("speed of the harvest against the bare forward", HARVEST_LIMIT, speed))
    shards = f"{tokens.numel()} tokens in forwards of {ROWS} x {TOKENS}, in two shards that are flushed to the disk"
    result.notes.append(f"{shards}; checksums and rounding errors included")
    return result


def _check(own: Subject, tokens: Tensor, box: Path) -> None:
    """The store holds what a read gives, before anything is timed."""
    store, first = op.open(box), own.model.read(tokens[:ROWS], "layers.15.out")["layers.15.out"].flatten(0, 1)
    if not torch.equal(store["layers.15.out"][: len(first)], first.half()):
        raise SystemExit("the store holds other numbers than a read gives")
    if len(store) != tokens.numel() or store.verify():
        raise SystemExit("the store is not whole")


def measure_shuffled(rounds: int = 5) -> Result:
    """Shuffled batches of one site of width 576, float16, from the page cache; the plain map knows its order before."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100, hidden_size=576, intermediate_size=64, num_hidden_layers=1, num_attention_heads=9,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    data = torch.randint(0, 100, (STORED_ROWS // 128, 128), generator=torch.Generator().manual_seed(0)).tolist()
    order = np.random.default_rng(0).permutation(STORED_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        model = op.load(LlamaForCausalLM(config).eval())
        store = op.harvest(
            model, data, "layers.0.out", to=Path(folder) / "store", dtype="float16", shard_rows=STORED_ROWS // 8
        )
        flat = np.memmap(Path(folder) / "flat.bin", np.float16, "w+", shape=(STORED_ROWS, 576))
        flat[:] = store["layers.0.out"][:].numpy()

        def plain() -> None:
            for first in range(0, STORED_ROWS, BATCH):
                torch.from_numpy(flat[order[first : first + BATCH]])

        def shuffled() -> None:
            for _ in store.shuffled(BATCH):
                pass

        def sequential() -> None:
            for _ in store.batches(BATCH):
                pass

        rows = alternate(
            {"plain memory map": plain, "store.shuffled": shuffled, "store.batches": sequential},
            "plain memory map",
            rounds,
        )
    result = Result("Read shuffled batches", "plain memory map", rows, [], [])
    result.targets.append(
        at_least("speed of store.shuffled against the map", SHUFFLE_LIMIT, 1 / result.ratio("store.shuffled"))
    )
    result.notes.append(f"{STORED_ROWS} rows of width 576 in 8 shards, batches of {BATCH}, files in the page cache")
    return result
