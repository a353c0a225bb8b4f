"""Adapter edits as objects: algebra, files, and folders that PEFT wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import optrode as op
from optrode import edits
from optrode.edits import AdapterEdit, BiasDelta, FullDelta, LowRankDelta, Provenance
from optrode.errors import BadFile, BadInput, MissingFile, NotFinite, NotSupported, OptrodeError, WrongModel, WrongShape

RANDOM = torch.Generator().manual_seed(5)
UP, DOWN = torch.randn(6, 2, generator=RANDOM), torch.randn(2, 4, generator=RANDOM)
EDIT = edits.weights({"a.b": (UP, DOWN), "c": torch.ones(3, 4), "d": torch.ones(5)}) * -0.5
KNOWN = Provenance({"name": "m", "config": "x", "tokenizer": "y", "weights": "z"}, {"method": "trained", "steps": 3})


def same(first: AdapterEdit, second: AdapterEdit) -> bool:
    return (
        [type(one) for one in first.deltas] == [type(one) for one in second.deltas]
        and [(one.module, one.scale) for one in first.deltas] == [(one.module, one.scale) for one in second.deltas]
        and list(first.tensors()) == list(second.tensors())
        and all(torch.equal(value, second.tensors()[name]) for name, value in first.tensors().items())
        and first.provenance == second.provenance
    )


def test_forms_and_algebra():
    assert [type(one) for one in EDIT.deltas] == [LowRankDelta, FullDelta, BiasDelta] and EDIT.kind == "adapter"
    assert [one.scale for one in (EDIT * 3).deltas] == [-1.5] * 3 and [one.scale for one in (-EDIT).deltas] == [0.5] * 3
    assert (EDIT + EDIT).modules == ["a.b", "c", "d"] and len((EDIT - EDIT).deltas) == 6
    assert list((EDIT + EDIT).tensors()) == ["a.b.down", "a.b.up", "c.weight", "d.bias", "3.a.b.down", "3.a.b.up",
                                             "4.c.weight", "5.d.bias"]  # fmt: skip
    again = (EDIT + EDIT).with_tensors({name: value * 2 for name, value in (EDIT + EDIT).tensors().items()})
    assert torch.equal(again.deltas[3].down, DOWN * 2)
    with pytest.raises(NotSupported, match="cannot be added"):
        EDIT + edits.add("layers.0.out", UP[:, 0])
    with pytest.raises(NotSupported, match="cannot be added"):
        edits.add("layers.0.out", UP[:, 0]) + EDIT
    with pytest.raises(NotSupported, match="chained"):
        EDIT >> EDIT
    with pytest.raises(NotFinite):
        EDIT * float("inf")


def test_provenance_of_a_sum():
    first = EDIT.with_provenance(KNOWN)
    assert (first + EDIT).provenance.fingerprint == KNOWN.fingerprint == (EDIT + first).provenance.fingerprint
    assert (first + EDIT).provenance.recipe == {"added": [KNOWN.recipe, {}]}
    with pytest.raises(WrongModel):
        first + EDIT.with_provenance(replace(KNOWN, fingerprint={"config": "other"}))


def test_what_is_no_change_of_weights():
    for change, error in (
        (torch.ones(2, 2, 2), WrongShape), (torch.tensor(1.0), WrongShape), ((DOWN, UP), WrongShape),
        (torch.full((2, 2), torch.nan), NotFinite), (torch.ones(2, 2, dtype=torch.int64), WrongShape),
    ):  # fmt: skip
        with pytest.raises(error, match="for a"):
            edits.weights({"a": change})
    with pytest.raises(BadInput):
        edits.weights({})


@pytest.mark.parametrize("edit", [EDIT, EDIT.with_provenance(KNOWN), EDIT + EDIT], ids=["plain", "known", "sum"])
def test_what_is_saved_comes_back_bit_equal(edit, tmp_path: Path):
    path = edit.save(tmp_path / "one.edit")
    loaded = op.load_edit(path)
    assert same(edit, loaded) and not same(loaded, EDIT * 2)
    assert loaded.save(tmp_path / "two.edit").read_bytes() == path.read_bytes()


def damaged(path: Path, change) -> Path:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["optrode"])
    tensors = load_file(path)
    change(described["edit"], tensors)
    save_file(tensors, path, metadata={"optrode": json.dumps(described)})
    return path


CHANGES = {
    "form": lambda node, tensors: node["deltas"][0].update(form="code"),
    "entry": lambda node, tensors: node["deltas"][0].update(hook="x"),
    "missing": lambda node, tensors: node["deltas"][0].pop("scale"),
    "scale": lambda node, tensors: node["deltas"][0].update(scale="1"),
    "infinite": lambda node, tensors: node["deltas"][0].update(scale=float("inf")),
    "module": lambda node, tensors: node["deltas"][0].update(module=3),
    "deltas": lambda node, tensors: node.update(deltas=3),
    "none": lambda node, tensors: node.update(deltas=[]),
    "tensor gone": lambda node, tensors: tensors.pop("edit.0.up"),
    "tensor more": lambda node, tensors: tensors.update({"edit.0.code": torch.ones(1)}),
    "shape": lambda node, tensors: tensors.update({"edit.0.up": torch.ones(3)}),
    "fit": lambda node, tensors: tensors.update({"edit.0.up": torch.ones(6, 5)}),
    "nan": lambda node, tensors: tensors.update({"edit.0.up": UP * torch.nan}),
    "integers": lambda node, tensors: tensors.update({"edit.0.up": UP.long()}),
    "recipe": lambda node, tensors: node["provenance"]["recipe"].update(steps=4),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_was_tampered_with_is_refused(what: str, tmp_path: Path):
    path = damaged(EDIT.with_provenance(KNOWN).save(tmp_path / "a.edit"), CHANGES[what])
    with pytest.raises(BadFile, match="damaged"):
        op.load_edit(path)


# PEFT ----------------------------------------------------------------------------------------------------------------

CONFIGS = {
    "plain": {"target_modules": ["q_proj", "down_proj"], "r": 4, "lora_alpha": 6},
    "rank stabilised": {"target_modules": ["v_proj"], "r": 4, "use_rslora": True},
    "by module": {
        "target_modules": ["q_proj", "k_proj", "up_proj"], "r": 4, "rank_pattern": {"up_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 3, "^model.layers.0.mlp.up_proj": 5, "proj": 77},
    },
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head"], "r": 2},
    "bias of B": {"target_modules": ["o_proj"], "r": 2, "lora_bias": True},
    "gaussian": {"target_modules": ["o_proj"], "r": 2, "init_lora_weights": "gaussian", "lora_dropout": 0.1},
    "some layers": {"target_modules": ["o_proj"], "r": 2, "layers_to_transform": [1]},
}  # fmt: skip


def saved_by_peft(module, folder: Path, **config):
    """A folder that PEFT wrote of a LoRA with random factors, and the PEFT model."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(module, peft.LoraConfig(**config)).eval()
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_" in name:
                value.normal_(std=0.3)
    wrapped.save_pretrained(folder)
    return wrapped


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_peft_folder_gives_what_peft_gives(make_model, prompts, tmp_path: Path, name: str):
    model, theirs = make_model("llama"), make_model("llama")
    batch = model.encode(prompts)
    wrapped = saved_by_peft(theirs.module, tmp_path / "lora", **CONFIGS[name])
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "position_ids": batch.position_ids}
    edit = edits.adapter(tmp_path / "lora")
    with torch.no_grad():
        wanted, plain = wrapped(**inputs).logits, model.module(**inputs).logits
        with model.edited(edit) as receipt:
            got = model.module(**inputs).logits
        with model.edited(op.load_edit(edit.save(tmp_path / "a.edit"))):
            assert torch.equal(model.module(**inputs).logits, got)
    assert torch.allclose(got, wanted, atol=2e-4, rtol=1e-4) and not torch.allclose(plain, wanted, atol=1e-2)
    assert all(site.calls == 1 for site in receipt.sites.values())
    assert len(receipt.sites) == sum("lora_A" in n or "embedding_A" in n for n, _ in wrapped.named_parameters())


