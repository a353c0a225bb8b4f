"""Every operator against the plainest code that does the same, one number at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.edits import (
    Add,
    AddByPosition,
    Affine,
    AffineWithin,
    Clamp,
    Function,
    ProjectOut,
    Reach,
    Replace,
    Scale,
    orthonormal,
)
from optrode.errors import NotFinite, NotSupported, WrongShape

WIDTH = 5


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


VECTOR, OTHER, BASIS = random(WIDTH, seed=1), random(WIDTH, seed=2), orthonormal(random(2, WIDTH, seed=3))
OPERATORS = {
    "add": (Add(VECTOR), lambda h, i: [x + v for x, v in zip(h, VECTOR.tolist(), strict=True)]),
    "scale": (Scale(VECTOR), lambda h, i: [x * v for x, v in zip(h, VECTOR.tolist(), strict=True)]),
    "scale by a number": (Scale(torch.tensor(3.0)), lambda h, i: [x * 3 for x in h]),
    "affine": (
        Affine(VECTOR, OTHER),
        lambda h, i: [w * x + b for x, w, b in zip(h, VECTOR.tolist(), OTHER.tolist(), strict=True)],
    ),
    "affine within": (
        AffineWithin(VECTOR, OTHER, torch.tensor(-0.5), VECTOR.abs()),
        lambda h, i: [
            w * x + b if -0.5 < x < abs(w) else x for x, w, b in zip(h, VECTOR.tolist(), OTHER.tolist(), strict=True)
        ],
    ),
    "reach": (Reach(VECTOR, torch.tensor(0.3), torch.tensor(2.0)), lambda h, i: _shifted(h, 2.0, 0)),
    "reach at least": (Reach(VECTOR, torch.tensor(0.3), torch.tensor(0.1), 1.0), lambda h, i: _shifted(h, 0.1, 1)),
    "reach at most": (Reach(VECTOR, torch.tensor(0.3), torch.tensor(0.1), -1.0), lambda h, i: _shifted(h, 0.1, -1)),
    "replace": (Replace(VECTOR), lambda h, i: VECTOR.tolist()),
    "zero": (Replace(torch.tensor(0.0)), lambda h, i: [0.0] * WIDTH),
    "clamp": (Clamp(torch.tensor(-0.5), torch.tensor(0.7)), lambda h, i: [min(max(x, -0.5), 0.7) for x in h]),
    "clamp one side": (Clamp(torch.tensor(-math.inf), torch.tensor(0.0)), lambda h, i: [min(x, 0.0) for x in h]),
    "by position": (
        AddByPosition(torch.stack([VECTOR, OTHER])),
        lambda h, i: [x + (VECTOR, OTHER)[i][k].item() if i < 2 else x for k, x in enumerate(h)],
    ),
    "project out": (ProjectOut(BASIS), lambda h, i: _without(h, BASIS.tolist())),
    "function": (Function(torch.tanh), lambda h, i: [math.tanh(x) for x in h]),
}


def _shifted(h: list[float], target: float, side: int) -> list[float]:
    """Concept activation vectors by hand: eps = (target - b - w . h) / |w|, along w / |w|, where it is needed."""
    w = VECTOR.tolist()
    norm = math.sqrt(sum(x * x for x in w))
    score = sum(x * y for x, y in zip(h, w, strict=True)) + 0.3
    if (side == 1 and score >= target) or (side == -1 and score <= target):
        return h
    eps = (target - score) / norm
    return [x + eps * y / norm for x, y in zip(h, w, strict=True)]


def _without(h: list[float], basis: list[list[float]]) -> list[float]:
    dots = [sum(x * q for x, q in zip(h, row, strict=True)) for row in basis]
    return [x - sum(dot * row[k] for dot, row in zip(dots, basis, strict=True)) for k, x in enumerate(h)]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_values_and_changes(name: str, shape: tuple[int, ...]):
    operator, literal = OPERATORS[name]
    operator = operator.to(torch.device("cpu"), torch.float64)
    h = random(*shape, WIDTH, seed=7)
    index = torch.arange(math.prod(shape)).reshape(shape) % 4
    new = operator(h, index)
    rows = [literal(row, i) for row, i in zip(h.reshape(-1, WIDTH).tolist(), index.reshape(-1).tolist(), strict=True)]
    assert new.shape == h.shape
    assert torch.allclose(new.reshape(-1, WIDTH), torch.tensor(rows, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(operator.change(h, index), new - h, atol=1e-12)


@pytest.mark.parametrize("operator", [Add(random(3, WIDTH)), Replace(random(3, WIDTH))])
def test_a_vector_per_head(operator):
    h = random(4, 3, WIDTH, seed=9)
    new = operator(h, torch.zeros(4, dtype=torch.long))
    for row in range(4):
        for head in range(3):
            own = next(iter(operator.tensors().values()))[head]
            assert torch.equal(new[row, head], own + h[row, head] if isinstance(operator, Add) else own)


def test_adding_is_exact_at_every_strength():
    h = torch.full((1, WIDTH), 1e6, dtype=torch.float32)
    change = Add(torch.full((WIDTH,), 0.01)).change(h, torch.zeros(1, dtype=torch.long))
    assert torch.equal(change, torch.full((1, WIDTH), 0.01)), "not (h + v) - h, which loses the vector"


def test_projecting_out_twice_is_once_and_strength_two_reflects():
    h, index = random(6, WIDTH), torch.zeros(6, dtype=torch.long)
    once = ProjectOut(BASIS)(h, index)
    assert torch.allclose(ProjectOut(BASIS)(once, index), once, atol=1e-12)
    assert torch.allclose(once @ BASIS.T, torch.zeros(6, 2, dtype=torch.float64), atol=1e-12)
    reflected = h + 2 * ProjectOut(BASIS).change(h, index)
    assert torch.allclose(reflected.norm(dim=-1), h.norm(dim=-1))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_orthonormal_rows_span_the_same_space(rank: int, seed: int):
    rows = random(rank, WIDTH, seed=seed) * 10 ** float(random(1, seed=seed))
    basis = orthonormal(rows)
    assert torch.allclose(basis @ basis.T, torch.eye(rank, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(rows @ basis.T @ basis, rows, atol=1e-6 * float(rows.abs().max()))


def test_one_direction_keeps_its_sign_and_dependent_ones_are_refused():
    assert torch.allclose(orthonormal(VECTOR), (VECTOR / VECTOR.norm())[None])
    for bad in (torch.zeros(WIDTH), torch.stack([VECTOR, 2 * VECTOR]), random(WIDTH + 1, WIDTH)[:, :2]):
        with pytest.raises(WrongShape, match="independent"):
            orthonormal(bad)


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("operator", [Add, Scale, Replace, AddByPosition, ProjectOut])
def test_no_operator_holds_what_is_no_number(operator, number: float):
    with pytest.raises(NotFinite, match=operator.name):
        operator(torch.tensor([[1.0, number]]))


def test_a_clamp_may_be_open_but_not_undefined():
    Clamp(torch.tensor(-math.inf), torch.tensor(math.inf))
    with pytest.raises(NotFinite):
        Clamp(torch.tensor(math.nan), torch.tensor(1.0))


def test_moving_changes_precision_and_nothing_else():
    moved = Affine(VECTOR, OTHER).to(torch.device("cpu"), torch.float32)
    assert isinstance(moved, Affine) and moved.weight.dtype == torch.float32
    assert torch.equal(moved.bias, OTHER.float())
    function = Function(torch.tanh)
    assert function.to(torch.device("cpu"), torch.float32) is function
    with pytest.raises(NotFinite):
        Add(torch.tensor([1e300], dtype=torch.float64)).to(torch.device("cpu"), torch.float32)


def test_a_function_gets_rows_whatever_the_mask():
    seen = []

    def note(rows: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(rows.shape))
        return rows * 2

    h = random(2, 3, WIDTH)
    assert torch.equal(Function(note)(h, torch.zeros(2, 3, dtype=torch.long)), h * 2)
    assert torch.equal(Function(note)(h[0], torch.zeros(3, dtype=torch.long)), h[0] * 2)
    heads = random(2, 3, 4, WIDTH)
    assert torch.equal(Function(note)(heads, torch.zeros(2, 3, dtype=torch.long)), heads * 2)
    assert seen == [(6, WIDTH), (3, WIDTH), (6, 4, WIDTH)]


@pytest.mark.parametrize("wrong", [lambda h: h[:, :2], lambda h: None, lambda h: h.tolist(), lambda h: h.sum()])
def test_a_function_must_give_back_what_it_got(wrong):
    with pytest.raises(WrongShape, match="the function of the edit returned"):
        Function(wrong)(random(3, WIDTH), torch.zeros(3, dtype=torch.long))


def test_a_function_is_never_saved(tmp_path):
    from optrode.edits import function

    with pytest.raises(NotSupported, match="holds code"):
        function("layers.0.out", torch.tanh).save(tmp_path / "f.edit")
    assert list(tmp_path.iterdir()) == []
