"""GGUF files: dequantised once to float32 safetensors, read from there ever after.

transformers reads a GGUF file in ten seconds or more and refuses to save the result. Here its weights go into a fresh
model of the same config, which is saved beside the tokenizer in a folder named by the content of the file.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optrode.errors import BadFile, NotSupported, OptrodeError
from optrode.home import home, written_whole
from optrode.messages import one_line, plain
from optrode.sources.files import made_once, sha256_of
from optrode.sources.folders import open_folder
from optrode.sources.gguf_header import Header, read_header
from optrode.sources.quiet import quiet_transformers, shown_when_slow
from optrode.sources.source import Source

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Part of the folder name: raise it when the conversion writes something else, so that old folders are not read.
CONVERTER = "1"


def open_gguf(path: Path, *, dtype: torch.dtype | None = None) -> Source:
    """The causal language model of a GGUF file, float32 unless `dtype` says otherwise, in eval mode, on the CPU.

    The tokenizer pads on the left, as generation needs it; chat template and token ids are those of the file.
    Raises BadFile for a damaged file, NotSupported for an architecture that transformers cannot read.
    Cost: the first time about 15 s for 135 million parameters and 4 bytes of disk per parameter; later a second or two.
    """
    path = Path(path)
    _check_magic(path)
    sha256 = sha256_of(path)
    folder = home() / "converted" / f"{path.stem}-{sha256[:12]}-{CONVERTER}"
    made_once(folder, lambda target: convert(path, target))
    source = open_folder(folder, dtype=dtype)
    origin = {"kind": "gguf", "where": path.name, "file": path.name, "sha256": sha256}
    return Source(source.module, source.tokenizer, None, path.stem, origin)


def convert(path: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into `folder`, whole or not at all.

    The weights are bit for bit those of `from_pretrained(..., gguf_file=...)` in float32.
    """
    with shown_when_slow(f"converting {path.name} (once)"), quiet_transformers():
        model, tokenizer = _read(path)
        with written_whole(folder) as aside:
            _without_quantisation(model).save_pretrained(aside)
            if tokenizer is not None:
                tokenizer.save_pretrained(aside)


def _read(path: Path) -> tuple[PreTrainedModel, Any | None]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        header = read_header(path)
        _check_size(path, header)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True
        )
        model, report = loaded
        missing = sorted(report["missing_keys"])
        if missing:
            # They would hold random numbers.
            raise BadFile(f"{path.name} lacks {len(missing)} weights of its network, such as {plain(missing[0])}")
        tokenizer = None
        if "tokenizer.ggml.tokens" in header.arrays:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, padding_side="left")
    except (MemoryError, OptrodeError):
        raise
    except ImportError as error:
        raise NotSupported(f"{path.name}: reading GGUF needs gguf and accelerate; {one_line(error)}") from error
    except Exception as error:
        if "not supported" in str(error):
            raise NotSupported(f"{path.name} cannot be read by transformers: {one_line(error)}") from error
        raise BadFile(f"{path.name} is damaged or not a GGUF that transformers reads: {one_line(error)}") from error
    return model, tokenizer


def _check_size(path: Path, header: Header) -> None:
    """Raises `BadFile` for a network that is larger than the tensors of the file, before memory is taken for it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    with torch.device("meta"):
        wanted = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    # Weights that are tied may count twice.
    if wanted > 2 * header.elements:
        raise BadFile(f"{path.name} is damaged: its network has {wanted:,} weights and it holds {header.elements:,}")


def _without_quantisation(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same class, config and weights that does not remember that it came from a GGUF file."""
    import torch

    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        fresh = type(model)(config)
    fresh.load_state_dict(model.state_dict(), strict=True, assign=True)
    fresh.tie_weights()
    fresh.generation_config = model.generation_config
    return fresh


def _check_magic(path: Path) -> None:
    if not path.is_file():
        # Nobody may ever write to a pipe.
        raise BadFile(f"{path.name} is not a GGUF file: it is a pipe, a device or a folder")
    try:
        with open(path, "rb") as file:
            begins = file.read(4)
    except OSError as error:
        raise BadFile(f"{path.name} cannot be read: {one_line(error)}") from error
    if begins != b"GGUF":
        raise BadFile(f"{path.name} is not a GGUF file: its first four bytes are not GGUF")
