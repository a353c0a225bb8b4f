"""`with model.recording(sites) as rec:` keeps activations of the user's own forwards, graph and all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from ...activations import Activations
from ...errors import NotSupported
from ...host import Host
from ...positions import Positions
from ..editing.actions import Tap
from ..editing.session import Session
from .gather import gather
from .request import Request


@dataclass
class Recording(Activations):
    """Activations of the last forward that ran in the block, as `Activations` that change with every forward.

    Tensors are those of the forward itself, so that a loss on them reaches every weight or edit that they depend on.
    Tensors that were taken out stay as they are when the next forward comes. `forwards` counts forwards.
    """

    forwards: int = 0
    wanted: tuple[str, ...] = ()
    _taps: dict[str, Tap] = field(default_factory=dict, repr=False)

    def __getitem__(self, site: str) -> Tensor:
        if site in self.wanted and site not in self.values_by_site:
            happened = "did not run in the last forward" if self.forwards else "was not run: no forward has run yet"
            raise NotSupported(f"{site} {happened}, so nothing was recorded of it")
        value = super().__getitem__(site)
        if self._taps[site].overwritten:
            raise NotSupported(f"{site} is overwritten in place by the network after it was recorded: use another site")
        return value


class _RecordingSession(Session):
    """Taps that put what they get into a recording at once, since nobody knows when a forward has come to its end."""

    def __init__(self, host: Host, request: Request):
        super().__init__(host)
        self._request = request
        self.recording = Recording({}, {}, tokenizer=host.tokenizer, wanted=tuple(s.address for s in request.sites))
        for site in request.sites:
            self.add_tap(Tap(site, request.positions, keep_graph=True, begins_graph=False))

    def begin_forward(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        super().begin_forward(module, args, kwargs)
        if module is self.host.entrance and self.counting:
            self.recording.forwards += 1
            for table in (self.recording.values_by_site, self.recording.axes, self.recording.sources):
                table.clear()

    def _take(self, tap: Tap, tensor: Tensor) -> None:
        super()._take(tap, tensor)
        if not self.counting:
            return
        address, rec = tap.site.address, self.recording
        if tap.fired > 1:
            raise NotSupported(
                f"{address} ran {tap.fired} times in one forward, so it is not one activation: record other modules"
            )
        forward = self.forward_of(tap.site)
        found = gather(self.host, forward.batch if forward else None, self._request, [tap], self)
        rec.values_by_site[address], rec.axes[address] = found[address], found.axes[address]
        rec.sources |= found.sources
        rec.batch, rec.places, rec.tokens_by_expert = found.batch, found.places, found.tokens_by_expert
        rec.layers_run, rec.layers_skipped = found.layers_run, found.layers_skipped
        rec._taps[address] = tap


@contextmanager
def recording(
    host: Host, sites: str | Sequence[str], *, positions: str | Positions | None = None
) -> Iterator[Recording]:
    """Activations at `sites` of the forwards that the caller runs inside the block, with their graph.

    `positions` as in `read`: None keeps whole rows. Nothing is changed, stopped or copied, and values are those that
    the network goes on with, edits included. The graph lives as long as the recording or the loss does, so that its
    memory is that of training. Where gradients are off there is none. Inside a reentrant checkpoint no graph can be
    had: `NotSupported`.

    `rec.gradients(loss)` knows the sites that depend on something that is trained; to have gradients at sites of a
    network that is frozen, read with `grad=True`.
    """
    selection = Positions(positions) if isinstance(positions, str) else positions
    session = _RecordingSession(host, Request(host.match(sites), selection, grad=True))
    with session.active():
        yield session.recording
