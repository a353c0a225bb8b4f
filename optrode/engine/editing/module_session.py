"""What edits of whole modules share: their outputs are changed, with a receipt for each, and judged at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from ...errors import EditDidNothing, NotFinite
from ...host import Host, SiteInfo
from ...positions import Positions
from ..hooks import Point
from .receipt import Receipt, SiteReceipt
from .session import Session


@dataclass(frozen=True)
class Words:
    """How messages call an edit: `not_finite` with a place for the site, `subject` of a sentence, `modules` of it."""

    not_finite: str
    subject: str
    modules: str


class ModuleSession(Session):
    """Modules whose output is another one, while they are the context's."""

    words: Words

    def __init__(self, host: Host):
        super().__init__(host)
        self.positions = [Positions("all")]
        self._receipts: dict[nn.Module, SiteReceipt] = {}

    @property
    def changes(self) -> bool:
        return bool(self._receipts)

    def points(self) -> list[Point]:
        return list(dict.fromkeys([*super().points(), *((module, "out") for module in self._receipts)]))

    def changed_sites(self) -> list[SiteInfo]:
        return self.host.match([receipt.address for receipt in self._receipts.values()])

    def _enter(self, module: nn.Module, receipt: SiteReceipt) -> None:
        self.receipt.sites[receipt.address] = receipt
        self._receipts[module] = receipt

    def _record(self, receipt: SiteReceipt, old: Tensor, new: Tensor) -> None:
        if not self.counting:
            return
        decode = self.forward.decode if self.forward else False
        with self._counting:
            receipt.offer({"all": (None, old[..., 0].numel())})
            receipt.record(old.detach().float(), new.detach().float(), decode)


@contextmanager
def module_edit(session: ModuleSession) -> Iterator[Receipt]:
    """The block of an edit of whole modules. Raises `EditDidNothing` and `NotFinite` when it ends."""
    if not session.changes:
        session.receipt.note("strength 0: nothing was installed")
        yield session.receipt
        return
    with session.active():
        yield session.receipt
    _judge(session.receipt, session.words)


def _judge(receipt: Receipt, words: Words) -> None:
    idle = [site.address for site in receipt.sites.values() if not site.calls]
    for site in receipt.sites.values():
        if site.calls and not site.finite:
            raise NotFinite(words.not_finite.format(site.address))
    if len(idle) == len(receipt.sites):
        what = f"{idle[0]} did not run" if receipt.forwards else "no forward of the model ran"
        raise EditDidNothing(f"{words.subject} never fired: {what} inside the block")
    if idle:
        receipt.note(f"{len(idle)} of {len(receipt.sites)} {words.modules} never ran, such as {idle[0]}")
