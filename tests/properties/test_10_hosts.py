"""Property 10: quantised and sharded hosts are ordinary hosts, and edits have a stated precision on the right device.

No GPU is needed: accelerate moves weights between disk, main memory and "the device" in the same way where the device
is the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, nn

import optrode as op
from optrode import edits
from optrode.engine.reading.read import residuals
from optrode.errors import NotSupported

V = torch.randn(32, generator=torch.Generator().manual_seed(5))
SITES = ["layers.1.out", "layers.*.attn.out", "layers.1.mlp.hidden", "layers.2.mid", "logits"]

# Offloaded hosts ------------------------------------------------------------------------------------------------------


def on_cpu(network: nn.Module, folder: Path) -> nn.Module:
    return accelerate.cpu_offload(network, execution_device=torch.device("cpu"))


def on_disk(network: nn.Module, folder: Path) -> nn.Module:
    return accelerate.disk_offload(network, str(folder), execution_device=torch.device("cpu"))


def whole_blocks(network: nn.Module, folder: Path) -> nn.Module:
    """Blocks that load all their weights at once, before any of their parts runs."""
    kinds = [type(next(iter(network.model.layers))).__name__]
    return accelerate.cpu_offload(network, execution_device=torch.device("cpu"), preload_module_classes=kinds)


def in_parts(network: nn.Module, folder: Path) -> nn.Module:
    """A device map: some blocks in memory, some on disk."""
    places = {"model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"}
    places |= dict.fromkeys(["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"], "cpu")
    return accelerate.dispatch_model(network, places, main_device="cpu", offload_dir=str(folder))


WAYS = [on_cpu, on_disk, whole_blocks, in_parts]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def pair(
    request: pytest.FixtureRequest, make_model: Callable[..., op.Model], tmp_path: Path
) -> tuple[op.Model, op.Model]:
    """The same network twice: with its weights elsewhere, and as it was."""
    plain = make_model("llama")
    network = request.param(make_model("llama").module, tmp_path)
    assert placeholders(network)
    return op.load(network, tokenizer=plain.tokenizer), plain


def placeholders(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.device.type == "meta"}


def forwards(network: nn.Module) -> dict[str, Any]:
    return {path: module.__dict__.get("forward") for path, module in network.named_modules()}


def test_an_offloaded_host_reads_the_same_bits_and_is_left_as_it_was(pair: Any, prompts: list[str]) -> None:
    model, plain = pair
    before, own = placeholders(model.module), forwards(model.module)
    for sites in (*SITES, SITES, "module:model.layers.1.mlp.up_proj", "layers.1.attn.pattern"):
        got, wanted = model.read(prompts, sites), plain.read(prompts, sites)
        assert all(torch.equal(got[site], wanted[site]) for site in wanted)
        assert got.layers_skipped == wanted.layers_skipped
        # Also after an early stop, which leaves modules in the middle of their forward.
        assert placeholders(model.module) == before, sites
    assert forwards(model.module) == own


def test_an_offloaded_host_is_edited_as_any_other(pair: Any, prompts: list[str]) -> None:
    model, plain = pair
    edit = edits.add("layers.1.mid", V, "last_prompt") + edits.zero_ablate("layers.0.attn.heads", heads=(1,))
    found = []
    for one in (model, plain):
        with one.edited(edit):
            logits = one.read(prompts, "logits")["logits"]
            found.append((logits, [answer.ids for answer in one.completions(prompts, max_new_tokens=5)]))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def test_an_offloaded_host_resumes(pair: Any, prompts: list[str]) -> None:
    """Blocks that are skipped are skipped with the hooks that would fetch their weights."""
    model, plain = pair
    batch, before, own = model.encode(prompts), placeholders(model.module), forwards(model.module)
    cached = residuals(model, batch, [1, 2])
    assert set(cached.at) == {1, 2} and cached.keys_values
    fetched: list[str] = []
    handle = model.blocks[0].mlp.register_forward_pre_hook(lambda *_: fetched.append("block 0"))
    try:
        with model.edited(edits.add("layers.2.in", V)):
            got = model.read(cached, "layers.2.out", positions="last_prompt")
    finally:
        handle.remove()
    with plain.edited(edits.add("layers.2.in", V)):
        wanted = plain.read(batch, "layers.2.out", positions="last_prompt")
    torch.testing.assert_close(got["layers.2.out"], wanted["layers.2.out"], rtol=1e-5, atol=1e-5)
    assert got.layers_skipped == 2 and not fetched
    assert placeholders(model.module) == before and forwards(model.module) == own


def test_an_offloaded_host_is_the_same_network(pair: Any) -> None:
    """By its fingerprint, which is made of the weights and not of their placeholders; and inputs go where it runs."""
    model, plain = pair
    assert model.fingerprint == plain.fingerprint
    assert model.device == torch.device("cpu") and model.dtype == torch.float32
    assert model.layout is not None and not model.unmapped and model.measured.checks


def test_other_weights_on_disk_are_another_network(make_model: Callable[..., op.Model], tmp_path: Path) -> None:
    one, other = make_model("llama"), make_model("llama", seed=1)
    moved = op.load(on_disk(other.module, tmp_path), tokenizer=other.tokenizer)
    assert moved.fingerprint["weights"] != one.fingerprint["weights"]
    assert moved.fingerprint["config"] == one.fingerprint["config"]


def test_an_error_in_the_middle_of_a_read_leaves_the_weights_away(pair: Any, prompts: list[str]) -> None:
    model, plain = pair
    before = placeholders(model.module)

    def fails(h: Tensor) -> Tensor:
        raise KeyError("on purpose")

    with pytest.raises(KeyError), model.edited(edits.function("layers.1.mlp.hidden", fails)):
        model.read(prompts, "layers.1.out")
    assert placeholders(model.module) == before
    assert torch.equal(model.read(prompts, "logits")["logits"], plain.read(prompts, "logits")["logits"])


def test_tied_weights_are_not_kept_after_an_early_stop(tokenizer: Any, prompts: list[str], tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = LlamaConfig(**shape, num_attention_heads=4, tie_word_embeddings=True, bos_token_id=None, eos_token_id=2)
    plain = op.load(LlamaForCausalLM(config).eval(), tokenizer=tokenizer)
    wanted = plain.read(prompts, ["layers.0.out", "logits"])
    fingerprint = plain.fingerprint
    model = op.load(on_disk(plain.module, tmp_path), tokenizer=tokenizer)
    before = placeholders(model.module)
    assert torch.equal(model.read(prompts, "layers.0.out")["layers.0.out"], wanted["layers.0.out"])
    assert torch.equal(model.read(prompts, "logits")["logits"], wanted["logits"])
    assert placeholders(model.module) == before and model.fingerprint == fingerprint


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss", "deepseek_v3"])
def test_experts_of_an_offloaded_host(make_mixture: Callable[..., op.Model], prompts: list[str], kind: str) -> None:
    """Their weights are in place only while their own forward runs."""
    plain = make_mixture(kind)
    model = op.load(on_cpu(make_mixture(kind).module, Path()), tokenizer=plain.tokenizer)
    before = placeholders(model.module)
    sites = ["layers.*.mlp.experts.*", "layers.*.mlp.{router,weights,chosen,out}"]
    got, wanted = model.read(prompts, sites), plain.read(prompts, sites)
    assert all(torch.equal(got[site], wanted[site]) for site in wanted)
    number = int(wanted.tokens_by_expert["layers.1.mlp"].argmax())
    edit = edits.zero_ablate("layers.1.mlp.experts.out", experts=(number,)) + edits.add("layers.2.mlp.router", 1.0)
    found = []
    for one in (model, plain):
        with one.edited(edit):
            found.append(one.read(prompts, "logits")["logits"])
    assert torch.equal(*found) and placeholders(model.module) == before


def test_a_network_without_weights_says_so(make_model: Callable[..., op.Model]) -> None:
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        network = LlamaForCausalLM(make_model("llama").config)
    model = op.load(network)
    with pytest.raises(NotSupported, match="no weights"):
        _ = model.fingerprint


# Precision ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_edits_compute_in_float32_at_least(make_model: Callable[..., op.Model], prompts: list[str], dtype: Any) -> None:
    """A change of a thousandth in a thousand steps is lost in bfloat16, step by step, but not in the edit."""
    model, seen = make_model("llama", dtype), []

    def steps(h: Tensor) -> Tensor:
        seen.append((h.dtype, h.device))
        for _ in range(1000):
            h = h + 1e-3
        return h

    plain = model.read(prompts, "layers.1.out", positions="last_prompt")["layers.1.out"]
    with model.edited(edits.function("layers.1.out", steps)):
        got = model.read(prompts, "layers.1.out", positions="last_prompt")["layers.1.out"]
    assert seen[0] == (torch.promote_types(dtype, torch.float32), model.device)
    assert got.dtype == dtype
    wanted = plain.double() + 1
    # One rounding to the network's own precision, and no more.
    assert bool(((got.double() - wanted).abs() <= torch.finfo(dtype).eps * wanted.abs() + 1e-4).all())


# Quantised hosts ------------------------------------------------------------------------------------------------------


def quantised(network: nn.Module) -> nn.Module:
    """int8 weights, and activations that are quantised to int8 token by token as they come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization = pytest.importorskip("torchao.quantization")
        quantization.quantize_(network, quantization.Int8DynamicActivationInt8WeightConfig())
    return network


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def int8(request: pytest.FixtureRequest, make_model: Callable[..., op.Model]) -> tuple[op.Model, op.Model]:
    plain = make_model("llama", request.param)
    return op.load(quantised(make_model("llama", request.param).module), tokenizer=plain.tokenizer), plain


