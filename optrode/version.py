"""The version, in one place: pyproject reads it from here, edit files and run records carry it."""

__version__ = "0.1.0"
