"""The vocabulary in which a layout is written: ports (where one activation can be read and written) and equations."""

from __future__ import annotations

from dataclasses import dataclass, field

TOKENS = ("example", "token", "feature")
HEADS = ("example", "token", "head", "feature")
PIXELS = ("example", "row", "column", "channel")
VECTOR = ("example", "feature")


@dataclass(frozen=True)
class Port:
    """One side of one module.

    `module` is relative to the block (or to the base model, for sites outside the blocks); `side` is `in` (first
    input) or `out` (first output). `axes` name the axes as the user sees them, the feature axis last.
    `part` (i, n) takes the i-th of n equal parts of the last axis (fused projections); `heads` splits it into the
    `query` or `key` heads; `headed` says that the module's own tensor has a head axis already.
    `channels_first` marks [example, channel, row, column] tensors.
    `adds_to` marks an activation that is the sum of the block's input and another port's output and cannot be written
    where it is read: a change is added to that port instead.
    """

    module: str
    side: str
    says: str
    axes: tuple[str, ...] = TOKENS
    part: tuple[int, int] | None = None
    heads: str | None = None
    headed: bool = False
    channels_first: bool = False
    adds_to: str | None = None


@dataclass(frozen=True)
class Equation:
    """`norm(sum of terms) = result`, all sites of one block; `norm` is a module of the block or None."""

    result: str
    terms: tuple[str, ...]
    norm: str | None = None

    def __str__(self) -> str:
        total = " + ".join(self.terms)
        return f"{self.result} = {f'{self.norm}({total})' if self.norm else total}"


@dataclass(frozen=True)
class Layout:
    """The map of one architecture.

    `blocks` is the path of the list of blocks below the base model. Dictionaries are in order of execution: the
    engine stops after the last port that a read needs. `outer_before` and `outer_after` are relative to the base
    model, `head` (path and text) to the whole model.
    """

    name: str
    blocks: str
    ports: dict[str, Port]
    model_types: tuple[str, ...] = ()
    module_classes: tuple[str, ...] = ()
    outer_before: dict[str, Port] = field(default_factory=dict)
    outer_after: dict[str, Port] = field(default_factory=dict)
    head: Port | None = None
    equations: tuple[Equation, ...] = ()
    causal: bool = True
