"""Generation with concept activation vectors (Controlling LLMs Through CAV, arXiv 2501.05764)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..data import Behaviour
from ..errors import BadInput, did_you_mean
from ..model import Model
from ..parts.contrast import Contrast, read_contrast
from ..parts.judge import fit_judge
from ..parts.pairs import as_pairs
from .concept_shift import ConceptShift

FORMS = ("replies", "input", "output")


@dataclass(frozen=True)
class GCAV(ConceptShift):
    """Shift each token along a logistic probe's weight until the probe says `probability`, and no further.

    With P(e) = sigmoid(w . e + b) and v = w / |w|: e + eps v, eps = 1[P(e) < p] (logit(p) - b - w . e) / |w| to add a
    concept (`at_least`), 1[P(e) > p] to remove it (`at_most`); equations 2 to 4.

    form: what the probe is fitted on. `input`, the paper's: prompts that ask for the concept and for its opposite,
        here a behaviour's instructions as system prompts, read at the last prompt token. `output`, the paper's: of
        these only prompts whose answer really shows, or lacks, the concept by the behaviour's judge. `replies`: both
        replies of a contrast pair, read at their last token, which needs no instruction.
    probability: the paper writes its targets as 1 - 10^-k, k from 1 to 6; the default is k = 4.
    positions: not in the paper's main text; those of the sibling method (`SCAV`) are taken.

    Several concepts at once: `optrode.parts.concepts.joint_shift`.
    """

    id: ClassVar[str] = "gcav"
    title: ClassVar[str] = "GCAV"
    paper: ClassVar[str] = "2501.05764"

    form: str = "replies"

    def contrast(self, model: Model, data: Any, sites: Sequence[str]) -> Contrast:
        if self.form not in FORMS:
            raise BadInput(f"form '{self.form}' is not known: {did_you_mean(self.form, FORMS)}")
        if self.form == "replies":
            return super().contrast(model, data, sites)
        if not isinstance(data, Behaviour) or not all(data.instructions):
            raise BadInput(
                f"form '{self.form}' needs a behaviour with instructions for and against it: use form='replies'"
            )
        pairs = as_pairs(data)
        asked = list(dict.fromkeys((pair.prompt, pair.group) for pair in pairs))
        if self.form == "output":
            asked = self._shown(model, data, asked)
        asks, opposes = ([_instructed(told, prompt) for prompt, _ in asked] for told in data.instructions)
        return read_contrast(model, asks, opposes, sites, groups=[group for _, group in asked])

    def _shown(self, model: Model, data: Behaviour, asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The prompts after which both instructions had their effect."""
        judge = fit_judge(data.judge)
        talks = [[_instructed(told, prompt) for prompt, _ in asked] for told in data.instructions]
        shows, lacks = (judge([str(text) for text in model.generate(side, max_new_tokens=32)]) for side in talks)
        kept = [one for one, high, low in zip(asked, shows, lacks, strict=True) if high > 0.5 > low]
        if len(kept) < 2:
            raise BadInput(
                f"only {len(kept)} of {len(asked)} prompts were answered as both instructions ask: use form='input'"
            )
        return kept


def _instructed(instruction: str, prompt: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": instruction}, {"role": "user", "content": prompt}]
