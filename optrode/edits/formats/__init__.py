"""Edits in the files of other tools, read and written. A file of another kind is one module here and one line below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BadFile, BadInput, MissingFile
from ...messages import one_line
from ..base import Edit
from ..file import load_edit
from ..peft_folder import adapter
from .control_vector import control_vector, save_control_vector
from .steering_vector import steering_vector

if TYPE_CHECKING:
    from ...host import Host

KINDS = "a control vector of llama.cpp or repeng (.gguf), a file of steering-vectors, or a folder of PEFT"

__all__ = ["adapter", "control_vector", "export", "import_file", "save_control_vector", "steering_vector"]


def import_file(path: str | Path, model: Host | None = None) -> Edit:
    """The edit in a file of another tool; what it is, its content says, not its name.

    Control vectors of llama.cpp and repeng, vectors of steering-vectors, LoRA folders of PEFT, and edits of optrode as
    they are. With a `model`, vectors are checked against it and the edit takes its fingerprint along.

    Raises `MissingFile`, `BadFile` for anything else, `NotSupported` where the file says what cannot be done here.
    """
    path = Path(path)
    if path.is_dir():
        return adapter(path)
    if not path.is_file():
        raise MissingFile(f"there is no file or folder '{path}'")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as problem:
        raise BadFile(f"'{path.name}' cannot be read: {one_line(problem)}") from problem
    if start.startswith(b"GGUF"):
        return control_vector(path, model)
    if start.startswith(b"PK\x03\x04"):
        return steering_vector(path, model)
    if start[8:9] == b"{":
        return load_edit(path)
    raise BadFile(f"'{path.name}' is nothing that can be imported: give {KINDS}")


def export(edit: Edit, path: str | Path, model: Host | None = None) -> Path:
    """Write an edit as a file of another tool, which the ending of the path names: `.gguf` is a control vector.

    See `optrode.edits.formats.control_vector.save_control_vector`. For plain weights see `edit.fold`, for a plain
    module `edit.bake`.
    """
    path = Path(path)
    if path.suffix.lower() == ".gguf":
        return save_control_vector(edit, path, model)
    raise BadInput(f"'{path.name}' names no format that can be written: use .gguf, a control vector of llama.cpp")
