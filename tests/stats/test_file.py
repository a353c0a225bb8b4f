"""Statistics that somebody made on purpose: the checksum fits, and what the file says is not what `save` writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import optrode as op
from optrode.errors import BadFile
from optrode.stats.accumulator import Accumulator
from optrode.stats.choice import NAMES, accumulators
from optrode.stats.file import write_file
from optrode.stats.statistics import Statistics


def _forged(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Path:
    """The file with its description or tensors changed, and its checksum made again."""
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["optrode"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    described.pop("crc32")
    change(described, tensors)
    return write_file(path, described, tensors)


@pytest.mark.parametrize("shape", [[10**12], [2**62, 4], [-3], [2.0], "x", None, [[3]], [10**400]])
@pytest.mark.parametrize("kind", sorted(one.kind for one in accumulators(NAMES, (3,)).values()))
def test_shapes_that_are_lies_take_no_memory(kind: str, shape: Any, tmp_path: Path):
    one = accumulators(NAMES, (3,))[kind]
    one.update(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))
    path = one.save(tmp_path / "one.stats")
    _forged(path, lambda described, tensors: described.update(shape=shape))
    sizeless = (
        kind in ("count", "norms", "magnitudes")
        and isinstance(shape, list)
        and all(type(n) is int and n >= 0 for n in shape)
    )
    if sizeless:
        # They hold nothing for each unit.
        Accumulator.load(path).result()
        return
    with pytest.raises(BadFile, match="damaged"):
        Accumulator.load(path)


SETTINGS = {
    "top": {"k": 10**12}, "norms": {"k": 10**12}, "histogram": {"edges": [1.0, float("nan")]},
    "moments": {"order": 10**9},
    "quantiles": {"k": 10**9},
}  # fmt: skip


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_that_are_lies(kind: str, tmp_path: Path):
    path = accumulators(NAMES, (3,))[kind].save(tmp_path / "one.stats")
    _forged(path, lambda described, tensors: described.update(settings=SETTINGS[kind]))
    with pytest.raises(BadFile, match="settings"):
        Accumulator.load(path)


def _change(name: str) -> Callable[[dict[str, Any], dict[str, Any]], Any]:
    changes: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
        "kind": lambda d, t: d["sites"][0]["accumulators"]["count"].update(kind=["count"]),
        "unknown kind": lambda d, t: d["sites"][0]["accumulators"]["count"].update(kind="\x1b" * 5000),
        "fewer rows than none": lambda d, t: t.update({"0/count/rows": torch.tensor([-1, 0])}),
        "infinite rows": lambda d, t: t.update({"0/count/rows": torch.tensor([float("inf"), 0.0])}),
        "info": lambda d, t: d.update(info=[1]),
        "unit": lambda d, t: d["info"].update(unit=[3]),
        "no count": lambda d, t: d["sites"][0]["accumulators"].pop("count"),
        "another's name": lambda d, t: d["sites"][0]["accumulators"].update(
            count=d["sites"][0]["accumulators"]["moments"]
        ),
        "data": lambda d, t: d["info"].update(data=3),
        "pairs": lambda d, t: d["cross"][0].update(shapes=[[10**6], [10**6]]),
        "format": lambda d, t: d.update(format="\n" * 5000),
    }
    return changes[name]


CHANGES = ["kind", "unknown kind", "fewer rows than none", "infinite rows", "info", "data", "pairs", "format"]


@pytest.mark.parametrize("name", [*CHANGES, "unit", "no count", "another's name"])
def test_values_that_save_does_not_write(name: str, llama: op.Model, tmp_path: Path):
    sites = ["layers.0.out", "layers.1.out"]
    found = op.stats(llama, ["The cat sat."], sites, collect="mean", cross=[(sites[0], sites[1])])
    path = _forged(found.save(tmp_path / "a.stats"), _change(name))
    with pytest.raises(BadFile) as refused:
        Statistics.load(path)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


def test_numbers_that_numpy_does_not_know(tmp_path: Path):
    save_file({"a": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "a.stats", metadata={"optrode": '{"crc32": 1}'})
    with pytest.raises(BadFile, match="checksum"):
        Statistics.load(tmp_path / "a.stats")


def test_sums_that_no_numbers_have_still_give_a_result(tmp_path: Path):
    one = accumulators(["norms"], (3,))["norms"]
    one.update(torch.ones(4, 3))
    path = one.save(tmp_path / "one.stats")
    # A sum of squares of zero beside a sum that is none.
    _forged(path, lambda described, tensors: tensors["moments/sum_2"].zero_())
    assert Accumulator.load(path).result()["norm_deviation"].item() == 0
