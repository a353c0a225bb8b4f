"""A session: what one `read` or one `edited` block does at which module, while it is the context's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..edits.base import Change
from ..errors import WrongShape
from ..host import Host, SiteInfo
from ..positions import Positions
from .actions import EditAction, StopForward, Tap
from .attention import SIDES
from .experts import layer_of, of_experts, rerun
from .hooks import ACTIVE, Point, active_sessions, hook_set
from .places import Forward, Places, forward_from_call
from .receipt import Receipt, SiteReceipt
from .views import first_tensor, input_tensor, put_first, site_unview, site_view


class Session:
    """Actions by module and side, and the forward they are in."""

    def __init__(self, host: Host):
        self.host = host
        self.receipt = Receipt()
        self.taps: dict[Point, list[Tap]] = {}
        self.edits: dict[Point, list[EditAction]] = {}
        self.sums: dict[Point, list[EditAction]] = {}
        self.residuals: dict[nn.Module, list[EditAction]] = {}
        self.positions: list[Positions] = []
        self.stops = False
        self.over = False
        self.first_layer = 0
        self.forward: Forward | None = None
        self._waiting = 0
        self._counted: set[str] = set()

    # Building ------------------------------------------------------------------------------------------------------

    def add_tap(self, tap: Tap) -> None:
        self.taps.setdefault(self._point(tap.site), []).append(tap)

    def add_edit(self, site: SiteInfo, change: Change, receipt: SiteReceipt) -> None:
        action = EditAction(site, change, receipt)
        if site.adds_to is None:
            self.edits.setdefault(self._point(site), []).append(action)
            return
        # The sum is known only where the part is added, so the block's input is noted on the way in.
        self.residuals.setdefault(self.host.blocks[site.layer or 0], []).append(action)
        self.sums.setdefault(self._point(self.host.table[site.adds_to]), []).append(action)

    def _point(self, site: SiteInfo) -> Point:
        return self.host.submodule(site.module), site.port.side

    def points(self) -> list[Point]:
        entry = [(self.host.base, "in")]
        noted = [(block, "in") for block in self.residuals]
        points = [*entry, *self.taps, *self.edits, *self.sums, *noted]
        return list(dict.fromkeys((module, "attention" if side in SIDES else side) for module, side in points))

    @contextmanager
    def active(self) -> Iterator[None]:
        """Hooks in place and this session the innermost of the context, until the block ends in any way."""
        release = hook_set(self.host.module).acquire(self.points())
        try:
            ACTIVE.set((*ACTIVE.get(), self))
            yield
        finally:
            # Blocks may end in another order or context than they began in, as generators do when they are closed.
            self.over = True
            ACTIVE.set(tuple(session for session in ACTIVE.get() if session is not self))
            release()

    # Running -------------------------------------------------------------------------------------------------------

    def begin_forward(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if module is not self.host.base:
            return
        self.forward = forward_from_call(self.host, args, kwargs)
        self.receipt.forwards += 1
        self.receipt.layers_run = self.host.layers - self.first_layer
        self.receipt.layers_skipped = self.first_layer
        self._waiting = sum(len(taps) for taps in self.taps.values())
        self._counted.clear()
        for taps in self.taps.values():
            for tap in taps:
                tap.value, tap.source, tap.fired = None, None, 0

    def edit_input(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The arguments with the module's input edited; the very same objects where there is no edit."""
        actions = self.edits.get((module, "in"))
        if not actions:
            return args, kwargs
        name, tensor = input_tensor(module, args, kwargs)
        new = self._applied(actions, tensor)
        if new is tensor:
            return args, kwargs
        return ((new, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: new})

    def see_input(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Note the input that all sessions have left, for sums that begin with it and for taps."""
        point = (module, "in")
        if point not in self.taps and module not in self.residuals:
            return
        tensor = input_tensor(module, args, kwargs)[1]
        for action in self.residuals.get(module, ()):
            action.residual["in"] = tensor
        self._tap(point, tensor)

    def reroute(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """The output of a module that chooses by its first product, after it has run again with an edited one."""
        point = (module, "out")
        actions = [action for action in self.edits.get(point, ()) if action.site.port.reruns]
        graph = [tap for tap in self.taps.get(point, ()) if tap.site.port.reruns and tap.keep_graph]
        if not actions and not graph:
            return output
        scores = first_tensor(output, type(module).__name__)
        new = self._applied(actions, scores)
        if graph and torch.is_grad_enabled() and not new.requires_grad:
            # With frozen weights the choice has been made outside of any graph.
            return rerun(module, args, new.detach().requires_grad_(True))
        return output if new is scores else rerun(module, args, new)

    def edit_output(self, module: nn.Module, output: Any) -> Any:
        actions = [action for action in self.edits.get((module, "out"), ()) if not action.site.port.reruns]
        return self._written(actions, module, output)

    def write_sums(self, module: nn.Module, output: Any) -> Any:
        return self._written(self.sums.get((module, "out")), module, output)

    def see_output(self, module: nn.Module, output: Any) -> None:
        point = (module, "out")
        if point not in self.taps and point not in self.edits:
            return
        chosen = next((self._chosen(site, output) for site in self._sites(point) if of_experts(site.port)), None)
        if chosen is not None:
            self.count_experts(point, chosen, first_tensor(output, type(module).__name__).shape[-1])
        for tap in self.taps.get(point, ()):
            self._take(tap, first_tensor(output, type(module).__name__, tap.site.port.item))
        self._stop()

    def uses(self, point: Point) -> bool:
        """Whether this session reads or edits there."""
        return point in self.taps or point in self.edits

    def edit_inside(self, point: Point, tensor: Tensor) -> Tensor:
        """The tensor at a point inside attention, edited; the very same object where there is no edit."""
        return self._applied(self.edits.get(point, []), tensor)

    def see_inside(self, point: Point, tensor: Tensor) -> None:
        self._tap(point, tensor)

    def _written(self, actions: list[EditAction] | None, module: nn.Module, output: Any) -> Any:
        for action in actions or ():
            item = action.site.port.item if action.site.adds_to is None else 0
            tensor = first_tensor(output, type(module).__name__, item)
            new = self._apply(action, tensor, self._chosen(action.site, output))
            output = output if new is tensor else put_first(output, new, item)
        return output

    def _applied(self, actions: list[EditAction], tensor: Tensor) -> Tensor:
        for action in actions:
            tensor = self._apply(action, tensor)
        return tensor

    def _apply(self, action: EditAction, tensor: Tensor, chosen: Tensor | None = None) -> Tensor:
        site = action.site
        if site.adds_to is None:
            new = self._changed(action, site_view(self.host, site, tensor, self._rows(tensor)), chosen)
            return tensor if new is None else site_unview(self.host, site, tensor, new.to(tensor.dtype))
        total = action.residual["in"] + site.scale * tensor
        new = self._changed(action, total)
        if new is None:
            return tensor
        return (tensor.to(new.dtype) + (new - total.to(new.dtype)) / site.scale).to(tensor.dtype)

    def _rows(self, tensor: Tensor) -> int:
        return self.forward.rows if self.forward else tensor.shape[0]

    def _changed(self, action: EditAction, h: Tensor, chosen: Tensor | None = None) -> Tensor | None:
        """The edited activation in the edit's own precision (float32 at least), or None where nothing was selected."""
        wide = h.float() if h.dtype in (torch.float16, torch.bfloat16) else h
        places = self._places(action.site, wide)
        if chosen is not None:
            places.chosen = chosen.unflatten(0, (self._rows(chosen), -1))
        try:
            new = action.change(wide, places)
        except (RuntimeError, IndexError) as problem:
            raise WrongShape(
                f"the edit does not fit {action.site.address} of shape {_shape(wide)}: {_line(problem)}"
            ) from problem
        if new.shape != wide.shape:
            raise WrongShape(f"the edit turned {action.site.address} of shape {_shape(wide)} into {_shape(new)}")
        scores = action.site.port.side == "scores"
        if scores and new is not wide:
            # Padding and what comes later stay out of sight, whatever the strength makes of infinity.
            new = torch.where(wide == -torch.inf, wide, new)
        decode = self.forward.decode if self.forward else False
        action.receipt.offer(places.offered)
        action.receipt.offer_experts(places.routed_pairs)
        # What the network's own precision rounds away was not changed, and what overflows there is not finite.
        kept = new if wide is h or new is wide else new.to(h.dtype).float()
        before, after = (_seen_only(wide), _seen_only(kept)) if scores else (wide, kept)
        action.receipt.record(before, after, decode, headed=bool({"head", "rank"} & set(action.site.port.axes[:-1])))
        return None if new is wide else new

    # Experts -------------------------------------------------------------------------------------------------------

    def edit_experts(self, module: nn.Module, item: int, value: Tensor, chosen: Tensor) -> Tensor:
        """What every chosen expert computes, [token, rank, feature], after this session's edits of it."""
        for action in self.edits.get((module, "experts"), ()):
            if action.site.port.item == item:
                value = self._apply(action, value, chosen)
        return value

    def see_experts(self, module: nn.Module, item: int, value: Tensor) -> None:
        for tap in self.taps.get((module, "experts"), ()):
            if tap.site.port.item == item:
                self._take(tap, value)
        self._stop()

    def count_experts(self, point: Point, chosen: Tensor, experts: int) -> None:
        """Add up how many tokens (padding is none) each expert got; once for each layer and forward."""
        place = layer_of(self._sites(point)[0].address)
        if place in self._counted:
            return
        self._counted.add(place)
        chosen = chosen.unflatten(0, (self._rows(chosen), -1))
        real = self.forward.select(Positions("all"), chosen.device) if self.forward else None
        if real is not None and real[0] is not None:
            chosen = chosen[real[0]]
        counts = torch.bincount(chosen.flatten(), minlength=experts)[:experts].cpu()
        known = self.receipt.tokens_by_expert
        known[place] = known[place] + counts if place in known else counts

    def _sites(self, point: Point) -> list[SiteInfo]:
        return [action.site for action in (*self.edits.get(point, ()), *self.taps.get(point, ()))]

    def _chosen(self, site: SiteInfo, output: Any) -> Tensor | None:
        """The experts that a router has chosen, [token, rank], for sites of experts."""
        if site.layer is None or not of_experts(site.port):
            return None
        chosen = self.host.table[f"{layer_of(site.address)}.chosen"].port
        return first_tensor(output, site.module, chosen.item)

    # Taps ----------------------------------------------------------------------------------------------------------

    def _tap(self, point: Point, tensor: Tensor) -> None:
        taps = self.taps.get(point)
        for tap in taps or ():
            self._take(tap, tensor)
        if taps:
            self._stop()

    def _take(self, tap: Tap, tensor: Tensor) -> None:
        if tap.keep_graph and torch.is_grad_enabled() and tensor.is_floating_point():
            # With frozen weights nothing upstream asks for gradients: the graph begins here.
            tap.source = tensor if tensor.requires_grad else tensor.requires_grad_(True)
        h = site_view(self.host, tap.site, tensor, self._rows(tensor))
        tap.take(h, self._places(tap.site, h))
        self._waiting -= tap.fired == 1

    def _stop(self) -> None:
        """End the forward where everything that was asked for has been seen."""
        if not self.stops or self._waiting != 0:
            return
        ranks = [tap.site.rank for found in self.taps.values() for tap in found if tap.site.rank]
        layer, order = max(ranks, default=(-1, 0))
        # Before the first site of a block nothing of it has run.
        ran = max(0, min(layer + (order > 0), self.host.layers))
        for session in active_sessions():
            session.receipt.layers_run = ran - self.first_layer
            session.receipt.layers_skipped = self.host.layers - session.receipt.layers_run
        raise StopForward

    def _places(self, site: SiteInfo, h: Tensor) -> Places:
        forward = self.forward or Forward(None, h.shape[0], 0, 1)
        axes = site.port.axes
        by_token = "token" in axes or (not axes and h.dim() > 2 and h.shape[:2] == (forward.rows, forward.count))
        if site.port.side == "key":
            forward = forward.over_keys(h.shape[1])
        if "patch" in axes or (by_token and forward.batch is None and h.dim() > 1 and h.shape[1] != forward.count):
            by_token = False
        return Places(forward, h, by_token)


def _seen_only(scores: Tensor) -> Tensor:
    """Scores with 0 where a query does not look, so that sizes of changes are numbers."""
    return scores.masked_fill(scores == -torch.inf, 0.0)


def _shape(tensor: Tensor) -> str:
    return "[" + ", ".join(map(str, tensor.shape)) + "]"


def _line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]
