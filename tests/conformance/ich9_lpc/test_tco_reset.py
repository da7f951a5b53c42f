"""ICH9 316972-004, 13.9 and 10.1 (GCS): the reset at TCO's second timeout comes at its own moment, on every path."""

import numpy as np
import pytest

from engine import ACC, Machine
from engine.machine.spec import load

BASE, RC, LPC = 0xB0000000, 0xFED1C000, 0x1F << 15
PIO, MMIO = 0, 1
TICK = 600_000_000
SETUP = [
    (PIO, 0xCF8, 4, 0x80000060),
    (PIO, 0xCFC, 4, BASE | 1),
    (MMIO, BASE + LPC + 0x40, 4, 0x601),
    (MMIO, BASE + LPC + 0x44, 1, 0x80),
    (MMIO, BASE + LPC + 0xF0, 4, RC | 1),
    (MMIO, RC + 0x3410, 4, 0),  # GCS: NO_REBOOT off
    (PIO, 0x43, 1, 0x34),  # the PIT's channel 0 at 18.2 Hz, so that lines move
    (PIO, 0x40, 1, 0),
    (PIO, 0x40, 1, 0),
    (PIO, 0x672, 2, 4),  # TCO_TMR
    (PIO, 0x668, 2, 0),  # TCO1_CNT: run
]


def q35():
    """The board, without the strap that forbids TCO's reset."""
    return load("q35").with_config("lpc", no_reboot=False)


def run(path, workers, reads):
    acc = np.zeros(len(SETUP) + len(reads), ACC)
    for i, (space, addr, size, value) in enumerate(SETUP):
        acc[i] = (0, addr, value, 0, size, space, 1, 0, 0)
    for i, t in enumerate(reads, len(SETUP)):
        acc[i] = (t, 0x604, 0, 0, 2, PIO, 0, 0, 0)
    with Machine(q35(), path=path, workers=workers) as machine:
        values = [int(v) for v in machine.submit(acc)[len(SETUP) :]]
        lines = machine.lines()
        return values, lines.tobytes(), len(lines), machine.sequencer.counters["resets"]


@pytest.mark.parametrize(("path", "workers"), [("batched", 2), ("sync", 2), ("buffered", 2)])
def test_every_path_resets_at_the_same_moment(path, workers):
    reads = [TICK, 4 * TICK, 8 * TICK - 1, 8 * TICK, 8 * TICK + 1, 20 * TICK]
    want = run("local", None, reads)
    assert want[0] == [0, 0, 0, 0xFFFF, 0xFFFF, 0xFFFF] and want[2] > 100 and want[3] == 1
    assert run(path, workers, reads) == want


@pytest.mark.parametrize(("path", "workers"), [("local", None), ("batched", 2)])
def test_it_comes_when_the_clock_is_stepped(path, workers):
    with Machine(q35(), path=path, workers=workers) as machine:
        for space, addr, size, value in SETUP:
            machine.write(space, addr, size, value)
        machine.clock.step(8 * TICK - 1)
        assert machine.read(PIO, 0x604, 2) == 0
        machine.clock.step(1)
        assert machine.read(PIO, 0x604, 2) == 0xFFFF and machine.sequencer.counters["resets"] == 1
