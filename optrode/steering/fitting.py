"""Fitting for a comparison: every method on the same pairs, each set of prompts read once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Behaviour
from ..edits.base import Edit
from ..engine.progress import Steps
from ..errors import BadInput
from ..model import Model
from ..parts.contrast import Contrast
from ..parts.discovery import find_method, methods_of
from ..parts.tuner import Tuned
from .protocol import DirectionMethod, SteeringMethod

RANDOM_ID = "random-direction"


@dataclass(frozen=True)
class Size:
    """How much of everything a comparison uses. `layers` counts layers on offer, spread over the depth.

    `methods` are those compared where the user names none (empty: all there are). `capability` questions, `off_target`
    choices of each other behaviour and harmless `requests` measure side effects; 0 questions: none are measured.
    """

    name: str
    pairs: int
    tune: int
    test: int
    written: int
    new_tokens: int
    neutral: int
    layers: int
    strengths: tuple[float, ...]
    random_directions: int = 20
    methods: tuple[str, ...] = ()
    capability: int = 0
    off_target: int = 0
    requests: int = 0


QUICK = Size(
    "quick",
    pairs=60,
    tune=24,
    test=48,
    written=24,
    new_tokens=24,
    neutral=4,
    layers=4,
    strengths=(0.1, 0.2, 0.4),
    methods=("actadd", "caa", "control-vector", "probe-direction", "prompting", RANDOM_ID),
)
FULL = Size(
    "full",
    pairs=240,
    tune=72,
    test=144,
    written=72,
    new_tokens=40,
    neutral=12,
    layers=8,
    strengths=(0.05, 0.1, 0.2, 0.3, 0.4),
    capability=128,
    off_target=16,
    requests=24,
)


@dataclass(frozen=True)
class Settings:
    """What a user may set. `budget`: largest allowed perplexity ratio on neutral text.

    `direction`: `for` or `against` the behaviour; `auto` takes the one that the model leans away from.
    """

    size: Size = QUICK
    budget: float = 1.2
    direction: str = "auto"
    methods: tuple[str, ...] = ()
    seed: int = 0


@dataclass
class Candidate:
    """A method on its way through the protocol."""

    method: SteeringMethod
    title: str
    edits: dict[int, Edit]
    seconds_fit: float
    tuned: Tuned | None = None
    seconds_tune: float = 0.0

    @property
    def edit(self) -> Edit:
        """The chosen edit, at the chosen strength."""
        if self.tuned is None:
            return self.edits[-1]
        return self.edits[self.tuned.best.layer] * self.tuned.best.strength


def offered_layers(model: Model, count: int) -> list[int]:
    """`count` layers evenly spread between a fifth and four fifths of the depth."""
    if model.layers < 2:
        raise BadInput(f"{model.name} has {model.layers} layers: steering needs a language model with a layout")
    places = np.linspace(0.2, 0.8, count) * model.layers
    return sorted({min(model.layers - 1, max(1, round(place))) for place in places})


def spread(items: Sequence[Any], count: int) -> tuple[Any, ...]:
    """At most `count` items, evenly spread, so that every group is represented."""
    if count >= len(items):
        return tuple(items)
    return tuple(items[int(place)] for place in np.linspace(0, len(items) - 1, count).round())


class Reader:
    """Reads each set of prompts once, at every layer, for all the methods that use the same."""

    def __init__(self, model: Model, behaviour: Behaviour):
        self._model = model
        self._behaviour = behaviour
        self._sites = [f"layers.{layer}.out" for layer in range(model.layers)]
        self._found: dict[str, tuple[Contrast, float]] = {}

    def contrast(self, method: DirectionMethod) -> tuple[Contrast, float]:
        """The activations of a method's prompts, and the seconds that reading them took."""
        prompts = repr(method.conversations(self._behaviour.fit))
        if prompts not in self._found:
            started = time.perf_counter()
            contrast = method.contrast(self._model, self._behaviour, self._sites)
            self._found[prompts] = contrast, time.perf_counter() - started
        return self._found[prompts]


def fit_all(
    model: Model, behaviour: Behaviour, settings: Settings, layers: list[int], sign: int, reader: Reader, steps: Steps
) -> list[Candidate]:
    found = []
    for title, method in steps.each(chosen_methods(settings, sign), lambda item: f"fitting {item[0]}"):
        if method.role == "baseline" and not behaviour.instructions[0 if sign > 0 else 1]:
            continue
        edits, seconds = _fit(model, behaviour, method, layers, reader)
        by_strength = method.role != "baseline" and method.strength_unit == "stream"
        turned = {layer: edit * sign for layer, edit in edits.items()} if by_strength else edits
        found.append(Candidate(method, title, turned, seconds))
    return found


def _fit(
    model: Model, behaviour: Behaviour, method: SteeringMethod, layers: list[int], reader: Reader
) -> tuple[dict[int, Edit], float]:
    """Edits by layer, and the seconds that fitting costs a user of this method alone."""
    reading = 0.0
    started = time.perf_counter()
    if method.role == "baseline":
        edits: dict[int, Edit] = {-1: method.fit(model, behaviour)}
    elif isinstance(method, DirectionMethod):
        contrast, reading = reader.contrast(method)
        started = time.perf_counter()
        edits = method.fit_contrast(model, contrast, layers)
    else:
        edits = method.fit_layers(model, behaviour, layers)
    return edits, reading + time.perf_counter() - started


def chosen_methods(settings: Settings, sign: int) -> list[tuple[str, SteeringMethod]]:
    """Every method and baseline of the family (or those asked for), each variant that fits contrast replies as its own.

    Raises `UnknownName` for a method that does not exist.
    """
    package = __package__ or "optrode.steering"
    known = methods_of(package, str(Path(__file__).parent))
    wanted = settings.methods or settings.size.methods or tuple(found.id for found in known.values())
    methods: list[tuple[str, SteeringMethod]] = []
    for name in wanted:
        kind = find_method(package, name)
        if kind.id == RANDOM_ID:
            continue
        for variant in kind.variants():
            methods.append((variant.label, variant.facing(sign)))
    return methods
