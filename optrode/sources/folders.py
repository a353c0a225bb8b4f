"""Folders as transformers writes them: config.json, safetensors weights, perhaps a tokenizer or image processor."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optrode.errors import BadFile, MissingFile, NotSupported
from optrode.messages import one_line
from optrode.sources.quiet import quiet_transformers
from optrode.sources.source import Source

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
NEEDS_CODE = "needs code that comes with the model, which optrode never runs"
PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def open_folder(folder: Path, *, dtype: torch.dtype | None = None) -> Source:
    """The model of a folder, of the class that its config names, in eval mode, on the CPU.

    dtype: None keeps the one that is stored.
    Warns when the file lacks weights that the class has (they then hold random numbers), and when its image processor
    cannot run without torchvision (it is then left out).
    Raises MissingFile without config.json or weights, BadFile for pickle-only folders and whatever cannot be read,
    NotSupported when the architecture needs code or packages that are not here.
    """
    check_layout(folder)
    return Source(
        module=_load_module(folder, dtype),
        tokenizer=_load_tokenizer(folder),
        processor=_load_image_processor(folder),
        name=folder.name,
        origin={"kind": "folder", "where": folder.name},
    )


def check_layout(folder: Path) -> None:
    """Raise MissingFile or BadFile, with what to do, when the folder cannot be a transformers model in safetensors."""
    names = sorted(path.name for path in folder.iterdir())
    if "config.json" not in names:
        ggufs = [name for name in names if name.endswith(".gguf")]
        advice = f"open the file {folder / ggufs[0]} instead" if ggufs else "expected the layout of save_pretrained"
        raise MissingFile(f"{folder} has no config.json; {advice}")
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = [name for name in names if name.endswith(PICKLE_ENDINGS)]
    if pickles:
        raise BadFile(
            f"{folder} holds its weights as pickle only ({pickles[0]}), which can run code when read; convert them "
            "where you trust them: from_pretrained(...).save_pretrained(...) writes safetensors"
        )
    raise MissingFile(f"{folder} has no weights: expected model.safetensors")


def _load_module(folder: Path, dtype: torch.dtype | None) -> nn.Module:
    from transformers import AutoConfig

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            _refuse_unknown_quantisation(folder.name, config)
            module, report = model_class(config).from_pretrained(
                folder,
                config=config,
                dtype=dtype or "auto",
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (MemoryError, NotSupported):
        raise
    except ImportError as error:
        raise NotSupported(f"{folder.name} needs a package that is not installed: {one_line(error)}") from error
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise NotSupported(f"{folder.name} {NEEDS_CODE}") from error
        raise BadFile(f"{folder.name} cannot be loaded by transformers: {one_line(error)}") from error
    _warn_of_random_weights(folder.name, sorted(report["missing_keys"]))
    return module.eval()


def _refuse_unknown_quantisation(name: str, config: PreTrainedConfig) -> None:
    """transformers would only log that it skips a quantiser it does not know, and read packed weights as plain ones."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    settings = getattr(config, "quantization_config", None)
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    known = [name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZER_MAPPING]
    if method is not None and method not in known:
        raise NotSupported(f"{name} is quantised by {str(method)!r}, which this version of transformers cannot read")


def model_class(config: PreTrainedConfig) -> Any:
    """The transformers class that `config.architectures` names, found in transformers' own tables of classes.

    An unknown name that says causal language model gives AutoModelForCausalLM, everything else AutoModel; an unknown
    name of a model that brings its own code is NotSupported, since the class of the same family would be another model.
    """
    import transformers
    from transformers.models.auto import modeling_auto

    architecture = (config.architectures or [""])[0]
    for table in (name for name in dir(modeling_auto) if name.startswith("MODEL_") and name.endswith("MAPPING")):
        classes = getattr(modeling_auto, table).get(type(config), ())
        for candidate in classes if isinstance(classes, tuple | list) else (classes,):
            if candidate.__name__ == architecture:
                return candidate
    if getattr(config, "auto_map", None):
        raise NotSupported(f"{architecture} {NEEDS_CODE}")
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return transformers.AutoModelForCausalLM
    return transformers.AutoModel


def _warn_of_random_weights(name: str, missing: list[str]) -> None:
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        warnings.warn(f"{name}: {len(missing)} weights are not stored and hold random numbers: {some}", stacklevel=2)


def _load_tokenizer(folder: Path) -> Any | None:
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        raise NotSupported(f"the tokenizer of {folder.name} needs a package: {one_line(error)}") from error
    except Exception as error:
        raise BadFile(f"the tokenizer of {folder.name} cannot be read: {one_line(error)}") from error


def _load_image_processor(folder: Path) -> Any | None:
    settings = _json_keys(folder / "preprocessor_config.json")
    if not any(key.startswith("image") for key in settings):  # a feature extractor for sound uses the same file name
        return None
    from transformers import AutoImageProcessor

    try:
        with quiet_transformers():
            # The default class of most processors needs torchvision; this one gives the same pixels without it.
            return AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    except Exception as error:
        _without_processor(folder, error)
        return None


def _without_processor(folder: Path, error: Exception) -> None:
    """Go on without an image processor that torchvision alone can run; refuse what cannot be read for other reasons."""
    if "torchvision" in str(error).lower():
        warnings.warn(
            f"{folder.name}: its image processor runs on torchvision only, which is not installed, so it is left out: "
            "pass pixels, or a processor of your own with op.load(..., processor=...)",
            stacklevel=2,
        )
        return
    if isinstance(error, ImportError):
        raise NotSupported(f"the image processor of {folder.name} needs a package: {one_line(error)}") from error
    raise BadFile(f"the image processor of {folder.name} cannot be read: {one_line(error)}") from error


def _json_keys(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return set()
