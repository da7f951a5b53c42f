"""Parallel port: the PC/AT's printer adapter."""

from __future__ import annotations

import pytest

from engine.devices.parallel import Parallel
from engine.testing.bus import AGAIN, FakeBus

DATA, STATUS, CONTROL = range(3)
IDLE, STROBE, READY = 0xCC, 0xCD, 0xD8


@pytest.fixture
def bus() -> FakeBus:
    b = FakeBus(Parallel(backend="log"))
    b.write(0, CONTROL, 0x08)  # printer reset
    b.write(0, CONTROL, 0x0C)
    return b


def test_print_with_strobe_busy_acknowledge(bus: FakeBus) -> None:
    for byte in b"ok":
        bus.write(0, DATA, byte)
        bus.write(0, CONTROL, STROBE)
        assert bus.read(0, STATUS) == READY & ~0x80, "busy"
        bus.write(0, CONTROL, IDLE)
        assert [bus.read(0, STATUS) for _ in range(3)] == [0x58, 0x18, READY], "busy, acknowledging, ready"
    assert bus.dut.output() == b"ok"


def test_held_strobe_prints_once(bus: FakeBus) -> None:
    bus.write(0, DATA, 0x41)
    for _ in range(3):
        bus.write(0, CONTROL, STROBE)
    assert bus.dut.output() == b"A"


def test_unselected_printer_prints_nothing(bus: FakeBus) -> None:
    bus.write(0, CONTROL, 0xC5)
    assert bus.dut.output() == b""


def test_acknowledge_interrupts_until_the_status_is_read(bus: FakeBus) -> None:
    bus.write(0, CONTROL, STROBE | 0x10)
    assert not bus.level("irq")
    bus.write(0, CONTROL, IDLE | 0x10)
    assert bus.level("irq")
    bus.read(0, STATUS)
    assert not bus.level("irq")


def test_an_interrupt_that_waits_is_driven_with_each_write(bus: FakeBus) -> None:
    for offset, value in ((CONTROL, STROBE | 0x10), (CONTROL, IDLE | 0x10), (DATA, 0x41), (CONTROL, STROBE | 0x10)):
        bus.write(0, offset, value)
    bus.read(0, STATUS)
    bus.write(0, DATA, 0x42)
    assert [e.value for e in bus.effects if e.pin == "irq"] == [1, AGAIN, AGAIN, 0]


def test_direction_bit_hides_the_data(bus: FakeBus) -> None:
    bus.write(0, DATA, 0x12)
    assert bus.read(0, DATA) == 0x12
    bus.write(0, CONTROL, 0x2C)
    assert bus.read(0, DATA) == 0xFF


def test_reset_and_upper_ports() -> None:
    bus = FakeBus(Parallel())
    assert [bus.read(0, n) for n in range(8)] == [0xFF, 0xD9, 0xCC, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]
    assert bus.read(0, 3) == 0xFF and bus.status != 0
    bus.write(0, CONTROL, 0x3F)
    bus.reset()
    assert bus.dut.save() == Parallel().save()
