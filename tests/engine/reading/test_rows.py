"""Another edit for each row of a batch: every row is what it is alone, wherever the engine puts it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode import edits
from optrode.data import Choice
from optrode.engine.generating.generate import Sampling
from optrode.engine.likelihood import token_logprobs
from optrode.engine.reading.read import chunks, residuals
from optrode.errors import BadFile, BadInput, EditDidNothing, NotSupported
from optrode.parts.choice import ForcedChoice

OUT = "layers.1.out"
NEW = 6
LONG = {"max_new_tokens": NEW, "min_new_tokens": NEW}
# As in the test of padding: attention over other widths sums in another order.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 6e-2}
VOCABULARY = 375
MANY = ["The cat", "Where does the Eiffel Tower stand?", "Answer.", "Sure, here is what the weather is like.", "dog"]


def direction(number: int) -> Tensor:
    return 3 * torch.randn(32, generator=torch.Generator().manual_seed(100 + number))


def rows_of(kind: str) -> list[Any]:
    """One edit for each of the five prompts, of kinds that are put together in different ways."""
    v = [direction(number) for number in range(5)]
    if kind == "adds":
        return [edits.add(OUT, v[0]), None, edits.add(OUT, v[1]) * 0.5, edits.add(OUT, v[2]) * -2, edits.add(OUT, v[3])]
    if kind == "strengths":
        return [edits.add(OUT, v[0], "after_instruction") * strength for strength in (0, 1, -1, 0.3, 2)]
    if kind == "elementwise":
        return [
            edits.scale(OUT, 0.5), edits.scale(OUT, v[1]), edits.affine(OUT, v[2], v[3], "user") * 0.7,
            edits.clamp(OUT, -0.5, 0.5), edits.affine(OUT, v[0], v[1], "user"),
        ]  # fmt: skip
    if kind == "different positions":
        return [
            edits.add(OUT, v[0], "last_prompt"), edits.add(OUT, v[1], "span:Eiffel"), None,
            edits.add(OUT, v[2], "first:2@user"), edits.add(OUT, v[3], "generated"),
        ]  # fmt: skip
    if kind == "different sites":
        return [
            edits.add("layers.0.mid", v[0]), edits.scale("layers.1.attn.pattern", 0.5),
            edits.zero_ablate("layers.2.attn.heads", heads=(1,)), edits.project_out("layers.0.out", v[1]),
            edits.add("layers.*.mlp.out", v[2], "user"),
        ]  # fmt: skip
    if kind == "inside attention":
        return [
            edits.knockout("layers.1.attn.scores", keys="first:1", positions="last_prompt"), None,
            edits.zero_ablate("layers.1.attn.pattern", keys="span:Answer"), edits.scale("layers.1.attn.q_rotated", 2.0),
            edits.knockout("layers.*.attn.scores", keys="user", positions="generated", heads=(0, 2)),
        ]  # fmt: skip
    if kind == "logits":
        bias = torch.zeros(VOCABULARY)
        bias[7] = 9.0
        return [edits.add("logits", bias), None, edits.add("logits", -bias) * 0.5, None, None]
    if kind == "by position":
        vectors = torch.stack(v)
        return [
            edits.add_by_position(OUT, vectors[:3], "user"), None, None, edits.add_by_position(OUT, vectors, "all"),
            edits.add_by_position(OUT, vectors, "generated"),
        ]  # fmt: skip
    assert kind == "sums and chains"
    return [
        edits.add(OUT, v[0]) + edits.scale(OUT, 0.5), edits.add(OUT, v[1]) >> edits.scale(OUT, 0.5), None,
        (edits.add(OUT, v[2]) >> edits.clamp(OUT, -1, 1)) * 0.5, edits.function(OUT, lambda h: h.tanh(), "user"),
    ]  # fmt: skip


KINDS = [
    "adds", "strengths", "elementwise", "different positions", "different sites", "inside attention", "logits",
    "by position", "sums and chains",
]  # fmt: skip


def alone(model: op.Model, prompt: str, edit: Any, sites: Any) -> Any:
    if edit is None:
        return model.read(prompt, sites)
    with model.edited(edit):
        return model.read(prompt, sites)


def written(model: op.Model, prompt: str, edit: Any, **options: Any) -> tuple[int, ...]:
    if edit is None:
        return model.completions(prompt, **LONG, **options)[0].ids
    with model.edited(edit):
        return model.completions(prompt, **LONG, **options)[0].ids


def difference(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


@pytest.mark.parametrize("tokens", [2048, 40], ids=["one forward", "several"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_read_gives_every_row_what_it_has_alone(name: str, kind: str, tokens: int, make_model):
    model = make_model(name, torch.float64)
    rows, sites = rows_of(kind), ["layers.2.out", "logits"]
    if kind in ("different positions", "by position", "inside attention"):
        # What acts on written tokens only would be an error in a read.
        rows[4] = None
    with model.edited(edits.by_row(rows)):
        acts = model.read(MANY, sites, tokens_per_forward=tokens)
    for number, (prompt, edit) in enumerate(zip(MANY, rows, strict=True)):
        one = alone(model, prompt, edit, sites)
        for site in sites:
            own = acts[site][number][acts.batch.mask[number]]
            assert difference(own, one[site][0]) <= TOLERANCE[torch.float64], (number, site)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_in_every_dtype(dtype: torch.dtype, make_model):
    model, rows = make_model("llama", dtype), rows_of("adds")
    with model.edited(edits.by_row(rows)):
        acts = model.read(MANY, OUT, tokens_per_forward=40)
    for number, (prompt, edit) in enumerate(zip(MANY, rows, strict=True)):
        own = acts[OUT][number][acts.batch.mask[number]]
        assert difference(own, alone(model, prompt, edit, OUT)[OUT][0]) <= TOLERANCE[dtype], number


@pytest.mark.parametrize("rows_per_batch", [64, 2], ids=["one batch", "several"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_writing_gives_every_row_what_it_has_alone(name: str, kind: str, rows_per_batch: int, make_model):
    """Left padding, a KV cache and a token at a time."""
    model, rows = make_model(name, torch.float64), rows_of(kind)
    with model.edited(edits.by_row(rows)):
        found = [item.ids for item in model.completions(MANY, rows_per_batch=rows_per_batch, **LONG)]
    assert found == [written(model, prompt, edit) for prompt, edit in zip(MANY, rows, strict=True)]


def test_the_rows_really_differ(llama: op.Model):
    """The comparison above could not fail if an edit by row did nothing."""
    rows = rows_of("adds")
    with llama.edited(edits.by_row(rows)):
        acts = llama.read(["The cat"] * 5, OUT)[OUT]
    plain = llama.read("The cat", OUT)[OUT]
    for number, edit in enumerate(rows):
        assert torch.equal(acts[number], plain[0]) == (edit is None)
    assert torch.allclose(acts[0] - plain[0], direction(0).expand_as(acts[0]), atol=1e-5)
    assert torch.allclose(acts[3] - plain[0], -2 * direction(2).expand_as(acts[0]), atol=1e-5)


@pytest.mark.parametrize("cache", ["dynamic", "static", "in parts"])
def test_any_cache(cache: str, make_model):
    model, rows = make_model("llama", torch.float64), rows_of("adds")
    how = {"dynamic": {}, "static": {"cache_implementation": "static"}, "in parts": {"prefill_chunk_size": 5}}[cache]
    with model.edited(edits.by_row(rows)):
        found = [item.ids for item in model.completions(MANY, **LONG, **how)]
    assert found == [written(model, prompt, edit) for prompt, edit in zip(MANY, rows, strict=True)]


def test_sampling_draws_for_rows_under_their_edits(make_model):
    """An edit that leaves one token to each row decides whatever the draw."""
    model = make_model("llama", torch.float64)
    only = []
    for number in range(len(MANY)):
        bias = torch.full((VOCABULARY,), -1e4)
        bias[50 + number] = 0
        only.append(edits.replace("logits", bias, "generated"))
    with model.edited(edits.by_row(only)):
        found = model.completions(MANY, rows_per_batch=2, sampling=Sampling(temperature=2.0, seed=1), **LONG)
    assert [item.ids[1:] for item in found] == [(50 + number,) * (NEW - 1) for number in range(len(MANY))]


@pytest.mark.parametrize("kind", ["adds", "strengths", "elementwise"])
def test_one_step_for_all_rows_is_bit_for_bit_one_after_the_other(kind: str, llama: op.Model, monkeypatch):
    """Rows of one kind are stacked; taking them one by one gives the same bits."""
    import optrode.edits.row_changes as rows_module

    edit = edits.by_row(rows_of(kind))
    with llama.edited(edit):
        stacked = llama.read(MANY, OUT)[OUT]
    monkeypatch.setattr(rows_module, "_kind", lambda leaf: None)
    with llama.edited(edit):
        single = llama.read(MANY, OUT)[OUT]
    assert torch.equal(stacked, single)


def test_stacking_is_really_used(llama: op.Model, monkeypatch: pytest.MonkeyPatch):
    import optrode.edits.row_changes as rows_module

    calls = []
    own = rows_module._Stacked.__call__
    monkeypatch.setattr(
        rows_module._Stacked, "__call__", lambda self, h, places: calls.append(len(h)) or own(self, h, places)
    )
    edit = edits.add(OUT, direction(0))
    with llama.edited(edits.by_row([edit * strength for strength in (0.5, 1, 2, 3, 0)])):
        llama.read(MANY, OUT)
    assert calls == [4], "four strengths in one step; the row of strength 0 is left out"


# Algebra -------------------------------------------------------------------------------------------------------------


def test_the_algebra_goes_into_the_rows(make_model):
    model = make_model("llama", torch.float64)
    rows, other = rows_of("adds"), edits.scale(OUT, 0.5)

    def read(edit: Any) -> Tensor:
        with model.edited(edit):
            return model.read(MANY, OUT)[OUT]

    def each(change: Any) -> Any:
        return edits.by_row([change(part) for part in rows])

    by_row = edits.by_row(rows)
    same = [
        (by_row * 3, each(lambda part: None if part is None else part * 3)),
        (2 * by_row, each(lambda part: None if part is None else part * 2)),
        (-by_row, each(lambda part: None if part is None else -part)),
        (by_row + other, each(lambda part: other if part is None else part + other)),
        (other + by_row, each(lambda part: other if part is None else other + part)),
        (by_row >> other, each(lambda part: other if part is None else part >> other)),
        (other >> by_row, each(lambda part: other if part is None else other >> part)),
        ((by_row >> other) * 0.5, each(lambda part: other * 0.5 if part is None else (part >> other) * 0.5)),
        (by_row - by_row * 0.5, by_row * 0.5),
        (by_row + edits.by_row(rows[::-1]), edits.by_row([
            one if two is None else two if one is None else one + two for one, two in zip(rows, rows[::-1], strict=True)
        ])),
    ]  # fmt: skip
    for number, (one, two) in enumerate(same):
        assert difference(read(one), read(two)) <= 1e-12, number


def test_all_rows_alike_are_the_edit_itself(make_model):
    model, edit = make_model("llama", torch.float64), edits.project_out(OUT, direction(0), "user") * 0.5
    with model.edited(edit):
        wanted = model.read(MANY, OUT)[OUT]
    with model.edited(edits.by_row([edit] * 5)):
        assert torch.equal(model.read(MANY, OUT)[OUT], wanted)


def test_nothing_in_any_row_installs_nothing(llama: op.Model):
    own = llama.read(MANY, "logits")["logits"]
    with llama.edited(edits.by_row([None, edits.add(OUT, direction(0)) * 0, None, None, None])) as receipt:
        assert torch.equal(llama.read(MANY, "logits")["logits"], own)
    assert receipt.notes == ["strength 0: nothing was installed"]
    some = edits.by_row([edits.add(OUT, direction(0)), *[None] * 4])
    with llama.edited(some * 0) as receipt:
        assert torch.equal(llama.read(MANY, "logits")["logits"], own)
    assert receipt.notes


def test_gradients_go_into_every_row(make_model):
    model = make_model("llama", torch.float64)
    vectors = [direction(number).double().requires_grad_() for number in range(2)]
    parts = [edits.SiteEdit(OUT, edits.Add(vector)) for vector in vectors]
    with model.edited(edits.by_row([parts[0], None, parts[1], parts[0] * 2, None])):
        acts = model.read(MANY, OUT, grad=True)
        (acts[OUT] * acts.batch.mask[..., None]).sum().backward()
    tokens = acts.batch.mask.sum(-1)
    assert torch.allclose(vectors[0].grad, (tokens[0] + 2 * tokens[3]).double().expand(32))
    assert torch.allclose(vectors[1].grad, tokens[2].double().expand(32))


# Numbers of rows -----------------------------------------------------------------------------------------------------


def test_rows_keep_their_numbers_through_every_picking(llama: op.Model):
    batch = llama.encode(MANY)
    assert batch.row_numbers == (0, 1, 2, 3, 4) and batch.prompts == 5
    picked = batch.pick([3, 1, 0]).pick([2, 1])
    assert picked.row_numbers == (0, 1) and picked.prompts == 5 and picked.to("cpu").row_numbers == (0, 1)
    assert sorted(number for _, part in chunks(batch, 20) for number in part.row_numbers) == [0, 1, 2, 3, 4]
    again = list(chunks(batch.pick([3, 1, 0]), 1))
    assert sorted((rows.tolist(), part.row_numbers) for rows, part in again) == [([0], (3,)), ([1], (1,)), ([2], (0,))]
    rows = [None, None, None, edits.add(OUT, direction(1)), None]
    h = llama.read(batch.pick([3, 2]), OUT)[OUT]
    with llama.edited(edits.by_row(rows)):
        new = llama.read(batch.pick([3, 2]), OUT)[OUT]
    assert torch.allclose(new[0] - h[0], direction(1).expand_as(h[0]), atol=1e-5) and torch.equal(new[1], h[1])


def test_part_of_a_batch_means_the_same_columns(llama: op.Model):
    batch = llama.encode(MANY)
    part = batch.part((4, 1))
    assert part.width == batch.width and part is batch.part((4, 1)) and part.texts == (batch.texts[4], batch.texts[1])
    assert torch.equal(part.mask, batch.mask[[4, 1]]) and torch.equal(
        part.instruction_end, batch.instruction_end[[4, 1]]
    )


def test_a_wrong_number_of_rows_is_an_error(llama: op.Model):
    edit = edits.by_row([edits.add(OUT, direction(0)), None])
    for prompts in (MANY, "The cat"):
        with pytest.raises(BadInput, match=r"edit by row has 2 rows, but \d prompts?"), llama.edited(edit):
            llama.read(prompts, OUT)
        with pytest.raises(BadInput, match="edit by row has 2 rows"), llama.edited(edit):
            llama.generate(prompts, max_new_tokens=2)
    with pytest.raises(BadInput, match="edit by row has 2 rows"), llama.edited(edit):
        llama.read(MANY, OUT, tokens_per_forward=20)


def test_bare_tensors_have_as_many_rows_as_they_have(llama: op.Model, forward):
    ids = torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]])
    edit = edits.by_row([edits.add(OUT, direction(0)), None, edits.add(OUT, direction(1)) * 2])
    h = llama.read(ids, OUT)[OUT]
    with llama.edited(edit):
        new = llama.read(ids, OUT)[OUT]
        with torch.no_grad():
            llama.module(ids)
    assert torch.allclose(new[0] - h[0], direction(0).expand_as(h[0]), atol=1e-5) and torch.equal(new[1], h[1])
    with pytest.raises(BadInput, match="3 rows, but 2 prompts"), llama.edited(edit):
        llama.module(ids[:2])


def test_the_networks_own_generate_counts_rows_too(llama: op.Model):
    batch = llama.encode(["The cat", "The dog"])
    edit = edits.by_row([edits.add(OUT, direction(0)), None])
    with llama.edited(edit), torch.no_grad():
        found = llama.module.generate(batch.ids, attention_mask=batch.mask.long(), do_sample=False, **LONG)
    with llama.edited(edit):
        wanted = [item.ids for item in llama.completions(["The cat", "The dog"], **LONG)]
    assert [tuple(row) for row in found[:, batch.width :].tolist()] == wanted


def test_several_answers_and_beams_are_refused(llama: op.Model):
    edit = edits.by_row([edits.add(OUT, direction(0))])
    with pytest.raises(NotSupported, match="one completion"):
        llama.generate("The cat", num_return_sequences=2)
    with pytest.raises(NotSupported, match="beam search"), llama.edited(edit):
        llama.generate("The cat", num_beams=2)
    batch = llama.encode("The cat")
    with pytest.raises(BadInput, match="1 row, but 2 prompts"), llama.edited(edit):
        llama.module.generate(batch.ids, num_return_sequences=2, do_sample=True, max_new_tokens=2)


@pytest.mark.parametrize("rows", [[], [1.0], [edits.prompt("Hi")], ["x"]], ids=str)
def test_what_is_no_row_is_refused(rows: list[Any]):
    with pytest.raises((BadInput, NotSupported), match="by_row"):
        edits.by_row(rows)


def test_rows_in_rows_are_refused():
    inner = edits.by_row([edits.add(OUT, direction(0))])
    for part in (inner, inner + edits.scale(OUT, 2.0), edits.scale(OUT, 2.0) >> inner):
        with pytest.raises(NotSupported, match="by row itself"):
            edits.by_row([part])


# Receipts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows_per_batch", [64, 2])
def test_a_receipt_for_every_row(rows_per_batch: int, llama: op.Model):
    rows = [edits.add(OUT, direction(0)), None, edits.add(OUT, direction(1), "last_prompt"),
            edits.add(OUT, direction(2), "generated"), edits.add("layers.0.out", direction(3), "all") * 2]  # fmt: skip
    with llama.edited(edits.by_row(rows)) as receipt:
        llama.completions(MANY, rows_per_batch=rows_per_batch, **LONG)
    tokens = llama.encode(MANY).mask.sum(-1).tolist()
    wanted = [tokens[0] + NEW - 1, 0, 1, NEW - 1, tokens[4] + NEW - 1]
    assert [receipt.by_row[number].selected for number in range(5)] == wanted
    assert [receipt.by_row[number].changed for number in range(5)] == wanted
    assert receipt.sites[OUT].by_row[0].selected == wanted[0] and receipt.sites[OUT].by_row[4].selected == 0
    assert receipt.changed == sum(wanted)
    assert receipt.sites[OUT].selected == sum(wanted[:4])
    for number, edit in enumerate(rows):
        if edit is None:
            assert receipt.by_row[number].relative_change == 0
            continue
        with llama.edited(edit) as single:
            llama.completions(MANY[number], **LONG)
        assert receipt.by_row[number].relative_change == pytest.approx(single.relative_change, rel=1e-4)
    assert f"row 2: 1 positions selected, 1 changed, mean {receipt.by_row[2].relative_change:.1%}" in str(receipt)
    with llama.edited(edits.add(OUT, direction(0))) as plain:
        llama.read(MANY, OUT)
    assert plain.by_row == {}


def test_a_busy_row_does_not_hide_an_idle_one(llama: op.Model):
    edit = edits.by_row([edits.add(OUT, direction(number), "assistant") for number in range(2)])
    talk = [{"role": "user", "content": "The cat"}, {"role": "assistant", "content": "sat"}]
    says = "row 1 of the edit by row touched no position: 'assistant' selected nothing in prompt 1"
    with pytest.raises(EditDidNothing, match=says), llama.edited(edit):
        llama.read([talk, "The dog"], OUT)
    with llama.edited(edit) as receipt:
        llama.read([talk, talk], OUT)
    assert receipt.by_row[0].selected == receipt.by_row[1].selected > 0
    with (
        pytest.raises(EditDidNothing, match=r"row 1 .* prompt 1 was never run"),
        llama.edited(edits.by_row([edits.add(OUT, direction(0))] * 2) + edits.scale(OUT, 2.0)),
    ):
        llama.read(llama.encode(["The cat", "The dog"]).pick([0]), OUT)


def test_knockouts_by_row_are_judged_by_what_they_hide(llama: op.Model):
    with llama.edited(edits.by_row(rows_of("inside attention"))) as receipt:
        llama.completions(MANY, **LONG)
    assert receipt.by_row[0].selected == 1 and receipt.by_row[4].selected == 3 * (NEW - 1)


# Where else it works -------------------------------------------------------------------------------------------------


def test_a_resumed_read(make_model):
    model, rows = make_model("llama", torch.float64), [*rows_of("different positions")[:4], None]
    batch = model.encode(MANY)
    kept = residuals(model, batch, [1, 2])
    with model.edited(edits.by_row(rows)):
        wanted = model.read(batch, "logits", positions="last_prompt")["logits"]
    with model.edited(edits.by_row(rows)) as receipt:
        found = model.read(kept, "logits", positions="last_prompt")["logits"]
    assert receipt.layers_skipped == 2 and difference(found, wanted) <= 1e-12


@pytest.mark.parametrize("words", ["one token each", "texts"])
def test_forced_choice(words: str, make_model):
    model = make_model("llama", torch.float64)
    positive, negative = ((" cat",), (" dog",)) if words == "texts" else (("a", "b"), ("c",))
    choices = [Choice(prompt, "It is", positive, negative, str(number))
               for number, prompt in enumerate(MANY)]  # fmt: skip
    if words == "texts":
        choices[1] = Choice(MANY[1], "It is", (" cat", " mat"), (" the door",), "1")
    rows = rows_of("adds")
    asked = ForcedChoice(model, choices, layers=[1])
    assert (asked._words is None) == (words == "texts")
    with model.edited(edits.by_row(rows)):
        found, fresh = asked.ask(), asked.ask(fresh=True)
    for number, (choice, edit) in enumerate(zip(choices, rows, strict=True)):
        single = ForcedChoice(model, [choice])
        if edit is None:
            wanted = single.ask()
        else:
            with model.edited(edit):
                wanted = single.ask()
        assert found[number] == pytest.approx(wanted.item(), abs=1e-4), number
        assert fresh[number] == pytest.approx(wanted.item(), abs=1e-4), number


def test_likelihood_in_several_forwards(make_model, monkeypatch: pytest.MonkeyPatch):
    model, rows = make_model("llama", torch.float64), rows_of("adds")
    monkeypatch.setattr("optrode.engine.likelihood.POSITIONS_AT_ONCE", 40)
    batch = model.encode(MANY)
    scored = batch.mask & (batch.mask.long().cumsum(-1) > 1)
    with model.edited(edits.by_row(rows)):
        found = token_logprobs(model, batch, scored)
    for number, edit in enumerate(rows):
        one = batch.pick([number])
        one = replace(one, numbers=None, total=None)
        chosen = one.mask & (one.mask.long().cumsum(-1) > 1)
        if edit is None:
            (wanted,) = token_logprobs(model, one, chosen)
        else:
            with model.edited(edit):
                (wanted,) = token_logprobs(model, one, chosen)
        assert torch.allclose(found[number], wanted, atol=1e-5)


@pytest.mark.parametrize("site", ["layers.1.mlp.experts.out", "layers.1.mlp.weights", "layers.1.mlp.router"])
def test_experts(site: str, make_mixture):
    model = make_mixture("mixtral")
    counts = model.read(MANY, "layers.1.mlp.chosen")
    expert = [int(counts["layers.1.mlp.chosen"][number, -1, 0]) for number in range(5)]
    rows = [edits.scale(site, 0.3, experts=(expert[0],)), None, edits.scale(site, 2.0, experts=(expert[2],)), None,
            edits.scale(site, 0.5)]  # fmt: skip
    with model.edited(edits.by_row(rows)):
        acts = model.read(MANY, "layers.1.out")
    for number, (prompt, edit) in enumerate(zip(MANY, rows, strict=True)):
        own = acts["layers.1.out"][number][acts.batch.mask[number]]
        assert difference(own, alone(model, prompt, edit, "layers.1.out")["layers.1.out"][0]) <= 2e-5, number


def test_a_network_of_pictures():
    from torch import nn

    model = op.load(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = [edits.scale("module:2", 0.5), None, edits.zero_ablate("module:2")]
    h = model.read(x, "module:2")["module:2"]
    with model.edited(edits.by_row(rows)):
        new = model.read(x, "module:2")["module:2"]
    assert torch.equal(new, torch.stack([0.5 * h[0], h[1], 0 * h[2]]))


def test_it_is_not_baked_into_a_network(llama: op.Model):
    edit = edits.by_row([edits.add(OUT, direction(0))]) >> edits.scale(OUT, 2.0)
    with pytest.raises(NotSupported, match="cannot be baked"):
        edit.bake(llama)


def test_it_can_be_trained(llama: op.Model):
    trainable = edits.by_row([edits.add(OUT, torch.zeros(32)), None]).trainable()
    wanted = direction(1)
    optimiser = torch.optim.SGD(trainable.parameters(), lr=0.5)
    for _ in range(40):
        optimiser.zero_grad()
        with llama.edited(trainable):
            acts = llama.read(["The cat", "The cat"], OUT, grad=True)[OUT]
        (acts[0, -1] - acts[1, -1].detach() - wanted).square().sum().backward()
        optimiser.step()
    frozen = trainable.frozen()
    assert torch.allclose(frozen.rows[0].operator.vector, wanted, atol=1e-3) and frozen.rows[1] is None


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sums and chains"])
def test_a_saved_edit_gives_the_same_numbers(kind: str, llama: op.Model, tmp_path: Path):
    edit = edits.by_row(rows_of(kind)) * 0.5
    again = op.load_edit(edit.save(tmp_path / "rows.edit"))
    assert [part is None for part in again.rows] == [part is None for part in edit.rows]
    with llama.edited(edit):
        wanted = [item.ids for item in llama.completions(MANY, **LONG)]
        logits = llama.read(MANY, "logits")["logits"] if kind != "different positions" else None
    with llama.edited(again):
        assert [item.ids for item in llama.completions(MANY, **LONG)] == wanted
        assert logits is None or torch.equal(llama.read(MANY, "logits")["logits"], logits)


def test_sums_with_rows_are_saved_and_code_is_not(llama: op.Model, tmp_path: Path):
    edit = edits.by_row(rows_of("adds")) >> edits.scale(OUT, 0.5)
    again = op.load_edit(edit.save(tmp_path / "chain.edit"))
    with llama.edited(edit):
        wanted = llama.read(MANY, OUT)[OUT]
    with llama.edited(again):
        assert torch.equal(llama.read(MANY, OUT)[OUT], wanted)
    with pytest.raises(NotSupported, match="never holds code"):
        edits.by_row(rows_of("sums and chains")).save(tmp_path / "code.edit")
    assert not (tmp_path / "code.edit").exists()


def test_a_damaged_file_of_rows_is_refused(tmp_path: Path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = edits.by_row([edits.add(OUT, direction(0)), None]).save(tmp_path / "rows.edit")
    with safe_open(path, framework="pt") as file:
        text = file.metadata()["optrode"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    changes = {'"rows": [': '"rows": [7, ', '"node": "rows"': '"node": "row"', '"rows": [{': '"a": 1, "rows": [{'}
    for old, new in changes.items():
        assert old in text
        save_file(tensors, path, metadata={"optrode": text.replace(old, new)})
        with pytest.raises(BadFile, match="damaged"):
            op.load_edit(path)


def test_smollm2_in_one_batch(smollm2: op.Model):
    norm = float(smollm2.read("Hello there.", "layers.15.out").rows("layers.15.out").norm(dim=-1).median())
    v = torch.randn(576, generator=torch.Generator().manual_seed(0))
    edit = edits.add("layers.15.out", v / v.norm() * norm, "after_instruction")
    strengths = [0.0, 0.5, 1.0, -1.0]
    with smollm2.edited(edits.by_row([edit * strength for strength in strengths])):
        found = smollm2.completions(["What is rain?"] * 4, max_new_tokens=8)
    for strength, item in zip(strengths, found, strict=True):
        with smollm2.edited(edit * strength):
            assert smollm2.completions("What is rain?", max_new_tokens=8)[0].ids == item.ids
    assert len({item.ids for item in found}) > 2
