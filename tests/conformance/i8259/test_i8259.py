"""8259A pair with ELCRs: scenarios of the 8259A data sheet (231468) and the PIIX3 data sheet (290550)."""

from __future__ import annotations

import pytest

from engine.devices.i8259 import I8259
from engine.testing.bus import FakeBus

PIC0, PIC1, ELCR0, ELCR1 = range(4)
EOI, POLL, READ_IRR, READ_ISR = 0x20, 0x0C, 0x0A, 0x0B


def initialise(bus: FakeBus, icw4: int = 0x01, bases: tuple[int, int] = (0x08, 0x70)) -> None:
    """The PC's sequence: cascaded, slave at IR2."""
    for chip, icw3 in ((PIC0, 0x04), (PIC1, 0x02)):
        bus.write(chip, 0, 0x11)
        for value in (bases[chip], icw3, icw4, 0x00):
            bus.write(chip, 1, value)


@pytest.fixture
def bus() -> FakeBus:
    b = FakeBus(I8259())
    initialise(b)
    return b


def status(bus: FakeBus, chip: int, which: int) -> int:
    bus.write(chip, 0, which)
    return bus.read(chip, 0)


def pulse(bus: FakeBus, ir: int) -> None:
    bus.set(f"ir{ir}", 1)
    bus.set(f"ir{ir}", 0)


def test_interrupt_sequence(bus: FakeBus) -> None:
    """Request, INT, INTA, in service, EOI."""
    bus.set("ir4", 1)
    assert bus.level("int")
    assert status(bus, PIC0, READ_IRR) == 0x10
    assert bus.acknowledge() == 0x0C
    assert not bus.level("int")
    assert status(bus, PIC0, READ_IRR) == 0x00
    assert status(bus, PIC0, READ_ISR) == 0x10
    bus.write(PIC0, 0, EOI)
    assert status(bus, PIC0, READ_ISR) == 0x00
    assert not bus.level("int"), "an edge that is still high asks once"


def test_initialization_every_base(bus: FakeBus) -> None:
    """ICW2 gives T7:T3; the IR number gives the rest."""
    for base in range(0, 256, 8):
        initialise(bus, bases=(base | 5, base ^ 0xF8))
        pulse(bus, 3)
        assert bus.acknowledge() == base | 3
        bus.write(PIC0, 0, EOI)
        pulse(bus, 11)
        assert bus.acknowledge() == (base ^ 0xF8) | 3
        for chip in (PIC1, PIC0):
            bus.write(chip, 0, EOI)


def test_initialization_keeps_the_requests_of_levels_that_are_still_high(bus: FakeBus) -> None:
    """290550 2.5.3.9: a level asks for as long as it is there; an edge that came before ICW1 is forgotten."""
    bus.write(ELCR0, 0, 0x20)
    bus.set("ir5", 1)
    bus.set("ir6", 1)
    assert status(bus, PIC0, READ_IRR) == 0x60
    initialise(bus)
    assert status(bus, PIC0, READ_IRR) == 0x20 and bus.level("int")
    assert bus.acknowledge() == 0x0D


@pytest.mark.parametrize("icw1, words", [(0x10, 2), (0x11, 3), (0x12, 1), (0x13, 2)])
def test_initialization_sequence_length(bus: FakeBus, icw1: int, words: int) -> None:
    """SNGL leaves ICW3 out, IC4 brings ICW4; after the last word offset 1 is the mask."""
    bus.write(PIC0, 0, icw1)
    for _ in range(words):
        bus.write(PIC0, 1, 0x08)
        assert bus.read(PIC0, 1) == 0x00
    bus.write(PIC0, 1, 0x5A)
    assert bus.read(PIC0, 1) == 0x5A


