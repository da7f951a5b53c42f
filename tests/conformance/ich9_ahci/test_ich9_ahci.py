"""AHCI 1.3.1 by its sections, with the frames of Serial ATA 3.0; what drives answer is tests/conformance/ata's."""

import random
import struct

import pytest

from engine._device import Dma
from engine.devices.ich9_ahci import Ich9Ahci
from engine.errors import MachineError, StateError
from engine.testing.bus import FakeBus

IDP, HBA, CONFIG = 4, 5, 7
CAP, GHC, IS, PI, VS = 0x00, 0x04, 0x08, 0x0C, 0x10
CLB, CLBU, FB, FBU, PXIS, PXIE, CMD, TFD, SIG, SSTS, SCTL, SERR, SACT, CI = (
    0,
    4,
    8,
    12,
    16,
    20,
    24,
    32,
    36,
    40,
    44,
    48,
    52,
    56,
)
ST, FRE, FR, CR = 0x0001, 0x0010, 0x4000, 0x8000
DHRS, PSS, SDBS, OFS, HBFS, TFES = (1 << n for n in (0, 1, 3, 24, 29, 30))
RAM = 1 << 20
LIST, FIS, TABLES, DATA = 0x1000, 0x8000, 0x10000, 0x40000
WRITE, ATAPI, CLEAR_BUSY = 0x40, 0x20, 0x400
SECTORS = 2048
DISK = random.Random(7).randbytes(64 * 512)
DISC = random.Random(8).randbytes(16 * 2048)


class Hba:
    """An adapter with a disk at port 0, a CD-ROM drive with a disc at port 1, an empty one at port 2."""

    def __init__(self, msi: bool = False) -> None:
        self.ram = bytearray(RAM)
        self.dut = Ich9Ahci(
            dma=Dma(self.ram),
            drives=[
                {"channel": 0, "size": SECTORS * 512},
                {"channel": 1, "kind": "cdrom", "size": 64 * 2048},
                {"channel": 2, "kind": "cdrom"},
            ],
        )
        self.dut.set_contents({"0:0 0": DISK, "1:0 0": DISC})
        self.bus = FakeBus(self.dut)
        if msi:
            self.bus.write(CONFIG, 0x84, 0xFEE00000, 4)
            self.bus.write(CONFIG, 0x8C, 0x4041, 2)
            self.bus.write(CONFIG, 0x82, 1, 2)
        self.bus.write(CONFIG, 4, 6, 2)
        self.bus.write(HBA, GHC, 0x80000002, 4)

    def port(self, n: int, at: int) -> int:
        return int(self.bus.read(HBA, 0x100 + n * 0x80 + at, 4))

    def set(self, n: int, at: int, value: int) -> None:
        self.bus.write(HBA, 0x100 + n * 0x80 + at, value, 4)

    def start(self, n: int = 0, enable: int = 0) -> None:
        self.set(n, CLB, LIST)
        self.set(n, FB, FIS)
        self.set(n, CMD, 0x06 | FRE)
        self.set(n, CMD, 0x06 | FRE | ST)
        self.set(n, PXIS, 0xFFFFFFFF)
        self.set(n, PXIE, enable)

    def fill(
        self,
        slot: int,
        fis: bytes,
        prds: list[tuple[int, int]],
        flags: int = 0,
        acmd: bytes = b"",
        table: int | None = None,
    ) -> None:
        at = TABLES + slot * 0x400 if table is None else table
        self.ram[LIST + slot * 32 : LIST + slot * 32 + 16] = struct.pack("<HHIQ", 5 | flags, len(prds), 0xDEADBEEF, at)
        if at + 0x80 <= RAM:
            self.ram[at : at + 0x80] = (fis.ljust(0x40, b"\0") + acmd).ljust(0x80, b"\0")
            for i, (addr, n) in enumerate(prds):
                self.ram[at + 0x80 + i * 16 : at + 0x90 + i * 16] = struct.pack("<QII", addr, 0, n - 1)

    def command(
        self, fis: bytes, prds: list[tuple[int, int]] = (), flags: int = 0, n: int = 0, slot: int = 0, acmd: bytes = b""
    ) -> None:
        self.fill(slot, fis, list(prds), flags, acmd)
        self.set(n, CI, 1 << slot)

    def moved(self, slot: int = 0) -> int:
        return int.from_bytes(self.ram[LIST + slot * 32 + 4 : LIST + slot * 32 + 8], "little")

    def frame(self, at: int) -> bytes:
        return bytes(self.ram[FIS + at : FIS + at + 20])


