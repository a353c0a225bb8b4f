"""Property 4: positions by role are resolved per row and carried through padding, template and KV cache.

A batched answer equals the single one, and a cached decode equals a full forward, within the tolerances below.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode import edits

# Largest difference allowed, relative to the largest value of the same row at the same site. Attention over other
# widths sums in another order; bfloat16 rounds each such sum.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 6e-2}
SMOLLM2 = 1e-3  # float32, 30 blocks, activations of 2e4 beside such of 1

ROLES = ["after_instruction", "generated", "last_prompt", "user"]
NEW = 6
LONG = {"max_new_tokens": NEW, "min_new_tokens": NEW}


def difference(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def vector(model: op.Model, layer: int, share: float) -> Tensor:
    """A random direction, as long as a share of the stream's median norm there."""
    norm = (
        model.read("The cat sat on the mat.", f"layers.{layer}.out").rows(f"layers.{layer}.out").norm(dim=-1).median()
    )
    direction = torch.randn(model.width, generator=torch.Generator().manual_seed(5))
    return share * float(norm) * direction / direction.norm()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_site_of_a_padded_batch_is_that_of_the_row_alone(name, dtype, make_model, prompts: list[str]):
    model = make_model(name, dtype)
    check_reads(model, prompts, list(model.sites), TOLERANCE[dtype])


def check_reads(model: op.Model, prompts: list[str], sites: list[str], tolerance: float) -> None:
    together = model.read(prompts, sites)
    assert together.batch.mask.sum(-1).unique().numel() == len(prompts), "every row has another amount of padding"
    for row, prompt in enumerate(prompts):
        alone = model.read(prompt, sites)
        for site in sites:
            own = together[site][row][together.batch.mask[row]]
            if together.axes[site][-1] == "key":
                hidden, own = own[..., ~together.batch.mask[row]], own[..., together.batch.mask[row]]
                assert bool((hidden == (-torch.inf if site.endswith("scores") else 0)).all()), (site, row)
            seen = alone[site][0] != -torch.inf
            assert torch.equal(own != -torch.inf, seen)
            assert difference(own[seen], alone[site][0][seen]) <= tolerance, (site, row)


@pytest.mark.parametrize(
    "positions", ["all", "prompt", "after_instruction", "last_prompt", "user", "template", "content", "first:2@user"]
)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_an_edit_touches_the_same_tokens_of_a_row_alone_and_in_a_batch(name, positions, make_model, prompts: list[str]):
    model = make_model(name, torch.float64)
    edit = edits.add("layers.0.out", vector(model, 0, 2), positions) >> edits.scale("layers.1.mid", 0.3, positions)
    with model.edited(edit):
        together = model.read(prompts, ["layers.2.out", "logits"])
        for row, prompt in enumerate(prompts):
            alone = model.read(prompt, ["layers.2.out", "logits"])
            for site in alone:
                own = together[site][row][together.batch.mask[row]]
                assert difference(own, alone[site][0]) <= TOLERANCE[torch.float64], (site, row)


@pytest.mark.parametrize("positions", ROLES)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_greedy_writing_under_an_edit_is_that_of_the_row_alone(name, positions, make_model, prompts: list[str]):
    model = make_model(name, torch.float64)
    check_writing(model, prompts, edits.add("layers.1.out", vector(model, 1, 2), positions), LONG)


def check_writing(model: op.Model, prompts: list[str], edit, options: dict) -> None:
    plain = [completion.ids for completion in model.completions(prompts, **options)]
    with model.edited(edit):
        together = [completion.ids for completion in model.completions(prompts, **options)]
        alone = [model.completions(prompt, **options)[0].ids for prompt in prompts]
    assert together == alone
    assert together != plain, "the edit is strong enough to matter"


