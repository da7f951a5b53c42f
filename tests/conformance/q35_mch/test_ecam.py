"""PCI Express Base Specification 3.0, 7.2.2: the window at PCIEXBAR of the Q35 board, decoded by the router."""

import numpy as np
import pytest

from engine import ACC, Machine

BASE = 0xB0000000
PIO, MMIO = 0, 1
LPC, SMBUS = 0x1F << 15, (0x1F << 15) | (3 << 12)  # offsets of functions of bus 0
NOBODY = 0x1E << 15
OPEN = [(PIO, 0xCF8, 4, 1, 0x80000060), (PIO, 0xCFC, 4, 1, BASE | 1)]


def batch(pc, rows):
    acc = np.zeros(len(rows), ACC)
    for i, (space, addr, size, write, value) in enumerate(rows):
        acc[i] = (pc.clock.now, addr, value, 0, size, space, write, 0, 0)
    return [int(v) for v in pc.submit(acc)]


@pytest.fixture
def pc():
    with Machine.from_file("q35") as machine:
        batch(machine, OPEN)
        yield machine


def read(pc, offset, size=4):
    return pc.read("mmio", BASE + offset, size)


def test_the_window_reaches_functions_by_bus_device_and_function(pc):
    assert [read(pc, n) for n in (0, LPC, SMBUS)] == [0x29C08086, 0x29188086, 0x29308086]
    assert read(pc, LPC + 2, 2) == 0x2918 and read(pc, LPC + 3, 1) == 0x29


def test_absent_functions_buses_and_registers_read_as_ones(pc):
    assert read(pc, NOBODY) == 0xFFFFFFFF and read(pc, 1 << 20) == 0xFFFFFFFF
    assert read(pc, LPC + 0x100) == 0xFFFFFFFF and read(pc, LPC + 0xFFF, 1) == 0xFF
    assert read(pc, LPC + 0xFE, 4) == 0xFFFF0000  # in parts: the last two bytes there are, and two that are not
    pc.write("mmio", BASE + NOBODY, 4, 0)  # lost


def test_wide_and_unaligned_accesses_come_in_parts(pc):
    assert read(pc, 0, 8) == 0x0000000029C08086
    assert read(pc, NOBODY, 8) == 0xFFFFFFFFFFFFFFFF
    assert read(pc, 1, 2) == 0xC080
    pc.write("mmio", BASE + 0x90, 8, 0x0011223344556677)
    assert read(pc, 0x90, 8) == 0x0011223344556677
    pc.write("mmio", BASE + 0x91, 4, 0xAABBCCDD)
    assert read(pc, 0x90, 8) == 0x001122AABBCCDD77


def test_both_mechanisms_reach_the_same_registers(pc):
    pc.write("mmio", BASE + LPC + 0x60, 1, 0x0A)
    pc.write("pio", 0xCF8, 4, 0x8000F860)
    assert pc.read("pio", 0xCFC, 1) == 0x0A
    assert pc.read("pio", 0xCF8, 4) == 0x8000F860  # the latch is not the window's


def test_the_window_moves_shrinks_and_closes_itself(pc):
    pc.write("mmio", BASE + 0x60, 4, 0xC0000005)
    assert read(pc, 0) == 0 and pc.read("mmio", 0xC0000000, 4) == 0x29C08086
    assert pc.read("mmio", 0xC3FFFFFC, 4) == 0xFFFFFFFF and pc.read("mmio", 0xC4000000, 4) == 0
    pc.write("mmio", 0xC0000060, 4, 0xC0000000)
    assert pc.read("mmio", 0xC0000000, 4) == 0


@pytest.mark.parametrize(("path", "workers"), [("local", None), ("batched", 2), ("sync", 2), ("buffered", 2)])
def test_one_batch_uses_what_it_maps_on_every_path(path, workers):
    rows = [
        *OPEN,
        (MMIO, BASE + LPC + 0x40, 4, 1, 0x601),
        (MMIO, BASE + LPC + 0x44, 1, 1, 0x80),
        (PIO, 0x604, 2, 1, 0x0401),
        (PIO, 0x604, 2, 0, 0),
        (MMIO, BASE + LPC + 0x44, 1, 1, 0x00),
        (PIO, 0x604, 2, 0, 0),
        (MMIO, BASE + NOBODY, 4, 0, 0),
        (MMIO, BASE + NOBODY, 8, 0, 0),
        (MMIO, BASE + LPC + 0xFE, 4, 0, 0),
        (MMIO, BASE, 8, 0, 0),
        (MMIO, BASE + 0x60, 4, 1, 0xC0000003),
        (MMIO, BASE, 4, 0, 0),
        (MMIO, 0xC0000000, 4, 0, 0),
    ]
    with Machine.from_file("q35", path=path, workers=workers) as machine:
        values = batch(machine, rows)
    reads = [v for v, row in zip(values, rows, strict=True) if not row[3]]
    assert reads == [0x0401, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 0xFFFF0000, 0x29C08086, 0, 0x29C08086]


def test_the_window_counts_like_the_ports(pc):
    before = pc.sequencer.counters
    read(pc, LPC)
    read(pc, NOBODY)
    after = pc.sequencer.counters
    assert (
        sum(after[k] - before[k] for k in ("local", "sync", "batched")) == 1 and after["router"] - before["router"] == 1
    )
