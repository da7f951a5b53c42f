"""8254 interval timer and port 61h.  Section names: Intel 8254 data sheet; 82371AB data sheet for port 61h.

A count of n clocks is over when the virtual clock has reached n / 1193182 s; `at(n)` is the first nanosecond of that.
"""

import random
from itertools import pairwise

import pytest

from engine.devices.i8254 import I8254
from engine.errors import StateError
from engine.testing import FakeBus
from engine.testing.bus import AGAIN

HZ = 1193182
PIT, PORT61 = 0, 1
CONTROL = 3
LSB, MSB, BOTH = 1, 2, 3


def at(clocks: int) -> int:
    return -(-clocks * 10**9 // HZ)


def program(bus: FakeBus, counter: int, mode: int, count: int, rw: int = BOTH, bcd: int = 0) -> None:
    bus.write(PIT, CONTROL, counter << 6 | rw << 4 | mode << 1 | bcd)
    if rw != MSB:
        bus.write(PIT, counter, count & 0xFF)
    if rw != LSB:
        bus.write(PIT, counter, count >> 8)


def latched(bus: FakeBus, counter: int) -> int:
    bus.write(PIT, CONTROL, counter << 6)
    return bus.read(PIT, counter) | bus.read(PIT, counter) << 8


def out2(bus: FakeBus) -> int:
    return bus.read(PORT61, 0) >> 5 & 1


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus(I8254("pit"))


# ---------------------------------------------------------------------- Write Operations, Read Operations


def test_write_operations_lsb_only_loads_a_byte(bus):
    program(bus, 1, 2, 0x34, rw=LSB)
    assert bus.read(PIT, 1) == 0x34
    assert bus.read(PIT, 1) == 0x34
    bus.step(at(0x10))
    assert bus.read(PIT, 1) == 0x24


def test_write_operations_msb_only_loads_a_high_byte(bus):
    program(bus, 1, 2, 0x1200, rw=MSB)
    assert bus.read(PIT, 1) == 0x12
    bus.step(at(1))
    assert bus.read(PIT, 1) == 0x11


def test_write_operations_both_starts_counting_with_the_second_byte(bus):
    bus.write(PIT, CONTROL, 0x34)
    bus.write(PIT, 0, 0x00)
    bus.step(at(500))
    bus.write(PIT, 0, 0x10)
    assert latched(bus, 0) == 0x1000
    bus.step(at(0x123))
    assert latched(bus, 0) == 0x1000 - 0x123


def test_read_operations_both_alternates_bytes_of_the_running_count(bus):
    program(bus, 0, 2, 0x1234)
    assert [bus.read(PIT, 0) for _ in range(4)] == [0x34, 0x12, 0x34, 0x12]


def test_write_operations_count_zero_is_the_largest(bus):
    program(bus, 0, 2, 0)
    bus.step(at(0xFFFF))
    assert latched(bus, 0) == 1
    bus.step(at(1))
    assert latched(bus, 0) == 0  # 65 536, of which 16 bits can be read


def test_control_word_register_cannot_be_read(bus):
    assert bus.read(PIT, CONTROL) == 0


def test_control_word_restarts_the_byte_order(bus):
    program(bus, 0, 2, 0x1234)
    assert bus.read(PIT, 0) == 0x34
    bus.write(PIT, CONTROL, 0x34)
    assert bus.read(PIT, 0) == 0x34


def test_a_word_access_reaches_two_counters(bus):
    program(bus, 0, 2, 0x11, rw=LSB)
    program(bus, 1, 2, 0x22, rw=LSB)
    assert bus.read(PIT, 0, 2) == 0x2211
    bus.write(PIT, 0, 0x4433, 2)
    assert bus.read(PIT, 0, 2) == 0x4433


# ---------------------------------------------------------------------- Counter Latch Command


def test_counter_latch_holds_the_count_until_it_is_read(bus):
    program(bus, 2, 2, 0x8000)
    bus.step(at(0x100))
    bus.write(PIT, CONTROL, 0x80)
    bus.step(at(0x1000))
    assert bus.read(PIT, 2) | bus.read(PIT, 2) << 8 == 0x7F00
    assert latched(bus, 2) == 0x6F00


def test_counter_latch_second_command_is_ignored(bus):
    program(bus, 0, 2, 0x8000)
    bus.write(PIT, CONTROL, 0x00)
    bus.step(at(0x1000))
    bus.write(PIT, CONTROL, 0x00)
    assert bus.read(PIT, 0) | bus.read(PIT, 0) << 8 == 0x8000


def test_counter_latch_follows_the_programmed_byte(bus):
    program(bus, 0, 2, 0x8000, rw=MSB)
    bus.write(PIT, CONTROL, 0x00)
    bus.step(at(0x100))
    assert bus.read(PIT, 0) == 0x80
    assert bus.read(PIT, 0) == 0x7F


# ---------------------------------------------------------------------- Read-Back Command


def test_read_back_status_tells_mode_byte_order_and_bcd(bus):
    for mode in range(6):
        for rw in (LSB, MSB, BOTH):
            for bcd in (0, 1):
                program(bus, 0, mode, 0x100, rw=rw, bcd=bcd)
                bus.write(PIT, CONTROL, 0xE2)
                assert bus.read(PIT, 0) & 0x3F == rw << 4 | mode << 1 | bcd


def test_read_back_status_tells_the_output(bus):
    program(bus, 0, 0, 1000)
    bus.write(PIT, CONTROL, 0xE2)
    assert bus.read(PIT, 0) >> 7 == 0
    bus.step(at(1000))
    bus.write(PIT, CONTROL, 0xE2)
    assert bus.read(PIT, 0) >> 7 == 1


def test_read_back_latches_several_counters_at_one_moment(bus):
    for n in range(3):
        program(bus, n, 2, 0x4000 + n)
    start = bus.t_ns
    bus.write(PIT, CONTROL, 0xDE)
    bus.step(at(77))
    assert bus.t_ns > start
    assert [bus.read(PIT, n) | bus.read(PIT, n) << 8 for n in range(3)] == [0x4000, 0x4001, 0x4002]


def test_read_back_status_is_read_before_the_count(bus):
    program(bus, 1, 2, 0x1234)
    bus.write(PIT, CONTROL, 0xC4)
    assert bus.read(PIT, 1) & 0x3F == 0x34
    assert bus.read(PIT, 1) == 0x34
    assert bus.read(PIT, 1) == 0x12


def test_read_back_leaves_counters_that_are_not_named(bus):
    program(bus, 0, 2, 0x1234)
    bus.write(PIT, CONTROL, 0xC4)
    assert bus.read(PIT, 0) == 0x34


# ---------------------------------------------------------------------- Mode Definitions


def test_mode_0_interrupt_on_terminal_count(bus):
    bus.take()
    program(bus, 0, 0, 1000)
    bus.step(at(1000) - 2)
    assert not bus.level("out0")
    bus.step(2)
    assert bus.level("out0")
    bus.step(at(200000))
    assert [level for _, level in bus.edges("out0")] == [1]
    assert latched(bus, 0) == (1000 - bus.t_ns * HZ // 10**9) & 0xFFFF  # it goes on from FFFFh


def test_mode_0_new_count_restarts_with_output_low(bus):
    program(bus, 0, 0, 100)
    bus.step(at(150))
    assert bus.level("out0")
    bus.write(PIT, 0, 100)
    bus.write(PIT, 0, 0)
    assert not bus.level("out0")
    bus.step(at(100))
    assert bus.level("out0")


def test_mode_1_one_shot_is_retriggered_by_the_gate(bus):
    program(bus, 2, 1, 1000)
    bus.write(PORT61, 0, 1)
    bus.step(at(900))
    assert out2(bus) == 1
    bus.write(PORT61, 0, 0)
    bus.write(PORT61, 0, 1)
    bus.step(at(900))
    assert out2(bus) == 1
    bus.step(at(100))
    assert out2(bus) == 0


def test_mode_2_rate_generator_interrupts_each_period(bus):
    """OUT is low for the last clock of a period and rises at its end, one clock after the count for the loading."""
    program(bus, 0, 2, 11932)
    bus.take()
    bus.step(at(119322))
    edges = bus.edges("out0")[1:]  # the first period has no fall: OUT is low since the reset
    assert [level for _, level in edges] == [0, 1] * (len(edges) // 2)
    rises = [t for t, level in bus.edges("out0") if level]
    assert rises == [(n * 11932 + 1) * 10**9 // HZ for n in range(1, 11)]
    assert [t for t, level in edges if not level] == [n * 11932 * 10**9 // HZ for n in range(2, 11)]


def test_mode_2_gate_restarts_the_count(bus):
    program(bus, 2, 2, 1000)
    bus.step(at(300))
    bus.write(PORT61, 0, 1)
    bus.step(at(10))
    assert latched(bus, 2) == 990


@pytest.mark.parametrize(("mode", "left"), [(1, 990), (2, 990), (3, 980), (5, 990)])
def test_gate_pin_operations_a_gate_that_stays_high_starts_nothing(bus, mode, left):
    program(bus, 2, mode, 1000)
    bus.write(PORT61, 0, 1)
    bus.step(at(10))
    bus.write(PORT61, 0, 3)  # the speaker's bit alone changes
    assert latched(bus, 2) == left


@pytest.mark.parametrize("count", [1000, 1001])
def test_mode_3_square_wave_is_high_for_half_the_count_rounded_up(bus, count):
    program(bus, 0, 3, count)
    bus.take()
    bus.step(at(count * 3) + 2)
    edges = bus.edges("out0")
    assert [level for _, level in edges] == [0, 1] * 3
    half = (count + 1) // 2
    for n, (t, _) in enumerate(edges):
        clocks = n // 2 * count + (count if n % 2 else half)
        assert 0 <= t - clocks * 10**9 / HZ < 2


def test_mode_3_counts_by_two(bus):
    program(bus, 0, 3, 1000)
    bus.step(at(100))
    assert latched(bus, 0) == 800
    bus.step(at(500))
    assert latched(bus, 0) == 1000 - 2 * 600 % 1000


def test_mode_4_software_strobe_lasts_one_clock(bus):
    program(bus, 0, 4, 500)
    bus.take()
    bus.step(at(2000))
    (rise, up), (fall, down) = bus.edges("out0")
    assert (up, down) == (1, 0)
    assert 0 <= rise - 500 * 10**9 / HZ < 2
    assert 0 <= fall - 501 * 10**9 / HZ < 2


@pytest.mark.parametrize(("mode", "told"), [(3, [AGAIN, 0, 1] * 2), (4, [1, AGAIN, 0])])
def test_a_high_output_is_driven_again_before_an_edge_between_two_nanoseconds(bus, mode, told):
    """As in the reference, whose I/O APIC takes it for an edge of its own."""
    program(bus, 0, mode, 500)
    bus.take()
    bus.step(at(1200))
    effects = [e for e in bus.effects if e.pin == "out0"]
    assert [e.value for e in effects] == told
    for again, fall in pairwise(effects):
        assert again.value != AGAIN or (fall.value == 0 and fall.t_ns == again.t_ns + 1)


def test_mode_5_hardware_strobe_counts_from_the_gate(bus):
    program(bus, 2, 5, 500)
    bus.step(at(300))
    bus.write(PORT61, 0, 1)
    bus.step(at(499))
    assert out2(bus) == 0
    bus.step(at(1))
    assert out2(bus) == 1
    bus.step(at(1))
    assert out2(bus) == 0


def test_counts_are_exact_after_any_time():
    """Against whole-number arithmetic, at random times up to a month."""
    rng = random.Random(8254)
    for _ in range(300):
        bus = FakeBus(I8254("pit"))
        mode, count, t = rng.randrange(6), rng.randrange(1, 0x10000), rng.randrange(1, 30 * 86400 * 10**9)
        bus.write(PIT, CONTROL, 0x70 | mode << 1)  # counter 1 has no line, so that nothing is scheduled for it
        bus.write(PIT, CONTROL, 0x18)
        bus.write(PIT, 0, 1)
        bus.write(PIT, 1, count & 0xFF)
        bus.write(PIT, 1, count >> 8)
        bus.step(t)
        clocks = t * HZ // 10**9
        want = {3: count - 2 * clocks % count, 2: count - clocks % count}.get(mode, count - clocks)
        assert latched(bus, 1) == want & 0xFFFF, (mode, count, t)


# ---------------------------------------------------------------------- 82371AB 4.2.4.1, NMISC (port 61h)


def test_nmisc_bit_4_inverts_on_each_read(bus):
    assert [bus.read(PORT61, 0) >> 4 & 1 for _ in range(4)] == [1, 0, 1, 0]


def test_nmisc_bits_0_and_1_read_back_and_the_rest_is_read_only(bus):
    for value in range(256):
        bus.write(PORT61, 0, value)
        assert bus.read(PORT61, 0) & 0xCF == value & 3


def test_nmisc_bit_5_is_out2(bus):
    program(bus, 2, 3, 1000)
    bus.write(PORT61, 0, 1)
    assert out2(bus) == 1
    bus.step(at(500))
    assert out2(bus) == 0


def test_speaker_setting_drives_pin_out2():
    bus = FakeBus(I8254("pit", speaker=True))
    bus.write(PORT61, 0, 3)
    program(bus, 2, 3, 1193)
    bus.take()
    bus.step(at(1193 * 100))
    assert 199 <= len(bus.edges("out2")) <= 200


def test_pin_out2_is_quiet_without_the_speaker_setting(bus):
    bus.write(PORT61, 0, 3)
    program(bus, 2, 3, 1193)
    bus.step(at(1193 * 100))
    assert bus.edges("out2") == []


# ---------------------------------------------------------------------- HPET 1.0a 2.3.5, legacy replacement


def test_irq_disable_cuts_out0_and_gives_it_back(bus):
    program(bus, 0, 3, 10000)
    assert bus.level("out0")
    bus.set("irq_disable", 1)
    assert not bus.level("out0")
    bus.take()
    bus.step(at(60000))
    assert bus.edges("out0") == []
    assert bus.devices[0].deadline is None
    bus.set("irq_disable", 0)
    assert bus.level("out0")
    bus.step(at(5000))
    assert not bus.level("out0")


# ---------------------------------------------------------------------- reset and state


def test_bus_reset_restarts_the_counters_in_mode_3(bus):
    program(bus, 0, 2, 1000)
    program(bus, 2, 0, 10)
    bus.write(PORT61, 0, 3)
    bus.step(at(5500))
    bus.reset()
    start = bus.t_ns
    bus.take()
    assert not bus.level("out0")
    bus.write(PIT, CONTROL, 0xEE)
    assert [bus.read(PIT, n) & 0x0E for n in range(3)] == [6, 6, 6]
    assert bus.read(PORT61, 0) & 3 == 2  # the gate closes; the speaker bit has no reset in the reference
    bus.goto(start + at(0x8000))
    assert [level for _, level in bus.edges("out0")] == [1, 0]  # the first half ends: see docs/devices/i8254.md


def test_bus_reset_drives_out0_once_more_as_the_counter_stood(bus):
    program(bus, 0, 3, 1000)
    bus.set("lower", 1)
    assert not bus.level("out0")
    bus.step(at(10))
    bus.reset()
    assert bus.level("out0")  # the first half of mode 3, and of the period that the reset begins
    bus.step(at(0x8000))
    assert not bus.level("out0")
    program(bus, 0, 3, 1000)
    bus.step(at(600))
    bus.reset()
    assert not bus.level("out0")  # the second half


def test_bus_reset_leaves_out0_low_that_legacy_replacement_cut(bus):
    program(bus, 0, 3, 1000)
    bus.set("irq_disable", 1)
    bus.step(at(10))
    bus.reset()
    assert not bus.level("out0")


def test_save_and_restore_go_on_counting():
    a, b = FakeBus(I8254("pit")), FakeBus(I8254("pit"))
    program(a, 0, 2, 5000)
    program(a, 2, 3, 777)
    a.write(PIT, CONTROL, 0x80)
    a.step(at(12345))
    state = a.dut.save()
    a.take()
    b.goto(a.t_ns)
    b.take()
    b.dut.restore(state)
    assert b.take() == []
    assert b.dut.save() == state
    for _ in range(20):
        a.step(at(1234))
        b.step(at(1234))
        assert [a.read(PIT, n) for n in range(3)] == [b.read(PIT, n) for n in range(3)]
    assert a.edges("out0") == b.edges("out0") != []


@pytest.mark.parametrize("count", [0, 0x10001])
def test_restore_refuses_a_count_that_cannot_be(bus, count):
    before = bus.dut.save()
    with pytest.raises(StateError, match="count"):
        bus.dut.restore({**before, "count": [1, count, 1]})
    assert bus.dut.save() == before


def test_a_pulse_at_lower_takes_out0_low_until_the_counter_next_drives_it():
    """The counter goes on: of the next pulse only the rise can be seen."""
    bus = FakeBus(I8254())
    program(bus, 0, 2, 1000)
    bus.goto(at(1500))
    bus.take()
    assert bus.level("out0")
    bus.set("lower", 1)
    bus.set("lower", 0)
    assert bus.edges("out0") == [(at(1500), 0)]
    bus.goto(at(2500))
    assert [level for _, level in bus.edges("out0")] == [0, 1] and at(1999) < bus.edges("out0")[1][0] <= at(2001)
    bus.goto(at(3500))
    assert [level for _, level in bus.edges("out0")] == [0, 1, 0, 1]
