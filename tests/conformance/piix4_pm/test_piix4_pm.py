"""82371AB data sheet 290562-001 chapter 7, ACPI 2.0c 4.7: fixed registers, timer, events, APM."""

import pytest

from engine.devices.piix4_pm import REGISTERS, Piix4Pm
from engine.errors import MachineError
from engine.testing.bus import FakeBus

CONFIG, EVENT, CONTROL, TIMER, GPE, APM, SMBUS, PCIHP, CPUHP = range(7, 16)
PMSTS, PMEN = 0, 2
TMROF, PWRBTN = 0x0001, 0x0100
HZ, S = 3579545, 1_000_000_000


@pytest.fixture
def bus():
    return FakeBus(Piix4Pm())


def half_periods(n):
    """The nanosecond in which bit 23 of the timer toggles for the n-th time."""
    return n * 0x800000 * S // HZ


def maps(bus):
    return [(e.pin, e.addr, e.value) for e in bus.take() if e.kind == "map"]


def test_identity(bus):
    assert bus.dut.identity() == (0x8086, 0x7113, 0x03, 0x068000, 0x1AF4, 0x1100)
    assert bus.read(CONFIG, 0x06, 2) == 0x0280 and bus.read(CONFIG, 0x3C, 2) == 0x0100


def test_reset_values(bus):
    for r in REGISTERS:
        if r.reset is not None:
            assert bus.read(r.region, r.offset, r.width // 8) == r.reset or r.access == "WO", r.name


@pytest.mark.parametrize(
    ("settings", "a", "c"),
    [
        ({}, 0x10, 0x08),
        ({"parallel": True}, 0x90, 0x08),
        ({"serial1": False}, 0x10, 0x00),
        ({"serial2": True}, 0x10, 0x98),
    ],
)
def test_7_1_devres_report_what_the_board_has(settings, a, c):
    bus = FakeBus(Piix4Pm(**settings))
    assert bus.read(CONFIG, 0x5F) == a and bus.read(CONFIG, 0x67) == c


# ---------------------------------------------------------------------- where the ranges answer: 7.1 PMBA, SMBBA


def test_7_1_pmba_answers_while_pmiose_is_set(bus):
    bus.write(CONFIG, 0x40, 0x601, 4)
    assert maps(bus) == []
    bus.write(CONFIG, 0x80, 1)
    assert maps(bus) == [(EVENT, 1, 0x600), (CONTROL, 1, 0x604), (TIMER, 1, 0x608)]
    bus.write(CONFIG, 0x40, 0xB07F, 4)
    assert maps(bus) == [(EVENT, 1, 0xB040), (CONTROL, 1, 0xB044), (TIMER, 1, 0xB048)]
    bus.write(CONFIG, 0x80, 0)
    assert maps(bus) == [(EVENT, 0, 0), (CONTROL, 0, 0), (TIMER, 0, 0)]


def test_7_1_smbba_answers_from_power_on(bus):
    assert (SMBUS, 1, 0xB100) in bus.dut.mappings()
    bus.write(CONFIG, 0x90, 0x701, 4)
    assert maps(bus) == [(SMBUS, 1, 0x700)]
    bus.write(CONFIG, 0xD2, 0x08)
    assert maps(bus) == [(SMBUS, 0, 0)]


def test_smbba_is_a_setting():
    assert (SMBUS, 1, 0x700) in Piix4Pm(smb_io_base=0x700).mappings()


# ---------------------------------------------------------------------- the timer: ACPI 4.7.3.3


def test_timer_counts_whole_ticks_of_3579545_hz(bus):
    for ticks in (0, 1, 2, 1000, HZ, 0xFFFFFF):
        t = -(-ticks * S // HZ)  # the first nanosecond in which the tick is complete
        bus.goto(t)
        assert bus.read(TIMER, 0, 4) == ticks
    bus.goto(-(-0x1000000 * S // HZ) - 1)
    assert bus.read(TIMER, 0, 4) == 0xFFFFFF
    bus.step(1)
    assert bus.read(TIMER, 0, 4) == 0


def test_timer_is_exact_after_a_year(bus):
    t = 365 * 86400 * S + 7
    bus.goto(t)
    assert bus.read(TIMER, 0, 4) == t * HZ // S & 0xFFFFFF


def test_timer_ignores_writes_and_narrow_reads_see_its_low_bytes(bus):
    bus.goto(S)
    bus.write(TIMER, 0, 0, 4)
    assert bus.read(TIMER, 0, 4) == HZ
    assert (
        bus.read(TIMER, 0, 2) == HZ & 0xFFFF
        and bus.read(TIMER, 2, 2) == HZ & 0xFFFF
        and bus.read(TIMER, 1) == HZ & 0xFF
    )


def test_tmrof_is_set_after_reset(bus):
    assert bus.read(EVENT, PMSTS, 2) == TMROF


def test_tmrof_is_set_each_time_bit_23_toggles(bus):
    for n in (1, 2, 3):
        bus.write(EVENT, PMSTS, TMROF, 2)
        bus.goto(half_periods(n) - 1)
        assert bus.read(EVENT, PMSTS, 2) == 0
        bus.step(1)
        assert bus.read(EVENT, PMSTS, 2) == TMROF
        bus.step(1)  # now the tick is complete


def test_tmrof_raises_sci_on_time_and_its_clearing_lowers_it(bus):
    bus.write(EVENT, PMSTS, TMROF, 2)
    bus.write(EVENT, PMEN, TMROF, 2)
    assert not bus.level("sci")
    bus.goto(half_periods(2) + 1)
    bus.write(EVENT, PMSTS, TMROF, 2)
    assert bus.edges("sci") == [(half_periods(1), 1), (half_periods(2) + 1, 0)]
    bus.goto(half_periods(4))
    assert bus.edges("sci")[2:] == [(half_periods(3), 1)]


def test_tmrof_cleared_before_its_tick_is_complete_is_set_again(bus):
    bus.write(EVENT, PMSTS, TMROF, 2)
    bus.goto(half_periods(1))
    assert bus.read(TIMER, 0, 4) == 0x7FFFFF
    bus.write(EVENT, PMSTS, TMROF, 2)
    assert bus.read(EVENT, PMSTS, 2) == TMROF


def test_tmrof_disabled_asks_for_no_time(bus):
    bus.write(EVENT, PMSTS, TMROF, 2)
    assert bus.dut.deadline is None
    bus.write(EVENT, PMEN, TMROF, 2)
    assert bus.dut.deadline == half_periods(1)
    bus.write(EVENT, PMEN, 0, 2)
    assert bus.dut.deadline is None


# ---------------------------------------------------------------------- PM1 and GPE registers: ACPI 4.7.3.1, 4.7.4.1


def test_power_button_sets_its_status_only_while_enabled(bus):
    bus.set("pwrbtn", 1)
    bus.set("pwrbtn", 0)
    assert bus.read(EVENT, PMSTS, 2) & PWRBTN == 0
    bus.write(EVENT, PMEN, PWRBTN, 2)
    bus.set("pwrbtn", 1)
    bus.set("pwrbtn", 0)
    assert bus.read(EVENT, PMSTS, 2) & PWRBTN and bus.level("sci")
    bus.write(EVENT, PMSTS, PWRBTN, 2)
    assert not bus.level("sci")


def test_byte_accesses_of_pm1_reach_the_low_byte_only(bus):
    bus.write(EVENT, PMEN, 0x21)
    assert bus.read(EVENT, PMEN, 2) == 0x21
    bus.write(EVENT, PMEN + 1, 0xFF)
    assert bus.read(EVENT, PMEN, 2) == 0x21 and bus.read(EVENT, PMEN + 1) == 0


def test_4_byte_access_of_pm1_is_status_and_enable(bus):
    bus.write(EVENT, 0, 0x0521_0001, 4)
    assert bus.read(EVENT, 0, 4) == 0x0521_0000


def test_gpe_status_is_cleared_by_ones_and_enable_is_stored(bus):
    bus.write(GPE, 2, 0xAA55, 2)
    assert bus.read(GPE, 0, 4) == 0xAA55_0000
    bus.write(GPE, 0, 0xFFFF, 2)
    assert bus.read(GPE, 0, 2) == 0


@pytest.mark.parametrize(("kind", "power_off", "suspend"), [(0, 1, 0), (1, 0, 1), (2, 1, 0), (3, 0, 0), (7, 0, 0)])
def test_7_2_pmcntrl_sus_en(bus, kind, power_off, suspend):
    bus.write(CONTROL, 0, kind << 10 | 1, 2)
    assert bus.edges() == []
    bus.write(CONTROL, 0, 0x2001 | kind << 10, 2)
    assert (bus.level("power_off"), bus.level("suspend")) == (power_off, suspend)
    assert bus.read(CONTROL, 0, 2) == kind << 10 | 1  # SUS_EN reads as zero
    bus.reset()
    assert not bus.level("power_off") and not bus.level("suspend")


# ---------------------------------------------------------------------- APM: 4.2


def test_apmc_and_apms_are_stored(bus):
    bus.write(APM, 0, 0x1234, 2)
    assert bus.read(APM, 0) == 0x34 and bus.read(APM, 1) == 0x12 and bus.read(APM, 0, 2) == 0x1234


def test_apmc_switches_acpi_mode_without_an_smi(bus):
    bus.write(CONFIG, 0x58, 0x02000000, 4)
    bus.write(APM, 0, 0xF1)
    assert bus.read(CONTROL, 0, 2) == 1
    bus.write(APM, 0, 0xF0)
    assert bus.read(CONTROL, 0, 2) == 0 and bus.edges("smi") == []


def test_apmc_makes_an_smi_while_devactb_lets_it(bus):
    bus.write(APM, 0, 0x00)
    assert bus.edges("smi") == []
    bus.write(CONFIG, 0x5B, 0x02)
    bus.write(APM, 0, 0x00)
    bus.write(APM, 0, 0x01)
    assert bus.edges("smi") == [(0, 1), (0, 0)] * 2
    bus.write(APM, 1, 0x00)
    assert len(bus.edges("smi")) == 4


def test_without_smm_devactb_is_set_from_reset_on():
    assert FakeBus(Piix4Pm(smm=False)).read(CONFIG, 0x5B) == 0x02


@pytest.mark.parametrize(
    "settings",
    [
        {"cpus": 0},
        {"cpus": 2},
        {"cpus": 256, "max_cpus": 256},
        {"eeproms": 9},
        {"spd": "xy"},
        {"spd": "00" * 257, "eeproms": 1},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(MachineError):
        Piix4Pm(**settings)


# ---------------------------------------------------------------------- reset and state


def test_bus_reset(bus):
    bus.write(CONFIG, 0x40, 0x601, 4)
    bus.write(CONFIG, 0x80, 1)
    bus.write(CONFIG, 0x58, 0x02000000, 4)
    bus.write(EVENT, PMEN, TMROF, 2)
    bus.write(APM, 0, 0x77)
    assert bus.level("sci")
    bus.take()
    bus.reset()
    assert maps(bus) == [(EVENT, 0, 0), (CONTROL, 0, 0), (TIMER, 0, 0)] and not bus.level("sci")
    assert bus.read(CONFIG, 0x40, 4) == 0x601 and bus.read(CONFIG, 0x58, 4) == 0 and bus.read(CONFIG, 0x80) == 0
    assert bus.read(EVENT, PMSTS, 4) == TMROF and bus.read(APM, 0) == 0x77 and bus.dut.deadline is None


def test_save_restore_carries_the_timer_wait(bus):
    bus.goto(12345)
    bus.write(EVENT, PMSTS, TMROF, 2)
    bus.write(EVENT, PMEN, TMROF, 2)
    saved = bus.dut.save()
    other = FakeBus(Piix4Pm())
    other.goto(12345)
    other.dut.restore(saved)
    assert other.dut.save() == saved and other.take() == []
    other.goto(half_periods(1))
    assert other.edges("sci") == [(half_periods(1), 1)]
