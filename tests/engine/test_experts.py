"""Experts: what is read is what a literal loop gives, what is written does what it does by hand, and nothing stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import optrode as op
from optrode import edits
from optrode.activations import unrouted
from optrode.engine.experts import rerun
from optrode.errors import EditDidNothing, NotSupported, WrongShape

MLP = "layers.1.mlp"
V = torch.randn(32, generator=torch.Generator().manual_seed(3))


def literal(module: nn.Module, number: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden layer and output of one expert for rows [row, width], written down for each architecture."""
    if type(module).__name__ == "GptOssExperts":
        both = x @ module.gate_up_proj[number] + module.gate_up_proj_bias[number]
        gate, up = both[:, ::2].clamp(max=module.limit), both[:, 1::2].clamp(-module.limit, module.limit)
        hidden = gate * torch.sigmoid(module.alpha * gate) * (up + 1)
        return hidden, hidden @ module.down_proj[number] + module.down_proj_bias[number]
    gate, up = F.linear(x, module.gate_up_proj[number]).chunk(2, -1)
    hidden = F.silu(gate) * up
    return hidden, F.linear(hidden, module.down_proj[number])


def by_hand(model: op.Model, acts: op.Activations, out: Tensor | None = None) -> Tensor:
    """The MLP's output [example, token, feature] from weights and outputs of experts, with loops."""
    weights, each = acts[f"{MLP}.weights"], acts[f"{MLP}.experts.out"] if out is None else out
    total = torch.zeros_like(acts[f"{MLP}.out"])
    for rank in range(weights.shape[-1]):
        total += weights[..., rank, None] * each[..., rank, :]
    return total + acts[f"{MLP}.shared.out"] if f"{MLP}.shared.out" in acts else total


@pytest.fixture
def acts(mixture: op.Model, prompts: list[str]) -> op.Activations:
    return mixture.read(prompts, [f"{MLP}.*", f"{MLP}.experts.*", *_shared(mixture)])


def _shared(model: op.Model) -> list[str]:
    return [site for site in model.table if site == f"{MLP}.shared.out"]


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


# Reading --------------------------------------------------------------------------------------------------------------


def test_each_expert_is_what_a_literal_loop_gives(mixture: op.Model, acts: op.Activations) -> None:
    assert acts.axes[f"{MLP}.experts.hidden"] == ("example", "token", "rank", "feature")
    assert acts.axes[f"{MLP}.router"] == ("example", "token", "expert") and acts[f"{MLP}.router"].shape[-1] == 8
    module: Any = mixture.blocks[1].mlp
    for row, token in acts.batch.mask.nonzero().tolist():
        for rank in range(2):
            number = int(acts[f"{MLP}.chosen"][row, token, rank])
            hidden, out = literal(module.experts, number, acts[f"{MLP}.in"][row, token, None])
            close(acts[f"{MLP}.experts.hidden"][row, token, rank], hidden[0].detach())
            close(acts[f"{MLP}.experts.out"][row, token, rank], out[0].detach())


def test_the_weighted_sum_of_experts_is_the_mlp(mixture: op.Model, acts: op.Activations) -> None:
    mask = acts.batch.mask
    close(by_hand(mixture, acts)[mask], acts[f"{MLP}.out"][mask])


def test_positions_and_chunks_give_the_same(mixture: op.Model, acts: op.Activations, prompts: list[str]) -> None:
    sites = [f"{MLP}.experts.out", f"{MLP}.chosen"]
    last = mixture.read(prompts, sites, positions="last_prompt")
    assert last.axes[sites[0]] == ("example", "rank", "feature")
    close(last[sites[0]], acts[sites[0]][:, -1])
    parts = mixture.read(prompts, sites, tokens_per_forward=8)
    mask = acts.batch.mask
    close(parts[sites[0]][mask], acts[sites[0]][mask])
    assert torch.equal(parts[sites[1]][mask], acts[sites[1]][mask])
    assert torch.equal(parts.tokens_by_expert[MLP], acts.tokens_by_expert[MLP])


