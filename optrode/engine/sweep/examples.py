"""The pairs of a sweep: one base and one donor input each, without padding, and the activation that is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...batches import Batch
from ...edits.operators import Operator
from ...errors import BadInput, NotSupported
from ...host import Host, SiteInfo
from ...metrics import Metric, Reference
from ...pictures import are_pictures, pixels
from ...positions import Positions
from ..generating.prompts import encode_edited
from ..places import batch_of
from ..run import Inputs

ABLATIONS = ("zero", "mean")


@dataclass(frozen=True)
class Example:
    """One pair. `donor` is None where no other input gives the values that are put in place."""

    number: int
    base: Inputs
    donor: Inputs | None

    @property
    def batch(self) -> Batch | None:
        return self.base if isinstance(self.base, Batch) else None

    @property
    def width(self) -> int | None:
        """Number of columns of tokens."""
        return self.batch.width if self.batch is not None else None

    @property
    def first_difference(self) -> int:
        """The first column whose token differs; the width where none does, 0 where more than tokens may differ."""
        if not isinstance(self.base, Batch) or not isinstance(self.donor, Batch):
            return 0
        more, others = self.base.extra, self.donor.extra
        if more.keys() != others.keys() or not all(torch.equal(more[name], others[name]) for name in more):
            return 0
        differs = (self.base.ids != self.donor.ids)[0]
        return int(differs.int().argmax()) if bool(differs.any()) else self.base.width


def is_input(host: Host, donor: Any) -> bool:
    """Whether a donor is something to run, and not an ablation, an operator or values by address."""
    if isinstance(donor, str):
        return donor not in ABLATIONS
    if isinstance(donor, Mapping):
        return not any(name in host.table for name in donor)
    return not isinstance(donor, int | float | Operator)


def pairs(host: Host, base: Any, donor: Any, template: str | None, system: str | None) -> list[Example]:
    """One `Example` for each pair. Raises `BadInput` where numbers or lengths do not match, naming them."""
    bases = _split(_inputs(host, base, template, system))
    if not is_input(host, donor):
        return [Example(number, one, None) for number, one in enumerate(bases)]
    donors = _split(_inputs(host, donor, template, system))
    if len(donors) != len(bases):
        raise BadInput(f"there are {len(bases)} base and {len(donors)} donor prompts: give one donor for each base")
    for number, (one, other) in enumerate(zip(bases, donors, strict=True)):
        _refuse_other_size(number, one, other)
    return [Example(number, *pair) for number, pair in enumerate(zip(bases, donors, strict=True))]


def _inputs(host: Host, given: Any, template: str | None, system: str | None) -> Inputs:
    if are_pictures(host, given):
        return pixels(host, given)
    if isinstance(given, Mapping):
        given = dict(given)
    if isinstance(given, Tensor) and given.dim() == 2 and not given.is_floating_point() and "input_ids" in host.accepts:
        given = {"input_ids": given}
    if isinstance(given, dict) and "input_ids" in given:
        return batch_of(host, given)
    if isinstance(given, Batch | Tensor | dict):
        return given
    return encode_edited(host, given, template=template, system=system)


def _split(inputs: Inputs) -> list[Inputs]:
    if isinstance(inputs, Batch):
        return [inputs.pick([row]) for row in range(len(inputs))]
    if isinstance(inputs, Tensor):
        return list(inputs.split(1))
    count = len(next(iter(inputs.values())))
    return [{name: value[row : row + 1] for name, value in inputs.items()} for row in range(count)]


def _refuse_other_size(number: int, base: Inputs, donor: Inputs) -> None:
    if isinstance(base, Batch) and isinstance(donor, Batch):
        if base.width != donor.width:
            raise BadInput(
                f"pair {number}: the base has {base.width} tokens and the donor {donor.width}, but a patch needs them "
                "at the same places: change the texts until both have one length"
            )
        return
    if type(base) is not type(donor):
        raise BadInput(f"pair {number}: base and donor are inputs of different kinds: give both in the same way")
    shapes = [_shapes(base), _shapes(donor)]
    if shapes[0] != shapes[1]:
        raise BadInput(f"pair {number}: the base has the shape {shapes[0]} and the donor {shapes[1]}: give equal ones")


def _shapes(inputs: Inputs) -> list[tuple[int, ...]]:
    values = inputs.values() if isinstance(inputs, dict) else [inputs]
    return [tuple(value.shape) for value in values if isinstance(value, Tensor)]


def repeated(inputs: Inputs, rows: int) -> Inputs:
    """The same input `rows` times."""
    if isinstance(inputs, Batch):
        return inputs.pick([0] * rows)
    if isinstance(inputs, Tensor):
        return inputs.repeat(rows, *[1] * (inputs.dim() - 1))
    return {name: value.repeat(rows, *[1] * (value.dim() - 1)) for name, value in inputs.items()}


def at_columns(batch: Batch, columns: list[int]) -> Batch:
    """Some columns of a batch without anything that goes along with it: enough for what comes after the blocks."""
    named = ("ids", "mask", "roles", "special", "offsets")
    return replace(batch, **{name: getattr(batch, name)[:, columns] for name in named}, extra={})


# What is measured ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """The activation that the metric looks at in one example, and at which columns (None: at all places).

    `last` takes the last of what a decoder was given, which is no column of the prompt.
    """

    site: SiteInfo
    columns: list[int] | None
    last: bool = False

    def of(self, value: Tensor, width: int | None) -> Tensor:
        """Its values at the columns as [row, position, ...], float32 or wider, from what a forward gave."""
        if self.columns is not None and value.shape[1] == width:
            value = value[:, self.columns]
        if self.last:
            value = value[:, -1:]
        if "token" not in self.site.port.axes:
            # Images have patches or pixels for positions; a vector is one position.
            value = value.flatten(1, -2) if value.dim() > 2 else value[:, None]
        return value if value.dtype == torch.float64 else value.float()


def target_of(host: Host, example: Example, metric: Metric) -> Target:
    """Raises `UnknownSite` where the network has no such activation, `BadInput` where no position is selected."""
    if metric.site == "logits" and host.table and "logits" not in host.table:
        raise NotSupported(
            f"{host.name} has no head, so it gives no logits: measure op.metrics.Distance or Projection at 'final'"
        )
    (site,) = host.match(metric.site)
    if "written" in site.port.axes:
        if metric.positions not in ("last_prompt", "all"):
            raise BadInput(f"positions '{metric.positions}' are none of a decoder's: measure at last_prompt or all")
        return Target(site, None, metric.positions == "last_prompt")
    if example.batch is None or "token" not in site.port.axes:
        return Target(site, None)
    chosen = Positions(metric.positions).in_prompt(example.batch)[0].nonzero().flatten().tolist()
    if not chosen:
        raise BadInput(f"the metric's positions '{metric.positions}' select no token of prompt {example.number}")
    return Target(site, chosen)


def reference_of(example: Example, target: Target, values: Tensor) -> Reference:
    """What a metric may compare with; `values` is [1, position, ...], the base run's."""
    if example.batch is None or target.columns is None:
        return Reference(values[0])
    following = torch.cat([example.batch.ids[0, 1:], example.batch.ids.new_full((1,), -1)])
    return Reference(values[0], following[target.columns])
