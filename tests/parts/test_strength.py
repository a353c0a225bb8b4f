"""Strength in units of the stream, and dose curves."""

from __future__ import annotations

import pytest
import torch

from optrode import edits
from optrode.errors import BadInput, NotSupported
from optrode.parts.strength import dose_curve, in_stream_units


def test_a_vector_is_brought_to_the_norm_of_the_stream_and_keeps_its_direction():
    edit = edits.add("layers.1.out", torch.tensor([3.0, 4.0]), "user")
    scaled = in_stream_units(edit, 10.0)
    torch.testing.assert_close(scaled.operator.vector, torch.tensor([6.0, 8.0]))
    assert (scaled.unit, scaled.strength, str(scaled.positions), scaled.site) == ("stream", 1.0, "user", "layers.1.out")
    assert edit.unit == "operator" and edit.operator.vector.tolist() == [3.0, 4.0]


def test_of_a_vector_per_position_the_longest_row_is_brought_to_the_norm():
    edit = edits.add_by_position("layers.1.in", torch.tensor([[3.0, 4.0], [0.0, 1.0]]), "first:2")
    torch.testing.assert_close(in_stream_units(edit, 10.0).operator.vectors, torch.tensor([[6.0, 8.0], [0.0, 2.0]]))


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_a_stream_without_norm_is_refused(norm):
    with pytest.raises(BadInput, match="above 0"):
        in_stream_units(edits.add("layers.1.out", torch.ones(2)), norm)


def test_a_zero_vector_and_other_operators_are_refused():
    with pytest.raises(BadInput, match="same activations"):
        in_stream_units(edits.add("layers.1.out", torch.zeros(2)), 1.0)
    with pytest.raises(NotSupported, match="add a vector"):
        in_stream_units(edits.scale("layers.1.out", 2.0), 1.0)


def test_a_dose_curve_is_the_difference_from_no_edit(llama):
    edit = edits.add("layers.1.out", torch.ones(32))

    def effect(edit):
        return torch.tensor([10.0, 20.0]) + (edit.strength if edit else 0.0)

    def damage(edit):
        return torch.tensor([1.0, 1.0]) * (1 + (edit.strength**2 if edit else 0.0))

    curve = dose_curve(edit, [0.0, 1.0, -2.0], effect, damage)
    assert [point.strength for point in curve] == [0.0, 1.0, -2.0]
    assert [point.effect.tolist() for point in curve] == [[0, 0], [1, 1], [-2, -2]]
    assert [point.damage.tolist() for point in curve] == [[0, 0], [1, 1], [4, 4]]
