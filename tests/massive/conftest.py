from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import optrode as op

# The planted network lies beside the tests and is not part of a package.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def planted(tokenizer: Any) -> op.Model:
    from planted import planted_module

    return op.load(planted_module(tokenizer), tokenizer=tokenizer)
