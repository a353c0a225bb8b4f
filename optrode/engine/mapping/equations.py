"""Measuring that sites are what they are called: one forward, and the equations of the layout on what it read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...activations import Activations
from ...errors import NotSupported
from ...host import Host
from ...layouts import Equation
from ..hooks import hooks_alone
from ..reading.read import Readable, read


@dataclass(frozen=True)
class EquationCheck:
    """How well one equation holds in one block.

    `error` is the largest |left - right| over all positions, divided by the largest |result|: about 1e-7 in float32 and
    1e-2 in bfloat16 where the map is right, of the order of 1 where it is wrong, infinite where not even shapes agree.
    `roundings` is the largest |left - right| in units of what rounding can do to that very number (`eps` times the sum
    of the sizes of what was added): it finds a wrong part however small it is beside the stream. None where a norm
    follows the sum or experts are summed. `tower` is the prefix of the tower that was measured.
    """

    layer: int
    equation: str
    error: float
    roundings: float | None = None
    eps: float = torch.finfo(torch.float32).eps
    tower: str = ""

    @property
    def holds(self) -> bool:
        """Whether the difference is no more than rounding; False too where it is NaN."""
        if self.roundings is not None:
            return self.roundings <= MOST_ROUNDINGS
        return self.error <= tolerance(self.eps)


# Each addition and each factor rounds once, by at most half a unit; no equation has more than four of them.
MOST_ROUNDINGS = 2.0


def tolerance(eps: float) -> float:
    """The largest error of an equation with a norm: a norm spreads the rounding of one number over all of them."""
    return max(1e-4, 16 * eps)


def measure(host: Host, inputs: Readable, tower: str = "") -> list[EquationCheck]:
    """Every equation of the network's layout in every block that has its sites, on one read of `inputs`.

    `tower`: the prefix of a tower whose blocks to measure instead of the network's own.
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
    stack = host.tower_hosts[tower] if tower else host
    if stack.layout is None:
        raise NotSupported(f"{stack.name} ({type(stack.module).__name__}) has no layout, so it has no site equations")
    stems = [f"{tower}.layers.{layer}.".removeprefix(".") for layer in range(stack.layers)]
    wanted = [
        (layer, equation)
        for layer, stem in enumerate(stems)
        for equation in stack.layout.equations
        if all(stem + site in host.table for site in equation.sites)
    ]
    if not wanted:
        raise NotSupported(f"no equation of the layout '{stack.layout.name}' has all its sites in {stack.name}")
    sites = [stems[layer] + site for layer, equation in wanted for site in equation.sites]
    with hooks_alone():
        acts = read(host, inputs, list(dict.fromkeys(sites)))
        checks = [_check(stack, acts, stems[layer], layer, equation) for layer, equation in wanted]
        return [replace(check, tower=tower) for check in checks]


@torch.no_grad()
def _check(host: Host, acts: Activations, stem: str, layer: int, equation: Equation) -> EquationCheck:
    sites = [stem + name for name in (equation.result, *equation.terms)]
    result, *values = (_rows(acts, site) for site in sites)
    for term, weights in equation.weights.items():
        at = equation.terms.index(term)
        values[at] = (_rows(acts, stem + weights)[..., None] * values[at]).sum(-2)
    kind = max((acts[site].dtype for site in sites), key=lambda dtype: torch.finfo(dtype).eps)
    eps = torch.finfo(kind).eps
    if any(value.shape != result.shape for value in values):
        return EquationCheck(layer, str(equation), float("inf"), None if equation.norm else float("inf"), eps)
    scales = host.scales(equation)
    terms = torch.stack([scales[term] * value for term, value in zip(equation.terms, values, strict=True)])
    total = terms.sum(0)
    if equation.norm:
        norm = host.blocks[layer].get_submodule(equation.norm)
        own = next((parameter.dtype for parameter in norm.parameters()), total.dtype)
        total = norm(total.to(own)).to(total.dtype)
    largest = result.abs().max().clamp(min=torch.finfo(result.dtype).tiny)
    error = float((total - result).abs().max() / largest)
    # Experts are computed a second time to be read, so that rounding inside of them counts too.
    if equation.norm or equation.weights:
        return EquationCheck(layer, str(equation), error, None, eps)
    return EquationCheck(layer, str(equation), error, roundings(result, terms, kind), eps)


def roundings(result: Tensor, terms: Tensor, kind: torch.dtype) -> float:
    """The largest |sum of terms - result| in units of rounding in `kind`; `terms` are stacked on a first axis."""
    sizes = terms.abs().sum(0) + result.abs() + torch.finfo(kind).tiny
    return float(((terms.sum(0) - result).abs() / (torch.finfo(kind).eps * sizes)).max())


def _rows(acts: Activations, site: str) -> Tensor:
    """The site as it is, or its tokens that are no padding, in float32 at least."""
    value = acts[site]
    value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if acts.batch is not None and acts.axes[site][:2] == ("example", "token"):
        return value[acts.batch.mask.to(value.device)]
    return value
