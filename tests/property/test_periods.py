"""Periods of timers that pass in one step leave what they leave one by one."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.machine import Machine

HPET, T0, GEN_CONF, GINTR_STA, MAIN_CNT = 0xFED00000, 0x100, 0x10, 0x20, 0xF0
PERIODIC, LEVEL, ENABLED, VAL_SET, NARROW = 8, 2, 4, 0x40, 0x100
TICK = 10  # ns
INDEX, DATA, REGISTER_A, REGISTER_B, REGISTER_C = 0x70, 0x71, 10, 11, 12
CRYSTAL, SECOND = 32768, 1_000_000_000


def hpet(m: Machine, offset: int, value: int) -> None:
    m.write("mmio", HPET + offset, 4, value)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from([LEVEL | ENABLED, LEVEL | ENABLED, ENABLED, 0]),
    narrow=st.sampled_from([0, NARROW]),
    route=st.sampled_from([0, 9, 16, 23, 24, 31]),
    legacy=st.sampled_from([0, 2]),
    period=st.integers(1, 40),
    first=st.integers(0, 60),
    counter=st.sampled_from([0, 5, 2**32 - 90, 2**64 // TICK - 150]),
    begin=st.integers(0, 25),
    span=st.integers(0, 1200),
)
@example(LEVEL | ENABLED, 0, 16, 0, 1, 3, 0, 4, 1200)
@example(LEVEL | ENABLED, NARROW, 16, 0, 7, 60, 2**32 - 90, 0, 1200)
@example(LEVEL | ENABLED, 0, 16, 0, 7, 3, 2**64 // TICK - 50, 0, 1200)  # over the counter's end
def test_an_hpet_whose_matches_nobody_hears(
    kind: int, narrow: int, route: int, legacy: int, period: int, first: int, counter: int, begin: int, span: int
) -> None:
    """The second machine's timer is read at every tick of the counter, so no two of its matches pass at once."""
    seen = []
    for step in (span, TICK):
        with Machine.from_file("q35") as m:
            m.clock.step(begin)
            hpet(m, MAIN_CNT, counter & 0xFFFFFFFF)
            hpet(m, MAIN_CNT + 4, counter >> 32)
            hpet(m, T0, kind | PERIODIC | VAL_SET | narrow | route << 9)
            hpet(m, T0 + 8, counter + first & 0xFFFFFFFF)
            if not narrow:
                hpet(m, T0, kind | PERIODIC | VAL_SET | route << 9)
                hpet(m, T0 + 12, counter + first >> 32)
            hpet(m, T0 + 8, period)
            if not narrow:
                hpet(m, T0 + 12, 0)
            hpet(m, GEN_CONF, 1 | legacy)
            left = span
            while left:
                m.clock.step(min(step, left))
                left -= min(step, left)
                m.read("mmio", HPET + T0 + 8, 4)
            hpet(m, GINTR_STA, 1)
            m.clock.step(2 * TICK * period)
            compared = {name: value for name, value in m.inspect()["hpet"].items() if name != "now"}
            lines = [change[1:] for change in m.lines().tolist()]
            seen.append((m.read("mmio", HPET + T0 + 8, 4), compared, lines))
    assert seen[0] == seen[1]


@settings(max_examples=60, deadline=None)
@given(
    rate=st.integers(1, 15),
    begin=st.integers(0, 10**9),
    waits=st.lists(st.one_of(st.integers(0, 10**6), st.integers(0, 10**10)), min_size=1, max_size=8),
)
def test_a_clock_whose_periodic_interrupt_is_not_acknowledged(rate: int, begin: int, waits: list[int]) -> None:
    """IRQ# rises with the first period behind each acknowledge, as with every period planned from the one before."""
    with Machine.from_file("q35") as m:
        wire = m.spec.board.observe.index("isa8")
        m.clock.step(begin)
        for register, value in ((REGISTER_A, 0x20 | rate), (REGISTER_B, 0x42)):
            m.write("pio", INDEX, 1, register)
            m.write("pio", DATA, 1, value)
        m.write("pio", INDEX, 1, REGISTER_C)
        m.lines()
        period = 1 << (rate + 6 if rate <= 2 else rate - 1)
        now, want = begin, []
        tick = begin * CRYSTAL // SECOND + period
        for wait in waits:
            now += wait
            m.clock.step(wait)
            rose = None
            while tick * SECOND // CRYSTAL + 1 <= now:
                rose = rose or tick * SECOND // CRYSTAL + 1
                tick += period
            assert m.read("pio", DATA, 1) & 0xC0 == (0xC0 if rose else 0)
            want += [(rose, 1), (now, 0)] if rose else []
        assert [(t, level) for _, t, line, level, _, _ in m.lines().tolist() if line == wire] == want
