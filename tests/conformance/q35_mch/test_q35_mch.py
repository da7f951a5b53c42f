"""Intel 3 Series Express Chipset data sheet 316966-002, section 5.1, and the two registers of virtual machines."""

import pytest

from engine.errors import MachineError
from engine.pci._q35 import Q35Mch
from engine.testing.bus import FakeBus

CONFIG = 7
EXT_TSEG, PCIEXBAR, PAM0, F_SMBASE, SMRAM, ESMRAMC = 0x50, 0x60, 0x90, 0x9C, 0x9D, 0x9E
ECAM, ECAM_128M, ECAM_64M, TSEG, SMBASE = 22, 23, 24, 25, 29
MIB = 1 << 20


@pytest.fixture
def bus():
    return FakeBus(Q35Mch(ram_mib=128))


def maps(bus):
    return [(e.pin, e.addr, e.value) for e in bus.take() if e.kind == "map"]


def test_identity(bus):
    assert bus.dut.identity() == (0x8086, 0x29C0, 0x00, 0x060000, 0x1AF4, 0x1100)
    assert bus.read(CONFIG, 0x06, 2) == 0 and bus.read(CONFIG, 0x3D) == 0


# ---------------------------------------------------------------------- PCIEXBAR


def test_pciexbar_maps_the_window_when_enabled(bus):
    assert bus.read(CONFIG, PCIEXBAR, 4) == 0xB0000000 and maps(bus) == []
    bus.write(CONFIG, PCIEXBAR, 0xE0000001, 4)
    assert maps(bus) == [(ECAM, 1, 0xE0000000)]
    bus.write(CONFIG, PCIEXBAR, 0xE0000001, 4)
    assert maps(bus) == []
    bus.write(CONFIG, PCIEXBAR, 0xE0000000, 4)
    assert maps(bus) == [(ECAM, 0, 0)]


@pytest.mark.parametrize(
    ("low", "high", "region", "base"),
    [
        (0xBFFFFFF1, 0, ECAM, 0xB0000000),
        (0xB0000001, 0xFFFFFFF0, ECAM, 0xB0000000),  # address bits 35 to 28 only
        (0xC0000003, 0xF, ECAM_128M, 0xFC0000000),
        (0xBFFFFF03, 0, ECAM_128M, 0xB6000000),
        (0xC0000005, 0, ECAM_64M, 0xC0000000),
        (0xBFFFFE05, 0, ECAM_64M, 0xB2000000),
    ],
)
def test_pciexbar_length_and_address(bus, low, high, region, base):
    bus.write(CONFIG, PCIEXBAR + 4, high, 4)
    bus.write(CONFIG, PCIEXBAR, low, 4)
    assert maps(bus) == [(region, 1, base)]
    assert bus.dut.regions()[region].size == {ECAM: 256, ECAM_128M: 128, ECAM_64M: 64}[region] * MIB
    assert bus.dut.regions()[region].ecam


def test_pciexbar_reserved_length_changes_nothing(bus):
    bus.write(CONFIG, PCIEXBAR, 0xE0000001, 4)
    maps(bus)
    bus.write(CONFIG, PCIEXBAR, 0xC0000007, 4)
    assert maps(bus) == [] and bus.read(CONFIG, PCIEXBAR, 4) == 0xC0000007
    bus.write(CONFIG, 0x40, 0, 4)
    assert maps(bus) == []  # nor does a later write elsewhere
    bus.write(CONFIG, PCIEXBAR, 0xC0000003, 4)
    assert maps(bus) == [(ECAM, 0, 0), (ECAM_128M, 1, 0xC0000000)]


# ---------------------------------------------------------------------- PAM


