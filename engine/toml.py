"""TOML files of users: whatever is none is refused in one line."""

from __future__ import annotations

import tomllib
from typing import Any

from engine.errors import UsageError


def parse(text: str, where: str, error: type[UsageError] = UsageError) -> dict[str, Any]:
    """The tables of a file's text.  Raises `error`, beginning with `where`, also for brackets or digits without end."""
    try:
        raw = tomllib.loads(text)
        if _too_large(raw):
            raise ValueError("a whole number of more than 64 bits")
    except (ValueError, RecursionError) as e:
        raise error(f"{where}: not TOML: {e}") from None
    return raw


def _too_large(value: Any) -> bool:
    """TOML's whole numbers have 64 bits; longer ones could not even be printed."""
    if isinstance(value, dict):
        return any(map(_too_large, value.values()))
    if isinstance(value, list):
        return any(map(_too_large, value))
    return isinstance(value, int) and value.bit_length() > 64
