"""The page "Add a method" is true: its three files are all that a new method takes.

They are put into a copy of the package, where the method is then found, fitted, compared and listed, and its own test
passes. No other file of the copy changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optrode.data import pairs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "add-a-method.md"
METHOD = "optrode/steering/median_difference.py"
TEST = "tests/steering/test_median_difference.py"
STUDY = "optrode/studies/median_difference.py"

# One process for everything: importing torch is what takes the time.
DRIVER = """
import contextlib, io, json, sys

import pytest

import optrode as op
from optrode.cli import run
from optrode.steering.fitting import FULL, Settings, chosen_methods

def said(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = run(list(arguments))
    return code, out.getvalue()

report = {
    "package": op.__file__,
    "listed": dir(op.steering),
    "class": op.steering.MedianDifference.__name__,
    "studies": said("study"),
    "compared": [title for title, _ in chosen_methods(Settings(size=FULL), 1)],
    "fit": said(
        "fit", "median-difference", "--model", "./tiny", "--data", "pairs.jsonl", "--site", "layers.1.out",
        "--out", "median.edit", "--json",
    ),
    "test": int(pytest.main(["-q", "-p", "no:cacheprovider", "--import-mode=importlib", sys.argv[1]])),
}
print("REPORT" + json.dumps(report))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, snippets: Any, tokenizer: Any) -> Path:
    """The package and the tests' own fixtures, a tiny model and pairs to fit on."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "optrode", folder / "optrode", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "tests")
    save_tiny_model(folder / "tiny", tokenizer)
    rows = [{"prompt": p.prompt, "positive": p.positive, "negative": p.negative} for p in pairs("sentiment")[::6]]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def save_tiny_model(folder: Path, tokenizer: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def contents(folder: Path) -> dict[str, str]:
    files = (path for top in ("optrode", "tests") for path in (folder / top).rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if "__pycache__" not in path.parts
    }


def test_three_files_are_a_method(copy: Path, snippets: Any):
    before = contents(copy)
    files = {block.marks["file"]: block.text + "\n" for block in snippets.blocks(PAGE) if "file" in block.marks}
    assert set(files) == {METHOD, TEST, STUDY}
    for name, text in files.items():
        assert name not in before, f"{name} is there already: the page must show a method that is not"
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text, encoding="utf-8")

    found = drive(copy)
    assert Path(found["package"]) == copy / "optrode" / "__init__.py", "the copy was run"
    assert "MedianDifference" in found["listed"] and found["class"] == "MedianDifference"
    assert found["studies"][0] == 0 and "median-difference" in found["studies"][1].split()
    assert "median difference" in found["compared"]
    assert found["fit"][0] == 0 and json.loads(found["fit"][1])["recipe"]["method"] == "median-difference"
    assert (copy / "median.edit").is_file()
    assert found["test"] == 0

    after = contents(copy)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == set(files)


def drive(copy: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, TEST], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT")]
    assert done.returncode == 0 and lines, done.stdout + done.stderr
    return json.loads(lines[0].removeprefix("REPORT"))
