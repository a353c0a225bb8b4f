"""Maps: labelled arrays over layers, heads, positions or neurons, with a plot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair
    import numpy as np
    import pandas as pd
    import xarray as xr


@dataclass(frozen=True, eq=False)
class Map:
    """An array with named axes and labels.

    `values`: numpy array; `labels`: axis name -> one label per entry, in the order of the axes; `unit` says what a
    value is.

    >>> import numpy as np
    >>> Map(np.zeros((2, 3)), {"layer": [0, 1], "head": [0, 1, 2]}, "nats").to_xarray().dims
    ('layer', 'head')
    """

    values: np.ndarray
    labels: dict[str, list[Any]]
    unit: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    def to_xarray(self) -> xr.DataArray:
        import xarray as xr

        return xr.DataArray(self.values, dims=list(self.labels), coords=self.labels, attrs={"unit": self.unit})

    def to_pandas(self) -> pd.DataFrame:
        """One row per entry: its labels and its value."""
        return self.to_xarray().to_dataframe(name="value").reset_index()

    def plot(self) -> altair.Chart:
        """A heat map of a two-axis map, a line of a one-axis map."""
        import altair

        names = list(self.labels)
        data = altair.Data(values=self.to_pandas().to_dict("records"))
        title = self.unit or "value"
        if len(names) == 1:
            return (
                altair.Chart(data)
                .mark_line(point=True)
                .encode(x=altair.X(f"{names[0]}:O"), y=altair.Y("value:Q", title=title))
            )
        first, second = names[:2]
        return (
            altair.Chart(data)
            .mark_rect()
            .encode(
                x=altair.X(f"{second}:O"),
                y=altair.Y(f"{first}:O", sort="descending"),
                color=altair.Color("value:Q", title=title, scale=altair.Scale(scheme="purpleorange", domainMid=0)),
                tooltip=[*[f"{name}:O" for name in names], altair.Tooltip("value:Q", format=".3g")],
            )
        )
