"""Text of tokens as they come: a piece is given out once no later token can change it."""

from __future__ import annotations

import re
from typing import Any

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
# Once this many tokens have been decoded together, those whose text is given out are left behind, all but the last.
_TOGETHER = 32
_KEPT = (4, 12)


class Pieces:
    """Decodes a growing row of tokens. The pieces together are what the whole row decodes to.

    What may still change is held back: characters of which only some bytes are there, and, with a tokenizer that tidies
    up spaces, the last word.

    A token is decoded together with a few before it, not with all of them: what it adds to their text is its own,
    blanks at its beginning included. Only a tokenizer that tidies up spaces sees the whole row: it may reach back.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._tidies = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))
        # The tokens that are decoded together, and what was given out of their text; of all tokens, the whole of it.
        self._ids: list[int] = []
        self._shown = ""
        self._given: list[str] = []

    def add(self, token: int) -> str | None:
        """The text that this token made certain; None where it has to wait for later ones."""
        self._ids.append(token)
        text = self._decode(self._ids)
        certain = self._certain(text)
        piece = certain[len(self._shown) :] if certain.startswith(self._shown) else ""
        self._shown += piece
        self._given.append(piece)
        if text != self._shown:
            return piece or None
        if len(self._ids) >= _TOGETHER and not self._tidies:
            self._leave_behind(text)
        return piece

    def rest(self, text: str) -> str:
        """What is left of the whole `text`."""
        given = "".join(self._given)
        self._given = [text]
        return text.removeprefix(given)

    def _leave_behind(self, text: str) -> None:
        """Go on with the last tokens alone, where they are decoded by themselves as they are in the row."""
        for count in _KEPT:
            kept = self._ids[-count:]
            alone = self._decode(kept)
            # A row may lose a blank at its beginning; that shows in both texts or in neither once there is any text.
            if alone and text.endswith(alone):
                self._ids, self._shown = kept, alone
                return

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
        if self._tidies:
            certain = certain[: max(certain.rfind(" "), 0)]
        return certain

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
