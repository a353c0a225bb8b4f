"""What every layout must hold, proved against a hand-written second forward of the block; and the arithmetic for that.

A test file subclasses `LayoutChecks`, makes a tiny random network of the real class and writes the block down again in
plain torch. In the hand-written block `at(name, tensor)` stands wherever a site is: it notes the tensor, and in the
tests of writing it changes it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import optrode
from optrode import edits
from optrode.engine.mapping.equations import measure
from optrode.errors import UnknownSite
from optrode.host import SiteInfo
from optrode.layouts import Layout, Port, find

At = Callable[[str, Tensor], Tensor]
TOLERANCE = 1e-5
INSIDE = ("attn.q_rotated", "attn.k_rotated", "attn.scores", "attn.pattern")
# The `at` of the block that is running, for the sites that `attention` itself marks.
RUNNING: ContextVar[At] = ContextVar("at", default=lambda _, value: value)
ROWS, TOKENS, VOCABULARY = 2, 7, 50


# Networks ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode with every parameter and statistic random, so that nothing is zero or one by accident.

    Matrices keep the size of what they multiply; norms are about 1, biases about 0.3.
    """
    random = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            # Fused experts are matrices one behind the other, [expert, row, column].
            size = math.sqrt(parameter[0].numel()) if ".experts." in name else parameter[0].numel()
            parameter.normal_(0, 0.8 / math.sqrt(size), generator=random)
        elif name.endswith("bias"):
            parameter.normal_(0, 0.3, generator=random)
        else:
            parameter.uniform_(0.5, 1.5, generator=random)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3, generator=random)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=random)
    return network.eval()


def token_ids(seed: int = 1) -> dict[str, Tensor]:
    """Token ids without padding, [row, token]; 0 to 3 are left to special tokens."""
    return {"input_ids": torch.randint(4, VOCABULARY, (ROWS, TOKENS), generator=torch.Generator().manual_seed(seed))}


def pictures(side: int, seed: int = 1) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(ROWS, 3, side, side, generator=torch.Generator().manual_seed(seed))}


# Arithmetic of the hand-written blocks -------------------------------------------------------------------------------


def linear(x: Tensor, module: nn.Module) -> Tensor:
    return F.linear(x, module.weight, module.bias)


def layer_norm(x: Tensor, module: nn.Module, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    normed = normed * module.weight
    return normed if module.bias is None else normed + module.bias


def rms_norm(x: Tensor, module: nn.Module, eps: float, offset: float = 0.0) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * (offset + module.weight)


def split(x: Tensor, heads: int) -> Tensor:
    """[row, token, width] to [row, token, head, feature]."""
    return x.unflatten(-1, (heads, -1))


def rotated(x: Tensor, base: float, size: int | None = None) -> Tensor:
    """Rotary positions: feature i and i + size / 2 of each head turn together by token / base^(2 i / size)."""
    size = size or x.shape[-1]
    angle = torch.arange(x.shape[1])[:, None] * base ** (-torch.arange(0, size, 2) / size)
    cos, sin = angle.cos()[None, :, None], angle.sin()[None, :, None]
    first, second, rest = x[..., : size // 2], x[..., size // 2 : size], x[..., size:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


def causal(tokens: int, window: int | None = None) -> Tensor:
    """True where query (first axis) may see key (second axis)."""
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
    return (distance >= 0) & (distance < (window or tokens))


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sees: Tensor | None = None,
    scale: float | None = None,
    bias: Tensor | float = 0.0,
    cap: float | None = None,
) -> Tensor:
    """pattern @ v of each query head; q, k, v are [row, token, head, feature], key heads are shared by query heads.

    The sites inside are marked here, so that the blocks need not.
    """
    at = RUNNING.get()
    q, k = at("attn.q_rotated", q), at("attn.k_rotated", k)
    k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (k, v))
    scores = torch.einsum("rqhf,rkhf->rhqk", q, k) * (scale if scale is not None else q.shape[-1] ** -0.5) + bias
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    hidden = torch.zeros(()).bool() if sees is None else ~sees
    # Whatever is written, what a query may not look at stays out of its sight.
    scores = at("attn.scores", scores.masked_fill(hidden, -torch.inf).transpose(1, 2)).transpose(1, 2)
    pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    pattern = at("attn.pattern", pattern.transpose(1, 2)).transpose(1, 2).masked_fill(hidden, 0.0)
    return torch.einsum("rhqk,rkhf->rqhf", pattern, v)


