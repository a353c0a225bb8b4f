"""A sparse dictionary of one site: encode, decode, and the edits that come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..activations import Activations
from ..edits import SiteEdit, add, function
from ..errors import BadInput, NotSupported, WrongShape
from ..positions import Positions
from .encodings import Encoding, TopK

Undo = Callable[[Tensor], Tensor]
NORMALISATIONS = ("none", "layer_norm", "constant_norm")
# Added to the deviation that `layer_norm` divides by.
_EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class Dictionary:
    """h = features @ decoder + decoder_bias, nearly, with few features above zero.

    `encoder` is [width, feature], `decoder` [feature, width], `decoder_bias` [width]; `encoding` makes features of the
    product with the encoder. `centred`: whether the decoder's bias is taken off before encoding. `normalisation` of the
    activation, undone after decoding: `layer_norm` takes off the mean and divides by the deviation (n - 1) of each
    vector, `constant_norm` gives it the length sqrt(width). `by_head`: the site has a head axis, which is flattened.
    `about`: what its maker says of it.

    It computes in float32 or wider. Every call moves the tensors to where the activation is: use `to` for a device.
    """

    site: str
    encoder: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    encoding: Encoding
    centred: bool = True
    normalisation: str = "none"
    by_head: bool = False
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.normalisation not in NORMALISATIONS:
            raise BadInput(f"normalisation '{self.normalisation}' is none of {', '.join(NORMALISATIONS)}")
        wanted = {"encoder": [self.width, self.size], "decoder_bias": [self.width]}
        for name, shape in wanted.items():
            own = list(getattr(self, name).shape)
            if own != shape:
                raise WrongShape(f"the {name} is {own}, and the decoder asks for {shape}")
        for name, value in self.encoding.tensors().items():
            if tuple(value.shape) != (self.size,):
                raise WrongShape(f"the {name} of the encoding is {list(value.shape)}, not [{self.size}]")

    @property
    def width(self) -> int:
        """Length of an activation."""
        return self.decoder.shape[-1]

    @property
    def size(self) -> int:
        """Number of features."""
        return self.decoder.shape[0]

    @property
    def sites(self) -> tuple[str, ...]:
        return (self.site,)

    def __call__(self, activations: Activations) -> Tensor:
        """Features of activations that were read, as `encode` gives them: a dictionary is a `Score`."""
        return self.encode(activations)

    def to(self, *arguments: Any) -> Dictionary:
        """The same on another device or in another precision."""
        moved = {name: getattr(self, name).to(*arguments) for name in ("encoder", "decoder", "decoder_bias")}
        return replace(self, **moved, encoding=self.encoding.to(*arguments))

    # Activations and features ---------------------------------------------------------------------------------------

    def encode(self, h: Tensor | Activations) -> Tensor:
        """Activations [..., width] ([..., head, width] of a site with heads), or those of a read -> [..., feature].

        Raises `WrongShape` for another width, `UnknownSite` where the site was not read.
        """
        return self._encoded(self._rows(h))[0]

    def decode(self, features: Tensor, like: Tensor | None = None) -> Tensor:
        """Features [..., feature] -> activations [..., width], heads side by side.

        `like`: the activations that were encoded, which a dictionary with a normalisation needs to undo it.
        Raises `BadInput` where they are missing.
        """
        if like is None and self.normalisation != "none":
            raise BadInput(f"this dictionary undoes its {self.normalisation}: give the activations too, as like=")
        undo = self._normalised(self._rows(like))[1] if like is not None else _nothing
        return self._decoded(features, undo)

    def reconstruct(self, h: Tensor | Activations) -> Tensor:
        """What the dictionary makes of activations, in their own shape."""
        value = h[self.site] if isinstance(h, Activations) else h
        features, undo = self._encoded(self._rows(value))
        return self._decoded(features, undo).reshape(value.shape)

    def _rows(self, h: Tensor | Activations) -> Tensor:
        value = h[self.site] if isinstance(h, Activations) else h
        if self.by_head and value.dim() > 1 and value.shape[-2] * value.shape[-1] == self.width:
            value = value.flatten(-2)
        if value.shape[-1] != self.width:
            raise WrongShape(f"the activations are {list(value.shape)}, and this dictionary has width {self.width}")
        return value.to(torch.promote_types(value.dtype, torch.float32))

    def _encoded(self, h: Tensor) -> tuple[Tensor, Undo]:
        own = self._like(h)
        normal, undo = self._normalised(h)
        centred = normal - own.decoder_bias if self.centred else normal
        return own.encoding(centred @ own.encoder), undo

    def _decoded(self, features: Tensor, undo: Undo) -> Tensor:
        own = self._like(features)
        norms = own.encoding.norms if isinstance(own.encoding, TopK) else None
        scaled = features if norms is None else features / norms
        return undo(scaled.to(own.decoder.dtype) @ own.decoder + own.decoder_bias)

    def _like(self, value: Tensor) -> Dictionary:
        dtype = torch.promote_types(value.dtype, torch.float32)
        same = self.decoder.device == value.device and self.decoder.dtype == dtype
        return self if same else self.to(value.device, dtype)

    def _normalised(self, h: Tensor) -> tuple[Tensor, Undo]:
        if self.normalisation == "layer_norm":
            mean = h.mean(-1, keepdim=True)
            deviation = (h - mean).std(-1, keepdim=True)
            return (h - mean) / (deviation + _EPSILON), lambda new: new * deviation + mean
        if self.normalisation == "constant_norm":
            factor = self.width**0.5 / h.norm(dim=-1, keepdim=True)
            return h * factor, lambda new: new / factor
        return h, _nothing

    # Edits ------------------------------------------------------------------------------------------------------------

    def steer(self, feature: int, positions: str | Positions = "all") -> SiteEdit:
        """h + decoder[feature]: as if the feature were higher by 1; `* s` for more. An addition, which can be saved."""
        (number,) = self._checked([feature])
        direction = self.decoder[number]
        if isinstance(self.encoding, TopK) and self.encoding.norms is not None:
            direction = direction / self.encoding.norms[number]
        if self.by_head:
            raise NotSupported("a direction over all heads is no vector of one: use set, which knows the heads")
        return add(self.site, direction, positions)

    def set(self, features: Mapping[int, float], positions: str | Positions = "all") -> SiteEdit:
        """Features put to values, 0 to take them out; what the dictionary leaves unexplained stays as it is.

        Only the change goes through the decoder: h + decode(new features) - decode(features). Cannot be saved, since it
        is a function; see `optrode.edits.function`.
        """
        numbers = self._checked(list(features))
        values = torch.tensor([float(features[number]) for number in features])

        def changed(h: Tensor) -> Tensor:
            rows = self._rows(h)
            before, undo = self._encoded(rows)
            after = before.clone()
            after[..., numbers] = values.to(after.device, after.dtype)
            return h + (self._decoded(after, undo) - self._decoded(before, undo)).reshape(h.shape).to(h.dtype)

        return function(self.site, changed, positions)

    def splice(self, positions: str | Positions = "all") -> SiteEdit:
        """The reconstruction in place of the activation: what the network does without what is left unexplained."""
        return function(self.site, lambda h: self.reconstruct(h).to(h.dtype), positions)

    def _checked(self, features: Sequence[int]) -> list[int]:
        for number in features:
            if not 0 <= number < self.size:
                raise BadInput(f"there is no feature {number}: this dictionary has 0 to {self.size - 1}")
        return list(features)

    def __repr__(self) -> str:
        kind = type(self.encoding).__name__
        return f"Dictionary({self.site}: {self.size} features of width {self.width}, {kind})"


def _nothing(value: Tensor) -> Tensor:
    return value
