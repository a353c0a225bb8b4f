"""Every error a user can meet: one line that says what was wrong and what to do.

Each class stands for one kind of mistake; the message is written where the mistake is seen. `nearest` finds the valid
names that a misspelt one may have meant, so that no caller has to guess. Each class has a page of documentation, which
`optrode help CLASS` prints without a network; tracebacks say so below the message.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .messages import plain


class OptrodeError(Exception):
    """Base of all errors that optrode raises on purpose; the command line prints its one line and exits with 1."""

    @property
    def __notes__(self) -> list[str]:
        """What tracebacks print below the message, from Python 3.11 on.

        Not `add_note` in a constructor of its own: a compiler that meets the error could not trace that.
        """
        return self.__dict__.setdefault("_notes", [f"see: {self.help}"])

    @property
    def help(self) -> str:
        """The command that prints the page of this kind of error."""
        return f"optrode help {type(self).__name__}"


class UnknownModel(OptrodeError):
    """The model name is no hub id, folder, GGUF file or known wheel."""


class UnknownSite(OptrodeError):
    """The address matches no activation of this model."""


class UnknownName(OptrodeError):
    """A method, behaviour, family or option that does not exist."""


class MissingFile(OptrodeError):
    """A file or folder that should be read is not there."""


class BadInput(OptrodeError):
    """Data of the wrong kind, shape or amount: empty, one class only, unequal lengths."""


class BadFile(OptrodeError):
    """A file that is damaged, of another format, or not safe to read."""


class WrongModel(OptrodeError):
    """An edit or score that was fitted on another model."""


class WrongShape(OptrodeError):
    """A tensor whose shape does not fit the site."""


class WrongLayout(OptrodeError):
    """A network whose sites are not what its layout says they are."""


class NotFinite(OptrodeError):
    """NaN or infinity where a number was needed."""


class EditDidNothing(OptrodeError):
    """An edit that matched no site, never fired, or touched no position."""


class NotSupported(OptrodeError):
    """A combination that is refused rather than answered wrongly."""


class OverBudget(OptrodeError):
    """A read that needs more memory than its budget, whatever is split or kept on disk; nothing was run."""


class StoreMismatch(OptrodeError):
    """A store that was harvested from another model, other data or with other settings than this call names."""


class StoreInUse(OptrodeError):
    """A store that another process is writing."""


class NoSpace(OptrodeError):
    """A disk without room for what is to be written; what is there already stays whole."""


def nearest(name: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """The `count` valid names most like `name`, best first.

    >>> nearest("layers.3.uot", ["layers.3.out", "layers.3.in", "embed"], 1)
    ['layers.3.out']
    """
    valid = list(dict.fromkeys(valid))
    close = difflib.get_close_matches(name, valid, n=count, cutoff=0.4)
    return close or valid[:count]


def did_you_mean(name: str, valid: Iterable[str], count: int = 3) -> str:
    """The end of an error line: `did you mean a, b or c?`.

    >>> did_you_mean("sentimnt", ["sentiment"])
    'did you mean sentiment?'
    """
    # Names may come out of a file.
    names = [plain(known) for known in nearest(name, valid, count)]
    if not names:
        return "there are none"
    return "did you mean " + (", ".join(names[:-1]) + " or " + names[-1] if len(names) > 1 else names[0]) + "?"
