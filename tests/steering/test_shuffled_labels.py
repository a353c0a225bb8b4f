"""Shuffled labels: the mean difference of pairs of which half are turned round, and nothing of a common difference."""

from __future__ import annotations

import torch

from optrode.steering.caa import CAA
from optrode.steering.shuffled_labels import ShuffledLabels

SITE = "layers.1.out"


def test_it_is_a_mean_of_differences_with_half_of_the_signs_turned(model, pairs):
    contrast = ShuffledLabels().contrast(model, pairs, SITE)
    positive, negative = contrast.at(SITE)
    got = ShuffledLabels(seed=3).direction(positive, negative)
    # Written out: the signs that give this mean are found among all with as many minuses as half of the pairs.
    from itertools import combinations

    count = len(pairs)
    found = [
        turned
        for turned in combinations(range(count), count // 2)
        if torch.allclose(
            sum((-1 if n in turned else 1) * (positive[n] - negative[n]) for n in range(count)) / count, got, atol=1e-5
        )
    ]
    assert len(found) == 1


def test_a_difference_that_all_pairs_share_vanishes():
    negative = torch.randn(10, 8, generator=torch.Generator().manual_seed(0))
    shared = torch.ones(8)
    for seed in range(5):
        assert float(ShuffledLabels(seed=seed).direction(negative + shared, negative).abs().max()) < 1e-5


def test_seeds_differ_and_repeat(llama, pairs):
    fitted = [ShuffledLabels(site=SITE, seed=seed).fit(llama, pairs).operator.vector for seed in (0, 0, 1)]
    assert torch.equal(fitted[0], fitted[1]) and not torch.equal(fitted[0], fitted[2])
    real = CAA(site=SITE, form="replies").fit(llama, pairs).operator.vector
    assert not torch.allclose(fitted[0], real)


def test_it_is_a_control():
    assert ShuffledLabels.role == "control"
