"""Energy and ReAct against pytorch-ood, whose results on a small classifier are kept; see tools/oracles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import optrode as op
from optrode import guard
from optrode.guard.protocol import scores
from optrode.layouts import Equation, Layout, Port
from optrode.layouts.base import VECTOR

FILE = Path(__file__).parent / "oracles" / "pytorch_ood.safetensors"
LAYOUT = Layout(
    "classifier",
    "blocks",
    {
        "in": Port("", "in", "stream", VECTOR),
        "part": Port("0", "out", "part", VECTOR),
        "out": Port("", "out", "part", VECTOR),
    },
    outer_after={"pooled": Port("features", "out", "relu(last out)", VECTOR)},
    head=Port("head", "out", "logits", VECTOR),
    equations=(Equation("out", ("part",)),),
    causal=False,
)


class Classifier(nn.Module):
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 8))])
        self.features = nn.ReLU()
        self.head = nn.Linear(8, 3)
        for layer, name in ((self.blocks[0][0], "block"), (self.head, "head")):
            layer.load_state_dict({key: tensors[f"{name}.{key}"] for key in ("weight", "bias")})

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.blocks[0](x)))


@pytest.fixture(scope="module")
def kept() -> dict[str, Tensor]:
    with safe_open(FILE, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def classifier(kept: Any) -> op.Model:
    return op.load(Classifier(kept).eval(), layout=LAYOUT)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_energy_is_theirs_with_the_other_sign(kept: Any, classifier: op.Model, temperature: float) -> None:
    score = guard.Energy(temperature=temperature).fit(classifier)
    # Theirs is high for inputs unlike the training data.
    torch.testing.assert_close(
        -scores(classifier, score, kept["asked"]), kept[f"energy.{temperature}"], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("percentile", [0.5, 0.9])
def test_react_clips_where_theirs_does(kept: Any, classifier: op.Model, percentile: float) -> None:
    edit = guard.ReAct(percentile=100 * percentile).fit(classifier, kept["fitted"])
    assert float(edit.operator.tensors()["high"]) == pytest.approx(float(kept[f"threshold.{percentile}"]), rel=1e-6)
    with classifier.edited(edit):
        clipped = scores(classifier, guard.Energy().fit(classifier), kept["asked"])
    torch.testing.assert_close(-clipped, kept[f"react.{percentile}"], atol=1e-5, rtol=1e-5)
    assert float((clipped + kept["energy.1.0"]).abs().max()) > 0.1, "clipping changes something"
