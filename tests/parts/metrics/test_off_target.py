"""Off-target shifts, and the interval of their size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from optrode import edits
from optrode.data import behaviour
from optrode.errors import BadInput
from optrode.parts.choice import ForcedChoice
from optrode.parts.metrics.off_target import OffTarget, mean_size


def test_the_size_is_the_mean_over_behaviours_of_their_mean_shift():
    shifts = {"one": np.array([1.0, -3.0]), "other": np.array([2.0, 2.0, 2.0])}
    found = mean_size(shifts)
    assert found.value == pytest.approx((1.0 + 2.0) / 2)
    # The second one never varies; the first one's mean is 1, -1 or -3 over its resamples, so its size is 1 or 3.
    assert (found.low, found.high) == pytest.approx(((1 + 2) / 2, (3 + 2) / 2))


def test_it_repeats_itself_and_refuses_nothing():
    shifts = {"one": np.random.default_rng(0).normal(size=20)}
    assert mean_size(shifts, seed=3) == mean_size(shifts, seed=3)
    with pytest.raises(BadInput, match="at least one other"):
        mean_size({})


def test_shifts_are_those_of_forced_choice(llama):
    edit = edits.add("layers.1.out", torch.randn(llama.width, generator=torch.Generator().manual_seed(0)))
    found = OffTarget(llama, ["sentiment", "formality"], 3, layers=[1, 2]).shifts(edit)
    assert list(found) == ["sentiment", "formality"]
    choices = behaviour("formality").tune
    asked = ForcedChoice(llama, [choices[0], choices[round((len(choices) - 1) / 2)], choices[-1]])
    base = asked.ask().numpy()
    with llama.edited(edit):
        wanted = asked.ask(fresh=True).numpy() - base
    np.testing.assert_allclose(found["formality"], wanted, atol=2e-4)
    assert np.abs(wanted).max() > 1e-3


def test_nothing_moves_nothing(llama):
    found = OffTarget(llama, ["sentiment"], 2, layers=[1]).shifts(edits.add("layers.1.out", torch.zeros(llama.width)))
    np.testing.assert_allclose(found["sentiment"], 0, atol=1e-4)
