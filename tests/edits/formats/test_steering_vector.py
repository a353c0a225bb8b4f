"""Files of steering-vectors, one of which the package itself has written; see tools/oracles."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import optrode as op
from optrode.edits import import_file, steering_vector
from optrode.errors import BadFile, BadInput, MissingFile, NotSupported, UnknownSite, WrongShape

FILE = Path(__file__).parents[2] / "steering" / "oracles" / "steering_vectors.safetensors"
# What the package calls a place, and where that is in a Llama.
PLACES = {
    "decoder_block": "layers.1.out",
    "self_attn": "layers.1.attn.out",
    "mlp": "layers.1.mlp.out",
    "input_layernorm": "layers.1.attn.in",
    "post_attention_layernorm": "layers.1.mlp.in",
}


@pytest.fixture(scope="module")
def kept() -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(FILE, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def network(kept: Any) -> op.Model:
    from transformers import LlamaConfig, LlamaForCausalLM

    module = LlamaForCausalLM(LlamaConfig(**json.loads(kept[0]["config"]))).eval()
    tensors = {n.removeprefix("network."): v for n, v in kept[1].items() if n.startswith("network.")}
    module.load_state_dict(tensors)
    return op.load(module)


def test_its_own_file_is_read(kept: Any, network: op.Model, tmp_path: Path) -> None:
    path = tmp_path / "vector.pt"
    path.write_bytes(bytes(kept[1]["file"].tolist()))
    edit = import_file(path, network)
    assert edit.patterns() == ["layers.0.out", "layers.1.out"]
    for leaf, layer in zip(edit.leaves(), (0, 1), strict=True):
        assert torch.equal(leaf.operator.tensors()["vector"], kept[1][f"vector.{layer}"])
        assert leaf.provenance.recipe["imported"] == "steering vector" and leaf.provenance.fingerprint


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_the_one_that_it_changes(kept: Any, network: op.Model, tmp_path: Path, place: str) -> None:
    path = tmp_path / "vector.pt"
    torch.save({"layer_activations": {1: kept[1]["vector.1"]}, "layer_type": place}, path)
    edit = steering_vector(path, network)
    assert edit.patterns() == [PLACES[place]]
    with network.edited(edit), torch.no_grad():
        logits = network.module(input_ids=kept[1]["ids"], use_cache=False).logits[0]
    torch.testing.assert_close(logits, kept[1][f"at.{place}"], atol=1e-4, rtol=1e-4)


def test_what_depends_on_modules_needs_a_model(tmp_path: Path, gpt2: op.Model) -> None:
    path = tmp_path / "vector.pt"
    torch.save({"layer_activations": {1: torch.ones(32)}, "layer_type": "post_attention_layernorm"}, path)
    with pytest.raises(BadInput, match="give the model too"):
        steering_vector(path)
    assert steering_vector(path, gpt2).patterns() == ["layers.1.mlp.in"]
    torch.save({"layer_activations": {3: torch.ones(32)}, "layer_type": "mlp"}, path)
    with pytest.raises(UnknownSite, match="has 3 layers"):
        steering_vector(path, gpt2)
    torch.save({0: torch.ones(31)}, path)
    assert steering_vector(path).patterns() == ["layers.0.out"]
    with pytest.raises(WrongShape, match="width 31"):
        steering_vector(path, gpt2)


def test_a_gemma_has_its_norm_after_the_part(tmp_path: Path) -> None:
    """The module is what counts: `self_attn` gives what a norm still changes, which is no named site."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    model = op.load(Gemma2ForCausalLM(config).eval())
    path = tmp_path / "vector.pt"
    torch.save({"layer_activations": {1: torch.ones(16)}, "layer_type": "self_attn"}, path)
    assert steering_vector(path, model).patterns() == ["module:model.layers.1.self_attn"]


# What is refused -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Trap:
    target: str

    def __reduce__(self) -> Any:
        return subprocess.getoutput, (f"touch {self.target}",)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path, touched = tmp_path / "vector.pt", tmp_path / "touched"
    torch.save({0: Trap(str(touched))}, path)
    with pytest.raises(BadFile, match=r"holds more than a steering vector.*it names"):
        steering_vector(path)
    assert not touched.exists()
    path.write_bytes(pickle.dumps(Trap(str(touched))))
    with pytest.raises(BadFile, match=r"no file that torch\.save wrote"):
        steering_vector(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ([torch.ones(2)], BadFile),
        ({}, BadFile),
        ({"layer_activations": {}, "layer_type": "mlp"}, BadFile),
        ({"layer_activations": {0: torch.ones(2)}, "layer_type": "lm_head"}, NotSupported),
        ({"layer_activations": {0: torch.ones(2)}, "layer_type": 3}, NotSupported),
        ({"0": torch.ones(2)}, BadFile),
        ({-1: torch.ones(2)}, BadFile),
        ({True: torch.ones(2)}, BadFile),
        ({10**9: torch.ones(2)}, BadFile),
        ({0: torch.ones(2, 2)}, BadFile),
        ({0: torch.ones(2, dtype=torch.int64)}, BadFile),
        ({0: [1.0, 2.0]}, BadFile),
        ({0: torch.ones(2), 1: torch.ones(3)}, BadFile),
        ({0: torch.tensor([1.0, float("inf")])}, BadFile),
        ({0: torch.ones(1).expand(10**12)}, BadFile),
        ({0: torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**12,))}, BadFile),
    ],
)
def test_other_contents_are_refused_in_one_line(tmp_path: Path, content: Any, error: Any) -> None:
    path = tmp_path / "vector.pt"
    torch.save(content, path)
    with pytest.raises(error) as problem:
        steering_vector(path)
    assert "\n" not in str(problem.value) and len(str(problem.value)) < 300


def test_packed_and_damaged_files_are_refused(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "vector.pt"
    torch.save({0: torch.zeros(100_000)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert path.stat().st_size < 10_000
    with pytest.raises(BadFile, match="larger than the file"):
        steering_vector(path)
    data = whole.read_bytes()
    for length in (0, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(BadFile):
            steering_vector(path)
    with pytest.raises(MissingFile):
        steering_vector(tmp_path / "nothing.pt")


def test_safe_reading_leaves_no_allowance_behind(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({0: torch.ones(2)}, tmp_path / "vector.pt")
    steering_vector(tmp_path / "vector.pt")
    # torch allows classes of its own when it first imports them.
    added = set(torch.serialization.get_safe_globals()) - before
    assert not [kind for kind in added if not kind.__module__.startswith("torch.")]