def test_experts_without_tokens_are_named(mixture: op.Model, acts: op.Activations) -> None:
    chosen = acts[f"{MLP}.chosen"][acts.batch.mask]
    counts = torch.bincount(chosen.flatten(), minlength=8)
    assert torch.equal(acts.tokens_by_expert[MLP], counts)
    few = mixture.read("The", f"{MLP}.chosen", template="raw")
    used = set(few[f"{MLP}.chosen"].flatten().tolist())
    assert 0 < len(used) < 8
    idle = ", ".join(str(expert) for expert in range(8) if expert not in used)
    assert few.notes == [f"{MLP}: experts {idle} got no token"] and few.notes[0] in repr(few)
    assert unrouted({"layers.0.mlp": torch.ones(4, dtype=torch.long)}) == []


def test_a_read_stops_after_the_experts(mixture: op.Model, prompts: list[str]) -> None:
    found = mixture.read(prompts, f"{MLP}.experts.hidden")
    assert (found.layers_run, found.layers_skipped) == (2, 1)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_flow_through_what_was_read(mixture: op.Model, prompts: list[str], frozen: bool) -> None:
    """With numbers that are the host's to the bit, and a slope that a step along the gradient confirms."""
    sites = [f"{MLP}.router", f"{MLP}.weights", f"{MLP}.experts.hidden", f"{MLP}.experts.out"]
    plain = mixture.read(prompts, "layers.2.out")["layers.2.out"]
    mixture.module.requires_grad_(not frozen)
    try:
        acts = mixture.read(prompts, [*sites, "layers.2.out"], grad=True)
        assert torch.equal(acts["layers.2.out"], plain)
        grads = acts.gradients(acts["layers.2.out"][0, -1].sum())
        for site in sites:
            gradient = grads[site][0, -1]
            assert float(gradient.norm()) > 0, site
            step = 1e-2 * gradient / gradient.norm()
            shift = lambda h, step=step: h + step  # noqa: E731
            with mixture.edited(edits.function(site, shift, "last_prompt")):
                moved = mixture.read(prompts, "layers.2.out")["layers.2.out"][0, -1].sum()
            wanted = 1e-2 * float(gradient.norm())
            assert abs(float(moved - plain[0, -1].sum()) - wanted) < 0.2 * wanted + 1e-5, site
    finally:
        mixture.module.requires_grad_(True)


def test_numbers_of_experts_stay_whole_numbers(mixture: op.Model, prompts: list[str]) -> None:
    acts = mixture.read(prompts, [f"{MLP}.chosen", f"{MLP}.weights"], dtype=torch.float16)
    assert (acts[f"{MLP}.chosen"].dtype, acts[f"{MLP}.weights"].dtype) == (torch.int64, torch.float16)


# Writing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["hidden", "out"])
def test_one_expert_is_ablated_for_the_tokens_that_chose_it(
    mixture: op.Model, acts: op.Activations, prompts: list[str], part: str
) -> None:
    mask, chosen = acts.batch.mask, acts[f"{MLP}.chosen"]
    number = int(acts.tokens_by_expert[MLP].argmax())
    with mixture.edited(edits.zero_ablate(f"{MLP}.experts.{part}", experts=(number,))) as receipt:
        got = mixture.read(prompts, f"{MLP}.out")[f"{MLP}.out"]
    bias = getattr(mixture.blocks[1].mlp.experts, "down_proj_bias", None)
    left = torch.zeros(32) if bias is None or part == "out" else bias[number].detach()
    out = torch.where((chosen == number)[..., None], left, acts[f"{MLP}.experts.out"])
    close(got[mask], by_hand(mixture, acts, out)[mask])
    others = mask & ~(chosen == number).any(-1)
    assert bool(others.any())
    assert torch.equal(got[others], acts[f"{MLP}.out"][others]), "tokens of other experts keep every bit"
    pairs = int((chosen[mask] == number).sum())
    assert receipt.sites[f"{MLP}.experts.{part}"].changed >= pairs == int(receipt.tokens_by_expert[MLP][number])


