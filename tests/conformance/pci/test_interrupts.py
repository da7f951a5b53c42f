"""PCI Local Bus Specification 3.0: INTA# (2.2.6, 6.2.2, 6.2.3), MSI (6.8.1), MSI-X (6.8.2)."""

import pytest

from engine._device import Dma
from engine.errors import MachineError
from engine.pci._msi import add_msi
from engine.pci._msix import add_msix
from engine.testing._function import InterruptFunction
from engine.testing.bus import FakeBus

CONFIG = 7
COMMAND, STATUS = 0x04, 0x06
MASTER, INTX_DISABLE = 0x0004, 0x0400
NOTIFY, REQUEST, TABLE, PENDING = 0, 4, 0x400, 0x800
LAPIC = 0xFEE01000


def make(**config):
    bus = FakeBus(InterruptFunction(dma=Dma(bytearray(4096)), **config))
    bus.write(CONFIG, COMMAND, MASTER, 2)
    return bus


@pytest.fixture
def bus():
    return make()


def messages(bus):
    return [(e.pin, e.addr, e.value) for e in bus.take() if e.kind == "message"]


def enable_msi(bus, vectors_log2=0, data=0x4040, address=LAPIC):
    at, _ = bus.dut.capabilities
    bus.write(CONFIG, at + 4, address & 0xFFFFFFFF, 4)
    bus.write(CONFIG, at + 8, address >> 32, 4)
    bus.write(CONFIG, at + 12, data, 2)
    bus.write(CONFIG, at + 2, vectors_log2 << 4 | 1, 2)
    return at


def enable_msix(bus):
    _, at = bus.dut.capabilities
    for n in range(4):
        bus.write(0, TABLE + 16 * n, LAPIC, 8)
        bus.write(0, TABLE + 16 * n + 8, 0x50 + n, 8)
    bus.write(CONFIG, at + 2, 0x8000, 2)
    return at


# ---------------------------------------------------------------------- INTA#


def test_6_2_3_interrupt_status_and_pin_follow_the_request(bus):
    bus.write(0, REQUEST, 1, 4)
    assert bus.level("inta") and bus.read(CONFIG, STATUS, 2) & 0x08
    bus.write(0, REQUEST, 0, 4)
    assert bus.edges("inta") == [(0, 1), (0, 0)] and not bus.read(CONFIG, STATUS, 2) & 0x08


def test_6_2_2_intx_disable_gates_the_pin_but_not_the_status(bus):
    bus.write(CONFIG, COMMAND, INTX_DISABLE, 2)
    bus.write(0, REQUEST, 1, 4)
    assert not bus.level("inta") and bus.read(CONFIG, STATUS, 2) & 0x08
    bus.write(CONFIG, COMMAND, 0, 2)
    assert bus.level("inta")
    bus.write(CONFIG, COMMAND + 1, INTX_DISABLE >> 8)
    assert not bus.level("inta")


def test_4_3_2_reset_takes_the_request_back(bus):
    bus.write(0, REQUEST, 1, 4)
    bus.reset()
    assert not bus.level("inta") and not bus.read(CONFIG, STATUS, 2) & 0x08


# ---------------------------------------------------------------------- MSI


@pytest.mark.parametrize(("is64", "maskable", "control"), [(0, 0, 0x04), (1, 0, 0x84), (0, 1, 0x104), (1, 1, 0x184)])
def test_6_8_1_3_control(is64, maskable, control):
    bus = make(is64=bool(is64), maskable=bool(maskable))
    at, _ = bus.dut.capabilities
    assert bus.read(CONFIG, at) == 0x05 and bus.read(CONFIG, at + 2, 2) == control
    bus.write(CONFIG, at + 2, 0xFFFE, 2)
    assert bus.read(CONFIG, at + 2, 2) == control | 0x70
    bus.write(CONFIG, at + 4, 0xFFFFFFFF, 4)
    assert bus.read(CONFIG, at + 4, 4) == 0xFFFFFFFC


def test_6_8_1_disabled_sends_nothing(bus):
    bus.write(0, NOTIFY, 0, 4)
    assert messages(bus) == []


def test_6_8_1_one_message(bus):
    enable_msi(bus)
    bus.write(0, NOTIFY, 0, 4)
    assert messages(bus) == [(0, LAPIC, 0x4040)]


def test_6_8_1_32_bit_layout():
    bus = make(is64=False, maskable=False, vectors=1)
    at, _ = bus.dut.capabilities
    bus.write(CONFIG, at + 4, LAPIC, 4)
    bus.write(CONFIG, at + 8, 0x31, 2)
    bus.write(CONFIG, at + 2, 1, 2)
    bus.write(0, NOTIFY, 0, 4)
    assert messages(bus) == [(0, LAPIC, 0x31)]


def test_6_8_1_6_low_data_bits_are_the_vector(bus):
    enable_msi(bus, vectors_log2=2, data=0x4043)
    for n in range(4):
        bus.write(0, NOTIFY, n, 4)
    assert messages(bus) == [(n, LAPIC, 0x4040 | n) for n in range(4)]


def test_6_8_1_3_fewer_vectors_than_asked_for_share(bus):
    enable_msi(bus, vectors_log2=1, data=0x4040)
    bus.write(0, NOTIFY, 3, 4)
    assert messages(bus) == [(1, LAPIC, 0x4041)]


