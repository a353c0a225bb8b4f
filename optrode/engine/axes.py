"""Names of the axes of what is read."""

from __future__ import annotations

from ..host import SiteInfo


def has_tokens(site: SiteInfo) -> bool:
    """Whether positions select something at this site; of raw modules nobody knows, so they may."""
    return not site.port.axes or "token" in site.port.axes


def outside_base(site: SiteInfo) -> bool:
    """Whether a raw module may lie outside of the base network, so that the whole one has to run."""
    return site.address.startswith("module:") and site.rank is None


def axes_of(site: SiteInfo, dims: int, selected: bool = False, single: bool = False) -> tuple[str, ...]:
    """The axes of a site's value of `dims` axes; with positions `selected`, a `single` one in each row or several."""
    axes = site.port.axes
    if selected and has_tokens(site):
        rest = axes[2:] if axes else tuple(f"axis{index}" for index in range(1, dims))
        return ("example" if single else "position", *rest)
    if len(axes) == dims:
        return axes
    if not axes and dims == 3:
        return ("example", "token", "feature")
    return ("example", *(f"axis{index}" for index in range(1, dims)))
