"""What a person sees: tables and progress, with rich on a terminal, as plain aligned text everywhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

try:
    import rich.console
    import rich.progress
    import rich.table
    import rich.text
except ImportError:  # the extra [report] is not installed
    rich = None  # type: ignore[assignment]

GOOD, BAD, NOTE = "green", "bold red", "dim"
Cell = str | tuple[str, str]  # text, or text with a style


class Output:
    """Where a command prints.  Styles only on a terminal."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.console: Any = (
            rich.console.Console(file=self.stream, highlight=False, emoji=False, markup=False)
            if rich and self.stream.isatty()
            else None
        )

    def line(self, text: str = "", style: str = "") -> None:
        """One line of text."""
        if self.console is not None:
            self.console.print(text, style=style or None)
        else:
            print(text, file=self.stream)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Rows under column names; a name that starts with '>' aligns right."""
        names = [c.lstrip(">") for c in columns]
        if self.console is not None:
            if title:
                self.console.print(title, style="bold")
            t = rich.table.Table(box=None, pad_edge=False)
            for c in columns:
                t.add_column(c.lstrip(">"), justify="right" if c.startswith(">") else "left", header_style="dim")
            for row in rows:
                t.add_row(*[rich.text.Text(c, style="") if isinstance(c, str) else rich.text.Text(*c) for c in row])
            self.console.print(t)
            return
        text = [[c if isinstance(c, str) else c[0] for c in row] for row in rows]
        width = [max(len(r[i]) for r in [names, *text]) for i in range(len(names))]
        if title:
            self.line(title)
        for row in [names, *text]:
            cells = [
                c.rjust(w) if col.startswith(">") else c.ljust(w) for c, w, col in zip(row, width, columns, strict=True)
            ]
            self.line("  " + "  ".join(cells).rstrip())


@contextlib.contextmanager
def progress(quiet: bool = False) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """A progress bar on stderr, if that is a terminal: gives step(label, total) -> advance(n)."""
    if quiet or rich is None or not sys.stderr.isatty():
        yield lambda label, total: lambda n: None
        return
    columns = (
        rich.progress.TextColumn("{task.description:<34}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def step(label: str, total: int) -> Callable[[int], None]:
            bar.reset(task, description=label, total=total)
            return lambda n: bar.advance(task, n)

        yield step


def time_text(ns: float) -> str:
    """12.3 ns, 4.56 us, ...: three figures."""
    if not ns:
        return "-"
    for unit, scale in (("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)):
        if ns < 999.5 * scale or unit == "s":
            v = ns / scale
            return f"{v:.{2 if v < 9.995 else 1 if v < 99.95 else 0}f} {unit}"
    raise AssertionError


def rate_text(per_s: float) -> str:
    """12.3 M/s and the like."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if per_s >= scale:
            v = per_s / scale
            return f"{v:.{2 if v < 9.995 else 1 if v < 99.95 else 0}f} {unit}/s"
    return f"{per_s:.0f} /s"


def matched(compared: int, matching: int) -> Cell:
    """'all 16,822', or what of it matched, in red."""
    if not compared:
        return ("none", NOTE)
    return (f"all {compared:,}", GOOD) if compared == matching else (f"{matching:,} of {compared:,}", BAD)
