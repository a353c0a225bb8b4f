"""Every Python block of the documentation runs, and prints what the page says.

By default `smollm2-135m` is played by a network of the same layout, 30 blocks of width 36 with random weights: what it
answers means nothing, so outputs are compared only on pages that do without it. The slow tests take the real one and
compare all outputs.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
import optrode.model

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Its blocks are pieces of files of this repository, which the test below looks for.
PIECES = DOCS / "how-to" / "add-a-layout.md"

_spec = importlib.util.spec_from_file_location("docs_snippets", Path(__file__).with_name("snippets.py"))
assert _spec is not None and _spec.loader is not None
snippets = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = snippets
_spec.loader.exec_module(snippets)


def name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


RUN = [page for page in PAGES if page != PIECES and list(snippets.examples(page))]


@pytest.fixture(scope="session")
def stand_in(tokenizer: Any) -> op.Model:
    """What SmolLM2 is, in small: its layout, blocks, heads and chat template, with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=36, intermediate_size=48, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, initializer_range=0.2, bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = op.load(LlamaForCausalLM(config).eval(), tokenizer=tokenizer)
    model.name = "smollm2-135m"
    return model


@pytest.mark.parametrize("page", RUN, ids=name)
def test_page(page: Path, stand_in: op.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    loaded, real = [], optrode.model.load

    def load(where: Any, **options: Any) -> op.Model:
        if where != "smollm2-135m":
            return real(where, **options)
        loaded.append(where)
        return stand_in

    monkeypatch.setattr(optrode.model, "load", load)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block, shown in snippets.examples(page):
        if "slow" in block.marks:
            break
        printed = snippets.run(block, page, namespace)
        if shown is not None and not loaded:
            assert snippets.agrees(shown.text, printed), f"{name(page)}:{block.first + 1} printed\n{printed}"


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name)
def test_page_with_the_real_models(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block, shown in snippets.examples(page):
        printed = snippets.run(block, page, namespace)
        if shown is not None:
            assert snippets.agrees(shown.text, printed), f"{name(page)}:{block.first + 1} printed\n{printed}"


def test_the_layout_page_shows_the_files_that_are_there():
    granite = (ROOT / "optrode/layouts/granite.py").read_text(), (ROOT / "tests/layouts/test_granite.py").read_text()
    shown = [block.text for block in snippets.blocks(PIECES) if block.language == "python"][:2]
    assert len(shown) == 2
    for piece, file in zip(shown, granite, strict=True):
        assert piece in file


def test_a_page_that_is_wrong_is_found(tmp_path: Path):
    """The runner itself: a wrong output, a missing error and an unknown mark do not pass."""
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    [(block, shown)] = snippets.examples(page)
    assert not snippets.agrees(shown.text, snippets.run(block, page, {}))
    page.write_text("<!-- raises: BadInput -->\n```python\npass\n```\n")
    [(block, shown)] = snippets.examples(page)
    assert shown is None
    with pytest.raises(AssertionError, match="BadInput"):
        snippets.run(block, page, {})
    page.write_text("<!-- slwo -->\n```python\npass\n```\n")
    with pytest.raises(ValueError, match="slwo"):
        list(snippets.examples(page))


def test_every_error_has_a_page_that_shows_it():
    from optrode import errors

    names = {name for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__}
    for error in names - {"OptrodeError"}:
        page = DOCS / "reference" / "errors" / f"{error}.md"
        assert page.is_file(), f"{error} has no page"
        assert any(block.marks.get("raises") == error for block, _ in snippets.examples(page)), f"{error} is never raised"
    pages = {page.stem for page in (DOCS / "reference" / "errors").glob("*.md")} - {"index"}
    assert pages == names - {"OptrodeError"}
