"""Maps: labelled arrays over layers, heads, positions or neurons, with a plot."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput

if TYPE_CHECKING:
    import altair
    import numpy as np
    import pandas as pd
    import xarray as xr


@dataclass(frozen=True, eq=False)
class Map:
    """An array with named axes and labels.

    `values`: numpy array; `labels`: axis name -> one label per entry, in the order of the axes; `unit` says what a
    value is. `base` is the value where nothing was done and `donor` the one where everything was, where there are
    such: numbers, or arrays that broadcast to `values`. `notes` say how the map was made.

    >>> import numpy as np
    >>> Map(np.zeros((2, 3)), {"layer": [0, 1], "head": [0, 1, 2]}, "nats").to_xarray().dims
    ('layer', 'head')
    """

    values: np.ndarray
    labels: dict[str, list[Any]]
    unit: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    base: Any = None
    donor: Any = None

    def __repr__(self) -> str:
        axes = " x ".join(f"{name} {len(labels)}" for name, labels in self.labels.items())
        ends = ", ".join(f"{name} {end:.4g}" for name, end in self._ends().items())
        return f"Map({', '.join(part for part in (axes, self.unit, ends) if part)})"

    def _ends(self) -> dict[str, float]:
        """Base and donor where each is one number."""
        ends = {"base": self.base, "donor": self.donor}
        return {name: float(end) for name, end in ends.items() if end is not None and not getattr(end, "ndim", 0)}

    def change(self) -> Map:
        """Values minus base: what each entry does by itself. Raises `BadInput` for a map without a base."""
        if self.base is None:
            raise BadInput("this map has no base value to subtract: use its values as they are")
        donor = None if self.donor is None else self.donor - self.base
        return replace(
            self, values=self.values - self.base, unit=f"change of {self.unit}", base=self.base * 0.0, donor=donor
        )

    def normalised(self) -> Map:
        """(values - base) / (donor - base): 0 where an entry does nothing, 1 where it alone does what all do together.

        Raises `BadInput` for a map without base and donor, or where both are equal.
        """
        if self.base is None or self.donor is None:
            raise BadInput("this map has no base and donor value, so it has no share of the way: use change()")
        way = self.donor - self.base
        if bool((way == 0).any() if hasattr(way, "any") else way == 0):
            raise BadInput("base and donor give the same value, so there is no way to have a share of: use change()")
        unit = f"share of the way to the donor's {self.unit}"
        return replace(self, values=(self.values - self.base) / way, unit=unit, base=way * 0.0, donor=way / way)

    def top(self, count: int = 10) -> pd.DataFrame:
        """The entries that lie farthest from the base (from 0 without one), one row each: labels, value and change."""
        frame = self.to_pandas().dropna(subset=["value"])
        order = (
            frame["change" if "change" in frame else "value"].abs().sort_values(ascending=False, kind="stable").index
        )
        return frame.loc[order[:count]].reset_index(drop=True)

    def to_xarray(self) -> xr.DataArray:
        import xarray as xr

        return xr.DataArray(self.values, dims=list(self.labels), coords=self.labels, attrs={"unit": self.unit})

    def to_pandas(self) -> pd.DataFrame:
        """One row per entry: its labels, its value and, where there is a base, the change from it."""
        frame = self.to_xarray().to_dataframe(name="value").reset_index()
        if self.base is not None:
            frame["change"] = (self.values - self.base).reshape(-1)
        return frame

    def plot(self, *, wide: int = 60) -> altair.Chart:
        """A heat map of the last two axes, a line of a single one; more axes make rows of heat maps, one below the
        other.

        Colours show the change from the base (values, where there is none), with nothing in the middle. An axis of over
        200 entries is cut to the `wide` ones that hold the largest.
        """
        from .chart import chart

        return chart(self, wide)

    def _repr_html_(self) -> str:
        from ..notebook.maps import drawn

        return drawn(self)

    def save(self, path: str | Path) -> Path:
        """Write the map: `.json` and `.npz` hold everything, `.csv` the table, `.html`, `.png` and `.svg` the plot.

        Raises `BadInput` for other endings. The file is whole or absent.
        """
        from .files import save

        return save(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> Map:
        """A map from a `.json` or `.npz` file. Runs no code from it. Raises `MissingFile` and `BadFile`."""
        from .files import load

        return load(Path(path))
