"""Task vectors against their card, done by hand."""

from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode.errors import BadInput
from optrode.steering.task_vectors_cross_modal import TaskVectorCrossModal, alike, ensemble

ITEMS = [("cat", "dog"), ("mat", "door"), ("Paris", "France"), ("one", "word"), ("user", "system"), ("sea", "sky")]
SITE = "layers.1.out"


@pytest.mark.parity("task-vectors-cross-modal")
def test_t_is_the_mean_at_the_delimiter_of_the_last_example(model, twin, close):
    """As the published code does it: the last example's answer and a query follow, and the delimiter is looked up."""
    method, plain = TaskVectorCrossModal(site=SITE, examples=3, prompts=4, seed=2), twin(model)
    rows = []
    for text in method.texts(ITEMS):
        last = text.rsplit("Q:", 1)[1].removesuffix("\nA:")
        whole = text + dict(ITEMS)[last] + "\n\n" + method.query("new")
        ids, colon = plain.ids(whole), plain.ids("A:")
        starts = [k for k in range(len(ids)) if ids[k : k + len(colon)] == colon]
        assert len(starts) == 4
        # The last is the query's own; the one before it belongs to the last example.
        rows.append(plain.stream(ids, 1)[starts[-2] + len(colon) - 1])
    edit = method.fit(model, ITEMS)
    close(edit.operator.value, torch.stack(rows).mean(0))
    assert str(edit.positions) == "last_prompt"


@pytest.mark.parity("task-vectors-cross-modal")
def test_a_prompt_with_its_own_activation_is_bit_identical(model):
    query = TaskVectorCrossModal().query("cat")
    edit = TaskVectorCrossModal(site=SITE).fit(model, query)
    plain = model.read(query, "logits", template="raw")["logits"]
    with model.edited(edit):
        assert torch.equal(model.read(query, "logits", template="raw")["logits"], plain)


@pytest.mark.parity("task-vectors-cross-modal")
def test_behind_the_last_block_the_answer_is_the_sources(model):
    method = TaskVectorCrossModal(site="layers.2.out", examples=3, prompts=1)
    edit, (source,) = method.fit(model, ITEMS), method.texts(ITEMS)
    wanted = model.read(source, "logits", template="raw")["logits"][0, -1]
    with model.edited(edit):
        got = model.read(method.query("new"), "logits", template="raw")["logits"][0, -1]
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parity("task-vectors-cross-modal")
def test_an_ensemble_is_the_mean(model, twin, close):
    method = TaskVectorCrossModal(site=SITE, examples=2, prompts=3)
    both = [method.fit(model, ITEMS), method.fit(model, "Write the opposite of the word:")]
    mean = (both[0].operator.value + both[1].operator.value) / 2
    torch.testing.assert_close(ensemble(both).operator.value, mean)
    close(both[1].operator.value, twin(model).stream(twin(model).ids("Write the opposite of the word:"), 1)[-1])


def test_only_the_last_prompt_token_is_replaced_and_nothing_that_is_written(llama):
    method = TaskVectorCrossModal(site=SITE, examples=3, prompts=2)
    edit, prompts = method.fit(llama, ITEMS), [method.query("cat"), method.query("the Eiffel Tower")]
    with llama.edited(edit) as receipt:
        llama.completions(prompts, max_new_tokens=4, min_new_tokens=4, template="raw")
    assert receipt.sites[SITE].selected == 2
    batch = llama.encode(prompts, template="raw")
    plain = llama.read(batch, SITE)[SITE]
    with llama.edited(edit):
        moved = (llama.read(batch, SITE)[SITE] - plain).norm(dim=-1) > 0
    assert moved.sum(1).tolist() == [1, 1] and bool(moved[:, -1].all())


def test_both_formats_and_a_file(llama, tmp_path):
    arrows = TaskVectorCrossModal(site=SITE, format="arrows", examples=2, prompts=1)
    assert arrows.query("cat") == "cat ->" and arrows.texts(ITEMS)[0].count("->") == 2
    edit = arrows.fit(llama, ITEMS)
    again = op.load_edit(edit.save(tmp_path / "task.edit"))
    assert torch.equal(again.operator.value, edit.operator.value)
    assert again.provenance.recipe["method"] == "task-vectors-cross-modal"


def test_the_papers_score_is_lenient():
    assert alike(" Paris", "paris") and alike("P", "Paris") and alike("Parisian", "Paris")
    assert not alike("", "Paris") and not alike("Rome", "Paris")


def test_wrong_data_is_one_line(llama):
    method = TaskVectorCrossModal(site=SITE)
    for make in (
        lambda: method.fit(llama, ITEMS[:2]),
        lambda: method.fit(llama, []),
        lambda: method.fit(llama, 7),
        lambda: method.fit(llama, " "),
        lambda: method.fit(llama, [("a", "b", "c")] * 9),
        lambda: TaskVectorCrossModal(site=SITE, format="arows").fit(llama, ITEMS),
        lambda: ensemble([]),
    ):
        with pytest.raises(BadInput) as caught:
            make()
        assert "\n" not in str(caught.value)
