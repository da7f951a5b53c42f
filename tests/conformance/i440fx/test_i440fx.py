"""82441FX data sheet 290549-001, section 3.2: the registers that have effects."""

import pytest

from engine.pci._host import I440fx
from engine.testing.bus import FakeBus

CONFIG = 7


@pytest.fixture
def bus():
    return FakeBus(I440fx(ram_mib=640))


def maps(bus):
    return [(e.pin, e.value) for e in bus.take() if e.kind == "map"]


def test_identity(bus):
    assert bus.dut.identity() == (0x8086, 0x1237, 0x02, 0x060000, 0x1AF4, 0x1100)
    assert bus.read(CONFIG, 0x06, 2) == 0 and bus.read(CONFIG, 0x3D) == 0


@pytest.mark.parametrize(("ram_mib", "byte"), [(128, 16), (640, 80), (4096, 255)])
def test_ram_size_for_firmware(ram_mib, byte):
    assert FakeBus(I440fx(ram_mib=ram_mib)).read(CONFIG, 0x57) == byte


@pytest.mark.parametrize(
    ("offset", "shift", "segment"), [(0x59, 4, 0), *((0x5A + n // 2, 4 * (n % 2), n + 1) for n in range(12))]
)
def test_pam_each_nibble_steers_its_segment(bus, offset, shift, segment):
    bus.write(CONFIG, offset, 0x1 << shift)
    assert maps(bus) == [(8 + segment, 1)]
    bus.write(CONFIG, offset, 0xE << shift)  # the upper two bits of a nibble are not attributes
    assert maps(bus) == [(8 + segment, 2)]


def test_pam0_low_nibble_steers_nothing(bus):
    bus.write(CONFIG, 0x59, 0x0F)
    assert maps(bus) == []


def test_pam_as_firmware_shadows_the_bios(bus):
    bus.write(CONFIG, 0x58, 0x33333000, 4)
    bus.write(CONFIG, 0x5C, 0x33333333, 4)
    assert sorted(maps(bus)) == [(n, 3) for n in range(8, 21)]
    assert bus.read(CONFIG, 0x58, 4) == 0x33333000
    bus.write(CONFIG, 0x5C, 0x33111111, 4)
    assert sorted(maps(bus)) == [(n, 1) for n in range(13, 19)]  # D0000h-E7FFFh
    assert bus.dut.mappings()[0] == (8, 1, 3) and bus.dut.mappings()[18 - 8] == (18, 1, 1)


def test_smram(bus):
    assert bus.read(CONFIG, 0x72) == 0x02
    bus.write(CONFIG, 0x72, 0x4A)
    assert maps(bus) == [(22, 0xA0000), (23, 0xA0000), (21, 0x4A)]  # D_OPEN, G_SMRAME: for all, for SMM
    bus.write(CONFIG, 0x72, 0x4A)
    assert maps(bus) == []
    bus.write(CONFIG, 0x72, 0x0A)
    assert maps(bus) == [(22, 0), (21, 0x0A)] and bus.dut.mappings()[-1] == (23, 1, 0xA0000)


def test_reset_keeps_attributes_as_the_reference_does(bus):
    bus.write(CONFIG, 0x5C, 0x33333333, 4)
    bus.write(CONFIG, 0x04, 0x0107, 2)
    bus.take()
    bus.reset(1)
    assert bus.read(CONFIG, 0x5C, 4) == 0x33333333 and bus.read(CONFIG, 0x04, 2) == 0 and maps(bus) == []
    bus.reset(0)
    assert bus.read(CONFIG, 0x5C, 4) == 0 and len(maps(bus)) == 8


def test_restore_makes_no_effect(bus):
    bus.write(CONFIG, 0x5C, 0x33111111, 4)
    bus.write(CONFIG, 0x72, 0x0A)
    other = FakeBus(I440fx())
    other.dut.restore(bus.dut.save())
    assert other.dut.mappings() == bus.dut.mappings() and other.take() == []
