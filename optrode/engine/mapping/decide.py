"""Deciding, when a network is loaded, where its sites are: by table or by measurement, and never unmeasured.

A layout from the table is held to its equations in every layer; where one does not hold the network is refused rather
than read at the wrong places. A network that no table knows is mapped by measurement (`discover`), or keeps its module
paths alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...errors import OptrodeError, WrongLayout
from ...host import Host
from ...layouts import Layout, find
from ...offloaded import execution_device
from ...towers import language_tower
from ..bake.top import is_baked
from ..hooks import hooks_alone
from ..run import Inputs
from ..twin import uncompiled
from .discover import NotMapped, discover
from .equations import EquationCheck, measure
from .map_towers import map_language, map_towers, needs_encoder, unmapped_towers
from .trial import in_eval_mode, one_thread, trial_inputs


@dataclass(frozen=True)
class Measurement:
    """What was measured when a network was loaded: one check for each equation and layer, or why there is none."""

    checks: tuple[EquationCheck, ...] = ()
    why: str = ""

    @property
    def worst(self) -> EquationCheck | None:
        """The check with the largest error; None where nothing was measured."""
        return max(self.checks, key=lambda check: check.error, default=None)

    def of(self, layer: int | None, site: str, tower: str = "") -> EquationCheck | None:
        """The check of the equation that has this site (`mid`, `out`) as its result, in one layer of one tower."""
        own = (check for check in self.checks if (check.layer, check.tower) == (layer, tower))
        return next((check for check in own if check.equation.startswith(f"{site} = ")), None)

    def __str__(self) -> str:
        if self.worst is None:
            return f"not measured: {self.why}"
        return f"{len(self.checks)} equations measured on load, largest error {self.worst.error:.1e}"


def settle(host: Host, layout: Layout | str | None = "auto", example: Inputs | None = None) -> Measurement:
    """Give `host` its layout and measure it. One short forward, five to ten more for an unknown network.

    `layout`: `auto` takes the table's and measures where no table knows the network; `measured` asks no table; None
    leaves module paths only; a `Layout` of your own is taken instead. `example`: inputs to measure with, made up if
    None. A network that `torch.compile` has taken is measured as it was before. Raises `WrongLayout` where a layout's
    equation does not hold.
    """
    plain = uncompiled(host)
    if plain is not host:
        return _taken_over(host, plain, settle(plain, layout, example))
    if layout is None or isinstance(layout, Layout) or layout == "measured":
        host.layout = layout if isinstance(layout, Layout) else None
    elif layout != "auto":
        raise WrongLayout(f"layout={layout!r} is none: give auto, measured, None or a Layout")
    if layout is None:
        host.tower_hosts = {}
        return _unmapped(host, "layout=None was asked for")
    why = _unmeasurable(host)
    if why:
        return _unmapped(host, why)
    how = "measured" if layout == "measured" else "auto"
    of_towers = map_towers(host, how, example, _alone, _in_whole) if host.tower_hosts else ()
    # A network that no table knows has the blocks of its language model, unless the user says otherwise.
    known = isinstance(layout, Layout) or (layout == "auto" and find(host.module) is not None)
    own = _settle_own(host, how, example, None if known else language_tower(host.base, host.config))
    return replace(own, checks=(*own.checks, *of_towers))


def _taken_over(host: Host, plain: Host, found: Measurement) -> Measurement:
    """Give a compiled network the layouts that were found in the network under it."""
    host.layout, host.unmapped = plain.layout, plain.unmapped
    for prefix, tower in plain.tower_hosts.items():
        host.tower_hosts[prefix].layout = tower.layout
    # Addresses are those of the network under it, which is what a read runs.
    host.__dict__["table"] = plain.table
    return found


def _settle_own(host: Host, how: str, example: Inputs | None, language: str | None) -> Measurement:
    """What was measured of the network's own blocks, which are those of the tower `language` if it is given."""
    by_itself = map_language(host, language, how, _alone) if language else ()
    if host.layout is None and host.tower_hosts:
        return _unmapped(host, f"{language}: {host.unmapped}" if language else unmapped_towers(host))
    if example is None and needs_encoder(host):
        return _unmapped(host, "its blocks look at an encoder's output: pass example= with encoder_hidden_states")
    given = example if example is not None else trial_inputs(host)
    if given is None:
        return _unmapped(host, "no inputs could be made up for it: pass example=")
    with hooks_alone(), in_eval_mode(host.module), one_thread():
        if host.layout is None:
            return _discovered(host, given)
        if language is None:
            return _held_to(host, given)
        return _held_as_its_language(host, given, by_itself)


def _held_as_its_language(host: Host, given: Inputs, by_itself: tuple[EquationCheck, ...]) -> Measurement:
    """What was measured of a network that no table knows and that has the blocks of its language model.

    Where the whole does not run on a text alone, what that model showed `by_itself` stands.
    """
    try:
        found = _held_to(host, given)
    except WrongLayout as problem:
        host.layout = None
        return _unmapped(host, str(problem))
    if found.checks or not by_itself:
        return found
    host.unmapped = ""
    return Measurement(by_itself)


def _alone(tower: Host, how: str) -> tuple[EquationCheck, ...]:
    return settle(tower, how).checks


def _in_whole(host: Host, given: Inputs, prefix: str) -> tuple[EquationCheck, ...]:
    with hooks_alone(), in_eval_mode(host.module), one_thread():
        return _held_to(host, given, prefix).checks


def _unmapped(host: Host, why: str) -> Measurement:
    host.unmapped = why
    return Measurement(why=why)


def _unmeasurable(host: Host) -> str:
    if is_baked(host.module):
        return "it holds a baked edit, so that its sites need not add up"
    on_meta = any(parameter.device.type == "meta" for parameter in host.module.parameters())
    if on_meta and execution_device(host.module) is None:
        return "its weights are not in memory"
    return ""


def _held_to(host: Host, given: Inputs, tower: str = "") -> Measurement:
    """The checks of the host's layout or a tower's. Raises `WrongLayout` for the first equation that does not hold."""
    stack = host.tower_hosts[tower] if tower else host
    assert stack.layout is not None
    name = stack.layout.name
    try:
        checks = tuple(measure(host, given, tower))
    except OptrodeError as problem:
        raise WrongLayout(f"the layout '{name}' does not describe {stack.name}: {problem}; {_ADVICE}") from problem
    except Exception as problem:  # whatever a network's own forward may raise on inputs that were made up
        return _unmapped(stack, f"a trial forward failed ({_line(problem)}): pass example=")
    if any(check.error != check.error for check in checks):
        return _unmapped(stack, "its activations are not finite")
    for check in checks:
        if not check.holds:
            raise WrongLayout(
                f"the layout '{name}' does not describe {stack.name}: in layer {check.layer} {check.equation} is off "
                f"by {check.error:.1%} of the largest value; {_ADVICE}"
            )
    stack.unmapped = ""
    return Measurement(checks)


def _discovered(host: Host, given: Inputs) -> Measurement:
    try:
        host.layout = discover(host, given)
        return _held_to(host, given)
    except (NotMapped, WrongLayout) as problem:
        host.layout = None
        return _unmapped(host, str(problem))
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as problem:
        host.layout = None
        return _unmapped(host, f"a trial forward failed ({_line(problem)}): pass example=")


def _line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0][:120]


_ADVICE = "load it with layout=None for module paths, or layout='measured' to map it by measurement"

__all__ = ["Measurement", "settle"]
