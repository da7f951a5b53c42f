"""8237A pair: scenarios of the 8237A data sheet; transfers are in tests/conformance/fdc, where a client is."""

from __future__ import annotations

import pytest

from engine.devices.i8237 import I8237
from engine.testing.bus import FakeBus

DMA0, DMA1, PAGE = range(3)
STATUS, REQUEST, SINGLE, MODE, POINTER, CLEAR, UNMASK, MASK = range(8, 16)
PORTS = [(DMA0, 0), (DMA1, 1)]  # region, shift of its register numbers


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus(I8237())


def masked(bus: FakeBus, chip: int) -> int:
    return bus.read(chip, REQUEST << chip)


@pytest.mark.parametrize(("chip", "shift"), PORTS)
def test_address_and_count_by_halves(bus: FakeBus, chip: int, shift: int) -> None:
    for reg in range(8):
        value = 0x1234 + 0x111 * reg
        for part in (value & 0xFF, value >> 8):
            bus.write(chip, reg << shift, part)
        assert [bus.read(chip, reg << shift) for _ in range(2)] == [value & 0xFF, value >> 8]


def test_current_register_changes_with_the_high_byte(bus: FakeBus) -> None:
    bus.write(DMA0, 4, 0x34)
    bus.write(DMA0, POINTER, 0)
    assert bus.read(DMA0, 4) == 0x00
    bus.write(DMA0, 4, 0x12)
    bus.write(DMA0, POINTER, 0)
    assert [bus.read(DMA0, 4) for _ in range(2)] == [0x34, 0x12]


def test_byte_pointer_is_shared_and_cleared(bus: FakeBus) -> None:
    for port, value in ((0, 0x11), (2, 0x22)):  # low byte of channel 0, then high byte of channel 1
        bus.write(DMA0, port, value)
    assert [bus.read(DMA0, 2) for _ in range(2)] == [0x00, 0x22]
    bus.read(DMA0, 0)
    bus.write(DMA0, POINTER, 0)
    assert [bus.read(DMA0, 2) for _ in range(2)] == [0x00, 0x22]


def test_the_chips_have_pointers_of_their_own(bus: FakeBus) -> None:
    bus.write(DMA0, 0, 0x11)
    bus.write(DMA1, 0, 0x22)
    bus.write(DMA1, 0, 0x33)
    assert [bus.read(DMA1, 0) for _ in range(2)] == [0x22, 0x33]


@pytest.mark.parametrize(("chip", "shift"), PORTS)
def test_masks(bus: FakeBus, chip: int, shift: int) -> None:
    assert masked(bus, chip) == 0xFF
    bus.write(chip, UNMASK << shift, 0)
    assert masked(bus, chip) == 0x00
    bus.write(chip, SINGLE << shift, 0x06)
    assert masked(bus, chip) == 0x04
    bus.write(chip, SINGLE << shift, 0x02)
    assert masked(bus, chip) == 0x00
    bus.write(chip, MASK << shift, 0x0A)
    assert masked(bus, chip) == 0x0A
    bus.write(chip, CLEAR << shift, 0)
    assert masked(bus, chip) == 0xFF


def test_word_registers_answer_at_odd_ports_too(bus: FakeBus) -> None:
    bus.write(DMA1, (MASK << 1) + 1, 0x05)
    assert bus.read(DMA1, REQUEST << 1) == bus.read(DMA1, (REQUEST << 1) + 1) == 0x05


@pytest.mark.parametrize(("chip", "shift"), PORTS)
def test_requests_show_in_status(bus: FakeBus, chip: int, shift: int) -> None:
    bus.set(f"drq{chip * 4 + 1}", 1)
    bus.write(chip, REQUEST << shift, 0x06)
    assert bus.read(chip, STATUS << shift) == 0x60
    bus.write(chip, REQUEST << shift, 0x02)
    bus.set(f"drq{chip * 4 + 1}", 0)
    assert bus.read(chip, STATUS << shift) == 0x00


def test_a_request_without_a_client_moves_nothing(bus: FakeBus) -> None:
    bus.write(DMA0, UNMASK, 0)
    bus.set("drq3", 1)
    assert bus.read(DMA0, STATUS) == 0x80
    assert not bus.effects


def test_page_registers(bus: FakeBus) -> None:
    named = [n for n in range(15) if bus.write(PAGE, n, 0x40 + n) == 0]
    assert [0x81 + n for n in named] == [0x81, 0x82, 0x83, 0x87, 0x89, 0x8A, 0x8B, 0x8F]
    assert [bus.read(PAGE, n) for n in named] == [0x40 + n for n in named]
    assert bus.read(PAGE, 3) == 0xFF, "84h is nobody's"
    state = bus.dut.inspect()["page"]
    assert [state[c] for c in (2, 3, 1, 0, 6, 7, 5, 4)] == [0x40 + n for n in named]


def test_reset_is_a_master_clear(bus: FakeBus) -> None:
    """Masks, command, status and the byte pointer; addresses, counts, modes and pages stay."""
    bus.write(DMA0, UNMASK, 0)
    bus.write(DMA0, 0, 0x34)
    bus.write(DMA0, 0, 0x12)
    bus.write(DMA0, 2, 0x78)  # the byte pointer is at the high byte
    bus.write(PAGE, 0, 0x55)
    bus.reset()
    fresh = I8237().inspect()
    now = bus.dut.inspect()
    for name in ("mask", "command", "status", "high"):
        assert now[name] == fresh[name], name
    assert bus.read(PAGE, 0) == 0x55
    assert [bus.read(DMA0, 0), bus.read(DMA0, 0)] == [0x34, 0x12]
    bus.reset(0)
    assert bus.dut.save()["page"] == I8237().save()["page"]
