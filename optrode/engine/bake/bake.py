"""From an edit and a network to a network that holds the edit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...edits.base import Edit, SiteEdit, SiteEditBase
from ...edits.operators import AddByPosition
from ...edits.rows import rows_edits
from ...errors import NotSupported
from ...host import Host
from ...table import SiteInfo
from ..attention import SIDES
from ..editing.edited import bind
from ..experts import of_experts
from ..run import Inputs
from ..twin import twin, uncompiled
from .check import answer, compared, inputs_of
from .constant import Layers, Place, add_to_bias, is_constant, places, vector_of, width_of
from .here import HeadCounts, Written, here
from .inside import put_inside
from .operations import Leaf, Selected, as_module
from .roles import Carried, Roles, header_of, refuse_positions
from .top import finish, is_baked


@dataclass(frozen=True)
class Wanted:
    """An edit on one network: the sites it writes, in order of execution, and who writes where."""

    host: Host
    edit: SiteEditBase
    sites: list[SiteInfo]
    matches: Callable[[str, str], bool]


def bake(host: Host, edit: Edit) -> nn.Module:
    """A network of the host's own class that has `edit` inside, to run, compile or export without any hook.

    Its weights are the host's, in the same memory; the host is not touched. `network.explain()` says what was done
    where. A vector that is added everywhere becomes a bias of a layer where there is one behind the site, which costs
    nothing at run time; anything else becomes a small module that computes in float32 at least, as a live edit does.
    In training, dropout in a block's own code meets a vector in a bias, which a live edit adds after it.
    An edit of strength 0 gives a twin of the host.

    Positions must be such as a network can tell by itself: see `roles`. `all` covers padding too, which no real token
    looks at. Raises `NotSupported` for other positions, for edits at experts and routers, for functions, and for a
    network that accelerate has placed. Costs a copy of the module tree and two forwards of a few tokens, which show
    that the network answers as the live edit does.
    """
    wanted = wanted_of(host, edit)
    for site in wanted.sites:
        _refuse_site(site)
    network = twin(wanted.host.module)
    inputs = inputs_of(wanted.host)
    folded = {
        address: place
        for address, place in find_places(wanted, network, inputs).items()
        # In training, dropout would meet the vector too.
        if not place.dropout
    }
    fold_into(wanted, network, folded)
    rest = [site for site in wanted.sites if site.address not in folded]
    by_steps = _put_in(wanted, network, rest)
    lines = [_line(wanted, site, folded.get(site.address)) for site in wanted.sites]
    lines = lines or ["no edit: its strength is 0, or it has no part"]
    lines.append(compared(wanted.host, wanted.edit, network, inputs))
    return finish(network, lines, by_steps=by_steps)


def wanted_of(host: Host, edit: Edit) -> Wanted:
    """The edit checked against the network as a live one is. Runs nothing."""
    if not isinstance(edit, SiteEditBase):
        raise NotSupported(f"an edit of kind '{edit.kind}' cannot be baked: only edits of activations can")
    if any(True for _ in rows_edits(edit)):
        raise NotSupported("an edit by row goes with the prompts of one batch, so it cannot be baked: use model.edited")
    if edit.watches():
        raise NotSupported("an edit on a condition is decided for each prompt, so it cannot be baked: use model.edited")
    if is_baked(host.module):
        raise NotSupported(
            f"{host.name} holds a baked edit already: combine the edits (e1 + e2, or e1 >> e2) and bake them at once"
        )
    host = uncompiled(host)
    session = bind(host, edit)
    selected: dict[str, set[str]] = {}

    def matches(pattern: str, address: str) -> bool:
        if pattern not in selected:
            selected[pattern] = {site.address for site in host.match(pattern)}
        return address in selected[pattern]

    known = {site.address: site for leaf in edit.leaves() for site in host.match(leaf.site)}
    return Wanted(host, edit, [known[address] for address in session.receipt.sites], matches)


def _refuse_site(site: SiteInfo) -> None:
    if of_experts(site.port) or site.port.reruns or site.port.side == "experts":
        raise NotSupported(
            f"{site.address} belongs to single experts, whose choice no fixed graph holds: bake at mlp.out or out, or "
            "use the live edit (model.edited)"
        )


# Folding -------------------------------------------------------------------------------------------------------------


def find_places(wanted: Wanted, network: nn.Module, inputs: Inputs | None) -> dict[str, Place]:
    """The bias that can take each constant edit, by address."""
    constant = [site for site in wanted.sites if is_constant(wanted.edit, site, wanted.matches)]
    if not constant or inputs is None:
        return {}
    try:
        layers = Layers(network, lambda: answer(wanted.host, network, inputs))
    except (RuntimeError, TypeError, ValueError):
        # A trial is made up, and a network may want inputs that none knows.
        return {}
    return places(wanted.host, wanted.sites, constant, layers)


def fold_into(wanted: Wanted, network: nn.Module, folded: dict[str, Place]) -> None:
    """Add each edit to the bias of its layer in the twin."""
    for place in folded.values():
        layer = network.get_submodule(place.layer)
        vector = vector_of(wanted.edit, wanted.host, place, wanted.matches, width_of(layer))
        add_to_bias(layer, vector)


# Modules -------------------------------------------------------------------------------------------------------------


def _put_in(wanted: Wanted, network: nn.Module, sites: list[SiteInfo]) -> bool:
    """Put modules for the edits at `sites` into the twin; say whether any of them depends on positions."""
    carried: Carried[Selected] = Carried()
    entries: dict[str, Carried[Tensor]] = {}
    leaves: list[Leaf] = []
    host = wanted.host
    for site in sites:
        device, dtype = _where(network, site, host)
        change = as_module(wanted.edit, site.address, wanted.matches, device, dtype)
        assert change is not None
        own = [part for part in change.modules() if isinstance(part, Leaf)]
        _refuse_without_tokens(site, own)
        leaves += own
        positioned = carried if any(not leaf.everywhere or leaf.keys for leaf in own) else None
        owner = host.of(site)
        counts = HeadCounts(owner.head_counts() if site.port.heads else {})
        if site.port.side in SIDES:
            put_inside(network.get_submodule(site.module), Written(site, counts, change, positioned))
            continue
        if site.adds_to is None:
            module = _of_sequence(network, site.module, site.port.side)
            here(module).add("entry" if site.port.side == "in" else "exit", Written(site, counts, change, positioned))
            continue
        # The sum is known only where the part is added, so the block's input is noted on the way in.
        block = _block_of(host, site)
        entry = entries.setdefault(block, Carried())
        here(network.get_submodule(block)).notes = entry
        part = host.table[site.adds_to]
        here(network.get_submodule(part.module)).add("sum", Written(site, counts, change, positioned, entry))
    _put_roles(wanted, network, sites, leaves, carried)
    return any(not leaf.everywhere or leaf.keys for leaf in leaves)


def _put_roles(
    wanted: Wanted, network: nn.Module, sites: list[SiteInfo], leaves: list[Leaf], carried: Carried[Selected]
) -> None:
    texts = {leaf.positions for leaf in leaves if not leaf.everywhere}
    keys = {leaf.keys for leaf in leaves if leaf.keys}
    if not texts and not keys:
        return
    host = wanted.host
    numbered: set[str] = set()
    for leaf in _active(wanted.edit):
        by_number = isinstance(leaf.operator, AddByPosition)
        refuse_positions(leaf.positions, numbered=by_number)
        if by_number:
            numbered.add(leaf.positions.text)
    for text in keys:
        if not text.startswith("first:") or "@" in text:
            raise NotSupported(
                f"keys='{text}' cannot be decided inside a network: bake an edit with keys 'all' or 'first:N', or use "
                "the live edit (model.edited)"
            )
    if any(site.tower for site in sites):
        raise NotSupported("in a network of several towers an edit can be baked only at positions 'all'")
    base = network.get_submodule(host.base_path)
    names = list(inspect.signature(base.forward).parameters)
    header = header_of(host) if "after_instruction" in texts else []
    roles = Roles(texts, numbered, keys, names, header, carried)
    here(base).roles = roles.to(host.device)


def _active(edit: SiteEditBase) -> Iterator[SiteEdit]:
    return (leaf for leaf in edit.leaves() if leaf.strength != 0)


def _refuse_without_tokens(site: SiteInfo, leaves: list[Leaf]) -> None:
    positioned = next((leaf.positions for leaf in leaves if not leaf.everywhere or leaf.keys), None)
    if positioned is None:
        return
    if site.port.axes and "token" not in site.port.axes:
        raise NotSupported(f"{site.address} has no token axis, where positions '{positioned}' mean nothing: use 'all'")
    if site.port.flat and site.adds_to is None:
        raise NotSupported(f"{site.address} has examples and tokens as one axis: bake it at positions 'all'")
    if site.port.side == "key":
        raise NotSupported(f"at {site.address} an edit can be baked only at positions 'all': it holds cached keys too")


def _where(network: nn.Module, site: SiteInfo, host: Host) -> tuple[torch.device, torch.dtype]:
    """The device on which a site's module runs, and the precision in which its edit computes."""
    parameter = next((p for p in network.get_submodule(site.module).parameters() if p.is_floating_point()), None)
    device = host.device if parameter is None else parameter.device
    dtype = host.dtype if parameter is None else parameter.dtype
    return device, dtype if dtype == torch.float64 else torch.float32