def test_a_vector_at_some_features_of_some_experts_at_some_tokens(
    mixture: op.Model, acts: op.Activations, prompts: list[str]
) -> None:
    chosen, numbers = acts[f"{MLP}.chosen"], tuple(acts[f"{MLP}.chosen"][:, -1].unique().tolist()[:2])
    edit = edits.add(f"{MLP}.experts.out", [1.0, -2.0], "last_prompt", experts=numbers, features=(3, 5)) * 0.5
    with mixture.edited(edit):
        got = mixture.read(prompts, [f"{MLP}.experts.out", f"{MLP}.out"])
    out = acts[f"{MLP}.experts.out"].clone()
    for row in range(len(prompts)):
        for rank in range(2):
            if int(chosen[row, -1, rank]) in numbers:
                out[row, -1, rank, 3] += 0.5
                out[row, -1, rank, 5] -= 1.0
    mask = acts.batch.mask
    close(got[f"{MLP}.experts.out"][mask], out[mask])
    close(got[f"{MLP}.out"][mask], by_hand(mixture, acts, out)[mask])


@pytest.mark.parametrize("site", [f"{MLP}.experts.out", "layers.1.attn.out"])
def test_one_vector_for_each_position(mixture: op.Model, prompts: list[str], site: str) -> None:
    """Also where as many positions are selected as there are ranks, so that shapes alone would not tell."""
    vectors = torch.stack([V, -2 * V])
    plain = mixture.read(prompts[1], site, positions="index:0,1", template="raw")[site]
    with mixture.edited(edits.add_by_position(site, vectors, "index:0,1")):
        got = mixture.read(prompts[1], site, positions="index:0,1", template="raw")[site]
    wanted = plain + (vectors[:, None] if plain.dim() == 3 else vectors)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_weights_of_one_expert(mixture: op.Model, acts: op.Activations, prompts: list[str]) -> None:
    number = int(acts.tokens_by_expert[MLP].argmax())
    with mixture.edited(edits.scale(f"{MLP}.weights", 3.0, experts=(number,))):
        got = mixture.read(prompts, f"{MLP}.weights")[f"{MLP}.weights"]
    wanted = torch.where(acts[f"{MLP}.chosen"] == number, 3 * acts[f"{MLP}.weights"], acts[f"{MLP}.weights"])
    close(got[acts.batch.mask], wanted[acts.batch.mask])


def test_router_edits_force_and_forbid_experts(mixture: op.Model, acts: op.Activations, prompts: list[str]) -> None:
    mask, busy = acts.batch.mask, int(acts.tokens_by_expert[MLP].argmax())
    with mixture.edited(edits.add(f"{MLP}.router", -1e4, experts=(busy,))) as receipt:
        got = mixture.read(prompts, [f"{MLP}.chosen", f"{MLP}.weights"])
    weight = got[f"{MLP}.weights"][mask] * (got[f"{MLP}.chosen"][mask] == busy)
    assert float(weight.abs().max()) < 1e-6
    if mixture.layout.name != "deepseek_v3":  # there the bias for balance may still choose it, with weight 0
        assert int(receipt.tokens_by_expert[MLP][busy]) == 0
        assert receipt.notes and f"{busy}" in receipt.notes[0]
    idle = int(acts.tokens_by_expert[MLP].argmin())
    with mixture.edited(edits.add(f"{MLP}.router", 1e4, "last_prompt", experts=(idle,))):
        forced = mixture.read(prompts, f"{MLP}.chosen")[f"{MLP}.chosen"]
    if mixture.layout.name != "deepseek_v3":  # there its group has to win first
        assert bool((forced[:, -1] == idle).any(-1).all())
    others = mask.clone()
    others[:, -1] = False
    assert torch.equal(forced[others], acts[f"{MLP}.chosen"][others])


