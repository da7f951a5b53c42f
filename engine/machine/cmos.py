"""What a PC's board leaves in the CMOS RAM for its firmware: the bytes QEMU 7.2 writes on its pc and q35 machines.

| bytes | contents |
|---|---|
| 10h | types of the two floppy drives, first in the high nibble: 0 none, 2 1.2 MB, 4 1.44 MB, 5 2.88 MB |
| 12h | fixed disks on the first IDE channel: F0h if master, 0Fh if slave |
| 14h | equipment: 01h floppy drives present, 40h two of them, 02h FPU, 04h PS/2 mouse |
| 15h-16h | base memory in KiB, at most 640 |
| 17h-18h, 30h-31h | memory above 1 MiB in KiB, at most 65 535 |
| 19h, 1Ah | type of the first channel's disks: 47, "see the extended bytes" |
| 1Bh-23h, 24h-2Ch | geometry of the first channel's disks |
| 34h-35h | memory between 16 MiB and 4 GiB in units of 64 KiB, at most 65 535 |
| 38h | third boot device in the high nibble; bit 0: do not check a floppy's signature |
| 39h | translation of the four IDE disks, two bits each: 0 none, 1 LBA, 2 large, 3 revised ECHS |
| 3Dh | first boot device in the low nibble, second in the high: 1 floppy, 2 hard disk, 3 CD-ROM, 4 network |
| 5Bh-5Dh | memory above 4 GiB in units of 64 KiB |
| 5Fh | processors less one, 0 if more than 255 |

Bytes not listed (2Dh, the checksum 2Eh-2Fh, ...) stay 0: QEMU computes no checksum.  The clock (0-Dh, 32h and its other
name 37h) is the RTC's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.errors import MachineError

KIB = 1 << 10
MIB = 1 << 20
FLOPPY_TYPES = {None: 0, "1.2M": 2, "1.44M": 4, "2.88M": 5}
BOOT_DEVICES = {"a": 1, "b": 1, "c": 2, "d": 3, "n": 4}
TRANSLATIONS = {"none": 0, "lba": 1, "large": 2, "rechs": 3}
USE_EXTENDED_TYPE = 47


class Disk(NamedTuple):
    """Physical geometry of an ATA disk; `translation` None lets the size decide, as QEMU does."""

    cylinders: int
    heads: int
    sectors: int
    translation: str | None = None

    @classmethod
    def of_size(cls, sectors: int) -> Disk:
        """The geometry of a disk of so many 512-byte sectors that says nothing about it (no partition table)."""
        return cls(min(max(sectors // (16 * 63), 2), 16383), 16, 63)

    @classmethod
    def of_content(cls, sectors: int, first: bytes) -> Disk:
        """The geometry of a disk whose first sector is given.  A partition that ends on a cylinder tells how the disk
        was cut: with 16 heads or fewer that is the disk's own geometry and needs no translation; with more a BIOS has
        translated it, by doubling heads ("large") while that suffices, else as LBA."""
        plain = cls.of_size(sectors)
        if first[510:512] != b"\x55\xaa":
            return plain
        for at in range(446, 510, 16):
            entry = first[at : at + 16]
            heads, per_track = entry[5] + 1, entry[6] & 63
            if heads == 1 or not per_track or entry[12:16] == bytes(4):
                continue
            cylinders = sectors // (heads * per_track)
            if not 1 <= cylinders <= 16383:
                continue
            if heads <= 16:
                return cls(cylinders, heads, per_track, "none")
            return plain._replace(translation="large" if plain.cylinders * plain.heads <= 131072 else "lba")
        return plain

    @property
    def translation_code(self) -> int:
        if self.translation is not None:
            return TRANSLATIONS[self.translation]
        fits = self.cylinders <= 1024 and self.heads <= 16 and self.sectors <= 63
        return TRANSLATIONS["none" if fits else "lba"]


def pc_cmos(
    ram_bytes: int,
    *,
    below_4g: int | None = None,
    cpus: int = 1,
    boot_order: str = "cad",
    check_floppy_signature: bool = True,
    floppies: Sequence[str | None] = (),
    disks: Sequence[Disk | None] = (),
) -> dict[int, int]:
    """The CMOS bytes of a PC: byte number -> value.

    below_4g: RAM that lies below 4 GiB (None: all of it below 3.5 GiB, else 3 GiB, as on i440FX).  boot_order: letters
    of `-boot order=`, at most three.  floppies: the types of drives A and B.  disks: primary master and slave, then
    secondary master and slave; None for no disk (a CD-ROM drive counts as none); on Q35 the disk at AHCI port 0 counts
    as primary master and that at port 1 as secondary master.  Raises MachineError.
    """
    if below_4g is None:
        below_4g = ram_bytes if ram_bytes < 0xE0000000 else 0xC0000000
    if len(boot_order) > 3 or not set(boot_order) <= set(BOOT_DEVICES):
        raise MachineError(f"boot order {boot_order!r}: at most three of the letters a, b, c, d, n")
    if len(floppies) > 2 or not set(floppies) <= set(FLOPPY_TYPES):
        raise MachineError(f"floppy drives {tuple(floppies)!r}: at most two of {', '.join(map(str, FLOPPY_TYPES))}")
    if len(disks) > 4:
        raise MachineError(f"{len(disks)} IDE disks: two channels take four")

    cmos: dict[int, int] = {}

    def store(index: int, value: int, size: int = 1) -> None:
        for i in range(size):
            cmos[index + i] = value >> 8 * i & 0xFF

    store(0x15, min(below_4g // KIB, 640), 2)
    extended = min(max(below_4g - MIB, 0) // KIB, 0xFFFF)
    store(0x17, extended, 2)
    store(0x30, extended, 2)
    store(0x34, min(max(below_4g - 16 * MIB, 0) // (64 * KIB), 0xFFFF), 2)
    store(0x5B, (ram_bytes - below_4g) // (64 * KIB), 3)
    store(0x5F, cpus - 1 if cpus < 256 else 0)

    boot = [BOOT_DEVICES[letter] for letter in boot_order] + [0] * 3
    store(0x3D, boot[1] << 4 | boot[0])
    store(0x38, boot[2] << 4 | (not check_floppy_signature))

    drives = [FLOPPY_TYPES[f] for f in floppies] + [0] * 2
    store(0x10, drives[0] << 4 | drives[1])
    count = sum(d != 0 for d in drives)
    store(0x14, 0x02 | 0x04 | (0x01 if count else 0) | (0x40 if count == 2 else 0))

    slots = [*disks, None, None, None, None][:4]
    store(0x12, (0xF0 if slots[0] else 0) | (0x0F if slots[1] else 0))
    for disk, kind, info in ((slots[0], 0x19, 0x1B), (slots[1], 0x1A, 0x24)):
        if disk:
            store(kind, USE_EXTENDED_TYPE)
            store(info, disk.cylinders, 2)
            store(info + 2, disk.heads)
            store(info + 3, 0xFFFF, 2)  # no write precompensation
            store(info + 5, 0xC0 | (disk.heads > 8) << 3)
            store(info + 6, disk.cylinders, 2)  # landing zone
            store(info + 8, disk.sectors)
    store(0x39, sum(d.translation_code << 2 * i for i, d in enumerate(slots) if d))
    return cmos
