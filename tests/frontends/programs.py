"""What the qtest tests send: for each name, the QEMU command line and the requests.  `reset` is the monitor's
system_reset; a request that begins with { goes to the monitor."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine.testing.qtest_client import QtestClient

TRANSCRIPTS = Path(__file__).with_name("transcripts.txt")
RESET = "reset"
EVENTS = "events"  # what the monitor has heard since the last time, without times
PAUSE = "pause"  # wait a little for what the reference does in a thread of its own
GONE = "gone "  # wait until the monitor has heard that the device of this name has left
SETTLE = "settle"  # wait until the reference has done what it does from its main loop: resets of machine and drives
BIOS = "{bios}"  # the path of an image of 64 KiB
VM_CLOCK = ["-rtc", "base=2024-02-28T23:59:50,clock=vm"]
BARE = ["-machine", "pc", "-nodefaults", *VM_CLOCK]
NULL_DISK = "if=ide,index={},format=raw,file.driver=null-co,file.read-zeroes=on,file.size={}"


def cmos(*registers: int) -> list[str]:
    """Reads of CMOS bytes."""
    return [line for r in registers for line in (f"outb 0x70 {r:#x}", "inb 0x71")]


def cmos_write(register: int, value: int) -> list[str]:
    """A write of a CMOS byte."""
    return [f"outb 0x70 {register:#x}", f"outb 0x71 {value:#x}"]


def config(devfn: int, register: int) -> str:
    """The write that addresses a configuration register of bus 0."""
    return f"outl 0xcf8 {1 << 31 | devfn << 8 | register:#x}"


def config_read(devfn: int, register: int, width: str = "l") -> list[str]:
    """A read of configuration space, its low address bits in the data port."""
    return [config(devfn, register & ~3), f"in{width} {0xCFC + (register & 3):#x}"]


def config_write(devfn: int, register: int, value: int, width: str = "b") -> list[str]:
    """A write of configuration space."""
    return [config(devfn, register & ~3), f"out{width} {0xCFC + (register & 3):#x} {value:#x}"]


def _rtc() -> Iterator[str]:
    yield "outb 0x43 0x30"  # or the PIT interrupts all day
    yield from cmos(*range(0x40))
    yield "irq_intercept_in ioapic"
    for step in (1, 244_000, 999_755_999, 1_000_000_000, 8_000_000_000, 86_400_000_000_000):
        yield f"clock_step {step}"
        yield from cmos(0x0A, 0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32, 0x0C)
    yield from cmos_write(0x0B, 0x86)  # set, binary
    for register, value in (
        (0x00, 58),
        (0x02, 59),
        (0x04, 23),
        (0x07, 31),
        (0x08, 12),
        (0x09, 99),
        (0x32, 19),
        (0x01, 2),
        (0x03, 0),
        (0x05, 0),
    ):
        yield from cmos_write(register, value)
    yield from cmos_write(0x0B, 0x36)  # alarm and update interrupts
    for _ in range(6):
        yield "clock_step 1000000000"
        yield from cmos(0x0C, 0x0D, 0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32)
    yield from cmos_write(0x0A, 0x2F)  # 2 Hz
    yield from cmos_write(0x0B, 0x42)
    for _ in range(3):
        yield "clock_step 500000000"
        yield from cmos(0x0C)


def _fw_cfg() -> Iterator[str]:
    def item(selector: int, length: int) -> Iterator[str]:
        yield f"outw 0x510 {selector:#x}"
        yield from ["inb 0x511"] * length

    for selector, length in (
        (0, 4),
        (1, 4),
        (2, 16),
        (3, 8),
        (4, 2),
        (5, 2),
        (0xD, 4),
        (0xE, 2),
        (0x8002, 16),
        (0x8003, 4),
        (0x7FFF, 4),
        (0x19, 4),
    ):
        yield from item(selector, length)
    yield from ["inw 0x510", "inl 0x511", "inw 0x511", "readb 0x511"]
    yield from ["inl 0x514", "inl 0x518", "outw 0x510 0", "inw 0x511"]


def _i440fx() -> Iterator[str]:
    for function in (0x00, 0x08, 0x09, 0x0B):
        for register in range(0, 0x100, 4):
            yield from config_read(function, register)
    for width, registers in (("b", range(4, 16)), ("w", range(4, 16, 2))):
        for register in registers:
            yield from config_read(0, register, width)
    for latch in (0x80000001, 0x80000002, 0x80000003, 0x7FFFFFFF, 0x00000000):  # low bits are kept and or'ed in
        yield f"outl 0xcf8 {latch:#x}"
        yield from ["inl 0xcf8", "inb 0xcf9", "inw 0xcfa", "inl 0xcfc", "inw 0xcfc", "inb 0xcfd", "inw 0xcfe"]
    yield from ["outl 0xcf8 0x80000000", "outw 0xcf8 0x1234", "outb 0xcfb 0", "inl 0xcf8"]


def _pam() -> Iterator[str]:
    for n, attribute in ((0, 0x10), (0, 0x30), (0, 0x20), (0, 0), (1, 0x31), (1, 0x33), (3, 0x23), (6, 0x11)):
        yield from config_write(0, 0x59 + n, attribute)
        base = 0xF0000 if n == 0 else 0xC0000 + (n - 1) * 0x8000
        for addr in (base, base + 0x3FFE, base + 0x4000):
            if attribute in (
                0x11,
                0x31,
                0x10,
            ):  # the reference writes to RAM that is only to be read; see docs/frontends/qtest.md
                yield f"readl {addr:#x}"
                continue
            yield from (
                f"readl {addr:#x}",
                f"writel {addr:#x} 0x5a{n:02x}{attribute:02x}77",
                f"readl {addr:#x}",
                f"read {addr:#x} 6",
            )
        yield from config_write(0, 0x59 + n, 0x33)
        yield from (f"read {base:#x} 8", f"read {base + 0x3FFC:#x} 8")
    yield from ["memset 0xc0000 0x40000 0x11", "readq 0xbfffc", "readq 0xffffc"]
    for smram in (0x02, 0x0A, 0x4A, 0x02):
        yield from config_write(0, 0x72, smram)
        yield from (
            "readl 0xa0000",
            "writel 0xb8000 0x07410742",
            "readl 0xb8000",
            "readq 0x9fffc",
            "writeq 0x9fffc 0x8877665544332211",
            "readq 0x9fffc",
        )
    yield RESET
    yield from ("readl 0xc0000", "readl 0xf0000", *config_read(0, 0x59), *config_read(0, 0x70))


def _pci() -> Iterator[str]:
    for devfn in range(0x100):
        yield from config_read(devfn, 0)
    for devfn in (0x09, 0x0B, 0x10):
        for bar in range(0x10, 0x34, 4):
            yield from config_write(devfn, bar, 0xFFFFFFFF, "l")
            yield from config_read(devfn, bar)
    yield from config_write(0x09, 0x20, 0xC001, "l")
    yield from config_write(0x09, 0x04, 5, "w")
    yield from ["inl 0xc000", "inl 0xc004", "inb 0xc002", "outl 0xc004 0x12345678", "inl 0xc004"]
    yield from config_write(0x09, 0x04, 4, "w")
    yield "inl 0xc004"
    yield from ["outl 0xcf8 0x80010000", "inl 0xcfc", "outl 0xcf8 0x80ff0000", "inl 0xcfc"]


def _timer() -> Iterator[str]:
    yield from ["irq_intercept_in ioapic", "irq_intercept_in ioapic"]
    yield from ["clock_step"] * 5
    yield from [
        "outb 0x43 0x34",
        "outb 0x40 0x88",
        "outb 0x40 0x13",
        "clock_step 100000",
        "outb 0x43 0",
        "inb 0x40",
        "inb 0x40",
    ]
    yield from ["clock_step"] * 4
    yield from ["clock_step 10000000", "clock_set 5", "clock_step -5", "clock_step 0"]
    yield from ["inb 0x61", "outb 0x61 1", "outb 0x43 0xb6", "outb 0x42 0xff", "outb 0x42 0"]
    for _ in range(4):
        yield from ("clock_step 70000", "inb 0x61", "outb 0x43 0xe8", "inb 0x42")
    yield from [
        "set_irq_in ioapic unnamed-gpio-in 10 1",
        "set_irq_in ioapic unnamed-gpio-in 10 1",
        "set_irq_in ioapic unnamed-gpio-in 10 0",
    ]
    for port in (0x20, 0xA0):
        yield from (f"outb {port:#x} 0x0a", f"inb {port:#x}", f"inb {port + 1:#x}")
    yield from ["outb 0x43 0x30", "outb 0x40 10", "outb 0x40 0", "clock_step 20000", "clock_step 20000"]
    yield from ["outl 0x4d0 0x0e20", "inw 0x4d0"]


def _ide() -> Iterator[str]:
    yield "irq_intercept_in ioapic"
    for base, control, units in ((0x1F0, 0x3F6, (0xA0, 0xB0)), (0x170, 0x376, (0xA0, 0xB0))):
        for unit in units:
            yield f"outb {base + 6:#x} {unit:#x}"
            yield from (f"inb {base + r:#x}" for r in range(1, 8))
            for command in (0xEC, 0xA1):
                yield f"outb {base + 7:#x} {command:#x}"
                yield from (f"inb {base + 7:#x}", f"inb {control:#x}", f"inb {base + 1:#x}")
                yield from [f"inw {base:#x}"] * 128 + [f"inl {base:#x}"] * 64
                yield from (f"inb {base + 7:#x}", f"inw {base:#x}")
        yield from (f"outb {control:#x} 4", SETTLE, f"inb {base + 7:#x}", f"outb {control:#x} 2", SETTLE)
        yield from (f"inb {base + r:#x}" for r in range(1, 8))
        yield from (f"outb {base + 6:#x} 0xa0", f"outb {base + 7:#x} 0x90", f"inb {base + 7:#x}", f"inb {base + 1:#x}")


def _memory() -> Iterator[str]:
    yield "endianness"
    yield from [
        "writeq 0x1000 0x0123456789abcdef",
        "readb 0x1000",
        "readw 0x1001",
        "readl 0x1002",
        "readq 0x1003",
        "read 0xffe 12",
    ]
    yield from ["writeb 0x1000 0x1ff", "writew 0x1001 0x12345", "writel 0x1003 -1", "readq 0x1000", "read 0x1000 010"]
    yield from [
        "write 0x2000 8 0x0102",
        "read 0x2000 8",
        "write 0x2000 2 0xAABBCCDD",
        "read 0x2000 4",
        "write 0x2000 3 0x123",
        "read 0x2000 4",
    ]
    yield from [
        "memset 0x2000 16 0xa5",
        "b64read 0x2000 10",
        "b64write 0x2003 3 AAEC",
        "b64read 0x2000 7",
        "b64read 0x2000 0",
        "memset 0x3000 0 1",
    ]
    yield from ["write 0x2000 1 0", "b64write 0x2000 1 A"]
    for edge in (0xA0000, 0x100000, 0x4000000, 0xFEC00000, 0xFED00000, 0xFFFC0000, 0x100000000):
        for addr in (edge - 8, edge - 3, edge - 1, edge):
            yield from (f"writel {addr:#x} 0xdeadbeef", f"readl {addr:#x}", f"readq {addr:#x}", f"readw {addr:#x}")
    yield from [f"read{w} {0xFED00000 + o:#x}" for o in (0, 1, 2, 4, 0xF0, 0x100, 0x3FC) for w in "bwlq"]
    yield from [
        "writel 0xfec00000 1",
        "readl 0xfec00010",
        "readq 0xfec00010",
        "readb 0xfec00010",
        "readw 0xfec00011",
        "read 0xfec00010 16",
    ]


def _ports() -> Iterator[str]:
    for port in (
        0x505,
        0x80,
        0xB2,
        0xE9,
        0x402,
        0x443,
        0x600,
        0xAFE0,
        0xFFFF,
        0xFFFE,
        0xFFFD,
        0x0,
        0x81,
        0x3F8,
        0x378,
        0x92,
        0x61,
        0x71,
        0x20,
    ):
        yield from (f"in{w} {port:#x}" for w in "bwl")
    yield from [
        "outl 0xffff 0x12345678",
        "outw 0x505 1",
        "inb 0x505",
        "outl 0x80 0x11223344",
        "inl 0x80",
        "outb 0xb3 0x5a",
        "inw 0xb2",
        "outb 0x81 4",
    ]
    yield from ["inl 0x81", "inb 0x82", "inb 0x84", "foo", "Inb 0x70", "rtas a 1 2 3 4", "module_load hw- none"]


# Parts of byte registers, where the reference gives up on 4 bytes and on 2 that leave the part; ours give what is
# there.
BYTES_ONLY = (
    (0x80, 0x90),
    (0x170, 0x178),
    (0x1F0, 0x1F8),
    (0x376, 0x37C),
    (0x3B0, 0x3E0),
    (0x3F0, 0x3F8),
    (0xCF9, 0xCFA),
)


def _sweep() -> Iterator[str]:
    """Every width at every port: what begins in a hole and ends in a part, and the other way round, is decided by
    alignment."""
    for start, end in (
        (0x00, 0x100),
        (0x16C, 0x17C),
        (0x1EC, 0x1FC),
        (0x278, 0x27C),
        (0x370, 0x400),
        (0x4CC, 0x4D4),
        (0x500, 0x520),
        (0xCF0, 0xD00),
    ):
        for port in range(start, end):
            yield f"inb {port:#x}"
            for size, w in ((2, "w"), (4, "l")):
                if not any(first < port + size and port < last for first, last in BYTES_ONLY):
                    yield f"in{w} {port:#x}"


def _fdc() -> Iterator[str]:
    yield "irq_intercept_in ioapic"
    yield from [f"inb {p:#x}" for p in range(0x3F0, 0x3F8)]
    yield from ["outb 0x3f2 0", "inb 0x3f4", "outb 0x3f2 0x0c", "inb 0x3f4", "clock_step 1000000"]
    for _ in range(4):
        yield from ("outb 0x3f5 8", "inb 0x3f4", "inb 0x3f5", "inb 0x3f4", "inb 0x3f5", "inb 0x3f4")
    yield from ["outb 0x3f5 8", "inb 0x3f5", "inb 0x3f4"]
    yield from ["outb 0x3f5 0x10", "inb 0x3f5", "outb 0x3f5 0x0e", *["inb 0x3f5"] * 10, "inb 0x3f4"]
    yield from [
        "outb 0x3f5 3",
        "outb 0x3f5 0xdf",
        "outb 0x3f5 2",
        "inb 0x3f4",
        "outb 0x3f2 0x1c",
        "outb 0x3f5 7",
        "outb 0x3f5 0",
        "clock_step 1000000",
    ]
    yield from [
        "outb 0x3f5 8",
        "inb 0x3f5",
        "inb 0x3f5",
        "outb 0x3f5 4",
        "outb 0x3f5 0",
        "inb 0x3f5",
        "inb 0x3f7",
        "outb 0x3f5 0x1f",
        "inb 0x3f5",
        "inb 0x3f4",
    ]


def _resets() -> Iterator[str]:
    watched = [
        *cmos(0x0F, 0x3D),
        "inb 0x92",
        "inb 0x21",
        "inb 0xa1",
        "inb 0x61",
        "inl 0xcf8",
        *config_read(0, 0x58),
        "readl 0x1000",
    ]
    for pull in (["outb 0xcf9 2", "outb 0xcf9 6"], ["outb 0x92 1"], ["outb 0x64 0xfe"], [RESET]):
        yield from [
            "writel 0x1000 0x12345678",
            *cmos_write(0x0F, 0x5A),
            "outb 0x21 0xaa",
            "outb 0xa1 0x55",
            *config_write(0, 0x59, 0x30),
            "outb 0x61 3",
        ]
        yield from watched
        yield from [*pull, SETTLE]
        yield from watched


def _enable(devfn: int, bar: int = 0, base: int = 0xE0000000) -> Iterator[str]:
    """Show a function's header, size a base address register, place it and open every gate."""
    for register in range(0, 0x44, 4):
        yield from config_read(devfn, register)
    yield from config_write(devfn, 0x10 + 4 * bar, 0xFFFFFFFF, "l")
    yield from config_read(devfn, 0x10 + 4 * bar)
    yield from config_write(devfn, 0x10 + 4 * bar, base, "l")
    yield from config_write(devfn, 4, 7, "w")
    yield from config_read(devfn, 4)


