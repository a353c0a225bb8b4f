"""Rows of every awkward kind, and the ways in which data may be cut up."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

# What a unit may hold: ordinary numbers, a far mean, outliers as SmolLM2 has them, zeros, tiny numbers, all sizes.
KINDS = ("normal", "offset", "outlier", "relu", "tiny", "wide", "zero", "constant", "huge")


def unit(kind: str, rows: int, generator: torch.Generator) -> Tensor:
    x = torch.randn(rows, generator=generator)
    if kind == "offset":
        return x + 1e4
    if kind == "outlier":
        x[torch.rand(rows, generator=generator) < 0.05] = 2.2e4
        return x
    if kind == "relu":
        return torch.relu(x)
    if kind == "tiny":
        return x * 1e-38
    if kind == "wide":
        return x * 10.0 ** torch.randint(-30, 12, (rows,), generator=generator)
    if kind == "huge":
        return x * 1e30
    return torch.zeros(rows) if kind == "zero" else torch.full((rows,), 3.7) if kind == "constant" else x


@st.composite
def data(draw: Any, most: int = 60) -> tuple[Tensor, Tensor]:
    """Values [row, unit] float32 and where they come from, [row, 4]; values often repeat."""
    rows, kinds = draw(st.integers(0, most)), draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    values = torch.stack([unit(kind, rows, generator) for kind in kinds], 1)
    if draw(st.booleans()):
        values = values.round()
    number = torch.arange(rows)
    where = torch.stack([number // 7, number // 7, number % 7, 100 + number % 3], 1)
    return values, where


@st.composite
def parts(draw: Any, rows: int) -> list[np.ndarray]:
    """The row numbers in any order, cut anywhere; parts may be empty."""
    order = np.array(draw(st.permutations(range(rows))), dtype=np.int64)
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=4)))
    return np.split(order, cuts)
