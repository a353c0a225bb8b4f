"""The contract of a method."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from optrode.parts.method import Method


@dataclass(frozen=True)
class Made(Method):
    id: ClassVar[str] = "made"

    count: int = 3
    names: tuple[str, ...] = ("a", "b")
    table: dict[str, Any] = field(default_factory=lambda: {"x": (1, 2)})
    place: Path = Path("somewhere")
    nothing: None = None


def test_a_recipe_holds_the_id_and_every_setting_as_plain_values():
    recipe = Made(count=4).recipe()
    assert recipe == {
        "method": "made", "count": 4, "names": ["a", "b"], "table": {"x": [1, 2]}, "place": "somewhere",
        "nothing": None,
    }  # fmt: skip
    assert json.loads(json.dumps(recipe)) == recipe


def test_class_attributes_are_no_settings():
    assert set(Made().recipe()) == {"method", "count", "names", "table", "place", "nothing"}