def _pvpanic() -> Iterator[str]:
    yield from ["inb 0x505", "inw 0x505", "inl 0x504", "outb 0x505 4", "outb 0x505 2", "inb 0x505"]
    yield from [EVENTS, "outb 0x505 1", EVENTS, "outb 0x505 3", EVENTS]
    yield from ["outb 0x510 0", "inb 0x511"]
    yield from _enable(0x10)
    base = 0xE0000000
    for width in "bwl":
        yield f"read{width} {base:#x}"
    yield from [f"readb {base + 1:#x}", f"readb {base + 2:#x}", f"writew {base:#x} 0x0201", EVENTS]
    yield from [f"writeb {base + 1:#x} 1", EVENTS, f"writeb {base + 2:#x} 1", EVENTS]
    yield from [RESET, EVENTS, f"readb {base:#x}", *config_read(0x10, 0x10), "inb 0x505"]


def _ib700() -> Iterator[str]:
    """Every time, stopped, started anew, and bitten."""
    for port in range(0x440, 0x447):
        yield from (f"in{w} {port:#x}" for w in "bw")
    for value in (0, 5, 14, 0xF3):
        time = (30 - 2 * (value & 15)) * 10**9
        yield from [f"outb 0x443 {value}", f"clock_step {time - 1}", EVENTS, "clock_step 1", SETTLE, EVENTS]
        yield from [f"outb 0x444 {value}", f"clock_step {time - 1}", "outb 0x443 14", "clock_step 1999999999", EVENTS]
        yield from ["outb 0x441 1", "clock_step 100000000000", EVENTS]
    yield from ["outb 0x443 14", "outb 0x442 0", "clock_step 3000000000", EVENTS]
    yield from ["outb 0x443 14", RESET, "clock_step 3000000000", EVENTS]


