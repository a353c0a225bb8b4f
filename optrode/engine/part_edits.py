"""Part edits in a context: the output of a module is what another one makes of the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..edits.part import PartEdit
from ..errors import EditDidNothing, NotFinite, NotSupported, UnknownSite, WrongShape, did_you_mean
from ..host import Host, SiteInfo
from ..positions import Positions
from .hooks import Point
from .identity import check_model
from .receipt import Receipt, SiteReceipt
from .recompute import full_precision
from .session import Session
from .twin import refuse_compiled


class PartSession(Session):
    """Modules that stand in for others, while they are the context's."""

    def __init__(self, host: Host, edit: PartEdit):
        super().__init__(host)
        self._strength = edit.strength
        self._parts: dict[nn.Module, tuple[nn.Module, SiteReceipt]] = {}
        self.positions = [Positions("all")]
        for path, new in edit.parts if edit.strength else ():
            try:
                module = host.submodule(path)
            except (KeyError, AttributeError):
                paths = [known for known in host.paths if known]
                raise UnknownSite(f"{host.name} has no module '{path}': {did_you_mean(path, paths)}") from None
            receipt = SiteReceipt(f"module:{path}")
            self.receipt.sites[receipt.address] = receipt
            self._parts[module] = (new, receipt)

    @property
    def changes(self) -> bool:
        return bool(self._parts)

    def points(self) -> list[Point]:
        return list(dict.fromkeys([*super().points(), *((module, "out") for module in self._parts)]))

    def changed_sites(self) -> list[SiteInfo]:
        return self.host.match([receipt.address for _, receipt in self._parts.values()])

    def add_weights(self, module: nn.Module, args: tuple, output: Any) -> Any:
        found = self._parts.get(module)
        if found is None:
            return output
        new, receipt = found
        if not isinstance(output, Tensor):
            raise NotSupported(f"{receipt.address} does not give one tensor, so nothing can stand in for it")
        with full_precision(output):
            given = new(*args)
        if given.shape != output.shape:
            raise WrongShape(
                f"what stands in for {receipt.address} gives shape {list(given.shape)}, not {list(output.shape)}"
            )
        given = given.to(output.dtype)
        if self._strength != 1:
            given = output + self._strength * (given - output)
        if self.counting:
            self._record(receipt, output, given)
        return given

    def _record(self, receipt: SiteReceipt, old: Tensor, new: Tensor) -> None:
        decode = self.forward.decode if self.forward else False
        with self._counting:
            receipt.offer({"all": (None, old[..., 0].numel())})
            receipt.record(old.detach().float(), new.detach().float(), decode)


@contextmanager
def part_edit(host: Host, edit: PartEdit) -> Iterator[Receipt]:
    """The block of `model.edited(part)`."""
    refuse_compiled(host)
    check_model(host, [edit.provenance])
    session = PartSession(host, edit)
    if not session.changes:
        session.receipt.note("strength 0: nothing was installed")
        yield session.receipt
        return
    with session.active():
        yield session.receipt
    _judge(session.receipt)


def _judge(receipt: Receipt) -> None:
    idle = [site.address for site in receipt.sites.values() if not site.calls]
    for site in receipt.sites.values():
        if site.calls and not site.finite:
            raise NotFinite(f"what stands in for {site.address} made NaN or infinity")
    if len(idle) == len(receipt.sites):
        what = f"{idle[0]} did not run" if receipt.forwards else "no forward of the model ran"
        raise EditDidNothing(f"the edit never fired: {what} inside the block")
    if idle:
        receipt.note(f"{len(idle)} of {len(receipt.sites)} modules never ran, such as {idle[0]}")
