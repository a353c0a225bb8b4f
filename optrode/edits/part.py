"""Part edits: another function in the place of a module, while the edit is active; the module itself stays as it is.

>>> from torch import nn
>>> edit = PartEdit((("model.layers.0.mlp.act_fn", nn.GELU()),))
>>> edit.modules, (edit * 0.5).strength
(['model.layers.0.mlp.act_fn'], 0.5)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import nn

from ..errors import BadInput
from .base import Edit, Provenance, scaled


@dataclass(frozen=True, eq=False)
class PartEdit(Edit):
    """Modules that give what other modules give: `parts` are (path in the network, the new module).

    The new module is called with the old one's inputs, and its output goes on in place of the old one's; with a
    strength s, old + s (new - old). The old module runs too, so that hooks of others see it. Parameters of the new
    modules take gradients: give `parameters()` to an optimiser.
    """

    kind: ClassVar[str] = "part"
    parts: tuple[tuple[str, nn.Module], ...]
    strength: float = 1.0
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if not self.parts:
            raise BadInput("a part edit needs at least one module that it stands in for")

    @property
    def modules(self) -> list[str]:
        """Paths of the modules whose place is taken, in order."""
        return [path for path, _ in self.parts]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the new modules."""
        yield from nn.ModuleList(module for _, module in self.parts).parameters()

    def __mul__(self, strength: float) -> PartEdit:
        return replace(self, strength=scaled(self.strength, strength))

    def with_provenance(self, provenance: Provenance) -> PartEdit:
        return replace(self, provenance=provenance)
