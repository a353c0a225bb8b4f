"""After a swap the weights do not fit the new function: `heal` trains a small adapter, and the answers come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..batches import Batch
from ..edits.adapter import AdapterEdit, linear_modules, lora
from ..edits.part import PartEdit
from ..edits.together import Together, together
from ..edits.trainable import Trainable
from ..engine.progress import track
from ..errors import BadInput
from ..model import Model
from ..positions import Positions


@dataclass(frozen=True)
class Healed:
    """What `heal` gives: `with model.edited(healed.edit):`; `healed.edit.save` writes swap and adapter to one file.

    `losses` are those of each step. `before` and `after`: divergence from the network as it was, in nats a token, on
    texts that were not trained on, by the swap alone and with the adapter.
    """

    swap: PartEdit
    adapter: AdapterEdit
    losses: tuple[float, ...]
    before: float
    after: float

    @property
    def edit(self) -> Together:
        """The swap, and the adapter that was trained beside it."""
        return together(self.swap, self.adapter)

    def __str__(self) -> str:
        return (
            f"divergence from the unswapped network: {self.before:.3f} nats a token before, {self.after:.3f} after "
            f"{len(self.losses)} steps"
        )


def heal(
    model: Model,
    swap: PartEdit,
    texts: Sequence[str],
    *,
    rank: int = 8,
    steps: int = 40,
    rate: float = 2e-3,
    rows: int = 4,
    seed: int = 0,
) -> Healed:
    """Train a low-rank adapter beside the swapped functions, and their parameters, towards the network as it was.

    The loss is the mean over tokens of KL(network as it was || swapped network); AdamW; `rows` texts a step. The
    adapter sits at every linear module that shares its parent with a swapped function. A quarter of the texts, at least
    one, is kept for the measure. Neither the network nor its weights change; parameters of the swapped functions do.

    Raises `BadInput` for fewer than two texts. Cost: two forwards and a backward a step.
    """
    if len(texts) < 2:
        raise BadInput("healing needs at least two texts: one to train on and one to measure with")
    held = max(1, len(texts) // 4)
    training, measured = list(texts[held:]), model.encode(list(texts[:held]))
    trainable = lora(model, rank, _neighbours(model, swap), seed=seed).trainable()
    before = _measure(model, measured, swap)
    optimiser = torch.optim.AdamW([*trainable.parameters(), *swap.parameters()], lr=rate)
    order = torch.Generator().manual_seed(seed)
    losses = []
    for _ in track(list(range(steps)), "healing"):
        chosen = torch.randperm(len(training), generator=order)[:rows].tolist()
        batch = model.encode([training[number] for number in chosen])
        target = _logits(model, batch)
        with model.edited(swap, trainable):
            loss = _divergence(target, model.run(batch).logits, batch)
        optimiser.zero_grad()
        _only(loss, optimiser)
        optimiser.step()
        losses.append(float(loss.detach()))
    adapter = trainable.frozen(healed=swap.provenance.recipe, steps=steps, texts=len(training))
    assert isinstance(adapter, AdapterEdit)
    return Healed(swap, adapter, tuple(losses), before, _measure(model, measured, swap, adapter))


def _neighbours(model: Model, swap: PartEdit) -> list[str]:
    parents = {path.rpartition(".")[0] for path in swap.modules}
    found = [path for path in linear_modules(model.module) if path.rpartition(".")[0] in parents]
    if not found:
        raise BadInput(f"{swap.modules[0]} has no linear module beside it to adapt")
    return found


def _only(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """Gradients for what is trained and nothing else: the network's own weights keep theirs."""
    own = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for parameter, grad in zip(own, torch.autograd.grad(loss, own, allow_unused=True), strict=True):
        parameter.grad = grad


def _logits(model: Model, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model.run(batch).logits  # type: ignore[no-any-return]


def _divergence(target: Tensor, given: Tensor, batch: Batch) -> Tensor:
    mask = Positions("content").in_prompt(batch).to(given.device)
    wanted, got = target[mask].float().log_softmax(-1), given[mask].float().log_softmax(-1)
    return (wanted.exp() * (wanted - got)).sum(-1).mean()


def _measure(model: Model, batch: Batch, *edits: PartEdit | AdapterEdit | Trainable) -> float:
    target = _logits(model, batch)
    with torch.no_grad(), model.edited(*edits):
        return float(_divergence(target, model.run(batch).logits, batch))
