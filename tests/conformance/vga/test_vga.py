"""The VGA's register groups (IBM VGA/XGA Technical Reference Manual, VGA function) and memory, each access by hand."""

from __future__ import annotations

import pytest

from engine.devices.vga import Vga
from engine.errors import MachineError
from engine.testing.bus import FakeBus

FRAMEBUFFER, MMIO, ROM, CONFIG, WINDOW = 0, 2, 6, 7, 14
RANGES = ((0x3B4, 2, 8), (0x3BA, 1, 9), (0x3C0, 16, 10), (0x3D4, 2, 11), (0x3DA, 1, 12), (0x1CE, 4, 13))
SEQ, GFX, CRTC = 0x3C4, 0x3CE, 0x3D4
MAP_MASK, MEMORY_MODE = 2, 4
SET_RESET, ENABLE_SET_RESET, COLOR_COMPARE, ROTATE, READ_MAP, MODE, MISC, DONT_CARE, BIT_MASK = range(9)


class Rig(FakeBus):
    """A colour VGA behind its ports."""

    def __init__(self, **config: object) -> None:
        self.vga = Vga(**config)
        super().__init__(self.vga)
        self.outb(0x3C2, 0x01)

    def port(self, port: int) -> tuple[int, int]:
        for base, n, region in RANGES:
            if base <= port < base + n:
                return region, port - base
        raise AssertionError(hex(port))

    def inb(self, port: int) -> int:
        return self.read(*self.port(port))

    def outb(self, port: int, value: int) -> None:
        self.write(*self.port(port), value)

    def put(self, port: int, index: int, value: int) -> None:
        """An indexed register, in one word access."""
        self.write(*self.port(port), value << 8 | index, 2)

    def get(self, port: int, index: int) -> int:
        self.outb(port, index)
        return self.inb(port + 1)

    def planar(self) -> None:
        """64 KiB at A0000h, four planes, all written, write mode 0 without function or mask."""
        self.put(SEQ, MEMORY_MODE, 0x06)
        self.put(SEQ, MAP_MASK, 0x0F)
        self.put(GFX, MISC, 0x05)
        self.put(GFX, BIT_MASK, 0xFF)

    def cell(self, n: int) -> bytes:
        """The four planes of byte n."""
        return bytes(self.vga.memory()[4 * n : 4 * n + 4])


@pytest.fixture
def rig() -> Rig:
    return Rig()


# ---------------------------------------------------------------------- general registers


def test_miscellaneous_output_places_the_crt_controller(rig: Rig) -> None:
    rig.put(CRTC, 0x0C, 0x12)
    assert rig.get(CRTC, 0x0C) == 0x12
    assert rig.inb(0x3B5) == 0xFF and rig.inb(0x3BA) == 0xFF
    rig.outb(0x3C2, 0xEE)
    assert rig.inb(0x3CC) == 0xEE
    assert rig.inb(0x3D5) == 0xFF and rig.inb(0x3DA) == 0xFF
    rig.put(CRTC, 0x0C, 0x34)
    assert rig.get(0x3B4, 0x0C) == 0x12, "a write at the wrong place is lost"


def test_input_status_1_toggles_for_whoever_waits(rig: Rig) -> None:
    first = [rig.inb(0x3DA) & 0x09 for _ in range(4)]
    assert first == [0x09, 0x00, 0x09, 0x00]


def test_feature_control(rig: Rig) -> None:
    rig.outb(0x3DA, 0xFF)
    assert rig.inb(0x3CA) == 0x10


def test_a_word_is_two_ports_and_a_longer_access_none(rig: Rig) -> None:
    rig.put(SEQ, 3, 0x2A)
    assert rig.read(*rig.port(SEQ), 2) == 0x2A03
    assert rig.read(*rig.port(0x3C5), 2) == 0x2A, "at an odd port, the DAC mask, which is not there, follows"
    rig.write(*rig.port(SEQ), 0x01020304, 4)
    assert rig.read(*rig.port(SEQ), 2) == 0x2A03
    assert rig.read(*rig.port(SEQ), 4) == 0xFFFFFFFF


# ---------------------------------------------------------------------- attribute controller


def test_attribute_flip_flop(rig: Rig) -> None:
    rig.inb(0x3DA)
    rig.outb(0x3C0, 0x31)
    assert rig.inb(0x3C0) == 0, "the address reads back only while the next write is an address"
    rig.outb(0x3C0, 0xAB)
    assert rig.inb(0x3C0) == 0x31 and rig.inb(0x3C1) == 0xAB
    rig.outb(0x3C0, 0x12)
    rig.inb(0x3DA)
    rig.outb(0x3C0, 0x32)
    assert rig.inb(0x3C1) == 0, "reading input status 1 made it an address again"


