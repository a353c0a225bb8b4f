"""What an edit costs in a compiled network: compiled with the edit in the graph against compiled without it."""

from __future__ import annotations

import shutil
from typing import Any

import torch

import optrode as op

from .alternate import Result, alternate
from .subject import subject

ROWS, TOKENS, LAYER = 8, 32, 15


def measure(rounds: int = 5) -> Result:
    """One forward of 8 x 32 tokens through SmolLM2, all logits. Making the four graphs takes a minute or more each."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise SystemExit("torch.compile needs a C++ compiler on the CPU: install g++")
    own = subject()
    ids = own.ids[:ROWS, :TOKENS]
    random = torch.Generator().manual_seed(1)
    vectors = torch.nn.functional.normalize(torch.randn(2, 576, generator=random), dim=-1)
    one = op.edits.add(f"layers.{LAYER}.out", 20 * vectors[0])
    every = op.edits.project_out("layers.*.out", vectors)
    plain = "compiled, no edit"
    networks = {plain: _twin(own.model), "compiled, a bias": one.bake(own.model)}
    networks["compiled, project_out in all layers"] = every.bake(own.model)
    compiled = {name: _compiled(network, ids) for name, network in networks.items()}
    variants = {name: _forward(network, ids) for name, network in compiled.items()}
    variants["eager, no edit"] = _forward(own.network, ids)
    rows = alternate(variants, plain, rounds)
    notes = ["All graphs are whole (fullgraph=True). A bias costs what the addition of 576 numbers a token costs."]
    return Result("Compiled with an edit, 8 x 32 tokens", plain, rows, [], notes)


def _twin(model: Any) -> Any:
    """The same network object for the reference as for the others: a twin, made by an edit of no strength."""
    return (op.edits.add(f"layers.{LAYER}.out", torch.ones(576)) * 0).bake(model)


def _compiled(network: Any, ids: Any) -> Any:
    compiled = torch.compile(network, fullgraph=True)
    with torch.no_grad():
        difference = (compiled(ids, use_cache=False).logits - network(ids, use_cache=False).logits).abs().max()
    if not float(difference) < 1e-2:
        raise SystemExit(f"compiled and eager differ by {float(difference):.1e}: nothing was timed")
    return compiled


def _forward(network: Any, ids: Any) -> Any:
    def run() -> Any:
        with torch.no_grad():
            return network(ids, use_cache=False).logits

    return run


if __name__ == "__main__":
    from .__main__ import show

    show(measure())
