from __future__ import annotations

import sys
from pathlib import Path

import pytest

import optrode

# The shared checks lie beside the tests and are not part of a package.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="class")
def model(request: pytest.FixtureRequest) -> optrode.Model:
    """The network of a class of layout checks."""
    return optrode.load(request.cls().network(), example=request.cls().example())