# ---------------------------------------------------------------------- CRT controller


def test_vertical_retrace_end_protects_registers_0_to_7(rig: Rig) -> None:
    for index in range(8):
        rig.put(CRTC, index, 0x0F)
    rig.put(CRTC, 0x11, 0x80)
    for index in range(9):
        rig.put(CRTC, index, 0xF0)
    assert [rig.get(CRTC, n) for n in range(9)] == [0x0F] * 7 + [0x1F, 0xF0], "line compare bit 8 stays writable"
    rig.put(CRTC, 0x11, 0x00)
    rig.put(CRTC, 0x00, 0xF0)
    assert rig.get(CRTC, 0) == 0xF0


# ---------------------------------------------------------------------- DAC


def test_dac_writes_and_reads_three_bytes_a_colour(rig: Rig) -> None:
    rig.outb(0x3C8, 0xFF)
    assert rig.inb(0x3C7) == 0
    for v in (1, 2, 3, 4, 5, 6):
        rig.outb(0x3C9, v)
    assert rig.inb(0x3C8) == 0x01, "after 255 comes 0"
    rig.outb(0x3C7, 0xFF)
    assert rig.inb(0x3C7) == 3
    assert [rig.inb(0x3C9) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    rig.outb(0x3C8, 0x10)
    rig.outb(0x3C9, 9)
    rig.outb(0x3C8, 0x10)
    for v in (7, 7, 7):
        rig.outb(0x3C9, v)
    rig.outb(0x3C7, 0x10)
    assert [rig.inb(0x3C9) for _ in range(3)] == [7, 7, 7], "a colour that was begun is dropped with a new address"


# ---------------------------------------------------------------------- memory: addressing


@pytest.mark.parametrize(
    ("memory_map", "start", "size"), [(0, 0, 0x20000), (1, 0, 0x10000), (2, 0x10000, 0x8000), (3, 0x18000, 0x8000)]
)
def test_memory_map_select(rig: Rig, memory_map: int, start: int, size: int) -> None:
    rig.put(SEQ, MEMORY_MODE, 0x0E)
    rig.put(SEQ, MAP_MASK, 0x0F)
    rig.put(GFX, MISC, memory_map << 2)
    for offset in range(0, 0x20000, 0x2000):
        rig.write(WINDOW, offset, 0x5A)
        answers = start <= offset < start + size
        assert rig.read(WINDOW, offset) == (0x5A if answers else 0xFF)
        assert rig.vga.memory()[max(offset - start, 0)] == (
            0x5A if answers else rig.vga.memory()[max(offset - start, 0)]
        )
    last = start + size - 1
    rig.write(WINDOW, last, 0x77)
    assert rig.vga.memory()[size - 1] == 0x77


def test_an_access_across_the_end_of_the_map_is_cut(rig: Rig) -> None:
    rig.put(SEQ, MEMORY_MODE, 0x0E)
    rig.put(SEQ, MAP_MASK, 0x0F)
    rig.put(GFX, MISC, 0x04)
    rig.write(WINDOW, 0xFFFE, 0x44332211, 4)
    assert rig.read(WINDOW, 0xFFFC, 8) == 0xFFFFFFFF_22110000
    assert bytes(rig.vga.memory()[0xFFFE:0x10002]) == b"\x11\x22\0\0"


def test_chain_4_and_the_map_mask(rig: Rig) -> None:
    rig.put(SEQ, MEMORY_MODE, 0x0E)
    rig.put(SEQ, MAP_MASK, 0x05)
    rig.put(GFX, MISC, 0x05)
    rig.write(WINDOW, 0, 0x8877665544332211, 8)
    assert rig.cell(0) + rig.cell(1) == b"\x11\0\x33\0\x55\0\x77\0"


def test_odd_even_is_text(rig: Rig) -> None:
    rig.put(SEQ, MEMORY_MODE, 0x02)
    rig.put(SEQ, MAP_MASK, 0x03)
    rig.put(GFX, MODE, 0x10)
    rig.put(GFX, MISC, 0x0E)
    rig.write(WINDOW, 0x18000, 0x0741, 2)
    rig.write(WINDOW, 0x18002, 0x07420743, 4)
    assert [rig.cell(n) for n in range(3)] == [b"A\x07\0\0", b"C\x07\0\0", b"B\x07\0\0"]
    assert rig.read(WINDOW, 0x18000, 8) == 0x0742074307_41
    rig.put(GFX, READ_MAP, 2)
    assert rig.read(WINDOW, 0x18000, 2) == 0, "bit 1 of the read map chooses the other pair of planes"


# ---------------------------------------------------------------------- memory: write modes, read modes


def test_write_mode_0_rotates_sets_and_combines(rig: Rig) -> None:
    rig.planar()
    rig.write(WINDOW, 0, 0xC3)
    assert rig.cell(0) == b"\xc3" * 4
    rig.put(GFX, ROTATE, 3)
    rig.write(WINDOW, 1, 0x81)
    assert rig.cell(1) == b"\x30" * 4
    rig.put(GFX, ROTATE, 0)
    rig.put(GFX, ENABLE_SET_RESET, 0b0110)
    rig.put(GFX, SET_RESET, 0b0011)
    rig.write(WINDOW, 2, 0x55)
    assert rig.cell(2) == b"\x55\xff\x00\x55"
    rig.put(SEQ, MAP_MASK, 0b1000)
    rig.write(WINDOW, 2, 0x99)
    assert rig.cell(2) == b"\x55\xff\x00\x99"


@pytest.mark.parametrize(("function", "result"), [(0, 0b0101), (1, 0b0001), (2, 0b0111), (3, 0b0110)])
def test_functions_combine_with_the_latches(rig: Rig, function: int, result: int) -> None:
    rig.planar()
    rig.write(WINDOW, 0, 0b0011)
    rig.read(WINDOW, 0)
    rig.put(GFX, ROTATE, function << 3)
    rig.write(WINDOW, 1, 0b0101)
    assert rig.cell(1) == bytes((result,)) * 4


def test_bit_mask_keeps_the_latches(rig: Rig) -> None:
    rig.planar()
    rig.write(WINDOW, 0, 0xAA)
    rig.read(WINDOW, 0)
    rig.put(GFX, BIT_MASK, 0x0F)
    rig.write(WINDOW, 1, 0x55)
    assert rig.cell(1) == b"\xa5" * 4


def test_write_mode_1_copies_the_latches(rig: Rig) -> None:
    rig.planar()
    rig.vga.memory()[0:4] = b"\x11\x22\x33\x44"
    rig.read(WINDOW, 0)
    rig.put(GFX, MODE, 1)
    rig.put(GFX, BIT_MASK, 0)
    rig.put(SEQ, MAP_MASK, 0b0111)
    rig.write(WINDOW, 5, 0xEE)
    assert rig.cell(5) == b"\x11\x22\x33\0"


def test_write_mode_2_expands_a_colour(rig: Rig) -> None:
    rig.planar()
    rig.put(GFX, MODE, 2)
    rig.put(GFX, BIT_MASK, 0xF0)
    rig.write(WINDOW, 0, 0xFA)
    assert rig.cell(0) == b"\x00\xf0\x00\xf0"


def test_write_mode_3_masks_set_reset(rig: Rig) -> None:
    rig.planar()
    rig.put(GFX, MODE, 3)
    rig.put(GFX, SET_RESET, 0b1001)
    rig.put(GFX, ROTATE, 4)
    rig.put(GFX, BIT_MASK, 0x3F)
    rig.write(WINDOW, 0, 0xF1)
    assert rig.cell(0) == b"\x1f\0\0\x1f"


def test_read_mode_0_reads_one_plane(rig: Rig) -> None:
    rig.planar()
    rig.vga.memory()[8:12] = b"\x01\x02\x03\x04"
    assert [(rig.put(GFX, READ_MAP, n), rig.read(WINDOW, 2))[1] for n in range(4)] == [1, 2, 3, 4]


def test_read_mode_1_compares_colours(rig: Rig) -> None:
    rig.planar()
    rig.put(GFX, MODE, 0x08)
    rig.vga.memory()[0:4] = bytes((0b1111, 0b0011, 0b0101, 0b0000))
    rig.put(GFX, COLOR_COMPARE, 0b0011)
    rig.put(GFX, DONT_CARE, 0b1111)
    assert rig.read(WINDOW, 0) == 0b00000010
    rig.put(GFX, DONT_CARE, 0b1011)
    assert rig.read(WINDOW, 0) == 0b00000011
    rig.put(GFX, DONT_CARE, 0)
    assert rig.read(WINDOW, 0) == 0xFF


# ---------------------------------------------------------------------- PCI function


def test_pci_identity_and_the_frame_buffer(rig: Rig) -> None:
    assert rig.read(CONFIG, 0, 4) == 0x11111234 and rig.read(CONFIG, 8, 4) == 0x03000002
    assert rig.read(CONFIG, 0x2C, 4) == 0x11001AF4 and rig.read(CONFIG, 0x3D) == 0
    for reg, size in ((0x10, 0xFF000008), (0x14, 0), (0x18, 0xFFFFF000), (0x30, 0xFFFF0001)):
        rig.write(CONFIG, reg, 0xFFFFFFFF, 4)
        assert rig.read(CONFIG, reg, 4) == size
    rig.write(FRAMEBUFFER, 0xFFFFF8, 0x0123456789ABCDEF, 8)
    assert rig.read(FRAMEBUFFER, 0xFFFFFC, 4) == 0x01234567
    assert bytes(rig.vga.memory()[-8:]) == bytes.fromhex("efcdab8967452301")


def test_ports_are_repeated_in_mmio(rig: Rig) -> None:
    rig.write(MMIO, 0x414, 0x0B0C, 2)
    assert rig.get(CRTC, 0x0C) == 0x0B
    assert rig.read(MMIO, 0x415) == 0x0B
    assert rig.read(MMIO, 0x414, 4) == 0x00000B0C
    assert rig.read(MMIO, 0x420, 4) == 0xFFFFFFFF, "nothing between the ranges"


def test_extended_registers(rig: Rig) -> None:
    assert rig.read(MMIO, 0x600, 8) == 0x1E1E1E1E_00000008
    rig.write(MMIO, 0x604, 0xBEBEBEBE, 4)
    rig.write(MMIO, 0x604, 0x12345678, 4)
    assert rig.read(MMIO, 0x604, 4) == 0xBEBEBEBE
    assert rig.read(MMIO, 0x604, 2) == 0, "only whole registers"
    rig.reset(1)
    assert rig.read(MMIO, 0x604, 4) == 0x1E1E1E1E


def test_rom_is_content(rig: Rig) -> None:
    assert rig.vga.contents() == {}
    assert rig.read(ROM, 0, 2) == 0 and rig.content
    rig.vga.set_contents({"rom": b"\x55\xaa\x4e"})
    assert rig.read(ROM, 0, 4) == 0x004EAA55
    assert rig.vga.contents()["rom"][:4] == b"\x55\xaa\x4e\0"
    rig.learn(ROM, 3, 0x99)
    assert rig.read(ROM, 3) == 0x99
    rig.write(ROM, 3, 0)
    assert rig.read(ROM, 3) == 0x99
    with pytest.raises(MachineError):
        rig.vga.set_contents({"rom": bytes(0x10001)})


@pytest.mark.parametrize("mb", [0, 3, 1024, -1])
def test_video_memory_is_a_power_of_two(mb: int) -> None:
    with pytest.raises(MachineError):
        Vga(vgamem_mb=mb)


def test_bus_reset_clears_registers_and_keeps_memory(rig: Rig) -> None:
    rig.planar()
    rig.vga.memory()[0:4] = b"\x11\x22\x33\x44"
    rig.read(WINDOW, 0)
    rig.reset(1)
    assert rig.inb(0x3CC) == 0
    assert [rig.get(GFX, n) for n in range(9)] == [0] * 9
    rig.planar()
    rig.put(GFX, MODE, 1)
    rig.write(WINDOW, 1, 0)
    assert rig.cell(0) == rig.cell(1) == b"\x11\x22\x33\x44", "the latches stay too"


def test_text_screen(rig: Rig) -> None:
    assert rig.vga.text() == [""]
    for index, value in ((0x01, 79), (0x12, 0x8F), (0x07, 0x02), (0x09, 15), (0x13, 40), (0x0D, 80)):
        rig.put(CRTC, index, value)
    cells = rig.vga.memory()
    cells[80 * 4 : 85 * 4 : 4] = b"hello"
    cells[(80 + 24 * 80 + 79) * 4] = 0xDB
    text = rig.vga.text()
    assert text is not None and len(text) == 25
    assert (text[0], text[1], text[24]) == ("hello", "", " " * 79 + "\u2588")
    rig.put(GFX, MISC, 0x01)
    assert rig.vga.text() is None
