"""Control vectors of llama.cpp and repeng: one GGUF file, one vector for each layer, added at every token.

Which layer `direction.K` means was read in their sources. llama.cpp puts it at place K - 1 of a buffer that begins
with layer 1, and adds what is at place K - 1 to what block K gives, blocks counted from 0. repeng measures at the
output of block K, adds there, and writes that K. So `direction.K` is an addition at `layers.K.out` for both, and block
0 has none: llama.cpp refuses a file with `direction.0`.

llama.cpp's own generator is the one that differs: it measures at the output of block K - 1 and writes `direction.K`.
Its files are read as they act in llama.cpp, which is one block after the place where they were measured.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BadFile, BadInput, NotSupported, OptrodeError
from ...gguf_format import Description, Header
from ...home import written_whole
from ...messages import shown
from ...positions import Positions
from ..base import Chain, Edit, Provenance, SiteEdit, SiteEditBase, Sum
from ..operators import Add
from .gguf_file import read_gguf
from .signing import Network, signed

ARCHITECTURE = "controlvector"
_DIRECTION = re.compile(r"direction\.(0|[1-9]\d{0,5})")
_SITE = re.compile(r"layers\.(\d+)\.out")
# What begins the keys that say where a file comes from, not what is to be done with it.
_HARMLESS = ("general.", "GGUF.")
_OWN = {f"{ARCHITECTURE}.model_hint", f"{ARCHITECTURE}.layer_count"}


def control_vector(path: str | Path, model: Network | None = None) -> SiteEditBase:
    """The edit of a control vector file (.gguf) that llama.cpp or repeng wrote: one addition for each layer.

    `direction.K` is added at `layers.K.out`, at every token, which is what llama.cpp does with it. With a `model`, the
    file's width and layers are checked and the edit takes the model's fingerprint along; the file has none.

    A file that says more than this version understands is refused rather than added: some programs keep directions that
    are to be projected out in the same format.

    Raises `MissingFile`, `BadFile`, `NotSupported`, and with a model `UnknownSite` and `WrongShape`.
    """
    path = Path(path)
    header, tensors = read_gguf(path, lambda found: _directions(found, path.name))
    recipe = {"imported": "control vector", "file": path.name}
    hint = header.values.get(f"{ARCHITECTURE}.model_hint")
    if isinstance(hint, str):
        recipe["model_hint"] = hint
    try:
        edits = [
            SiteEdit(f"layers.{_layer(name)}.out", Add(vector), provenance=Provenance(recipe=recipe))
            for name, vector in sorted(tensors.items(), key=lambda item: _layer(item[0]))
            if bool(vector.any())
        ]
    except OptrodeError as problem:
        raise BadFile(f"'{path.name}' is damaged: {problem}") from problem
    if not edits:
        raise BadFile(f"'{path.name}' holds only zeros")
    return signed(edits[0] if len(edits) == 1 else Sum(tuple(edits)), model)


def _directions(header: Header, name: str) -> list[Description]:
    """The tensors of the file, all of which have to be directions of one width."""
    if header.values.get("general.architecture") != ARCHITECTURE and not any(
        _DIRECTION.fullmatch(tensor.name) for tensor in header.tensors
    ):
        kind = shown(header.values.get("general.architecture"))
        raise BadFile(f"'{name}' is a GGUF file of the kind {kind}, no control vector: it has no direction.K")
    for key in header.values:
        if key not in _OWN and not key.startswith(_HARMLESS):
            raise NotSupported(f"'{name}' says {shown(key)}, which may change what its directions are for")
    if not header.tensors:
        raise BadFile(f"'{name}' holds no direction")
    for tensor in header.tensors:
        if not _DIRECTION.fullmatch(tensor.name):
            raise BadFile(f"'{name}' holds {shown(tensor.name)}, which is no direction.K")
        if len(tensor.shape) != 1 or tensor.shape != header.tensors[0].shape or not tensor.shape[0]:
            raise BadFile(f"'{name}' is damaged: the directions have to be vectors of one width")
    return list(header.tensors)


def _layer(name: str) -> int:
    return int(name.partition(".")[2])


# Writing -------------------------------------------------------------------------------------------------------------


def save_control_vector(edit: Edit, path: str | Path, model: Any = None) -> Path:
    """Write an edit as a control vector that llama.cpp and repeng read. The file is whole or absent.

    The format holds vectors that are added after blocks, at every token; strengths are multiplied in, and vectors for
    the same block are summed. Anything else is refused: it would be another edit there. `model` tells which layers a
    pattern such as `layers.*.out` selects, and its type for the file's `model_hint`.

    Raises `NotSupported` where the format cannot hold the edit, `BadInput` for a path that is a folder.
    """
    from gguf import GGUFWriter

    path = Path(path)
    if path.is_dir():
        raise BadInput(f"'{path}' is a folder: name a file in it, such as {path.name}/my.gguf")
    vectors = _vectors(edit, model)
    with written_whole(path) as aside:
        writer = GGUFWriter(aside, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", _hint(edit, model))
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
        for layer, vector in sorted(vectors.items()):
            writer.add_tensor(f"direction.{layer}", vector.float().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def _vectors(edit: Edit, model: Any) -> dict[int, Tensor]:
    """What is added after each block, float64, strengths multiplied in."""
    found: dict[int, Tensor] = {}
    for leaf, strength in _leaves(edit, 1.0):
        _refuse(leaf)
        for layer in _layers(leaf.site, model):
            vector = leaf.operator.tensors()["vector"].detach().cpu().double() * strength
            if layer in found and found[layer].shape != vector.shape:
                raise NotSupported(f"{leaf.site}: its vectors differ in width")
            found[layer] = found[layer] + vector if layer in found else vector
    if len({len(vector) for vector in found.values()}) > 1:
        raise NotSupported("a control vector has one width, and these vectors differ in theirs")
    if not any(bool(vector.any()) for vector in found.values()):
        raise NotSupported("the edit adds nothing, so there is nothing to write: give it a strength other than 0")
    if not all(bool(torch.isfinite(vector.float()).all()) for vector in found.values()):
        raise NotSupported("with its strength the edit is too large for float32")
    return found


def _leaves(edit: Edit, strength: float) -> list[tuple[SiteEdit, float]]:
    """Additions do not depend on what they are added to, so that sums and chains of them are sums."""
    if isinstance(edit, SiteEdit):
        return [(edit, strength * edit.strength)]
    if isinstance(edit, Sum | Chain):
        inner = strength * (edit.strength if isinstance(edit, Chain) else 1.0)
        return [leaf for part in edit.parts for leaf in _leaves(part, inner)]
    raise NotSupported(
        f"a control vector holds vectors that are added at every token, no {type(edit).__name__}: save it as .edit"
    )


def _refuse(leaf: SiteEdit) -> None:
    """Say what of a leaf the format has no place for."""
    narrowed = [name for name in ("features", "heads", "keys", "experts") if getattr(leaf, name) is not None]
    if not isinstance(leaf.operator, Add) or leaf.operator.vector.dim() != 1:
        why = f"'{leaf.operator.name}' at {leaf.site} is no vector that is added"
    elif leaf.positions != Positions("all"):
        why = f"{leaf.site} is edited at '{leaf.positions.text}', and llama.cpp adds at every token"
    elif narrowed:
        why = f"{leaf.site} is edited at some {narrowed[0]} only"
    else:
        return
    raise NotSupported(f"a control vector cannot hold this edit: {why}; save it as .edit, or use edit.bake(model)")


def _layers(site: str, model: Any) -> list[int]:
    addresses = [site] if model is None else [found.address for found in model.match(site)]
    matches = [_SITE.fullmatch(address) for address in addresses]
    if model is None and matches[0] is None and re.fullmatch(r"layers\.[^.]+\.out", site):
        raise BadInput(f"how many layers '{site}' selects is for the model to say: give the model too")
    layers = []
    for address, match in zip(addresses, matches, strict=True):
        if match is None:
            raise NotSupported(f"a control vector is added at layers.N.out, and this edit acts at {address}")
        if match[1] == "0":
            raise NotSupported("llama.cpp adds nothing after block 0: a control vector begins with layers.1.out")
        layers.append(int(match[1]))
    return layers


def _hint(edit: Edit, model: Any) -> str:
    """The kind of network, which both programs keep and neither needs."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if isinstance(kind, str):
        return kind
    origins = [leaf.provenance for leaf in edit.leaves()] if isinstance(edit, SiteEditBase) else []
    names = [origin.recipe.get("model_hint") or origin.fingerprint.get("name") for origin in origins]
    return next((str(name) for name in names if name), "unknown")
