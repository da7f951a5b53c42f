"""6300ESB data sheet 300641-004, chapter 16."""

from __future__ import annotations

import pytest

from engine.devices.i6300esb import I6300esb
from engine.testing.bus import FakeBus

WDT, CONFIG = 0, 7
WDT_CONFIG, LOCK = 0x60, 0x68
PRELOAD_1, PRELOAD_2, RELOAD = 0, 4, 12
NO_REBOOT, FAST = 0x20, 0x04
ONCE, FREE, LOCKED = 2, 6, 1
KHZ, MHZ = 32768 * 30, 32 * 30  # ns of a count


def unlocked(bus, offset, value, size):
    for key in (0x80, 0x86):
        bus.write(WDT, RELOAD, key)
    bus.write(WDT, offset, value, size)


def timer(first, second, config=FAST, **settings):
    """A part with its stages' counts set."""
    bus = FakeBus(I6300esb(**settings))
    bus.write(CONFIG, WDT_CONFIG, config, 2)
    unlocked(bus, PRELOAD_1, first, 4)
    unlocked(bus, PRELOAD_2, second, 4)
    bus.take()
    return bus


def resets(bus):
    return [e.t_ns for e in bus.take() if e.kind == "reset"]


def test_16_1_identity():
    bus = FakeBus(I6300esb())
    assert bus.dut.identity() == (0x8086, 0x25AB, 0x00, 0x088000, 0x1AF4, 0x1100)
    assert bus.read(CONFIG, 0x3D) == 0


def test_16_1_the_two_registers_take_their_own_width_alone():
    bus = FakeBus(I6300esb())
    bus.write(CONFIG, WDT_CONFIG, 0xFFFF, 2)
    assert bus.read(CONFIG, WDT_CONFIG, 2) == 0x35
    assert bus.read(CONFIG, WDT_CONFIG, 1) == 0 and bus.read(CONFIG, WDT_CONFIG, 4) == 0
    bus.write(CONFIG, WDT_CONFIG, 0x12345678, 4)
    assert bus.read(CONFIG, WDT_CONFIG, 4) == 0x12345678 and bus.read(CONFIG, WDT_CONFIG, 2) == 0x35


@pytest.mark.parametrize(("config", "count"), [(0, KHZ), (FAST, MHZ)])
def test_16_2_two_stages_then_a_reset(config, count):
    bus = timer(10, 7, config)
    bus.write(CONFIG, LOCK, ONCE)
    bus.step(17 * count - 1)
    assert resets(bus) == []
    bus.step(1)
    assert resets(bus) == [17 * count]
    assert bus.read(CONFIG, LOCK) == 0  # as after a reset ...
    assert bus.read(WDT, RELOAD, 2) == 0x1200  # ... but for the flag
    unlocked(bus, RELOAD, 0x200, 2)
    assert bus.read(WDT, RELOAD, 2) == 0


def test_16_2_reset_values_are_the_longest_times():
    bus = FakeBus(I6300esb())
    bus.write(CONFIG, LOCK, ONCE)
    bus.step(2 * 0xFFFFF * KHZ)
    assert resets(bus) == [2 * 0xFFFFF * KHZ]


def test_16_2_4_reload_starts_the_first_stage_anew_in_either():
    bus = timer(10, 10)
    bus.write(CONFIG, LOCK, ONCE)
    for _ in range(5):
        bus.step(15 * MHZ)
        unlocked(bus, RELOAD, 0x100, 2)
    assert resets(bus) == []
    bus.step(20 * MHZ)
    assert resets(bus) == [(75 + 20) * MHZ]


@pytest.mark.parametrize("keys", [[], [0x80], [0x86], [0x86, 0x80], [0x80, 0x86, None], [0x80, 0x85, 0x85]])
def test_16_2_4_without_the_sequence_nothing_is_taken(keys):
    bus = FakeBus(I6300esb())
    bus.write(CONFIG, WDT_CONFIG, FAST, 2)
    for key in keys:
        bus.write(WDT, *((PRELOAD_2, 5, 4) if key is None else (RELOAD, key)))
    bus.write(WDT, PRELOAD_1, 1, 4)
    bus.write(CONFIG, LOCK, ONCE)
    bus.step(0xFFFFF * MHZ)
    assert bus.dut.inspect()["preload1"] == 0xFFFFF


def test_16_1_lock_keeps_what_is_enabled():
    bus = timer(10, 10)
    bus.write(CONFIG, LOCK, ONCE | LOCKED)
    bus.write(CONFIG, LOCK, 0)
    assert bus.read(CONFIG, LOCK) == ONCE | LOCKED
    bus.step(20 * MHZ)
    assert resets(bus) == [20 * MHZ]
    bus.write(CONFIG, LOCK, 0)
    assert bus.read(CONFIG, LOCK) == 0


def test_16_1_disabling_stops_and_enabling_starts_the_first_stage():
    bus = timer(10, 10)
    bus.write(CONFIG, LOCK, ONCE)
    bus.step(19 * MHZ)
    bus.write(CONFIG, LOCK, 0)
    bus.step(100 * MHZ)
    bus.write(CONFIG, LOCK, ONCE)
    bus.step(20 * MHZ)
    assert resets(bus) == [139 * MHZ]


@pytest.mark.parametrize("wait", [0, 9, 10, 11, 16, 17, 18, 17 * 10**6 + 3, 17 * 10**9 + 12])
def test_16_1_free_running_stages_that_nobody_hears_are_counted(wait):
    """WDT_OUTPUT forbids the reset; when it is allowed again the stage is the one that it would be."""
    bus = timer(10, 7, FAST | NO_REBOOT)
    bus.write(CONFIG, LOCK, FREE)
    bus.step(wait * MHZ)
    assert resets(bus) == [] and bus.dut.deadline is None
    bus.write(CONFIG, WDT_CONFIG, FAST, 2)
    at = wait * MHZ
    bus.step(18 * MHZ)
    assert resets(bus) == [at - at % (17 * MHZ) + 17 * MHZ]


def test_16_1_a_single_run_that_nobody_hears_ends():
    bus = timer(10, 7, FAST | NO_REBOOT)
    bus.write(CONFIG, LOCK, ONCE)
    bus.step(18 * MHZ)
    bus.write(CONFIG, WDT_CONFIG, FAST, 2)
    bus.step(10**12)
    assert resets(bus) == []


def test_16_2_counts_of_zero_end_at_once():
    bus = timer(0, 0)
    bus.write(CONFIG, LOCK, ONCE)
    bus.step(10)
    assert resets(bus) == [2]
    bus = timer(0, 0, FAST | NO_REBOOT)
    bus.write(CONFIG, LOCK, FREE)
    bus.step(10**15)
    bus.write(CONFIG, WDT_CONFIG, FAST, 2)
    bus.step(10)
    assert len(resets(bus)) == 1


def test_the_host_chooses_what_a_bite_does():
    bus = timer(10, 10, action="none")
    bus.write(CONFIG, LOCK, ONCE)
    bus.step(20 * MHZ)
    assert [(e.kind, e.pin, e.value) for e in bus.take()] == [("line", "watchdog", 1), ("line", "watchdog", 0)]


def test_a_bus_reset_keeps_the_timeout_flag_and_a_power_on_does_not():
    bus = timer(1, 1)
    bus.write(CONFIG, LOCK, ONCE)
    bus.step(2 * MHZ)
    bus.reset(1)
    assert bus.read(WDT, RELOAD, 2) == 0x1200
    bus.reset(0)
    assert bus.read(WDT, RELOAD, 2) == 0
