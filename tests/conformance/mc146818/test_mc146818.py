"""MC146818A real-time clock.  Section names: Motorola MC146818A data sheet."""

import calendar
import datetime
import random

import pytest

from engine.devices.mc146818 import Mc146818
from engine.errors import MachineError, StateError
from engine.testing import FakeBus

INDEX, DATA = 0, 1
SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR, A, B, C, D = range(14)
CENTURY = 0x32
CLOCK = (CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS)
SET, PIE, AIE, UIE, DM, H24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10
UIP = 0x80
SECOND = 10**9
UIP_NS = SECOND * 8 // 32768


class Rtc(FakeBus):
    def __init__(self, base: str = "2024-01-01T00:00:00", **config):
        super().__init__(Mc146818("rtc", base=base, **config))

    def get(self, index: int) -> int:
        self.write(0, INDEX, index)
        return self.read(0, DATA)

    def put(self, index: int, value: int) -> None:
        self.write(0, INDEX, index)
        self.write(0, DATA, value)

    def clock(self) -> list[int]:
        return [self.get(i) for i in CLOCK]


def bcd(n: int) -> int:
    return n // 10 << 4 | n % 10


@pytest.fixture
def rtc() -> Rtc:
    return Rtc()


# ---------------------------------------------------------------------- Time, Calendar, and Alarm Locations


def test_time_locations_bcd_24_hours():
    rtc = Rtc("2024-02-28T23:59:58")
    assert rtc.clock() == [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x58]
    assert rtc.get(WEEKDAY) == 4  # Wednesday; 1 is Sunday
    rtc.step(SECOND)
    assert rtc.clock() == [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x59]
    rtc.step(SECOND)
    assert rtc.clock() == [0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x00]


def test_time_locations_binary():
    rtc = Rtc("1999-12-31T23:59:59")
    rtc.put(B, DM | H24)
    assert rtc.clock() == [19, 99, 12, 31, 23, 59, 59]
    rtc.step(SECOND)
    assert rtc.clock() == [20, 0, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(("hour", "want"), [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)])
def test_time_locations_12_hours_marks_pm(hour, want):
    rtc = Rtc(f"2024-01-01T{hour:02}:00:00")
    rtc.put(B, 0)
    assert rtc.get(HOURS) == want


