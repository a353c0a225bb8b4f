"""Bring the catalogue up to date: copy its data from the shared folder where that is present, and build the index.

Run it after adding a method, a parity test or a study's result:

    python tools/catalogue.py [SHARED] [--embed]

SHARED is the folder with rows.tsv, functions.tsv and cards/; without it, the copies in the package stay as they are.
--embed computes the embeddings that the search uses, which is needed when a title or a job has changed.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT / "optrode" / "catalogue"
# The tables that are copied as they are, and where each lives: with those who read it.
COPIES = {"rows.tsv": DATA, "functions.tsv": ROOT / "optrode" / "functions"}


def copy_data(shared: Path) -> None:
    """The two tables as they are, and of each card its first paragraph: what the system is for."""
    for name, folder in COPIES.items():
        shutil.copyfile(shared / name, folder / name)
    lines = ["id\tpaper\tjob"]
    for card in sorted(shared.glob("cards/*/*.md")):
        text = card.read_text(encoding="utf-8")
        lines.append(f"{card.stem}\t{paper_of(text)}\t{job_of(text)}")
    (DATA / "jobs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def job_of(card: str) -> str:
    """The paragraph that starts with **Job**, on one line."""
    found = re.search(r"\*\*Job\*\*:?\s*(.*?)(?=\n\s*\n|\n\*\*|\n#|\n- \*\*)", card, re.DOTALL)
    return " ".join(found.group(1).split()) if found else ""


def paper_of(card: str) -> str:
    """The arXiv id in a card's first line; empty where it has none."""
    found = re.search(r"\b(\d{4}\.\d{4,5})\b", card.splitlines()[0])
    return found.group(1) if found else ""


def embeddings() -> None:
    """Embed the texts anew, after they have changed; needs the sentence encoder."""
    from optrode.catalogue.search import EMBEDDINGS, stored_embeddings

    (DATA / EMBEDDINGS).write_bytes(stored_embeddings())


def main() -> None:
    folders = [argument for argument in sys.argv[1:] if argument != "--embed"]
    if folders:
        copy_data(Path(folders[0]))
    sys.path.insert(0, str(ROOT))
    from optrode.catalogue.build import build, write

    index = build(ROOT)
    write(index, ROOT)
    if "--embed" in sys.argv:
        embeddings()
    counts = Counter(row["status"] for row in index["systems"])
    print(", ".join(f"{count} {status}" for status, count in counts.items()))


if __name__ == "__main__":
    main()
