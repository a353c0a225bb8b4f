"""Pages of the documentation that the program carries along: one for each error, and the traps."""

from __future__ import annotations

from pathlib import Path

from ..errors import MissingFile, UnknownName, did_you_mean

# Where an installed package has them, and where they are in a checkout.
_PACKAGE = Path(__file__).parents[1]
FOLDERS = (_PACKAGE / "help", _PACKAGE.parent / "docs" / "reference")


def topics() -> dict[str, Path]:
    """The pages by topic: the names of errors, and `traps`. Raises `MissingFile` where the package has none."""
    folder = next((folder for folder in FOLDERS if (folder / "traps.md").is_file()), None)
    if folder is None:
        raise MissingFile("this copy of optrode has no pages: install it from its wheel, or read its docs folder")
    errors = {path.stem: path for path in sorted((folder / "errors").glob("*.md")) if path.stem != "index"}
    return {**errors, "traps": folder / "traps.md"}


def page(topic: str) -> str:
    """The page of a topic as Markdown. Raises `UnknownName` with the nearest topics."""
    known = topics()
    by_lower = {name.lower(): path for name, path in known.items()}
    if topic.lower() not in by_lower:
        raise UnknownName(f"there is no page on '{topic}': {did_you_mean(topic, known)}")
    return by_lower[topic.lower()].read_text(encoding="utf-8")


def headline(topic: str) -> str:
    """What an error means, in one sentence; for another topic what its page begins with."""
    import inspect

    from .. import errors

    kind = getattr(errors, topic, None)
    if kind is not None:
        return inspect.getdoc(kind) or ""
    paragraphs = page(topic).split("\n\n")
    return " ".join(paragraphs[1].split()) if len(paragraphs) > 1 else ""
