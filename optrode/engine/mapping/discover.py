"""Mapping a network that no table knows, by measurement: which tensors add up to what a block returns.

Blocks are the longest list of modules that hand the stream on to each other. Within a block the outputs of its parts
are tried: which of them, added to the stream (or added and normed), give what the block returns. Of two parts, the one
whose output depends on other tokens is attention (or what stands in its place), the other the MLP. Nothing is guessed
from names; where the sums do not come out, or come out in two ways, there is no map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import NotSupported, WrongShape
from ...host import Host
from ...layouts import Equation, Layout, Port
from ...layouts.base import TOKENS
from ..run import Inputs, run
from ..views import first_tensor, input_tensor, put_first
from .equations import MOST_ROUNDINGS, roundings

PATCHES = ("example", "patch", "feature")


class NotMapped(Exception):
    """No map was found; the text says why."""


@dataclass(frozen=True)
class _Call:
    """One call of a module inside a block: what it was given and what it gave, both shaped as the stream or None."""

    path: str
    order: int
    given: Tensor | None
    gave: Tensor | None
    flat: bool


@dataclass(frozen=True)
class _Found:
    """How a block adds up: its one or two parts in order, the sum between them, and the norms after the additions."""

    parts: tuple[_Call, ...]
    mid: Port | None = None
    norms: tuple[_Call, ...] = ()


def discover(host: Host, inputs: Inputs) -> Layout:
    """The layout of a network, found on `inputs` (three or more tokens a row). Raises `NotMapped`.

    Costs five to ten forwards and, in one block at a time, the memory of all activations. What comes back still has
    to be measured in every layer (`equations.measure`).
    """
    blocks, logits = _find_blocks(host, inputs)
    reason = ""
    # The first block is often special, so the second is asked first.
    for number in (1, 0):
        block = host.base.get_submodule(f"{blocks}.{number}")
        try:
            return _layout(host, inputs, blocks, logits, block)
        except NotMapped as problem:
            reason = reason or str(problem)
    raise NotMapped(reason)


def _layout(host: Host, inputs: Inputs, blocks: str, logits: bool, block: nn.Module) -> Layout:
    calls, kind = _calls(host, inputs, block)
    found = _add_up(calls, kind)
    names, causal = _named(host, inputs, block, found)
    axes = TOKENS if "pixel_values" not in host.accepts else PATCHES
    ports, equations = _written(found, names, axes)
    head = Port("", "out", "logits, as the network gives them") if logits else None
    return Layout(
        f"measured:{type(host.module).__name__}", blocks, ports, head=head, equations=equations, causal=causal
    )


# Blocks --------------------------------------------------------------------------------------------------------------


def _find_blocks(host: Host, inputs: Inputs) -> tuple[str, bool]:
    """The path of the longest list whose members hand the stream on, and whether the network gives logits."""
    lists = {
        path: list(module.children())
        for path, module in host.base.named_modules()
        if path and isinstance(module, nn.ModuleList | nn.Sequential) and _could_be_blocks(module)
    }
    if not lists:
        raise NotMapped("it has no list of two or more blocks")
    seen: dict[nn.Module, list[tuple[Tensor | None, Tensor | None]]] = {}

    def note(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        seen.setdefault(module, []).append((_copied(_given(module, args, kwargs)), _copied(_gave(output))))

    members = {module for found in lists.values() for module in found}
    with _hooked(members, note), torch.no_grad():
        output = run(host, inputs, head=True)
    chains = [path for path, found in lists.items() if _hand_on([seen.get(module, []) for module in found])]
    if not chains:
        raise NotMapped("it has no list of blocks that hand a stream of [row, token, width] on to each other")
    # A block may be a list of parts that hand the stream on as well: the blocks are what is not inside another block.
    outer = [path for path in chains if not any(path.startswith(f"{other}.") for other in chains)]
    return max(outer, key=lambda path: len(lists[path])), isinstance(getattr(output, "logits", None), Tensor)


def _could_be_blocks(module: nn.Module) -> bool:
    members = list(module.children())
    return len(members) > 1 and all(next(member.children(), None) is not None for member in members)


def _hand_on(calls: list[list[tuple[Tensor | None, Tensor | None]]]) -> bool:
    """Whether each was called once and got, unchanged, what the one before it gave."""
    if any(len(found) != 1 for found in calls):
        return False
    pairs = [found[0] for found in calls]
    for given, gave in pairs:
        if given is None or gave is None or given.dim() != 3 or given.shape != gave.shape:
            return False
    return all(torch.equal(pairs[i][1], pairs[i + 1][0]) for i in range(len(pairs) - 1))  # type: ignore[arg-type]


# Sums ----------------------------------------------------------------------------------------------------------------


def _calls(host: Host, inputs: Inputs, block: nn.Module) -> tuple[list[_Call], torch.dtype]:
    """Every part of a block that ran once, in order of their ends, the block itself last; and the coarsest dtype."""
    paths = {module: path for path, module in block.named_modules()}
    noted: dict[str, list[tuple[int, Tensor | None, Tensor | None]]] = {}
    kinds: set[torch.dtype] = set()

    def note(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        given, gave = _copied(_given(module, args, kwargs)), _copied(_gave(output))
        kinds.update(value.dtype for value in (given, gave) if value is not None and value.is_floating_point())
        noted.setdefault(paths[module], []).append((len(noted), given, gave))

    with _hooked(paths, note), torch.no_grad():
        run(host, inputs, head=False)
    _, stream, _ = noted[""][0]
    assert stream is not None
    calls = []
    for path, found in noted.items():
        if len(found) == 1:
            order, given, gave = found[0]
            shaped = [_as_stream(value, stream) for value in (given, gave)]
            flat = gave is not None and gave.dim() == 2
            calls.append(_Call(path, order, shaped[0], shaped[1], flat))
    return calls, max(kinds, key=lambda kind: torch.finfo(kind).eps)


def _as_stream(value: Tensor | None, stream: Tensor) -> Tensor | None:
    """The value in the stream's shape, at least in float32; None where it has another size."""
    if value is None or not value.is_floating_point() or value.numel() != stream.numel():
        return None
    if value.shape != stream.shape and value.shape != (stream.shape[0] * stream.shape[1], stream.shape[2]):
        return None
    value = value.reshape(stream.shape)
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _add_up(calls: list[_Call], kind: torch.dtype) -> _Found:
    """How the block's parts give what it returns. Raises `NotMapped` where they do not, or do in two ways."""
    (block,) = (call for call in calls if not call.path)
    inner = [call for call in calls if call.path]
    stream, out = block.given, block.gave
    assert stream is not None and out is not None
    parts = _distinct(inner, stream)

    def is_sum(result: Tensor, *terms: Tensor) -> bool:
        return roundings(result, torch.stack(terms), kind) <= MOST_ROUNDINGS

    pairs = [
        pair for pair in combinations(parts, 2)
        if is_sum(out, stream, pair[0].gave, pair[1].gave)  # type: ignore[arg-type]
    ]  # fmt: skip
    if len(pairs) == 1:
        return _Found(pairs[0], _between(inner, pairs[0], stream, is_sum))
    singles = [part for part in parts if is_sum(out, stream, part.gave)]  # type: ignore[arg-type]
    if not pairs and len(singles) == 1:
        return _Found((singles[0],))
    normed = [] if pairs or singles else list(_normed(inner, parts, stream, out, is_sum))
    if len(normed) == 1:
        return normed[0]
    if pairs or singles or normed:
        raise NotMapped("its blocks add up in more than one way, so that parts cannot be told apart")
    raise NotMapped("no two parts of a block, added to its input, give its output")


