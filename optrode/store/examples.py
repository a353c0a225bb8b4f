"""From documents to examples: what one row of a forward is, and which of its places are kept.

A document longer than the context becomes several examples. Each piece of a text gets the start and end tokens that the
tokenizer puts around a text; a conversation is cut as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor

from ..batches import Batch, Role
from ..encoding import encode
from ..errors import BadInput, NotSupported
from ..host import Host
from ..positions import Positions
from .documents import Document, Documents, Picture

# Documents that are tokenised together.
_TOGETHER = 64


@dataclass(frozen=True)
class Cursor:
    """Where the next example begins: a document and a piece of it."""

    document: int = 0
    piece: int = 0


@dataclass(frozen=True, eq=False)
class Example:
    """One row of a forward. `keep` marks the places whose activations are kept, bool [place].

    For text, places are tokens, and `ids`, `roles`, `special`, `offsets` are those of a `Batch` without padding;
    `instruction_end` is the place after the last user turn. A picture has no tokens; its places are known by a trial.
    """

    document: int
    piece: int
    last: bool
    source: str
    text: str
    keep: Tensor
    ids: Tensor | None = None
    roles: Tensor | None = None
    special: Tensor | None = None
    offsets: Tensor | None = None
    instruction_end: int = 0
    picture: Picture | None = None

    @property
    def length(self) -> int:
        return len(self.keep)

    @property
    def rows(self) -> int:
        return int(self.keep.sum())

    @property
    def whole(self) -> bool:
        """Whether it is all of its document."""
        return self.piece == 0 and self.last

    @property
    def next(self) -> Cursor:
        return Cursor(self.document + 1) if self.last else Cursor(self.document, self.piece + 1)

    def cut(self, rows: int) -> Example:
        """The example with its first `rows` kept places only."""
        return replace(self, keep=self.keep & (self.keep.cumsum(0) <= rows))


@dataclass(frozen=True)
class TextSettings:
    """How texts become examples; part of a store's recipe."""

    context: int
    template: str | None
    system: str | None
    positions: Positions | None


class TextExamples:
    """Examples of documents of text, from any cursor on."""

    def __init__(self, host: Host, documents: Documents, settings: TextSettings):
        self.host, self.documents, self.settings = host, documents, settings

    def starting(self, cursor: Cursor) -> Iterator[Example]:
        """The examples from `cursor` on; those without any kept token are left out."""
        documents = self.documents.starting(cursor.document)
        while together := list(islice(documents, _TOGETHER)):
            for _, alike in groupby(together, key=lambda document: self._template(document)):
                for example in self._of(list(alike)):
                    skipped = example.document == cursor.document and example.piece < cursor.piece
                    if not skipped and example.rows:
                        yield example

    def _template(self, document: Document) -> str:
        """`raw` for texts unless a template was asked for, `chat` for conversations, `ids` for token ids."""
        content = document.content
        if isinstance(content, Picture):
            raise NotSupported(f"{self.host.name} reads text, and the data holds pictures")
        if isinstance(content, str):
            return self.settings.template or "raw"
        return "ids" if isinstance(content[0], int) else "chat"

    def _of(self, documents: list[Document]) -> Iterator[Example]:
        template = self._template(documents[0])
        batch = _of_ids(self.host, documents) if template == "ids" else self._encoded(documents, template)
        pieces = [
            piece for row, document in enumerate(documents)
            for piece in _pieces(batch, row, document, self.settings.context, template)
        ]  # fmt: skip
        if self.settings.positions is None:
            yield from pieces
            return
        chosen = self.settings.positions.in_prompt(batch_of(self.host, pieces))
        width = chosen.shape[1]
        for row, piece in enumerate(pieces):
            first = width - piece.length if self.host.causal else 0
            yield replace(piece, keep=chosen[row, first : first + piece.length])

    def _encoded(self, documents: list[Document], template: str) -> Batch:
        prompts: list[Any] = [document.content for document in documents]
        try:
            return encode(self.host, prompts, template=template, system=self.settings.system)
        except BadInput:
            # Said again for the one document that it is about.
            for document, prompt in zip(documents, prompts, strict=True):
                try:
                    encode(self.host, [prompt], template=template, system=self.settings.system)
                except BadInput as problem:
                    raise BadInput(f"document {document.number} ({document.source}): {problem}") from problem
            raise


