"""Energy and ReAct: closed forms on small networks, and the proof on real pictures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import optrode as op
from optrode import guard
from optrode.errors import BadInput, UnknownSite
from optrode.guard.protocol import scores, separation
from optrode.layouts import Equation, Layout, Port
from optrode.layouts.base import VECTOR
from optrode.parts.energy import EnergyScore

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
)  # fmt: skip


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6))])
        self.features = nn.ReLU()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.blocks[0](x)))


@pytest.fixture
def classifier() -> op.Model:
    torch.manual_seed(0)
    return op.load(Classifier().eval(), layout=LAYOUT)


def inputs(count: int = 50, seed: int = 1) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_energy_is_its_formula(classifier: op.Model, temperature: float) -> None:
    score = guard.Energy(temperature=temperature).fit(classifier)
    got = scores(classifier, score, inputs())
    with torch.no_grad():
        logits = classifier.module(inputs()).double()
    by_hand = [temperature * math.log(sum(math.exp(v / temperature) for v in row)) for row in logits.tolist()]
    np.testing.assert_allclose(got.numpy(), by_hand, rtol=1e-5, atol=1e-6)


def test_energy_passes_gradients_and_takes_half_precision() -> None:
    logits = torch.randn(4, 5, requires_grad=True)
    acts = op.Activations({"logits": logits}, {"logits": ("example", "feature")})
    EnergyScore()(acts).sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(-1))
    half = op.Activations({"logits": torch.full((1, 2), 300.0).half()}, {"logits": ("example", "feature")})
    assert float(EnergyScore(temperature=0.001)(half)) == pytest.approx(300.0, abs=0.01)
    with pytest.raises(BadInput, match="above 0"):
        EnergyScore(temperature=0)


@pytest.mark.parametrize("percentile", [50.0, 90.0])
def test_react_clips_at_the_percentile_of_all_activations(classifier: op.Model, percentile: float) -> None:
    edit = guard.ReAct(percentile=percentile).fit(classifier, inputs())
    module: Any = classifier.module
    with torch.no_grad():
        features = module.features(module.blocks[0](inputs()))
        ordered = sorted(features.flatten().tolist())
        place = percentile / 100 * (len(ordered) - 1)
        low = ordered[math.floor(place)]
        threshold = low + (place - math.floor(place)) * (ordered[math.ceil(place)] - low)
        wanted = module.head(features.minimum(torch.tensor(threshold)))
    with classifier.edited(edit) as receipt:
        got = classifier.read(inputs(), "logits")["logits"]
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert receipt.changed and not torch.allclose(got, module(inputs()), atol=1e-2)


def test_react_at_the_largest_activation_changes_nothing_that_it_was_fitted_on(classifier: op.Model) -> None:
    plain = classifier.read(inputs(), "logits")["logits"]
    with classifier.edited(guard.ReAct(percentile=100.0).fit(classifier, inputs())):
        torch.testing.assert_close(classifier.read(inputs(), "logits")["logits"], plain)


def test_react_is_saved_with_what_it_is(classifier: op.Model, tmp_path: Any) -> None:
    edit = guard.ReAct().fit(classifier, inputs())
    again = op.load_edit(edit.save(tmp_path / "clip.edit"))
    with classifier.edited(edit):
        one = classifier.read(inputs(), "logits")["logits"]
    with classifier.edited(again):
        assert torch.equal(classifier.read(inputs(), "logits")["logits"], one)


def test_what_cannot_be_fitted_says_why(classifier: op.Model, llama: op.Model) -> None:
    for percentile in (0, 101):
        with pytest.raises(BadInput, match="percentile"):
            guard.ReAct(percentile=percentile)
    with pytest.raises(BadInput, match="leave nothing: raise the percentile"):
        guard.ReAct(percentile=0.5).fit(classifier, inputs())
    with pytest.raises(UnknownSite):
        guard.ReAct().fit(llama, ["The cat"])
    with pytest.raises(BadInput, match="one vector for each example"):
        guard.ReAct(site="final").fit(llama, ["The cat"])
    with pytest.raises(BadInput, match="no input"):
        guard.ReAct().fit(classifier, [])


def test_separation_against_sklearn_and_by_hand() -> None:
    from sklearn.metrics import roc_auc_score

    random = torch.Generator().manual_seed(0)
    # Rounded, so that there are ties.
    one, other = ((torch.randn(n, generator=random) * 3).round() + shift for n, shift in ((40, 1), (60, 0)))
    labels = [1] * 40 + [0] * 60
    found = separation(one, other)
    assert found.auroc == pytest.approx(roc_auc_score(labels, torch.cat([one, other]).numpy()))
    assert separation(other, one).auroc == pytest.approx(1 - found.auroc)
    inside = torch.arange(100.0)
    assert separation(inside, torch.tensor([4.0, 5.0, 6.0, -1.0])).fpr95 == 0.5, "95 of 100 are at 5 or above"
    with pytest.raises(BadInput):
        separation(one, other[:0])


def photographs(random: np.random.Generator, each: int) -> list[np.ndarray]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    whole = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), *load_sample_images().images]
    return [crop for picture in whole for crop in crops(picture, random, each, 300)]


def other_pictures(random: np.random.Generator, each: int) -> list[np.ndarray]:
    """Textures, print, tissue and noise: nothing that the network was trained to name."""
    from skimage import data

    names = ("brick", "grass", "gravel", "page", "text", "cell", "immunohistochemistry")
    found = [crop for name in names for crop in crops(getattr(data, name)(), random, each, 200)]
    return found + [random.integers(0, 256, (200, 200, 3), dtype=np.uint8) for _ in range(each)]


def crops(picture: np.ndarray, random: np.random.Generator, count: int, side: int) -> list[np.ndarray]:
    picture = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1)
    side = min(side, *picture.shape[:2])
    places = [random.integers(0, size - side + 1, count) for size in picture.shape[:2]]
    return [np.ascontiguousarray(picture[y : y + side, x : x + side, :3]) for y, x in zip(*places, strict=True)]


@pytest.mark.slow
def test_react_helps_the_energy_on_real_pictures() -> None:
    """The paper's claim, on a network and pictures that were never tuned for it: percentile 90, as published."""
    pytest.importorskip("skimage")
    model = op.load("efficientnet-lite0")
    random = np.random.default_rng(0)
    inside = model.processor(photographs(random, 6))["pixel_values"]
    outside = model.processor(other_pictures(random, 4))["pixel_values"]
    fit, held_out = inside[::2], inside[1::2]
    score = guard.Energy().fit(model)
    plain = separation(scores(model, score, held_out), scores(model, score, outside))
    edit = guard.ReAct().fit(model, fit)
    with model.edited(edit):
        clipped = separation(scores(model, score, held_out), scores(model, score, outside))
    assert clipped.auroc > 0.85 and clipped.auroc > plain.auroc + 0.05
    assert clipped.fpr95 < plain.fpr95
