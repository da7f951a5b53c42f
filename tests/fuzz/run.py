"""Lives of parts in processes of their own: a crash, a hang and a broken promise are all found, and made small.

Used by `make fuzz` and by the tests.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.measure.host import cpu_seconds
from engine.testing._fuzz import WRITE

from . import boards, programs

LIFE = 100_000  # operations of one life
BOARD_LIFE = 20_000  # accesses of one life of a board
HANG_S = 60.0  # seconds of processor time that no operation takes, under a sanitizer either
BLOCKED_S = 900.0  # seconds in which even the busiest host has run something


@dataclass
class Found:
    """What is wrong, with the operation that showed it."""

    what: str
    life: int
    at: int
    ops: Any = None


@dataclass
class Account:
    """What a run did."""

    accesses: int = 0
    lives: int = 0
    effects: int = 0
    slowest_ns: int = 0
    slowest: str = ""
    found: Found | None = None


def live(kind: str, ops: Any, progress: Any = None) -> tuple[programs.Part, int, str]:
    """One life in this process: the part, how many operations were fine, and what is wrong with the next, or ""."""
    raised: list[str] = []
    before, sys.unraisablehook = (
        sys.unraisablehook,
        lambda u: raised.append(f"{type(u.exc_value).__name__}: {u.exc_value}"),
    )
    try:
        part = programs.Part(kind)
        done, what = part.fuzzer.run(ops, progress)
    finally:
        sys.unraisablehook = before
    if raised or part.errors():
        return part, done, f"an exception left a device ({raised[0] if raised else part.errors()})"
    return part, done, what


def _spent(pid: int) -> float:
    """Seconds of processor time of a process; 0 when it has ended."""
    try:
        return cpu_seconds(pid)
    except OSError:
        return 0.0


def _child(work: Callable[[mmap.mmap], Any]) -> tuple[Any, int, str]:
    """work(shared) in a process of its own: what it gave, the place it noted last, and how it died, or ""."""
    shared = mmap.mmap(-1, 16)
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            faulthandler.disable()  # how it dies is told below
            os.close(source)
            got = json.dumps(work(shared)).encode()
            while got:
                got = got[os.write(sink, got) :]
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(sink)
    os.set_blocking(source, False)
    out, at, since, used = b"", -1, time.monotonic(), 0.0
    died = ""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        while True:
            try:
                piece = os.read(source, 1 << 16)
            except BlockingIOError:
                break
            if not piece:
                break
            out += piece
        if done:
            break
        now = int.from_bytes(shared[:8], "little") ^ int.from_bytes(shared[8:], "little") << 40
        if now != at:
            at, since, used = now, time.monotonic(), _spent(pid)
        elif _spent(pid) - used > HANG_S or time.monotonic() - since > BLOCKED_S:
            died = f"no end within {HANG_S:.0f} s"
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    os.close(source)
    if not died and os.WIFSIGNALED(status):
        died = signal.Signals(os.WTERMSIG(status)).name
    elif not died and os.WEXITSTATUS(status):
        died = f"the process ended with {os.WEXITSTATUS(status)}"
    place = int.from_bytes(shared[:8], "little")
    life = int.from_bytes(shared[8:], "little")
    return (json.loads(out) if not died else life), place, died


def fuzz(kind: str, accesses: int, seed: int, first: int = 0, length: int = LIFE) -> Account:
    """Lives from `first` on until so many accesses have been made, or something is found."""

    def work(shared: mmap.mmap) -> dict[str, Any]:
        words = np.frombuffer(shared, np.uint64)
        a = Account()
        life = first
        while a.accesses < accesses:
            words[1] = life
            ops = programs.program(kind, seed, life, length)
            part, done, what = live(kind, ops, words[:1])
            if what:
                return {"found": [what, life, done]}
            a.accesses += int((ops["kind"] <= WRITE).sum())
            a.lives += 1
            a.effects += part.fuzzer.effects
            if part.fuzzer.slowest > a.slowest_ns:
                a.slowest_ns = part.fuzzer.slowest
                a.slowest = f"life {life}, {programs.describe(kind, ops[part.fuzzer.slowest_at])}"
            life += 1
        return vars(a)

    got, place, died = _child(work)
    if died:
        return Account(found=Found(died, got, place))
    if got["found"]:
        return Account(found=Found(*got["found"]))
    return Account(**got)


def fuzz_board(name: str, accesses: int, seed: int, first: int = 0, length: int = BOARD_LIFE) -> Account:
    """The same for a whole board, each life in one process and over workers."""

    def work(shared: mmap.mmap) -> dict[str, Any]:
        words = np.frombuffer(shared, np.uint64)
        a = Account()
        while a.accesses < accesses:
            words[1] = first + a.lives
            what = boards.live(name, seed, first + a.lives, length)
            if what:
                return {"found": [what, first + a.lives, length]}
            a.lives += 1
            a.accesses += length
        return vars(a)

    got, place, died = _child(work)
    if died:
        return Account(found=Found(died, got, place))
    return Account(found=Found(*got["found"])) if got["found"] else Account(**got)


def shorten(name: str, seed: int, life: int, length: int) -> int:
    """A number of accesses after which that life of a board shows what is wrong, and at half of which it does not."""

    def wrong(n: int) -> bool:
        got, _, died = _child(lambda shared: boards.live(name, seed, life, n))
        return bool(died or got)

    while length > 1 and wrong(length // 2):
        length //= 2
    return length


def again(kind: str, seed: int, life: int, length: int) -> str:
    """The command that repeats one life."""
    return f'make fuzz ARGS="{kind} --seed {seed} --life {life} --length {length} --accesses 1"'


def fails(kind: str, ops: Any) -> str:
    """What is wrong with a life, or ""."""

    def work(shared: mmap.mmap) -> str:
        return live(kind, ops, np.frombuffer(shared, np.uint64)[:1])[2]

    got, _, died = _child(work)
    return died or str(got)


def minimise(kind: str, ops: Any, budget_s: float = 60.0) -> Any:
    """Fewer operations that still fail, as few as are found in that time."""
    end = time.monotonic() + budget_s
    piece = max(1, len(ops) // 2)
    while piece and time.monotonic() < end:
        at = len(ops)
        while at > 0 and time.monotonic() < end:
            low = max(0, at - piece)
            fewer = np.concatenate([ops[:low], ops[at:]])
            fewer["step"][low : low + 1] += ops["step"][low:at].sum(dtype=np.uint64)  # the time stays
            if fails(kind, fewer):
                ops = fewer
            at = low
        piece //= 2
    return ops