def _distinct(calls: list[_Call], stream: Tensor) -> list[_Call]:
    """One call for each value that may be a part: of those that give the same, the outermost, and of these the last."""
    kept: list[_Call] = []
    smallest = 1e-6 * stream.abs().max()
    for call in sorted(calls, key=lambda call: (call.path.count("."), -call.order)):
        # Adding zero proves nothing.
        if call.gave is None or not bool(call.gave.abs().max() > smallest):
            continue
        if not any(torch.equal(call.gave, other.gave) for other in kept):  # type: ignore[arg-type]
            kept.append(call)
    return sorted(kept, key=lambda call: call.order)


def _between(calls: list[_Call], parts: tuple[_Call, ...], stream: Tensor, is_sum: Callable[..., bool]) -> Port | None:
    """Where the sum of the stream and the first part alone is seen, if it is: what makes a block sequential."""
    for call in sorted(calls, key=lambda call: (call.path.count("."), call.order)):
        for side, value in (("in", call.given), ("out", call.gave)):
            if value is not None and is_sum(value, stream, parts[0].gave):
                return Port(call.path, side, "", flat=call.flat)
    return None


def _normed(
    calls: list[_Call], parts: list[_Call], stream: Tensor, out: Tensor, is_sum: Callable[..., bool]
) -> Iterator[_Found]:
    """Blocks with a norm after each of two additions."""
    whole = [call for call in calls if call.given is not None and call.gave is not None]
    last = next((call for call in whole if torch.equal(call.gave, out)), None)  # type: ignore[arg-type]
    if last is None:
        return
    for first in whole:
        for one, other in combinations(parts, 2):
            if is_sum(first.given, stream, one.gave) and is_sum(last.given, first.gave, other.gave):
                yield _Found((one, other), norms=(first, last))


# Which part is which -------------------------------------------------------------------------------------------------


