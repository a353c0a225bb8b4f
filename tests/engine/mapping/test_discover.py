"""Networks that no table knows: mapped right, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optrode as op
from optrode import edits

WIDTH, VOCABULARY = 16, 40


class Attention(nn.Module):
    def __init__(self, causal: bool = True):
        super().__init__()
        self.causal = causal
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.back = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.back(mixed.transpose(1, 2).flatten(-2)), None


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))


class Block(nn.Module):
    """The parts of all blocks below, under names that say nothing."""

    def __init__(self, causal: bool = True):
        super().__init__()
        self.one, self.two = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.alpha, self.beta = Attention(causal), mlp()


class Sequential(Block):
    def forward(self, h: Tensor) -> Tensor:
        h = h + self.alpha(self.one(h))[0]
        return h + self.beta(self.two(h))


class InPlace(Block):
    def forward(self, h: Tensor) -> Tensor:
        h = h.clone()
        h += self.alpha(self.one(h))[0]
        h += self.beta(self.two(h))
        return h


class MlpFirst(Block):
    def forward(self, h: Tensor) -> Tensor:
        h = h + self.beta(self.two(h))
        return h + self.alpha(self.one(h))[0]


class Parallel(Block):
    def forward(self, h: Tensor) -> Tensor:
        return h + self.alpha(self.one(h))[0] + self.beta(self.two(h))


class PostNorm(Block):
    def forward(self, h: Tensor) -> Tensor:
        h = self.one(h + self.alpha(h)[0])
        return self.two(h + self.beta(h))


class NormBetween(Block):
    """Norms on what the parts give, before it is added."""

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.one(self.alpha(h)[0])
        return h + self.two(self.beta(h))


class Mixer(Block):
    """One part only."""

    def forward(self, h: Tensor) -> Tensor:
        return h + self.alpha(self.one(h))[0]


class Hidden(Block):
    """A factor outside of any module: no sum of what modules give is the block's output."""

    def forward(self, h: Tensor) -> Tensor:
        h = h + 0.5 * self.alpha(self.one(h))[0]
        return h + 0.25 * self.beta(self.two(h))


class TwoMlps(Block):
    def __init__(self) -> None:
        super().__init__()
        self.alpha = mlp()

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.alpha(self.one(h))
        return h + self.beta(self.two(h))


class Network(nn.Module):
    def __init__(self, kinds: list[nn.Module]):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.stack = nn.ModuleList(kinds)
        self.answer = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.tokens(ids)
        for block in self.stack:
            h = block(h)
        return self.answer(h)


def network(kind: type[nn.Module], *args: Any) -> Network:
    torch.manual_seed(0)
    return Network([kind(*args) for _ in range(3)]).eval()


