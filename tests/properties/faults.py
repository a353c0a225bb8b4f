"""Faults for `test_14_faults`: one use of a model each, and something that goes wrong at a random place in it.

Faults are drawn from a seed: what is done (read, write, stream, resume, threads), under which edits, and where and how
it is cut short. `state` is everything that could be left behind.
"""

from __future__ import annotations

import dis
import functools
import gc
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import optrode as op
from optrode import edits
from optrode.engine.bypass import _ANSWER
from optrode.engine.editing.edited import PREFIXES
from optrode.engine.editing.scope import SCOPES
from optrode.engine.generating import generate as generating
from optrode.engine.hooks import ACTIVE, HOOKS
from optrode.engine.places import RUNNING
from optrode.engine.progress import _DEPTH
from optrode.engine.reading.read import residuals

ENGINE = str(Path(generating.__file__).parents[1])
PROMPTS = ["The cat", "Where does the Eiffel Tower stand?", "Answer in one word."]
HOOK_TABLES = [
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called", "_state_dict_hooks", "_load_state_dict_pre_hooks",
]  # fmt: skip
CONTEXT = {
    "sessions": (ACTIVE, ()), "prefixes": (PREFIXES, ()), "scopes": (SCOPES, ()), "batch": (RUNNING, None),
    "stand-ins": (_ANSWER, None), "bars": (_DEPTH, 0),
}  # fmt: skip


class Injected(Exception):
    """A fault that no code expects."""


# What can be left behind ---------------------------------------------------------------------------------------------


def state(network: nn.Module) -> dict[str, Any]:
    """All hooks of all modules, what stands in for forwards and configs, and the modes of the process."""
    found: dict[str, Any] = {}
    for name, module in network.named_modules():
        for table in HOOK_TABLES:
            found[f"{name}.{table}"] = [(key, id(value)) for key, value in getattr(module, table, {}).items()]
        # A module's own attributes: a forward or a config that was put there, and any other.
        found[f"{name}.attributes"] = {
            key: id(value) for key, value in module.__dict__.items() if not key.startswith("_") or key == "_hf_hook"
        }
        found[f"{name}.class"] = type(module)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        found[name] = (id(tensor), tensor._version, tensor.requires_grad, tensor.grad is None)
    found["config"] = network.config.to_dict()
    found["grad"] = torch.is_grad_enabled()
    found["random"] = torch.random.get_rng_state().numpy().tobytes()
    found["modes"] = torch._C._len_torch_function_stack()
    return found


def difference(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


def _living(value: Any) -> Any:
    """What counts: an entry that has ended may still be named in a context that it did not end in."""
    if not isinstance(value, tuple):
        return value
    return tuple(entry for entry in value if not getattr(entry, "over", False))


def left_behind(network: nn.Module, before: dict[str, Any]) -> list[str]:
    """What differs from the state before, in words."""
    gc.collect()
    found = difference(state(network), before)
    found += [name for name, (variable, clean) in CONTEXT.items() if _living(variable.get()) != clean]
    found += ["hooks in the set"] * len(HOOKS)
    found += [thread.name for thread in threading.enumerate() if thread.name == "optrode-stream"]
    return found


# Uses ----------------------------------------------------------------------------------------------------------------


def vector(draw: random.Random) -> Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(draw.randrange(1000)))


def edit(model: op.Model, draw: random.Random, rows: int) -> Any:
    """An edit of any kind, for a batch of so many rows."""
    v = vector(draw)
    kinds: list[Callable[[], Any]] = [
        lambda: edits.add("layers.1.out", v),
        lambda: edits.add("layers.{0,2}.mid", v, "after_instruction"),
        lambda: edits.scale("layers.*.attn.pattern", 0.5),
        lambda: edits.scale("layers.1.attn.scores", 0.5),
        lambda: edits.zero_ablate("layers.1.attn.heads", heads=(1,)) + edits.add("layers.1.in", v),
        lambda: edits.add("layers.0.out", v) >> edits.clamp("layers.0.out", -1, 1),
        lambda: edits.by_row([edits.add("layers.1.out", v) * number for number in range(1, rows + 1)]),
        lambda: edits.prompt("You are a cat."),
    ]
    if "layers.1.mlp.experts.out" in model.table:
        kinds += [lambda: edits.scale("layers.*.mlp.experts.out", 0.5), lambda: edits.scale("layers.1.mlp.router", 0.5)]
    return draw.choice(kinds)()


