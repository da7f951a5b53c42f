"""ICH9 data sheet 316972-004, chapters 10 and 13."""

import pytest

from engine.devices.ich9_lpc import Ich9Lpc
from engine.errors import MachineError
from engine.testing.bus import FakeBus

CONFIG = 7
EVT, CNT, TMR, GPE, SMI, TCO, RC, APM, RST, PCIHP, CPUHP = range(8, 19)
PMBASE, ACPI_CNTL, ROUTES, LPC_EN, GEN_PMCON_1, RCBA = (
    0x40,
    0x44,
    (0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6A, 0x6B),
    0x82,
    0xA0,
    0xF0,
)
GCS, D31IR = 0x3410, 0x3140
TICK = 600_000_000
TCO_EN, APMC_EN = 1 << 13, 1 << 5


@pytest.fixture
def bus():
    return FakeBus(Ich9Lpc())


def rebooting(**config):
    """A part whose strap allows TCO's reset, with GCS.NO_REBOOT cleared."""
    bus = FakeBus(Ich9Lpc(no_reboot=False, **config))
    bus.write(RC, GCS, 0, 4)
    return bus


def maps(bus):
    return [(e.pin, e.addr, e.value) for e in bus.take() if e.kind == "map"]


def smis(bus):
    return sum(1 for _, level in bus.edges("smi") if level)


def high(bus):
    return [name for name, level in bus.dut.inspect()["pins"].items() if level and name.startswith("gsi")]


# ---------------------------------------------------------------------- 13.1 configuration space


def test_identity_and_what_is_reported_present():
    bus = FakeBus(Ich9Lpc(serial2=True, parallel=True, floppy=True))
    assert bus.dut.identity() == (0x8086, 0x2918, 0x02, 0x060100, 0x1AF4, 0x1100)
    assert bus.read(CONFIG, 0x0E) == 0x80 and bus.read(CONFIG, LPC_EN) == 0x0F
    assert FakeBus(Ich9Lpc()).read(CONFIG, LPC_EN) == 0x01


def test_13_1_pmbase_answers_while_acpi_en_is_set(bus):
    assert bus.read(CONFIG, PMBASE, 4) == 1
    bus.write(CONFIG, PMBASE, 0xFFFF0678, 4)
    assert bus.read(CONFIG, PMBASE, 4) == 0x0600 and maps(bus) == []
    bus.write(CONFIG, ACPI_CNTL, 0x80)
    assert maps(bus) == [
        (EVT, 1, 0x600),
        (CNT, 1, 0x604),
        (TMR, 1, 0x608),
        (GPE, 1, 0x620),
        (SMI, 1, 0x630),
        (TCO, 1, 0x660),
    ]
    bus.write(CONFIG, PMBASE, 0, 4)
    assert {(on, base) for _, on, base in maps(bus)} == {(0, 0)}  # base 0 is nowhere


def test_13_1_rcba_maps_16_kib(bus):
    bus.write(CONFIG, RCBA, 0xFED1FFFF, 4)
    assert bus.read(CONFIG, RCBA, 4) == 0xFED1FFFF and maps(bus) == [(RC, 1, 0xFED1C000)]
    bus.write(CONFIG, RCBA, 0xFED1C000, 4)
    assert maps(bus) == [(RC, 0, 0)]


@pytest.mark.parametrize(("sel", "gsi"), [(0, 9), (1, 10), (2, 11), (4, 20), (5, 21)])
def test_13_1_sci_irq_sel(bus, sel, gsi):
    bus.write(CONFIG, ACPI_CNTL, sel)
    bus.write(EVT, 2, 0x0001, 2)  # TMR_STS is set after reset
    assert high(bus) == [f"gsi{gsi}"]
    bus.write(CONFIG, ACPI_CNTL, 3)  # reserved: the route stays
    assert high(bus) == [f"gsi{gsi}"]
    bus.write(CONFIG, ACPI_CNTL, 1 if sel == 0 else 0)
    assert high(bus) == ["gsi10" if sel == 0 else "gsi9"]


# ---------------------------------------------------------------------- interrupts


@pytest.mark.parametrize("n", range(8))
def test_13_1_pirq_goes_to_its_gsi_and_its_isa_interrupt(bus, n):
    bus.write(CONFIG, ROUTES[n], 0x0B)
    bus.set(f"pirq{'abcdefgh'[n]}", 1)
    assert high(bus) == ["gsi11", f"gsi{16 + n}"]
    bus.set(f"pirq{'abcdefgh'[n]}", 0)
    assert high(bus) == []


