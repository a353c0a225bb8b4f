"""Edits inside attention while text is written with a cache."""

from __future__ import annotations

import pytest
import torch
from second_attention import KEYS, PATTERN, SCORES, by_hand, columns, made, same
from torch import Tensor

from optrode import edits
from optrode.errors import NotSupported

NEW = 5

WRITING = {
    "keys of the user": (edits.scale(KEYS, -1.0, "user"), "key", lambda h: -h, "user", None),
    "keys of what is written": (edits.scale(KEYS, -1.0, "generated"), "key", lambda h: -h, "generated", None),
    "queries that are written": (edits.scale("layers.1.attn.q_rotated", 2.0, "generated"), "query",
                                 lambda h: 2 * h, "generated", None),
    "patterns of what is written": (edits.scale(PATTERN, 0.3, "generated"), "pattern",
                                    lambda h: 0.3 * h, "generated", None),
    "written tokens do not see the user": (edits.knockout(SCORES, "user", "generated"), "scores",
                                           lambda h: h - torch.inf, "generated", "user"),
    "nobody sees what was written": (edits.add(SCORES, -2.0, "generated", keys="generated"), "scores",
                                     lambda h: h - 2.0, "generated", "generated"),
    "all": (edits.scale(PATTERN, 0.5, "all", keys="last_prompt"), "pattern", lambda h: 0.5 * h, "all", "last_prompt"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRITING)
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_cached_writing_equals_a_full_forward(name, case, make_model, tokenizer, prompts):
    """The logits of every step, against one forward over everything through the second attention."""
    model = made(name, make_model, tokenizer)
    edit, what, operation, positions, keys = WRITING[case]
    batch = model.encode(sorted(prompts, key=len))
    steps: list[Tensor] = []
    handle = model.module.lm_head.register_forward_hook(lambda _, __, out: steps.append(out[:, -1].clone()))
    try:
        with model.edited(edit) as receipt:
            written = torch.tensor(
                [done.ids for done in model.completions(batch, max_new_tokens=NEW, min_new_tokens=NEW)]
            )
    finally:
        handle.remove()
    assert receipt.sites[edit.site].decode_calls == NEW - 1
    ids = torch.cat([batch.ids, written[:, :-1]], -1)
    mask = torch.cat([batch.mask, torch.ones_like(written[:, :-1], dtype=torch.bool)], -1)
    places = (mask.long().cumsum(-1) - 1).clamp(min=0)

    def marked(role: str) -> Tensor:
        new = torch.full((len(batch), NEW - 1), role in ("generated", "all"))
        old = columns(batch, role) if role != "generated" else torch.zeros_like(batch.mask)
        return torch.cat([old, new], -1)

    rows, seen = marked(positions)[:, None, :, None], marked(keys)[:, None, None] if keys else torch.ones(()).bool()

    def change(layer: int, at: str, h: Tensor) -> Tensor:
        return torch.where(rows & seen, operation(h), h) if (layer, at) == (1, what) else h

    def full() -> Tensor:
        with torch.no_grad():
            logits = model.module.base_model(
                input_ids=ids, attention_mask=mask.long(), position_ids=places, use_cache=False
            ).last_hidden_state
            return model.module.lm_head(logits)

    with by_hand(model, change):
        wanted = full()
    for step, logits in enumerate(steps):
        # Some of these edits hold values in float32.
        assert same(logits, wanted[:, batch.width - 1 + step], 1e-6 if logits.dtype == torch.float64 else None), step
    assert not same(wanted[:, -1], full()[:, -1], 1e-6), "the edit is strong enough to matter"


def test_a_cache_of_fixed_length_has_no_roles_of_keys(make_model, prompts):
    model = make_model("llama")
    fixed = {"max_new_tokens": 3, "min_new_tokens": 3, "cache_implementation": "static"}
    with model.edited(edits.scale(PATTERN, 0.5)):
        whole = [done.ids for done in model.completions(prompts, **fixed)]
        assert whole == [done.ids for done in model.completions(prompts, max_new_tokens=3, min_new_tokens=3)]
    with (
        pytest.raises(NotSupported, match="dynamic cache"),
        model.edited(edits.knockout(SCORES, "user", "generated")),
    ):
        model.completions(prompts, **fixed)
