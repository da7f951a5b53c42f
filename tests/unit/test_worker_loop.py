"""The worker's loop in a thread beside its router.

They share an interpreter lock, which a waiting worker must not hold.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine import ACC, PyDevice, Region, Space
from engine._abi import REC
from engine.machine import spec
from tests.property.boards import Bench

ROOT = Path(__file__).parents[2]


class Burst(PyDevice):
    """A write of n makes n changes of a line."""

    OUT = ("irq",)

    def regions(self):
        return (Region("port", Space.PIO, 1, accepts=(1,), implements=(1, 1)),)

    def write(self, region, offset, size, value):
        for n in range(value):
            self.line(0, not n % 2)


BOARD = """
[board]
observe = ["wire"]
config_access = "none"
[[device]]
id = "burst"
type = "tests.unit.test_worker_loop:Burst"
at = { port = 0x100 }
lines = { irq = "wire" }
"""


def flood(path):
    """How many line changes arrive of a write that makes 200, through an effect ring of four."""
    acc = np.zeros(1, ACC)
    acc[0] = (1000, 0x100, 200, 0, 1, Space.PIO, 1, 0, 0)
    with Bench(spec.parse(BOARD), [0], effects=4) as bench:
        bench.sequencer.run(acc, None, path)
        return len(bench.sequencer.take_lines())


@pytest.mark.parametrize("path", ["sync", "buffered", "batched"])
def test_a_python_device_may_flood_a_small_effect_ring(path):
    """While the worker waits for room, the router beside it can take the interpreter lock.  In a process of its own:
    with the lock held, nothing in this one could end the test."""
    code = f"from tests.unit.test_worker_loop import flood; print(flood({path!r}))"
    got = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert got.stdout == "200\n", got.stderr[-2000:]


@pytest.mark.parametrize(
    ("op", "more", "slots"),
    [(0, 3, 1), (0, 126, 62), (7, 1, 1), (4, 2, 1)],
    ids=["short by a slot", "short by one of many", "behind a settle", "behind an input"],
)
def test_a_string_that_cannot_be_ends_the_loop(op, more, slots):
    """What follows a record is there whole, and follows an access; else the worker says so and executes none of it."""
    parts = spec.parse(BOARD)
    with Bench(parts, [0]) as bench:
        records = np.zeros(1 + slots, REC)
        records[0] = (1000, 0x100, 0, 0, 0, op, more)
        start = bench.links[0].indices["produced"]
        pad = np.zeros(-start % 64, REC)  # a block of its own
        pad["op"] = 15
        bench.links[0].push(pad)
        executed = bench.loops[0].executed
        bench.links[0].push(records)
        bench.threads[0].join(10)
        assert [str(e) for e in bench.errors] == ["w0: the router's words are impossible"]
        assert bench.loops[0].executed <= executed + len(pad) + 1
        bench.errors.clear()
