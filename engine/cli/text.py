"""Pages of headings, lines and tables for people, files of JSON for programs.

A page is aligned plain text everywhere, with colour where `rich` is installed and the output is a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import UsageError


def write_json(path: str, value: Any) -> None:
    """`value` as JSON in a file; "-" is the standard output.  Raises UsageError."""
    text = json.dumps(value, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text)
    except OSError as e:
        raise UsageError(f"--json {path}: {e.strerror}") from None


def hexes(value: int | None, bits: int) -> str:
    """A value of that many bits as fixed-width hexadecimal; "-" for None."""
    return "-" if value is None else f"0x{value:0{(bits + 3) // 4}x}"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Lines of a table whose columns are aligned; the last column runs free."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(r[i]) for r in table) for i in range(len(header))]
    return [(indent + "  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True))).rstrip() for r in table]


class Page:
    """Text that grows line by line; print() shows it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []  # (style, text)

    def heading(self, text: str) -> None:
        """A line that starts a part of the page."""
        if self.lines:
            self.lines.append(("", ""))
        self.lines.append(("bold", text))

    def line(self, text: str = "", style: str = "") -> None:
        """One line."""
        self.lines.append((style, text))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; nothing if it has no rows."""
        if rows:
            first, *rest = aligned(header, rows)
            self.lines.append(("cyan", first))
            self.lines += [("", line) for line in rest]

    def __str__(self) -> str:
        return "\n".join(text for _, text in self.lines) + "\n"

    def print(self) -> None:
        """To the standard output."""
        if sys.stdout.isatty():
            try:
                from rich.console import Console
                from rich.text import Text
            except ImportError:
                pass
            else:
                console = Console(highlight=False)
                for style, text in self.lines:
                    console.print(Text(text, style=style), soft_wrap=True)
                return
        sys.stdout.write(str(self))
