"""Exact sweeps: what every single patch does to the answer. See `optrode.engine.sweep.sweeping.sweep`."""

from .sweeping import sweep

__all__ = ["sweep"]
