"""Control vectors against llama.cpp, whose logits on a tiny network are kept; see tools/oracles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op

FILE = Path(__file__).parent / "oracles" / "llama_cpp.safetensors"


def logits(network: op.Model, ids: Tensor, edit: op.Edit | None = None) -> Tensor:
    with torch.no_grad():
        if edit is None:
            return network.module(input_ids=ids, use_cache=False).logits[0]
        with network.edited(edit):
            return network.module(input_ids=ids, use_cache=False).logits[0]


def test_both_programs_run_the_same_network(kept: Any, network: op.Model) -> None:
    torch.testing.assert_close(logits(network, kept[1]["ids"]), kept[1]["logits.plain"], atol=1e-4, rtol=1e-4)


def test_a_file_written_here_steers_there_as_it_does_here(kept: Any, network: op.Model, tmp_path: Path) -> None:
    """Its own reader opened the file; the last block is among those that are steered."""
    path = tmp_path / "vector.gguf"
    path.write_bytes(bytes(kept[1]["gguf"].tolist()))
    edit = op.edits.control_vector(path, network)
    assert edit.patterns() == [f"layers.{layer}.out" for layer in json.loads(kept[0]["steered"])]
    assert edit.patterns()[-1] == f"layers.{network.layers - 1}.out"
    steered = logits(network, kept[1]["ids"], edit)
    torch.testing.assert_close(steered, kept[1]["logits.steered"], atol=1e-4, rtol=1e-4)
    assert float((steered - kept[1]["logits.plain"]).abs().max()) > 0.1


@pytest.mark.parametrize("place", [0, 1])
def test_each_direction_acts_after_the_block_of_its_number(kept: Any, network: op.Model, place: int) -> None:
    layer, strength = json.loads(kept[0]["steered"])[place], float(kept[0]["strength"])
    vector = strength * kept[1][f"vector.{layer}"]
    wanted = kept[1][f"logits.{layer}"]
    right = logits(network, kept[1]["ids"], op.edits.add(f"layers.{layer}.out", vector))
    torch.testing.assert_close(right, wanted, atol=1e-4, rtol=1e-4)
    one_before = logits(network, kept[1]["ids"], op.edits.add(f"layers.{layer - 1}.out", vector))
    assert float((one_before - wanted).abs().max()) > 1e-2, "one block off would be seen"


def test_the_file_is_still_written_so(kept: Any, tmp_path: Path) -> None:
    layers, strength = json.loads(kept[0]["steered"]), float(kept[0]["strength"])
    first, second = (op.edits.add(f"layers.{layer}.out", kept[1][f"vector.{layer}"]) for layer in layers)
    path = ((first + second) * strength).export(tmp_path / "vector.gguf")
    assert path.read_bytes() == bytes(kept[1]["gguf"].tolist())
