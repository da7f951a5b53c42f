"""A worker process: receives its devices and memory over one socket, runs the loop, obeys a closed set of commands.

Started by engine.workers.pool as `python -m engine.workers.main FD`.  It dies with its parent.  A worker trusts its
parent, which made it; the parent does not trust a worker: what comes back is plain values, and nothing in it can name
code.
"""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import select
import signal
import socket
import struct
import sys
from typing import Any, NoReturn

import numpy as np

from engine._device import Arena
from engine._executor import Executor
from engine._ring import Link
from engine._shm import ARENA, Segment
from engine.errors import RingError, UsageError
from engine.machine import build_devices
from engine.machine.state import restore_device, save_device, save_rest
from engine.workers._loop import WorkerLoop

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
STOP, ATTENTION = 1, 2
ANSWER_MAX = 1 << 30  # bytes
ARENA_AT = 4096  # in its file, behind the header
YIELD_S = 50e-6  # the parent may need this CPU to say what it wants
# Methods of devices that Machine.call reaches.
METHODS = {"inspect", "save", "restore", "contents", "set_contents", "output", "mappings", "insert", "eject", "picture"}
METHODS |= {"set_action", "status", "recorded", "forget", "hold", "trays", "move_tray", "ask_to_eject", "load_disc"}
METHODS |= {"receive"}  # of a network controller: a frame
METHODS |= {"secondary_bus", "power_slot", "taken"}  # of bridges and power management: what comes and goes


def send(sock: socket.socket, message: Any, fds: list[int] | None = None) -> None:
    """One pickled message, its length first; descriptors travel with the length."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    head = struct.pack("<Q", len(body))
    if fds:
        socket.send_fds(sock, [head], fds)
    else:
        sock.sendall(head)
    sock.sendall(body)


def _body(sock: socket.socket, head: bytes, most: int) -> bytes:
    if len(head) < 8:
        raise EOFError
    left = struct.unpack("<Q", head)[0]
    if left > most:
        raise RingError(f"a message of {left} bytes from a worker: it is broken or hostile")
    parts = []
    while left:
        part = sock.recv(min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def receive(sock: socket.socket, fds: int = 0) -> tuple[Any, list[int]]:
    """The parent's next message and its descriptors.  Raises EOFError when the parent has gone."""
    head, got, _, _ = socket.recv_fds(sock, 8, fds) if fds else (sock.recv(8, socket.MSG_WAITALL), [], 0, None)
    return pickle.loads(_body(sock, head, 1 << 62)), list(got)


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise RingError(f"a worker's message names {module}.{name}: it is broken or hostile")


def receive_plain(sock: socket.socket) -> tuple[str, Any]:
    """A worker's next message: its kind, and plain values.

    Raises EOFError when the worker has gone, RingError for anything that is no message.
    """
    body = _body(sock, sock.recv(8, socket.MSG_WAITALL), ANSWER_MAX)
    try:
        got = _Plain(io.BytesIO(body)).load()
    except RingError:
        raise
    except Exception as e:
        raise RingError(f"a worker's message cannot be read ({type(e).__name__}): it is broken or hostile") from None
    if not (isinstance(got, tuple) and len(got) == 2 and isinstance(got[0], str)):
        raise RingError("a worker's message is none: it is broken or hostile")
    match got:
        case ("error", (str(), str())):  # a name of the exception tree, and its text
            return got
        case ("error", _):
            raise RingError("a worker reports an error that is none: it is broken or hostile")
    return got


def plain(value: Any) -> Any:
    """The same in values that receive_plain takes."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else list(map(plain, value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return value


def arena_in(segment: Segment, used: int = 0) -> Arena:
    """The arena in a memory file of its own; `used`: bytes of it that its owner has given out."""
    return Arena.over(memoryview(segment)[ARENA_AT:], used)


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
    _die_with(os.getppid())
    try:
        setup, (link_fd, ram_fd, arena_fd, *network_fds) = receive(sock, 250)
        if os.getppid() != setup["parent"]:  # it died before this process could ask to die with it
            os._exit(1)
    except (EOFError, OSError):
        os._exit(1)
    except BaseException as e:  # a class of the plan that cannot be imported here
        _tell(sock, ("failed", f"{type(e).__name__}: {e}"))
        os._exit(1)
    try:
        if setup["cpu"] is not None:
            os.sched_setaffinity(0, {setup["cpu"]})
        link = Link.attach(link_fd)
        ram = Segment.attach(ram_fd)
        arena = arena_in(Segment.attach(arena_fd, ARENA))
        for fd in (link_fd, ram_fd, arena_fd):
            os.close(fd)
        plan, ranks = setup["plan"], setup["ranks"]
        descriptors = dict(zip(setup["descriptors"], network_fds, strict=True))
        devices, _ = build_devices(plan, ranks, ram, setup["contents"], descriptors, arena)
        groups = sorted(sorted(r for r in unit if r in ranks) for unit in plan.units if unit[0] in ranks)
        wires = [w for w in plan.inner_wires() if w[0] in ranks]
        executor = Executor(devices.values(), groups, wires)
        numbers = [plan.devices[g[0]].unit for g in groups]
        loop = WorkerLoop(executor, link, numbers, setup["wait"], setup["crowded"])
    except BaseException as e:  # reported to the parent, which decides
        _tell(sock, ("failed", f"{type(e).__name__}: {e}"))
        os._exit(1)
    if not _tell(sock, ("ready", (arena.in_use, [devices[plan.devices[rank].id].state_at for rank in ranks]))):
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
            if not select.select([sock], [], [], YIELD_S)[0]:
                continue  # not sent yet, or answered and not yet taken back
            try:
                command, _ = receive(sock)
            except (EOFError, OSError):
                break
            try:
                answer = ("ok", plain(_obey(command, devices, loop)))
            except Exception as e:
                answer = ("error", (type(e).__name__, str(e)))
            if not _tell(sock, answer):
                break
    sys.stdout.flush()
    os._exit(status)


def _obey(command: tuple[Any, ...], devices: dict[str, Any], loop: WorkerLoop) -> Any:
    """stats | stamp, on | save, device ids | save_rest, device ids, media too | restore, {device id: state} |
    call, device id, method, arguments."""
    match command:
        case ("stamp", on):
            loop.stamp(on)
            return None
        case ("stats",):
            return {"executed": loop.executed, "accesses": loop.accesses, "devices": list(devices)}
        case ("save", ids):
            return {id: save_device(devices[id]) for id in ids}
        case ("save_rest", ids, media):
            return {id: save_rest(devices[id], media) for id in ids}
        case ("restore", states):
            for id, state in states.items():
                restore_device(devices[id], state)
            return None  # what follows from it is worked out when the router has put back its own part
        case ("call", id, method, args):
            if method not in METHODS:
                raise UsageError(f"{id}: no method {method!r} for callers; there are {', '.join(sorted(METHODS))}")
            got = getattr(devices[id], method)(*args)
            loop.refresh()
            return got
    raise ValueError(f"unknown command {command[0]!r}")


if __name__ == "__main__":
    main()
