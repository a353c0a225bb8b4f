"""Every network that the layouts are tested on, with a pair of inputs: base and donor, one row each."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from checks import LayoutChecks

import optrode as op

LAYOUTS = Path(__file__).parents[2] / "layouts"
# Tokens that base and donor share at the start.
SHARED = 2


def layout_checks() -> dict[str, type[LayoutChecks]]:
    """The test classes of the layouts by name."""
    found = {}
    for path in sorted(LAYOUTS.glob("test_*.py")):
        module = importlib.import_module(path.stem)
        for name, value in vars(module).items():
            if not name.startswith("Test") or value.__module__ != path.stem:
                continue
            if isinstance(value, type) and issubclass(value, LayoutChecks):
                found[name.removeprefix("Test")] = value
    return found


def pair(checks: LayoutChecks) -> tuple[dict[str, Any], dict[str, Any]]:
    """Base and donor: the two rows of the layout's own inputs, with the same first tokens and everything else that is
    no token or picture the same."""
    inputs = checks.inputs()
    base = {name: value[:1] for name, value in inputs.items()}
    donor = {name: value[1:] if name in ("input_ids", "pixel_values") else value[:1] for name, value in inputs.items()}
    if "input_ids" in inputs:
        donor["input_ids"] = torch.cat([base["input_ids"][:, :SHARED], donor["input_ids"][:, SHARED:]], 1)
    return base, donor


def target_of(model: op.Model) -> str:
    """What is measured: logits where there are any, else the last thing that the network gives."""
    return "logits" if "logits" in model.table else list(model.table)[-1]
