"""JSON files for programs, and numbers as people read them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from engine.errors import UsageError


def write_json(path: str, value: Any) -> None:
    """`value` as JSON in a file; "-" is the standard output.  Raises UsageError."""
    text = json.dumps(value, indent=1) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text)
    except OSError as e:
        raise UsageError(f"--json {path}: cannot be written ({e.strerror})") from None


def hexes(value: int | None, bits: int) -> str:
    """A value of that many bits as fixed-width hexadecimal; "-" for None."""
    return "-" if value is None else f"0x{value:0{(bits + 3) // 4}x}"