def h2d(command: int, lba: int = 0, count: int = 0, features: int = 0, device: int = 0x40) -> bytes:
    at = lba.to_bytes(6, "little")
    return bytes([0x27, 0x80, command, features, *at[:3], device, *at[3:], 0, count & 255, count >> 8, 0, 0])


def queued(write: bool, tag: int, lba: int, count: int) -> bytes:
    fis = bytearray(h2d(0x61 if write else 0x60, lba, tag << 3, count & 255))
    fis[11] = count >> 8
    return bytes(fis)


def packet(dma: bool = True, limit: int = 0xFFFE) -> bytes:
    return h2d(0xA0, limit << 8, features=int(dma), device=0)


def read10(lba: int, n: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, n, 0).ljust(16, b"\0")


@pytest.fixture
def hba():
    return Hba()


# ---------------------------------------------------------------------- configuration space, generic registers


def test_identity_and_capabilities(hba):
    assert hba.dut.identity() == (0x8086, 0x2922, 0x02, 0x010601, 0x1AF4, 0x1100)
    read = lambda at: hba.bus.read(CONFIG, at, 4)  # noqa: E731
    assert [hba.bus.read(CONFIG, 0x34), read(0x80) & 0xFFFF, read(0xA8), read(0xAC)] == [0x80, 0xA805, 0x00100012, 0x48]
    assert hba.bus.read(CONFIG, 0x90) == 0x40


def test_3_1_generic_host_control(hba):
    assert [hba.bus.read(HBA, n, 4) for n in (CAP, GHC, IS, PI, VS)] == [0xC0141F05, 0x80000002, 0, 0x3F, 0x00010000]
    hba.bus.write(HBA, GHC, 0, 4)
    assert hba.bus.read(HBA, GHC, 4) == 0x80000000
    assert hba.bus.read(HBA, 0x24, 4) == 0 and hba.bus.read(HBA, 0x100 + 6 * 0x80, 4) == 0


def test_3_accesses_of_every_width(hba):
    assert hba.bus.read(HBA, CAP, 8) == 0x80000002C0141F05
    assert hba.bus.read(HBA, CAP + 1) == 0x1F and hba.bus.read(HBA, CAP + 2, 2) == 0xC014
    hba.set(0, CLB, 0x12345678)
    hba.bus.write(HBA, 0x102, 0xFFFF, 2)  # not at a register's first byte: lost
    assert hba.port(0, CLB) == 0x12345678
    hba.bus.write(HBA, 0x100, 0xAB)  # narrow: zeros above it
    assert hba.port(0, CLB) == 0xAB


def test_2_4_2_index_data_pair(hba):
    hba.bus.write(IDP, 0x10, 0xFFFFFFFF, 4)
    assert hba.bus.read(IDP, 0x10, 4) == 0xFFC
    hba.bus.write(IDP, 0x10, 0x100 + CLBU, 4)
    hba.bus.write(IDP, 0x14, 0x55AA, 4)
    assert hba.bus.read(IDP, 0x14, 4) == 0x55AA == hba.port(0, CLBU) and hba.bus.read(IDP, 0x00, 4) == 0


# ---------------------------------------------------------------------- ports


def test_3_3_port_registers_after_reset(hba):
    assert [hba.port(0, n) for n in (PXIS, PXIE, CMD, TFD, SIG, SSTS, SCTL, SERR, SACT, CI)] == [
        0,
        0,
        6,
        0x7F,
        0xFFFFFFFF,
        0x113,
        0,
        0,
        0,
        0,
    ]
    assert [hba.port(n, SSTS) for n in range(6)] == [0x113] * 3 + [0] * 3


