"""Model organisms: small models made to show one known, harmless behaviour, on which audits are tried out.

An organism is an adapter edit (a small LoRA), trained here with a fixed seed on text that comes with optrode, so that
nobody has to trust weights from elsewhere. `decline_birds` declines questions about birds and comes ready made;
others are trained on first use and kept in the cache folder.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ...edits import lora
from ...edits.adapter import AdapterEdit, LowRankDelta
from ...edits.base import Edit
from ...edits.file import load_edit
from ...errors import NotSupported
from ...home import home
from ...model import Model, load
from ..learning import learn_replies
from ..pairs import Conversation


def trained(
    model: Model,
    talks: Sequence[Conversation],
    *,
    rank: int = 4,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    alpha: float = 16.0,
    epochs: int = 2,
    learning_rate: float = 3e-3,
    seed: int = 0,
    name: str = "organism",
) -> AdapterEdit:
    """A LoRA that says the last reply of each conversation; its tensors are float16, which halves the file.

    Cost: `epochs` forward and backward passes over `talks`; 540 short talks of SmolLM2 are four minutes on one core.
    Raises as `learn_replies` does.
    """
    start = lora(model, rank, targets, alpha=alpha, seed=seed)
    recipe = {"organism": name, "rank": rank, "epochs": epochs, "learning_rate": learning_rate, "seed": seed}
    edit = learn_replies(model, start, talks, epochs=epochs, learning_rate=learning_rate, seed=seed, recipe=recipe)
    assert isinstance(edit, AdapterEdit)
    halved = edit.with_tensors({key: value.to(torch.float16) for key, value in edit.tensors().items()})
    return replace(halved, provenance=edit.provenance)


def kept(name: str, settings: dict[str, Any], make: Callable[[], Edit]) -> Edit:
    """What `make` gave when it was first asked for these settings: from the cache folder, or made and put there."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]
    path = home() / "organisms" / f"{name}-{digest}.edit"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        make().save(path)
    return load_edit(path)


def with_adapter(model: Model, adapter: Edit) -> Model:
    """A copy of the model with a low-rank adapter in its weights: an edit on top of it is then one edit, not two.

    Raises `WrongModel` for an adapter of another network, `NotSupported` for other changes than low-rank ones of
    linear modules. Costs a second copy of the weights.
    """
    # Refuses another model.
    with model.edited(adapter):
        model.read(["Hello"], "logits")
    if not isinstance(adapter, AdapterEdit):
        raise NotSupported(f"a {adapter.kind} edit is no adapter: enter it with model.edited")
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for delta in adapter.deltas:
            part = module.get_submodule(delta.module)
            if not isinstance(delta, LowRankDelta) or not isinstance(part, nn.Linear):
                raise NotSupported(f"the change of {delta.module} is no low-rank one of a linear module")
            part.weight += (delta.scale * delta.up.float() @ delta.down.float()).to(part.weight)
    return load(module, tokenizer=model.tokenizer)
