"""Reasoning vectors against their card, done by hand, and a network whose accuracy a planted vector turns both ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import optrode as op
from optrode.data import Choice
from optrode.data.reasoning import NUMBERS, reasoning, solved, tasks
from optrode.edits import add
from optrode.errors import BadInput, UnknownName
from optrode.parts.dial import Dial
from optrode.steering.caa import CAA
from optrode.steering.reasoning_control import ReasoningControl

SITE = "layers.1.out"


def rows(seed: int, count: int = 9) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parity("reasoning-control")
def test_the_contrast_of_wrong_answers_is_caas_mean_difference(model, pairs):
    own = ReasoningControl(site=SITE, negatives="wrong").fit(model, pairs)
    caa = CAA(site=SITE, form="replies").fit(model, pairs)
    assert torch.equal(own.operator.vector, caa.operator.vector) and str(own.positions) == "all"


@pytest.mark.parity("reasoning-control")
def test_the_principal_component_is_scikit_learns():
    from sklearn.decomposition import PCA

    one, other = rows(0), rows(1) + torch.tensor([0.3, 0, 0, 0, 0, 0])
    difference = (one - other).double().numpy()
    wanted = PCA(1).fit(difference).components_[0]
    for sign in ("none", "majority"):
        got = ReasoningControl(estimator="principal", sign=sign).direction(one, other).double().numpy()
        assert abs(got @ wanted) / np.linalg.norm(got) > 1 - 1e-6
        assert np.linalg.norm(got) == pytest.approx(np.linalg.norm(difference.mean(0)), rel=1e-5)
    assert int((difference @ got > 0).sum()) * 2 >= len(difference)


@pytest.mark.parity("reasoning-control")
def test_reading_has_no_contrast(llama, twin, close, pairs):
    plain = twin(llama)
    mean = torch.stack([plain.stream(plain.answered(p.prompt, p.positive), 1)[-1] for p in pairs]).mean(0)
    close(ReasoningControl(site=SITE, estimator="reading").fit(llama, pairs).operator.vector, mean)
    noisy = ReasoningControl(site=SITE, estimator="reading", seed=5).fit(llama, pairs)
    close(noisy.operator.vector, mean)


def test_noise_is_repeated_by_its_seed_and_is_no_text(pairs):
    first, again, other = (ReasoningControl(seed=seed).conversations(pairs)[1] for seed in (0, 0, 1))
    assert first == again != other
    texts = [talk[0]["content"] for talk in first]
    assert len(set(texts)) == len(pairs) and not any(pair.prompt in texts for pair in pairs)


QUESTIONS = [
    Choice("Is it so?", "It is", (" a",), (" b", " c"), "one"),
    Choice("Or so?", "I say", (" c",), (" a", " d"), "two"),
]


@pytest.mark.parity("reasoning-control")
@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.7])
def test_the_report_is_what_scipy_says(decliner, alpha):
    from scipy.stats import entropy

    model, vector = decliner.model, torch.linspace(-1, 1, 64)
    found = Dial(model, QUESTIONS).at(add(SITE, vector, "all"), alpha)
    for row, question in enumerate(QUESTIONS):
        talk = f"<|im_start|>user\n{question.prompt}<|im_end|>\n<|im_start|>assistant\n{question.opening}"
        ids = model.tokenizer(talk, add_special_tokens=False)["input_ids"]
        p0, p = (
            np.exp(decliner.logprobs(ids, scale * vector.double().numpy(), [True] * len(ids))[-1])
            for scale in (0.0, alpha)
        )
        candidates = (*question.positive, *question.negative)
        first = [model.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in candidates]
        assert found.kl[row] == pytest.approx(entropy(p0 + 1e-8, p + 1e-8), rel=2e-3, abs=1e-5)
        assert found.entropy[row] == pytest.approx(entropy(p, base=2), abs=1e-4)
        assert found.mass[row] == pytest.approx(p[first[0]], rel=1e-4)
        assert found.wrong_mass[row] == pytest.approx(p[first[1:]].sum(), rel=1e-4)
        assert found.right[row] == float(p[first[0]] == p[first].max())
        assert found.margin[row] == pytest.approx(np.log(p[first[0]] / p[first[1:]].max()), abs=1e-4)


def test_alpha_zero_is_the_unedited_model(decliner):
    dial = Dial(decliner.model, QUESTIONS)
    plain, zero = dial.at(None), dial.at(add(SITE, torch.ones(64), "all"), 0.0)
    assert np.array_equal(plain.mass, zero.mass) and not zero.kl.any()


def test_a_planted_vector_turns_accuracy_up_and_down(decliner):
    """In this network the first coordinate decides between `n` and `y` alone, so that the truth can be dialled."""
    questions = [Choice(f"Is it {word}?", "It is", ("y",), ("n",), word) for word in ("so", "the sea", "a cat")]
    vector = torch.zeros(64)
    vector[0] = -6
    dial, edit = Dial(decliner.model, questions, [2]), add(SITE, vector, "all")
    assert dial.at(edit, 1).right.mean() == 1 and dial.at(None).right.mean() == dial.at(edit, -1).right.mean() == 0
    assert (dial.at(edit, 1).margin > 0).all() and (dial.at(edit, -1).margin < dial.at(None).margin).all()


@pytest.mark.parametrize("task", tasks())
def test_items_are_right_by_construction(task):
    items = reasoning(task, 200)
    assert len({(item.prompt, item.opening) for item in items}) == 200 and reasoning(task, 200) == items != reasoning(
        task, 200, 1
    )
    for item in items:
        assert len(item.positive) == 1 and len(set(item.negative)) == 3 and item.positive[0] not in item.negative
        if task == "sums":
            one, sign, two = item.group.split()
            a, b = NUMBERS.index(one), NUMBERS.index(two)
            assert NUMBERS.index(item.positive[0].strip()) == (a + b if sign == "plus" else a - b)
        elif task == "deduction":
            kind = item.prompt.split(" is a ")[1].split(".")[0]
            rule = next(r for r in item.prompt.split(". ") if r.lower().startswith(_plural(kind)))
            assert rule.endswith(f"afraid of{item.positive[0]}")
        else:
            names = item.opening.split("When ")[1].split(" went")[0].split(" and ")
            giver = item.opening.split(" gave ")[0].split()[-1]
            assert sorted([giver, item.positive[0].strip()]) == sorted(names)


def _plural(kind: str) -> str:
    from optrode.data.reasoning import ANIMALS

    return dict(ANIMALS)[kind]


def test_solved_items_are_pairs_of_right_and_wrong():
    items = reasoning("deduction", 20)
    for item, pair in zip(items, solved(items), strict=True):
        assert pair.positive.endswith(item.positive[0]) and pair.negative.removeprefix(item.opening) in item.negative


def test_wrong_settings_are_one_line(llama, pairs, decliner):
    alike = [Choice("Is it?", "It is", (" a",), (" a", " b"), "one")]
    for make, error in (
        (lambda: ReasoningControl(estimator="contrasst").fit(llama, pairs), BadInput),
        (lambda: ReasoningControl(negatives="nois", site=SITE).fit(llama, pairs), BadInput),
        (lambda: ReasoningControl(estimator="principal", sign="no", site=SITE).fit(llama, pairs), BadInput),
        (lambda: ReasoningControl(estimator="principal", site=SITE).fit(llama, pairs[:1]), BadInput),
        (lambda: reasoning("sum", 3), UnknownName),
        (lambda: reasoning("sums", 100_000), BadInput),
        (lambda: Dial(decliner.model, alike), BadInput),
        (lambda: Dial(decliner.model, []), BadInput),
    ):
        with pytest.raises((error, op.errors.UnknownSite)) as caught:
            make()
        assert "\n" not in str(caught.value)