def test_13_1_two_pirqs_share_an_isa_interrupt(bus):
    for n in (0, 5):
        bus.write(CONFIG, ROUTES[n], 0x0A)
    bus.set("pirqa", 1)
    bus.set("pirqf", 1)
    bus.set("pirqa", 0)
    assert high(bus) == ["gsi10", "gsi21"]
    bus.set("pirqf", 0)
    assert high(bus) == []


def test_13_1_a_disabled_route_reaches_the_gsi_only(bus):
    bus.set("pirqc", 1)
    assert high(bus) == ["gsi18"]


def test_13_1_a_new_route_is_taken_with_the_next_change(bus):
    bus.write(CONFIG, ROUTES[0], 0x0A)
    bus.set("pirqa", 1)
    bus.write(CONFIG, ROUTES[0], 0x0B)
    assert high(bus) == ["gsi10", "gsi16"]
    bus.set("pirqa", 0)
    bus.set("pirqa", 1)
    assert high(bus) == ["gsi10", "gsi11", "gsi16"]


@pytest.mark.parametrize(
    ("slot", "at"), [(25, 0x3150), (26, 0x314C), (27, 0x3148), (28, 0x3146), (29, 0x3144), (31, 0x3140)]
)
def test_10_1_dnnir_routes_the_pins_of_its_slot(bus, slot, at):
    for pin in range(4):
        bus.set(f"d{slot}{'abcd'[pin]}", 1)
        assert high(bus) == [f"gsi{16 + pin}"]  # 3210h after reset
        bus.set(f"d{slot}{'abcd'[pin]}", 0)
    bus.write(RC, at, 0x4567, 2)
    for pin in range(4):
        bus.set(f"d{slot}{'abcd'[pin]}", 1)
        assert high(bus) == [f"gsi{23 - pin}"]
        bus.set(f"d{slot}{'abcd'[pin]}", 0)


def test_10_1_slot_30_has_pirqe_to_pirqh(bus):
    bus.write(RC, 0x3142, 0x3210, 2)
    for pin in range(4):
        bus.set(f"d30{'abcd'[pin]}", 1)
        assert high(bus) == [f"gsi{20 + pin}"]
        bus.set(f"d30{'abcd'[pin]}", 0)


def test_10_1_a_pin_that_is_high_stays_with_its_pirq(bus):
    bus.set("d31a", 1)
    bus.write(RC, D31IR, 0x3217, 2)
    assert high(bus) == ["gsi16"]
    bus.set("d31b", 1)
    bus.set("d31a", 0)
    assert high(bus) == ["gsi17"]
    bus.set("d31a", 1)
    assert high(bus) == ["gsi17", "gsi23"]


# ---------------------------------------------------------------------- 13.8 power management


def test_13_8_3_timer_and_sci(bus):
    bus.step(1_000_000_000)
    assert bus.read(TMR, 0, 4) == 3579545
    bus.write(EVT, 0, 0x0001, 2)
    bus.write(EVT, 2, 0x0001, 2)
    bus.step(1_343_484_436)
    assert high(bus) == []
    bus.step(1)  # bit 23 toggles at 800000h / 3.579545 MHz, rounded down
    assert high(bus) == ["gsi9"] and bus.read(EVT, 0, 2) == 1
    bus.write(EVT, 0, 0x0001, 2)
    assert bus.edges("gsi9")[-1][1] in (0, 1)


def test_13_8_3_gpe0_has_8_status_and_8_enable_bytes(bus):
    for n in range(16):
        bus.write(GPE, n, 0xA5)
    assert [bus.read(GPE, n) for n in range(16)] == [0] * 8 + [0xA5] * 8


def test_13_8_3_sleep_enable(bus):
    bus.write(CNT, 0, 0x2000, 2)
    assert bus.level("power_off") and bus.read(CNT, 0, 2) == 0
    bus.reset(1)
    assert not bus.level("power_off")
    bus.write(CNT, 0, 0x2400, 2)
    assert bus.level("suspend") and not bus.level("power_off")


def test_13_8_3_power_button_when_enabled(bus):
    bus.set("pwrbtn", 1)
    assert not bus.read(EVT, 0, 2) & 0x100
    bus.write(EVT, 2, 0x0100, 2)
    bus.set("pwrbtn", 0)
    bus.set("pwrbtn", 1)
    assert bus.read(EVT, 0, 2) & 0x100 and "gsi9" in high(bus)


def test_13_8_3_smi_en_takes_whole_accesses(bus):
    bus.write(SMI, 0, 0x12345678, 4)
    bus.write(SMI, 0, 0, 2)
    bus.write(SMI, 4, 0xFFFFFFFF, 4)
    assert [bus.read(SMI, 0, 4), bus.read(SMI, 4, 4), bus.read(SMI, 0, 2), bus.read(SMI, 1)] == [0x12345678, 0, 0, 0]


