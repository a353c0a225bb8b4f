"""What was read: tensors by site with named axes, and the tokens that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .batches import Batch
from .errors import BadInput, NotSupported, UnknownSite, did_you_mean
from .sites import select, tower_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import xarray as xr


@dataclass
class Activations(Mapping[str, Tensor]):
    """Tensors by site address, in order of execution.

    `axes[site]` names each axis. Read whole, a site of a language model has axes (example, token, [head,] feature);
    `batch.mask` tells padding from tokens. Read at positions, it has (position, [head,] feature), or
    (example, [head,] feature) where every row gave exactly one. `places` then holds the example and column of each
    position, [position, 2] int64. `tokens_by_expert` counts, for each layer whose router or experts were read, the
    tokens that chose each expert, [expert] int64; padding is not counted. `on_disk`: bytes in a scratch file, where a
    read within a budget put what did not fit in memory; the space is given back by `close`, or when the last tensor of
    it is gone.

    >>> acts = Activations({"layers.0.out": torch.zeros(2, 3, 4)}, {"layers.0.out": ("example", "token", "feature")})
    >>> acts["layers.0.out"].shape
    torch.Size([2, 3, 4])
    """

    values_by_site: dict[str, Tensor]
    axes: dict[str, tuple[str, ...]]
    batch: Batch | None = None
    places: Tensor | None = None
    tokenizer: Any = field(default=None, repr=False)
    layers_run: int = 0
    layers_skipped: int = 0
    sources: dict[str, tuple[Tensor, Any]] = field(default_factory=dict, repr=False)
    tokens_by_expert: dict[str, Tensor] = field(default_factory=dict, repr=False)
    on_disk: int = 0
    closed: bool = field(default=False, repr=False)

    def __getitem__(self, site: str) -> Tensor:
        if self.closed:
            raise BadInput("these activations were closed: read them again")
        if site not in self.values_by_site:
            raise UnknownSite(f"site '{site}' was not read: {did_you_mean(site, self.values_by_site)}")
        return self.values_by_site[site]

    def __contains__(self, site: object) -> bool:
        return site in self.values_by_site

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_site)

    def __len__(self) -> int:
        return len(self.values_by_site)

    def close(self) -> None:
        """Let go of all tensors, and of the file on disk if there is one. Tensors taken out before stay valid."""
        self.values_by_site.clear()
        self.sources.clear()
        self.on_disk, self.closed = 0, True

    def __enter__(self) -> Activations:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    @property
    def tokens(self) -> list[list[str]] | None:
        """The text of every token, [example][token]; None where there is no tokenizer."""
        if self.batch is None or self.tokenizer is None:
            return None
        return [[self.tokenizer.decode([token]) for token in row] for row in self.batch.ids.tolist()]

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors hold."""
        return sum(value.numel() * value.element_size() for value in self.values())

    @property
    def notes(self) -> list[str]:
        """What these activations cannot tell: the experts that got no token."""
        return unrouted(self.tokens_by_expert)

    def stack(self, pattern: str) -> Tensor:
        """The sites that a pattern selects as one tensor with a leading axis, such as [layer, example, token, feature].

        Raises `UnknownSite` when it selects none, `BadInput` when their shapes differ.
        """
        chosen = [self[site] for site in select(pattern, list(self), self._layers())]
        if len({value.shape for value in chosen}) > 1:
            raise BadInput(f"the sites that '{pattern}' selects have different shapes, so they cannot be stacked")
        return torch.stack(chosen)

    def rows(self, site: str, mask: Tensor | None = None) -> Tensor:
        """Activations of one site as [row, width]: the positions that `mask` ([example, token] bool) keeps.

        Without a mask: all tokens but padding. Head and feature axes are flattened together.
        """
        value = self[site]
        if self.axes[site][:2] == ("example", "token"):
            keep = mask if mask is not None else (self.batch.mask if self.batch is not None else None)
            value = value.flatten(0, 1) if keep is None else value[keep.to(value.device)]
        return value.flatten(1) if value.dim() > 1 else value[:, None]

    def gradients(self, objective: Tensor) -> Activations:
        """Gradient of a scalar with respect to every site that was read with `grad=True`, same axes.

        Raises `NotSupported` for activations read without `grad=True`.
        """
        if not self.sources:
            raise NotSupported("these activations hold no graph: read them with grad=True")
        sources = [source for source, _ in self.sources.values()]
        found = torch.autograd.grad(objective, sources, allow_unused=True)
        grads = {
            site: view(torch.zeros_like(source) if grad is None else grad)
            for (site, (source, view)), grad in zip(self.sources.items(), found, strict=True)
        }
        axes = {site: self.axes[site] for site in grads}
        return Activations(grads, axes, self.batch, self.places, self.tokenizer)

    def numpy(self) -> dict[str, np.ndarray]:
        """Arrays by site; bfloat16, which numpy does not know, becomes float32."""
        return {
            site: (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu().numpy()
            for site, value in self.items()
        }

    def to_xarray(self) -> xr.Dataset:
        """A labelled dataset: one variable per site; axes that are common to sites are shared."""
        import xarray as xr

        arrays = {}
        for site, value in self.numpy().items():
            sizes = dict(zip(self.axes[site], value.shape, strict=True))
            names = [name if name in ("example", "token", "position") else f"{site}.{name}" for name in sizes]
            arrays[site] = xr.DataArray(value, dims=names, name=site)
        dataset = xr.Dataset(arrays)
        if self.batch is not None and "token" in dataset.dims:
            dataset["token_id"] = (("example", "token"), self.batch.ids.cpu().numpy())
            dataset["mask"] = (("example", "token"), self.batch.mask.cpu().numpy())
        return dataset

    def to_pandas(self, site: str) -> pd.DataFrame:
        """One row per token or position of `site`, one column per feature, indexed by example and token."""
        import pandas as pd

        if self.batch is not None and self.axes[site][:2] == ("example", "token"):
            places = self.batch.mask.nonzero()
        elif self.places is not None:
            places = self.places
        else:
            places = torch.stack(
                [torch.arange(len(self.rows(site))), torch.zeros(len(self.rows(site)), dtype=torch.long)], 1
            )
        index = pd.MultiIndex.from_arrays(places.cpu().numpy().T, names=["example", "token"])
        frame = pd.DataFrame(self.rows(site).detach().float().cpu().numpy(), index=index)
        if self.batch is not None and self.tokenizer is not None:
            texts = [self.tokenizer.decode([int(self.batch.ids[example, token])]) for example, token in places.tolist()]
            frame.insert(0, "text", texts)
        return frame

    def _layers(self) -> dict[str, int]:
        """Number of blocks that the sites tell of, by tower."""
        found: dict[str, int] = {}
        for site in self:
            _, inside, rest = site.partition("layers.")
            index = rest.partition(".")[0]
            if inside and index.isdigit():
                found[tower_of(site)] = max(found.get(tower_of(site), 0), int(index) + 1)
        return found

    def _repr_html_(self) -> str:
        from .notebook.activations import activations

        return activations(self)

    def __repr__(self) -> str:
        where = " on disk" if self.on_disk else ""
        sites = f"{len(self)} site{'' if len(self) == 1 else 's'}"
        lines = [f"Activations of {sites}, {self.nbytes / 2**20:.1f} MiB{where}"]
        for site, value in list(self.items())[:8]:
            shape = ", ".join(f"{name} {size}" for name, size in zip(self.axes[site], value.shape, strict=False))
            lines.append(f"  {site}: [{shape}] {str(value.dtype).removeprefix('torch.')}")
        if len(self) > 8:
            lines.append(f"  and {len(self) - 8} more")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def unrouted(tokens_by_expert: dict[str, Tensor]) -> list[str]:
    """One line for each layer with experts that got no token.

    >>> unrouted({"layers.3.mlp": torch.tensor([4, 2, 0, 1, 1, 0])})
    ['layers.3.mlp: experts 2, 5 got no token']
    """
    lines = []
    for place, counts in tokens_by_expert.items():
        idle = (counts == 0).nonzero().flatten().tolist()
        if idle:
            lines.append(f"{place}: {numbers(idle)} got no token")
    return lines


def numbers(experts: Sequence[int]) -> str:
    """`expert 3` or `experts 2, 5`."""
    return f"expert{'s' if len(experts) > 1 else ''} {', '.join(map(str, experts))}"