def touched(model: op.Model, batch, positions: str, width: int) -> Tensor:
    """Columns that a role means in prompts and what was written after them, from the template's own text."""
    header = len(model.tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"])
    found = torch.zeros(len(batch), width, dtype=torch.bool)
    for row in range(len(batch)):
        if positions == "after_instruction":
            found[row, batch.width - header :] = True
        elif positions == "generated":
            found[row, batch.width :] = True
        elif positions == "last_prompt":
            found[row, batch.width - 1] = True
        else:
            text = batch.texts[row]
            start = text.rindex("<|im_start|>user\n") + len("<|im_start|>user\n")
            stop = text.index("<|im_end|>", start)
            for column in batch.mask[row].nonzero().flatten().tolist():
                left, right = batch.offsets[row, column].tolist()
                found[row, column] = left >= start and right <= stop
    return found


@pytest.mark.parametrize("positions", ROLES)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_cached_writing_equals_a_full_forward(name, positions, make_model, prompts, block, rewritten):
    model = make_model(name, torch.float64)
    added = vector(model, 1, 2)
    check_cache(model, prompts, positions, added, block(model, 1), rewritten, TOLERANCE[torch.float64])


def check_cache(model: op.Model, prompts, positions: str, added: Tensor, block, rewritten, tolerance: float) -> None:
    """The logits of every step, against one forward over everything with a plain hook at the same columns."""
    # Rows are run in order of length.
    batch = model.encode(sorted(prompts, key=len))
    steps: list[Tensor] = []
    handle = model.module.lm_head.register_forward_hook(lambda _, __, out: steps.append(out[:, -1].clone()))
    try:
        with model.edited(edits.add("layers.1.out", added, positions)):
            written = torch.tensor([completion.ids for completion in model.completions(batch, **LONG)])
    finally:
        handle.remove()
    ids = torch.cat([batch.ids, written[:, :-1]], -1)
    mask = torch.cat([batch.mask, torch.ones_like(written[:, :-1], dtype=torch.bool)], -1)
    places = (mask.long().cumsum(-1) - 1).clamp(min=0)
    change = touched(model, batch, positions, ids.shape[1])[..., None] * added
    with torch.no_grad(), rewritten(block, lambda h: h + change):
        full = model.module(input_ids=ids, attention_mask=mask.long(), position_ids=places, use_cache=False).logits
        assert len(steps) == NEW
        for step, logits in enumerate(steps):
            assert difference(logits, full[:, batch.width - 1 + step]) <= tolerance, step
    with torch.no_grad():
        plain = model.module(input_ids=ids, attention_mask=mask.long(), position_ids=places, use_cache=False).logits
    assert difference(full[:, -1], plain[:, -1]) > 100 * tolerance, "the edit is strong enough to matter"


def test_roles_in_a_conversation_with_everything(llama: op.Model):
    """The text of every role, read off the columns that an edit touched."""
    talk = [
        {"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "The cat"},
        {"role": "assistant", "content": "Sure, here"}, {"role": "user", "content": "Answer in one word"},
        {"role": "assistant", "content": "Paris is"},
    ]  # fmt: skip
    wanted = {
        "system": "You are a helpful assistant.", "user": "The catAnswer in one word",
        "assistant": "Sure, hereParis is", "after_instruction": "<|im_start|>assistant\nParis is",
        "content": "You are a helpful assistant.The catSure, hereAnswer in one wordParis is",
        "span:one word": " one word",
    }  # fmt: skip
    for prompts in ([talk], [talk, [*talk, {"role": "user", "content": "x one word"}]]):
        batch = llama.encode(prompts)
        for positions, text in wanted.items():
            with llama.edited(edits.replace("layers.0.out", 7.0, positions)) as receipt:
                h = llama.read(batch, "layers.0.out")["layers.0.out"]
            hit = (h == 7).all(-1)
            assert llama.tokenizer.decode(batch.ids[0][hit[0]]) == text
            assert int(hit.sum()) == receipt.sites["layers.0.out"].selected


REAL = ["Hi", "What is the capital of France, and which river flows through it?", "Name one colour of the rainbow."]


def test_smollm2_reads(smollm2: op.Model):
    sites = ["layers.{0,1,14,29}.{in,attn.v,attn.heads,mid,mlp.hidden,mlp.out,out}", "embed", "final", "logits"]
    check_reads(smollm2, REAL, smollm2.sites.match(sites), SMOLLM2)


@pytest.mark.parametrize("positions", ROLES)
def test_smollm2_writes(positions: str, smollm2: op.Model):
    share = 6 if positions in ("user", "last_prompt") else 1.5
    edit = edits.add("layers.12.out", vector(smollm2, 12, share), positions)
    check_writing(smollm2, REAL, edit, {"max_new_tokens": 5})
