"""Folders as SAELens saves them: those of the kept file, and one that is written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = Path(__file__).parent / "oracles" / "sae_lens.safetensors"


@pytest.fixture(scope="session")
def kept() -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(FILE, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture
def saved(kept: Any, tmp_path: Path) -> Callable[[str], Path]:
    """The folder of one kind, byte for byte as SAELens wrote it."""

    def write(kind: str) -> Path:
        folder = tmp_path / kind
        folder.mkdir()
        for name, text in kept[0].items():
            if name.startswith(f"{kind}/"):
                (tmp_path / name).write_text(text)
        for name, value in kept[1].items():
            if name.startswith(f"{kind}/"):
                (tmp_path / name).write_bytes(bytes(value.tolist()))
        return folder

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder of the kind standard, for the tiny Llama: `folder(config={...}, W_enc=tensor, b_dec=None)`."""

    def write(config: dict[str, Any] | None = None, **changes: Tensor | None) -> Path:
        random = torch.Generator().manual_seed(3)
        shapes = {"W_enc": (32, 40), "W_dec": (40, 32), "b_enc": (40,), "b_dec": (32,)}
        tensors: dict[str, Any] = {name: torch.randn(*shape, generator=random) for name, shape in shapes.items()}
        tensors = {name: value for name, value in {**tensors, **changes}.items() if value is not None}
        said = {"d_in": 32, "d_sae": 40, "architecture": "standard", "hook_name": "blocks.1.hook_resid_post"}
        target = tmp_path / "by-hand"
        target.mkdir(exist_ok=True)
        (target / "cfg.json").write_text(json.dumps({**said, **(config or {})}))
        save_file(tensors, target / "sae_weights.safetensors")
        return target

    return write
