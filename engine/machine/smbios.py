"""SMBIOS tables of a machine: what its firmware copies for the guest.

Document: DMTF DSP0134, System Management BIOS Reference Specification 2.8 and 3.0; numbers in comments are its
sections.  The choice of structures, handles and strings is QEMU 7.2's, so that sizes and bytes are those its guests
see.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

DIMM = 16 << 30  # largest memory device
TYPE17_STANDARD = 0x7FFF  # megabytes that the 16-bit size of a memory device can say
TYPE16_STANDARD = 0x80000000  # kilobytes that the 32-bit capacity of a memory array can say


@dataclass(frozen=True, slots=True)
class Smbios:
    """What the tables say.  `processor`: (EAX, EDX) of CPUID leaf 1; `memory`: (base, size) of each range of RAM."""

    product: str
    version: str
    ram: int
    memory: Sequence[tuple[int, int]]
    sockets: int = 1
    cores: int = 1
    threads: int = 1
    processor: tuple[int, int] = (0, 0)
    uuid: bytes = bytes(16)
    system: Mapping[str, str] = field(default_factory=dict)  # strings of type 1 to change
    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # of types 0, 2, 3, 4 and 17, by number
    oem: Sequence[str] = ()  # strings of type 11
    bits: int = 32  # width of the entry point's table address


def _structure(kind: int, handle: int, body: bytes, *strings: str) -> bytes:
    """One structure: header, formatted area, set of strings (6.1.2, 6.1.3)."""
    text = b"".join(s.encode() + b"\0" for s in strings if s)
    return struct.pack("<BBH", kind, 4 + len(body), handle) + body + (text or b"\0") + b"\0"


def _numbered(*strings: str) -> list[int]:
    """The number of each string in its structure's set; 0 for an empty one."""
    out, n = [], 0
    for s in strings:
        n += bool(s)
        out.append(n if s else 0)
    return out


def _bios(f: Smbios) -> list[bytes]:
    """Type 0, BIOS information (7.1), if any is given; otherwise it is the firmware's."""
    if "0" not in f.given:
        return []
    given = f.given["0"]
    text = [given.get(k, "") for k in ("vendor", "version", "date")]
    n = _numbered(*text)
    release = [int(part) for part in given.get("release", "0.0").split(".")]
    virtual = 0x14 | 0x08 * (given.get("uefi", "off") in ("on", "true", "yes"))
    body = struct.pack("<BBHBBQ6B", n[0], n[1], 0xE800, n[2], 0, 8, 0, virtual, *release, 255, 255)
    return [_structure(0, 0, body, *text)]


def _board(f: Smbios) -> list[bytes]:
    """Type 2, baseboard information (7.3), if any is given."""
    if "2" not in f.given:
        return []
    given = {"manufacturer": "QEMU", "product": f.product, "version": f.version, **f.given["2"]}
    text = [given.get(k, "") for k in ("manufacturer", "product", "version", "serial", "asset", "location")]
    n = _numbered(*text)
    return [_structure(2, 0x200, struct.pack("<7BHBB", *n[:5], 1, n[5], 0x300, 10, 0), *text)]


def _system(f: Smbios) -> bytes:
    """Type 1, system information (7.2)."""
    given = {
        "manufacturer": "QEMU",
        "product": f.product,
        "version": f.version,
        "serial": "",
        "sku": "",
        "family": "",
        **f.system,
    }
    text = [given[k] for k in ("manufacturer", "product", "version", "serial", "sku", "family")]
    n = _numbered(*text)
    # 7.2.1: the first three fields of a UUID are little endian.
    u = f.uuid[3::-1] + f.uuid[5:3:-1] + f.uuid[7:5:-1] + f.uuid[8:]
    return _structure(1, 0x100, bytes(n[:4]) + u + bytes((6, *n[4:])), *text)


def _chassis(f: Smbios) -> bytes:
    """Type 3, system enclosure (7.4): states "safe", security "unknown"."""
    given = {"manufacturer": "QEMU", "version": f.version, **f.given.get("3", {})}
    text = [given.get(k, "") for k in ("manufacturer", "version", "serial", "asset", "sku")]
    n = _numbered(*text)
    return _structure(3, 0x300, bytes((n[0], 1, n[1], n[2], n[3], 3, 3, 3, 2)) + bytes(8) + bytes(n[4:]), *text)


