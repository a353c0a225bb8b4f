"""What all benchmarks run on: SmolLM2-135M-Instruct in float32, two threads, and a few fixed inputs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

import optrode as op

THREADS = 2
LAYERS = 30
# Two prompts of the same length that differ in one name: the pair of indirect object identification.
BASE = "When John and Mary went to the shop, John gave the bag to"
DONOR = "When John and Mary went to the shop, Mary gave the bag to"
ANSWERS = (" Mary", " John")

PROMPTS = (
    "The capital of France is",
    "Water boils when",
    "My favourite book is about",
    "The train was late because",
    "To bake bread you need",
    "In winter the lake",
    "The old clock on the wall",
    "A good teacher always",
)


@dataclass(frozen=True)
class Subject:
    """The network as optrode loads it and, for peers that change what they wrap, a copy of it."""

    model: Any
    ids: Tensor
    base: Tensor
    donor: Tensor
    answers: tuple[int, int]

    @property
    def mask(self) -> Tensor:
        return torch.ones_like(self.ids)

    @property
    def network(self) -> Any:
        return self.model.module

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    def copied(self) -> Any:
        return copy.deepcopy(self.network)


@cache
def subject() -> Subject:
    torch.set_num_threads(THREADS)
    model = op.load("smollm2-135m", dtype=torch.float32)
    tokenizer = model.tokenizer
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 40000, (16, 128), generator=generator)
    base, donor = (tokenizer(text, return_tensors="pt").input_ids for text in (BASE, DONOR))
    first, second = (tokenizer(text, add_special_tokens=False).input_ids for text in ANSWERS)
    if base.shape != donor.shape or len(first) != 1 or len(second) != 1:
        raise SystemExit("the prompts of the pair must have the same number of tokens, and each answer one")
    return Subject(model, ids, base, donor, (first[0], second[0]))
