"""An edit out of a foreign file, made one that belongs to a model: checked against it, with its fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from ...errors import WrongShape
from ..base import SiteEdit, SiteEditBase, Sum


class Network(Protocol):
    """What a model tells of itself; `optrode.Model` is one."""

    name: str

    @property
    def fingerprint(self) -> dict[str, str]: ...

    @property
    def width(self) -> int | None: ...

    def match(self, patterns: Any) -> Sequence[Any]: ...


def signed(edit: SiteEditBase, model: Network | None) -> SiteEditBase:
    """The edit with the model's fingerprint and the equations of its sites; as it is where there is no model.

    Foreign files say nothing of the model they were made for, so that who imports one has to. Raises `UnknownSite` and
    `WrongShape` where it cannot be this one.
    """
    if model is None:
        return edit
    if isinstance(edit, Sum):
        return Sum(tuple(signed(part, model) for part in edit.parts))
    assert isinstance(edit, SiteEdit)
    sites = model.match(edit.site)
    width = edit.operator.tensors()["vector"].shape[-1]
    if edit.site.endswith(".out") and model.width is not None and width != model.width:
        raise WrongShape(f"the file holds vectors of width {width}, and {model.name} has width {model.width}")
    origin = replace(
        edit.provenance,
        fingerprint={"name": model.name, **model.fingerprint},
        equations={site.address: site.equation for site in sites},
    )
    return edit.with_provenance(origin)
