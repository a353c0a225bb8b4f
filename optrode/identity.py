"""What makes two networks the same one: hashes of config, tokenizer and weights."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import NotSupported
from .offloaded import stored_tensors

if TYPE_CHECKING:
    from .host import Host

# Entries of a config that say how or where it was loaded, not what the network is.
_VOLATILE = {
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "quantization_config", "_attn_implementation",
    "use_cache", "architectures",
}  # fmt: skip


def fingerprint(host: Host) -> dict[str, str]:
    """Three short hashes: `config`, `tokenizer`, `weights` (16 values of every tensor, rounded to bfloat16).

    Weights that are kept on disk are read from there, and those that are quantised count as what they stand for. The
    rounding makes the hash survive a change between float32 and bfloat16; float16 rounds some values otherwise, so that
    a float16 copy counts as other weights. Costs well under a second. Raises `NotSupported` without weights.
    """
    return {
        "config": _hash(_config_text(host)),
        "tokenizer": _tokenizer_hash(host),
        "weights": _weights_hash(host),
    }


def _config_text(host: Host) -> str:
    if hasattr(host.config, "to_dict"):
        kept = {key: value for key, value in host.config.to_dict().items() if key not in _VOLATILE}
        return json.dumps(kept, sort_keys=True, default=str)
    shapes = {name: list(tensor.shape) for name, tensor in host.module.state_dict().items()}
    return json.dumps([type(host.module).__name__, shapes], sort_keys=True)


def _tokenizer_hash(host: Host) -> str:
    if host.tokenizer is None:
        return "none"
    vocabulary = sorted(host.tokenizer.get_vocab().items(), key=lambda item: item[1])
    return _hash(json.dumps([vocabulary, getattr(host.tokenizer, "chat_template", None)], default=str))


def _weights_hash(host: Host) -> str:
    digest = hashlib.sha256()
    for name, tensor in stored_tensors(host.module):
        if tensor is None:
            raise NotSupported(
                f"{host.name} has no weights ({name} is on the meta device), so it has no fingerprint: load them"
            )
        if tensor.is_floating_point() and tensor.numel():
            sample = _sample(tensor.detach()).to("cpu", torch.bfloat16).float()
            digest.update(name.encode())
            digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def _sample(tensor: Tensor) -> Tensor:
    """16 values, evenly spread; of quantised tensors the values that they stand for."""
    if type(tensor) is not Tensor and hasattr(tensor, "dequantize"):
        tensor = tensor.dequantize()
    flat = tensor.reshape(-1)
    return flat[:: max(1, flat.numel() // 16)][:16]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
