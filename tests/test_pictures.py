"""Pictures as people have them: PIL images, arrays of scikit-image, and files, read by a ViT from a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import optrode as op
from optrode import edits
from optrode.cli import run
from optrode.errors import BadFile, BadInput, MissingFile, NotSupported


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT with its image processor, as `save_pretrained` writes them."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    path = tmp_path_factory.mktemp("models") / "tiny-vit"
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    config = ViTConfig(**shape, image_size=32, patch_size=8, num_labels=5, initializer_range=0.2)
    ViTForImageClassification(config).save_pretrained(path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> op.Model:
    return op.load(folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    where = tmp_path_factory.mktemp("pictures")
    found = [where / "cat.png", where / "camera.png"]
    for path, picture in zip(found, (data.chelsea(), data.camera()), strict=True):
        Image.fromarray(picture).save(path)
    return found


def test_the_folder_brings_its_processor_without_torchvision(model: op.Model, folder: Path) -> None:
    assert type(model.processor).__name__ == "ViTImageProcessorPil"
    assert json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"] == "ViTImageProcessor"
    assert model.layout is not None and model.layout.name == "vit" and len(model.measured.checks) == 6


def test_all_kinds_of_pictures_give_what_the_processor_gives(model: op.Model, files: list[Path]) -> None:
    cat = data.chelsea()
    pixels = model.processor(Image.fromarray(cat), return_tensors="pt")["pixel_values"]
    wanted = model.read(pixels, "layers.*.out")
    same: list[Any] = [cat, Image.fromarray(cat), files[0], str(files[0]), [cat], cat[None], (files[0],), cat / 255]
    for picture in same:
        acts = model.read(picture, "layers.*.out")
        assert acts.axes["layers.1.out"] == ("example", "patch", "feature")
        assert acts["layers.1.out"].shape == (1, 17, 32)
        assert all(torch.equal(acts[site], wanted[site]) for site in wanted)


def test_grey_and_transparent_pictures_have_three_channels(model: op.Model) -> None:
    grey, colour = data.camera(), data.astronaut()
    opaque = np.concatenate([colour, np.full_like(colour[..., :1], 255)], -1)
    acts = model.read([grey, np.stack([grey] * 3, -1), colour, opaque], "layers.2.out")["layers.2.out"]
    assert torch.equal(acts[0], acts[1]) and torch.equal(acts[2], acts[3])
    assert not torch.equal(acts[0], acts[2])
    assert model.read(data.horse(), "layers.2.out")["layers.2.out"].isfinite().all(), "a picture of True and False"


def test_pictures_take_the_precision_of_the_network(folder: Path) -> None:
    half = op.load(folder, dtype=torch.bfloat16)
    assert half.read(data.chelsea(), "logits")["logits"].dtype == torch.bfloat16


def test_an_edit_while_a_picture_is_read(model: op.Model) -> None:
    plain = model.read(data.chelsea(), ["layers.1.out", "logits"])
    vector = torch.linspace(-3, 3, 32)
    with model.edited(edits.add("layers.1.out", vector)) as receipt:
        changed = model.read(data.chelsea(), ["layers.1.out", "logits"])
    torch.testing.assert_close(changed["layers.1.out"], plain["layers.1.out"] + vector)
    assert receipt.changed == 17 and not torch.equal(changed["logits"], plain["logits"])
    with model.edited(edits.zero_ablate("layers.1.attn.heads", heads=(2,))):
        heads = model.read(data.chelsea(), "layers.1.attn.heads")["layers.1.attn.heads"]
    assert bool((heads[:, :, 2] == 0).all()) and bool((heads[:, :, 1] != 0).any())


def test_our_own_processor_takes_them_too(files: list[Path]) -> None:
    model = op.load("efficientnet-lite0")
    assert torch.equal(
        model.read(files[0], "pooled")["pooled"],
        model.read(model.processor(data.chelsea())["pixel_values"], "pooled")["pooled"],
    )


@pytest.mark.parametrize(
    ("picture", "error", "says"),
    [
        (Path("nothing.png"), MissingFile, "no picture 'nothing.png'"),
        (Path(__file__), BadFile, "no picture that can be read"),
        (np.zeros((4, 4, 2), np.uint8), BadInput, r"not \[4, 4, 2\]"),
        (np.zeros((0, 4), np.uint8), BadInput, "a picture is"),
        (np.full((4, 4), 3.5), BadInput, "floats from 0 to 1"),
        (np.zeros((4, 4), np.int64), BadInput, "not of int64"),
        ([data.camera(), 5], BadInput, "not int"),
    ],
)
def test_what_is_no_picture_is_named(model: op.Model, picture: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        model.read(picture, "layers.1.out")
    assert "\n" not in str(caught.value)


def test_a_language_model_takes_no_pictures(llama: op.Model) -> None:
    with pytest.raises(NotSupported, match="no image processor"):
        llama.read(data.chelsea(), "layers.1.out")


def test_a_processor_that_needs_torchvision_is_left_out_with_a_warning(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    for kind in ("Sam2ImageProcessor", "Sam2ImageProcessorFast"):
        (copy / "preprocessor_config.json").write_text(json.dumps(settings | {"image_processor_type": kind}))
        with pytest.warns(UserWarning, match="runs on torchvision only"):
            model = op.load(copy)
        with pytest.raises(NotSupported, match="pass pixels"):
            model.read(data.chelsea(), "layers.1.out")
        assert model.read(torch.zeros(1, 3, 32, 32), "layers.1.out").layers_run == 2


# From the command line -----------------------------------------------------------------------------------------------


def test_pictures_are_read_from_the_command_line(
    folder: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sites", str(folder), "layers.1.mid"]) == 0
    assert "axes: example, patch 17, feature 32" in capsys.readouterr().out
    out = tmp_path / "acts.npz"
    sites = ["--sites", "layers.*.out", "--sites", "logits"]
    assert run(["read", str(folder), *map(str, files), *sites, "--json", "--out", str(out)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["sites"]["layers.2.out"]["shape"] == [2, 17, 32] and shown["sites"]["logits"]["shape"] == [2, 5]
    saved = np.load(out)
    assert np.array_equal(saved["layers.2.out"], op.load(folder).read(files, "layers.2.out")["layers.2.out"].numpy())
    for wrong, says in ((["absent.png"], "no picture 'absent.png'"), ([], "no picture was given")):
        assert run(["read", str(folder), *wrong]) == 1
        assert says in capsys.readouterr().err


def test_a_model_that_reads_and_sees_takes_either(
    tokenizer: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import CLIPConfig, CLIPModel, ViTImageProcessorPil

    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    text = {**shape, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "eos_token_id": 2}
    config = CLIPConfig(text_config=text, vision_config={**shape, "image_size": 32, "patch_size": 8})
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    model = op.load(CLIPModel(config).eval(), tokenizer=tokenizer, processor=processor)
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: model)
    assert run(["read", "clip", *map(str, files), "--sites", "vision.layers.1.out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sites"]["vision.layers.1.out"]["shape"] == [2, 17, 32]
    assert run(["read", "clip", "a cat", "--sites", "text.layers.1.out", "--raw", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sites"]["text.layers.1.out"]["shape"][0] == 1
