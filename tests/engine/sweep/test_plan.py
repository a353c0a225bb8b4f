"""The plan of a sweep says what the sweep then does."""

from __future__ import annotations

import pytest
from test_sweep import BASE, DONOR, RAW, lengths

import optrode as op
from optrode.errors import BadInput
from optrode.metrics import LogitDifference

METRIC = LogitDifference(40, 50)


@pytest.mark.parametrize(
    ("sites", "each"),
    [("layers.*.out", None), ("layers.*.mlp.out", "position"), ("layers.*.attn.heads", "head")],
)
def test_it_counts_what_the_sweep_runs(model: op.Model, sites: str, each: str | None):
    plan = op.plan_sweep(model, BASE, DONOR, sites, metric=METRIC, each=each, **RAW)
    found = op.sweep(model, BASE, DONOR, sites, metric=METRIC, each=each, **RAW)
    assert (plan.cells, plan.patches, plan.way) == (found.notes["cells"], found.notes["computed"], found.notes["way"])
    width, _ = lengths(model)
    assert plan.naive == plan.patches * model.layers * width
    # Rows that begin at different columns may run together, on more columns than each needs.
    ran = found.notes["forwards_worth"] * model.layers * width
    assert 0 < plan.block_tokens <= ran * 1.001 < plan.naive
    assert plan.seconds is not None and plan.seconds > 0 and plan.memory > 0


def test_one_patch_is_counted_by_hand(model: op.Model):
    width, first = lengths(model)
    plan = op.plan_sweep(model, BASE, DONOR, "layers.1.out", metric=METRIC, each="position", **RAW)
    assert plan.patches == width - first
    assert plan.block_tokens == sum((model.layers - 2) * (width - column) for column in range(first, width))


def test_where_edits_are_active_whole_forwards_are_planned(model: op.Model):
    with model.edited(op.edits.zero_ablate("layers.0.mlp.out", "index:2")):
        plan = op.plan_sweep(model, BASE, DONOR, "layers.1.out", metric=METRIC, **RAW)
    assert (plan.way, plan.why) == ("forwards", "edits are active") and plan.block_tokens == plan.naive


def test_what_a_sweep_refuses_its_plan_refuses(model: op.Model):
    with pytest.raises(BadInput, match="tokens"):
        op.plan_sweep(model, "The cat", DONOR, metric=METRIC, **RAW)


def test_it_prints(model: op.Model):
    plan = op.plan_sweep(model, BASE, DONOR, metric=METRIC, **RAW)
    assert str(plan).startswith("Plan of a sweep of") and "patches:" in str(plan)
    assert plan.as_dict()["patches"] == plan.patches
