from __future__ import annotations

from typing import ClassVar

from clip_block import PICTURES, ClipChecks


class TestClipVision(ClipChecks):
    layout = "clip_vision"
    kind = "CLIPVision"
    options: ClassVar = PICTURES
    ends = ("pooled",)
