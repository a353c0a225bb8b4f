"""Texts from users and models, made safe to show; the template and the terminal escape their markup."""

from __future__ import annotations

from optrode.notebook.text import harmless

__all__ = ["harmless"]
