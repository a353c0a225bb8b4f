"""CAA against its card, done by hand: the answer's last token, the mean of differences, added after the user's turn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.errors import BadInput, NotSupported
from optrode.steering.caa import CAA

PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]
SITE = "layers.1.out"


def questions(pairs: Any) -> list[tuple[str, str, str]]:
    """The card's step 1: question, matching answer, other answer; the matching letter alternates."""
    found = []
    for number, pair in enumerate(pairs):
        in_order = number % 2 == 0
        one, two = (pair.positive, pair.negative) if in_order else (pair.negative, pair.positive)
        text = f"{pair.prompt}\n\nChoices:\n(A) {one}\n(B) {two}\n\nAnswer with the letter of your choice."
        found.append((text, *(("(A", "(B") if in_order else ("(B", "(A"))))
    return found


def replies(pairs: Any) -> list[tuple[str, str, str]]:
    return [(pair.prompt, pair.positive, pair.negative) for pair in pairs]


def vector_by_hand(plain: Any, items: list[tuple[str, str, str]], layer: int) -> Tensor:
    """Steps 2 and 3: the block output at the last token of both texts, and the mean of the differences."""
    total = 0
    for question, matching, other in items:
        high, low = (plain.stream(plain.answered(question, reply), layer)[-1] for reply in (matching, other))
        total = total + (high - low)
    return total / len(items)


