"""`optrode stats` as a person uses it: of a model, a store, a file; outputs whole or absent; one line for errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
from optrode.cli import run
from optrode.cli.command_stats import COLLECT
from optrode.report import read_report

TEXTS = [f"Text number {number}. " + "The cat sat on the mat. " * (number % 4) for number in range(9)]


@pytest.fixture(autouse=True)
def tiny(llama: op.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> op.Model:
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)
    monkeypatch.chdir(tmp_path)
    Path("d.txt").write_text("\n".join(TEXTS))
    return llama


@pytest.fixture
def store(llama: op.Model) -> op.Store:
    return op.harvest(llama, "d.txt", ["layers.{0,2}.out"], to="acts", shard_rows=60, tokens_per_forward=100)


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_of_a_model_on_a_file(llama: op.Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", "tiny", "d.txt", "--json"]) == 0
    found = said(capsys)
    expected = op.stats(llama, TEXTS, collect=COLLECT)
    assert [line["site"] for line in found["sites"]] == list(expected) == [f"layers.{n}.out" for n in range(3)]
    assert found["rows"] == expected.count
    assert found["sites"][1]["norm_median"] == pytest.approx(float(expected["layers.1.out"]["norm_median"]), rel=1e-4)
    assert run(["stats", "tiny", "d.txt"]) == 0
    out = capsys.readouterr().out
    assert "layers.2.out" in out and "median" in out and f"tokens {expected.count:,}" in out


def test_without_data_neutral_texts_are_measured_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", "tiny", "--sites", "layers.0.out", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "16 neutral texts" in err and json.loads(out)["info"]["data"] == ["list of 16"]


def test_options_choose_what_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sites", "layers.0.out", "--sites", "layers.2.mlp.hidden", "--positions", "first:2", "--tokens", "6"]
    assert run(["stats", "tiny", "d.txt", *options, "--collect", "kurtosis", "--out", "x.stats", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "only go into a file" not in err
    assert found["rows"] == 6 and found["info"]["positions"] == "first:2" and found["statistics"] == "x.stats"
    loaded = op.Statistics.load("x.stats")
    assert list(loaded) == ["layers.0.out", "layers.2.mlp.hidden"] and "kurtosis" in loaded["layers.0.out"]
    assert run(["stats", "tiny", "d.txt", "--collect", "kurtosis", "--collect", "top"]) == 0
    assert "kurtosis, top only go into a file: name one with --out" in capsys.readouterr().err
    assert run(["stats", "tiny", "d.txt", "--mask", "usual", "--context", "8", "--json"]) == 0
    assert said(capsys)["info"]["mask"] == "usual"


def test_of_a_store(store: op.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", "acts", "--json"]) == 0
    found = said(capsys)
    assert [line["site"] for line in found["sites"]] == list(store.sites) and found["rows"] == len(store)
    assert run(["stats", "acts", "--sites", "layers.2.out", "--tokens", "50", "--report", "one.html", "--json"]) == 0
    assert said(capsys)["rows"] == 50 and "<h1" in Path("one.html").read_text()


def test_a_file_is_looked_at_again_and_merged(llama: op.Model, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.txt").write_text("\n".join(TEXTS[:4]))
    Path("b.txt").write_text("\n".join(TEXTS[4:]))
    for name in ("a", "b"):
        assert run(["stats", "tiny", f"{name}.txt", "--out", f"{name}.stats"]) == 0
    capsys.readouterr()
    assert run(["stats", "a.stats", "--merge", "b.stats", "--report", "r.html", "--out", "all.stats", "--json"]) == 0
    merged = said(capsys)
    assert merged["info"]["data"] == ["a.txt", "b.txt"] and merged["rows"] == op.Statistics.load("all.stats").count
    whole = op.stats(llama, "d.txt", collect=COLLECT)
    assert merged["rows"] == whole.count
    torch.testing.assert_close(
        op.Statistics.load("all.stats")["layers.1.out"]["mean"], whole["layers.1.out"]["mean"], rtol=0, atol=1e-5
    )
    back = read_report(Path("r.html"))
    assert back == {key: value for key, value in merged.items() if key not in ("report", "statistics")}
    assert {path.name for path in Path().iterdir()} == {
        "a.txt", "b.txt", "d.txt", "a.stats", "b.stats", "all.stats", "r.html",
    }  # fmt: skip


def test_pictures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each place of a map is a row and each channel a unit, so that sites have different numbers of rows."""
    import numpy as np
    from PIL import Image

    from optrode.sources.efficientnet import EfficientNetLite0

    class Halves:
        def __call__(self, images: Any, return_tensors: str = "pt") -> dict[str, torch.Tensor]:
            arrays = [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255 for image in images]
            return {"pixel_values": torch.stack(arrays)}

    torch.manual_seed(0)
    model = op.load(EfficientNetLite0().eval(), processor=Halves())
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: model)
    Path("pictures").mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(f"pictures/{number}.png")
    assert (
        run(["stats", "net", "pictures", "-s", "layers.{0,4}.out", "-s", "pooled", "--report", "r.html", "--json"]) == 0
    )
    found = said(capsys)
    assert [(line["rows"], line["units"]) for line in found["sites"]] == [(3 * 32 * 32, 16), (3 * 8 * 8, 40), (3, 1280)]
    assert found["info"]["unit"] == "row" and found["sites"][0]["largest"]["position"] < 32 * 32
    assert "3 to 3,072" in Path("r.html").read_text()
    values = model.read([Image.open(f"pictures/{n}.png") for n in range(3)], "layers.4.out")["layers.4.out"]
    assert found["sites"][1]["norm_mean"] == pytest.approx(float(values.norm(dim=-1).mean()), rel=1e-4)
    assert run(["stats", "net"]) == 1
    assert "reads no text: name a folder of pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent.stats"], "there is no file 'absent.stats'"),
        (["bad.stats"], "'bad.stats' is no file of statistics or is damaged"),
        (["flipped.stats"], "'flipped.stats' is no file of statistics or is damaged"),
        (["good.stats", "d.txt"], "'good.stats' was measured before: leave DATA out"),
        (["good.stats", "-s", "layers.0.out", "-c", "top", "--mask", "usual"], "leave --sites, --collect, --mask out"),
        (["good.stats", "--tokens", "0"], "leave --tokens out"),
        (["good.stats", "--merge", "absent.stats"], "there is no file 'absent.stats'"),
        (["good.stats", "--merge", "other.stats"], "statistics of other sites cannot be merged"),
        (["acts", "d.txt"], "'acts' is a store, whose rows were chosen when it was harvested: leave DATA out"),
        (["acts", "--positions", "last_prompt", "--context", "9"], "leave --positions, --context out"),
        (["acts", "--collect", "kurtossis"], "no statistic is called 'kurtossis': did you mean kurtosis"),
        (["acts", "--sites", "layers.0.uot"], "did you mean layers.0.out"),
        (["broken"], "there is no store at 'broken'"),
        (["memory://nowhere/store"], "there is no store at"),
        (["tiny", "absent.txt"], "there is no data at 'absent.txt'"),
        (["tiny", "d.txt", "--mask", "none"], "mask='none' is not known"),
        (["tiny", "d.txt", "--tokens", "0"], "tokens must be at least 1"),
        (["acts", "--tokens", "0"], "tokens must be at least 1"),
        (["tiny", "d.txt", "--out", "x.npz"], "use one that ends with .stats"),
        (["tiny", "d.txt", "--report", "acts"], "'acts' is a folder"),
    ],
)
def test_wrong_commands_get_one_line_and_leave_nothing(
    store: op.Store, llama: op.Model, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = op.stats(store, collect=COLLECT)
    path = good.save("good.stats")
    op.stats(store, sites="layers.0.out", collect=COLLECT).save("other.stats")
    content = bytearray(path.read_bytes())
    Path("bad.stats").write_bytes(content[:-7])
    content[-100] ^= 4
    Path("flipped.stats").write_bytes(content)
    Path("broken").mkdir()
    Path("broken", "shard-00000.safetensors").write_bytes(b"")
    before = {path.name for path in Path().iterdir()}
    arguments = [*arguments, *(["--out", "new.stats"] if "--out" not in arguments else [])]
    assert run(["stats", *arguments, *(["--report", "new.html"] if "--report" not in arguments else [])]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("optrode: ") and says in lines[0]
    assert {path.name for path in Path().iterdir()} == before


def test_sites_of_whole_numbers_are_left_out_unless_they_are_named(
    mixture: op.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = next(site for site in mixture.table if site.endswith(".chosen"))
    kept = chosen.rpartition(".")[0].rpartition(".")[0] + ".out"
    op.harvest(mixture, TEXTS, [chosen, kept], to="mixed")
    assert run(["stats", "mixed", "--json"]) == 0
    assert [line["site"] for line in said(capsys)["sites"]] == [kept]
    assert run(["stats", "mixed", "--sites", chosen]) == 1
    assert "are no measurements" in capsys.readouterr().err
