"""What do a snapshot, going back to it, and a reset of a whole board cost, RAM apart?

The i440FX board behind its firmware's work (the trace seabios-pc), spread over three workers that spin: Python calls,
one after the other, in a loop as a fuzzer makes it.  The mapping of address space changes with each reset and each
restore, as the firmware has placed the BARs and a reset takes them back.  The limit is the promise, an absolute time.
For information: `snapshot.copy`, the copy of the same bytes alone, and `snapshot.ram`, a snapshot with guest RAM, video
memory and media.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from engine.machine import Machine
from engine.machine.spec import PlacementSpec
from perf.benches._common import Row, cpus, recording, row

WORKERS, LIMIT_US, PART = 3, 20.0, 50


def timed(step: Callable[[], Any]) -> float:
    """Microseconds of one call."""
    start = time.perf_counter_ns()
    step()
    return (time.perf_counter_ns() - start) / 1e3


def run(quick: bool = False) -> list[Row]:
    """One row each; a value is the median of PART calls."""
    cpus()
    booted = recording("seabios-pc")
    spec = replace(booted.job.spec, placement=PlacementSpec(workers=WORKERS, wait="spin"))
    with Machine(spec, workers=WORKERS, contents=booted.job.contents) as m:
        m.run(booted.acc, *booted.inputs(m))
        at = m.snapshot(ram=False)
        steps: dict[str, Callable[[], Any]] = {
            "take": lambda: m.snapshot(ram=False),
            "reset": m.reset,
            "restore": lambda: m.restore(at),
            "copy": lambda: [arena.copy() for arena in m.arenas],
        }
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(PART * (10 if quick else 40)):
            for name, step in steps.items():
                taken[name].append(timed(step))
        whole = [timed(m.snapshot) for _ in range(3 if quick else 10)]
    medians = {name: np.median(np.reshape(times, (-1, PART)), axis=1) for name, times in taken.items()}
    limit = f"the promise, {LIMIT_US:g} us"
    return [
        row("snapshot.take", "us", medians["take"], limit, LIMIT_US, 1.0),
        row("snapshot.restore", "us", medians["restore"], limit, LIMIT_US, 1.0),
        row("snapshot.reset", "us", medians["reset"], limit, LIMIT_US, 1.0),
        row("snapshot.copy", "us", medians["copy"], "snapshot.take", medians["take"]),
        row("snapshot.ram", "us", whole, "snapshot.take", float(np.median(medians["take"]))),
    ]
