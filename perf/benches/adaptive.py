"""Does the adaptive policy know when to spin and when to sleep?

Reads of one register through one worker, each due on schedule, with each waiting policy in turn on both sides.  What
one costs: the time from when it was due to its answer, and LAMBDA times the CPU time that both sides spent on it,
waiting included (the router's thread inside the engine, the worker's process).  Against the cheaper of spin and block.

Steady loads: one each decade from 1 to 10^6 accesses a second.  Changing loads: bursts at 100,000 a second with pauses
between them; stretches of 100,000 and of 1,000 a second in turn.  Before each, the policies see the same load for a
while, with gaps of a millisecond where it has longer ones.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from engine.machine import Machine
from engine.machine.spec import load
from engine.measure import _limits
from engine.measure.histogram import mean
from engine.measure.host import cpu_seconds
from engine.study import _offer
from perf.benches._common import Array, Row, accesses, later, machine, pinned, row

UART_SCR = 0x3FF
LAMBDA = 1.0  # a second of CPU time costs as much as a second of waiting
STEADY, CHANGING = 1.1, 2.0
POLICIES = ("spin", "block", "adaptive")
WARM, WARM_GAP = 64, 1e6  # accesses before the measured ones, and the longest gap between them in ns
BEHIND = 2_000  # accesses for the blocking policy, which cannot keep up with the quickest loads


def _loads(quick: bool) -> dict[str, tuple[Array, float]]:
    """Name -> (ns before each access, goal).  Each takes 60 ms: a worker's CPU clock may move by milliseconds."""
    rates = 10.0 ** np.arange(2 if quick else 0, 7)
    steady = {f"{rate:.0f}": (np.full(max(2, int(rate / 16)), 1e9 / rate), STEADY) for rate in rates}
    return steady | {
        "bursts": (np.tile([1e7] + [1e4] * 99, 6), CHANGING),
        "stretches": (np.tile([1e4] * 500 + [1e6] * 25, 2), CHANGING),
    }


def _signal(m: Machine, number: int) -> int:
    """Send it to the machine's worker; its process id."""
    assert m.pool is not None
    pid = m.pool.workers[0].pid
    os.kill(pid, number)
    return pid


@contextmanager
def _alone(m: Machine) -> Iterator[int]:
    """The process id of the machine's worker, which runs now and only now: those of the others share its CPU."""
    try:
        yield _signal(m, signal.SIGCONT)
    finally:
        _signal(m, signal.SIGSTOP)


def _cost(m: Machine, pid: int, gaps: Array) -> float:
    """ns an access, the mean of a run."""
    warm = np.minimum(np.resize(gaps, WARM), WARM_GAP)
    for each in (warm, gaps):
        got = _offer.offer(
            m.sequencer,
            later(m, accesses(len(each), 0, UART_SCR)),
            "sync",
            _limits.tsc_hz(),
            due=np.cumsum(each),
            cpu_every=1 if each.min() >= 1e4 else 16,
            meter=lambda: cpu_seconds(pid),
        )
    latency = mean(_offer.edges(), got["reads"])
    return float(latency + LAMBDA * (got["call_cpu_s"] + got["metered"]) * 1e9 / len(gaps))


def run(quick: bool = False) -> list[Row]:
    """Cost in microseconds an access, of the adaptive policy and of the better of the others."""
    rows = []
    with ExitStack() as stack:
        machines = {}
        for policy in POLICIES:
            m, on = stack.enter_context(machine(load("i440fx"), "sync", policy))
            stack.callback(_signal, m, signal.SIGCONT)
            _signal(m, signal.SIGSTOP)
            machines[policy] = m
        for name, (gaps, goal) in _loads(quick).items():
            costs: dict[str, list[float]] = {p: [] for p in POLICIES}
            often = gaps.max() < 1e5  # a stall of the host weighs most where accesses are many
            for i in range((9 if often else 3) if quick else 3 if gaps[0] >= 1e9 else 12):
                for policy in POLICIES if i & 1 else reversed(POLICIES):
                    with _alone(machines[policy]) as pid, pinned(on[0]):
                        given = gaps[:BEHIND] if policy == "block" else gaps
                        costs[policy].append(_cost(machines[policy], pid, given) / 1e3)
            better = min(POLICIES[:2], key=lambda p: float(np.median(costs[p])))
            what = f"{better}, the better of spin and block; cost: latency + {LAMBDA:g} x CPU time"
            rows.append(row(f"adaptive.{name}", "us", costs["adaptive"], what, costs[better], goal))
    return rows
