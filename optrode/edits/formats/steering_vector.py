"""Vectors of the package steering-vectors, which its users keep with `torch.save`. Nothing in the file is run.

Such a file is a pickle. It is read by torch's reader for weights, which builds tensors, texts, numbers and tables, and
a `SteeringVector` as a plain record of ours; it refuses the name of anything else.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import BadFile, BadInput, MissingFile, NotSupported, OptrodeError, UnknownSite
from ...messages import one_line, shown
from ..base import Provenance, SiteEdit, SiteEditBase, Sum
from ..operators import Add
from .signing import signed

if TYPE_CHECKING:
    from ...host import Host
    from ...layouts import Port

_CLASS = "steering_vectors.steering_vector.SteeringVector"
# Kind of place -> how the package finds its modules: the shortest path within a block that has one of these in it.
_MODULES = {
    "decoder_block": ("",),
    "self_attn": ("attn", "attention"),
    "mlp": ("mlp",),
    "input_layernorm": ("ln_1", "input_layernorm"),
    "post_attention_layernorm": ("ln_2", "post_attention_layernorm"),
}
_MOST_LAYERS = 10_000


class _Record:
    """What a pickled `SteeringVector` becomes: its fields as attributes, and no function."""


def steering_vector(path: str | Path, model: Host | None = None) -> SiteEditBase:
    """The edit of a file that holds a `SteeringVector`: one addition for each of its layers, at every token.

    Also read: the two fields as a dictionary (`dataclasses.asdict`), and `layer_activations` alone. The place that the
    package calls `decoder_block` is `layers.N.out`. Its other places are modules that it finds by their names, so that
    they need a `model`; where that module's output is no named site, the address is `module:PATH`. With a `model`,
    width and layers are checked, and the edit takes the model's fingerprint along.

    Raises `MissingFile`, `BadFile`, `BadInput` where a model is needed, and with one `UnknownSite` and `WrongShape`.
    """
    path = Path(path)
    layers, kind = _fields(_read(path), path.name)
    recipe = {"imported": "steering vector", "file": path.name, "place": kind}
    edits = []
    for layer, vector in sorted(layers.items()):
        site = f"layers.{layer}.out" if kind == "decoder_block" else _site(kind, layer, model)
        try:
            edits.append(SiteEdit(site, Add(vector), provenance=Provenance(recipe=recipe)))
        except OptrodeError as problem:
            raise BadFile(f"'{path.name}' is damaged: {problem}") from problem
    return signed(edits[0] if len(edits) == 1 else Sum(tuple(edits)), model)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise MissingFile(f"there is no file '{path}'")
    _refuse_bombs(path)
    try:
        with torch.serialization.safe_globals([(_Record, _CLASS)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:
        raise BadFile(
            f"'{path.name}' holds more than a steering vector and is not read: {_named(problem)}; save its "
            "layer_activations alone with torch.save"
        ) from problem


def _named(problem: Exception) -> str:
    """What the reader stumbled over, without its advice to trust the file."""
    found = re.search(r"GLOBAL ([\w.]+)|global ([\w.]+)", str(problem))
    return f"it names {found[1] or found[2]}" if found else one_line(problem)


def _refuse_bombs(path: Path) -> None:
    """A file of torch keeps its tensors as they are: what is packed, or larger than the file, was made to do harm."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as problem:
        raise BadFile(f"'{path.name}' is no file that torch.save wrote: {one_line(problem)}") from problem
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise BadFile(f"'{path.name}' is no file that torch.save wrote: what it holds is larger than the file")


def _fields(found: Any, name: str) -> tuple[dict[int, Tensor], str]:
    """Vectors by layer and the kind of place, checked; the file is free to say anything."""
    if isinstance(found, _Record):
        found = dict(vars(found))
    if not isinstance(found, dict):
        raise BadFile(f"'{name}' holds {type(found).__name__}, no steering vector")
    layers = found.get("layer_activations", found)
    kind = found.get("layer_type", "decoder_block") if layers is not found else "decoder_block"
    if not isinstance(kind, str) or kind not in _MODULES:
        raise NotSupported(f"'{name}' is for {shown(kind)}, where {', '.join(_MODULES)} are known")
    if not isinstance(layers, dict) or not 0 < len(layers) <= _MOST_LAYERS:
        raise BadFile(f"'{name}' holds no vectors by layer")
    vectors = {}
    for layer, vector in layers.items():
        if type(layer) is not int or not 0 <= layer < _MOST_LAYERS:
            raise BadFile(f"'{name}' has {shown(layer)} where the number of a layer should be")
        vectors[layer] = _vector(vector, name)
    if len({len(vector) for vector in vectors.values()}) > 1:
        raise BadFile(f"'{name}' has vectors of several widths")
    return vectors, kind


def _vector(value: Any, name: str) -> Tensor:
    plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    if not plain or not value.is_floating_point() or value.dim() != 1 or not len(value):
        raise BadFile(f"'{name}' has something else than a vector of floating-point numbers at a layer")
    # One number may stand for a million: a vector is as long as what is kept of it.
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise BadFile(f"'{name}' has a vector that is longer than its numbers")
    return value.detach().float().contiguous().clone()


# Places ---------------------------------------------------------------------------------------------------------------


def _site(kind: str, layer: int, model: Host | None) -> str:
    """The address of the module's output that the package would change."""
    if model is None:
        raise BadInput(f"the file is for {kind}, which the package finds by the names of modules: give the model too")
    path = _module(kind, layer, model)
    for site in model.table.values():
        if (site.layer, site.module, site.tower) == (layer, path, "") and _whole(site.port):
            return site.address
    return f"module:{path}"


def _whole(port: Port) -> bool:
    """Whether a port is all that its module gives."""
    return port.side == "out" and port.part is None and port.heads is None and port.adds_to is None and not port.reruns


def _module(kind: str, layer: int, model: Host) -> str:
    if model.layout is None or layer >= model.layers:
        raise UnknownSite(f"{model.name} has {model.layers} layers, and the file has a vector for layer {layer}")
    block = model.blocks[layer]
    stem = next(path for path, module in model.paths.items() if module is block)
    names = [path for path, _ in block.named_modules() if path and any(mark in path for mark in _MODULES[kind])]
    if not names:
        raise UnknownSite(f"{model.name} has no module that looks like {kind} in its blocks")
    return f"{stem}.{min(names, key=len)}"