def _processor(f: Smbios, n: int) -> bytes:
    """Type 4, processor information (7.5)."""
    cores, threads = min(f.cores, 255), min(f.threads * f.cores, 255)
    if f.cores > 255:
        threads = 255
    given = {"sock_pfx": "CPU", "manufacturer": "QEMU", "version": f.version, **f.given.get("4", {})}
    text = [given["sock_pfx"] + f"{n:2x}"] + [
        given.get(k, "") for k in ("manufacturer", "version", "serial", "asset", "part")
    ]
    number = _numbered(*text)
    id = int(given.get("processor-id", "0"), 0)
    body = struct.pack(
        "<BBBBIIBBHHHBBHHHBBBBBBHH",
        number[0],
        3,
        1,
        number[1],
        *((id & 0xFFFFFFFF, id >> 32) if id else f.processor),
        number[2],
        0,
        0,
        int(given.get("max-speed", "2000"), 0),
        int(given.get("current-speed", "2000"), 0),
        0x41,
        1,
        0xFFFF,
        0xFFFF,
        0xFFFF,
        *number[3:],
        cores,
        cores,
        threads,
        2,
        1,
    )
    if f.bits == 64:
        body += struct.pack("<HHH", f.cores, f.cores, f.cores * f.threads)
    return _structure(4, 0x400 + n, body, *text)


def _oem(f: Smbios) -> list[bytes]:
    """Type 11, OEM strings (7.12)."""
    return [_structure(11, 0xE00, bytes((len(f.oem),)), *f.oem)] if f.oem else []


def _memory(f: Smbios) -> list[bytes]:
    """Types 16, 17 and 19: the array, its devices, the addresses they answer (7.17, 7.18, 7.20)."""
    count = -(-f.ram // DIMM)
    kib = f.ram >> 10
    small = kib < TYPE16_STANDARD
    out = [
        _structure(
            16,
            0x1000,
            struct.pack("<BBBIHHQ", 1, 3, 6, kib if small else TYPE16_STANDARD, 0xFFFE, count, 0 if small else f.ram),
        )
    ]
    given = {"loc_pfx": "DIMM", "manufacturer": "QEMU", **f.given.get("17", {})}
    speed = int(given.get("speed", "0"), 0)
    for n in range(count):
        text = [f"{given['loc_pfx']} {n}"] + [
            given.get(k, "") for k in ("bank", "manufacturer", "serial", "asset", "part")
        ]
        number = _numbered(*text)
        mib = (min(DIMM, f.ram - n * DIMM) + (1 << 20) - 1) >> 20
        size, more = (mib, 0) if mib < TYPE17_STANDARD else (TYPE17_STANDARD, mib)
        body = struct.pack(
            "<HHHHHBBBBBHHBBBBBIHHHH",
            0x1000,
            0xFFFE,
            0xFFFF,
            0xFFFF,
            size,
            9,
            0,
            number[0],
            number[1],
            7,
            2,
            speed,
            *number[2:],
            0,
            more,
            speed,
            0,
            0,
            0,
        )
        out.append(_structure(17, 0x1100 + n, body, *text))
    for n, (base, size) in enumerate(f.memory):
        first, last = base >> 10, (base + size - 1) >> 10
        if last < 0xFFFFFFFF:
            body = struct.pack("<IIHBQQ", first, last, 0x1000, 1, 0, 0)
        else:
            body = struct.pack("<IIHBQQ", 0xFFFFFFFF, 0xFFFFFFFF, 0x1000, 1, base, base + size - 1)
        out.append(_structure(19, 0x1300 + n, body))
    return out


def tables(f: Smbios) -> tuple[bytes, bytes]:
    """(entry point, structure table).  The firmware fills in the table's address and the checksums."""
    parts = [
        *_bios(f),
        _system(f),
        *_board(f),
        _chassis(f),
        *(_processor(f, n) for n in range(f.sockets)),
        *_oem(f),
        *_memory(f),
        _structure(32, 0x2000, bytes(7)),  # system boot information (7.33): no errors
        _structure(127, 0x7F00, b""),
    ]  # end of table (7.45)
    table = b"".join(parts)
    if f.bits == 64:  # 5.2.2
        return struct.pack("<5sBBBBBBBIQ", b"_SM3_", 0, 24, 3, 0, 0, 1, 0, len(table), 0), table
    longest = max(map(len, parts))
    return struct.pack(
        "<4sBBBBHB5s5sBHIHB", b"_SM_", 0, 31, 2, 8, longest, 0, bytes(5), b"_DMI_", 0, len(table), 0, len(parts), 0x28
    ), table  # 5.2.1
