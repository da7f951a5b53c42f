"""PCI Express Base Specification 3.0, 7.2 and 7.9: extended configuration space."""

import pytest

from engine.errors import MachineError
from engine.testing._function import InterruptFunction
from engine.testing.bus import FakeBus

CONFIG = 7


@pytest.fixture
def bus():
    return FakeBus(InterruptFunction(express=True))


def test_7_2_express_functions_have_4096_bytes_others_256(bus):
    assert bus.dut.regions()[CONFIG].size == 4096
    assert InterruptFunction().regions()[CONFIG].size == 256
    assert bus.read(CONFIG, 0xFFC, 4) == 0 and bus.status == 0


def test_7_9_3_capabilities_are_chained_in_the_order_of_their_making(bus):
    assert bus.read(CONFIG, 0x100, 4) == 0x1402_0001
    assert bus.read(CONFIG, 0x140, 4) == 0x0001_0003
    assert bus.read(CONFIG, 0x144) == 0x5A


def test_7_9_write_masks_and_write_one_to_clear(bus):
    assert bus.read(CONFIG, 0x104, 4) == 0x10
    bus.write(CONFIG, 0x104, 0xFFFFFFEF, 4)
    assert bus.read(CONFIG, 0x104, 4) == 0x10
    bus.write(CONFIG, 0x104, 0x10, 4)
    assert bus.read(CONFIG, 0x104, 4) == 0
    bus.write(CONFIG, 0x108, 0xFFFFFFFF, 4)
    assert bus.read(CONFIG, 0x108, 4) == 0x10
    bus.write(CONFIG, 0x100, 0, 4)
    assert bus.read(CONFIG, 0x100, 4) == 0x1402_0001  # read-only unless the part says otherwise


def test_reset_puts_extended_space_back(bus):
    bus.write(CONFIG, 0x104, 0x10, 4)
    bus.write(CONFIG, 0x108, 0x10, 4)
    bus.reset(1)
    assert [bus.read(CONFIG, n, 4) for n in (0x104, 0x108)] == [0x10, 0]


def test_save_and_restore_hold_extended_space(bus):
    bus.write(CONFIG, 0x108, 0x10, 4)
    other = FakeBus(InterruptFunction(express=True))
    other.dut.restore(bus.dut.save())
    assert other.read(CONFIG, 0x108, 4) == 0x10 and other.take() == []


@pytest.mark.parametrize("at", [0xC0, 0x142, 0xFF8])
def test_extended_capabilities_need_room(at):
    with pytest.raises(MachineError, match="no room for extended capability 0xb"):
        InterruptFunction(express=True).add_extended_capability(0x000B, 1, at, 12)
    with pytest.raises(MachineError, match="no room"):
        InterruptFunction().add_extended_capability(0x000B, 1, 0x100, 12)
