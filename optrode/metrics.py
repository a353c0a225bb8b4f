"""Metrics: what a sweep measures, as objects. Each turns the logits at the answer into one number for each row.

A metric is a frozen dataclass. `site` says which activation it looks at and `positions` at which tokens; where several
are selected, the mean over them is taken. Tokens are given as texts of exactly one token or as ids; a list gives one
for each example. Raw values are kept by whoever measures, and normalising them is a later step (`Map.normalised`).

>>> import torch
>>> logits = torch.tensor([[[2.0, 0.5, 0.0]]])
>>> LogitDifference(0, 1)(logits, Reference(logits[0])).tolist()
[1.5]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from .errors import BadInput, NotSupported

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# A text of one token, a token id (or the number of a class), or one of these for each example.
Token = str | int | Sequence[str | int]

__all__ = [
    "Custom", "Distance", "KLDivergence", "LogProbability", "Logit", "LogitDifference", "Loss", "Metric",
    "Probability", "Projection", "Reference", "token_id",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reference:
    """What a metric may compare with: the same activation in the base run, [position, ...] float32, and the token that
    follows each of these positions in the prompt, [position] int64 (-1 where none does)."""

    values: Tensor
    following: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Metric:
    """Base of all metrics. `unit` says what the numbers are."""

    unit = ""
    site = "logits"
    positions = "last_prompt"

    @property
    def tokens(self) -> dict[str, Token]:
        """The fields that name tokens."""
        named = ("token", "answer", "against")
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name in named}

    def bound(self, tokenizer: Any, example: int) -> Metric:
        """The same metric with the token ids of one example. Raises `BadInput` where a text is not one token."""
        found = {name: token_id(tokenizer, _of_example(token, example)) for name, token in self.tokens.items()}
        return replace(self, **found) if found else self  # type: ignore[type-var]

    def narrowed(self) -> tuple[list[int], Metric] | None:
        """The ids of the only tokens that it looks at, and the metric of these columns alone; None if it needs all."""
        return None

    def __call__(self, values: Tensor, reference: Reference) -> Tensor:
        """One number for each row: `values` is [row, position, ...] float32, the answer [row]."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Logit(Metric):
    """The logit of one token."""

    token: Token
    positions: str = "last_prompt"
    unit = "logit"

    def narrowed(self) -> tuple[list[int], Metric] | None:
        return ([self.token], replace(self, token=0)) if isinstance(self.token, int) else None

    def __call__(self, values: Tensor, reference: Reference) -> Tensor:
        return _at(values, self.token).mean(-1)


@dataclass(frozen=True, eq=False)
class LogitDifference(Metric):
    """logit(answer) - logit(against): the log-odds of the one token against the other, in nats."""

    answer: Token
    against: Token
    positions: str = "last_prompt"
    unit = "logit difference"

    def narrowed(self) -> tuple[list[int], Metric] | None:
        if not isinstance(self.answer, int) or not isinstance(self.against, int):
            return None
        return [self.answer, self.against], replace(self, answer=0, against=1)

    def __call__(self, values: Tensor, reference: Reference) -> Tensor:
        return (_at(values, self.answer) - _at(values, self.against)).mean(-1)


@dataclass(frozen=True, eq=False)
class LogProbability(Metric):
    """Log-probability of one token, in nats."""

    token: Token
    positions: str = "last_prompt"
    unit = "log-probability (nats)"

    def __call__(self, values: Tensor, reference: Reference) -> Tensor:
        return (_at(values, self.token) - values.logsumexp(-1)).mean(-1)


@dataclass(frozen=True, eq=False)
class Probability(Metric):
    """Probability of one token."""

    token: Token
    positions: str = "last_prompt"
    unit = "probability"

    def __call__(self, values: Tensor, reference: Reference) -> Tensor:
        return (_at(values, self.token) - values.logsumexp(-1)).exp().mean(-1)


