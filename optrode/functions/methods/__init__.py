"""Published methods about activation functions: what stands between two layers, how it starts and is trained.

One file with one class each, found by its `id`; there is no list to edit. All of them are `protocol.ActivationMethod`,
so that one trainer trains a network with any of them.
"""

from pathlib import Path

from ...parts.discovery import lazy_family

__getattr__, __dir__ = lazy_family(__name__, str(Path(__file__).parent))
