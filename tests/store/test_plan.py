"""The plan of a harvest says what the harvest then does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import optrode as op
from optrode.cli import run
from optrode.errors import BadInput, StoreMismatch

TEXTS = ["one two three", "four five", "six seven eight nine ten", "eleven"] * 3


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dtype": "bfloat16", "shard_rows": 16},
        {"dtype": "float16_scaled", "shard_rows": 20, "tokens": 50},
        {"positions": "last_prompt"},
        {"context": 3, "shard_rows": 9, "tokens_per_forward": 12},
    ],
)
def test_counts_and_bytes_are_those_of_the_store(llama: op.Model, tmp_path: Path, settings: dict[str, Any]) -> None:
    plan = op.plan_harvest(llama, TEXTS, "layers.*.out", **settings)
    store = op.harvest(llama, TEXTS, "layers.*.out", to=tmp_path / "s", **settings)
    assert (plan.rows, plan.shards, plan.dtype) == (len(store), len(store.shards), store.recipe["dtype"])
    assert plan.examples == sum(shard.receipt.examples for shard in store.shards)
    assert plan.forwards == sum(shard.receipt.blocks for shard in store.shards)
    files = [path.stat().st_size for path in (tmp_path / "s").glob("*.safetensors")]
    begins = [shard.receipt.begins for shard in store.shards]
    assert plan.disk == sum(files) - sum(begins)
    assert plan.memory == max(size - start for size, start in zip(sorted(files), sorted(begins), strict=True))
    assert plan.seconds is not None and plan.seconds > 0
    assert (plan.layers_run, plan.layers_skipped, plan.head) == (llama.layers, 0, False)


def test_layers_after_the_last_site_are_skipped(llama: op.Model) -> None:
    plan = op.plan_harvest(llama, TEXTS, "layers.0.out")
    assert (plan.layers_run, plan.layers_skipped) == (1, llama.layers - 1)


def test_what_is_there_is_taken_into_account(
    llama: op.Model, make_store: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = {"shard_rows": 150, "tokens_per_forward": 120, "tokens": 700}
    whole = op.plan_harvest(llama, texts, "layers.{0,2}.out", to=tmp_path / "s", **settings)
    assert whole.rows_done == 0 and whole.shards > 2
    make_store(tmp_path / "s")
    last = op.open(tmp_path / "s").shards[-1]
    (tmp_path / "s" / last.names.receipt).unlink()
    (tmp_path / "s" / "index.json").unlink()
    rest = op.plan_harvest(llama, texts, "layers.{0,2}.out", to=tmp_path / "s", **settings)
    assert rest.rows_done == 700 - last.rows and rest.rows == 700
    assert 0 < (rest.seconds or 0) < (whole.seconds or 0)


def test_another_harvest_at_the_same_place_is_refused(llama: op.Model, tmp_path: Path) -> None:
    op.harvest(llama, TEXTS, "layers.0.out", to=tmp_path / "s")
    done = op.plan_harvest(llama, TEXTS, "layers.0.out", to=tmp_path / "s")
    assert done.rows_done == done.rows and done.seconds == 0 and done.fits
    with pytest.raises(StoreMismatch, match="another harvest"):
        op.plan_harvest(llama, TEXTS, "layers.1.out", to=tmp_path / "s")


def test_nothing_is_written(llama: op.Model, tmp_path: Path) -> None:
    op.plan_harvest(llama, TEXTS, to=tmp_path / "s")
    assert not (tmp_path / "s").exists() or not any((tmp_path / "s").iterdir())
    with pytest.raises(BadInput, match="at least 1"):
        op.plan_harvest(llama, TEXTS, tokens=0)


def test_it_prints(llama: op.Model) -> None:
    text = str(op.plan_harvest(llama, TEXTS))
    assert text.startswith("Plan of a harvest of ") and "rows:" in text and "on disk:" in text
    assert "<script" not in op.plan_harvest(llama, TEXTS)._repr_html_()


def test_from_the_command_line(llama: op.Model, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)
    data = tmp_path / "texts.txt"
    data.write_text("\n".join(TEXTS))
    assert run(["read", "tiny", str(data), "--to", str(tmp_path / "s"), "--plan"]) == 0
    assert "plan of a harvest" in capsys.readouterr().out
    assert not (tmp_path / "s" / "store.json").exists()
