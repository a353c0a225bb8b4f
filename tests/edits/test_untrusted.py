"""Edit files and PEFT folders that somebody made on purpose: refused in one short line that steers no terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import optrode as op
from optrode import edits
from optrode.edits import Provenance
from optrode.errors import BadFile, OptrodeError

KNOWN = Provenance({"config": "a"}, {}, {"layers.1.out": "mid + mlp.out"}, {"layers.1.out": 2.0}, "raw: none")


def said(refused: pytest.ExceptionInfo[OptrodeError]) -> str:
    text = str(refused.value)
    assert text.isprintable() and len(text) < 400
    return text


NODES: dict[str, dict[str, Any]] = {
    "long": {"positions": "A" * 5000}, "several lines": {"positions": "a\nb\x1b[2J"},
    "too large": {"strength": 10**400},
    "nothing": {"node": "sum", "parts": []}, "norm": {"provenance": {"stream_norm": {"a": "x"}}},
    "config": {"provenance": {"fingerprint": {"config": ["a"]}}}, "equation": {"provenance": {"equations": {"a": 3}}},
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_entries_of_other_values(name: str, tmp_path: Path):
    path = edits.add("layers.1.out", torch.ones(4)).with_provenance(KNOWN).save(tmp_path / "a.edit")
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["optrode"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    node = described["edit"]
    described["edit"] = NODES[name] if "node" in NODES[name] else node | NODES[name]
    if "provenance" in NODES[name]:
        described["edit"]["provenance"] = node["provenance"] | NODES[name]["provenance"]
    save_file(tensors, path, metadata={"optrode": json.dumps(described)})
    with pytest.raises(BadFile, match=r"a\.edit") as refused:
        op.load_edit(path)
    said(refused)


def test_a_format_of_thousands_of_characters(tmp_path: Path):
    save_file({"a": torch.ones(1)}, tmp_path / "a.edit", metadata={"optrode": json.dumps({"format": "\n" * 5000})})
    with pytest.raises(BadFile, match="has format") as refused:
        op.load_edit(tmp_path / "a.edit")
    said(refused)


CONFIGS: dict[str, dict[str, Any]] = {
    "bias": {"bias": "x\n" * 500}, "kind": {"peft_type": ["\x1b"] * 500},
    "beginning": {"init_lora_weights": "a\nb" * 300},
    "entry": {"a\nb" * 300: True}, "pattern": {"alpha_pattern": {"(" * 900: 2}},
    "alpha": {"lora_alpha": [[1] * 900] * 9},
    "too large": {"lora_alpha": 10**400}, "patterns": {"alpha_pattern": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_of_peft_of_other_values(name: str, tmp_path: Path):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | CONFIGS[name]
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    prefix = "base_model.model.a."
    tensors = {f"{prefix}lora_A.weight": torch.ones(2, 4), f"{prefix}lora_B.weight": torch.ones(4, 2)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(OptrodeError) as refused:
        edits.adapter(tmp_path)
    said(refused)


def test_tensors_of_peft_with_names_of_several_lines(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    save_file({"a\nb" * 300: torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(OptrodeError, match="no part of a LoRA") as refused:
        edits.adapter(tmp_path)
    said(refused)
