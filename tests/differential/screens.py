"""States of a VGA, each with the picture that the reference shows for it.

To record them anew from QEMU: python tests/differential/screens.py > tests/differential/data/screens.txt
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256, shake_256
from pathlib import Path

DATA = Path(__file__).parent / "data" / "screens.txt"
MEMORY = shake_256(b"video memory").digest(1 << 20)
COLORS = shake_256(b"colours").digest(768)
RANDOM = 60  # states made of random registers
FRAMEBUFFER, SLOT = 0xE0000000, 2

SEQ, GFX, ATT, CRTC, DISPI = 0x3C4, 0x3CE, 0x3C0, 0x3D4, 0x1CE
Step = tuple[str, int, int]  # ("b" or "w", port, value); ("i", port, 0) reads a byte


def indexed(port: int, values: Mapping[int, int]) -> Iterator[Step]:
    for n, value in values.items():
        if port == ATT:
            yield from (("i", 0x3DA, 0), ("b", ATT, n), ("b", ATT, value))
        elif port == DISPI:
            yield from (("w", DISPI, n), ("w", DISPI + 1, value))
        else:
            yield from (("b", port, n), ("b", port + 1, value))


def mode(
    clock: int = 1, shift: int = 0x10, misc: int = 0x0E, memory: int = 2, columns: int = 80, lines: int = 400,
    scan: int = 0x0F, pitch: int = 40, crtc: int = 0xA3, start: int = 0, split: int = 0x3FF, fonts: int = 0,
    attributes: int = 0x0C, page: int = 0, enable: int = 15, cursor: tuple[int, int, int] = (0x20, 0, 0),
    source: int = 0x20,
) -> list[Step]:  # fmt: skip
    """A mode of the VGA, every register that the picture knows."""
    last = lines - 1
    return [
        *indexed(DISPI, {4: 0}),
        ("b", 0x3C2, 0x67),
        *indexed(SEQ, {1: clock, 2: 15, 3: fonts, 4: memory}),
        *indexed(GFX, {5: shift, 6: misc}),
        *indexed(CRTC, {0x11: 0, 1: columns - 1, 7: last >> 7 & 2 | last >> 3 & 0x40 | split >> 4 & 0x10}),
        *indexed(CRTC, {0x0A: cursor[0], 0x0B: cursor[1], 0x0E: cursor[2] >> 8, 0x0F: cursor[2] & 255}),
        *indexed(CRTC, {9: scan & 0xBF | split >> 3 & 0x40, 0x12: last & 255}),
        *indexed(CRTC, {0x13: pitch, 0x17: crtc, 0x18: split & 255}),
        *indexed(CRTC, {0x0C: start >> 8, 0x0D: start & 255}),
        *indexed(ATT, {n: n * 5 & 0x3F for n in range(16)}),
        *indexed(ATT, {0x10: attributes, 0x12: enable, 0x14: page}),
        ("i", 0x3DA, 0),
        ("b", ATT, source),
    ]  # fmt: skip


def linear(x: int, y: int, bits: int, virtual: int, dx: int = 0, dy: int = 0, flags: int = 0xC1) -> list[Step]:
    return [
        *indexed(DISPI, {4: 0}),
        *indexed(DISPI, {1: x, 2: y, 3: bits, 4: flags, 6: virtual, 8: dx, 9: dy}),
        ("i", 0x3DA, 0),
        ("b", ATT, 0x20),
    ]


def states() -> Iterator[tuple[str, list[Step]]]:
    """Name, and what to write.  Registers keep what the states before have written."""
    yield "text, 8 dots", mode()
    yield "text, cursor", mode(cursor=(13, 14, 83))
    yield "text, cursor off", mode(cursor=(13 | 0x20, 14, 83))
    yield "text, cursor beyond the glyph", mode(cursor=(3, 31, 161), scan=7)
    yield "text, 9 dots", mode(clock=0)
    yield "text, 9 dots, no line graphics", mode(clock=0, attributes=0x08)
    yield "text, 40 columns", mode(clock=9, columns=40, pitch=20)
    yield "text, two fonts, colour page", mode(clock=8, columns=40, pitch=20, fonts=0x2D, attributes=0x8C, page=5)
    yield (
        "text, 8 rows a character, split",
        mode(clock=0, fonts=0x36, start=0x123, split=160, scan=7, lines=350, page=15),
    )
    yield "12h: 640 x 480, 16 colours", mode(shift=0, misc=5, lines=480, scan=0)
    yield "12h, two planes", mode(shift=0, misc=5, lines=480, scan=0, enable=5)
    yield "12h, start and split", mode(shift=0, misc=5, lines=480, scan=0, start=0x3456, split=300)
    yield "0Dh: 320 x 200, 16 colours", mode(clock=9, shift=0, misc=5, columns=40, scan=0x80, pitch=20)
    yield "13h: 320 x 200, 256 colours", mode(shift=0x40, misc=5, memory=0x0E, scan=1)
    yield "13h, palette of 8 bits", [*mode(shift=0x40, misc=5, memory=0x0E, scan=1), *indexed(DISPI, {4: 0x20})]
    yield "Mode X, second page", mode(shift=0x40, misc=5, memory=6, lines=480, scan=1, start=0x4B00, crtc=0xE3)
    yield (
        "Mode X, doubled, wide pitch",
        mode(shift=0x40, misc=5, memory=6, lines=480, scan=0x80, pitch=48, start=3, crtc=0xE3),
    )
    yield "05h: 320 x 200, 4 colours", mode(clock=9, shift=0x30, misc=15, columns=40, scan=0x81, pitch=20, crtc=0xA2)
    yield "06h: 640 x 200, 2 colours", mode(shift=0, misc=13, scan=0x81, crtc=0xE2)
    yield "Hercules", mode(shift=0, misc=13, lines=348, columns=90, scan=1, pitch=45, crtc=0xA0)
    yield "third of four interleaves", mode(shift=0, misc=13, lines=348, columns=90, scan=3, pitch=45, crtc=0xA1)
    yield "off", mode(shift=0, misc=13, lines=348, columns=90, scan=3, pitch=45, crtc=0xA1, source=0)
    yield "on again", mode(source=0x20)
    for bits in (4, 8, 15, 16, 24, 32):
        yield f"DISPI, {bits} bits", linear(640, 480, bits, 640)
        yield f"DISPI, {bits} bits, virtual width, offsets", linear(320, 200, bits, 648, 64, 100)
    yield "DISPI, 8 bits, palette of 8 bits", linear(640, 480, 8, 640, flags=0xE1)
    source = iter(shake_256(b"registers").digest(64 * RANDOM))

    def below(n: int) -> int:
        return (next(source) << 8 | next(source)) % n

    def pick(*values: int) -> int:
        return values[below(len(values))]

    for n in range(RANDOM):
        misc = pick(14, 5, 13, 1)
        scan, columns = below(256), 2 + below(80)
        lines = max(20 + below(300), 2 * (scan & 31) + 2)
        yield f"random {n}", mode(
            clock=pick(0, 1, 8, 9), shift=pick(0, 0x10, 0x20, 0x30, 0x40, 0x60), misc=misc, memory=pick(2, 6, 14),
            columns=columns, lines=lines, scan=scan, pitch=below(100), crtc=below(256), start=below(65536),
            split=pick(0x3FF, below(300)), fonts=below(64), attributes=below(256), page=below(16), enable=below(16),
            cursor=(below(32), below(32), below(65536)),
        )  # fmt: skip


def palette() -> list[Step]:
    return [("b", 0x3C8, 0), *(("b", 0x3C9, v) for v in COLORS)]


def recorded() -> dict[str, tuple[int, int, str]]:
    """Name -> width, height, SHA-256 of the picture's bytes."""
    out = {}
    for line in DATA.read_text().splitlines():
        width, height, digest, name = line.split(" ", 3)
        out[name] = (int(width), int(height), digest)
    return out


