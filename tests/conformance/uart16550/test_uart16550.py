"""NS16550A: scenarios of the PC16550D data sheet, section 8."""

from __future__ import annotations

import pytest

from engine._device import PACKET
from engine.devices.uart16550 import Uart16550
from engine.errors import MachineError
from engine.testing.bus import FakeBus

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7
DR, OE, BI, THRE_TEMT = 0x01, 0x02, 0x10, 0x60
CHAR_NS = 86805  # ten bits at 115200 baud


@pytest.fixture
def bus() -> FakeBus:
    """115200 8N1, interrupts off, FIFOs off."""
    b = FakeBus(Uart16550(backend="log"))
    b.write(0, LCR, 0x83)
    b.write(0, DLL, 1)
    b.write(0, DLM, 0)
    b.write(0, LCR, 0x03)
    return b


def receive(bus: FakeBus, *data: int) -> None:
    for byte in data:
        bus.input(PACKET, 0, 0, byte)


def test_8_1_dlab_shows_the_divisor(bus: FakeBus) -> None:
    bus.write(0, LCR, 0x80)
    bus.write(0, DLL, 0x34)
    bus.write(0, DLM, 0x12)
    assert (bus.read(0, DLL), bus.read(0, DLM)) == (0x34, 0x12)
    bus.write(0, LCR, 0x00)
    assert (bus.read(0, RBR), bus.read(0, IER)) == (0x00, 0x00)


def test_8_4_lsr_is_read_only(bus: FakeBus) -> None:
    bus.write(0, LSR, 0x1F)
    assert bus.read(0, LSR) == THRE_TEMT


def test_8_4_overrun_without_fifo_loses_the_old_character(bus: FakeBus) -> None:
    receive(bus, 1, 2)
    assert bus.read(0, LSR) == THRE_TEMT | DR | OE
    assert bus.read(0, LSR) == THRE_TEMT | DR, "reading clears OE"
    assert bus.read(0, RBR) == 2


def test_8_4_overrun_with_fifo_loses_the_new_character(bus: FakeBus) -> None:
    bus.write(0, FCR, 0x01)
    receive(bus, *range(17))
    assert bus.read(0, LSR) & OE
    assert [bus.read(0, RBR) for _ in range(17)] == [*range(16), 0]
    assert bus.read(0, LSR) == THRE_TEMT


def test_8_4_break(bus: FakeBus) -> None:
    bus.write(0, IER, 0x04)
    bus.input(PACKET, 1, 0, 0)
    assert bus.read(0, IIR) == 0x06
    assert bus.read(0, LSR) == THRE_TEMT | BI | DR
    assert not bus.level("irq")
    assert bus.read(0, RBR) == 0


def test_8_5_changing_the_fifo_mode_clears_both(bus: FakeBus) -> None:
    bus.write(0, FCR, 0x01)
    receive(bus, 1, 2, 3)
    bus.write(0, FCR, 0x00)
    assert bus.read(0, LSR) == THRE_TEMT
    assert bus.read(0, IIR) == 0x01


def test_8_5_receiver_reset_is_momentary(bus: FakeBus) -> None:
    bus.write(0, FCR, 0x01)
    receive(bus, 1, 2)
    bus.write(0, FCR, 0x03)
    receive(bus, 3)
    assert bus.read(0, RBR) == 3
    assert bus.read(0, IIR) == 0xC1


