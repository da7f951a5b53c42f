"""A qtest client: starts a program as QEMU's own tests do, and talks to both its sockets.

    with QtestClient("qemu-system-x86_64", ["-machine", "pc"]) as guest:
        guest.command("outb 0x70 0x0f")
        guest.execute("system_reset")

The client listens on two UNIX sockets in a folder of its own and runs

    exec PROGRAM -qtest unix:S1 -qtest-log /dev/null -chardev socket,path=S2,id=char0 -mon chardev=char0,mode=control
         -display none ARGS -accel qtest

by a shell; the program connects to both.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

BLOCK = 128  # requests on their way at once


class Gone(Exception):
    """The program has ended, or closed a socket; the text has its exit status and what it said."""


class QtestClient:
    """One started program.  timeout: seconds to wait for a connection or an answer."""

    def __init__(
        self, program: str, args: Sequence[str] = (), env: Mapping[str, str] | None = None, timeout: float = 50.0
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qtest-"))
        self.events: list[dict[str, Any]] = []
        self._rest = b""
        self._monitor_rest = b""
        paths = [str(self.folder / name) for name in ("qtest.sock", "qtest.qmp")]
        listeners = []
        for path in paths:
            s = socket.socket(socket.AF_UNIX)
            s.bind(path)
            s.listen(1)
            s.settimeout(0.1)
            listeners.append(s)
        line = (
            f"exec {program} -qtest unix:{paths[0]} -qtest-log /dev/null -chardev socket,path={paths[1]},id=char0 "
            f"-mon chardev=char0,mode=control -display none {shlex.join(args)} -accel qtest"
        )
        self._said = (self.folder / "stderr").open("w+b")
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", line], env=None if env is None else dict(env), stdin=subprocess.DEVNULL, stderr=self._said
        )
        try:
            self.qtest, self.qmp = (self._accept(s, timeout) for s in listeners)
        except BaseException:
            self.close()
            raise
        finally:
            for s in listeners:
                s.close()
        for s in (self.qtest, self.qmp):
            s.settimeout(timeout)

    def _accept(self, listener: socket.socket, timeout: float) -> socket.socket:
        for _ in range(round(timeout / 0.1)):
            try:
                return listener.accept()[0]
            except TimeoutError:
                if self.process.poll() is not None:
                    break
        raise Gone(f"no connection; {self._ending()}")

    def _ending(self) -> str:
        try:
            code: int | None = self.process.wait(2)
        except subprocess.TimeoutExpired:
            code = None
        said = self.said()
        return ("it still runs" if code is None else f"exit status {code}") + (f": {said[-1]}" if said else "")

    def said(self) -> list[str]:
        """The lines on the program's standard error so far."""
        return (self.folder / "stderr").read_text(errors="replace").splitlines() if self.folder.exists() else []

    # ------------------------------------------------------------------ qtest

    def send(self, data: bytes) -> None:
        """Raw bytes to the qtest socket."""
        self.qtest.sendall(data)

    def line(self) -> str:
        """The next line from the qtest socket."""
        while b"\n" not in self._rest:
            data = self.qtest.recv(1 << 18)
            if not data:
                raise Gone(f"the qtest socket was closed; {self._ending()}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("ascii", "replace")

    def transcript(self, requests: Sequence[str]) -> list[str]:
        """Everything that comes back for these requests, IRQ lines too, each request's answer last of its lines."""
        out = []
        for at in range(0, len(requests), BLOCK):
            part = requests[at : at + BLOCK]
            self.send("".join(r + "\n" for r in part).encode())
            answers = 0
            while answers < len(part):
                out.append(self.line())
                answers += not out[-1].startswith("IRQ ")
        return out

    def command(self, request: str) -> str:
        """One request; its answer without lines that came before it."""
        return self.transcript([request])[-1]

    def value(self, request: str) -> int:
        """The number that a reading request gives."""
        return int(self.command(request).split()[1], 0)

    # ------------------------------------------------------------------ QMP

    def message(self) -> dict[str, Any]:
        """The next object from the monitor socket."""
        while b"\n" not in self._monitor_rest:
            data = self.qmp.recv(1 << 16)
            if not data:
                raise Gone(f"the monitor socket was closed; {self._ending()}")
            self._monitor_rest += data
        line, _, self._monitor_rest = self._monitor_rest.partition(b"\n")
        out: dict[str, Any] = json.loads(line)
        return out

    def negotiate(self) -> dict[str, Any]:
        """Read the greeting and leave negotiation mode; the greeting."""
        greeting = self.message()
        self.execute("qmp_capabilities")
        return greeting

    def execute(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One command; its answer, "return" or "error".  Events before it are kept."""
        self.qmp.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while "event" in (answer := self.message()):
            self.events.append(answer)
        return answer

    def event(self, name: str) -> dict[str, Any]:
        """The next event of a name; others before it are dropped."""
        while self.events:
            e = self.events.pop(0)
            if e["event"] == name:
                return e
        while (e := self.message()).get("event") != name:
            pass
        return e

    # ------------------------------------------------------------------ end

    def close(self) -> int:
        """Terminate the program; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        for s in (getattr(self, "qtest", None), getattr(self, "qmp", None)):
            if s is not None:
                s.close()
        self._said.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return code

    def __enter__(self) -> QtestClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
