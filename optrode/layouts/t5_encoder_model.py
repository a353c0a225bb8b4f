"""T5 without its decoder: the tower of the encoder, below a class of its own."""

from dataclasses import replace

from .base import Layout
from .t5_encoder import GATED, PLAIN


def _below_its_class(tower: Layout, gated: bool) -> Layout:
    whole = replace(tower.below("encoder"), name="t5_encoder_model", when={"is_gated_act": gated})
    return replace(whole, module_classes=("T5EncoderModel",))


LAYOUT = replace(_below_its_class(GATED, True), variants=(_below_its_class(PLAIN, False),))
