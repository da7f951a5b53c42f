"""The picture that a VGA's registers and memory describe: a pure function, without a device, a clock or a display.

Sources: IBM VGA/XGA Technical Reference Manual, VGA Function (TRM); Bochs VBE display API (DISPI); PNG Specification,
Third Edition (PNG).  Where a register leaves a choice, the picture is the reference's; docs/devices/vga.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NO_MODE = (640, 480)  # size of the black picture while the registers describe none
CELL = 4  # bytes of memory at one address: a byte of each plane
GLYPH_ROWS = 32  # bytes of a character in the font, TRM: Sequencer, Character Map Select
FONT_CELLS = 8192
DUPLICATED = (0xB0, 0xDF)  # characters drawn over the ninth dot, as the reference has them; TRM: C0h to DFh

# Bits that only a picture asks for.  TRM: the register's own page.
CLOCKING_8_DOTS = 0x01
CLOCKING_HALF = 0x08
MISC_GRAPHICS = 0x01
MODE_SHIFT, MODE_SHIFT_AT = 0x60, 5
CRTC_MODE_NO_CGA, CRTC_MODE_NO_HERCULES, CRTC_MODE_BYTE = 0x01, 0x02, 0x40
CURSOR_OFF, CURSOR_ROWS = 0x20, 0x1F
SCAN_ROWS, SCAN_DOUBLE = 0x1F, 0x80
ATT_INDEX_SOURCE = 0x20  # Attribute Controller, Address: the palette drives the screen
ATT_MODE_LINE_GRAPHICS, ATT_MODE_BLINK, ATT_MODE_COLOR_45 = 0x04, 0x08, 0x80
BLINK_OR_INTENSE = 8  # the background's fourth bit
DISPI_ENABLED = 0x01


class Picture(NamedTuple):
    """Three bytes a pixel, red first, from the top left corner, without gaps between the lines."""

    width: int
    height: int
    rgb: bytes

    def array(self) -> Array:
        """The same as a height x width x 3 array of uint8."""
        return np.frombuffer(self.rgb, np.uint8).reshape(self.height, self.width, 3)

    def ppm(self) -> bytes:
        """A binary portable pixmap."""
        return b"P6\n%d %d\n255\n" % (self.width, self.height) + self.rgb

    def png(self) -> bytes:
        """PNG 11.2: signature, IHDR (8 bits, truecolour), one IDAT of unfiltered lines, IEND."""
        stride = 3 * self.width
        lines = b"".join(b"\0" + self.rgb[at : at + stride] for at in range(0, len(self.rgb), stride))
        head = self.width.to_bytes(4, "big") + self.height.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))
        out = b"\x89PNG\r\n\x1a\n"
        for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
            out += len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        return out


def draw(
    registers: Mapping[str, int], palette: bytes, memory: Any, *, cursor: bool = True, blink: bool | None = None
) -> Picture:
    """What a monitor would show.

    registers: values by the names of the VGA's register map, and ATT_INDEX, DAC_8BIT, LINE_OFFSET and START_ADDR (of
    DISPI), BIG_ENDIAN; SEQ_* as they are in force.  palette: 256 times red, green, blue as the DAC holds them.
    cursor: the text cursor is in its visible phase.  blink: blinking characters are in their visible phase; None: bit 7
    of an attribute is a bit of the background's colour even where it should blink.
    """
    screen = _Screen(registers, palette, np.frombuffer(memory, np.uint8))
    r = registers
    pixels = screen.graphics() if r["GFX_MISC"] & MISC_GRAPHICS else screen.text(cursor, blink)
    if pixels is None:
        return Picture(*NO_MODE, bytes(3 * NO_MODE[0] * NO_MODE[1]))
    if not r["ATT_INDEX"] & ATT_INDEX_SOURCE:
        pixels = np.zeros_like(pixels)
    return Picture(pixels.shape[1], pixels.shape[0], np.ascontiguousarray(pixels).tobytes())


class _Screen:
    """One picture in the making."""

    def __init__(self, r: Mapping[str, int], palette: bytes, memory: Array) -> None:
        self.r = r
        self.memory = memory
        self.dac = np.frombuffer(palette, np.uint8).reshape(256, 3)
        self.dispi = r["DISPI_ENABLE"] & DISPI_ENABLED
        overflow, scan = r["CRTC_OVERFLOW"], r["CRTC_MAX_SCAN"]
        self.lines = 1 + (r["CRTC_V_DISPLAY_END"] | (overflow & 0x02) << 7 | (overflow & 0x40) << 3)
        self.characters = r["CRTC_H_DISPLAY_END"] + 1
        self.bpp = 0
        if self.dispi:
            self.pitch, self.start, self.split = r["LINE_OFFSET"], r["START_ADDR"] * CELL, -1
            self.lines, self.bpp = r["DISPI_YRES"], r["DISPI_BPP"]
        else:
            self.pitch = r["CRTC_OFFSET"] << 3
            self.start = (r["CRTC_START_LOW"] | r["CRTC_START_HIGH"] << 8) * CELL
            self.split = r["CRTC_LINE_COMPARE"] | (overflow & 0x10) << 4 | (scan & 0x40) << 3

    def fetch(self, at: int, n: int) -> Array:
        """n bytes of memory at `at`, from the beginning again behind its end."""
        at %= len(self.memory)
        if at + n <= len(self.memory):
            return self.memory[at : at + n]
        return np.take(self.memory, np.arange(at, at + n), mode="wrap")

    # ------------------------------------------------------------------ colours

    def colors(self) -> Array:
        """The sixteen colours of the attribute controller's palette.  TRM: Internal Palette, Color Select."""
        page, own = self.r["ATT_COLOR_SELECT"], np.array([self.r[f"ATT_PALETTE_{n}"] for n in range(16)])
        high, low = (0x0F, 0x0F) if self.r["ATT_MODE"] & ATT_MODE_COLOR_45 else (0x0C, 0x3F)
        return _six_to_eight(self.dac[(page & high) << 4 | own & low])

    def all_colors(self) -> Array:
        """The DAC's 256 colours."""
        return self.dac if self.r["DAC_8BIT"] else _six_to_eight(self.dac)

    # ------------------------------------------------------------------ text

    def text(self, cursor: bool, blink: bool | None) -> Array | None:
        """TRM: Alphanumeric modes.  Bytes of planes 0 and 1 are character and attribute, plane 2 holds the fonts."""
        r, rows = self.r, (self.r["CRTC_MAX_SCAN"] & SCAN_ROWS) + 1
        columns, height = self.characters, self.lines // rows
        if columns * height <= 1:
            return None
        colors = self.colors()
        fonts = [self.font(b, a) for b, a in ((0x10, 0x03), (0x20, 0x0C))]
        line_graphics = r["ATT_MODE"] & ATT_MODE_LINE_GRAPHICS != 0
        dots = 8 if r["SEQ_CLOCKING_MODE"] & (CLOCKING_8_DOTS | CLOCKING_HALF) else 9
        at, line, out = self.start, 0, []
        for _ in range(height):
            cells = self.fetch(at, columns * CELL).reshape(columns, CELL)
            character, attribute = cells[:, 0], cells[:, 1]
            glyphs = np.where((attribute & 8 != 0)[:, None], fonts[1][character], fonts[0][character])[:, :rows]
            ink = np.unpackbits(glyphs, axis=1).reshape(columns, rows, 8)
            if dots == 9:
                again = (character >= DUPLICATED[0]) & (character <= DUPLICATED[1]) & line_graphics
                ink = np.concatenate((ink, ink[:, :, 7:] & again[:, None, None]), axis=2)
            paper = attribute >> 4
            if blink is not None and r["ATT_MODE"] & ATT_MODE_BLINK:
                if not blink:
                    ink = ink * (paper & BLINK_OR_INTENSE == 0)[:, None, None]
                paper = paper & ~np.uint8(BLINK_OR_INTENSE)
            if cursor:
                self.cursor(ink, at, columns, rows)
            pixels = np.where(ink[..., None] != 0, colors[attribute & 15][:, None, None], colors[paper][:, None, None])
            out.append(pixels.transpose(1, 0, 2, 3).reshape(rows, columns * dots, 3))
            at += self.pitch
            if line < self.split <= line + rows:
                at = 0
            line += rows
        picture = np.concatenate(out)
        return np.repeat(picture, 2, axis=1) if r["SEQ_CLOCKING_MODE"] & CLOCKING_HALF else picture

    def font(self, low: int, high: int) -> Array:
        """256 characters of GLYPH_ROWS bytes.  TRM: Character Map Select: `low`, `high`, bits of one map."""
        v = self.r["SEQ_CHARACTER_MAP"]
        number = (v & low != 0) | (v & high) // (high // 3) << 1
        return self.fetch(number * FONT_CELLS * CELL, 256 * GLYPH_ROWS * CELL)[2::CELL].reshape(256, GLYPH_ROWS)

    def cursor(self, ink: Array, at: int, columns: int, rows: int) -> None:
        """TRM: Cursor Start, Cursor End, Cursor Location."""
        r = self.r
        first, last = r["CRTC_CURSOR_START"] & CURSOR_ROWS, min(r["CRTC_CURSOR_END"] & CURSOR_ROWS, rows - 1)
        column, odd = divmod((r["CRTC_CURSOR_HIGH"] << 8 | r["CRTC_CURSOR_LOW"]) * CELL - at, CELL)
        if not r["CRTC_CURSOR_START"] & CURSOR_OFF and not odd and 0 <= column < columns:
            ink[column, first : last + 1] = 1

    # ------------------------------------------------------------------ graphics

    def graphics(self) -> Array:
        """TRM: Graphics modes; DISPI: the linear ones."""
        r = self.r
        width = r["DISPI_XRES"] if self.dispi else self.characters * 8
        shift = (r["GFX_MODE"] & MODE_SHIFT) >> MODE_SHIFT_AT
        wide = shift < 2 and r["SEQ_CLOCKING_MODE"] & CLOCKING_HALF
        decode: Callable[[Array], Array]
        if shift == 0:
            n, decode = width // 8 * CELL, self.planar
        elif shift == 1:
            n, decode = width // 8 * CELL, self.cga
        elif not self.bpp:
            n, decode, wide = width // 8 * CELL, self.bytes, True
        elif self.bpp == 8:
            n, decode = width, self.bytes
        else:
            n, decode = width * (self.bpp + 7 >> 3), getattr(self, f"linear{self.bpp}")
        drawn: dict[int, int] = {}  # address -> line of `lines`
        lines: list[Array] = []
        order = []
        for at in self.addresses():
            if at not in drawn:
                drawn[at] = len(lines)
                lines.append(decode(self.fetch(at, n)))
            order.append(drawn[at])
        picture = np.stack(lines)[order]
        return np.repeat(picture, 2, axis=1) if wide else picture

    def addresses(self) -> list[int]:
        """Address of each line.  TRM: Maximum Scan Line, Mode Control (bits 0 and 1), Line Compare."""
        r, mode, at, row, out = self.r, self.r["CRTC_MODE"], self.start, 0, []
        double = r["CRTC_MAX_SCAN"] & SCAN_DOUBLE != 0
        repeat = (((r["CRTC_MAX_SCAN"] & SCAN_ROWS) + 1) << double) - 1 if mode & CRTC_MODE_NO_CGA else int(double)
        left, interleave = repeat, mode & 3 ^ 3
        for y in range(self.lines):
            a = at
            if not mode & CRTC_MODE_NO_CGA:
                bit = 15 if mode & CRTC_MODE_BYTE else 14
                a = a & ~(1 << bit) | (row & 1) << bit
            if not mode & CRTC_MODE_NO_HERCULES:
                a = a & ~0x8000 | (row & 2) << 14
            out.append(a)
            if left:
                left -= 1
            else:
                if row & interleave == interleave:
                    at += self.pitch
                row += 1
                left = repeat
            if y == self.split:
                at = 0
        return out

    def planar(self, data: Array) -> Array:
        """Sixteen colours: bit n of the four bytes of a cell.  TRM: Color Plane Enable."""
        bits = np.unpackbits(data.reshape(-1, CELL), axis=1).reshape(-1, CELL, 8)
        return self.colors()[self.enabled(bits).reshape(-1)]

    def cga(self, data: Array) -> Array:
        """Two bits a pixel: four pixels of planes 0 and 2, then four of planes 1 and 3.  TRM: Graphics Mode."""
        pairs = (data.reshape(-1, CELL, 1) >> np.array([6, 4, 2, 0], np.uint8)) & 3
        enable = self.r["ATT_PLANE_ENABLE"]
        pairs = pairs * np.array([enable >> n & 1 for n in range(CELL)], np.uint8)[:, None]
        pixels = np.concatenate((pairs[:, 0] | pairs[:, 2] << 2, pairs[:, 1] | pairs[:, 3] << 2), axis=1)
        return self.colors()[pixels.reshape(-1)]

    def enabled(self, bits: Array) -> Array:
        """cells x planes x dots of single bits -> the number of each dot's colour."""
        weights = [(1 << n) & self.r["ATT_PLANE_ENABLE"] for n in range(CELL)]
        return np.tensordot(bits.astype(np.int64), weights, axes=(1, 0))

    def bytes(self, data: Array) -> Array:
        """256 colours."""
        return self.all_colors()[data]

    def words(self, data: Array) -> Array:
        return data.view(">u2" if self.r["BIG_ENDIAN"] else "<u2").astype(np.uint32)

    def linear15(self, data: Array) -> Array:
        """Five bits of each; the low three of eight stay zero, as in the reference."""
        v = self.words(data)
        return np.stack((v >> 7 & 0xF8, v >> 2 & 0xF8, v << 3 & 0xF8), axis=1).astype(np.uint8)

    def linear16(self, data: Array) -> Array:
        """Five, six and five bits; the upper ones fill the lower."""
        v = self.words(data)
        r, g, b = v >> 11, v >> 5 & 0x3F, v & 0x1F
        return np.stack((r << 3 | r >> 2, g << 2 | g >> 4, b << 3 | b >> 2), axis=1).astype(np.uint8)

    def linear24(self, data: Array) -> Array:
        order = (0, 1, 2) if self.r["BIG_ENDIAN"] else (2, 1, 0)
        return data.reshape(-1, 3)[:, order]

    def linear32(self, data: Array) -> Array:
        order = (1, 2, 3) if self.r["BIG_ENDIAN"] else (2, 1, 0)
        return data.reshape(-1, 4)[:, order]


def _six_to_eight(dac: Array) -> Array:
    """A DAC of six bits: the lowest one fills the two below it, as in the reference."""
    low = dac & 1
    return (dac & 0x3F) << 2 | low << 1 | low