def _block_of(host: Host, site: SiteInfo) -> str:
    """The path of the block in which a site lies."""
    block = host.of(site).blocks[site.layer or 0]
    return next(path for path, module in host.paths.items() if module is block)


def _of_sequence(network: nn.Module, path: str, side: str) -> nn.Module:
    """The module at a path; of a sequence, which runs whatever it holds, its first or last."""
    module = network.get_submodule(path)
    while isinstance(module, nn.Sequential) and len(module):
        module = module[0 if side == "in" else -1]
        if sum(other is module for other in _all_places(network)) > 1:
            raise NotSupported(f"{path} ends in a module that is used elsewhere too: bake at another site")
    return module


def _all_places(network: nn.Module) -> Iterator[nn.Module]:
    return (module for _, module in network.named_modules(remove_duplicate=False))


def _line(wanted: Wanted, site: SiteInfo, place: Place | None) -> str:
    leaves = [leaf for leaf in _active(wanted.edit) if wanted.matches(leaf.site, site.address)]
    what = ", ".join(f"{leaf.operator.name} x {leaf.strength:g} at {leaf.positions}" for leaf in leaves)
    if place is not None:
        return f"{site.address}: {what}: in the bias of {place.layer}"
    kind = "input" if site.port.side == "in" and site.adds_to is None else "output"
    if site.port.side in SIDES:
        kind = "attention"
    through = wanted.host.table[site.adds_to].module if site.adds_to else site.module
    return f"{site.address}: {what}: a module at the {kind} of {through or 'the network'}"
