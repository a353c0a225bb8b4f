from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optrode as op
from optrode import edits
from optrode.edits.base import SiteEdit
from optrode.edits.operators import SAVEABLE
from optrode.engine.bake import explain, is_baked
from optrode.engine.editing.edited import bind
from optrode.engine.run import running
from optrode.engine.twin import shared, twin
from optrode.errors import NotFinite, NotSupported, UnknownSite, WrongShape
from optrode.positions import Positions

OUT = "layers.1.out"
RANDOM = torch.Generator().manual_seed(5)
V, W, SMALL = (torch.randn(size, generator=RANDOM) for size in (32, 32, 8))
LONG = {"max_new_tokens": 6, "min_new_tokens": 6}


def logits(network: Any, batch: Any, **options: Any) -> Tensor:
    arguments = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "position_ids": batch.position_ids}
    with torch.no_grad():
        return network(**arguments, use_cache=False, **options).logits[batch.mask]


def live(model: op.Model, edit: edits.Edit, batch: Any) -> Tensor:
    """What a live edit gives, also where it has nothing to do in a prompt."""
    with torch.no_grad(), bind(model, edit).active(), running(model, batch):
        return logits(model.module, batch)


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def written(network: Any, batch: Any, **options: Any) -> list[list[int]]:
    """Token ids that plain `generate` of transformers writes."""
    arguments = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "do_sample": False, **LONG, **options}
    return network.generate(**arguments)[:, batch.width :].tolist()


def written_live(model: op.Model, edit: edits.Edit, batch: Any) -> list[list[int]]:
    with model.edited(edit):
        return [list(completion.ids) for completion in model.completions(batch, **LONG)]


# Every operator, every site, every algebra ----------------------------------------------------------------------------

OPERATORS: dict[str, SiteEdit] = {
    "add": edits.add(OUT, 3 * V),
    "add_by_position": edits.add_by_position(OUT, torch.stack([V, W, V - W]), "all"),
    "scale": edits.scale(OUT, W),
    "project_out": edits.project_out(OUT, torch.stack([V, W])),
    "affine": edits.affine(OUT, V, W),
    "affine_within": edits.affine_within(OUT, V, W, -0.3, W.abs()),
    "reach": edits.reach(OUT, V, 0.5, 0.9),
    "low_rank": edits.low_rank(OUT, torch.stack([V, W]), torch.stack([W, V]), torch.tensor([0.5, -0.5])),
    "subspace": edits.subspace(OUT, torch.stack([V, W]), torch.stack([W, V]), torch.tensor([0.5, -0.5])),
    "gated": edits.gated(OUT, V, W, 0.5),
    "replace": edits.mean_ablate(OUT, V),
    "clamp": edits.clamp(OUT, -0.2, V.abs()),
    "knockout": edits.knockout("layers.1.attn.scores", keys="first:2"),
}


def test_no_operator_is_left_out() -> None:
    assert set(OPERATORS) == set(SAVEABLE)


@pytest.mark.parametrize(
    ("name", "strength"), [(name, strength) for name in OPERATORS for strength in (1.0, -0.7) if name != "knockout"]
)
def test_every_operator_is_the_live_edit(name: str, strength: float, model: op.Model, prompts: list[str]) -> None:
    edit, batch = OPERATORS[name] * strength, model.encode(prompts)
    plain, wanted = logits(model.module, batch), live(model, edit, batch)
    assert error(logits(edit.bake(model), batch), wanted) < 2e-6
    assert error(plain, wanted) > 1e-3


@pytest.mark.parametrize("kind", ["scale", "replace", "add"])
def test_every_site_is_the_live_edit(kind: str, model: op.Model) -> None:
    batch = model.encode("The cat sat on the mat.")
    acts = model.read(batch, list(model.table))
    for site, info in model.table.items():
        if info.layer not in (None, 1):
            continue
        by_key = info.port.axes[-1] == "key"
        value = torch.tensor(0.4) if by_key else torch.randn(acts[site].shape[2:], generator=RANDOM)
        edit = getattr(edits, kind)(site, value)
        network = edit.bake(model)
        assert error(logits(network, batch), live(model, edit, batch)) < 3e-6, site


def test_a_knockout_is_the_live_edit(model: op.Model, prompts: list[str]) -> None:
    edit, batch = OPERATORS["knockout"], model.encode(prompts)
    wanted = live(model, edit, batch)
    assert error(logits(edit.bake(model), batch), wanted) < 2e-6
    assert error(logits(model.module, batch), wanted) > 1e-3
    with pytest.raises(NotFinite):
        (edit * -1).bake(model)


