"""Positions inside a graph: what a network can tell of its tokens from the arguments of its own forward.

A network gets ids, an attention mask and a cache. It is never told what a token was written for, so that roles such as
`user` cannot be known here, nor how long the prompt was once it is in the cache. What can be known:

| positions | how |
|---|---|
| `all` | nothing has to be known |
| `generated`, `prompt` | one token at a time, with a cache that is not empty, was written; anything else was given |
| `last_prompt`, `first:N`, `index:...` | counted in the attention mask of the forward that brings the prompt |
| `after_instruction` | what the chat template puts before an answer, found by its token ids; what is written |
"""

from __future__ import annotations

import re
import threading
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ...errors import NotSupported
from ...host import Host
from ...positions import Positions
from ..transformers_names import CACHE_ARGUMENTS
from .operations import Chosen, Selected

KNOWN = ("all", "prompt", "generated", "last_prompt", "after_instruction", "first:N", "index:I,J")
Kept = TypeVar("Kept")


class Carried(Generic[Kept]):
    """What one module leaves for another one further on in the same forward, by thread.

    While a graph is made it is no more than an edge of the graph.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Kept] = {}

    def put(self, value: Kept) -> None:
        self._kept[_thread()] = value

    def get(self) -> Kept:
        thread = _thread()
        if thread not in self._kept:
            raise NotSupported(
                "this part of a baked network knows its positions from the forward of the whole: run or compile the "
                "whole network, or bake the edit at positions 'all'"
            )
        return self._kept[thread]

    def drop(self) -> None:
        self._kept.pop(_thread(), None)


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


def refuse_positions(positions: Positions, *, numbered: bool = False) -> None:
    """Raise `NotSupported` where a network cannot know by itself what `positions` select.

    `numbered`: whether the running number of each selected position is needed too.
    """
    text = positions.text
    plain = text in KNOWN or bool(re.fullmatch(r"first:[0-9]+|index:[-0-9,]+", text))
    if plain and not (numbered and text in ("generated", "after_instruction")):
        return
    why = "does not keep count from the prompt on" if plain else "does not know what each token was written for"
    others = ", ".join(name for name in KNOWN if not (numbered and name in ("generated", "after_instruction")))
    raise NotSupported(
        f"positions '{text}' cannot be decided inside a network, which {why}: bake the edit at one of {others}, "
        "or use the live edit (model.edited)"
    )


def header_of(host: Host) -> list[int]:
    """The token ids that the chat template puts between the last user turn and the answer.

    Raises `NotSupported` where the tokens are not the same after every text.
    """
    if not host.is_chat:
        return []
    batch = host_encode(host, ["a", "Where is it?"])
    rows = [batch.ids[row, int(end) :].tolist() for row, end in enumerate(batch.instruction_end)]
    if not rows[0] or rows[0] != rows[1]:
        raise NotSupported(
            "positions 'after_instruction' cannot be found by tokens in this chat template: bake the edit at "
            "'generated' or 'all', or use the live edit (model.edited)"
        )
    return rows[0]


def host_encode(host: Host, prompts: list[str]) -> Any:
    from ...encoding import encode

    return encode(host, prompts)


class Roles(nn.Module):
    """Says at the entry of the network which positions each selection means, for the edits inside it."""

    def __init__(
        self, texts: set[str], numbered: set[str], keys: set[str], names: list[str], header: list[int],
        carried: Carried[Selected],
    ):  # fmt: skip
        super().__init__()
        self.texts, self.looked_at = sorted(texts), sorted(keys)
        # Selections of which the running numbers are needed too.
        self._numbered = numbered
        self._names = names
        self._carried = carried
        self.register_buffer("header", torch.tensor(header, dtype=torch.long), persistent=False)

    header: Tensor

    def begin(self, args: tuple, kwargs: dict[str, Any]) -> None:
        main = self._argument(args, kwargs, "input_ids", "inputs_embeds")
        if main is None:
            raise NotSupported("a baked edit at some positions needs input_ids or inputs_embeds: bake it at 'all'")
        cache = self._argument(args, kwargs, *CACHE_ARGUMENTS)
        before = cache.get_seq_length() if cache is not None else 0
        mask = self._argument(args, kwargs, "attention_mask")
        seen = _Seen(main, mask, before)
        ids = self._argument(args, kwargs, "input_ids")
        selected = {text: self._with_index(text, self._select(text, seen, ids), seen) for text in self.texts}
        for text in self.looked_at:
            selected[f"keys {text}"] = (seen.first_of_all(_number(text)), None)
        self._carried.put(selected)

    def end(self) -> None:
        self._carried.drop()

    def _argument(self, args: tuple, kwargs: dict[str, Any], *names: str) -> Any:
        for name in names:
            place = self._names.index(name) if name in self._names else len(args)
            value = args[place] if place < len(args) else kwargs.get(name)
            if value is not None:
                return value
        return None

    def _with_index(self, text: str, mask: Tensor | bool, seen: _Seen) -> Chosen | None:
        """The selection, with running numbers where they are needed."""
        if isinstance(mask, bool):
            return (None, seen.index() if text in self._numbered else None) if mask else None
        return mask, (mask.long().cumsum(-1) - 1).clamp(min=0) if text in self._numbered else None

    def _select(self, text: str, seen: _Seen, ids: Tensor | None) -> Tensor | bool:
        """Which tokens are selected, [example, token]; True for all of them, False for none."""
        written = seen.written()
        if text == "all":
            return True
        if text == "generated":
            return written
        if text == "prompt":
            return not written if isinstance(written, bool) else ~written
        if written is True:
            return text == "after_instruction"
        given = self._after_header(seen, ids) if text == "after_instruction" else seen.in_prompt(text)
        if written is False:
            return given
        return given | written if text == "after_instruction" else given & ~written

    def _after_header(self, seen: _Seen, ids: Tensor | None) -> Tensor:
        """From the last place on where the header stands; nothing in rows without one."""
        if ids is None:
            raise NotSupported("positions 'after_instruction' are found by token ids: give input_ids, no embeddings")
        count, length = ids.shape[1], self.header.shape[0]
        columns = torch.arange(count, device=ids.device)
        if not length or count < length:
            return torch.zeros_like(ids, dtype=torch.bool)
        fits = torch.ones_like(ids[:, : count - length + 1], dtype=torch.bool)
        for place in range(length):
            fits = fits & (ids[:, place : count - length + 1 + place] == self.header[place])
        last = torch.where(fits, columns[: count - length + 1], -1).amax(-1, keepdim=True)
        return (columns >= last) & (last >= 0) & seen.real()

    def extra_repr(self) -> str:
        return ", ".join([*self.texts, *(f"keys {text}" for text in self.looked_at)])


class _Seen:
    """The tokens that a forward brings, and what its attention mask says of all columns up to them."""

    def __init__(self, main: Tensor, mask: Any, before: int | Tensor):
        self.rows, self.count = main.shape[:2]
        self.device = main.device
        self.before = before
        self.mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        self.opaque = mask is not None and self.mask is None

    def written(self) -> bool | Tensor:
        """Whether these tokens were written; as a tensor [example, 1] where the cache knows it only so."""
        if self.count != 1:
            return False
        if isinstance(self.before, Tensor):
            return (self.before > 0).reshape(1, 1).expand(self.rows, 1)
        # While a graph is made, a length may be open: only a branch settles the answer.
        if self.before > 0:  # noqa: SIM103
            return True
        return False

    def real(self) -> Tensor:
        """Which of the tokens are no padding."""
        return self._all()[:, -self.count :]

    def _all(self) -> Tensor:
        """Which columns are no padding, those before these tokens too: bool [example, column]."""
        if self.opaque:
            raise NotSupported(
                "with a cache of fixed length the attention mask no longer says which columns are padding: bake the "
                "edit at 'all' or 'generated', or let the network use a dynamic cache"
            )
        if self.mask is not None:
            return self.mask.bool()
        if isinstance(self.before, Tensor):
            return torch.ones(self.rows, self.count, dtype=torch.bool, device=self.device)
        return torch.ones(self.rows, self.before + self.count, dtype=torch.bool, device=self.device)

    def index(self) -> Tensor:
        """Running numbers of the tokens among all real ones of their row, [example, token]."""
        return (self._all().long().cumsum(-1) - 1).clamp(min=0)[:, -self.count :]

    def in_prompt(self, text: str) -> Tensor:
        real = self._all()
        columns = torch.arange(real.shape[1], device=real.device)
        ordinal = real.long().cumsum(-1) - 1
        if text == "last_prompt":
            chosen = columns == (columns * real).amax(-1, keepdim=True)
        elif text.startswith("first:"):
            chosen = ordinal < _number(text)
        else:
            length = real.long().sum(-1, keepdim=True)
            chosen = torch.zeros_like(real)
            for place in map(int, text.removeprefix("index:").split(",")):
                chosen = chosen | (ordinal == (place if place >= 0 else length + place))
        return (chosen & real)[:, -self.count :]

    def first_of_all(self, number: int) -> Tensor:
        """The first `number` real columns of each row, of all that can be looked at."""
        real = self._all()
        return real & (real.long().cumsum(-1) <= number)


def _number(text: str) -> int:
    return int(text.removeprefix("first:"))
