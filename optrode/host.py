"""A network as its owner loaded it, with the table of its sites. Nothing here changes the network or runs it."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import identity, lookup
from .errors import NotSupported
from .layouts import Equation, Layout, find
from .offloaded import execution_device
from .table import SiteInfo, join, whole_table
from .towers import language_tower, prefixed

if TYPE_CHECKING:
    from .sources import Source


class Host:
    """A network, its tokenizer or image processor, and where its activations are.

    `tower_hosts` holds the towers whose sites have addresses with a prefix, by that prefix (`vision`, `text`,
    `encoder`, `decoder`); it is empty for most networks.
    """

    def __init__(self, source: Source):
        self.module: nn.Module = source.module
        self.tokenizer: Any = source.tokenizer
        self.processor = source.processor
        self.name = source.name
        self.origin = dict(source.origin)
        modules = prefixed(self.base, self.config)
        self.tower_hosts = {prefix: self.part(name) for prefix, name in modules.items()}
        self.tower_paths = {prefix: join(self.base_path, name) for prefix, name in modules.items()}
        known = find(self.module)
        # Classes that wrap a network of a known type keep its blocks elsewhere.
        self._layout: Layout | None = known if known and _has(self.base, known.blocks) else self.of_language()
        # Why a network has no layout, or has one that was not measured; empty where it was.
        self.unmapped = ""

    @property
    def layout(self) -> Layout | None:
        """The map of the network's own blocks; None where only module paths are known, or those of its towers."""
        return self._layout

    @layout.setter
    def layout(self, layout: Layout | None) -> None:
        self._layout = layout
        self.forget_table()

    def forget_table(self) -> None:
        """Make the table anew when it is next asked for: the layout of the network or of a tower is another."""
        for name in ("table", "layers", "layers_by_tower"):
            self.__dict__.pop(name, None)

    # Towers -------------------------------------------------------------------------------------------------------

    def part(self, name: str) -> Host:
        """A tower, by its module below the base network, as a network of its own; nothing is copied."""
        from .sources import Source

        origin = {**self.origin, "tower": name}
        return Host(Source(getattr(self.base, name), self.tokenizer, self.processor, f"{self.name}.{name}", origin))

    def of_language(self, tower: Host | None = None) -> Layout | None:
        """The layout of the tower whose blocks are the network's own, with paths from here; None without one.

        `tower`: that tower, where it has been mapped already.
        """
        name = language_tower(self.base, self.config)
        if name is None:
            return None
        tower = tower or self.part(name)
        return tower.layout.below(join(name, tower.base_path)) if tower.layout else None

    def of(self, site: SiteInfo) -> Host:
        """The network whose blocks a site lies in: one of the towers, or this one."""
        return self.tower_hosts[site.tower] if site.tower else self

    @property
    def config(self) -> Any:
        return getattr(self.module, "config", None)

    def entry(self, name: str) -> Any:
        """An entry of the config, or of its part for text where the network also sees; None if there is none."""
        own = getattr(self.config, name, None)
        return own if own is not None else getattr(getattr(self.config, "text_config", None), name, None)

    @property
    def base(self) -> nn.Module:
        """The network without its head, which is what a read runs when no logits were asked for."""
        base = getattr(self.module, "base_model", self.module)
        return base if isinstance(base, nn.Module) else self.module

    @property
    def entrance(self) -> nn.Module:
        """The module whose call begins a forward, with a head and without."""
        return self.base.get_submodule(self.layout.entry) if self.layout and self.layout.entry else self.base

    @property
    def base_path(self) -> str:
        return next((name for name, module in self.module.named_modules() if module is self.base), "")

    @cached_property
    def layers(self) -> int:
        """Number of blocks; 0 for a network without layout."""
        return len(self.blocks) if self.layout else 0

    @cached_property
    def layers_by_tower(self) -> dict[str, int]:
        """Number of blocks by prefix, "" for the network's own, in order of execution."""
        return {**{prefix: tower.layers for prefix, tower in self.tower_hosts.items()}, "": self.layers}

    @property
    def blocks(self) -> nn.ModuleList:
        assert self.layout is not None
        return self.base.get_submodule(self.layout.blocks)  # type: ignore[return-value]

    @property
    def width(self) -> int | None:
        """Size of the stream, where the config tells."""
        return self.entry("hidden_size")

    @property
    def device(self) -> torch.device:
        """Where inputs go: where accelerate runs the network, or where its first weight is."""
        placed = execution_device(self.module)
        if placed is not None:
            return placed
        parameter = next(self.module.parameters(), None)
        return parameter.device if parameter is not None else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        parameter = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        return parameter.dtype if parameter is not None else torch.float32

    @property
    def causal(self) -> bool:
        """Whether tokens see only what comes before them; of several towers, no."""
        return self.layout.causal if self.layout else not self.tower_hosts

    @property
    def is_chat(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    @cached_property
    def accepts(self) -> frozenset[str]:
        """Names of the arguments of the base network's forward."""
        return frozenset(inspect.signature(self.base.forward).parameters)

    @cached_property
    def head_accepts(self) -> frozenset[str]:
        """Names of the arguments of the whole network's forward."""
        return frozenset(inspect.signature(self.module.forward).parameters)

    # Sites ------------------------------------------------------------------------------------------------------

    @cached_property
    def table(self) -> dict[str, SiteInfo]:
        """Every named site by address, in order of execution. Empty where only module paths are known."""
        return whole_table(self)

    def scales(self, equation: Equation) -> dict[str, float]:
        """The factor of each term of an equation, as the config gives it."""
        return {
            term: float(self.entry(equation.scale[term])) if term in equation.scale else 1.0 for term in equation.terms
        }

    @cached_property
    def paths(self) -> dict[str, nn.Module]:
        """Every module by path; a module that is used at several places has several."""
        return dict(self.module.named_modules(remove_duplicate=False))

    def match(self, patterns: Any) -> list[SiteInfo]:
        """The sites that any of `patterns` (text or list of texts) selects, in order of execution.

        Names of TransformerLens (`optrode.aliases`) and plain module paths are understood too. Raises `UnknownSite`
        naming the nearest addresses.
        """
        return lookup.match(self, patterns)

    def transformer_lens_name(self, site: SiteInfo) -> str | None:
        """What TransformerLens calls this activation, or None where it has no name for the same one."""
        return lookup.transformer_lens_name_of(self, site)

    def submodule(self, path: str) -> nn.Module:
        return self.paths[path]

    def head_counts(self) -> dict[str, int]:
        """Number of query and key heads, for ports that split by head."""
        query = self.entry("num_attention_heads")
        if query is None:
            raise NotSupported(
                f"{self.name}: the config names no number of attention heads, so no site can be split by head"
            )
        key: Any = self.layout.key_heads if self.layout else None
        return {"query": query, "key": key if isinstance(key, int) else self.entry(key or "") or query}

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Three short hashes: `config`, `tokenizer`, `weights`. See `optrode.identity.fingerprint`."""
        return identity.fingerprint(self)

    def _repr_html_(self) -> str:
        from .notebook.model import model

        return model(self)

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.module.parameters())
        stacks = [("", self), *self.tower_hosts.items()]
        layouts = [f"{prefix} {host.layout.name}".strip() for prefix, host in stacks if host.layout]
        layout = " + ".join(layouts) or "no layout"
        kind = type(self.module).__name__
        size = f"{sum(self.layers_by_tower.values())} layers, {count / 1e6:.1f}M parameters"
        return f"Model({self.name}: {kind}, {layout}, {size}, {self.dtype})"


def _has(module: nn.Module, path: str) -> bool:
    for name in path.split("."):
        module = getattr(module, name, None)  # type: ignore[assignment]
    return module is not None