def after(start: int, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A change from one position on, as far as the row goes."""

    def changed(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, start:] = change(h[:, start:])
        return h

    return changed


FORMS = {"letters": questions, "replies": replies}


@pytest.mark.parity("caa")
@pytest.mark.parametrize("form", FORMS)
def test_v_is_the_mean_difference_at_the_last_token(model, twin, close, pairs, form):
    plain = twin(model)
    for layer in range(model.layers):
        edit = CAA(site=f"layers.{layer}.out", form=form).fit(model, pairs)
        close(edit.operator.vector, vector_by_hand(plain, FORMS[form](pairs), layer))
        assert str(edit.positions) == "after_instruction" and edit.strength == 1


def test_letters_are_balanced_and_the_letter_itself_is_read(model, pairs):
    positive, negative = CAA().conversations(pairs)
    read = []
    for side in (positive, negative):
        batch = model.encode(side)
        read.append([model.tokenizer.decode([int(row)]).strip("(") for row in batch.ids[:, -1]])
    assert read == [["A", "B"] * 3, ["B", "A"] * 3]
    # Both members of a pair ask the same, and each letter stands before the reply that it stands for.
    for pair, one, other in zip(pairs, positive, negative, strict=True):
        assert one[:-1] == other[:-1]
        assert f"{one[-1]['content']}) {pair.positive}\n" in one[0]["content"]
        assert f"{other[-1]['content']}) {pair.negative}\n" in one[0]["content"]


@pytest.mark.parametrize("multiplier", [-1.5, 1.0, 2.0])
@pytest.mark.parametrize("form", FORMS)
def test_steered_logits_of_a_padded_batch_equal_rows_steered_by_hand(
    model, twin, library_logits, pairs, form, multiplier
):
    plain, layer = twin(model), 1
    edit = CAA(site=SITE, form=form).fit(model, pairs)
    vector = multiplier * vector_by_hand(plain, FORMS[form](pairs), layer)
    for got, prompt in zip(library_logits(model, PROMPTS, edit * multiplier), PROMPTS, strict=True):
        start = len(plain.asked(prompt))
        wanted = plain.logits(plain.answered(prompt), layer, "out", after(start, lambda h: h + vector))
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
        base = plain.logits(plain.answered(prompt))
        torch.testing.assert_close(got[:start], base[:start], atol=1e-4, rtol=1e-4)
        assert float((wanted - base)[start:].abs().max()) > 1e-2


def test_project_first_removes_everywhere_and_adds_after_the_turn(model, twin, library_logits, pairs):
    plain, layer = twin(model), 1
    edit = CAA(site=SITE, form="replies", project_first=True).fit(model, pairs)
    v = vector_by_hand(plain, replies(pairs), layer)

    for got, prompt in zip(library_logits(model, PROMPTS, edit), PROMPTS, strict=True):
        start = len(plain.asked(prompt))

        def change(h: Tensor, start: int = start) -> Tensor:
            h = h - (h @ v)[..., None] * v / (v @ v + 1e-10)
            h[:, start:] += v
            return h

        wanted = plain.logits(plain.answered(prompt), layer, "out", change)
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_project_first_has_no_strength_in_units_of_the_stream(llama, small):
    with pytest.raises(NotSupported, match="use fit"):
        CAA(project_first=True).fit_layers(llama, small, [1])


def test_every_decode_step_is_edited_under_a_cache(model, twin, pairs):
    plain, layer, steps = twin(model), 1, 6
    edit = CAA(site=SITE, form="replies").fit(model, pairs) * 2
    with model.edited(edit) as receipt:
        done = model.completions(PROMPTS, max_new_tokens=steps, min_new_tokens=steps)
    # What is chosen last is written but never read again.
    site, header = receipt.sites[SITE], len(plain.ids("<|im_start|>assistant\n"))
    assert (site.prefill_calls, site.decode_calls) == (1, steps - 1)
    assert site.selected == site.changed == len(PROMPTS) * (header + steps - 1)
    v = edit.operator.vector * 2
    for prompt, completion in zip(PROMPTS, done, strict=True):
        change = after(len(plain.asked(prompt)), lambda h: h + v)
        assert list(completion.ids) == plain.written(plain.answered(prompt), steps, layer, "out", change)
    base = model.completions(PROMPTS, max_new_tokens=steps, min_new_tokens=steps)
    assert [one.ids for one in done] != [one.ids for one in base]


def test_a_forced_opening_is_steered_too(model, twin, library_logits, pairs):
    plain = twin(model)
    edit = CAA(site=SITE, form="replies").fit(model, pairs)
    talk = [{"role": "user", "content": PROMPTS[0]}, {"role": "assistant", "content": "("}]
    start = len(plain.asked(PROMPTS[0]))
    wanted = plain.logits(plain.answered(PROMPTS[0], "("), 1, "out", after(start, lambda h: h + edit.operator.vector))
    torch.testing.assert_close(library_logits(model, [talk], edit)[0], wanted, atol=1e-4, rtol=1e-4)


def test_multiplier_zero_is_bit_equal_and_minus_m_restores(model, library_logits, pairs):
    edit = CAA(site=SITE, form="replies").fit(model, pairs) * 1.5
    base = library_logits(model, PROMPTS)
    for got, wanted in zip(library_logits(model, PROMPTS, edit * 0), base, strict=True):
        assert torch.equal(got, wanted)
    for got, wanted in zip(library_logits(model, PROMPTS, edit, -edit), base, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_a_pattern_of_sites_gives_the_sum_of_its_edits(llama, pairs):
    both = CAA(site="layers.{0,2}.out", form="replies").fit(llama, pairs)
    for leaf in both.leaves():
        alone = CAA(site=leaf.site, form="replies").fit(llama, pairs)
        # The longer read stops later but is the same up to there.
        assert torch.equal(leaf.operator.vector, alone.operator.vector)
    assert [leaf.site for leaf in both.leaves()] == ["layers.0.out", "layers.2.out"]


def test_a_tokenizer_that_does_not_keep_the_letter_is_refused_for_letters_only(llama, pairs):
    from tokenizers.normalizers import Lowercase

    tokenizer = copy.deepcopy(llama.tokenizer)
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    lower = op.load(llama.module, tokenizer=tokenizer)
    with pytest.raises(BadInput, match="form='replies'"):
        CAA(site=SITE).fit(lower, pairs)
    CAA(site=SITE, form="replies").fit(lower, pairs)


def test_an_unknown_form_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match="did you mean letters"):
        CAA(form="leters")


def test_both_forms_enter_a_comparison():
    assert [variant.label for variant in CAA.variants()] == ["CAA (letters)", "CAA (replies)"]
