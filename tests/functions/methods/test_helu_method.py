"""HeLU: ReLU forward, a step at -alpha backward."""

from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode.errors import BadInput


@pytest.mark.parity("helu")
@pytest.mark.parametrize("alpha", [0.0, 0.001, 0.05, 2.0])
def test_forward_is_relu_to_the_bit_and_the_gradient_steps_at_minus_alpha(alpha: float):
    values = [-3.0, -alpha - 1e-3, -alpha, -alpha + 5e-4, -1e-6, 0.0, 1e-6, 0.7]
    x = torch.tensor(values, requires_grad=True)
    y = op.functions.HeLU(alpha=alpha).module(1)(x)
    assert torch.equal(y.detach(), torch.relu(x.detach()))
    y.sum().backward()
    edge = -torch.tensor(alpha)
    assert x.grad.tolist() == [1.0 if torch.tensor(v) > edge else 0.0 for v in values]


def test_at_zero_it_is_relu_backward_too():
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    op.functions.HeLU(alpha=0.0).module(1)(x).sum().backward()
    own = x.grad.clone()
    x.grad = None
    torch.relu(x).sum().backward()
    assert torch.equal(own, x.grad)
    with pytest.raises(BadInput, match="at least 0"):
        op.functions.HeLU(alpha=-1.0).module(1)
