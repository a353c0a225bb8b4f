"""Texts that try to leave their place in a page, a script block, a chart or a terminal."""

from __future__ import annotations

from typing import Any

PAYLOAD = (
    "</script><script>window.broken=1</script><img src=x onerror=window.broken=1>{{ 7*7 }}\x1b[31m\u202e\ud800'\"&[red]"
)


def everywhere(value: Any, payload: str = PAYLOAD) -> Any:
    """`value` with the payload at the end of every text and dictionary shape, numbers and flags unchanged."""
    if isinstance(value, dict):
        return {key: item if key in ("schema", "kind") else everywhere(item, payload) for key, item in value.items()}
    if isinstance(value, list):
        return [everywhere(item, payload) for item in value]
    return value + payload if isinstance(value, str) else value


def emptied(value: Any) -> Any:
    """`value` with every number, text and flag null, shape unchanged."""
    if isinstance(value, dict):
        return {key: item if key in ("schema", "kind") else emptied(item) for key, item in value.items()}
    return [emptied(item) for item in value] if isinstance(value, list) else None