def test_a_changed_constant_is_not_the_live_edit(llama: op.Model) -> None:
    """The comparison itself can fail."""
    batch = llama.encode("The cat")
    assert error(logits((OPERATORS["scale"] * 1.01).bake(llama), batch), live(llama, OPERATORS["scale"], batch)) > 1e-4


ALGEBRA = {
    "sum": OPERATORS["scale"] + OPERATORS["clamp"],
    "chain": OPERATORS["scale"] >> OPERATORS["add"],
    "other chain": OPERATORS["add"] >> OPERATORS["scale"],
    "scaled chain": (OPERATORS["scale"] >> OPERATORS["add"]) * 0.5,
    "nested": ((OPERATORS["add"] >> OPERATORS["clamp"]) * 2 + OPERATORS["scale"]) >> OPERATORS["project_out"],
    "many sites": edits.scale("layers.*.mid", 0.9) + edits.add("layers.{0,2}.attn.out", V) + OPERATORS["clamp"],
    "sum at a sum": edits.scale("layers.1.mid", 1.2) + edits.clamp("layers.1.attn.out", -1.0, 1.0),
    "one part of no strength": OPERATORS["scale"] * 0 + OPERATORS["clamp"],
    "heads": edits.add("layers.1.attn.heads", SMALL, heads=(1, 3)) + edits.zero_ablate("layers.2.attn.q", heads=(0,)),
    "features": edits.replace(OUT, V[:3], features=(0, 5, 31)) + edits.scale("layers.0.mlp.hidden", 3.0, features=(7,)),
    "heads and features": edits.zero_ablate("layers.1.attn.heads", heads=(2,), features=(0, 1)),
    "inside": edits.scale("layers.1.attn.{q_rotated,k_rotated}", 1.5)
    + edits.zero_ablate("layers.0.attn.pattern", heads=(1,)),
    "a module by its path": edits.scale("module:*.1.mlp", 0.5),
}


@pytest.mark.parametrize("name", ALGEBRA)
def test_algebra_is_the_live_edit(name: str, model: op.Model, prompts: list[str]) -> None:
    edit, batch = ALGEBRA[name], model.encode(prompts)
    wanted = live(model, edit, batch)
    assert error(logits(edit.bake(model), batch), wanted) < 2e-6
    assert error(logits(model.module, batch), wanted) > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(
    "edit", [OPERATORS["add"], OPERATORS["project_out"], ALGEBRA["sum"]], ids=["add", "out", "sum"]
)
def test_other_precisions(
    edit: Any, dtype: torch.dtype, make_model: Callable[..., op.Model], prompts: list[str]
) -> None:
    model = make_model("llama", dtype)
    batch, network = model.encode(prompts), edit.bake(model)
    got = logits(network, batch)
    assert got.dtype == dtype
    assert error(got, live(model, edit, batch)) < {torch.float64: 1e-13}.get(dtype, 0.03)
    for name, value in network.named_buffers():
        if "optrode" in name and value.is_floating_point():
            assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_strength_zero_gives_a_twin(llama: op.Model, prompts: list[str]) -> None:
    batch, network = llama.encode(prompts), (OPERATORS["add"] * 0).bake(llama)
    assert torch.equal(logits(network, batch), logits(llama.module, batch))
    assert "strength is 0" in explain(network)


# Weights --------------------------------------------------------------------------------------------------------------


def test_weights_are_shared_and_the_host_is_untouched(model: op.Model, prompts: list[str]) -> None:
    batch = model.encode(prompts)
    own, keys = logits(model.module, batch), list(model.module.state_dict())
    kinds = {name: type(part) for name, part in model.module.named_modules()}
    network = (ALGEBRA["many sites"] + OPERATORS["scale"]).bake(model)
    theirs = dict(network.named_parameters())
    for name, parameter in model.module.named_parameters():
        if "bias" not in name or theirs[name].shape != parameter.shape:
            assert theirs[name].data_ptr() == parameter.data_ptr(), name
    total = sum(parameter.numel() * 4 for parameter in model.module.parameters())
    assert shared(model.module, network) > 0.9 * total
    assert torch.equal(logits(model.module, batch), own) and list(model.module.state_dict()) == keys
    assert {name: type(part) for name, part in model.module.named_modules()} == kinds
    assert isinstance(network, type(model.module))


