"""`optrode functions`: finding, describing and drawing functions from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optrode.cli import run


def test_list_is_narrowed_by_words_kind_and_confidence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["functions", "list", "swish", "--kind", "adaptive", "--confidence", "high", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "swish" in [row["name"] for row in found]
    assert all(row["kind"] == "adaptive" and row["confidence"] == "high" for row in found)
    assert run(["functions", "list", "softmax"]) == 0
    assert "[vec]" in capsys.readouterr().out


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["functions", "show", "golu", "HeLU", "RReLU", "GLU"]) == 0
    out = capsys.readouterr().out
    assert "x*exp(-exp(-x))" in out and "x>-a: 1; x<=-a: 0" in out and "in training" in out and "sigmoid(w)" in out
    assert run(["functions", "show", "gollu"]) == 1
    assert "did you mean" in capsys.readouterr().err


def test_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "two.svg"
    assert run(["functions", "plot", "gelu", "hardshrink", "-o", str(out)]) == 0
    text = out.read_text()
    assert "GELU" in text and "Hardshrink" in text and "<path" in text
    assert run(["functions", "plot", "softmax", "-o", str(out)]) == 1
    assert "has no curve" in capsys.readouterr().err
    assert run(["functions", "plot", "gelu", "-o", str(tmp_path / "x.txt")]) == 1
    assert run(["functions", "plot", "gelu", "--low", "2", "--high", "1", "-o", str(out)]) == 1


def test_maps_and_edges(capsys, tmp_path: Path):
    out = tmp_path / "maps.svg"
    arguments = ["functions", "maps", "tanh", "--depth", "3", "--width", "50", "--networks", "2"]
    assert run([*arguments, "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split() == [
        "layer",
        "variance",
        "networks",
        "correlation",
        "networks",
        "slope",
        "networks",
    ]
    assert len(printed.splitlines()) == 5 and out.read_text().startswith("<svg")
    assert run(["functions", "maps", "relu", "--depth", "2", "--networks", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["theory"]["variance"] == pytest.approx([1, 1, 1]) and found["networks"] is None
    assert run(["functions", "edge", "tanh", "relu", "--sigma-b", "0.2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "tanh", "  sigma_b 0.2, sigma_w 1.3041, variance 0.5121 (regular), 1 - c ~ 7.08 / layer",
        "relu", "  sigma_b 0.2: no edge (diverging)",
    ]  # fmt: skip
    assert run(["functions", "maps", "tanh", "-o", str(tmp_path / "maps.txt")]) == 1
    assert "is no picture" in capsys.readouterr().err