@pytest.mark.filterwarnings("ignore")
def test_strength_is_that_of_peft(make_model, prompts, tmp_path: Path):
    model, theirs = make_model("gpt2"), make_model("gpt2")
    wrapped = saved_by_peft(theirs.module, tmp_path, target_modules=["c_attn"], r=2, fan_in_fan_out=True)
    batch = model.encode(prompts)
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "position_ids": batch.position_ids}
    for module in wrapped.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(-1.7)
    with torch.no_grad(), model.edited(edits.adapter(tmp_path) * -1.7):
        assert torch.allclose(model.module(**inputs).logits, wrapped(**inputs).logits, atol=2e-4, rtol=1e-4)


REFUSED = {
    "DoRA": ({"use_dora": True}, NotSupported, "use_dora"),
    "bias": ({"bias": "all"}, NotSupported, "bias='all'"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, NotSupported, "modules_to_save"),
    "parameters": ({"target_parameters": ["mlp.experts"]}, NotSupported, "target_parameters"),
    "unheard of": ({"quantum": 3}, NotSupported, "quantum"),
    "changes weights": ({"init_lora_weights": "pissa"}, NotSupported, "pissa"),
    "other kind": ({"peft_type": "IA3"}, NotSupported, "IA3"),
    "pattern": ({"alpha_pattern": {"(a+)+$": 3}}, NotSupported, "regular expression"),
    "alpha": ({"lora_alpha": "8"}, BadFile, "no alpha"),
    "no alpha": ({"lora_alpha": None}, BadFile, "no alpha"),
    "list": ({"alpha_pattern": [1]}, BadFile, "damaged"),
}


