"""Edits and dictionaries in the files of other tools."""

from __future__ import annotations

import json
from pathlib import Path

from .kinds import kind
from .kinds_edits import WIDTH, _use


def _read_control_vector(folder: Path) -> None:
    from optrode.edits import import_file

    _use(import_file(folder / "input.gguf"))


# A damaged file may be taken for an archive: its names are in one of two encodings, and PyTorch looks up its settings.
@kind(share=6, read=_read_control_vector, imports=("encodings.", "torch.utils.serialization"))
def control_vector(box: Path) -> None:
    """Control vectors of one and of several layers, with and without entries of their own."""
    import torch
    from gguf import GGUFWriter

    from optrode import edits

    torch.manual_seed(0)
    one, other = (edits.add(f"layers.{layer}.out", torch.randn(WIDTH)) for layer in (1, 4))
    for name, made in (("one", one), ("two", one + other)):
        (box / name).mkdir(parents=True)
        made.export(box / name / "input.gguf")
    (box / "more").mkdir()
    writer = GGUFWriter(box / "more" / "input.gguf", "controlvector")
    writer.add_array("general.tags", ["a", "b"])
    writer.add_custom_alignment(64)
    writer.add_tensor("direction.2", torch.randn(WIDTH).double().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_steering_vector(folder: Path) -> None:
    from optrode.edits import steering_vector

    _use(steering_vector(folder / "input.pt"))


@kind(share=6, read=_read_steering_vector, imports=("encodings.",))
def steering_vector(box: Path) -> None:
    """What torch.save makes of vectors by layer, alone and with the place they are for."""
    import torch

    torch.manual_seed(0)
    layers = {0: torch.randn(WIDTH), 3: torch.randn(WIDTH).bfloat16()}
    for name, content in (
        ("layers", layers),
        ("fields", {"layer_activations": layers, "layer_type": "decoder_block"}),
    ):
        (box / name).mkdir(parents=True)
        torch.save(content, box / name / "input.pt")


def _read_dictionary(folder: Path) -> None:
    import torch

    from optrode.dictionaries import load_saelens

    found = load_saelens(folder)
    rows = torch.ones(2, found.width)
    repr(found), found.reconstruct(rows), found.decode(found.encode(rows), like=rows)


@kind(share=6, read=_read_dictionary)
def saelens(box: Path) -> None:
    """A dictionary of every kind that SAELens saves."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    size = 12
    own = {
        "standard": ("b_enc",), "topk": ("b_enc",), "jumprelu": ("b_enc", "threshold"),
        "gated": ("b_gate", "r_mag", "b_mag"),
    }  # fmt: skip
    for name, vectors in own.items():
        (box / name).mkdir(parents=True)
        config = {
            "architecture": name,
            "d_in": WIDTH,
            "d_sae": size,
            "dtype": "float32",
            "normalize_activations": "none",
        }
        config |= {"metadata": {"hook_name": "blocks.1.hook_resid_post"}, "apply_b_dec_to_input": True}
        (box / name / "cfg.json").write_text(json.dumps(config | ({"k": 3} if name == "topk" else {})))
        tensors = {"W_enc": torch.randn(WIDTH, size), "W_dec": torch.randn(size, WIDTH), "b_dec": torch.randn(WIDTH)}
        save_file(tensors | {key: torch.randn(size) for key in vectors}, box / name / "sae_weights.safetensors")
