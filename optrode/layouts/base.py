"""The vocabulary in which a layout is written: ports (where one activation can be read and written) and equations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

TOKENS = ("example", "token", "feature")
HEADS = ("example", "token", "head", "feature")
PIXELS = ("example", "row", "column", "channel")
VECTOR = ("example", "feature")
ROUTER = ("example", "token", "expert")
RANKS = ("example", "token", "rank")
PAIRS = ("example", "token", "rank", "feature")


@dataclass(frozen=True)
class Port:
    """One side of one module.

    `module` is relative to the block (or to the base model, for sites outside the blocks); `side` is `in` (first
    input), `out` (first output), or one of those that `inside_attention` gives. `axes` name the axes as the user sees
    them, the feature axis last.
    `part` (i, n) takes the i-th of n parts of the last axis (fused projections), packed as `packing` says: `equal`
    parts side by side; `heads`: all query heads, then all key heads, then all value heads; `groups`: for each key head
    its query heads, itself and its value head. `heads` splits the part into the `query` or `key` heads; `headed` says
    that the module's own tensor has a head axis already, and `heads_first` that it stands before the token axis.
    `channels_first` marks [example, channel, row, column] tensors, `flat` [example * token, feature] ones.
    `adds_to` marks an activation that is the sum of the block's input and another port's output and cannot be written
    where it is read: a change is added to that port instead, divided by the scale that the equation gives it.
    `item` tells apart several activations of one module: the place in the tuple that it returns or, at the side
    `experts` of a module of fused experts, 0 for each expert's hidden layer and 1 for its output.
    `reruns` marks the first linear product of a module that goes on to choose by it: where it is changed, the module
    runs again with the new product. `read_only` says what to edit instead of an activation that cannot be written.
    """

    module: str
    side: str
    says: str
    axes: tuple[str, ...] = TOKENS
    part: tuple[int, int] | None = None
    packing: str = "equal"
    heads: str | None = None
    headed: bool = False
    heads_first: bool = False
    channels_first: bool = False
    flat: bool = False
    adds_to: str | None = None
    item: int = 0
    reruns: bool = False
    read_only: str | None = None


def inside_attention(module: str, token: str = "token") -> dict[str, Port]:
    """Ports inside the attention that `module` computes through the attention interface of transformers.

    All of them are read and written between the projections and the product of pattern and values. `token` names the
    axis of queries (of keys, for the keys).
    """

    def port(side: str, says: str, last: str) -> Port:
        return Port(module, side, says, ("example", token, "head", last), headed=True, heads_first=True)

    return {
        "attn.q_rotated": port("query", "queries as attention takes them, with positions and norms applied", "feature"),
        "attn.k_rotated": port("key", "keys as attention takes them, those of the cache too", "feature"),
        "attn.scores": port("scores", "q k * scale, with cap and bias; -inf where token may not look at key", "key"),
        "attn.pattern": port("pattern", "softmax of scores over keys", "key"),
    }


@dataclass(frozen=True)
class Equation:
    """`norm(sum of scaled terms) = result`, all sites of one block; `norm` is a module of the block or None.

    `scale` gives a term the entry of the config that the block multiplies it with outside of any module. In a block
    that lacks one of the sites (no skip connection, a parallel block's `mid`) the equation says nothing. `weights`
    names the site by which a term with a rank axis is weighted before it is summed over ranks.

    >>> str(Equation("mid", ("in", "attn.out"), scale={"attn.out": "residual_multiplier"}))
    'mid = in + residual_multiplier * attn.out'
    """

    result: str
    terms: tuple[str, ...]
    norm: str | None = None
    scale: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site that it speaks of."""
        return (self.result, *self.terms, *self.weights.values())

    def __str__(self) -> str:
        factors = self.scale | {term: f"sum over rank: {site}" for term, site in self.weights.items()}
        total = " + ".join(f"{factors[term]} * {term}" if term in factors else term for term in self.terms)
        return f"{self.result} = {f'{self.norm}({total})' if self.norm else total}"


@dataclass(frozen=True)
class Layout:
    """The map of one architecture.

    `blocks` is the path of the list of blocks below the base model; `entry` that of the module whose call begins a
    forward, where the whole model does not call the base model but goes straight to a part of it. Dictionaries are in
    order of execution: the engine stops after the last port that a read needs. `outer_before` and `outer_after` are
    relative to the base model, `head` (path and text) to the whole model; a head with the path "" is the whole
    model's own output, for logits that are scaled or capped outside of any module. `key_heads` is the number of key
    heads or the entry of the config that holds it.
    `kinds` gives the blocks that have a certain module their own ports, for networks whose blocks are of several
    kinds; `ports` then names the sites of all of them. `when` names values that the config must have; `variants` are
    tried where it has others. A network that neither fits has no layout, which is better than a wrong one.
    """

    name: str
    blocks: str
    ports: dict[str, Port]
    model_types: tuple[str, ...] = ()
    module_classes: tuple[str, ...] = ()
    outer_before: dict[str, Port] = field(default_factory=dict)
    outer_after: dict[str, Port] = field(default_factory=dict)
    head: Port | None = None
    equations: tuple[Equation, ...] = ()
    causal: bool = True
    key_heads: str | int = "num_key_value_heads"
    kinds: dict[str, dict[str, Port]] = field(default_factory=dict)
    when: dict[str, Any] = field(default_factory=dict)
    variants: tuple[Layout, ...] = ()
    entry: str = ""

    def ports_of(self, block: Any) -> dict[str, Port]:
        """The ports of one block: those of its kind."""
        return next((ports for module, ports in self.kinds.items() if hasattr(block, module)), self.ports)

    def below(self, path: str) -> Layout:
        """The same map for a network in which the base model stands at `path`; `head` stays where it is."""

        def moved(ports: dict[str, Port]) -> dict[str, Port]:
            return {name: replace(port, module=f"{path}.{port.module}") for name, port in ports.items()}

        return replace(
            self,
            blocks=f"{path}.{self.blocks}",
            outer_before=moved(self.outer_before),
            outer_after=moved(self.outer_after),
            variants=tuple(one.below(path) for one in self.variants),
        )

    def suited(self, config: Any) -> Layout | None:
        """The layout itself or the first variant whose `when` the config meets; None if none does."""
        return next((one for one in (self, *self.variants) if _meets(config, one.when)), None)


def _meets(config: Any, wanted: dict[str, Any]) -> bool:
    missing = object()
    return all(getattr(config, name, missing) == value for name, value in wanted.items())
