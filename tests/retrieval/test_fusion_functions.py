"""Fusion against a literal second reading of the paper's equations, and the card's planted channels of known noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.errors import BadInput, WrongShape
from optrode.retrieval.fusion_functions import ConvexCombination, ReciprocalRankFusion, SoftRankFusion
from optrode.retrieval.protocol import Candidates, best_of_both, ndcg, ranks, reciprocal_rank


def made(seed: int = 0, queries: int = 6, documents: int = 30, k: int = 12) -> Candidates:
    random = np.random.default_rng(seed)
    return best_of_both(random.gamma(2.0, 3.0, (queries, documents)), random.uniform(-1, 1, (queries, documents)), k)


def by_hand(lexical: list[float], semantic: list[float], alpha: float, normaliser: str) -> list[float]:
    """Steps 2 and 3 of the paper's method for the candidates of one query, in plain Python."""

    def normal(values: list[float], infimum: float) -> list[float]:
        top, bottom = max(values), min(values)
        mean = sum(values) / len(values)
        sigma = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        if normaliser == "min_max":
            return [(value - bottom) / (top - bottom) for value in values]
        if normaliser == "theoretical":
            return [(value - infimum) / (top - infimum) for value in values]
        return [(value - mean) / sigma for value in values] if normaliser == "z_score" else values

    pairs = zip(normal(semantic, -1.0), normal(lexical, 0.0), strict=True)
    return [alpha * first + (1 - alpha) * second for first, second in pairs]


@pytest.mark.parity("fusion-functions")
@pytest.mark.parametrize("normaliser", ["theoretical", "min_max", "z_score", "identity"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 1.0])
def test_the_combination_is_the_papers(normaliser: str, alpha: float) -> None:
    data = made()
    fused = ConvexCombination(alpha, normaliser).fuse(data)
    for query in range(len(data)):
        kept = data.known[query]
        wanted = by_hand(list(data.lexical[query][kept]), list(data.semantic[query][kept]), alpha, normaliser)
        np.testing.assert_allclose(fused[query][kept], wanted, rtol=1e-12, atol=1e-12)
        assert np.isneginf(fused[query][~kept]).all()


@pytest.mark.parity("fusion-functions")
def test_reciprocal_ranks_are_the_papers() -> None:
    data = made(1)
    fused = ReciprocalRankFusion(7.0, 60.0).fuse(data)
    for query in range(len(data)):
        kept = np.flatnonzero(data.known[query])
        by_words = sorted(kept, key=lambda document: -data.lexical[query, document])
        by_meaning = sorted(kept, key=lambda document: -data.semantic[query, document])
        for document in kept:
            first, second = by_words.index(document) + 1, by_meaning.index(document) + 1
            assert fused[query, document] == pytest.approx(1 / (7 + first) + 1 / (60 + second), rel=1e-12)


def test_soft_ranks_become_ranks() -> None:
    data = made(2)
    hard = ReciprocalRankFusion().fuse(data)[data.known]
    soft = [SoftRankFusion(beta=beta).fuse(data)[data.known] for beta in (1.0, 30.0, 1e6)]
    gaps = [float(np.abs(values - hard).max()) for values in soft]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-9


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_any_two_affine_normalisers_rank_alike_for_another_alpha(seed: int, alpha: float) -> None:
    """Per query, theoretical and plain combinations are one family: only the weight changes."""
    data = made(seed, queries=1)
    kept = data.known[0]
    wide = data.semantic[0][kept].max() + 1.0
    high = data.lexical[0][kept].max()
    weight = (alpha / wide) / (alpha / wide + (1 - alpha) / high)
    first = ConvexCombination(alpha).fuse(data)[0][kept]
    second = ConvexCombination(weight, "identity").fuse(data)[0][kept]
    # Equal but for a positive factor and a constant, so that no rounding can turn an order.
    np.testing.assert_allclose(np.corrcoef(first, second)[0, 1], 1.0, atol=1e-9)


def test_equal_scores_tell_nothing_and_are_no_division_by_zero() -> None:
    same = Candidates(np.zeros((1, 4)), np.array([[0.1, 0.4, 0.2, 0.3]]), np.ones((1, 4), dtype=bool))
    for normaliser in ("theoretical", "min_max", "z_score"):
        fused = ConvexCombination(0.5, normaliser).fuse(same)
        assert ranks(fused).tolist() == [[4, 1, 3, 2]]


def channels(noise_lexical: float, noise_semantic: float, seed: int) -> tuple[Candidates, np.ndarray]:
    """Truth seen through two channels of known noise; the ten best documents by truth are relevant."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=(150, 100))
    lexical = truth + noise_lexical * random.normal(size=truth.shape)
    semantic = truth + noise_semantic * random.normal(size=truth.shape)
    return best_of_both(lexical, semantic, 100), (ranks(truth) <= 10).astype(float)


@pytest.mark.parametrize("noises", [(1.0, 1.0), (2.0, 1.0), (1.0, 2.0)])
def test_tuning_finds_the_ratio_of_precisions(noises: tuple[float, float]) -> None:
    data, relevance = channels(*noises, seed=3)
    tuned = ConvexCombination(normaliser="identity").fit(data, relevance)
    precision = [1 / noise**2 for noise in noises]
    assert isinstance(tuned, ConvexCombination)
    assert tuned.alpha == pytest.approx(precision[1] / sum(precision), abs=0.1)


def test_pure_noise_in_one_channel_gives_nothing() -> None:
    data, relevance = channels(1e6, 1.0, seed=4)
    tuned = ConvexCombination(normaliser="min_max").fit(data, relevance)
    fresh, wanted = channels(1e6, 1.0, seed=5)
    alone = ndcg(ConvexCombination(1.0).fuse(fresh), wanted, 10).mean()
    assert ndcg(tuned.fuse(fresh), wanted, 10).mean() <= alone + 1e-9


def test_quality_against_numbers_by_hand() -> None:
    scores, relevance = np.array([[0.9, 0.8, 0.7]]), np.array([[0.0, 1.0, 1.0]])
    ideal = 1 + 1 / math.log2(3)
    assert ndcg(scores, relevance, 3)[0] == pytest.approx((1 / math.log2(3) + 1 / 2) / ideal)
    assert reciprocal_rank(scores, relevance)[0] == 0.5
    assert np.isnan(ndcg(scores, np.zeros((1, 3)), 3)[0])


def test_wrong_input_is_one_line() -> None:
    with pytest.raises(WrongShape, match="must be"):
        Candidates(np.zeros((1, 2)), np.zeros((1, 3)), np.ones((1, 2), dtype=bool))
    with pytest.raises(BadInput, match="complete both lists"):
        Candidates(np.array([[np.nan]]), np.zeros((1, 1)), np.ones((1, 1), dtype=bool))
    with pytest.raises(BadInput, match="between 0"):
        ConvexCombination(1.2)
    with pytest.raises(BadInput, match="min_max"):
        ConvexCombination(normaliser="minmax")
