"""IA-PC HPET.  Section numbers: IA-PC HPET (High Precision Event Timers) Specification, revision 1.0a."""

import pytest

from engine import _device
from engine.devices.hpet import Hpet
from engine.devices.i8254 import I8254
from engine.devices.mc146818 import Mc146818
from engine.testing import FakeBus
from engine.testing.bus import AGAIN

CAP, CONF, STATUS, COUNTER = 0x00, 0x10, 0x20, 0xF0
ENABLE, LEGACY = 1, 2
LEVEL, INT_ENB, PERIODIC, VAL_SET, MODE32, FSB = 0x2, 0x4, 0x8, 0x40, 0x100, 0x4000
TICK = 10


def conf(n: int) -> int:
    return 0x100 + 0x20 * n


def cmp(n: int) -> int:
    return conf(n) + 8


def route(gsi: int) -> int:
    return gsi << 9


class Timers(FakeBus):
    def __init__(self, **config):
        super().__init__(Hpet("hpet", **config))

    def get(self, offset: int, size: int = 4) -> int:
        return self.read(0, offset, size)

    def put(self, offset: int, value: int, size: int = 4) -> None:
        assert self.write(0, offset, value, size) == _device.OK


@pytest.fixture
def hpet() -> Timers:
    return Timers()


# ---------------------------------------------------------------------- 2.3.4, 2.3.8 capabilities


def test_2_3_4_capabilities(hpet):
    cap = hpet.get(CAP, 8)
    assert cap >> 32 == 10_000_000  # femtoseconds: 100 MHz
    assert cap >> 16 & 0xFFFF == 0x8086
    assert cap >> 15 & 1 == 1  # legacy replacement
    assert cap >> 13 & 1 == 1  # 64-bit counter
    assert cap >> 8 & 0x1F == 2  # three timers
    hpet.put(CAP, 0, 8)
    assert hpet.get(CAP, 8) == cap


def test_2_3_8_timer_capabilities(hpet):
    for n in range(3):
        assert hpet.get(conf(n)) == 0x30  # periodic, 64 bits
        assert hpet.get(conf(n) + 4) == 0x4
        hpet.put(conf(n), 0xFFFFFFFF)
        hpet.put(conf(n) + 4, 0xFFFFFFFF)
        assert hpet.get(conf(n)) == 0x7F7E
        assert hpet.get(conf(n) + 4) == 0x4


def test_2_3_8_routes_are_the_boards():
    assert Timers(intcap=0xFF0104).get(conf(2) + 4) == 0xFF0104


def test_2_3_reserved_offsets_read_zero(hpet):
    for offset in (0x08, 0x14, 0x18, 0x24, 0xE8, 0xF8, 0x118, 0x180, 0x3F8):
        hpet.put(offset, 0xFFFFFFFF)
        assert hpet.get(offset) == 0


def test_only_aligned_words_of_four_and_eight_bytes_are_accepted(hpet):
    for size in (1, 2):
        hpet.read(0, CAP, size)
        assert hpet.status == _device.BAD_SIZE
        assert hpet.write(0, CONF, 1, size) == _device.BAD_SIZE
    hpet.read(0, CAP + 2, 4)
    assert hpet.status == _device.UNALIGNED
    assert hpet.write(0, CONF + 1, 1, 4) == _device.UNALIGNED
    assert hpet.get(CONF) == 0


# ---------------------------------------------------------------------- 2.3.5, 2.3.7 main counter


def test_2_3_7_counter_runs_only_while_enabled(hpet):
    hpet.step(1000)
    assert hpet.get(COUNTER, 8) == 0
    hpet.put(CONF, ENABLE)
    hpet.step(1000)
    assert hpet.get(COUNTER, 8) == 100
    hpet.put(CONF, 0)
    hpet.step(1000)
    assert hpet.get(COUNTER, 8) == 100
    hpet.put(CONF, ENABLE)
    hpet.step(9)
    assert hpet.get(COUNTER, 8) == 100
    hpet.step(1)
    assert hpet.get(COUNTER, 8) == 101


def test_2_3_7_counter_is_set_in_halves_while_halted(hpet):
    hpet.put(COUNTER, 0xFFFFFFF0)
    hpet.put(COUNTER + 4, 7)
    hpet.put(CONF, ENABLE)
    hpet.step(0x20 * TICK)
    assert hpet.get(COUNTER) == 0x10
    assert hpet.get(COUNTER + 4) == 8
    assert hpet.get(COUNTER, 8) == 0x8_00000010


def test_2_3_7_a_long_time_is_exact(hpet):
    hpet.put(CONF, ENABLE)
    hpet.step(10 * 365 * 86400 * 10**9)
    assert hpet.get(COUNTER, 8) == 10 * 365 * 86400 * 10**8


