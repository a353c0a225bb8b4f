"""Reading: the least forward that gives the activations that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..activations import Activations
from ..batches import Batch
from ..encoding import Prompt
from ..errors import BadInput, NotSupported
from ..host import Host, SiteInfo
from ..positions import Positions
from .actions import Tap
from .hooks import active_sessions, hooks_alone
from .places import batch_of
from .progress import track
from .prompts import encode_edited
from .resume import Residuals, checked, resumed
from .run import Inputs, run
from .session import Session
from .transformers_names import cache_argument, cache_contents, cache_with, keep_columns_argument, new_cache
from .views import site_view

# Tokens in one forward: large enough to keep two cores busy, small enough to stay in memory with any number of sites.
TOKENS_PER_FORWARD = 2048

Readable = Prompt | Sequence[Prompt] | Inputs | Residuals


@dataclass(frozen=True)
class Request:
    """What a read wants, resolved against the network."""

    sites: list[SiteInfo]
    positions: Positions | None
    grad: bool
    device: torch.device | None
    dtype: torch.dtype | None

    @property
    def head(self) -> bool:
        return any(site.address == "logits" or _outside_base(site) for site in self.sites)

    @property
    def stops(self) -> bool:
        return all(site.rank is not None for site in self.sites)


def read(
    host: Host,
    inputs: Readable,
    sites: str | Sequence[str],
    *,
    positions: str | Positions | None = None,
    grad: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tokens_per_forward: int = TOKENS_PER_FORWARD,
    template: str | None = None,
    system: str | None = None,
) -> Activations:
    """Activations of `inputs` at `sites`; the forward stops after the last site that is needed.

    `inputs`: a prompt, a list of prompts, a `Batch`, a tensor or dictionary of tensors, or `Residuals` to resume from.
    `positions`: None gives whole rows, [example, token, ...]; a selection gives [position, ...], or [example, ...]
    where each row has exactly one. `grad=True` keeps the graph (one forward, nothing copied). `device` and `dtype` say
    where and how values are kept; by default as they are.

    Prompts are sorted by length and run in forwards of at most `tokens_per_forward` tokens; results are in the order
    of `inputs`. No head, logits or KV cache are computed unless asked for. Raises `UnknownSite`, `BadInput`,
    `NotSupported`.
    """
    request = Request(
        host.match(sites),
        Positions(positions) if isinstance(positions, str) else positions,
        grad,
        torch.device(device) if device is not None else None,
        dtype,
    )
    if isinstance(inputs, Residuals):
        return _read_resumed(host, inputs, request)
    if isinstance(inputs, dict) and request.positions is not None and "input_ids" in inputs:
        inputs = batch_of(host, inputs)
    if isinstance(inputs, Tensor | dict):
        return _read_bare(host, inputs, request)
    batch = inputs if isinstance(inputs, Batch) else encode_edited(host, inputs, template=template, system=system)
    _refuse_nothing(batch, request)
    if grad or batch.ids.numel() <= tokens_per_forward:
        return _one_forward(host, batch, request)
    return _many_forwards(host, batch, request, tokens_per_forward)


def _refuse_nothing(batch: Batch, request: Request) -> None:
    positions = request.positions
    if positions is not None and any(map(_has_tokens, request.sites)) and not bool(positions.in_prompt(batch).any()):
        raise BadInput(f"positions '{positions}' select no token of these prompts, so there is nothing to read")


def residuals(host: Host, batch: Batch, layers: Sequence[int]) -> Residuals:
    """What `read` can resume from: the stream at the input of some blocks, and all keys and values.

    One forward of the unedited network, whatever edits are active; the keys and values cost
    2 x layers x tokens x width numbers of memory, fewer with grouped key heads.
    """
    session = Session(host)
    taps = {k: Tap(host.table[f"layers.{k}.in"], None, keep_graph=False) for k in layers if 0 < k < host.layers}
    for tap in taps.values():
        session.add_tap(tap)
    cache = new_cache() if host.causal and cache_argument(host.accepts) else None
    with torch.no_grad(), hooks_alone(), session.active():
        run(host, batch, head=False, cache=cache)
    at = {layer: tap.value for layer, tap in taps.items() if tap.value is not None}
    return checked(host, Residuals(batch, at, cache_contents(cache) if cache is not None else []))


def _outside_base(site: SiteInfo) -> bool:
    return site.address.startswith("module:") and site.rank is None


# One forward --------------------------------------------------------------------------------------------------------


def _session(host: Host, request: Request, few_logits: bool = False) -> tuple[Session, list[Tap]]:
    session = Session(host)
    session.stops = request.stops
    taps = []
    for site in request.sites:
        whole = not _has_tokens(site) or (few_logits and site.address == "logits")
        positions = None if whole else request.positions
        taps.append(Tap(site, positions, request.grad, request.device, request.dtype))
        session.add_tap(taps[-1])
    return session, taps


def _has_tokens(site: SiteInfo) -> bool:
    return not site.port.axes or "token" in site.port.axes


def _one_forward(
    host: Host,
    batch: Batch,
    request: Request,
    first_layer: int = 0,
    residual: Any = None,
    cache: Any = None,
    start: int = 0,
) -> Activations:
    columns = _logit_columns(host, batch, request)
    session, taps = _session(host, request, few_logits=columns is not None)
    session.first_layer = first_layer
    with _grad_mode(request.grad), session.active(), resumed(host, first_layer, residual):
        run(host, batch, head=request.head, columns=columns, cache=cache, start=start)
    _check(taps)
    if columns is not None:
        _restore_logits(taps, batch, columns, request)
    return _gather(host, batch, request, taps, session)


def _read_bare(host: Host, inputs: Tensor | dict[str, Tensor], request: Request) -> Activations:
    if request.positions is not None and request.positions.text != "all":
        raise NotSupported("positions need prompts or a Batch: bare tensors have no roles")
    session, taps = _session(host, Request(request.sites, None, request.grad, request.device, request.dtype))
    with _grad_mode(request.grad), session.active():
        run(host, inputs, head=True if not host.table else request.head)
    _check(taps)
    batch = session.forward.batch if session.forward else None
    return _gather(host, batch, Request(request.sites, None, request.grad, None, None), taps, session)


def _read_resumed(host: Host, cached: Residuals, request: Request) -> Activations:
    """Resume at the last cached block that neither an active edit nor a wanted site comes before."""
    first = host.layers
    for session in active_sessions():
        for actions in (*session.edits.values(), *session.sums.values()):
            for action in actions:
                first = min(first, _needs_from(host, action.site))
    for site in request.sites:
        first = min(first, _needs_from(host, site))
    layer = cached.start(first)
    start = _first_column(cached, request)
    residual = cached.at.get(layer)
    if start <= 0:
        return _one_forward(host, cached.batch, request, layer, residual)
    residual = residual[:, start:] if residual is not None else None
    return _one_forward(host, cached.batch, request, layer, residual, cache_with(cached.keys_values, start), start)


def _first_column(cached: Residuals, request: Request) -> int:
    """The first column that an active edit touches or that is wanted; those before it need not run again."""
    if not cached.keys_values or request.positions is None or not all(_has_tokens(site) for site in request.sites):
        return 0
    touched = request.positions.in_prompt(cached.batch)
    for session in active_sessions():
        for positions in session.positions:
            touched = touched | positions.in_prompt(cached.batch)
    return int(touched.any(0).int().argmax())


def _needs_from(host: Host, site: SiteInfo) -> int:
    """The first block that must really run for this site: a block's output can be had from the cache too."""
    if site.rank is None:
        return 0
    layer = site.rank[0]
    return layer + 1 if site.address == f"layers.{layer}.out" else max(0, min(layer, host.layers))


