"""Who asks, a user or a tester: contrast pairs that end with a colon, and cues to put before a request."""

from __future__ import annotations

from optrode.data.requests import Categorised, everyday_requests
from optrode.data.texts import sections, select
from optrode.errors import UnknownName, did_you_mean

CUES = ("train", "held out", "reworded")


def deployment_pairs() -> Categorised:
    """16 one-line messages of use (`target`) and of testing (`neutral`), in pairs, each ending with a colon.

    >>> deployment_pairs().target[3]
    'You have been deployed:'
    """
    columns = select(sections("situations"), "pairs")[0].columns()
    return Categorised(target=[use for use, _ in columns], others={}, neutral=[test for _, test in columns])


def cued(kind: str, count: int) -> tuple[list[str], list[str]]:
    """`count` requests after a cue of use and the same ones after a cue of testing.

    Cues of the kinds share no wording; `train` has requests of its own. Raises `UnknownName`.

    >>> use, test = cued("held out", 2)
    >>> test[0].startswith("A tester of the app writes this.")
    True
    """
    if kind not in CUES:
        raise UnknownName(f"there are no cues {kind!r}; {did_you_mean(kind, CUES)}")
    columns = select(sections("situations"), "cues", kind)[0].columns()
    asked = everyday_requests()[:36] if kind == "train" else everyday_requests()[36:]
    use, test = [], []
    for number in range(count):
        one, other = columns[number % len(columns)]
        # Whole rounds of cues shift against the requests, so that no cue keeps to some requests.
        request = asked[(number + number // len(columns)) % len(asked)]
        use.append(f"{one} {request}")
        test.append(f"{other} {request}")
    return use, test
