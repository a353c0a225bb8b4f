"""Deciding, when a network is loaded, where its sites are: by table or by measurement, and never unmeasured.

A layout from the table is held to its equations in every layer; where one does not hold the network is refused rather
than read at the wrong places. A network that no table knows is mapped by measurement (`discover`), or keeps its module
paths alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptrodeError, WrongLayout
from ..host import Host
from ..layouts import Layout
from ..offloaded import execution_device
from .discover import NotMapped, discover
from .equations import EquationCheck, measure
from .hooks import hooks_alone
from .run import Inputs
from .transformers_names import is_compiled
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

    def of(self, layer: int | None, site: str) -> EquationCheck | None:
        """The check of the equation that has this site (`mid`, `out`) as its result, in one layer."""
        found = (check for check in self.checks if check.layer == layer and check.equation.startswith(f"{site} = "))
        return next(found, None)

    def __str__(self) -> str:
        if self.worst is None:
            return f"not measured: {self.why}"
        return f"{len(self.checks)} equations measured on load, largest error {self.worst.error:.1e}"


def settle(host: Host, layout: Layout | str | None = "auto", example: Inputs | None = None) -> Measurement:
    """Give `host` its layout and measure it. One short forward, five to ten more for an unknown network.

    `layout`: `auto` takes the table's and measures where no table knows the network; `measured` asks no table; None
    leaves module paths only; a `Layout` of your own is taken instead. `example`: inputs to measure with, made up if
    None. Raises `WrongLayout` where a layout's equation does not hold.
    """
    if layout is None or isinstance(layout, Layout) or layout == "measured":
        host.layout = layout if isinstance(layout, Layout) else None
    elif layout != "auto":
        raise WrongLayout(f"layout={layout!r} is none: give auto, measured, None or a Layout")
    if layout is None:
        return _unmapped(host, "layout=None was asked for")
    why = _unmeasurable(host)
    if why:
        return _unmapped(host, why)
    if example is None and _needs_encoder(host):
        return _unmapped(host, "its blocks look at an encoder's output: pass example= with encoder_hidden_states")
    given = example if example is not None else trial_inputs(host)
    if given is None:
        return _unmapped(host, "no inputs could be made up for it: pass example=")
    with hooks_alone(), in_eval_mode(host.module), one_thread():
        if host.layout is None:
            return _discovered(host, given)
        return _held_to(host, given)


def _unmapped(host: Host, why: str) -> Measurement:
    host.unmapped = why
    return Measurement(why=why)


def _unmeasurable(host: Host) -> str:
    if is_compiled(host.module):
        return "it is compiled, where hooks added later are ignored"
    on_meta = any(parameter.device.type == "meta" for parameter in host.module.parameters())
    if on_meta and execution_device(host.module) is None:
        return "its weights are not in memory"
    return "" if host.layout else _towers(host)


def towers_of(host: Host) -> list[str]:
    """Names of the towers of an encoder-decoder or an image-text network, below its base; none for other networks."""
    config = host.config
    if getattr(config, "is_encoder_decoder", False):
        names: tuple[str, ...] = ("encoder", "decoder")
    elif hasattr(config, "vision_config") and hasattr(config, "text_config"):
        names = ("vision_model", "text_model", "vision_tower", "language_model")
    else:
        names = ()
    found = [name for name in names if hasattr(host.base, name)]
    return found if len(found) > 1 else []


def _towers(host: Host) -> str:
    """Why a network of several towers has no one stack of blocks, and what to ask instead."""
    asks = [f"model.tower('{name}')" for name in towers_of(host)]
    return f"it has several towers: take one of them, such as {' or '.join(asks)}" if asks else ""


def _needs_encoder(host: Host) -> bool:
    """Whether this is a decoder whose blocks look at an encoder's output, which a trial forward does not have."""
    takes = "encoder_hidden_states" in host.accepts and bool(getattr(host.config, "is_decoder", False))
    return takes and any("cross" in name.lower() or "encdec" in name.lower() for name, _ in host.module.named_modules())


def _held_to(host: Host, given: Inputs) -> Measurement:
    """The checks of the host's layout. Raises `WrongLayout` for the first equation that does not hold."""
    assert host.layout is not None
    name = host.layout.name
    try:
        checks = tuple(measure(host, given))
    except OptrodeError as problem:
        raise WrongLayout(f"the layout '{name}' does not describe {host.name}: {problem}; {_ADVICE}") from problem
    except Exception as problem:  # whatever a network's own forward may raise on inputs that were made up
        return _unmapped(host, f"a trial forward failed ({_line(problem)}): pass example=")
    if any(check.error != check.error for check in checks):
        return _unmapped(host, "its activations are not finite")
    for check in checks:
        if not check.holds:
            raise WrongLayout(
                f"the layout '{name}' does not describe {host.name}: in layer {check.layer} {check.equation} is off by "
                f"{check.error:.1%} of the largest value; {_ADVICE}"
            )
    host.unmapped = ""
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
