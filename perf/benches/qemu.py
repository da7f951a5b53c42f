"""How much faster is an access than in QEMU?

One port in a loop: a batch in this process, against a guest's loop under QEMU's translator, which calls its devices in
one process too.  `bound` is what the raw loop over the engine's own devices reaches, which no engine can pass.  A
register of COM1 in a batch from Python, against qtest with 256 commands sent at once.  A register of an 82540EM in a
worker, against the same part in QEMU's remote process with 100 messages sent at once.
"""

from __future__ import annotations

import time
from dataclasses import replace

from engine.machine import Machine
from engine.machine.spec import DeviceSpec, load
from engine.testing._walk import Walk
from engine.types import Bdf
from perf.benches._common import Array, Row, accesses, later, machine, pinned, row, turns
from perf.benches._qemu import IN, OUT, Qtest, Remote, Translated, need

BATCH, BATCHES = 16_000, 8  # accesses that stay in the caches with their results, and how often
UART_SCR = 0x3FF
# Name -> port and direction.  The RTC's index is 0, the seconds.
PORTS = {"pic": (0x21, IN), "uart": (UART_SCR, IN), "rtc": (0x71, IN), "port80": (0x80, OUT)}
LOOP_GOAL, LOOP_AIM, BATCH_GOAL = 4.0, 15.0, 100.0
BASE, STATUS = 0xE0000000, 8


def rate(m: Machine, acc: Array) -> float:
    """Million accesses a second of a batch, repeated."""
    took = 0.0
    for _ in range(BATCHES):
        given = later(m, acc)
        start = time.perf_counter()
        m.run(given)
        took += time.perf_counter() - start
    return BATCHES * len(acc) / took / 1e6


def loops(rounds: int) -> list[Row]:
    """One port at a time."""
    rows = []
    board = load("i440fx")
    with Translated() as guest, Machine(board, path="local") as m, Machine(board, path="local") as kept:
        walk = Walk(kept)
        m.write("pio", 0x70, 1, 0)
        guest.ns(0x70, OUT)
        for name, (port, opcode) in PORTS.items():
            acc = accesses(BATCH, 0, port, write=opcode == OUT)

            def translated(port: int = port, opcode: int = opcode) -> float:
                return 1e3 / guest.ns(port, opcode)

            def raw(acc: Array = acc) -> float:
                return BATCHES * len(acc) / sum(walk.local(acc)[0] for _ in range(BATCHES)) / 1e6

            a, b = turns(lambda acc=acc: rate(m, acc), translated, rounds)
            what = "QEMU TCG's loop"
            rows.append(row(f"qemu.tcg.{name}", "M/s", a, what, b, LOOP_GOAL, ">=", LOOP_AIM))
            a, b = turns(raw, translated, rounds)
            rows.append(row(f"qemu.tcg.{name}.bound", "M/s", a, what, b, None, ">="))
    return rows


def qtest(rounds: int) -> Row:
    """A batch from Python."""
    with Qtest() as q, Machine(load("i440fx"), path="local") as m:
        acc = accesses(BATCH, 0, UART_SCR)
        a, b = turns(lambda: rate(m, acc), lambda: q.rate(256 * 40, 256) / 1e6, rounds)
    return row("qemu.qtest", "M/s", a, "QEMU qtest, pipelined", b, BATCH_GOAL, ">=")


def remote(rounds: int) -> Row:
    """A device in another process."""
    board = load("i440fx")
    board = replace(board, devices=(*board.devices, DeviceSpec("nic", "e1000", Bdf(0, 3, 0))))
    function = Bdf(0, 3, 0).number << 32
    with Remote() as q, machine(board, "batched") as (m, on):
        m.write("config", function | 0x10, 4, BASE)
        m.write("config", function | 0x04, 2, 2)
        acc = accesses(BATCH, 1, BASE + STATUS, 4)
        assert m.read("mmio", BASE + STATUS, 4) not in (0, 0xFFFFFFFF)

        def ours() -> float:
            with pinned(on[0]):
                return rate(m, acc)

        a, b = turns(ours, lambda: q.rate(5_000, 100) / 1e6, rounds)
    return row("qemu.remote", "M/s", a, "QEMU x-remote, pipelined", b, BATCH_GOAL, ">=")


def run(quick: bool = False) -> list[Row]:
    """Million accesses a second."""
    need()
    rounds = 9 if quick else 30
    return [*loops(rounds), qtest(rounds), remote(rounds)]
