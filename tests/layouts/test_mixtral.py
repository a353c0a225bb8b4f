from __future__ import annotations

from typing import ClassVar

from mixture_block import EXPERTS, TOP, MixtureChecks


class TestMixtral(MixtureChecks):
    layout = "mixtral"
    model_type = "mixtral"
    options: ClassVar = {"num_local_experts": EXPERTS, "num_experts_per_tok": TOP}
    equations = 3
