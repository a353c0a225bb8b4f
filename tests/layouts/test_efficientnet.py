from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checks import ROWS, At, LayoutChecks, pictures, randomised, relative_error
from torch import Tensor, nn

import optrode
from optrode import edits
from optrode.errors import UnknownSite
from optrode.sources.efficientnet import EfficientNetLite0

SIDE = 64


def convolved(x: Tensor, weight: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """Padded to ceil(side / stride), by unfolding windows: no convolution and no padding argument is used."""
    size, side = weight.shape[-1], x.shape[-1]
    missing = max((-(-side // stride) - 1) * stride + size - side, 0)
    before = missing // 2
    padded = torch.zeros(*x.shape[:2], side + missing, side + missing)
    padded[:, :, before : before + side, before : before + side] = x
    windows = padded.unfold(2, size, stride).unfold(3, size, stride)
    if groups == 1:
        return torch.einsum("ncrsuv,ocuv->nors", windows, weight)
    return torch.einsum("ncrsuv,cuv->ncrs", windows, weight[:, 0])


def normed(x: Tensor, module: Any) -> Tensor:
    """Batch norm in evaluation, channels last."""
    return (x - module.running_mean) / (module.running_var + 1e-3).sqrt() * module.weight + module.bias


class TestEfficientNet(LayoutChecks):
    """On the real class with random weights; `at` sees [example, row, column, channel]."""

    layout = "efficientnet"
    layers = 16
    swapped = ("depthwise", "out")

    def network(self) -> nn.Module:
        return randomised(EfficientNetLite0())

    def inputs(self) -> dict[str, Tensor]:
        return pictures(SIDE)

    def final(self, model: optrode.Model) -> Tensor:
        return model.module(**self.inputs())

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        x = h
        if layer:
            x = at("expanded", normed(self.convolved(x, block._expand_conv), block._bn0).clamp(0, 6))
        x = at("depthwise", normed(self.convolved(x, block._depthwise_conv), block._bn1).clamp(0, 6))
        x = at("narrowed", normed(self.convolved(x, block._project_conv), block._bn2))
        if layer in (2, 4, 6, 7, 9, 10, 12, 13, 14):
            x = h + at("part", x)
        return at("out", x)

    def convolved(self, x: Tensor, module: Any) -> Tensor:
        channels_first = x.movedim(-1, 1)
        return convolved(channels_first, module.weight, module.stride[0], module.groups).movedim(1, -1)

    def test_the_equations_hold(self, model: optrode.Model) -> None:
        from optrode.engine.mapping.equations import measure

        checks = measure(model, self.inputs())
        assert [check.layer for check in checks] == [2, 4, 6, 7, 9, 10, 12, 13, 14]
        assert max(check.error for check in checks) < 1e-5

    def test_every_site_reads_with_its_axes(self, model: optrode.Model) -> None:
        named = [address for address, site in model.table.items() if site.layer is not None]
        acts = model.read(self.inputs(), named)
        for address, value in acts.items():
            _, layer, name = address.split(".")
            block = model.blocks[int(layer)]
            width = {
                "in": (block._expand_conv if int(layer) else block._depthwise_conv).in_channels,
                "expanded": block._depthwise_conv.in_channels,
                "depthwise": block._depthwise_conv.out_channels,
            }.get(name, block._project_conv.out_channels)
            assert value.shape[0] == ROWS and value.shape[-1] == width, address
            assert value.shape[1] == value.shape[2], address
            assert acts.axes[address] == ("example", "row", "column", "channel")
        assert acts["layers.0.in"].shape[1] == SIDE // 2 and acts["layers.15.out"].shape[1] == SIDE // 32

    @pytest.mark.parametrize("kind", ["replace", "add", "scale"])
    @pytest.mark.parametrize("layer", [3, 4])
    def test_written_sites_equal_the_hand_written_forward(self, model: optrode.Model, kind: str, layer: int) -> None:
        """In a block with a skip connection and in one without."""
        names = self.names(model, layer)
        acts = model.read(self.inputs(), [f"layers.{layer}.{name}" for name in names])
        for name in names:
            site = f"layers.{layer}.{name}"
            edit, by_hand = self.change(site, kind, (acts[site].shape[-1],), model)
            with model.edited(edit) as receipt:
                got = model.read(self.inputs(), f"layers.{layer}.out")[f"layers.{layer}.out"]
            at = self.changing(name, by_hand)
            with torch.no_grad():
                wanted = self.block(model.blocks[layer], layer, None, acts[f"layers.{layer}.in"], at)
            assert relative_error(got, wanted) < 1e-5, name
            assert relative_error(got, acts[f"layers.{layer}.out"]) > 1e-3, f"{name} had no effect"
            assert receipt.sites[site].selected == receipt.changed == acts[site][..., 0].numel()

    def test_some_heads_can_be_written_alone(self, model: optrode.Model) -> None:
        """There are none, and asking for them is an error."""
        with pytest.raises(UnknownSite, match=r"attn\.heads"):
            model.read(self.inputs(), "layers.4.attn.heads")

    def names(self, model: optrode.Model, layer: int = 4) -> list[str]:
        return super().names(model, layer)

    def test_strength_zero_changes_no_bit(self, model: optrode.Model) -> None:
        self.unchanged(model, 0.0, 1.0)

    def test_adding_zero_changes_no_bit(self, model: optrode.Model) -> None:
        self.unchanged(model, 1.0, 0.0)

    def unchanged(self, model: optrode.Model, strength: float, value: float) -> None:
        plain = self.final(model)
        for name in self.names(model):
            with model.edited(edits.add(f"layers.4.{name}", torch.tensor(value)) * strength):
                assert torch.equal(self.final(model), plain), name

    def test_one_channel_can_be_written_alone(self, model: optrode.Model) -> None:
        plain = model.read(self.inputs(), "layers.4.expanded")["layers.4.expanded"]
        with model.edited(edits.replace("layers.4.expanded", 2.0, features=(7,))):
            got = model.read(self.inputs(), "layers.4.expanded")["layers.4.expanded"]
        others = [channel for channel in range(plain.shape[-1]) if channel != 7]
        assert bool((got[..., 7] == 2).all())
        assert torch.equal(got[..., others], plain[..., others])


@pytest.fixture(scope="module")
def real() -> tuple[optrode.Model, dict[str, Tensor]]:
    from sklearn.datasets import load_sample_image

    model = optrode.load("efficientnet-lite0")
    return model, model.processor(load_sample_image("china.jpg"))


class TestRealEfficientNet:
    """The pretrained network on a photograph."""

    sizes: ClassVar = {"embed": (1, 112, 112, 32), "layers.4.out": (1, 28, 28, 40), "final": (1, 7, 7, 1280)}

    def test_logits_are_the_head_of_the_pooled_vector(self, real: tuple[optrode.Model, dict[str, Tensor]]) -> None:
        model, image = real
        acts = optrode.read(model, image, ["pooled", "logits", *self.sizes])
        assert {site: tuple(acts[site].shape) for site in self.sizes} == self.sizes
        head = model.module._fc
        with torch.no_grad():
            assert torch.equal(F.linear(acts["pooled"], head.weight, head.bias), acts["logits"])
            assert torch.equal(model.module(**image), acts["logits"])
        assert acts.axes["pooled"] == ("example", "feature")
        torch.testing.assert_close(acts["final"].mean((1, 2)), acts["pooled"])
        # The photograph shows a Chinese temple: ImageNet's monastery, mosque, palace or stupa.
        assert set(np.argsort(-acts["logits"][0].numpy())[:5].tolist()) & {663, 668, 698, 832}

    def test_a_read_stops_after_the_block(self, real: tuple[optrode.Model, dict[str, Tensor]]) -> None:
        model, image = real
        acts = optrode.read(model, image, "layers.4.out")
        assert (acts.layers_run, acts.layers_skipped) == (5, 11)

    def test_an_edit_of_the_pooled_vector_moves_the_logits(self, real: tuple[optrode.Model, dict[str, Tensor]]) -> None:
        model, image = real
        direction = model.module._fc.weight[3].detach()
        plain = optrode.read(model, image, "logits")["logits"]
        with model.edited(edits.add("pooled", direction)):
            moved = optrode.read(model, image, "logits")["logits"]
        torch.testing.assert_close(moved - plain, (model.module._fc.weight @ direction)[None], rtol=1e-3, atol=1e-4)
