"""How examples go through the network: texts as padded batches, pictures as pixels. One class for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..activations import Activations
from ..batches import Batch
from ..engine.reading.one_forward import bare_forward, one_forward
from ..engine.reading.request import Request
from ..errors import BadInput, NotSupported
from ..host import Host, SiteInfo
from .documents import Documents
from .examples import Cursor, Example, PictureExamples, TextExamples, TextSettings, batch_of, pixels_of
from .layout import StoredSite
from .precision import kept_dtype

# A trial needs no more to know axes and dtypes.
_TRIAL_TOKENS = 4

Put = Callable[[str, Tensor], None]


class TextFeed:
    """Texts and conversations; a row of the store is a token, or an example where no site has tokens."""

    def __init__(self, host: Host, documents: Documents, request: Request, settings: TextSettings):
        self.host, self.request = host, request
        self._examples = TextExamples(host, documents, settings)
        self.unit = "token"

    def starting(self, cursor: Cursor) -> Iterator[Example]:
        for example in self._examples.starting(cursor):
            yield example if self.unit == "token" else _single(example)

    def trial(self, policy: str) -> list[StoredSite]:
        """The sites as they come out of a forward of a few tokens."""
        first = next(self._examples.starting(Cursor()), None)
        if first is None:
            raise BadInput("the data has no token at these positions, so there is nothing to harvest")
        short = batch_of(self.host, [first])
        columns = slice(0, _TRIAL_TOKENS)
        short = Batch(
            short.ids[:, columns], short.mask[:, columns], short.roles[:, columns], short.special[:, columns],
            short.instruction_end.clamp(max=_TRIAL_TOKENS), short.texts, short.offsets[:, columns],
        )  # fmt: skip
        acts = one_forward(self.host, short, self.request)
        self.unit = unit_of(acts, ("token",))
        return stored_sites(self.request.sites, acts, self.unit, policy)

    def forward(self, examples: Sequence[Example], put: Put) -> None:
        """Run examples; `put` gets each site as [example, place, ...] the moment it is seen."""
        batch = batch_of(self.host, examples)
        sinks = {site.address: self._sink(site.address, put) for site in self.request.sites}
        one_forward(self.host, batch, self.request, sinks=sinks)

    def _sink(self, address: str, put: Put) -> Callable[..., None]:
        def sink(h: Tensor, *_: Any) -> None:
            put(address, h if self.unit == "token" else h[:, None])

        return sink

    def columns(self, examples: Sequence[Example]) -> list[int]:
        """Where the first place of each example stands in its padded row."""
        if self.unit != "token" or not self.host.causal:
            return [0] * len(examples)
        width = max(example.length for example in examples)
        return [width - example.length for example in examples]


class PictureFeed:
    """Pictures; a row is a patch where all sites have the same patches, or an example."""

    def __init__(self, host: Host, documents: Documents, request: Request):
        if request.positions is not None:
            raise NotSupported("positions select tokens, and pictures have none")
        self.host, self.request = host, request
        self._examples = PictureExamples(host, documents)
        self.unit = "example"

    def starting(self, cursor: Cursor) -> Iterator[Example]:
        return self._examples.starting(cursor)

    def trial(self, policy: str) -> list[StoredSite]:
        first = next(self._examples.starting(Cursor()), None)
        if first is None:
            raise BadInput("the data holds no picture")
        acts = bare_forward(self.host, pixels_of(self.host, [first]), self.request)
        self.unit = unit_of(acts, ("patch",))
        if self.unit == "patch":
            self._examples.places = next(iter(acts.values())).shape[1]
        return stored_sites(self.request.sites, acts, self.unit, policy)

    def forward(self, examples: Sequence[Example], put: Put) -> None:
        acts = bare_forward(self.host, pixels_of(self.host, examples), self.request)
        for address, h in acts.items():
            put(address, h if self.unit == "patch" else h[:, None])

    def columns(self, examples: Sequence[Example]) -> list[int]:
        return [0] * len(examples)


Feed = TextFeed | PictureFeed


def _single(example: Example) -> Example:
    """An example whose activations have no token axis: it gives one row."""
    keep = torch.ones(example.length, dtype=torch.bool)
    keep[1:] = False
    return replace(example, keep=keep)


def unit_of(acts: Activations, places: tuple[str, ...]) -> str:
    """What a row is: one of `places` where all sites have it as second axis and agree on its size, else `example`.

    Raises `NotSupported` where some sites have tokens and others have not, and for sites with an axis of keys.
    """
    for address, axes in acts.axes.items():
        if axes[-1] == "key":
            raise NotSupported(
                f"{address} has an axis of keys, which is another size in each text, so its rows fit into no array: "
                "read it with op.read"
            )
    seconds = {address: axes[1] if len(axes) > 2 else "" for address, axes in acts.axes.items()}
    found = set(seconds.values())
    if len(found) == 1 and found <= set(places) and len({value.shape[1] for value in acts.values()}) == 1:
        return found.pop()
    if "token" in found:
        other = next(address for address, name in seconds.items() if name != "token")
        raise NotSupported(f"{other} has no tokens and other sites have: harvest them into two stores")
    return "example"


def stored_sites(sites: Sequence[SiteInfo], acts: Activations, unit: str, policy: str) -> list[StoredSite]:
    skip = 1 if unit == "example" else 2
    says = {site.address: site.equation for site in sites}
    return [
        _stored(address, says[address], acts.axes[address][skip:], value, skip, policy)
        for address, value in acts.items()
    ]


def _stored(address: str, equation: str, axes: tuple[str, ...], value: Any, skip: int, policy: str) -> StoredSite:
    scaled = policy.endswith("_scaled") and value.dtype.is_floating_point
    shape = tuple(value.shape[skip:])
    return StoredSite(address, equation, axes, shape, value.dtype, kept_dtype(policy, value.dtype), scaled)
