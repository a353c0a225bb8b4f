"""Folders that SAELens saved a dictionary to: `cfg.json` and `sae_weights.safetensors`; no code is run.

Folders of version 6, and older ones whose entries all stand at the top of the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..aliases import addresses_of
from ..errors import BadFile, MissingFile, NotSupported, WrongShape
from ..messages import one_line, shown
from .dictionary import Dictionary
from .encodings import Encoding, Gate, Jump, Relu, TopK

if TYPE_CHECKING:
    from ..host import Host

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
# Kind -> the tensors of its encoding, each [feature]; every kind has the encoder, the decoder and its bias besides.
_TENSORS = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "r_mag", "b_mag"),
}
_NORMALISATIONS = {"none": "none", "layer_norm": "layer_norm", "constant_norm_rescale": "constant_norm"}
# Factors of older versions, which count for nothing while they are one.
_FACTORS = ("scaling_factor", "finetuning_scaling_factor")
_LONGEST_CONFIG = 2**20
_LONGEST_NAME = 200
_MOST = 2**26


def load_saelens(folder: str | Path, *, site: str | None = None, model: Host | None = None) -> Dictionary:
    """The dictionary in a folder that SAELens saved: of the kinds standard, topk, jumprelu and gated; in float32.

    Its site is what the config calls `hook_name`, such as `blocks.8.hook_resid_pre`, as an address; `site` says another
    one. With a `model`, the site and the width are checked, and names that depend on the network (`mlp.hook_pre`)
    become addresses. SAELens records no fingerprint of the network: `about["model_name"]` is all that it says.

    Raises `MissingFile`, `BadFile`, `NotSupported` for other kinds and for what would compute something else, and with
    a model `UnknownSite` and `WrongShape`.
    """
    folder = Path(folder)
    config = _config(folder)
    about = {**config, **_table(config.get("metadata"))}
    kind = _kind(config, folder.name)
    width, size = (_whole(config, name, folder.name) for name in ("d_in", "d_sae"))
    tensors = _tensors(folder, kind, width, size)
    hook = about.get("hook_name") or about.get("hook_point")
    found = Dictionary(
        site=_site(site or hook, folder.name, model),
        encoder=tensors["W_enc"],
        decoder=tensors["W_dec"],
        decoder_bias=tensors["b_dec"],
        encoding=_encoding(kind, config, tensors, folder.name),
        centred=bool(config.get("apply_b_dec_to_input", True)),
        normalisation=_normalisation(config, folder.name),
        by_head=_by_head(config, hook),
        about={key: value for key, value in about.items() if key != "metadata"},
    )
    if about.get("hook_head_index") is not None:
        raise NotSupported(f"'{folder.name}' is for head {shown(about['hook_head_index'])} alone, which has no site")
    in_stream = found.site.endswith((".in", ".out", ".mid"))
    if model is not None and in_stream and model.width not in (None, found.width):
        raise WrongShape(f"the dictionary has width {found.width}, and {model.name} has {model.width}")
    return found


# The config -----------------------------------------------------------------------------------------------------------


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise MissingFile(f"there is no '{CONFIG}' in '{folder}': name a folder that SAELens saved a dictionary to")
    if path.stat().st_size > _LONGEST_CONFIG:
        raise BadFile(f"'{CONFIG}' in '{folder.name}' is longer than a config can be")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as problem:
        raise BadFile(f"'{CONFIG}' in '{folder.name}' is no JSON") from problem
    if not isinstance(config, dict):
        raise BadFile(f"'{CONFIG}' in '{folder.name}' is no JSON object")
    return config


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _kind(config: dict[str, Any], name: str) -> str:
    kind = config.get("architecture", "standard")
    if not isinstance(kind, str) or kind not in _TENSORS:
        raise NotSupported(f"'{name}' is of the kind {shown(kind)}, where {', '.join(_TENSORS)} can be read")
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if activation not in ("relu", "topk"):
        raise NotSupported(f"'{name}' has the activation function {shown(activation)}, where relu and topk can be read")
    if config.get("finetuning_scaling_factor"):
        raise NotSupported(f"'{name}' uses finetuning_scaling_factor, which this version does not know how to apply")
    return "topk" if kind == "standard" and activation == "topk" else kind


def _normalisation(config: dict[str, Any], name: str) -> str:
    value = config.get("normalize_activations") or "none"
    if not isinstance(value, str) or value not in _NORMALISATIONS:
        why = "its factor is not in the folder: fold it in SAELens and save again"
        raise NotSupported(
            f"'{name}' has normalize_activations {shown(value)}"
            + (f", and {why}" if value in (True, "expected_average_only_in") else ", which this version does not know")
        )
    return _NORMALISATIONS[value]


def _by_head(config: dict[str, Any], hook: Any) -> bool:
    reshape = config.get("reshape_activations")
    if reshape not in (None, "none", "hook_z"):
        raise NotSupported(f"reshape_activations {shown(reshape)} is not known to this version")
    return reshape == "hook_z" or (reshape is None and isinstance(hook, str) and "hook_z" in hook)


def _whole(config: dict[str, Any], key: str, name: str) -> int:
    value = config.get(key)
    if type(value) is not int or not 0 < value <= _MOST:
        raise BadFile(f"'{name}' says {key} is {shown(value)}, which is no size")
    return value


def _site(hook: Any, name: str, model: Host | None) -> str:
    if not isinstance(hook, str) or not hook:
        raise BadFile(f"'{name}' does not say which activation it is for: give site=")
    if len(hook) > _LONGEST_NAME or not hook.isprintable():
        raise BadFile(f"'{name}' is for {shown(hook)}, which is no name of an activation: give site=")
    if model is not None:
        (found,) = model.match(hook)[:1]
        return found.address
    groups = addresses_of(hook)
    # A name that stands for one of several sites stays as it is: a model will tell.
    return groups[0][0] if groups and len(groups) == 1 and len(groups[0]) == 1 else hook


# The weights ----------------------------------------------------------------------------------------------------------


def _tensors(folder: Path, kind: str, width: int, size: int) -> dict[str, Tensor]:
    """Every tensor the kind has, float32, with the shapes that the config gives them; read only once these fit."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    if not path.is_file():
        raise MissingFile(f"there is no '{WEIGHTS}' in '{folder}'")
    wanted = {"W_enc": (width, size), "W_dec": (size, width), "b_dec": (width,)}
    wanted |= dict.fromkeys(_TENSORS[kind], (size,))
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            logarithm = "log_threshold" in shapes and "threshold" not in shapes
            if logarithm and "threshold" in wanted:
                wanted["log_threshold"] = wanted.pop("threshold")
            _check_shapes(shapes, wanted, size, folder.name)
            found = {name: file.get_tensor(name).float() for name in shapes}
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as problem:
        raise BadFile(f"'{WEIGHTS}' in '{folder.name}' is damaged: {one_line(problem)}") from problem
    for name, value in found.items():
        if not bool(torch.isfinite(value).all()):
            raise BadFile(f"'{name}' in '{folder.name}' holds NaN or infinity")
        if name in _FACTORS and not bool((value == 1).all()):
            raise NotSupported(f"'{folder.name}' has a {name} other than 1, which this version does not apply")
    if logarithm:
        found["threshold"] = found.pop("log_threshold").exp()
    return found


