"""The data of a harvest as documents in a fixed order, with a hash by which the same data is known again.

| data | a document is |
|---|---|
| a list | an item: a text, a conversation (list of messages), or a list of token ids |
| `.txt` | a line that is not empty |
| `.jsonl`, `.ndjson` | a line: a text, a conversation, or an object with one of them |
| `.parquet`, or a folder that `datasets` saved | a row |
| a folder of such files | what they hold, file by file in the order of their names |
| a folder of pictures | a picture |

In objects and rows the text is in the first column there is of `text`, `prompt`, `messages`, `conversations`,
`input_ids`, or in the one that `column=` names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike, fspath
from typing import Any

from ..encoding import Conversation
from ..errors import BadFile, BadInput, MissingFile, did_you_mean
from ..messages import one_line, plain

COLUMNS = ("text", "prompt", "messages", "conversations", "input_ids")
LINES = (".txt", ".text")
JSON = (".jsonl", ".ndjson")
PARQUET = (".parquet",)
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
# What Arrow raises for files that are damaged, or that say they are larger than the memory.
_DAMAGE = (LookupError, ArithmeticError, ValueError, TypeError, RuntimeError, OSError, SystemError, MemoryError)
Content = str | Conversation | list[int]
Data = str | PathLike[str] | Sequence[Any]


@dataclass(frozen=True)
class Picture:
    """A picture that is opened when it is needed."""

    system: Any
    path: str

    def open(self) -> Any:
        from PIL import Image

        with self.system.open(self.path, "rb") as file:
            try:
                return Image.open(file).convert("RGB")
            # Each format has errors of its own for what is damaged, and bombs have another one.
            except Exception as problem:
                raise BadFile(f"'{self.path}' is no picture that can be read, or is damaged") from problem


@dataclass(frozen=True)
class Document:
    """One document: its number in the data, where it stands there, and what it is."""

    number: int
    source: str
    content: Content | Picture


class Documents:
    """Data that can be gone through again from any document on. `name` is what the user wrote, `kind` what it is."""

    name = ""
    kind = ""

    def digest(self) -> str:
        """Hash of everything in the data."""
        raise NotImplementedError

    def contents(self) -> Iterator[tuple[str, Content | Picture]]:
        """Source and content of every document."""
        raise NotImplementedError

    def starting(self, first: int) -> Iterator[Document]:
        """The documents from number `first` on."""
        for number, (source, content) in enumerate(islice(self.contents(), first, None), first):
            yield Document(number, source, content)

    @property
    def pictures(self) -> bool:
        return self.kind == "pictures"


class Listed(Documents):
    kind = "list"

    def __init__(self, items: Sequence[Any]):
        self.items = list(items)

    def digest(self) -> str:
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(json.dumps(item, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        return digest.hexdigest()

    def contents(self) -> Iterator[tuple[str, Content | Picture]]:
        for number, item in enumerate(self.items):
            yield str(number), checked(item, f"item {number}")


class Files(Documents):
    """Files of one or more kinds, local or on any file system of fsspec."""

    def __init__(self, name: str, system: Any, root: str, paths: list[str], column: str | None):
        self.name, self.system, self.root, self.paths, self.column = name, system, root, paths, column
        kinds = {_kind(path) for path in paths}
        self.kind = "pictures" if kinds == {"pictures"} else "files"
        if "pictures" in kinds and len(kinds) > 1:
            raise BadInput(f"'{name}' holds pictures and texts: put them into folders of their own")

    def digest(self) -> str:
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(self._short(path).encode("utf-8", "surrogateescape") + b"\0")
            try:
                with self.system.open(path, "rb") as file:
                    while block := file.read(1 << 22):
                        digest.update(block)
            except OSError as problem:
                raise BadFile(f"'{plain(self._short(path))}' cannot be read: {one_line(problem)}") from problem
        return digest.hexdigest()

    def contents(self) -> Iterator[tuple[str, Content | Picture]]:
        for path in self.paths:
            kind, short = _kind(path), self._short(path)
            if kind == "pictures":
                yield short, Picture(self.system, path)
                continue
            read = {"lines": self._lines, "json": self._json, "parquet": self._parquet, "arrow": self._arrow}[kind]
            for place, content in read(path):
                yield f"{short}:{place}", content

    def _short(self, path: str) -> str:
        """A file's path within the data, the same wherever the data lies."""
        return path[len(self.root) :].lstrip("/") if path != self.root else path.rpartition("/")[2]

    def _lines(self, path: str) -> Iterator[tuple[int, Content]]:
        with self.system.open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as problem:
                    raise BadFile(f"{self._short(path)} line {number} is not UTF-8 text: save it as UTF-8") from problem
                if text.strip():
                    yield number, text

    def _json(self, path: str) -> Iterator[tuple[int, Content]]:
        for number, line in self._lines(path):
            where = f"{plain(self._short(path))} line {number}"
            try:
                item = json.loads(line)  # type: ignore[arg-type]
            except (ValueError, RecursionError) as problem:
                raise BadFile(f"{where} is no JSON: write one object a line") from problem
            yield number, checked(self._of_row(item, where) if isinstance(item, dict) else item, where)

    def _of_row(self, row: dict[str, Any], where: str) -> Any:
        return row[self._column(list(row), where)]

    def _column(self, names: list[str], where: str) -> str:
        if self.column is not None:
            if self.column not in names:
                raise BadInput(f"{where} has no column '{self.column}': {did_you_mean(self.column, names)}")
            return self.column
        found = next((name for name in COLUMNS if name in names), None)
        if found is None:
            raise BadInput(
                f"{where} has none of the columns {', '.join(COLUMNS)}: name the one of {plain(', '.join(names))} with "
                "column="
            )
        return found

    def _parquet(self, path: str) -> Iterator[tuple[int, Content]]:
        import pyarrow.parquet as pq

        short = plain(self._short(path))
        try:
            with self.system.open(path, "rb") as file:
                table = pq.ParquetFile(file)
                column = self._column(table.schema_arrow.names, short)
                yield from self._rows(table.iter_batches(256, columns=[column], use_threads=False), column, short)
        except _DAMAGE as problem:
            raise BadFile(f"'{short}' is no Parquet file or is damaged") from problem

    def _arrow(self, path: str) -> Iterator[tuple[int, Content]]:
        """A file of a `datasets` folder: an Arrow stream."""
        import pyarrow as pa

        short = plain(self._short(path))
        try:
            with self.system.open(path, "rb") as file, pa.ipc.open_stream(file) as stream:
                column = self._column(stream.schema.names, short)
                yield from self._rows(stream, column, short)
        except _DAMAGE as problem:
            raise BadFile(f"'{short}' is no Arrow stream, as `datasets` writes them, or is damaged") from problem

    def _rows(self, batches: Any, column: str, short: str) -> Iterator[tuple[int, Content]]:
        number = 0
        for batch in batches:
            # Arrow believes the offsets of a stream, and would read what is beside it in memory.
            batch.validate(full=True)
            for value in batch.column(column).to_pylist():
                number += 1
                yield number, checked(value, f"{short} row {number}")


