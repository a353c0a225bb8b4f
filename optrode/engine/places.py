"""Which positions of the forward at hand a selection means.

Roles are known from the batch that `read` or `generate` encoded; a forward says only how many tokens went before (the
length of the cache) and how many it brings. Columns up to the width of the batch are prompt, later ones were written.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..batches import Batch, Role
from ..edits.conditions import Condition
from ..errors import BadInput, NotSupported
from ..host import Host
from ..positions import Positions
from .transformers_names import cache_length, cache_of

# The batch that the engine's own read or generate is running, by network.
RUNNING: ContextVar[tuple[Host, Batch] | None] = ContextVar("optrode_running_batch", default=None)


class Forward:
    """One forward of the base network: its batch, the first column it brings, and how many."""

    def __init__(self, batch: Batch | None, rows: int, start: int, count: int):
        self.batch = batch
        self.rows = rows
        self.start = start
        self.count = count
        self._over_keys: dict[int, Forward] = {}
        self._of_rows: dict[tuple[int, ...], Forward] = {}
        self._chosen: dict[tuple[str, torch.device], tuple[Tensor | None, Tensor] | None] = {}

    @property
    def decode(self) -> bool:
        """Whether it brings written tokens only; a prompt may come in parts too."""
        return self.start >= (self.batch.width if self.batch is not None else 1)

    @property
    def prompts(self) -> int:
        """How many prompts there are, of which this forward may bring a part."""
        return self.batch.prompts if self.batch is not None else self.rows

    def numbers(self) -> tuple[int, ...]:
        """The number of each row's prompt."""
        if self.batch is None:
            return tuple(range(self.rows))
        return tuple(number for number in self.batch.row_numbers for _ in range(self._copies(self.batch)))

    def of_rows(self, rows: tuple[int, ...]) -> Forward:
        """The same forward as some of its rows see it."""
        if rows not in self._of_rows:
            batch = self.batch
            if batch is not None:
                copies = self._copies(batch)
                batch = batch.part(tuple(row // copies for row in rows))
            self._of_rows[rows] = Forward(batch, len(rows), self.start, self.count)
        return self._of_rows[rows]

    def of_prompt(self, positions: Positions, device: torch.device) -> Tensor | None:
        """Which tokens of the prompt a selection means, bool [row, token]; None where this forward brings none of it.

        Raises `NotSupported` where it brings only some of the selected tokens, or nobody knows what a token is.
        """
        batch = self.batch
        if batch is None:
            raise NotSupported(
                "a condition needs prompts given through op.read, generate or encode: this forward got bare tensors"
            )
        columns = min(self.start + self.count, batch.width) - self.start
        if columns <= 0:
            return None
        chosen = positions.in_prompt(batch).to(device)
        stop = self.start + columns
        if bool(chosen[:, : self.start].any()) or bool(chosen[:, stop:].any()):
            raise NotSupported(
                f"a condition over '{positions}' cannot be decided from a part of the prompt: let one forward bring "
                "all of it"
            )
        mask = torch.zeros(len(chosen), self.count, dtype=torch.bool, device=device)
        mask[:, :columns] = chosen[:, self.start : stop]
        return mask.repeat_interleave(self._copies(batch), 0)

    def _copies(self, batch: Batch) -> int:
        if self.rows % len(batch):
            raise NotSupported(
                f"this forward has {self.rows} rows for a batch of {len(batch)} prompts: no whole multiple"
            )
        return self.rows // len(batch)

    def over_keys(self, keys: int) -> Forward:
        """The same forward as attention sees it from the side of the keys: with the last columns of the cache too."""
        if self.batch is None:
            return Forward(None, self.rows, 0, keys)
        seen = self.start + self.count
        if keys > seen:
            raise NotSupported("keys of a cache of fixed length have no roles: let the network use a dynamic cache")
        if keys not in self._over_keys:
            self._over_keys[keys] = Forward(self.batch, self.rows, seen - keys, keys)
        return self._over_keys[keys]

    def select(self, positions: Positions, device: torch.device) -> tuple[Tensor | None, Tensor] | None:
        """Mask [row, token] (None for all) and running numbers [row, token], or None where nothing is selected."""
        key = (positions.text, device)
        if key not in self._chosen:
            self._chosen[key] = self._select(positions, device)
        return self._chosen[key]

    def _select(self, positions: Positions, device: torch.device) -> tuple[Tensor | None, Tensor] | None:
        batch = self.batch
        if batch is None:
            if positions.text != "all":
                raise NotSupported(
                    f"positions '{positions}' need prompts given through op.read, generate or encode; "
                    "this forward got bare tensors, where only 'all' has a meaning"
                )
            return None, torch.arange(self.count, device=device).expand(self.rows, -1)
        stop = self.start + self.count
        prompt_columns = max(0, min(stop, batch.width) - self.start)
        written = self.count - prompt_columns
        step = max(0, self.start - batch.width)
        # A decode step is all or nothing for every row: no tensor has to be built.
        if not prompt_columns:
            flags = positions.in_generated(step, written)
            if not any(flags):
                return None
            mask = None if all(flags) else torch.tensor(flags, device=device).expand(self.rows, -1)
            return mask, self._written_index(positions, batch, step, written, device)
        return self._select_prompt(positions, batch, prompt_columns, written, step, device)

    def _select_prompt(
        self, positions: Positions, batch: Batch, columns: int, written: int, step: int, device: torch.device
    ) -> tuple[Tensor | None, Tensor] | None:
        copies = self._copies(batch)
        chosen = positions.in_prompt(batch).to(device)
        index = (chosen.long().cumsum(-1) - 1).clamp(min=0)
        part = slice(self.start, self.start + columns)
        mask, index = chosen[:, part], index[:, part]
        if written:
            flags = torch.tensor(positions.in_generated(step, written), device=device).expand(len(mask), -1)
            mask = torch.cat([mask, flags], -1)
        if copies > 1:
            mask, index = mask.repeat_interleave(copies, 0), index.repeat_interleave(copies, 0)
        if written:
            index = torch.cat([index, self._written_index(positions, batch, step, written, device)], -1)
        if not bool(mask.any()):
            return None
        return (None if bool(mask.all()) else mask), index

    def _written_index(
        self, positions: Positions, batch: Batch, step: int, written: int, device: torch.device
    ) -> Tensor:
        """Running numbers of written tokens; they go on from those of the row's prompt."""
        before = positions.in_prompt(batch).to(device).sum(-1, keepdim=True) + positions.written_before(step)
        copies = max(1, self.rows // len(batch))
        return before.repeat_interleave(copies, 0) + torch.arange(written, device=device)


class Memories:
    """What has to be remembered of prompts while they are answered: by batch, for as long as there is the batch."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[weakref.ref[Batch], dict[object, dict[Any, Any]]]] = {}

    def of(self, batch: Batch, owner: object) -> dict[Any, Any]:
        """What `owner` remembers of a batch; empty at first."""
        held = self._of.get(id(batch))
        if held is None or held[0]() is not batch:
            for key in [key for key, (known, _) in list(self._of.items()) if known() is None]:
                self._of.pop(key, None)
            held = self._of[id(batch)] = (weakref.ref(batch), {})
        return held[1].setdefault(owner, {})


class Places:
    """What an edit or a tap may ask about the activation at hand."""

    def __init__(self, forward: Forward, tensor: Tensor, by_token: bool, memories: Memories | None = None):
        self._forward = forward
        self._memories = memories if memories is not None else Memories()
        self._tensor = tensor
        self._by_token = by_token
        self._rows: tuple[int, ...] | None = None
        self.offered: dict[str, tuple[Tensor | None, int]] = {}
        # What edits by row selected for their rows, by edit: masks [example, token, ...].
        self.by_row: dict[object, Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}
        # At sites of experts: those that each token chose, [example, token, rank], and how often edits met theirs.
        self.chosen: Tensor | None = None
        self.routed_pairs: dict[tuple[tuple[int, ...], str], Tensor] = {}
        # What conditions decided here: numbers of prompts, values and answers; and which rows an edit then acts on.
        self.decided: list[tuple[Condition, tuple[int, ...], Tensor, Tensor]] = []
        self.acts: list[tuple[object, tuple[int, ...], Tensor]] = []

    def select(self, positions: Positions) -> tuple[Tensor | None, Tensor] | None:
        device = self._tensor.device
        chosen = self._forward.select(positions, device) if self._by_token else self._whole(positions)
        if chosen is not None:
            if self._by_token:
                chosen = self._of_last_columns(*chosen)
            self.offered[positions.text] = (chosen[0], chosen[1].numel())
            self._shapes[positions.text] = chosen[1].shape
        return chosen

    @property
    def numbers(self) -> tuple[int, ...]:
        return self._forward.numbers()

    @property
    def prompts(self) -> int:
        return self._forward.prompts

    def of_rows(self, rows: tuple[int, ...]) -> Places:
        """What an edit of these rows alone may ask; `adopt` counts in what it selected."""
        if rows == tuple(range(len(self._tensor))):
            part = Places(self._forward, self._tensor, self._by_token, self._memories)
        else:
            part = Places(self._forward.of_rows(rows), self._tensor[: len(rows)], self._by_token, self._memories)
            part._rows = rows
        if self.chosen is not None:
            part.chosen = self.chosen[list(rows)]
        return part

    def adopt(self, part: Places, owner: object) -> None:
        for text, (mask, _) in part.offered.items():
            shape = part._shapes[text]
            mask = torch.ones(shape, dtype=torch.bool, device=self._tensor.device) if mask is None else mask
            whole = mask
            if part._rows is not None:
                whole = mask.new_zeros(len(self._tensor), *shape[1:])
                whole[list(part._rows)] = mask
            own = self.by_row.get(owner)
            self.by_row[owner] = whole if own is None else own | whole
            if text not in self.offered:
                self.offered[text] = (whole, whole.numel())
            elif self.offered[text][0] is not None:
                self.offered[text] = (self.offered[text][0] | whole, whole.numel())  # type: ignore[operator]
            self._shapes[text] = whole.shape
        self.decided += part.decided
        self.acts += part.acts
        for key, count in part.routed_pairs.items():
            self.routed_pairs[key] = self.routed_pairs.get(key, 0) + count  # type: ignore[assignment]

    # Conditions, which are decided when the prompts come ------------------------------------------------------------

    @property
    def forward(self) -> Forward:
        return self._forward

    def of_prompt(self, positions: Positions) -> Tensor | None:
        if not self._by_token:
            raise NotSupported("a condition is a mean over tokens: read it at a site with a token axis")
        return self._forward.of_prompt(positions, self._tensor.device)

    def memory(self, owner: object) -> dict[Any, Any]:
        batch = self._forward.batch
        if batch is None:
            raise NotSupported(
                "an edit on a condition needs prompts given through op.read, generate or encode: this forward got bare "
                "tensors"
            )
        return self._memories.of(batch, owner)

    def decide(self, condition: Condition, values: Tensor, met: Tensor) -> None:
        self.decided.append((condition, self.numbers, values, met))

    def act(self, edit: object, acts: Tensor) -> None:
        self.acts.append((edit, self.numbers, acts))

    def keys(self, positions: Positions) -> Tensor:
        """Which keys, the last axis of the activation at hand, a selection means: bool [example, key]."""
        count = self._tensor.shape[-1]
        chosen = self._forward.over_keys(count).select(positions, self._tensor.device)
        shape = (self._tensor.shape[0], count)
        if chosen is None or chosen[0] is None:
            return torch.full(shape, chosen is not None, device=self._tensor.device)
        return chosen[0]

    def routed(self, experts: tuple[int, ...], positions: Positions) -> Tensor | None:
        """Which pairs of a token and a chosen expert are those of `experts`: bool [example, token, rank]."""
        if self.chosen is None:
            return None
        pairs = torch.isin(self.chosen, torch.tensor(experts, device=self.chosen.device))
        mask = self.offered[positions.text][0]
        self.routed_pairs[experts, positions.text] = (pairs if mask is None else pairs & mask[..., None]).sum()
        return pairs

    def _of_last_columns(self, mask: Tensor | None, index: Tensor) -> tuple[Tensor | None, Tensor]:
        """Heads are often given the last columns only, the ones whose logits are needed."""
        count = self._tensor.shape[1]
        if count >= index.shape[1]:
            return mask, index
        return None if mask is None else mask[:, -count:], index[:, -count:]

    def _whole(self, positions: Positions) -> tuple[None, Tensor]:
        """Activations without a token axis (pixels, patches, pooled vectors) are taken whole."""
        if positions.text != "all":
            raise NotSupported(f"positions '{positions}' have no meaning at a site without a token axis: use 'all'")
        shape = self._tensor.shape[: max(1, self._tensor.dim() - 1)]
        return None, torch.zeros(shape, dtype=torch.long, device=self._tensor.device)


def forward_from_call(host: Host, args: tuple, kwargs: dict, batch: Batch | None = None) -> Forward:
    """What a call of the base network's forward brings, read from its arguments.

    `batch` is what it was encoded from; by default the batch that the engine is running on this network, if it is.
    """
    main = _main_input(args, kwargs)
    rows = main.shape[0] if main is not None and main.dim() else 1
    by_token = host.tokenizer is not None or "input_ids" in host.accepts
    if main is None or not by_token or main.dim() < 2:
        return Forward(None, rows, 0, 1)
    count = main.shape[1]
    start = cache_length(cache_of(args, kwargs))
    batch = batch or running_batch(host) or _implied_batch(host, main, kwargs, start)
    return Forward(batch, rows, start, count)


def running_batch(host: Host) -> Batch | None:
    """The batch that the engine's own read or generate is running on this network."""
    running = RUNNING.get()
    return running[1] if running is not None and running[0].module is host.module else None


def _main_input(args: tuple, kwargs: dict) -> Tensor | None:
    for name in ("input_ids", "inputs_embeds", "pixel_values"):
        if isinstance(kwargs.get(name), Tensor):
            return kwargs[name]
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


# Entries of a config that hold the token that stands for a patch of a picture.
IMAGE_TOKEN = ("image_token_id", "image_token_index")


def batch_of(host: Host, tensors: dict[str, Any]) -> Batch:
    """A batch of tensors that were encoded elsewhere, as by a processor of texts and pictures.

    Tokens are plain text, or of a picture, or padding as `attention_mask` says; other tensors go along, one entry for
    each example. Raises `BadInput` without `input_ids` of [example, token].
    """
    ids = tensors.get("input_ids")
    batch = _implied_batch(host, ids, tensors, 0) if isinstance(ids, Tensor) else None
    if batch is None:
        raise BadInput("positions need prompts, a Batch, or a dictionary with input_ids of [example, token]")
    extra = {name: value for name, value in tensors.items() if name not in ("input_ids", "attention_mask")}
    return replace(batch, extra=extra)


def _implied_batch(host: Host, main: Tensor, kwargs: dict[str, Any], start: int) -> Batch | None:
    """The batch of a forward that the user called directly: all tokens are plain text, pads as the mask says.

    Only for a first forward: later ones with a cache would need what this one knew.
    """
    if start or main.dim() != 2 or main.is_floating_point():
        return None
    mask = kwargs.get("attention_mask")
    known = mask.bool() if isinstance(mask, Tensor) and mask.shape == main.shape else torch.ones_like(main).bool()
    special_ids = getattr(host.tokenizer, "all_special_ids", [])
    special = torch.isin(main, torch.tensor(special_ids, device=main.device, dtype=main.dtype)) & known
    roles = torch.where(known, int(Role.TEXT), int(Role.PAD)).to(torch.int8)
    # Where a picture's patches stand among the tokens, if this network sees.
    image = next((host.entry(name) for name in IMAGE_TOKEN if host.entry(name) is not None), None)
    if image is not None:
        roles[known & (main == image)] = int(Role.IMAGE)
    ends = torch.full((len(main),), main.shape[1], device=main.device)
    offsets = torch.zeros((*main.shape, 2), dtype=torch.long, device=main.device)
    return Batch(main, known, roles, special, ends, ("",) * len(main), offsets)
