"""Edits that add a fixed vector everywhere, as the bias of a layer that the network has anyway: they cost no time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...edits.base import SiteEditBase
from ...edits.operators import Add
from ...errors import WrongShape
from ...host import Host
from ...positions import Positions
from ...table import SiteInfo
from ..views import first_tensor, site_unview, site_view

Matches = Callable[[str, str], bool]


@dataclass(frozen=True)
class Place:
    """Where a vector goes that an edit adds at `site`: into the bias of the layer at path `layer`, through `part`.

    `part` is the site itself, or that part of the sum it is (attention or MLP) which takes the vector, divided by
    `scale`. `dropout`: something between the layer and the part drops values at random in training.
    """

    site: SiteInfo
    part: SiteInfo
    scale: float
    layer: str
    dropout: bool


class _Everywhere:
    """Every position alike."""

    def select(self, positions: Positions) -> tuple[None, Tensor]:
        return None, torch.zeros(1, 1, dtype=torch.long)

    def routed(self, experts: tuple[int, ...], positions: Positions) -> None:
        return None

    def keys(self, positions: Positions) -> Tensor:
        raise NotImplementedError


def is_constant(edit: SiteEditBase, site: SiteInfo, matches: Matches) -> bool:
    """Whether what the edit does at this site is to add the same vector at every position."""
    port = site.port
    if port.axes[-1:] != ("feature",) or port.flat or port.channels_first or port.reruns or site.tower:
        return False
    if port.side != "out" and site.adds_to is None:
        return False
    own = [leaf for leaf in edit.leaves() if leaf.strength != 0 and matches(leaf.site, site.address)]
    return all(isinstance(leaf.operator, Add) and leaf.positions.text == "all" and not leaf.keys for leaf in own)


def places(host: Host, sites: list[SiteInfo], constant: list[SiteInfo], layers: Layers) -> dict[str, Place]:
    """For each constant site that has a place, by address: into which bias its vector can go.

    `sites` are all those that the edit writes: none of them may come between the layer and the site.
    """
    found: dict[str, Place] = {}
    for site in constant:
        part, scale = _part_of(host, site)
        layer = layers.behind(part.module)
        others = [other for other in sites if other.address != site.address and other not in constant]
        if layer is not None and not any(_between(host, site, part, other) for other in others):
            found[site.address] = Place(site, part, scale, layer, layers.drops(part.module))
    return found


def _part_of(host: Host, site: SiteInfo) -> tuple[SiteInfo, float]:
    """The part through which a sum is written, and its factor; other sites are written where they are."""
    if site.adds_to is not None:
        return host.table[site.adds_to], site.scale
    if site.layer is None or host.layout is None or site.address.startswith("module:"):
        return site, 1.0
    for equation in host.layout.equations:
        plain = equation.result == site.name and equation.norm is None and not equation.weights
        if plain and all(site.at(term) in host.table for term in equation.terms):
            term = next((name for name in reversed(equation.terms) if name in ("mlp.out", "attn.out")), None)
            if term is not None:
                return host.table[site.at(term)], host.scales(equation)[term]
    return site, 1.0


def _between(host: Host, site: SiteInfo, part: SiteInfo, other: SiteInfo) -> bool:
    """Whether another edit could see the vector where it ought not, or not see it where it ought to."""
    if other.layer != site.layer and not other.address.startswith("module:"):
        return False
    raw = other.address.startswith("module:")
    return raw or other.module == site.module or f"{other.module}.".startswith(f"{part.module}.")


class Layers:
    """Which layers with a bias give a module its output, found by watching one forward of a network in eval mode."""

    def __init__(self, network: nn.Module, run: Callable[[], object]):
        self._network = network
        self._outputs: dict[str, Tensor | None] = {}
        self._biased: dict[int, list[str]] = {}
        self._dropped: set[int] = set()
        # Tensors are told apart by their ids, so that none may be gone before the last has come.
        self._alive: list[Tensor] = []
        handles = [module.register_forward_hook(self._watch(path)) for path, module in network.named_modules() if path]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()

    def _watch(self, path: str) -> Callable[[nn.Module, tuple, object], None]:
        def after(module: nn.Module, args: tuple, output: object) -> None:
            try:
                tensor = first_tensor(output, path)
            except Exception:
                return
            self._alive.append(tensor)
            # What runs twice in a forward is no single place.
            self._outputs[path] = None if path in self._outputs else tensor
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
                self._dropped.add(id(tensor))
            if _takes_bias(module):
                self._biased.setdefault(id(tensor), []).append(path)

        return after

    def behind(self, path: str) -> str | None:
        """The path of the layer whose output is the very output of the module at `path`; None if there is none."""
        output = self._outputs.get(path)
        if output is None:
            return None
        paths = [layer for layer in self._biased.get(id(output), ()) if f"{layer}.".startswith(f"{path}.")]
        return paths[0] if len(paths) == 1 and self._outputs.get(paths[0]) is output else None

    def drops(self, path: str) -> bool:
        """Whether dropout that is a module stands between that layer and the end of the module at `path`."""
        output = self._outputs.get(path)
        # In eval mode dropout hands on the very tensor that it is given.
        return output is not None and id(output) in self._dropped


def _takes_bias(module: nn.Module) -> bool:
    plain = type(module) in (nn.Linear, nn.LayerNorm) or type(module).__name__ == "Conv1D"
    weight = module._parameters.get("weight")
    return plain and type(weight) is nn.Parameter and type(weight.data) is Tensor and weight.is_floating_point()


def vector_of(edit: SiteEditBase, host: Host, place: Place, matches: Matches, width: int) -> Tensor:
    """What the edit adds to the output of the layer, [feature of the layer] in float64."""
    zeros = torch.zeros(1, 1, width, dtype=torch.float64)
    change = edit.at(place.site.address, matches)
    assert change is not None
    own = place.site if place.site.adds_to is None and place.part is place.site else place.part
    try:
        new = change(site_view(host, own, zeros, 1), _Everywhere())
        return (site_unview(host, own, zeros, new) / place.scale).flatten()
    except (RuntimeError, IndexError) as problem:
        raise WrongShape(f"the edit does not fit {place.site.address} of width {width}: {problem}") from problem


def add_to_bias(layer: nn.Module, vector: Tensor) -> None:
    """Give a layer of a twin a bias of its own that holds `vector` too; its weight stays shared."""
    weight, bias = layer._parameters["weight"], layer._parameters.get("bias")
    assert weight is not None
    total = vector.to(weight.device) + (0 if bias is None else bias.detach().double())
    dtype = weight.dtype if bias is None else bias.dtype
    layer._parameters["bias"] = nn.Parameter(total.to(dtype), requires_grad=False)


def width_of(layer: nn.Module) -> int:
    """Number of features that a layer with a bias gives."""
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight.shape[-1] if type(layer).__name__ == "Conv1D" else weight.shape[0]
