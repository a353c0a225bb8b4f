"""The conversation, the edits that act in it, and how a turn is answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...edits.anatomy import brief
from ...errors import BadInput, EditDidNothing, NotSupported, OptrodeError, UnknownName, did_you_mean

if TYPE_CHECKING:
    from ...edits.base import Edit
    from ...engine.editing.receipt import Receipt
    from ...engine.generating.generate import Sampling
    from ...engine.generating.stream import Stream
    from ...model import Model


# A reply that could not even have this many tokens is not begun.
_SHORTEST = 16


@dataclass
class Dial:
    """An edit of the chat: how strong it is, and whether it is on. Strength 1 is the edit as its file has it."""

    name: str
    edit: Edit
    file: Path | None = None
    strength: float = 1.0
    on: bool = True

    @property
    def acts(self) -> bool:
        return self.on and self.strength != 0

    def now(self) -> Edit:
        """The edit at its strength. One that has no strength is what it is."""
        return self.edit if self.strength == 1 else self.edit * self.strength

    def turn(self, strength: float) -> None:
        """Set the strength. Raises `NotSupported` for edits that have none, `NotFinite`."""
        # Tried first, so that nothing is set that cannot be entered.
        _ = self.edit if strength == 1 else self.edit * strength
        self.strength = strength

    def __str__(self) -> str:
        return f"{self.name} x{self.strength:g}" if self.edit.kind in ("site", "adapter") else self.name


@dataclass
class Reply:
    """What is being written. `unedited` is the answer of the model without edits, where both are shown."""

    text: str = ""
    unedited: str | None = None
    stopped: bool = False
    cut: bool = False
    tokens: int = 0
    seconds: float = 0.0
    receipt: Receipt | None = None
    trouble: str = ""


@dataclass
class Turn:
    user: str
    reply: Reply
    edits: list[dict[str, Any]]


# Shows pieces of two streams, of which the second may be missing, and puts them into the reply.
Show = Callable[["Stream", "Stream | None", Reply], None]


@dataclass
class Room:
    """A conversation with one model."""

    host: Model
    dials: list[Dial] = field(default_factory=list)
    system: str | None = None
    side: bool = False
    sampling: Sampling | None = None
    max_new_tokens: int = 256
    turns: list[Turn] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.host.is_chat:
            raise NotSupported(
                f"{self.host.name} has no chat template, so it cannot chat: use optrode generate --raw --stream"
            )

    @property
    def acting(self) -> list[Dial]:
        return [dial for dial in self.dials if dial.acts]

    def dial(self, name: str) -> Dial:
        """The edit of that name. Raises `UnknownName` with the nearest ones."""
        found = next((dial for dial in self.dials if dial.name == name), None)
        if found is None:
            names = [dial.name for dial in self.dials]
            raise UnknownName(f"no edit here is called '{name}': {did_you_mean(name, names)}")
        return found

    def check(self) -> None:
        """Raise now where an edit does not fit the model, not after the first question. Runs nothing."""
        for dial in self.dials:
            with suppress(EditDidNothing), self.host.edited(dial.now()):
                pass

    def messages(self) -> list[dict[str, str]]:
        """The conversation so far, without the system prompt."""
        found = []
        for turn in self.turns:
            found += [_message("user", turn.user), _message("assistant", turn.reply.text)]
        return found

    def ask(self, text: str, show: Show) -> Turn:
        """Answer one turn. A reply that is stopped stays in the conversation as far as it was written.

        Raises what keeps a reply from being written, and `KeyboardInterrupt` where it was stopped before it began; what
        went wrong once it was written is in `reply.trouble`.
        """
        messages = [*self.messages(), _message("user", text)]
        longest = self._longest(messages)
        reply, acting = Reply(), self.acting
        begun = time.monotonic()
        try:
            self._write(messages, [dial.now() for dial in acting], show, reply, longest)
        except OptrodeError as problem:
            if not reply.text:
                raise
            reply.trouble = str(problem)
        except KeyboardInterrupt:
            # It fell between the last piece and the end of the blocks.
            reply.stopped = True
        if reply.stopped and not reply.text:
            # Nothing was said, so there is no turn.
            raise KeyboardInterrupt
        reply.seconds = time.monotonic() - begun
        self.turns.append(Turn(text, reply, [_described(dial) for dial in acting]))
        return self.turns[-1]

    def _write(
        self, messages: list[dict[str, str]], edits: Sequence[Edit], show: Show, reply: Reply, longest: int
    ) -> None:
        options: dict[str, Any] = {
            "max_new_tokens": longest, "system": self.system, "sampling": self.sampling,
        }  # fmt: skip
        with ExitStack() as stack:
            beside = None
            if self.side and edits:
                # Begun before the edits, so that none of them acts in it.
                beside = stack.enter_context(self.host.stream(messages, **options))
                reply.unedited = ""
            if edits:
                reply.receipt = stack.enter_context(self.host.edited(*edits))
            stream = stack.enter_context(self.host.stream(messages, **options))
            try:
                show(stream, beside, reply)
                written = stream.completion.ids
                reply.tokens = len(written)
                reply.cut = reply.tokens >= longest and written[-1] not in self._ends()
            except KeyboardInterrupt:
                reply.stopped = True

    def _ends(self) -> set[int]:
        configured = getattr(getattr(self.host.module, "generation_config", None), "eos_token_id", None)
        ends = configured if isinstance(configured, list) else [configured]
        return {*ends, self.host.tokenizer.eos_token_id}

    def _longest(self, messages: list[dict[str, str]]) -> int:
        """How many tokens a reply may have. Raises `BadInput` where there is hardly any room left for one."""
        from ...encoding import encode

        limit = self.host.entry("max_position_embeddings")
        width = encode(self.host, messages, system=self.system).width
        room = limit - width if isinstance(limit, int) else self.max_new_tokens
        if room < min(_SHORTEST, self.max_new_tokens):
            raise BadInput(
                f"the conversation has {width} tokens, and {self.host.name} takes {limit}: make room for a reply with "
                "/undo or /reset"
            )
        return min(self.max_new_tokens, room)


def dials_of(edits: Sequence[Edit], files: Sequence[Path], strength: float) -> list[Dial]:
    """The edits of some files, named after them; one name that comes twice gets a number."""
    found: list[Dial] = []
    for edit, file in zip(edits, files, strict=True):
        stem = file.stem.replace(" ", "-")
        taken = {dial.name for dial in found}
        name = next(name for name in (stem, *(f"{stem}-{number}" for number in range(2, 999))) if name not in taken)
        dial = Dial(name, edit, file)
        if edit.kind in ("site", "adapter"):
            dial.turn(strength)
        found.append(dial)
    return found


def _described(dial: Dial) -> dict[str, Any]:
    file = str(dial.file) if dial.file is not None else None
    return {"name": dial.name, "file": file, "strength": dial.strength, "what": brief(dial.edit)}


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
