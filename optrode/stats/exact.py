"""Sums without any rounding: the sum of float32 numbers or of their powers as whole numbers.

A product of float32 numbers is a whole number times a power of two. Such numbers are added as whole numbers, so that
neither order nor grouping matters: any way of cutting the data into batches, shards and processes gives the same sum
to the last bit. A mean or variance is rounded once, when it is asked for.

The fast path adds windows of 50 bits: `x + 1.5 * 2**(k + 52)` in float64 has `x` in units of `2**k` as the low bits of
its representation, which are added as int64. What a window leaves over goes to the next one. Numbers that are too
small beside the largest of their unit are few and are added one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from .rows import Rows

WINDOW = 50
_LIMB = 32
_LOW = np.int64(2**32 - 1)
# The smallest float32 number is 2**-149; powers have multiples of this as the unit they are counted in.
UNIT = -160
# How many numbers may be added one by one before another window is cheaper.
_FEW = 256
# How far below the largest value of its unit, in powers of two, a value may lie for the windows to hold it.
_GAPS = (25, 50, 75, 100, 150, 200, 280)


class ExactSum:
    """One whole number for each unit, in units of `2**(UNIT * power)`, as limbs of 32 bits: [limb, unit] int64."""

    def __init__(self, units: int, power: int):
        self.power = power
        limbs = (power * (128 - UNIT) + 64) // _LIMB + 3
        self.limbs = np.zeros((limbs, units), np.int64)
        self._added = 0

    def add(self, total: np.ndarray, exponent: np.ndarray) -> None:
        """Add `total * 2**exponent`, both int64 [unit]."""
        place = exponent - UNIT * self.power
        # Below the unit there are only zeros to shift out.
        below = np.clip(-place, 0, 63)
        total, place = total >> below, np.maximum(place, 0)
        limb, shift = place // _LIMB, place % _LIMB
        low, high = (total & _LOW).astype(np.uint64) << shift.astype(np.uint64), (total >> _LIMB) << shift
        unit = np.arange(len(total))
        self.limbs[limb, unit] += (low & np.uint64(_LOW)).astype(np.int64)
        self.limbs[limb + 1, unit] += (low >> np.uint64(_LIMB)).astype(np.int64) + (high & _LOW)
        self.limbs[limb + 2, unit] += high >> _LIMB
        self._carried_after(1)

    def add_one(self, unit: int, value: int) -> None:
        """Add a whole number, in this sum's own units, to one unit."""
        limb, sign = 0, 1 if value >= 0 else -1
        value = abs(value)
        while value:
            self.limbs[limb, unit] += sign * (value & int(_LOW))
            value, limb = value >> _LIMB, limb + 1
        self._carried_after(1)

    def merge(self, other: ExactSum) -> None:
        self.carry()
        other.carry()
        self.limbs += other.limbs

    def carry(self) -> None:
        """Leave less than 32 bits in each limb but the last, so that equal sums have equal limbs."""
        for limb in range(len(self.limbs) - 1):
            self.limbs[limb + 1] += self.limbs[limb] >> _LIMB
            self.limbs[limb] &= _LOW
        self._added = 0

    def totals(self) -> np.ndarray:
        """The sums as Python's whole numbers, [unit] object."""
        self.carry()
        total = np.zeros(self.limbs.shape[1], object)
        for limb in self.limbs[::-1]:
            total = total * 2**_LIMB + limb.astype(object)
        return total

    def _carried_after(self, added: int) -> None:
        self._added += added
        if self._added >= 2**28:
            self.carry()


def add_powers(sums: list[ExactSum], rows: Rows) -> None:
    """Add the first powers of all values to `sums`, which hold the powers 1, 2, ... in this order (up to 4)."""
    for part in rows.parts():
        if len(part):
            _add_part(sums, part)


def _add_part(sums: list[ExactSum], rows: Rows) -> None:
    largest = torch.maximum(rows.highest.abs(), rows.lowest.abs())
    exponent = torch.frexp(largest).exponent.long()
    gap, tiny = _gap(rows, exponent, 26 if len(sums) <= 2 else None)
    values = rows
    if len(tiny):
        _add_tiny(sums, rows, tiny)
        dense = rows.values.clone()
        dense[tiny[:, 0], tiny[:, 1]] = 0.0
        values = Rows(dense)
    plan = [_Windows(exponent, part, gap) for part in _PARTS if part.power <= len(sums)]
    for block in values.blocks():
        room = _scratch(tuple(block.shape))
        for windows, product in zip(plan, _products(block, len(sums), room), strict=True):
            windows.add(product, room)
    for windows in plan:
        for total, k in zip(windows.totals, windows.exponents, strict=True):
            sums[windows.part.power - 1].add(total.numpy(), k.numpy())