def _check_shapes(shapes: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], size: int, name: str) -> None:
    for tensor, shape in shapes.items():
        expected = wanted.get(tensor, (size,) if tensor in _FACTORS else None)
        if expected is None:
            raise NotSupported(f"'{name}' has a tensor {shown(tensor)}, which this kind of dictionary does not use")
        if shape != expected:
            raise BadFile(f"{shown(tensor)} in '{name}' is {list(shape)}, and its config asks for {list(expected)}")
    missing = sorted(wanted.keys() - shapes.keys())
    if missing:
        raise BadFile(f"'{name}' has no tensor '{missing[0]}'")


def _encoding(kind: str, config: dict[str, Any], tensors: dict[str, Tensor], name: str) -> Encoding:
    if kind == "standard":
        return Relu(tensors["b_enc"])
    if kind == "jumprelu":
        return Jump(tensors["b_enc"], tensors["threshold"])
    if kind == "gated":
        return Gate(tensors["b_gate"], tensors["r_mag"].exp(), tensors["b_mag"])
    k = config.get("k", _table(config.get("activation_fn_kwargs")).get("k"))
    if type(k) is not int or not 0 < k <= len(tensors["b_enc"]):
        raise BadFile(f"'{name}' keeps {shown(k)} features of {len(tensors['b_enc'])}, which is no number of them")
    norms = tensors["W_dec"].norm(dim=-1) if config.get("rescale_acts_by_decoder_norm") else None
    return TopK(tensors["b_enc"], k, norms)
