"""A software TPM behind a board's TPM: swtpm, started anew for each program of each side."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from engine.errors import EngineError

PROGRAM = "swtpm"


def installed() -> bool:
    """Is there an swtpm?"""
    return shutil.which(PROGRAM) is not None


def bare_socket(path: Path) -> None:
    """Make a socket at `path` that nobody listens at, so that a board can be laid out."""
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))


class SoftwareTpm:
    """A TPM that nobody has used yet, with its control socket at `path`, until the end of a `with`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> SoftwareTpm:
        self.state = tempfile.TemporaryDirectory(prefix="engine-diff-tpm-")
        self.path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:  # who connects before swtpm runs waits here
            listener.bind(str(self.path))
            listener.listen()
            control = f"type=unixio,fd={listener.fileno()}"
            command = [PROGRAM, "socket", "--tpm2", "--tpmstate", f"dir={self.state.name}", "--ctrl", control]
            try:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[listener.fileno()],
                )
            except OSError as e:
                self.state.cleanup()
                raise EngineError(f"{PROGRAM}: {e.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.state.cleanup()
