"""What does a move of a BAR cost: the write to configuration space, unmapping, mapping, the next table?

In one process, one write after the other from Python, each to a place where the BAR has not been lately, so that none
of the remembered mappings comes back.  The boards as they start, and the one behind five bridges as its firmware leaves
it (the trace seabios-q35-cards).  The limit is the promise, an absolute time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from engine.machine import Machine
from perf.benches._common import Row, recording, row

LIMIT_US, PART = 10.0, 50
BAR, COMMAND = 0x10, 4
PLACES = 256  # of a BAR, in turn; far more than mappings are remembered


class Bar(NamedTuple):
    """A BAR to be moved: function as in a BDF, number, where it goes first, how far the next place is."""

    function: int
    number: int
    first: int
    step: int


MOVES = {
    "i440fx": {"mmio": Bar(0x10, 2, 0xC0000000, 0x1000), "pio": Bar(0x09, 4, 0xC000, 0x10)},
    "q35": {"mmio": Bar(0x08, 2, 0xC0000000, 0x1000), "pio": Bar(0xFA, 4, 0xC000, 0x20)},
    "cards": {"mmio": Bar(0x18, 0, 0xC0000000, 0x1000), "pio": Bar(0xFA, 4, 0xC000, 0x20)},
}


@contextmanager
def board(name: str) -> Iterator[Machine]:
    """A machine of MOVES."""
    if name != "cards":
        with Machine.from_file(name, path="local") as m:
            yield m
        return
    booted = recording("seabios-q35-cards")
    with Machine(booted.job.spec, path="local", contents=booted.job.contents) as m:
        m.run(booted.acc, *booted.inputs(m))
        yield m


def moves(m: Machine, bar: Bar, n: int) -> Iterator[float]:
    """Microseconds of each of n moves."""
    m.write("config", bar.function << 32 | COMMAND, 2, 3)
    for i in range(n):
        at = bar.first + i % PLACES * bar.step
        start = time.perf_counter_ns()
        m.write("config", bar.function << 32 | BAR + 4 * bar.number, 4, at)
        yield (time.perf_counter_ns() - start) / 1e3


def run(quick: bool = False) -> list[Row]:
    """One row for each board and space; a value is the median of PART moves."""
    n = PART * (10 if quick else 100)
    rows = []
    for name, bars in MOVES.items():
        with board(name) as m:
            for space, bar in bars.items():
                taken = np.median(np.reshape(list(moves(m, bar, n)), (-1, PART)), axis=1)
                rows.append(row(f"remap.{name}.{space}", "us", taken, f"the promise, {LIMIT_US:g} us", LIMIT_US, 1.0))
    return rows
