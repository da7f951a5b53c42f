"""edu: QEMU 7.2, docs/specs/edu.txt."""

from __future__ import annotations

from math import factorial

import pytest

from engine._device import Dma
from engine.devices.edu import Edu
from engine.errors import MachineError
from engine.testing.bus import FakeBus

REGS, CONFIG = 0, 7
MS = 10**6
BUFFER = 0x40000
RUN, TO_RAM, IRQ = 1, 2, 4


@pytest.fixture
def ram():
    return bytearray(1 << 16)


@pytest.fixture
def bus(ram):
    b = FakeBus(Edu(dma=Dma(ram)))
    b.write(CONFIG, 4, 6, 2)
    b.take()
    return b


def get(bus, offset, size=4):
    return bus.read(REGS, offset, size)


def put(bus, offset, value, size=4):
    bus.write(REGS, offset, value, size)


def transfer(bus, source, destination, count, command):
    for offset, value in ((0x80, source), (0x88, destination), (0x90, count), (0x98, command)):
        put(bus, offset, value, 8)


def test_0x00_identification(bus):
    assert get(bus, 0) == 0x010000ED and bus.dut.identity()[:4] == (0x1234, 0x11E8, 0x10, 0x00FF00)


def test_0x04_liveness_inverts(bus):
    for value in (0, 1, 0x12345678, 0xFFFFFFFF):
        put(bus, 4, value)
        assert get(bus, 4) == value ^ 0xFFFFFFFF


@pytest.mark.parametrize("n", [0, 1, 2, 5, 12, 13, 20, 31, 33, 34, 35, 1000, 0xFFFFFFFF])
def test_0x08_factorial_in_32_bits(bus, n):
    put(bus, 8, n)
    assert get(bus, 8) == (factorial(n) & 0xFFFFFFFF if n < 2000 else 0) and get(bus, 0x20) == 0


def test_0x20_a_factorial_may_take_time_and_interrupts_at_its_end(ram):
    bus = FakeBus(Edu(dma=Dma(ram), fact_ns=500))
    put(bus, 0x20, 0x80)
    put(bus, 8, 6)
    put(bus, 8, 3)  # it computes: not taken
    bus.step(499)
    assert get(bus, 0x20) == 0x81 and not bus.level("inta")
    bus.step(1)
    assert (get(bus, 8), get(bus, 0x20), get(bus, 0x24)) == (720, 0x80, 1) and bus.level("inta")
    put(bus, 0x64, 1)
    assert get(bus, 0x24) == 0 and not bus.level("inta")


def test_0x60_0x64_raise_and_acknowledge(bus):
    put(bus, 0x60, 0x8001)
    put(bus, 0x60, 0x0010)
    assert get(bus, 0x24) == 0x8011 and bus.level("inta")
    put(bus, 0x64, 0x8010)
    assert get(bus, 0x24) == 1 and bus.level("inta")
    put(bus, 0x64, 0xFF)
    assert get(bus, 0x24) == 0 and not bus.level("inta")


def test_mmio_area_spec_widths(bus):
    assert get(bus, 0, 8) == (1 << 64) - 1 and get(bus, 0x80, 8) == 0
    put(bus, 4, 5, 8)
    assert get(bus, 4) == 0  # not taken
    put(bus, 0x80, 0x1122334455667788, 8)
    assert get(bus, 0x80) == 0x55667788 and get(bus, 0x84) == 0xFFFFFFFF
    put(bus, 0x80, 0x99)
    assert get(bus, 0x80, 8) == 0x99
    bus.read(REGS, 0, 1)
    assert bus.status != 0


def test_dma_controller_the_documents_example(bus, ram):
    ram[0x1000:0x1064] = bytes(range(100))
    transfer(bus, 0x1000, BUFFER, 100, RUN)
    bus.step(100 * MS - 1)
    assert get(bus, 0x98, 8) == RUN
    bus.step(1)
    assert get(bus, 0x98, 8) == 0
    transfer(bus, BUFFER, 0x1000 + 100, 100, RUN | TO_RAM)
    bus.step(100 * MS)
    assert ram[0x1064:0x10C8] == bytes(range(100)) and get(bus, 0x24) == 0


