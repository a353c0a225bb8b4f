"""Exact sweeps: what every single patch does to the answer. See `optrode.engine.sweep.sweeping.sweep`."""

from .plan import SweepPlan, plan_sweep
from .sweeping import sweep

__all__ = ["SweepPlan", "plan_sweep", "sweep"]
