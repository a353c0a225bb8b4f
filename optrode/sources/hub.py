"""Models of the Hugging Face hub: the needed files are brought into the hub's own cache, then read as a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optrode.errors import BadFile, MissingFile, UnknownModel, did_you_mean
from optrode.messages import one_line
from optrode.sources.folders import open_folder
from optrode.sources.known import known_names
from optrode.sources.quiet import quiet_transformers, shown_when_slow
from optrode.sources.source import Source

if TYPE_CHECKING:
    import torch

# Weights in safetensors, settings and tokenizers; neither pickle nor Python files are ever downloaded.
WANTED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
UNWANTED = ["*/*", "consolidated*", "*.fp16.safetensors"]


def open_hub(name: str, *, revision: str | None = None, dtype: torch.dtype | None = None) -> Source:
    """The model with the hub id `org/name`, at a branch, tag or commit; from the hub's cache when there is no network.

    Raises UnknownModel when the hub cannot be reached and nothing is cached, or has no such model; BadFile when the
    model exists without safetensors weights.
    """
    folder = _snapshot(name, revision)
    try:
        source = open_folder(folder, dtype=dtype)
    except MissingFile as error:
        raise BadFile(
            f"{name} on the hub has no transformers model in safetensors; convert it where you trust it with "
            "from_pretrained(...).save_pretrained(...) and open that folder"
        ) from error
    config: Any = source.module.config
    config.name_or_path = name  # as from_pretrained(name) would have left it
    origin = {"kind": "hub", "where": name, "revision": folder.name}
    return dataclasses.replace(source, name=name.split("/")[-1], origin=origin)


def _snapshot(name: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        with shown_when_slow(f"fetching {name} from the hub"), quiet_transformers():
            path = huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED
            )
    except RevisionNotFoundError as error:
        raise UnknownModel(f"{name} has no revision {revision} on the hub") from error
    except RepositoryNotFoundError as error:
        why = "the hub has no public model of that name"
        raise UnknownModel(f"no model {name}: {why}; {did_you_mean(name, known_names())}") from error
    except (LocalEntryNotFoundError, OSError) as error:
        why = "the hub could not be reached, and it is not in the local cache"
        raise UnknownModel(f"no model {name}: {why}; {did_you_mean(name, known_names())}") from error
    except Exception as error:
        raise UnknownModel(f"no model {name}: {one_line(error)}; {did_you_mean(name, known_names())}") from error
    return Path(path)