def _i6300esb() -> Iterator[str]:
    devfn, base = 0x10, 0xE0000000
    yield from _enable(devfn)

    def unlocked(request: str) -> Iterator[str]:
        yield from [f"writeb {base + 12:#x} 0x80", f"writeb {base + 12:#x} 0x86", request]

    for register, widths in ((0x60, "bwl"), (0x62, "w"), (0x68, "bwl"), (0x69, "b")):
        for w in widths:
            yield from config_read(devfn, register, w)
            yield from config_write(devfn, register, 0xFFFFFFF8, w)
            yield from config_read(devfn, register, w)
    yield from config_write(devfn, 0x60, 0x04, "w")  # 1 MHz, reboot
    for offset in range(16):
        yield from (f"read{w} {base + offset:#x}" for w in "bwl")
    yield f"writel {base:#x} 10"  # locked: not taken
    yield from unlocked(f"writel {base:#x} 1000")
    yield from unlocked(f"writel {base + 4:#x} 0xfff007d0")
    yield from unlocked(f"writew {base:#x} 5")
    yield from config_write(devfn, 0x68, 2)
    yield from config_read(devfn, 0x68, "b")
    yield from ["clock_step 959999", *unlocked(f"writew {base + 12:#x} 0x100")]  # in time
    yield from ["clock_step 960000", f"clock_step {0xF07D0 * 960 - 1}", EVENTS, "clock_step 1", SETTLE, EVENTS]
    yield from [*config_read(devfn, 0x68, "b"), *config_read(devfn, 4), *config_write(devfn, 0x10, base, "l")]
    yield from [*config_write(devfn, 4, 7, "w"), f"readw {base + 12:#x}", f"readl {base + 12:#x}"]
    yield from [*unlocked(f"writew {base + 12:#x} 0x200"), f"readw {base + 12:#x}"]
    yield from config_write(devfn, 0x60, 0x20, "w")  # no reboot, 1 kHz
    yield from unlocked(f"writel {base:#x} 3")
    yield from unlocked(f"writel {base + 4:#x} 5")
    for mode in (2, 0, 6, 7, 0):  # once, stopped, free-running, locked, and not to be stopped
        yield from config_write(devfn, 0x68, mode)
        yield from ["clock_step 100000000000", EVENTS, *config_read(devfn, 0x68, "b")]
    yield from config_write(devfn, 0x60, 0, "w")  # reboot after all: at which moment depends on all stages until now
    yield from ["clock_step 983040", "clock_step 6881280", SETTLE, EVENTS, *config_read(devfn, 0x68, "b")]


