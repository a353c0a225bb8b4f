"""Edits on a condition: each row goes by its own prompt, in any batch, with a cache or without, padded or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode import edits
from optrode.batches import Batch
from optrode.engine.generating.generate import Sampling
from optrode.engine.reading.read import residuals
from optrode.errors import BadInput, EditDidNothing, NotFinite, NotSupported, UnknownSite, WrongShape

READ, ACT = "layers.0.out", "layers.1.out"
LONG = {"max_new_tokens": 6, "min_new_tokens": 6}
MANY = ["The cat", "Where does the Eiffel Tower stand?", "Answer.", "Sure, here is what the weather is like.", "dog"]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 6e-2}


def weight(seed: int = 0) -> Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(seed))


def means(model: op.Model, site: str = READ, positions: str = "prompt") -> Tensor:
    """The mean over the prompt of each of the many, one prompt at a time."""
    found = []
    for prompt in MANY:
        acts = model.read([prompt], site)
        chosen = op.Positions(positions).in_prompt(acts.batch)[0]
        found.append(acts[site][0].double()[chosen].mean(0))
    return torch.stack(found)


def halved(model: op.Model, seed: int = 0, **settings: Any) -> edits.Condition:
    """A condition that some of the many meet and some do not."""
    values = means(model, settings.get("site", READ), settings.get("positions", "prompt")) @ weight(seed).double()
    middle = values.sort().values[1:3].mean()
    return edits.condition(settings.pop("site", READ), weight(seed), threshold=float(middle), **settings)


def meets(model: op.Model, condition: edits.Condition) -> list[bool]:
    values = means(model, condition.site, condition.positions.text) @ condition.measure.weight.double()
    return [bool(value) for value in condition.met(values)]


def addition() -> edits.SiteEdit:
    return edits.add(ACT, 4 * weight(9))


def hand(model: op.Model, edit: edits.Edit, acts: list[bool], **options: Any) -> list[tuple[int, ...]]:
    """What each prompt gets alone, under the edit or none as it is told."""
    done = []
    for prompt, yes in zip(MANY, acts, strict=True):
        if yes:
            with model.edited(edit):
                done.append(model.completions([prompt], **LONG, **options)[0].ids)
        else:
            done.append(model.completions([prompt], **LONG, **options)[0].ids)
    return done


def completions(model: op.Model, prompts: Any, edit: edits.Edit, **options: Any) -> list[tuple[int, ...]]:
    with model.edited(edit):
        return [one.ids for one in model.completions(prompts, **LONG, **options)]


# Rows -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["prompt", "content", "last_prompt"])
@pytest.mark.parametrize("turned", [False, True])
def test_each_row_of_a_padded_batch_is_what_it_is_alone(model: op.Model, positions: str, turned: bool) -> None:
    condition = halved(model, positions=positions)
    condition = ~condition if turned else condition
    acts = meets(model, condition)
    assert 0 < sum(acts) < len(acts)
    edit = edits.when(condition, addition())
    with model.edited(edit) as receipt:
        logits = model.read(batch := model.encode(MANY), "logits")["logits"]
    plain = model.read(batch, "logits")["logits"]
    for row, yes in enumerate(acts):
        if not yes:
            assert torch.equal(logits[row], plain[row])
            continue
        with model.edited(addition()):
            alone = model.read([MANY[row]], "logits")["logits"][0]
        got = logits[row][batch.mask[row]]
        assert float((got - alone).abs().max()) <= TOLERANCE[torch.float32] * float(alone.abs().max())
    assert list(receipt.conditions[0].met.values()) == acts


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("rows_per_batch", [1, 2, 5])
def test_written_tokens_go_by_their_own_prompt(model: op.Model, cache: bool, rows_per_batch: int) -> None:
    condition = halved(model)
    acts = meets(model, condition)
    got = completions(model, MANY, edits.when(condition, addition()), use_cache=cache, rows_per_batch=rows_per_batch)
    assert got == hand(model, addition(), acts)
    # The edit matters, or the comparison would show nothing.
    assert got != hand(model, addition(), [False] * 5) != hand(model, addition(), [True] * 5)


def test_positions_of_the_edit_hold_within_the_rows(model: op.Model) -> None:
    condition, inner = halved(model), edits.add(ACT, 4 * weight(9), "generated")
    assert completions(model, MANY, edits.when(condition, inner)) == hand(model, inner, meets(model, condition))


def test_several_sites_and_strengths(model: op.Model) -> None:
    condition = halved(model)
    inner = (addition() + edits.project_out("layers.2.out", weight(4), "generated")) >> edits.scale(
        "layers.2.mlp.out", 0.5
    )
    edit = edits.when(condition, inner) * 0.7
    assert completions(model, MANY, edit) == hand(model, inner * 0.7, meets(model, condition))


def test_sampling_draws_the_same_for_rows_that_are_left_alone(llama: op.Model) -> None:
    condition, sampling = halved(llama), Sampling(temperature=0.8, seed=3)
    with llama.edited(edits.when(condition, edits.scale(ACT, 1.0))):
        got = llama.completions(MANY, sampling=sampling, **LONG)
    assert [one.ids for one in got] == [one.ids for one in llama.completions(MANY, sampling=sampling, **LONG)]


def test_it_streams(llama: op.Model) -> None:
    condition = halved(llama)
    edit, acts = edits.when(condition, addition()), meets(llama, condition)
    with llama.edited(edit):
        texts = ["".join(str(piece) for piece in llama.stream(prompt, **LONG)) for prompt in MANY]
    wanted = hand(llama, addition(), acts)
    with llama.edited(edit):
        assert texts == [one.text for one in llama.completions(MANY, **LONG)]
    assert [llama.tokenizer.decode(list(ids), skip_special_tokens=True) for ids in wanted] == texts


def test_under_an_edit_by_row_each_row_has_its_own_condition(llama: op.Model) -> None:
    first, second = halved(llama, 0), halved(llama, 1)
    one, other = addition(), edits.add("layers.2.out", 4 * weight(8))
    rows = [edits.when(first, one), edits.when(second, other), None, edits.when(first, one), edits.when(~second, one)]
    edit = edits.by_row(rows)
    wanted = []
    for row, prompt in zip(rows, MANY, strict=True):
        inner = row.edit if row is not None and meets(llama, row.condition)[MANY.index(prompt)] else None
        if inner is None:
            wanted.append(llama.completions([prompt], **LONG)[0].ids)
        else:
            wanted.append(completions(llama, [prompt], inner)[0])
    assert completions(llama, MANY, edit) == wanted


def test_resumed_forwards_decide_as_full_ones(llama: op.Model) -> None:
    condition, batch = halved(llama), llama.encode(MANY)
    cached = residuals(llama, batch, [1, 2])
    for inner in (
        addition(),
        edits.add(ACT, weight(3), "last_prompt"),
        edits.add("layers.2.out", weight(3), "last_prompt"),
    ):
        edit = edits.when(condition, inner)
        with llama.edited(edit) as receipt:
            resumed = llama.read(cached, "logits", positions="last_prompt")["logits"]
        with llama.edited(edit):
            full = llama.read(batch, "logits", positions="last_prompt")["logits"]
        torch.testing.assert_close(resumed, full, atol=1e-4, rtol=1e-4)
        assert list(receipt.conditions[0].met.values()) == meets(llama, condition)


def test_the_same_batch_is_decided_anew_under_another_edit(llama: op.Model) -> None:
    condition, batch = halved(llama), llama.encode(MANY)
    push = edits.add("layers.0.mlp.out", 50 * weight(0))
    with llama.edited(edits.when(condition, addition())) as first:
        llama.read(batch, "final")
    with llama.edited(push), llama.edited(edits.when(condition, addition())) as second:
        llama.read(batch, "final")
        assert all(second.conditions[0].met.values())
    assert list(first.conditions[0].met.values()) == meets(llama, condition)


def test_the_same_edit_twice_keeps_its_answers_apart(llama: op.Model) -> None:
    """The inner one pushes the outer one's own reading, but not what was decided before."""
    condition = halved(llama)
    edit = edits.when(condition, addition())
    with llama.edited(edit) as outer, llama.edited(edit) as inner:
        got = llama.completions(MANY, **LONG)
    assert list(outer.conditions[0].met.values()) == list(inner.conditions[0].met.values()) == meets(llama, condition)
    assert [one.ids for one in got] == hand(llama, addition() * 2, meets(llama, condition))


