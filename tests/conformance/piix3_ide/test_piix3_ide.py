"""PIIX3 IDE function: identity, bus master registers (BMICX, BMISX, BMIDTPX), physical region descriptors."""

import struct

import pytest

from engine._device import Dma
from engine.devices.piix3_ide import Piix3Ide
from engine.errors import StateError
from engine.testing.bus import FakeBus

BM, CONFIG, CMD, CTL = 4, 7, 8, 9
TABLE = 0x1000
DATA = 0x10000


class Machine(FakeBus):
    def __init__(self, *drives, master=True):
        self.ram = bytearray(1 << 20)
        super().__init__(Piix3Ide(dma=Dma(self.ram), drives=list(drives)))
        if master:
            self.write(CONFIG, 4, 5, 2)

    def prd(self, *regions, last=True):
        for i, (addr, n) in enumerate(regions):
            end = 0x80000000 if last and i == len(regions) - 1 else 0
            struct.pack_into("<II", self.ram, TABLE + 8 * i, addr, n & 0xFFFF | end)
        self.write(BM, 4, TABLE, 4)

    def command(self, cmd, lba, count):
        for reg, value in ((6, 0xE0), (2, count), (3, lba & 255), (4, lba >> 8), (5, 0), (7, cmd)):
            self.write(CMD, reg, value)