def test_icw1_clears(bus: FakeBus) -> None:
    """ICW1 clears the edge sense, the mask, the service register, special mask; offset 0 reads the IRR; IR0 leads."""
    bus.write(PIC0, 1, 0x80)
    bus.write(PIC0, 0, 0xC3)  # IR4 leads
    bus.write(PIC0, 0, READ_ISR | 0x60)
    bus.set("ir0", 1)
    bus.set("ir1", 1)
    assert bus.acknowledge() == 0x08
    bus.write(PIC0, 0, 0x11)
    assert not bus.level("int")
    for value in (0x20, 0x04, 0x01):
        bus.write(PIC0, 1, value)
    assert bus.read(PIC0, 1) == 0x00
    assert bus.read(PIC0, 0) == 0x00
    assert status(bus, PIC0, READ_ISR) == 0x00
    bus.set("ir1", 0)
    bus.set("ir1", 1)
    pulse(bus, 4)
    assert bus.acknowledge() == 0x21


def test_fully_nested_mode(bus: FakeBus) -> None:
    """IR0 is highest; a request waits while an equal or higher one is in service."""
    pulse(bus, 5)
    assert bus.acknowledge() == 0x0D
    pulse(bus, 6)
    assert not bus.level("int")
    pulse(bus, 1)
    assert bus.level("int")
    assert bus.acknowledge() == 0x09
    bus.write(PIC0, 0, EOI)
    assert status(bus, PIC0, READ_ISR) == 0x20, "a non-specific EOI ends the highest"
    assert not bus.level("int")
    bus.write(PIC0, 0, EOI)
    assert bus.acknowledge() == 0x0E


def test_cascade(bus: FakeBus) -> None:
    """The slave's request comes by IR2, so above IR3; both chips are in service and both need an EOI."""
    pulse(bus, 3)
    bus.set("ir12", 1)
    assert bus.acknowledge() == 0x74
    assert (status(bus, PIC0, READ_ISR), status(bus, PIC1, READ_ISR)) == (0x04, 0x10)
    bus.write(PIC1, 0, EOI)
    assert not bus.level("int")
    bus.write(PIC0, 0, EOI)
    assert bus.acknowledge() == 0x0B


def test_input_ir2_is_not_connected(bus: FakeBus) -> None:
    pulse(bus, 2)
    assert not bus.level("int")
    assert status(bus, PIC0, READ_IRR) == 0x00


def test_ocw1_masks_requests_that_remain(bus: FakeBus) -> None:
    bus.write(PIC0, 1, 0x10)
    bus.set("ir4", 1)
    assert not bus.level("int")
    assert status(bus, PIC0, READ_IRR) == 0x10
    bus.write(PIC0, 1, 0x00)
    assert bus.level("int")


def test_default_ir7(bus: FakeBus) -> None:
    """A request that is gone when INTA comes is answered as IR7, and nothing is in service."""
    assert bus.acknowledge() == 0x0F
    assert status(bus, PIC0, READ_ISR) == 0x00


def test_default_ir15(bus: FakeBus) -> None:
    """The slave's request may vanish behind a master that has latched it: vector of IR15, the master is in service."""
    bus.set("ir10", 1)
    bus.write(PIC1, 1, 0x04)
    assert bus.level("int")
    assert bus.acknowledge() == 0x77
    assert (status(bus, PIC0, READ_ISR), status(bus, PIC1, READ_ISR)) == (0x04, 0x00)


def test_specific_eoi(bus: FakeBus) -> None:
    for ir in (6, 3):
        pulse(bus, ir)
        bus.acknowledge()
    bus.write(PIC0, 0, 0x66)
    assert status(bus, PIC0, READ_ISR) == 0x08


def test_automatic_rotation(bus: FakeBus) -> None:
    """Rotate on non-specific EOI: the IR just served becomes the lowest."""
    pulse(bus, 4)
    bus.acknowledge()
    bus.write(PIC0, 0, 0xA0)
    for ir in (4, 5):
        pulse(bus, ir)
    assert bus.acknowledge() == 0x0D


