"""Training an edit on replies: the loop that trained baselines share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..batches import Role
from ..edits.base import Edit
from ..edits.trainable import Trainable
from ..engine.progress import track
from ..errors import BadInput, NotFinite
from ..model import Model


def learn_replies(
    model: Model,
    edit: Edit,
    conversations: Sequence[list[dict[str, str]]],
    *,
    epochs: int,
    learning_rate: float,
    rows: int = 8,
    seed: int = 0,
    recipe: dict[str, Any] | None = None,
) -> Edit:
    """The edit with its tensors trained so that the model says the last reply of each conversation.

    Mean cross-entropy of the assistant's tokens, Adam, batches of `rows` in an order drawn from `seed`. The network's
    own weights get no gradient and stay as they are. Raises `BadInput` for no conversations or no epochs, `NotFinite`
    when the loss is no number. Cost: `epochs` forward and backward passes over all conversations.
    """
    if not conversations or epochs < 1 or rows < 1:
        raise BadInput("training needs at least one conversation, one epoch and one row in a batch")
    trainable = Trainable(edit)
    optimiser = torch.optim.Adam(trainable.parameters(), lr=learning_rate)
    batches = list(_batches(len(conversations), epochs, rows, seed))
    with _frozen(model.module), torch.enable_grad(), model.edited(trainable):
        for chosen in track(batches, "training on replies"):
            batch = model.encode([conversations[row] for row in chosen])
            labels = torch.where(batch.roles == Role.ASSISTANT, batch.ids, -100)
            loss = model.run(batch, labels=labels).loss
            if not bool(torch.isfinite(loss)):
                raise NotFinite("the loss is no number: use float32, or a smaller learning rate")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return trainable.frozen(**(recipe or {}))


def _batches(count: int, epochs: int, rows: int, seed: int) -> Iterator[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator).tolist()
        yield from (order[start : start + rows] for start in range(0, count, rows))


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient inside; afterwards each does as before."""
    asked = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)
