"""The fw_cfg items of QEMU 7.2's PC machines, from facts about the machine.

Everything a guest can tell from the machine alone is computed: keys and values, names, sizes, SMBIOS tables, e820.
Bytes that other programs make (ACPI tables, option ROMs, a kernel) are content: here they have a size, and bytes if the
caller gives some.  tests/differential/test_fw_cfg_items.py compares with what QEMU 7.2 gives.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from engine.errors import MachineError
from engine.machine import smbios

# Keys: standard-headers/linux/qemu_fw_cfg.h and hw/i386/fw_cfg.h of QEMU.
UUID, RAM_SIZE, NOGRAPHIC, NB_CPUS = 0x02, 0x03, 0x04, 0x05
KERNEL_ADDR, KERNEL_SIZE, INITRD_ADDR, INITRD_SIZE = 0x07, 0x08, 0x0A, 0x0B
NUMA, BOOT_MENU, MAX_CPUS, KERNEL_ENTRY = 0x0D, 0x0E, 0x0F, 0x10
KERNEL_DATA, INITRD_DATA, CMDLINE_ADDR, CMDLINE_SIZE, CMDLINE_DATA = 0x11, 0x12, 0x13, 0x14, 0x15
SETUP_ADDR, SETUP_SIZE, SETUP_DATA = 0x16, 0x17, 0x18
ACPI_TABLES, SMBIOS_ENTRIES, IRQ0_OVERRIDE, E820_TABLE, HPET = 0x8000, 0x8001, 0x8002, 0x8003, 0x8004

E820_RAM, E820_RESERVED = 1, 2
AMD_HT = (0xFD00000000, 0x0300000000)  # HyperTransport range of AMD processors with 40 or more address bits
ACPI_TABLE_BLOCK = 0x20000  # the tables are padded to a multiple of this
ACPI_LOADER_BLOCK = 0x1000
ACPI_DATA = 0x20000 + 0x8000  # below the end of low RAM, kept free of an initrd
HPET_ID, HPET_BASE = 0x8086A201, 0xFED00000
SETUP_MOST = 256 * 512  # bytes of set-up code that a kernel's header can ask for
MULTIBOOT = (
    0x1BADB002  # magic of a header in the first 8 KiB; it, flags and checksum add up to 0 (Multiboot 0.6.96, 3.1)
)
KINDS = (
    "etc/boot-menu-wait", "etc/boot-fail-wait", "etc/smbios/smbios-tables", "etc/smbios/smbios-anchor", "etc/e820",
    "etc/reserved-memory-end", "genroms/kvmvapic.bin", "genroms/linuxboot.bin", "etc/system-states", "",
    "etc/acpi/tables", "etc/table-loader", "etc/tpm/log", "etc/acpi/rsdp", "bootorder",
)  # fmt: skip
SMI_FEATURES = 7  # broadcast, CPU hotplug, CPU hot-unplug


class Item(NamedTuple):
    """One item as FwCfg takes it: `key` a number, or the name of a file; `data` None for bytes that are not known."""

    key: int | str
    data: bytes | None
    size: int
    content: bool = False
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Chipset:
    """What differs between the two PC machines."""

    product: str
    version: str
    split_at: int  # RAM of this size or more is split ...
    low_ram: int  # ... and this much of it stays below 4 GiB
    smi: bool = False


CHIPSETS = {
    "pc": Chipset("Standard PC (i440FX + PIIX, 1996)", "pc-i440fx-7.2", 0xE0000000, 0xC0000000),
    "q35": Chipset("Standard PC (Q35 + ICH9, 2009)", "pc-q35-7.2", 0xB0000000, 0x80000000, smi=True),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a machine's fw_cfg depends on.

    ROMs, files, kernel and initrd: bytes, or a size for bytes that are not known; in machine files a file is text, or
    {path = FILE}, too.
    `numa`: (RAM, CPUs) of each node.
    `bootorder` and `geometry`: lines in OpenFirmware device-path form.
    """

    machine: str = "pc"
    version: str = ""  # the machine type's full name, as SMBIOS gives it; "": that of 7.2
    ram: int = 128 << 20
    max_low_ram: int = 0  # at most so much of it lies below 4 GiB; 0: what the chipset has there
    max_ram: int = 0  # with memory modules; 0: ram
    ram_slots: int = 0  # for memory modules
    cpus: int = 1
    max_cpus: int = 0  # 0: cpus
    sockets: int = 0  # 0: what the others leave over
    dies: int = 1
    cores: int = 0
    threads: int = 0
    processor: tuple[int, int] = (0x00060FB1, 0x078BFBFD)  # CPUID 1 EAX, EDX: QEMU's qemu64 under TCG
    reserved: tuple[tuple[int, int], ...] = (AMD_HT,)  # reserved ranges in e820
    numa: tuple[tuple[int, tuple[int, ...]], ...] = ()
    dma: bool = True
    hpet: bool = True
    acpi: bool = True
    acpi_tables: int = ACPI_TABLE_BLOCK  # bytes of the ACPI tables before padding
    rsdp: int = 20  # bytes of the root pointer's file
    s3: bool = True
    s4: bool = True
    s4_value: int = 2
    uuid: bytes = b""
    nographic: bool = False
    boot_menu: bool = False
    splash_time: int = -1  # milliseconds; -1: not given
    reboot_timeout: int = -1
    bootorder: tuple[str, ...] = ()
    strict: bool = False  # boot from nothing else
    geometry: tuple[str, ...] = ()
    system: Mapping[str, str] = field(default_factory=dict)  # strings of SMBIOS type 1
    smbios: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # what is given of its types 0, 2, 3, 4, 17
    oem_strings: tuple[str, ...] = ()  # SMBIOS type 11
    smbios_bits: int = 32
    kernel: bytes | int | None = None
    initrd: bytes | int | None = None
    cmdline: str = ""
    roms: Mapping[str, bytes | int] = field(default_factory=lambda: {"kvmvapic.bin": 9216})
    files: Mapping[str, bytes | int] = field(default_factory=dict)
    writable: Mapping[str, int] = field(default_factory=dict)
    smi: bool = True  # where the chipset has the files of SMI features, they are there
    files_by_kind: bool = False  # the order of files up to 2.5, and no file of disk geometries

    @classmethod
    def checked(cls, given: Mapping[str, Any], where: str = "fw_cfg") -> Facts:
        """Facts from a table of a machine file.  Raises MachineError for an unknown name or chipset."""
        known = {f.name for f in fields(cls)}
        for name in given:
            if name not in known:
                raise MachineError(f"{where}: unknown fact {name!r}; known are {', '.join(sorted(known))}")
        f = cls(**given)
        if f.machine not in CHIPSETS:
            raise MachineError(f"{where}: machine = {f.machine!r}; choose one of {', '.join(CHIPSETS)}")
        sockets, dies, cores, threads = topology(f)
        if sockets * dies * cores * threads != (f.max_cpus or f.cpus) or f.cpus > (f.max_cpus or f.cpus):
            raise MachineError(
                f"{where}: {sockets} sockets, {dies} dies, {cores} cores, {threads} threads are no {f.cpus} vCPUs"
                + (f" of {f.max_cpus}" if f.max_cpus else "")
            )
        return f


