"""Activation Addition (Steering Language Models Without Optimization, arXiv 2308.10248)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..batches import Batch, Role
from ..data import Behaviour
from ..edits import SiteEdit, add_by_position
from ..edits.base import Edit, Sum
from ..errors import BadInput
from ..model import Model
from ..parts.provenance import provenance_of
from ..parts.strength import in_stream_units
from ..stats import stream_norms
from .protocol import SteeringMethod


@dataclass(frozen=True)
class ActAdd(SteeringMethod):
    """Difference of two short prompts' activations, position by position, added to the first tokens of the prompt.

    V = H(p+) - H(p-), block inputs, [position, width]; x[0:T] += c V (algorithm 1). The shorter prompt is padded on the
    right with spaces. With KV caching nothing is added in decode steps: the edit lives in the prompt's keys and values.

    site: a block INPUT, as in the paper; the same stream is the output of the block before.
    prompts: p+ and p-; None takes the behaviour's contrast words. An empty p- means spaces only.

    With a chat model both prompts stand in the user's turn and V is added from the first token of the user's own text
    on, so that no row meets a template token. Otherwise a start token is put in front and its row, which is zero since
    both prompts begin alike, is left out.
    """

    id: ClassVar[str] = "actadd"
    title: ClassVar[str] = "ActAdd"
    paper: ClassVar[str] = "2308.10248"
    layer_site: ClassVar[str] = "layers.{layer}.in"
    # The paper's coefficients of 3 to 15 make V several times as long as the stream, at a handful of tokens only.
    strength_scale: ClassVar[float] = 10.0

    site: str = "layers.6.in"
    prompts: tuple[str, str] | None = None

    def fit(self, model: Model, data: Any = None) -> Edit:
        """`data`: a `Behaviour`, two prompts, or None when `prompts` is set. Strength is the paper's c.

        Raises `UnknownSite`, `BadInput`. Cost: one forward of two short rows.
        """
        sites = [found.address for found in model.match(self.site)]
        edits = tuple(edit for edit, _ in self._fit_sites(model, data, sites).values())
        return edits[0] if len(edits) == 1 else Sum(edits)

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        sites = {layer: self.layer_site.format(layer=layer) for layer in layers}
        found = self._fit_sites(model, behaviour, list(sites.values()))
        return {layer: in_stream_units(*found[site]) for layer, site in sites.items()}

    def _fit_sites(self, model: Model, data: Any, sites: list[str]) -> dict[str, tuple[SiteEdit, float]]:
        positive, negative = self._words(data)
        batch, count = _aligned(model, positive, negative)
        acts = model.read(batch, sites)
        role = "user" if model.is_chat else "text"
        found = {}
        for site in sites:
            h = acts[site].float()
            _assert_same_start(h[:, :-count], site)
            norm = stream_norms(h, batch.roles != int(Role.TEMPLATE))["median"]
            edit = add_by_position(site, h[0, -count:] - h[1, -count:], f"first:{count}@{role}")
            found[site] = (self._signed(model, edit, (positive, negative), norm), norm)
        return found

    def _words(self, data: Any) -> tuple[str, str]:
        words = self.prompts or (data.words if isinstance(data, Behaviour) else data)
        if not isinstance(words, Sequence) or isinstance(words, str) or len(words) != 2 or not words[0]:
            raise BadInput(
                "ActAdd needs two prompts: ActAdd(prompts=('Love', 'Hate')), or a behaviour with contrast words"
            )
        return str(words[0]), str(words[1])

    def _signed(self, model: Model, edit: SiteEdit, words: tuple[str, str], norm: float) -> SiteEdit:
        recipe = {**self.recipe(), "prompts": list(words), "padding": "space"}
        return replace(edit, provenance=provenance_of(model, edit.site, recipe, norm))


def _aligned(model: Model, positive: str, negative: str) -> tuple[Batch, int]:
    """Both prompts behind the same beginning, padded with spaces to equal length, and that length in tokens."""
    front, sides = _front(model), []
    for text in (positive, negative):
        sides.append(model.tokenizer(text, add_special_tokens=False)["input_ids"] if text else [])
    count = max(map(len, sides))
    space = model.tokenizer(" ", add_special_tokens=False)["input_ids"][:1]
    ids = torch.tensor([front + side + space * (count - len(side)) for side in sides])
    role = Role.USER if model.is_chat else Role.TEXT
    roles = torch.tensor([[int(Role.TEMPLATE)] * len(front) + [int(role)] * count] * 2, dtype=torch.int8)
    special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids))
    width = torch.full((2,), ids.shape[1])
    offsets = torch.zeros((*ids.shape, 2), dtype=torch.long)
    return Batch(ids, torch.ones_like(ids).bool(), roles, special, width, (positive, negative), offsets), count


def _front(model: Model) -> list[int]:
    """The tokens before the user's own text: the template's, or a start token."""
    if model.is_chat:
        batch = model.encode("x")
        first = int((batch.roles[0] == int(Role.USER)).int().argmax())
        return batch.ids[0, :first].tolist()
    start = model.tokenizer.bos_token_id
    if start is None:
        start = model.tokenizer.eos_token_id
    if start is None:
        raise BadInput(f"{model.name} has neither a start nor an end token to put in front of the prompts")
    return [start]


def _assert_same_start(front: Tensor, site: str) -> None:
    """Rows before the prompts must agree, or the massive activation of the first token would swamp the vector."""
    gap = float((front[0] - front[1]).abs().max())
    if gap > 1e-4 * float(front.abs().max()):
        raise BadInput(f"the common beginning of both prompts differs by {gap:.3g} at {site}: is the model causal?")
