"""Direction estimators by hand; the principal forms have their twin in steering/test_control_vector.py."""

from __future__ import annotations

import pytest
import torch

from optrode.errors import BadInput
from optrode.parts.directions import (
    logistic_direction,
    mean_difference,
    oriented,
    principal_direction,
    random_direction,
)


def test_a_mean_difference_is_neither_centred_nor_of_unit_length():
    high, low = torch.tensor([[2.0, 0.0], [4.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 6.0]])
    assert mean_difference(high, low).tolist() == [2.0, -2.0]


def test_a_logistic_direction_does_not_depend_on_the_units_of_a_coordinate():
    """Rows are standardised: a coordinate in other units has its weight in those units, and nothing else changes."""
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(30, 4, generator=generator)
    high = low + torch.tensor([1.0, 0.0, -1.0, 0.0]) + 0.5 * torch.randn(30, 4, generator=generator)
    units = torch.tensor([1.0, 1.0, 1000.0, 1.0])
    plain, scaled = logistic_direction(high, low), logistic_direction(high * units, low * units)
    torch.testing.assert_close(scaled * units, plain, atol=1e-3, rtol=1e-3)
    assert float(plain[0]) > 0 > float(plain[2]) and float(plain[1].abs()) < 0.5 * float(plain[0])


def test_a_smaller_penalty_gives_a_longer_weight():
    high, low = torch.eye(3) + 1, -torch.eye(3)
    lengths = [float(logistic_direction(high, low, penalty=penalty).norm()) for penalty in (100.0, 1.0, 0.01)]
    assert lengths == sorted(lengths)


def test_the_sign_follows_the_pairs_then_the_mean():
    x = torch.tensor([1.0, 0.0])
    zero = torch.zeros(3, 2)
    assert torch.equal(oriented(-x, torch.tensor([[1.0, 0], [1.0, 0], [-5.0, 0]]), zero), x)
    assert torch.equal(oriented(x, torch.tensor([[1.0, 0], [-5.0, 0], [0.0, 0]]), zero), -x)
    assert torch.equal(oriented(x, zero, zero), x)


def test_swapped_sides_turn_every_direction():
    generator = torch.Generator().manual_seed(1)
    low = torch.randn(9, 5, generator=generator)
    high = low + 1 + torch.randn(9, 5, generator=generator)
    for estimate in (mean_difference, principal_direction, logistic_direction):
        torch.testing.assert_close(estimate(high, low), -estimate(low, high), atol=1e-4, rtol=1e-4)


def test_random_directions_are_of_unit_length_and_repeat_with_their_seed():
    one = random_direction(7, seed=1)
    assert one.shape == (7,) and float(one.norm()) == pytest.approx(1)
    assert torch.equal(one, random_direction(7, seed=1)) and not torch.equal(one, random_direction(7, seed=2))


def test_too_few_pairs_and_unknown_forms_are_refused():
    rows = torch.ones(2, 3)
    with pytest.raises(BadInput, match="two pairs"):
        principal_direction(rows[:1], rows[:1])
    with pytest.raises(BadInput, match="random_sign"):
        principal_direction(rows, rows, form="other")
    with pytest.raises(BadInput, match="both classes"):
        logistic_direction(rows, rows[:0])
