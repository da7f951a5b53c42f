"""82078 with the 8237A: scenarios of the 82078 data sheet."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine._device import Dma
from engine.devices.i8237 import I8237
from engine.devices.i82078 import I82078, geometry
from engine.errors import MachineError
from engine.testing.bus import FakeBus

FDC, DIR = 0, 1
SRB, DOR, TDR, MSR, FIFO = range(5)
DSR, CCR = MSR, 0
SECTOR = 512
DISK = random.Random(82078).randbytes(1474560)

# The firmware's probe of an empty drive, recorded from SeaBIOS on the reference machine.
SEABIOS = """
3f2w08 3f2w0c 3f4r80 3f5w08 3f4rd0 3f5rc0 3f4rd0 3f5r00 3f4r80*2 3f5w08 3f4rd0 3f5rc1 3f4rd0 3f5r00 3f4r80*2 3f5w08
3f4rd0 3f5rc2 3f4rd0 3f5r00 3f4r80*2 3f5w08 3f4rd0 3f5rc3 3f4rd0 3f5r00 3f4r80 3f2w1c 3f4r80 3f5w07 3f4r90 3f5w00
3f4r80*2 3f5w08 3f4rd0 3f5r20 3f4rd0 3f5r00 3f4r80 3f7w03 3f2w1c 3f4r80 3f5w4a 3f4r90 3f5w00 3f4rd0 3f5r40 3f4rd0
3f5r01 3f4rd0 3f5r00 3f4rd0 3f5r00 3f4rd0 3f5r00 3f4rd0 3f5r02 3f4rd0 3f5r02 3f4r80 3f7w02 3f2w1c 3f4r80 3f5w4a 3f4r90
3f5w00 3f4rd0 3f5r40 3f4rd0 3f5r01 3f4rd0 3f5r00 3f4rd0 3f5r00 3f4rd0 3f5r00 3f4rd0 3f5r03 3f4rd0 3f5r02 3f4r80 3f7w00
3f2w1c 3f4r80 3f5w4a 3f4r90 3f5w00 3f4rd0 3f5r00 3f4rd0 3f5r00 3f4rd0 3f5r00 3f4rd0 3f5r00 3f4rd0 3f5r00 3f4rd0 3f5r04
3f4rd0 3f5r02 3f4r80*2 3f5w03 3f4r90 3f5waf 3f4r90 3f5w02 3f4r80 3f2w1c 3f4r80 3f5we6 3f4r90 3f5w00 3f4r90 3f5w00
3f4r90 3f5w00 3f4r90 3f5w01 3f4r90 3f5w02 3f4r90 3f5w01 3f4r90 3f5w1b 3f4r90 3f5wff 3f4rd0 3f5r40 3f4rd0 3f5r00 3f4rd0
3f5r00 3f4rd0 3f5r00 3f4rd0 3f5r00 3f4rd0 3f5r01 3f4rd0 3f5r02 3f4r80 3f2w0c
"""


class Rig:
    """Controller, DMA controller and 1 MiB of RAM; one 1.44 MB disk unless told otherwise."""

    def __init__(self, disk: bytes | None = DISK, readonly: bool = False, drives: int = 1) -> None:
        self.ram = bytearray(1 << 20)
        self.dma = I8237("dma", 0, dma=Dma(self.ram))
        self.fdc = I82078("fdc", 1, drives=drives)
        if disk is not None:
            self.fdc.insert(0, disk, readonly)
        self.fdc.connect("dma", self.dma)
        self.bus = FakeBus(self.fdc, self.dma)

    def program(self, gpa: int, size: int, mode: int) -> None:
        """Channel 2: mask, address, count, page, mode, unmask."""
        for port, value in (
            (10, 6),
            (12, 0),
            (4, gpa),
            (4, gpa >> 8),
            (5, size - 1),
            (5, (size - 1) >> 8),
            (11, mode),
            (10, 2),
        ):
            self.bus.write(0, port, value & 0xFF, device=self.dma)
        self.bus.write(2, 0, gpa >> 16, device=self.dma)

    def command(self, *data: int) -> None:
        for byte in data:
            assert self.bus.read(FDC, MSR) & 0xC0 == 0x80, "ready for a byte"
            self.bus.write(FDC, FIFO, byte)

    def result(self) -> list[int]:
        out = []
        while self.bus.read(FDC, MSR) & 0xC0 == 0xC0:
            out.append(self.bus.read(FDC, FIFO))
        return out

    def sense(self) -> list[int]:
        self.command(0x08)
        return self.result()

    def transfer(self, opcode: int, track: int = 0, head: int = 0, sector: int = 1, eot: int = 18) -> list[int]:
        self.command(opcode, head << 2, track, head, sector, 2, eot, 0x1B, 0xFF)
        return self.result()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_recorded_firmware_probe_of_an_empty_drive() -> None:
    bus = Rig(disk=None).bus
    for token in SEABIOS.split():
        access, _, times = token.partition("*")
        port, write, value = int(access[:3], 16), access[3] == "w", int(access[4:], 16)
        region, offset = (DIR, 0) if port == 0x3F7 else (FDC, port - 0x3F1)
        for _ in range(int(times or 1)):
            bus.step(25_000_000)
            if write:
                bus.write(region, offset, value)
            else:
                assert bus.read(region, offset) == value, token
    assert [v for _, v in bus.edges("irq")] == [1, 0] * 6


class TestReset:
    def test_leaving_reset_interrupts_and_four_senses_answer(self, rig: Rig) -> None:
        rig.bus.write(FDC, DOR, 0x00)
        assert not rig.bus.level("irq")
        rig.bus.write(FDC, DOR, 0x0C)
        assert rig.bus.level("irq")
        assert [rig.sense() for _ in range(5)] == [[0xC0, 0], [0xC1, 0], [0xC2, 0], [0xC3, 0], [0x80]]
        assert rig.bus.edges("irq") == [(0, 1), (0, 0)]

    def test_held_in_reset_nothing_listens(self, rig: Rig) -> None:
        rig.bus.write(FDC, DOR, 0x00)
        rig.bus.write(FDC, FIFO, 0x10)
        rig.bus.write(FDC, TDR, 0x04)
        assert rig.bus.read(FDC, TDR) == 0x00
        rig.bus.write(FDC, DOR, 0x0C)
        rig.command(0x10)
        assert rig.result() == [0x90]

    def test_dsr_resets_too(self, rig: Rig) -> None:
        rig.bus.write(FDC, DSR, 0x80)
        assert rig.bus.level("irq") and rig.sense() == [0xC0, 0]

    def test_bus_reset_makes_no_interrupt(self, rig: Rig) -> None:
        rig.command(0x13, 0, 0x57, 0)
        rig.bus.reset()
        assert not rig.bus.edges("irq")
        rig.command(0x0E)
        assert rig.result()[8] == 0x60, "configuration is back to its default"

    def test_dor_shows_motors_and_drive_in_srb(self, rig: Rig) -> None:
        rig.bus.write(FDC, DOR, 0x3D)
        assert rig.bus.read(FDC, SRB) == 0xE3
        assert rig.bus.read(FDC, DOR) == 0x3D


class TestControlCommands:
    def test_version_part_and_invalid(self, rig: Rig) -> None:
        for opcode, answer in ((0x10, 0x90), (0x18, 0x41), (0x1F, 0x80), (0x94, 0x10), (0x14, 0x00)):
            rig.command(opcode)
            assert rig.result() == [answer]

    def test_seek_and_sense(self, rig: Rig) -> None:
        rig.command(0x0F, 0, 40)
        assert rig.bus.level("irq")
        assert rig.sense() == [0x20, 40]
        assert not rig.bus.level("irq")
        assert rig.sense() == [0x80], "nothing to explain"
        rig.command(0x07, 0)
        assert rig.sense() == [0x20, 0]

    def test_seek_beyond_the_disk_stays(self, rig: Rig) -> None:
        rig.command(0x0F, 0, 40)
        rig.sense()
        rig.command(0x0F, 0, 81)
        assert rig.sense() == [0x20, 40]

    def test_relative_seek(self, rig: Rig) -> None:
        for opcode, by, track in ((0xCF, 10, 10), (0xCF, 5, 15), (0x8F, 3, 12), (0x8F, 50, 0), (0xCF, 200, 79)):
            rig.command(opcode, 0, by)
            assert rig.sense() == [0x20, track]

    def test_sense_drive_status(self, rig: Rig) -> None:
        rig.command(0x04, 0x04)
        assert rig.result() == [0x3C]
        rig.command(0x0F, 0, 2)
        rig.sense()
        rig.command(0x04, 0x00)
        assert rig.result() == [0x28]
        protected = Rig(readonly=True)
        protected.command(0x04, 0x00)
        assert protected.result() == [0x78]

    def test_dumpreg_save_restore(self, rig: Rig) -> None:
        rig.command(0x13, 0, 0x57, 0x11)
        rig.command(0x03, 0xAF, 0x02)
        rig.command(0x94)
        rig.result()
        rig.command(0x0E)
        assert rig.result() == [0, 0, 0, 0, 0x0A, 0x03, 18, 0x80, 0x57, 0x11]
        rig.command(0x2E)
        saved = rig.result()
        assert saved == [0, 0, 0, 0, 0, 0, 0x0A, 0x01, 18, 0x80, 0x57, 0x11, 0, 0, 0]
        rig.command(0x4E, 0, 0, 7, 0, 0, 0, 0x05, 0x06, 18, 0x00, 0x60, 0x22, 0, 0, 0, 0, 0)
        rig.command(0x0E)
        assert rig.result() == [7, 0, 0, 0, 0x05, 0x0D, 18, 0x00, 0x60, 0x22]

    def test_read_id_takes_a_fiftieth_of_a_second(self, rig: Rig) -> None:
        rig.command(0x4A, 0)
        rig.bus.step(19_999_999)
        assert rig.bus.read(FDC, MSR) == 0x10
        rig.bus.step(1)
        assert rig.bus.edges("irq") == [(20_000_000, 1)]
        assert rig.result() == [0, 0, 0, 0, 0, 2, 2]
        rig.command(0x4A, 0)
        rig.bus.step(20_000_000)
        assert rig.result()[5] == 3, "the disk turns"

    def test_read_id_at_the_wrong_rate(self, rig: Rig) -> None:
        rig.bus.write(DIR, CCR, 2)
        rig.command(0x4A, 0)
        rig.bus.step(20_000_000)
        assert rig.result()[:3] == [0x40, 0x01, 0x00]


class TestTransfers:
    def test_read_by_dma(self, rig: Rig) -> None:
        rig.program(0x12345, 3 * SECTOR, 0x46)
        assert rig.transfer(0x46, track=3, head=1, sector=4) == [0x24, 0, 0, 3, 1, 7, 2]
        at = ((3 * 2 + 1) * 18 + 3) * SECTOR
        assert rig.ram[0x12345 : 0x12345 + 3 * SECTOR] == DISK[at : at + 3 * SECTOR]
        assert not any(rig.ram[:0x12345]) and not any(rig.ram[0x12345 + 3 * SECTOR :])
        assert rig.bus.read(0, 8, device=rig.dma) == 0x04, "terminal count"
        assert [(e.pin, e.value) for e in rig.bus.effects] == [("irq", 1), ("tc", 1), ("tc", 0), ("irq", 0)]

    def test_multi_track_goes_on_at_the_other_side(self, rig: Rig) -> None:
        rig.program(0, 20 * SECTOR, 0x46)
        assert rig.transfer(0xE6, track=1, sector=1) == [0x24, 0, 0, 1, 1, 3, 2]
        assert rig.ram[: 20 * SECTOR] == DISK[36 * SECTOR : 56 * SECTOR]

    def test_without_multi_track_the_track_ends(self, rig: Rig) -> None:
        rig.program(0, 20 * SECTOR, 0x46)
        assert rig.transfer(0x46, sector=17) == [0x20, 0, 0, 1, 0, 1, 2]
        assert rig.ram[: 2 * SECTOR] == DISK[16 * SECTOR : 18 * SECTOR]
        assert not any(rig.ram[2 * SECTOR :])

    def test_write_by_dma(self, rig: Rig) -> None:
        data = bytes(range(256)) * 4
        rig.ram[0x8000:0x8400] = data
        rig.program(0x8000, 2 * SECTOR, 0x4A)
        assert rig.transfer(0x45, track=2, sector=5)[:3] == [0x20, 0, 0]
        at = (2 * 36 + 4) * SECTOR
        assert rig.fdc.image(0) == DISK[:at] + data + DISK[at + 2 * SECTOR :]

    def test_write_protection(self) -> None:
        rig = Rig(readonly=True)
        rig.program(0x8000, SECTOR, 0x4A)
        assert rig.transfer(0x45)[:3] == [0x60, 0x02, 0x00]
        assert rig.fdc.image(0) == DISK

    def test_masked_channel_waits(self, rig: Rig) -> None:
        rig.program(0, SECTOR, 0x46)
        rig.bus.write(0, 10, 6, device=rig.dma)
        assert rig.transfer(0x46) == []
        assert rig.bus.read(FDC, MSR) == 0x10
        rig.bus.step(1000)
        rig.bus.write(0, 10, 2, device=rig.dma)
        assert rig.result()[:3] == [0, 0, 0]
        assert rig.ram[:SECTOR] == DISK[:SECTOR]
        assert rig.bus.edges("irq") == [(1000, 1), (1000, 0)]

    def test_verify_channel_moves_nothing(self, rig: Rig) -> None:
        rig.program(0, SECTOR, 0x42)
        assert rig.transfer(0x46)[0] == 0
        assert not any(rig.ram)

    def test_downward_block(self, rig: Rig) -> None:
        rig.program(0x1FF, SECTOR, 0x66)
        rig.transfer(0x46)
        assert rig.ram[:SECTOR] == DISK[:SECTOR][::-1]
        assert not any(rig.ram[SECTOR:])

    def test_verify_command(self, rig: Rig) -> None:
        assert rig.transfer(0x56, eot=3)[:6] == [0x20, 0, 0, 1, 0, 1]
        assert not any(rig.ram)

    @pytest.mark.parametrize(("opcode", "delta"), [(0x51, 0), (0x59, -1), (0x5D, 1)])
    def test_scan(self, rig: Rig, opcode: int, delta: int) -> None:
        wanted = int.from_bytes(DISK[:SECTOR], "big") + delta
        rig.ram[:SECTOR] = wanted.to_bytes(SECTOR, "big")
        rig.program(0, SECTOR, 0x4A)
        assert rig.transfer(opcode)[:6] == [0, 0, 0x08, 0, 0, 1], "satisfied at the first sector"

    @pytest.mark.parametrize(
        ("track", "sector", "rate", "st"),
        [(81, 1, 0, [0x40, 0, 0]), (1, 19, 0, [0x40, 0x80, 0]), (0, 1, 1, [0x40, 0x01, 0])],
    )
    def test_errors_repeat_the_place(self, rig: Rig, track: int, sector: int, rate: int, st: list[int]) -> None:
        rig.bus.write(DIR, CCR, rate)
        rig.program(0, SECTOR, 0x46)
        assert rig.transfer(0x46, track=track, sector=sector) == [*st, track, 0, sector, 2]
        assert not any(rig.ram)

    def test_end_of_track_before_the_sector(self, rig: Rig) -> None:
        assert rig.transfer(0x46, sector=9, eot=7)[:3] == [0x40, 0x01, 0x00]

    def test_deleted_data_is_not_there(self, rig: Rig) -> None:
        assert rig.transfer(0x4C)[:3] == [0x60, 0, 0]

    def test_read_by_program(self, rig: Rig) -> None:
        rig.command(0x03, 0xAF, 0x03)
        rig.command(0x46, 0, 0, 0, 2, 2, 3, 0x1B, 0xFF)
        assert rig.bus.level("irq")
        data = []
        for n in range(2 * SECTOR):
            assert rig.bus.read(FDC, MSR) == 0xF0
            data.append(rig.bus.read(FDC, FIFO))
            assert rig.bus.content, n
        assert bytes(data) == DISK[SECTOR : 3 * SECTOR]
        assert rig.bus.read(FDC, MSR) == 0xD0
        assert rig.result()[:3] == [0, 0, 0]
        assert not rig.bus.content

    def test_write_by_program(self, rig: Rig) -> None:
        rig.command(0x03, 0xAF, 0x03)
        rig.command(0x45, 0, 0, 0, 1, 2, 1, 0x1B, 0xFF)
        for n in range(SECTOR):
            assert rig.bus.read(FDC, MSR) == 0xB0
            rig.bus.write(FDC, FIFO, n & 0xFF)
        assert rig.fdc.image(0) == bytes(range(256)) * 2 + DISK[SECTOR:]


class TestMedia:
    @pytest.mark.parametrize(
        ("size_kib", "drive", "want"),
        [
            (1440, "auto", ("144", 0, 18, 80, 2)),
            (2880, "auto", ("288", 3, 36, 80, 2)),
            (720, "auto", ("144", 2, 9, 80, 2)),
            (1200, "auto", ("120", 0, 15, 80, 2)),
            (360, "auto", ("120", 1, 9, 40, 2)),
            (360, "144", ("144", 2, 9, 80, 1)),
            (1440, "120", ("120", 0, 18, 80, 2)),
            (1000, "auto", ("288", 3, 36, 80, 2)),
            (1000, "120", ("120", 0, 15, 80, 2)),
            (720, "288", ("144", 2, 9, 80, 2)),
        ],
    )
    def test_geometry(self, size_kib: int, drive: str, want: tuple) -> None:
        assert geometry(size_kib * 2, drive) == want

    def test_changed_line(self, rig: Rig) -> None:
        assert rig.bus.read(DIR, 0) == 0x80
        rig.command(0x07, 0)
        assert rig.bus.read(DIR, 0) == 0x80, "no step: the head was there"
        rig.command(0x0F, 0, 1)
        assert rig.bus.read(DIR, 0) == 0x00
        rig.fdc.eject(0)
        assert rig.bus.read(DIR, 0) == 0x80
        rig.command(0x0F, 0, 0)
        assert rig.bus.read(DIR, 0) == 0x80, "a step without a disk does not end it"
        rig.fdc.insert(0, bytes(737280))
        rig.command(0x0F, 0, 1)
        assert rig.bus.read(DIR, 0) == 0x00

    def test_short_image_reads_zeros_beyond(self) -> None:
        rig = Rig(disk=b"\xaa" * 700)
        rig.ram[: 4 * SECTOR] = b"\x55" * 4 * SECTOR
        rig.bus.write(DIR, CCR, 3)
        rig.program(0, 4 * SECTOR, 0x46)
        assert rig.transfer(0x46)[0] == 0
        assert rig.ram[: 4 * SECTOR] == b"\xaa" * 700 + bytes(4 * SECTOR - 700)

    def test_image_file_and_boot_select(self, tmp_path: Path) -> None:
        (tmp_path / "a.img").write_bytes(DISK)
        fdc = I82078(drives=2, image_b=str(tmp_path / "a.img"))
        bus = FakeBus(fdc)
        assert fdc.image(0) is None and fdc.image(1) == DISK
        bus.write(FDC, TDR, 0x04)
        for byte in (0x0F, 0, 5):
            bus.write(FDC, FIFO, byte)
        assert fdc.inspect()["track"] == [0, 5], "unit 0 is the second drive now"

    @pytest.mark.parametrize(
        "config",
        [{"drives": 3}, {"image_a": "/nonexistent.img"}, {"type_a": "8 inch"}, {"drives": 0, "image_a": "a.img"}],
    )
    def test_settings_are_checked(self, config: dict) -> None:
        with pytest.raises(MachineError):
            I82078(**config)

    def test_one_channel_one_client(self) -> None:
        dma = I8237()
        I82078("a", 1).connect("dma", dma)
        with pytest.raises(MachineError, match=r"'a' and 'b'"):
            I82078("b", 2).connect("dma", dma)
        with pytest.raises(MachineError):
            I82078("c", 3, dma_channel=4).connect("dma", I8237())


def test_save_and_restore_while_the_disk_turns(rig: Rig) -> None:
    rig.command(0x4A, 0)
    other = Rig()
    other.fdc.restore(rig.fdc.save())
    other.bus.step(20_000_000)
    assert other.bus.edges("irq") == [(20_000_000, 1)]
    assert other.result() == [0, 0, 0, 0, 0, 2, 2]
