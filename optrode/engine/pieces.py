"""Text of tokens as they come: a piece is given out once no later token can change it."""

from __future__ import annotations

import re
from typing import Any

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Pieces:
    """Decodes a growing row of tokens. The pieces together are what the whole row decodes to.

    What may still change is held back: characters of which only some bytes are there, and, with a tokenizer that tidies
    up spaces, the last word.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._given = ""

    def add(self, token: int) -> str | None:
        """The text that this token made certain; None where it has to wait for later ones."""
        self._ids.append(token)
        text = self._decode(self._ids)
        certain = self._certain(text)
        piece = certain[len(self._given) :] if certain.startswith(self._given) else ""
        self._given += piece
        return piece if piece or text == self._given else None

    def rest(self, text: str) -> str:
        """What is left of the whole `text`."""
        piece = text.removeprefix(self._given)
        self._given = text
        return piece

    def _certain(self, text: str) -> str:
        certain = text.rstrip("\ufffd")
        bytes_at_end = 0
        for token in reversed(self._ids):
            if not _BYTE.fullmatch(str(self._tokenizer.convert_ids_to_tokens(token))):
                break
            bytes_at_end += 1
        if bytes_at_end:
            # A run of byte tokens is decoded as a whole, and differently while it is no whole characters.
            before = self._decode(self._ids[:-bytes_at_end])
            certain = before if text.startswith(before) else ""
        if getattr(self._tokenizer, "clean_up_tokenization_spaces", False):
            certain = certain[: max(certain.rfind(" "), 0)]
        return certain

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