def _gap(rows: Rows, exponent: Tensor, first: int | None) -> tuple[int, Tensor]:
    """How deep windows must reach, and the few places [n, 2] of values that lie deeper still."""
    least = rows.values.abs().amin(0)
    for gap in ((first,) if first else ()) + _GAPS:
        bound = torch.ldexp(torch.ones_like(least, dtype=torch.float64), exponent - gap - 1)
        suspects = (least < bound).nonzero().flatten()
        if not len(suspects):
            return gap, suspects.new_empty(0, 2)
        some = rows.values[:, suspects]
        found = ((some != 0) & (some.abs() < bound[suspects].float())).nonzero()
        if len(found) <= _FEW:
            return gap, torch.stack([found[:, 0], suspects[found[:, 1]]], 1)
    raise AssertionError("float32 numbers lie within 280 powers of two")


def _add_tiny(sums: list[ExactSum], rows: Rows, tiny: Tensor) -> None:
    mantissa, exponent = np.frexp(rows.values[tiny[:, 0], tiny[:, 1]].numpy().astype(np.float64))
    whole = (mantissa * 2.0**24).astype(np.int64)
    for unit, value, power_of_two in zip(tiny[:, 1].tolist(), whole.tolist(), exponent.tolist(), strict=True):
        for power, total in enumerate(sums, 1):
            shift = (power_of_two - 24 - UNIT) * power
            total.add_one(unit, value**power << shift if shift >= 0 else value**power >> -shift)


class _Part:
    """A product that is exact in float64: its power, its bound `2**(power * e - below)`, and the bits it spans."""

    def __init__(self, power: int, below: int, span: int):
        self.power, self.below, self.span = power, below, span


# x; x²; x² = h + l with 24 bits each, so that x³ = hx + lx and x⁴ = h² + 2hl + l².
_PARTS = (
    _Part(1, 0, 24),
    _Part(2, 0, 48),
    _Part(3, 0, 49),
    _Part(3, 24, 48),
    _Part(4, 0, 50),
    _Part(4, 23, 49),
    _Part(4, 48, 48),
)
_UPPER_24_BITS = ~(2**29 - 1)


def _products(block: Tensor, powers: int, room: list[Tensor]) -> Iterator[Tensor]:
    """The products of `_PARTS` for a block, one after the other in the same memory."""
    wide, square, upper, product = room[:4]
    wide.copy_(block)
    yield wide
    if powers < 2:
        return
    torch.mul(wide, wide, out=square)
    yield square
    if powers < 3:
        return
    torch.bitwise_and(square.view(torch.int64), _UPPER_24_BITS, out=upper.view(torch.int64))
    lower = torch.sub(square, upper, out=square)
    yield torch.mul(upper, wide, out=product)
    yield torch.mul(lower, wide, out=product)
    if powers < 4:
        return
    yield torch.mul(upper, upper, out=product)
    yield torch.mul(upper, lower, out=product).mul_(2.0)
    yield torch.mul(lower, lower, out=product)


class _Windows:
    """The windows of one part: as many as hold all bits of every value within the gap."""

    def __init__(self, exponent: Tensor, part: _Part, gap: int):
        self.part = part
        count = -(-(part.power * gap + part.span) // WINDOW)
        top = part.power * exponent - part.below
        self.exponents = [top - WINDOW * (number + 1) for number in range(count)]
        ones = torch.ones(len(exponent), dtype=torch.float64)
        self._offsets = [torch.ldexp(1.5 * ones, k + 52) for k in self.exponents]
        self.totals = [torch.zeros(len(exponent), dtype=torch.int64) for _ in self.exponents]

    def add(self, product: Tensor, room: list[Tensor]) -> None:
        shifted, rest = room[4:]
        last = len(self.totals) - 1
        for number, (total, offset) in enumerate(zip(self.totals, self._offsets, strict=True)):
            torch.add(product, offset, out=shifted)
            total += shifted.view(torch.int64).sum(0) - len(product) * offset.view(torch.int64)
            if number < last:
                shifted.sub_(offset)
                product = torch.sub(product, shifted, out=rest)


@cache
def _scratch_of(shape: tuple[int, ...], thread: int) -> list[Tensor]:
    return [torch.empty(shape, dtype=torch.float64) for _ in range(6)]


def _scratch(shape: tuple[int, ...]) -> list[Tensor]:
    """Memory for a block's products: making it anew for each would take longer than all sums."""
    import threading

    if _scratch_of.cache_info().currsize > 64:
        _scratch_of.cache_clear()
    return _scratch_of(shape, threading.get_ident())
