"""Identification data of a virtual monitor, as a display adapter shows it to its guest.

Documents: VESA E-EDID Standard, Release A, Revision 2 (EDID 1.4), by section; CTA-861 (the extension block); VESA
DisplayID 1.3.  The monitor is QEMU's: its choice of modes, timings and texts, so that guests see the bytes they see
there.
"""

from __future__ import annotations

import struct

SIZE = 384  # base block, CTA-861 extension, room for a DisplayID extension
BLOCK = 128
DESCRIPTOR = 18

# Established Timings III (3.10.3.9), established timings (3.8) and CTA-861 video codes that the monitor offers:
# (width, height, byte of the bitmap or None, bit, CTA code or None).  The order decides which get one of the eight
# standard timings.
MODES = (
    (5120, 2160, None, 0, 125), (4096, 2160, None, 0, 101), (3840, 2160, None, 0, 96), (2560, 1080, None, 0, 89),
    (2048, 1152, None, 0, None), (1920, 1080, None, 0, 31),
    (1920, 1200, 10, 0, None), (1600, 1200, 9, 2, None), (1680, 1050, 9, 5, None), (1440, 900, 8, 5, None),
    (1280, 1024, 7, 1, None), (1280, 960, 7, 3, None), (1280, 768, 7, 6, None), (1920, 1440, 11, 5, None),
    (1856, 1392, 10, 3, None), (1792, 1344, 10, 5, None), (1440, 1050, 8, 1, None), (1360, 768, 8, 7, None),
    (3840, 2160, None, 0, 97),
)  # fmt: skip
ESTABLISHED = ((1024, 768, 36, 3), (800, 600, 35, 0), (640, 480, 35, 5))  # (width, height, byte, bit) of 3.8
ASPECTS = ((16, 10), (4, 3), (5, 4), (16, 9))  # in the order of 3.9's two bits
SRGB = (0.6400, 0.3300, 0.3000, 0.6000, 0.1500, 0.0600, 0.3127, 0.3290)  # red, green, blue, white: x, y


def _timing(refresh: int, width: int, height: int) -> tuple[int, ...]:
    """(clock in 10 kHz, horizontal front porch, sync, blank, vertical front porch, sync, blank); `refresh` in mHz."""
    xblank, yblank = width * 35 // 100, height * 35 // 1000
    clock = refresh * (width + xblank) * (height + yblank) // 10000000
    return clock, width * 25 // 100, width * 3 // 100, xblank, height * 5 // 1000, height * 5 // 1000, yblank


def _detailed(timing: tuple[int, ...], width: int, height: int, mm: tuple[int, int]) -> bytes:
    """A detailed timing descriptor (3.10.2): separate digital syncs, no border."""
    clock, xfront, xsync, xblank, yfront, ysync, yblank = timing
    return struct.pack(
        "<H15BB", clock & 0xFFFF, width & 0xFF, xblank & 0xFF, (width >> 8 & 15) << 4 | xblank >> 8 & 15,
        height & 0xFF, yblank & 0xFF, (height >> 8 & 15) << 4 | yblank >> 8 & 15, xfront & 0xFF, xsync & 0xFF,
        (yfront & 15) << 4 | ysync & 15,
        (xfront >> 8 & 3) << 6 | (xsync >> 8 & 3) << 4 | (yfront >> 4 & 3) << 2 | ysync >> 4 & 3,
        mm[0] & 0xFF, mm[1] & 0xFF, (mm[0] >> 8 & 15) << 4 | mm[1] >> 8 & 15, 0, 0, 0x18)  # fmt: skip


def _display(kind: int, body: bytes) -> bytes:
    """A display descriptor (3.10.3)."""
    return (bytes((0, 0, 0, kind, 0)) + body).ljust(DESCRIPTOR, b"\0")


def _text(kind: int, text: str) -> bytes:
    return _display(kind, (text.encode()[:12] + b"\n").ljust(13))


def _checksum(block: bytearray, last: int = BLOCK - 1) -> None:
    """Make the bytes before `last` and the one at it add up to 0."""
    block[last] = -sum(block[:last]) & 0xFF


