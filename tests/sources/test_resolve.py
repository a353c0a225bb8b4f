from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from optrode.errors import BadFile, BadInput, MissingFile, UnknownModel
from optrode.sources import known_models, open_source


def test_misspelt_name_names_the_near_one():
    with pytest.raises(UnknownModel, match="did you mean smollm2-135m"):
        open_source("smollm-135m")
    for name in ("", " ", "gpt2", "x" * 5000, "a\0b", "two words"):
        with pytest.raises(UnknownModel, match="did you mean"):
            open_source(name)


def test_missing_paths_are_not_taken_for_hub_names(tmp_path: Path):
    (tmp_path / "model-a").mkdir()
    with pytest.raises(MissingFile, match="did you mean model-a"):
        open_source(str(tmp_path / "model-b"))
    with pytest.raises(MissingFile, match=r"weights\.gguf"):
        open_source("weights.gguf")
    with pytest.raises(MissingFile):
        open_source(tmp_path / "nowhere" / "model")
    with pytest.raises(MissingFile):
        open_source("./smollm2-135m")
    with pytest.raises(MissingFile, match=r"nothing in .* has a name like it"):
        open_source(tmp_path / "zzz")


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path):
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(BadFile, match="neither a folder nor a GGUF"):
        open_source(tmp_path / "weights.pth")


def test_module_is_the_same_object_in_the_same_mode():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    tokenizer = object()
    source = open_source(module, tokenizer=tokenizer)
    assert source.module is module and module.training
    assert source.tokenizer is tokenizer and source.processor is None
    assert source.name == "Sequential"
    assert source.origin == {"kind": "module", "where": "torch.nn.modules.container.Sequential"}


def test_arguments_that_would_be_ignored_are_refused(llama_folder: Path):
    with pytest.raises(BadInput, match="convert it yourself"):
        open_source(nn.Linear(2, 2), dtype=torch.float16)
    with pytest.raises(BadInput, match="hub id only"):
        open_source(llama_folder, revision="main")
    with pytest.raises(BadInput, match="hub id only"):
        open_source("smollm2-135m", revision="main")
    with pytest.raises(BadInput, match="name, a path or a torch module"):
        open_source(3)
    with pytest.raises(BadInput, match="device"):
        open_source(llama_folder, device="nonsense")


def test_relative_folder_and_given_tokenizer_win(llama_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(llama_folder.parent)
    tokenizer = object()
    source = open_source("tiny-llama", tokenizer=tokenizer, dtype=torch.bfloat16)
    assert source.tokenizer is tokenizer
    assert source.name == "tiny-llama"
    assert {parameter.dtype for parameter in source.module.parameters()} == {torch.bfloat16}


def test_a_link_keeps_the_name_the_user_gave(llama_folder: Path, tmp_path: Path):
    (tmp_path / "my-model").symlink_to(llama_folder)
    assert open_source(tmp_path / "my-model").name == "my-model"


def test_known_models_say_whether_they_are_fetched(own_home: Path):
    assert [model.fetched for model in known_models()] == [False, False, False]
    assert all(len(model.wheels) == 1 and "==" in model.wheels[0] and model.licence for model in known_models())


def test_importing_sources_is_light():
    heavy = {"torch", "transformers", "rich", "numpy"}
    code = f"import sys, optrode.sources; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
