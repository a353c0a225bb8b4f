"""Control vectors: where they act, what can be written, and what is refused. llama.cpp itself is an oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from torch import Tensor

import optrode as op
from optrode.edits import add, clamp, control_vector, export, import_file, project_out, prompt
from optrode.errors import BadFile, BadInput, NotSupported, UnknownSite, WrongModel, WrongShape

WIDTH = 32


def vector(seed: int) -> Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def written(path: Path, tensors: dict[str, Any], architecture: str = "controlvector", **texts: str) -> Path:
    writer = GGUFWriter(path, architecture)
    for key, text in texts.items():
        writer.add_string(key.replace("__", "."), text)
    for name, value in tensors.items():
        writer.add_tensor(name, np.asarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# Reading -------------------------------------------------------------------------------------------------------------


def test_direction_k_is_added_to_what_block_k_gives(
    tmp_path: Path, llama: op.Model, prompts: list[str], forward: Any, rewritten: Any, block: Any
) -> None:
    path = written(tmp_path / "v.gguf", {"direction.2": vector(2).numpy(), "direction.1": vector(1).numpy()})
    edit = control_vector(path)
    assert edit.patterns() == ["layers.1.out", "layers.2.out"]
    batch = llama.encode(prompts)
    with llama.edited(edit * 2):
        got = forward(llama, batch).logits
    first, second = 2 * vector(1), 2 * vector(2)
    with rewritten(block(llama, 1), lambda h: h + first), rewritten(block(llama, 2), lambda h: h + second):
        wanted = forward(llama, batch).logits
    torch.testing.assert_close(got[batch.mask], wanted[batch.mask], atol=1e-5, rtol=1e-5)
    assert float((wanted - forward(llama, batch).logits).abs().max()) > 0.1


def test_with_a_model_it_belongs_to_that_model(tmp_path: Path, llama: op.Model, gpt2: op.Model) -> None:
    path = written(tmp_path / "v.gguf", {"direction.1": vector(1).numpy()}, controlvector__model_hint="llama")
    (leaf,) = control_vector(path, llama).leaves()
    assert leaf.provenance.fingerprint == {"name": llama.name, **llama.fingerprint}
    assert leaf.provenance.equations == {"layers.1.out": "mid + mlp.out"}
    assert leaf.provenance.recipe == {"imported": "control vector", "file": "v.gguf", "model_hint": "llama"}
    again = op.load_edit(control_vector(path, llama).save(tmp_path / "v.edit"))
    with pytest.raises(WrongModel), gpt2.edited(again):
        pass
    with pytest.raises(UnknownSite):
        control_vector(written(tmp_path / "deep.gguf", {"direction.3": vector(1).numpy()}), llama)
    with pytest.raises(WrongShape, match="width 32"):
        control_vector(written(tmp_path / "narrow.gguf", {"direction.1": np.ones(8, np.float32)}), llama)


def test_directions_of_zeros_are_left_out(tmp_path: Path) -> None:
    zeros = np.zeros(WIDTH, np.float32)
    path = written(tmp_path / "v.gguf", {"direction.1": zeros, "direction.7": vector(1).numpy(), "direction.0": zeros})
    assert control_vector(path).patterns() == ["layers.7.out"]
    with pytest.raises(BadFile, match="only zeros"):
        control_vector(written(tmp_path / "z.gguf", {"direction.1": zeros}))


@pytest.mark.parametrize(
    ("tensors", "texts", "error", "message"),
    [
        ({"blk.0.weight": np.ones(4, np.float32)}, {"architecture": "llama"}, BadFile, "of the kind 'llama'"),
        ({"direction.1": np.ones((2, 2), np.float32)}, {}, BadFile, "vectors of one width"),
        ({"direction.1": np.ones(2, np.float32), "direction.2": np.ones(3, np.float32)}, {}, BadFile, "one width"),
        ({"direction.x": np.ones(2, np.float32)}, {}, BadFile, "'direction.x'"),
        ({"direction.01": np.ones(2, np.float32)}, {}, BadFile, "'direction.01'"),
        ({"direction.1": np.ones(2, np.float32), "other": np.ones(2, np.float32)}, {}, BadFile, "'other'"),
        ({"direction.1": np.full(2, np.nan, np.float32)}, {}, BadFile, "NaN"),
        ({"direction.1": np.ones(2, np.int8)}, {}, NotSupported, "no floating-point"),
        ({"direction.1": np.ones(2, np.float32)}, {"glp__mode": "project"}, NotSupported, "'glp.mode'"),
        ({"direction.1": np.ones(2, np.float32)}, {"controlvector__mode": "x"}, NotSupported, "controlvector.mode"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, tensors: Any, texts: Any, error: Any, message: str) -> None:
    path = written(tmp_path / "v.gguf", tensors, **texts)
    with pytest.raises(error, match=message):
        import_file(path)


# Writing -------------------------------------------------------------------------------------------------------------


def test_the_package_reads_what_is_written(tmp_path: Path, llama: op.Model) -> None:
    edit = add("layers.2.out", vector(2)) * 0.5 + add("layers.1.out", vector(1)) + add("layers.2.out", vector(3))
    path = (edit * 2).export(tmp_path / "v.gguf", llama)
    reader = GGUFReader(path)
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    assert list(found) == ["direction.1", "direction.2"]
    np.testing.assert_allclose(found["direction.1"], 2 * vector(1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found["direction.2"], (vector(2) + 2 * vector(3)).numpy(), rtol=1e-5, atol=1e-6)
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 2


def test_there_and_back_steers_alike(tmp_path: Path, llama: op.Model, prompts: list[str]) -> None:
    chain = (add("layers.1.out", vector(1)) >> add("layers.2.out", vector(2))) * 0.7
    back = control_vector(chain.export(tmp_path / "v.gguf"))
    with llama.edited(chain):
        one = llama.read(prompts, "logits")["logits"]
    with llama.edited(back):
        other = llama.read(prompts, "logits")["logits"]
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_pattern_needs_a_model(tmp_path: Path, llama: op.Model) -> None:
    edit = add("layers.1-2.out", vector(1))
    with pytest.raises(BadInput, match="give the model too"):
        edit.export(tmp_path / "v.gguf")
    assert control_vector(edit.export(tmp_path / "v.gguf", llama)).patterns() == ["layers.1.out", "layers.2.out"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (add("layers.0.out", vector(1)), "nothing after block 0"),
        (add("layers.1.in", vector(1)), "acts at layers.1.in"),
        (add("layers.1.mlp.out", vector(1)), "acts at layers.1.mlp.out"),
        (add("layers.1.out", vector(1), "last_prompt"), "'last_prompt', and llama.cpp adds at every token"),
        (add("layers.1.out", vector(1)[:2], features=(0, 3)), "some features only"),
        (clamp("layers.1.out", 0.0), "'clamp' at layers.1.out is no vector"),
        (project_out("layers.1.out", vector(1)), "'project_out'"),
        (add("layers.1.out", vector(1)) + add("layers.2.out", vector(1)[:8]), "one width"),
        (add("layers.1.out", vector(1)) * 0, "adds nothing"),
        (add("layers.1.out", vector(1)) - add("layers.1.out", vector(1)), "adds nothing"),
        (add("layers.1.out", 1e30 * vector(1)) * 1e30, "too large"),
        (prompt("Be kind."), "no PrefixEdit"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, edit: Any, message: str) -> None:
    with pytest.raises(NotSupported, match=message):
        edit.export(tmp_path / "v.gguf")
    assert not list(tmp_path.iterdir())


def test_other_endings_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"use \.gguf"):
        export(add("layers.1.out", vector(1)), tmp_path / "v.onnx")
    (tmp_path / "v.gguf").mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        export(add("layers.1.out", vector(1)), tmp_path / "v.gguf")
