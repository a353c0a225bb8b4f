"""The usual starts of weights, against torch's own, and the order in which layers run."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from optrode.errors import BadInput
from optrode.functions.initialisation import fan_in, weighted_layers
from optrode.functions.starts import STARTS, Started


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(100, 400), nn.Tanh(), nn.Linear(400, 300))


DEVIATIONS = {
    "xavier": (math.sqrt(2 / 500), math.sqrt(2 / 700)),
    "torch gain": (5 / 3 * math.sqrt(2 / 500), 5 / 3 * math.sqrt(2 / 700)),
    "he": (math.sqrt(2 / 100), math.sqrt(2 / 400)),
    "orthogonal": (1 / math.sqrt(400), 1 / math.sqrt(400)),
    "siren": (1 / 100 / math.sqrt(3), math.sqrt(6 / 400) / 30 / math.sqrt(3)),
}


@pytest.mark.parametrize("start", DEVIATIONS)
def test_deviations(start: str) -> None:
    made = network()
    Started("tanh", start).initialise(made, torch.randn(4, 100))
    for layer, wanted in zip((made[0], made[2]), DEVIATIONS[start], strict=True):
        assert float(layer.weight.detach().std()) == pytest.approx(wanted, rel=0.02)
        assert start == "siren" or float(layer.bias.detach().abs().max()) == 0


def test_torch_s_own_start_is_kept_and_others_are_refused() -> None:
    made, before = network(), network()
    Started("relu", "torch").initialise(made, torch.randn(4, 100))
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), before.parameters(), strict=True))
    assert set(DEVIATIONS) | {"torch"} == set(STARTS)
    with pytest.raises(BadInput, match="did you mean"):
        Started("relu", "xavyer")


class Crossed(nn.Module):
    """Layers that run in another order than they are written in; one never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first, self.idle = nn.Linear(8, 2), nn.Conv1d(3, 8, 5, groups=1), nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return self.last(self.first(x).mean(-1))


def test_layers_in_the_order_in_which_they_run() -> None:
    made = Crossed().train()
    assert weighted_layers(made, torch.randn(2, 3, 9)) == [made.first, made.last]
    assert made.training and not made.first._forward_hooks and (fan_in(made.first), fan_in(made.last)) == (15, 8)
    with pytest.raises(BadInput, match="no weights to draw"):
        weighted_layers(nn.ReLU(), torch.randn(2))
