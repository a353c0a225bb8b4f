from __future__ import annotations

from t5_block import PlainT5Checks, T5Checks
from torch import nn


class TestT5EncoderModel(T5Checks):
    layout = "t5_encoder_model"
    blocks = "encoder.block"

    def made(self) -> nn.Module:
        from transformers import T5EncoderModel

        return T5EncoderModel(self.config())


class TestT5EncoderModelPlain(PlainT5Checks, TestT5EncoderModel):
    pass
