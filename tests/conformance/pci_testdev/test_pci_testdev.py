"""pci-testdev: QEMU 7.2, docs/specs/pci-testdev.txt."""

from __future__ import annotations

import pytest

from engine.devices.pci_testdev import KINDS, PciTestdev
from engine.errors import MachineError
from engine.testing.bus import FakeBus
from engine.types import Space

CONFIG = 7
NO_EVENT, WILDCARD, DATA_MATCH = range(3)
MATCHED = 0xFA


def count(bus, region):
    return bus.read(region, 12, 4)


def start(bus, region, kind):
    """Start a test; where its writes go."""
    bus.write(region, 0, kind)
    return bus.read(region, 4, 4)


def test_without_a_test_everything_reads_zero():
    bus = FakeBus(PciTestdev())
    assert [bus.read(r, n) for r in (0, 1) for n in range(64)] == [0] * 128


@pytest.mark.parametrize("region", [0, 1])
@pytest.mark.parametrize("kind", range(3))
def test_the_header_tells_where_and_what(region, kind):
    bus = FakeBus(PciTestdev())
    offset = start(bus, region, kind)
    number = region * 3 + kind
    assert offset == (0x800, 0x80)[region] + number
    assert bus.read(region, 0) == number and bus.read(region, 1) == 1 and count(bus, region) == 0
    assert bus.read(region, 8, 4) == (0xCE if kind == WILDCARD else MATCHED)
    name = bytes(bus.read(region, 16 + n) for n in range(32)).rstrip(b"\0").decode()
    assert name == f"{('mmio', 'portio')[region]}-{KINDS[kind]}"
    assert [bus.read(r, n) for r in (0, 1) for n in range(8)] == 2 * [bus.read(region, n) for n in range(8)]


@pytest.mark.parametrize(
    ("kind", "value", "size", "n"),
    [
        (NO_EVENT, MATCHED, 1, 1),
        (NO_EVENT, MATCHED, 4, 1),
        (NO_EVENT, 0, 1, 0),
        (WILDCARD, 0, 1, 0),  # an event
        (WILDCARD, 0, 2, 1),
        (DATA_MATCH, MATCHED, 1, 0),  # an event
        (DATA_MATCH, 0, 1, 0),
        (DATA_MATCH, MATCHED, 2, 1),
    ],
)
def test_writes_at_the_offset_are_counted_but_for_events(kind, value, size, n):
    bus = FakeBus(PciTestdev())
    offset = start(bus, 1, kind)
    offset -= offset % size  # parts of a wide access are bytes of their own
    for _ in range(3):
        bus.write(1, offset, value << 8 * (bus.read(1, 4, 4) - offset), size)
    assert count(bus, 1) == 3 * n


def test_starting_again_counts_from_zero_and_unknown_tests_end_it():
    bus = FakeBus(PciTestdev())
    offset = start(bus, 0, NO_EVENT)
    bus.write(0, offset, MATCHED)
    assert count(bus, 0) == 1
    start(bus, 0, NO_EVENT)
    assert count(bus, 0) == 0
    bus.write(0, offset, MATCHED)
    bus.write(0, 0, 3)
    assert count(bus, 0) == 0 and bus.read(0, 1) == 0
    bus.write(0, offset, MATCHED)
    assert bus.dut.inspect()["counts"][0] == 1


def test_bar_2_is_a_range_without_anything():
    assert PciTestdev().regions()[2].size == 0
    bus = FakeBus(PciTestdev(membar=1 << 34))
    r = bus.dut.regions()[2]
    assert (r.size, r.space) == (1 << 34, Space.MMIO)
    assert bus.read(CONFIG, 0x18) == 0x0C
    bus.read(2, 0, 4)
    assert bus.status != 0  # the bus answers
    for odd in (-1, 1000, 1 << 52):
        with pytest.raises(MachineError):
            PciTestdev(membar=odd)