def memory(f: Facts) -> list[tuple[int, int]]:
    """(base, size) of each range of RAM."""
    c = CHIPSETS[f.machine]
    most = f.max_low_ram or f.ram
    split_at = most if f.max_low_ram and f.machine == "pc" else c.split_at
    low = min(c.low_ram if f.ram >= split_at else f.ram, most, f.ram)
    return [(0, low)] + ([(1 << 32, f.ram - low)] if f.ram > low else [])


def ceil_gib(n: int) -> int:
    """The next multiple of 1 GiB."""
    return -(-n >> 30) << 30


def topology(f: Facts) -> tuple[int, int, int, int]:
    """(sockets, dies, cores, threads): cores take what is not given, or else sockets, or else threads."""
    most = f.max_cpus or f.cpus
    sockets, cores, threads = f.sockets, f.cores, f.threads
    if not cores:
        sockets, threads = sockets or 1, threads or 1
        cores = max(1, most // (sockets * f.dies * threads))
    elif not sockets:
        threads = threads or 1
        sockets = max(1, most // (f.dies * cores * threads))
    return sockets, f.dies, cores, threads or max(1, most // (sockets * f.dies * cores))


def place(f: Facts, cpu: int) -> dict[str, int]:
    """Where a vCPU is."""
    _, dies, cores, threads = topology(f)
    rest, thread = divmod(cpu, threads)
    rest, core = divmod(rest, cores)
    socket, die = divmod(rest, dies)
    return {"socket-id": socket, "die-id": die, "core-id": core, "thread-id": thread}


def apic_id(f: Facts, cpu: int) -> int:
    """The APIC ID of a vCPU: threads, cores and dies take whole bits of it."""
    _, dies, cores, threads = topology(f)
    socket, die, core, thread = place(f, cpu).values()
    number = socket
    for one, many in ((die, dies), (core, cores), (thread, threads)):
        number = number << (many - 1).bit_length() | one
    return number


def _lines(lines: Sequence[str]) -> bytes:
    return "\n".join(lines).encode() + b"\0" if lines else b""


def _bytes_and_size(given: bytes | int | None) -> tuple[bytes | None, int | None]:
    """The bytes, None if they are not known, and their number, None if there is nothing."""
    if given is None or isinstance(given, int):
        return None, given
    return given, len(given)


def _linux(f: Facts) -> list[Item]:
    """The parts of a Linux kernel, patched as its boot protocol asks of a loader (Linux, Documentation/x86/boot)."""
    assert f.kernel is not None
    real, cmdline_at, protected = 0x10000, 0x20000, 0x100000
    text = f.cmdline.encode() + b"\0"
    items = [
        Item(CMDLINE_ADDR, struct.pack("<I", cmdline_at), 4),
        Item(CMDLINE_SIZE, struct.pack("<I", len(text)), 4),
        Item(CMDLINE_DATA, text, len(text)),
        Item(KERNEL_ADDR, struct.pack("<I", protected), 4),
        Item(SETUP_ADDR, struct.pack("<I", real), 4),
    ]
    initrd, initrd_size = _bytes_and_size(f.initrd)
    if initrd_size is not None:
        items += [
            Item(INITRD_SIZE, struct.pack("<I", initrd_size), 4),
            Item(INITRD_DATA, initrd, initrd_size, content=True),
        ]
    if isinstance(f.kernel, int):  # what it is, and where its parts go, is content, too
        unknown = (KERNEL_ADDR, KERNEL_ENTRY, KERNEL_SIZE, SETUP_ADDR, SETUP_SIZE, INITRD_ADDR, INITRD_SIZE)
        return [
            *(i for i in items if i.key not in unknown),
            *(Item(key, None, 4, content=True) for key in unknown),
            Item(KERNEL_DATA, None, f.kernel, content=True),
            Item(SETUP_DATA, None, min(f.kernel, SETUP_MOST), content=True),
        ]
    image = bytearray(f.kernel)
    header = image[:8192].ljust(8192, b"\0")

    def u16(at: int) -> int:
        return int(struct.unpack_from("<H", header, at)[0])

    def u32(at: int) -> int:
        return int(struct.unpack_from("<I", header, at)[0])

    if any(u32(at) == MULTIBOOT and not (sum(struct.unpack_from("<3I", header, at)) & 0xFFFFFFFF)
           for at in range(0, len(header) - 11, 4)):  # fmt: skip
        return _linux(replace(f, kernel=len(image)))  # how it is loaded is not modelled
    if header[0x202:0x206] != b"HdrS" or u16(0x206) < 0x202 or not header[0x211] & 1:
        raise MachineError("kernel: only bzImages of boot protocol 2.02 and later can be loaded")
    protocol = u16(0x206)
    struct.pack_into("<I", header, 0x228, cmdline_at)
    if "vga=" in f.cmdline:
        word = f.cmdline.split("vga=", 1)[1]
        named = {"normal": 0xFFFF, "ext": 0xFFFE, "ask": 0xFFFD}
        mode = next((v for name, v in named.items() if word.startswith(name)), None)
        struct.pack_into("<H", header, 0x1FA, _leading_number(word) & 0xFFFF if mode is None else mode)
    header[0x210] = 0xB0  # loader type
    header[0x211] |= 0x80  # CAN_USE_HEAP
    struct.pack_into("<H", header, 0x224, cmdline_at - real - 0x200)
    if initrd_size is not None:
        high = protocol >= 0x20C and u16(0x236) & 2  # XLF_CAN_BE_LOADED_ABOVE_4G
        top = 0xFFFFFFFF if high else u32(0x22C) if protocol >= 0x203 else 0x37FFFFFF  # initrd_addr_max
        top = min(top, memory(f)[0][1] - ACPI_DATA - 1)
        if initrd_size >= top:
            raise MachineError(f"initrd: {initrd_size} bytes do not fit below {top:#x}")
        at = (top - initrd_size) & ~0xFFF
        items.append(Item(INITRD_ADDR, struct.pack("<I", at), 4))
        struct.pack_into("<II", header, 0x218, at, initrd_size)
    setup_size = ((header[0x1F1] or 4) + 1) * 512
    if setup_size > len(image):
        raise MachineError(f"kernel: its header asks for {setup_size} bytes of set-up code, the file has {len(image)}")
    setup = bytes(header[:setup_size]) + bytes(image[8192:setup_size])
    body = bytes(image[setup_size:])
    return [
        *items,
        Item(KERNEL_SIZE, struct.pack("<I", len(body)), 4),
        Item(KERNEL_DATA, body, len(body), content=True),
        Item(SETUP_SIZE, struct.pack("<I", setup_size), 4),
        Item(SETUP_DATA, setup, setup_size, content=True),
    ]


def _leading_number(text: str) -> int:
    """What C's strtol(text, NULL, 0) makes of it."""
    for end in range(len(text), 0, -1):
        try:
            return int(text[:end], 0)
        except ValueError:
            continue
    return 0


def _acpi(f: Facts) -> list[Item]:
    """ACPI: the tables and the program that places them are content, made from the whole board."""
    states = bytearray(6)
    states[0] = states[5] = 0x80
    states[3] = 1 | f.s3 << 7
    states[4] = f.s4_value | f.s4 << 7
    size = -(-f.acpi_tables // ACPI_TABLE_BLOCK) * ACPI_TABLE_BLOCK
    return [
        Item("etc/acpi/rsdp", None, f.rsdp, content=True),
        Item("etc/acpi/tables", None, size, content=True),
        Item("etc/table-loader", None, ACPI_LOADER_BLOCK, content=True),
        Item("etc/tpm/log", b"", 0),
        Item("etc/system-states", bytes(states), 6),
    ]


def machine_items(f: Facts) -> tuple[Item, ...]:
    """Every item of the machine but the ones the device makes itself (signature, interface ID, directory)."""
    c = CHIPSETS[f.machine]
    ram = memory(f)
    e820 = b"".join(
        struct.pack("<QQI", base, size, kind)
        for ranges, kind in ((f.reserved, E820_RESERVED), (ram, E820_RAM))
        for base, size in ranges
    )
    sockets, dies, cores, threads = topology(f)
    told = smbios.Smbios(
        c.product, f.version or c.version, f.ram, ram, sockets, dies * cores, threads, f.processor, f.uuid or bytes(16),
        f.system, f.smbios, f.oem_strings, f.smbios_bits,
    )  # fmt: skip
    try:
        anchor, table = smbios.tables(told)
    except struct.error as e:
        raise MachineError(f"smbios: {e}") from None
    ids = apic_id(f, (f.max_cpus or f.cpus) - 1) + 1
    # Memory modules need a node to be put into.
    nodes = f.numa or (((f.ram, ()),) if f.ram_slots or f.max_ram > f.ram else ())
    numa = [len(nodes)] + [0] * ids + [size for size, _ in nodes]
    for node, (_, cpus) in enumerate(nodes):
        for cpu in cpus:
            numa[1 + apic_id(f, cpu)] = node
    hpet = (struct.pack("<BIQHB", 1, HPET_ID, HPET_BASE, 0, 0) if f.hpet else b"\xff").ljust(121, b"\0")
    bootorder = list(f.bootorder)
    roms = dict(f.roms)
    items = [
        Item(UUID, f.uuid or bytes(16), 16),
        Item(RAM_SIZE, struct.pack("<Q", f.ram), 8),
        Item(NOGRAPHIC, struct.pack("<H", f.nographic), 2),
        Item(NB_CPUS, struct.pack("<H", f.cpus), 2),
        Item(BOOT_MENU, struct.pack("<H", f.boot_menu), 2),
        Item(MAX_CPUS, struct.pack("<H", ids), 2),
        Item(NUMA, struct.pack(f"<{len(numa)}Q", *numa), 8 * len(numa)),
        Item(IRQ0_OVERRIDE, struct.pack("<I", 1), 4),
        Item(HPET, hpet, len(hpet)),
        Item("etc/e820", e820, len(e820)),
        Item("etc/boot-fail-wait", struct.pack("<i", f.reboot_timeout), 4),
        Item("etc/smbios/smbios-anchor", anchor, len(anchor)),
        Item("etc/smbios/smbios-tables", table, len(table)),
    ]
    if f.max_ram > f.ram:
        end = ceil_gib(sum(ram[-1]) if len(ram) > 1 else 1 << 32) + f.max_ram - f.ram + (f.ram_slots << 30)
        items.append(Item("etc/reserved-memory-end", struct.pack("<Q", ceil_gib(end)), 8))
    if f.splash_time >= 0:
        items.append(Item("etc/boot-menu-wait", struct.pack("<H", f.splash_time), 2))
    if f.acpi:
        items += _acpi(f)
    if c.smi and f.smi:
        items += [
            Item("etc/smi/features-ok", b"\0", 1),
            Item("etc/smi/requested-features", bytes(8), 8, writable=True),
            Item("etc/smi/supported-features", struct.pack("<Q", SMI_FEATURES), 8),
        ]
    if f.kernel is not None:
        items += _linux(f)
        rom = "linuxboot_dma.bin" if f.dma else "linuxboot.bin"
        roms.setdefault(rom, 1536 if f.dma else 1024)
        bootorder.insert(0, f"/rom@genroms/{rom}")
    if bootorder and f.strict:
        bootorder.append("HALT")
    for name, lines in (("bootorder", bootorder), ("bios-geometry", f.geometry)):
        data = _lines(lines)
        items.append(Item(name, data, len(data)))
    for name, given in [*((f"genroms/{n}", v) for n, v in roms.items()), *f.files.items()]:
        size = given if isinstance(given, int) else len(given)
        items.append(Item(name, None if isinstance(given, int) else given, size, content=True))
    items += [Item(name, bytes(size), size, writable=True) for name, size in f.writable.items()]
    return tuple(_by_kind(items) if f.files_by_kind else items)


def _by_kind(items: list[Item]) -> list[Item]:
    """The files of machine types up to 2.5, in their order; those of users and devices stand where "" is."""
    return sorted(
        (i for i in items if i.key != "bios-geometry"),
        key=lambda i: KINDS.index(i.key if i.key in KINDS else "") if isinstance(i.key, str) else -1,
    )
