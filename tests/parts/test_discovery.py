"""Methods are found by what stands in their folder; listing them imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from optrode.errors import UnknownName
from optrode.parts.discovery import find_method, methods_of


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one method, one file without any, and one that cannot be imported."""
    folder = tmp_path / "temporary_family"
    folder.mkdir()
    texts = {
        "__init__": """
            from pathlib import Path
            from optrode.parts.discovery import lazy_family
            __getattr__, __dir__ = lazy_family(__name__, str(Path(__file__).parent))
        """,
        "one": """
            from typing import ClassVar
            class One:
                id: ClassVar[str] = "one-id"
                title = "The One"
            class Helper:
                id: ClassVar[str] = ""
        """,
        "protocol": "class Base:\n    id = 'base'",
        "_private": "class Private:\n    id = 'private'",
        "broken": "import a_module_that_is_not_there\nclass Broken:\n    id = 'broken'",
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("temporary_family")]:
        del sys.modules[name]


def test_a_file_dropped_in_is_found(family):
    (family / "two.py").write_text("class Two:\n    id = 'two'\n", encoding="utf-8")
    found = methods_of("temporary_family", str(family))
    assert {name: method.id for name, method in found.items()} == {"Broken": "broken", "One": "one-id", "Two": "two"}
    assert (found["One"].title, found["Two"].title) == ("The One", "Two")
    assert found["Two"].module == "temporary_family.two"


def test_listing_imports_no_method(family):
    methods_of("temporary_family", str(family))
    assert not any(name.startswith("temporary_family.") for name in sys.modules)


def test_a_class_is_found_by_id_and_by_name_and_imported_then(family):
    import temporary_family

    assert find_method("temporary_family", "one-id") is find_method("temporary_family", "One") is temporary_family.One
    assert dir(temporary_family) == ["Broken", "One"]
    with pytest.raises(ModuleNotFoundError):
        find_method("temporary_family", "broken")


def test_what_is_not_there_is_named_with_the_nearest(family):
    import temporary_family

    with pytest.raises(UnknownName, match="did you mean one-id"):
        find_method("temporary_family", "on-id")
    with pytest.raises(AttributeError, match="did you mean One"):
        temporary_family.Onne  # noqa: B018


def test_listing_the_methods_of_steering_loads_no_heavy_library():
    code = """
        import sys
        import optrode
        from optrode import steering
        assert "CAA" in dir(steering) and "ActAdd" in dir(steering), dir(steering)
        heavy = {"torch", "transformers", "sklearn", "pandas", "altair", "numpy"} & set(sys.modules)
        assert not heavy, heavy
        assert steering.CAA.id == "caa" and "torch" in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)
