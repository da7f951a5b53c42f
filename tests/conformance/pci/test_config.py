"""PCI Local Bus Specification 3.0, chapter 6: one function with every kind of base address register."""

import pytest

from engine._device import Dma
from engine.errors import MachineError, StateError
from engine.pci._config import PciFunction
from engine.testing.bus import FakeBus
from engine.types import Space

CONFIG = 7
COMMAND, STATUS = 0x04, 0x06
IO, MEMORY, MASTER = 1, 2, 4


class Function(PciFunction):
    """Memory of 4 KiB, I/O of 64 bytes, 64-bit prefetchable memory of 1 MiB, a ROM of 64 KiB."""

    def __init__(self, id="function", rank=0, arena=None, dma=None, **config):
        super().__init__(id, rank, arena, dma, **config)
        self.power_on()
        self.identify(0x1234, 0x5678, 0x9A, 0xBCDEF0, interrupt_pin=1)
        self.add_bar(0, Space.MMIO, 4096)
        self.add_bar(1, Space.PIO, 64)
        self.add_bar(2, Space.MMIO, 1 << 20, prefetch=True, is64=True)
        self.add_rom(65536)
        self.power_on()


@pytest.fixture
def bus():
    return FakeBus(Function(dma=Dma(bytearray(4096))))


def maps(bus):
    return [(e.pin, e.addr, e.value) for e in bus.take() if e.kind == "map"]


def test_6_1_header_fields(bus):
    assert bus.read(CONFIG, 0x00, 4) == 0x56781234
    assert bus.read(CONFIG, 0x08, 4) == 0xBCDEF09A
    assert bus.read(CONFIG, 0x0E) == 0x00
    assert bus.read(CONFIG, 0x3D) == 0x01
    assert bus.dut.identity() == (0x1234, 0x5678, 0x9A, 0xBCDEF0, 0x1AF4, 0x1100)


def test_6_2_4_subsystem_is_a_setting():
    f = Function(subsystem_vendor_id=0x8086, subsystem_id=0x0007)
    assert FakeBus(f).read(CONFIG, 0x2C, 4) == 0x00078086


def test_6_1_read_only_and_reserved_bytes_ignore_writes(bus):
    before = [bus.read(CONFIG, n) for n in range(0x40)]
    for n in (
        *range(0x04),
        0x08,
        0x09,
        0x0A,
        0x0B,
        0x0D,
        0x0E,
        0x0F,
        *range(0x20, 0x30),
        *range(0x34, 0x3C),
        0x3D,
        0x3E,
        0x3F,
    ):
        bus.write(CONFIG, n, 0xFF)
        assert bus.read(CONFIG, n) == before[n], hex(n)


def test_3_2_2_3_byte_enables_touch_only_their_bytes(bus):
    bus.write(CONFIG, 0x40, 0x44332211, 4)
    bus.write(CONFIG, 0x41, 0xAA)
    bus.write(CONFIG, 0x42, 0xCCBB, 2)
    assert bus.read(CONFIG, 0x40, 4) == 0xCCBBAA11
    assert bus.read(CONFIG, 0x41, 2) == 0xBBAA


def test_bytes_past_the_end_read_zero_and_vanish(bus):
    bus.write(CONFIG, 0xFE, 0x44332211, 4)
    assert bus.read(CONFIG, 0xFE, 4) == 0x2211
    assert bus.read(CONFIG, 0x100, 1) == 0xFF and bus.status != 0


def test_6_2_2_command_bits(bus):
    bus.write(CONFIG, COMMAND, 0xFFFF, 2)
    assert bus.read(CONFIG, COMMAND, 2) == 0x0507
    bus.write(CONFIG, COMMAND, 0, 2)
    assert bus.read(CONFIG, COMMAND, 2) == 0


@pytest.mark.parametrize(
    ("reg", "mask"),
    [
        (0x10, 0xFFFFF000),
        (0x14, 0xFFFFFFC1),
        (0x18, 0xFFF0000C),
        (0x1C, 0xFFFFFFFF),
        (0x20, 0),
        (0x24, 0),
        (0x30, 0xFFFF0001),
    ],
)
def test_6_2_5_1_sizing(bus, reg, mask):
    bus.write(CONFIG, COMMAND, IO | MEMORY, 2)
    bus.take()
    bus.write(CONFIG, reg, 0xFFFFFFFF, 4)
    assert bus.read(CONFIG, reg, 4) == mask
    if reg not in (0x18, 0x1C):  # half of a 64-bit register in ones is an address like any other
        assert maps(bus) == []  # while it is being sized it answers nowhere


def test_6_2_5_1_a_bar_is_mapped_behind_its_gate(bus):
    bus.write(CONFIG, 0x10, 0xFEBF1000, 4)
    bus.write(CONFIG, 0x14, 0xC041, 4)
    assert maps(bus) == []
    bus.write(CONFIG, COMMAND, IO, 2)
    assert maps(bus) == [(1, 1, 0xC040)]
    bus.write(CONFIG, COMMAND, MEMORY, 2)
    assert maps(bus) == [(0, 1, 0xFEBF1000), (1, 0, 0)]
    bus.write(CONFIG, 0x11, 0x20)
    assert maps(bus) == [(0, 1, 0xFEBF2000)]
    bus.write(CONFIG, 0x10, 0, 4)  # address 0 counts as none
    assert maps(bus) == [(0, 0, 0)]