def test_calendar_is_gregorian():
    """Every date byte, at random moments of the years that 64 bits of nanoseconds reach."""
    rng = random.Random(146818)
    for _ in range(200):
        t = datetime.datetime(
            rng.randrange(1970, 2262),
            rng.randrange(1, 13),
            rng.randrange(1, 29),
            rng.randrange(24),
            rng.randrange(60),
            rng.randrange(60),
        ) + datetime.timedelta(days=rng.randrange(3))
        rtc = Rtc(t.isoformat())
        want = [t.year // 100, t.year % 100, t.month, t.day, t.hour, t.minute, t.second]
        assert rtc.clock() == [bcd(n) for n in want]
        assert rtc.get(WEEKDAY) == (t.weekday() + 1) % 7 + 1


def test_base_with_a_time_zone_is_converted():
    assert Rtc("2024-01-01T00:30:00+02:00").clock() == [0x20, 0x23, 0x12, 0x31, 0x22, 0x30, 0x00]


@pytest.mark.parametrize("mode", [H24, DM | H24])
def test_time_set_is_the_time_that_goes_on(rtc, mode):
    rtc.put(B, SET | mode)
    enc = (lambda n: n) if mode & DM else bcd
    for index, n in zip(CLOCK, (20, 99, 12, 31, 23, 59, 50), strict=True):
        rtc.put(index, enc(n))
    rtc.put(B, mode)
    rtc.step(10 * SECOND)
    assert rtc.clock() == [enc(n) for n in (21, 0, 1, 1, 0, 0, 0)]


def test_time_set_in_12_hours_knows_pm(rtc):
    rtc.put(B, SET)
    rtc.put(HOURS, 0x91)
    rtc.put(B, 0)
    rtc.put(B, H24)
    assert rtc.get(HOURS) == 0x23


def test_a_single_byte_may_be_set_while_the_clock_runs(rtc):
    rtc.step(5 * SECOND)
    assert rtc.get(SECONDS) == 5  # the other bytes are those last shown: see docs/devices/mc146818.md
    rtc.put(MINUTES, 0x30)
    rtc.step(SECOND)
    assert rtc.clock() == [0x20, 0x24, 0x01, 0x01, 0x00, 0x30, 0x06]


def test_century_has_a_second_index(rtc):
    assert rtc.get(0x37) == 0x20
    rtc.put(0x37, 0x19)
    assert rtc.get(CENTURY) == 0x19


# ---------------------------------------------------------------------- Register B: SET


def test_set_holds_the_time(rtc):
    rtc.step(3 * SECOND)
    rtc.put(B, SET | H24)
    rtc.step(10 * SECOND)
    assert rtc.get(SECONDS) == 3
    rtc.put(B, H24)
    assert rtc.get(SECONDS) == 3
    rtc.step(2 * SECOND)
    assert rtc.get(SECONDS) == 5


def test_set_clears_uie(rtc):
    rtc.put(B, UIE | H24)
    rtc.put(B, SET | UIE | H24)
    assert rtc.get(B) == SET | H24


# ---------------------------------------------------------------------- Divider Control


def test_divider_control_first_update_half_a_second_after_release(rtc):
    rtc.put(A, 0x70)
    rtc.step(10 * SECOND)
    assert rtc.get(SECONDS) == 0
    rtc.put(A, 0x26)
    rtc.step(SECOND // 2 - 1)
    assert rtc.get(SECONDS) == 0
    rtc.step(1)
    assert rtc.get(SECONDS) == 1


def test_divider_control_reset_stops_updates(rtc):
    rtc.put(B, UIE | H24)
    rtc.put(A, 0x70)
    rtc.step(10 * SECOND)
    assert rtc.edges("irq") == []


# ---------------------------------------------------------------------- Update Cycle


def test_update_cycle_uip_shows_244_us_ahead(rtc):
    rtc.step(SECOND - UIP_NS - 1)
    assert rtc.get(A) == 0x26
    rtc.step(1)
    assert rtc.get(A) == UIP | 0x26
    rtc.step(UIP_NS - 1)
    assert rtc.get(A) == UIP | 0x26
    assert rtc.get(SECONDS) == 0
    rtc.step(1)
    assert rtc.get(A) == 0x26
    assert rtc.get(SECONDS) == 1


def test_update_cycle_uip_is_read_only_and_cleared_by_set(rtc):
    rtc.put(A, UIP | 0x26)
    assert rtc.get(A) == 0x26
    rtc.step(SECOND - 1000)
    assert rtc.get(A) & UIP
    rtc.put(B, SET | H24)
    assert not rtc.get(A) & UIP


def test_update_ended_interrupt(rtc):
    rtc.put(B, UIE | H24)
    rtc.step(SECOND - 1)
    assert not rtc.level("irq")
    rtc.step(1)
    assert rtc.level("irq")
    assert rtc.get(C) == IRQF | UF
    assert not rtc.level("irq")
    assert rtc.get(C) == 0
    rtc.step(SECOND)
    assert rtc.edges("irq") == [(SECOND, 1), (SECOND, 0), (2 * SECOND, 1)]


def test_update_ended_flag_without_its_enable_raises_no_request(rtc):
    rtc.step(SECOND)
    assert rtc.edges("irq") == []
    assert rtc.get(C) == UF


def test_enabling_an_interrupt_whose_flag_is_set_requests_at_once(rtc):
    rtc.step(SECOND)
    rtc.put(B, UIE | H24)
    assert rtc.level("irq")
    rtc.put(B, H24)
    assert not rtc.level("irq")
    assert rtc.get(C) == UF


def test_nothing_to_see_means_no_deadline_but_the_alarm(rtc):
    """The part sleeps: with UF and AF set no update can become visible before register C is read."""
    rtc.put(SECONDS_ALARM, 0x01)
    rtc.put(MINUTES_ALARM, 0xFF)
    rtc.put(HOURS_ALARM, 0xFF)
    rtc.step(2 * SECOND)
    assert rtc.dut.deadline is None
    assert rtc.get(C) == UF | AF
    assert rtc.dut.deadline == 3 * SECOND


def test_uip_goes_with_the_update_also_where_nothing_else_can_be_seen_of_it(rtc):
    """UF is set already, and the alarm is put off while the update before it shows in UIP."""
    rtc.put(SECONDS_ALARM, 0x02)
    rtc.put(MINUTES_ALARM, 0xFF)
    rtc.put(HOURS_ALARM, 0xFF)
    rtc.step(2 * SECOND - UIP_NS)
    assert rtc.get(A) & UIP
    rtc.put(SECONDS_ALARM, 0x30)
    rtc.step(UIP_NS)
    assert not rtc.get(A) & UIP
    assert rtc.get(C) == UF


# ---------------------------------------------------------------------- Interrupts: alarm


def alarms(rtc: Rtc, hour: int, minute: int, second: int, seconds: int) -> list[int]:
    """Seconds after now in which the alarm comes."""
    rtc.put(HOURS_ALARM, hour)
    rtc.put(MINUTES_ALARM, minute)
    rtc.put(SECONDS_ALARM, second)
    rtc.get(C)
    rtc.put(B, AIE | H24)
    start, found = rtc.t_ns, []
    rtc.take()
    while rtc.t_ns < start + seconds * SECOND:
        rtc.goto(min(rtc.dut.deadline, start + seconds * SECOND))
        if rtc.level("irq"):
            found.append((rtc.t_ns - start) // SECOND)
            assert rtc.get(C) & (IRQF | AF) == IRQF | AF
    return found


def test_alarm_at_a_time_of_day():
    rtc = Rtc("2024-01-01T10:20:30")
    assert alarms(rtc, 0x10, 0x21, 0x05, 2 * 86400) == [35, 35 + 86400]


def test_alarm_dont_care_hour_comes_each_hour():
    rtc = Rtc("2024-01-01T10:20:30")
    assert alarms(rtc, 0xFF, 0x21, 0x05, 3 * 3600) == [35, 35 + 3600, 35 + 7200]


def test_alarm_dont_care_hour_and_minute_comes_each_minute():
    rtc = Rtc("2024-01-01T23:58:30")
    assert alarms(rtc, 0xC0, 0xC0, 0x31, 200) == [1, 61, 121, 181]


def test_alarm_dont_care_at_all_comes_each_second():
    rtc = Rtc("2024-01-01T23:59:57")
    assert alarms(rtc, 0xFF, 0xFF, 0xFF, 6) == [1, 2, 3, 4, 5, 6]


# ---------------------------------------------------------------------- Periodic Interrupt Selection


RATES_HZ = {
    1: 256,
    2: 128,
    3: 8192,
    4: 4096,
    5: 2048,
    6: 1024,
    7: 512,
    8: 256,
    9: 128,
    10: 64,
    11: 32,
    12: 16,
    13: 8,
    14: 4,
    15: 2,
}


@pytest.mark.parametrize(("rs", "hz"), RATES_HZ.items())
def test_periodic_rates(rtc, rs, hz):
    rtc.put(A, 0x20 | rs)
    rtc.put(B, PIE | H24)
    ticks = 0
    for n in range(1, 17):
        rtc.goto(n * SECOND // hz + 2)  # the tick comes in the nanosecond after its crystal clock
        ticks += bool(rtc.get(C) & PF)
        assert ticks == n
        assert rtc.get(C) & PF == 0


def test_periodic_rate_0_is_off(rtc):
    rtc.put(A, 0x20)
    rtc.put(B, PIE | H24)
    rtc.step(SECOND // 2)
    assert rtc.edges("irq") == []


def test_periodic_rate_change_counts_what_has_passed(rtc):
    rtc.put(A, 0x2F)  # 500 ms
    rtc.put(B, PIE | H24)
    rtc.step(SECOND // 10)
    rtc.put(A, 0x2D)  # 125 ms
    rtc.step(SECOND // 40 - 100000)
    assert not rtc.level("irq")
    rtc.step(200000)
    assert rtc.level("irq")


# ---------------------------------------------------------------------- RESET, registers C and D, ports


def test_reset_clears_enables_and_flags_and_keeps_time_and_ram(rtc):
    rtc.put(0x40, 0xA5)
    rtc.put(0x0F, 0x0A)
    rtc.put(B, PIE | AIE | UIE | 0x08 | H24)
    rtc.step(10 * SECOND + 5)
    assert rtc.level("irq")
    rtc.reset()
    assert not rtc.level("irq")
    assert rtc.get(B) == UIE | H24  # the data sheet clears UIE too: see docs/devices/mc146818.md
    assert rtc.get(C) == 0
    assert rtc.get(0x40) == 0xA5
    assert rtc.get(0x0F) == 0
    assert rtc.get(SECONDS) == 0x10


def test_reset_keeps_the_mark_of_a_sleeping_guest(rtc):
    rtc.put(0x0F, 0xFE)
    rtc.reset()
    assert rtc.get(0x0F) == 0xFE


def test_power_on_starts_the_clock_again(rtc):
    rtc.put(0x40, 0xA5)
    rtc.step(10 * SECOND)
    rtc.reset(0)
    assert rtc.get(SECONDS) == 0
    assert rtc.get(0x40) == 0


def test_registers_c_and_d_cannot_be_written(rtc):
    rtc.put(C, 0xFF)
    rtc.put(D, 0x00)
    assert rtc.get(C) == 0
    assert rtc.get(D) == 0x80


def test_index_port_reads_ones_and_ignores_bit_7(rtc):
    rtc.write(0, INDEX, 0x80 | CENTURY)
    assert rtc.read(0, INDEX) == 0xFF
    assert rtc.read(0, DATA) == 0x20


def test_ram_bytes_hold_what_is_written(rtc):
    free = [i for i in range(0x0E, 0x80) if i not in (CENTURY, 0x37)]
    for i in free:
        rtc.put(i, i ^ 0x5A)
    rtc.step(100 * SECOND)
    assert [rtc.get(i) for i in free] == [i ^ 0x5A for i in free]


# ---------------------------------------------------------------------- settings and state


def test_cmos_setting_fills_the_ram():
    rtc = Rtc(cmos={0x10: 0x40, "0x3d": 0x12, "20": 0x06})
    assert [rtc.get(i) for i in (0x10, 0x3D, 0x14)] == [0x40, 0x12, 0x06]


@pytest.mark.parametrize(
    "cmos", [{0: 1}, {0x0D: 1}, {0x32: 1}, {0x37: 1}, {0x80: 1}, {0x10: 256}, {0x10: "1"}, {"x": 1}]
)
def test_cmos_setting_refuses_bytes_that_are_not_free(cmos):
    with pytest.raises(MachineError, match="cmos"):
        Rtc(cmos=cmos)


def test_base_setting_refuses_what_is_no_time():
    with pytest.raises(MachineError, match="ISO 8601"):
        Rtc("yesterday")


def test_save_and_restore_go_on_counting():
    a, b = Rtc("2024-06-30T12:34:56"), Rtc("1970-01-01T00:00:00")
    a.put(B, PIE | UIE | H24)
    a.put(A, 0x2B)
    a.step(3 * SECOND + 12345)
    state = a.dut.save()
    b.goto(a.t_ns)
    b.take()
    b.dut.restore(state)
    assert b.take() == []
    assert b.dut.save() == state
    a.take()
    for _ in range(30):
        a.step(SECOND // 7)
        b.step(SECOND // 7)
        assert [a.get(i) for i in range(14)] == [b.get(i) for i in range(14)]
    assert a.edges("irq") == b.edges("irq") != []


def test_restore_refuses_an_index_beyond_the_ram(rtc):
    with pytest.raises(StateError, match="index"):
        rtc.dut.restore({**rtc.dut.save(), "index": 128})


def test_two_centuries_of_running_keep_the_calendar():
    rtc = Rtc("2024-01-01T00:00:00")
    days = 200 * 365
    rtc.step(days * 86400 * SECOND)
    t = datetime.datetime(2024, 1, 1) + datetime.timedelta(days=days)
    assert rtc.clock() == [bcd(n) for n in (t.year // 100, t.year % 100, t.month, t.day, 0, 0, 0)]
    assert rtc.get(WEEKDAY) == (calendar.weekday(t.year, t.month, t.day) + 1) % 7 + 1


@pytest.mark.parametrize("host_time", [False, True])
def test_the_hosts_time_is_content_and_nothing_else_is(host_time):
    """Of a guest that was shown its host's time; all other bytes, and this part's own time, are state."""
    rtc = FakeBus(Mc146818(host_time=host_time))
    content = set()
    for index in range(128):
        rtc.write(0, 0, index)
        rtc.read(0, 1)
        if rtc.content:
            content.add(index)
    times = {SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY, 0x37}
    assert content == (times if host_time else set())