def test_a_quantised_host_is_known_and_measured(int8: Any) -> None:
    model, plain = int8
    assert type(model.blocks[0].mlp.up_proj.weight) is not nn.Parameter
    assert (model.layout.name, model.unmapped, model.width, model.dtype) == ("llama", "", 32, plain.dtype)
    assert all(check.holds for check in model.measured.checks)
    assert model.fingerprint["config"] == plain.fingerprint["config"]
    assert model.fingerprint["weights"] != plain.fingerprint["weights"]
    assert "0.0M parameters" in repr(model)


def test_a_quantised_host_reads_what_it_computes(int8: Any, prompts: list[str], forward: Any, rewritten: Any) -> None:
    model, _ = int8
    batch, seen = model.encode(prompts), []
    with rewritten(model.blocks[1].mlp.down_proj, lambda h: seen.append(h) or h, side="in"):
        alone = forward(model, batch).logits
    got = model.read(batch, ["layers.1.mlp.hidden", "logits"])
    assert torch.equal(got["layers.1.mlp.hidden"], seen[0]) and torch.equal(got["logits"], alone)
    # Quantised indeed: near the network it was made of, and not the same.
    own, other = (one.read(batch, "layers.2.out").rows("layers.2.out").float() for one in int8)
    assert 1e-4 < float((own - other).norm() / other.norm()) < 0.2