def test_half_precision(make_model: Any) -> None:
    model = make_model("llama", torch.bfloat16)
    condition = halved(model)
    with model.edited(edits.when(condition, addition())) as receipt:
        got = model.completions(MANY, rows_per_batch=1, **LONG)
    acts = list(receipt.conditions[0].met.values())
    assert [one.ids for one in got] == hand(model, addition(), acts)


# Conditions -----------------------------------------------------------------------------------------------------------


def test_conditions_combine_as_they_read(llama: op.Model) -> None:
    a, b, c = (halved(llama, seed, site=site) for seed, site in ((0, READ), (1, "layers.1.in"), (2, ACT)))
    one, two, three = (meets(llama, x) for x in (a, b, c))
    for condition, wanted in (
        (a & b, [x and y for x, y in zip(one, two, strict=True)]),
        (a | b, [x or y for x, y in zip(one, two, strict=True)]),
        (~(a & b), [not (x and y) for x, y in zip(one, two, strict=True)]),
        (~(a | b) | c, [not (x or y) or z for x, y, z in zip(one, two, three, strict=True)]),
        ((a | b) & ~c, [(x or y) and not z for x, y, z in zip(one, two, three, strict=True)]),
    ):
        inner = edits.add("layers.2.out", 4 * weight(9))
        assert completions(llama, MANY, edits.when(condition, inner)) == hand(llama, inner, wanted)


