"""Functions under one protocol: ranked, saved, printed, and what is said where the data cannot rank them."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import optrode as op
from optrode.cli import run
from optrode.errors import BadFile, BadInput, MissingFile, UnknownName
from optrode.function_comparison import FunctionComparison
from optrode.functions import comparison
from optrode.functions.comparison import Size
from optrode.functions.methods.protocol import NamedFunction
from optrode.functions.training.table import table
from optrode.functions.training.train import Budget, Run, Trained
from optrode.report import read_report


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    size = Size(2, 0.05, (1e-2,), False)
    monkeypatch.setattr(comparison, "size_of", lambda task, quick: size)
    monkeypatch.setattr(comparison, "USUAL", ("relu", "tanh"))


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """A class that depends on x, words and missing values beside it."""
    draw = np.random.default_rng(0)
    lines = ["x,colour,id,kind"]
    for number in range(200):
        x = draw.normal()
        lines.append(f"{x:.3f},{'red' if number % 3 else 'blue'},name{number},{'up' if x > 0 else 'down'}")
    lines.append(",red,none,up")
    path = tmp_path / "things.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_table_of_a_user_and_a_function_that_lets_nothing_through(csv: Path):
    found = op.compare_functions(str(csv), functions=["binary step"])
    rows = {row["function"]: row for row in found.result["rows"]}
    assert set(rows) == {"relu", "tanh", "binary step"}
    assert [row["score"]["value"] for row in found.result["rows"]] == sorted(
        (row["score"]["value"] for row in rows.values()), reverse=True
    )
    assert rows["tanh"]["score"]["value"] > 0.8 and found.result["task"]["measure"] == "accuracy"
    assert rows["binary step"]["gradients"] == 0 and rows["relu"]["gradients"] > 0
    assert found.result["agreement"] is not None and all(row["first"] is None for row in rows.values())
    assert len(found.to_pandas()) == 3 and found.headline in " ".join(str(found).replace("│", " ").split())


def test_a_table_of_numbers(tmp_path: Path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(120, 2))
    rows = "\n".join(f"{a:.4f},{b:.4f},{a * b:.4f}" for a, b in x)
    (tmp_path / "product.csv").write_text("a,b,y\n" + rows)
    task = table(tmp_path / "product.csv")
    split = task.split(0)
    assert task.measure == "squared error" and not task.higher and task.inputs == (2,)
    assert abs(float(split.fit.targets.mean())) < 1e-5 and float(split.fit.targets.std()) == pytest.approx(1)
    assert abs(float(split.fit.inputs.mean(0).abs().max())) < 1e-5


def test_it_is_saved_and_read_back_and_said_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "out"
    assert run(["compare", "functions", "--task", "digits", "--quick", "--function", "golu", "-o", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "golu" in printed and "Activation functions on digits" in printed
    saved = json.loads((folder / "result.json").read_text())
    assert read_report(folder / "report.html")["rows"] == saved["rows"]
    page = (folder / "report.html").read_text()
    assert "95 % interval" in page and "http://" not in page.split("<body>")[1].split("<script")[0]
    assert run(["rerun", str(folder / "result.json"), "--show"]) == 0
    assert "optrode compare functions --task digits" in capsys.readouterr().err


def row(name: str, value: float, low: float, **more: Any) -> dict[str, Any]:
    behind = None if name == "best" else {"value": 0.1, "low": low, "high": 0.3}
    return {
        "function": name, "score": {"value": value}, "behind": behind, "diverged": 0, "rate": 2.0,
        "tuning": {"1.0": 1, "2.0": 2, "3.0": 1}, **more,
    }  # fmt: skip


def test_what_the_headline_says():
    task = comparison.find_task("digits")
    best, tied, behind = row("best", 0.9, 0), row("tied", 0.8, -0.1), row("behind", 0.7, 0.05)
    assert comparison.headline(task, [best, tied], 0.9).startswith("This data cannot tell the functions apart")
    assert "tied cannot be told from it" in comparison.headline(task, [best, tied, behind], 0.9)
    assert comparison.headline(task, [best, behind], 0.9).endswith("ahead of all others over these seeds.")
    assert "Seeds do not agree" in comparison.headline(task, [best, behind], 0.1)


def test_what_the_warnings_say():
    rows = [row("best", 0.9, 0, rate=3.0), row("other", 0.5, 0, diverged=1)]
    said = comparison.warnings(rows, 0.2)
    assert "correlation of 0.20" in said[0] and "blew up" in said[1] and "other" in said[1]
    assert said[2].startswith("The best learning rate is at an end") and "best" in said[2]
    assert comparison.warnings([row("best", 0.9, 0)], 0.9) == []


def test_full_runs_add_the_methods_of_papers_once():
    labels = [one.label for one in comparison.candidates_of(["golu"], Size(5, 1, (1e-2,), True))]
    assert "AGLU" in labels and "golu" in labels and "GoLU" not in labels and len(set(labels)) == len(labels)


def test_wrong_input(csv: Path, tmp_path: Path):
    with pytest.raises(UnknownName, match="did you mean"):
        op.compare_functions("digits", functions=["gelo"])
    with pytest.raises(UnknownName, match="no task 'digit'"):
        op.compare_functions("digit")
    with pytest.raises(MissingFile):
        op.compare_functions(str(tmp_path / "none.csv"))
    with pytest.raises(BadInput, match="no column 'kin': did you mean kind"):
        op.compare_functions(str(csv), target="kin")
    with pytest.raises(BadInput, match="200 classes"):
        op.compare_functions(str(csv), target="id")
    (tmp_path / "short.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(BadInput, match="at least 50"):
        op.compare_functions(str(tmp_path / "short.csv"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(BadFile, match="no CSV"):
        op.compare_functions(str(tmp_path / "empty.csv"))
    assert run(["compare", "functions", "--method", "caa"]) == 1 and run(["compare", "steering", "--target", "y"]) == 1
    with pytest.raises(BadInput, match="compare_functions"):
        op.compare("functions", model="smollm2-135m", data="sentiment")


def trained(label: str, scores: tuple[float, ...]) -> Trained:
    runs = tuple(Run(seed, 1e-2, score, score, (3.0, 2.0), 0.001, score == inf) for seed, score in enumerate(scores))
    return Trained(label, "text", False, 1e-2, scores, {1e-2: scores[0]}, runs)


@pytest.mark.filterwarnings("error")
def test_losses_where_training_blew_up(tmp_path: Path):
    found = [trained("relu", (1.5, 1.6)), trained("tanh", (1.7, inf)), trained("elu", (inf, inf))]
    methods = {one.label: NamedFunction(one.label) for one in found}
    result = comparison.describe(comparison.find_task("text"), Budget(seeds=(0, 1)), found[::-1], methods)
    assert [row["function"] for row in result["rows"]] == ["relu", "tanh", "elu"]
    assert [row["score"]["value"] for row in result["rows"]] == [1.55, None, None]
    assert "relu has the best" in result["headline"] and "blew up at the best rate, in some seed: tanh, elu" in str(
        result["warnings"]
    )
    page = FunctionComparison(result)
    assert str(page).count("blew up") == 3
    saved = page.save(tmp_path)
    assert "Infinity" not in saved["result"].read_text() and read_report(saved["report"])["rows"][2]["scores"] == [
        None,
        None,
    ]
    lost = comparison.describe(comparison.find_task("text"), Budget(seeds=(0, 1)), found[1:], methods)
    assert lost["headline"].startswith("Training blew up with every function")