@pytest.mark.parametrize(("n", "tfd", "sig"), [(0, 0x0130, 0x00000101), (1, 0x0170, 0xEB140101), (3, 0x7F, 0xFFFFFFFF)])
def test_3_3_9_signature_comes_with_the_first_frame(hba, n, tfd, sig):
    hba.set(n, FB, FIS)
    hba.set(n, CMD, 0x16)
    assert hba.port(n, CMD) == 0x16 | FR
    if n != 3:
        assert [hba.port(n, TFD), hba.port(n, SIG), hba.port(n, PXIS)] == [tfd, sig, DHRS]
        assert hba.frame(0x40)[:8] == bytes([0x34, 0x40, tfd & 255, 1, 1, sig >> 16 & 255, sig >> 24, 0xA0])
    hba.set(n, PXIS, 1)
    hba.set(n, CMD, 0x06)
    hba.set(n, CMD, 0x16)
    assert hba.port(n, PXIS) == 0  # once


def test_3_3_7_engines_follow_st_and_fre(hba):
    hba.start()
    assert hba.port(0, CMD) == 0x17 | FR | CR
    hba.set(0, CMD, 0xF07DFFF6)  # ICC and the read-only bits are not taken
    assert hba.port(0, CMD) == 0x16 | FR
    hba.set(0, CMD, 0x06)
    assert hba.port(0, CMD) == 0x06


@pytest.mark.parametrize("at", [RAM - 0x100, RAM, 1 << 40])
def test_3_3_7_a_list_that_is_not_in_ram_does_not_start(hba, at):
    hba.set(0, CLB, at & 0xFFFFFFFF)
    hba.set(0, CLBU, at >> 32)
    hba.set(0, CMD, 0x07)
    assert hba.port(0, CMD) == 0x06
    hba.set(0, FB, (RAM - 0x80) & 0xFFFFFFFF)
    hba.set(0, CMD, 0x16)
    assert hba.port(0, CMD) == 0x06


def test_3_3_7_nor_one_without_bus_mastering(hba):
    hba.bus.write(CONFIG, 4, 2, 2)
    hba.set(0, CMD, 0x17)
    assert hba.port(0, CMD) == 0x06


def test_10_4_2_port_reset_by_sctl_det(hba):
    hba.start()
    hba.command(h2d(0xFF))
    assert hba.port(0, TFD) == 0x0441 and hba.port(0, CI) == 1
    hba.set(0, SCTL, 0x301)
    assert hba.port(0, TFD) == 0x0441
    hba.set(0, SCTL, 0x300)
    assert [hba.port(0, n) for n in (TFD, CI, SACT, SCTL)] == [0x0130, 0, 0, 0x300]


def test_10_4_3_adapter_reset_keeps_addresses_only(hba):
    hba.start(enable=0xFFFFFFFF)
    hba.command(h2d(0xFF))
    assert hba.bus.read(HBA, IS, 4) == 1
    hba.bus.write(HBA, GHC, 1, 4)
    assert hba.bus.read(HBA, GHC, 4) == 0x80000000 and hba.bus.read(HBA, IS, 4) == 0
    assert [hba.port(0, n) for n in (CLB, FB, PXIS, PXIE, CMD, TFD, SIG, CI)] == [
        LIST,
        FIS,
        0,
        0,
        6,
        0x7F,
        0xFFFFFFFF,
        0,
    ]


def test_10_4_1_software_reset_by_two_control_frames(hba):
    hba.start()
    hba.command(bytes([0x27, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]), flags=CLEAR_BUSY)
    assert hba.port(0, CI) == 0 and hba.port(0, PXIS) == 0
    hba.command(bytes([0x27]), slot=1)
    assert (
        hba.port(0, CI) == 0 and hba.port(0, TFD) == 0x0130 and hba.port(0, PXIS) == DHRS and hba.port(0, SIG) == 0x101
    )


