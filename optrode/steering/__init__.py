"""Steering: change what a model says by changing its activations, and find out whether that beats asking nicely.

Every method of this folder is one file with one class; it is found by its `id`, so there is no list to edit. Methods
that estimate a direction from contrast pairs share `protocol.DirectionMethod`; `comparison.run` compares all of them
with prompting and with random directions under equal budgets.
"""

from pathlib import Path

from ..parts.discovery import lazy_family

__getattr__, __dir__ = lazy_family(__name__, str(Path(__file__).parent))
