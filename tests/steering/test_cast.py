"""CAST against its card, done by hand, and on a network with a planted condition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.data import Conditioned
from optrode.errors import BadInput
from optrode.parts.gates import best_threshold, f1_of
from optrode.steering.cast import CAST

SITE, GATE = "layers.1.out", "layers.0.out"
INSIDE = [f"Is it {name}?" for name in ("cat", "dog", "mat", "door", "tower", "sea", "word", "sky")]
OUTSIDE = [
    f"The capital {name} stands there." for name in ("one", "two", "six", "ten", "Paris", "France", "user", "me")
]
LONG = {"max_new_tokens": 6, "min_new_tokens": 6}


@pytest.fixture(scope="module")
def data(pairs: Any) -> Conditioned:
    return Conditioned(pairs, INSIDE, OUTSIDE)


def direction_by_hand(positive: Tensor, negative: Tensor) -> Tensor:
    """Pairwise centring as it is written: midpoints off, rows stacked, first component of numpy's SVD, signs."""
    positive, negative = positive.double().numpy(), negative.double().numpy()
    middle = (positive + negative) / 2
    rows = np.concatenate([positive - middle, negative - middle])
    rows = rows - rows.mean(0)
    first = np.linalg.svd(rows, full_matrices=False)[2][0]
    smaller = np.mean(positive @ first < negative @ first)
    larger = np.mean(positive @ first > negative @ first)
    return torch.tensor(-first if smaller > larger else first)


def reply_means(plain: Any, pairs: Any, layer: int) -> tuple[Tensor, Tensor]:
    """Step 1: the mean over the reply's own tokens."""
    sides = []
    for which in ("positive", "negative"):
        rows = []
        for pair in pairs:
            start = len(plain.answered(pair.prompt))
            rows.append(plain.stream(plain.answered(pair.prompt, getattr(pair, which)), layer)[start:].mean(0))
        sides.append(torch.stack(rows))
    return sides[0], sides[1]


def prompt_means(plain: Any, prompts: list[str], layer: int, side: str = "out", whole: bool = False) -> Tensor:
    rows = []
    for prompt in prompts:
        h = plain.stream(plain.answered(prompt), layer, side)
        start, end = len(plain.ids("<|im_start|>user\n")), len(plain.asked(prompt)) - len(plain.ids("<|im_end|>\n"))
        rows.append((h if whole else h[start:end]).mean(0))
    return torch.stack(rows)


def similarity(h: Tensor, c: Tensor) -> float:
    """Step 3 with the projector written out."""
    h, c = h.double(), c.double()
    seen = torch.tanh((torch.outer(c, c) / (c @ c)) @ h)
    return float((h @ seen) / (h.norm() * seen.norm()))


def along(one: Tensor, other: Tensor) -> float:
    return float(one.double() @ other.double() / (one.double().norm() * other.double().norm()))


