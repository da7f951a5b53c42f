"""JSON files for programs, and numbers as people read them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from engine.errors import UsageError


def json_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """--json, as every command that gives results for machines has it."""
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help=f"{what}; without FILE, or -: to standard output instead",
    )


def check_output(option: str, path: str | Path | None, folder: bool = False) -> None:
    """Raises UsageError, before long work, if a file, or a folder that may be made, could not be written after it."""
    if path is None or path == "-":
        return
    p = Path(path)
    if folder and p.exists() and not p.is_dir():
        raise UsageError(f"{option} {path}: not a folder")
    if not folder and p.is_dir():
        raise UsageError(f"{option} {path}: a folder, not a file")
    if not folder and not p.absolute().parent.is_dir():
        raise UsageError(f"{option} {path}: no such folder")
    place = next((q for q in (p, *p.absolute().parents) if q.exists()), p)
    if not os.access(place, os.W_OK):
        raise UsageError(f"{option} {path}: may not be written ({place})")


def make_folder(option: str, path: Path) -> None:
    """The folder that an option names is there, or is made.  Raises UsageError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(f"{option} {path}: cannot be made ({e.strerror})") from None


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