def test_a_cast_of_the_baked_network_leaves_the_host_alone(llama: op.Model, prompts: list[str]) -> None:
    batch = llama.encode(prompts)
    own, network = logits(llama.module, batch), OPERATORS["scale"].bake(llama).to(torch.bfloat16)
    assert next(network.parameters()).dtype == torch.bfloat16 and llama.dtype == torch.float32
    assert torch.equal(logits(llama.module, batch), own)
    assert error(logits(network, batch), live(llama, OPERATORS["scale"], batch)) < 0.15


def test_the_edit_is_in_the_state_dict(llama: op.Model, prompts: list[str]) -> None:
    batch = llama.encode(prompts)
    one, other = OPERATORS["scale"].bake(llama), edits.scale(OUT, torch.ones(32)).bake(llama)
    assert error(logits(other, batch), logits(one, batch)) > 1e-3
    new = set(one.state_dict()) - set(llama.module.state_dict())
    assert len(new) == 1 and "layers.1.optrode" in next(iter(new))
    other.load_state_dict({**other.state_dict(), **{name: one.state_dict()[name] for name in new}})
    assert torch.equal(logits(other, batch), logits(one, batch))


def test_baking_while_an_edit_is_active_bakes_that_one_only_where_asked(llama: op.Model) -> None:
    batch = llama.encode("The cat")
    wanted = live(llama, OPERATORS["scale"], batch)
    with llama.edited(OPERATORS["clamp"] + ALGEBRA["inside"]):
        network = OPERATORS["scale"].bake(llama)
        llama.read(batch, "logits")
        assert error(logits(network, batch), wanted) < 2e-6
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_running_statistics_are_each_ones_own() -> None:
    host = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    other = twin(host).train()
    before = host[1].running_mean.clone()
    other(torch.randn(2, 3, 8, 8) + 5)
    assert torch.equal(host[1].running_mean, before) and not torch.equal(other[1].running_mean, before)
    assert other[0].weight.data_ptr() == host[0].weight.data_ptr()


# Folding --------------------------------------------------------------------------------------------------------------


def folded(network: nn.Module) -> list[str]:
    return [line.split(":")[0] for line in explain(network).splitlines() if "in the bias of" in line]


def test_what_can_be_a_bias_is_one(llama: op.Model, prompts: list[str]) -> None:
    batch = llama.encode(prompts)
    sites = ["layers.1.out", "layers.1.mid", "layers.0.mlp.out", "layers.2.attn.out", "layers.1.attn.q", "logits"]
    parts = [
        edits.add(site, torch.randn(375, generator=RANDOM) if site == "logits" else V)
        for site in sites
        if "attn.q" not in site
    ]
    parts.append(edits.add("layers.1.attn.q", SMALL, heads=(2,)))
    edit = sum(parts[1:], parts[0])
    if llama.read("a", "logits")["logits"].shape[-1] != 375:
        pytest.fail("the tokenizer of the tests has another size")
    network = edit.bake(llama)
    assert sorted(folded(network)) == sorted(sites)
    assert not [name for name in network.state_dict() if "optrode" in name]
    assert type(network.model.layers[1]) is type(llama.module.model.layers[1])
    assert error(logits(network, batch), live(llama, edit, batch)) < 2e-6


@pytest.mark.parametrize(
    "edit",
    [
        OPERATORS["add"] + edits.scale("layers.1.mlp.out", 0.5),
        OPERATORS["add"] + edits.scale("module:model.layers.1.mlp.down_proj", 0.5),
        OPERATORS["add"] + edits.clamp("module:model.layers.1", -1.0, 1.0),
        edits.add("layers.1.mid", V) + edits.clamp("layers.1.attn.out", -0.1, 0.1),
        OPERATORS["add"] + edits.add(OUT, V, "last_prompt"),
    ],
    ids=["the part is edited", "the layer is edited", "the block is edited", "a sum over its part", "some positions"],
)  # fmt: skip
def test_no_bias_where_another_edit_would_see_it(edit: edits.Edit, llama: op.Model, prompts: list[str]) -> None:
    batch, network = llama.encode(prompts), edit.bake(llama)
    assert not folded(network)
    assert error(logits(network, batch), live(llama, edit, batch)) < 2e-6


