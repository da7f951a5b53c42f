"""A worker process: receives its devices and memory over one socket, runs the loop, obeys a closed set of commands.

Started by engine.workers.pool as `python -m engine.workers.main FD`.  It dies with its parent.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import struct
import sys
from typing import Any

from engine._executor import Executor
from engine._ring import Link
from engine._shm import Segment
from engine.machine import build_devices
from engine.workers._loop import WorkerLoop

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
STOP, ATTENTION = 1, 2
METHODS = ("inspect", "save", "restore", "contents", "set_contents", "output", "mappings", "insert", "eject")


def send(sock: socket.socket, message: Any, fds: list[int] | None = None) -> None:
    """One pickled message, its length first; descriptors travel with the length."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    head = struct.pack("<Q", len(body))
    if fds:
        socket.send_fds(sock, [head], fds)
    else:
        sock.sendall(head)
    sock.sendall(body)


def receive(sock: socket.socket, fds: int = 0) -> tuple[Any, list[int]]:
    """The next message and its descriptors.  Raises EOFError when the other side has gone."""
    head, got, _, _ = socket.recv_fds(sock, 8, fds) if fds else (sock.recv(8, socket.MSG_WAITALL), [], 0, None)
    if len(head) < 8:
        raise EOFError
    left = struct.unpack("<Q", head)[0]
    parts = []
    while left:
        part = sock.recv(min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return pickle.loads(b"".join(parts)), list(got)


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _tell(sock: socket.socket, message: Any) -> bool:
    """Send to a parent that may have given up on this worker.  False if it has."""
    try:
        send(sock, message)
    except OSError:
        return False
    return True


def main() -> None:
    """Serve until told to stop, or until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=int(sys.argv[1]))
    try:
        setup, (link_fd, ram_fd) = receive(sock, 2)
    except (EOFError, ValueError):
        os._exit(1)
    _die_with(setup["parent"])
    try:
        if setup["cpu"] is not None:
            os.sched_setaffinity(0, {setup["cpu"]})
        link = Link.attach(link_fd)
        ram = Segment.attach(ram_fd)
        os.close(link_fd)
        os.close(ram_fd)
        plan, ranks = setup["plan"], setup["ranks"]
        devices, _arena = build_devices(plan, ranks, ram, setup["contents"])
        groups = sorted(sorted(r for r in unit if r in ranks) for unit in plan.units if unit[0] in ranks)
        wires = [w for w in plan.inner_wires() if w[0] in ranks]
        executor = Executor(devices.values(), groups, wires)
        numbers = [plan.devices[g[0]].unit for g in groups]
        loop = WorkerLoop(executor, link, numbers, setup["wait"], setup["crowded"])
    except BaseException as e:  # reported to the parent, which decides
        _tell(sock, ("failed", f"{type(e).__name__}: {e}"))
        os._exit(1)
    if not _tell(sock, ("ready", os.getpid())):
        os._exit(1)
    status = 0
    while True:
        try:
            word = loop.serve()
        except BaseException as e:
            _tell(sock, ("failed", f"{type(e).__name__}: {e}"))
            status = 1
            break
        if word == STOP or os.getppid() != setup["parent"]:
            break
        if word == ATTENTION:
            try:
                command, _ = receive(sock)
            except EOFError:
                break
            try:
                send(sock, ("ok", _obey(command, devices, loop)))
            except Exception as e:
                send(sock, ("error", e))
    sys.stdout.flush()
    os._exit(status)


def _obey(command: tuple[Any, ...], devices: dict[str, Any], loop: WorkerLoop) -> Any:
    """stats | call, device id, method, arguments."""
    if command[0] == "stats":
        return {"executed": loop.executed, "accesses": loop.accesses, "devices": list(devices)}
    if command[0] == "call" and command[2] in METHODS:
        return getattr(devices[command[1]], command[2])(*command[3])
    raise ValueError(f"unknown command {command[0]!r}")


if __name__ == "__main__":
    main()
