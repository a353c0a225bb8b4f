"""Reductions on the fly equal the same reduction of what is read whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import optrode as op
from optrode.engine.reading.reductions import reduction
from optrode.errors import BadInput, NotSupported, WrongShape

SITES = ["layers.0.out", "layers.1.attn.heads", "layers.2.mlp.hidden", "logits"]

# Of the selected tokens of one example, [token, ...], written down a second time.
SLOW: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda rows: (
        torch.stack([rows[:, i].sum(0) for i in range(rows.shape[1])]) / len(rows)
        if rows.dim() == 2
        else torch.stack([SLOW["mean"](rows[:, i]) for i in range(rows.shape[1])])
    ),
    "max": lambda rows: rows.sort(0).values[-1],
    "min": lambda rows: rows.sort(0).values[0],
    "norm": lambda rows: (rows**2).sum(0).sqrt(),
    "last": lambda rows: rows[-1],
}


@pytest.mark.parametrize("tokens", [16, 10_000])
@pytest.mark.parametrize("positions", [None, "user", "content", "first:3", "index:0,-1"])
@pytest.mark.parametrize("name", SLOW)
def test_over_tokens(name: str, positions, tokens: int, model: op.Model, prompts: list[str]):
    whole = model.read(prompts, SITES)
    acts = model.read(prompts, SITES, reduce=name, positions=positions, tokens_per_forward=tokens)
    mask = op.Positions(positions or "all").in_prompt(whole.batch)
    for site, value in whole.items():
        slow = torch.stack([SLOW[name](row[chosen]) for row, chosen in zip(value, mask, strict=True)])
        torch.testing.assert_close(acts[site], slow, rtol=1e-4, atol=1e-4)
        assert acts.axes[site] == ("example", *whole.axes[site][2:])
    assert acts.places is None and acts.rows("layers.0.out").shape == (3, 32)


@pytest.mark.parametrize("positions", [None, "content", "last_prompt"])
@pytest.mark.parametrize("name", ["mean", "max", "min", "norm"])
def test_over_features(name: str, positions, model: op.Model, prompts: list[str]):
    whole = model.read(prompts, SITES, positions=positions)
    acts = model.read(prompts, SITES, positions=positions, reduce=f"{name}@feature")
    for site, value in whole.items():
        slow = {"mean": value.mean(-1), "max": value.max(-1)[0], "min": value.min(-1)[0], "norm": value.norm(dim=-1)}
        torch.testing.assert_close(acts[site], slow[name], rtol=1e-5, atol=1e-5)
        assert acts.axes[site] == whole.axes[site][:-1]
    if positions is not None:
        assert torch.equal(acts.places, whole.places)
    assert acts.rows("layers.0.out").shape[1] == 1


def test_a_function_of_ones_own(llama: op.Model, prompts: list[str]):
    seen: list[tuple] = []

    def third(value: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is not None
        seen.append((tuple(value.shape[:2]), tuple(mask.shape), int(mask.sum())))
        return (value * mask[..., None]).sum(1)[:, ::3].double()

    acts = llama.read(prompts, "layers.0.out", reduce=third, positions="user", tokens_per_forward=16)
    batch = llama.encode(prompts)
    assert len(seen) == 3 and all(shape == mask for shape, mask, _ in seen)
    assert sum(count for _, _, count in seen) == int(op.Positions("user").in_prompt(batch).sum())
    assert acts["layers.0.out"].shape == (3, 11) and acts["layers.0.out"].dtype == torch.float64
    planned = op.plan(llama, prompts, "layers.0.out", reduce=third, positions="user")
    assert planned.nbytes == acts.nbytes and "third" in planned.reduction
    half = llama.read(prompts, "layers.0.out", reduce=third, dtype=torch.float16)
    assert half["layers.0.out"].dtype == torch.float16
    with pytest.raises(NotSupported, match="depends on the number of tokens"):
        op.plan(llama, prompts, "layers.0.out", reduce=lambda value, mask: value)
    with pytest.raises(WrongShape, match="first axis is the 3 examples"):
        llama.read(prompts, "layers.0.out", reduce=lambda value, mask: value.sum())


def test_half_precision_is_summed_in_single(make_model, prompts: list[str]):
    model = make_model("llama", torch.bfloat16)
    whole, acts = model.read(prompts, "layers.2.out"), model.read(prompts, "layers.2.out", reduce="mean")
    mask = whole.batch.mask
    slow = torch.stack([row[keep].double().mean(0) for row, keep in zip(whole["layers.2.out"], mask, strict=True)])
    assert acts["layers.2.out"].dtype == torch.bfloat16
    assert torch.equal(acts["layers.2.out"], slow.float().to(torch.bfloat16))


def test_bare_tensors_pictures_and_pooled_vectors(llama: op.Model):
    ids = llama.encode("The cat sat").ids
    whole = llama.read(ids, "layers.1.out")["layers.1.out"]
    assert torch.allclose(llama.read(ids, "layers.1.out", reduce="mean")["layers.1.out"], whole.mean(1), atol=1e-6)
    net = op.load(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(
        net.read(images, "module:2", reduce="mean")["module:2"], net.read(images, "module:2")["module:2"]
    )
    with pytest.raises(NotSupported, match="axes without names"):
        net.read(images, "module:0", reduce="mean")
    pooled = net.read(images, "module:0", reduce=lambda value, mask: value.mean((2, 3)))["module:0"]
    assert pooled.shape == (2, 4)


def test_logits_of_the_last_token_alone(llama: op.Model, prompts: list[str]):
    """`last` asks for the logits of one token in each row, as `positions="last_prompt"` does."""
    sizes: list[int] = []
    handle = llama.module.lm_head.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
    try:
        acts = llama.read(prompts, "logits", reduce="last")
    finally:
        handle.remove()
    assert sizes == [1] and acts.axes["logits"] == ("example", "feature")
    assert torch.equal(acts["logits"], llama.read(prompts, "logits", positions="last_prompt")["logits"])


@pytest.mark.parametrize("reduce", ["men", "mean@token", "last@feature", ""])
def test_an_unknown_name(reduce: str, llama: op.Model):
    with pytest.raises(BadInput, match="did you mean"):
        llama.read("a", "layers.0.out", reduce=reduce)


def test_what_has_no_answer_is_refused(llama: op.Model, make_mixture):
    with pytest.raises(NotSupported, match="grad=True"):
        llama.read("a", "layers.0.out", reduce="mean", grad=True)
    with pytest.raises(BadInput, match="no token of prompt 1"):
        llama.read(
            ["a cat", [{"role": "assistant", "content": "a dog"}]], "layers.0.out", reduce="mean", positions="user"
        )
    mixture = make_mixture("mixtral")
    for act in (op.plan, op.read):
        with pytest.raises(NotSupported, match="needs measurements"):
            act(mixture, "a", "layers.0.mlp.chosen", reduce="max")


def test_texts_say_what_is_kept():
    assert reduction(None) is None
    assert reduction("max").says == "max over the selected tokens, for each example"
    assert reduction("norm@feature").says == "norm over the last axis, for each token"
