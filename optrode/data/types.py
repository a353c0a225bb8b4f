"""What a behaviour is made of: frozen records that hold nothing but text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """One user message with two replies: `positive` shows the behaviour, `negative` opposes it.

    `group` names the subject of the message; splits never share a group.
    """

    prompt: str
    positive: str
    negative: str
    group: str


@dataclass(frozen=True)
class Choice:
    """A user message, the start of the reply, and how it may go on.

    A continuation follows `opening` directly, so that it carries its own leading space; those in `positive` show the
    behaviour and those in `negative` oppose it. A behaviour scores a model by the probability it puts on either side.
    """

    prompt: str
    opening: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    group: str


@dataclass(frozen=True)
class Labelled:
    """A text with its label: 1 shows the behaviour, 0 opposes it.

    `prompt` is the message it answers, where the label cannot be told from the text alone.
    """

    text: str
    label: int
    group: str
    prompt: str = ""


@dataclass(frozen=True)
class Question:
    """A user message to be answered freely, and how the answer has to begin."""

    prompt: str
    group: str
    opening: str = ""


@dataclass(frozen=True)
class Behaviour:
    """Everything that steering methods need to be fitted and judged on one behaviour.

    The four splits share no group, no prompt and no reply:

    - `fit`: pairs to fit directions on;
    - `tune`: choices to pick layer and strength on;
    - `test`: choices for the reported figures, to be touched once;
    - `judge`: labelled text on which a classifier of free text is fitted and validated.

    `words` is the contrast for Activation Addition (showing, opposing); `instructions` are system prompts that ask for
    the behaviour and for its opposite, the prompting baseline.

    `free` are messages of the test split to be answered freely (none: the prompts and openings of `test`), `matched`
    messages that resemble them and that the behaviour should leave alone. `rule` names what reads the answers (see
    `optrode.parts.rules`); without one a classifier is fitted on `judge`. A rule is only checked on `judge`.
    """

    name: str
    description: str
    words: tuple[str, str]
    instructions: tuple[str, str]
    fit: tuple[Pair, ...]
    tune: tuple[Choice, ...]
    test: tuple[Choice, ...]
    judge: tuple[Labelled, ...]
    free: tuple[Question, ...] = ()
    matched: tuple[Question, ...] = ()
    rule: str = ""

    @property
    def questions(self) -> tuple[Question, ...]:
        """What is answered freely: `free`, or the choices of `test` as questions."""
        return self.free or tuple(Question(choice.prompt, choice.group, choice.opening) for choice in self.test)
