"""Networks that PEFT has wrapped: the addresses of the network inside, with its adapters, in both objects' forwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import optrode as op
from optrode.errors import NotSupported

peft = pytest.importorskip("peft")


def lora(module: nn.Module, **options: Any) -> Any:
    torch.manual_seed(1)
    settings = peft.LoraConfig(r=2, init_lora_weights=False, **options)
    return peft.get_peft_model(module, settings).eval()


@pytest.fixture(params=["llama", "gpt2"])
def pair(request: pytest.FixtureRequest, make_model: Any) -> tuple[op.Model, Any, op.Model]:
    """The network before, PEFT's object around a network with the same weights, and that object as a model."""
    name = request.param
    targets = ["q_proj", "o_proj", "down_proj"] if name == "llama" else ["c_attn", "c_proj"]
    wrapped = lora(make_model(name).module, target_modules=targets)
    plain = make_model(name)
    return plain, wrapped, op.load(wrapped, tokenizer=plain.tokenizer)


def test_it_has_the_addresses_of_its_base(pair: Any) -> None:
    plain, wrapped, model = pair
    assert list(model.table) == list(plain.table) and model.layout == plain.layout
    assert model.measured is not None and model.module is wrapped.get_base_model()
    assert model.fingerprint["config"] == plain.fingerprint["config"]
    assert model.fingerprint["weights"] != plain.fingerprint["weights"], "the adapter is part of the weights"


def test_reads_are_those_of_the_wrapped_network(pair: Any, prompts: list[str]) -> None:
    plain, wrapped, model = pair
    batch = model.encode(prompts)
    with torch.no_grad():
        out = wrapped(
            input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.position_ids,
            output_hidden_states=True,
        )  # fmt: skip
    acts = model.read(prompts, ["layers.1.out", "logits", "layers.1.attn.heads", "layers.1.mlp.out"])
    assert torch.equal(acts["layers.1.out"], out.hidden_states[2]) and torch.equal(acts["logits"], out.logits)
    before = plain.read(prompts, "logits")["logits"]
    assert float((before - acts["logits"]).abs().max()) > 0.1


def test_edits_act_in_forwards_of_both(pair: Any, prompts: list[str]) -> None:
    _, wrapped, model = pair
    batch = model.encode(prompts)
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "position_ids": batch.position_ids}
    edit = op.edits.add("layers.1.out", torch.ones(32)) + op.edits.scale("layers.0.attn.heads", 0.5)
    with torch.no_grad(), model.edited(edit) as receipt:
        one, other = wrapped(**inputs).logits, model.read(prompts, "logits")["logits"]
    assert torch.equal(one, other) and receipt.changed
    with torch.no_grad():
        assert float((wrapped(**inputs).logits - one).abs().max()) > 0.1


def test_switching_the_adapter_off_gives_the_base(pair: Any, prompts: list[str]) -> None:
    plain, wrapped, model = pair
    with wrapped.disable_adapter():
        off = model.read(prompts, "logits")["logits"]
    assert torch.equal(off, plain.read(prompts, "logits")["logits"])


def test_it_writes_what_the_wrapped_network_writes(make_model: Any) -> None:
    plain = make_model("llama")
    wrapped = lora(make_model("llama").module, target_modules=["v_proj"], task_type="CAUSAL_LM")
    model = op.load(wrapped, tokenizer=plain.tokenizer)
    batch = model.encode("The cat")
    with torch.no_grad():
        ids = wrapped.generate(input_ids=batch.ids, attention_mask=batch.mask.long(), max_new_tokens=5, do_sample=False)
    text = plain.tokenizer.decode(ids[0, batch.ids.shape[1] :], skip_special_tokens=True)
    assert model.generate("The cat", max_new_tokens=5) == text


def test_an_edit_of_its_folder_does_the_same(make_model: Any, prompts: Any, tmp_path: Path) -> None:
    plain = make_model("llama")
    wrapped = lora(make_model("llama").module, target_modules=["q_proj", "down_proj"])
    wrapped.save_pretrained(tmp_path / "lora")
    with plain.edited(op.edits.import_file(tmp_path / "lora")):
        edited = plain.read(prompts, "logits")["logits"]
    inside = op.load(wrapped, tokenizer=plain.tokenizer).read(prompts, "logits")["logits"]
    torch.testing.assert_close(edited, inside, atol=1e-4, rtol=1e-4)


def test_wrappers_that_put_tokens_in_front_are_refused(make_model: Any) -> None:
    settings = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(make_model("llama").module, settings)
    with pytest.raises(NotSupported, match=r"PROMPT_TUNING.*get_base_model"):
        op.load(wrapped)
