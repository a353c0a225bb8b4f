"""LinEAS against its card: loss, proximal operator and gradient by other means, and training on what is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.errors import BadInput, NotFinite, NotSupported
from optrode.parts.contrast import Contrast
from optrode.parts.transport import sorted_distance
from optrode.steering.lineas import LinEAS, proximal

SITE = "layers.1.out"
PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]


def loss_by_hand(outputs: list[Tensor], targets: list[Tensor]) -> float:
    """Card, step 4: sort along the examples, number by number."""
    total = 0.0
    for out, target in zip(outputs, targets, strict=True):
        for j in range(out.shape[1]):
            one, other = sorted(out[:, j].tolist()), sorted(target[:, j].tolist())
            total += sum((x - y) ** 2 for x, y in zip(one, other, strict=True)) / len(one) / out.shape[1]
    return total


@pytest.mark.parity("lineas")
def test_the_distance_sorts_examples_and_not_coordinates():
    made = torch.Generator().manual_seed(0)
    out, target = torch.randn(12, 5, generator=made), 3 * torch.randn(12, 5, generator=made)
    assert float(sorted_distance(out, target).mean()) == pytest.approx(loss_by_hand([out], [target]), rel=1e-6)
    # Another order of the examples is the same set; another order of coordinates is not.
    assert torch.allclose(
        sorted_distance(out[torch.randperm(12, generator=made)], target), sorted_distance(out, target)
    )
    assert not torch.allclose(sorted_distance(out[:, [1, 0, 2, 3, 4]], target), sorted_distance(out, target))


@pytest.mark.parity("lineas")
@pytest.mark.parametrize("weight", [0.01, 0.1, 0.5])
def test_the_proximal_operator_is_the_minimum(weight):
    from scipy.optimize import minimize

    value = torch.tensor([1.5, -0.3, 0.02, -2.0], dtype=torch.float64)

    def objective(x: Any) -> float:
        x = torch.tensor(x)
        return float((x - value).square().sum() / 2 + weight * (x.abs().sum() + 2 * x.norm()))

    found = proximal(value, weight)
    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20_000}
    starts = (value.numpy(), found.numpy() + 0.01)
    best = min(minimize(objective, start, method="Nelder-Mead", options=options).fun for start in starts)
    assert objective(found.numpy()) <= best + 1e-9
    assert torch.equal(proximal(value, 0.0), value) and not bool(proximal(value, 10.0).any())


def steps_by_hand(source: Tensor, target: Tensor, method: LinEAS) -> tuple[Tensor, Tensor]:
    """Gradient descent with the gradient of the sorted loss written out, one number at a time."""
    count, width = source.shape
    size = target.square().mean().sqrt() if method.normalised else torch.tensor(1.0)
    x, y = (source / size).double(), (target / size).double()
    w, b = torch.ones(width).double(), torch.zeros(width).double()
    import math

    for step in range(method.steps):
        pace = method.learning_rate * 0.5 * (1 + math.cos(math.pi * step / method.steps))
        out = w * x + b
        gw, gb = torch.zeros(width).double(), torch.zeros(width).double()
        for j in range(width):
            order, goal = out[:, j].argsort(), y[:, j].sort().values
            for rank, i in enumerate(order.tolist()):
                gap = 2 * (float(out[i, j]) - float(goal[rank])) / count / width
                gw[j] += gap * float(x[i, j])
                gb[j] += gap
        w, b = w - pace * gw, b - pace * gb
    return w, b * size


@pytest.mark.parity("lineas")
@pytest.mark.parametrize("normalised", [True, False])
def test_descent_is_the_one_by_hand(llama, pairs, normalised):
    method = LinEAS(site=SITE, steps=7, normalised=normalised, learning_rate=0.5)
    edit = method.fit(llama, pairs)
    clean = method.read(llama, method.talks(pairs), [SITE])
    w, b = steps_by_hand(clean.negative[SITE], clean.positive[SITE], method)
    assert float((edit.operator.weight - w).abs().max()) < 1e-5 * float(w.abs().max())
    assert float((edit.operator.bias - b).abs().max()) < 1e-5 * float(b.abs().max())


def test_one_site_through_the_network_is_one_site_on_its_means(llama, pairs):
    method = LinEAS(site=SITE, steps=1)
    talks, clean = method.talks(pairs), method.read(llama, method.talks(pairs), [SITE])
    sizes = method._sizes(clean, [SITE])
    w, b = torch.linspace(0.5, 1.5, 32), torch.linspace(-1, 1, 32)
    (out,) = method._through(llama, talks, [SITE], sizes)([w], [b], torch.arange(len(pairs)))
    assert torch.allclose(out, w * clean.negative[SITE] / sizes[0] + b, atol=1e-4)


@pytest.mark.parity("lineas")
def test_gradients_through_earlier_maps_are_finite_differences(make_model, pairs):
    """A site's output depends on the maps of the sites before it, and not on those behind."""
    model = make_model("llama", torch.float64)
    method = LinEAS(site="layers.0-1.out")
    talks = method.talks(pairs)
    outputs = method._through(model, talks, ["layers.0.out", "layers.1.out"], [1.0, 1.0])
    rows, made = torch.arange(len(pairs)), torch.Generator().manual_seed(0)
    mix = [torch.randn(len(pairs), 32, generator=made) for _ in range(2)]
    w = [torch.ones(32, requires_grad=True) for _ in range(2)]
    b = [torch.zeros(32, requires_grad=True) for _ in range(2)]

    def value(w: list[Tensor], b: list[Tensor]) -> Tensor:
        first, second = outputs(w, b, rows)
        return (first * mix[0]).sum() + (second * mix[1]).sum()

    slopes = torch.autograd.grad(value(w, b), [*w, *b])
    for place, coordinate in ((0, 3), (1, 7), (2, 11), (3, 2)):
        moved = []
        for sign in (1, -1):
            leaves = [leaf.detach().clone() for leaf in (*w, *b)]
            leaves[place][coordinate] += sign * 1e-2
            moved.append(float(value(leaves[:2], leaves[2:]).detach()))
        assert float(slopes[place][coordinate]) == pytest.approx((moved[0] - moved[1]) / 2e-2, rel=2e-2, abs=2e-2)


