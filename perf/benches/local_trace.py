"""What does the engine add to an access in one process?

Each shipped recording in one batch: time order, deadlines, interrupts, effects and every device, against
the raw loop of engine.testing._walk over an equal machine, which finds the region in flat tables and calls the same
device code.  Nothing is promised of short ones: a few changes of the map outweigh their accesses.
"""

from __future__ import annotations

import time
from typing import Any

from engine import data
from engine.machine import Machine
from perf.benches._common import Row, keep, later, recording, row, turns

SHORT = 50_000
LOOP_GOAL = 2.5
RATE_GOAL = 60.0  # M accesses/s of seabios-pc on an idle host of the 2-core class (docs/performance.md)


def run(quick: bool = False) -> list[Row]:
    """Per trace: million accesses a second, and time against the raw loop."""
    rows = []
    for name in data.traces():
        r = recording(name)
        n = len(r.acc)
        walk = r.walk()
        with Machine(r.job.spec, path="local", contents=r.job.contents) as m:

            def engine(m: Machine = m, r: Any = r) -> float:
                acc, (inputs, ram) = later(m, r.acc), r.inputs(m)
                start = time.perf_counter()
                m.run(acc, inputs, ram)
                took = time.perf_counter() - start
                m.lines()
                return took * 1e9 / len(acc)

            rounds = max(7, int((4e5 if quick else 2e6) / n))
            ours, raw = turns(engine, lambda r=r, walk=walk, n=n: walk.local(r.acc)[0] * 1e9 / n, rounds)
            keep(f"local_trace.{name}", m.sequencer.histogram())
        goal, aim = (LOOP_GOAL, 1.3) if n >= SHORT else (None, None)
        rows.append(row(f"local_trace.{name}", "ns", ours, "raw loop over the same devices", raw, goal, aim=aim))
        rows.append(
            row(
                f"local_trace.{name}.rate",
                "M/s",
                [1e3 / v for v in ours],
                "promised on an idle host",
                RATE_GOAL,
                1.0 if name == "seabios-pc" else None,
                ">=",
            )
        )
    return rows
