"""Swaps in files: what is loaded computes the same, bit for bit, and what a file claims is checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import optrode as op
from optrode import edits
from optrode.edits.part import PartEdit
from optrode.errors import BadFile, BadInput, NotFinite, NotSupported

TEXTS = ["The cat sat on the mat", "Paris is the capital"]
OWN = op.functions.from_formula("x*sigmoid(b*x)", parameters={"b": 1.5}, name="mine")
SURROGATE = op.functions.from_formula("max(0,x)", derivative="sigmoid(4*x)")


def logits(model: op.Model, edit: edits.Edit) -> torch.Tensor:
    with model.edited(edit):
        return model.read(TEXTS, "logits")["logits"]


def again(edit: edits.Edit, folder: Path) -> Any:
    return op.load_edit(edit.save(folder / "swap.edit"))


SWAPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "name": ("golu", {}),
    "parameters of each neuron": ("prelu", {"per": "neuron"}),
    "formula": (OWN, {}),
    "formula by neuron": (OWN, {"per": "neuron"}),
    "surrogate": (SURROGATE, {}),
    "layers": ({0: "relu", 2: OWN}, {}),
    "neurons": ({"relu": range(0, 10), "prelu": [11, 13], OWN: [40]}, {"per": "neuron"}),
    "neurons of a layer": ({1: {"relu": [3, 5]}}, {}),
    "gate with weights": ("WiG", {}),
    "frame": (op.functions.get("TAAF").of("mish"), {}),
    "double precision": ("TruG", {}),
}


@pytest.mark.parametrize("name", SWAPS)
def test_it_comes_back_bit_equal(name: str, llama: op.Model, tmp_path: Path) -> None:
    new, settings = SWAPS[name]
    edit = op.functions.swap(llama, "silu", new, **settings) * 0.7
    with torch.no_grad():
        for number, parameter in enumerate(edit.parameters()):
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    loaded = again(edit, tmp_path)
    assert torch.equal(logits(llama, loaded), logits(llama, edit))
    assert loaded.modules == edit.modules and loaded.strength == 0.7
    assert loaded.provenance.recipe["method"] == "swap"
    assert [p.shape for p in loaded.parameters()] == [p.shape for p in edit.parameters()]
    first = (tmp_path / "swap.edit").read_bytes()
    loaded.save(tmp_path / "swap.edit")
    assert (tmp_path / "swap.edit").read_bytes() == first


def test_trained_parameters_and_what_is_trained_come_back(llama: op.Model, tmp_path: Path) -> None:
    edit = op.functions.swap(llama, "silu", "swish", per="neuron")
    with torch.no_grad():
        for parameter in edit.parameters():
            parameter.uniform_(0.5, 2.0)
    fixed = PartEdit(tuple((path, op.functions.get("swish").module(trainable=False)) for path in edit.modules))
    loaded, frozen = again(edit, tmp_path), again(fixed, tmp_path)
    pairs = zip(edit.parameters(), loaded.parameters(), strict=True)
    assert all(torch.equal(a, b) and b.requires_grad for a, b in pairs)
    assert not list(frozen.parameters())
    # Training goes on with what was loaded.
    with llama.edited(loaded):
        llama.run(llama.encode(TEXTS)).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())
    llama.module.zero_grad(set_to_none=True)


def test_a_swap_and_what_healed_it_are_one_file(llama: op.Model, tmp_path: Path) -> None:
    edit = op.functions.swap(llama, "silu", "relu")
    healed = op.functions.heal(llama, edit, TEXTS * 2, steps=3)
    loaded = again(healed.edit, tmp_path)
    with llama.edited(edit, healed.adapter):
        apart = llama.read(TEXTS, "logits")["logits"]
    assert torch.equal(logits(llama, loaded), apart) and torch.equal(logits(llama, healed.edit), apart)
    assert [one.kind for one in loaded.edits] == ["part", "adapter"]
    assert loaded.provenance.fingerprint["name"] == llama.name
    with llama.edited(loaded):
        assert len(op.active(llama)) == 2
        llama.read(TEXTS, "logits")
    assert torch.equal(logits(llama, loaded * 0), llama.read(TEXTS, "logits")["logits"])


def test_edits_that_go_together() -> None:
    one, two = edits.add("layers.1.out", torch.ones(4)), edits.scale("layers.0.out", 2.0)
    whole = edits.together(one, edits.together(two, edits.prompt("Hi")))
    assert [part.kind for part in whole.edits] == ["site", "site", "prefix"]
    assert "3 edits that go together" in str(whole.explain())
    assert set((edits.together(one, two) * 2).tensors()) == {"0.vector", "1.factor"}
    with pytest.raises(NotSupported, match="no strength"):
        whole * 2
    with pytest.raises(BadInput, match="one or more"):
        edits.together()
    with pytest.raises(BadInput, match="one or more"):
        edits.together(one.trainable())


def test_only_the_named_neurons_are_others(llama: op.Model) -> None:
    with llama.edited(op.functions.swap(llama, "silu", {"relu": [3, 40]}, sites="layers.1.mlp")) as receipt:
        swapped = llama.read(TEXTS, "layers.1.mlp.hidden")["layers.1.mlp.hidden"]
    plain = llama.read(TEXTS, "layers.1.mlp.hidden")["layers.1.mlp.hidden"]
    there = torch.tensor([neuron in (3, 40) for neuron in range(plain.shape[-1])])
    assert torch.equal(swapped[..., ~there], plain[..., ~there]), "bit for bit"
    assert bool((swapped[..., there] != plain[..., there]).any()) and len(receipt.sites) == 1
    whole = op.functions.swap(llama, "silu", "relu", sites="layers.1.mlp")
    with llama.edited(whole):
        other = llama.read(TEXTS, "layers.1.mlp.hidden")["layers.1.mlp.hidden"]
    assert torch.allclose(swapped[..., there], other[..., there], atol=1e-6)


def test_mixed_functions_as_a_module() -> None:
    mixed = op.functions.Mixed({"relu": [0, 2], "prelu": [1]}, 4, axis=1, per="neuron")
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = mixed(x)
    assert torch.equal(y[:, [0, 2]], x[:, [0, 2]].relu()) and torch.equal(y[:, 3], x[:, 3])
    assert torch.allclose(y[:, 1], nn.functional.prelu(x[:, 1], torch.tensor([0.25])))
    y.sum().backward()
    assert x.grad is not None and [p.shape for p in mixed.parameters()] == [(1,)]
    assert mixed.title == "ReLU for 2 neurons, PReLU for 1"
    for wrong, said in (
        ({"relu": [0, 4]}, "neuron 4 is not there"), ({"relu": [0], "tanh": [0]}, "neuron 0 has two"),
        ({"relu": []}, "leave it out"), ({}, "no function"), ({"relu": [-1]}, "neuron -1"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            op.functions.Mixed(wrong, 4)
    with pytest.raises(BadInput, match="has 5 neurons"):
        op.functions.Mixed({"relu": [0]}, 4)(torch.zeros(5))


def test_what_no_file_can_hold(llama: op.Model, tmp_path: Path) -> None:
    class Mine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu()

    class Sub(op.functions.Activation):
        pass

    for module in (Mine(), nn.GELU(), Sub(op.functions.get("relu"))):
        with pytest.raises(NotSupported, match="holds no code"):
            op.functions.swap(llama, "silu", module).save(tmp_path / "a.edit")
    free = op.functions.get("TAAF").of(torch.relu)
    with pytest.raises(NotSupported, match="not that of the list"):
        op.functions.swap(llama, "silu", free).save(tmp_path / "a.edit")
    endless = op.functions.from_formula("min(x,a)", parameters={"a": float("inf")})
    with pytest.raises(NotFinite, match="no file can hold"):
        op.functions.swap(llama, "silu", endless).save(tmp_path / "a.edit")
    assert not list(tmp_path.iterdir()), "nothing half written"


def test_a_width_that_cannot_be_seen() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    model = op.load(net)
    with pytest.raises(BadInput, match="give width="):
        op.functions.swap(model, "relu", "prelu", per="neuron")
    edit = op.functions.swap(model, "relu", {"tanh": [5]}, width=6)
    x = torch.randn(3, 4)
    with model.edited(edit):
        h = net[0](x)
        wanted = torch.cat([h[:, :5].relu(), h[:, 5:].tanh()], 1)
        assert torch.allclose(net(x), net[2](wanted), atol=1e-6)
    with pytest.raises(BadInput, match="did you mean"):
        op.functions.swap(model, "relu", "prelu", per="nueron")


# Files that somebody made on purpose ----------------------------------------------------------------------------------


def damaged(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["optrode"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    change(described["edit"], tensors)
    save_file(tensors, path, metadata={"optrode": json.dumps(described)})
    return path


def made(node: dict[str, Any]) -> dict[str, Any]:
    return node["parts"][0]["made"]  # type: ignore[no-any-return]


DAMAGE: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]] = {
    "another kind": lambda node, tensors: made(node).update(kind="os.system"),
    "a kind that is a path": lambda node, tensors: made(node).update(kind="optrode.functions.saved"),
    "no list": lambda node, tensors: node.update(parts=3),
    "nothing": lambda node, tensors: node.update(parts=[]),
    "an entry more": lambda node, tensors: made(node).update(more=1),
    "another formula": lambda node, tensors: made(node)["function"].update(formula="x"),
    "no such function": lambda node, tensors: made(node)["function"].update(name="golu2"),
    "an alias": lambda node, tensors: made(node)["function"].update(name="par relu"),
    "sizes without end": lambda node, tensors: made(node).update(sizes=[10**15]),
    "sizes past all numbers": lambda node, tensors: made(node).update(sizes=[2**62, 2**62]),
    "an axis": lambda node, tensors: made(node).update(axis=10**6),
    "per": lambda node, tensors: made(node).update(per="universe"),
    "seed": lambda node, tensors: made(node).update(seed=-1),
    "no parameter": lambda node, tensors: tensors.pop("edit.0.a"),
    "a parameter more": lambda node, tensors: tensors.update({"edit.0.z": torch.ones(1)}),
    "a parameter of another shape": lambda node, tensors: tensors.update({"edit.0.a": torch.ones(3)}),
    "whole numbers": lambda node, tensors: tensors.update({"edit.0.a": torch.ones(6, dtype=torch.long)}),
    "trained": lambda node, tensors: made(node).update(trained=["nothing"]),
    "no strength": lambda node, tensors: node.update(strength="1"),
    "a formula that is code": lambda node, tensors: made(node).update(
        function={"own": "__import__('os').system('x')", "name": "a", "parameters": {"a": 1.0}, "derivative": None}
    ),
    "a formula too long": lambda node, tensors: made(node).update(
        function={"own": "a*x" + "+x" * 5000, "name": "a", "parameters": {"a": 1.0}, "derivative": None}
    ),
    "a formula too deep": lambda node, tensors: made(node).update(
        function={"own": "a*" + "(" * 500 + "x" + ")" * 500, "name": "a", "parameters": {"a": 1.0}, "derivative": None}
    ),
    "a power tower": lambda node, tensors: made(node).update(
        function={"own": "a*x+9^9^9^9", "name": "a", "parameters": {"a": 1.0}, "derivative": None}
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_a_file_claims_is_checked(name: str, tmp_path: Path) -> None:
    module = op.functions.get("prelu").module(6, per="neuron")
    path = PartEdit((("act", module),)).save(tmp_path / "a.edit")
    with pytest.raises(BadFile, match=r"a\.edit") as refused:
        op.load_edit(damaged(path, DAMAGE[name]))
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


def far(node: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    made(node)["width"] = 2**62
    tensors["edit.0.0.neurons"] = torch.tensor([0, 2**61])


def test_neurons_far_away_take_no_memory(tmp_path: Path) -> None:
    mixed = op.functions.Mixed({"prelu": [0, 2]}, 4)
    path = PartEdit((("act", mixed),)).save(tmp_path / "a.edit")
    loaded = op.load_edit(damaged(path, far))
    assert isinstance(loaded, PartEdit), "it is a layer that nobody has, and only its use can say so"
    twice = lambda node, tensors: tensors.update({"edit.0.0.neurons": torch.tensor([1, 1])})  # noqa: E731
    with pytest.raises(BadFile, match="neuron 1 has two"):
        op.load_edit(damaged(mixed_file(tmp_path), twice))


def mixed_file(folder: Path) -> Path:
    return PartEdit((("act", op.functions.Mixed({"prelu": [0, 2]}, 4)),)).save(folder / "b.edit")


def test_every_function_of_the_list_comes_back(tmp_path: Path) -> None:
    """In one file: names, formulas, sizes and statistics of all that can be built."""
    modules = []
    for name in op.functions.names():
        try:
            modules.append((name, op.functions.get(name).module(8)))
        except NotSupported:
            continue
    loaded = op.load_edit(PartEdit(tuple(modules)).save(tmp_path / "all.edit"))
    assert len(modules) > 570
    for (name, old), (_, new) in zip(modules, loaded.parts, strict=True):
        a, b = old.state_dict(), new.state_dict()
        assert old.function is new.function and a.keys() == b.keys(), name
        assert all(torch.equal(a[key], b[key]) for key in a if not a[key].isnan().any()), name
        assert {key for key, _ in old.named_parameters()} == {key for key, _ in new.named_parameters()}, name


def test_edits_that_go_together_are_trained_together(llama: op.Model) -> None:
    width = llama.config.hidden_size
    whole = edits.together(op.functions.swap(llama, "silu", "golu"), edits.add("layers.1.out", torch.zeros(width)))
    trainable = whole.trainable()
    with llama.edited(trainable):
        llama.run(llama.encode(TEXTS)).logits.square().sum().backward()
    (vector,) = trainable.parameters()
    assert vector.grad is not None and float(vector.grad.norm()) > 0
    llama.module.zero_grad(set_to_none=True)
    assert [one.kind for one in trainable.frozen().edits] == ["part", "site"]
