"""Maps on disk: JSON or NumPy arrays with JSON beside them, and nothing that could run."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadFile, BadInput, MissingFile, did_you_mean
from ..home import written_whole

if TYPE_CHECKING:
    from . import Map

FORMAT = "optrode.map/1"
WHOLE, TABLE, PICTURES = (".json", ".npz"), (".csv",), (".html", ".png", ".svg")
ENDINGS = (*WHOLE, *TABLE, *PICTURES)
_ARRAYS = ("values", "base", "donor")


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
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as problem:
        raise BadFile(f"'{path.name}' is no map that optrode saved: {str(problem).splitlines()[0]}") from problem


def _from_json(path: Path) -> Map:
    about = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(about, dict):
        raise ValueError("it holds no object")
    arrays = {name: _numbers(about.pop(name)) for name in _ARRAYS if about.get(name) is not None}
    return _made(about, arrays)


def _from_arrays(path: Path) -> Map:
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in _ARRAYS if name in stored}
        about = json.loads(stored["about"].tobytes().decode())
    return _made(about, arrays)


def _made(about: Any, arrays: dict[str, np.ndarray]) -> Map:
    from . import Map

    if about.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    labels = {str(name): list(own) for name, own in about["labels"].items()}
    values = arrays.pop("values").astype(np.float64)
    if values.shape != tuple(map(len, labels.values())):
        raise ValueError("its values do not have the shape that its labels say")
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
