from __future__ import annotations

import math

import pytest
import torch

import optrode as op
from optrode.engine import likelihood
from optrode.engine.reading.read import residuals
from optrode.errors import BadInput

TALKS = [
    [{"role": "user", "content": "The cat"}, {"role": "assistant", "content": "Sure, here is what"}],
    [{"role": "user", "content": "Where does the Eiffel Tower stand?"}, {"role": "assistant", "content": "Paris"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "The dog lay by the door."}],
]


@pytest.fixture
def batch(llama: op.Model):
    return llama.encode(TALKS)


def literal(model: op.Model, batch, row: int, forward) -> torch.Tensor:
    """log p(token | before) of every token but the first of one row run alone, by a softmax written out."""
    alone = batch.pick([row])
    logits = forward(model, alone).logits[0].double()
    found = []
    for place in range(1, alone.width):
        scores = logits[place - 1]
        found.append(scores[alone.ids[0, place]] - scores.exp().sum().log())
    return torch.stack(found)


@pytest.mark.parametrize("at_once", [1, 1024])
def test_token_logprobs(at_once: int, llama: op.Model, batch, forward, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(likelihood, "POSITIONS_AT_ONCE", at_once)
    first = batch.mask & (batch.mask.long().cumsum(-1) == 1)
    found = likelihood.token_logprobs(llama, batch, batch.mask & ~first)
    for row in range(3):
        assert torch.allclose(found[row].double(), literal(llama, batch, row, forward), atol=1e-4)
    reply = likelihood.token_logprobs(llama, batch, batch.roles == 4)
    for row in range(3):
        count = int((batch.roles[row] == 4).sum())
        assert torch.allclose(reply[row], found[row][-count:], atol=1e-4) and count > 0


def test_what_cannot_be_scored_is_refused(llama: op.Model, batch):
    for wrong in (batch.mask, ~batch.mask, torch.ones(2, 2, dtype=torch.bool), batch.mask[:, 1:]):
        with pytest.raises(BadInput, match="before them"):
            likelihood.token_logprobs(llama, batch, wrong)
    nothing = likelihood.token_logprobs(llama, batch, torch.zeros_like(batch.mask))
    assert [len(row) for row in nothing] == [0, 0, 0]


def test_replies(llama: op.Model, batch, forward):
    found = likelihood.reply_logprobs(llama, batch)
    kept = likelihood.reply_logprobs(llama, residuals(llama, batch, [1]))
    for row in range(3):
        count = int((batch.roles[row] == 4).sum())
        wanted = literal(llama, batch, row, forward)[-count:]
        assert torch.allclose(found[row].double(), wanted, atol=1e-4)
        assert torch.allclose(kept[row].double(), wanted, atol=1e-4)


def test_next_token_logits(model: op.Model, prompts: list[str], forward):
    batch = model.encode(prompts)
    found = likelihood.next_token_logits(model, batch)
    assert found.dtype == torch.float32
    for row in range(3):
        assert torch.allclose(found[row], forward(model, batch.pick([row])).logits[0, -1], atol=1e-4)
    resumed = likelihood.next_token_logits(model, residuals(model, batch, [2]))
    assert torch.allclose(resumed, found, atol=1e-4)


def test_distributions_and_divergence(llama: op.Model, prompts: list[str], monkeypatch: pytest.MonkeyPatch):
    batch = llama.encode(prompts)
    p = likelihood.distributions(llama, batch, "user")
    assert p.shape == (int((batch.roles == 3).sum()), len(llama.tokenizer))
    assert torch.allclose(p.exp().sum(-1), torch.ones(len(p)), atol=1e-5)
    monkeypatch.setattr(likelihood, "POSITIONS_AT_ONCE", 3)
    assert torch.equal(likelihood.distributions(llama, batch, "user"), p)
    q = p.roll(1, 0)
    found = likelihood.kl_divergence(p, q)
    for place in range(len(p)):
        wanted = sum(math.exp(a) * (a - b) for a, b in zip(p[place].tolist(), q[place].tolist(), strict=True))
        assert float(found[place]) == pytest.approx(wanted, abs=1e-4)
    assert torch.equal(likelihood.kl_divergence(p, p), torch.zeros(len(p))) and bool((found > 0).all())


def test_perplexity_counts_tokens_not_examples():
    half, quarter = torch.log(torch.tensor([0.5])), torch.log(torch.tensor([0.25] * 3))
    assert likelihood.perplexity([half, quarter]) == pytest.approx((2 * 4**3) ** (1 / 4))