def _edu() -> Iterator[str]:
    devfn, base = 0x10, 0xE0000000
    yield "irq_intercept_in ioapic"
    yield from _enable(devfn)
    for offset in (0, 4, 8, 0xC, 0x20, 0x24, 0x60, 0x64, 0x80, 0x84, 0x88, 0x90, 0x98, 0x9C, 0xA0, 0x40000, 0xFFFFC):
        yield from (f"read{w} {base + offset:#x}" for w in "bwlq")
    for value in (0, 1, 0x12345678, 0xFFFFFFFF):
        yield from [f"writel {base + 4:#x} {value}", f"readl {base + 4:#x}"]
    yield from [f"writew {base + 4:#x} 1", f"writeq {base + 4:#x} 1", f"readl {base + 4:#x}"]
    for value in (0, 1, 5, 12, 13, 33, 34, 1000):
        yield from [f"writel {base + 8:#x} {value}", PAUSE, f"readl {base + 8:#x}", f"readl {base + 0x20:#x}"]
    yield from [f"writel {base + 0x20:#x} 0xffffffff", f"readl {base + 0x20:#x}"]
    yield from [f"writel {base + 8:#x} 7", PAUSE, f"readl {base + 8:#x}", f"readl {base + 0x24:#x}"]
    yield from [f"writel {base + 0x60:#x} 0x80000002", f"readl {base + 0x24:#x}", f"writel {base + 0x64:#x} 1"]
    yield from [f"readl {base + 0x24:#x}", f"writel {base + 0x64:#x} -1", f"readl {base + 0x24:#x}"]
    yield from [f"writel {base + 0x20:#x} 0", *config_read(devfn, 4)]
    # to the device and back; the registers are locked meanwhile
    yield from ["write 0x100000 16 0x00112233445566778899aabbccddeeff", "memset 0x200000 32 0xee"]
    moves = ((0x100000, 0x40010, 16, 5), (0x40014, 0x200002, 8, 3), (0x40000, 0x10200010, 4, 7))
    for source, destination, count, command in moves:
        for offset, value in ((0x80, source), (0x88, destination), (0x90, count), (0x98, 2), (0x98, command)):
            yield f"writeq {base + offset:#x} {value:#x}"
        yield from [f"writel {base + 0x90:#x} 1", f"readq {base + 0x98:#x}", "clock_step 99999999", "readl 0x200000"]
        yield from [f"readq {base + 0x98:#x}", "clock_step 1", f"readq {base + 0x98:#x}", "clock_step 1000000"]
        yield from [f"readq {base + offset:#x}" for offset in (0x80, 0x88, 0x90, 0x98)]
        yield from [
            f"readl {base + 0x24:#x}",
            "read 0x200000 32",
            f"writel {base + 0x64:#x} 0x100",
            "clock_step 123457",
        ]
    # messages: to memory, which the test can see
    for register, value in ((0x44, 0x300000), (0x48, 0), (0x4C, 0x1234), (0x40, 0x00810005)):
        yield from config_write(devfn, register, value, "l")
    yield from [*config_read(devfn, 0x40), f"writel {base + 0x60:#x} 1", "readl 0x300000", "memset 0x300000 4 0"]
    yield from [f"writel {base + 0x60:#x} 0", "readl 0x300000", f"writel {base + 0x64:#x} 1", "memset 0x300000 4 0"]
    yield from [f"writel {base + 0x60:#x} 0", "readl 0x300000", RESET, *config_read(devfn, 0x40)]
    yield from [*config_write(devfn, 0x10, base, "l"), *config_write(devfn, 4, 2, "w"), f"readl {base + 4:#x}"]
    yield from [f"readl {base + 8:#x}", f"readq {base + 0x80:#x}"]


