"""Shapes of sites before anything runs: what a site's axes say, and sizes that earlier forwards have shown.

Every forward that reads a site shows the sizes of its features and heads, and the one that measures a network on load
reads the sites of its equations. What nobody has seen yet is seen on a few made-up tokens, once.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...errors import NotSupported, OptrodeError
from ...host import Host, SiteInfo
from ...towers import language_tower
from ..editing.actions import Tap
from ..editing.session import Session
from ..hooks import hooks_alone
from ..mapping.trial import ROWS, TOKENS, in_eval_mode, one_thread
from ..planning.like import Like
from ..run import run
from ..tower_forwards import alone
from .request import Request

# Axes whose sizes are the network's own; the others are those of the inputs.
_OF_NETWORK = frozenset({"head", "feature", "expert", "rank"})
_OF_TOKENS = frozenset({"example", "token", "key"}) | _OF_NETWORK


@dataclass(frozen=True)
class Form:
    """The shape of a whole activation as it follows from the rows and tokens of a forward, and its dtype.

    Each size is a + b * rows + c * tokens + d * rows * tokens.

    >>> Form(((0, 1, 0, 0), (0, 0, 1, 0), (576, 0, 0, 0)), torch.float32).at(2, 7)
    (2, 7, 576)
    """

    sizes: tuple[tuple[int, int, int, int], ...]
    dtype: torch.dtype

    def at(self, rows: int, tokens: int) -> tuple[int, ...]:
        return tuple(a + b * rows + c * tokens + d * rows * tokens for a, b, c, d in self.sizes)


# Network -> what was seen, by site, dtype of the network and of autocast, and kind of inputs where that matters.
_SEEN: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, Form]] = weakref.WeakKeyDictionary()


def note(host: Host, taps: Sequence[Tap]) -> None:
    """Remember the sizes that a forward has shown, of sites whose axes say which sizes are the inputs'."""
    seen, state = _SEEN.setdefault(host.module, {}), _state(host)
    for tap in taps:
        if _by_axes(tap.site) and tap.shape is not None and len(tap.shape) == len(tap.site.port.axes):
            key = (tap.site, *state, None)
            if key not in seen:
                assert tap.own_dtype is not None
                seen[key] = _named(tap.site, tap.shape, tap.own_dtype)


def forms(host: Host, sites: Sequence[SiteInfo], inputs: Like) -> dict[str, Form]:
    """The form of each site, by address. Runs a few made-up tokens for those that were not seen yet, else nothing.

    Raises `NotSupported` where a site's shape cannot be known before it is read.
    """
    seen = _SEEN.setdefault(host.module, {})
    state = _state(host)
    keys = {site.address: (site, *state, None if _by_axes(site) else inputs.key) for site in sites}
    unseen = [site for site in sites if keys[site.address] not in seen]
    if unseen:
        for address, form in _tried(host, unseen, inputs).items():
            seen[keys[address]] = form
    return {site.address: seen[keys[site.address]] for site in sites}


def sizes(host: Host, addresses: list[str]) -> dict[str, tuple[int, ...]]:
    """The shape of each site on the trial inputs; empty where these cannot be read."""
    from ..mapping.trial import trial_inputs
    from ..planning.like import like

    if language_tower(host.base, host.config):
        # The trial of the whole is a text: a tower that sees is tried by itself.
        for prefix, tower in host.tower_hosts.items():
            inner = [address.removeprefix(f"{prefix}.") for address in addresses if address.startswith(f"{prefix}.")]
            if inner:
                rest = sizes(host, [address for address in addresses if not address.startswith(f"{prefix}.")])
                return rest | {f"{prefix}.{address}": size for address, size in sizes(tower, inner).items()}
    if not addresses:
        return {}
    inputs = trial_inputs(host)
    if inputs is None:
        return {}
    try:
        kind = like(host, inputs)
        found = forms(host, host.match(addresses), kind)
    except OptrodeError:
        return {}
    return {site: form.at(kind.rows, kind.tokens) for site, form in found.items()}


def _state(host: Host) -> tuple[torch.dtype, torch.dtype | None]:
    """The dtype of the network and that of autocast. Asking where a network runs goes through all of its modules."""
    kind = host.device.type
    mixed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return host.dtype, mixed


def _by_axes(site: SiteInfo) -> bool:
    """Whether its axes alone tell which of its sizes are the inputs'."""
    return bool(site.port.axes) and _OF_TOKENS.issuperset(site.port.axes)


