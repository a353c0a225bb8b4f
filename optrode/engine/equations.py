"""Measuring that sites are what they are called: one forward, and the equations of the layout on what it read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..activations import Activations
from ..errors import NotSupported
from ..host import Host
from ..layouts import Equation
from .hooks import hooks_alone
from .read import Readable, read


@dataclass(frozen=True)
class EquationCheck:
    """How well one equation holds in one block.

    `error` is the largest |left - right| over all positions, divided by the largest |result|: about 1e-7 in float32 and
    1e-2 in bfloat16 where the map is right, of the order of 1 where it is wrong, infinite where not even shapes agree.
    """

    layer: int
    equation: str
    error: float


def measure(host: Host, inputs: Readable) -> list[EquationCheck]:
    """Every equation of the network's layout in every block that has its sites, on one read of `inputs`.

    The network is measured unedited; padding is left out. Computed in float32 at least. Raises `NotSupported` for a
    network without layout, and for one in which no equation could be measured, since nothing would then be known.
    Costs one forward without head and the memory of the sites that the equations name.

    >>> import optrode
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> shape = dict(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    >>> model = optrode.load(LlamaForCausalLM(LlamaConfig(**shape)))
    >>> checks = measure(model, torch.tensor([[1, 2, 3]]))
    >>> [check.equation for check in checks], max(check.error for check in checks) < 1e-5
    (['mid = in + attn.out', 'out = mid + mlp.out'], True)
    """
    if host.layout is None:
        raise NotSupported(f"{host.name} ({type(host.module).__name__}) has no layout, so it has no site equations")
    wanted = [
        (layer, equation)
        for layer in range(host.layers)
        for equation in host.layout.equations
        if all(f"layers.{layer}.{site}" in host.table for site in (equation.result, *equation.terms))
    ]
    if not wanted:
        raise NotSupported(f"no equation of the layout '{host.layout.name}' has all its sites in {host.name}")
    sites = [f"layers.{layer}.{site}" for layer, equation in wanted for site in (equation.result, *equation.terms)]
    with hooks_alone():
        acts = read(host, inputs, list(dict.fromkeys(sites)))
        return [EquationCheck(layer, str(equation), _error(host, acts, layer, equation)) for layer, equation in wanted]


@torch.no_grad()
def _error(host: Host, acts: Activations, layer: int, equation: Equation) -> float:
    terms = {term: _rows(acts, f"layers.{layer}.{term}") for term in equation.terms}
    result = _rows(acts, f"layers.{layer}.{equation.result}")
    if any(value.shape != result.shape for value in terms.values()):
        return float("inf")
    scales = host.scales(equation)
    total = torch.stack([scales[term] * value for term, value in terms.items()]).sum(0)
    if equation.norm:
        norm = host.blocks[layer].get_submodule(equation.norm)
        kind = next((parameter.dtype for parameter in norm.parameters()), total.dtype)
        total = norm(total.to(kind)).to(total.dtype)
    largest = result.abs().max().clamp(min=torch.finfo(result.dtype).tiny)
    return float((total - result).abs().max() / largest)


def _rows(acts: Activations, site: str) -> Tensor:
    """The site as it is, or its tokens that are no padding, in float32 at least."""
    value = acts[site]
    value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if acts.batch is not None and acts.axes[site][:2] == ("example", "token"):
        return value[acts.batch.mask.to(value.device)]
    return value
