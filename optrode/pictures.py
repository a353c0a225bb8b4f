"""From pictures to tensors, with the model's own image processor.

A picture is a PIL image, an array of [row, column], [row, column, 3] or [row, column, 4] (uint8, bool, or floats from
0 to 1, as scikit-image has them), or the path of a file. A text is a path only for a network that takes no text; for
all others write `pathlib.Path`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BadFile, BadInput, MissingFile, NotSupported

if TYPE_CHECKING:
    from torch import Tensor

    from .host import Host

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def are_pictures(host: Host, inputs: Any) -> bool:
    """Whether inputs of a read are pictures, and not texts or tensors."""
    if isinstance(inputs, str) or (isinstance(inputs, list | tuple) and inputs and isinstance(inputs[0], str)):
        return host.tokenizer is None and host.processor is not None
    first = inputs[0] if isinstance(inputs, list | tuple) and inputs else inputs
    return isinstance(first, Path | np.ndarray) or _is_image(first)


def pixels(host: Host, inputs: Any) -> dict[str, Tensor]:
    """The tensors that the model's image processor makes of one picture or several, [example, ...], in its dtype.

    Raises `NotSupported` for a model without image processor, `MissingFile` and `BadFile` for paths, `BadInput` for
    arrays that are no pictures.
    """
    if host.processor is None:
        raise NotSupported(f"{host.name} has no image processor: pass pixels, as in op.read(model, tensor)")
    pictures = [_opened(picture) for picture in _listed(inputs)]
    made = host.processor(pictures, return_tensors="pt")
    tensors = {name: value for name, value in made.items() if _is_tensor(value)}
    return {name: value.to(host.dtype) if value.is_floating_point() else value for name, value in tensors.items()}


def _listed(inputs: Any) -> Sequence[Any]:
    if isinstance(inputs, list | tuple):
        return inputs
    # A stack of pictures has one axis more than a picture.
    return list(inputs) if isinstance(inputs, np.ndarray) and inputs.ndim == 4 else [inputs]


def _opened(picture: Any) -> Any:
    """The picture as a PIL image of three channels."""
    from PIL import Image

    if isinstance(picture, str | Path):
        return _from_file(Path(picture).expanduser())
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(_as_bytes(picture))
    if not _is_image(picture):
        raise BadInput(f"a picture is a PIL image, an array or a path, not {type(picture).__name__}")
    return picture.convert("RGB")


def _from_file(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise MissingFile(f"there is no picture '{path}'")
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as problem:
        raise BadFile(f"'{path}' is no picture that can be read: {problem}") from problem


def _as_bytes(array: np.ndarray) -> np.ndarray:
    known = (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) and array.size
    if not known:
        raise BadInput(f"a picture is [row, column], [row, column, 3] or [row, column, 4], not {list(array.shape)}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        return (array * 255).round().astype(np.uint8)
    raise BadInput(f"a picture is of uint8, bool or floats from 0 to 1, not of {array.dtype}")


def _is_image(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "getbands")


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)
