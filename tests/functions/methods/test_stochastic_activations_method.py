"""StochA: means of many draws, its limits, its schedule, replay, and sampling in use."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

import optrode as op
from optrode.errors import BadInput
from optrode.functions.methods.stochastic_activations import sampling

X = torch.tensor([-3.0, -1.0, -0.2, 0.0, 0.5, 2.0])


@pytest.mark.parity("stochastic-activations")
@pytest.mark.parametrize("positive", ["common", "by choice"])
def test_the_mean_of_many_draws(positive: str):
    p, count = 0.7, 100_000
    module = op.functions.StochasticActivation(p=p, positive=positive).module(6)
    drawn = module(X.expand(count, -1))
    silu, relu = F.silu(X), torch.relu(X)
    above = X if positive == "common" else p * silu + (1 - p) * relu
    wanted = torch.where(X >= 0, above, p * silu)
    spread = (silu - relu).abs() * (p * (1 - p) / count) ** 0.5
    assert bool(((drawn.mean(0) - wanted).abs() <= 4 * spread + 1e-5).all())
    values = set(drawn[:, 1].tolist())
    assert values == {0.0, float(silu[1])}


@pytest.mark.parity("stochastic-activations")
def test_limits_and_use():
    for p, wanted in ((0.0, torch.relu(X)), (1.0, F.silu(X))):
        assert torch.equal(op.functions.StochasticActivation(p=p).module(6)(X), wanted)
    module = op.functions.StochasticActivation().module(6).eval()
    assert torch.equal(module(X), torch.relu(X))


def test_gradient_on_the_negative_side_has_the_weight_p():
    x = torch.full((50_000,), -0.5, requires_grad=True)
    op.functions.StochasticActivation(p=0.3).module(1)(x).sum().backward()
    slope = torch.tensor(-0.5, requires_grad=True)
    F.silu(slope).backward()
    assert float(x.grad.mean()) == pytest.approx(0.3 * float(slope.grad), rel=0.05)


@pytest.mark.parametrize(("per", "same"), [("token", (1,)), ("layer", (0, 1))])
def test_one_choice_for_a_token_or_a_layer(per: str, same: tuple[int, ...]):
    x = torch.full((400, 8), -1.0)
    drawn = op.functions.StochasticActivation(p=0.5, per=per).module(8)(x)
    assert float((drawn.amax(same) - drawn.amin(same)).max()) == 0
    assert per == "layer" or len(drawn.unique()) == 2


def test_draws_come_from_the_seed():
    first, second = (op.functions.StochasticActivation(seed=5).module(4) for _ in range(2))
    x = -torch.ones(100, 4)
    a, b = first(x), first(x)
    assert torch.equal(a, second(x)) and not torch.equal(a, b)
    first.replay()
    assert torch.equal(first(x), a) and torch.equal(copy.deepcopy(first)(x), a)


def test_the_schedule_ends_in_relu():
    method = op.functions.StochasticActivation(p=1.0, finish=0.1)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), method.module(2))
    chances = []
    for step in range(20):
        method.before_step(network, step, 20)
        chances.append(network[1].p)
    assert chances == [1.0] * 18 + [0.0] * 2


def test_sampling_in_use_can_be_turned_on_and_off():
    method = op.functions.StochasticActivation(p=0.0)
    network = torch.nn.Sequential(method.module(4), method.module(4)).eval()
    x = -torch.rand(50, 4)
    plain = network(x)
    first = sampling(network, 0.5, seed=1)(x)
    assert not torch.equal(first, plain) and torch.equal(sampling(network, 0.5, seed=1)(x), first)
    assert torch.equal(sampling(network, 0.0)(x), plain)


def test_wrong_settings():
    with pytest.raises(BadInput, match="between 0 and 1"):
        op.functions.StochasticActivation(p=1.5).module(1)
    with pytest.raises(BadInput, match="did you mean token"):
        op.functions.StochasticActivation(per="tokens").module(1)
