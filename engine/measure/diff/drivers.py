"""What drivers do with a part: short sequences of accesses that make sense, with descriptors and data in guest RAM.

`DRIVERS` has them by device type.  Each is called with a `Hands`, through which it reads and writes registers by name,
fills RAM and looks at it; everything in it that a driver is free to choose is drawn anew.  What a sequence finds in RAM
and registers is compared as everything else, so it looks at all that the part may have written.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.measure.diff.board import DATA, LATCH, MEDIA, MEM, SHUT
from engine.types import Register, Space

if TYPE_CHECKING:
    from engine.measure.diff.board import Window
    from engine.measure.diff.programs import Generator

RAM_FIRST, RAM_SIZE = 0x100000, 0x100000  # where descriptors and buffers lie
TRIES = 16  # to place one apart from the others
SECTOR, BLOCK = 512, 2048
MS, S = 1_000_000, 1_000_000_000


@dataclass(slots=True)
class Hands:
    """What a driver has: registers of its part by name, ports, RAM, time and a source of choices."""

    g: Generator
    random: random.Random
    named: dict[str, tuple[Window, Register]]
    taken: list[tuple[int, int]] = field(default_factory=list)  # first and end of what the sequence uses of RAM

    def put(self, name: str, value: int, size: int | None = None) -> None:
        """Write a register."""
        w, r = self.named[name]
        self.g.emit(w.space, w.base + r.offset, size or max(1, r.width // 8), 1, value)

    def get(self, name: str, size: int | None = None) -> None:
        """Read a register."""
        w, r = self.named[name]
        self.g.emit(w.space, w.base + r.offset, size or max(1, r.width // 8), 0, 0)

    def out(self, port: int, value: int, size: int = 1) -> None:
        """Write a port."""
        self.g.emit(Space.PIO, port, size, 1, value)

    def load(self, port: int, size: int = 1) -> None:
        """Read a port."""
        self.g.emit(Space.PIO, port, size, 0, 0)

    def master(self) -> None:
        """The function decodes its ranges and may be bus master."""
        self.out(LATCH, 1 << 31 | (self.g.part.number or 0) << 8 | 4, 4)
        self.out(DATA, 7, 2)

    def wait(self, ns: int) -> None:
        """Let time go by."""
        self.g.now += ns

    def fill(self, at: int, data: bytes) -> None:
        """Write RAM."""
        for n in range(0, len(data), 8):
            self.g.emit(MEM, at + n, 8, 1, int.from_bytes(data[n : n + 8].ljust(8, b"\0"), "little"))

    def look(self, at: int, size: int, most: int = 64) -> None:
        """Read RAM: all of it, or of what is longer than `most` bytes its ends and some of the middle."""
        first = at & ~7
        words = list(range(first, at + size, 8))
        if len(words) > most // 8:
            middle = self.random.sample(words[2:-2], max(0, most // 8 - 4))
            words = [*words[:2], *sorted(middle), *words[-2:]]
        for n in words:
            self.g.emit(MEM, n, 8, 0, 0)

    def place(self, size: int, align: int = 8) -> int:
        """An address for so many bytes, of which the sequence uses none yet while there is room.  (What becomes of a
        command that overwrites its own descriptors depends on how many the controller has fetched, which is its own
        affair: AHCI 1.3.1 4.2.2, P.)"""
        for _ in range(TRIES):
            at = RAM_FIRST + self.random.randrange((RAM_SIZE - size) // align) * align
            if not any(at < end and first < at + size for first, end in self.taken):
                break
        self.taken.append((at, at + size))
        return at

    def bytes(self, n: int) -> bytes:
        """So many bytes, all equal but for the first few (few records, and still an order that shows)."""
        return self.random.randbytes(min(n, 24)) + bytes([self.random.getrandbits(8)]) * max(0, n - 24)

    def chance(self, p: float) -> bool:
        """True with that probability."""
        return self.random.random() < p


# ---------------------------------------------------------------------- edu


def edu(h: Hands) -> None:
    """A transfer each way through the buffer, or a factorial."""
    if h.chance(0.3):
        h.put("FACTORIAL", h.random.randrange(20))
        h.get("STATUS")
        h.get("FACTORIAL")
        return
    h.master()
    h.wait(110 * MS)  # what was under way is over
    for to_ram in (0, 1):
        count = h.random.choice((1, 4, 64, h.random.randrange(1, 512)))
        inside = 0x40000 + h.random.randrange(4095 - count)
        at = h.place(count)
        if not to_ram:
            h.fill(at, h.bytes(count))
        h.put("DMA_SOURCE", inside if to_ram else at, 8)
        h.put("DMA_DESTINATION", at if to_ram else inside, 8)
        h.put("DMA_COUNT", count, 8)
        h.put("DMA_COMMAND", 1 | to_ram << 1 | h.random.randrange(2) << 2, 8)
        h.get("DMA_COMMAND", 8)
        h.wait(h.random.choice((50 * MS, 110 * MS)))
        h.get("DMA_COMMAND", 8)
        h.wait(110 * MS)
        if to_ram:
            h.look(at, count)
        h.get("IRQ_STATUS")
        h.put("IRQ_ACKNOWLEDGE", 0x101)


# ---------------------------------------------------------------------- fw-cfg

ITEMS = (0, 1, 3, 4, 5, 0xA, 0xD, 0xE, 0xF)  # whose content is the machine's own


def fw_cfg(h: Hands) -> None:
    """An item by DMA: select, skip, read; also writes, which are refused."""
    control, at = h.place(16, 16), h.place(64)
    select = h.chance(0.8)
    if not select:
        h.put("SELECTOR", h.random.choice(ITEMS))
    what = h.random.choice((0x02, 0x02, 0x02, 0x04, 0x10, 0x06, 0x00)) | (0x08 if select else 0)
    length = h.random.choice((0, 1, 4, 8, 16, h.random.randrange(64)))
    h.fill(control, struct.pack(">IIQ", h.random.choice(ITEMS) << 16 | what if select else what, length, at))
    h.put("DMA_HIGH", 0)
    h.put("DMA_LOW", int.from_bytes(control.to_bytes(4, "big"), "little"))
    h.look(control, 16)
    h.look(at, 64)
    for _ in range(h.random.randrange(3)):
        h.get("DATA")


# ---------------------------------------------------------------------- disks and CD-ROM drives, by their registers

PIO_IN = {0x20: False, 0x24: True, 0xC4: False, 0x29: True}  # command -> 48 bits
PIO_OUT = {0x30: False, 0x34: True, 0xC5: False, 0x39: True}
DMA_IN, DMA_OUT = {0xC8: False, 0x25: True}, {0xCA: False, 0x35: True}
NO_DATA = (0x10, 0x40, 0x42, 0x70, 0x90, 0x91, 0xC6, 0xE0, 0xE1, 0xE3, 0xE5, 0xE7, 0xEA, 0xEF, 0xF8, 0x27, 0x00, 0xB0)


def sectors(name: str) -> int:
    """Sectors of a medium."""
    return -(-MEDIA[name] // SECTOR)


def address(h: Hands, total: int, count: int) -> int:
    """A sector: most often one where the transfer fits; else at the end, or behind it."""
    pick = h.random.random()
    if pick < 0.8:
        return h.random.randrange(total - count)
    return max(0, total - h.random.randrange(2 * count + 1)) if pick < 0.95 else h.random.getrandbits(28)


def packet(h: Hands, total: int) -> tuple[bytes, int]:
    """A packet for a CD-ROM drive, and how many bytes it asks for."""
    n, at = h.random.choice((1, 1, 2, 3)), 0
    at = address(h, total, n)
    length = h.random.choice((8, 18, 36, 96, 2048))
    kind = h.random.choice(
        (
            0x28,
            0x28,
            0x28,
            0xA8,
            0x00,
            0x03,
            0x12,
            0x25,
            0x43,
            0x46,
            0x4A,
            0x51,
            0x5A,
            0x1B,
            0x1E,
            0xBB,
            0xBE,
            0x2B,
            0xBD,
        )
    )
    if kind == 0x28:
        return struct.pack(">BxIxHxxx", kind, at, n), n * BLOCK
    if kind == 0xA8:
        return struct.pack(">BxIIxx", kind, at, n), n * BLOCK
    if kind == 0xBE:
        return struct.pack(">BBI", kind, 0, at) + bytes([0, 0, n, h.random.choice((0x10, 0xF8)), 0, 0]), n * 2352
    if kind == 0x43:
        return struct.pack(
            ">BBB4xHBx", kind, h.random.choice((0, 2)), h.random.randrange(3), length, h.random.randrange(3) << 6
        )[:12].ljust(12, b"\0"), length
    if kind == 0x46:
        return struct.pack(">BBH3xHxxx", kind, 2, 0, length), length
    if kind == 0x4A:
        return struct.pack(">BBxxBxxHxxx", kind, 1, 0x10, length), length
    if kind == 0x5A:
        page = h.random.choice((0x01, 0x0E, 0x2A, 0x3F))
        length = min(length, 10) if page == 0x0E else length  # the rest is reserved: docs/devices/ata.md
        return struct.pack(">BxB4xHxxx", kind, page, length), length
    if kind == 0x51:
        return struct.pack(">B6xHxxx", kind, length), length
    if kind in (0x03, 0x12):
        return struct.pack(">BxxxBx6x", kind, min(length, 96)), min(length, 96)
    return bytes([kind, *bytes(11)]), 8


def ide(h: Hands) -> None:
    """One command on a drive of the two channels: by program or through the bus master."""
    n = h.random.choice((0, 0, 1))
    disc = n == 1
    unit = h.random.randrange(2) if n == 0 else 0
    total = sectors(("disk", "small")[unit]) if not disc else MEDIA["disc"] // BLOCK

    def task(command: int, at: int, count: int, wide: bool) -> None:
        if wide:
            h.put(f"SECTOR_COUNT{n}", count >> 8)
            for name, shift in (("LBA_LOW", 24), ("LBA_MID", 32), ("LBA_HIGH", 40)):
                h.put(f"{name}{n}", at >> shift & 0xFF)
        h.put(f"SECTOR_COUNT{n}", count & 0xFF)
        for name, shift in (("LBA_LOW", 0), ("LBA_MID", 8), ("LBA_HIGH", 16)):
            h.put(f"{name}{n}", at >> shift & 0xFF)
        h.put(f"DEVICE{n}", 0xE0 | unit << 4 | (0 if wide else at >> 24 & 0xF))
        h.put(f"COMMAND{n}", command)

    def words(count: int, write: bool) -> None:
        size = h.random.choice((2, 2, 4))
        for _ in range(count // size):
            if write:
                h.put(f"DATA{n}", h.random.getrandbits(8 * size), size)
            else:
                h.get(f"DATA{n}", size)

    def done() -> None:
        for name in ("ALTERNATE_STATUS", "STATUS", "ERROR", "SECTOR_COUNT", "LBA_LOW", "LBA_MID", "LBA_HIGH", "DEVICE"):
            h.get(f"{name}{n}")

    def table(size: int) -> tuple[list[tuple[int, int]], int]:
        """Regions for a transfer: exact, short or long; and where the table is."""
        rows, left = [], max(2, size + h.random.choice((0, 0, 0, 0, SECTOR, -SECTOR, 2)))
        while left > 0:
            part = min(left, h.random.choice((SECTOR, 2 * SECTOR, 4096, 512 + 2, 65536)))
            rows.append((h.place(part, 2), part))
            left -= part
        rows = rows[:32]
        at = h.place(8 * len(rows), 4)
        h.fill(
            at,
            b"".join(
                struct.pack("<IHH", a, c & 0xFFFF, 0x8000 * (k == len(rows) - 1)) for k, (a, c) in enumerate(rows)
            ),
        )
        return rows, at

    def bus_master(to_ram: bool, size: int, begin: Callable[[], None]) -> None:
        rows, at = table(size)
        h.master()
        if not to_ram:
            for a, c in rows:
                h.fill(a, h.bytes(min(c, 64)))
        h.put(f"BMIC{n}", 0)
        h.put(f"BMIDTP{n}", at)
        h.put(f"BMIS{n}", 0x66)
        begin()
        h.get(f"ALTERNATE_STATUS{n}")
        h.put(f"BMIC{n}", 8 * to_ram | 1)
        h.get(f"BMIS{n}")
        done()
        h.put(f"BMIC{n}", 8 * to_ram)
        h.put(f"BMIS{n}", 0x66)
        h.get(f"BMIS{n}")
        for a, c in rows if to_ram else ():
            h.look(a, c)

    h.put(f"DEVICE_CONTROL{n}", h.random.choice((0, 0, 2)))
    if disc:
        cdb, size = packet(h, total)
        if h.chance(0.15):
            task(0xA1, 0, 0, False)
            done()
            words(SECTOR, False)
            return
        dma = h.chance(0.4)
        limit = h.random.choice((0xFFFE, BLOCK, 512, 64))

        def send() -> None:
            h.put(f"FEATURES{n}", int(dma))
            task(0xA0, limit << 8, 0, False)
            h.get(f"ALTERNATE_STATUS{n}")
            for k in range(0, 12, 2):
                h.put(f"DATA{n}", cdb[k] | cdb[k + 1] << 8, 2)

        if dma:
            bus_master(True, size, send)
            return
        send()
        left = min(size, 3 * 2352)
        while left > 0:
            done()
            part = min(left, limit)
            words(part, False)
            left -= part
        done()
        return
    count = h.random.choice((1, 1, 2, 3, 8))
    at = address(h, total, count)
    pick = h.random.random()
    if pick < 0.5:
        out = pick >= 0.3
        command, wide = h.random.choice(list((PIO_OUT if out else PIO_IN).items()))
        task(command, at, count, wide)
        for _ in range(count):
            done()
            words(SECTOR, out)
        done()
    elif pick < 0.8:
        to_ram = h.chance(0.6)
        command, wide = h.random.choice(list((DMA_IN if to_ram else DMA_OUT).items()))
        bus_master(to_ram, count * SECTOR, lambda: task(command, at, count, wide))
    elif pick < 0.87:
        task(h.random.choice((0xEC, 0xEC, 0xA1)), 0, 0, False)
        done()
        words(SECTOR, False)
    else:
        if h.chance(0.5):
            h.put(f"FEATURES{n}", h.random.choice((0x02, 0x03, 0x82, 0xAA, 0x55, 0x66, 0xCC, h.random.getrandbits(8))))
            h.put(f"SECTOR_COUNT{n}", h.random.choice((0x08, 0x0C, 0x22, 0x45, 0x10)))
        task(h.random.choice(NO_DATA), at, h.random.choice((1, 2, 8, 16)), False)
        done()


# ---------------------------------------------------------------------- AHCI


def ahci(h: Hands) -> None:
    """Commands on a port: its structures, some slots, PxCI; then what it wrote."""
    p = h.random.choice((0, 0, 1, 2, 2, 5))
    disc = p == 2
    total = {0: sectors("disk"), 1: sectors("small"), 2: MEDIA["disc"] // BLOCK}.get(p, 16)
    lists, area = h.place(1024, 1024), h.place(256, 256)
    h.master()
    if h.chance(0.8):
        h.put("GHC", 0x80000002)
        h.put(f"P{p}CMD", 0)
        h.put(f"P{p}CLB", lists)
        h.put(f"P{p}CLBU", 0)
        h.put(f"P{p}FB", area)
        h.put(f"P{p}FBU", 0)
        h.put(f"P{p}SERR", 0xFFFFFFFF)
        h.put(f"P{p}IS", 0xFFFFFFFF)
        h.put(f"P{p}IE", h.random.choice((0xFFFFFFFF, 0x7DC000FF, 0)))
    h.fill(area, bytes(256))
    h.put(f"P{p}CMD", 0x10)
    h.put(f"P{p}CMD", 0x11)
    slots = sorted(h.random.sample(range(32), h.random.choice((1, 1, 2))))
    mask, written = 0, []
    queued = 0
    for slot in slots:
        table = h.place(0x80 + 16 * 8, 128)
        count = h.random.choice((1, 1, 2, 8))
        fis = bytearray(64)
        fis[0], fis[1] = 0x27, 0x80
        write = cdb_length = 0
        cdb = b""
        if disc and h.chance(0.8):
            cdb, size = packet(h, total)
            fis[2], fis[3] = 0xA0, h.random.randrange(2)
            fis[5], fis[6] = h.random.choice(((0, 0), (0, 8), (0xFE, 0xFF)))
            cdb_length = 1
        else:
            plain = (0xEC, 0xA1, 0x25, 0x35, 0xC8, 0xCA, 0x20, 0x30, 0x24, 0x34, 0xE7, 0xE5, 0xEF)
            # Queued ones go alone: the reference's end in any order.
            command = h.random.choice((*plain, 0x60, 0x61, 0x60, 0x61) if len(slots) == 1 else plain)
            at = address(h, total, count)
            write = int(command in (0x35, 0xCA, 0x30, 0x34, 0x61))
            size = SECTOR if command in (0xEC, 0xA1) else count * SECTOR
            fis[2] = command
            fis[4:7], fis[7], fis[8:11] = struct.pack("<I", at)[:3], 0x40, struct.pack("<I", at >> 24)[:3]
            if command in (0xC8, 0xCA, 0x20, 0x30):
                fis[7] = 0xE0 | at >> 24 & 0xF
            if command in (0x60, 0x61):
                fis[3], fis[12] = count, slot << 3
                queued |= 1 << slot
            else:
                fis[12] = count
            if command == 0xEF:
                fis[3], fis[12] = h.random.choice((0x02, 0x03, 0x82)), 0x45
        rows: list[tuple[int, int]] = []
        left = max(2, size + h.random.choice((0, 0, 0, SECTOR)))
        while left > 0 and len(rows) < 8:
            part = min(left, h.random.choice((SECTOR, 4096, 1 << 16, SECTOR + 2)))
            rows.append((h.place(part, 2), part))
            left -= part
        if write:
            for a, c in rows:
                h.fill(a, h.bytes(min(c, 64)))
        h.fill(
            table,
            bytes(fis)
            + cdb.ljust(64, b"\0")
            + b"".join(struct.pack("<QII", a, 0, c - 1 | h.random.randrange(2) << 31) for a, c in rows),
        )
        h.fill(lists + 32 * slot, struct.pack("<IIQ16x", 5 | cdb_length << 5 | write << 6 | len(rows) << 16, 0, table))
        mask |= 1 << slot
        written += [] if write else rows
    if queued:
        h.put(f"P{p}SACT", queued)
    h.put(f"P{p}CI", mask)
    for name in ("CI", "SACT", "TFD", "IS", "SERR", "SIG", "SSTS", "CMD"):
        h.get(f"P{p}{name}")
    h.get("IS")
    for slot in slots:
        h.look(lists + 32 * slot, 8)
    h.look(area, 256, 256)
    for a, c in written:
        h.look(a, c)
    h.put(f"P{p}IS", 0xFFFFFFFF)
    h.put("IS", 0xFFFFFFFF)
    if h.chance(0.3):
        h.put(f"P{p}CMD", 0)


# ---------------------------------------------------------------------- floppy disk controller, with DMA channel 2


def fdc(h: Hands) -> None:
    """A command with its results, by DMA or by program."""

    def command(*data: int) -> None:
        for byte in data:
            h.get("MSR")
            h.put("FIFO", byte)

    def results(n: int) -> None:
        for _ in range(n):
            h.get("MSR")
            h.get("FIFO")
        h.get("MSR")

    drive = h.random.choice((0, 0, 0, 1))
    h.put("DOR", 0x0C | 0x10 << drive | drive)
    h.put("CCR", h.random.choice((0, 0, 0, 2)))
    pick = h.random.random()
    if pick < 0.15:
        command(0x03, 0xAF, 0x02 | h.random.randrange(2))
        command(0x07, drive)
        command(0x08)
        results(2)
        return
    if pick < 0.3:
        command(0x0F, h.random.randrange(2) << 2 | drive, h.random.randrange(85))
        command(0x08)
        results(2)
        command(0x04, h.random.randrange(2) << 2 | drive)
        results(1)
        return
    if pick < 0.4:
        command(0x4A, h.random.randrange(2) << 2 | drive)
        h.wait(h.random.choice((MS, 25 * MS)))
        results(7)
        return
    if pick < 0.5:
        command(*h.random.choice(((0x10,), (0x18,), (0x0E,), (0x14,), (0x94,), (0x13, 0, 0x57, 0), (0x12, 0x80))))
        results(h.random.choice((1, 10)))
        return
    write = h.chance(0.4)
    n = h.random.choice((1, 1, 2, 3))
    track, head, first = h.random.choice((0, 1, 40, 79, 80)), h.random.randrange(2), h.random.choice((1, 5, 17, 18, 19))
    code = {False: (0xE6, 0xE6, 0x66, 0xC6, 0x46, 0x56, 0x42), True: (0xC5, 0x45, 0xC9, 0x4D)}[write]
    which = h.random.choice(code)
    command(0x0F, head << 2 | drive, track)
    command(0x08)
    results(2)
    by_dma = h.chance(0.7) and which != 0x4D
    size = n * SECTOR
    at = h.place(size) & ~0xFFFF | h.random.randrange(0x10000 - size)
    if by_dma:
        command(0x03, 0xAF, 0x02)
        h.out(0x0A, 0x06)
        h.out(0x0C, 0)
        h.out(0x0B, 0x4A if write else 0x46)
        h.out(0x04, at & 0xFF)
        h.out(0x04, at >> 8 & 0xFF)
        h.out(0x81, at >> 16)
        h.out(0x05, size - 1 & 0xFF)
        h.out(0x05, size - 1 >> 8)
        if write:
            h.fill(at, h.bytes(64))
        h.out(0x0A, 0x02)
    else:
        command(0x03, 0xAF, 0x03)
    if which == 0x4D:
        command(which, head << 2 | drive, 2, n, 0x54, 0xF6)
    else:
        command(which, head << 2 | drive, track, head, first, 2, first + n - 1 if h.chance(0.7) else 18, 0x1B, 0xFF)
    if not by_dma:
        for k in range(n * (4 if which == 0x4D else SECTOR)):
            if k % 128 == 0:
                h.get("MSR")
            if write:
                h.put("FIFO", h.random.getrandbits(8))
            else:
                h.get("FIFO")
    results(7)
    if by_dma:
        h.load(0x08)
        if not write:
            h.look(at, size)


# ---------------------------------------------------------------------- network controllers: packets that come back

DEXT, EOP, RS, IFCS, IDE = 1 << 29, 1 << 24, 1 << 27, 1 << 25, 1 << 31
DATA_TYPE, TSE, VLE = 1 << 20, 1 << 26, 1 << 30  # of a data descriptor
TUCMD_TCP, TUCMD_IP = 1 << 24, 1 << 25  # of a context descriptor
IXSM, TXSM = 1 << 8, 1 << 9
VME = 1 << 30  # of CTRL
TCP, UDP = 6, 17


def frame(h: Hands, station: bytes) -> bytes:
    """An Ethernet frame: to this station, to all, or to somebody; IPv4 or IPv6, with TCP or UDP, or something else."""
    to = h.random.choice(
        (station, station, b"\xff" * 6, b"\x01\x00\x5e" + h.random.randbytes(3), h.random.randbytes(6))
    )
    kind = h.random.choice((0x0800, 0x0800, 0x86DD, 0x0806, 0x8100))
    head = to + h.random.randbytes(6)
    if kind == 0x8100:
        head += struct.pack(">HH", kind, h.random.getrandbits(16))
        kind = 0x0800
    size = h.random.choice((20, 46, 100, h.random.randrange(20, 600), 1480))
    protocol = h.random.choice((6, 17, 1))
    if kind == 0x0800:
        body = struct.pack(
            ">BBHHHBBH", 0x45, 0, 20 + size, 1, h.random.choice((0, 0, 0x2000)), 64, protocol, 0
        ) + h.random.randbytes(8)
    elif kind == 0x86DD:
        body = struct.pack(">IHBB", 6 << 28, size, protocol, 64) + h.random.randbytes(32)
    else:
        body = b""
    upper = h.random.randbytes(12) + bytes([0x50, 0x18]) + h.random.randbytes(6)
    return head + struct.pack(">H", kind) + body + (upper + h.bytes(size))[:size]


def ones_sum(data: bytes | bytearray) -> int:
    """The sum of 16-bit words that checksums are made of: RFC 1071."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass(slots=True)
