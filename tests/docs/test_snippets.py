"""Every Python block of the documentation runs, and prints what the page says.

By default `smollm2-135m` is played by a network of the same layout, 30 blocks of width 36 with random weights: what it
answers means nothing, so outputs are compared only on pages that do without it. The slow tests take the real one and
compare all outputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
import optrode.model

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Its blocks are pieces of files of this repository, which a test below looks for.
PIECES = DOCS / "how-to" / "add-a-layout.md"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if page != PIECES and "```python" in page.read_text("utf-8")]


def name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


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


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page(page: Path, snippets: Any, stand_in: op.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    loaded, real = [], optrode.model.load

    def load(where: Any, **options: Any) -> op.Model:
        if where != "smollm2-135m":
            return real(where, **options)
        loaded.append(where)
        return real(stand_in.module, tokenizer=stand_in.tokenizer, **options) if options else stand_in

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
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_with_the_real_models(page: Path, snippets: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block, shown in snippets.examples(page):
        printed = snippets.run(block, page, namespace)
        if shown is not None:
            assert snippets.agrees(shown.text, printed), f"{name(page)}:{block.first + 1} printed\n{printed}"


def test_the_layout_page_shows_the_files_that_are_there(snippets: Any):
    """The layout word for word; of its test, which the page shortens, every line that computes something."""
    layout, test = [block.text for block in snippets.blocks(PIECES) if block.language == "python"][:2]
    assert layout in (ROOT / "optrode/layouts/granite.py").read_text()
    lines = [line for line in test.splitlines() if " = at(" in line or "return " in line or line.startswith("class ")]
    assert len(lines) > 6 and set(lines) <= set((ROOT / "tests/layouts/test_granite.py").read_text().splitlines())


def test_a_page_that_is_wrong_is_found(snippets: Any, tmp_path: Path):
    """The runner itself: a wrong output, an error that does not come, and an unknown mark do not pass."""
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    [(block, shown)] = snippets.examples(page)
    assert snippets.run(block, page, {}) == "1\n" and not snippets.agrees(shown.text, "1\n")
    page.write_text("<!-- raises: BadInput -->\n```python\npass\n```\n")
    [(block, shown)] = snippets.examples(page)
    assert shown is None
    with pytest.raises(AssertionError, match="BadInput"):
        snippets.run(block, page, {})
    page.write_text("<!-- slwo -->\n```python\npass\n```\n")
    with pytest.raises(ValueError, match="slwo"):
        list(snippets.examples(page))


def test_every_error_has_a_page_that_shows_it(snippets: Any):
    from optrode import errors

    own = {key for key, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__}
    folder = DOCS / "reference" / "errors"
    assert {page.stem for page in folder.glob("*.md")} == own - {"OptrodeError"} | {"index"}
    for error in own - {"OptrodeError"}:
        raised = [block.marks.get("raises") for block, _ in snippets.examples(folder / f"{error}.md")]
        assert error in raised, f"the page on {error} never raises it"
