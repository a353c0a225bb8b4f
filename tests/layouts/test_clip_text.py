from __future__ import annotations

from typing import ClassVar

from checks import causal
from clip_block import TEXTS, ClipChecks
from torch import Tensor


class TestClipText(ClipChecks):
    layout = "clip_text"
    kind = "CLIPText"
    options: ClassVar = TEXTS
    ends = ("final",)

    def sees(self, tokens: int) -> Tensor:
        return causal(tokens)
