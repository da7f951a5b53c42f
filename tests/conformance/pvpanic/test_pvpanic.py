"""pvpanic: QEMU 7.2, docs/specs/pvpanic.txt."""

from __future__ import annotations

import pytest

from engine.devices.pvpanic import Pvpanic, PvpanicPci
from engine.errors import MachineError
from engine.testing.bus import FakeBus

CONFIG = 7


@pytest.fixture(params=[Pvpanic, PvpanicPci])
def bus(request):
    return FakeBus(request.param())


def told(bus):
    """Rising edges of the output pins."""
    return [e.pin for e in bus.take() if e.kind == "line" and e.value]


def test_bit_definition_reading_gives_the_events_the_host_knows(bus):
    assert bus.read(0, 0) == 3
    assert FakeBus(type(bus.dut)(events=1)).read(0, 0) == 1


@pytest.mark.parametrize(
    ("value", "pins"),
    [(0, []), (1, ["panicked"]), (2, ["crash_loaded"]), (3, ["panicked"]), (0xFC, []), (0xFE, ["crash_loaded"])],
)
def test_bit_definition_writing_tells_one_event(bus, value, pins):
    bus.write(0, 0, value)
    assert told(bus) == pins
    assert not any(bus.dut.inspect()["pins"].values()) and bus.read(0, 0) == 3


def test_bit_definition_events_that_the_host_does_not_know_are_told_all_the_same():
    bus = FakeBus(Pvpanic(events=0))
    bus.write(0, 0, 1)
    assert told(bus) == ["panicked"]


def test_pci_interface_each_byte_of_a_wide_write_is_an_event():
    bus = FakeBus(PvpanicPci())
    bus.write(0, 0, 0x0201, 2)
    assert told(bus) == ["panicked", "crash_loaded"]
    assert bus.read(0, 0, 2) == 0x0303


def test_pci_interface_identity_and_range():
    bus = FakeBus(PvpanicPci())
    assert bus.dut.identity() == (0x1B36, 0x0011, 0x01, 0x088000, 0x1AF4, 0x1100)
    bus.write(CONFIG, 0x10, 0xFFFFFFFF, 4)
    assert bus.read(CONFIG, 0x10, 4) == 0xFFFFFFFE
    bus.write(CONFIG, 0x10, 0xFEBF1000, 4)
    bus.write(CONFIG, 4, 2, 2)
    assert [(e.pin, e.addr, e.value) for e in bus.take() if e.kind == "map"] == [(0, 1, 0xFEBF1000)]


@pytest.mark.parametrize("events", [-1, 256])
def test_events_are_a_byte(events):
    with pytest.raises(MachineError, match="is no byte"):
        Pvpanic(events=events)
