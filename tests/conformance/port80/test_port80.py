"""POST code port, and the coprocessor error register of the PIIX3 (290550)."""

from __future__ import annotations

from engine.devices.port80 import Port80
from engine.testing.bus import FakeBus

POST, FERR = 0, 1


def test_post_code_is_kept_for_people() -> None:
    bus = FakeBus(Port80())
    bus.write(POST, 0, 0x5A)
    assert bus.read(POST, 0) == 0xFF
    assert bus.dut.inspect()["code"] == 0x5A
    bus.reset()
    assert bus.dut.inspect()["code"] == 0


def test_coprocessor_error() -> None:
    """FERR# raises IRQ 13; a write to F0h ends it and asserts IGNNE# until FERR# goes."""
    bus = FakeBus(Port80())
    bus.write(FERR, 0, 0)
    assert not bus.effects, "no error, nothing to end"
    bus.set("ferr", 1)
    assert bus.level("irq")
    bus.step(10)
    bus.write(FERR, 0, 0)
    assert (bus.level("irq"), bus.level("ignne")) == (False, True)
    bus.step(10)
    bus.set("ferr", 0)
    assert not bus.level("ignne")
    assert [(e.pin, e.t_ns, e.value) for e in bus.effects] == [
        ("irq", 0, 1),
        ("irq", 10, 0),
        ("ignne", 10, 1),
        ("ignne", 20, 0),
    ]
