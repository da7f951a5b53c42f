"""Debug console port."""

from __future__ import annotations

from engine.devices.debugcon import Debugcon
from engine.testing.bus import FakeBus


def test_readback_and_output() -> None:
    bus = FakeBus(Debugcon(keep=4))
    assert bus.read(0, 0) == 0xE9
    for byte in b"hello":
        bus.write(0, 0, byte)
    assert bus.dut.output() == b"ello"
    assert bus.read(0, 0) == 0xE9
    assert FakeBus(Debugcon(readback=0x42)).read(0, 0) == 0x42
    assert bus.dut.regions()[0].posted