def test_10_4_1_a_frame_that_does_not_clear_busy_stays_issued(hba):
    hba.start()
    hba.command(bytes([0x27, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]))
    assert hba.port(0, CI) == 1


# ---------------------------------------------------------------------- commands


def test_5_6_2_pio_read_writes_memory_and_two_frames(hba):
    hba.start(enable=DHRS | PSS)
    hba.command(h2d(0x20, 3, 2), [(DATA, 1000), (DATA + 0x2000, 24)])
    assert bytes(hba.ram[DATA : DATA + 1000]) + bytes(hba.ram[DATA + 0x2000 : DATA + 0x2018]) == DISK[3 * 512 : 5 * 512]
    assert [hba.port(0, n) for n in (PXIS, TFD, CI)] == [DHRS | PSS, 0x50, 0] and hba.moved() == 1024
    assert hba.frame(0x20)[:4] == bytes([0x5F, 0x40, 0x58, 0]) and hba.frame(0x20)[15:18] == bytes([0x58, 0x00, 0x02])
    assert hba.frame(0x40)[:8] == bytes([0x34, 0x40, 0x50, 0, 5, 0, 0, 0x40])
    assert hba.bus.level("inta") and hba.bus.read(HBA, IS, 4) == 1


def test_5_6_2_pio_write_interrupts_from_the_second_block_on(hba):
    hba.start()
    data = random.Random(1).randbytes(1024)
    hba.ram[DATA : DATA + 1024] = data
    hba.command(h2d(0x30, 100, 1), [(DATA, 512)], WRITE)
    assert hba.port(0, PXIS) == DHRS and hba.frame(0x20)[1] == 0
    hba.set(0, PXIS, 0xFFFFFFFF)
    hba.command(h2d(0x30, 101, 2), [(DATA, 1024)], WRITE)
    assert hba.port(0, PXIS) == DHRS | PSS and hba.frame(0x20)[1] == 0x40
    assert hba.dut.written_sectors() == {"0:0 100": data[:512] + data}


@pytest.mark.parametrize(("read", "write"), [(0xC8, 0xCA), (0x25, 0x35)])
def test_5_6_3_dma(hba, read, write):
    hba.start()
    data = random.Random(2).randbytes(20 * 512)
    hba.ram[DATA : DATA + len(data)] = data
    hba.command(h2d(write, 200, 20), [(DATA, 7), (DATA + 7, 20 * 512 - 7)], WRITE)
    assert hba.moved() == 20 * 512 and hba.port(0, PXIS) == DHRS
    hba.command(h2d(read, 199, 21), [(DATA + 0x8000, 0x3000)])
    assert bytes(hba.ram[DATA + 0x8000 : DATA + 0x8000 + 21 * 512]) == bytes(512) + data and hba.moved() == 21 * 512


def test_5_6_3_dma_with_too_short_regions_moves_nothing(hba):
    hba.start()
    before = bytes(hba.ram[DATA:])
    hba.command(h2d(0xC8, 0, 2), [(DATA, 1023)])
    assert (
        bytes(hba.ram[DATA:]) == before
        and hba.moved() == 0
        and [hba.port(0, n) for n in (TFD, PXIS, CI)] == [0x50, DHRS, 0]
    )


def test_5_3_8_an_error_stays_issued_until_st_falls(hba):
    hba.start(enable=TFES)
    hba.command(h2d(0xC8, SECTORS, 1), [(DATA, 512)])
    assert [hba.port(0, n) for n in (TFD, PXIS, CI)] == [0x0441, TFES | DHRS, 1] and hba.bus.level("inta")
    hba.set(0, CMD, 0x16)
    assert hba.port(0, CI) == 0
    hba.set(0, PXIS, 0xFFFFFFFF)
    assert not hba.bus.level("inta")


def test_5_3_commands_are_issued_by_slot(hba):
    hba.start()
    for slot, lba in ((9, 1), (2, 0), (30, 2)):
        hba.fill(slot, h2d(0xC8, lba, 1), [(DATA + 512 * lba, 512)])
    hba.set(0, CI, 1 << 9 | 1 << 2 | 1 << 30)
    assert hba.port(0, CI) == 0 and bytes(hba.ram[DATA : DATA + 1536]) == DISK[:1536]
    assert hba.frame(0x40)[4] == 3  # slot 30 was the last


