"""A session: what one `read` or one `edited` block does at which module, while it is the context's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...edits.base import Change
from ...edits.rows import RowPositions
from ...errors import NotSupported, WrongShape
from ...host import Host, SiteInfo
from ...positions import Positions
from ..attention import SIDES
from ..experts import layer_of, of_experts, rerun
from ..hooks import ACTIVE, HOOKS, Point, active_sessions
from ..places import Forward, Memories, Places, forward_from_call
from ..recompute import begun_in, full_precision, in_region, known_again, outside_graph, refuse_lost_gradients
from ..torch_names import Region, backward_number
from ..tower_forwards import layers_run, tower_forward
from ..twin import refuse_compiled
from ..views import first_tensor, input_tensor, put_first, site_unview, site_view
from .actions import EditAction, StopForward, Tap
from .moment import Moment, Running
from .receipt import Receipt, SiteReceipt
from .undo import sure


class Session:
    """Actions by module and side, and the forward they are in."""

    def __init__(self, host: Host):
        self.host = host
        self.receipt = Receipt()
        self.taps: dict[Point, list[Tap]] = {}
        self.edits: dict[Point, list[EditAction]] = {}
        self.sums: dict[Point, list[EditAction]] = {}
        self.residuals: dict[nn.Module, list[EditAction]] = {}
        # What edits select, to know where a resumed forward has to begin.
        self.positions: list[Positions | RowPositions] = []
        self.stops = False
        self.over = False
        # False in a pass that runs again in the backward, which applies edits and counts nothing.
        self.counts = True
        self.begun_in: frozenset[int] = frozenset()
        self._backward = -1
        self.first_layer = 0
        self._running = Running()
        # What conditions decided of prompts that are still being answered.
        self._memories = Memories()
        # Receipts are counted up by all threads that run under this session.
        self._counting = threading.Lock()

    @property
    def forward(self) -> Forward | None:
        """The forward that this thread is in, or was in last."""
        return self._running.forward

    @forward.setter
    def forward(self, forward: Forward | None) -> None:
        self._running.forward = forward

    def forward_of(self, site: SiteInfo) -> Forward | None:
        """The forward that a site is in: that of its tower, or of the network."""
        return self._running.towers.get(site.tower) if site.tower else self._running.forward

    # Building ------------------------------------------------------------------------------------------------------

    def add_tap(self, tap: Tap) -> None:
        self.taps.setdefault(self._point(tap.site), []).append(tap)

    def add_edit(self, site: SiteInfo, change: Change, receipt: SiteReceipt, trained: bool = False) -> None:
        action = EditAction(site, change, receipt, trained)
        if site.adds_to is None:
            self.edits.setdefault(self._point(site), []).append(action)
            return
        # The sum is known only where the part is added, so the block's input is noted on the way in.
        self.residuals.setdefault(self._block(site), []).append(action)
        self.sums.setdefault(self._point(self.host.table[site.adds_to]), []).append(action)

    def _block(self, site: SiteInfo) -> nn.Module:
        return self.host.of(site).blocks[site.layer or 0]

    def _point(self, site: SiteInfo) -> Point:
        return self.host.submodule(site.module), site.port.side

    def points(self) -> list[Point]:
        entry = [(self.host.entrance, "in")]
        if self._in_towers:
            entry += [(tower.module, "in") for tower in self.host.tower_hosts.values()]
        noted = [(block, "in") for block in self.residuals]
        points = [*entry, *self.taps, *self.edits, *self.sums, *noted]
        return list(dict.fromkeys((module, "attention" if side in SIDES else side) for module, side in points))

    @property
    def _in_towers(self) -> bool:
        """Whether any site lies in one of several towers."""
        actions = [*self.edits.values(), *self.sums.values()]
        edited = any(action.site.tower for found in actions for action in found)
        return edited or any(tap.site.tower for found in self.taps.values() for tap in found)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Hooks in place and this session the innermost of the context, until the block ends in any way."""
        refuse_compiled(self.host)
        points, user = self.points(), object()
        self.begun_in, self._backward = begun_in(), backward_number()
        with sure(lambda: HOOKS.drop(points, user)):
            HOOKS.take(points, user)
            with sure(self._leave):
                ACTIVE.set((*ACTIVE.get(), self))
                yield

    def _leave(self) -> None:
        # Blocks may end in another order or context than they began in, as generators do when they are closed.
        self.over = True
        ACTIVE.set(tuple(session for session in ACTIVE.get() if session is not self))

    # Running again in the backward ---------------------------------------------------------------------------------

    @property
    def changes(self) -> bool:
        """Whether it changes anything, or only looks."""
        return bool(self.edits or self.sums)

    @property
    def counting(self) -> bool:
        """False in a pass that runs again what has run before: in a replay, or in a backward it did not begin in."""
        return self.counts and backward_number() == self._backward

    @property
    def may_run_again(self) -> bool:
        """Whether it changes anything that a checkpointed region may run again in the backward."""
        return self.changes and (self._running.graph or torch.is_grad_enabled())

    def moment(self, region: Region) -> Moment:
        """This session in the forward that this thread is in, to go on from at the beginning of the region."""
        inputs = {block: known_again(tensor, region) for block, tensor in self._running.inputs.items()}
        return Moment(self, self.forward, dict(self._running.towers), inputs)

    # Running -------------------------------------------------------------------------------------------------------

    def begin_forward(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if module is not self.host.entrance:
            self._begin_tower(module, args, kwargs)
            return
        running = self._running
        running.forward = forward_from_call(self.host, args, kwargs)
        running.inputs.clear()
        running.graph = torch.is_grad_enabled() or in_region()
        running.begun.clear()
        if not self.counting:
            return
        with self._counting:
            self.receipt.forwards += 1
        self._count_layers()
        running.waiting = sum(len(taps) for taps in self.taps.values())
        running.counted.clear()
        for taps in self.taps.values():
            for tap in taps:
                tap.value, tap.source, tap.fired = None, None, 0

    def _begin_tower(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        for prefix, tower in self.host.tower_hosts.items():
            if tower.module is module:
                towers = self._running.towers
                towers[prefix] = tower_forward(self.host, prefix, args, kwargs, towers.get(prefix))
                self._running.begun.append(prefix)
                if self.counting:
                    self._count_layers()

    def _count_layers(self, last: SiteInfo | None = None) -> None:
        """Say how many blocks run, up to the last site where the forward stops, and how many are left out."""
        begun = self._running.begun if self._in_towers else None
        ran, skipped = layers_run(self.host, begun, last, self.first_layer)
        for session in active_sessions() if last else [self]:
            session.receipt.layers_run, session.receipt.layers_skipped = ran, skipped
            session.receipt.first_layer = self.first_layer

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
        if module in self.residuals:
            self._running.inputs[module] = tensor
        self._tap(point, tensor)

    def changed_sites(self) -> list[SiteInfo]:
        """The sites where something is changed, to know where a resumed forward has to begin."""
        return [action.site for found in (*self.edits.values(), *self.sums.values()) for action in found]

    def add_weights(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """The output with what changed weights of the module add to it; see `adapters`."""
        return output

    def reroute(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """The output of a module that chooses by its first product, after it has run again with an edited one."""
        point = (module, "out")
        actions = [action for action in self.edits.get(point, ()) if action.site.port.reruns]
        taps = [tap for tap in self.taps.get(point, ()) if tap.site.port.reruns]
        graph = [tap for tap in taps if tap.keep_graph and tap.begins_graph]
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
            new = self._changed(action, site_view(self.host, site, tensor, self._rows(site, tensor)), chosen)
            return tensor if new is None else site_unview(self.host, site, tensor, new.to(tensor.dtype))
        total = self._stream_into(site) + site.scale * tensor
        new = self._changed(action, total)
        if new is None:
            return tensor
        return (tensor.to(new.dtype) + (new - total.to(new.dtype)) / site.scale).to(tensor.dtype)

    def _stream_into(self, site: SiteInfo) -> Tensor:
        """What the block of a sum was given."""
        noted = self._running.inputs.get(self._block(site))
        if noted is None:
            raise NotSupported(
                f"{site.address} cannot be edited in a checkpointed part of a block, which does not get the block's "
                "input: checkpoint whole blocks"
            )
        return noted

    def _rows(self, site: SiteInfo, tensor: Tensor) -> int:
        forward = self.forward_of(site)
        return forward.rows if forward else tensor.shape[0]

    def _changed(self, action: EditAction, h: Tensor, chosen: Tensor | None = None) -> Tensor | None:
        """The edited activation in the edit's own precision (float32 at least), or None where nothing was selected."""
        wide = h.float() if h.dtype in (torch.float16, torch.bfloat16) else h
        places = self._places(action.site, wide)
        if chosen is not None:
            places.chosen = chosen.unflatten(0, (self._rows(action.site, chosen), -1))
        if action.trained:
            refuse_lost_gradients(action.site.address)
        try:
            with full_precision(wide):
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
        if not self.counting:
            return None if new is wide else new
        forward = self.forward_of(action.site)
        decode = forward.decode if forward else False
        # What the network's own precision rounds away was not changed, and what overflows there is not finite.
        kept = new if wide is h or new is wide else new.to(h.dtype).float()
        before, after = (_seen_only(wide), _seen_only(kept)) if scores else (wide, kept)
        headed = bool({"head", "rank"} & set(action.site.port.axes[:-1]))
        with self._counting:
            action.receipt.offer(places.offered)
            action.receipt.offer_experts(places.routed_pairs)
            action.receipt.offer_conditions(places.decided, places.acts)
            action.receipt.record(before, after, decode, headed=headed, rows=places)
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
        site = self._sites(point)[0]
        place, forward = layer_of(site.address), self.forward_of(site)
        if place in self._running.counted or not self.counting:
            return
        self._running.counted.add(place)
        chosen = chosen.unflatten(0, (self._rows(site, chosen), -1))
        real = forward.select(Positions("all"), chosen.device) if forward else None
        if real is not None and real[0] is not None:
            chosen = chosen[real[0]]
        counts = torch.bincount(chosen.flatten(), minlength=experts)[:experts].cpu()
        known = self.receipt.tokens_by_expert
        with self._counting:
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
        if not self.counting:
            return
        if tap.keep_graph and outside_graph():
            raise NotSupported(
                f"{tap.site.address} lies in a reentrant checkpoint, which keeps no graph of it: checkpoint with "
                "use_reentrant=False"
            )
        begins = tensor.requires_grad or tap.begins_graph
        if tap.keep_graph and begins and torch.is_grad_enabled() and tensor.is_floating_point():
            # With frozen weights nothing upstream asks for gradients: the graph begins here.
            tap.source = tensor if tensor.requires_grad else tensor.requires_grad_(True)
        h = site_view(self.host, tap.site, tensor, self._rows(tap.site, tensor))
        tap.take(h, self._places(tap.site, h))
        self._running.tower = tap.site.tower
        self._running.waiting -= tap.fired == 1

    def _stop(self) -> None:
        """End the forward where everything that was asked for has been seen."""
        if not self.stops or self._running.waiting != 0 or not self.counting:
            return
        if torch.is_grad_enabled() and in_region():
            # A checkpointed region must have run to its end to run again.
            return
        # Of the tower that is running, the last site; the others have run to their end, or not at all.
        sites = [tap.site for found in self.taps.values() for tap in found if tap.site.rank]
        here = [site for site in sites if site.tower == self._running.tower]
        self._count_layers(max(here, key=lambda site: site.rank or (-1, 0)))
        raise StopForward

    def _places(self, site: SiteInfo, h: Tensor) -> Places:
        forward = self.forward_of(site) or Forward(None, h.shape[0], 0, 1)
        axes = site.port.axes
        by_token = bool({"token", "written"} & set(axes))
        by_token = by_token or (not axes and h.dim() > 2 and h.shape[:2] == (forward.rows, forward.count))
        if site.port.side == "key":
            forward = forward.over_keys(h.shape[1])
        if "patch" in axes or (by_token and forward.batch is None and h.dim() > 1 and h.shape[1] != forward.count):
            by_token = False
        return Places(forward, h, by_token, self._memories)


def _seen_only(scores: Tensor) -> Tensor:
    """Scores with 0 where a query does not look, so that sizes of changes are numbers."""
    return scores.masked_fill(scores == -torch.inf, 0.0)


def _shape(tensor: Tensor) -> str:
    return "[" + ", ".join(map(str, tensor.shape)) + "]"


def _line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]
