"""ActAdd against its card, done by hand: two short prompts, block inputs, row by row, added to the first rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.errors import BadInput
from optrode.steering.actadd import ActAdd, _assert_same_start

PROMPTS = ["The weather will be like what", "Where does the Eiffel Tower stand, and what is there tomorrow?"]
# Equal and unequal lengths, either side longer, and no opposite at all.
WORDS = [("Sure", "The cat"), ("The capital of France", "cat"), (" cat", " the dog lay by"), ("weather", "")]


def rows_of(twin: Any, front: list[int], words: tuple[str, str], layer: int) -> Tensor:
    """H(p+) - H(p-) with the common front, [front + T, width]: the shorter prompt filled up with spaces."""
    plus, minus = (twin.ids(word) if word else [] for word in words)
    count = max(len(plus), len(minus))
    space = twin.ids(" ")[0]
    high, low = (twin.stream(front + ids + [space] * (count - len(ids)), layer, "in") for ids in (plus, minus))
    return high - low


def front_added(vectors: Tensor, start: int) -> Callable[[Tensor], Tensor]:
    """x[start : start + T] += V."""

    def change(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, start : start + len(vectors)] += vectors
        return h

    return change


@pytest.mark.parametrize("words", WORDS)
def test_v_is_the_difference_of_block_inputs_row_by_row(model, twin, close, words):
    plain = twin(model)
    front = plain.ids("<|im_start|>user\n")
    for layer in range(model.layers):
        edit = ActAdd(site=f"layers.{layer}.in").fit(model, words)
        wanted = rows_of(plain, front, words, layer)
        close(edit.operator.vectors, wanted[len(front) :])
        assert str(edit.positions) == f"first:{len(edit.operator.vectors)}@user"


def test_behind_a_start_token_row_0_is_exactly_zero_and_left_out(plain_text, twin, close):
    plain = twin(plain_text)
    start = [plain_text.tokenizer.bos_token_id]
    for layer in range(plain_text.layers):
        edit = ActAdd(site=f"layers.{layer}.in", prompts=("Sure", "the dog lay by")).fit(plain_text)
        wanted = rows_of(plain, start, ("Sure", "the dog lay by"), layer)
        assert torch.equal(wanted[0], torch.zeros_like(wanted[0])) and bool((wanted[1:].norm(dim=-1) > 0).all())
        close(edit.operator.vectors, wanted[1:])
        assert str(edit.positions) == f"first:{len(wanted) - 1}@text"


def test_the_start_token_is_not_touched_and_each_row_gets_its_own_vector(plain_text):
    edit = ActAdd(site="layers.1.in", prompts=("Sure", "the dog lay by")).fit(plain_text)
    batch = plain_text.encode(PROMPTS)
    base = plain_text.read(batch, "layers.1.in")["layers.1.in"]
    with plain_text.edited(edit * 3):
        change = plain_text.read(batch, "layers.1.in")["layers.1.in"] - base
    vectors = edit.operator.vectors
    for row in range(len(batch)):
        own = change[row][batch.mask[row]]
        assert torch.equal(own[0], torch.zeros_like(own[0]))
        torch.testing.assert_close(own[1 : 1 + len(vectors)], 3 * vectors, atol=1e-5, rtol=1e-4)
        assert not bool(own[1 + len(vectors) :].any())


@pytest.mark.parity("actadd")
@pytest.mark.parametrize("coefficient", [-2.0, 1.0, 6.0])
def test_steered_logits_of_a_padded_batch_equal_rows_steered_by_hand(model, twin, library_logits, coefficient):
    plain, layer = twin(model), 1
    front = plain.ids("<|im_start|>user\n")
    edit = ActAdd(site=f"layers.{layer}.in", prompts=WORDS[1]).fit(model)
    vectors = coefficient * rows_of(plain, front, WORDS[1], layer)[len(front) :]
    for got, prompt in zip(library_logits(model, PROMPTS, edit * coefficient), PROMPTS, strict=True):
        wanted = plain.logits(plain.answered(prompt), layer, "in", front_added(vectors, len(front)))
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
        assert float((wanted - plain.logits(plain.answered(prompt))).abs().max()) > 1e-2


def test_decode_steps_are_not_edited(model):
    edit = ActAdd(site="layers.1.in", prompts=WORDS[0]).fit(model)
    count = len(edit.operator.vectors)
    with model.edited(edit * 4) as receipt:
        model.completions(PROMPTS, max_new_tokens=5, min_new_tokens=5)
    site = receipt.sites["layers.1.in"]
    assert (site.prefill_calls, site.decode_calls) == (1, 4)
    assert site.selected == site.changed == count * len(PROMPTS)


def test_cached_generation_equals_generation_without_cache_by_hand(model, twin):
    plain, layer = twin(model), 1
    front = plain.ids("<|im_start|>user\n")
    edit = ActAdd(site=f"layers.{layer}.in", prompts=WORDS[1]).fit(model)
    change = front_added(4 * edit.operator.vectors, len(front))
    with model.edited(edit * 4):
        done = model.completions(PROMPTS, max_new_tokens=8, min_new_tokens=8)
        uncached = model.completions(PROMPTS, max_new_tokens=8, min_new_tokens=8, use_cache=False)
    for prompt, cached, anew in zip(PROMPTS, done, uncached, strict=True):
        wanted = plain.written(plain.answered(prompt), 8, layer, "in", change)
        assert list(cached.ids) == list(anew.ids) == wanted
    base = model.completions(PROMPTS, max_new_tokens=8, min_new_tokens=8)
    assert [one.ids for one in done] != [one.ids for one in base]


def test_coefficient_zero_is_bit_equal_to_nothing(model, library_logits):
    edit = ActAdd(site="layers.1.in", prompts=WORDS[0]).fit(model)
    for got, wanted in zip(library_logits(model, PROMPTS, edit * 0), library_logits(model, PROMPTS), strict=True):
        assert torch.equal(got, wanted)


def test_a_pattern_of_sites_gives_the_sum_of_its_edits(llama):
    both = ActAdd(site="layers.{0,2}.in", prompts=WORDS[1]).fit(llama)
    assert [leaf.site for leaf in both.leaves()] == ["layers.0.in", "layers.2.in"]
    for leaf in both.leaves():
        alone = ActAdd(site=leaf.site, prompts=WORDS[1]).fit(llama)
        assert torch.equal(leaf.operator.vectors, alone.operator.vectors)


def test_swapping_the_prompts_turns_the_sign(model):
    there = ActAdd(site="layers.1.in", prompts=WORDS[1]).fit(model)
    back = ActAdd(site="layers.1.in").fit(model, WORDS[1][::-1])
    assert torch.equal(there.operator.vectors, -back.operator.vectors)


def test_the_behaviour_gives_the_words_unless_the_method_has_its_own(llama, small):
    from_behaviour = ActAdd(site="layers.1.in").fit(llama, small)
    assert from_behaviour.provenance.recipe["prompts"] == ["Sure", "The capital"]
    own = ActAdd(site="layers.1.in", prompts=("Yes", "No")).fit(llama, small)
    assert own.provenance.recipe["prompts"] == ["Yes", "No"]


@pytest.mark.parametrize("data", [None, "Love", ("Love",), ("a", "b", "c"), ("", "Hate"), 3])
def test_anything_but_two_prompts_is_refused(llama, data):
    with pytest.raises(BadInput, match="two prompts") as caught:
        ActAdd(site="layers.1.in").fit(llama, data)
    assert "\n" not in str(caught.value)


def test_a_prompt_shorter_than_v_is_refused(llama):
    edit = ActAdd(site="layers.1.in", prompts=("the dog lay by the door and the mat", "x")).fit(llama)
    with pytest.raises(BadInput, match="use longer prompts"), llama.edited(edit):
        llama.read("Hi", "logits")


def test_a_common_beginning_that_differs_is_refused():
    front = torch.ones(2, 3, 4)
    _assert_same_start(front, "layers.1.in")
    front[0, 1, 2] += 1e-3
    with pytest.raises(BadInput, match="causal"):
        _assert_same_start(front, "layers.1.in")


def test_a_tokenizer_without_start_and_end_is_refused(plain_text):
    import copy

    tokenizer = copy.deepcopy(plain_text.tokenizer)
    tokenizer.bos_token = tokenizer.eos_token = None
    bare = op.load(plain_text.module, tokenizer=tokenizer)
    with pytest.raises(BadInput, match="neither a start nor an end"):
        ActAdd(site="layers.1.in", prompts=("a", "b")).fit(bare)