class Layout:
    """Which headers a stack's packets have, one after another: what a context descriptor says of them."""

    six: bool  # IPv6
    protocol: int
    tag: bytes  # an 802.1Q tag in the packet
    ip_options: bytes
    tcp_options: bytes

    @classmethod
    def drawn(cls, h: Hands) -> Layout:
        """One of those that stacks use."""
        tag = h.random.choice((b"", b"", b"", struct.pack(">HH", 0x8100, h.random.getrandbits(16))))
        options = [h.random.choice((b"", b"", bytes([1] * 4), h.bytes(12))) for _ in range(2)]
        return cls(h.chance(0.4), h.random.choice((TCP, TCP, UDP)), tag, *options)

    @property
    def ip(self) -> int:
        """Where the IP header is."""
        return 14 + len(self.tag)

    @property
    def upper(self) -> int:
        """Where the TCP or UDP header is."""
        return self.ip + (40 if self.six else 20 + len(self.ip_options))

    @property
    def checksum(self) -> int:
        """Where its checksum is."""
        return self.upper + (16 if self.protocol == TCP else 6)

    @property
    def end(self) -> int:
        """Where the headers end."""
        return self.upper + (20 + len(self.tcp_options) if self.protocol == TCP else 8)

    def context(self, command: int, payload: int = 0, size: int = 0) -> bytes:
        """The descriptor that tells it: 317694, 7.2.10.2."""
        command |= (0 if self.six else TUCMD_IP) | (TUCMD_TCP if self.protocol == TCP else 0)
        ip = (self.ip, self.ip + 10, self.upper - 1)
        return struct.pack(
            "<BBHBBHIBBH", *ip, self.upper, self.checksum, 0, payload | DEXT | command, 0, self.end, size
        )

    def packet(self, h: Hands, to: bytes, payload: bytes, cut: bool = False) -> bytearray:
        """A packet with right lengths, its IP checksum 0, in its TCP or UDP checksum the pseudo-header's sum: with the
        length, or without if the packet is to be cut up."""
        size = self.end - self.upper + len(payload)
        source, target = h.random.randbytes(16 if self.six else 4), h.random.randbytes(16 if self.six else 4)
        pseudo = ones_sum(source + target + struct.pack(">HH", self.protocol, 0 if cut else size))
        if self.six:
            ip = struct.pack(">IHBB", 6 << 28, size, self.protocol, 64) + source + target
        else:
            words = 5 + len(self.ip_options) // 4
            ip = struct.pack(">BBHHHBBH", 0x40 | words, 0, 4 * words + size, 0, 0x4000, 64, self.protocol, 0)
            ip += source + target + self.ip_options
            # an identification that makes the header's checksum 0, now and then
            number = ones_sum(ip) ^ 0xFFFF if h.chance(0.1) else h.random.getrandbits(16)
            ip = ip[:4] + number.to_bytes(2, "big") + ip[6:]
        if self.protocol == TCP:
            words, flags = 5 + len(self.tcp_options) // 4, h.random.choice((0x10, 0x18, 0x19, 0x02))
            upper = h.random.randbytes(12) + struct.pack(">BBHHH", words << 4, flags, 4096, pseudo, 0)
            upper += self.tcp_options
        else:
            upper = struct.pack(">HHHH", 53, h.random.getrandbits(16), size, pseudo)
        kind = struct.pack(">H", 0x86DD if self.six else 0x0800)
        return bytearray(to + h.random.randbytes(6) + self.tag + kind + ip + upper + payload)