def test_the_two_halves_make_the_whole(llama: op.Model) -> None:
    condition, batch = halved(llama), llama.encode(MANY)
    both = edits.when(condition, addition()) + edits.when(~condition, addition())
    with llama.edited(both):
        got = llama.read(batch, "final")["final"]
    with llama.edited(addition()):
        assert torch.allclose(got, llama.read(batch, "final")["final"], atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "cosine", "projected_cosine"])
def test_measures_by_hand(llama: op.Model, name: str) -> None:
    condition = edits.condition(READ, weight(), measure=name)
    with llama.edited(edits.when(condition, addition())) as receipt:
        llama.read(MANY, "final")
    c = weight().double()
    for number, h in enumerate(means(llama)):
        projected = torch.tanh(torch.outer(c, c) / (c @ c) @ h)
        by_hand = {
            "linear": h @ c,
            "cosine": h @ c / (h.norm() * c.norm()),
            "projected_cosine": h @ projected / (h.norm() * projected.norm()),
        }[name]
        assert receipt.conditions[0].values[number] == pytest.approx(float(by_hand), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("fires", "opposite"), [(">", "<="), (">=", "<"), ("<", ">="), ("<=", ">")])
def test_not_is_the_exact_complement(fires: str, opposite: str) -> None:
    values = torch.tensor([-1.0, 0.5, 2.0])
    condition = edits.condition(READ, weight(), threshold=0.5, fires=fires)
    assert (~condition).fires == opposite
    assert torch.equal(condition.met(values), ~(~condition).met(values))


def test_the_receipt_says_what_was_decided(llama: op.Model) -> None:
    condition = halved(llama)
    acts = meets(llama, condition)
    with llama.edited(edits.when(condition, addition())) as receipt:
        llama.read(MANY, "final")
    yes = [number for number, met in enumerate(acts) if met]
    assert [row.number for row in receipt.by_row.values() if row.changed] == yes
    assert f"met by {len(yes)} of 5 prompts" in str(receipt)
    assert receipt.sites[ACT].selected == sum(len(llama.encode([MANY[number]]).ids[0]) for number in yes)


def test_a_condition_that_nobody_meets_is_noted_and_no_mistake(llama: op.Model) -> None:
    never = edits.condition(READ, weight(), threshold=1e9)
    batch = llama.encode(MANY)
    with llama.edited(edits.when(never, addition())) as receipt:
        got = llama.read(batch, "logits")["logits"]
    assert torch.equal(got, llama.read(batch, "logits")["logits"])
    assert "no prompt met the condition" in str(receipt)
    # Once it is met, an edit that selects nothing is a mistake as ever.
    with (
        pytest.raises(EditDidNothing, match="touched no position"),
        llama.edited(edits.when(~never, edits.add(ACT, weight(), "generated"))),
    ):
        llama.read(batch, "final")


def test_strength_zero_installs_nothing(llama: op.Model) -> None:
    with llama.edited(edits.when(halved(llama), addition()) * 0) as receipt:
        llama.read("The cat", "final")
    assert "strength 0" in str(receipt) and not receipt.sites


def test_it_lets_gradients_through(llama: op.Model) -> None:
    condition = halved(llama)
    trainable = edits.when(condition, addition()).trainable()
    with llama.edited(trainable):
        llama.read(MANY, "logits", grad=True)["logits"].sum().backward()
    (parameter,) = trainable.parameters()
    assert bool(parameter.grad.abs().sum() > 0)
    frozen = trainable.frozen()
    assert isinstance(frozen, edits.ConditionalEdit) and frozen.condition is condition


