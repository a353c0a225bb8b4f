"""SmartMixed: choice and straight-through gradient by loops, the switch, and what is kept."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import optrode as op
from optrode.errors import BadInput
from optrode.functions.methods.smartmixed import POOL, moved, shares

FUNCTIONS = (torch.relu, torch.sigmoid, torch.tanh, F.leaky_relu, F.elu, F.selu)
Z = 3 * torch.randn(6, 9, generator=torch.Generator().manual_seed(2))


def layer(**settings: object) -> torch.nn.Module:
    torch.manual_seed(0)
    module = op.functions.SmartMixed(**settings).module(9)  # type: ignore[arg-type]
    with torch.no_grad():
        module.logits.copy_(torch.randn(9, 6, generator=torch.Generator().manual_seed(3)))
    return module


def by_neuron(choice: list[int], bound: float = 10.0) -> torch.Tensor:
    columns = [FUNCTIONS[k](Z[:, n]).clamp(-bound, bound) for n, k in enumerate(choice)]
    return torch.stack(columns, -1)


@pytest.mark.parity("smartmixed")
def test_evaluation_before_and_after_the_switch_is_one_function_a_neuron():
    module = layer().eval()
    wanted = by_neuron(module.choice.tolist())
    torch.testing.assert_close(module(Z), wanted, atol=1e-6, rtol=1e-6)
    module.settle()
    torch.testing.assert_close(module(Z), wanted, atol=1e-6, rtol=1e-6)
    assert not module.logits.requires_grad and len(module.choice.unique()) > 2


@pytest.mark.parity("smartmixed")
def test_a_training_pass_chooses_by_gumbel_noise_and_lets_the_softmax_s_gradient_through():
    module = layer().train()
    state = module._noise.get_state()
    answers = torch.stack([f(Z).clamp(-10, 10) for f in FUNCTIONS], -1)
    weights = torch.linspace(-1, 1, Z.numel()).view_as(Z)
    (module(Z) * weights).sum().backward()
    module._noise.set_state(state)
    uniform = torch.rand(9, 6, generator=module._noise)
    logits = module.logits.detach()
    noisy = (logits - torch.log(-torch.log(uniform))) / 0.5
    torch.testing.assert_close(by_neuron(noisy.argmax(-1).tolist()), (answers * F.one_hot(noisy.argmax(-1), 6)).sum(-1))
    soft = noisy.exp() / noisy.exp().sum(-1, keepdim=True)
    pull = (answers * weights[..., None]).sum(0)
    jacobian = [[soft[n, k] * (float(j == k) - soft[n, j]) / 0.5 for k in range(6) for j in range(6)] for n in range(9)]
    table = torch.tensor(jacobian).view(9, 6, 6)
    wanted = torch.einsum("nk,nkj->nj", pull, table)
    torch.testing.assert_close(module.logits.grad, wanted, atol=1e-4, rtol=1e-4)


def test_choices_are_hard_in_training():
    module = layer().train()
    found = module(Z)
    near = torch.stack([(found - f(Z).clamp(-10, 10)).abs() for f in FUNCTIONS], -1).amin(-1)
    assert float(near.max()) < 1e-5


def test_the_start_has_one_head_start_a_neuron():
    torch.manual_seed(1)
    module = op.functions.SmartMixed().module(500)
    assert torch.equal(module.logits.detach().sum(-1), torch.full((500,), 1e-3))
    counted = shares(torch.nn.Sequential(module))[0]
    assert set(counted) == set(POOL) and all(0.08 < share < 0.26 for share in counted.values())
    assert moved(torch.nn.Sequential(module)) == 0


def test_phases_and_clamps():
    method = op.functions.SmartMixed(first=0.25)
    network = torch.nn.Sequential(method.module(3))
    for step in range(8):
        method.before_step(network, step, 8)
        assert (network[0].groups is not None) == (step >= 2)
    free = layer(clamped=False)
    free.settle()
    assert float(free(100 * Z).max()) > 10 >= float(layer().eval()(100 * Z).max())
    with pytest.raises(BadInput, match="last axis"):
        method.module(3, axis=1)
    with pytest.raises(BadInput, match="at least two"):
        op.functions.SmartMixed(pool=("relu",)).module(3)