def data_rows(h: Hands, data: bytes | bytearray, sizes: list[int], flags: int, sums: int) -> list[bytes]:
    """The data descriptors of a packet in parts of these sizes; what is behind `data` is whatever lies in RAM."""
    flags |= DEXT | DATA_TYPE | RS | IFCS | h.random.choice((0, 0, IDE)) | VLE * h.random.randrange(2)
    upper = sums | h.random.getrandbits(16) << 16
    # Apart from all that is looked at: the reference writes checksums there (docs/devices/e1000e.md).
    at = RAM_SIZE + h.place(sum(sizes))
    h.fill(at, bytes(data))
    rows = []
    for n, size in enumerate(sizes, 1):
        rows.append(struct.pack("<QII", at, size | flags | EOP * (n == len(sizes)), upper))
        at += size
    return rows


def summed(h: Hands, station: bytes) -> list[bytes]:
    """A context and the descriptors of a packet or two whose checksums the controller inserts, or checks as they come
    in, right or wrong: 317694, 7.1.9, 7.2.10."""
    layout = Layout.drawn(h)
    rows = [layout.context(RS * h.random.randrange(2))]
    for _ in range(h.random.choice((1, 2))):
        data = layout.packet(h, station, h.bytes(h.random.choice((0, 1, 6, 100, h.random.randrange(600)))))
        ip, upper = layout.ip + 10, layout.checksum
        sums = h.random.choice((0, TXSM, TXSM, IXSM | TXSM, IXSM | TXSM, IXSM))
        if layout.six:
            sums &= TXSM
        elif not sums & IXSM and h.chance(0.8):
            data[ip : ip + 2] = (ones_sum(data[layout.ip : layout.upper]) ^ 0xFFFF).to_bytes(2, "big")
        if not sums & TXSM and h.chance(0.8):
            data[upper : upper + 2] = (ones_sum(data[layout.upper :]) ^ 0xFFFF or 0xFFFF).to_bytes(2, "big")
        if not sums and h.chance(0.3):
            data[h.random.randrange(layout.ip + 8, len(data))] ^= 1 << h.random.randrange(8)
        rows += data_rows(h, data, [len(data)], 0, sums)
    return rows