def test_no_bias_before_dropout(gpt2: op.Model) -> None:
    """The default GPT-2 drops what its projections give, in training; a vector that is added afterwards stays whole."""
    assert not folded(edits.add("layers.1.mlp.out", V).bake(gpt2))
    assert folded(edits.add("layers.1.attn.in", V).bake(gpt2)) == ["layers.1.attn.in"]


def test_a_norm_after_the_sum_keeps_the_vector_out_of_the_bias(tokenizer: Any) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(vocab_size=len(tokenizer), hidden_dropout_prob=0.0, pad_token_id=0, **shape)
    model = op.load(BertModel(config).eval(), tokenizer=tokenizer)
    edit = edits.add("layers.0.out", V) + edits.add("layers.1.mlp.out", W)
    network = edit.bake(model)
    # The stream is what its norm gives, whose own bias takes the vector.
    assert "layers.0.out: add x 1 at all: in the bias of encoder.layer.0.output.LayerNorm" in explain(network)
    assert "encoder.layer.1.output.dense" in explain(network)
    batch = model.encode(["The cat", "Where does the tower stand?"])
    arguments = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
    with torch.no_grad(), model.edited(edit):
        wanted = model.module(**arguments).last_hidden_state
    with torch.no_grad():
        got = network(**arguments).last_hidden_state
    assert error(got[batch.mask], wanted[batch.mask]) < 2e-6


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_folded_network_is_a_plain_checkpoint(name: str, request: Any, tmp_path: Any, prompts: list[str]) -> None:
    model = request.getfixturevalue(name)
    edit, batch = OPERATORS["add"] + edits.add("layers.0.mid", W), model.encode(prompts)
    network = edit.fold(model)
    assert type(network) is type(model.module) and not is_baked(network)
    network.save_pretrained(tmp_path)
    loaded = type(model.module).from_pretrained(tmp_path).eval()
    assert error(logits(loaded, batch), live(model, edit, batch)) < 2e-6
    assert written(loaded, batch) == written_live(model, edit, batch)
    if name == "llama":
        assert loaded.config.mlp_bias and loaded.config.attention_bias and not model.config.mlp_bias


def test_what_cannot_be_folded_is_refused(llama: op.Model, qwen3: op.Model) -> None:
    for edit in (OPERATORS["scale"], edits.add(OUT, V, "generated"), edits.add("embed", V), ALGEBRA["sum"]):
        with pytest.raises(NotSupported, match=r"cannot be folded.*edit\.bake"):
            edit.fold(llama)
    with pytest.raises(NotSupported, match=r"has no model\.layers\.1\.mlp\.down_proj\.bias by its config"):
        OPERATORS["add"].fold(qwen3)


# Positions ------------------------------------------------------------------------------------------------------------

POSITIONS = ("all", "prompt", "generated", "last_prompt", "after_instruction", "first:3", "index:0,2,-1")


@pytest.mark.parametrize("positions", POSITIONS)
def test_positions_are_those_of_the_live_edit(positions: str, model: op.Model, prompts: list[str]) -> None:
    batch = model.encode(prompts)
    edit = edits.add(OUT, 8 * V, positions) + edits.scale("layers.0.attn.heads", 0.2, positions, heads=(1,))
    network = edit.bake(model)
    assert error(logits(network, batch), live(model, edit, batch)) < 2e-6
    wanted = written_live(model, edit, batch)
    assert written(network, batch) == wanted
    if positions != "last_prompt":
        assert wanted != written(model.module, batch)


def test_a_prompt_of_one_token_is_a_prompt(model: op.Model) -> None:
    batch = model.encode(["a", "The"], template="raw")
    assert batch.width == 1
    for positions in ("prompt", "generated", "last_prompt"):
        edit = edits.add(OUT, 8 * V, positions)
        assert written(edit.bake(model), batch) == written_live(model, edit, batch), positions


def test_a_forced_opening_belongs_to_the_answer(llama: op.Model) -> None:
    talk = [
        {"role": "user", "content": "The cat"}, {"role": "assistant", "content": "sat"},
        {"role": "user", "content": "the dog"}, {"role": "assistant", "content": "Sure, here"},
    ]  # fmt: skip
    batch = llama.encode([talk, "The cat"])
    edit = edits.add(OUT, 8 * V, "after_instruction")
    network = edit.bake(llama)
    assert error(logits(network, batch), live(llama, edit, batch)) < 2e-6
    raw = llama.encode("no template here", template="raw")
    assert torch.equal(logits(network, raw), logits(llama.module, raw))