def test_dma_controller_registers_are_locked_while_it_runs(bus):
    transfer(bus, 0x1000, BUFFER, 4, RUN)
    for offset in (0x80, 0x88, 0x90, 0x98):
        put(bus, offset, 0x77, 8)
    assert [get(bus, o, 8) for o in (0x80, 0x88, 0x90, 0x98)] == [0x1000, BUFFER, 4, RUN]
    bus.step(100 * MS)
    put(bus, 0x98, TO_RAM, 8)  # without the start bit
    assert get(bus, 0x98, 8) == 0


def test_dma_controller_interrupts_with_0x100(bus):
    transfer(bus, 0x1000, BUFFER, 4, RUN | IRQ)
    bus.step(100 * MS)
    assert get(bus, 0x24) == 0x100 and bus.level("inta")


@pytest.mark.parametrize(
    ("at", "count", "fits"),
    [
        (BUFFER, 4096, True),
        (BUFFER + 4095, 1, True),
        (BUFFER, 4097, False),
        (BUFFER - 1, 1, False),
        (BUFFER + 4096, 0, False),
        (BUFFER + 1, (1 << 64) - 1, False),
        (0, 1 << 63, False),
    ],
)
@pytest.mark.parametrize("out", [False, True])
def test_dma_controller_what_leaves_the_buffer_is_not_moved_and_ends(bus, ram, at, count, fits, out):
    ram[:] = b"\xaa" * len(ram)
    transfer(bus, *((at, 0x2000) if out else (0x2000, at)), count, RUN | IRQ | (TO_RAM if out else 0))
    bus.step(100 * MS)
    assert get(bus, 0x98, 8) & RUN == 0 and get(bus, 0x24) == 0x100
    assert bus.dut.inspect()["refused"] == (not fits)
    moved = ram != b"\xaa" * len(ram) if out else any(bus.dut.inspect()["buffer"])
    assert moved == (fits and count > 0)


def test_dma_mask_cuts_addresses(ram):
    bus = FakeBus(Edu(dma=Dma(ram), dma_mask=0xFFFF))
    bus.write(CONFIG, 4, 6, 2)
    ram[0x1234] = 0x5A
    transfer(bus, 0xABCD0000_00001234, BUFFER, 1, RUN)
    bus.step(100 * MS)
    assert bus.dut.inspect()["buffer"][0] == 0x5A


def test_dma_needs_bus_mastering(ram):
    bus = FakeBus(Edu(dma=Dma(ram)))
    bus.write(CONFIG, 4, 2, 2)
    transfer(bus, BUFFER, 0, 16, RUN | TO_RAM)
    ram[:16] = b"\xaa" * 16
    bus.step(100 * MS)
    assert ram[:16] == b"\xaa" * 16


def test_irq_controller_messages_instead_of_the_pin(bus):
    for offset, value in ((0x44, 0xFEE00000), (0x48, 0), (0x4C, 0x55), (0x42, 1)):
        bus.write(CONFIG, offset, value, 2 if offset == 0x42 else 4)
    put(bus, 0x60, 2)
    put(bus, 0x60, 2)
    assert [(e.kind, e.addr, e.value) for e in bus.take()] == [("message", 0xFEE00000, 0x55)] * 2
    put(bus, 0x64, 2)
    assert bus.take() == []


def test_a_bus_reset_leaves_all_but_configuration_space(bus):
    put(bus, 4, 0)
    transfer(bus, 0x1000, BUFFER, 4, RUN)
    bus.reset(1)
    assert get(bus, 4) == 0xFFFFFFFF and bus.read(CONFIG, 4, 2) == 0
    bus.step(100 * MS)
    assert get(bus, 0x98, 8) == 0


def test_settings_are_checked():
    for name in ("dma_mask", "fact_ns"):
        with pytest.raises(MachineError, match=name):
            Edu(**{name: -1})
