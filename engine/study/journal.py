"""Where finished replications are kept: one line of JSON each, appended whole or not at all.

The first line says of which experiment they are.  What a crash left of a line at the end is cut off; anything else that
is not understood is refused, so that no result is ever mixed with another experiment's or another version's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from pathlib import Path
from typing import Any

from engine.errors import EngineError, UsageError
from engine.study.design import Design

KIND, VERSION = "ioreq-engine study results", 1
Row = dict[str, Any]


class Journal:
    """The replications of one study in a folder.  One process at a time writes it."""

    def __init__(self, design: Design, folder: Path) -> None:
        self.design = design
        self.path = folder / f"{design.stem}.jsonl"
        self.rows: list[Row] = []
        self.hosts: dict[str, dict[str, Any]] = {}
        self.fd = -1

    def __enter__(self) -> Journal:
        return self.open()

    def __exit__(self, *what: object) -> None:
        self.close()

    def open(self) -> Journal:
        """Read what is there, and make ready to append.  Raises UsageError."""
        if self.path.exists() and not self.path.is_file():
            raise UsageError(f"{self.path}: not a file")
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = self._read()
        except BlockingIOError:
            self.close()
            raise UsageError(
                f"{self.path}: another `engine study` is writing it; wait, or give another --out"
            ) from None
        except OSError as e:
            self.close()
            raise UsageError(f"{self.path}: cannot be opened ({e.strerror})") from None
        except UsageError:
            self.close()
            raise
        if not size:
            self._append(
                {"kind": KIND, "version": VERSION, "digest": self.design.digest, "study": self.design.as_dict()}
            )
        return self

    def close(self) -> None:
        """Let go of the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _read(self) -> int:
        """Take in the file; the size that is worth keeping."""
        whole = self.path.read_bytes()
        lines = whole.split(b"\n")
        if lines[-1]:  # a crash in the middle of a line
            os.ftruncate(self.fd, len(whole) - len(lines[-1]))
        if len(lines) == 1:
            return 0
        for n, line in enumerate(lines[:-1], 1):
            try:
                got = json.loads(line)
                if not isinstance(got, dict):
                    raise ValueError("not an object")
                if n == 1:
                    self._head(got)
                else:
                    self._take(got)
            except (ValueError, KeyError, TypeError) as e:
                raise UsageError(
                    f"{self.path}:{n}: not a study's results ({type(e).__name__}: {e}); move it away, or give another "
                    "--out"
                ) from None
        return len(whole)

    def _head(self, got: Row) -> None:
        if got.get("kind") != KIND:
            raise ValueError(f"the first line should say {KIND!r}")
        if got["version"] != VERSION:
            raise UsageError(
                f"{self.path}: results of format {got['version']}, this engine writes format {VERSION}; "
                "move it away, or give another --out"
            )
        if got["digest"] != self.design.digest:
            raise UsageError(
                f"{self.path}: results of another experiment (its cells, accesses or seed differ from "
                f"{self.design.source}'s); move it away, or give another --out"
            )

    def _take(self, got: Row) -> None:
        if "host_record" in got:
            self.hosts[got["host"]] = got["host_record"]
            return
        if not (0 <= got["cell"] < len(self.design.cells) and isinstance(got["values"], dict)):
            raise ValueError(f"cell {got['cell']} is not of this study")
        if got["engine"] != self._version():
            raise UsageError(
                f"{self.path}: results of engine {got['engine']}, this is {self._version()}; versions are not mixed: "
                "move it away, or give another --out"
            )
        self.rows.append(got)

    @staticmethod
    def _version() -> str:
        import engine

        return engine.__version__

    @property
    def done(self) -> set[tuple[int, int]]:
        """(replicate, number of the cell) of what is finished."""
        return {(r["replicate"], r["cell"]) for r in self.rows}

    def add(self, replicate: int, number: int, result: Row) -> None:
        """Keep one finished replication.  Raises EngineError if it cannot be written whole; then it is not there."""
        if result["engine"] != self._version():
            raise EngineError(f"a replication came from engine {result['engine']}, this is {self._version()}")
        if result["host"] not in self.hosts:
            self._append({"host": result["host"], "host_record": result["host_record"]})
            self.hosts[result["host"]] = result["host_record"]
        row = {
            "replicate": replicate,
            "cell": number,
            "host": result["host"],
            "engine": result["engine"],
            "values": {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in result["values"].items()},
            "histograms": {k: {str(b): n for b, n in h.items()} for k, h in result["histograms"].items()},
        }
        self._append(row)
        self.rows.append(row)

    def _append(self, row: Row) -> None:
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        before = os.fstat(self.fd).st_size
        try:
            at = 0
            while at < len(line):
                at += os.write(self.fd, line[at:])
            os.fsync(self.fd)
        except OSError as e:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, before)
            raise EngineError(
                f"{self.path}: cannot be written ({e.strerror}); {len(self.rows)} finished replications are kept: "
                "make room and give the same command again"
            ) from None