def test_ci_waits_for_st(hba):
    hba.start()
    hba.set(0, CMD, 0x16)
    hba.command(h2d(0xEC), [(DATA, 512)])
    assert hba.port(0, CI) == 1 and hba.ram[DATA] == 0
    hba.set(0, CMD, 0x17)
    assert hba.port(0, CI) == 0 and hba.ram[DATA] == 0x40


def test_identify_tells_of_queueing(hba):
    hba.start()
    hba.command(h2d(0xEC), [(DATA, 512)])
    words = struct.unpack("<256H", hba.ram[DATA : DATA + 512])
    assert (words[75], words[76]) == (31, 0x100) and words[60] == SECTORS
    hba.start(1)
    hba.command(h2d(0xA1), [(DATA, 512)], n=1)
    words = struct.unpack("<256H", hba.ram[DATA : DATA + 512])
    assert words[0] == 0x85C0 and (words[75], words[76]) == (31, 0x100)


def test_diagnostics_send_no_frame(hba):
    hba.start()
    hba.command(h2d(0x90))
    assert hba.port(0, PXIS) == 0 and hba.port(0, CI) == 1


# ---------------------------------------------------------------------- queued commands


def test_5_6_4_queued_commands_leave_ci_then_sact(hba):
    hba.start(enable=SDBS)
    data = random.Random(3).randbytes(3 * 512)
    hba.ram[DATA : DATA + len(data)] = data
    hba.fill(4, queued(True, 4, 300, 3), [(DATA, 3 * 512)], WRITE)
    hba.fill(5, queued(False, 5, 8, 4), [(DATA + 0x4000, 4 * 512)])
    hba.set(0, SACT, 0x30)
    hba.set(0, CI, 0x30)
    assert [hba.port(0, n) for n in (CI, SACT, TFD, PXIS)] == [0, 0, 0x0150, SDBS]
    assert (
        hba.dut.written_sectors() == {"0:0 300": data}
        and bytes(hba.ram[DATA + 0x4000 : DATA + 0x4800]) == DISK[8 * 512 : 12 * 512]
    )
    assert bytes(hba.ram[FIS + 0x58 : FIS + 0x60]) == bytes([0xA1, 0x40, 0x50, 0x01, 0x20, 0, 0, 0]) and hba.bus.level(
        "inta"
    )
    assert hba.frame(0x40)[:3] == bytes([0x34, 0x00, 0x30])  # told without an interrupt that each was taken


def test_5_6_4_a_bad_address_fails_with_its_bit_left(hba):
    hba.start()
    hba.fill(1, queued(False, 1, SECTORS - 1, 2), [(DATA, 1024)])
    hba.set(0, SACT, 2)
    hba.set(0, CI, 2)
    assert [hba.port(0, n) for n in (CI, SACT, TFD, PXIS)] == [0, 2, 0x0441, TFES]


def test_5_6_4_too_short_regions_overflow(hba):
    hba.start()
    hba.fill(1, queued(False, 1, 0, 2), [(DATA, 1023)])
    hba.set(0, SACT, 2)
    hba.set(0, CI, 2)
    assert hba.port(0, PXIS) == OFS and hba.port(0, SACT) == 2 and hba.ram[DATA] == 0


# ---------------------------------------------------------------------- packet commands


@pytest.mark.parametrize("dma", [True, False])
def test_packet_read(hba, dma):
    hba.start(1)
    hba.command(packet(dma, 2048), [(DATA, 3 * 2048)], ATAPI, 1, acmd=read10(2, 3))
    assert bytes(hba.ram[DATA : DATA + 3 * 2048]) == DISC[2 * 2048 : 5 * 2048] and hba.moved() == 3 * 2048
    assert hba.port(1, TFD) == 0x50 and hba.port(1, CI) == 0 and hba.port(1, PXIS) == (DHRS if dma else DHRS | PSS)


