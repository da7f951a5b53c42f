"""The command `engine` as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Command:
    """Runs the command in its own folder and session, so that what it leaves behind can be seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *args: str | Path, code: str | None = None, **options: Any) -> subprocess.Popen[str]:
        """`engine ARGS` in the background; `code` runs instead of `-m engine` (which it should call)."""
        program = ["-m", "engine"] if code is None else ["-c", code]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        p = subprocess.Popen(
            [sys.executable, *program, *map(str, args)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )
        self.started.append(p)
        return p

    def __call__(self, *args: str | Path, code: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """`engine ARGS`, to its end."""
        p = self.start(*args, code=code, **options)
        out, err = p.communicate(timeout=240)
        return subprocess.CompletedProcess(p.args, p.returncode, out, err)

    @staticmethod
    def session(p: subprocess.Popen[str]) -> list[int]:
        """Processes of the command's session that still run."""
        out = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == p.pid and fields[0] not in "ZX":
                    out.append(int(entry.name))
        return out

    def workers(self, p: subprocess.Popen[str]) -> list[int]:
        """Its worker processes."""
        out = []
        for pid in self.session(p):
            try:
                if b"engine.workers.main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    out.append(pid)
            except OSError:
                continue
        return out

    def left(self, p: subprocess.Popen[str], within: float = 5.0) -> list[int]:
        """What still runs of the command's session after some time."""
        end = time.monotonic() + within
        while time.monotonic() < end and self.session(p):
            time.sleep(0.02)
        return self.session(p)


@pytest.fixture(scope="session")
def engine_in():
    """The command for a folder."""
    return Command


@pytest.fixture
def engine(tmp_path: Path):
    """The command, started in an empty folder."""
    command = Command(tmp_path)
    yield command
    for p in command.started:
        for pid in command.session(p):
            os.kill(pid, signal.SIGKILL)
        p.wait()
        p.stdout.close()
        p.stderr.close()