def test_13_8_1_smi_lock_locks_itself_and_gbl_smi_en(bus):
    bus.write(CONFIG, GEN_PMCON_1, 0x10)
    bus.write(CONFIG, GEN_PMCON_1, 0x00)
    assert bus.read(CONFIG, GEN_PMCON_1) == 0x10
    bus.write(SMI, 0, 0xFFFFFFFF, 4)
    assert bus.read(SMI, 0, 4) == 0xFFFFFFFE
    bus.reset(1)
    bus.write(SMI, 0, 1, 4)
    assert bus.read(SMI, 0, 4) == 1  # until firmware locks it again
    bus.write(CONFIG, GEN_PMCON_1, 0x00)
    bus.write(SMI, 0, 0, 4)
    assert bus.read(SMI, 0, 4) == 1 and bus.read(CONFIG, GEN_PMCON_1) == 0x10


def test_13_7_apm_cnt_makes_an_smi_when_enabled(bus):
    bus.write(APM, 0, 0x55)
    assert smis(bus) == 0 and bus.read(APM, 0) == 0x55
    bus.write(SMI, 0, APMC_EN, 4)
    bus.write(APM, 0, 0x56)
    assert smis(bus) == 1
    bus.write(APM, 0, 0x02)
    assert bus.read(CNT, 0, 2) == 1
    bus.write(APM, 0, 0x03)
    assert bus.read(CNT, 0, 2) == 0 and smis(bus) == 1
    assert FakeBus(Ich9Lpc(smm=False)).read(SMI, 0, 4) == APMC_EN


def test_13_7_rst_cnt(bus):
    bus.write(RST, 0, 0xFB)
    assert bus.read(RST, 0) == 0x0A and not bus.take()
    bus.write(RST, 0, 0x06)
    assert [(e.kind, e.value) for e in bus.take()] == [("reset", 1)] and bus.read(RST, 0) == 0x0A
    bus.reset(1)
    assert bus.read(RST, 0) == 0


# ---------------------------------------------------------------------- 13.9 TCO


def start(bus, count=4):
    bus.write(TCO, 0x12, count, 2)
    bus.write(TCO, 0x08, 0x0000, 2)
    bus.take()


def test_13_9_counts_down_by_ticks_of_600_ms(bus):
    start(bus, 6)
    got = []
    for _ in range(6):
        got.append(bus.read(TCO, 0, 2))
        bus.step(TICK)
    assert got == [6, 5, 4, 3, 2, 1]
    bus.write(TCO, 0, 1, 2)  # any write reloads
    assert bus.read(TCO, 0, 2) == 6


def test_13_9_halt_and_counts_below_2_do_not_run(bus):
    for count, control in ((4, 0x0800), (1, 0), (0, 0)):
        bus.write(TCO, 0x12, count, 2)
        bus.write(TCO, 0x08, control, 2)
        bus.step(100 * TICK)
        assert bus.read(TCO, 4, 2) == 0
        bus.write(TCO, 0, 0x123, 2)
        assert bus.read(TCO, 0, 2) == 0x123  # stored while it stands


def test_13_9_timeouts_with_no_reboot(bus):
    start(bus)
    bus.step(4 * TICK - 1)
    assert bus.read(TCO, 4, 2) == 0
    bus.step(1)
    assert bus.read(TCO, 4, 2) == 0x08 and bus.read(TCO, 6, 2) == 0
    bus.step(4 * TICK)
    assert bus.read(TCO, 6, 2) == 0x06 and bus.take() == []


def test_13_9_the_second_timeout_resets():
    bus = rebooting()
    start(bus)
    bus.step(8 * TICK - 1)
    assert bus.take() == []
    bus.step(1)
    assert [(e.t_ns, e.kind, e.pin, e.value) for e in bus.take()] == [
        (8 * TICK, "line", "watchdog", 1),
        (8 * TICK, "line", "watchdog", 0),
        (8 * TICK, "reset", 0, 1),
    ]
    bus.step(100 * TICK)
    assert bus.take() == []  # it stands then


def test_13_9_a_host_that_wants_no_reset_is_told_and_the_timer_stands():
    bus = rebooting(action="none")
    start(bus)
    bus.step(100 * TICK)
    assert [(e.t_ns, e.kind, e.pin) for e in bus.take()] == [(8 * TICK, "line", "watchdog")] * 2
    assert bus.read(TCO, 6, 2) == 0x06
    bus.dut.set_action("reset")
    start(bus)
    bus.step(8 * TICK)
    assert [e.kind for e in bus.take()] == ["line", "line", "reset"]
    with pytest.raises(MachineError, match="action = 'explode'"):
        bus.dut.set_action("explode")


