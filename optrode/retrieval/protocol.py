"""What methods of retrieval share: the scores of candidates, rankings with a fixed rule for ties, and their quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import BadInput, WrongShape
from ..parts.method import Method


@dataclass(frozen=True, eq=False)
class Candidates:
    """Two scores of every candidate of every query, both [query, document] float64; larger is better.

    `known` (bool, same shape) marks the candidates: the union of both lists' best. A candidate that one list did not
    hold must have that list's real score all the same; a zero in its place would be another method.

    Raises `WrongShape` where the shapes differ, `BadInput` where a candidate's score is no number.
    """

    lexical: np.ndarray
    semantic: np.ndarray
    known: np.ndarray

    def __post_init__(self) -> None:
        if not self.lexical.shape == self.semantic.shape == self.known.shape or self.lexical.ndim != 2:
            raise WrongShape(
                f"scores must be [query, document] and alike, not {self.lexical.shape}, {self.semantic.shape} and "
                f"{self.known.shape}"
            )
        if not np.isfinite(self.lexical[self.known]).all() or not np.isfinite(self.semantic[self.known]).all():
            raise BadInput("the score of a candidate is no number: complete both lists before they are fused")

    def __len__(self) -> int:
        return len(self.lexical)

    def pick(self, queries: np.ndarray) -> Candidates:
        return Candidates(self.lexical[queries], self.semantic[queries], self.known[queries])


def best_of_both(lexical: np.ndarray, semantic: np.ndarray, k: int) -> Candidates:
    """Candidates of each query: the best `k` by one score united with the best `k` by the other."""
    known = (ranks(lexical) <= k) | (ranks(semantic) <= k)
    return Candidates(lexical.astype(np.float64), semantic.astype(np.float64), known)


def ranks(scores: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Rank of every document for its query, from 1; of equal scores the earlier document comes first.

    Documents that are not `known` come after all others.

    >>> ranks(np.array([[0.5, 0.9, 0.9]]))
    array([[3, 1, 2]])
    """
    shown = scores if known is None else np.where(known, scores, -np.inf)
    order = np.argsort(-shown, axis=1, kind="stable")
    found = np.empty_like(order)
    np.put_along_axis(found, order, np.arange(1, scores.shape[1] + 1)[None, :].repeat(len(scores), 0), axis=1)
    return found


def ndcg(fused: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain of the first `k`, one value per query; `relevance` [query, document] >= 0.

    A query without any relevant document has no value: NaN.
    """
    return _gain(ranks(fused), relevance, k) / _gain(ranks(relevance.astype(np.float64)), relevance, k, ideal=True)


def _gain(ranked: np.ndarray, relevance: np.ndarray, k: int, ideal: bool = False) -> np.ndarray:
    found = np.where(ranked <= k, relevance / np.log2(ranked + 1), 0.0).sum(1)
    return np.where(found == 0, np.nan, found) if ideal else found


def reciprocal_rank(fused: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """1 / rank of the first relevant document, one value per query; 0 where none is relevant."""
    return np.where(relevance > 0, 1.0 / ranks(fused), 0.0).max(1)


@dataclass(frozen=True)
class FusionMethod(Method):
    """Base of methods that merge two scores into one. `fuse` gives [query, document]; strangers get minus infinity."""

    id: ClassVar[str] = ""

    def fuse(self, candidates: Candidates) -> np.ndarray:
        raise NotImplementedError

    def settings(self) -> tuple[FusionMethod, ...]:
        """The settings that tuning chooses among; a method without parameter has one, itself."""
        return (self,)

    def fit(self, candidates: Candidates, relevance: np.ndarray, k: int = 10) -> FusionMethod:
        """The setting with the largest mean NDCG@k on labelled queries; of equals the one nearest to the default."""
        scored = [float(np.nanmean(ndcg(setting.fuse(candidates), relevance, k))) for setting in self.settings()]
        best = max(scored)
        chosen = [setting for setting, value in zip(self.settings(), scored, strict=True) if value >= best - 1e-12]
        return min(chosen, key=self.distance)

    def distance(self, setting: FusionMethod) -> float:
        """How far a setting is from this one, to choose among equals."""
        return 0.0