def reads(model: op.Model, draw: random.Random, rows: int) -> None:
    sites = ["layers.1.out", "layers.*.attn.pattern", "logits", ["embed", "final"], "layers.*.mlp.*"]
    model.read(PROMPTS[:rows], draw.choice(sites))


def reads_in_parts(model: op.Model, draw: random.Random, rows: int) -> None:
    model.read(PROMPTS[:rows], "layers.*.out", tokens_per_forward=24)


def writes(model: op.Model, draw: random.Random, rows: int) -> None:
    warm = generating.Sampling(temperature=draw.choice([0.0, 1.0]), seed=draw.randrange(99))
    model.completions(PROMPTS[:rows], max_new_tokens=3, rows_per_batch=draw.choice([1, 64]), sampling=warm)


def resumes(model: op.Model, draw: random.Random, rows: int) -> None:
    kept = residuals(model, model.encode(PROMPTS[:rows]), [1, 2])
    model.read(kept, "logits", positions="last_prompt")


def streams(model: op.Model, draw: random.Random, rows: int) -> None:
    warm = generating.Sampling(temperature=draw.choice([0.0, 1.0]))
    for _ in model.stream(PROMPTS[0], max_new_tokens=4, sampling=warm, ahead=draw.choice([1, 16]), logprobs=True):
        pass


def cancels_a_stream(model: op.Model, draw: random.Random, rows: int) -> None:
    stream = model.stream(PROMPTS[0], max_new_tokens=30, ahead=1)
    next(stream, None)
    if draw.random() < 0.5:
        stream.close()


def leaves_a_generator(model: op.Model, draw: random.Random, rows: int) -> None:
    def each() -> Iterator[Any]:
        with model.edited(edits.add("layers.2.out", vector(draw))):
            for prompt in PROMPTS:
                yield model.read(prompt, "logits")

    generator = each()
    next(generator)
    if draw.random() < 0.5:
        generator.close()


def binds(model: op.Model, draw: random.Random, rows: int) -> None:
    with model.edited(edits.add("layers.1.out", vector(draw))) as receipt, ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(receipt.bind(reads), model, random.Random(1), rows) for _ in range(2)]:
            future.result(60)


def dies_in_a_thread(model: op.Model, draw: random.Random, rows: int) -> None:
    def work() -> None:
        try:
            with model.edited(edits.add("layers.1.out", vector(draw))):
                model.read("The cat", "logits")
                raise Injected
        except BaseException as problem:
            found.append(problem)

    found: list[BaseException] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    model.read("The dog", "logits")
    raise found[0]


USES = [
    reads, reads_in_parts, writes, resumes, streams, cancels_a_stream, leaves_a_generator, binds, dies_in_a_thread,
]  # fmt: skip


# Faults --------------------------------------------------------------------------------------------------------------


class Fuse:
    """Counts down at each place it is asked at, and raises once."""

    def __init__(self, error: type[BaseException], steps: int):
        self.error, self.left, self.blown = error, steps, False

    def burn(self) -> None:
        self.left -= 1
        if self.left < 0 and not self.blown:
            self.blown = True
            raise self.error("injected")


@contextmanager
def in_modules(model: op.Model, draw: random.Random, fuse: Fuse) -> Iterator[Any]:
    """In the forward of a random module: a hook of the owner's raises."""
    module = draw.choice(list(model.module.modules()))
    register = draw.choice([module.register_forward_hook, module.register_forward_pre_hook])
    handle = register(lambda *_: fuse.burn())
    try:
        yield None
    finally:
        handle.remove()


@contextmanager
def in_operators(model: op.Model, draw: random.Random, fuse: Fuse) -> Iterator[Any]:
    """In an edit's own function, at any kind of site."""
    sites = ["layers.1.out", "layers.0.mid", "layers.2.attn.scores", "layers.1.attn.pattern", "layers.*.in"]
    site = draw.choice(sites)

    def burn(rows: Tensor) -> Tensor:
        fuse.burn()
        return rows

    yield edits.function(site, burn)


