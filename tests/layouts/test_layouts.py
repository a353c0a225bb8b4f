from __future__ import annotations

import pkgutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from optrode import layouts
from optrode.engine.attention import SIDES
from optrode.layouts import Layout, all_layouts, find
from optrode.layouts.base import Equation, Port

HELPERS = {"base"}


def all_variants() -> list[Layout]:
    return [one for layout in all_layouts() for one in (layout, *layout.variants)]


def test_layouts_are_found_by_scanning_the_folder() -> None:
    files = {path.stem for path in Path(layouts.__file__).parent.glob("*.py")} - HELPERS - {"__init__"}
    assert {layout.name for layout in all_layouts()} == files
    assert files == {module.name for module in pkgutil.iter_modules(layouts.__path__)} - HELPERS


def test_a_file_that_is_put_into_the_folder_is_a_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new_kind.py").write_text(
        "from optrode.layouts.base import Layout, Port\n"
        "LAYOUT = Layout('new_kind', 'layers', {'out': Port('', 'out', 'stream')}, model_types=('new-kind',))\n"
    )
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(tmp_path)])
    all_layouts.cache_clear()
    try:
        found = find(SimpleNamespace(config=SimpleNamespace(model_type="new-kind")))
    finally:
        monkeypatch.undo()
        all_layouts.cache_clear()
    assert found is not None and found.name == "new_kind"


def test_every_layout_has_a_mirrored_test() -> None:
    here = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert {layout.name for layout in all_layouts()} <= here


@pytest.mark.parametrize("field", ["model_types", "module_classes"])
def test_every_network_is_claimed_by_one_layout_only(field: str) -> None:
    """Of two that claim one class, the config tells which is meant."""
    claims = Counter((name, str(one.when)) for one in all_variants() for name in getattr(one, field))
    assert [name for name, count in claims.items() if count > 1] == []
    assert all(layout.model_types or layout.module_classes for layout in all_layouts())


def test_every_model_type_exists_in_transformers() -> None:
    from transformers import CONFIG_MAPPING

    assert [name for layout in all_layouts() for name in layout.model_types if name not in CONFIG_MAPPING] == []


@pytest.mark.parametrize("layout", all_variants(), ids=lambda layout: f"{layout.name} {layout.when or ''}".strip())
def test_a_layout_speaks_only_of_its_own_sites(layout: Layout) -> None:
    assert {"in", "out"} <= set(layout.ports)
    ports = [*layout.ports.values(), *layout.outer_before.values(), *layout.outer_after.values()]
    for port in ports:
        assert port.side in ("in", "out", "experts", *SIDES) and port.says and port.axes
        assert port.packing in ("equal", "heads", "groups")
        assert port.adds_to is None or port.adds_to in layout.ports
        assert ("head" in port.axes) == bool(port.heads or port.headed)
    assert layout.equations
    for equation in layout.equations:
        assert {equation.result, *equation.terms} <= set(layout.ports)
        assert set(equation.scale) <= set(equation.terms)
    # A sum that is written through one of its terms must be that sum.
    for name, port in layout.ports.items():
        if port.adds_to:
            assert any(e.result == name and e.terms == ("in", port.adds_to) and not e.norm for e in layout.equations)


def test_a_variant_is_chosen_by_the_config() -> None:
    port = Port("", "out", "stream")
    one = Layout("one", "layers", {"out": port}, when={"kind": "a"})
    other = replace(one, when={"kind": "b"}, equations=(Equation("out", ("out",)),))
    both = replace(one, variants=(other,))
    assert both.suited(SimpleNamespace(kind="a")) is both
    assert both.suited(SimpleNamespace(kind="b")) is other
    assert both.suited(SimpleNamespace(kind="c")) is None
    assert both.suited(None) is None


def test_equations_print_as_they_are_read() -> None:
    assert str(Equation("out", ("in", "attn.out", "mlp.out"))) == "out = in + attn.out + mlp.out"
    assert str(Equation("mid", ("in", "attn.out"), norm="norm")) == "mid = norm(in + attn.out)"
    assert str(Equation("mid", ("in", "part"), scale={"part": "factor"})) == "mid = in + factor * part"
