from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from optrode.errors import BadFile, UnknownModel
from optrode.sources import open_source


def test_unreachable_hub_is_one_line_with_the_named_models(monkeypatch: pytest.MonkeyPatch):
    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("no network\nand many more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UnknownModel, match="hub could not be reached") as caught:
        open_source("somebody/minilm-l6")
    assert "minilm-l6" in str(caught.value).partition("did you mean")[2]
    assert "\n" not in str(caught.value)


def test_hub_model_is_read_from_its_snapshot(llama_folder: Path, monkeypatch: pytest.MonkeyPatch):
    asked = {}

    def local(name, **kwargs):
        asked.update(kwargs, name=name)
        return str(llama_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", local)
    source = open_source("somebody/tiny", revision="v1")
    assert (asked["name"], asked["revision"]) == ("somebody/tiny", "v1")
    assert not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in asked["allow_patterns"])
    assert source.name == "tiny"
    assert source.origin == {"kind": "hub", "where": "somebody/tiny", "revision": llama_folder.name}
    assert source.module.config.name_or_path == "somebody/tiny"


def test_hub_model_without_safetensors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **kwargs: str(tmp_path))
    with pytest.raises(BadFile, match="save_pretrained"):
        open_source("somebody/pickled")
