"""LoRA fine-tuning on the same pairs (LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..edits import lora
from ..edits.adapter import linear_modules
from ..edits.base import Edit
from ..model import Model
from ..parts.learning import learn_replies
from ..parts.pairs import as_pairs, conversation
from .protocol import SteeringMethod


@dataclass(frozen=True)
class LoRA(SteeringMethod):
    """A low-rank change to the weights, trained until the model gives the wanted replies of the pairs.

    The baseline that costs a training run; the opposing replies are not used. There is no layer and no strength to
    choose, though the edit scales like any other.

    targets: names of linear modules; empty takes all but the output head, as is usual today.
    alpha: the change is alpha / rank times up @ down.
    """

    id: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA fine-tuning"
    paper: ClassVar[str] = "2106.09685"
    role: ClassVar[str] = "baseline"

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()
    epochs: int = 2
    learning_rate: float = 5e-4
    rows: int = 8
    against: bool = False
    seed: int = 0

    def facing(self, sign: int) -> LoRA:
        return replace(self, against=sign < 0)

    def fit(self, model: Model, data: Any) -> Edit:
        """Pairs or a `Behaviour`. Raises `BadInput`, `UnknownSite` for targets that match nothing, `NotFinite`."""
        pairs = as_pairs(data)
        talks = [conversation(pair.prompt, pair.negative if self.against else pair.positive) for pair in pairs]
        edit = lora(model, self.rank, self.targets or _inner_linears(model), alpha=self.alpha, seed=self.seed)
        return learn_replies(
            model, edit, talks, epochs=self.epochs, learning_rate=self.learning_rate, rows=self.rows, seed=self.seed,
            recipe=self.recipe(),
        )  # fmt: skip


def _inner_linears(model: Model) -> list[str]:
    """Paths of all linear modules but the output head."""
    network: Any = model.module
    head = network.get_output_embeddings() if hasattr(network, "get_output_embeddings") else None
    return [path for path in linear_modules(model.module) if model.module.get_submodule(path) is not head]
