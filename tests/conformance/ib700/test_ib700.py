"""IB700 user's manual, "Watchdog timer configuration"."""

from __future__ import annotations

import pytest

from engine.devices.ib700 import Ib700
from engine.errors import MachineError
from engine.testing.bus import FakeBus

DISABLE, ENABLE = 0, 2
S = 10**9


def bites(bus):
    """(time, whether the machine was reset) of each bite."""
    out = []
    for e in bus.take():
        if e.kind == "line" and e.value:
            out.append([e.t_ns, False])
        elif e.kind == "reset":
            out[-1][1] = True
    return [tuple(b) for b in out]


@pytest.mark.parametrize("value", range(16))
@pytest.mark.parametrize("port", [ENABLE, ENABLE + 1])
def test_443h_the_time_is_thirty_seconds_less_two_for_each_count(value, port):
    bus = FakeBus(Ib700())
    bus.step(5)
    bus.write(0, port, 0xF0 | value)
    time = (30 - 2 * value) * S
    if time:
        bus.step(time - 1)
        assert bites(bus) == []
        bus.step(1)
    assert bites(bus) == [(5 + time, True)]
    bus.step(100 * S)
    assert bites(bus) == []


def test_443h_each_write_starts_anew():
    bus = FakeBus(Ib700())
    for _ in range(5):
        bus.write(0, ENABLE, 14)
        bus.step(2 * S - 1)
    assert bites(bus) == []
    bus.step(1)
    assert bites(bus) == [(5 * (2 * S - 1) + 1, True)]


@pytest.mark.parametrize("port", [DISABLE, DISABLE + 1])
def test_441h_any_value_stops_it(port):
    bus = FakeBus(Ib700())
    for value in (0, 1, 0xFF):
        bus.write(0, ENABLE, 0)
        bus.write(0, port, value)
        bus.step(60 * S)
    assert bites(bus) == [] and bus.dut.deadline is None


def test_the_ports_are_write_only():
    bus = FakeBus(Ib700())
    assert [bus.read(0, n) for n in range(4)] == [0xFF] * 4


@pytest.mark.parametrize("kind", [0, 1])
def test_any_reset_stops_it(kind):
    bus = FakeBus(Ib700())
    bus.write(0, ENABLE, 0)
    bus.reset(kind)
    bus.step(60 * S)
    assert bites(bus) == []


def test_the_host_chooses_what_a_bite_does():
    bus = FakeBus(Ib700(action="none"))
    bus.write(0, ENABLE, 15)
    assert bites(bus) == [(0, False)]
    bus.dut.set_action("reset")
    bus.write(0, ENABLE, 15)
    assert bites(bus) == [(0, True)]
    with pytest.raises(MachineError, match="actions are reset, none"):
        Ib700(action="panic")


def test_a_running_timer_is_saved():
    bus, other = FakeBus(Ib700()), FakeBus(Ib700())
    bus.step(3)
    bus.write(0, ENABLE, 10)
    other.dut.restore(bus.dut.save())
    other.executor.refresh()
    other.step(20 * S)
    assert bites(other) == [(3 + 10 * S, True)]