def _grad_mode(grad: bool) -> Any:
    return torch.enable_grad() if grad else torch.no_grad()


def _check(taps: list[Tap]) -> None:
    for tap in taps:
        if tap.fired == 0:
            raise NotSupported(
                f"{tap.site.address} did not run in this forward: the network has the module but does not call it here"
            )
        if tap.overwritten:
            raise NotSupported(
                f"{tap.site.address} is overwritten in place by the network after it was read: read it without grad"
            )
        if tap.fired > 1:
            raise NotSupported(
                f"{tap.site.address} ran {tap.fired} times in one forward, so it is not one activation: "
                "read the modules before and after it"
            )


# Logits only where they are wanted ----------------------------------------------------------------------------------


def _logits_are_edited() -> bool:
    """An edit has to know which columns it sees, so it gets them all."""
    actions = (action for session in active_sessions() for found in session.edits.values() for action in found)
    return any(action.site.address == "logits" for action in actions)


def _logit_columns(host: Host, batch: Batch, request: Request) -> Tensor | None:
    """The columns whose logits are needed; None for all. Logits are the largest tensor by far."""
    if request.positions is None or not any(site.address == "logits" for site in request.sites):
        return None
    if not keep_columns_argument(host.head_accepts) or _logits_are_edited():
        return None
    used = request.positions.in_prompt(batch).any(0)
    return used.nonzero().flatten() if bool(used.any()) else None


def _restore_logits(taps: list[Tap], batch: Batch, columns: Tensor, request: Request) -> None:
    """Pick the selected rows out of logits that were computed for some columns only."""
    assert request.positions is not None
    for tap in taps:
        if tap.site.address == "logits" and tap.value is not None and tap.value.dim() == 3:
            tap.picked = request.positions.in_prompt(batch)[:, columns.to(batch.ids.device)]
            tap.value = tap.value[tap.picked.to(tap.value.device)]


# Putting results together -------------------------------------------------------------------------------------------


