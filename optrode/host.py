"""A network as its owner loaded it, with the table of its sites. Nothing here changes the network or runs it."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .errors import NotSupported, UnknownSite, did_you_mean
from .layouts import Equation, Layout, Port, find
from .sites import parse, select

if TYPE_CHECKING:
    from .sources import Source

# Entries of a config that say how or where it was loaded, not what the network is.
_VOLATILE = {
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "quantization_config", "_attn_implementation",
    "use_cache", "architectures",
}  # fmt: skip


@dataclass(frozen=True)
class SiteInfo:
    """One activation of one model: its address, where it lives, and what it is.

    `rank` orders sites by execution; None means unknown (raw module paths), so that no early stop can follow it.
    `scale` is what the block multiplies the site `adds_to` with before the addition.
    """

    address: str
    layer: int | None
    module: str
    port: Port
    rank: tuple[int, int] | None
    adds_to: str | None = None
    scale: float = 1.0

    @property
    def equation(self) -> str:
        return self.port.says


class Host:
    """A network, its tokenizer or image processor, and where its activations are."""

    def __init__(self, source: Source):
        self.module: nn.Module = source.module
        self.tokenizer: Any = source.tokenizer
        self.processor = source.processor
        self.name = source.name
        self.origin = dict(source.origin)
        self.layout: Layout | None = find(self.module)

    @property
    def config(self) -> Any:
        return getattr(self.module, "config", None)

    @property
    def base(self) -> nn.Module:
        """The network without its head, which is what a read runs when no logits were asked for."""
        base = getattr(self.module, "base_model", self.module)
        return base if isinstance(base, nn.Module) else self.module

    @property
    def base_path(self) -> str:
        return next((name for name, module in self.module.named_modules() if module is self.base), "")

    @cached_property
    def layers(self) -> int:
        """Number of blocks; 0 for a network without layout."""
        return len(self.blocks) if self.layout else 0

    @property
    def blocks(self) -> nn.ModuleList:
        assert self.layout is not None
        return self.base.get_submodule(self.layout.blocks)  # type: ignore[return-value]

    @property
    def width(self) -> int | None:
        """Size of the stream, where the config tells."""
        return getattr(self.config, "hidden_size", None)

    @property
    def device(self) -> torch.device:
        parameter = next(self.module.parameters(), None)
        return parameter.device if parameter is not None else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        parameter = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        return parameter.dtype if parameter is not None else torch.float32

    @property
    def causal(self) -> bool:
        return self.layout.causal if self.layout else True

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
        """Every named site by address, in order of execution. Empty for a network without layout."""
        if self.layout is None:
            return {}
        base, layout = self.base_path, self.layout
        found: dict[str, SiteInfo] = {}
        for order, (name, port) in enumerate(layout.outer_before.items()):
            self._enter(found, name, None, _join(base, port.module), port, (-1, order), None)
        for layer in range(self.layers):
            block = _join(base, layout.blocks, str(layer))
            for order, (name, port) in enumerate(layout.ports.items()):
                adds_to = f"layers.{layer}.{port.adds_to}" if port.adds_to else None
                address = f"layers.{layer}.{name}"
                self._enter(found, address, layer, _join(block, port.module), port, (layer, order), adds_to)
        for order, (name, port) in enumerate(layout.outer_after.items()):
            self._enter(found, name, None, _join(base, port.module), port, (self.layers, order), None)
        # The output of a network without head is no logits.
        if layout.head is not None and (layout.head.module or base):
            self._enter(found, "logits", None, layout.head.module, layout.head, (self.layers + 1, 0), None)
        return found

    def _enter(
        self, found: dict, address: str, layer: int | None, path: str, port: Port, rank: tuple, adds_to: Any
    ) -> None:
        # A part that this network does not have (no head, no pooler) has no site.
        if path in self._paths:
            found[address] = SiteInfo(address, layer, path, port, rank, adds_to, self._scale(address, port))

    def _scale(self, address: str, port: Port) -> float:
        """The factor of the part that a sum such as `mid` is written through."""
        assert self.layout is not None
        for equation in self.layout.equations:
            if port.adds_to in equation.scale and address.endswith(f".{equation.result}"):
                return self.scales(equation)[port.adds_to]
        return 1.0

    def scales(self, equation: Equation) -> dict[str, float]:
        """The factor of each term of an equation, as the config gives it."""
        return {
            term: float(getattr(self.config, equation.scale[term])) if term in equation.scale else 1.0
            for term in equation.terms
        }

    @cached_property
    def _paths(self) -> dict[str, nn.Module]:
        return dict(self.module.named_modules(remove_duplicate=False))

    def match(self, patterns: Any) -> list[SiteInfo]:
        """The sites that any of `patterns` (text or list of texts) selects, in order of execution.

        Raises `UnknownSite` naming the nearest addresses.
        """
        texts = [patterns] if isinstance(patterns, str) else list(patterns)
        named = [text for text in texts if not parse(text).raw]
        raw = [text for text in texts if parse(text).raw]
        if named and not self.table:
            raise UnknownSite(
                f"{named[0]!r}: {self.name} ({type(self.module).__name__}) has no layout, so name a module path: "
                f"{did_you_mean(named[0], [f'module:{path}' for path in self._paths if path])}"
            )
        addresses = select(named, list(self.table), self.layers) if named or not raw else []
        found = {info.address: info for text in raw for info in self._match_raw(text)}
        return [self.table[address] for address in addresses] + list(found.values())

    def _match_raw(self, text: str) -> list[SiteInfo]:
        pattern, _, side = text.removeprefix("module:").partition(":")
        if side not in ("", "in"):
            raise UnknownSite(f"{text!r}: after the path only :in (the first input) can follow")
        paths = [p for p in self._paths if p and parse(f"module:{pattern}").matches(f"module:{p}", self.layers)]
        if not paths:
            raise UnknownSite(
                f"no module {pattern!r} in {self.name}: {did_you_mean(pattern, [p for p in self._paths if p])}"
            )
        suffix = ":in" if side else ""
        port = Port("", side or "out", f"{'first input' if side else 'output'} of the module", axes=())
        return [SiteInfo(f"module:{path}{suffix}", None, path, port, self._raw_rank(path)) for path in paths]

    def _raw_rank(self, path: str) -> tuple[int, int] | None:
        """A raw site inside a block is done when its block is; elsewhere nobody knows the order."""
        if self.layout is None:
            return None
        stem = _join(self.base_path, self.layout.blocks) + "."
        index = path.removeprefix(stem).split(".")[0] if path.startswith(stem) else ""
        return (int(index), len(self.layout.ports)) if index.isdigit() else None

    def submodule(self, path: str) -> nn.Module:
        return self._paths[path]

    def head_counts(self) -> dict[str, int]:
        """Number of query and key heads, for ports that split by head."""
        query = getattr(self.config, "num_attention_heads", None)
        if query is None:
            raise NotSupported(
                f"{self.name}: the config names no number of attention heads, so no site can be split by head"
            )
        key: Any = self.layout.key_heads if self.layout else None
        return {"query": query, "key": key if isinstance(key, int) else getattr(self.config, key or "", None) or query}

    # Identity -----------------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Three short hashes: `config`, `tokenizer`, `weights` (16 values of every tensor, rounded to bfloat16).

        The rounding makes the hash survive a change between float32 and bfloat16; float16 rounds some values otherwise,
        so that a float16 copy counts as other weights. Costs well under a second.
        """
        return {
            "config": _hash(self._config_text()),
            "tokenizer": self._tokenizer_hash(),
            "weights": self._weights_hash(),
        }

    def _config_text(self) -> str:
        if hasattr(self.config, "to_dict"):
            kept = {key: value for key, value in self.config.to_dict().items() if key not in _VOLATILE}
            return json.dumps(kept, sort_keys=True, default=str)
        shapes = {name: list(tensor.shape) for name, tensor in self.module.state_dict().items()}
        return json.dumps([type(self.module).__name__, shapes], sort_keys=True)

    def _tokenizer_hash(self) -> str:
        if self.tokenizer is None:
            return "none"
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return _hash(json.dumps([vocabulary, getattr(self.tokenizer, "chat_template", None)], default=str))

    def _weights_hash(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            if tensor.is_floating_point() and tensor.numel():
                flat = tensor.detach().reshape(-1)
                sample = flat[:: max(1, flat.numel() // 16)][:16].to("cpu", torch.bfloat16).float()
                digest.update(name.encode())
                digest.update(sample.numpy().tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.module.parameters())
        layout = self.layout.name if self.layout else "no layout"
        kind = type(self.module).__name__
        size = f"{self.layers} layers, {count / 1e6:.1f}M parameters"
        return f"Model({self.name}: {kind}, {layout}, {size}, {self.dtype})"


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
