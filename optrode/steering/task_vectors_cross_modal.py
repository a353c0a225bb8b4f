"""Task vectors across formats and modalities (Task Vectors are Cross-Modal, arXiv 2410.22330)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar

import torch

from ..data import Behaviour, Pair
from ..edits import replace as put
from ..edits.base import Edit, SiteEdit, Sum
from ..errors import BadInput, NotFinite, did_you_mean
from ..model import Model
from ..parts.contrast import median_norms
from ..parts.pairs import as_pairs
from ..parts.provenance import provenance_of
from .protocol import SteeringMethod

# How an example and a query are written; a query is an example that stops before its answer.
FORMATS = {"questions": ("Q:{x}\nA:", "{y}\n\n"), "arrows": ("{x} ->", " {y}\n")}


@dataclass(frozen=True)
class TaskVectorCrossModal(SteeringMethod):
    """A task, given as examples or as an instruction, as one vector that replaces the stream of a query's last token.

    Prompts of `examples` examples are read at the delimiter in front of the last example's answer; the mean over
    `prompts` random ones is t. Then h <- t at the same layer, at the last token of a query that has no examples. It is
    a replacement: what the query says reaches the answer through the layers behind it alone. The edit acts on the
    prompt's last token and on nothing that is written.

    An answer that follows the delimiter cannot change what a causal network has there, so that the last example is
    written without one; the published code writes it, and a further query, and reads the same.

    data: (input, output) pairs, at least `examples`; a text is an instruction, read at its last token. Pairs of the
        library and a `Behaviour` count as (prompt, showing reply).
    format: how examples and queries are written, `questions` or `arrows`; `query` writes one. Use template="raw".
    """

    id: ClassVar[str] = "task-vectors-cross-modal"
    title: ClassVar[str] = "cross-modal task vector"
    paper: ClassVar[str] = "2410.22330"
    strength_unit: ClassVar[str] = "operator"

    site: str = "layers.15.out"
    examples: int = 5
    prompts: int = 20
    format: str = "questions"
    seed: int = 0

    @classmethod
    def variants(cls) -> tuple[SteeringMethod, ...]:
        """None: it makes a task out of examples, and has nothing to do with contrast replies."""
        return ()

    def query(self, text: Any) -> str:
        """A query without examples, up to its delimiter."""
        return self._forms()[0].format(x=text)

    def fit(self, model: Model, data: Any) -> Edit:
        """An edit at every site that `site` selects. Raises `UnknownSite`, `BadInput`, `NotFinite`.

        Cost: one forward a prompt, up to the last site.
        """
        sites = [found.address for found in model.match(self.site)]
        texts = [data] if isinstance(data, str) else self.texts(data)
        if not texts[0].strip():
            raise BadInput("the instruction is empty: write what is to be done, ending with a colon")
        acts = model.read(texts, sites, positions="last_prompt", template="raw")
        norms = median_norms(model, texts[:8], sites, template="raw")
        edits = []
        for site in sites:
            if not bool(torch.isfinite(acts[site]).all()):
                raise NotFinite(f"the activations at {site} hold NaN or infinity: use float32, or check the inputs")
            known = provenance_of(model, site, self.recipe(), norms[site], template="raw")
            edits.append(replace(put(site, acts[site].float().mean(0), "last_prompt"), provenance=known))
        return edits[0] if len(edits) == 1 else Sum(tuple(edits))

    def texts(self, data: Any) -> list[str]:
        """`prompts` prompts of random examples, each ending at the delimiter of its last one."""
        items = _items(data)
        if self.examples < 1 or self.prompts < 1 or len(items) < self.examples:
            raise BadInput(
                f"{len(items)} examples were given for prompts of {self.examples}: give more, or lower `examples`"
            )
        asked, answered = self._forms()
        random, found = Random(self.seed), []
        for _ in range(self.prompts):
            *shown, (last, _) = random.sample(items, self.examples)
            text = "".join(asked.format(x=x) + answered.format(y=y) for x, y in shown)
            found.append(text + asked.format(x=last))
        return found

    def _forms(self) -> tuple[str, str]:
        if self.format not in FORMATS:
            raise BadInput(f"format '{self.format}' is not known: {did_you_mean(self.format, FORMATS)}")
        return FORMATS[self.format]


def ensemble(edits: Sequence[SiteEdit]) -> SiteEdit:
    """The mean of several task vectors of one site, such as that of examples and that of an instruction.

    Raises `BadInput` for none, or edits of different sites.
    """
    if not edits or len({edit.site for edit in edits}) > 1:
        raise BadInput("an ensemble needs at least one task vector, and all of one site")
    mean = torch.stack([edit.operator.tensors()["value"] for edit in edits]).mean(0)
    return replace(edits[0], operator=put(edits[0].site, mean).operator)


def alike(prediction: str, label: str) -> bool:
    """The paper's score: one is the beginning of the other, case and outer space aside. Lenient with short answers.

    >>> alike(" Par", "Paris"), alike("London", "Paris")
    (True, False)
    """
    one, other = prediction.strip().lower(), label.strip().lower()
    return bool(one) and bool(other) and (one.startswith(other) or other.startswith(one))


def _items(data: Any) -> list[tuple[str, str]]:
    if isinstance(data, Behaviour) or (isinstance(data, Sequence) and data and isinstance(data[0], Pair)):
        return [(pair.prompt, pair.positive) for pair in as_pairs(data)]
    if not isinstance(data, Sequence) or isinstance(data, str) or not data:
        raise BadInput("there is no example to fit on: give (input, output) pairs, or an instruction as text")
    for number, item in enumerate(data):
        if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 2:
            raise BadInput(f"example {number} is no pair: give (input, output)")
    return [(str(x), str(y)) for x, y in data]