def test_a_router_edit_is_the_networks_own_choice_from_other_scores(
    mixture: op.Model, acts: op.Activations, prompts: list[str], rewritten: Any
) -> None:
    """By hand: the weights and numbers that the router gives when its matrix is moved by the same vector."""
    shift = torch.linspace(-2, 2, 8)
    router: Any = mixture.submodule(mixture.table[f"{MLP}.router"].module)
    x = acts[f"{MLP}.in"].flatten(0, 1)
    with torch.no_grad():
        scores = F.linear(x.to(router.weight.dtype), router.weight, getattr(router, "bias", None)) + shift
    with mixture.edited(edits.add(f"{MLP}.router", shift)):
        got = mixture.read(prompts, [f"{MLP}.router", f"{MLP}.chosen"])
    mask = acts.batch.mask
    close(got[f"{MLP}.router"][mask], scores.unflatten(0, mask.shape)[mask])
    if mixture.layout.name != "deepseek_v3":
        wanted = scores.topk(2).indices.unflatten(0, mask.shape)
        assert torch.equal(got[f"{MLP}.chosen"][mask], wanted[mask])


def test_router_and_weights_in_one_edit_and_in_two(mixture: op.Model, prompts: list[str]) -> None:
    """The choice comes first, whatever the order they are given in."""
    route, weigh = edits.add(f"{MLP}.router", 3.0, experts=(2,)), edits.scale(f"{MLP}.weights", 0.5)
    found = []
    for given in ([route + weigh], [route, weigh], [weigh, route]):
        with mixture.edited(*given):
            found.append(mixture.read(prompts, f"{MLP}.out")[f"{MLP}.out"])
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_two_edits_of_hidden_and_out_follow_each_other(mixture: op.Model, acts: op.Activations, prompts: list[str]):
    first, second = edits.scale(f"{MLP}.experts.hidden", 2.0), edits.add(f"{MLP}.experts.out", V)
    with mixture.edited(second), mixture.edited(first):
        got = mixture.read(prompts, f"{MLP}.experts.out")[f"{MLP}.experts.out"]
    module, mask = mixture.blocks[1].mlp.experts, acts.batch.mask
    for row, token in mask.nonzero().tolist()[::5]:
        number = int(acts[f"{MLP}.chosen"][row, token, 0])
        hidden = 2 * acts[f"{MLP}.experts.hidden"][row, token, 0]
        if type(module).__name__ == "GptOssExperts":
            wanted = hidden @ module.down_proj[number] + module.down_proj_bias[number] + V
        else:
            wanted = module.down_proj[number] @ hidden + V
        close(got[row, token, 0], wanted.detach())


def test_generation_with_a_cache_equals_full_forwards(mixture: op.Model, prompts: list[str]) -> None:
    edit = edits.zero_ablate("layers.*.mlp.experts.out", "generated", experts=(0, 1, 2)) + edits.add(
        "layers.1.mlp.router", 2.0, "prompt", experts=(5,)
    )
    plain = mixture.completions(prompts, max_new_tokens=6)
    with mixture.edited(edit) as receipt:
        cached = mixture.completions(prompts, max_new_tokens=6)
    with mixture.edited(edit):
        full = mixture.completions(prompts, max_new_tokens=6, use_cache=False)
    assert [one.ids for one in cached] == [one.ids for one in full]
    assert [one.ids for one in cached] != [one.ids for one in plain]
    assert receipt.sites["layers.1.mlp.experts.out"].decode_calls > 0


def test_a_batched_answer_equals_the_single_one(mixture: op.Model, prompts: list[str]) -> None:
    edit = edits.add("layers.1.mlp.experts.out", V, experts=(0, 3, 6)) >> edits.scale("layers.1.mlp.experts.out", 0.5)
    with mixture.edited(edit):
        together = mixture.read(prompts, "layers.2.out", positions="last_prompt")["layers.2.out"]
        single = [mixture.read(prompt, "layers.2.out", positions="last_prompt")["layers.2.out"] for prompt in prompts]
    torch.testing.assert_close(together, torch.cat(single), rtol=1e-4, atol=1e-4)