@pytest.mark.parametrize(
    ("offset", "shift", "segment"), [(0x90, 4, 0), *((0x91 + n // 2, 4 * (n % 2), n + 1) for n in range(12))]
)
def test_pam_each_nibble_steers_its_segment(bus, offset, shift, segment):
    bus.write(CONFIG, offset, 0xF << shift)
    assert maps(bus) == [(8 + segment, 1, 3)]


# ---------------------------------------------------------------------- SMRAM, ESMRAMC


def test_smram_and_esmramc_are_told_together(bus):
    assert bus.read(CONFIG, SMRAM, 2) == 0x3802
    bus.write(CONFIG, SMRAM, 0x4A)
    bus.write(CONFIG, ESMRAMC, 0x80)
    assert [m for m in maps(bus) if m[0] == 21] == [(21, 1, 0x384A), (21, 1, 0xB84A)]


def test_smram_is_mapped_low_or_high_for_all_or_for_smm(bus):
    bus.write(CONFIG, SMRAM, 0x42)  # D_OPEN
    assert [m for m in maps(bus) if m[0] != 21] == [(30, 1, 0xA0000)]
    bus.write(CONFIG, SMRAM, 0x4A)  # and G_SMRAME
    assert [m for m in maps(bus) if m[0] != 21] == [(32, 1, 0xA0000)]
    bus.write(CONFIG, ESMRAMC, 0x80)
    assert [m for m in maps(bus) if m[0] != 21] == [(30, 0, 0), (31, 1, 0xFEDA0000), (32, 0, 0), (33, 1, 0xFEDA0000)]
    assert [m[0] for m in bus.dut.mappings()[-2:]] == [31, 33]
    bus.write(CONFIG, SMRAM, 0x1A)
    assert [m for m in maps(bus) if m[0] != 21] == [(31, 0, 0)]
    bus.write(CONFIG, SMRAM, 0x00)  # locked
    assert maps(bus) == []
    bus.reset(1)
    assert [m for m in maps(bus) if m[0] != 21] == [(33, 0, 0)]


def test_smram_d_lck_locks_until_reset(bus):
    bus.write(CONFIG, SMRAM, 0x5A)  # D_OPEN with D_LCK: the lock wins
    assert bus.read(CONFIG, SMRAM) == 0x1A
    bus.write(CONFIG, SMRAM, 0xFF)
    assert bus.read(CONFIG, SMRAM) == 0x3A  # D_CLS alone is left
    bus.write(CONFIG, SMRAM, 0x00)
    assert bus.read(CONFIG, SMRAM) == 0x1A
    bus.write(CONFIG, ESMRAMC, 0xFF)
    assert bus.read(CONFIG, ESMRAMC) == 0x38
    other = FakeBus(Q35Mch())
    other.dut.restore(bus.dut.save())
    other.write(CONFIG, SMRAM, 0x40)
    assert other.read(CONFIG, SMRAM) == 0x1A  # the lock is restored with the register
    bus.reset(1)
    bus.write(CONFIG, SMRAM, 0x48)
    assert bus.read(CONFIG, SMRAM) == 0x4A


@pytest.mark.parametrize(("size", "mib", "region"), [(0, 1, 25), (2, 2, 26), (4, 8, 27), (6, 16, 28)])
def test_tseg_is_shut_at_the_end_of_low_ram(bus, size, mib, region):
    bus.write(CONFIG, ESMRAMC, 0x01 | size)
    assert not [m for m in maps(bus) if m[0] >= TSEG]  # not without G_SMRAME
    bus.write(CONFIG, SMRAM, 0x08)
    assert maps(bus)[1:] == [(32, 1, 0xA0000), (region, 1, (128 - mib) * MIB)]
    assert bus.read(region, mib * MIB - 8, 8) == 0xFFFFFFFFFFFFFFFF
    bus.write(region, 0, 0, 4)
    assert bus.status == 0 and bus.read(region, 0, 4) == 0xFFFFFFFF
    assert bus.dut.regions()[region].hidden_in_smm
    bus.write(CONFIG, ESMRAMC, size)
    assert maps(bus)[1:] == [(region, 0, 0)]


def test_tseg_size_of_virtual_machines():
    bus = FakeBus(Q35Mch(ram_mib=2048, ext_tseg_mbytes=48))
    assert bus.read(CONFIG, EXT_TSEG, 2) == 48
    bus.write(CONFIG, EXT_TSEG, 0x1234, 2)
    assert bus.read(CONFIG, EXT_TSEG, 2) == 0x1234
    bus.write(CONFIG, EXT_TSEG, 0xFFFF, 2)
    assert bus.read(CONFIG, EXT_TSEG, 2) == 48
    bus.write(CONFIG, ESMRAMC, 0x07)
    bus.write(CONFIG, SMRAM, 0x08)
    assert maps(bus)[-1] == (28, 1, 2000 * MIB)
    with pytest.raises(MachineError, match="ext_tseg_mbytes = 0; it is 1 to 4095"):
        Q35Mch(ext_tseg_mbytes=0)


@pytest.mark.parametrize(
    ("writes", "reads"),
    [
        ((0x02,), (0x00,)),
        ((0xFF, 0x00, 0x02), (0x01, 0x01, 0x02)),
        ((0xFF, 0xFF, 0x00), (0x01, 0x02, 0x02)),
        ((0xFE, 0xFF), (0x00, 0x01)),
    ],
)
def test_f_smbase_is_asked_for_then_locked(bus, writes, reads):
    got = []
    for value in writes:
        bus.write(CONFIG, F_SMBASE, value)
        got.append(bus.read(CONFIG, F_SMBASE))
    assert tuple(got) == reads
    assert maps(bus) == ([(SMBASE, 1, 0x30000)] if got[-1] == 2 else [])
    assert bus.read(SMBASE, 0x1FFFF) == 0xFF


def test_f_smbase_of_older_machines_is_a_byte():
    bus = FakeBus(Q35Mch(smbase=False))
    for value in (0xFF, 0x02, 0xA5):
        bus.write(CONFIG, F_SMBASE, value)
        assert bus.read(CONFIG, F_SMBASE) == value
    bus.reset(1)
    assert bus.read(CONFIG, F_SMBASE) == 0xA5 and maps(bus) == []
    bus.write(CONFIG, SMRAM, 0x1A)  # locked, as ever
    bus.write(CONFIG, SMRAM, 0x02)
    assert bus.read(CONFIG, SMRAM) == 0x1A


# ---------------------------------------------------------------------- reset, state


def test_reset_closes_and_keeps_as_the_reference_does(bus):
    bus.write(CONFIG, PCIEXBAR, 0xE0000001, 4)
    bus.write(CONFIG, PAM0 + 2, 0x33)
    bus.write(CONFIG, F_SMBASE, 0xFF)
    bus.write(CONFIG, F_SMBASE, 0x02)
    bus.write(CONFIG, SMRAM, 0x091A, 2)
    bus.take()
    bus.reset(1)
    assert sorted(maps(bus)) == [(21, 1, 0x3802), (ECAM, 0, 0), (TSEG, 0, 0), (SMBASE, 0, 0), (32, 0, 0)]
    assert bus.read(CONFIG, PCIEXBAR, 4) == 0xB0000000 and bus.read(CONFIG, PAM0 + 2) == 0x33
    bus.reset(0)
    assert bus.read(CONFIG, PAM0 + 2) == 0


def test_restore_makes_no_effect_and_knows_what_is_mapped(bus):
    bus.write(CONFIG, PCIEXBAR, 0xE0000005, 4)
    bus.write(CONFIG, SMRAM, 0x0908, 2)
    other = FakeBus(Q35Mch())
    other.dut.restore(bus.dut.save())
    assert other.take() == [] and other.dut.mappings() == bus.dut.mappings()
    assert (ECAM_64M, 1, 0xE0000000) in other.dut.mappings() and (TSEG, 1, 127 * MIB) in other.dut.mappings()
