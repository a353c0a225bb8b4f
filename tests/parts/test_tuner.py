"""The tuner against a literal search over the whole grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from optrode.errors import NotFinite
from optrode.parts.tuner import Trial, tune


@dataclass(frozen=True)
class Fake:
    """Stands for an edit: knows its layer and the strength it was scaled to."""

    layer: int
    strength: float = 1.0

    def __mul__(self, strength: float) -> Fake:
        return Fake(self.layer, self.strength * strength)


numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5))
tables = st.dictionaries(
    st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.2, 0.4])), st.tuples(numbers, st.floats(0.5, 3)), min_size=12
)
STRENGTHS = (0.1, 0.2, 0.4)


def literal(table: dict, budget: float) -> tuple[int, float, bool]:
    """The first cell of largest effect among those within the budget; else the first of least damage."""
    cells = [(layer, strength) for layer in range(4) for strength in STRENGTHS]
    allowed = [cell for cell in cells if table[cell][1] <= budget]
    if allowed:
        top = max(table[cell][0] for cell in allowed)
        return (*next(cell for cell in allowed if table[cell][0] == top), True)
    least = min(table[cell][1] for cell in cells)
    return (*next(cell for cell in cells if table[cell][1] == least), False)


@given(tables, st.floats(0.4, 3.2))
def test_the_choice_is_that_of_a_literal_search_whether_or_not_all_is_measured(table, budget):
    for measure_all in (True, False):
        found = tune(
            {layer: Fake(layer) for layer in range(4)},  # type: ignore[misc]
            STRENGTHS,
            lambda edit: table[edit.layer, edit.strength][0],  # type: ignore[attr-defined]
            lambda edit: table[edit.layer, edit.strength][1],  # type: ignore[attr-defined]
            budget,
            measure_all=measure_all,
        )
        best = found.best
        assert (best.layer, best.strength, best.within) == literal(table, budget)
        assert len(found.trials) == 12 and best in found.trials
        assert (best.effect, best.damage) == table[best.layer, best.strength]


def search(effects: list[float], damages: list[float], budget: float = 1.0, measure_all: bool = True):
    asked: list[float] = []

    def damage(edit: Fake) -> float:
        asked.append(edit.strength)
        return damages[int(edit.strength) - 1]

    strengths = range(1, len(effects) + 1)
    found = tune(
        {0: Fake(0)}, strengths, lambda e: effects[int(e.strength) - 1], damage, budget, measure_all=measure_all
    )  # type: ignore
    return found, asked


def test_damage_is_not_measured_where_it_cannot_matter():
    found, asked = search([3.0, 2.0, 3.0, 4.0], [0.5] * 4, measure_all=False)
    assert asked == [1, 4] and found.best.strength == 4
    assert [trial.damage for trial in found.trials] == [0.5, None, None, 0.5]
    assert search([3.0, 2.0, 3.0, 4.0], [0.5] * 4)[1] == [1, 2, 3, 4]


def test_an_effect_over_the_budget_does_not_stop_the_search():
    found, _ = search([9.0, 1.0, 2.0], [5.0, 0.5, 1.0])
    assert found.best == Trial(0, 3, 2.0, 1.0, True)


def test_all_over_the_budget_gives_the_least_damage_marked():
    found, _ = search([9.0, 8.0, 7.0], [5.0, 3.0, 4.0])
    assert found.best == Trial(0, 2, 8.0, 3.0, False)


def test_no_number_counts_as_over_the_budget():
    def effect(edit: Fake) -> float:
        if edit.strength > 1:
            raise NotFinite("boom")
        return 1.0

    found = tune({0: Fake(0)}, (1.0, 2.0), effect, lambda edit: 1.0, 2.0)  # type: ignore
    assert found.best.strength == 1.0
    assert math.isnan(found.trials[1].effect) and found.trials[1].damage == math.inf and not found.trials[1].within
    all_bad = tune({0: Fake(0)}, (3.0, 2.0), effect, lambda edit: 1.0, 2.0)  # type: ignore
    assert not all_bad.best.within
