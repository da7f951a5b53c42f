"""engine.machine.cmos: the CMOS bytes of a PC.  Expected values were read from QEMU 7.2 with the options named."""

import pytest

from engine.devices.mc146818 import Mc146818
from engine.errors import MachineError
from engine.machine.cmos import Disk, pc_cmos
from engine.testing import FakeBus

MIB = 1 << 20


def words(cmos, *indexes):
    return [cmos[i] | cmos[i + 1] << 8 for i in indexes]


@pytest.mark.parametrize(
    ("mib", "base", "extended", "above_16m", "above_4g"),
    [
        (1, 640, 0, 0, 0),
        (16, 640, 15 * 1024, 0, 0),
        (64, 640, 63 * 1024, 768, 0),
        (3583, 640, 0xFFFF, 57072, 0),
        (3584, 640, 0xFFFF, 48896, 8192),  # at 3.5 GiB the RAM is split at 3 GiB
        (8192, 640, 0xFFFF, 48896, 81920),
    ],
)
def test_memory_sizes(mib, base, extended, above_16m, above_4g):
    cmos = pc_cmos(mib * MIB)
    assert words(cmos, 0x15, 0x17, 0x30, 0x34) == [base, extended, extended, above_16m]
    assert cmos[0x5B] | cmos[0x5C] << 8 | cmos[0x5D] << 16 == above_4g


def test_memory_split_of_another_board():
    cmos = pc_cmos(4096 * MIB, below_4g=2048 * MIB)
    assert words(cmos, 0x34) == [32512]
    assert cmos[0x5C] == 0x80


@pytest.mark.parametrize(("order", "low", "high"), [("cad", 0x12, 0x30), ("dcn", 0x23, 0x40), ("d", 0x03, 0x00)])
def test_boot_order(order, low, high):
    cmos = pc_cmos(64 * MIB, boot_order=order)
    assert (cmos[0x3D], cmos[0x38]) == (low, high)


def test_no_floppy_signature_check():
    assert pc_cmos(64 * MIB, boot_order="n", check_floppy_signature=False)[0x38] == 0x01


@pytest.mark.parametrize(
    ("floppies", "types", "equipment"),
    [((), 0x00, 0x06), (("2.88M",), 0x50, 0x07), (("1.44M", "1.2M"), 0x42, 0x47), ((None, "1.2M"), 0x02, 0x07)],
)
def test_floppies(floppies, types, equipment):
    cmos = pc_cmos(64 * MIB, floppies=floppies)
    assert (cmos[0x10], cmos[0x14]) == (types, equipment)


def test_disks():
    small, large = Disk.of_size(64 * 2048), Disk.of_size(20 * 1024 * 2048)
    cmos = pc_cmos(64 * MIB, disks=(small, large, Disk.of_size(1024 * 2048), Disk(100, 4, 17, "rechs")))
    assert cmos[0x12] == 0xFF
    assert (cmos[0x19], cmos[0x1A]) == (47, 47)
    assert bytes(cmos[i] for i in range(0x1B, 0x24)) == bytes([130, 0, 16, 0xFF, 0xFF, 0xC8, 130, 0, 63])
    assert bytes(cmos[i] for i in range(0x24, 0x2D)) == bytes([0xFF, 0x3F, 16, 0xFF, 0xFF, 0xC8, 0xFF, 0x3F, 63])
    assert cmos[0x39] == 0b11_01_01_00


def test_a_slave_alone():
    cmos = pc_cmos(64 * MIB, disks=(None, Disk(100, 4, 17)))
    assert cmos[0x12] == 0x0F
    assert 0x19 not in cmos and cmos[0x1A] == 47
    assert bytes(cmos[i] for i in range(0x24, 0x2D)) == bytes([100, 0, 4, 0xFF, 0xFF, 0xC0, 100, 0, 17])


@pytest.mark.parametrize(("cpus", "byte"), [(1, 0), (4, 3), (255, 254), (256, 0)])
def test_processors(cpus, byte):
    assert pc_cmos(64 * MIB, cpus=cpus)[0x5F] == byte


@pytest.mark.parametrize(
    "wrong",
    [
        {"boot_order": "abcd"},
        {"boot_order": "x"},
        {"floppies": ("720K",)},
        {"floppies": (None,) * 3},
        {"disks": (None,) * 5},
    ],
)
def test_refuses_what_no_pc_has(wrong):
    with pytest.raises(MachineError):
        pc_cmos(64 * MIB, **wrong)


def test_the_clock_takes_every_byte():
    cmos = pc_cmos(8192 * MIB, cpus=4, floppies=("1.44M",), disks=(Disk(100, 4, 17),))
    bus = FakeBus(Mc146818("rtc", cmos=cmos))
    for index, value in cmos.items():
        bus.write(0, 0, index)
        assert bus.read(0, 1) == value