def test_6_2_5_1_a_64_bit_bar_needs_both_halves(bus):
    bus.write(CONFIG, COMMAND, MEMORY, 2)
    bus.write(CONFIG, 0x1C, 0x00000012, 4)
    bus.write(CONFIG, 0x18, 0x34500000, 4)
    assert maps(bus) == [(2, 1, 0x12 << 32), (2, 1, 0x12_3450_0000)]
    assert (2, 1, 0x12_3450_0000) in bus.dut.mappings()


def test_6_2_5_1_a_32_bit_range_never_reaches_the_top(bus):
    bus.write(CONFIG, COMMAND, MEMORY, 2)
    bus.write(CONFIG, 0x10, 0xFFFFE000, 4)
    assert maps(bus) == [(0, 1, 0xFFFFE000)]
    bus.write(CONFIG, 0x10, 0xFFFFF000, 4)
    assert maps(bus) == [(0, 0, 0)]


def test_6_2_5_2_rom_needs_its_own_enable_too(bus):
    bus.write(CONFIG, 0x30, 0xFEB00000, 4)
    bus.write(CONFIG, COMMAND, MEMORY, 2)
    assert maps(bus) == []
    bus.write(CONFIG, 0x30, 0xFEB00001, 4)
    assert maps(bus) == [(6, 1, 0xFEB00000)]
    bus.write(CONFIG, COMMAND, 0, 2)
    assert maps(bus) == [(6, 0, 0)]


def test_6_2_2_bus_master_gates_dma(bus):
    f = bus.dut
    assert not f.dma.write_bytes(0, b"\x55")
    bus.write(CONFIG, COMMAND, MASTER, 2)
    assert f.dma.write_bytes(0, b"\x55") and f.dma.read_bytes(0, 1) == b"\x55"
    bus.write(CONFIG, COMMAND, 0, 2)
    assert f.dma.read_bytes(0, 1) == b"\x00"


def test_6_7_capabilities_are_a_list_and_read_only(bus):
    f = bus.dut
    assert bus.read(CONFIG, STATUS, 2) & 0x10 == 0
    first, second = f.add_capability(0x09, 7), f.add_capability(0x01, 8)
    f.power_on()
    assert (first, second) == (0x40, 0x48)
    assert bus.read(CONFIG, STATUS, 2) & 0x10
    seen, at = [], bus.read(CONFIG, 0x34)
    while at:
        seen.append(bus.read(CONFIG, at))
        at = bus.read(CONFIG, at + 1)
    assert seen == [0x01, 0x09]
    bus.write(CONFIG, 0x44, 0xFFFFFFFF, 4)
    assert bus.read(CONFIG, 0x44, 4) == 0xFF000000  # byte 47h belongs to no capability
    with pytest.raises(MachineError, match="no room"):
        f.add_capability(0x09, 0xC0)


@pytest.mark.parametrize(
    "args",
    [
        (6, Space.MMIO, 4096),
        (0, Space.MMIO, 5000),
        (0, Space.MMIO, 8),
        (0, Space.PIO, 2),
        (0, Space.PIO, 512),
        (0, Space.MMIO, 1 << 32),
        (5, Space.MMIO, 4096, False, True),
        (0, Space.PIO, 64, False, True),
    ],
)
def test_6_2_5_1_impossible_bars_are_refused(args):
    f = PciFunction("bare")
    f.power_on()
    f.identify(1, 2, 3, 4)
    with pytest.raises(MachineError):
        f.add_bar(*args)


@pytest.mark.parametrize("n", [0, 2, 3])
def test_6_2_5_1_a_bar_is_declared_once(n):
    f = Function()
    with pytest.raises(MachineError, match="taken"):
        f.add_bar(n, Space.MMIO, 4096)


def test_regions_keep_their_numbers(bus):
    names = [(r.name, r.space, r.size) for r in bus.dut.regions()]
    assert names[1] == ("bar1", Space.PIO, 64)
    assert names[2] == ("bar2", Space.MMIO, 1 << 20)
    assert names[3][2] == names[4][2] == names[5][2] == 0
    assert names[6] == ("rom", Space.MMIO, 65536)
    assert names[7] == ("config", Space.CONFIG, 256)
    assert bus.dut.regions()[7].barrier and not bus.dut.regions()[7].posted


def test_4_3_2_reset_unmaps_and_closes_the_gates(bus):
    bus.write(CONFIG, 0x10, 0xFEBF1000, 4)
    bus.write(CONFIG, 0x3C, 0x0B)
    bus.write(CONFIG, COMMAND, MEMORY | MASTER, 2)
    bus.take()
    bus.reset()
    assert maps(bus) == [(0, 0, 0)]
    assert bus.read(CONFIG, 0x10, 4) == 0 and bus.read(CONFIG, COMMAND, 2) == 0 and bus.read(CONFIG, 0x3C) == 0
    assert not bus.dut.dma.write_bytes(0, b"\x55")


def test_restore_brings_mappings_and_gates_without_effects(bus):
    bus.write(CONFIG, 0x10, 0xFEBF1000, 4)
    bus.write(CONFIG, COMMAND, MEMORY | MASTER, 2)
    saved = bus.dut.save()
    other = FakeBus(Function(dma=Dma(bytearray(4096))))
    other.dut.restore(saved)
    assert other.dut.save() == saved and other.take() == []
    assert other.dut.mappings()[0] == (0, 1, 0xFEBF1000)
    assert other.dut.dma.write_bytes(0, b"\x55")
    with pytest.raises(StateError):
        other.dut.restore({**saved, "config": saved["config"][:-1]})
