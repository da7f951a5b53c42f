"""What does measuring cost?

A machine whose accesses are stamped in full (produced, taken, done, seen) against the same machine with nothing
stamped, in turn: nanoseconds more for a synchronous access to a spinning worker, throughput of a batch.  `default` is
what a machine stamps unless it is told otherwise: both ends.  The synchronous part starts the machine several times,
since where its lines lie in memory matters.  For information: how long each stage of an access takes.
"""

from __future__ import annotations

import time

import numpy as np

from engine.machine.spec import load
from engine.sequencer import STAGES, STAMPS
from perf.benches._common import Array, Row, accesses, keep, later, machine, pinned, quantile, row

UART_SCR = 0x3FF
SYNC_NS, BATCHED = 50.0, 0.95


def _turns(path: str, acc: Array, starts: int, rounds: int) -> tuple[dict[str, Array], dict[str, float]]:
    """(ns per access under each of STAMPS, a value for each round; p50 in ns of each stage)."""
    took: dict[str, list[float]] = {which: [] for which in STAMPS}
    stages = {stage: np.zeros(0, np.uint64) for stage in STAGES}
    for _ in range(starts):
        with machine(load("i440fx"), path, "spin") as (m, on):
            for i in range(-1, rounds):  # the first is not counted
                for which in STAMPS if i & 1 else reversed(STAMPS):
                    m.stamps = which
                    given = later(m, acc)
                    with pinned(on[0]):
                        start = time.perf_counter()
                        m.run(given)
                        ns = (time.perf_counter() - start) * 1e9 / len(acc)
                    if i >= 0:
                        took[which].append(ns)
            for stage in STAGES:
                keep(f"stamps.{path}.{stage}", m.sequencer.histogram(stage))
                got = m.sequencer.histogram(stage)
                stages[stage] = stages[stage] + got if len(stages[stage]) else got
    return {k: np.array(v) for k, v in took.items()}, {k: quantile(h, 0.5) for k, h in stages.items()}


def run(quick: bool = False) -> list[Row]:
    """What stamps add, and what they say."""
    ns, sync = _turns("sync", accesses(4_000, 0, UART_SCR), 5 if quick else 12, 10 if quick else 30)
    rows = [
        row("stamps.sync", "ns", ns["all"] - ns["none"], "allowed", SYNC_NS, 1.0),
        row("stamps.sync.default", "ns", ns["ends"] - ns["none"], "allowed", SYNC_NS),
    ]
    ns, batched = _turns("batched", accesses(200_000, 0, UART_SCR), 2 if quick else 4, 15 if quick else 40)
    rate = {k: 1e3 / v for k, v in ns.items()}
    rows += [
        row("stamps.batched", "M/s", rate["all"], "not stamped", rate["none"], BATCHED, ">="),
        row("stamps.batched.default", "M/s", rate["ends"], "not stamped", rate["none"]),
    ]
    for path, p50 in (("sync", sync), ("batched", batched)):
        for stage in STAGES[1:]:
            together = sum(p50[s] for s in STAGES[1:])
            rows.append(row(f"stamps.{path}.{stage}", "ns", [p50[stage]], "the stages together, p50", together))
    return rows
