from __future__ import annotations

from t5_block import PlainT5Checks, T5Checks
from torch import nn


class TestT5Encoder(T5Checks):
    """The encoder as a part of a whole T5: of the same class as the decoder."""

    layout = "t5_encoder"

    def made(self) -> nn.Module:
        from transformers import T5ForConditionalGeneration

        return T5ForConditionalGeneration(self.config()).get_encoder()


class TestT5EncoderPlain(PlainT5Checks, TestT5Encoder):
    pass
