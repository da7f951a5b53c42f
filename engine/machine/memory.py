"""What a CPU finds in the memory space, in and outside system management mode: RAM, ROM, the bus with its devices.

From the bottom: RAM; the video window A0000h-BFFFFh, RAM while SMRAM is open (D_OPEN); thirteen segments
C0000h-FFFFFh, each steered by its PAM attribute (bit 0 RE, bit 1 WE); RAM; the bus; the firmware ROM, which ends at 4
GiB, unless a flash part stands there, and whose last 128 KiB stand below 1 MiB too; the rest of RAM above 4 GiB.
C0000h-DFFFFh of the bus is an empty ROM.  As on the reference machine, RAM shines through where nobody answers on the
bus below 1 MiB, WE without RE reads RAM as well (82441FX, 290549-001, section 3.2.18 would read the bus), and D_OPEN
opens SMRAM with and without G_SMRAME.  Over all of it lie the ranges that the host bridge keeps from everybody outside
system management mode (TSEG).

In system management mode SMRAM is there while G_SMRAME is set, open or not, and TSEG is RAM.  H_SMRAME (82Q35,
316966-002, section 5.1, ESMRAMC) moves SMRAM from A0000h to FEDA0000h, in both modes: the video window is the bus's
then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.types import Region, Space

if TYPE_CHECKING:
    from engine.machine import Machine

RAM, RAM_READ_ONLY, ROM, BUS, NOTHING = range(5)
GIB4 = 1 << 32
BUS_END = 1 << 52
VIDEO, SEGMENTS, BIOS, LOW_END = 0xA0000, 0xC0000, 0xE0000, 0x100000
HIGH_SMRAM = 0xFEDA0000
SMRAM_D_OPEN, SMRAM_G_SMRAME = 0x40, 0x08  # of the value that the host bridge tells for SMRAM
ESMRAMC_H_SMRAME = 0x80 << 8
# The host bridge's own ways to SMRAM, for accesses that come to the router.
SMRAM_REGIONS = ("open-smram", "high-smram", "smm-smram", "smm-high-smram")
PAM_RE, PAM_WE = 1, 2
# Segment n of the host bridge's pam<n> regions: (first byte, bytes)
PAM = ((0xF0000, 0x10000), *((0xC0000 + n * 0x4000, 0x4000) for n in range(12)))


class Memory:
    """The memory map of one started machine.  Used by the machine's thread; refresh() after anything that may have
    moved the map."""

    def __init__(self, machine: Machine, rom: bytes = b"") -> None:
        self.machine = machine
        self.ram = memoryview(machine.ram)
        self.rom = rom
        self.low = min(machine.spec.board.low_ram, len(self.ram))
        self._flash = any(q.space == Space.MMIO and q.base + q.size == GIB4 for q in machine.plan.placed)
        self._video = any(q.space == Space.MMIO and q.base <= VIDEO < q.base + q.size for q in machine.plan.placed)
        self._views: list[tuple[list[int], list[tuple[int, int, int]]]] = []
        self._regions: tuple[Region, ...] = ()
        self._host = ""
        for p in machine.plan.devices:
            if any(r.name == "pam0" for r in p.regions):
                self._host, self._regions = p.id, p.regions
        self.refresh()

    def refresh(self) -> None:
        """Read the chipset's switches again."""
        switches: dict[str, int] = {}
        covers: list[tuple[Region, int]] = []
        for i, on, value in self.machine.call(self._host, "mappings") if self._host else ():
            r = self._regions[i]
            if r.space == Space.MMIO and not r.size:
                switches[r.name] = value
            elif r.space == Space.MMIO and on and value < self.low and r.name not in SMRAM_REGIONS:
                covers.append((r, value))
        self.covered = bool(covers)  # the host bridge answers where RAM is
        self._views = [self._view(switches, covers, smm) for smm in (False, True)]

    def _view(
        self, switches: dict[str, int], covers: list[tuple[Region, int]], smm: bool
    ) -> tuple[list[int], list[tuple[int, int, int]]]:
        """The map of one mode: first bytes, and (end, kind, offset of the first byte in what it shows)."""
        rom, low = self.rom, self.low
        if low < LOW_END:
            switches = {}  # nothing to switch to
        smram = switches.get("smram", 0)
        seen = smram & SMRAM_D_OPEN or (smm and smram & SMRAM_G_SMRAME)
        ranges: list[tuple[int, int, int, int]] = [(0, min(low, VIDEO), RAM, 0)]
        if not self._video or (seen and not smram & ESMRAMC_H_SMRAME):
            ranges.append((VIDEO, min(low, SEGMENTS), RAM, VIDEO))
        if seen and smram & ESMRAMC_H_SMRAME:
            ranges.append((HIGH_SMRAM, HIGH_SMRAM + SEGMENTS - VIDEO, RAM, VIDEO))
        isa = max(BIOS, LOW_END - len(rom))  # where the ROM's end begins
        for n, (start, size) in enumerate(PAM):
            attribute = switches.get(f"pam{n}", 0)
            if attribute:
                ranges.append((start, start + size, RAM if attribute & PAM_WE else RAM_READ_ONLY, start))
            elif start < BIOS:
                ranges.append((start, start + size, NOTHING, 0))
            else:
                split = min(max(isa, start), start + size)
                ranges += [(start, min(low, split), RAM, start), (split, start + size, ROM, len(rom) - LOW_END + split)]
        ranges += [
            (LOW_END, low, RAM, LOW_END),
            (GIB4 if self._flash else GIB4 - len(rom), GIB4, ROM, 0),
            (GIB4, GIB4 + len(self.ram) - low, RAM, low),
            (BUS_END, 1 << 64, NOTHING, 0),
        ]
        over = [(base, base + r.size, BUS, base) for r, base in covers if not (smm and r.hidden_in_smm)]
        first: list[int] = []
        rows: list[tuple[int, int, int]] = []
        at = 0
        for start, end, kind, offset in sorted(_over(ranges, over)):
            if at < start:
                first.append(at)
                rows.append((start, BUS, at))
            first.append(start)
            rows.append((end, kind, offset))
            at = end
        return first, rows

    def pieces(self, addr: int, n: int, smm: bool = False) -> Iterator[tuple[int, int, int, int]]:
        """The n bytes at addr (of 2^64, then from 0 again) in pieces of one kind: (kind, address, bytes, offset in RAM
        or ROM).  smm: as a CPU in system management mode finds them."""
        starts, ranges = self._views[smm]
        while n:
            addr &= (1 << 64) - 1
            i = bisect_right(starts, addr) - 1
            end, kind, offset = ranges[i]
            part = min(n, end - addr)
            yield kind, addr, part, offset + addr - starts[i]
            addr += part
            n -= part


def _over(
    ranges: list[tuple[int, int, int, int]], covers: list[tuple[int, int, int, int]]
) -> Iterator[tuple[int, int, int, int]]:
    """The ranges that are not empty, without what the covers hide, and the covers."""
    for start, end, kind, offset in ranges:
        at = start
        for first, last, _, _ in sorted(covers):
            if at < first < end:
                yield at, first, kind, offset + at - start
            if first < end and last > at:
                at = max(at, last)
        if at < end:
            yield at, end, kind, offset + at - start
    yield from covers
