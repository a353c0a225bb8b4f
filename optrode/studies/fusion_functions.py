"""Fusion of rankings: does a convex combination beat reciprocal ranks, and do few labelled queries suffice to tune it?

Two collections of documents. The catalogue: what each of its systems is for, with queries in a user's words that name
the systems which answer them (tuning and test queries are disjoint). Docstrings: the text below the first line of
functions of scikit-learn and scipy, with that first line as the query. BM25 and MiniLM-L6 score both; what is tuned is
tuned on the catalogue's tuning queries alone. Baselines that can win: either score by itself.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..catalogue.build import table
from ..catalogue.rows import all_systems
from ..catalogue.search import bm25_scores, candidates
from ..engine.progress import Steps
from ..parts.sentences import embed
from ..parts.statistics import Interval, bootstrap_mean
from ..parts.study import Finding, Study, above
from ..retrieval.fusion_functions import NORMALISERS, ConvexCombination, ReciprocalRankFusion
from ..retrieval.protocol import Candidates, FusionMethod, best_of_both, ndcg, reciprocal_rank

# The catalogue's own size is 198, so that the paper's 1000 candidates of each list would be all of it.
CANDIDATES = 50
CUT = 10
FEW = (5, 10, 20)
MODULES = (
    *(f"sklearn.{name}" for name in ("metrics", "preprocessing", "linear_model", "cluster", "decomposition")),
    *(f"scipy.{name}" for name in ("signal", "stats", "optimize", "linalg", "interpolate")),
)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Scored candidates of some queries, and which documents answer them: [query, document] 0 or 1."""

    candidates: Candidates
    relevance: np.ndarray

    def pick(self, queries: Sequence[int] | np.ndarray) -> Labelled:
        chosen = np.asarray(queries)
        return Labelled(self.candidates.pick(chosen), self.relevance[chosen])

    def quality(self, method: FusionMethod) -> np.ndarray:
        """NDCG@10 of every query."""
        return ndcg(method.fuse(self.candidates), self.relevance, CUT)


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    steps.at("scoring the catalogue")
    fit, test = of_catalogue("fit"), of_catalogue("test")
    steps.at("scoring docstrings")
    others = of_docstrings(1000 if full else 300)
    steps.at("tuning and comparing")
    return findings(fit, test, others, seeds)


def of_catalogue(split: str) -> Labelled:
    """The catalogue with the queries of one split."""
    chosen = [row for row in table("queries.tsv") if row["split"] == split]
    order = [system.id for system in all_systems()]
    relevance = np.array([[id in row["relevant"].split(",") for id in order] for row in chosen], dtype=float)
    return Labelled(candidates([row["query"] for row in chosen], CANDIDATES), relevance)