def _testdevs() -> Iterator[str]:
    yield from ["outb 0x43 0x30", "irq_intercept_in ioapic"]
    for port in (0xE0, 0xE4, 0xE8):
        for n in range(4):
            yield from [f"outb {port + n:#x} {0x11 * n + 0x80:#x}", f"inb {port + n:#x}", "inl 0xe0", "inl 0xe8"]
        for n in range(3):
            yield from [f"outw {port + n:#x} {0xA1B2 + n:#x}", f"inw {port + n:#x}", "inl 0xe0"]
        yield from [f"outl {port:#x} 0x12345678", f"inl {port:#x}", "inl 0xe0", f"inl {port + 2:#x}"]
    for line in (3, 5, 15):
        yield from [f"outb {0x2000 + line:#x} 1", f"outb {0x2000 + line:#x} 2", f"inb {0x2000 + line:#x}"]
        yield f"outb {0x2000 + line:#x} 0"
    yield from ["outw 0x2004 1", "inw 0x2004", "inl 0x2004"]
    at = 0xFF000000
    yield from [f"writeq {at:#x} 0x0123456789abcdef", f"readq {at:#x}", f"readl {at + 2:#x}", f"writew {at + 3:#x} -1"]
    yield from [f"read {at:#x} 16", f"writel {at + 0xFFFC:#x} 7", f"readq {at + 0xFFFC:#x}", f"readq {at + 0xFFF9:#x}"]
    devfn, memory, ports = 0x10, 0xE0000000, 0xC000
    yield from _enable(devfn)
    for bar in (1, 2, 3):
        yield from config_write(devfn, 0x10 + 4 * bar, 0xFFFFFFFF, "l")
        yield from config_read(devfn, 0x10 + 4 * bar)
    yield from [*config_write(devfn, 0x14, ports, "l"), *config_write(devfn, 0x18, 0xF0000000, "l")]
    yield from [*config_write(devfn, 0x1C, 0, "l"), "readl 0xf0000000", "writel 0xf0000000 1", "readq 0xf0000ff8"]
    for test in (0, 1, 2, 3, 5, 0):
        for start, at, write in ((f"writeb {memory:#x}", memory, "write"), (f"outb {ports:#x}", ports, "out")):
            read = "read" if write == "write" else "in"
            yield f"{start} {test}"
            yield from [f"{read}b {at + n:#x}" for n in range(40)]
            offset = (0x800 if write == "write" else 0x80) + test % 3 + (0 if write == "write" else 3)
            for value in (0xFA, 0xCE, 0):
                for w in "bwl":
                    yield from [f"{write}{w} {at + offset:#x} {value:#x}", f"{read}l {at + 12:#x}"]
            yield from [f"{write}w {at + offset - 1:#x} 0xfafa", f"{read}l {at + 12:#x}", f"{read}w {at + 15:#x}"]
            yield f"writeb {memory + 0x84:#x} 0xfa"  # the other range's offset
            yield f"{read}l {at + 12:#x}"
    yield from [RESET, *config_write(devfn, 0x10, memory, "l"), *config_write(devfn, 4, 7, "w")]
    yield from [f"readl {memory + 12:#x}", "inl 0xe0", f"readl {0xFF000000:#x}", f"writeb {memory:#x} 1"]
    yield f"readl {memory + 12:#x}"


