"""A network as its owner loaded it, with the table of its sites. Nothing here changes the network or runs it."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .aliases import addresses_of, transformer_lens_name
from .errors import NotSupported, UnknownSite, did_you_mean
from .layouts import Equation, Layout, Port, find
from .layouts.base import inside_attention
from .offloaded import execution_device, stored_tensors
from .sites import parse, select

if TYPE_CHECKING:
    from .sources import Source

# Entries of a config that say how or where it was loaded, not what the network is.
_VOLATILE = {
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "quantization_config", "_attn_implementation",
    "use_cache", "architectures",
}  # fmt: skip

# What looks like an address is never taken for a module path of a network whose sites are not known.
_ADDRESS = re.compile(r"layers\.\d+\.(in|out|mid|(attn|mlp)\.\w+)|embed|final|logits")


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
        known = find(self.module)
        # Classes that wrap a network of a known type keep its blocks elsewhere.
        self._layout: Layout | None = known if known and _has(self.base, known.blocks) else None
        # Why a network has no layout, or has one that was not measured; empty where it was.
        self.unmapped = ""

    @property
    def layout(self) -> Layout | None:
        """The map of the network's sites; None where only module paths are known."""
        return self._layout

    @layout.setter
    def layout(self, layout: Layout | None) -> None:
        for name in ("table", "layers"):
            self.__dict__.pop(name, None)
        self._layout = layout

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
            for order, (name, port) in enumerate(layout.ports_of(self.blocks[layer]).items()):
                adds_to = f"layers.{layer}.{port.adds_to}" if port.adds_to else None
                address = f"layers.{layer}.{name}"
                self._enter(found, address, layer, _join(block, port.module), port, (layer, order), adds_to)
        for order, (name, port) in enumerate(layout.outer_after.items()):
            self._enter(found, name, None, _join(base, port.module), port, (self.layers, order), None)
        # The output of a network without head is no logits; where a map was measured, that was too.
        measured = layout.name.startswith("measured:")
        if layout.head is not None and (layout.head.module or base or measured):
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

        Names of TransformerLens (`optrode.aliases`) and plain module paths are understood too. Raises `UnknownSite`
        naming the nearest addresses.
        """
        given = [patterns] if isinstance(patterns, str) else list(patterns)
        texts = [name for text in given for name in self.canonical(text)]
        named = [text for text in texts if not parse(text).raw]
        raw = [text for text in texts if parse(text).raw]
        if named and not self.table:
            raise UnknownSite(
                f"{named[0]!r}: {self.name} ({type(self.module).__name__}) has no layout, so name a module path: "
                f"{did_you_mean(named[0], [f'module:{path}' for path in self._paths if path])}"
            )
        self._refuse_inside_attention(named)
        addresses = select(named, list(self.table), self.layers) if named or not raw else []
        found = {info.address: info for text in raw for info in self._match_raw(text)}
        return [self.table[address] for address in addresses] + list(found.values())

    def _refuse_inside_attention(self, named: list[str]) -> None:
        """Say why a network that has other sites has none of these."""
        for text in named:
            inside = next((name for name in inside_attention("") if text.endswith(f".{name}")), None)
            if inside and self.table and not any(address.endswith(f".{inside}") for address in self.table):
                raise UnknownSite(
                    f"{text!r}: nothing inside the attention of {type(self.module).__name__} can be reached, since it "
                    "does not go through the attention interface of transformers: use attn.out"
                )

    def canonical(self, text: str) -> list[str]:
        """The addresses or patterns that a name stands for: itself, unless it is an alias or a module path."""
        text = text.strip()
        if text in self.table or text.startswith("module:"):
            return [text]
        groups = addresses_of(text)
        if groups is not None:
            return [self._first_there(text, group) for group in groups]
        if text.partition(":")[0] in self._paths and not (self.layout is None and _ADDRESS.fullmatch(text)):
            return [f"module:{text}"]
        return [text]

    def _first_there(self, text: str, group: tuple[str, ...]) -> str:
        """The first of an alias's addresses that this network has, as the same activation."""
        if group == ("embed",):
            return self._token_embedding(text)
        for pattern in group:
            if any(parse(pattern).matches(address, self.layers) for address in self.table):
                if pattern.rpartition(".")[2] in self._normed:
                    raise UnknownSite(
                        f"{text!r} is the sum before the norm that follows it in {self.name}, where no site is: "
                        f"{pattern} is what the norm gives"
                    )
                return pattern
        if not self.table:
            return group[0]
        raise UnknownSite(
            f"{text!r} is {group[-1]} here, and {self.name} has no such site: {did_you_mean(group[-1], self.table)}"
        )

    @property
    def _normed(self) -> set[str]:
        """Sums that are read after the norm that follows them."""
        return {equation.result for equation in self.layout.equations if equation.norm} if self.layout else set()

    def _token_embedding(self, text: str) -> str:
        """The output of the token embedding: `embed` only where nothing is added to it there."""
        find_embedding = getattr(self.base, "get_input_embeddings", None)
        try:
            module = find_embedding() if find_embedding else None
        except NotImplementedError:
            module = None
        path = next((path for path, found in self._paths.items() if path and found is module), None)
        if path is None:
            raise UnknownSite(f"{text!r}: {self.name} does not say which module embeds its tokens: name its path")
        return "embed" if "embed" in self.table and self.table["embed"].module == path else f"module:{path}"

    def transformer_lens_name(self, site: SiteInfo) -> str | None:
        """What TransformerLens calls this activation, or None where it has no name for the same one."""
        name = transformer_lens_name(site.address, f"layers.{site.layer}.mlp.gate" in self.table)
        try:
            return name if name and self.canonical(name) == [site.address] else None
        except UnknownSite:
            return None

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
        query = self.entry("num_attention_heads")
        if query is None:
            raise NotSupported(
                f"{self.name}: the config names no number of attention heads, so no site can be split by head"
            )
        key: Any = self.layout.key_heads if self.layout else None
        return {"query": query, "key": key if isinstance(key, int) else self.entry(key or "") or query}

    # Identity -----------------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Three short hashes: `config`, `tokenizer`, `weights` (16 values of every tensor, rounded to bfloat16).

        Weights that are kept on disk are read from there, and those that are quantised count as what they stand for.
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
        for name, tensor in stored_tensors(self.module):
            if tensor is None:
                raise NotSupported(
                    f"{self.name} has no weights ({name} is on the meta device), so it has no fingerprint: load them"
                )
            if tensor.is_floating_point() and tensor.numel():
                sample = _sample(tensor.detach()).to("cpu", torch.bfloat16).float()
                digest.update(name.encode())
                digest.update(sample.numpy().tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.module.parameters())
        layout = self.layout.name if self.layout else "no layout"
        kind = type(self.module).__name__
        size = f"{self.layers} layers, {count / 1e6:.1f}M parameters"
        return f"Model({self.name}: {kind}, {layout}, {size}, {self.dtype})"


def _sample(tensor: Tensor) -> Tensor:
    """16 values, evenly spread; of quantised tensors the values that they stand for."""
    if type(tensor) is not Tensor and hasattr(tensor, "dequantize"):
        tensor = tensor.dequantize()
    flat = tensor.reshape(-1)
    return flat[:: max(1, flat.numel() // 16)][:16]


def _has(module: nn.Module, path: str) -> bool:
    for name in path.split("."):
        module = getattr(module, name, None)  # type: ignore[assignment]
    return module is not None


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
