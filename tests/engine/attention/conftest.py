from __future__ import annotations

import sys
from pathlib import Path

# The second attention lies beside the tests and is not part of a package.
sys.path.insert(0, str(Path(__file__).parent))