@contextmanager
def in_the_tokenizer(model: op.Model, draw: random.Random, fuse: Fuse) -> Iterator[Any]:
    """While a text is turned into tokens, or tokens into a text."""
    own = model.tokenizer
    name = draw.choice(["__call__", "decode", "apply_chat_template"])

    class Broken(type(own)):  # type: ignore[misc]
        pass

    def burn(self: Any, *args: Any, **kwargs: Any) -> Any:
        fuse.burn()
        return getattr(super(Broken, self), name)(*args, **kwargs)

    setattr(Broken, name, burn)
    before = type(own)
    own.__class__ = Broken
    try:
        yield None
    finally:
        own.__class__ = before


@contextmanager
def in_callbacks(model: op.Model, draw: random.Random, fuse: Fuse) -> Iterator[Any]:
    """In what the network's own `generate` calls at every step."""
    network: Any = model.module
    name = draw.choice(["prepare_inputs_for_generation", "_update_model_kwargs_for_generation"])
    own = getattr(network, name)

    def burn(*args: Any, **kwargs: Any) -> Any:
        fuse.burn()
        return own(*args, **kwargs)

    network.__dict__[name] = burn
    try:
        yield None
    finally:
        del network.__dict__[name]


@contextmanager
def at_any_line(model: op.Model, draw: random.Random, fuse: Fuse) -> Iterator[Any]:
    """Before any line of the engine, in any of its threads, its cleaning up included: where an interrupt may fall.

    Not between the end of a `with` block and the call of its `__exit__`, where the interpreter never looks for one.
    """
    here = threading.get_ident() if draw.random() < 0.7 else None

    def trace(frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(ENGINE) or fuse.blown:
            return None
        if event == "line" and here in (None, threading.get_ident()) and not _leaves_a_with(frame):
            fuse.burn()
        return trace

    before = sys.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield None
    finally:
        sys.settrace(before)
        threading.settrace(None)  # type: ignore[arg-type]


def _leaves_a_with(frame: Any) -> bool:
    """Whether the next thing is `__exit__(None, None, None)`."""
    code = frame.f_code
    steps = [step for step in _steps(code) if step.offset >= frame.f_lasti and step.opname != "POP_BLOCK"][:2]
    return (
        len(steps) == 2
        and steps[0].argval is None
        and steps[0].opname == "LOAD_CONST"
        and ((steps[1].opname == "LOAD_CONST" and steps[1].argval is None) or steps[1].opname == "DUP_TOP")
    )


@functools.cache
def _steps(code: Any) -> list[dis.Instruction]:
    return list(dis.get_instructions(code))


PLACES = [in_modules, in_operators, in_the_tokenizer, in_callbacks, at_any_line]
ERRORS = [Injected, KeyboardInterrupt, RuntimeError, StopIteration, SystemExit, MemoryError]
# After how many harmless passes a place may break, at most.
REACH = {in_modules: 3, in_operators: 4, in_the_tokenizer: 2, in_callbacks: 2, at_any_line: 2500}


def inject(model: op.Model, seed: int) -> tuple[str, bool]:
    """One use of the model with one fault. Returns what was done in words, and whether the fault came about."""
    draw = random.Random(seed)
    use, place = draw.choice(USES), draw.choice(PLACES)
    rows = 1 if use in (streams, cancels_a_stream) else draw.randint(1, 3)
    fuse = Fuse(draw.choice(ERRORS), draw.randrange(REACH[place]))
    # Those that make edits of their own run prompts of their own number, which no edit by row around would fit.
    own = use in (binds, dies_in_a_thread, leaves_a_generator)
    around = [] if own else [edit(model, draw, rows) for _ in range(draw.randint(0, 2))]
    how = f"{fuse.error.__name__} {place.__name__} after {fuse.left}"
    where = f"seed {seed}: {use.__name__}, {how}, {len(around)} edits"
    raised: BaseException | None = None
    try:
        with place(model, draw, fuse) as broken:
            active = [*around, *([broken] if broken is not None else [])]
            with model.edited(*active) if active else nullcontext():
                use(model, draw, rows)
    except BaseException as problem:
        raised = problem
    if raised is not None:
        # Tracebacks hold frames, and frames hold generators that clean up when they go.
        raised.__traceback__ = None
        raised.__context__ = raised.__cause__ = None
    # A stream that nobody holds ends when it is collected.
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "optrode-stream":
            thread.join(60)
    return where, fuse.blown