def checked(item: Any, where: str) -> Content:
    """The item, if it is a text, a conversation or a list of token ids. Raises `BadInput`."""
    if isinstance(item, str) and item.strip():
        return item
    if isinstance(item, list | tuple) and item:
        if all(type(part) is int for part in item):
            return list(item)
        if all(isinstance(part, dict) for part in item):
            return [_message(part, where) for part in item]
    kind = "empty" if item in ("", [], ()) or (isinstance(item, str)) else type(item).__name__
    raise BadInput(f"{where} is {kind}: a document is a text, a list of messages, or a list of token ids")


def _message(part: dict[str, Any], where: str) -> dict[str, str]:
    """A message with role and content; data of conversations often says `from` and `value`."""
    role, content = part.get("role", part.get("from")), part.get("content", part.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        raise BadInput(f"{where} has a message without role and content as texts")
    return {"role": {"human": "user", "gpt": "assistant"}.get(role, role), "content": content}


def documents_of(data: Data, column: str | None = None) -> Documents:
    """The documents that a user's data means.

    Raises `MissingFile` for a path that is not there, `BadInput` for what is no data or holds none.
    """
    if isinstance(data, str | PathLike):
        return _from_path(fspath(data), column)
    if isinstance(data, Sequence) and not isinstance(data, bytes):
        if not data:
            raise BadInput("the data is an empty list: give texts, conversations or a file")
        # One conversation is one document.
        return Listed([data] if all(isinstance(item, dict) for item in data) else data)
    raise BadInput(f"data must be a path or a list, which can be gone through again, not {type(data).__name__}")


def _from_path(name: str, column: str | None) -> Documents:
    from fsspec.core import url_to_fs

    system, root = url_to_fs(name)
    if not system.exists(root):
        raise MissingFile(f"there is no data at '{name}': name a file or folder, or give texts as a list")
    if not system.isdir(root):
        _check_files(system, root, [root])
        if _kind(root) not in ("lines", "json", "parquet"):
            raise BadInput(f"'{name}' is no data: use {', '.join((*LINES, *JSON, *PARQUET))}, or a folder of pictures")
        return Files(name, system, root, [root], column)
    paths = _dataset_files(name, system, root) or sorted(path for path in system.find(root) if _kind(path))
    if not paths:
        raise BadInput(f"'{name}' is a folder without texts, tables or pictures")
    _check_files(system, root, paths)
    return Files(name, system, root, paths, column)


def _check_files(system: Any, root: str, paths: list[str]) -> None:
    """Raises `BadFile` for pipes, devices and links to nowhere among local files: reading one may never end."""
    from fsspec.implementations.local import LocalFileSystem

    for path in paths if isinstance(system, LocalFileSystem) else ():
        if not os.path.isfile(path):
            raise BadFile(f"'{plain(path[len(root) :].lstrip('/') or path)}' of the data is missing, or no file")


def _dataset_files(name: str, system: Any, root: str) -> list[str]:
    """The files of a folder that `datasets` saved, in their order; nothing for another folder."""
    if system.exists(f"{root}/dataset_dict.json"):
        splits = _names_in(system, name, root, "dataset_dict.json", lambda said: said["splits"]) or ["train"]
        raise BadInput(
            f"'{name}' holds several splits ({plain(', '.join(splits))}): name one, such as {name}/{plain(splits[0])}"
        )
    if not system.exists(f"{root}/state.json"):
        return []
    listed = _names_in(system, name, root, "state.json", lambda said: [one["filename"] for one in said["_data_files"]])
    if not all(_kind(file) == "arrow" and not set(file) & set("/\\\0") for file in listed):
        raise BadFile(f"'{name}/state.json' names files of other kinds or of other folders than `datasets` writes")
    return [f"{root}/{file}" for file in listed]


def _names_in(system: Any, name: str, root: str, file: str, names: Callable[[Any], Any]) -> list[str]:
    """The names that a JSON file of `datasets` holds. Raises `BadFile`."""
    _check_files(system, root, [f"{root}/{file}"])
    try:
        found = names(json.loads(system.cat_file(f"{root}/{file}")))
        if isinstance(found, list) and all(isinstance(part, str) for part in found):
            return found
    except (ValueError, LookupError, TypeError, RecursionError, OSError) as problem:
        raise BadFile(f"'{name}/{file}' is not what `datasets` writes") from problem
    raise BadFile(f"'{name}/{file}' is not what `datasets` writes")


def _kind(path: str) -> str:
    ending = "." + path.rpartition(".")[2].lower()
    kinds = {LINES: "lines", JSON: "json", PARQUET: "parquet", PICTURES: "pictures", (".arrow",): "arrow"}
    hidden = path.rpartition("/")[2].startswith(".")
    return "" if hidden else next((kind for endings, kind in kinds.items() if ending in endings), "")
