"""Activations on disk: `harvest` writes a store, `open` reads it; nothing is ever loaded whole.

A store is a folder (or an fsspec URL) of shards. A shard holds whole examples: one safetensors file of the values, two
Parquet files that say what the rows and the documents are, and a receipt that is written last. A shard without receipt
does not exist, so that a killed harvest leaves whole shards only and goes on with the next.
"""

from .harvest import harvest
from .opened import Store
from .opened import open_store as open
from .plan import HarvestPlan, plan_harvest
from .shards import Shard
from .verify import Fault

__all__ = ["Fault", "HarvestPlan", "Shard", "Store", "harvest", "open", "plan_harvest"]