def segmented(h: Hands, station: bytes, loop: bool) -> list[bytes]:
    """A context and the descriptors of a packet that is cut into segments: 317694, 7.2.4.  One that comes back is of
    IPv4 and becomes one segment: of others the reference makes something else (docs/devices/e1000e.md)."""
    layout = Layout.drawn(h)
    layout.six &= not loop
    content = h.bytes(h.random.choice((1, 7, 100, h.random.randrange(1, 400))))
    more = 0 if loop else h.random.choice((0, 1000, h.random.randrange(20_000)))
    size = h.random.choice((1, 64, 536, 1460, h.random.randrange(1, 9000)))
    if loop:
        size = layout.end - layout.upper + len(content) + h.random.randrange(8, 200)
    data = layout.packet(h, station, content, cut=True)
    if not layout.six:
        data[layout.ip + 2 : layout.ip + 4] = bytes(2)  # the total length, which each segment gets
    payload = len(content) + more
    part = h.random.choice((payload, h.random.randrange(payload)))
    sizes = [layout.end, part, payload - part]
    rows = [layout.context(TSE | RS * h.random.randrange(2), payload, size)]
    return rows + data_rows(h, data, sizes, TSE, TXSM if layout.six else IXSM | TXSM)


def nic(h: Hands, station: bytes, express: bool) -> None:
    """Rings, loopback, packets out and in again; then descriptors, buffers, causes and statistics.
    express: the 82574L, whose other queues and extended descriptors are used, too."""
    ring = h.random.choice((8, 8, 16))
    split = express and h.chance(0.25)  # descriptors with a buffer for headers and three of 1 KiB
    unit = 32 if split else 16
    tx, rx, second = (h.place(n * ring, 16) for n in (16, unit, unit))
    buffers = [h.place(4096, 16) for _ in range(ring)]
    queue = h.random.choice(("", "", "1")) if express else ""
    setup = express or h.chance(0.7)  # else what lies in the rings is sent: from outside RAM the 82574L differs
    if setup:
        h.master()
        h.put("IMC", 0xFFFFFFFF)
        h.get("ICR")
        if express and h.chance(0.3):  # to or from MSI-X, or its function masked, once no throttle runs
            h.wait(100 * MS)
            h.out(LATCH, 1 << 31 | (h.g.part.number or 0) << 8 | 0xA0, 4)
            h.out(DATA + 2, h.random.choice((0, 0x8000, 0x8000, 0xC000)), 2)
        loop = h.chance(0.7)  # of the PHY
        h.put("MDIC", 0x04200000 | (0x4140 if loop else 0x1140))
        h.put("RCTL", 0)
        h.put("RAL0", int.from_bytes(station[:4], "little"))
        h.put("RAH0", int.from_bytes(station[4:], "little") | 1 << 31)
        spread = express and h.chance(0.3)  # over both receive queues
        for q in ("", "1") if spread else ("",):
            base = rx if not q else second
            for name, value in (("RDBAL", base), ("RDBAH", 0), ("RDLEN", unit * ring), ("RDH", 0), ("RDT", 0)):
                h.put(name + q, value)
        if express:
            h.put("CTRL", 0x241 | h.random.choice((0, VME)))
            extended = 0x8000 if spread or split else h.random.choice((0, 0x8000))
            h.put("RFCTL", extended | h.random.choice((0, 0, 0x400, 0x800, 0x2000, 0x4000 * split)))
            h.put("PSRCTL", 0x01010100 | h.random.choice((1, 2, 8)))
            h.put("RXCSUM", 0x2300 if spread else h.random.choice((0, 0x100, 0x200, 0x300, 0x300, 0x2300)))
            h.put("MRQC", 0x3F0001 if spread else 0)
            for n in range(10 if spread else 0):
                h.put(f"RSSRK{n}", h.random.getrandbits(32))
            for n in range(32 if spread else 0):
                h.put(f"RETA{n}", h.random.getrandbits(32))
        size = h.random.choice((0, 0, 0x10000, 0x20000, 0x30000))
        mode = h.random.choice((0, 0x8, 0x10, 0x18)) | h.random.choice((0, 0x40)) | h.random.choice((0, 0x20)) | size
        mode |= 0x400 * split
        strip = 0x04000000  # where the 82574L puts the FCS: docs/devices/e1000e.md
        h.put(
            "RCTL", 0x8002 | mode | (strip if express else h.random.choice((0, strip))) | h.random.choice((0, 0x40000))
        )
        h.put("VET", 0x8100)
        free = [struct.pack("<4Q", *range(a, a + 4096, 1024)) if split else struct.pack("<2Q", a, 0) for a in buffers]
        h.fill(rx, b"".join(free))
        h.put("RDT", unit // 16 * (ring - 1))
        if spread:
            h.fill(second, b"".join(reversed(free)))
            h.put("RDT1", unit // 16 * (ring - 1))
        for name, value in (("TDBAL", tx), ("TDBAH", 0), ("TDLEN", 16 * ring), ("TDH", 0), ("TDT", 0)):
            h.put(name + queue, value)
        h.put("TCTL", 0x4010A)
        h.put("IMS", h.random.choice((0, 0x9D, 0xFFFFFFFF)))
        h.wait(1200 * MS)
    tail = 0
    for _ in range(h.random.choice((1, 2, 3)) if setup else 1):
        rows = []
        data = frame(h, station)
        at = h.place(len(data))
        h.fill(at, data)
        flags = RS | IFCS | h.random.choice((0, 0, IDE))
        if express and h.chance(0.6):
            rows = segmented(h, station, loop or mode & 0x40 != 0) if h.chance(0.4) else summed(h, station)
        elif h.chance(0.5):
            cut = h.random.randrange(1, len(data)) if h.chance(0.3) else len(data)
            rows.append(struct.pack("<QII", at, cut | flags | EOP * (cut == len(data)), 0))
            if cut < len(data):
                rows.append(struct.pack("<QII", at + cut, len(data) - cut | flags | EOP, 0))
        else:
            tucmd = h.random.choice((0, 1, 2, 3)) << 24
            sums = 0 if express else h.random.randrange(4) << 8  # of what is in the packet: docs/devices/e1000e.md
            tse = not express and h.chance(0.3)
            header = 54
            context = (14, 24, 33, 34, 34 + 16, 0)
            rows.append(
                struct.pack(
                    "<BBHBBHIBBH", *context, max(0, len(data) - header) | DEXT | tucmd | tse << 26 | RS, 0, header, 64
                )
            )
            rows.append(struct.pack("<QII", at, len(data) | DEXT | 1 << 20 | flags | tse << 26 | EOP, sums))
        if tail + len(rows) > ring:
            break
        h.fill(tx + 16 * tail, b"".join(rows))
        tail = (tail + len(rows)) % ring
        h.put("TDT" + queue, tail)
        h.wait(h.random.choice((1000, MS, 10 * MS)))
        if h.chance(0.7):
            h.get("ICR")
    h.wait(h.random.choice((0, 2 * MS)))
    for name in ("TDH" + queue, "RDH", "STATUS", "GPRC", "GPTC", "TPT", "TPR", *(("TSCTC",) if express else ())):
        h.get(name)
    h.look(tx, 16 * ring, 16 * ring)
    h.look(rx, unit * ring, unit * ring)
    if express:
        h.look(second, unit * ring, unit * ring)
    for a in buffers if express else buffers[:4]:
        h.look(a, *((96, 96) if express else (256,)))
        if split:
            h.look(a + 1024, 32)
    h.get("ICR")
    if express:  # contexts and the data that they belong to are not to meet others by a random tail
        h.put("TDLEN" + queue, 0)
        h.put("TDBAL" + queue, 0)
    if split:
        h.put("RCTL", 0)  # nor an odd tail, at which the reference may walk for ever


def e1000(h: Hands) -> None:
    """The 82540EM."""
    nic(h, bytes.fromhex("525400123457" if h.g.board.name == "q35-full" else "525400123456"), express=False)


def e1000e(h: Hands) -> None:
    """The 82574L."""
    nic(h, bytes.fromhex("525400123456"), express=True)


# ---------------------------------------------------------------------- a bridge above


def bridge(h: Hands) -> None:
    """What firmware and kernels do with a bridge above the part, with looks at the part meanwhile; all as it was."""
    part = h.g.part
    above = h.random.choice(part.above)
    number = part.number or 0

    def config(function: int, at: int, size: int, value: int | None = None) -> None:
        h.out(LATCH, 1 << 31 | function << 8 | at & 0xFC, 4)
        if value is None:
            h.load(DATA + (at & 3), size)
        else:
            h.out(DATA + (at & 3), value, size)

    def look() -> None:
        config(number, 0, 4)
        for w in part.windows:
            if w.space != Space.CONFIG:
                size = h.random.choice([n for n in w.accepts if n <= min(w.size, 4)])
                h.g.emit(w.space, w.base + h.random.randrange(w.size // size) * size, size, 0, 0)

    other = 0x40 + h.random.randrange(0x40)
    shut = h.random.choice((0x1C, 0x20))
    at, size, value = h.random.choice(
        (
            (0x04, 2, h.random.randrange(8)),
            (0x18, 4, other << 8 | other << 16),
            (0x18, 4, 0),
            (shut, 2, SHUT & 0xFF if shut == 0x1C else SHUT),
            (0x3E, 2, 0x40),
            (0x3E, 2, 0x08),
        )
    )
    config(above.number or 0, at, size, value)
    config(above.number or 0, at & 0xFC, 4)
    look()
    config(other << 8 | number & 0xFF, 0, 4)
    if at == 0x3E:
        config(above.number or 0, at, size, 0)
        look()
    for row in h.g.board.preamble(part):
        if row[1] >= LATCH:  # configuration, not the set-up of other ports
            h.g.emit(*row)
    look()


# ---------------------------------------------------------------------- parallel flash: commands in the array

BLOCK_BYTES, BUFFER_BYTES = 4096, 256


def flash(h: Hands) -> None:
    """A command with its data, right or nearly so; its status; what it left in the array."""
    w = h.g.part.windows[0]
    at = h.random.randrange(w.size // BLOCK_BYTES) * BLOCK_BYTES + h.random.randrange(BLOCK_BYTES - BUFFER_BYTES)

    def put(offset: int, value: int, size: int = 1) -> None:
        h.g.emit(w.space, w.base + offset, size, 1, value)

    def get(offset: int, size: int = 1) -> None:
        h.g.emit(w.space, w.base + offset, size, 0, 0)

    if h.chance(0.5):
        put(at, 0xFF)
    command = h.random.choice((0x10, 0x40, 0x40, 0x20, 0x20, 0xE8, 0xE8, 0xE8, 0x60, 0x70, 0x90, 0x98, 0xB0, 0xD0))
    size = h.random.choice((1, 1, 2, 4))
    put(at, command)
    if command in (0x10, 0x40):
        put(at, h.random.getrandbits(8 * size), size)
    elif command == 0xE8:
        get(at)
        cycles = h.random.randrange(1, 1 + h.random.choice((4, 64)))
        put(at, cycles - 1)
        for n in range(cycles):
            put(
                at - at % BUFFER_BYTES + n * size if h.chance(0.99) else at + BUFFER_BYTES,
                h.random.getrandbits(8 * size),
                size,
            )
        put(at, h.random.choice((0xD0, 0xD0, 0xD0, 0xFF)))
    elif command in (0x20, 0x60):
        put(at, h.random.choice((0xD0, 0xD0, 0xD0, 0x01, 0x70)))
    elif command in (0x90, 0x98):
        for n in range(0x34):
            get(n)
        get(at, h.random.choice((2, 4)))
    get(at, size)
    if h.chance(0.3):
        put(at, 0x50)
        put(at, 0x70)
        get(at)
    put(at, 0xFF)
    for n in range(0, 64, 8):
        get(at - at % 8 + n, 8)


# ---------------------------------------------------------------------- TPMs, with a software TPM on each side

NO_SESSIONS, SESSIONS = 0x8001, 0x8002  # tags: TPM 2.0 Part 2, 6.9
SHA1, SHA256, NULL_HIERARCHY, PASSWORD = 0x0004, 0x000B, 0x40000007, 0x40000009
LOCALITIES, LOCALITY_BYTES = 4, 0x1000  # that software may request
PPI, PPI_MOVV = 0xFED45000, 0x15A  # the physical presence interface's memory, and its memory overwrite variable
TIS_ACCESS, TIS_INT_ENABLE, TIS_INT_STATUS, TIS_STS, TIS_FIFO, TIS_XFIFO = 0x00, 0x08, 0x10, 0x18, 0x24, 0x80
CRB_BUFFER = 0x80


def tpm_command(h: Hands) -> bytes:
    """A command whose answer is the same on every TPM of a kind (TPM 2.0 Part 3), or one that is none."""

    def code(number: int, body: bytes = b"", tag: int = NO_SESSIONS, size: int | None = None) -> bytes:
        return struct.pack(">HII", tag, 10 + len(body) if size is None else size, number) + body

    pick = h.random.random()
    if pick < 0.25:
        return code(0x144, struct.pack(">H", h.random.choice((0, 0, 0, 1, 7))))  # Startup
    if pick < 0.35:
        return code(0x143, bytes([h.random.randrange(3)]))  # SelfTest
    if pick < 0.55:  # GetCapability
        first = {0: (0, 64), 1: (0, 2 << 24), 2: (0x11F, 0x193), 5: (0, 1), 6: (0x100, 0x230), 8: (0, 32), 9: (0, 1)}
        capability = h.random.choice(tuple(first))
        at = h.random.randrange(*first[capability])
        return code(0x17A, struct.pack(">III", capability, at, h.random.choice((0, 1, 8, 200))))
    if pick < 0.65:  # PCR_Read
        return code(0x17E, struct.pack(">IHB3s", 1, h.random.choice((SHA1, SHA256)), 3, h.random.randbytes(3)))
    if pick < 0.8:  # PCR_Extend, which depends on the locality
        password = struct.pack(">IIHBH", 9, PASSWORD, 0, 0, 0)
        digest = struct.pack(">IH", 1, SHA256) + h.random.randbytes(32)
        return code(0x182, struct.pack(">I", h.random.randrange(25)) + password + digest, SESSIONS)
    if pick < 0.9:  # Hash
        data = h.bytes(h.random.choice((0, 1, 64, h.random.randrange(1024))))
        return code(0x17D, struct.pack(">H", len(data)) + data + struct.pack(">HI", SHA256, NULL_HIERARCHY))
    if pick < 0.93:
        return code(h.random.choice((0x17C, 0x145)), b"" if h.chance(0.5) else bytes(2))  # GetTestResult, Shutdown
    body = h.bytes(h.random.randrange(64))
    size = 10 + (len(body) if h.chance(0.7) else h.random.randrange(len(body) + 1))
    return code(
        h.random.getrandbits(32), body, h.random.choice((NO_SESSIONS, SESSIONS, h.random.getrandbits(16))), size
    )


def overwrite_request(h: Hands) -> None:
    """Whether the next reset clears RAM; what the last one left there, and something to be cleared."""
    h.look(RAM_FIRST, 16)
    h.fill(RAM_FIRST, h.random.randbytes(16))
    h.g.emit(Space.MMIO, PPI + PPI_MOVV, 1, 1, h.random.getrandbits(8))


def tpm_tis(h: Hands) -> None:
    """A locality is requested or seized, a command goes through the FIFO, its answer is read, perhaps twice."""
    w, _ = h.named["TPM_ACCESS"]
    locality = h.random.choice((0, 0, 0, 1, 2, 3))

    def put(offset: int, value: int, size: int = 1, of: int = locality) -> None:
        h.g.emit(w.space, w.base + of * LOCALITY_BYTES + offset, size, 1, value)

    def get(offset: int, size: int = 1, of: int = locality) -> None:
        h.g.emit(w.space, w.base + of * LOCALITY_BYTES + offset, size, 0, 0)

    def status() -> None:
        get(TIS_STS, 4)
        get(TIS_INT_STATUS, 4)

    overwrite_request(h)
    fifo = h.random.choice((TIS_FIFO, TIS_FIFO, TIS_XFIFO, TIS_XFIFO + 4 * h.random.randrange(16)))
    for other in range(LOCALITIES) if h.chance(0.7) else ():
        put(TIS_ACCESS, 0x20, of=other)
    put(TIS_ACCESS, h.random.choice((0x02, 0x02, 0x02, 0x08)))
    for other in range(LOCALITIES):
        get(TIS_ACCESS, of=other)
    put(TIS_INT_ENABLE, h.random.choice((0, 0x80000087, 0x80000080 | h.random.randrange(8))), 4)
    put(TIS_STS, 0x40)
    status()
    command, width = tpm_command(h), h.random.choice((1, 1, 2, 4))
    for n in range(0, len(command), width):
        for part in (command[n : n + width],) if len(command) - n >= width else (bytes([b]) for b in command[n:]):
            put(fifo, int.from_bytes(part, "little"), len(part))
        if h.chance(0.1):
            status()
    if h.chance(0.2):
        put(TIS_ACCESS, 0x02, of=h.random.randrange(LOCALITIES))  # somebody else wants it
    put(TIS_STS, 0x20)
    status()
    for again in range(h.random.choice((1, 1, 2))):
        if again:
            put(TIS_STS, 0x02)
        width = h.random.choice((1, 4))
        for _ in range(h.random.choice((10, 16, 80, 300)) // width):
            get(fifo, width)
            if h.chance(0.1):
                status()
    put(TIS_INT_STATUS, 0x87, 4)
    status()
    if h.chance(0.5):
        put(TIS_STS, 0x40)
        put(TIS_ACCESS, 0x20)
        get(TIS_ACCESS)


def tpm_crb(h: Hands) -> None:
    """The locality is requested, a command written into the buffer and started, its answer read there."""
    w, _ = h.named["TPM_CRB_CTRL_START"]

    def status() -> None:
        for name in ("TPM_LOC_STATE", "TPM_LOC_STS", "TPM_CRB_CTRL_STS", "TPM_CRB_CTRL_START"):
            h.get(name)

    overwrite_request(h)
    if h.chance(0.9):
        h.put("TPM_LOC_CTRL", 1)
    if h.chance(0.9):
        h.put("TPM_CRB_CTRL_REQ", 1)
    status()
    command, width = tpm_command(h), h.random.choice((1, 4, 8))
    for n in range(0, len(command), width):
        part = command[n : n + width].ljust(width, b"\0")
        h.g.emit(w.space, w.base + CRB_BUFFER + n, width, 1, int.from_bytes(part, "little"))
    h.put("TPM_CRB_CTRL_START", 1)
    status()
    for n in range(0, h.random.choice((16, 64, 400)), 8):
        h.g.emit(w.space, w.base + CRB_BUFFER + n, 8, 0, 0)
    if h.chance(0.5):
        h.put("TPM_CRB_CTRL_REQ", 2)
        h.put("TPM_LOC_CTRL", 2)
    status()


# ---------------------------------------------------------------------- the chipset's small parts


def pit(h: Hands) -> None:
    """A counter's mode and count, latched and read."""
    n, mode = h.random.randrange(3), h.random.randrange(6)
    h.out(0x43, n << 6 | 0x30 | mode << 1 | h.random.randrange(2))
    count = h.random.choice((0, 2, 100, 1193, 11932, h.random.getrandbits(16)))
    h.out(0x40 + n, count & 0xFF)
    h.out(0x40 + n, count >> 8)
    h.wait(h.random.randrange(1, 10 * MS))
    h.out(0x43, h.random.choice((n << 6, 0xC0 | 2 << n, 0xD0 | 2 << n, 0xE0 | 2 << n)))
    for _ in range(3):
        h.load(0x40 + n)
    if n == 2:
        h.out(0x61, h.random.randrange(4))
        h.load(0x61)


def pic(h: Hands) -> None:
    """Both controllers initialised and unmasked; requests, service, ends of interrupt."""
    for base, vector, wire in ((0x20, 0x30, 4), (0xA0, 0x38, 2)):
        for port, value in ((base, 0x11), (base + 1, vector), (base + 1, wire), (base + 1, h.random.choice((1, 1, 3)))):
            h.out(port, value)
        h.out(base + 1, h.random.choice((0, 0xFB if base == 0x20 else 0xFF, h.random.getrandbits(8))))
    for base in (0x20, 0xA0):
        h.out(base, h.random.choice((0x20, 0x60 | h.random.randrange(8), 0x0A, 0x0B, 0xC0 | h.random.randrange(8))))
        h.load(base)
        h.load(base + 1)


def rtc(h: Hands) -> None:
    """A periodic rate, an alarm, the date: set, waited for, cleared."""
    for index, value in (
        (0x0B, 0x82),
        (h.random.choice((0, 2, 4, 6, 7, 8, 9)), h.random.choice((0, 0x12, 0x23, 0x59))),
        (h.random.choice((1, 3, 5)), h.random.choice((0, 0x12, 0xC0, 0xFF))),
        (0x0A, 0x20 | h.random.randrange(16)),
        (0x0B, h.random.choice((0x02, 0x42, 0x12, 0x22, 0x72, 0x06))),
    ):
        h.out(0x70, index)
        h.out(0x71, value)
    for _ in range(3):
        h.wait(h.random.choice((MS, 500 * MS, S)))
        for index in (0x0C, 0, 0x0A):
            h.out(0x70, index)
            h.load(0x71)


def uart(h: Hands) -> None:
    """A divisor, a format, loopback, characters."""
    rows = [("LCR", 0x83), ("THR", h.random.choice((1, 12, 96))), ("IER", 0), ("LCR", h.random.choice((3, 7, 0x1B)))]
    rows += [("FCR", h.random.choice((0, 1, 7, 0xC7))), ("IER", h.random.randrange(16))]
    for name, value in (*rows, ("MCR", h.random.choice((0x0B, 0x1B)))):
        h.put(name, value)
    for _ in range(h.random.randrange(1, 20)):
        h.put("THR", h.random.getrandbits(8))
        if h.chance(0.3):
            h.wait(h.random.randrange(1, 5 * MS))
        h.get(h.random.choice(("LSR", "IIR", "MSR", "RBR")))


def kbc(h: Hands) -> None:
    """Commands of the controller and of the devices behind it, with their data and answers."""
    pick = h.random.random()
    if pick < 0.5:
        plain = (0x20, 0xAA, 0xAB, 0xA7, 0xA8, 0xA9, 0xAD, 0xAE, 0xC0, 0xD0)
        taking = ((0x60, 0x47), (0x60, 0x45), (0xD1, 0xDF), (0xD2, 0x5A), (0xD3, 0x5A))
        command, data = h.random.choice((*((c, None) for c in plain), *taking))
        h.out(0x64, command)
        if data is not None:
            h.out(0x60, data)
    else:
        h.out(0x60, 0xDF)  # for a command at random that waits for its data: D1h with bit 0 clear would reset
        if h.chance(0.4):
            h.out(0x64, 0xD4)
        h.out(0x60, h.random.choice((0xF2, 0xF4, 0xF5, 0xF6, 0xFF, 0xEE, 0xE9, 0xEB, 0xED, 0xF0, 0xF3, 0xE8)))
        if h.chance(0.6):
            h.out(0x60, h.random.choice((0, 1, 2, 3, 100, 200)))
    for _ in range(h.random.randrange(1, 6)):
        h.load(0x64)
        h.load(0x60)


DRIVERS: dict[str, Callable[[Hands], None]] = {
    "edu": edu,
    "fw-cfg": fw_cfg,
    "piix3-ide": ide,
    "ich9-ahci": ahci,
    "fdc": fdc,
    "e1000": e1000,
    "e1000e": e1000e,
    "pflash": flash,
    "tpm-tis": tpm_tis,
    "tpm-crb": tpm_crb,
    "i8254": pit,
    "i8259": pic,
    "mc146818": rtc,
    "uart16550": uart,
    "i8042": kbc,
}
