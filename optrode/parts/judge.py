"""A judge that no steered model had a part in: logistic regression on MiniLM activations of separate text.

Sentence embeddings of MiniLM are made for topics and lose much of what is said about them (about 0.78 on sentiment), so
the judge reads the middle of the encoder instead: mean, maximum and minimum over tokens of the output of block 3, which
reaches 0.88 on the same texts by the same cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ..data import Behaviour, Labelled
from ..errors import BadInput
from ..model import Model, load
from .rules import Rule, rule

MINIMUM_ACCURACY = 0.8
ENCODER = "minilm-l6"
SITE = "layers.3.out"


@dataclass(frozen=True)
class Judge:
    """A fitted judge. `accuracy` is on held-out groups of its own texts; below 0.8 it must not rank anything."""

    accuracy: float
    texts: int
    _classifier: Any

    @property
    def trusted(self) -> bool:
        return self.accuracy >= MINIMUM_ACCURACY

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Probability that each text shows the behaviour, [text] float64."""
        return self._classifier.predict_proba(features(texts))[:, 1]

    def describe(self) -> dict[str, Any]:
        name = f"{ENCODER} {SITE} + logistic regression"
        return {"name": name, "accuracy": round(self.accuracy, 4), "texts": self.texts}


@dataclass(frozen=True)
class RuleJudge:
    """A judge that nothing was fitted for: a rule of `parts.rules`. `accuracy` is on the behaviour's `judge` texts.

    A text that the rule cannot decide counts as wrong.
    """

    name: str
    accuracy: float
    texts: int
    _rule: Rule

    @property
    def trusted(self) -> bool:
        return self.accuracy >= MINIMUM_ACCURACY

    def __call__(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> np.ndarray:
        """How far each text shows the behaviour, from 0 to 1, [text] float64; `prompts`: what each answers."""
        asked = prompts if prompts is not None else [""] * len(texts)
        return np.array([self._rule(text, prompt) for text, prompt in zip(texts, asked, strict=True)], dtype=float)

    def describe(self) -> dict[str, Any]:
        return {"name": f"rule: {self.name}", "accuracy": round(self.accuracy, 4), "texts": self.texts}


def rule_judge(behaviour: Behaviour) -> RuleJudge:
    """The behaviour's rule, checked on its `judge` texts. Raises `UnknownName`, `BadInput` for no texts."""
    if not behaviour.judge:
        raise BadInput(f"the rule of '{behaviour.name}' cannot be checked: the behaviour has no judge texts")
    reads = rule(behaviour.rule)
    scores = np.array([reads(item.text, item.prompt) for item in behaviour.judge])
    labels = np.array([item.label for item in behaviour.judge])
    right = np.where(labels == 1, scores > 0.5, scores < 0.5)
    return RuleJudge(behaviour.rule, float(right.mean()), len(labels), reads)


def fit_judge(labelled: Sequence[Labelled], *, folds: int = 5) -> Judge:
    """Fit a judge and measure it on groups it was not fitted on.

    Raises `BadInput` when there is only one class, or fewer than two groups.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.array([item.label for item in labelled])
    groups = np.array([item.group for item in labelled])
    if len(set(labels)) < 2:
        raise BadInput("the judge needs texts of both classes: all have the same label")
    if len(set(groups)) < 2:
        raise BadInput("the judge needs at least two groups of texts, so that it can be tested on one it did not see")
    rows = features([item.text for item in labelled])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    split = GroupKFold(min(folds, len(set(groups))))
    held_out = cross_val_predict(classifier, rows, labels, groups=groups, cv=split)
    return Judge(float((held_out == labels).mean()), len(labelled), classifier.fit(rows, labels))


def features(texts: Sequence[str]) -> np.ndarray:
    """Mean, maximum and minimum over tokens of the encoder's middle layer, [text, 3 x 384] float32."""
    acts = _encoder().read([text if text.strip() else "." for text in texts], SITE, template="raw")
    assert acts.batch is not None
    h, mask = acts[SITE].float(), acts.batch.mask[..., None]
    mean = (h * mask).sum(1) / mask.sum(1)
    high = h.masked_fill(~mask, -torch.inf).amax(1)
    low = h.masked_fill(~mask, torch.inf).amin(1)
    return torch.cat([mean, high, low], 1).numpy()


@cache
def _encoder() -> Model:
    return load(ENCODER)
