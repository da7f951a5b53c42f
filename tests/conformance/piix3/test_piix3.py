"""82371SB data sheet 290550-001, chapter 2: identity, PIRQRC and RC."""

import pytest

from engine.devices.piix3 import REGISTERS, Piix3
from engine.testing.bus import FakeBus

CONFIG, RC = 7, 8
PIRQRC = 0x60


@pytest.fixture
def bus():
    return FakeBus(Piix3())


def test_identity(bus):
    assert bus.dut.identity() == (0x8086, 0x7000, 0x00, 0x060100, 0x1AF4, 0x1100)
    assert bus.read(CONFIG, 0x0E) == 0x80 and bus.read(CONFIG, 0x06, 2) == 0x0200


def test_reset_values_of_private_registers(bus):
    for r in REGISTERS:
        if r.region == CONFIG and r.offset >= 0x40:
            assert bus.read(CONFIG, r.offset, r.width // 8) == r.reset, r.name


def test_pirqrc_disabled_after_reset(bus):
    for pin in ("pirqa", "pirqb", "pirqc", "pirqd"):
        bus.set(pin, 1)
    assert bus.edges() == []


@pytest.mark.parametrize(("pin", "n"), [("pirqa", 0), ("pirqb", 1), ("pirqc", 2), ("pirqd", 3)])
def test_pirqrc_routes_its_input(bus, pin, n):
    bus.write(CONFIG, PIRQRC + n, 5 + n)
    bus.set(pin, 1)
    assert bus.level(f"isa{5 + n}")
    bus.set(pin, 0)
    assert bus.edges() == 2 * [(0, 1), (0, 0)] and bus.edges(f"isa{5 + n}") == [(0, 1), (0, 0)]


def test_pirqrc_two_inputs_on_one_interrupt_are_ored(bus):
    bus.write(CONFIG, PIRQRC, 0x0B0B0A0A, 4)
    bus.set("pirqc", 1)
    bus.set("pirqd", 1)
    bus.set("pirqc", 0)
    assert bus.edges("isa11") == [(0, 1)]
    bus.set("pirqd", 0)
    assert bus.edges("isa11") == [(0, 1), (0, 0)] and bus.edges("isa10") == []


def test_pirqrc_a_new_route_moves_a_raised_level(bus):
    bus.write(CONFIG, PIRQRC, 0x0A)
    bus.set("pirqa", 1)
    bus.write(CONFIG, PIRQRC, 0x05)
    assert bus.edges("isa10") == [(0, 1), (0, 0)] and bus.level("isa5")
    bus.write(CONFIG, PIRQRC, 0x85)
    assert not bus.level("isa5")


@pytest.mark.parametrize("route", [0x10, 0x7F, 0x80, 0x8A, 0xFF])
def test_pirqrc_routes_that_are_none(bus, route):
    bus.write(CONFIG, PIRQRC, route)
    bus.take()
    bus.set("pirqa", 1)
    assert bus.edges() == [] and bus.read(CONFIG, PIRQRC) == route


@pytest.mark.parametrize(
    ("offset", "size", "pulses"),
    [(PIRQRC, 1, 1), (PIRQRC + 3, 1, 1), (PIRQRC, 4, 1), (PIRQRC - 1, 1, 0), (PIRQRC + 4, 2, 0)],
)
def test_a_write_of_pirqrc_lowers_what_others_hold(bus, offset, size, pulses):
    """As the reference's bridge does; the board wires the pulse to the 8254."""
    bus.write(CONFIG, offset, bus.read(CONFIG, offset, size), size)
    assert bus.edges("lower") == pulses * [(0, 1), (0, 0)] == bus.edges()


def test_rc_keeps_the_type_of_reset_only(bus):
    bus.write(RC, 0, 0xFB)
    assert bus.read(RC, 0) == 0x02 and bus.take() == []


@pytest.mark.parametrize("value", [0x04, 0x06, 0xFF])
def test_rc_rcpu_resets_the_machine(bus, value):
    bus.write(RC, 0, 0x02)
    bus.write(RC, 0, value)
    assert [(e.kind, e.value) for e in bus.take()] == [("reset", 1)]
    bus.reset()
    assert bus.read(RC, 0) == 0


def test_reset_drops_routed_lines_but_not_the_inputs(bus):
    bus.write(CONFIG, PIRQRC, 0x0A)
    bus.set("pirqa", 1)
    bus.reset()
    assert not bus.level("isa10") and bus.read(CONFIG, PIRQRC) == 0x80
    bus.write(CONFIG, PIRQRC, 0x0A)
    assert bus.level("isa10")


def test_restore_brings_the_levels_without_an_edge(bus):
    bus.write(CONFIG, PIRQRC, 0x0A)
    bus.set("pirqa", 1)
    other = FakeBus(Piix3())
    other.dut.restore(bus.dut.save())
    assert other.level("isa10") and other.take() == []
    other.set("pirqa", 0)
    assert other.edges("isa10") == [(0, 0)]