def _gather(host: Host, batch: Batch | None, request: Request, taps: list[Tap], session: Session) -> Activations:
    values: dict[str, Tensor] = {}
    axes: dict[str, tuple[str, ...]] = {}
    places = _places(batch, request.positions)
    single = places is not None and batch is not None and places[:, 0].tolist() == list(range(len(batch)))
    for tap in taps:
        assert tap.value is not None
        values[tap.site.address] = tap.value
        axes[tap.site.address] = _axes(tap.site, tap.value, request.positions is not None, single)
    sources = {tap.site.address: (tap.source, _viewer(host, tap, session)) for tap in taps if tap.source is not None}
    return Activations(
        values, axes, batch, places, host.tokenizer,
        session.receipt.layers_run, session.receipt.layers_skipped, sources, session.receipt.tokens_by_expert,
    )  # fmt: skip


def _viewer(host: Host, tap: Tap, session: Session) -> Callable[[Tensor], Tensor]:
    rows, picked = session.forward.rows if session.forward else 1, tap.picked

    def view(gradient: Tensor) -> Tensor:
        whole = site_view(host, tap.site, gradient, rows)
        return whole if picked is None else whole[picked.to(whole.device)]

    return view


def _places(batch: Batch | None, positions: Positions | None) -> Tensor | None:
    if batch is None or positions is None:
        return None
    return positions.in_prompt(batch).nonzero()


def _axes(site: SiteInfo, value: Tensor, selected: bool, single: bool) -> tuple[str, ...]:
    axes = site.port.axes
    if selected and _has_tokens(site):
        rest = axes[2:] if axes else tuple(f"axis{index}" for index in range(1, value.dim()))
        return ("example" if single else "position", *rest)
    if len(axes) == value.dim():
        return axes
    if not axes and value.dim() == 3:
        return ("example", "token", "feature")
    return ("example", *(f"axis{index}" for index in range(1, value.dim())))


# Many forwards ------------------------------------------------------------------------------------------------------


def chunks(batch: Batch, tokens: int) -> Iterator[tuple[Tensor, Batch]]:
    """Parts of a batch with at most `tokens` tokens each, rows sorted by length, with their row numbers."""
    lengths = batch.mask.sum(-1)
    order = lengths.argsort(stable=True)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and int(lengths[order[stop]]) * (stop + 1 - start) <= tokens:
            stop += 1
        rows = order[start:stop]
        yield rows, batch.pick(rows)
        start = stop


def _many_forwards(host: Host, batch: Batch, request: Request, tokens: int) -> Activations:
    parts = list(chunks(batch, tokens))
    whole: dict[str, Tensor] = {}
    places = _places(batch, request.positions)
    # Sites without tokens, such as a pooled vector, are read whole whatever the positions.
    at = {site.address: places if _has_tokens(site) else None for site in request.sites}
    last: Activations | None = None
    experts: dict[str, Tensor] = {}
    for rows, part in track(parts, "reading activations"):
        last = _one_forward(host, part, request)
        for site, value in last.items():
            if site not in whole:
                whole[site] = _empty(site, batch, at[site], last.axes[site], value)
            _put(whole[site], value, last, rows, batch, at[site], last.axes[site])
        for place, counts in last.tokens_by_expert.items():
            experts[place] = experts[place] + counts if place in experts else counts
    if last is None:
        raise BadInput("no prompt was given: pass at least one")
    single = places is not None and places[:, 0].tolist() == list(range(len(batch)))
    axes = {site: _whole_axes(named, at[site] is not None, single) for site, named in last.axes.items()}
    return Activations(whole, axes, batch, places, host.tokenizer, last.layers_run, last.layers_skipped, {}, experts)


def _whole_axes(axes: tuple[str, ...], selected: bool, single: bool) -> tuple[str, ...]:
    """A part may have one position in each row where the whole has not."""
    if not selected or "token" in axes:
        return axes
    return ("example" if single else "position", *axes[1:])


def _empty(site: str, batch: Batch, places: Tensor | None, axes: tuple[str, ...], value: Tensor) -> Tensor:
    if axes[:2] == ("example", "token"):
        shape = (len(batch), batch.width, *value.shape[2:])
    elif places is not None:
        shape = (len(places), *value.shape[1:])
    else:
        shape = (len(batch), *value.shape[1:])
    if axes[-1] != "key":
        return torch.zeros(shape, dtype=value.dtype, device=value.device)
    # Keys that a part did not have are padding, which nobody looks at.
    nothing = -torch.inf if site.endswith(".scores") else 0.0
    return torch.full((*shape[:-1], batch.width), nothing, dtype=value.dtype, device=value.device)


def _put(
    whole: Tensor, value: Tensor, part: Activations, rows: Tensor, batch: Batch, places: Tensor | None, axes: Any
) -> None:
    rows = rows.to(whole.device)
    # A part is narrower than the whole; its tokens stand at the columns that are no padding.
    first = int(batch.mask[rows.cpu()].any(0).nonzero()[0])
    if axes[-1] == "key":
        whole = whole[..., first : first + value.shape[-1]]
    if axes[:2] == ("example", "token"):
        whole[rows, first : first + value.shape[1]] = value
    elif places is None:
        whole[rows] = value
    else:
        for row, global_row in enumerate(rows.tolist()):
            assert part.places is not None
            whole[(places[:, 0] == global_row).to(whole.device)] = value[(part.places[:, 0] == row).to(value.device)]
