"""Prefix edits: tokens in front of the conversation. Prompting is the baseline that every steering method must beat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..errors import BadInput
from .base import Edit, Provenance


@dataclass(frozen=True, eq=False)
class PrefixEdit(Edit):
    """A system prompt and example turns that are put in front of every conversation while the edit is active.

    `turns` are (role, content) pairs that follow the system prompt: few-shot examples. A system prompt that the caller
    gives too is kept and follows ours, after a line break.

    >>> PrefixEdit(system="Answer in French.").kind
    'prefix'
    """

    kind: ClassVar[str] = "prefix"
    system: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if not self.system and not self.turns:
            raise BadInput("a prefix edit needs a system prompt or example turns: both are empty")

    def messages(self, conversation: list[dict[str, str]]) -> list[dict[str, str]]:
        """`conversation` with the prefix in front."""
        own = [message["content"] for message in conversation if message["role"] == "system"]
        rest = [message for message in conversation if message["role"] != "system"]
        system = "\n".join(text for text in (self.system, *own) if text)
        front = [{"role": "system", "content": system}] if system else []
        return front + [{"role": role, "content": content} for role, content in self.turns] + rest
