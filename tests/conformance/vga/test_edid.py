"""EDID: VESA E-EDID Standard, Release A, Revision 2, by section; RECORDED is what a recorded guest read."""

from __future__ import annotations

import pytest

from engine.devices.edid import edid
from engine.devices.vga import Vga
from engine.testing.bus import FakeBus

RECORDED = (
    bytes.fromhex(
        "00ffffffffffff0049143412000000002a180104a520147806ee91a3544c99260f5054210800e1c0d1c0d100a940b300"
        "950081808140ea2900c051201c304026444045cb10000018000000f7000a004082002820000000000000000000fd0032"
        "7d1ea0ff010a202020202020000000fc0051454d55204d6f6e69746f720a013a02030b00467d6560591f61"
    )
    + (b"\0\0\0\x10" + bytes(14)) * 6  # unused descriptors
    + bytes(8)
    + b"\x2f"
)


def test_default_monitor_is_the_recorded_one() -> None:
    assert edid()[:256].hex() == RECORDED.hex()
    bus = FakeBus(Vga())
    assert bytes(bus.read(2, n) for n in range(384)) == edid()
    assert bus.read(2, 0, 8) == int.from_bytes(RECORDED[:8], "little")
    assert bus.read(2, 384, 4) == 0xFFFFFFFF


def test_without_a_monitor_there_is_nothing() -> None:
    bus = FakeBus(Vga(edid=False))
    assert bus.read(2, 0, 8) == (1 << 64) - 1


@pytest.mark.parametrize("size", [(640, 480), (1366, 768), (1920, 1080), (3840, 2160), (5120, 2880)])
def test_blocks_add_up_to_zero(size: tuple[int, int]) -> None:
    """3.3, 3.11: each block's bytes add up to 0, and byte 126 counts the extensions."""
    data = edid(*size)
    assert [sum(data[n : n + 128]) % 256 for n in (0, 128, 256)] == [0, 0, 0]
    large = size[0] >= 3840
    assert data[126] == 1 + large
    assert (data[128], data[256]) == (0x02, 0x70 if large else 0)


def test_detailed_timing_says_the_preferred_picture() -> None:
    """3.10.2."""
    data = edid(1600, 900)[54:72]
    assert (data[2] | (data[4] & 0xF0) << 4, data[5] | (data[7] & 0xF0) << 4) == (1600, 900)
    blank = data[3] | (data[4] & 0x0F) << 8, data[6] | (data[7] & 0x0F) << 8
    clock = int.from_bytes(data[:2], "little") * 10000
    assert abs(clock / ((1600 + blank[0]) * (900 + blank[1])) - 75) < 0.01
    assert (data[12] | (data[14] & 0xF0) << 4, data[13] | (data[14] & 0x0F) << 8) == (406, 228), (
        "millimetres at 100 dots an inch"
    )


def test_greatest_picture_leaves_out_the_modes_above() -> None:
    """3.8, 3.9: established and standard timings."""
    data = edid(640, 480, 800, 600)
    assert data[35:38] == b"\x21\0\0" and data[38:54] == b"\1\1" * 8
    assert edid(640, 480)[36] == 0x08, "1024 x 768"


def test_name_is_cut_to_the_descriptor() -> None:
    """3.10.3.4."""
    assert b"A very long \n" in edid(name="A very long name of a monitor")
    assert b"\0\0\0\xfc\0Short\n" + b" " * 7 in edid(name="Short")
