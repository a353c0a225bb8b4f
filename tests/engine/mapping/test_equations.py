from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import optrode
from optrode import edits
from optrode.engine.mapping.equations import EquationCheck, measure
from optrode.errors import NotSupported
from optrode.layouts import Equation, Layout, Port


class Block(nn.Module):
    """stream -> norm(stream + 0.5 * part(stream))."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        return self.norm(stream + 0.5 * self.part(stream))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = type("Config", (), {"factor": 0.5})()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            stream = block(stream)
        return stream


LAYOUT = Layout(
    "network",
    "blocks",
    {
        "in": Port("", "in", "stream"),
        "part": Port("part", "out", "what is added"),
        "out": Port("", "out", "norm(in + factor * part)"),
    },
    equations=(Equation("out", ("in", "part"), norm="norm", scale={"part": "factor"}),),
)


def network(layout: Layout | None = LAYOUT) -> optrode.Model:
    torch.manual_seed(0)
    model = optrode.load(Network().eval())
    model.layout = layout
    return model


def inputs() -> torch.Tensor:
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))


def test_an_equation_with_norm_and_scale_is_measured_in_every_block() -> None:
    checks = measure(network(), inputs())
    assert [(check.layer, check.equation) for check in checks] == [
        (0, "out = norm(in + factor * part)"),
        (1, "out = norm(in + factor * part)"),
    ]
    assert max(check.error for check in checks) < 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        Equation("out", ("in", "part"), norm="norm"),
        Equation("out", ("in", "part"), scale={"part": "factor"}),
        Equation("out", ("in",), norm="norm"),
        Equation("part", ("in",)),
    ],
    ids=str,
)
def test_a_wrong_equation_has_a_large_error(wrong: Equation) -> None:
    assert min(check.error for check in measure(network(replace(LAYOUT, equations=(wrong,))), inputs())) > 0.05


def test_the_error_is_relative_to_the_largest_value() -> None:
    """With part = in the error is known: |in - part| over the largest |part|."""
    model = network(replace(LAYOUT, equations=(Equation("part", ("in",)),)))
    acts = model.read(inputs(), ["layers.0.in", "layers.0.part"])
    difference = (acts["layers.0.in"] - acts["layers.0.part"]).abs().max()
    wanted = float(difference / acts["layers.0.part"].abs().max())
    assert measure(model, inputs())[0].error == pytest.approx(wanted, rel=1e-6)


def test_the_network_is_measured_unedited() -> None:
    model = network()
    plain = measure(model, inputs())
    with model.edited(edits.add("layers.0.part", torch.full((4,), 3.0))):
        assert measure(model, inputs()) == plain
        model.module(inputs())


def test_an_equation_says_nothing_where_a_site_is_missing() -> None:
    equations = (*LAYOUT.equations, Equation("out", ("in", "other")))
    ports = {**LAYOUT.ports, "other": Port("not_there", "out", "nothing")}
    assert len(measure(network(replace(LAYOUT, equations=equations, ports=ports)), inputs())) == 2


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(NotSupported, match="no layout"):
        measure(network(None), inputs())
    with pytest.raises(NotSupported, match="no equation of the layout 'network'"):
        measure(network(replace(LAYOUT, equations=())), inputs())


def test_half_precision_hosts_keep_their_equations() -> None:
    model = network()
    model.module.to(torch.bfloat16)
    assert max(check.error for check in measure(model, inputs().to(torch.bfloat16))) < 0.03


def test_padding_is_left_out() -> None:
    """Rows of unlike length run in several forwards, and what stands at padding is no activation."""
    model = optrode.load("minilm-l6")
    checks = measure(model, ["One.", "A rather longer sentence, with a few more words in it.", *["word " * 400] * 6])
    assert len(checks) == 2 * model.layers and all(isinstance(check, EquationCheck) for check in checks)
    assert max(check.error for check in checks) < 1e-5


def test_the_real_chat_model_fulfils_its_equations() -> None:
    model = optrode.load("smollm2-135m")
    checks = measure(model, ["The capital of France is", "Hi"])
    assert len(checks) == 2 * model.layers
    assert max(check.error for check in checks) < 1e-5
