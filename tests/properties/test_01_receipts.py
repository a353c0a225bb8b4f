"""Property 1: an edit cannot silently do nothing, and its receipt says what it did."""

from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.errors import EditDidNothing, UnknownSite

V = torch.randn(32, generator=torch.Generator().manual_seed(5))
OUT = "layers.1.out"
NEW = 6
LONG = {"max_new_tokens": NEW, "min_new_tokens": NEW}


# Nothing happened: always an error --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ("layers.1.uot", "did you mean layers.1.out"), ("layers.3.out", "layers 0 to 2"),
        ("layers.1.mlp.gaet", "layers.1.mlp"), ("module:model.leyers.1", "did you mean"), ("final.out", "final"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("strength", [1, 0])
def test_a_site_that_matches_nothing_names_near_ones(site: str, says: str, strength: float, llama: op.Model):
    edit = edits.add(OUT, V) + edits.add(site, V) * strength
    with pytest.raises(UnknownSite, match=says) as refused, llama.edited(edit):
        pytest.fail("it was entered")
    assert len(str(refused.value).splitlines()) == 1


def test_no_forward_ran(model: op.Model):
    with pytest.raises(EditDidNothing, match="no forward of the model ran"), model.edited(edits.add(OUT, V)):
        pass
    with pytest.raises(EditDidNothing), model.edited(edits.add(OUT, V)):
        model.encode("The cat")


def test_another_network_ran(llama: op.Model, gpt2: op.Model):
    with pytest.raises(EditDidNothing, match="never fired"), llama.edited(edits.add(OUT, V)):
        gpt2.generate("The cat", max_new_tokens=1)


@pytest.mark.parametrize("site", ["layers.2.out", "layers.1.mlp.out", "logits", "module:lm_head"])
def test_the_forwards_stopped_before_the_site(site: str, llama: op.Model):
    edit = edits.scale(site, 2.0)
    with pytest.raises(EditDidNothing, match=r"stopped after [12] layers"), llama.edited(edit):
        llama.read("The cat", "layers.1.attn.out")


@pytest.mark.parametrize("positions", ["generated", "generated:3-", "assistant", "text", "index:400"])
def test_no_position_was_touched(positions: str, model: op.Model):
    with (
        pytest.raises(EditDidNothing, match=f"'{positions}' selected nothing"),
        model.edited(edits.add(OUT, V, positions)),
    ):
        model.read(["The cat", "a"], OUT)


@pytest.mark.parametrize("combine", [lambda a, b: a + b, lambda a, b: a >> b, lambda a, b: b + a, lambda a, b: b >> a])
def test_one_idle_part_is_not_hidden_by_a_busy_one_at_the_same_site(combine, model: op.Model):
    edit = combine(edits.add(OUT, V), edits.add(OUT, V, "assistant"))
    with pytest.raises(EditDidNothing, match="'assistant' selected nothing"), model.edited(edit):
        model.read("The cat", OUT)
    with (
        pytest.raises(EditDidNothing, match=r"layers\.2\.out never fired"),
        model.edited(combine(edits.add(OUT, V), edits.add("layers.2.out", V))),
    ):
        model.read("The cat", OUT)
    with model.edited(combine(edits.add(OUT, V), edits.add(OUT, V, "assistant") * 0)):
        model.read("The cat", OUT)


def test_a_pattern_needs_to_act_somewhere_only(model: op.Model):
    with model.edited(edits.add("layers.*.out", V)) as receipt:
        model.read("The cat", OUT)
    assert [site.calls for site in receipt.sites.values()] == [1, 1, 0]


def test_an_error_of_the_body_is_not_replaced(model: op.Model):
    with pytest.raises(KeyError, match="mine"), model.edited(edits.add(OUT, V)):
        raise KeyError("mine")


# Strength 0 installs nothing ---------------------------------------------------------------------------------------


def test_strength_zero_installs_nothing_and_says_so(model: op.Model):
    before = hooks(model)
    for edit in (edits.add(OUT, V) * 0, (edits.add(OUT, V) >> edits.scale(OUT, 2.0)) * 0, edits.add(OUT, V) * 0.0 * 5):
        with model.edited(edit) as receipt:
            assert hooks(model) == before
            model.read("The cat", "layers.0.out")
        assert receipt.sites == {} and receipt.forwards == 0 and "strength 0" in str(receipt)


def hooks(model: op.Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())


# The counts ----------------------------------------------------------------------------------------------------------


def count(model: op.Model, prompts: list[str], positions: str) -> tuple[int, int]:
    """Prompt tokens and written tokens that a selection touches, counted on the texts of the template."""
    tokens = lambda text: len(model.tokenizer(text)["input_ids"])  # noqa: E731
    before, header = "<|im_start|>user\n", "<|im_start|>assistant\n"
    per_prompt = {
        "all": lambda text: tokens(before) + tokens(text) + tokens("<|im_end|>\n") + tokens(header),
        "user": tokens, "last_prompt": lambda text: 1, "after_instruction": lambda text: tokens(header),
        "first:2@user": lambda text: 2, "generated": lambda text: 0, "generated:1-2": lambda text: 0,
        "content": tokens,
    }  # fmt: skip
    # What is written last is never read by the network.
    fed = len(prompts) * (NEW - 1)
    written = {
        "all": fed,
        "after_instruction": fed,
        "generated": fed,
        "content": fed,
        "generated:1-2": 2 * len(prompts),
    }
    return sum(map(per_prompt[positions], prompts)), written.get(positions, 0)


@pytest.mark.parametrize(
    "positions",
    ["all", "user", "last_prompt", "after_instruction", "first:2@user", "generated", "generated:1-2", "content"],
)
def test_prefill_and_every_decode_step_are_counted(positions: str, model: op.Model, prompts: list[str]):
    in_prompt, written = count(model, prompts, positions)
    with model.edited(edits.add(OUT, V, positions)) as receipt:
        model.generate(prompts, **LONG)
    site = receipt.sites[OUT]
    assert receipt.forwards == site.calls == NEW and (site.prefill_calls, site.decode_calls) == (1, NEW - 1)
    assert site.rows == 3 and site.selected == site.changed == in_prompt + written
    assert (receipt.layers_run, receipt.layers_skipped) == (3, 0)
    assert receipt.calls == NEW and receipt.changed == site.changed
    if not in_prompt:
        return
    with model.edited(edits.add(OUT, V, positions)) as receipt:
        model.read(prompts, OUT)
    site = receipt.sites[OUT]
    assert site.selected == in_prompt and (site.prefill_calls, site.decode_calls) == (1, 0)
    assert (receipt.layers_run, receipt.layers_skipped) == (2, 1)


def test_a_position_counts_once_however_many_parts_touch_it(model: op.Model, prompts: list[str]):
    last, user, everything = (count(model, prompts, name)[0] for name in ("last_prompt", "user", "all"))
    parts = {name: edits.add(OUT, V, name) for name in ("last_prompt", "user", "all")}
    for edit, wanted in (
        (parts["user"] + parts["user"], user),
        (parts["user"] >> parts["last_prompt"], user + last),
        (parts["all"] + parts["user"] + parts["last_prompt"], everything),
    ):
        with model.edited(edit) as receipt:
            model.read(prompts, OUT)
        assert receipt.sites[OUT].selected == receipt.sites[OUT].changed == wanted


def test_selected_is_what_was_offered_and_changed_what_came_out_different(model: op.Model, prompts: list[str]):
    h = model.read(prompts, OUT)
    low = float(h.rows(OUT).min(-1).values.median())
    with model.edited(edits.clamp(OUT, low=low)) as receipt:
        model.read(prompts, OUT)
    site = receipt.sites[OUT]
    assert site.selected == len(h.rows(OUT))
    assert site.changed == sum(bool((row < low).any()) for row in h.rows(OUT)) and 0 < site.changed < site.selected


def test_the_relative_change_against_the_literal_one(model: op.Model, prompts: list[str]):
    acts = model.read(prompts, [OUT, "layers.1.attn.heads"])
    for edit, site in (
        (edits.add(OUT, V, "user") * 3, OUT),
        (edits.scale("layers.1.attn.heads", 0.5, heads=(2,)), "layers.1.attn.heads"),
    ):
        ratios = []
        for row in range(3):
            for token in range(acts.batch.width):
                old = acts[site][row, token]
                if site == OUT:
                    inside, change = bool(acts.batch.roles[row, token] == 3), 3 * V
                else:
                    inside, change = bool(acts.batch.mask[row, token]), torch.zeros_like(old)
                    change[2] = -0.5 * old[2]
                if inside:
                    ratios.append(float(change.square().sum().sqrt() / old.square().sum().sqrt()))
        with model.edited(edit) as receipt:
            model.read(prompts, site)
        found = receipt.sites[site]
        assert found.relative_change == pytest.approx(sum(ratios) / len(ratios), rel=1e-4)
        assert found.largest_change == pytest.approx(max(ratios), rel=1e-4)
        assert receipt.relative_change == pytest.approx(found.relative_change)


def test_the_receipt_reads_as_text(model: op.Model, prompts: list[str]):
    with model.edited(edits.add("layers.{1,2}.out", V, "last_prompt")) as receipt:
        model.read(prompts, OUT)
    first, second = str(receipt).splitlines()
    assert first.startswith("1 of 2 matched sites ran in 1 forwards; 3 positions changed by")
    assert first.endswith("2 layers run, 1 skipped")
    assert second.startswith(f"  {OUT}: 1 prefill + 0 decode calls, 3 rows, 3 positions selected, 3 changed, mean")


def test_many_forwards_add_up(llama: op.Model, prompts: list[str]):
    with llama.edited(edits.add(OUT, V, "user")) as receipt:
        llama.read(prompts, OUT, tokens_per_forward=1)
        llama.read(prompts, OUT)
    assert receipt.forwards == 4 and receipt.sites[OUT].selected == 2 * count(llama, prompts, "user")[0]