# Files and refusals ---------------------------------------------------------------------------------------------------


def test_a_saved_edit_is_the_same(llama: op.Model, tmp_path: Path) -> None:
    a, b = halved(llama), edits.condition("layers.1.in", weight(1), fires="<=", measure="projected_cosine")
    edit = edits.when((a | ~b) & a, addition() * 2) >> edits.scale("layers.2.out", 0.5)
    path = edit.save(tmp_path / "one.edit")
    again = op.load_edit(path)
    assert again.save(tmp_path / "two.edit").read_bytes() == path.read_bytes()
    assert len(edit.diff(again)) == 0 and "decides for each prompt from layers.0.out" in str(again.explain(llama))
    assert completions(llama, MANY, again) == completions(llama, MANY, edit)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda c: edits.when(c, edits.add("layers.0.in", weight())), NotSupported, "decided after layers.0.in"),
        (lambda c: edits.when(edits.condition("layers.*.out", weight()), addition()), BadInput, "selects 3 sites"),
        (
            lambda c: edits.when(edits.condition("layers.0.attn.heads", weight()), addition()),
            NotSupported,
            "layers.N.out",
        ),
        (lambda c: edits.when(edits.condition("layers.0.uot", weight()), addition()), UnknownSite, "layers.0.out"),
        (lambda c: edits.when(edits.condition(READ, weight()[:5]), addition()), WrongShape, "width 5"),
        (lambda c: edits.when(c, edits.when(c, addition())), NotSupported, "combine the two"),
        (lambda c: edits.when(c, edits.by_row([addition()])), NotSupported, "each row its own"),
        (lambda c: edits.when(c, edits.prompt("Hi.")), NotSupported, "prefix edit"),
        (lambda c: edits.when(3, addition()), BadInput, "edits.condition"),
        (lambda c: edits.condition(READ, weight(), measure="cosin"), BadInput, "did you mean cosine"),
        (lambda c: edits.condition(READ, weight(), fires="=>"), BadInput, "comparison"),
        (lambda c: edits.condition(READ, weight()[None]), BadInput, r"\[width\]"),
        (lambda c: edits.condition(READ, weight() / 0), NotFinite, "NaN or infinity"),
        (lambda c: edits.condition(READ, weight(), threshold=float("nan")), NotFinite, "threshold"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(llama: op.Model, make: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught, llama.edited(make(halved(llama))):
        llama.read(MANY, "final")
    assert "\n" not in str(caught.value)


def test_a_part_of_a_prompt_decides_nothing(llama: op.Model) -> None:
    """A prompt that comes in pieces, as with a cache that somebody fills by hand."""
    batch = llama.encode(["Where does the Eiffel Tower stand?"])
    edit = edits.when(halved(llama), addition())
    with pytest.raises(NotSupported, match="part of the prompt"), llama.edited(edit):
        llama.completions(batch, prefill_chunk_size=4, **LONG)


def test_a_prompt_of_which_nothing_is_read_is_refused(llama: op.Model) -> None:
    with (
        pytest.raises(BadInput, match="selects no token of prompt 0"),
        llama.edited(edits.when(edits.condition(READ, weight(), positions="system"), addition())),
    ):
        llama.read(MANY, "final")


def test_a_forward_of_bare_tensors_with_a_cache_has_no_prompt(llama: op.Model) -> None:
    ids = llama.encode(["The cat"]).ids
    edit = edits.when(edits.condition(READ, weight(), fires="<", threshold=1e9), addition())
    with llama.edited(edit):
        first = llama.module(input_ids=ids, use_cache=True)
        with pytest.raises(NotSupported, match="bare tensors"):
            llama.module(input_ids=ids[:, -1:], past_key_values=first.past_key_values)


def test_it_is_not_baked(llama: op.Model) -> None:
    with pytest.raises(NotSupported, match="cannot be baked"):
        edits.when(halved(llama), addition()).bake(llama)


def test_a_batch_that_is_gone_is_forgotten(llama: op.Model) -> None:
    from optrode.engine.places import Memories

    memories, owner = Memories(), object()
    batch: Batch | None = llama.encode(["The cat"])
    memories.of(batch, owner)["acts"] = 1
    assert memories.of(batch, owner) == {"acts": 1}
    batch = None
    memories.of(llama.encode(["dog"]), owner)
    assert len(memories._of) == 1
