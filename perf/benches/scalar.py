"""What does one access cost from Python, one call at a time; and one to a device that is written in Python, in a batch?

`Machine.read` of a compiled local device, against a compiled method with the same arguments that does nothing.  Reads
of a Python device (the POST card) in a batch, in this process and in a worker, against calling its method from a
loop.
"""

from __future__ import annotations

import time
from dataclasses import replace

from engine.machine import Machine
from engine.machine.spec import DeviceSpec, load
from engine.testing._walk import Floor
from perf.benches._common import Row, accesses, later, machine, pinned, row, turns

UART_SCR, POST = 0x3FF, 0x300
READ_GOAL, READ_NS, PYTHON_NS = 2.5, 60.0, 150.0
PROMISED = "promised on an idle host"


def run(quick: bool = False) -> list[Row]:
    """ns per access."""
    rounds = 15 if quick else 60
    board = load("i440fx")
    board = replace(board, devices=(*board.devices, DeviceSpec("post-card", "post-card", at={"post": POST})))
    with Machine(board, path="local") as m:
        floor = Floor()

        def each(read: object, n: int = 3_000) -> float:
            start = time.perf_counter_ns()
            for _ in range(n):
                read("pio", UART_SCR, 1)  # type: ignore[operator]
            return (time.perf_counter_ns() - start) / n

        a, b = turns(lambda: each(m.read), lambda: each(floor.read), rounds)
        rows = [
            row("scalar.read", "ns", a, "empty compiled method", b, READ_GOAL),
            row("scalar.read.absolute", "ns", a, PROMISED, READ_NS, 1.0),
        ]
        acc = accesses(20_000, 0, POST)
        post = m.devices["post-card"]

        def batch(m: Machine) -> float:
            given = later(m, acc)
            start = time.perf_counter_ns()
            m.run(given)
            return (time.perf_counter_ns() - start) / len(given)

        def loop() -> float:
            read = post.read  # type: ignore[attr-defined]
            start = time.perf_counter_ns()
            for _ in range(len(acc)):
                read(0, 0, 1)
            return (time.perf_counter_ns() - start) / len(acc)

        a, b = turns(lambda: batch(m), loop, rounds)
        rows.append(row("scalar.python_device.local", "ns", a, PROMISED, PYTHON_NS, 1.0))
        rows.append(row("scalar.python_device.local.loop", "ns", a, "its method called from a Python loop", b))
    with machine(board, "batched") as (m, on):

        def remote(m: Machine = m) -> float:
            with pinned(on[0]):
                return batch(m)

        a, b = turns(remote, loop, rounds)
        rows.append(row("scalar.python_device.worker", "ns", a, PROMISED, PYTHON_NS, 1.0))
    return rows