@pytest.mark.parametrize(("fcr", "level"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_8_5_trigger_levels(bus: FakeBus, fcr: int, level: int) -> None:
    bus.write(0, FCR, fcr)
    bus.write(0, IER, 0x01)
    for n in range(1, level + 1):
        assert not bus.level("irq")
        receive(bus, n)
    assert bus.read(0, IIR) == 0xC4
    bus.read(0, RBR)
    assert not bus.level("irq"), "below the level again"


def test_8_6_priorities(bus: FakeBus) -> None:
    """Line status, received data, transmitter empty: each hides the lower ones."""
    bus.write(0, IER, 0x0F)
    receive(bus, 1, 2)
    seen = []
    for clear in (LSR, RBR, None):
        iir = bus.read(0, IIR)
        seen.append(iir)
        if clear is not None:
            bus.read(0, clear)
    assert seen == [0x06, 0x04, 0x02]
    assert bus.read(0, IIR) == 0x01, "reading IIR ended the THRE interrupt"
    assert not bus.level("irq")


def test_8_7_enabling_thre_with_an_empty_transmitter_interrupts(bus: FakeBus) -> None:
    bus.write(0, IER, 0x02)
    assert bus.read(0, IIR) == 0x02
    assert not bus.level("irq")
    bus.write(0, IER, 0x02)
    assert not bus.level("irq"), "only a change enables"
    bus.write(0, IER, 0x00)
    bus.write(0, IER, 0x02)
    assert bus.level("irq")


def test_8_7_thre_ends_and_returns_with_each_character(bus: FakeBus) -> None:
    bus.write(0, IER, 0x02)
    bus.take()
    bus.write(0, THR, 0x41)
    assert [v for _, v in bus.edges("irq")] == [0, 1]
    assert bus.read(0, LSR) == THRE_TEMT
    assert bus.dut.output() == b"A"


def test_8_8_loopback(bus: FakeBus) -> None:
    bus.write(0, MCR, 0x1F)
    assert bus.read(0, MSR) == 0xF0
    for mcr, msr in ((0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80)):
        bus.write(0, MCR, mcr)
        assert bus.read(0, MSR) == msr
    bus.write(0, THR, 0x5A)
    assert bus.read(0, RBR) == 0x5A
    assert bus.dut.output() == b"", "nothing leaves"


def test_8_9_modem_lines_are_on(bus: FakeBus) -> None:
    assert bus.read(0, MSR) == 0xB0


def test_8_10_scratch(bus: FakeBus) -> None:
    for value in range(256):
        bus.write(0, SCR, value)
        assert bus.read(0, SCR) == value


def test_8_11_character_timeout(bus: FakeBus) -> None:
    """Four character times after the last character or read; a read of all ends it."""
    bus.write(0, FCR, 0xC1)
    bus.write(0, IER, 0x01)
    receive(bus, 1, 2)
    bus.step(4 * CHAR_NS - 1)
    assert not bus.level("irq")
    bus.step(1)
    assert bus.read(0, IIR) == 0xCC
    assert bus.read(0, RBR) == 1
    assert not bus.level("irq")
    bus.step(4 * CHAR_NS)
    assert bus.read(0, IIR) == 0xCC, "one is still there"
    bus.read(0, RBR)
    bus.step(10 * CHAR_NS)
    assert bus.read(0, IIR) == 0xC1


@pytest.mark.parametrize(
    ("lcr", "divisor", "ns"), [(0x03, 1, 86805), (0x03, 12, 1041666), (0x1F, 1, 104166), (0x00, 0, 2000000)]
)
def test_8_11_timeout_follows_the_line_settings(bus: FakeBus, lcr: int, divisor: int, ns: int) -> None:
    bus.write(0, LCR, 0x80)
    bus.write(0, DLL, divisor)
    bus.write(0, LCR, lcr)
    bus.write(0, FCR, 0x01)
    receive(bus, 1)
    assert bus.dut.deadline == bus.t_ns + 4 * ns


def test_accesses_are_bytes(bus: FakeBus) -> None:
    bus.write(0, LCR, 0x80)
    bus.write(0, DLL, 0x0102, size=2)
    assert bus.read(0, DLL, size=2) == 0x0102
    assert bus.read(0, LCR, size=4) == 0xB0 << 24 | THRE_TEMT << 16 | 0x08 << 8 | 0x80


def test_output_keeps_the_last_bytes() -> None:
    bus = FakeBus(Uart16550(backend="log", keep=8))
    for byte in b"0123456789":
        bus.write(0, THR, byte)
    assert bus.dut.output() == b"23456789"
    quiet = FakeBus(Uart16550())
    quiet.write(0, THR, 0x41)
    assert quiet.dut.output() == b""


@pytest.mark.parametrize("config", [{"backend": "tape"}, {"backend": "log", "keep": 12}, {"keep": "much"}])
def test_settings_are_checked(config: dict) -> None:
    with pytest.raises(MachineError):
        Uart16550(**config)


def test_reset(bus: FakeBus) -> None:
    bus.write(0, FCR, 0xC1)
    bus.write(0, IER, 0x0F)
    receive(bus, 1, 2, 3)
    bus.reset()
    assert bus.dut.save() == Uart16550().save() | {"now": bus.dut.now}
    assert not bus.level("irq")


def test_save_and_restore_with_a_timeout_due(bus: FakeBus) -> None:
    bus.write(0, FCR, 0xC1)
    bus.write(0, IER, 0x01)
    receive(bus, 1, 2)
    other = FakeBus(Uart16550())
    other.dut.restore(bus.dut.save())
    other.step(4 * CHAR_NS)
    assert other.edges("irq") == [(4 * CHAR_NS, 1)]
    assert [other.read(0, RBR) for _ in range(3)] == [1, 2, 0]
