"""Data of the user: pairs, documents of a harvest, prompts of the command line."""

from __future__ import annotations

import json
from pathlib import Path

from .kinds import kind
from .tables import arrow, parquet


def _only(folder: Path) -> Path:
    return next(folder.iterdir())


def _read_pairs(folder: Path) -> None:
    from optrode.data import read_behaviour

    read_behaviour(_only(folder))


@kind(share=7, read=_read_pairs)
def pairs(box: Path) -> None:
    """Files of pairs, CSV and JSON lines, with and without groups."""
    rows = [
        {"prompt": f"Question {n}?", "positive": f"Yes {n}.", "negative": f"No {n}.", "group": f"g{n % 9}"}
        for n in range(32)
    ]
    for grouped in (True, False):
        names = ["prompt", "positive", "negative", *(["group"] if grouped else [])]
        lines = [",".join(names), *(",".join(row[name] for name in names) for row in rows)]
        for ending, text in (
            ("csv", "\n".join(lines) + "\n"),
            ("jsonl", "".join(json.dumps({name: row[name] for name in names}) + "\n" for row in rows)),
        ):
            folder = box / f"{ending}-{grouped}"
            folder.mkdir(parents=True)
            (folder / f"pairs.{ending}").write_text(text)


def _read_documents(folder: Path) -> None:
    from optrode.store.documents import Picture, documents_of

    inside = list(folder.iterdir())
    # Data is a file, or a folder of them.
    documents = documents_of(inside[0] if len(inside) == 1 and inside[0].suffix != ".png" else folder)
    documents.digest()
    for document in documents.starting(0):
        if isinstance(document.content, Picture):
            document.content.open()


@kind(share=10, read=_read_documents, imports=("PIL.", "olefile"))
def documents(box: Path) -> None:
    """Texts, conversations and token ids in every form that a harvest takes, and pictures."""
    import pyarrow as pa
    from PIL import Image

    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    shared = [{"from": "human", "value": "Hi"}]
    lines = ["plain", {"text": "a text"}, {"messages": talk}, {"conversations": shared}, [1, 2, 3], {"input_ids": [4]}]
    texts = pa.table({"text": ["one", "two", "three"], "label": [0, 1, 2]})
    files = {
        "lines": {"data.txt": b"first\nsecond \xc3\xa9\n\nthird\n"},
        "json": {"data.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode()},
        "parquet": {"data.parquet": parquet(texts)},
        "talks": {"data.parquet": parquet(pa.table({"messages": [talk, talk]}))},
        "ids": {"data.parquet": parquet(pa.table({"input_ids": [[1, 2], [3]]}))},
        "folder": {"a.txt": b"one\n", "b/c.jsonl": b'{"text": "two"}\n', "d.parquet": parquet(texts)},
        "dataset": {
            "state.json": json.dumps({"_data_files": [{"filename": "data-00000.arrow"}]}).encode(),
            "dataset_info.json": b"{}", "data-00000.arrow": arrow(texts),
        },
        "refused-splits": {
            "dataset_dict.json": b'{"splits": ["train", "test"]}', "train/state.json": b"{}", "train/x.txt": b"x\n",
        },
    }  # fmt: skip
    for name, contents in files.items():
        for path, data in contents.items():
            (box / name / path).parent.mkdir(parents=True, exist_ok=True)
            (box / name / path).write_bytes(data)
    (box / "pictures").mkdir()
    for ending in ("png", "gif", "jpg", "bmp"):
        Image.new("RGB", (5, 4), (10, 200, 30)).save(box / "pictures" / f"one.{ending}")


def _read_prompts(folder: Path) -> None:
    from optrode.cli.common import gather_prompts
    from optrode.cli.replies import read_lines

    path = _only(folder)
    gather_prompts(None, path)
    read_lines(path)


@kind(share=4, read=_read_prompts)
def prompts(box: Path) -> None:
    """Prompts as JSON lines, with edits and strengths of their own, and as plain text."""
    lines = ["plain", {"prompt": "a text", "edit": "a.edit", "strength": 2},
             {"messages": [{"role": "user", "content": "x"}]},
             {"prompt": "b", "edits": ["a.edit", "b.edit"], "id": 7}]  # fmt: skip
    (box / "json").mkdir(parents=True)
    (box / "json" / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