def test_6_8_1_3_more_vectors_than_asked_for_are_cut(bus):
    at = enable_msi(bus, vectors_log2=5)
    assert bus.read(CONFIG, at + 2, 2) & 0x70 == 0x20


def test_6_8_1_7_a_masked_vector_is_remembered(bus):
    at = enable_msi(bus, vectors_log2=2)
    bus.write(CONFIG, at + 16, 0x0000000A, 4)
    for n in (1, 2, 3):
        bus.write(0, NOTIFY, n, 4)
    assert messages(bus) == [(2, LAPIC, 0x4042)] and bus.read(CONFIG, at + 20, 4) == 0x0A
    bus.write(CONFIG, at + 20, 0, 4)  # pending bits are read-only
    bus.write(CONFIG, at + 16, 0x00000008, 4)
    assert messages(bus) == [(1, LAPIC, 0x4041)] and bus.read(CONFIG, at + 20, 4) == 0x08


def test_6_8_messages_replace_the_pin(bus):
    bus.write(0, REQUEST, 1, 4)
    enable_msi(bus)
    assert not bus.level("inta") and not bus.read(CONFIG, STATUS, 2) & 0x08


def test_6_8_a_message_is_a_bus_master_write(bus):
    enable_msi(bus)
    bus.write(CONFIG, COMMAND, 0, 2)
    bus.write(0, NOTIFY, 0, 4)
    assert messages(bus) == []


@pytest.mark.parametrize("address", [0x100, 0x100 | 1 << 40])
def test_6_8_a_message_to_ram_is_written_there(bus, address):
    enable_msi(bus, address=address)
    bus.write(0, NOTIFY, 0, 4)
    assert messages(bus) == []
    assert bus.dut.dma.read_bytes(0x100, 4) == (b"\x40\x40\0\0" if address < 4096 else bytes(4))


@pytest.mark.parametrize("vectors", [0, 3, 64])
def test_msi_vectors_are_a_power_of_two_up_to_32(vectors):
    with pytest.raises(MachineError):
        add_msi(InterruptFunction(), vectors)


# ---------------------------------------------------------------------- MSI-X


def test_6_8_2_capability(bus):
    _, at = bus.dut.capabilities
    assert bus.read(CONFIG, at) == 0x11 and bus.read(CONFIG, at + 2, 2) == 3
    assert bus.read(CONFIG, at + 4, 4) == TABLE and bus.read(CONFIG, at + 8, 4) == PENDING
    bus.write(CONFIG, at, 0xFFFFFFFF, 4)
    assert bus.read(CONFIG, at + 2, 2) == 0xC003


def test_6_8_2_9_entries_are_masked_after_reset(bus):
    bus.write(0, TABLE + 12, 0, 4)
    bus.reset()
    assert [bus.read(0, TABLE + 16 * n + 12, 4) for n in range(4)] == [1] * 4


def test_6_8_2_each_vector_has_its_own_message(bus):
    enable_msix(bus)
    for n in range(5):
        bus.write(0, NOTIFY, n, 4)
    assert messages(bus) == [(n, LAPIC, 0x50 + n) for n in range(4)]


def test_6_8_2_9_an_entry_that_is_unmasked_sends_what_it_remembers(bus):
    enable_msix(bus)
    bus.write(0, TABLE + 0x1C, 1, 4)
    bus.write(0, NOTIFY, 1, 4)
    bus.write(0, NOTIFY, 1, 4)
    assert messages(bus) == [] and bus.read(0, PENDING, 8) == 2
    bus.write(0, TABLE + 0x18, 0x77, 4)
    bus.write(0, TABLE + 0x1C, 0, 4)
    assert messages(bus) == [(1, LAPIC, 0x77)] and bus.read(0, PENDING, 8) == 0


def test_6_8_2_3_function_mask(bus):
    at = enable_msix(bus)
    bus.write(CONFIG, at + 3, 0xC0)
    bus.write(0, NOTIFY, 0, 4)
    bus.write(0, NOTIFY, 3, 4)
    bus.write(0, TABLE + 0x3C, 1, 4)
    assert messages(bus) == [] and bus.read(0, PENDING, 4) == 9
    bus.write(CONFIG, at + 3, 0x80)
    assert messages(bus) == [(0, LAPIC, 0x50)] and bus.read(0, PENDING, 4) == 8


def test_6_8_2_pending_bits_are_read_only(bus):
    bus.write(0, PENDING, 0xFF, 4)
    assert bus.status != 0 and bus.read(0, PENDING, 4) == 0


@pytest.mark.parametrize(
    "args",
    [(0, 0, 0, 0, 0), (2049, 0, 0, 0, 0), (4, 0, 0xFF0, 0, 0), (4, 0, 4, 0, 0), (4, 1, 0, 0, 0), (4, 0, 0, 6, 0)],
)
def test_msix_table_lies_in_a_bar(args):
    with pytest.raises(MachineError):
        add_msix(InterruptFunction(), *args)


def test_save_restore_carries_pending_messages(bus):
    enable_msix(bus)
    bus.write(0, TABLE + 12, 1, 4)
    bus.write(0, NOTIFY, 0, 4)
    other = make()
    other.dut.restore(bus.dut.save())
    assert other.dut.save() == bus.dut.save() and messages(other) == []
    other.write(0, TABLE + 12, 0, 4)
    assert messages(other) == [(0, LAPIC, 0x50)]
