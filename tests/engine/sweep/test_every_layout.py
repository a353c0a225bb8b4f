"""Equal to the naive loop on every layout: causal or not, with experts, mixers, windows, biases, pictures."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from naive import naive
from networks import SHARED, layout_checks, pair, target_of
from torch import Tensor

import optrode as op
from optrode.metrics import Custom

CHECKS = layout_checks()
# Networks whose tokens see later ones, that keep no keys, or whose state is more than keys and values.
ALL_COLUMNS = (
    "Bert", "Roberta", "XLMRoberta", "ClipText", "ClipVision", "Dinov2", "Dinov2Gated", "DistilBert", "EfficientNet",
    "Jamba", "ModernBert", "SiglipText", "SiglipVision", "T5Decoder", "T5DecoderPlain", "T5Encoder", "T5EncoderPlain",
    "T5EncoderModel", "T5EncoderModelPlain", "ViT",
)  # fmt: skip


@pytest.fixture(scope="module", params=list(CHECKS))
def network(request: pytest.FixtureRequest) -> tuple[op.Model, Any, Any]:
    """In float64, so that small effects can be told from rounding: parts of most networks compute in float32 all the
    same."""
    checks = CHECKS[request.param]()
    network, (base, donor) = checks.network(), pair(checks)
    if any(name.endswith("experts.down_proj") for name, _ in network.named_parameters()):
        # The host's product over fused experts has no float64.
        return op.load(network, example=checks.example()), base, donor
    return op.load(network.double(), example=as_double(checks.example())), as_double(base), as_double(donor)


def as_double(inputs: Any) -> Any:
    if inputs is None:
        return None
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


def measure(values: Tensor) -> Tensor:
    """One number that depends on every entry."""
    weights = torch.randn(values[0].numel(), generator=torch.Generator().manual_seed(0)).to(values.dtype)
    return (values.flatten(1) * weights).sum(-1)


def sites_by_part(model: op.Model) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for address, site in model.table.items():
        if site.layer is not None and not site.port.read_only:
            found.setdefault(re.sub(r"layers\.\d+\.", "", address), []).append(address)
    return found


def metric_of(model: op.Model) -> Custom:
    return Custom(measure, target_of(model), "all")


def whole(model: op.Model, values: Tensor) -> float:
    """The metric of one row of the target."""
    return float(measure(values.reshape(1, 1, -1)))


def ends(count: int) -> list[int]:
    return sorted({0, count - 1})


def test_every_site_equals_the_naive_loop(network: tuple[op.Model, Any, Any]) -> None:
    model, base, donor = network
    target = target_of(model)
    for part, sites in sites_by_part(model).items():
        sites = [sites[index] for index in ends(len(sites))]
        found = op.sweep(model, base, donor, sites, metric=metric_of(model))
        values = model.read(donor, sites)
        effect = float(np.abs(found.values - found.base).max())
        assert effect > 0, part
        where = {axis: ends(len(labels)) for axis, labels in found.labels.items() if axis != "layer"}
        (axis, places) = next(iter(where.items())) if where else ("", [0])
        for row, site in enumerate(sites):
            value = values[site][0]
            axes = values.axes[site][1:]
            index = axes.index({"position": "patch" if "patch" in axes else "token"}.get(axis, axis)) if axis else -1
            for place in places:
                selection = tuple(place if number == index else slice(None) for number in range(value.dim()))
                wanted = whole(model, naive(model, base, value, site, selection, target))
                got = found.values[row, place] if axis else found.values[row]
                assert abs(got - wanted) <= 1e-3 * effect + 1e-6 * abs(wanted), (site, place, found.notes["way"])


def test_no_network_needs_whole_forwards(network: tuple[op.Model, Any, Any], request: pytest.FixtureRequest) -> None:
    """A frontier that is refused would be right too, and slow: which way each network takes is known."""
    model, base, donor = network
    name = request.node.callspec.params["network"]
    for site in ("layers.*.in", "layers.*.out"):
        found = op.sweep(model, base, donor, site, metric=metric_of(model))
        assert (found.notes["way"], found.notes["why"]) == ("layers" if name in ALL_COLUMNS else "columns", "")


def test_cells_that_cannot_matter_are_exactly_the_base(network: tuple[op.Model, Any, Any]) -> None:
    model, base, donor = network
    found = op.sweep(model, base, donor, metric=metric_of(model))
    if model.causal and "input_ids" in base:
        assert bool((found.values[:, :SHARED] == found.base).all())
        assert found.notes["skipped"] >= SHARED * model.layers
    same = op.sweep(model, base, base, metric=metric_of(model))
    assert same.notes["computed"] == 0 and bool((same.values == same.base).all())


def test_the_last_block_carries_the_donors_answer(network: tuple[op.Model, Any, Any]) -> None:
    """All positions of the last block together give the donor's own answer."""
    model, base, donor = network
    found = op.sweep(model, base, donor, f"layers.{model.layers - 1}.out", metric=metric_of(model), each=())
    assert abs(found.values[0] - found.donor) <= 1e-4 * abs(found.donor - found.base) + 1e-6 * abs(found.donor)
    assert abs(found.base - found.donor) > 1e-6 * abs(found.donor)
