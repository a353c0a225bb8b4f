"""What a fitted edit takes along, put together in one place for all families."""

from __future__ import annotations

from typing import Any

from ..edits.base import Provenance
from ..encoding import start_token_policy
from ..model import Model


def provenance_of(
    model: Model, address: str, recipe: dict[str, Any], norm: float, *, template: str | None = None
) -> Provenance:
    """Where an edit at one site comes from: model, recipe, the site's equation, the stream's norm there, start token.

    `norm`: median norm of the stream at the site over the tokens that count.
    """
    site = model.match(address)[0]
    return Provenance(
        fingerprint={"name": model.name, **model.fingerprint},
        recipe=recipe,
        equations={site.address: site.equation},
        stream_norm={site.address: norm},
        start_token=start_token_policy(model, template),
    )
