"""The one token mask: no padding, no special tokens, no sinks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from optrode.activations import Activations
from optrode.errors import BadInput
from optrode.stats import SINK_FACTOR, sink_mask, stream_norms, token_mask

PROMPTS = ["The cat", "Where does the Eiffel Tower stand?"]


def test_pads_and_special_tokens_are_left_out(model):
    acts = model.read(PROMPTS, "layers.1.out")
    mask = token_mask(acts)
    special = set(model.tokenizer.all_special_ids)
    for row, column in [(row, column) for row in range(2) for column in range(acts.batch.width)]:
        ordinary = bool(acts.batch.mask[row, column]) and int(acts.batch.ids[row, column]) not in special
        assert bool(mask[row, column]) is ordinary
    assert int((~acts.batch.mask).sum()) > 0 and int(acts.batch.special.sum()) > 0


def made(model, norms: list[float], others: list[float] | None = None) -> Activations:
    """Activations of one raw row whose tokens have the given norms, at one or two sites."""
    acts = model.read(["The cat sat on the mat and the dog lay"], "layers.0.out", template="raw")
    width = acts.batch.width
    rows = [row + [1.0] * (width - len(row)) for row in (norms, others or norms)]
    values = {f"layers.{n}.out": torch.tensor(row)[None, :, None] * torch.eye(4)[0] for n, row in enumerate(rows)}
    return Activations(
        values, dict.fromkeys(values, ("example", "token", "feature")), acts.batch, None, model.tokenizer
    )


def test_a_row_above_ten_times_the_median_is_a_sink_and_one_at_ten_times_is_not(llama):
    assert SINK_FACTOR == 10.0
    mask = token_mask(made(llama, [10.001, 10.0, 9.0]))
    assert mask[0, :3].tolist() == [False, True, True] and bool(mask[0, 3:].all())


def test_a_sink_at_any_site_is_left_out_at_all(llama):
    mask = token_mask(made(llama, [50.0, 1.0, 1.0], [1.0, 50.0, 1.0]))
    assert mask[0, :3].tolist() == [False, False, True]


def test_padding_has_no_part_in_the_median():
    h = torch.tensor([[[0.0], [0.0], [0.0], [2.0], [2.0], [30.0]]])
    real = torch.tensor([[False, False, False, True, True, True]])
    assert sink_mask(h, real).tolist() == [[False, False, False, False, False, True]]
    # With the pads counted the median would be 0 and everything a sink.
    assert sink_mask(h, torch.ones_like(real)).tolist() == [[False, False, False, True, True, True]]


def test_padding_is_never_a_sink_and_nothing_real_is_no_sink():
    h = torch.tensor([[[900.0], [1.0], [1.0]]])
    assert not bool(sink_mask(h, torch.tensor([[False, True, True]])).any())
    assert not bool(sink_mask(h, torch.zeros(1, 3, dtype=torch.bool)).any())


def test_the_mask_does_not_depend_on_the_batch(llama):
    together = llama.read(PROMPTS, "layers.1.out")
    mask = token_mask(together)
    for row, prompt in enumerate(PROMPTS):
        alone = token_mask(llama.read([prompt], "layers.1.out"))
        assert torch.equal(mask[row][together.batch.mask[row]], alone[0])


def test_sites_without_a_token_axis_have_no_say(llama):
    acts = llama.read(PROMPTS, "layers.1.out", positions="last_prompt")
    assert torch.equal(token_mask(acts), acts.batch.mask & ~acts.batch.special)


def test_no_token_left_or_no_prompts_is_refused(llama):
    acts = made(llama, [1.0])
    with pytest.raises(BadInput, match="no token is left"):
        token_mask(acts, batch=replace(acts.batch, special=torch.ones_like(acts.batch.special)))
    with pytest.raises(BadInput, match="read from prompts"):
        token_mask(Activations({"a": torch.ones(2, 3)}, {"a": ("example", "feature")}))


def test_the_sink_of_smollm2_is_left_out_and_nothing_else_of_the_text(smollm2):
    acts = smollm2.read(["The capital of France is Paris."], "layers.15.out", template="raw")
    mask = token_mask(acts)
    assert mask[0].tolist() == [False] + [True] * (acts.batch.width - 1)
    norms = stream_norms(acts["layers.15.out"], mask)
    assert float(acts["layers.15.out"][0, 0].norm()) > 10 * norms["max"]
