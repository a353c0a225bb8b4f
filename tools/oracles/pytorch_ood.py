"""Energy and ReAct by pytorch-ood, on a small seeded classifier."""

from __future__ import annotations

import torch
from torch import nn

from .oracle import Measured, Oracle

ORACLE = Oracle(
    fixture="tests/guard/oracles/pytorch_ood.safetensors",
    bare=("pytorch-ood==0.4.0",),
    # It imports torchvision for data sets and backbones, none of which are used here.
    shims=("torchvision",),
)
TEMPERATURES, PERCENTILES = (0.5, 1.0, 3.0), (0.5, 0.9)


def measured() -> Measured:
    from pytorch_ood.detector import EnergyBased, ReAct

    torch.manual_seed(0)
    block, head = nn.Linear(6, 8), nn.Linear(8, 3)

    def features(x: torch.Tensor) -> torch.Tensor:
        return block(x).relu()

    random = torch.Generator().manual_seed(1)
    fitted, asked = torch.randn(60, 6, generator=random), 2 * torch.randn(40, 6, generator=random)
    tensors = {"fitted": fitted, "asked": asked}
    for name, layer in (("block", block), ("head", head)):
        tensors |= {f"{name}.{key}": value.detach() for key, value in layer.state_dict().items()}
    with torch.no_grad():
        for temperature in TEMPERATURES:
            tensors[f"energy.{temperature}"] = EnergyBased.score(head(features(asked)), t=temperature)
        for percentile in PERCENTILES:
            clipped = ReAct(features, head, percentile=percentile)
            clipped.fit_feature_maps(features(fitted), torch.zeros(len(fitted)))
            tensors[f"react.{percentile}"] = clipped.predict_feature_maps(features(asked))
            tensors[f"threshold.{percentile}"] = torch.tensor(clipped.threshold, dtype=torch.float64)
    return tensors, {}
