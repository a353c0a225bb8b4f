from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from optrode.errors import BadInput
from optrode.sources import open_source
from optrode.sources.images import ImageProcessor


def test_same_result_from_pil_and_array_and_one_or_many():
    Image = pytest.importorskip("PIL.Image")
    array = np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8)
    processor = ImageProcessor()
    pixels = processor([array, array[::-1]])["pixel_values"]
    assert pixels.shape == (2, 3, 224, 224) and pixels.dtype == torch.float32
    assert torch.equal(processor(array)["pixel_values"], pixels[:1])
    assert torch.equal(processor(Image.fromarray(array), return_tensors="pt")["pixel_values"], pixels[:1])


def test_resampling_agrees_with_pil():
    Image = pytest.importorskip("PIL.Image")
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ours = ImageProcessor(side=24, crop=1.0, mean=0.0, std=1.0)(array)["pixel_values"][0]
    theirs = np.asarray(Image.fromarray(array).resize((24, 24), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert (ours - torch.tensor(theirs.astype(np.float32))).abs().max() < 1.01  # PIL rounds after each of two passes


def test_crop_is_central_and_keeps_seven_eighths():
    array = np.zeros((8, 16, 3), np.uint8)
    array[:, 4:11] = 127
    array[0] = 255
    pixels = ImageProcessor(side=7)(array)["pixel_values"]
    # seven pixels of eight: columns 5 to 11 of 16 (the larger half of the rest is cut on the left), rows 1 to 7
    assert (pixels[..., :6] == 0).all()
    assert (pixels[..., 6] == -127 / 128).all()


def test_range_and_channels():
    array = np.zeros((32, 32, 3), np.uint8)
    array[..., 0] = 255
    pixels = ImageProcessor(side=16)(array)["pixel_values"][0]
    assert torch.allclose(pixels[0], torch.tensor(1.0)) and torch.allclose(pixels[1:], torch.tensor(-127 / 128))


@pytest.mark.parametrize(
    "images",
    [
        [],
        [np.zeros((8, 8), np.uint8)],
        [np.zeros((8, 8, 4), np.uint8)],
        [np.zeros((8, 8, 3), np.float32)],
        [np.zeros((0, 8, 3), np.uint8)],
        ["picture.png"],
    ],
)
def test_other_input_is_refused(images):
    with pytest.raises(BadInput, match="image"):
        ImageProcessor()(images)
    with pytest.raises(BadInput, match="return_tensors"):
        ImageProcessor()([np.zeros((8, 8, 3), np.uint8)], return_tensors="np")


def test_normalisation_is_the_one_the_network_was_trained_with(efficientnet_file: Path):
    """The first batch norm remembers the variance of its input in training; only the right scale reproduces it."""
    pictures = list(pytest.importorskip("sklearn.datasets").load_sample_images().images)
    source = open_source("efficientnet-lite0")
    network = source.module

    def deviation(pixels: torch.Tensor) -> float:
        with torch.no_grad():
            variance = network._conv_stem(pixels).var((0, 2, 3))
        return (variance.log() - network._bn0.running_var.log()).abs().median().item()

    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    pixels = source.processor(pictures)["pixel_values"]
    usual = ((pixels * 128 + 127) / 255 - mean) / std
    assert deviation(pixels) < 0.5 < 1 < deviation(usual)
    with torch.no_grad():
        assert network(pixels).argmax(1).tolist() == [698, 985]  # palace; daisy, the nearest class to a dahlia
