"""Another activation function in a network: `swap` gives an edit, which is undone when its block ends."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..edits.base import Provenance
from ..edits.part import PartEdit
from ..errors import BadInput, OptrodeError, UnknownSite, did_you_mean
from ..model import Model
from .mixed import Mixed
from .module import Activation
from .protocol import Function
from .zoo import get

New = str | Function | nn.Module
# Functions with the neurons that get them.
ByNeuron = Mapping[Any, Sequence[int]]
# What networks call by a module; looked for when nothing of the wanted kind is there, to say what is.
COMMON = ("SiLU", "GELU", "GELU-tanh", "quick GELU", "ReLU", "Squared ReLU", "ReLU6", "ELU", "LReLU", "Mish", "tanh",
          "sigmoid", "hard swish", "softplus", "identity")  # fmt: skip
_CLOSE = 1e-5


def swap(
    model: Model,
    old: str | Function | None,
    new: New | ByNeuron | Mapping[int, New | ByNeuron],
    sites: str | Sequence[str] | None = None,
    *,
    per: str = "layer",
    width: int | None = None,
) -> PartEdit:
    """An edit that puts `new` where the network computes `old`.

    Modules are recognised by what they compute, not by their class: each one without weights that gives the values of
    `old`, to 1e-5. `old=None` takes every activation function of the usual ones.

    new: a name, a `Function` or a module. Each place gets its own copy, with parameters of its own that
        `edit.parameters()` hands to an optimiser. A mapping {layer: name} chooses for each layer, {name: neurons} for
        some neurons of each layer, {layer: {name: neurons}} for some of one; what is not named stays as it is.
    sites: where to look, such as `layers.*.mlp`, `layers.3.mlp`, or `module:blocks.*`; everywhere by default.
    per: `neuron` gives each neuron of the last axis parameters of its own; `layer` gives them to all together.
    width: number of neurons. Where it is needed and not given, one token is run to see it.

    Functions by name and formula, with their parameters as they are, go into a file with `edit.save`; modules of your
    own do not. Raises `UnknownSite` where nothing is found, and says which functions there are; `BadInput` for layers
    or neurons that are not there. A function that the network calls without a module, as `torch.relu(h)`, cannot be
    found.
    """
    wanted = get(old) if isinstance(old, str) else old
    places = activations(model, sites)
    chosen = {path: name for path, name in places.items() if wanted is None or _computes(model, path, wanted)}
    if not chosen:
        raise UnknownSite(_nothing(model, wanted, places, sites))
    by_layer = new if isinstance(new, Mapping) and all(isinstance(key, int) for key in new) else None
    if by_layer is not None:
        _check_layers(model, by_layer, list(chosen))
    make = _Maker(model, list(chosen), per, width)
    parts = []
    for path in chosen:
        layer = layer_of(model, path)
        one = new if by_layer is None else by_layer.get(layer) if layer is not None else None
        if one is not None:
            parts.append((path, make(one, path)))
    recipe = {
        "method": "swap",
        "from": wanted.name if wanted else "any",
        "to": {path: _name(module) for path, module in parts},
    }
    return PartEdit(tuple(parts), provenance=Provenance({"name": model.name, **model.fingerprint}, recipe))


def activations(model: Model, sites: str | Sequence[str] | None = None) -> dict[str, str]:
    """Paths of the modules that are activation functions -> the name of the function, "" for one of none of the usual.

    A module counts when it has no weights and no parts, and gives one number for each that it is given.
    """
    roots = None if sites is None else _roots(model, [sites] if isinstance(sites, str) else list(sites))
    found = {}
    for path, module in model.module.named_modules():
        inside = roots is None or any(path == root or path.startswith(f"{root}.") for root in roots)
        if path and inside and _elementwise(module):
            found[path] = next((name for name in COMMON if _same(module, get(name))), "")
    return {path: name for path, name in found.items() if name != "identity"}


def layer_of(model: Model, path: str) -> int | None:
    """The number of the block that a module lies in, None outside."""
    for number, block in enumerate(model.blocks if model.layout is not None else ()):
        if any(part is model.submodule(path) for part in block.modules()):
            return number
    return None


def _roots(model: Model, patterns: list[str]) -> list[str]:
    """Modules to look in. `layers.*.mlp` stands for the module of `layers.*.mlp.out`, or for its block where the MLP
    has no module of its own."""
    found = []
    for pattern in patterns:
        text = f"{pattern}.out" if not pattern.startswith("module:") and not pattern.endswith(".out") else pattern
        for site in model.match(text):
            module, parent = site.module, site.module.rpartition(".")[0]
            whole = any(True for _ in model.submodule(module).children())
            found.append(module if whole or site.address.startswith("module:") else parent)
    return found


_PROBE = torch.linspace(-4.03, 4.01, 64)


def _elementwise(module: nn.Module) -> bool:
    """Whether a part without weights gives for each number one that does not depend on the others."""
    if any(True for _ in module.children()) or any(True for _ in module.parameters()):
        return False
    given = _output(module, _PROBE)
    turned = _output(module, _PROBE.flip(0))
    return given is not None and turned is not None and torch.equal(given, turned.flip(0))


def _output(module: nn.Module, x: Tensor) -> Tensor | None:
    state = module.training
    try:
        with torch.no_grad():
            given = module.eval()(x)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, NotImplementedError, OptrodeError):
        return None
    finally:
        module.train(state)
    return given if isinstance(given, Tensor) and given.shape == x.shape and given.is_floating_point() else None


def _same(module: nn.Module, function: Function) -> bool:
    given = _output(module, _PROBE)
    return given is not None and function.elementwise and bool(((given - function(_PROBE)).abs() < _CLOSE).all())


def _computes(model: Model, path: str, wanted: Function) -> bool:
    return _same(model.submodule(path), wanted)


class _Maker:
    """Makes the modules that stand in; the network is run at most once, where a number of neurons is needed."""

    def __init__(self, model: Model, paths: list[str], per: str, width: int | None):
        if per not in ("layer", "neuron"):
            raise BadInput(f"parameters per '{per}': {did_you_mean(per, ('layer', 'neuron'))}")
        self.model, self.paths, self.per, self.width = model, paths, per, width
        self._seen: dict[str, int] | None = None

    def __call__(self, new: Any, path: str) -> nn.Module:
        module, old = self._made(new, path), self.model.submodule(path)
        device = next((value.device for value in self.model.module.parameters()), None)
        return module.to(device).train(old.training) if device is not None else module.train(old.training)

    def _made(self, new: Any, path: str) -> nn.Module:
        if isinstance(new, Mapping):
            return Mixed(new, self._neurons(path), per=self.per)
        if isinstance(new, nn.Module):
            return copy.deepcopy(new)
        function = get(new) if isinstance(new, str) else new
        sized = self.per == "neuron" or not function.elementwise
        return function.module(self._neurons(path) if sized else None, per=self.per)

    def _neurons(self, path: str) -> int:
        if self.width is not None:
            return self.width
        if self._seen is None:
            if self.model.tokenizer is None:
                raise BadInput(f"{self.model.name} has no tokenizer, so its neurons cannot be counted: give width=")
            acts = self.model.read("a", [f"module:{one}" for one in self.paths])
            self._seen = {one: acts[f"module:{one}"].shape[-1] for one in self.paths}
        return self._seen[path]


def _name(module: nn.Module) -> str:
    return module.title if isinstance(module, Activation | Mixed) else type(module).__name__


def _check_layers(model: Model, by_layer: Mapping[Any, Any], paths: list[str]) -> None:
    there = sorted({layer for path in paths if (layer := layer_of(model, path)) is not None})
    for layer in by_layer:
        if layer not in there:
            near = did_you_mean(str(layer), [str(one) for one in there])
            raise BadInput(f"layer {layer} of {model.name} has no such function: {near}")
    if not by_layer:
        raise BadInput("no layer was given: name at least one, such as {3: 'golu'}")


def _nothing(model: Model, wanted: Function | None, places: dict[str, str], sites: Any) -> str:
    where = f"at {sites} " if sites is not None else ""
    there = sorted({name or "a function of none of the usual names" for name in places.values()})
    what = wanted.name if wanted else "activation function"
    if not there:
        return (
            f"{model.name} has no module {where}that is an activation function: it may call functions directly, which "
            "cannot be swapped"
        )
    return f"{model.name} computes no {what} {where}in a module of its own; what is there: {', '.join(there)}"
