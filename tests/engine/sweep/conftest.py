from __future__ import annotations

import sys
from pathlib import Path

# The hand-written sweep lies here, the networks of all layouts beside the tests of the layouts.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "layouts")]
