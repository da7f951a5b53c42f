"""What does one access cost that waits for a device in another process?

Reads of one register (the scratch register of COM1) through one worker, each waiting for the one before; the
latencies are measured in C, inside the sequencer, over several starts (where the lines lie in memory matters).
Spinning: against a raw cache line handed to and fro between two processes that each hold it for 100 ticks.  Without
that hold (`pingpong_at_once`, for information) the two can fall into a rhythm in which neither ever waits.  Blocking:
against two processes that wake each other by a futex.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.machine import Machine
from engine.machine.spec import load
from engine.measure import _limits
from perf.benches._common import Row, accesses, keep, later, machine, pinned, quantile, row, turns

UART_SCR = 0x3FF
SPIN_P50, SPIN_P99, BLOCK_P50 = 1.6, 3.0, 1.1


def _series(wait: str, limit: Callable[..., dict[str, Any]], n: int, rounds: int) -> tuple[list[Any], list[Any]]:
    acc = accesses(n, 0, UART_SCR)
    with machine(load("i440fx"), "sync", wait) as (m, on):

        def ours(m: Machine = m) -> tuple[float, float]:
            m.sequencer.clear_histogram()
            with pinned(on[0]):
                m.run(later(m, acc))
            h = m.sequencer.histogram()
            keep(f"sync_{wait}", h)
            return quantile(h, 0.5), quantile(h, 0.99)

        def raw() -> tuple[float, float]:
            got = limit(n, on)
            return got["p50_ns"], got["p99_ns"]

        return turns(ours, raw, rounds)


def run(quick: bool = False) -> list[Row]:
    """p50 and p99 of single accesses."""
    a, b = [], []
    for _ in range(4 if quick else 10):
        more = _series("spin", _limits.pingpong, 4_000, 15 if quick else 30)
        a += more[0]
        b += more[1]
    rows = [
        row(
            "sync_spin.p50", "ns", [x[0] for x in a], "cache-line ping-pong p50", [x[0] for x in b], SPIN_P50, aim=1.25
        ),
        row("sync_spin.p99", "ns", [x[1] for x in a], "cache-line ping-pong p99", [x[1] for x in b], SPIN_P99, aim=1.5),
    ]
    at_once = [_limits.pingpong(4_000, turn=0)["p50_ns"] for _ in range(15)]
    rows.append(row("pingpong_at_once.p50", "ns", at_once, "cache-line ping-pong p50", np.median([x[0] for x in b])))
    a, b = _series("block", _limits.futex, 400, 15 if quick else 80)
    rows.append(
        row("sync_block.p50", "us", [x[0] / 1e3 for x in a], "futex ping-pong p50", [x[0] / 1e3 for x in b], BLOCK_P50)
    )
    return rows