def record(ask: Callable[[list[str]], object], dump: Callable[[], bytes]) -> Iterator[str]:
    """The lines of the data file, from a reference that executes qtest requests and dumps its screen as a PPM."""

    def lines(steps: list[Step]) -> list[str]:
        return [f"inb {port:#x}" if op == "i" else f"out{op} {port:#x} {value:#x}" for op, port, value in steps]

    def shown(steps: list[Step], times: int) -> bytes:
        """Off and on each time, or only what the reference thinks has changed is drawn; this turns the cursor."""
        for _ in range(times):
            ask(["inb 0x3da", "outb 0x3c0 0"])
            dump()
            ask(lines(steps))
            picture = dump()
        return picture

    for register, value in ((0x10, FRAMEBUFFER), (0x04, 0x103)):
        ask([f"outl 0xcf8 {1 << 31 | SLOT << 11 | register:#x}", f"outl 0xcfc {value:#x}"])
    for at in range(0, len(MEMORY), 1 << 15):
        part = base64.b64encode(MEMORY[at : at + (1 << 15)]).decode()
        ask([f"b64write {FRAMEBUFFER + at:#x} {1 << 15:#x} {part}"])
    ask(lines(palette()))
    shown(mode(), 1)  # the cursor's phase is visible from here on
    for name, steps in states():
        _, size, _, rest = shown(steps, 2).split(b"\n", 3)
        width, height = map(int, size.split())
        stride = 3 * width + 3 & ~3  # the reference pads the lines of its files, which the format does not know
        rgb = b"".join(rest[at : at + 3 * width] for at in range(0, stride * height, stride))
        yield f"{width} {height} {sha256(rgb).hexdigest()} {name}"


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
    from qemu_qtest import reference

    from engine.testing.qtest_client import QtestClient

    program, env = reference()
    with QtestClient(program, ["-machine", "pc", "-m", "16", "-nodefaults", "-vga", "std"], env) as q:
        q.negotiate()
        file = q.folder / "screen.ppm"

        def dump() -> bytes:
            q.execute("screendump", filename=str(file))
            return file.read_bytes()

        for line in record(q.transcript, dump):
            print(line)


if __name__ == "__main__":
    main()
