"""A folder that PEFT saved, as an adapter edit: its safetensors file and its JSON, nothing else, and no code."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import BadFile, MissingFile, NotSupported, OptrodeError
from ..messages import one_line, plain, shown
from .adapter import AdapterEdit, BiasDelta, Delta, LowRankDelta
from .base import Provenance

# Entries of the configuration that say how it was trained or where it belongs, not what it computes.
_HARMLESS = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "eva_config", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha",
    "lora_bias", "lora_dropout", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
# Ways to begin that leave the network's own weights as they are.
_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")
_PREFIX = "base_model.model."
# What follows the path of a module in the names of the tensors.
_ENDS = {
    ".lora_A.weight": "down", ".lora_embedding_A": "down", ".lora_B.weight": "up", ".lora_embedding_B": "up",
    ".lora_B.bias": "bias",
}  # fmt: skip
# A copy of the network's own weight, which PEFT keeps for embeddings.
_COPIES = (".base_layer.weight",)


def adapter(folder: str | Path) -> AdapterEdit:
    """The LoRA of a folder that PEFT wrote (`adapter_config.json`, `adapter_model.safetensors`).

    Rank-stabilised scaling, rank and alpha by module, embeddings and the bias of `lora_B` are understood. What would
    compute something else (DoRA, other kinds of adapter, trained biases, modules saved whole) is refused, not left out.

    Raises `MissingFile`, `BadFile`, `NotSupported`. Whether it fits is decided where it is used: PEFT records no
    fingerprint of the model, so shapes are all that can be checked, until the edit is saved by a training here.
    """
    folder = Path(folder)
    config = _config(folder / "adapter_config.json")
    _refuse(config, folder.name)
    try:
        deltas = _deltas(_tensors(folder), config)
        if not deltas:
            raise BadFile(f"'{folder.name}' holds no LoRA tensors")
        recipe = {"peft": str(config.get("peft_version")), "base": str(config.get("base_model_name_or_path"))}
        return AdapterEdit(tuple(deltas), Provenance(recipe=recipe))
    except (NotSupported, BadFile, MissingFile):
        raise
    except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, RuntimeError, OptrodeError) as problem:
        raise BadFile(f"'{folder.name}' is damaged: {type(problem).__name__} at {one_line(problem)}") from problem


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFile(f"there is no '{path.name}' in '{path.parent}': name a folder that PEFT saved an adapter to")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as problem:
        raise BadFile(f"'{path.name}' in '{path.parent.name}' is no JSON") from problem
    if not isinstance(config, dict):
        raise BadFile(f"'{path.name}' in '{path.parent.name}' is no JSON object")
    return config


def _refuse(config: dict[str, Any], name: str) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise NotSupported(f"'{name}' is a PEFT adapter of type {shown(kind)}: LORA is the one that can be read")
    if config.get("bias", "none") != "none":
        raise NotSupported(f"'{name}' was trained with bias={shown(config['bias'])}: only adapters without can be read")
    if config.get("init_lora_weights", True) not in _BEGINNINGS:
        raise NotSupported(
            f"'{name}' began as {shown(config['init_lora_weights'])}, which changes the network's own weights: save it "
            "with path_initial_model_for_weight_conversion first"
        )
    for entry, value in config.items():
        if entry not in _HARMLESS and value:
            raise NotSupported(f"'{name}' uses {plain(entry)}, which this version does not know how to apply")


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        if (folder / "adapter_model.bin").is_file():
            raise NotSupported(f"'{folder.name}' holds a pickle, which may run code: save it again as safetensors")
        raise MissingFile(f"there is no 'adapter_model.safetensors' in '{folder}'")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as problem:
        raise BadFile(f"'{path.name}' in '{folder.name}' is damaged: {one_line(problem)}") from problem


def _deltas(tensors: dict[str, Tensor], config: dict[str, Any]) -> list[Delta]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.endswith(_COPIES):
            continue
        end = next((end for end in _ENDS if name.endswith(end)), None)
        if end is None or not name.startswith(_PREFIX):
            raise NotSupported(f"the tensor {shown(name)} is no part of a LoRA")
        path = name.removeprefix(_PREFIX).removesuffix(end)
        parts.setdefault(path, {})[_ENDS[end]] = tensor
    deltas: list[Delta] = []
    for path, found in parts.items():
        scale = _scale(path, found["down"].shape[0], config)
        deltas.append(LowRankDelta(path, found["down"], found["up"], scale=scale))
        if "bias" in found:
            deltas.append(BiasDelta(path, found["bias"], scale=scale))
    return deltas


def _scale(path: str, rank: int, config: dict[str, Any]) -> float:
    """alpha / rank, or alpha / sqrt(rank) where it is rank-stabilised (arXiv 2312.03732)."""
    alpha = config["lora_alpha"]
    patterns = config.get("alpha_pattern") or {}
    for pattern, own in patterns.items():
        name = pattern.removeprefix("^")
        if not re.fullmatch(r"[\w.-]+", name):
            raise NotSupported(
                f"alpha_pattern {shown(pattern)} is a regular expression: only names of modules can be read"
            )
        if path == name or (pattern == name and path.endswith(f".{name}")):
            alpha = own
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise TypeError(f"{shown(alpha)}, which is no alpha")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