def test_an_edit_of_experts_is_saved_and_read_again(mixture: op.Model, prompts: list[str], tmp_path: Any) -> None:
    edit = edits.add(f"{MLP}.experts.out", V, experts=(1, 4))
    loaded = op.load_edit(edit.save(tmp_path / "one.edit"))
    assert loaded.experts == (1, 4)
    with mixture.edited(edit):
        one = mixture.read(prompts, "layers.1.out")["layers.1.out"]
    with mixture.edited(loaded):
        assert torch.equal(mixture.read(prompts, "layers.1.out")["layers.1.out"], one)


# Refusals -------------------------------------------------------------------------------------------------------------


def test_an_edit_of_an_expert_without_tokens_is_an_error(mixture: op.Model, prompts: list[str]) -> None:
    used = mixture.read("The", f"{MLP}.chosen", template="raw")[f"{MLP}.chosen"].flatten().unique().tolist()
    idle = next(expert for expert in range(8) if expert not in used)
    edit = edits.zero_ablate(f"{MLP}.experts.out", experts=(idle,))
    says = rf"no selected token chose expert {idle}; .* experts {used[0]}, .* got"
    with pytest.raises(EditDidNothing, match=says), mixture.edited(edit):
        mixture.read("The", f"{MLP}.out", template="raw")
    # It got tokens, but none that the edit is for.
    chosen = mixture.read(prompts, f"{MLP}.chosen")[f"{MLP}.chosen"]
    elsewhere = next(e for e in range(8) if e in chosen[1] and e not in chosen[:, -1])
    edit = edits.scale(f"{MLP}.weights", 2.0, "last_prompt", experts=(elsewhere,))
    with pytest.raises(EditDidNothing, match="no selected token chose"), mixture.edited(edit):
        mixture.read(prompts, f"{MLP}.out")


def test_what_has_no_meaning_is_refused(mixture: op.Model, llama: op.Model) -> None:
    for edit, error, says in (
        (edits.zero_ablate(f"{MLP}.chosen"), NotSupported, "cannot be written: .*mlp.router"),
        (edits.zero_ablate(f"{MLP}.experts.out", experts=(8,)), WrongShape, "experts 0 to 7"),
        (edits.zero_ablate(f"{MLP}.experts.out", experts=()), WrongShape, "experts 0 to 7"),
        (edits.zero_ablate("layers.1.out", experts=(1,)), WrongShape, "not divided by expert"),
        (edits.zero_ablate(f"{MLP}.router", experts=(1,), features=(2,)), WrongShape, "not both"),
    ):
        with pytest.raises(error, match=says), mixture.edited(edit):
            pass
    router = mixture.table[f"{MLP}.router"].module
    edit, says = edits.scale(f"module:{router}", 2), f"after the choice was made: edit {MLP}.router"
    with pytest.raises(NotSupported, match=says), mixture.edited(edit):
        pass
    edit = edits.scale("layers.1.out", 2, experts=(1,))
    with pytest.raises(WrongShape, match="not divided by expert"), llama.edited(edit):
        pass


def test_experts_that_show_no_weights_are_refused(mixture: op.Model) -> None:
    """As a quantiser leaves them, which runs them by a kernel."""
    module: Any = mixture.blocks[1].mlp.experts
    kept = module.has_gate
    del module.has_gate
    try:
        with pytest.raises(NotSupported, match="does not show its experts' weights"):
            mixture.read("The", f"{MLP}.experts.out")
        assert mixture.read("The", f"{MLP}.chosen") is not None
    finally:
        module.has_gate = kept


def test_a_router_without_a_product_cannot_be_edited() -> None:
    with pytest.raises(NotSupported, match="without a linear product"):
        rerun(nn.Tanh(), (torch.ones(2),), torch.ones(2))
