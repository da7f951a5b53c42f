"""The Bochs display interface: VBE display API, and the limits that QEMU's adapter has."""

from __future__ import annotations

import pytest

from engine.devices.vga import Vga
from engine.testing.bus import FakeBus

VBE, MMIO, WINDOW = 13, 2, 14
ID, XRES, YRES, BPP, ENABLE, BANK, VIRT_WIDTH, VIRT_HEIGHT, X_OFFSET, Y_OFFSET, MEMORY = range(11)
ENABLED, GETCAPS, DAC_8BIT, LFB, NOCLEAR = 0x01, 0x02, 0x20, 0x40, 0x80


class Rig(FakeBus):
    """The adapter with its display interface."""

    def __init__(self) -> None:
        self.vga = Vga()
        super().__init__(self.vga)

    def get(self, index: int) -> int:
        self.write(VBE, 0, index, 2)
        return self.read(VBE, 1, 2)

    def put(self, index: int, value: int) -> None:
        self.write(VBE, 0, index, 2)
        self.write(VBE, 1, value, 2)

    def mode(self, x: int, y: int, bpp: int, flags: int = LFB) -> None:
        self.put(ENABLE, 0)
        self.put(XRES, x)
        self.put(YRES, y)
        self.put(BPP, bpp)
        self.put(ENABLE, ENABLED | flags)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_index_and_data_ports(rig: Rig) -> None:
    rig.put(XRES, 640)
    assert rig.read(VBE, 0, 2) == XRES
    assert rig.read(VBE, 1, 2) == rig.read(VBE, 2, 2) == 640, "data is at both ports behind the index"
    assert rig.read(VBE, 3, 2) == 0xFFFF
    assert rig.read(VBE, 1, 1) == 0xFF and rig.read(VBE, 0, 4) == 0xFFFFFFFF, "only 16-bit accesses"


def test_id_takes_the_known_versions(rig: Rig) -> None:
    assert rig.get(ID) == 0xB0C5
    for value, want in ((0xB0C0, 0xB0C0), (0xB0C4, 0xB0C4), (0xB0C6, 0xB0C4), (0x1234, 0xB0C4), (0xB0C5, 0xB0C5)):
        rig.put(ID, value)
        assert rig.get(ID) == want


def test_memory_size_and_unknown_registers(rig: Rig) -> None:
    assert rig.get(MEMORY) == 256
    rig.put(MEMORY, 1)
    assert rig.get(MEMORY) == 256
    rig.put(11, 1)
    assert rig.get(11) == 0 and rig.get(0xFFFF) == 0


def test_getcaps_reads_the_limits(rig: Rig) -> None:
    rig.put(ENABLE, GETCAPS)
    assert [rig.get(n) for n in (XRES, YRES, BPP, ENABLE)] == [16000, 12000, 32, GETCAPS]


def test_registers_are_free_until_enabled_then_limited(rig: Rig) -> None:
    rig.put(XRES, 1027)
    assert rig.get(XRES) == 1027
    rig.mode(1027, 768, 32)
    assert [rig.get(n) for n in (XRES, YRES, VIRT_WIDTH, VIRT_HEIGHT)] == [1024, 768, 1024, 4096]
    rig.put(XRES, 0xFFFF)
    assert rig.get(XRES) == 16000 and rig.get(YRES) == 262, "height follows the memory: 16 MiB / 64000"
    rig.put(BPP, 7)
    assert rig.get(BPP) == 8
    rig.put(XRES, 0)
    rig.put(YRES, 0)
    assert (rig.get(XRES), rig.get(YRES)) == (8, 1)


def test_offsets_that_leave_the_memory_go_back(rig: Rig) -> None:
    rig.mode(1024, 768, 32)
    rig.put(X_OFFSET, 16)
    rig.put(Y_OFFSET, 4096 - 768 - 1)
    assert (rig.get(X_OFFSET), rig.get(Y_OFFSET)) == (16, 3327)
    rig.put(Y_OFFSET, 3328)
    assert (rig.get(X_OFFSET), rig.get(Y_OFFSET)) == (16, 0), "down first, then aside"


def test_enabling_starts_clean_at_the_origin(rig: Rig) -> None:
    memory = rig.vga.memory()
    memory[0] = memory[640 * 480 - 1] = memory[640 * 480] = 1
    rig.put(X_OFFSET, 5)
    rig.mode(640, 480, 8, NOCLEAR)
    assert memory[0] == 1 and rig.get(X_OFFSET) == 0
    rig.mode(640, 480, 8)
    assert (memory[0], memory[640 * 480 - 1], memory[640 * 480]) == (0, 0, 1)
    memory[0] = 1
    rig.put(ENABLE, ENABLED | DAC_8BIT)
    assert memory[0] == 1, "only switching on clears"
    assert rig.vga.inspect()["dac_8bit"] == 1


def test_bank_moves_the_window(rig: Rig) -> None:
    rig.mode(640, 480, 8, 0)
    rig.put(BANK, 0x0103)
    assert rig.get(BANK) == 3, "within the memory"
    rig.write(WINDOW, 5, 0x5A)
    assert rig.vga.memory()[0x30005] == 0x5A and rig.read(WINDOW, 5) == 0x5A
    rig.put(ENABLE, 0)
    assert rig.vga.inspect()["bank_offset"] == 0


def test_vga_registers_describe_the_picture(rig: Rig) -> None:
    rig.write(10, 2, 1)
    rig.mode(1024, 768, 16)

    def vga(region: int, offset: int, index: int) -> int:
        rig.write(region, offset, index)
        return rig.read(region, offset + 1)

    assert vga(11, 0, 0x01) == 127 and vga(11, 0, 0x13) == 0x00, "2048 bytes a line do not fit the offset's eight bits"
    assert (vga(11, 0, 0x12), vga(11, 0, 0x07) & 0x42) == (0xFF, 0x40)
    assert vga(10, 14, 6) & 0x0F == 0x05
    rig.write(10, 14, 0x0E06, 2)
    assert vga(10, 14, 6) & 0x0F == 0x07, "and are put right again"


def test_mmio_registers(rig: Rig) -> None:
    rig.write(MMIO, 0x502, 640, 2)
    assert rig.read(VBE, 0, 2) == XRES, "an access there moves the index"
    assert rig.get(XRES) == 640
    rig.write(MMIO, 0x502, 480 << 16 | 800, 4)
    assert rig.read(MMIO, 0x500, 8) == 480 << 32 | 800 << 16 | 0xB0C5
    assert rig.read(MMIO, 0x503) == 800 & 0xFF, "half a register is its low half"
    assert rig.read(MMIO, 0x514, 2) == 256 and rig.read(MMIO, 0x516, 2) == 0xFFFF
