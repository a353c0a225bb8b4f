"""Metrics: numbers by their definitions, and tokens that are one token."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from optrode.errors import BadInput, NotSupported
from optrode.metrics import (
    Custom,
    Distance,
    KLDivergence,
    Logit,
    LogitDifference,
    LogProbability,
    Loss,
    Probability,
    Projection,
    Reference,
    token_id,
)

RANDOM = torch.Generator().manual_seed(0)
LOGITS = torch.randn(3, 2, 5, generator=RANDOM)
BASE = Reference(LOGITS[0], torch.tensor([4, -1]))


def test_numbers():
    p = LOGITS.softmax(-1)
    wanted = {
        Logit(2): LOGITS[..., 2].mean(-1),
        LogitDifference(2, 4): (LOGITS[..., 2] - LOGITS[..., 4]).mean(-1),
        Probability(2): p[..., 2].mean(-1),
        LogProbability(2): p[..., 2].log().mean(-1),
        KLDivergence(): (p[:1] * (p[:1].log() - p.log())).sum(-1).mean(-1),
        Loss(): -p[:, 0, 4].log(),
        Distance(): (LOGITS - LOGITS[:1]).pow(2).sum(-1).sqrt().mean(-1),
        Projection(torch.arange(5.0)): (LOGITS * torch.arange(5.0)).sum(-1).mean(-1),
        Custom(lambda values: values.flatten(1).sum(-1)): LOGITS.sum((1, 2)),
    }
    for metric, numbers in wanted.items():
        torch.testing.assert_close(metric(LOGITS, BASE), numbers, rtol=1e-5, atol=1e-6)
    assert float(KLDivergence()(LOGITS, BASE)[0]) == pytest.approx(0, abs=1e-6)


def test_a_metric_of_few_tokens_needs_these_columns_alone():
    for metric in (Logit(2), LogitDifference(2, 4)):
        ids, narrow = metric.narrowed()
        assert torch.equal(narrow(LOGITS[..., ids], BASE), metric(LOGITS, BASE))
    assert KLDivergence().narrowed() is None and Probability(2).narrowed() is None
    assert Logit(" cat").narrowed() is None, "it has no id yet"


def test_tokens_are_texts_of_one_token(tokenizer: Any):
    (number,) = tokenizer("a", add_special_tokens=False)["input_ids"]
    assert token_id(tokenizer, "a") == number == token_id(tokenizer, number)
    with pytest.raises(BadInput, match=r"'a\?zq' is 4 tokens \('a', '\?', 'z', 'q'\).*its first, 'a'"):
        token_id(tokenizer, "a?zq")
    with pytest.raises(NotSupported, match="no tokenizer"):
        token_id(None, "a")
    with pytest.raises(BadInput, match="text or an id"):
        token_id(tokenizer, 1.5)


def test_tokens_may_differ_by_example(tokenizer: Any):
    metric = LogitDifference(["a", 7], 3)
    assert (metric.bound(tokenizer, 1).answer, metric.bound(tokenizer, 0).against) == (7, 3)
    with pytest.raises(BadInput, match="one for each"):
        metric.bound(tokenizer, 2)
    with pytest.raises(BadInput, match="no id yet"):
        metric(LOGITS, BASE)


def test_wrong_functions_and_losses_of_nothing():
    with pytest.raises(BadInput, match="one number for each of 3 rows"):
        Custom(lambda values: values.sum())(LOGITS, BASE)
    with pytest.raises(BadInput, match="no token follows"):
        Loss()(LOGITS, Reference(LOGITS[0], torch.tensor([-1, -1])))
