"""Maps on disk: JSON or NumPy arrays with JSON beside them, and nothing that could run."""

from __future__ import annotations

import ast
import json
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadFile, BadInput, MissingFile, did_you_mean
from ..home import written_whole
from ..messages import one_line

if TYPE_CHECKING:
    from . import Map

FORMAT = "optrode.map/1"
WHOLE, TABLE, PICTURES = (".json", ".npz"), (".csv",), (".html", ".png", ".svg")
ENDINGS = (*WHOLE, *TABLE, *PICTURES)
_ARRAYS = ("values", "base", "donor")
# What readers of libraries raise for files that are damaged.
_DAMAGE = (
    LookupError, ArithmeticError, ValueError, TypeError, AttributeError, RuntimeError, EOFError, OSError, SyntaxError,
)  # fmt: skip


def check_ending(path: Path, endings: tuple[str, ...] = ENDINGS) -> None:
    """Raises `BadInput` for an ending that names no format."""
    if path.suffix.lower() not in endings:
        raise BadInput(f"'{path.name}' ends with no known format: {did_you_mean(path.suffix, endings, len(endings))}")


def save(found: Map, path: Path) -> Path:
    check_ending(path)
    with written_whole(path) as aside:
        ending = path.suffix.lower()
        if ending == ".json":
            aside.write_text(json.dumps(_as_dict(found), ensure_ascii=False, indent=1), encoding="utf-8")
        elif ending == ".npz":
            text = json.dumps(_described(found), ensure_ascii=False).encode()
            with open(aside, "wb") as handle:
                np.savez(handle, about=np.frombuffer(text, dtype=np.uint8), **_arrays(found))  # type: ignore[arg-type]
        elif ending == ".csv":
            found.to_pandas().to_csv(aside, index=False)
        else:
            options = {"scale_factor": 2} if ending == ".png" else {}
            found.plot().properties(background="white").save(str(aside), **options)
    return path


def load(path: Path) -> Map:
    check_ending(path, WHOLE)
    if not path.is_file():
        raise MissingFile(f"there is no file '{path}': save a map there first")
    try:
        return _from_json(path) if path.suffix.lower() == ".json" else _from_arrays(path)
    except (*_DAMAGE, zipfile.BadZipFile) as problem:
        raise BadFile(f"'{path.name}' is no map that optrode saved: {one_line(problem)}") from problem


def _from_json(path: Path) -> Map:
    about = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(about, dict):
        raise ValueError("it holds no object")
    arrays = {name: _numbers(about.pop(name)) for name in _ARRAYS if about.get(name) is not None}
    return _made(about, arrays)


def _from_arrays(path: Path) -> Map:
    _check_archive(path)
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in _ARRAYS if name in stored}
        about = json.loads(stored["about"].tobytes().decode())
    return _made(about, arrays)


def _check_archive(path: Path) -> None:
    """Raises `ValueError` for an archive that would take more memory than it has bytes: ours are not compressed."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its arrays are compressed")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its arrays are longer than it is")
        for member in members:
            with archive.open(member) as array:
                header = array.read(10)
                # The first version of the format, which is what numpy writes for plain numbers.
                if header[:8] != b"\x93NUMPY\x01\x00":
                    raise ValueError("it holds something that is no array")
                text = array.read(int.from_bytes(header[8:], "little"))
                entry = ast.literal_eval(text.decode("latin-1"))
                count = math.prod(entry["shape"]) * np.dtype(entry["descr"]).itemsize
                if not 0 <= count <= member.file_size:
                    raise ValueError("an array is cut short")


def _made(about: Any, arrays: dict[str, np.ndarray]) -> Map:
    from . import Map

    if about.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    labels = {str(name): list(own) for name, own in about["labels"].items()}
    flat = [label for own in labels.values() for label in own]
    if not labels or not all(isinstance(label, str | int | float) for label in flat):
        raise ValueError("it has no axes, or a label that is no text and no number")
    # Half of a character cannot be shown; `encode` says so.
    "".join([*labels, str(about["unit"]), *(label for label in flat if isinstance(label, str))]).encode()
    if any(array.dtype.kind not in "fiub" for array in arrays.values()):
        raise ValueError("its values are no numbers")
    values = arrays.pop("values").astype(np.float64)
    if values.shape != tuple(map(len, labels.values())):
        raise ValueError("its values do not have the shape that its labels say")
    for name, array in arrays.items():
        if np.broadcast_shapes(array.shape, values.shape) != values.shape:
            raise ValueError(f"its {name} does not fit its values")
    return Map(values, labels, str(about["unit"]), dict(about["notes"]), **arrays)


def _described(found: Map) -> dict[str, Any]:
    return {"format": FORMAT, "labels": _plain(found.labels), "unit": found.unit, "notes": _plain(found.notes)}


def _arrays(found: Map) -> dict[str, np.ndarray]:
    named = {name: getattr(found, name) for name in _ARRAYS}
    return {name: np.asarray(value) for name, value in named.items() if value is not None}


def _as_dict(found: Map) -> dict[str, Any]:
    return {**_described(found), **{name: _nested(value.tolist()) for name, value in _arrays(found).items()}}


def _nested(value: Any) -> Any:
    """Lists of numbers in which what is no number is None: JSON has no word for it."""
    if isinstance(value, list):
        return [_nested(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _numbers(value: Any) -> np.ndarray:
    return np.array(value, dtype=np.float64)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value if isinstance(value, str | int | float | bool | None) else str(value)