def folder(tmp_path: Path, config=None, tensors=None) -> Path:
    known = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["b"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(known | (config or {})))
    prefix = "base_model.model.a.b.lora_"
    save_file(tensors or {f"{prefix}A.weight": DOWN, f"{prefix}B.weight": UP}, tmp_path / "adapter_model.safetensors")
    return tmp_path


def test_a_folder_by_hand(tmp_path: Path):
    edit = edits.adapter(folder(tmp_path))
    assert edit.modules == ["a.b"] and edit.deltas[0].scale == 2.0 and torch.equal(edit.deltas[0].down, DOWN)


@pytest.mark.parametrize("what", REFUSED)
def test_a_configuration_that_means_something_else_is_refused(what: str, tmp_path: Path):
    config, error, text = REFUSED[what]
    with pytest.raises(error, match=text):
        edits.adapter(folder(tmp_path, config))


def test_folders_that_are_damaged_or_hold_code(tmp_path: Path):
    with pytest.raises(MissingFile, match=r"adapter_config\.json"):
        edits.adapter(tmp_path)
    folder(tmp_path)
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    for text in ("{", "[]", "\ud800".encode("utf-16", "surrogatepass").decode("latin-1")):
        config.write_text(text)
        with pytest.raises(BadFile):
            edits.adapter(tmp_path)
    folder(tmp_path)
    weights.write_bytes(b"not a tensor in sight")
    with pytest.raises(BadFile, match="damaged"):
        edits.adapter(tmp_path)
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(NotSupported, match="pickle"):
        edits.adapter(tmp_path)
    prefix = "base_model.model.a.b.lora_"
    for tensors in (
        {f"{prefix}A.weight": DOWN}, {f"{prefix}A.weight": DOWN, f"{prefix}B.weight": UP.T.contiguous()},
        {f"{prefix}A.weight": DOWN, f"{prefix}B.weight": UP * torch.nan}, {f"{prefix}B.weight": UP},
        {"base_model.model.a.b.lora_C.weight": UP}, {"a.b.lora_A.weight": DOWN},
        {"base_model.model.b.base_layer.weight": UP},
        {f"{prefix}A.weight": DOWN[:0].clone(), f"{prefix}B.weight": UP[:, :0].clone()},
        {f"{prefix}A.weight": torch.tensor(1.0), f"{prefix}B.weight": UP},
    ):  # fmt: skip
        with pytest.raises(OptrodeError):
            edits.adapter(folder(tmp_path, tensors=tensors))
