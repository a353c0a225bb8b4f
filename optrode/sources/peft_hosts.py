"""Networks that PEFT has wrapped: the network inside has the adapters in it, and the addresses of its class.

PEFT puts LoRA and its relatives into the modules of a network and an object around it. That object's forward only calls
the network, so that both compute the same, `disable_adapter` and `set_adapter` act on both, and what is read or edited
in the network is read and edited in forwards of the object too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from optrode.errors import NotSupported

if TYPE_CHECKING:
    from torch import nn


def without_peft(module: nn.Module) -> nn.Module:
    """The network inside a wrapper of PEFT, adapters included; any other module as it is. Nothing is copied or merged.

    Raises `NotSupported` for wrappers whose own forward adds something: prompt tuning, prefix tuning and the like put
    tokens or a cache in front, which the network inside knows nothing of.
    """
    # Who has a wrapped network has imported the package.
    peft: Any = sys.modules.get("peft")
    kinds = tuple(kind for name in ("PeftModel", "PeftMixedModel") if (kind := getattr(peft, name, None)) is not None)
    if not kinds or not isinstance(module, kinds):
        return module
    configs = getattr(module, "peft_config", {})
    prompts = [config for config in configs.values() if getattr(config, "is_prompt_learning", False)]
    if prompts:
        kind = getattr(prompts[0].peft_type, "value", prompts[0].peft_type)
        raise NotSupported(
            f"{type(module).__name__} adds tokens in a forward of its own ({kind}): load the network inside, "
            "module.get_base_model(), and give the prompt as an edit (op.edits.prompt)"
        )
    inner = module.get_base_model() if hasattr(module, "get_base_model") else module.base_model.model
    return inner