@pytest.fixture
def disk(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(b"".join(bytes([n]) * 512 for n in range(64)))
    return Machine({"image": str(image)})


def test_identity_and_no_interrupt_pin():
    m = Machine(master=False)
    assert m.read(CONFIG, 0, 4) == 0x70108086 and m.read(CONFIG, 8, 4) == 0x01018000
    assert m.read(CONFIG, 6, 2) == 0x0280 and m.read(CONFIG, 0x3C, 4) == 0 and m.read(CONFIG, 0x20, 4) == 1
    m.write(CONFIG, 0x20, 0xFFFFFFFF, 4)
    assert m.read(CONFIG, 0x20, 4) == 0xFFFFFFF1


def test_regions_in_order():
    names = [(r.name, r.space.name, r.size) for r in Piix3Ide().regions()]
    assert names[4] == ("bmdma", "PIO", 16) and names[7][0] == "config"
    assert names[8:] == [("ide0-cmd", "PIO", 8), ("ide0-ctl", "PIO", 1), ("ide1-cmd", "PIO", 8), ("ide1-ctl", "PIO", 1)]


def test_bmidtpx_keeps_bits_31_to_2_in_any_width(disk):
    disk.write(BM, 12, 0x12345677, 4)
    disk.write(BM, 13, 0xAA)
    assert disk.read(BM, 12, 4) == 0x1234AA74 and disk.read(BM, 14, 2) == 0x1234
    assert disk.read(BM, 4, 4) == 0


def test_bmicx_and_bmisx_answer_bytes_only(disk):
    disk.write(BM, 0, 0xFF)
    assert disk.read(BM, 0) == 0x09 and disk.read(BM, 0, 2) == 0xFFFF and disk.read(BM, 1) == 0xFF
    assert disk.read(BM, 1, 2) == 0x01FF
    disk.write(BM, 2, 0xFF)
    assert disk.read(BM, 2) == 0x61


def test_read_into_scattered_regions(disk):
    disk.prd((DATA, 510), (DATA + 0x1000, 2), (DATA + 0x2000, 1024))
    disk.command(0xC8, 4, 3)
    assert disk.read(CTL, 0) == 0x58 and not disk.level("irq14")  # it waits for SSBM
    disk.write(BM, 0, 9)
    assert disk.level("irq14") and disk.read(BM, 2) == 4 and disk.read(CMD, 7) == 0x50
    assert (
        disk.ram[DATA : DATA + 512] == b"\x04" * 510 + b"\0\0"
        and disk.ram[DATA + 0x1000 : DATA + 0x1003] == b"\x04\x04\0"
    )
    assert disk.ram[DATA + 0x2000 : DATA + 0x2400] == b"\x05" * 512 + b"\x06" * 512
    assert disk.read(CMD, 3) == 7 and disk.read(CMD, 2) == 0
    disk.write(BM, 2, 4)
    assert disk.read(BM, 2) == 0


def test_write_from_memory_when_started_first(disk):
    disk.ram[DATA : DATA + 1024] = bytes(range(256)) * 4
    disk.prd((DATA, 1024))
    disk.write(BM, 0, 1)
    assert disk.read(BM, 2) == 1
    disk.command(0xCA, 60, 2)
    assert disk.read(BM, 2) == 4 and disk.level("irq14")
    assert disk.dut.written_sectors() == {"0:0 60": bytes(range(256)) * 4}


def test_longer_table_leaves_the_function_active(disk):
    disk.prd((DATA, 0))  # 64 KiB
    disk.command(0xC8, 0, 1)
    disk.write(BM, 0, 9)
    assert disk.read(BM, 2) == 5 and disk.read(CMD, 7) == 0x50
    disk.write(BM, 0, 8)
    assert disk.read(BM, 2) == 4


def test_shorter_table_moves_nothing_and_tells_nobody(disk):
    disk.prd((DATA, 512))
    disk.command(0xC8, 1, 2)
    disk.write(BM, 0, 9)
    assert disk.read(BM, 2) == 0 and not disk.level("irq14") and disk.read(CMD, 7) == 0x50
    assert disk.ram[DATA : DATA + 512] == bytes(512)


def test_table_without_an_end_is_cut_at_4_kib(disk):
    for i in range(600):
        struct.pack_into("<II", disk.ram, TABLE + 8 * i, DATA, 2)
    disk.write(BM, 4, TABLE, 4)
    disk.command(0xC8, 0, 2)
    disk.write(BM, 0, 9)
    assert disk.read(BM, 2) == 4 and disk.ram[DATA] == 1
    disk.write(BM, 0, 0)
    disk.command(0xC8, 0, 3)  # 512 descriptors are 1024 bytes
    disk.write(BM, 2, 4)
    disk.write(BM, 0, 9)
    assert disk.read(BM, 2) == 0


def test_address_beyond_the_end_aborts(disk):
    disk.prd((DATA, 1024))
    disk.command(0xC8, 63, 2)
    disk.write(BM, 0, 9)
    assert disk.read(BM, 2) == 4 and disk.read(CMD, 1) == 4 and disk.read(CMD, 7) == 0x41


def test_trim_checks_its_ranges_and_keeps_the_data(disk):
    for entry, status in ((8 << 48 | 56, 0x50), (9 << 48 | 56, 0x41)):
        disk.ram[DATA : DATA + 512] = entry.to_bytes(8, "little") + bytes(504)
        disk.prd((DATA, 512))
        disk.write(CMD, 1, 1)
        disk.command(0x06, 0, 1)
        disk.write(BM, 0, 1)
        assert disk.read(CMD, 7) == status
        disk.write(BM, 0, 0)
    disk.command(0x20, 60, 1)
    assert disk.read(CMD, 0, 2) == 0x3C3C


def test_without_bus_master_enable_memory_stays_as_it_is(disk):
    disk.write(CONFIG, 4, 1, 2)
    disk.prd((DATA, 512))
    disk.command(0xC8, 1, 1)
    disk.write(BM, 0, 9)
    assert disk.ram[DATA : DATA + 512] == bytes(512) and disk.read(BM, 2) == 5  # an all-zero descriptor is 64 KiB


def test_packet_command_by_dma(tmp_path):
    image = tmp_path / "disc.iso"
    image.write_bytes(b"".join(bytes([n]) * 2048 for n in range(16)))
    m = Machine({"kind": "cdrom", "image": str(image)})

    def read(sectors, *regions):
        m.prd(*regions)
        m.write(CMD, 1, 1)
        m.write(CMD, 7, 0xA0)
        for word in (0x28, 0, 0x0300, 0, sectors, 0):
            m.write(CMD, 0, word, 2)
        m.write(BM, 2, 4)
        m.write(BM, 0, 9)
        m.write(BM, 0, 8)

    read(2, (DATA, 4096))
    assert m.read(CMD, 7) == 0x50 and m.read(CMD, 2) == 3 and m.level("irq14") is False
    assert m.ram[DATA : DATA + 4096] == b"\x03" * 2048 + b"\x04" * 2048
    assert m.read(BM, 2) == 4
    read(2, (DATA + 0x4000, 2048))  # no room for the second sector: the drive waits for ever
    assert m.ram[DATA + 0x4000 : DATA + 0x4800] == b"\x03" * 2048 and m.read(CTL, 0) == 0xD8 and m.read(BM, 2) == 0
    m.write(CMD, 7, 0x08)
    assert m.read(CTL, 0) == 0


def test_interrupts_of_both_channels_and_bus_reset():
    m = Machine({"size": 1 << 20}, {"channel": 1, "size": 1 << 20})
    for channel, pin in enumerate(("irq14", "irq15")):
        m.write(CMD + 2 * channel, 7, 0x10)
        assert m.level(pin) and m.read(BM, 8 * channel + 2) == 4
    m.write(BM, 4, TABLE, 4)
    m.reset(1)
    assert not m.level("irq14") and not m.level("irq15") and not m.level("inta")
    assert m.read(BM, 2) == 0 and m.read(BM, 4, 4) == 0 and m.read(CONFIG, 4, 2) == 0


def test_save_between_command_and_start(disk):
    disk.prd((DATA, 512))
    disk.command(0xC8, 9, 1)
    other = Machine({"size": 32768})
    other.dut.set_contents({"0:0 9": b"\x09" * 512})
    other.dut.restore(disk.dut.save())
    other.ram[:] = disk.ram
    other.write(BM, 0, 9)
    assert other.ram[DATA : DATA + 512] == b"\x09" * 512 and other.level("irq14")


@pytest.mark.parametrize(
    "change", [{"ata0_end": 9000}, {"ata0_unit": 2}, {"ata0_unit": 1}, {"ata0_phase": 9}, {"ata0_cd_size": 4096}]
)
def test_a_saved_transfer_that_cannot_be_is_refused(disk, change):
    disk.command(0x20, 9, 1)
    state = disk.dut.save()
    with pytest.raises(StateError, match="does not fit its drives"):
        disk.dut.restore(state | change)
    assert disk.dut.save() == state
    with pytest.raises(StateError, match="does not fit its drives"):
        Piix3Ide().restore(state)
