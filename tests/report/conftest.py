from __future__ import annotations

import sys
from pathlib import Path

# The made-up results lie beside the tests and are not part of a package.
sys.path.insert(0, str(Path(__file__).parent))
