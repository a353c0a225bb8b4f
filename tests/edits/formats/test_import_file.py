"""What a file is, its content says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from optrode.edits import AdapterEdit, add, import_file
from optrode.errors import BadFile, MissingFile


def test_files_are_told_apart_by_their_content(tmp_path: Path) -> None:
    edit = add("layers.1.out", torch.ones(8))
    edit.export(tmp_path / "a.gguf").rename(tmp_path / "a")
    edit.save(tmp_path / "b")
    torch.save({1: torch.ones(8)}, tmp_path / "c")
    for name in "abc":
        found = import_file(tmp_path / name)
        assert found.patterns() == ["layers.1.out"]
        assert torch.equal(found.tensors()["vector"], torch.ones(8))


def test_a_folder_of_peft_is_an_adapter(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from torch import nn

    network = nn.Sequential(nn.Linear(4, 4))
    get_peft_model(network, LoraConfig(target_modules=["0"], r=2)).save_pretrained(tmp_path / "lora")
    found = import_file(tmp_path / "lora")
    assert isinstance(found, AdapterEdit) and found.modules == ["0"]


def test_anything_else_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"hello, world"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(BadFile, match="nothing that can be imported"):
            import_file(tmp_path / "x")
    with pytest.raises(MissingFile):
        import_file(tmp_path / "y")