@dataclass(frozen=True, eq=False)
class KLDivergence(Metric):
    """KL(base || patched) of the next token, in nats: how far the answer moved, whatever the answer was."""

    positions: str = "last_prompt"
    unit = "KL from base (nats)"

    def __call__(self, values: Tensor, reference: Reference) -> Tensor:
        base = reference.values.log_softmax(-1)
        return (base.exp() * (base - values.log_softmax(-1))).sum(-1).mean(-1)


@dataclass(frozen=True, eq=False)
class Loss(Metric):
    """-log p of the tokens that really follow, in nats, mean over the selected positions that have one."""

    positions: str = "all"
    unit = "loss (nats)"

    def __call__(self, values: Tensor, reference: Reference) -> Tensor:
        following = reference.following
        if following is None or not bool((following >= 0).any()):
            raise BadInput(f"no token follows the positions '{self.positions}', so there is no loss: use others")
        there = (following >= 0).nonzero().flatten()
        logprobs = values[:, there].log_softmax(-1)
        targets = following[there].to(values.device)[None, :, None].expand(len(values), -1, 1)
        return -logprobs.gather(-1, targets)[..., 0].mean(-1)


@dataclass(frozen=True, eq=False)
class Distance(Metric):
    """Euclidean distance from the base run at a site, for networks without a head or without one right answer."""

    site: str = "final"
    positions: str = "last_prompt"
    unit = "distance from base"

    def __call__(self, values: Tensor, reference: Reference) -> Tensor:
        return (values - reference.values).flatten(2).norm(dim=-1).mean(-1)


@dataclass(frozen=True, eq=False)
class Projection(Metric):
    """Dot product with a direction, [feature], at a site: a probe's score, a steering vector's share."""

    direction: torch.Tensor
    site: str = "final"
    positions: str = "last_prompt"
    unit = "dot product"

    def __call__(self, values: Tensor, reference: Reference) -> Tensor:
        return (values @ self.direction.to(values.device, values.dtype)).flatten(1).mean(-1)


@dataclass(frozen=True, eq=False)
class Custom(Metric):
    """Any function of [row, position, ...] that gives [row]."""

    function: Callable[[Tensor], Tensor]
    site: str = "logits"
    positions: str = "last_prompt"
    unit: str = ""

    def __call__(self, values: Tensor, reference: Reference) -> Tensor:
        found = self.function(values)
        shape = tuple(getattr(found, "shape", ()))
        if shape != (len(values),):
            raise BadInput(f"a metric's function must give one number for each of {len(values)} rows, not {shape}")
        return found


def token_id(tokenizer: Any, token: Any) -> int:
    """The id of a token that is given as a text of one token, or as the id itself.

    Raises `BadInput` with the tokens that a longer text consists of.
    """
    if isinstance(token, int):
        return token
    if not isinstance(token, str):
        raise BadInput(f"a token must be a text or an id, not {type(token).__name__}")
    if tokenizer is None:
        raise NotSupported(f"this model has no tokenizer, so {token!r} has no id: give the number of the token")
    ids = tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) == 1:
        return int(ids[0])
    parts = ", ".join(repr(tokenizer.decode([part])) for part in ids)
    first = f", such as its first, {tokenizer.decode(ids[:1])!r}" if ids else ""
    raise BadInput(f"{token!r} is {len(ids)} tokens ({parts}): give a text of one token{first}, or a token id")


def _at(values: Tensor, token: Token) -> Tensor:
    """The column of a token, which `bound` has made an id."""
    if not isinstance(token, int):
        raise BadInput(f"the token {token!r} of this metric has no id yet: call `bound` with a tokenizer first")
    return values[..., token]


def _of_example(token: Token, example: int) -> str | int:
    if isinstance(token, str | int):
        return token
    if example >= len(token):
        raise BadInput(f"{len(token)} tokens were given for the metric, but there are more examples: give one for each")
    return token[example]
