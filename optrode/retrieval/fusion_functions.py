"""An Analysis of Fusion Functions for Hybrid Retrieval (arXiv 2210.11934): merge a lexical and a semantic ranking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..errors import BadInput, did_you_mean
from .protocol import Candidates, FusionMethod, ranks

# Smallest values that the two scores can take in theory: BM25 is never negative, a cosine never below -1.
LEXICAL_INFIMUM, SEMANTIC_INFIMUM = 0.0, -1.0


@dataclass(frozen=True)
class ConvexCombination(FusionMethod):
    """a phi(semantic) + (1 - a) phi(lexical), with 0 <= a <= 1 (TM2C2 with the defaults).

    normaliser: `theoretical` (f - inf f) / (max - inf f), the paper's pick; `min_max` over the candidates, which
        depends on how many there are; `z_score`; `identity`.
    """

    id: ClassVar[str] = "fusion-functions"
    title: ClassVar[str] = "Convex combination"
    paper: ClassVar[str] = "2210.11934"

    alpha: float = 0.8
    normaliser: str = "theoretical"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise BadInput(f"alpha is {self.alpha}: it must lie between 0 (lexical alone) and 1 (semantic alone)")
        if self.normaliser not in NORMALISERS:
            raise BadInput(f"normaliser '{self.normaliser}' is not known: {did_you_mean(self.normaliser, NORMALISERS)}")

    def fuse(self, candidates: Candidates) -> np.ndarray:
        normalise, known = NORMALISERS[self.normaliser], candidates.known
        semantic = normalise(candidates.semantic, known, SEMANTIC_INFIMUM)
        lexical = normalise(candidates.lexical, known, LEXICAL_INFIMUM)
        return np.where(known, self.alpha * semantic + (1 - self.alpha) * lexical, -np.inf)

    def settings(self) -> tuple[FusionMethod, ...]:
        return tuple(replace(self, alpha=round(0.05 * step, 2)) for step in range(21))

    def distance(self, setting: FusionMethod) -> float:
        return abs(setting.alpha - self.alpha) if isinstance(setting, ConvexCombination) else 0.0


@dataclass(frozen=True)
class ReciprocalRankFusion(FusionMethod):
    """1 / (eta_lexical + rank) + 1 / (eta_semantic + rank), ranks from 1."""

    id: ClassVar[str] = "fusion-functions"
    title: ClassVar[str] = "Reciprocal rank fusion"
    paper: ClassVar[str] = "2210.11934"

    eta_lexical: float = 60.0
    eta_semantic: float = 60.0

    def __post_init__(self) -> None:
        if min(self.eta_lexical, self.eta_semantic) < 0:
            raise BadInput("eta_lexical and eta_semantic must not be negative")

    def fuse(self, candidates: Candidates) -> np.ndarray:
        known = candidates.known
        return self._of(known, ranks(candidates.lexical, known), ranks(candidates.semantic, known))

    def _of(self, known: np.ndarray, lexical: np.ndarray, semantic: np.ndarray) -> np.ndarray:
        fused = 1.0 / (self.eta_lexical + lexical) + 1.0 / (self.eta_semantic + semantic)
        return np.where(known, fused, -np.inf)

    def settings(self) -> tuple[FusionMethod, ...]:
        values = (1.0, 5.0, 10.0, 20.0, 40.0, 60.0, 100.0)
        return tuple(replace(self, eta_lexical=first, eta_semantic=second) for first in values for second in values)

    def distance(self, setting: FusionMethod) -> float:
        if not isinstance(setting, ReciprocalRankFusion):
            return 0.0
        return abs(setting.eta_lexical - self.eta_lexical) + abs(setting.eta_semantic - self.eta_semantic)


@dataclass(frozen=True)
class SoftRankFusion(ReciprocalRankFusion):
    """Reciprocal rank fusion of soft ranks 0.5 + sum of sigmoid(beta (f(other) - f(own))), over all candidates.

    A candidate's comparison with itself is half a place, so that soft ranks run from 1 and become ranks as beta grows.
    """

    title: ClassVar[str] = "Soft rank fusion"
    id: ClassVar[str] = "fusion-functions"

    beta: float = 100.0

    def fuse(self, candidates: Candidates) -> np.ndarray:
        known = candidates.known
        lexical, semantic = (_soft_ranks(f, known, self.beta) for f in (candidates.lexical, candidates.semantic))
        return self._of(known, lexical, semantic)


def _soft_ranks(scores: np.ndarray, known: np.ndarray, beta: float) -> np.ndarray:
    from scipy.special import expit

    found = np.empty(scores.shape)
    for query, (row, kept) in enumerate(zip(scores, known, strict=True)):
        above = expit(beta * (row[None, :] - row[:, None])) * kept[None, :]
        found[query] = 0.5 + above.sum(1)
    return found


# Normalisers: scores and candidates, both [query, document], and the smallest value that the score can have.


def _theoretical(scores: np.ndarray, known: np.ndarray, infimum: float) -> np.ndarray:
    top = np.where(known, scores, -np.inf).max(1, keepdims=True)
    return _over(scores - infimum, top - infimum)


def _min_max(scores: np.ndarray, known: np.ndarray, infimum: float) -> np.ndarray:
    bottom = np.where(known, scores, np.inf).min(1, keepdims=True)
    top = np.where(known, scores, -np.inf).max(1, keepdims=True)
    return _over(scores - bottom, top - bottom)


def _z_score(scores: np.ndarray, known: np.ndarray, infimum: float) -> np.ndarray:
    count = np.maximum(known.sum(1, keepdims=True), 1)
    mean = np.where(known, scores, 0.0).sum(1, keepdims=True) / count
    variance = np.where(known, (scores - mean) ** 2, 0.0).sum(1, keepdims=True) / count
    return _over(scores - mean, np.sqrt(variance))


def _identity(scores: np.ndarray, known: np.ndarray, infimum: float) -> np.ndarray:
    return scores


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Where all candidates have the same score, it tells nothing: 0."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), 0.0)


NORMALISERS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "theoretical": _theoretical,
    "min_max": _min_max,
    "z_score": _z_score,
    "identity": _identity,
}