def test_a_quantised_host_is_edited_as_by_hand(int8: Any, prompts: list[str], forward: Any, rewritten: Any) -> None:
    model, _ = int8
    batch = model.encode(prompts)
    with rewritten(model.blocks[1], lambda h: (h.float() + V).to(h.dtype)):
        wanted = forward(model, batch).logits
    with model.edited(edits.add("layers.1.out", V)) as receipt:
        assert torch.equal(model.read(batch, "logits")["logits"][batch.mask], wanted[batch.mask])
    assert receipt.changed == batch.mask.sum()
    assert torch.equal(model.read(batch, "logits")["logits"], forward(model, batch).logits)


def test_a_quantised_host_writes_the_same_alone_and_with_others(int8: Any, prompts: list[str]) -> None:
    model, _ = int8
    with model.edited(edits.add("layers.1.out", V, "generated")):
        together = model.completions(prompts, max_new_tokens=5)
        again = model.completions(prompts, max_new_tokens=5)
    assert [one.ids for one in together] == [one.ids for one in again]


@pytest.mark.filterwarnings("error:this edit was fitted")
def test_an_edit_of_the_full_network_warns_on_the_quantised_one(int8: Any, prompts: list[str]) -> None:
    model, plain = int8
    fitted = edits.add("layers.1.out", V).with_provenance(edits.Provenance(plain.fingerprint))
    with pytest.raises(UserWarning, match="another weights"), model.edited(fitted):
        pass


@pytest.mark.slow
def test_smollm2_in_int8(smollm2: op.Model) -> None:
    import copy

    model = op.load(quantised(copy.deepcopy(smollm2.module)), tokenizer=smollm2.tokenizer)
    prompt = "The capital of France is"
    own, other = (one.read(prompt, "layers.15.out").rows("layers.15.out") for one in (model, smollm2))
    cosine = torch.cosine_similarity(own[1:], other[1:], dim=-1)
    assert float(cosine.min()) > 0.9
    direction = other[-1] / other[-1].norm()
    with model.edited(edits.project_out("layers.15.out", direction)) as receipt:
        text = model.generate(prompt, max_new_tokens=8)
    assert text and receipt.relative_change > 0.01