EXPECTED: dict[type[nn.Module], tuple[list[str], list[str], dict[str, str]]] = {
    Sequential: (["in", "attn.out", "mid", "mlp.out", "out"], ["mid = in + attn.out", "out = mid + mlp.out"],
                 {"attn.out": "alpha", "mlp.out": "beta", "mid": "two"}),
    InPlace: (["in", "attn.out", "mid", "mlp.out", "out"], ["mid = in + attn.out", "out = mid + mlp.out"],
              {"attn.out": "alpha", "mlp.out": "beta", "mid": "two"}),
    MlpFirst: (["in", "mlp.out", "mid", "attn.out", "out"], ["mid = in + mlp.out", "out = mid + attn.out"],
               {"attn.out": "alpha", "mlp.out": "beta", "mid": "one"}),
    Parallel: (["in", "attn.out", "mlp.out", "out"], ["out = in + attn.out + mlp.out"],
               {"attn.out": "alpha", "mlp.out": "beta"}),
    PostNorm: (["in", "attn.out", "mid", "mlp.out", "out"], ["mid = one(in + attn.out)", "out = two(mid + mlp.out)"],
               {"attn.out": "alpha", "mlp.out": "beta", "mid": "one"}),
    NormBetween: (["in", "attn.out", "mid", "mlp.out", "out"], ["mid = in + attn.out", "out = mid + mlp.out"],
                  {"attn.out": "one", "mlp.out": "two"}),
    Mixer: (["in", "mixer.out", "out"], ["out = in + mixer.out"], {"mixer.out": "alpha"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_blocks_are_mapped_by_what_they_compute(kind: type[nn.Module]) -> None:
    model = op.load(network(kind))
    names, equations, modules = EXPECTED[kind]
    assert model.layout is not None and model.layout.name == "measured:Network" and model.layers == 3
    assert sorted(model.layout.ports) == sorted(names)
    assert [str(equation) for equation in model.layout.equations] == equations
    for name, path in modules.items():
        assert model.layout.ports[name].module == path
    assert model.layout.causal
    assert model.measured is not None and len(model.measured.checks) == 3 * len(equations)
    assert all(check.holds for check in model.measured.checks)
    assert "found by measurement" in str(op.sites(model))


def test_a_block_that_looks_ahead_is_not_causal() -> None:
    model = op.load(network(Sequential, False))
    assert model.layout is not None and not model.layout.causal


@pytest.mark.parametrize("kind", [Sequential, InPlace, Parallel, PostNorm, NormBetween], ids=lambda k: k.__name__)
def test_what_was_found_can_be_written(kind: type[nn.Module]) -> None:
    """Taking the MLP of block 1 away through its site equals taking it away in the weights."""
    model, other = op.load(network(kind)), network(kind)
    ids = torch.arange(8).reshape(2, 4)
    with model.edited(edits.zero_ablate("layers.1.mlp.out")), torch.no_grad():
        got = model.module(ids)
    last = other.stack[1].two if kind is NormBetween else other.stack[1].beta[2]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.zero_()
        assert torch.allclose(got, other(ids), atol=1e-5)
        assert not torch.allclose(got, model.module(ids), atol=1e-2)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: network(Hidden), "no two parts of a block"),
        (lambda: network(TwoMlps), "none of the parts of a block depend on other tokens"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "no list of two or more blocks"),
        (lambda: network(Mixer, True).stack, "no list of two or more blocks"),
    ],
)
def test_what_does_not_come_out_has_no_layout_and_says_why(made: Any, why: str) -> None:
    model = op.load(made())
    assert model.layout is None and why in model.unmapped
    if not isinstance(model.module, nn.ModuleList):
        assert why in " ".join(str(op.sites(model)).split())


def test_one_odd_block_among_many_is_noticed() -> None:
    """All other blocks agree with the map that the first ones give."""
    torch.manual_seed(0)
    model = op.load(Network([Sequential(), Sequential(), Sequential(), Hidden()]).eval())
    assert model.layout is None and "in layer 3" in model.unmapped


def test_the_network_is_left_as_it_was() -> None:
    module = network(Sequential).train()
    module.stack[1].eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    random = torch.get_rng_state()
    op.load(module)
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [part.training for part in module.modules()]
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    assert all(value.grad is None for value in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_frozen_weights_are_no_obstacle() -> None:
    assert op.load(network(Sequential).requires_grad_(False)).layout is not None


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_it_finds_what_the_tables_say(name: str, make_model: Any) -> None:
    """The real classes, mapped as if nobody had ever heard of them."""
    known = make_model(name)
    found = op.load(known.module, tokenizer=known.tokenizer, layout="measured")
    assert found.layout is not None and found.layout.name.startswith("measured:") and found.layout.causal
    shared = ["in", "attn.out", "mid", "mlp.out", "out"]
    assert set(shared) == set(found.layout.ports)
    sites = [f"layers.{layer}.{site}" for layer in range(3) for site in shared]
    one, other = known.read("The cat sat", [*sites, "logits"]), found.read("The cat sat", [*sites, "logits"])
    for site in one:
        assert torch.equal(one[site], other[site]), site


def test_a_renamed_model_type_is_mapped(make_model: Any) -> None:
    model = make_model("llama")
    model.module.config.model_type = "llama_of_next_year"
    try:
        found = op.load(model.module, tokenizer=model.tokenizer)
        assert found.layout is not None and found.layout.name == "measured:LlamaForCausalLM"
    finally:
        model.module.config.model_type = "llama"


def test_inputs_can_be_given_where_none_can_be_made_up() -> None:
    class Strange(Network):
        def forward(self, ids: Tensor, times: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(ids) * times

    torch.manual_seed(0)
    strange = Strange([Sequential(), Sequential()]).eval()
    assert "pass example=" in op.load(strange).unmapped
    example = {"ids": torch.arange(8).reshape(2, 4), "times": torch.ones(1)}
    model = op.load(strange, example=example)
    assert model.layout is not None and model.read(example, "layers.1.mid")["layers.1.mid"].shape == (2, 4, WIDTH)
