"""EfficientNet-Lite0: an ImageNet classifier of 4.7 million parameters, with every stage a module of its own.

The network is EfficientNet-B0 made fit for integer hardware: no squeeze-and-excitation, ReLU6 instead of swish, and
stem and head of fixed width. Parameter names follow the checkpoint, which keeps those of the TensorFlow original.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), Table 1; the Lite
variants were published by the same group as code in 2020.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optrode.errors import BadFile
from optrode.messages import one_line


class Stage(NamedTuple):
    """A run of equal blocks; only the first has the stride and the change of width."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM_WIDTH, HEAD_WIDTH, CLASSES = 32, 1280, 1000
DROPOUT, DROP_BRANCH = 0.2, 0.2


class SameConv2d(nn.Conv2d):
    """Convolution padded so that the output side is ceil(input side / stride).

    An odd amount of padding puts the larger half at the bottom and the right, which `padding=kernel // 2` would not.
    """

    def forward(self, input: Tensor) -> Tensor:
        height, width = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0)
            for side, kernel, stride in zip(input.shape[-2:], self.kernel_size, self.stride, strict=True)
        )
        padded = F.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(padded)


class DropBranch(nn.Module):
    """In training, drops a residual branch for a whole image with the given chance; in eval mode the identity."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.chance == 0:
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device) >= self.chance
        return branch * kept / (1 - self.chance)


class Block(nn.Module):
    """Inverted residual: widen 1x1, depthwise convolution, narrow 1x1, plus the input where the shapes allow it.

    Input (N, width_in, H, W), output (N, width, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, width_in: int, stage: Stage, stride: int, drop: float) -> None:
        super().__init__()
        inner = width_in * stage.expansion
        self.expands = stage.expansion != 1
        self.skips = stride == 1 and width_in == stage.width
        if self.expands:
            self._expand_conv = SameConv2d(width_in, inner, 1, bias=False)
            self._bn0 = _norm(inner)
            self._expand_activation = nn.ReLU6()
        self._depthwise_conv = SameConv2d(inner, inner, stage.kernel, stride, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._depthwise_activation = nn.ReLU6()
        self._project_conv = SameConv2d(inner, stage.width, 1, bias=False)
        self._bn2 = _norm(stage.width)
        if self.skips:
            self._drop_branch = DropBranch(drop)

    def forward(self, stream: Tensor) -> Tensor:
        branch = stream
        if self.expands:
            branch = self._expand_activation(self._bn0(self._expand_conv(branch)))
        branch = self._depthwise_activation(self._bn1(self._depthwise_conv(branch)))
        branch = self._bn2(self._project_conv(branch))
        return stream + self._drop_branch(branch) if self.skips else branch


class EfficientNetLite0(nn.Module):
    """Images to ImageNet logits: pixel_values (N, 3, H, W) float, normalised, H = W = 224 in training; out (N, 1000).

    Stages to hook, in order: `_stem_activation` (N, 32, H/2, W/2), `_blocks.0` to `_blocks.15`, `_head_activation`
    (N, 1280, H/32, W/32), `_pooling`, `_flatten` (N, 1280: the pooled features), `_dropout`, `_fc`.

    >>> EfficientNetLite0().eval()(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1000])
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, STEM_WIDTH, 3, 2, bias=False)
        self._bn0 = _norm(STEM_WIDTH)
        self._stem_activation = nn.ReLU6()
        self._blocks = nn.ModuleList(_blocks())
        self._conv_head = SameConv2d(STAGES[-1].width, HEAD_WIDTH, 1, bias=False)
        self._bn1 = _norm(HEAD_WIDTH)
        self._head_activation = nn.ReLU6()
        self._pooling = nn.AdaptiveAvgPool2d(1)
        self._flatten = nn.Flatten()
        self._dropout = nn.Dropout(DROPOUT)
        self._fc = nn.Linear(HEAD_WIDTH, CLASSES)

    def forward(self, pixel_values: Tensor) -> Tensor:
        stream = self._stem_activation(self._bn0(self._conv_stem(pixel_values)))
        for block in self._blocks:
            stream = block(stream)
        stream = self._head_activation(self._bn1(self._conv_head(stream)))
        return self._fc(self._dropout(self._flatten(self._pooling(stream))))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


def _blocks() -> list[Block]:
    total = sum(stage.repeats for stage in STAGES)
    blocks: list[Block] = []
    width = STEM_WIDTH
    for stage in STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            blocks.append(Block(width, stage, stride, DROP_BRANCH * len(blocks) / total))
            width = stage.width
    return blocks


def load_efficientnet_lite0(path: Path) -> EfficientNetLite0:
    """The network with the weights of a checkpoint file (a state dict), in eval mode and float32.

    Raises BadFile when the file is damaged, holds more than tensors, or fits another network.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadFile(f"{path.name} cannot be read as a plain state dict ({one_line(error)})") from error
    with torch.device("meta"):
        network = EfficientNetLite0()
    try:
        network.load_state_dict(weights, strict=True, assign=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise BadFile(f"{path.name} does not hold the weights of EfficientNet-Lite0") from error
    return network.eval()
