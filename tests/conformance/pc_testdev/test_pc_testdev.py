"""pc-testdev: what is written is read; line ports are levels."""

from __future__ import annotations

from engine.devices.pc_testdev import PcTestdev
from engine.testing.bus import FakeBus

WORD, FLUSH, BYTES, LINES, MEMORY = range(5)


def test_two_windows_to_four_bytes():
    bus = FakeBus(PcTestdev())
    bus.write(WORD, 0, 0x44332211, 4)
    assert [bus.read(BYTES, n) for n in range(4)] == [0x11, 0x22, 0x33, 0x44]
    bus.write(BYTES, 1, 0xBBAA, 2)
    assert bus.read(WORD, 0, 4) == 0x44BBAA11 and bus.read(WORD, 2, 2) == 0x44BB
    bus.write(BYTES, 0, 0xDEADBEEF, 4)
    assert bus.read(BYTES, 0, 4) == 0xDEADBEEF


def test_the_page_port_reads_zero_and_has_no_effect():
    bus = FakeBus(PcTestdev())
    bus.write(FLUSH, 0, 0xFFFFF000, 4)
    assert [bus.read(FLUSH, 0, n) for n in (1, 2, 4)] == [0, 0, 0] and bus.take() == []


def test_a_port_for_each_line():
    bus = FakeBus(PcTestdev())
    for n in (0, 5, 15, 23):
        for value in (1, 0x80, 0):
            bus.write(LINES, n, value)
            assert bus.level(f"irq{n}") == bool(value)
        assert bus.edges(f"irq{n}") == [(0, 1), (0, 0)]
    assert bus.read(LINES, 5) == 0


def test_memory_is_memory_of_every_width_and_is_no_device_state():
    bus = FakeBus(PcTestdev())
    bus.write(MEMORY, 8, 0x0123456789ABCDEF, 8)
    assert bus.read(MEMORY, 8, 8) == 0x0123456789ABCDEF and bus.read(MEMORY, 10, 2) == 0x89AB
    assert bytes(bus.dut.memory()[8:16]) == bytes.fromhex("efcdab8967452301")
    bus.dut.memory()[0xFFFF] = 7
    assert bus.read(MEMORY, 0xFFFF) == 7 and "memory" not in bus.dut.save()


def test_a_bus_reset_changes_nothing_and_a_power_on_all():
    bus = FakeBus(PcTestdev())
    bus.write(WORD, 0, 5, 4)
    bus.write(LINES, 3, 1)
    bus.write(MEMORY, 0, 9)
    bus.reset(1)
    assert bus.read(WORD, 0, 4) == 5 and bus.level("irq3") and bus.read(MEMORY, 0) == 9
    bus.reset(0)
    assert bus.read(WORD, 0, 4) == 0 and not bus.level("irq3") and bus.read(MEMORY, 0) == 0
