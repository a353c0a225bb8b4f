"""Part edits in a context: the output of a module is what another one makes of the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ...edits.part import PartEdit
from ...errors import NotSupported, UnknownSite, WrongShape, did_you_mean
from ...host import Host
from ..recompute import full_precision
from ..twin import refuse_compiled
from .identity import check_model
from .module_session import ModuleSession, Words, module_edit
from .receipt import Receipt, SiteReceipt


class PartSession(ModuleSession):
    """Modules that stand in for others, while they are the context's."""

    words = Words("what stands in for {} made NaN or infinity", "the edit", "modules")

    def __init__(self, host: Host, edit: PartEdit):
        super().__init__(host)
        self._strength = edit.strength
        self._parts: dict[nn.Module, nn.Module] = {}
        for path, new in edit.parts if edit.strength else ():
            try:
                module = host.submodule(path)
            except (KeyError, AttributeError):
                paths = [known for known in host.paths if known]
                raise UnknownSite(f"{host.name} has no module '{path}': {did_you_mean(path, paths)}") from None
            self._enter(module, SiteReceipt(f"module:{path}"))
            self._parts[module] = new

    def add_weights(self, module: nn.Module, args: tuple, output: Any) -> Any:
        receipt = self._receipts.get(module)
        if receipt is None:
            return output
        if not isinstance(output, Tensor):
            raise NotSupported(f"{receipt.address} does not give one tensor, so nothing can stand in for it")
        new = self._parts[module]
        if any(value.device != output.device for value in new.parameters()):
            # One from a file was made on the CPU.
            new.to(output.device)
        with full_precision(output):
            # One that stands in for some neurons alone takes the others as they are.
            given = new.over(output, *args) if hasattr(new, "over") else new(*args)  # type: ignore[operator]
        if given.shape != output.shape:
            raise WrongShape(
                f"what stands in for {receipt.address} gives shape {list(given.shape)}, not {list(output.shape)}"
            )
        given = given.to(output.dtype)
        if self._strength != 1:
            given = output + self._strength * (given - output)
        self._record(receipt, output, given)
        return given


@contextmanager
def part_edit(host: Host, edit: PartEdit) -> Iterator[Receipt]:
    """The block of `model.edited(part)`."""
    refuse_compiled(host)
    check_model(host, [edit.provenance])
    with module_edit(PartSession(host, edit)) as receipt:
        yield receipt
