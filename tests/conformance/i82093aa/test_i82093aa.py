"""I/O APIC: scenarios of the 82093AA data sheet (290566), and the EOI register of 82801DB (290744)."""

from __future__ import annotations

import pytest

from engine.devices.i8259 import I8259
from engine.devices.i82093aa import I82093aa
from engine.errors import MachineError
from engine.testing.bus import FakeBus

IOREGSEL, IOWIN, EOIR = 0x00, 0x10, 0x40
IOAPICID, IOAPICVER, IOAPICARB, IOREDTBL = 0, 1, 2, 0x10
LEVEL, MASKED, REMOTE_IRR, LOGICAL = 0x8000, 0x10000, 0x4000, 0x800
MS = 1_000_000


class Apic(FakeBus):
    """A bus with the index/window pair, and the messages sent since last asked."""

    def get(self, index: int) -> int:
        self.write(0, IOREGSEL, index, 4)
        return self.read(0, IOWIN, 4)

    def put(self, index: int, value: int) -> None:
        self.write(0, IOREGSEL, index, 4)
        self.write(0, IOWIN, value, 4)

    def entry(self, pin: int, low: int, high: int = 0) -> None:
        self.put(IOREDTBL + 2 * pin + 1, high)
        self.put(IOREDTBL + 2 * pin, low)

    def eoi(self, vector: int) -> None:
        self.write(0, EOIR, vector, 4)

    def sent(self) -> list[tuple[int, int]]:
        return [(e.addr, e.value) for e in self.take() if e.kind == "message"]


@pytest.fixture
def bus() -> Apic:
    return Apic(I82093aa())


def test_3_1_1_ioregsel(bus: Apic) -> None:
    """Eight bits; narrow accesses reach it, and not the window."""
    bus.write(0, IOREGSEL, 0x12345610, 4)
    assert bus.read(0, IOREGSEL, 4) == 0x10
    bus.write(0, IOREGSEL, 0x11, 1)
    assert bus.read(0, IOREGSEL, 1) == 0x11
    bus.write(0, IOWIN, 0xFF, 1)
    assert bus.read(0, IOWIN, 1) == 0
    assert bus.get(0x11) == 0


def test_low_byte_of_the_address_counts(bus: Apic) -> None:
    bus.write(0, 0x100 + IOREGSEL, IOAPICVER, 4)
    assert bus.read(0, 0xF00 + IOWIN, 4) == 0x00170020


def test_unaligned_is_refused(bus: Apic) -> None:
    bus.read(0, 0x12, 4)
    assert bus.status != 0


def test_3_2_1_ioapicid(bus: Apic) -> None:
    bus.put(IOAPICID, 0xFFFFFFFF)
    assert bus.get(IOAPICID) == 0x0F000000
    assert bus.get(IOAPICARB) == 0x0F000000


def test_3_2_2_ioapicver() -> None:
    assert Apic(I82093aa()).get(IOAPICVER) == 0x00170020
    assert Apic(I82093aa(version=0x11)).get(IOAPICVER) == 0x00170011
    with pytest.raises(MachineError, match="0x21"):
        I82093aa(version=0x21)


def test_3_2_4_reset_values(bus: Apic) -> None:
    for pin in range(24):
        assert bus.get(IOREDTBL + 2 * pin) == MASKED
        assert bus.get(IOREDTBL + 2 * pin + 1) == 0
    for index in (0x03, 0x0F, 0x40, 0xFF):
        assert bus.get(index) == 0


def test_3_2_4_status_bits_are_read_only(bus: Apic) -> None:
    """DELIVS (12) and remote IRR (14)."""
    bus.put(IOREDTBL + 8, 0xFFFFFFFF)
    assert bus.get(IOREDTBL + 8) == 0xFFFFAFFF
    bus.put(IOREDTBL + 9, 0xFFFFFFFF)
    assert bus.get(IOREDTBL + 9) == 0xFFFFFFFF


def test_3_2_4_message(bus: Apic) -> None:
    """Destination and its mode in the address, vector, delivery mode and trigger mode in the data."""
    for mode in range(7):
        bus.entry(4, 0x31 | mode << 8 | LOGICAL, 0xA5000000)
        bus.set("gsi4", 1)
        bus.set("gsi4", 0)
        assert bus.sent() == [(0xFEEA5004, 0x31 | mode << 8)]
    bus.entry(4, 0x32 | LEVEL, 0x02000000)
    bus.set("gsi4", 1)
    assert bus.sent() == [(0xFEE02000, 0x32 | LEVEL)]


def test_3_2_4_edges(bus: Apic) -> None:
    """Each rising edge is one message, and remote IRR has no meaning."""
    bus.entry(3, 0x40)
    for _ in range(3):
        bus.set("gsi3", 1)
        bus.set("gsi3", 0)
    assert len(bus.sent()) == 3
    assert bus.get(IOREDTBL + 6) == 0x40


def test_3_2_4_masked_edges_are_lost(bus: Apic) -> None:
    bus.entry(3, 0x40 | MASKED)
    bus.set("gsi3", 1)
    bus.entry(3, 0x40)
    assert bus.sent() == []


def test_3_2_4_masked_levels_wait(bus: Apic) -> None:
    bus.entry(10, 0x50 | LEVEL | MASKED)
    bus.set("gsi10", 1)
    assert bus.sent() == []
    bus.entry(10, 0x50 | LEVEL)
    assert bus.sent() == [(0xFEE00000, 0x8050)]