def test_running_numbers(llama: op.Model, prompts: list[str]) -> None:
    batch = llama.encode(prompts)
    vectors = torch.randn(40, 32, generator=RANDOM)
    for positions in ("all", "first:3", "last_prompt", "prompt"):
        edit = edits.add_by_position(OUT, vectors, positions)
        assert error(logits(edit.bake(llama), batch), live(llama, edit, batch)) < 2e-6, positions
        assert written(edit.bake(llama), batch) == written_live(llama, edit, batch), positions


def test_keys(model: op.Model, prompts: list[str]) -> None:
    edit = edits.knockout("layers.*.attn.scores", "first:2", "generated", heads=(0, 1)) + edits.scale(
        "layers.1.attn.pattern", 0.3, "last_prompt", keys=Positions("first:1")
    )
    batch, network = model.encode(prompts), edit.bake(model)
    assert error(logits(network, batch), live(model, edit, batch)) < 2e-6
    assert written(network, batch) == written_live(model, edit, batch)


def test_a_static_cache(llama: op.Model, prompts: list[str]) -> None:
    batch = llama.encode(prompts)
    for positions in ("all", "generated", "prompt"):
        edit = edits.scale(OUT, 3 * W, positions)
        got = written(edit.bake(llama), batch, cache_implementation="static", disable_compile=True)
        assert got == written_live(llama, edit, batch), positions
    with pytest.raises(NotSupported, match="cache of fixed length"):
        written(
            edits.add(OUT, V, "last_prompt").bake(llama), batch, cache_implementation="static", disable_compile=True
        )


def test_beams_are_the_networks_own_business(llama: op.Model, prompts: list[str]) -> None:
    batch, edit = llama.encode(prompts), edits.add(OUT, 3 * V)
    by_hand = copy.deepcopy(llama.module)
    by_hand.model.layers[1].register_forward_hook(lambda _, args, out: out + 3 * V)
    assert written(edit.bake(llama), batch, num_beams=2) == written(by_hand, batch, num_beams=2)


@pytest.mark.parametrize(
    "edit",
    [
        edits.add(OUT, V, "user"), edits.add(OUT, V, "content"), edits.add(OUT, V, "span:cat"),
        edits.add(OUT, V, "first:2@user"), edits.add(OUT, V, "generated:0-3"),
        edits.add_by_position(OUT, V[None], "generated"), edits.function(OUT, lambda rows: rows),
        edits.prompt("Be kind."), edits.knockout("layers.1.attn.scores", "user"),
        edits.add("layers.1.attn.k_rotated", SMALL, "last_prompt"),
    ],
)  # fmt: skip
def test_what_no_network_can_know_is_refused(edit: edits.Edit, llama: op.Model) -> None:
    with pytest.raises(NotSupported, match=r"baked|cannot be decided"):
        edit.bake(llama)


def test_ways_to_write_that_hide_the_positions_are_refused(llama: op.Model) -> None:
    batch = llama.encode("The cat")
    network = edits.add(OUT, V, "generated").bake(llama)
    for options in ({"use_cache": False}, {"prefill_chunk_size": 2}, {"prompt_lookup_num_tokens": 2}):
        with pytest.raises(NotSupported, match="cannot tell them"):
            written(network, batch, **options)
        assert written(OPERATORS["add"].bake(llama), batch, **options)
    with pytest.raises(NotSupported, match="input_ids or inputs_embeds"):
        network.model(None)


def test_experts_are_refused_and_what_is_around_them_is_not(make_mixture: Any, prompts: list[str]) -> None:
    model = make_mixture("mixtral")
    for site in ("layers.1.mlp.router", "layers.1.mlp.experts.out", "layers.1.mlp.experts.hidden"):
        with pytest.raises(NotSupported, match="single experts"):
            edits.scale(site, 0.5).bake(model)
    batch, edit = model.encode(prompts), edits.scale("layers.1.mlp.out", 0.5) + edits.add(OUT, V)
    assert error(logits(edit.bake(model), batch), live(model, edit, batch)) < 3e-6


# Other errors, other networks -----------------------------------------------------------------------------------------