def test_2_3_5_writable_bits(hpet):
    hpet.put(CONF, 0xFFFFFFFC)
    assert hpet.get(CONF) == 0
    hpet.put(CONF, 0xFFFFFFFF)
    assert hpet.get(CONF) == ENABLE | LEGACY


# ---------------------------------------------------------------------- 2.3.9.2.1 non-periodic mode


def test_2_3_9_2_1_one_shot_edge_is_a_pulse(hpet):
    hpet.put(conf(2), INT_ENB | route(2))
    hpet.put(cmp(2), 1000, 8)
    hpet.put(CONF, ENABLE)
    hpet.step(100_000)
    assert hpet.edges("gsi2") == [(1000 * TICK, 1), (1000 * TICK, 0)]
    assert hpet.get(STATUS) == 0


def test_2_3_9_2_1_one_shot_comes_again_when_the_comparator_is_written(hpet):
    hpet.put(conf(0), INT_ENB | route(2))
    hpet.put(CONF, ENABLE)
    for target in (500, 900, 2000):
        hpet.put(cmp(0), target, 8)
        hpet.goto(target * TICK - 1)
        assert hpet.take() == []
        hpet.step(1)
        assert [e.value for e in hpet.take()] == [1, 0]


def test_2_3_9_2_1_disabled_timer_is_silent(hpet):
    hpet.put(conf(0), route(2))
    hpet.put(cmp(0), 100, 8)
    hpet.put(CONF, ENABLE)
    hpet.step(100_000)
    assert hpet.effects == []


def test_2_3_9_2_1_a_timer_of_32_bits_also_interrupts_when_the_counter_wraps(hpet):
    hpet.put(COUNTER, 0xFFFFFF00)
    hpet.put(conf(2), INT_ENB | MODE32 | route(2))
    hpet.put(cmp(2), 0x50)
    hpet.put(CONF, ENABLE)
    hpet.step(10_000)
    rises = [t for t, level in hpet.edges("gsi2") if level]
    assert rises == [0xFF * TICK, 0x150 * TICK]


def test_2_3_8_mode_32_truncates_the_comparator(hpet):
    hpet.put(cmp(0), 0x1_00000234, 8)
    hpet.put(conf(0), MODE32)
    assert hpet.get(cmp(0), 8) == 0x234
    hpet.put(conf(0), 0)
    assert hpet.get(cmp(0), 8) == 0x234


# ---------------------------------------------------------------------- 2.3.9.2.2 periodic mode


def start_periodic(hpet: Timers, n: int, first: int, period: int, flags: int = 0) -> None:
    hpet.put(conf(n), INT_ENB | PERIODIC | VAL_SET | route(2) | flags)
    hpet.put(cmp(n), first)
    hpet.put(cmp(n), period)
    hpet.put(CONF, ENABLE)