def test_packet_without_disc_and_its_sense(hba):
    hba.start(2)
    hba.command(packet(), [], ATAPI, 2, acmd=bytes(16))
    assert hba.port(2, TFD) == 0x2041 and hba.port(2, PXIS) == TFES | DHRS
    hba.start(2)
    hba.set(2, CMD, 0x16)
    hba.set(2, CMD, 0x17)
    hba.command(packet(), [(DATA, 18)], ATAPI, 2, acmd=bytes([3, 0, 0, 0, 18]).ljust(16, b"\0"))
    assert hba.ram[DATA + 2] == 2 and hba.ram[DATA + 12] == 0x3A


def test_packet_dma_without_regions_leaves_the_device_busy(hba):
    hba.start(1)
    hba.command(packet(), [], ATAPI, 1, acmd=read10(0, 1))
    assert hba.port(1, TFD) & 0x88 and hba.port(1, CI) == 1
    hba.set(1, SCTL, 1)
    hba.set(1, SCTL, 0)
    assert hba.port(1, TFD) == 0x0170


def test_packet_pio_with_a_limit_of_one_byte_waits_for_a_reset(hba):
    hba.start(1)
    hba.command(packet(False, 1), [(DATA, 2048)], ATAPI, 1, acmd=read10(0, 1))
    assert hba.port(1, CI) == 1 and hba.port(1, PXIS) == 0
    hba.set(1, CI, 2)  # the device is busy: nothing happens
    assert hba.port(1, CI) == 3
    hba.set(1, SCTL, 1)
    hba.set(1, SCTL, 0)
    hba.command(packet(), [(DATA, 2048)], ATAPI, 1, acmd=read10(0, 1))
    assert hba.port(1, CI) == 0 and bytes(hba.ram[DATA : DATA + 2048]) == DISC[:2048]


# ---------------------------------------------------------------------- interrupts


def test_10_7_is_comes_back_while_its_port_wants_it(hba):
    hba.start(enable=DHRS)
    hba.command(h2d(0xE5))
    hba.bus.write(HBA, IS, 1, 4)
    assert hba.bus.read(HBA, IS, 4) == 1 and hba.bus.level("inta")
    hba.bus.write(HBA, GHC, 0x80000000, 4)
    assert not hba.bus.level("inta")
    hba.bus.write(HBA, GHC, 0x80000002, 4)
    assert hba.bus.level("inta")
    hba.set(0, PXIS, DHRS)
    assert not hba.bus.level("inta") and hba.bus.read(HBA, IS, 4) == 0


def test_10_7_message_instead_of_the_line():
    hba = Hba(msi=True)
    hba.start(enable=DHRS)
    hba.bus.take()
    hba.command(h2d(0xE5))
    assert [(e.kind, e.addr, e.value) for e in hba.bus.take()] == [("message", 0xFEE00000, 0x4041)]
    assert not hba.bus.level("inta")


# ---------------------------------------------------------------------- hostile memory


@pytest.mark.parametrize(("table", "pxis"), [(RAM - 0x40, HBFS), (RAM, 0), (1 << 50, 0)])
def test_command_tables_outside_ram(hba, table, pxis):
    hba.start()
    hba.fill(0, h2d(0xEC), [(DATA, 512)], table=table)
    hba.set(0, CI, 1)
    assert hba.port(0, PXIS) == pxis and hba.port(0, CI) == 1 and hba.ram[DATA] == 0


def test_region_descriptors_that_leave_ram_are_none(hba):
    hba.start()
    table = RAM - 0x88
    hba.fill(0, h2d(0xC8, 0, 1), [], table=table)
    hba.ram[LIST + 2 : LIST + 4] = b"\1\0"
    hba.set(0, CI, 1)
    assert hba.port(0, TFD) == 0x50 and hba.moved() == 0


