"""The judge: held-out groups, and the line below which it ranks nothing. The encoder runs on a few dozen texts only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from optrode.data import Labelled
from optrode.errors import BadInput
from optrode.parts import judge as module
from optrode.parts.judge import Judge, features, fit_judge


def coded(texts: Sequence[str]) -> np.ndarray:
    """Stands for the encoder: a text is a list of numbers."""
    return np.array([[float(part) for part in text.split()] for text in texts])


def labelled(shift: float, groups: int = 8, each: int = 12, seed: int = 0) -> list[Labelled]:
    random = np.random.default_rng(seed)
    found = []
    for group in range(groups):
        for number in range(each):
            row = random.normal(size=6)
            row[0] += shift * (1 if number % 2 else -1)
            found.append(Labelled(" ".join(map(str, row)), number % 2, f"g{group}"))
    return found


@pytest.fixture
def without_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "features", coded)


def test_its_accuracy_is_on_groups_it_did_not_see(without_encoder):
    items = labelled(0.8)
    rows, labels = coded([item.text for item in items]), np.array([item.label for item in items])
    groups = np.array([item.group for item in items])
    literal = []
    for name in sorted(set(groups)):
        kept = groups != name
        scaler = StandardScaler().fit(rows[kept])
        fitted = LogisticRegression(C=0.01, max_iter=2000).fit(scaler.transform(rows[kept]), labels[kept])
        literal += (fitted.predict(scaler.transform(rows[~kept])) == labels[~kept]).tolist()
    assert fit_judge(items, folds=8).accuracy == pytest.approx(np.mean(literal))
    assert 0.6 < np.mean(literal) < 0.95


def test_labels_without_meaning_are_not_trusted(without_encoder):
    judge = fit_judge(labelled(0.0))
    assert judge.accuracy < 0.7 and not judge.trusted
    good = fit_judge(labelled(3.0))
    assert good.accuracy > 0.95 and good.trusted and good.texts == 96


@pytest.mark.parametrize(("accuracy", "trusted"), [(0.7999, False), (0.8, True), (1.0, True)])
def test_the_line_is_at_80_percent(accuracy, trusted):
    assert Judge(accuracy, 10, None).trusted is trusted


def test_it_gives_the_probability_of_the_behaviour(without_encoder):
    judge = fit_judge(labelled(2.0))
    found = judge(["3 0 0 0 0 0", "-3 0 0 0 0 0"])
    assert found.shape == (2,) and found[0] > 0.55 and found[1] < 0.45
    assert judge.describe()["accuracy"] == round(judge.accuracy, 4)


def test_one_class_or_one_group_is_refused_before_anything_is_encoded(monkeypatch):
    monkeypatch.setattr(module, "features", lambda texts: pytest.fail("the encoder was used"))
    with pytest.raises(BadInput, match="both classes"):
        fit_judge([Labelled("a", 1, "x"), Labelled("b", 1, "y")])
    with pytest.raises(BadInput, match="at least two groups"):
        fit_judge([Labelled("a", 1, "x"), Labelled("b", 0, "x")])
    with pytest.raises(BadInput):
        fit_judge([])


def test_the_encoders_features_do_not_depend_on_what_they_are_batched_with():
    texts = ["Fine.", "I did not expect to like this place as much as I did, and I will be back.", ""]
    together = features(texts)
    assert together.shape == (3, 3 * 384) and together.dtype == np.float32
    for row, text in zip(together, texts, strict=True):
        np.testing.assert_allclose(features([text])[0], row, atol=1e-4)
    mean, high, low = np.split(together, 3, axis=1)
    assert (low <= mean + 1e-5).all() and (mean <= high + 1e-5).all()


def test_with_the_real_encoder_it_reads_sentiment_of_subjects_it_did_not_see():
    good, bad = ("lovely", "wonderful", "a delight"), ("dreadful", "awful", "a waste of time")
    items = [
        Labelled(f"The {name} was {word}, and I told my friends so.", label, name)
        for name in ("film", "soup", "hotel", "walk", "concert")
        for words, label in ((good, 1), (bad, 0))
        for word in words
    ]
    judge = fit_judge(items)
    assert judge.trusted and judge.describe()["name"].startswith("minilm-l6 ")
    better, worse = judge(["The book was wonderful.", "The book was awful."])
    assert better > worse