@pytest.mark.parametrize("flags", [0, MODE32])
def test_2_3_9_2_2_periodic_interrupts_at_first_and_then_each_period(hpet, flags):
    hpet.put(cmp(0), 0, 8)
    start_periodic(hpet, 0, 1000, 300, flags)
    hpet.step(9_999 * TICK)
    rises = [t // TICK for t, level in hpet.edges("gsi2") if level]
    # Each match interrupts twice, a tick apart, as in the reference (docs/devices/hpet.md).
    assert rises == [n for match in range(1000, 10_000, 300) for n in (match, match + 1)]
    assert hpet.get(cmp(0)) == 10_000


def test_2_3_9_2_2_val_set_lasts_for_one_write(hpet):
    hpet.put(conf(1), PERIODIC | VAL_SET)
    assert hpet.get(conf(1)) & VAL_SET
    hpet.put(cmp(1), 5000)
    assert not hpet.get(conf(1)) & VAL_SET
    hpet.put(cmp(1), 100)
    assert hpet.get(cmp(1)) == 5000


@pytest.mark.parametrize("flags", [0, MODE32])
@pytest.mark.parametrize("period", [1, 7, 1000, 999_999_999])
def test_2_3_9_2_2_a_comparator_left_behind_catches_up_in_one_step(hpet, flags, period):
    hpet.put(cmp(0), 0, 8)
    hpet.put(conf(0), INT_ENB | PERIODIC | VAL_SET | route(2) | flags)
    hpet.put(cmp(0), 10)
    hpet.put(cmp(0), period)
    counter = 1_500_000_000
    hpet.put(COUNTER, counter, 8)
    hpet.put(CONF, ENABLE)
    hpet.step(TICK)
    assert hpet.edges("gsi2") == [(TICK, 1), (TICK, 0)]
    counter += 1
    assert hpet.get(cmp(0)) == 10 + -(-(counter - 10) // period) * period


def test_2_3_9_2_2_a_period_beyond_half_the_circle_goes_backwards(hpet):
    hpet.put(cmp(0), 0, 8)
    hpet.put(conf(0), PERIODIC | VAL_SET)
    hpet.put(cmp(0), 0)
    hpet.put(cmp(0), 0xC0000000)
    hpet.put(conf(0), INT_ENB | PERIODIC | MODE32 | route(2))
    hpet.put(COUNTER, 0x1000)
    hpet.put(CONF, ENABLE)
    hpet.step(TICK)
    at, steps = 0, 0
    while (at - 0x1001) % 2**32 >= 2**31:
        at = (at + 0xC0000000) % 2**32
        steps += 1
    assert steps > 1
    assert hpet.get(cmp(0)) == at


# ---------------------------------------------------------------------- 2.3.6 interrupt status


def test_2_3_6_level_interrupt_stays_until_its_status_is_cleared(hpet):
    hpet.put(conf(2), INT_ENB | LEVEL | route(2))
    hpet.put(cmp(2), 100, 8)
    hpet.put(CONF, ENABLE)
    hpet.step(2000)
    assert hpet.get(STATUS) == 4
    assert hpet.level("gsi2")
    hpet.put(STATUS, 3)
    assert hpet.get(STATUS) == 4
    hpet.put(STATUS, 4)
    assert hpet.get(STATUS) == 0
    assert not hpet.level("gsi2")


@pytest.mark.parametrize("off", [(conf(2), LEVEL | route(2)), (CONF, 0)])
def test_2_3_6_disabling_lowers_the_line(hpet, off):
    hpet.put(conf(2), INT_ENB | LEVEL | route(2))
    hpet.put(cmp(2), 100, 8)
    hpet.put(CONF, ENABLE)
    hpet.step(2000)
    assert hpet.level("gsi2")
    hpet.put(*off)
    assert not hpet.level("gsi2")
    assert hpet.get(STATUS) == 0


def test_timers_that_match_together_interrupt_in_the_order_they_were_armed(hpet):
    hpet.put(CONF, ENABLE)
    for n in (2, 0, 1):
        hpet.put(conf(n), INT_ENB | route(20 + n))
        hpet.put(cmp(n), 1000, 8)
    hpet.step(10_000)
    assert [e.pin for e in hpet.take() if e.value] == ["gsi22", "gsi20", "gsi21"]


def test_2_3_10_message_instead_of_a_line(hpet):
    hpet.put(conf(1), INT_ENB | FSB | route(2))
    hpet.put(conf(1) + 0x10, 0xFEE00000 << 32 | 0x4041, 8)
    hpet.put(cmp(1), 100, 8)
    hpet.put(CONF, ENABLE)
    hpet.step(2000)
    (message,) = hpet.take()
    assert (message.kind, message.addr, message.value, message.t_ns) == ("message", 0xFEE00000, 0x4041, 1000)


# ---------------------------------------------------------------------- 2.3.5 legacy replacement


def test_2_3_5_legacy_lines_pass_while_replacement_is_off(hpet):
    hpet.set("pit", 1)
    hpet.set("rtc", 1)
    assert hpet.level("gsi0") and hpet.level("gsi8")
    hpet.set("pit", 0)
    hpet.set("rtc", 0)
    assert not hpet.level("gsi0") and not hpet.level("gsi8")


def test_2_3_5_replacement_cuts_the_lines_and_gives_the_rtc_back(hpet):
    hpet.set("pit", 1)
    hpet.set("rtc", 1)
    hpet.put(CONF, LEGACY)
    assert not hpet.level("gsi0") and not hpet.level("gsi8") and hpet.level("pit_disable")
    hpet.set("rtc", 0)
    hpet.set("rtc", 1)
    hpet.put(CONF, 0)
    assert hpet.level("gsi8") and not hpet.level("pit_disable")


@pytest.mark.parametrize(("source", "gsi"), [("pit", 0), ("rtc", 8)])
def test_2_3_5_each_match_drives_a_line_that_it_shares_with_a_legacy_source(hpet, source, gsi):
    """Its interrupt is pending, but the other source may have lowered the line meanwhile."""
    hpet.put(conf(2), PERIODIC | VAL_SET | LEVEL | INT_ENB | route(gsi))
    hpet.put(cmp(2), 100)
    hpet.put(cmp(2), 100)
    hpet.put(CONF, ENABLE)
    hpet.step(100 * TICK)
    for _ in range(3):
        assert hpet.level(f"gsi{gsi}")
        hpet.set(source, 1)
        hpet.set(source, 0)
        assert not hpet.level(f"gsi{gsi}")
        hpet.step(100 * TICK)


def test_2_3_5_timers_0_and_1_take_the_legacy_lines_whatever_their_route(hpet):
    for n in range(3):
        hpet.put(conf(n), INT_ENB | route(20))
        hpet.put(cmp(n), 100 * (n + 1), 8)
    hpet.put(CONF, ENABLE | LEGACY)
    hpet.take()
    hpet.step(10_000)
    assert [(e.pin, e.t_ns) for e in hpet.take() if e.value] == [("gsi0", 1000), ("gsi8", 2000), ("gsi20", 3000)]


@pytest.fixture
def board():
    pit, rtc, hpet = I8254("pit", rank=0), Mc146818("rtc", rank=1), Hpet("hpet", rank=2)
    bus = FakeBus(
        hpet,
        pit,
        rtc,
        wires=[(pit, "out0", hpet, "pit"), (rtc, "irq", hpet, "rtc"), (hpet, "pit_disable", pit, "irq_disable")],
    )
    return bus, pit, rtc


def test_2_3_5_on_a_board_the_8254_is_silent_while_it_is_replaced(board):
    bus, pit, _ = board
    for port, value in ((3, 0x34), (0, 0x9C), (0, 0x2E)):  # 100 Hz
        bus.write(0, port, value, device=pit)
    bus.step(105_000_000)
    assert len([e for e in bus.take() if e.pin == "gsi0" and e.value]) == 10
    bus.write(0, CONF, ENABLE | LEGACY, 4)
    bus.take()
    bus.step(10**9)
    assert bus.take() == []
    bus.write(0, CONF, ENABLE, 4)
    bus.step(50_000_000)
    assert len([e for e in bus.take() if e.pin == "gsi0" and e.value]) == 5


def test_2_3_5_on_a_board_what_the_8254_drives_again_passes(board):
    bus, pit, _ = board
    for port, value in ((3, 0x38), (0, 0xF4), (0, 0x01)):  # mode 4: high for one clock
        bus.write(0, port, value, device=pit)
    bus.take()
    bus.step(1_000_000)
    assert [e.value for e in bus.take() if e.pin == "gsi0"] == [1, AGAIN, 0]


def test_2_3_5_on_a_board_the_rtcs_request_waits_for_the_release(board):
    bus, _, rtc = board
    bus.write(0, CONF, LEGACY, 4)
    bus.write(0, 0, 0x0B, device=rtc)
    bus.write(0, 1, 0x12, device=rtc)  # update-ended interrupt
    bus.step(10**9)
    assert bus.level("irq", rtc)
    assert not bus.level("gsi8")
    bus.write(0, CONF, 0, 4)
    assert bus.level("gsi8")


# ---------------------------------------------------------------------- reset and state


def test_reset_halts_and_forgets(hpet):
    hpet.set("rtc", 1)
    for n in range(3):
        start_periodic(hpet, n, 100, 50, LEVEL)
    hpet.put(CONF, ENABLE | LEGACY)
    hpet.step(5000)
    hpet.reset()
    assert hpet.dut.inspect()["pins"] == dict.fromkeys(Hpet.OUT, False)
    assert hpet.dut.deadline is None
    fresh = Timers()
    for offset in (CONF, STATUS, COUNTER, *map(conf, range(3)), *map(cmp, range(3))):
        assert hpet.get(offset, 8) == fresh.get(offset, 8)


def test_reset_keeps_the_level_of_the_8254s_line(hpet):
    hpet.set("pit", 1)
    hpet.set("rtc", 1)
    hpet.reset()
    assert hpet.level("gsi0")
    assert not hpet.level("gsi8")  # the RTC is reset with it
    hpet.set("pit", 0)
    assert not hpet.level("gsi0")
    hpet.reset()
    assert not hpet.level("gsi0")


def test_reset_leaves_a_line_low_that_legacy_replacement_cut(hpet):
    hpet.set("pit", 1)
    hpet.put(CONF, LEGACY)
    hpet.reset()
    assert not hpet.level("gsi0")


def test_save_and_restore_go_on_counting():
    a, b = Timers(), Timers()
    start_periodic(a, 0, 1000, 333)
    a.put(conf(1), INT_ENB | MODE32 | LEVEL | route(5))
    a.put(cmp(1), 4000)
    a.step(12_345)
    state = a.dut.save()
    b.goto(a.t_ns)
    b.dut.restore(state)
    assert b.take() == []
    assert b.dut.save() == state
    a.take()
    for _ in range(20):
        a.step(4_444)
        b.step(4_444)
        assert [a.get(o, 8) for o in (COUNTER, STATUS, cmp(0))] == [b.get(o, 8) for o in (COUNTER, STATUS, cmp(0))]
    assert a.edges() == b.edges() != []