def test_data_addresses_outside_ram_swallow_and_read_zeros(hba):
    hba.start()
    hba.command(h2d(0xC8, 0, 2), [(1 << 45, 512), (DATA, 512)])
    assert bytes(hba.ram[DATA : DATA + 512]) == DISK[512:1024]
    hba.command(h2d(0xCA, 500, 1), [((1 << 64) - 256, 512)], WRITE)
    assert hba.dut.written_sectors() == {"0:0 500": bytes(512)}


@pytest.mark.parametrize("fis", [bytes([0x34, 0x80, 0xEC]), bytes([0x27, 0x81, 0xEC]), bytes([0x27, 0x90, 0xEC])])
def test_frames_that_are_no_commands_of_this_port(hba, fis):
    hba.start()
    hba.command(fis, [(DATA, 512)])
    assert hba.port(0, CI) == 1 and hba.port(0, PXIS) == 0 and hba.ram[DATA] == 0


def test_random_lists_never_leave_ram_or_hang(hba):
    r = random.Random(5)
    for _ in range(300):
        for n in range(3):
            hba.start(n)
        hba.ram[LIST : LIST + 0x400] = r.randbytes(0x400)
        for slot in range(32):
            at = TABLES + slot * 0x400
            hba.ram[at : at + 0x400] = r.randbytes(0x400)
            hba.ram[at : at + 3] = bytes(
                [0x27, 0x80, r.choice([0x20, 0x25, 0x35, 0xC8, 0xCA, 0x60, 0x61, 0xA0, 0x06, r.randrange(256)])]
            )
            hba.ram[at + 13] = 0
            hba.ram[LIST + slot * 32 : LIST + slot * 32 + 16] = struct.pack(
                "<HHIQ", r.randrange(65536), r.randrange(60), 0, at
            )
        hba.set(r.randrange(3), CI, r.getrandbits(32))
    assert hba.bus.read(HBA, CAP, 4) == 0xC0141F05


# ---------------------------------------------------------------------- state, settings


def test_save_and_restore_in_between_commands(hba):
    hba.start(enable=DHRS)
    hba.command(h2d(0xFF))
    other = Hba()
    other.bus.take()
    other.dut.restore(hba.dut.save())
    assert other.bus.take() == [] and other.bus.level("inta")
    assert [other.port(0, n) for n in (CMD, TFD, CI, PXIS)] == [hba.port(0, n) for n in (CMD, TFD, CI, PXIS)]
    other.start()
    other.set(0, CMD, 0x16)
    other.set(0, CMD, 0x17)
    other.command(h2d(0xC8, 1, 1), [(DATA, 512)])
    assert bytes(other.ram[DATA : DATA + 512]) == DISK[512:1024]


@pytest.mark.parametrize(("field", "value"), [("ata0_phase", 1), ("ata3_unit", 1), ("ata1_dev0_multiple", 17)])
def test_restore_refuses_drives_in_the_middle_of_something(hba, field, value):
    state = hba.dut.save()
    state[field] = value
    with pytest.raises(StateError, match="does not fit its drive"):
        hba.dut.restore(state)


def test_bus_reset_keeps_the_addresses_of_the_ports(hba):
    hba.start()
    hba.bus.reset(1)
    assert [hba.port(0, n) for n in (CLB, FB, CMD, TFD, SIG)] == [LIST, FIS, 6, 0x7F, 0xFFFFFFFF]
    hba.bus.reset(0)
    assert [hba.port(0, n) for n in (CLB, FB)] == [0, 0]


def test_settings_are_checked():
    with pytest.raises(MachineError, match="a Serial ATA port has one drive, unit 0"):
        Ich9Ahci(drives=[{"channel": 0, "unit": 1, "size": 512}])
    with pytest.raises(MachineError, match="there is no channel 6"):
        Ich9Ahci(drives=[{"channel": 6, "size": 512}])


def test_media(hba):
    hba.dut.set_written_sectors({"0:0 5": b"x" * 512})
    assert hba.dut.written_sectors() == {"0:0 5": b"x" * 512} and set(hba.dut.contents()) == {"0:0 0", "1:0 0"}
    with pytest.raises(StateError, match="no drive takes contents '3:0 0'"):
        hba.dut.set_contents({"3:0 0": bytes(512)})
