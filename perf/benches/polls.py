"""What does it cost to poll a timer whose device is in another process?

Reads of the ACPI PM timer, which the router answers, against reads of two of its four bytes, which go to the worker:
one by one through the slot of a spinning worker, and in a batch, where the same read in a row is one record.
"""

from __future__ import annotations

import time

import numpy as np

from engine._abi import ACC
from engine.machine.spec import load
from perf.benches._common import Array, Row, accesses, later, machine, pinned, row, turns

PIIX4_PM = (1 << 3 | 3) << 32  # 00:01.3
PMBA, PMREGMISC, BASE, TIMER = 0x40, 0x80, 0x600, 8
SYNC_GOAL, BATCHED_GOAL = 0.5, 1.0


def _series(path: str, n: int, rounds: int) -> tuple[list[float], list[float]]:
    """ns per poll of the router, and of the worker."""
    with machine(load("i440fx"), path, "spin") as (m, on):
        there = np.zeros(2, ACC)
        there["space"], there["dir"], there["size"] = 2, 1, (4, 1)
        there["addr"], there["value"] = (PIIX4_PM | PMBA, PIIX4_PM | PMREGMISC), (BASE | 1, 1)
        m.run(later(m, there))

        def poll(acc: Array) -> float:
            given = later(m, acc)
            with pinned(on[0]):
                start = time.perf_counter_ns()
                m.run(given)
                return (time.perf_counter_ns() - start) / len(given)

        whole, half = (accesses(n, 0, BASE + TIMER, size) for size in (4, 2))
        return turns(lambda: poll(whole), lambda: poll(half), rounds)


def run(quick: bool = False) -> list[Row]:
    """Both paths."""
    rows = []
    for path, n, goal in (("sync", 4_000, SYNC_GOAL), ("batched", 100_000, BATCHED_GOAL)):
        ours, asked = _series(path, n, 15 if quick else 60)
        rows.append(row(f"polls.{path}", "ns", ours, "the same by its worker", asked, goal))
    return rows