def _named(host: Host, inputs: Inputs, block: nn.Module, found: _Found) -> tuple[tuple[str, ...], bool]:
    """`attn.out` for the part that depends on other tokens, `mlp.out` for the other; and whether no part looks ahead.

    A part that is alone and depends on other tokens is `mixer.out`: attention has an MLP beside it.
    """
    paths = [part.path for part in found.parts]
    plain = _replayed(host, inputs, block, paths, None, None)
    # Another first token, seen from the last; another last token, seen from the first.
    before, after = (
        [_differ(plain[path], moved[path], seen) for path in paths]
        for moved, seen in (
            (_replayed(host, inputs, block, paths, 0, plain), -1),
            (_replayed(host, inputs, block, paths, -1, plain), 0),
        )
    )
    mixing = [one or other for one, other in zip(before, after, strict=True)]
    if len(mixing) == 1:
        return ("mixer.out" if mixing[0] else "mlp.out",), not after[0]
    if mixing[0] == mixing[1]:
        raise NotMapped(f"{'both' if mixing[0] else 'none'} of the parts of a block depend on other tokens")
    return tuple("attn.out" if mixes else "mlp.out" for mixes in mixing), not any(after)


def _replayed(
    host: Host,
    inputs: Inputs,
    block: nn.Module,
    paths: list[str],
    token: int | None,
    kept: dict[str, Tensor] | None,
) -> dict[str, Tensor]:
    """What the parts give when the block gets the stream with one token turned to its negative.

    Each part's output is noted and then replaced by `kept`, so that a later part sees the stream's change alone.
    """
    noted: dict[str, Tensor] = {}
    shape: list[torch.Size] = []

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        name, tensor = input_tensor(module, args, kwargs)
        shape.append(tensor.shape)
        changed = tensor.clone()
        if token is not None:
            changed[:, token] = -changed[:, token]
        return ((changed, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: changed})

    def leave(path: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> Any:
            value = first_tensor(output, path)
            noted[path] = value.detach().clone()
            return None if kept is None else put_first(output, kept[path].clone().reshape(value.shape))

        return hook

    handles = [block.register_forward_pre_hook(enter, with_kwargs=True)]
    handles += [block.get_submodule(path).register_forward_hook(leave(path)) for path in paths]
    try:
        with torch.no_grad():
            run(host, inputs, head=False)
    finally:
        for handle in handles:
            handle.remove()
    return {path: value.reshape(shape[0]) for path, value in noted.items()}


def _differ(plain: Tensor, moved: Tensor, token: int) -> bool:
    """Whether a part's output at one token changed by more than rounding."""
    size = (moved[:, token] - plain[:, token]).abs().max()
    return bool(size > 8 * torch.finfo(plain.dtype).eps * plain[:, token].abs().max())


# Writing it down -----------------------------------------------------------------------------------------------------


def _written(
    found: _Found, names: tuple[str, ...], axes: tuple[str, ...]
) -> tuple[dict[str, Port], tuple[Equation, ...]]:
    says = {
        "attn.out": "the part that depends on other tokens",
        "mixer.out": "the only part; it depends on other tokens",
        "mlp.out": "the part that sees one token at a time",
    }
    normed = bool(found.norms)
    ports = {"in": Port("", "in", "stream before the block", axes)}
    for name, part in zip(names, found.parts, strict=True):
        text = says[name] + (", before the norm that follows the addition" if normed else "")
        ports[name] = Port(part.path, "out", text, axes, flat=part.flat)
        if name != names[0] or len(names) == 1:
            continue
        if normed:
            ports["mid"] = Port(found.norms[0].path, "out", f"norm(in + {name})", axes)
        elif found.mid:
            at = found.mid
            ports["mid"] = Port(at.module, at.side, f"in + {name}", axes, flat=at.flat, adds_to=name)
    if "mid" not in ports:
        equation = Equation("out", ("in", *names))
        ports["out"] = Port("", "out", str(equation).removeprefix("out = "), axes)
        return ports, (equation,)
    paths: list[Any] = [norm.path for norm in found.norms] or [None, None]
    equations = (
        Equation("mid", ("in", names[0]), norm=paths[0]),
        Equation("out", ("mid", names[1]), norm=paths[1]),
    )
    ports["out"] = Port("", "out", f"norm(mid + {names[1]})" if normed else f"mid + {names[1]}", axes)
    return ports, equations


# Hooks ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _hooked(modules: Any, note: Callable) -> Iterator[None]:
    handles = [module.register_forward_hook(note, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _given(module: nn.Module, args: tuple, kwargs: dict) -> Tensor | None:
    try:
        return input_tensor(module, args, kwargs)[1]
    except WrongShape:
        return None


def _gave(output: Any) -> Tensor | None:
    try:
        return first_tensor(output, "")
    except NotSupported:
        return None


def _copied(value: Tensor | None) -> Tensor | None:
    """A copy, since the network may go on to change the tensor in place."""
    return None if value is None else value.detach().clone()