def test_specific_rotation(bus: FakeBus) -> None:
    """Set priority (C0h) and rotate on specific EOI (E0h): the named IR becomes the lowest."""
    bus.write(PIC0, 0, 0xC5)
    for ir in (0, 5, 6):
        pulse(bus, ir)
    assert bus.acknowledge() == 0x0E
    bus.write(PIC0, 0, 0xE6)
    assert status(bus, PIC0, READ_ISR) == 0x00
    assert bus.acknowledge() == 0x08, "after IR6 became the lowest, IR7 leads, then IR0"


def test_ocw2_no_operation(bus: FakeBus) -> None:
    pulse(bus, 1)
    bus.acknowledge()
    bus.write(PIC0, 0, 0x41)
    assert status(bus, PIC0, READ_ISR) == 0x02


def test_eoi_with_nothing_in_service(bus: FakeBus) -> None:
    bus.write(PIC0, 0, 0xA0)
    for ir in (0, 7):
        pulse(bus, ir)
    assert bus.acknowledge() == 0x08, "no rotation either"


def test_automatic_eoi(bus: FakeBus) -> None:
    """AEOI: the second INTA ends the interrupt; with rotation its IR becomes the lowest."""
    initialise(bus, icw4=0x03)
    pulse(bus, 0)
    pulse(bus, 1)
    assert bus.acknowledge() == 0x08
    assert status(bus, PIC0, READ_ISR) == 0x00
    assert bus.acknowledge() == 0x09
    bus.write(PIC0, 0, 0x80)
    pulse(bus, 0)
    assert bus.acknowledge() == 0x08
    pulse(bus, 0)
    pulse(bus, 5)
    assert bus.acknowledge() == 0x0D
    bus.write(PIC0, 0, 0x00)
    pulse(bus, 6)
    assert bus.acknowledge() == 0x0E
    pulse(bus, 6)
    pulse(bus, 0)
    assert bus.acknowledge() == 0x0E, "without rotation IR6 still leads"


def test_special_mask_mode(bus: FakeBus) -> None:
    """A masked interrupt in service no longer holds back lower ones."""
    pulse(bus, 2 + 1)
    assert bus.acknowledge() == 0x0B
    bus.write(PIC0, 1, 0x08)
    pulse(bus, 6)
    assert not bus.level("int")
    bus.write(PIC0, 0, 0x68)
    pulse(bus, 7)
    assert bus.level("int")
    assert bus.acknowledge() == 0x0E
    bus.write(PIC0, 0, 0x48)
    assert bus.acknowledge() == 0x0F, "in normal mode IR3 holds IR7 back: a default answer"
    assert status(bus, PIC0, READ_ISR) == 0x48


def test_special_fully_nested_mode(bus: FakeBus) -> None:
    """A slave in service does not hold back its own higher requests."""
    pulse(bus, 13)
    assert bus.acknowledge() == 0x75
    pulse(bus, 9)
    assert not bus.level("int")
    initialise(bus, icw4=0x11)
    pulse(bus, 13)
    assert bus.acknowledge() == 0x75
    pulse(bus, 9)
    assert bus.level("int")
    assert bus.acknowledge() == 0x71


def test_poll_command(bus: FakeBus) -> None:
    """The read after a poll command acknowledges: bit 7 and the IR; 0 without a request.  Any offset will do."""
    bus.write(PIC0, 0, POLL)
    assert bus.read(PIC0, 0) == 0x00
    pulse(bus, 6)
    bus.write(PIC0, 0, POLL)
    assert bus.read(PIC0, 1) == 0x86
    assert status(bus, PIC0, READ_ISR) == 0x40
    assert not bus.level("int")
    pulse(bus, 8)
    bus.write(PIC1, 0, POLL)
    assert bus.read(PIC1, 0) == 0x80
    assert bus.read(PIC1, 0) == 0x00