def test_3_2_4_remote_irr(bus: Apic) -> None:
    """A level interrupt is sent once until its EOI, then again while the line is up."""
    bus.entry(10, 0x50 | LEVEL)
    bus.set("gsi10", 1)
    assert bus.get(IOREDTBL + 20) & REMOTE_IRR
    bus.set("gsi10", 0)
    bus.set("gsi10", 1)
    assert len(bus.sent()) == 1
    bus.eoi(0x51)
    assert bus.sent() == []
    bus.eoi(0x50)
    assert bus.sent() == [(0xFEE00000, 0x8050)]
    bus.set("gsi10", 0)
    bus.eoi(0x50)
    assert bus.sent() == []
    assert not bus.get(IOREDTBL + 20) & REMOTE_IRR


def test_290744_9_5_5_every_entry_of_the_vector(bus: Apic) -> None:
    for pin in (10, 11):
        bus.entry(pin, 0x50 | LEVEL)
        bus.set(f"gsi{pin}", 1)
    bus.take()
    bus.eoi(0xABCDEF50)  # reserved bits: no vector
    assert bus.sent() == []
    bus.eoi(0x50)
    assert bus.sent() == [(0xFEE00000, 0x8050)] * 2


def test_version_11_has_no_eoi_register() -> None:
    bus = Apic(I82093aa(version=0x11))
    bus.entry(10, 0x50 | LEVEL)
    bus.set("gsi10", 1)
    bus.eoi(0x50)
    assert bus.get(IOREDTBL + 20) & REMOTE_IRR


def test_edge_mode_clears_remote_irr(bus: Apic) -> None:
    """What guests do where there is no EOI register: mask, edge, level."""
    bus.entry(10, 0x50 | LEVEL)
    bus.set("gsi10", 1)
    bus.put(IOREDTBL + 20, 0x50 | MASKED)
    assert bus.get(IOREDTBL + 20) == 0x50 | MASKED
    bus.take()
    bus.put(IOREDTBL + 20, 0x50 | LEVEL)
    assert bus.sent() == [(0xFEE00000, 0x8050)]


def test_gsi_0_is_pin_2(bus: Apic) -> None:
    """The PC's timer arrives at INTIN2, as its firmware's interrupt source override says (ACPI 6.5, 5.2.12.5)."""
    bus.entry(0, 0x60)
    bus.entry(2, 0x62)
    bus.set("gsi0", 1)
    assert bus.sent() == [(0xFEE00000, 0x62)]


def test_extint_takes_the_vector_from_the_8259() -> None:
    pic = I8259("pic", 0)
    apic = I82093aa("ioapic", 1)
    apic.connect("pic", pic)
    bus = Apic(apic, pic)
    for value, offset in ((0x11, 0), (0x38, 1), (0x04, 1), (0x01, 1)):
        bus.write(0, offset, value, device=pic)
    bus.set("ir5", 1, device=pic)
    bus.entry(0, MASKED)
    bus.entry(1, 0x99 | 0x700)
    bus.set("gsi1", 1)
    assert bus.sent() == [(0xFEE00000, 0x700 | 0x3D)]
    assert not bus.level("int", device=pic)


def test_connect_refuses_other_peers(bus: Apic) -> None:
    with pytest.raises(MachineError, match="pic"):
        bus.dut.connect("pic", I82093aa("other", 7))


def test_interrupt_storm_pauses(bus: Apic) -> None:
    """The 10,000th EOI in a row that finds the line still up is followed by 10 ms of rest."""
    bus.entry(9, 0x55 | LEVEL)
    bus.set("gsi9", 1)
    for _ in range(9_999):
        bus.eoi(0x55)
    assert len(bus.sent()) == 10_000
    bus.eoi(0x55)
    assert bus.sent() == []
    bus.step(10 * MS - 1)
    assert bus.sent() == []
    bus.step(1)
    assert bus.sent() == [(0xFEE00000, 0x8055)]
    bus.eoi(0x55)
    assert len(bus.sent()) == 1


def test_reset(bus: Apic) -> None:
    bus.put(IOAPICID, 0x05000000)
    bus.entry(10, 0x50 | LEVEL, 0x01000000)
    bus.set("gsi10", 1)
    bus.reset()
    assert bus.dut.save() == I82093aa().save()


def test_save_restore(bus: Apic) -> None:
    bus.entry(10, 0x50 | LEVEL, 0x03000000)
    bus.set("gsi10", 1)
    for _ in range(5):
        bus.eoi(0x50)
    bus.write(0, IOREGSEL, 0x15, 4)
    other = Apic(I82093aa())
    other.dut.restore(bus.dut.save())
    assert not other.effects
    assert other.dut.save() == bus.dut.save()
    other.eoi(0x50)
    assert other.sent() == [(0xFEE03000, 0x8050)]


def test_a_state_with_requests_of_pins_that_are_not_there(bus: Apic) -> None:
    bus.entry(3, LEVEL | 0x41)
    bus.dut.restore(bus.dut.save() | {"irr": 0xFFFFFFFF})
    assert bus.dut.save()["irr"] == 0xFFFFFF
    bus.entry(3, LEVEL | 0x41)
    assert [value & 0xFF for _, value in bus.sent()] == [0x41]
