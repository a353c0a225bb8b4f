"""A swap is what the network would be with the other function in it; afterwards it is the network it was."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import optrode as op
from optrode.errors import BadInput, EditDidNothing, NotFinite, UnknownSite

TEXTS = ["The cat sat on the mat", "Paris is the capital", "You are a helpful assistant", "the weather tomorrow"]


def logits(model: op.Model) -> torch.Tensor:
    return model.read(TEXTS, "logits")["logits"]


def rebuilt(model: op.Model, replace: Callable[[str], nn.Module | None]) -> torch.Tensor:
    """A second derivation: a copy of the network whose activation modules are really other ones."""
    module = copy.deepcopy(model.module)
    for path, part in list(module.named_modules()):
        new = replace(path) if type(part).__name__ in ("SiLU", "SiLUActivation", "NewGELUActivation") else None
        if new is not None:
            parent, _, name = path.rpartition(".")
            setattr(module.get_submodule(parent), name, new)
    batch = model.encode(TEXTS)
    with torch.no_grad():
        given = module(input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.position_ids).logits
    return torch.where(batch.mask[..., None], given, 0.0)


def masked(model: op.Model) -> torch.Tensor:
    return torch.where(model.encode(TEXTS).mask[..., None], logits(model), 0.0)


def test_it_is_the_network_with_the_other_function_in_it(llama: op.Model) -> None:
    plain = logits(llama)
    edit = op.functions.swap(llama, "silu", "gelu", sites="layers.*.mlp")
    with llama.edited(edit) as receipt:
        assert torch.allclose(masked(llama), rebuilt(llama, lambda path: nn.GELU()), atol=1e-5)
    assert len(receipt.sites) == llama.layers and all(site.changed for site in receipt.sites.values())
    assert torch.equal(logits(llama), plain), "bit-equal when it is over"


def test_gpt2_has_another_function_and_another_path(gpt2: op.Model) -> None:
    assert set(op.functions.activations(gpt2).values()) == {"GELU-tanh"}
    with gpt2.edited(op.functions.swap(gpt2, "gelu_new", "relu", sites="layers.1.mlp")):
        assert torch.allclose(masked(gpt2), rebuilt(gpt2, lambda path: nn.ReLU() if ".1." in path else None), atol=1e-5)


def test_strength(llama: op.Model) -> None:
    plain, edit = logits(llama), op.functions.swap(llama, "silu", "relu")
    with llama.edited(edit * 0):
        assert torch.equal(logits(llama), plain)
    blend = op.functions.from_formula("x*sigmoid(x) + s*(max(0,x) - x*sigmoid(x))", parameters={"s": 0.25})
    with llama.edited(edit * 0.25):
        part = logits(llama)
    with llama.edited(op.functions.swap(llama, "silu", blend)):
        assert torch.allclose(logits(llama), part, atol=1e-5)


def test_a_choice_for_each_layer(llama: op.Model) -> None:
    edit = op.functions.swap(llama, "silu", {0: "relu", 1: op.functions.get("mish")})
    assert [module.function.name for _, module in edit.parts] == ["ReLU", "Mish"]
    only = op.functions.swap(llama, "silu", {1: "relu"})
    assert len(only.modules) == 1 and ".1." in only.modules[0]
    with pytest.raises(BadInput, match=r"layer 9 of .* did you mean"):
        op.functions.swap(llama, "silu", {9: "relu"})


def test_parameters_of_the_new_functions_learn_and_each_layer_has_its_own(llama: op.Model) -> None:
    edit = op.functions.swap(llama, "silu", "swish")
    parameters = list(edit.parameters())
    assert len(parameters) == llama.layers
    with llama.edited(edit):
        llama.run(llama.encode(TEXTS)).logits.square().sum().backward()
    assert all(parameter.grad is not None and float(parameter.grad.abs()) > 0 for parameter in parameters)
    llama.module.zero_grad(set_to_none=True)
    neurons = op.functions.get("prelu").module(llama.config.intermediate_size, per="channel")
    per_neuron = op.functions.swap(llama, "silu", neurons)
    assert all(p.shape == (llama.config.intermediate_size,) for p in per_neuron.parameters())
    with llama.edited(per_neuron):
        logits(llama)


def test_what_is_not_there(llama: op.Model) -> None:
    with pytest.raises(UnknownSite, match=r"computes no ReLU .*what is there: SiLU"):
        op.functions.swap(llama, "relu", "gelu")
    with pytest.raises(EditDidNothing, match="never fired"), llama.edited(op.functions.swap(llama, "silu", "gelu")):
        pass
    with (
        pytest.raises(NotFinite, match="NaN or infinity"),
        llama.edited(op.functions.swap(llama, "silu", op.functions.from_formula("ln(-1-x^2)"))),
    ):
        logits(llama)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.drop, self.second = nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.drop(self.act(self.first(x))))


def test_any_module_and_dropout_is_no_function() -> None:
    torch.manual_seed(0)
    net = Net().eval()
    model = op.load(net)
    assert op.functions.activations(model) == {"act": "ReLU"}
    x = torch.randn(5, 4)
    plain = net(x)
    with model.edited(op.functions.swap(model, None, "mish", sites="module:act")):
        assert torch.allclose(net(x), net.second(F.mish(net.first(x))), atol=1e-6)
    assert torch.equal(net(x), plain)


def test_healing_brings_the_answers_closer_and_leaves_the_weights_alone(llama: op.Model) -> None:
    weights = {name: value.clone() for name, value in llama.module.state_dict().items()}
    plain, edit = logits(llama), op.functions.swap(llama, "silu", "relu")
    healed = op.functions.heal(llama, edit, TEXTS * 2, steps=12, rate=3e-2, rank=4)
    assert healed.after < 0.7 * healed.before
    assert "nats a token" in str(healed)
    with llama.edited(edit, healed.adapter):
        near = logits(llama)
    with llama.edited(edit):
        far = logits(llama)
    assert (near - plain).norm() < (far - plain).norm()
    assert all(torch.equal(value, weights[name]) for name, value in llama.module.state_dict().items())
    assert all(parameter.grad is None for parameter in llama.module.parameters())
    with pytest.raises(BadInput, match="at least two texts"):
        op.functions.heal(llama, edit, TEXTS[:1])