def test_edge_triggered_mode(bus: FakeBus) -> None:
    """An edge is latched: the line may fall before INTA.  A line that stays high asks no second time."""
    pulse(bus, 4)
    assert bus.level("int")
    bus.set("ir4", 1)
    assert bus.acknowledge() == 0x0C
    bus.write(PIC0, 0, EOI)
    assert not bus.level("int")


def test_level_triggered_by_elcr(bus: FakeBus) -> None:
    """290550 2.5.3.9: the request is the line itself, there again after EOI until its source is quiet."""
    bus.write(ELCR1, 0, 0x02)
    bus.set("ir9", 1)
    assert bus.acknowledge() == 0x71
    for chip in (PIC1, PIC0):
        bus.write(chip, 0, EOI)
    assert bus.level("int")
    bus.set("ir9", 0)
    assert status(bus, PIC1, READ_IRR) == 0x00
    assert bus.acknowledge() == 0x77


def test_elcr_fixed_edges(bus: FakeBus) -> None:
    """290550 2.5.3.9 and 2.5.3.10: IRQ 0, 1, 2, 8 and 13 cannot be levels; ICW1 leaves the ELCRs alone."""
    bus.write(ELCR0, 0, 0xFF)
    bus.write(ELCR1, 0, 0xFF)
    initialise(bus)
    assert (bus.read(ELCR0, 0), bus.read(ELCR1, 0)) == (0xF8, 0xDE)


def test_wide_accesses_are_bytes(bus: FakeBus) -> None:
    bus.write(PIC0, 0, 0x3C0B, size=2)  # OCW3 to offset 0, OCW1 to offset 1
    pulse(bus, 7)
    bus.acknowledge()
    assert bus.read(PIC0, 0, size=2) == 0x3C80


def test_reset_clears_elcr_and_requests(bus: FakeBus) -> None:
    bus.write(ELCR1, 0, 0x02)
    bus.set("ir9", 1)
    assert bus.level("int")
    bus.reset()
    assert not bus.level("int")
    assert bus.read(ELCR1, 0) == 0
    assert status(bus, PIC1, READ_IRR) == 0


def test_an_edge_that_a_reset_makes_elsewhere_is_no_request(bus: FakeBus) -> None:
    bus.reset()
    bus.set("ir0", 1)  # the same moment: a part under the same reset
    assert status(bus, PIC0, READ_IRR) == 0
    bus.step(1)
    bus.set("ir0", 0)
    bus.set("ir0", 1)
    assert status(bus, PIC0, READ_IRR) == 1


def test_save_restore(bus: FakeBus) -> None:
    """A pair restored in the middle of everything goes on as the first one does, and makes no edge."""
    bus.write(ELCR0, 0, 0x20)
    bus.write(PIC0, 0, 0xC2)
    bus.write(PIC1, 1, 0x80)
    bus.set("ir5", 1)
    bus.set("ir12", 1)
    bus.acknowledge()
    bus.write(PIC1, 0, 0x11)  # half way through initialisation
    bus.write(PIC1, 1, 0x40)
    other = FakeBus(I8259())
    other.dut.restore(bus.dut.save())
    assert other.dut.save() == bus.dut.save()
    assert not other.effects

    def go_on(b: FakeBus) -> list[int]:
        b.write(PIC1, 1, 0x02)
        b.write(PIC1, 1, 0x01)
        b.set("ir12", 0)
        b.set("ir12", 1)
        seen = [b.acknowledge()]
        b.write(PIC0, 0, EOI)
        seen += [b.acknowledge(), status(b, PIC0, READ_ISR), status(b, PIC1, READ_IRR), b.level("int")]
        return seen

    assert go_on(other) == go_on(bus)


def test_inputs_that_are_not_there() -> None:
    b = FakeBus(I8259())
    before = b.dut.save()
    b.input(0, 16, 0, 1)
    b.input(0, 255, 0, 1)
    assert b.dut.save() == before