def _tco() -> Iterator[str]:
    """ICH9: both timeouts, heard and not, with the reset that the strap allows."""
    lpc = 0x1F << 3
    setup = [
        *config_write(lpc, 0x40, 0x601, "l"),
        *config_write(lpc, 0x44, 0x80),
        *config_write(lpc, 0xF0, 0xFED1C001, "l"),
    ]
    show = [f"inw {0x660 + n:#x}" for n in range(0, 0x14, 2)]
    tick = 600_000_000
    yield from [*setup, *show, "writel 0xfed1f410 0", "outw 0x672 5", "outw 0x660 1", "outw 0x668 0"]
    yield from [
        f"clock_step {5 * tick - 1}",
        *show,
        "clock_step 1",
        *show,
        EVENTS,
        f"clock_step {5 * tick - 1}",
        EVENTS,
    ]
    yield from ["clock_step 1", SETTLE, EVENTS, "inw 0x666", *setup, *show, f"clock_step {50 * tick}", EVENTS, *show]


# ---------------------------------------------------------------------- what comes and goes


def qmp(command: str, **arguments: object) -> str:
    """A command for the monitor."""
    return json.dumps({"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}})


def add(driver: str, id: str, **arguments: object) -> str:
    """Put a device in."""
    return qmp("device_add", driver=driver, id=id, **arguments)


def _slots(base: int, *buses: int) -> Iterator[str]:
    """The hot-plug registers of PCI buses, each read alone."""
    for bus in buses:
        yield f"outl {base + 0x10:#x} {bus}"
        for register in (0, 4, 0x0C, 0x10):
            yield f"inl {base + register:#x}"


def _below(bus: int, slot: int, register: int) -> list[str]:
    """A read of configuration space of any bus."""
    return [f"outl 0xcf8 {1 << 31 | bus << 16 | slot << 11 | register:#x}", "inl 0xcfc"]


def _hotplug_pc() -> Iterator[str]:
    base, gpe = 0xAE00, 0xAFE0
    yield from ["outb 0x43 0x30", "irq_intercept_in ioapic", f"outb {gpe + 2:#x} 2"]
    yield from _slots(base, 0, 1, 2, 3, 255, 256, 0)
    yield from [*config_read(6 << 3, 0), add("e1000e", "n", addr="0x06"), f"inb {gpe:#x}", *config_read(6 << 3, 0)]
    yield from [f"outb {gpe:#x} 2", f"inb {gpe:#x}", *_slots(base, 0, 0)]
    yield from (
        add("e1000e", "n", addr="0x07"),
        add("e1000", "m", addr="0x06"),
        add("nonsense", "m"),
        add("VGA", "m"),
        add("e1000", "m", bus="nobus"),
        qmp("device_add"),
        qmp("device_del", id="zzz"),
    )
    # a second one in the first free slot, placed, opened and with an interrupt that it drives when it goes
    yield from [add("e1000", "m"), f"outb {gpe:#x} 2", *_slots(base, 0), *config_read(4 << 3, 0)]
    yield from [*config_write(4 << 3, 0x10, 0xE0000000, "l"), *config_write(4 << 3, 4, 7), *config_write(8, 0x63, 11)]
    yield from ["readl 0xe0000008", "writel 0xe00000d0 4", "writel 0xe00000c8 4", "readl 0xe0000000"]
    yield from [*_slots(base, 0), qmp("device_del", id="m"), qmp("device_del", id="m"), f"inb {gpe:#x}"]
    yield from [*_slots(base, 0), *config_read(4 << 3, 0), f"outl {base + 8:#x} 0x10", GONE + "m"]
    yield from [*config_read(4 << 3, 0), "readl 0xe0000000", *_slots(base, 0)]
    # what was asked to go goes at a reset; what is in a slot that holds a bridge, or nothing, does not
    yield from [qmp("device_del", id="n"), *_slots(base, 0), RESET, *_slots(base, 0), *config_read(6 << 3, 0)]
    yield from [f"outl {base + 8:#x} 0x2f", PAUSE, *config_read(0, 0), *config_read(3 << 3, 0)]
    # behind a bridge
    yield from [*config_write(3 << 3, 0x18, 0x00020200, "l"), *_below(2, 5, 0), add("e1000", "o", bus="b1", addr="5")]
    yield from [*_slots(base, 0, 1, 2), *_below(2, 5, 0), *_below(2, 4, 0), qmp("device_del", id="b1")]
    yield from [f"outl {base + 0x10:#x} 1", f"outl {base + 8:#x} 0x20", GONE + "o", *_below(2, 5, 0)]


def _hotplug_q35() -> Iterator[str]:
    base, gpe = 0xCC0, 0x620
    yield from [*config_write(31 << 3, 0x40, 0x601, "l"), *config_write(31 << 3, 0x44, 0x80), "outb 0x43 0x30"]
    yield from ["irq_intercept_in ioapic", f"outb {gpe + 8:#x} 2", *_slots(base, 0, 1, 2, 3, 4)]
    yield add("e1000", "x")
    yield from [*config_write(3 << 3, 0x18, 0x00010100, "l"), *_below(1, 0, 0), *config_read(3 << 3, 0x6C)]
    yield from [add("e1000e", "x", bus="p1"), f"inb {gpe:#x}", f"outb {gpe:#x} 2", *_slots(base, 0, 1, 2, 3, 3)]
    yield from [*_below(1, 0, 0), *config_read(3 << 3, 0x6C), qmp("device_del", id="x"), *_slots(base, 3)]
    yield from [f"outl {base + 8:#x} 1", GONE + "x", *_below(1, 0, 0), *config_read(3 << 3, 0x6C), *_slots(base, 3)]
    yield from [add("e1000", "y", bus="p2"), qmp("device_del", id="y"), *_slots(base, 2), RESET, *_slots(base, 2)]


def _hotplug_cpu(base: int, gpe: int) -> Iterator[str]:
    count = [*cmos(0x5F), "outw 0x510 5", "inb 0x511", "inb 0x511"]
    place = {"socket_id": 0, "core_id": 1, "thread_id": 1}
    yield from [f"inl {base:#x}", qmp("query-hotpluggable-cpus"), add("qemu64-x86_64-cpu", "c", **place)]
    yield from [f"inl {base:#x}", f"inb {gpe:#x}", f"outb {gpe:#x} 4", *count]
    for refused in (place, place | {"core_id": 9}, {"core_id": 1}):
        yield add("qemu64-x86_64-cpu", "d", **refused)
    yield add("Haswell-x86_64-cpu", "d", **place)
    yield from [f"outl {base:#x} 0", add("qemu64-x86_64-cpu", "d", socket_id=0, core_id=2, thread_id=0)]
    for n in range(7):  # each CPU's flags and ID
        yield from [f"outl {base:#x} {n}", f"inb {base + 4:#x}", f"outb {base + 5:#x} 3", f"inl {base + 8:#x}"]
        yield from [f"inl {base:#x}", f"outb {base + 5:#x} 0", f"inl {base + 8:#x}", f"outl {base:#x} 0"]
    yield from [f"outb {base + 5:#x} 0", f"outb {base + 4:#x} 2", f"inb {base + 4:#x}", f"inb {gpe:#x}", *count]
    yield from [qmp("device_del", id="d"), f"inb {gpe:#x}", f"outb {base + 5:#x} 0", f"inl {base + 8:#x}"]
    yield from [f"inb {base + 4:#x}", f"outb {base + 4:#x} 8", GONE + "d", f"inb {base + 4:#x}", *count]
    yield from [f"outl {base:#x} 0", f"outb {base + 4:#x} 8", f"outb {base + 4:#x} 16", f"inb {base + 4:#x}", EVENTS]


def _hotplug_memory() -> Iterator[str]:
    for slot in range(4):
        yield f"outl 0xa00 {slot}"
        for offset in range(0x18):
            yield from [f"in{width} {0xA00 + offset:#x}" for width in "bwl"]
        yield from ["outl 0xa04 1", "outl 0xa08 2", "outl 0xa14 8"]


BITE = ["outb 0x443 0", EVENTS, "clock_step 30000000000", SETTLE, EVENTS]
BOOT = {
    "boot-default": [],
    "boot-c": ["-boot", "c"],
    "boot-nda": ["-boot", "nda"],
    "boot-none": ["-boot", "order="],
    "boot-once": ["-boot", "once=d,order=nc"],
    "boot-signature": ["-no-fd-bootchk"],
    "boot-disks": ["-drive", NULL_DISK.format(0, 504 << 20), "-drive", NULL_DISK.format(3, 8 << 30)],
    "boot-ram": ["-m", "16"],
    "boot-more-ram": ["-m", "3584"],
    "boot-floppies": ["-drive", "if=floppy,index=0", "-drive", "if=floppy,index=1"],
}

PROGRAMS: dict[str, tuple[list[str], list[str]]] = {
    "rtc": (BARE, list(_rtc())),
    "fw_cfg": ([*BARE, "-m", "96", "-smp", "2", "-uuid", "4600cb32-38ec-4b2f-8acb-81c6ea54f2d8"], list(_fw_cfg())),
    "i440fx": ([*BARE, "-vga", "std"], list(_i440fx())),
    "pam": ([*BARE, "-vga", "std", "-bios", BIOS], list(_pam())),
    "pci": ([*BARE, "-vga", "std"], list(_pci())),
    "timer": (BARE, list(_timer())),
    "ide": (
        [
            *BARE,
            "-blockdev",
            "driver=null-co,node-name=d0,read-zeroes=on,size=104857600",
            "-device",
            "ide-hd,drive=d0,bus=ide.0,serial=abc",
            "-drive",
            "if=ide,index=2,media=cdrom",
        ],
        list(_ide()),
    ),
    "memory": ([*BARE, "-m", "64", "-bios", BIOS], list(_memory())),
    "memory-video": ([*BARE, "-m", "32", "-vga", "std", "-bios", BIOS], list(_memory())),
    "ports": ([*BARE, "-serial", "null", "-parallel", "null"], list(_ports())),
    "sweep": (
        [*BARE, "-vga", "std", "-serial", "null", "-parallel", "null", "-drive", "if=floppy,index=0"],
        list(_sweep()),
    ),
    "fdc": ([*BARE, "-drive", "if=floppy,index=0"], list(_fdc())),
    "resets": (BARE, list(_resets())),
    "pvpanic": ([*BARE, "-device", "pvpanic", "-device", "pvpanic-pci", "-action", "panic=none"], list(_pvpanic())),
    "pvpanic-pause": (
        [*BARE, "-device", "pvpanic,ioport=0x600,events=1", "-action", "panic=pause"],
        ["inb 0x505", "inb 0x600", "outb 0x600 1", EVENTS, "outb 0x600 1", EVENTS],
    ),
    "ib700": ([*BARE, "-device", "ib700", "-watchdog-action", "reset"], list(_ib700())),
    "ib700-none": ([*BARE, "-device", "ib700", "-action", "watchdog=none"], list(_ib700())),
    "ib700-pause": ([*BARE, "-device", "ib700", "-watchdog-action", "pause"], BITE),
    "ib700-shutdown": ([*BARE, "-device", "ib700", "-watchdog-action", "shutdown"], BITE),
    "i6300esb": ([*BARE, "-device", "i6300esb"], list(_i6300esb())),
    "i6300esb-debug": ([*BARE, "-device", "i6300esb", "-watchdog-action", "debug"], list(_i6300esb())),
    "edu": ([*BARE, "-device", "edu"], list(_edu())),
    "testdevs": ([*BARE, "-device", "pc-testdev", "-device", "pci-testdev,membar=16M"], list(_testdevs())),
    "tco": (
        [*VM_CLOCK, "-machine", "q35", "-nodefaults", "-global", "ICH9-LPC.noreboot=false"],
        list(_tco()),
    ),
    "tco-none": (
        [*VM_CLOCK, "-machine", "q35", "-nodefaults", "-global", "ICH9-LPC.noreboot=off", "-watchdog-action", "none"],
        list(_tco()),
    ),
    "hotplug-pc": (
        ["-machine", "pc", "-device", "pci-bridge,id=b1,chassis_nr=1,addr=3", "-nic", "none"],
        list(_hotplug_pc()),
    ),
    "hotplug-q35": (
        [
            *("-machine", "q35", "-nic", "none", "-device", "pcie-root-port,id=p1,chassis=1,addr=3"),
            *("-device", "pcie-root-port,id=p2,chassis=2,addr=4", "-device", "i82801b11-bridge,id=b1"),
            *("-device", "pci-bridge,id=b2,bus=b1,chassis_nr=3"),
        ],
        list(_hotplug_q35()),
    ),
    "hotplug-cpu": ([*BARE, "-smp", "1,cores=3,threads=2,maxcpus=6"], list(_hotplug_cpu(0xAF00, 0xAFE0))),
    "hotplug-cpu-q35": (
        ["-machine", "q35", "-nodefaults", "-smp", "1,cores=3,threads=2,maxcpus=6"],
        [*config_write(31 << 3, 0x40, 0x601, "l"), *config_write(31 << 3, 0x44, 0x80), *_hotplug_cpu(0xCD8, 0x620)],
    ),
    "hotplug-memory": ([*BARE, "-m", "128,slots=3,maxmem=1G"], list(_hotplug_memory())),
    "smp": (
        ["-machine", "q35,smp.sockets=2", "-nodefaults", "-smp", "6,cores=3,maxcpus=6"],
        [*cmos(0x5F), "inl 0xcd8", "inl 0xcdc", *_fw_cfg()],
    ),
    "tco-strap": ([*VM_CLOCK, "-machine", "q35", "-nodefaults"], list(_tco())),
    **{
        name: ([*BARE, *args], [*cmos(*range(0x10, 0x40), 0x5B, 0x5C, 0x5D, 0x5F), RESET, *cmos(0x38, 0x3D)])
        for name, args in BOOT.items()
    },
}


def play(guest: QtestClient, requests: list[str]) -> list[str]:
    """Everything that comes back, IRQ lines before their answer.  Lines that come while settling belong to what was
    settled."""
    out: list[str] = []
    waiting: list[str] = []
    for request in [*requests, ""]:
        if request and not request.startswith(("{", GONE)) and request not in (RESET, SETTLE, EVENTS, PAUSE):
            waiting.append(request)
            continue
        out += guest.transcript(waiting)
        waiting.clear()
        if request == SETTLE:
            answer = out.pop()
            out += [
                line for _ in range(3) for line in guest.transcript(["clock_step 0"]) if line.startswith("IRQ ")
            ] + [answer]
        elif request == PAUSE:
            time.sleep(0.02)
        elif request.startswith(GONE):
            while (data := guest.event("DEVICE_DELETED")["data"]).get("device") != request.removeprefix(GONE):
                pass
            out.append(f"gone {data['path']}")
        elif request.startswith("{"):
            command = json.loads(request)
            answer = guest.execute(command["execute"], **command["arguments"])
            out.append(json.dumps({k: v for k, v in answer.items() if k in ("return", "error")}, sort_keys=True))
        elif request == EVENTS:
            status = guest.execute("query-status")["return"]["status"]
            heard = [f"{e['event']} {json.dumps(e.get('data', {}), sort_keys=True)}" for e in guest.events]
            guest.events.clear()
            out.append("; ".join([f"status {status}", *heard]))
        elif request == RESET:
            out.append(next(iter(guest.execute("system_reset"))))
            guest.event("RESET")
            guest.events.clear()
    return out


def run(program: str, name: str, bios: Path, env: Mapping[str, str] | None = None) -> list[str]:
    """The transcript of a program's run by a name in PROGRAMS."""
    args, requests = PROGRAMS[name]
    if not bios.exists():
        bios.write_bytes(bytes(range(256)) * 256)
    with QtestClient(program, [str(bios) if a == BIOS else a for a in args], env) as guest:
        guest.negotiate()
        out = play(guest, requests)
        code = guest.close()
    assert code == 0, f"{program} ended with {code}"
    return out


def recorded() -> dict[str, list[str]]:
    """The reference's transcripts, as they were recorded."""
    out: dict[str, list[str]] = {}
    for line in TRANSCRIPTS.read_text().splitlines():
        if line.startswith("== "):
            out[line[3:]] = lines = []
        elif line and not line.startswith("#"):
            lines.append(line)
    return out


if __name__ == "__main__":  # record again: python tests/frontends/programs.py, with QEMU 7.2 installed
    import sys
    import tempfile

    sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
    from qemu_qtest import reference

    qemu, environment = reference()
    with tempfile.TemporaryDirectory() as folder, TRANSCRIPTS.open("w") as file:
        file.write("# QEMU 7.2.22's answers to programs.py, made by it.\n")
        for program_name in PROGRAMS:
            file.write(
                "\n".join([f"== {program_name}", *run(qemu, program_name, Path(folder) / "bios", environment), ""])
            )
