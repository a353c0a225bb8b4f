from __future__ import annotations

import base64
import copy
import hashlib
import html
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake import fake_result
from hostile import PAYLOAD, emptied, everywhere

from optrode.errors import BadFile, BadInput, MissingFile
from optrode.report import read_report, write_report
from optrode.report.page import render, view


class Page(HTMLParser):
    """The tags of a page with their attributes, the content of each script, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, content = self.scripts[-1]
            self.scripts[-1] = (attributes, content + data)
        elif not self._inside:
            self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return render(fake_result())


def policy_of(page: str) -> str:
    return html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1))


def test_result_comes_back_from_the_file(tmp_path: Path) -> None:
    path = write_report(fake_result(), tmp_path / "deep" / "report.html")
    assert path == tmp_path / "deep" / "report.html"
    assert read_report(path) == fake_result()
    assert path.stat().st_size < 3_000_000


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")
    with pytest.raises(BadInput, match="JSON"):
        write_report({**fake_result(), "title": "x", "record": {"seed": object()}}, path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_nothing_points_outside(page: str) -> None:
    parsed = Page(page)
    loading = [
        (tag, key) for tag, attributes in parsed.tags for key in attributes if key in ("src", "href", "srcset", "data")
    ]
    assert not loading and not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in parsed.tags}
    assert "@import" not in page and "url(" not in re.search(r"<style>(.*?)</style>", page, re.DOTALL).group(1)
    assert policy_of(page).startswith("default-src 'none'; ")


def test_policy_allows_exactly_the_scripts_of_the_page(page: str) -> None:
    policy = policy_of(page)
    scripts = [content for attributes, content in Page(page).scripts if "type" not in attributes]
    assert len(scripts) == 2
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert "unsafe-eval" not in policy and "unsafe-inline" not in policy.split("style-src")[0]


def test_chart_library_is_there_once_and_not_without_charts(page: str) -> None:
    assert len(re.findall(r"window\.vegaEmbed ?=", page)) == 1
    bare = render({"schema": "optrode.comparison/1"})
    assert "vegaEmbed" not in bare and len(bare) < 30_000 and "script-src 'none'" in policy_of(bare)


def test_every_chart_has_its_spec(page: str) -> None:
    charts = [
        attributes["data-chart"]
        for tag, attributes in Page(page).tags
        if tag == "figure" and "data-chart" in attributes
    ]
    assert charts == ["ranking", "effect_against_perplexity", "effect_against_kl", "search", "probe_accuracy", "norms"]
    specs = [
        json.loads(content)
        for attributes, content in Page(page).scripts
        if attributes.get("type") == "application/json"
    ]
    assert sum("$schema" in spec for spec in specs) == len(charts)


def test_page_says_what_matters(page: str) -> None:
    text = Page(page).text
    for part in ("One sentence of prompting", "Quick run: 48 test prompts", "[0.53, 0.69]", "best.edit", "4 min 2 s"):
        assert part in text, part
    assert text.count("over budget") == 1 and text.count("within random spread") == 1
    assert text.index("One sentence of prompting") < text.index("Ranking") < text.index("Run record")
    assert re.search(r"angular steering\s+within random spread", re.sub(r"\s+", " ", text))
    assert "versions.torch" in text and "2.13.0" in text


def test_foreign_text_stays_text() -> None:
    clean, dirty = Page(render(fake_result())), Page(render(everywhere(fake_result())))
    assert [tag for tag, _ in dirty.tags] == [tag for tag, _ in clean.tags]
    assert not [key for _, attributes in dirty.tags for key in attributes if key.startswith("on")]
    assert "{{ 7*7 }}" in dirty.text and "49'" not in dirty.text
    assert "\x1b" not in dirty.text and "\u202e" not in dirty.text
    ours = [content for attributes, content in dirty.scripts if "type" not in attributes]
    assert all("window.broken" not in script for script in ours)


def test_foreign_text_survives_the_round_trip(tmp_path: Path) -> None:
    result = everywhere(fake_result())
    assert read_report(write_report(result, tmp_path / "report.html")) == result
    assert result["title"].endswith(PAYLOAD)


def test_page_with_every_value_null_says_not_measured() -> None:
    text = Page(render(emptied(fake_result()))).text
    assert "not measured" in text and "Not measured." in text
    assert not re.search(r"\b(None|nan|undefined)\b", text)


@pytest.mark.parametrize("key", [key for key in fake_result() if key != "schema"])
def test_any_part_may_be_null(key: str) -> None:
    assert "<h1" in render({**fake_result(), key: None})


def test_absent_null_and_empty_parts_show_the_same() -> None:
    for key in set(fake_result()) - {"schema"}:
        shown = view({**fake_result(), key: None})
        assert shown == view({**fake_result(), key: type(fake_result()[key])()})
        assert shown == view({part: value for part, value in fake_result().items() if part != key})


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    result = copy.deepcopy(fake_result())
    result["rows"][0]["perplexity_ratio"] = {"value": math.inf, "low": 3.0, "high": math.inf}
    result["rows"][1]["shift"]["value"] = math.nan
    path = write_report(result, tmp_path / "report.html")
    text = Page(path.read_text()).text
    assert "infinite" in text and "not measured" in text
    back = read_report(path)
    assert back["rows"][0]["perplexity_ratio"] == {"value": None, "low": 3.0, "high": None}


def test_wrong_inputs(tmp_path: Path) -> None:
    for wrong in ([], {"schema": "other/1"}, {}):
        with pytest.raises(BadInput, match="report needs"):
            write_report(wrong, tmp_path / "report.html")
    with pytest.raises(MissingFile):
        read_report(tmp_path / "none.html")
    (tmp_path / "other.html").write_text("<html></html>")
    with pytest.raises(BadFile):
        read_report(tmp_path / "other.html")
    assert not (tmp_path / "report.html").exists()


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_report(fake_result(), tmp_path / "a.html").read_bytes()
    assert write_report(fake_result(), tmp_path / "b.html").read_bytes() == first


def test_importing_the_report_is_cheap() -> None:
    modules = "[m for m in ('altair', 'jinja2', 'rich', 'vl_convert') if m in sys.modules]"
    code = f"import sys, optrode.report, optrode.report.terminal; print({modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