def of_docstrings(count: int) -> Labelled:
    """Documents and first lines of docstrings, in alphabetical order; each query has one right document."""
    pairs = sorted(set(_docstrings()))
    pairs = pairs[:: max(1, len(pairs) // count)][:count]
    queries, bodies = [first for first, _ in pairs], [body for _, body in pairs]
    semantic = embed(queries) @ embed(bodies).T
    return Labelled(best_of_both(bm25_scores(queries, bodies), semantic, CANDIDATES), np.eye(len(pairs)))


def _docstrings() -> Iterable[tuple[str, str]]:
    for name in MODULES:
        module = importlib.import_module(name)
        for member in sorted(getattr(module, "__all__", [])):
            text = inspect.getdoc(getattr(module, member, None)) or ""
            first, _, body = text.partition("\n")
            if len(first) > 20 and len(body) > 200:
                yield first.strip(), " ".join(body.split())[:600]


def findings(fit: Labelled, test: Labelled, others: Labelled, seeds: Sequence[int]) -> list[Finding]:
    lexical, semantic = ConvexCombination(alpha=0.0), ConvexCombination(alpha=1.0)
    default, ranks60 = ConvexCombination(), ReciprocalRankFusion()
    tuned, tuned_ranks = (method.fit(fit.candidates, fit.relevance, CUT) for method in (default, ranks60))
    better = max((lexical, semantic), key=lambda method: float(fit.quality(method).mean()))
    names = {lexical: "BM25", semantic: "MiniLM"}
    return [
        _against(
            "A convex combination (alpha 0.8) ranks better than reciprocal rank fusion (60)",
            test, default, ranks60, f"RRF {_mean(test, ranks60)}", True,
        ),
        _against(
            "A convex combination ranks better than the better of its two scores",
            test, tuned, better, f"{names[better]} {_mean(test, better)}; BM25 {_mean(test, lexical)}, "
            f"MiniLM {_mean(test, semantic)}", True,
        ),
        _few(fit, test, tuned, seeds),
        _against(
            "Out of domain (docstrings), the combination tuned on the catalogue beats reciprocal ranks tuned there",
            others, tuned, tuned_ranks, f"tuned RRF {_mean(others, tuned_ranks)}; BM25 {_mean(others, lexical)}, "
            f"MiniLM {_mean(others, semantic)}", True,
        ),
        _sensitivity(test),
        _normalisers(fit, test),
    ]  # fmt: skip


def _mean(data: Labelled, method: FusionMethod) -> str:
    return f"{data.quality(method).mean():.3f}"


def _difference(data: Labelled, first: FusionMethod, second: FusionMethod) -> Interval:
    """Mean difference of NDCG@10 over queries, paired, with a bootstrap interval."""
    return bootstrap_mean(data.quality(first) - data.quality(second))


def _against(
    claim: str, data: Labelled, method: FusionMethod, other: FusionMethod, baseline: str, essential: bool
) -> Finding:
    gained = _difference(data, method, other)
    first = reciprocal_rank(method.fuse(data.candidates), data.relevance).mean()
    setting = f"alpha {method.alpha}" if isinstance(method, ConvexCombination) else method.title
    measured = f"NDCG@10 {_mean(data, method)} ({setting}); difference {gained}; MRR {first:.3f}"
    numbers = {"queries": len(data.candidates), "difference": asdict(gained)}
    return Finding(claim, baseline, measured, above(gained, 0.0), essential, numbers)


def _few(fit: Labelled, test: Labelled, tuned: FusionMethod, seeds: Sequence[int]) -> Finding:
    """Tuned on random handfuls of the tuning queries, how much is lost against tuning on all of them?"""
    lost = {count: [_lost(fit, test, tuned, count, seed) for seed in _draws(seeds)] for count in FEW}
    kept = bootstrap_mean(np.array([0.01 - value for value in lost[FEW[-1]]]))
    shown = ", ".join(f"{count} queries: {np.mean(values):+.4f}" for count, values in lost.items())
    return Finding(
        "Some twenty labelled queries suffice to tune alpha (at most 0.01 of NDCG@10 lost)",
        f"tuned on all {len(fit.candidates)}: {_mean(test, tuned)}",
        f"loss over {len(_draws(seeds))} draws each: {shown}",
        above(kept, 0.0),
        numbers={"kept": asdict(kept), **{str(count): values for count, values in lost.items()}},
    )


def _draws(seeds: Sequence[int]) -> list[int]:
    return [100 * seed + draw for seed in seeds for draw in range(20)]


def _lost(fit: Labelled, test: Labelled, tuned: FusionMethod, count: int, seed: int) -> float:
    chosen = np.random.default_rng(seed).choice(len(fit.candidates), count, replace=False)
    few = fit.pick(chosen)
    own = ConvexCombination().fit(few.candidates, few.relevance, CUT)
    return float(test.quality(tuned).mean() - test.quality(own).mean())


def _sensitivity(test: Labelled) -> Finding:
    """Spread of NDCG@10 over the grid of each method's own parameters."""
    etas = [float(test.quality(setting).mean()) for setting in ReciprocalRankFusion().settings()]
    alphas = [float(test.quality(ConvexCombination(alpha=a)).mean()) for a in (0.5, 0.6, 0.7, 0.8, 0.9)]
    spread, other = max(etas) - min(etas), max(alphas) - min(alphas)
    return Finding(
        "Reciprocal rank fusion depends on its two parameters (over 0.02 of NDCG@10 between settings)",
        f"convex combination, alpha 0.5 to 0.9: {min(alphas):.3f} to {max(alphas):.3f} (spread {other:.3f})",
        f"eta 1 to 100 each: {min(etas):.3f} to {max(etas):.3f} (spread {spread:.3f})",
        "reproduced" if spread > 0.02 else "not reproduced",
        essential=False,
        numbers={"etas": etas, "alphas": alphas},
    )


def _normalisers(fit: Labelled, test: Labelled) -> Finding:
    """After tuning, the choice of the normaliser should matter little."""
    tuned = {name: ConvexCombination(normaliser=name).fit(fit.candidates, fit.relevance, CUT) for name in NORMALISERS}
    reference = test.quality(tuned["theoretical"])
    gaps = {name: bootstrap_mean(test.quality(method) - reference) for name, method in tuned.items()}
    scaled = [gaps[name] for name in ("min_max", "z_score")]
    equal = all(gap.low <= 0 <= gap.high for gap in scaled)
    shown = "; ".join(f"{name} {_mean(test, method)} ({gaps[name]})" for name, method in tuned.items())
    return Finding(
        "Once alpha is tuned, min-max, z-score and theoretical normalisation do not differ",
        f"theoretical {reference.mean():.3f}",
        shown,
        "reproduced" if equal else "not reproduced",
        essential=False,
        numbers={name: asdict(gap) for name, gap in gaps.items() if name != "theoretical"},
    )


STUDY = Study(
    id="fusion-functions",
    title="Convex combination or reciprocal ranks, over BM25 and MiniLM-L6",
    paper="2210.11934",
    shrunk="198 and 300 documents with 84 and 300 queries instead of MS MARCO and BEIR; 50 candidates a list, not "
    "1000; NDCG@10, not @1000",
    run=run,
)
