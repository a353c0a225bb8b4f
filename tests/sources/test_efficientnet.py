from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optrode.errors import BadFile
from optrode.sources import open_source
from optrode.sources.efficientnet import DropBranch, EfficientNetLite0, SameConv2d, load_efficientnet_lite0

REFERENCE = json.loads((Path(__file__).parent / "fixtures" / "efficientnet_lite0.json").read_text())


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: f"seed{case['seed']}")
def test_logits_are_those_of_the_reference(case: dict, efficientnet_file: Path):
    network = load_efficientnet_lite0(efficientnet_file)
    images = torch.randn(case["shape"], generator=torch.Generator().manual_seed(case["seed"]))
    with torch.no_grad():
        logits = network(images)
    assert torch.allclose(logits[:, :10], torch.tensor(case["logits"]), atol=1e-4, rtol=0)
    assert logits.argmax(1).tolist() == case["argmax"]


def test_source_is_whole(efficientnet_file: Path):
    source = open_source("efficientnet-lite0")
    assert not source.module.training and all(parameter.requires_grad for parameter in source.module.parameters())
    assert sum(parameter.numel() for parameter in source.module.parameters()) == 4_652_008
    assert source.tokenizer is None and source.name == "efficientnet-lite0"
    assert source.origin["file"] == "efficientnet-lite0-57934424.pth"
    half = open_source("efficientnet-lite0", dtype=torch.bfloat16)
    assert half.module._fc.weight.dtype == torch.bfloat16


def test_every_stage_can_be_hooked():
    network = EfficientNetLite0().eval()
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: tuple(output.shape)}))
    with torch.no_grad():
        network(torch.zeros(2, 3, 64, 64))
    assert seen.keys() == {name for name, _ in network.named_modules()} - {"_blocks"}
    assert seen["_stem_activation"] == (2, 32, 32, 32)
    assert [seen[f"_blocks.{index}"][1:3] for index in (0, 2, 4, 7, 10, 14, 15)] == [
        (16, 32),
        (24, 16),
        (40, 8),
        (80, 4),
        (112, 4),
        (192, 2),
        (320, 2),
    ]
    assert seen["_head_activation"] == (2, 1280, 2, 2)
    assert seen["_pooling"] == (2, 1280, 1, 1)
    assert seen["_flatten"] == seen["_dropout"] == (2, 1280)


@pytest.mark.parametrize(
    ("side", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 1), (5, 1, 1), (6, 3, 1)]
)
def test_same_padding_against_a_sum_over_positions(side: int, kernel: int, stride: int):
    torch.manual_seed(0)
    layer = SameConv2d(1, 1, kernel, stride, bias=False)
    image = torch.randn(side, side)
    out = -(-side // stride)
    before = max((out - 1) * stride + kernel - side, 0) // 2
    expected = torch.zeros(out, out)
    for row in range(out):
        for column in range(out):
            for i in range(kernel):
                for j in range(kernel):
                    y, x = row * stride + i - before, column * stride + j - before
                    if 0 <= y < side and 0 <= x < side:
                        expected[row, column] += image[y, x] * layer.weight[0, 0, i, j].item()
    assert torch.allclose(layer(image[None, None])[0, 0], expected, atol=1e-5)
    if (side, kernel, stride) == (8, 3, 2):
        symmetric = F.conv2d(image[None, None], layer.weight, stride=stride, padding=kernel // 2)[0, 0]
        assert not torch.allclose(symmetric, expected, atol=1e-3)


def test_dropped_branches_keep_the_mean():
    torch.manual_seed(0)
    drop = DropBranch(0.25).train()
    out = drop(torch.ones(4000, 2, 3, 3))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert (out.flatten(1).std(1) == 0).all()
    image = torch.randn(2, 2, 3, 3)
    assert drop.eval()(image) is image


def test_other_checkpoints_are_refused(tmp_path: Path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(BadFile, match="EfficientNet-Lite0"):
        load_efficientnet_lite0(tmp_path / "other.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "object.pth")
    with pytest.raises(BadFile, match="plain state dict"):
        load_efficientnet_lite0(tmp_path / "object.pth")
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(BadFile, match="plain state dict"):
        load_efficientnet_lite0(tmp_path / "noise.pth")