def test_training_brings_the_sets_together_at_every_site(llama, pairs):
    method = LinEAS(site="layers.0-2.out", steps=60, learning_rate=1.0)
    edit = method.fit(llama, pairs)
    sites = [leaf.site for leaf in edit.leaves()]
    assert sites == ["layers.0.out", "layers.1.out", "layers.2.out"]
    talks = method.talks(pairs)
    plain = method.read(llama, talks, sites)
    with llama.edited(edit):
        moved = llama.read(talks[0], sites, positions="assistant", reduce="mean")
    for site in sites:
        before = float(sorted_distance(plain.negative[site], plain.positive[site]).mean())
        assert float(sorted_distance(moved[site], plain.positive[site]).mean()) < 0.5 * before


def planted(width: int = 10, count: int = 40) -> Contrast:
    """Two sets that differ in two coordinates alone: one is shifted, one is stretched."""
    made = torch.Generator().manual_seed(4)
    source, target = torch.randn(2, count, width, generator=made).unbind()
    target = source[torch.randperm(count, generator=made)].clone()
    target[:, 3] += 2.0
    target[:, 6] *= 3.0
    names = tuple(map(str, range(count)))
    return Contrast({SITE: target}, {SITE: source}, {SITE: 1.0}, names)


def test_a_planted_change_is_found_and_nothing_else_is_touched(llama):
    """With a little of the lasso, only the two coordinates that differ are selected."""
    clean = planted()
    method = LinEAS(steps=3000, learning_rate=1.0, gamma=0.003, batch=40, normalised=False)
    (w,), (b,) = method._learn(
        clean, [SITE], [1.0], lambda weights, shifts, rows: [weights[0] * clean.negative[SITE][rows] + shifts[0]]
    )
    touched = [j for j in range(10) if float(w[j]) != 1 or float(b[j]) != 0]
    assert touched == [3, 6]
    assert float(b[3]) == pytest.approx(2, abs=0.3) and float(w[6]) == pytest.approx(3, abs=0.3)


def test_a_large_gamma_is_exactly_the_identity(llama, pairs, library_logits):
    edit = LinEAS(site=SITE, gamma=100.0, steps=20).fit(llama, pairs)
    assert torch.equal(edit.operator.weight, torch.ones(32)) and not bool(edit.operator.bias.any())
    assert edit.provenance.recipe["support"] == 0
    for got, plain in zip(library_logits(llama, PROMPTS, edit), library_logits(llama, PROMPTS), strict=True):
        assert torch.equal(got, plain)


def test_the_support_is_told_and_the_seed_counts(llama, pairs):
    one, again, other = (LinEAS(site=SITE, batch=3, steps=20, seed=seed).fit(llama, pairs) for seed in (0, 0, 1))
    assert one.provenance.recipe["support"] == 1 and torch.equal(one.operator.weight, again.operator.weight)
    assert not torch.equal(one.operator.weight, other.operator.weight)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"positions": "generated"}, NotSupported, "every token"),
        ({"steps": 0}, BadInput, "at least 1"),
        ({"learning_rate": 1e9}, NotFinite, "lower learning_rate"),
    ],
)
def test_settings_that_cannot_be_are_told(llama, pairs, settings, error, says):
    with pytest.raises(error, match=says) as caught:
        LinEAS(site=SITE, **settings).fit(llama, pairs)
    assert "\n" not in str(caught.value)


def test_one_example_is_too_few(llama, pairs):
    with pytest.raises(BadInput, match="at least two"):
        LinEAS(site=SITE).fit(llama, pairs[:1])
    assert op.steering.LinEAS is LinEAS
