"""Whether an edit belongs to a network: same weights, same architecture (a warning), another model (refused)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from ...edits.base import Provenance
from ...errors import WrongModel
from ...host import Host


def check_model(host: Host, provenances: Iterable[Provenance]) -> None:
    """Raise `WrongModel` where a part of an edit was fitted on a model of another architecture."""
    for provenance in provenances:
        wanted = provenance.fingerprint
        if not wanted or wanted == host.fingerprint:
            continue
        if wanted.get("config") != host.fingerprint["config"]:
            known = wanted.get("name", "another model")
            raise WrongModel(
                f"this edit was fitted on {known}, not on {host.name}: fit it here, or load the model it belongs to"
            )
        differs = " and ".join(key for key in ("tokenizer", "weights") if wanted.get(key) != host.fingerprint[key])
        if differs:
            warnings.warn(
                f"this edit was fitted on a model like {host.name}, but with another {differs}: check its effect",
                stacklevel=8,  # the line with the user's `with`
            )
