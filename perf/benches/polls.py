"""What does it cost to poll a timer whose device is in another process?

Reads of the ACPI PM timer, which the router answers, against reads of two of its four bytes, which go to the worker;
and of the lower half of the HPET's counter against its general configuration register.  One by one through the slot of
a spinning worker, and in a batch, where the worker of the PM timer, whose unit hears nobody, has them as strings.
"""

from __future__ import annotations

import time

import numpy as np

from engine._abi import ACC
from engine.machine.spec import load
from perf.benches._common import Array, Row, accesses, later, machine, pinned, row, turns

PIIX4_PM = (1 << 3 | 3) << 32  # 00:01.3
PMBA, PMREGMISC, BASE, TIMER = 0x40, 0x80, 0x600, 8
HPET, GEN_CONF, MAIN_CNT = 0xFED00000, 0x10, 0xF0
# What is read of the router and of the worker: (space, address, size) of each.
TIMERS = {
    "": ((0, BASE + TIMER, 4), (0, BASE + TIMER, 2)),
    ".hpet": ((1, HPET + MAIN_CNT, 4), (1, HPET + GEN_CONF, 4)),
}
SYNC_GOAL, BATCHED_GOAL = 0.5, 1.0


def _series(path: str, timer: str, n: int, rounds: int) -> tuple[list[float], list[float]]:
    """ns per poll of the router, and of the worker."""
    with machine(load("i440fx"), path, "spin") as (m, on):
        there = np.zeros(3, ACC)
        there["space"], there["dir"], there["size"], there["value"] = (2, 2, 1), 1, (4, 1, 4), (BASE | 1, 1, 1)
        there["addr"] = PIIX4_PM | PMBA, PIIX4_PM | PMREGMISC, HPET + GEN_CONF
        m.run(later(m, there))

        def poll(acc: Array) -> float:
            given = later(m, acc)
            with pinned(on[0]):
                start = time.perf_counter_ns()
                m.run(given)
                return (time.perf_counter_ns() - start) / len(given)

        ours, theirs = (accesses(n, *where) for where in TIMERS[timer])
        return turns(lambda: poll(ours), lambda: poll(theirs), rounds)


def run(quick: bool = False) -> list[Row]:
    """Both paths."""
    rows = []
    for timer in TIMERS:
        for path, n, goal in (("sync", 4_000, SYNC_GOAL), ("batched", 100_000, BATCHED_GOAL)):
            ours, asked = _series(path, timer, n, 15 if quick else 60)
            rows.append(row(f"polls{timer}.{path}", "ns", ours, "the same by its worker", asked, goal))
    return rows