def _named(site: SiteInfo, shape: Sequence[int], dtype: torch.dtype) -> Form:
    known = {"example": (0, 1, 0, 0)}
    if _by_axes(site):
        known |= {"token": (0, 0, 1, 0), "key": (0, 0, 1, 0)}
    sizes = (known.get(name, (size, 0, 0, 0)) for name, size in zip(site.port.axes, shape, strict=True))
    return Form(tuple(sizes), dtype)


def _tried(host: Host, sites: Sequence[SiteInfo], inputs: Like) -> dict[str, Form]:
    """Forms from trial forwards: one for sites with named axes, more for raw modules, of which nothing is known."""
    named = [site for site in sites if _by_axes(site) or (site.port.axes and not inputs.any_tokens)]
    raw = [site for site in sites if site not in named]
    found: dict[str, Form] = {}
    if named:
        # Any tokens will do; the fewer the better.
        rows, tokens = (ROWS, TOKENS) if inputs.any_tokens else (1, inputs.tokens)
        for tap in _trial(host, named, inputs, rows, tokens):
            assert tap.shape is not None and tap.own_dtype is not None
            fits = len(tap.shape) == len(tap.site.port.axes)
            form = _named(tap.site, tap.shape, tap.own_dtype) if fits else None
            if form is None or form.at(rows, tokens) != tap.shape:
                raise NotSupported(f"{tap.site.address} has a shape that its axes do not tell: read it to see it")
            found[tap.site.address] = form
    if raw:
        found |= _fitted(host, raw, inputs)
    return found


# Rows and tokens of the forwards that raw modules are tried on; the last one checks what the others say.
_GRID = ((2, 4), (3, 4), (2, 6), (3, 6), (4, 9))


def _fitted(host: Host, sites: Sequence[SiteInfo], inputs: Like) -> dict[str, Form]:
    grid = _GRID if inputs.any_tokens else tuple((rows, inputs.tokens) for rows in (2, 3, 4))
    seen = [{tap.site.address: tap for tap in _trial(host, sites, inputs, *size)} for size in grid]
    found = {}
    for site in sites:
        taps = [trial[site.address] for trial in seen]
        shapes = [tuple(tap.shape or ()) for tap in taps]
        assert taps[0].own_dtype is not None
        form = _fit(grid, shapes, taps[0].own_dtype)
        if form is None:
            raise NotSupported(
                f"the shape of {site.address} does not follow from rows and tokens: it is known when read"
            )
        found[site.address] = form
    return found


def _fit(grid: Sequence[tuple[int, int]], shapes: list[tuple[int, ...]], dtype: torch.dtype) -> Form | None:
    """The form that gives all of these shapes at their rows and tokens; None if there is none in whole numbers."""
    if len({len(shape) for shape in shapes}) > 1:
        return None
    rows = torch.tensor([[1, r, t, r * t] for r, t in grid], dtype=torch.float64)
    if len({tokens for _, tokens in grid}) == 1:
        rows[:, 2:] = 0
    sizes = []
    for values in zip(*shapes, strict=True):
        wanted = torch.tensor(values, dtype=torch.float64)
        solved = torch.linalg.lstsq(rows, wanted[:, None], driver="gelsd").solution.flatten()
        a, b, c, d = (round(size) for size in solved.tolist())
        sizes.append((a, b, c, d))
    form = Form(tuple(sizes), dtype)
    return form if all(form.at(*size) == shape for size, shape in zip(grid, shapes, strict=True)) else None


def _trial(host: Host, sites: Sequence[SiteInfo], inputs: Like, rows: int, tokens: int) -> list[Tap]:
    """Taps that have seen one forward of made-up inputs, and kept nothing."""
    request = Request(list(sites), None)
    taps = [Tap(site, None, keep_graph=False, sink=lambda value, shape: None) for site in sites]
    session = Session(host)
    session.stops = request.stops
    for tap in taps:
        session.add_tap(tap)
    try:
        with torch.no_grad(), hooks_alone(), in_eval_mode(host.module), one_thread(), session.active():
            head = True if not host.table else request.head
            run(host, inputs.make(rows, tokens), head=head, tower=alone(host, sites))
    except OptrodeError:
        raise
    except Exception as problem:  # whatever a network's own forward may raise on inputs that were made up
        raise NotSupported(
            f"no plan for these inputs: a trial of {rows} rows failed ({_named_error(problem)})"
        ) from problem
    for tap in taps:
        if tap.fired != 1:
            raise NotSupported(f"{tap.site.address} ran {tap.fired} times in a forward, so it is not one activation")
    return taps


def _named_error(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}".splitlines()[0].rstrip(": ")
