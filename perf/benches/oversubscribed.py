"""What is lost where there are more workers than CPUs?

One batch with the accesses of independent devices, 64 to each in turn, over machines with 1, 2, ... workers up to four
for each CPU, with the adaptive policy.  All machines run at one time and take turns, so a worker that does not
sleep when it has nothing to do costs the others.  Against the best of the fewer.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from engine.machine import Machine
from engine.machine.build import plan
from engine.machine.derive import derive
from engine.machine.spec import DeviceSpec, MachineSpec, PlacementSpec, load
from perf.benches._common import Array, Row, accesses, later, row

OVER = 4  # workers for each CPU
GOAL = 0.7
BASE, SCR, STRIDE = 0x1000, 7, 8  # ports of the devices
RUN = 64  # accesses to a device in a row


def board(devices: int) -> MachineSpec:
    """The board with so many serial ports more, wired to nothing."""
    spec = load("i440fx")
    more = (DeviceSpec(f"uart{i}", "uart16550", at={"serial": BASE + STRIDE * i}) for i in range(devices))
    return replace(spec, devices=(*spec.devices, *more))


def over(spec: MachineSpec, workers: int, wait: str = "adaptive") -> Machine:
    """A machine with these serial ports dealt out to its workers; the board's own devices are on the first."""
    spec = replace(spec, placement=PlacementSpec(workers=workers, wait=wait))
    planned = plan(derive(spec))
    owners = [0] * len(planned.units)
    for d in planned.devices:
        if d.id.startswith("uart"):
            owners[d.unit] = int(d.id.removeprefix("uart")) % workers
    return Machine(spec, workers=workers, owners=owners, path="batched")


def streams(n: int, devices: int) -> Array:
    """n reads, RUN of each device in turn."""
    acc = accesses(n, 0, BASE + SCR)
    acc["addr"] += (np.arange(n) // RUN % devices * STRIDE).astype(np.uint64)
    return acc


def run(quick: bool = False) -> list[Row]:
    """Million accesses a second, by number of workers."""
    most = OVER * len(os.sched_getaffinity(0))
    numbers = [n for n in (1 << k for k in range(most.bit_length())) if n < most]
    acc = streams(100_000 if quick else 200_000, most)
    spec = board(most)
    rates: dict[int, list[float]] = {n: [] for n in (*numbers, most)}
    with ExitStack() as stack:
        machines = {n: stack.enter_context(over(spec, n)) for n in rates}
        for i in range(-1, 10 if quick else 40):  # the first is not counted
            for n in rates if i & 1 else reversed(rates):
                given = later(machines[n], acc)
                start = time.perf_counter()
                machines[n].run(given)
                if i >= 0:
                    rates[n].append(len(acc) / (time.perf_counter() - start) / 1e6)
    best = max(numbers, key=lambda n: float(np.median(rates[n])))
    rows = [
        row(
            "oversubscribed",
            "M/s",
            rates[most],
            f"{best} workers, the best of fewer than {most}",
            rates[best],
            GOAL,
            ">=",
        )
    ]
    return rows + [
        row(f"oversubscribed.{n}", "M/s", rates[n], f"{best} workers", rates[best]) for n in numbers if n != best
    ]