def _standard(width: int, height: int) -> bytes | None:
    """A standard timing at 60 Hz (3.9); None for a shape it cannot say."""
    for n, (x, y) in enumerate(ASPECTS):
        if width * y == height * x and width // 8 - 31 <= 255:
            return bytes((width // 8 - 31, n << 6))
    return None


def edid(width: int = 1280, height: int = 800, max_width: int = 0, max_height: int = 0, refresh: int = 75000,
         name: str = "QEMU Monitor") -> bytes:  # fmt: skip
    """The monitor's 384 bytes; `refresh` in mHz, a maximum of 0 for none."""
    mm = tuple(pixels * 254 // 1000 for pixels in (width, height))  # 100 dots an inch
    timing = _timing(refresh, width, height)
    large = width >= 4096 or height >= 4096 or timing[0] >= 65536  # more than a detailed timing can say
    base, cta, displayid = bytearray(BLOCK), bytearray(BLOCK), bytearray(BLOCK)

    # 3.3, 3.4: header, "RHT", model 1234h, week 42 of 2014, EDID 1.4.
    base[:20] = struct.pack("<8sHHIBBBB", b"\0" + b"\xff" * 6 + b"\0", 0x1449, 0x1234, 0, 42, 2014 - 1990, 1, 4)
    # 3.6: digital DisplayPort with 8 bits a colour, size in cm, gamma 2.2, sRGB and a preferred timing.
    base[20:25] = bytes((0xA5, mm[0] // 10 & 0xFF, mm[1] // 10 & 0xFF, 220 - 100, 0x06))
    colours = [int(c * 1024 + 0.5) for c in SRGB]  # 3.7: ten bits each, the low two apart
    for n, c in enumerate(colours):
        base[25 + n // 4] |= (c & 3) << (6 - 2 * (n % 4))
        base[27 + n] = c >> 2

    third, codes, standard = bytearray(12), b"", b""
    for x, y, byte, bit, code in MODES:
        if (max_width and x > max_width) or (max_height and y > max_height):
            continue
        if len(standard) < 16:
            standard += _standard(x, y) or b""
        elif byte is not None:
            third[byte - 6] |= 1 << bit
        if code is not None:
            codes += bytes((code,))
    for x, y, byte, bit in ESTABLISHED:
        if not ((max_width and x > max_width) or (max_height and y > max_height)):
            base[byte] |= 1 << bit
    base[38:54] = standard.ljust(16, b"\1")
    third = bytearray(b"\x0a" + third)  # revision of the list

    wanted = [] if large else [_detailed(timing, width, height, (mm[0], mm[1]))]
    # 3.10.3.3: 50 to 125 Hz, 30 to 160 kHz, 2550 MHz, no formula.
    wanted += [
        _display(0xF7, bytes(third)),
        _display(0xFD, bytes((50, 125, 30, 160, 255, 1)) + b"\n      "),
        _text(0xFC, name),
    ]
    cta[:5] = bytes((2, 3, 5 + len(codes), 0, 0x40 + len(codes)))  # one video data block
    cta[5 : 5 + len(codes)] = codes
    at = 54
    while at + DESCRIPTOR < BLOCK:
        base[at : at + DESCRIPTOR] = wanted.pop(0) if wanted else _display(0x10, b"")
        at += DESCRIPTOR
    at = cta[2]
    while at + DESCRIPTOR < BLOCK:
        cta[at : at + DESCRIPTOR] = wanted.pop(0) if wanted else _display(0x10, b"")
        at += DESCRIPTOR
    base[126] = 1 + large
    if large:  # DisplayID 1.3: one detailed timing of type I
        clock, xfront, xsync, xblank, yfront, ysync, yblank = timing
        header = bytes((0x70, 0x13, 23, 3, 0, 3, 0, 20)) + clock.to_bytes(3, "little") + b"\x88"
        lengths = (width, xblank, xfront, xsync, height, yblank, yfront, ysync)
        displayid[:28] = header + struct.pack("<8H", *(n - 1 & 0xFFFF for n in lengths))
        displayid[28] = -sum(displayid[1:28]) & 0xFF
        _checksum(displayid)
    _checksum(base)
    _checksum(cta)
    return bytes(base + cta + displayid)
