"""Pieces of an array on as many threads as torch uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

# Below so many elements for each, a thread costs more than it saves.
LEAST = 1 << 18
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def pieces(count: int, width: int) -> list[tuple[int, int]]:
    """Start and end of each piece, at multiples of `width` but for the last end."""
    if not count:
        return []
    parts = max(1, min(torch.get_num_threads(), count // LEAST))
    step = -(-count // (parts * width)) * width
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def together(work: Callable[[int, int, int], int], parts: list[tuple[int, int]]) -> int:
    """Calls work(number, start, end) for each piece, the first one here. Gives the results joined by `or`."""
    if not parts:
        return 0
    if len(parts) == 1:
        return work(0, *parts[0])
    pool = _pool(len(parts) - 1)
    others = [pool.submit(work, number, *part) for number, part in enumerate(parts) if number]
    found = work(0, *parts[0])
    for other in others:
        found |= other.result()
    return found


def _pool(threads: int) -> ThreadPoolExecutor:
    """Of this process: threads do not come along into a fork."""
    key = os.getpid(), threads
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="optrode-functions")
    return _pools[key]
