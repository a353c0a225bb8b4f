from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import optrode as op

ROOT = Path(__file__).parents[2]
# Of unequal lengths, so that every forward is padded, and some longer than the contexts that tests use.
TEXTS = [f"Text number {number}. " + "The cat sat on the mat. " * (number % 5) for number in range(24)]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)


@pytest.fixture(scope="session")
def make_store(llama: op.Model, texts: list[str]) -> Callable[..., op.Store]:
    """A store of the tiny network in several shards; options of `harvest` go over those of here."""

    def make(to: Any, **options: Any) -> op.Store:
        given = {"sites": "layers.{0,2}.out", "shard_rows": 150, "tokens_per_forward": 120, "tokens": 700} | options
        model, data = given.pop("model", llama), given.pop("data", texts)
        return op.harvest(model, data, given.pop("sites"), to=to, **given)

    return make


@pytest.fixture(scope="session")
def stored(make_store: Callable[..., op.Store], tmp_path_factory: pytest.TempPathFactory) -> op.Store:
    """One store that no test changes, kept as it is."""
    return make_store(tmp_path_factory.mktemp("stored") / "store")


@pytest.fixture(scope="session")
def whole(stored: op.Store) -> torch.Tensor:
    """All rows of its last site."""
    return torch.cat([shard.values("layers.2.out") for shard in stored.shards])


@pytest.fixture(scope="session")
def killing() -> ModuleType:
    """`tools/kill_harvest.py`."""
    spec = importlib.util.spec_from_file_location("kill_harvest", ROOT / "tools" / "kill_harvest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
