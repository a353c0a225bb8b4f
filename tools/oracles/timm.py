"""EfficientNet-Lite0 by timm, with the weights of the named model: features by stage, and logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .oracle import Measured, Oracle

ORACLE = Oracle(
    fixture="tests/sources/oracles/timm.safetensors",
    bare=("timm==1.0.31",),
    # It imports one class of torchvision, to tell frozen norms apart.
    shims=("torchvision",),
)
SHAPE, SEED = (2, 3, 65, 48), 0
# About so many values of a stage are kept, evenly spread.
KEPT = 64


def measured() -> Measured:
    import timm

    import optrode as op

    # Its "tf" variant pads as the original does.
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    _take_over(theirs, op.load("efficientnet-lite0").module)
    images = torch.randn(SHAPE, generator=torch.Generator().manual_seed(SEED))
    seen: dict[str, Tensor] = {}
    blocks = [block for stage in theirs.blocks for block in stage]
    watched = {"stem": theirs.bn1, **{f"block.{number}": block for number, block in enumerate(blocks)}}
    watched |= {"head": theirs.bn2, "pooled": theirs.global_pool, "logits": theirs.classifier}
    for name, module in watched.items():
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output.detach()}))
    with torch.no_grad():
        theirs(images)
    tensors = {"images": images}
    for name, value in seen.items():
        flat = value.flatten()
        tensors[name] = flat[:: max(1, flat.numel() // KEPT)].clone()
        tensors[f"{name}.shape"] = torch.tensor(value.shape)
    return tensors, {"kept": str(KEPT)}


def _take_over(theirs: nn.Module, ours: nn.Module) -> None:
    """The same weights: both name their tensors in order of execution, so that kinds and shapes pair them."""
    sources, targets = _leaves(ours), _leaves(theirs)
    assert len(sources) == len(targets), f"{len(sources)} layers here, {len(targets)} there"
    for (name, source), (other, target) in zip(sources, targets, strict=True):
        state = source.state_dict()
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in target.state_dict().items()}, (
            f"{name} is another layer than {other}"
        )
        target.load_state_dict(state)


def _leaves(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers with tensors of their own, in order of execution."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    found: list[tuple[str, nn.Module]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output, name=name: found.append((name, layer)))
        for name, layer in module.named_modules()
        if isinstance(layer, kinds)
    ]
    with torch.no_grad():
        module(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return found
