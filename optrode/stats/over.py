"""`optrode.stats`: statistics of a network on some data, of a store, or of activations that were read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING

from ..activations import Activations
from ..errors import BadInput
from ..host import Host
from ..positions import Positions
from .choice import DEFAULT, Wanted, checked
from .statistics import Statistics

if TYPE_CHECKING:
    from ..store import Store
    from ..store.documents import Data

MASKS = ("all", "usual")
# Padding included; the same as in a harvest, so that both see the same numbers.
TOKENS_PER_FORWARD = 2048


def stats(
    source: Host | Store | Activations | str | PathLike[str],
    data: Data | None = None,
    sites: str | Sequence[str] | None = None,
    *,
    collect: str | Sequence[Wanted] = DEFAULT,
    positions: str | Positions | None = None,
    mask: str = "all",
    cross: Iterable[tuple[str, str]] = (),
    tokens: int | None = None,
    context: int | None = None,
    template: str | None = None,
    system: str | None = None,
    column: str | None = None,
    tokens_per_forward: int = TOKENS_PER_FORWARD,
) -> Statistics:
    """Statistics of activations, taken while they pass: nothing is kept whole.

    `source`: a model, with `data` as `optrode.harvest` takes it (texts, conversations, token ids, a path); a store or
    its path; or `Activations`. `sites` defaults to `layers.*.out` of a model, and to all sites of measurements else.

    `collect` names what is wanted (`optrode.stats.choice.NAMES`):

    | name | brings | in any order |
    |---|---|---|
    | `mean`, `variance`, `skewness`, `kurtosis` | moments of each unit, from sums that are never rounded | bit-equal |
    | `extremes`, `top` | largest and smallest value, ten largest values, with their examples | bit-equal |
    | `signs`, `histogram`, `magnitudes` | counts by sign, by bin, by size over the whole site | bit-equal |
    | `norms` | mean, quantiles and the largest of the rows' norms | bit-equal |
    | `covariance` | covariance of all units | within 1e-5 of the deviations |
    | `quantiles` | KLL sketch of each unit; slow | within its rank error |

    A function that makes an accumulator for rows of a shape (`lambda shape: Histogram(shape, edges)`) is taken too.
    `cross`: pairs of sites whose units are correlated.

    Padding never counts. `mask="usual"` leaves out special tokens and sinks too, in a store those that its `mask` says,
    of a model those of ten times the median norm of their text at any site that is read; for that, one forward's sites
    are in memory at once. `positions` selects tokens (of a store, when it is harvested). Rows that hold NaN or infinity
    are left out whole and counted as `skipped`. Exactly `tokens` rows are seen, or all there are. Each place of a
    picture (patch or pixel) is a row; where sites differ in their places, `tokens` counts pictures.

    Active edits are seen. The same rows give the same statistics whatever the batches and shards; a network's numbers
    differ in their last bits with the batches they ran in. Raises `UnknownName`, `UnknownSite`, `BadInput`,
    `NotSupported`.

    Costs 2 to 3 nanoseconds a value for what is collected by default, on two cores.

    >>> import optrode, torch
    >>> model = optrode.load(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()))
    >>> found = stats(model.read(torch.ones(5, 4), "module:1"), collect=("mean", "signs"))
    >>> found["module:1"].count, found["module:1"]["mean"].shape
    (5, torch.Size([3]))
    """
    # The store lies beside this package and uses its token mask.
    from ..store import Store, open
    from .over_activations import of_activations
    from .over_model import of_model
    from .over_store import of_store

    if mask not in MASKS:
        raise BadInput(f"mask={mask!r} is not known: use {' or '.join(MASKS)}")
    if tokens is not None and tokens < 1:
        raise BadInput(f"tokens must be at least 1, not {tokens}")
    chosen = Positions(positions) if isinstance(positions, str) else positions
    wanted, pairs = checked(collect), [(first, second) for first, second in cross]
    if isinstance(source, Host):
        if data is None:
            raise BadInput("statistics of a model need data: a list of texts, or a path")
        return of_model(
            source, data, sites or "layers.*.out", wanted, pairs, chosen, mask, tokens=tokens, context=context,
            template=template, system=system, column=column, tokens_per_forward=tokens_per_forward,
        )  # fmt: skip
    if data is not None:
        raise BadInput("data= goes with a model: a store and activations have theirs")
    texts = {"context": context, "template": template, "system": system, "column": column}
    for name, value in {**texts, "tokens": tokens if isinstance(source, Activations) else None}.items():
        if value is not None:
            raise BadInput(f"{name}= says how data is read, which was done before: leave it out")
    if isinstance(source, Activations):
        return of_activations(source, sites, wanted, pairs, chosen, mask)
    store = source if isinstance(source, Store) else open(source)
    return of_store(store, sites, wanted, pairs, chosen, mask, tokens)
