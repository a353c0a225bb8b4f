"""In which precision values are kept, and what rounding to it did to them, measured on every value.

| name | what is kept | what rounding does |
|---|---|---|
| `own` | the network's own dtype | nothing |
| `float32` | 4 bytes | nothing to a float32 network |
| `bfloat16` | 2 bytes, the range of float32 | up to 1/256 of each value |
| `float16` | 2 bytes, up to 65,504 | up to 1/2048 of each value; refused where a value does not fit |
| `float16_scaled` | float16 after dividing each channel by a power of two, chosen for each block of rows | as float16 |

A scale moves the range and not the precision: it saves what float16 cannot hold (above 65,504, and below 6e-5 where
digits are lost), and rounds everything else like float16. Whole numbers are kept as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BadInput, NotFinite, did_you_mean

POLICIES = ("own", "float32", "bfloat16", "float16", "float16_scaled")
# The largest value of a scaled channel lies in [2^14, 2^15], far from both ends of float16.
_TOP = 15


def policy_of(dtype: torch.dtype | str | None) -> str:
    """The policy that a user's `dtype=` means. Raises `BadInput` for one that is not offered.

    >>> policy_of(torch.bfloat16), policy_of(None)
    ('bfloat16', 'own')
    """
    text = "own" if dtype is None else str(dtype).removeprefix("torch.")
    if text not in POLICIES:
        raise BadInput(f"activations are not kept as '{text}': {did_you_mean(text, POLICIES)}")
    return text


def kept_dtype(policy: str, own: torch.dtype) -> torch.dtype:
    """The dtype on disk of a site of dtype `own`."""
    if policy == "own" or not own.is_floating_point:
        return own
    return getattr(torch, policy.removesuffix("_scaled"))


def scales_of(largest: Tensor) -> Tensor:
    """Powers of two that bring channels of these largest magnitudes ([channel]) into the middle of float16.

    >>> scales_of(torch.tensor([70000.0, 1e-6, 0.0])).log2()
    tensor([  2., -34.,   0.])
    """
    # Down to the smallest power of two that float32 holds with all digits.
    exponent = (torch.frexp(largest.float())[1].float() - _TOP).clamp(min=-126)
    return torch.where(largest > 0, torch.exp2(exponent), torch.ones_like(exponent))


class Rounding:
    """What rounding did to one site of one shard: largest |error|, and |error| relative to |value| over all values."""

    def __init__(self) -> None:
        self.largest, self.error, self.size = 0.0, 0.0, 0.0

    def keep(self, site: str, values: Tensor, out: Tensor, scale: Tensor | None = None) -> None:
        """Round `values` ([row, feature]) into `out` of the same shape, and count what that did.

        Raises `NotFinite` where a finite value does not fit.
        """
        if scale is None:
            out.copy_(values)
            if torch.promote_types(values.dtype, out.dtype) == out.dtype:
                return
            values = _wide(values)
            difference = out.to(values.device, values.dtype).sub_(values)
        else:
            values = _wide(values)
            out.copy_(values / scale)
            difference = out.to(values.device, values.dtype).mul_(scale).sub_(values)
        low, high = torch.aminmax(difference)
        largest = max(-float(low), float(high))
        if not largest < float("inf"):
            difference, values = _finite(site, difference, values, out)
            largest = float(difference.abs().max())
        self.largest = max(self.largest, largest)
        self.error += _squares(difference)
        self.size += _squares(values)

    def figures(self) -> dict[str, float]:
        """`max_abs` in the activation's own units; `relative_rms`, the root of the mean square error over that of the
        values. Four digits, as in a receipt."""
        relative = (self.error / self.size) ** 0.5 if self.size else 0.0
        return {"max_abs": float(f"{self.largest:.4g}"), "relative_rms": float(f"{relative:.4g}")}


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _squares(values: Tensor) -> float:
    flat = values.reshape(-1)
    return float(torch.dot(flat, flat))


def _finite(site: str, difference: Tensor, values: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Errors and values without those that were not finite to begin with, such as scores that are masked."""
    finite = torch.isfinite(values)
    lost = finite & ~torch.isfinite(out.to(values.device))
    if bool(lost.any()):
        reached = float(values[lost].abs().max())
        raise NotFinite(
            f"{site} reaches {reached:.4g}, which {str(out.dtype).removeprefix('torch.')} cannot hold "
            f"(it ends at {torch.finfo(out.dtype).max:.5g}): use dtype='float16_scaled', 'bfloat16' or 'float32'"
        )
    zero = torch.zeros((), dtype=values.dtype, device=values.device)
    return torch.where(finite, difference, zero), torch.where(finite, values, zero)


def restored(values: Tensor, scale: Tensor) -> Tensor:
    """Scaled values ([row, ...]) with their scale ([row, ...]) as float32."""
    return values.float() * scale
