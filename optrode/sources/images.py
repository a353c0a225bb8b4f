"""Pictures to pixel tensors, without torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from optrode.errors import BadInput


@dataclass(frozen=True)
class ImageProcessor:
    """Centre crop, resize, normalise: what EfficientNet-Lite saw in evaluation.

    side: height and width of the result in pixels.
    crop: share of the shorter side that the square centre crop keeps.
    mean, std: on the 0 to 255 scale, the same for the three channels.

    The crop comes before the resize, so that one resampling is enough. Resampling is bicubic with antialiasing.

    >>> processor = ImageProcessor(side=4)
    >>> processor([np.full((10, 8, 3), 255, np.uint8)])["pixel_values"][0, 0, 0, 0].item()
    1.0
    """

    side: int = 224
    crop: float = 224 / 256
    mean: float = 127.0
    std: float = 128.0

    def __call__(self, images: Sequence[Any] | Any, return_tensors: str = "pt") -> dict[str, Tensor]:
        """{"pixel_values": float32 (N, 3, side, side)} of PIL images or (H, W, 3) uint8 arrays, one or several.

        return_tensors: only "pt"; there so that it can be called like a transformers processor.
        Raises BadInput for no image at all and for arrays of another shape or dtype.
        """
        if return_tensors != "pt":
            raise BadInput(f'return_tensors is {return_tensors!r}; this image processor only gives "pt"')
        one_image = hasattr(images, "convert") or (isinstance(images, np.ndarray) and images.ndim == 3)
        pictures = [images] if one_image else list(images)
        if not pictures:
            raise BadInput("no images: give at least one PIL image or (height, width, 3) uint8 array")
        return {"pixel_values": torch.stack([self._pixels(picture) for picture in pictures])}

    def _pixels(self, picture: Any) -> Tensor:
        array = _as_array(picture)
        height, width = array.shape[:2]
        kept = max(1, round(self.crop * min(height, width)))
        top, left = (height - kept + 1) // 2, (width - kept + 1) // 2
        # Contiguous, because a flipped or rotated array has strides that torch does not take.
        square = np.ascontiguousarray(array[top : top + kept, left : left + kept].transpose(2, 0, 1), np.float32)
        pixels = torch.from_numpy(square)
        if kept != self.side:
            size = (self.side, self.side)
            pixels = F.interpolate(pixels[None], size, mode="bicubic", align_corners=False, antialias=True)[0]
        return (pixels.clamp(0, 255) - self.mean) / self.std


def _as_array(picture: Any) -> np.ndarray:
    if hasattr(picture, "convert"):
        return np.asarray(picture.convert("RGB"))
    wanted = "an image must be a PIL image or a (height, width, 3) uint8 array"
    if not isinstance(picture, np.ndarray):
        raise BadInput(f"{wanted}, not {type(picture).__name__}")
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape or picture.dtype != np.uint8:
        raise BadInput(f"{wanted}, not an array of shape {picture.shape} and dtype {picture.dtype}")
    return picture
