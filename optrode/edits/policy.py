"""Policy edits: they own the loop in which text is written, and may take tokens back or follow several branches.

A policy is a dataclass with a `step`: it is shown a state (see `State`), may crop, fork or keep branches, and answers
with the next token of each branch. The engine runs the network, keeps the cache in step, and knows when to stop.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..errors import BadInput
from .base import Edit, Provenance, SiteEditBase


class State(Protocol):
    """One prompt while its completion is written. Branches are copies of it that may be continued differently."""

    @property
    def ids(self) -> Tensor:
        """Prompt and written tokens, int64 [branch, column]."""

    @property
    def written(self) -> Tensor:
        """The written tokens, int64 [branch, token]."""

    @property
    def logits(self) -> Tensor:
        """The network's scores for the next token, float32 [branch, vocabulary], before temperature and penalties."""

    @property
    def activations(self) -> dict[str, Tensor]:
        """What the policy's sites hold at the newest token, [branch, ...] by address."""

    @property
    def memory(self) -> dict[str, Any]:
        """Whatever the policy wants to remember while it writes this completion."""

    def choose(self, banned: Tensor | None = None) -> Tensor:
        """The next token of each branch as `generate` would choose it, [branch]; never one of `banned` ([token])."""

    def crop(self, tokens: int) -> None:
        """Take the last `tokens` written tokens back, on every branch. Costs a forward of one token."""

    def fork(self, copies: int) -> None:
        """Make `copies` branches of each."""

    def keep(self, branches: Tensor | list[int]) -> None:
        """Go on with these branches alone, in this order."""

    def apply(self, edit: Edit) -> None:
        """Enter an edit, which stays active until this completion is written."""

    def note(self, text: str) -> None:
        """Add a line to the receipt."""


@dataclass(frozen=True, eq=False)
class PolicyEdit(Edit):
    """Base of policy edits: a frozen dataclass of settings. Derive from it and write `step`; see `State`.

    Policies act in `generate` and `stream`, one prompt at a time. They are refused in reads, which have no loop, with
    beams, and where another policy is active; site, prefix and adapter edits go together with them.
    """

    kind: ClassVar[str] = "policy"

    @property
    def sites(self) -> tuple[str, ...]:
        """Addresses (or patterns) of what `step` wants to see of the newest token."""
        return ()

    def step(self, state: State) -> Tensor:
        """The next token of each branch, int64 [branch]. Called when the network has seen all tokens so far."""
        raise NotImplementedError

    def best(self, state: State) -> int:
        """The branch whose tokens are the completion, when all have come to their end."""
        return 0


@dataclass(frozen=True, eq=False)
class Backtrack(PolicyEdit):
    """Take the last tokens back when a linear score of the newest one fires, and write them again.

    The score is `weight . h + bias` at `site`; it fires above `threshold`. `tokens` is how many written tokens are
    taken back, `tries` how often in one completion. With an `edit`, that becomes active the first time: the tokens are
    written again under it, and so is what follows. Without one, the first token taken back is not chosen there again.

    Watching and steering in one loop is the idea of FASB (arXiv 2508.17621), with a strength of its own there.
    """

    site: str
    weight: Tensor
    bias: float = 0.0
    threshold: float = 0.0
    tokens: int = 4
    tries: int = 1
    edit: SiteEditBase | None = None
    provenance: Provenance = field(default_factory=Provenance)
    name: ClassVar[str] = "backtrack"

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.tries < 1:
            raise BadInput(f"tokens is {self.tokens} and tries {self.tries}: both must be at least 1")
        if self.weight.dim() != 1:
            raise BadInput(f"the weight of the score has shape {tuple(self.weight.shape)}: it must be [width]")

    @property
    def sites(self) -> tuple[str, ...]:
        return (self.site,)

    def with_provenance(self, provenance: Provenance) -> Backtrack:
        return replace(self, provenance=provenance)

    def fires(self, state: State) -> bool:
        """Whether the score of the newest token is above the threshold."""
        (h,) = state.activations.values()
        wide = h.to(torch.promote_types(h.dtype, torch.float32))
        return bool((wide @ self.weight.to(wide.device, wide.dtype) + self.bias > self.threshold).any())

    def step(self, state: State) -> Tensor:
        memory, count = state.memory, state.written.shape[1]
        done = memory.setdefault("tries", 0)
        if count and done < self.tries and self.fires(state):
            memory["tries"] = done + 1
            back = min(self.tokens, count)
            first = count - back
            banned = memory.setdefault("banned", {}).setdefault(first, [])
            if self.edit is None:
                banned.append(int(state.written[0, first]))
            elif not done:
                state.apply(self.edit)
            state.crop(back)
            state.note(f"the score fired: {back} tokens taken back at written token {first}")
            count = first
        banned = memory.get("banned", {}).get(count)
        return state.choose(torch.tensor(banned, device=state.ids.device) if banned else None)


def backtrack(
    site: str,
    weight: Any,
    bias: float = 0.0,
    *,
    threshold: float = 0.0,
    tokens: int = 4,
    tries: int = 1,
    edit: SiteEditBase | None = None,
) -> Backtrack:
    """When `weight . h + bias` at `site` is above `threshold`, take the last `tokens` back and write them again.

    `weight` [width]; a fitted probe gives all three: `backtrack(probe.site, probe.weight, probe.bias)`. See
    `Backtrack`. Raises `BadInput`.
    """
    vector = weight.detach() if isinstance(weight, Tensor) else torch.as_tensor(weight, dtype=torch.float32)
    return Backtrack(site, vector, float(bias), float(threshold), int(tokens), int(tries), edit)


# Policies that a file may name: their settings are numbers and tensors, and no code is needed to have them back.
SAVEABLE_POLICIES: dict[str, type[Backtrack]] = {Backtrack.name: Backtrack}