def test_errors_of_a_live_edit_are_errors_here(llama: op.Model, smaller: op.Model) -> None:
    with pytest.raises(UnknownSite):
        edits.add("layers.9.out", V).bake(llama)
    with pytest.raises(WrongShape):
        edits.add(OUT, V[:3]).bake(llama)
    with pytest.raises(WrongShape):
        edits.add("layers.1.mlp.hidden", V).bake(llama)
    with pytest.raises(NotFinite):
        edits.scale(OUT, 1e38).bake(llama)
    with pytest.raises(NotSupported, match="already"):
        OPERATORS["add"].bake(op.load(OPERATORS["scale"].bake(llama)))
    with pytest.raises(NotSupported, match=r"edit\.save"):
        OPERATORS["scale"].bake(llama).save_pretrained("nowhere")  # type: ignore[operator]
    with pytest.raises(NotSupported, match="holds no baked edit"):
        explain(llama.module)


@pytest.fixture
def smaller() -> op.Model:
    return op.load(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))


def test_a_module_of_ones_own(smaller: op.Model) -> None:
    x = torch.randn(5, 4)
    for site in ("module:0", "module:1", "module:1:in"):
        edit = edits.affine(site, torch.rand(3), torch.rand(3))
        with smaller.edited(edit):
            wanted = smaller.module(x)
        assert torch.equal(edit.bake(smaller)(x), wanted), site


def test_pictures_with_channels_first() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), nn.Conv2d(6, 4, 3))
    model, x = op.load(network, layout=None), torch.randn(2, 3, 9, 9)
    # A raw site has the module's own axes: here the last one is a column of the picture.
    for edit in (edits.scale("module:0", 0.5), edits.clamp("module:0:in", 0.0, 1.0), edits.scale("module:1", 2.0)):
        with model.edited(edit):
            wanted = model.module(x)
        assert torch.equal(edit.bake(model)(x), wanted)


def test_a_baked_network_is_loaded_read_and_edited_like_any(llama: op.Model, prompts: list[str]) -> None:
    network = OPERATORS["scale"].bake(llama)
    model = op.load(network, tokenizer=llama.tokenizer)
    assert "baked" in model.unmapped and model.layout is llama.layout
    with llama.edited(OPERATORS["scale"]):
        wanted, text = llama.read(prompts, [OUT, "layers.2.out"]), llama.generate(prompts, **LONG)
    got = model.read(prompts, [OUT, "layers.2.out"])
    assert all(error(got[site], wanted[site]) < 2e-6 for site in got)
    assert model.generate(prompts, **LONG) == text
    both = ALGEBRA["inside"]
    with llama.edited(OPERATORS["scale"], both):
        wanted = llama.read(prompts, "logits")
    with model.edited(both):
        assert error(model.read(prompts, "logits")["logits"], wanted["logits"]) < 2e-6


def test_gradients_are_those_of_the_live_edit(llama: op.Model) -> None:
    batch = llama.encode("The cat sat")
    edit = ALGEBRA["sum"] + edits.scale("layers.1.mid", 1.5)
    network = edit.bake(llama)

    def gradient(run: Any) -> Tensor:
        embedded = llama.module.get_input_embeddings()(batch.ids).detach().requires_grad_()
        run(inputs_embeds=embedded).logits[0, -1, 7].backward()
        llama.module.zero_grad()
        return embedded.grad

    got = gradient(network)
    with llama.edited(edit):
        assert error(got, gradient(llama.module)) < 1e-5
    assert error(got, gradient(llama.module)) > 1e-3


def test_threads_do_not_meet(llama: op.Model) -> None:
    """Positions and block inputs go from module to module, each thread's own."""
    network = (edits.add(OUT, 8 * V, "last_prompt") + edits.scale("layers.*.mid", 1.3, "prompt")).bake(llama)
    batches = [llama.encode(text) for text in ("The cat", "Where does the Eiffel Tower stand, and what is it?")]
    wanted = [logits(network, batch) for batch in batches]
    wrong: list[float] = []

    def work(number: int) -> None:
        for _ in range(20):
            wrong.append(error(logits(network, batches[number]), wanted[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(wrong) == 80 and max(wrong) < 2e-6


def test_the_sum_of_what_was_baked_is_told(llama: op.Model) -> None:
    network = (edits.add(OUT, V) * 2 + edits.scale("layers.2.mid", 0.5, "generated")).bake(llama)
    first, second, last = network.explain().splitlines()  # type: ignore[operator]
    assert first == "layers.1.out: add x 2 at all: in the bias of model.layers.1.mlp.down_proj"
    assert second == "layers.2.mid: scale x 1 at generated: a module at the output of model.layers.2.self_attn"
    assert last.startswith("differs from the live edit by ")
    assert "(sum)" in repr(network) and "scale, factor" in repr(network)