def _of_ids(host: Host, documents: list[Document]) -> Batch:
    rows: list[list[int]] = [document.content for document in documents]  # type: ignore[misc]
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), True
    limit = host.entry("vocab_size")
    if isinstance(limit, int) and not bool(((ids >= 0) & (ids < limit)).all()):
        raise BadInput(f"the data has token ids outside of 0 to {limit - 1}, which {host.name} does not know")
    special_ids = torch.tensor(sorted(getattr(host.tokenizer, "all_special_ids", [])), dtype=torch.long)
    texts = [host.tokenizer.decode(tokens) if host.tokenizer is not None else "" for tokens in rows]
    roles = torch.where(mask, int(Role.TEXT), int(Role.PAD)).to(torch.int8)
    ends, offsets = torch.full((len(rows),), width), torch.zeros(len(rows), width, 2, dtype=torch.long)
    return Batch(ids, mask, roles, torch.isin(ids, special_ids) & mask, ends, tuple(texts), offsets)


def _pieces(batch: Batch, row: int, document: Document, context: int, template: str) -> Iterator[Example]:
    columns = batch.mask[row].nonzero().flatten()
    first, length = int(columns[0]), len(columns)
    offsets, special = batch.offsets[row, columns], batch.special[row, columns]
    before, after = _around(special, offsets) if template == "raw" else (0, 0)
    body = context - before - after
    if body < 1:
        raise BadInput(f"a context of {context} tokens has no room beside the {before + after} that go around a text")
    inner = length - before - after
    count = 1 if length <= context else -(-inner // body)
    end = int(batch.instruction_end[row]) - first
    for piece in range(count):
        inside = torch.arange(before + piece * body, min(before + (piece + 1) * body, length - after))
        if count == 1:
            inside = torch.arange(before, length - after)
        places = torch.cat([torch.arange(before), inside, torch.arange(length - after, length)])
        yield Example(
            document=document.number,
            piece=piece,
            last=piece == count - 1,
            source=document.source,
            text=batch.texts[row],
            keep=torch.ones(len(places), dtype=torch.bool),
            ids=batch.ids[row, columns][places],
            roles=batch.roles[row, columns][places],
            special=special[places],
            offsets=offsets[places],
            instruction_end=int((places < end).sum()),
        )


def _around(special: Tensor, offsets: Tensor) -> tuple[int, int]:
    """How many tokens the tokenizer has put before and after a text: special ones that stand for no character."""
    added = (special & (offsets[:, 0] == offsets[:, 1])).tolist()
    if all(added):
        return 0, 0
    return added.index(False), added[::-1].index(False)


def batch_of(host: Host, examples: Sequence[Example]) -> Batch:
    """Examples of text as one padded batch, decoders on the left."""
    width = max(example.length for example in examples)
    shape = (len(examples), width)
    pad = getattr(host.tokenizer, "pad_token_id", None)
    if pad is None:
        pad = getattr(host.tokenizer, "eos_token_id", None) or 0
    ids = torch.full(shape, pad, dtype=torch.long)
    mask, special = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    roles, offsets = torch.zeros(shape, dtype=torch.int8), torch.zeros((*shape, 2), dtype=torch.long)
    ends = torch.zeros(len(examples), dtype=torch.long)
    for row, example in enumerate(examples):
        first = width - example.length if host.causal else 0
        columns = slice(first, first + example.length)
        mask[row, columns] = True
        ids[row, columns], roles[row, columns] = example.ids, example.roles  # type: ignore[assignment]
        special[row, columns], offsets[row, columns] = example.special, example.offsets  # type: ignore[assignment]
        ends[row] = first + example.instruction_end
    return Batch(ids, mask, roles, special, ends, tuple(example.text for example in examples), offsets)


class PictureExamples:
    """One example for each picture; every place of it is kept."""

    def __init__(self, host: Host, documents: Documents, places: int = 1):
        self.host, self.documents, self.places = host, documents, places

    def starting(self, cursor: Cursor) -> Iterator[Example]:
        keep = torch.ones(self.places, dtype=torch.bool)
        for document in self.documents.starting(cursor.document):
            if not isinstance(document.content, Picture):
                raise NotSupported(f"{self.host.name} reads pictures, and the data holds text")
            yield Example(document.number, 0, True, document.source, "", keep, picture=document.content)


def pixels_of(host: Host, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Inputs of a network that sees, made by its own processor."""
    if host.processor is None:
        raise NotSupported(f"{host.name} has no image processor: load it with processor=")
    pictures = [example.picture.open() for example in examples if example.picture is not None]
    return {"pixel_values": host.processor(pictures, return_tensors="pt")["pixel_values"]}
