"""Shipped data: recorded traces with their references (README.md there says how they were made), and the budgets."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
TRACES = FOLDER / "traces"


def traces() -> list[str]:
    """Names of the shipped traces."""
    return sorted(p.name.removesuffix(".npz") for p in TRACES.glob("*.npz") if not p.name.endswith(".golden.npz"))


def trace(name: str) -> Path:
    """A trace file: a path, or the name of a shipped trace if no such file is there."""
    return TRACES / f"{name}.npz" if name in traces() and not Path(name).exists() else Path(name)
