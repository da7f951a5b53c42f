"""Do independent streams run beside each other?

A stream is a router, one thread of this process, with a machine of its own, whose one worker owns the devices; it sends
batches of reads of one register.  Each thread and each worker has a CPU to itself, on a core of its own while there
are such.  1, 2, 4 and 8 streams at a time as far as the CPUs go, against as many times one stream.  `local`: the same
without workers, one CPU a stream.

Streams share nothing of the engine, but the interpreter's lock, which a router takes between two batches.  Where the
CPUs do not suffice for 8 streams, `scale.8.model` says what would be left of them, and is no measurement: a closed
queue of routers before one lock (`locked`), held for so long that it explains what two local streams lose, measured.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from engine.machine import Machine
from engine.machine.spec import PlacementSpec, load
from engine.measure import _limits
from perf.benches._common import Row, accesses, cpus, later, pinned, row

UART_SCR = 0x3FF
BATCH = 65_536  # accesses
MOST, GOAL = 8, 0.85


def spread_cpus() -> list[int]:
    """The CPUs this process may use, one of each core first."""
    first: list[int] = []
    rest: list[int] = []
    for cpu in sorted(os.sched_getaffinity(0)):
        (rest if _limits.siblings(cpu) & set(first) else first).append(cpu)
    return first + rest


def locked(streams: int, batch: float, lock: float) -> float:
    """How many streams' worth of batches so many make, if each needs one lock for a part of its batch's time.

    Mean value analysis: who comes to the lock finds the queue that there is with one stream less.  With two streams the
    efficiency is 1 / (1 + (lock / batch)^2).
    """
    done = queued = 0.0
    for n in range(1, streams + 1):
        there = lock * (1 + queued)
        done = n / (batch - lock + there)
        queued = done * there
    return done * batch


def together(machines: list[Machine], cpu_of: Callable[[int], int], seconds: float) -> float:
    """Million accesses a second of all the machines, each run by a thread for so long."""
    rates = [0.0] * len(machines)
    failed: list[BaseException] = []
    line = threading.Barrier(len(machines))

    def stream(i: int) -> None:
        try:
            acc = accesses(BATCH, 0, UART_SCR)
            m = machines[i]
            with pinned(cpu_of(i)):
                m.run(later(m, acc))
                n = 0
                line.wait()
                start = now = time.perf_counter()
                while now - start < seconds:
                    acc["t_ns"] += np.uint64(m.clock.now - int(acc["t_ns"][0]))
                    m.run(acc)
                    n += BATCH
                    now = time.perf_counter()
                rates[i] = n / (now - start) / 1e6
        except BaseException as e:
            failed.append(e)
            line.abort()

    threads = [threading.Thread(target=stream, args=(i,)) for i in range(len(machines))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]
    return sum(rates)


def _measured(name: str, machines: list[Machine], numbers: list[int], cpu_of: Any, quick: bool, goal: Any) -> list[Row]:
    """Rows for these numbers of streams, and one stream's rate as the first."""
    rates: dict[int, list[float]] = {n: [] for n in numbers}
    for i in range(6 if quick else 20):
        for n in numbers if i & 1 else reversed(numbers):
            rates[n].append(together(machines[:n], cpu_of, 0.05 if quick else 0.2))
    one = np.array(rates[1])
    rows = [row(f"{name}.1", "M/s", one, "itself", one)]
    return rows + [row(f"{name}.{n}", "M/s", rates[n], f"{n} x one", n * one, goal, ">=") for n in numbers if n > 1]


def run(quick: bool = False) -> list[Row]:
    """Million accesses a second of all streams."""
    cpus()
    each = spread_cpus()
    spec = replace(load("i440fx"), placement=PlacementSpec(workers=1))
    numbers = [n for n in (1, 2, 4, MOST) if 2 * n <= len(each)]
    with ExitStack() as stack:
        machines = [stack.enter_context(Machine(spec, workers=1, path="batched")) for _ in range(numbers[-1])]
        for i, m in enumerate(machines):
            assert m.pool is not None
            os.sched_setaffinity(m.pool.workers[0].pid, {each[2 * i + 1]})
        rows = _measured("scale", machines, numbers, lambda i: each[2 * i], quick, GOAL)
    with ExitStack() as stack:
        numbers = [n for n in (1, 2, 4, MOST) if n <= len(each)]
        machines = [stack.enter_context(Machine(load("i440fx"), path="local")) for _ in range(numbers[-1])]
        rows += _measured("scale.local", machines, numbers, lambda i: each[i], quick, None)
        if len(each) < 2 * MOST:
            got = {r["name"]: r for r in rows}
            one, local, two = (got[n] for n in ("scale.1", "scale.local.1", "scale.local.2"))
            lock = BATCH / local["value"] * math.sqrt(max(0.0, 1 / two["ratio"] - 1))
            gain = locked(MOST, BATCH / one["value"], lock)
            what = f"{MOST} x one; a model, not measured"
            values, limit = [gain * one["value"]], MOST * one["value"]
            rows.append(row(f"scale.{MOST}.model", "M/s", values, what, limit, None, ">=", GOAL))
    return rows
