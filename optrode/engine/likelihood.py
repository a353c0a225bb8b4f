"""Log-probabilities of tokens: what forced choice, perplexity and KL divergence are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..batches import Batch, Role
from ..errors import BadInput
from ..host import Host
from ..positions import Positions
from .reading.read import chunks, read
from .resume import Residuals

# Logits of this many positions are turned into log-probabilities at once: 1024 x 50,000 floats are 200 MB.
POSITIONS_AT_ONCE = 1024


def next_token_logits(host: Host, inputs: Batch | Residuals) -> Tensor:
    """Logits after the last prompt token, [example, vocabulary] float32. Only that column goes through the head."""
    return read(host, inputs, "logits", positions="last_prompt")["logits"].float()


def token_logprobs(host: Host, batch: Batch, scored: Tensor) -> list[Tensor]:
    """Log-probability (nats) of each scored token given those before it, one tensor per example.

    `scored`: bool [example, token]; the first token of a row has nothing before it and must not be scored. Raises
    `BadInput` where it is, or where padding is.
    """
    scored = scored.to(batch.mask.device)
    follows = batch.mask & (batch.mask.long().cumsum(-1) > 1)
    if scored.shape != batch.mask.shape or bool((scored & ~follows).any()):
        raise BadInput("`scored` must mark tokens of the batch that have one before them: no padding, no first tokens")
    found: dict[int, Tensor] = {}
    for rows, part in chunks(batch, POSITIONS_AT_ONCE):
        wanted = _cut(scored, batch, rows)
        logits = read(host, part, "logits")["logits"][:, :-1]
        targets = part.ids[:, 1:].to(logits.device)
        chosen = wanted[:, 1:].to(logits.device)
        logprobs = torch.log_softmax(logits[chosen].float(), -1).gather(-1, targets[chosen][:, None])[:, 0].cpu()
        for row, values in zip(rows.tolist(), logprobs.split(chosen.sum(-1).tolist()), strict=True):
            found[row] = values
    return [found[row] for row in range(len(batch))]


def distributions(host: Host, batch: Batch, positions: str | Positions = "content") -> Tensor:
    """Log-probabilities of the next token at selected positions, [position, vocabulary] float32."""
    logits = read(host, batch, "logits", positions=positions)["logits"]
    return torch.cat([torch.log_softmax(part.float(), -1) for part in logits.split(POSITIONS_AT_ONCE)])


def kl_divergence(reference: Tensor, other: Tensor) -> Tensor:
    """KL(reference || other) in nats at each position; both [position, vocabulary] log-probabilities."""
    parts = zip(reference.split(POSITIONS_AT_ONCE), other.split(POSITIONS_AT_ONCE), strict=True)
    return torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in parts])


def perplexity(logprobs: Sequence[Tensor]) -> float:
    """exp of the mean negative log-probability over all tokens of all examples."""
    flat = torch.cat(list(logprobs))
    return float(torch.exp(-flat.mean()))


def _cut(scored: Tensor, batch: Batch, rows: Tensor) -> Tensor:
    used = batch.mask[rows].any(0).nonzero().flatten()
    return scored[rows, int(used[0]) : int(used[-1]) + 1]


def reply_logits(host: Host, inputs: Batch | Residuals) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that predict the assistant's tokens, for conversations that end with an assistant message.

    Returns logits [position, vocabulary], the example of each position, and the token that really follows it.
    Only the columns after the last user turn go through the head.
    """
    batch = inputs.batch if isinstance(inputs, Residuals) else inputs
    logits = read(host, inputs, "logits", positions="after_instruction")["logits"]
    places = Positions("after_instruction").in_prompt(batch).nonzero()
    following = (places[:, 1] + 1).clamp(max=batch.width - 1)
    inside = (places[:, 1] + 1 < batch.width) & (batch.roles[places[:, 0], following] == Role.ASSISTANT)
    examples = places[inside, 0]
    return logits[inside.to(logits.device)], examples, batch.ids[examples, following[inside]]


def reply_logprobs(host: Host, inputs: Batch | Residuals) -> list[Tensor]:
    """Log-probability (nats) of each token of the assistant's reply, one tensor per example."""
    logits, examples, targets = reply_logits(host, inputs)
    parts = zip(logits.split(POSITIONS_AT_ONCE), targets.split(POSITIONS_AT_ONCE), strict=True)
    chosen = torch.cat(
        [torch.log_softmax(part.float(), -1).gather(-1, ids.to(part.device)[:, None])[:, 0] for part, ids in parts]
    ).cpu()
    rows = inputs.batch if isinstance(inputs, Residuals) else inputs
    return [chosen[examples.cpu() == row] for row in range(len(rows))]
