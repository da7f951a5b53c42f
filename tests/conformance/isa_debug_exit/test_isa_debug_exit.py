"""isa-debug-exit: the status is twice the value written, plus one."""

from __future__ import annotations

import pytest

from engine.devices.isa_debug_exit import IsaDebugExit
from engine.errors import MachineError
from engine.testing.bus import FakeBus


@pytest.mark.parametrize(
    ("offset", "size", "value", "status"),
    [(0, 1, 0, 1), (0, 1, 0x31, 0x63), (0, 2, 0x17F, 0xFF), (0, 4, 0x12345678, 0xF1), (3, 1, 2, 5)],
)
def test_a_write_of_any_width_ends_the_machine(offset, size, value, status):
    bus = FakeBus(IsaDebugExit(size=4))
    assert bus.dut.status() is None and bus.read(0, offset, size) == 0 and not bus.level("exit")
    bus.write(0, offset, value, size)
    assert bus.dut.status() == status and bus.level("exit")


def test_the_first_write_counts_and_only_a_power_on_takes_it_back():
    bus = FakeBus(IsaDebugExit())
    bus.write(0, 0, 3)
    bus.write(0, 0, 4)
    bus.reset(1)
    assert bus.dut.status() == 7 and bus.edges("exit") == [(0, 1)]
    bus.reset(0)
    assert bus.dut.status() is None and not bus.level("exit")


def test_a_batch_ends_behind_the_write():
    assert IsaDebugExit().regions()[0].barrier


@pytest.mark.parametrize("size", [0, -1, 0x10001])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(MachineError, match="1 to 65536"):
        IsaDebugExit(size=size)