def test_10_1_the_strap_forbids_the_reset_whatever_gcs_says(bus):
    bus.write(RC, GCS, 0, 4)
    start(bus)
    bus.step(100 * TICK)
    assert bus.read(TCO, 6, 2) == 0x06 and bus.take() == []


def test_13_9_reloading_in_time_prevents_it():
    bus = rebooting()
    start(bus)
    for _ in range(10):
        bus.step(5 * TICK)
        bus.write(TCO, 0, 1, 2)
    assert not [e for e in bus.take() if e.kind == "reset"]


def test_13_9_timeouts_make_smis_when_enabled(bus):
    bus.write(SMI, 0, TCO_EN, 4)
    start(bus, 2)
    bus.step(10 * TICK)
    assert [t for t, level in bus.edges("smi") if level] == [2 * n * TICK for n in range(1, 6)]


def test_13_9_silent_timeouts_are_worked_out_in_closed_form(bus):
    start(bus, 2)
    assert bus.dut.deadline is None
    bus.step(10**15 + 1)  # 833 333 timeouts
    assert bus.read(TCO, 4, 2) == 0x08 and bus.read(TCO, 6, 2) == 0x06
    assert bus.read(TCO, 0, 2) == (2 * TICK - (10**15 + 1) % (2 * TICK)) // TICK


def test_13_9_tco_lock(bus):
    bus.write(TCO, 0x08, 0x1000, 2)
    bus.write(TCO, 0x08, 0x0800, 2)
    assert bus.read(TCO, 0x08, 2) == 0x1800
    bus.write(SMI, 0, 0xFFFFFFFF, 4)
    assert bus.read(SMI, 0, 4) == 0xFFFFFFFF & ~TCO_EN


def test_13_9_data_registers(bus):
    bus.write(TCO, 2, 0x5A)
    bus.write(TCO, 3, 0xA5)
    assert [bus.read(TCO, n) for n in (2, 3)] == [0x5A, 0xA5] and bus.read(TCO, 4, 2) == 0x0006 and smis(bus) == 1
    bus.write(TCO, 4, 0xFFFF, 2)
    bus.write(TCO, 6, 0xFFFF, 2)
    assert [bus.read(TCO, n, 2) for n in (4, 6)] == [0xE870, 0xFFF8]


def test_13_9_survives_a_bus_reset(bus):
    start(bus)
    bus.step(TICK)
    bus.reset(1)
    assert bus.read(TCO, 0x12, 2) == 4 and bus.read(TCO, 0, 2) == 3


# ---------------------------------------------------------------------- 10 root complex block


def test_10_is_memory_with_reset_values(bus):
    assert bus.read(RC, 0x3144, 4) == 0x32103210 and bus.read(RC, GCS, 4) == 0x20
    bus.write(RC, 0x3FF8, 0x1122334455667788, 8)
    assert bus.read(RC, 0x3FFC, 4) == 0x11223344 and bus.read(RC, 0x3FFF) == 0x11
    bus.reset(1)
    assert bus.read(RC, 0x3FF8, 8) == 0


# ---------------------------------------------------------------------- state


def test_reset_puts_back_routes_bases_and_fixed_registers(bus):
    bus.write(CONFIG, PMBASE, 0x601, 4)
    bus.write(CONFIG, ACPI_CNTL, 0x81)
    bus.write(CONFIG, RCBA, 0xFED1C001, 4)
    bus.write(CONFIG, ROUTES[3], 0x0B)
    bus.write(CONFIG, 0x80, 0x77)
    bus.write(EVT, 2, 0x0001, 2)
    assert high(bus) == ["gsi10"]
    bus.take()
    bus.reset(1)
    assert high(bus) == [] and sorted({(pin, on) for pin, on, _ in maps(bus)}) == [(n, 0) for n in (*range(8, 14), RC)]
    assert [bus.read(CONFIG, n) for n in (PMBASE, ACPI_CNTL, RCBA, ROUTES[3], 0x80)] == [1, 0, 0, 0x80, 0x77]
    assert bus.read(EVT, 2, 2) == 0


def test_restore_makes_no_edge_and_keeps_the_lock(bus):
    bus.write(CONFIG, GEN_PMCON_1, 0x10)
    bus.write(EVT, 2, 0x0001, 2)
    bus.set("d31a", 1)
    other = FakeBus(Ich9Lpc())
    other.dut.restore(bus.dut.save())
    assert other.take() == [] and high(other) == ["gsi9", "gsi16"]
    other.write(CONFIG, GEN_PMCON_1, 0x00)
    assert other.read(CONFIG, GEN_PMCON_1) == 0x10
    other.set("d31a", 0)
    assert high(other) == ["gsi9"]
