"""Property 2: a site is an equation, not a name. What a layout says is measured when a network is loaded."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import optrode as op
from optrode.errors import WrongLayout
from optrode.layouts import all_layouts

LAYOUTS = Path(__file__).parents[1] / "layouts"


def cases() -> Iterator[Any]:
    """The test class of every layout: each makes a tiny network of the real class."""
    sys.path.insert(0, str(LAYOUTS))
    try:
        for path in sorted(LAYOUTS.glob("test_*.py")):
            spec = importlib.util.spec_from_file_location(f"property_2_{path.stem}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            for name, kind in inspect.getmembers(module, inspect.isclass):
                if name.startswith("Test") and kind.__module__ == module.__name__ and hasattr(kind, "network"):
                    yield pytest.param(kind, id=f"{path.stem}.{name}")
    finally:
        sys.path.remove(str(LAYOUTS))


CASES = list(cases())
CHECKS = sys.modules["checks"]


def test_every_layout_is_among_the_cases() -> None:
    assert {case.values[0].layout for case in CASES} == {layout.name for layout in all_layouts()}


@pytest.mark.parametrize("case", CASES)
def test_a_right_map_is_accepted_and_says_how_well_it_holds(case: Any) -> None:
    network, plain = case().network(), case().inputs()
    with torch.no_grad():
        before = network(**plain)
    model = op.load(network, example=case().example())
    assert model.layout is not None and model.layout.name == case.layout
    assert model.measured is not None and not model.measured.why
    assert {check.layer for check in model.measured.checks if not check.tower} <= set(range(model.layers))
    assert model.measured.checks and all(check.holds for check in model.measured.checks)
    assert model.measured.worst is not None and model.measured.worst.error < 1e-5
    with torch.no_grad():
        after = network(**plain)
    before, after = (value if isinstance(value, torch.Tensor) else value[0] for value in (before, after))
    assert torch.equal(before, after), "measuring changes nothing"


@pytest.mark.parametrize("case", CASES)
def test_a_swapped_map_is_refused_on_load(case: Any) -> None:
    network = case().network()
    example = case().example()
    right = op.load(network, example=example).layout
    assert right is not None
    with pytest.raises(WrongLayout, match="does not describe") as caught:
        op.load(network, layout=CHECKS.exchanged(right, *case.swapped), example=example)
    assert "\n" not in str(caught.value)


def test_the_error_names_layer_equation_and_size(llama: op.Model) -> None:
    layout = llama.layout
    assert layout is not None
    ports = {**layout.ports, "attn.out": layout.ports["mlp.out"]}
    with pytest.raises(WrongLayout, match=r"in layer 0 mid = in \+ attn\.out is off by \d+\.\d% .*layout=None"):
        op.load(llama.module, layout=replace(layout, ports=ports))


def changed(model: op.Model, factor: float) -> nn.Module:
    """One block of three adds `factor` times its MLP."""
    block = model.module.model.layers[1]  # type: ignore[union-attr]

    def forward(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        x, _ = block.self_attn(hidden_states=block.input_layernorm(hidden_states), **kwargs)
        mid = hidden_states + x
        return mid + factor * block.mlp(block.post_attention_layernorm(mid))

    block.forward = forward
    return model.module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_changed_block_is_found_in_every_dtype(make_model: Any, dtype: torch.dtype) -> None:
    assert op.load(changed(make_model("llama", dtype), 1.0)).layout is not None, "the rewriting itself changes nothing"
    network = changed(make_model("llama", dtype), 1.1)
    with pytest.raises(WrongLayout, match=r"in layer 1 out = mid \+ mlp\.out"):
        op.load(network)
    model = op.load(network, layout=None)
    assert model.layout is None and model.read({"input_ids": torch.ones(1, 3).long()}, "module:model.layers.1")


def test_a_changed_block_of_an_unknown_network_gives_no_map(make_model: Any) -> None:
    model = op.load(changed(make_model("llama"), 1.1), layout="measured")
    assert model.layout is None and "layer 1" in model.unmapped


def test_it_can_be_left_out_and_is_skipped_where_nothing_can_run(make_model: Any) -> None:
    network = changed(make_model("llama"), 1.1)
    unmeasured = op.load(network, measure=False)
    assert unmeasured.measured is None and unmeasured.layout is not None
    with torch.device("meta"):
        empty = type(network)(network.config)
    model = op.load(empty)
    assert model.layout is not None and model.measured is not None and "not in memory" in model.measured.why


def test_nothing_of_the_measurement_is_left(make_model: Any) -> None:
    module = make_model("gpt2").module.train()
    random = torch.get_rng_state()
    op.load(module)
    assert module.training and all(part.training for part in module.modules())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.slow
def test_the_real_model_is_measured_in_every_layer(smollm2: op.Model) -> None:
    from optrode.engine.mapping.decide import settle

    again = settle(smollm2)
    assert len(again.checks) == 60 and all(check.holds for check in again.checks)