@pytest.mark.parity("cast")
def test_both_vectors_are_principal_components_by_hand(llama, twin, data, pairs):
    plain = twin(llama)
    edit = CAST(site=SITE, condition_site=GATE).fit(llama, data)
    v, c = edit.edit.operator.vector, edit.condition.measure.weight
    assert along(v, direction_by_hand(*reply_means(plain, pairs, 1))) > 1 - 1e-6
    # The condition's vector is fitted on every second prompt of a class.
    inside, outside = prompt_means(plain, INSIDE[::2], 0), prompt_means(plain, OUTSIDE[::2], 0)
    assert along(c, direction_by_hand(inside, outside)) > 1 - 1e-6
    assert float(v.norm()) == pytest.approx(1, abs=1e-6) and float(c.norm()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parity("cast")
def test_the_top_right_singular_vector_of_uncentred_differences_is_the_same(llama, data, pairs, twin):
    """The card's closed form."""
    high, low = reply_means(twin(llama), pairs, 1)
    top = np.linalg.svd((high - low).double().numpy(), full_matrices=False)[2][0]
    v = CAST(site=SITE, condition_site=GATE).fit(llama, data).edit.operator.vector
    assert abs(along(v, torch.tensor(top))) > 1 - 1e-6


@pytest.mark.parity("cast")
@pytest.mark.parametrize("form", ["global_centred", "centred_difference"])
def test_the_official_codes_other_forms(llama, data, pairs, twin, form):
    from sklearn.decomposition import PCA

    high, low = (side.double().numpy() for side in reply_means(twin(llama), pairs, 1))
    rows = np.concatenate([high, low]) - np.concatenate([high, low]).mean(0) if form == "global_centred" else high - low
    first = PCA(n_components=1, svd_solver="full").fit(rows).components_[0]
    v = CAST(site=SITE, condition_site=GATE, form=form).fit(llama, data).edit.operator.vector
    assert abs(along(v, torch.tensor(first))) > 1 - 1e-6
    assert np.mean(high @ v.double().numpy() >= low @ v.double().numpy()) >= 0.5


@pytest.mark.parity("cast")
@pytest.mark.parametrize("positions", ["content", "prompt"])
def test_values_threshold_and_rows_are_those_by_hand(model, twin, data, positions):
    plain = twin(model)
    edit = CAST(site=SITE, condition_site=GATE, condition_positions=positions).fit(model, data) * 20
    c = edit.condition.measure.weight
    means = prompt_means(plain, INSIDE + OUTSIDE, 0, whole=positions == "prompt")
    with model.edited(edit) as receipt:
        got = model.completions(INSIDE + OUTSIDE, **LONG)
    values = [similarity(h, c) for h in means]
    for number, value in enumerate(values):
        assert receipt.conditions[0].values[number] == pytest.approx(value, rel=1e-3, abs=1e-5)
    sign = 1 if edit.condition.fires == ">" else -1
    v = 20 * edit.edit.operator.vector
    for number, (prompt, value) in enumerate(zip(INSIDE + OUTSIDE, values, strict=True)):
        fires = sign * (value - edit.condition.threshold) > 0
        assert receipt.conditions[0].met[number] == fires
        wanted = plain.written(plain.answered(prompt), 6, 1, "out", (lambda h: h + v) if fires else (lambda h: h))
        assert list(got[number].ids) == wanted


def test_a_batch_of_eight_is_eight_single_runs(model, data):
    edit = CAST(site=SITE, condition_site=GATE).fit(model, data) * 20
    eight = [*INSIDE[:3], *OUTSIDE[:3], "Where does the Eiffel Tower stand, and what is the weather there?", "dog"]
    with model.edited(edit):
        together = [one.ids for one in model.completions(eight, **LONG)]
        alone = [model.completions([prompt], **LONG)[0].ids for prompt in eight]
        without = [one.ids for one in model.completions(eight, use_cache=False, **LONG)]
    assert together == alone == without


@pytest.mark.parity("cast")
def test_the_official_skew(llama, twin, data, pairs):
    """Vectors of what block 1 gives, used on what it reads; the values that the threshold is searched in are those."""
    plain = twin(llama)
    method = CAST(
        site="layers.1.in", condition_site="layers.0-1.in", skewed=True, search="official", condition_positions="prompt"
    )
    edit = method.fit(llama, data)
    assert edit.edit.site == "layers.1.in"
    assert along(edit.edit.operator.vector, direction_by_hand(*reply_means(plain, pairs, 1))) > 1 - 1e-6
    gate = method.fit_gate(llama, data, before="layers.1.in")
    assert [point.site for point in gate.points] == ["layers.0.in", "layers.1.in"]
    for layer, point in enumerate(gate.points):
        inside, outside = (prompt_means(plain, side, layer, whole=True) for side in (INSIDE, OUTSIDE))
        c = direction_by_hand(inside, outside)
        high, low = (
            [similarity(h, c) for h in prompt_means(plain, side, layer, "in", whole=True)] for side in (INSIDE, OUTSIDE)
        )
        best, found = 0.0, (0.0, "")
        for threshold in np.arange(0.0, 0.06, 0.0001):
            for larger in (True, False):
                said = [bool(value > threshold) != larger for value in high + low]
                hits, alarms = sum(said[: len(high)]), sum(said[len(high) :])
                f1 = 2 * hits / (hits + alarms + len(high))
                if f1 > best:
                    best, found = f1, (round(float(threshold), 3), "<" if larger else ">")
        assert (point.threshold, point.fires) == found and point.f1 == pytest.approx(best)
    with pytest.raises(BadInput, match="a block's input"):
        CAST(site=SITE, skewed=True).fit(llama, data)


def test_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    made = np.random.default_rng(0)
    high, low = made.normal(0.5, 1, 30), made.normal(-0.5, 1, 50)
    truth = [1] * 30 + [0] * 50
    for fires in (">", "<"):
        said = [value > 0.1 if fires == ">" else value < 0.1 for value in [*high, *low]]
        assert f1_of(high, low, 0.1, fires) == pytest.approx(f1_score(truth, said))
    assert f1_of(high, low, 99.0, ">") == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_the_best_threshold_is_the_best_of_all_and_in_the_widest_gap(sign):
    made = torch.Generator().manual_seed(1)
    high, low = sign * (torch.randn(20, generator=made) + 1), sign * (torch.randn(25, generator=made) - 1)
    found = best_threshold(high, low)
    tried = torch.linspace(-5, 5, 4001).tolist()
    most = max(f1_of(high.numpy(), low.numpy(), t, fires) for t in tried for fires in (">", "<"))
    assert found.f1 >= most - 1e-12 and found.fires == (">" if sign == 1 else "<")
    apart = best_threshold(sign * torch.tensor([5.0, 6.0]), sign * torch.tensor([1.0, 1.5]))
    assert apart.threshold == sign * 3.25 and apart.f1 == apart.inside == 1 and apart.outside == 0


# A planted condition --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted(tokenizer: Any) -> op.Model:
    """A network whose stream holds, at every token, how many cats came so far, and that says "dog" where it is told to.

    Coordinate 0 of the embedding of " cat" is 1; an even look back brings its mean to coordinate 1; the head reads
    coordinate 2 as the word " dog", which nothing but an edit writes.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    width = 64
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=16, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=256, initializer_range=0.01, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    module = LlamaForCausalLM(config).eval()
    cat, dog = (tokenizer.convert_tokens_to_ids(word) for word in ("Ġcat", "Ġdog"))
    with torch.no_grad():
        words = torch.randn(len(tokenizer), width)
        words[:, :3] = 0
        words[cat, 0] = 8.0
        module.model.embed_tokens.weight.copy_(words)
        module.lm_head.weight.normal_(std=0.05)
        module.lm_head.weight[:, :3] = 0
        module.lm_head.weight[dog, 2] = 10.0
        first = module.model.layers[0].self_attn
        for part in (first.q_proj, first.k_proj, first.v_proj, first.o_proj):
            part.weight.zero_()
        first.v_proj.weight[1, 0] = 4.0
        first.o_proj.weight[1, 1] = 4.0
    return op.load(module, tokenizer=tokenizer)


SUBJECTS = ("mat", "door", "tower", "word", "sky", "sea", "capital", "weather", "user", "system")


def asked(cats: bool) -> list[str]:
    return [f"Is the cat by the {name}?" if cats else f"Is the lamp by the {name}?" for name in SUBJECTS]


def test_it_fires_on_the_planted_condition_only_and_then_does_what_it_should(planted):
    """The class is prompts with a cat. The behaviour, " dog", is written into the stream by hand."""
    data = Conditioned([("Hi", " cat cat", " mat mat"), ("Ho", " cat", " mat")], asked(True), asked(False))
    fitted = CAST(site="layers.1.out", condition_site="layers.0-1.out", condition_positions="user").fit(planted, data)
    recipe = fitted.leaves()[0].provenance.recipe
    assert recipe["gate_f1"] == recipe["gate_inside"] == 1 and recipe["gate_outside"] == 0
    behaviour = torch.zeros(planted.width)
    behaviour[2] = 30.0
    edit = op.edits.when(fitted.condition, op.edits.add("layers.1.out", behaviour))
    fresh = [f"The {one} and the {other}" for one in ("cat", "lamp") for other in ("house", "garden", "tree", "book")]
    mixed = [fresh[n] for n in (0, 4, 1, 5, 2, 6, 3, 7)]
    with planted.edited(edit) as receipt:
        texts = planted.generate(mixed, max_new_tokens=4, min_new_tokens=4)
    for prompt, text in zip(mixed, texts, strict=True):
        assert ("dog" in text) is ("cat" in prompt), (prompt, text, str(receipt))
    # The other side of the condition acts on exactly the others.
    with planted.edited(op.edits.when(~fitted.condition, op.edits.add("layers.1.out", behaviour))):
        turned = planted.generate(mixed, max_new_tokens=4, min_new_tokens=4)
    assert [("dog" in text) for text in turned] == [("dog" not in text) for text in texts]


def test_shuffled_classes_tell_nothing_apart(planted):
    """The control: with prompts dealt at random into two classes, fresh ones are not told apart."""
    everything = asked(True) + asked(False)
    one, other = everything[::2], everything[1::2]
    data = Conditioned([("Hi", " cat cat", " mat mat"), ("Ho", " cat", " mat")], one, other)
    gate = CAST(condition_site="layers.0-1.out").fit_gate(planted, data, before="layers.1.out")
    assert gate.best.inside - gate.best.outside < 0.9


# Edges ----------------------------------------------------------------------------------------------------------------


def test_without_conditioned_data_the_class_is_what_the_pairs_ask(llama, small):
    edit = CAST(site=SITE, condition_site=GATE).fit(llama, small)
    inside = [pair.prompt for pair in small.fit]
    by_name = Conditioned(small, inside, op.data.everyday_requests())
    assert torch.equal(
        CAST(site=SITE, condition_site=GATE).fit(llama, by_name).condition.measure.weight, edit.condition.measure.weight
    )


def test_what_was_found_travels_with_the_edit(llama, data, tmp_path):
    edit = CAST(site="layers.1-2.out").fit(llama, data)
    assert [leaf.site for leaf in edit.leaves()] == ["layers.1.out", "layers.2.out"]
    again = op.load_edit(edit.save(tmp_path / "a.edit"))
    recipe = again.leaves()[1].provenance.recipe
    assert recipe["gate_site"] == again.condition.site and recipe["gate_threshold"] == again.condition.threshold
    assert 0.5 <= recipe["gate_f1"] <= 1 and "only if" in str(again.explain(llama))


def test_layers_are_judged_by_conditions_that_come_before_them(llama, small):
    found = CAST(condition_site="layers.*.out").fit_layers(llama, small, [0, 2])
    assert found[0].condition.site == "layers.0.out"
    for layer, edit in found.items():
        assert edit.edit.unit == "stream" and edit.edit.site == f"layers.{layer}.out"


@pytest.mark.parametrize(
    ("inside", "outside", "says"),
    [
        ([], OUTSIDE, "0 prompts inside of the class"),
        (INSIDE, ["one"], "1 prompts outside of the class"),
        (INSIDE, [*OUTSIDE, INSIDE[0]], "inside and outside of the class, such as 'Is it cat"),
        (["Hi", "Hi "], ["Hi", "Ho"], "take them out"),
    ],
)
def test_classes_that_are_none_are_told(llama, pairs, inside, outside, says):
    with pytest.raises(BadInput, match=says) as caught:
        CAST(site=SITE, condition_site=GATE).fit(llama, Conditioned(pairs, inside, outside))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"condition_site": "layers.2.out"}, "comes before layers.1.out"),
        ({"form": "pair"}, "not known"),
        ({"search": "offical"}, "did you mean official"),
    ],
)
def test_settings_that_cannot_be_are_told(llama, data, settings, says):
    with pytest.raises(BadInput, match=says):
        CAST(**{"site": SITE, "condition_site": GATE, **settings}).fit(llama, data)