# The checks ----------------------------------------------------------------------------------------------------------


def relative_error(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape, f"{tuple(got.shape)} is not {tuple(wanted.shape)}"
    got, wanted = got.detach(), wanted.detach()
    unseen = wanted == -torch.inf
    assert torch.equal(got == -torch.inf, unseen)
    got, wanted = got.masked_fill(unseen, 0.0), wanted.masked_fill(unseen, 0.0)
    return float((got - wanted).abs().max() / wanted.abs().max())


def exchanged(layout: Layout, one: str, other: str) -> Layout:
    """The layout with two sites at each other's place, in every kind of block that has both."""

    def swap(ports: dict[str, Port]) -> dict[str, Port]:
        return {**ports, one: ports[other], other: ports[one]} if {one, other} <= set(ports) else ports

    kinds = {module: swap(ports) for module, ports in layout.kinds.items()}
    return replace(layout, ports=swap(layout.ports), kinds=kinds)


def own(model: optrode.Model) -> list[SiteInfo]:
    """The sites of the network's own blocks and their ends, without those of other towers."""
    return [site for site in model.table.values() if not site.tower]


class LayoutChecks:
    """Subclass as `Test...`, give `network`, `block` and `sizes`, and the tests below run on it.

    `sizes[site]` is what follows the positions: (feature,) or (head, feature), as the config says; sites that are not
    named have (width,). `swapped` are two sites whose exchange an equation must notice.
    """

    layout: ClassVar[str]
    width: ClassVar[int]
    sizes: ClassVar[dict[str, tuple[int, ...]]] = {}
    swapped: ClassVar[tuple[str, str]] = ("attn.out", "mlp.out")
    equations: ClassVar[int] = 2
    layers: ClassVar[int] = 3

    def network(self) -> nn.Module:
        raise NotImplementedError

    def inputs(self) -> dict[str, Tensor]:
        return token_ids()

    def example(self) -> dict[str, Tensor] | None:
        """What the sites are measured with on load, for networks that no made-up input fits."""
        return None

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        """The hand-written forward of one block: stream in, stream out, with `at` at every site."""
        raise NotImplementedError

    def final(self, model: optrode.Model) -> Tensor:
        """What the network itself answers."""
        return model.module(**self.inputs()).logits

    def run(self, model: optrode.Model, layer: int, h: Tensor, at: At) -> Tensor:
        """The hand-written block, with `at` in its attention too."""
        token = RUNNING.set(at)
        try:
            with torch.no_grad():
                return self.block(model.blocks[layer], layer, model.config, h, at)
        finally:
            RUNNING.reset(token)

    def size(self, name: str, model: optrode.Model) -> tuple[int, ...]:
        """What follows the positions at a site."""
        if name in ("attn.scores", "attn.pattern"):
            tokens = model.read(self.inputs(), "layers.0.in")["layers.0.in"].shape[1]
            return self.sizes["attn.heads"][0], tokens
        return self.sizes.get(name.removesuffix("_rotated") if name in INSIDE else name, (self.width,))

    def names(self, model: optrode.Model, layer: int = 1) -> list[str]:
        stem = f"layers.{layer}."
        return [address.removeprefix(stem) for address in model.table if address.startswith(stem)]

    def writable(self, model: optrode.Model) -> list[str]:
        """The sites of a block that can be written."""
        return [name for name in self.names(model) if not model.table[f"layers.1.{name}"].port.read_only]

    def test_the_layout_is_found(self, model: optrode.Model) -> None:
        assert model.layout is not None and model.layout.name == self.layout
        assert model.layers == self.layers
        assert find(model.module) == model.layout

    def test_the_equations_hold(self, model: optrode.Model) -> None:
        checks = measure(model, self.inputs())
        assert len(checks) == self.equations * model.layers
        for check in checks:
            assert check.error < TOLERANCE, check

    def test_a_wrong_map_is_caught(self) -> None:
        model = optrode.load(self.network())
        one, other = self.swapped
        model.layout = exchanged(model.layout, one, other)
        assert max(check.error for check in measure(model, self.inputs())) > 0.01

    def test_every_site_reads_with_its_axes(self, model: optrode.Model) -> None:
        named = {site.address: site for site in own(model) if site.layer is not None}
        acts = model.read(self.inputs(), list(named))
        rows = acts["layers.0.in"].shape[:-1]
        for address, value in acts.items():
            name = address.split(".", 2)[2]
            assert value.shape == (*rows, *self.size(name, model)), address
            assert len(named[address].port.axes) == value.dim(), address

    def test_a_plan_knows_every_byte_of_a_read(self, model: optrode.Model) -> None:
        inputs = self.inputs()
        for listed in ([site for site in model.table if site != "logits"], ["layers.1.out"], ["logits"]):
            if not set(listed) <= set(model.table):
                continue
            planned, acts = optrode.plan(model, inputs, listed), model.read(inputs, listed)
            assert planned.bytes_by_site == {site: value.nbytes for site, value in acts.items()}
            assert {found.site: found.axes for found in planned.sites} == acts.axes
            if listed != ["logits"]:
                assert (planned.layers_run, planned.layers_skipped) == (acts.layers_run, acts.layers_skipped)
            assert planned.forward_bytes is not None and planned.seconds is not None

    def test_the_ends_read(self, model: optrode.Model) -> None:
        ends = [site.address for site in own(model) if site.layer is None]
        acts = model.read(self.inputs(), ends)
        assert relative_error(acts["logits"], self.final(model)) < TOLERANCE
        for address in acts:
            assert acts.axes[address] == model.table[address].port.axes

    def test_sites_equal_the_hand_written_forward(self, model: optrode.Model) -> None:
        for layer in range(model.layers):
            seen: dict[str, Tensor] = {}

            def note(name: str, value: Tensor, seen: dict[str, Tensor] = seen) -> Tensor:
                seen[name] = value
                return value

            acts = model.read(self.inputs(), [f"layers.{layer}.{name}" for name in self.names(model, layer)])
            self.run(model, layer, acts[f"layers.{layer}.in"], note)
            names = set(self.names(model, layer))
            assert names <= set(seen) and set(seen) - names <= set(INSIDE)
            for name, value in seen.items():
                if name not in names:
                    continue
                assert relative_error(acts[f"layers.{layer}.{name}"], value) < TOLERANCE, name

    @pytest.mark.parametrize("kind", ["replace", "add", "scale"])
    def test_written_sites_equal_the_hand_written_forward(self, model: optrode.Model, kind: str) -> None:
        acts = model.read(self.inputs(), ["layers.1.in", "layers.2.out"])
        for name in self.writable(model):
            size = self.size(name, model)
            edit, by_hand = self.change(f"layers.1.{name}", kind, size, model)
            with model.edited(edit):
                got = model.read(self.inputs(), "layers.{1,2}.out")
            at = self.changing(name, by_hand)
            first = self.run(model, 1, acts["layers.1.in"], at)
            second = self.run(model, 2, first, lambda _, value: value)
            assert relative_error(got["layers.1.out"], first) < TOLERANCE, name
            assert relative_error(got["layers.2.out"], second) < TOLERANCE, name
            by_token = "token" in model.table[f"layers.1.{name}"].port.axes
            if name in ("attn.k", "attn.k_rotated") and kind == "add" and not by_token:
                continue  # The same vector added to every key shifts all scores of a query alike.
            assert relative_error(got["layers.2.out"], acts["layers.2.out"]) > 1e-3, f"{name} had no effect"

    def change(
        self, site: str, kind: str, size: tuple[int, ...], model: optrode.Model
    ) -> tuple[edits.Edit, Callable[[Tensor], Tensor]]:
        """An edit and the same by hand; at chosen tokens where the site has tokens."""
        random = torch.Generator().manual_seed(len(site))
        value = torch.randn(size, generator=random)
        by_token = "token" in model.table[site].port.axes
        positions, where = ("index:1,4", [1, 4]) if by_token else ("all", slice(None))
        operation = {"replace": lambda h: value.expand_as(h), "add": lambda h: h + value, "scale": lambda h: h * value}
        made = {
            "replace": edits.replace(site, value, positions),
            "add": edits.add(site, value, positions),
            "scale": edits.scale(site, value, positions),
        }

        def by_hand(h: Tensor) -> Tensor:
            h = h.clone()
            h[:, where] = operation[kind](h[:, where])
            return h

        return made[kind], by_hand

    def changing(self, site: str, by_hand: Callable[[Tensor], Tensor]) -> At:
        return lambda name, value: by_hand(value) if name == site else value

    def test_some_heads_can_be_written_alone(self, model: optrode.Model) -> None:
        edit = edits.zero_ablate("layers.1.attn.heads", heads=(1,))
        plain = model.read(self.inputs(), "layers.1.attn.heads")["layers.1.attn.heads"]
        with model.edited(edit):
            got = model.read(self.inputs(), "layers.1.attn.heads")["layers.1.attn.heads"]
        assert bool((got[:, :, 1] == 0).all())
        others = [head for head in range(plain.shape[2]) if head != 1]
        assert torch.equal(got[:, :, others], plain[:, :, others])

    def test_the_pattern_is_the_one_that_the_network_can_return(self, model: optrode.Model) -> None:
        sites = [site.address for site in own(model) if site.name == "attn.pattern"]
        if not sites:
            with pytest.raises(UnknownSite, match="nothing inside the attention"):
                model.match("layers.0.attn.pattern")
            return
        acts = model.read(self.inputs(), sites)
        other = self.network()
        other.set_attn_implementation("eager")
        returned = other(**self.inputs(), output_attentions=True).attentions
        assert len(returned) == len(sites)
        for site, pattern in zip(sites, returned, strict=True):
            assert relative_error(acts[site], pattern.transpose(1, 2)) < TOLERANCE, site

    def padded(self, model: optrode.Model) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Two rows of which the second has two columns of padding, and that row alone."""
        inputs = self.inputs()
        seen = slice(2, None) if model.causal else slice(None, -2)
        mask = torch.zeros_like(inputs["input_ids"])
        mask[0], mask[1, seen] = 1, 1
        both = {**inputs, "attention_mask": mask}
        if model.causal and "position_ids" in model.accepts:
            both["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        alone = {name: value[1:, seen] if name == "input_ids" else value[1:] for name, value in inputs.items()}
        return both, alone

    def test_the_mask_of_a_padded_row_stays_the_hosts(self, model: optrode.Model) -> None:
        """While it is looked at and while it is edited: a row answers as it does alone."""
        sites = [site.address for site in own(model) if site.name == "attn.pattern"]
        if not sites or "input_ids" not in self.inputs():
            return
        both, alone = self.padded(model)
        real = both["attention_mask"].bool()
        with torch.no_grad():
            plain = model.module(**both)[0]
            with model.edited(edits.scale("layers.*.attn.scores", 1.0)):
                assert torch.equal(model.module(**both)[0], plain)
        edit = edits.add(sites[0].replace("pattern", "scores"), 3.0, keys="first:1", heads=(1,))
        for changes in ((), (edit,)):
            with contextlib.ExitStack() as stack:
                for change in changes:
                    stack.enter_context(model.edited(change))
                acts = model.read(both, [*sites, "layers.2.out"])
                wanted = model.read(alone, [*sites, "layers.2.out"])
            for site in sites:
                pattern = acts[site][1, real[1]]
                assert bool((pattern[..., ~real[1]] == 0).all()), site
                assert relative_error(pattern[..., real[1]], wanted[site][0]) < TOLERANCE, site
            got = acts["layers.2.out"][1, real[1]]
            assert relative_error(got, wanted["layers.2.out"][0]) < TOLERANCE

    def test_logits_can_be_written(self, model: optrode.Model) -> None:
        """Also where the network scales or caps them after its head."""
        if "logits" not in model.table:
            assert model.layout.head is None or model.layout.head.module not in model.paths
            return
        plain = self.final(model)
        vector = torch.linspace(-1, 1, plain.shape[-1])
        with model.edited(edits.add("logits", vector)):
            assert relative_error(self.final(model), plain + vector) < TOLERANCE

    def test_strength_zero_changes_no_bit(self, model: optrode.Model) -> None:
        plain = self.final(model)
        for name in self.writable(model):
            size = self.size(name, model)
            with model.edited(edits.add(f"layers.1.{name}", torch.ones(size)) * 0):
                assert torch.equal(self.final(model), plain), name

    def test_adding_zero_changes_no_bit(self, model: optrode.Model) -> None:
        """The edit runs, so that every view, split and join is taken both ways, and must give back what it got."""
        plain = self.final(model)
        for name in self.writable(model):
            size = self.size(name, model)
            with model.edited(edits.add(f"layers.1.{name}", torch.zeros(size))):
                assert torch.equal(self.final(model), plain), name

    def test_a_read_stops_after_the_block(self, model: optrode.Model) -> None:
        acts = model.read(self.inputs(), "layers.1.out")
        assert (acts.layers_run, acts.layers_skipped) == (2, model.layers - 2)
