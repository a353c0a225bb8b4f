"""EfficientNet-Lite0 against timm, whose features with the same weights are kept; see tools/oracles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import optrode as op

FILE = Path(__file__).parent / "oracles" / "timm.safetensors"
# Where each stage that was kept is here.
STAGES = {
    "stem": "module:_stem_activation",
    **{f"block.{number}": f"layers.{number}.out" for number in range(16)},
    "head": "module:_head_activation",
    "pooled": "pooled",
    "logits": "logits",
}


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    with safe_open(FILE, "pt") as file:
        return {"about": file.metadata(), **{name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118


def test_features_of_every_stage_agree(kept: dict[str, Any]) -> None:
    model = op.load("efficientnet-lite0")
    acts = model.read(kept["images"], list(STAGES.values()))
    for stage, site in STAGES.items():
        shape, wanted = kept[f"{stage}.shape"].tolist(), kept[stage]
        value = acts[site]
        # In blocks, pictures are read with their channels last.
        value = value.movedim(-1, 1) if site.startswith("layers.") else value
        assert list(value.shape) == shape, stage
        flat = value.flatten()
        got = flat[:: max(1, flat.numel() // int(kept["about"]["kept"]))]
        assert float((got - wanted).abs().max()) <= 2e-5 * float(wanted.abs().max()), stage
    assert kept["about"]["versions"].count("timm")
