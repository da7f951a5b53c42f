"""Both boards under random accesses to all spaces: in this process and over workers, one story."""

from __future__ import annotations

import numpy as np
import pytest
from property.guests import Threads  # a package of tests/, as this one

from engine.machine import Machine
from engine.workers import pool

from . import boards, programs


@pytest.mark.parametrize("name", boards.BOARDS)
@pytest.mark.parametrize("life", range(4))
def test_one_story_on_any_placement(name: str, life: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "Pool", Threads)
    wrong = boards.live(name, 1, life, 1000)
    assert not wrong, f"{wrong}; again: boards.live({name!r}, 1, {life}, 1000)"


@pytest.mark.parametrize("name", boards.BOARDS)
def test_a_long_life_in_this_process(name: str) -> None:
    """The parts are reached, and move data."""
    acc, inputs, data = boards.Guest(name, 2, 0).life(40_000)
    with Machine.from_spec(boards.layout(name)[0]) as machine:
        value, status, _ = machine.run(acc, inputs, data)
        assert (status & 0x7F == 0).mean() > 0.6
        given = bytearray(programs.RAM)
        for at, n in zip(
            inputs["addr"][inputs["kind"] == boards.RAM], inputs["value"][inputs["kind"] == boards.RAM], strict=True
        ):
            place = programs.place(int(at))
            assert place is not None
            length = int(n) & 0xFFFFFFFF
            given[place : place + length] = data[int(n) >> 32 : (int(n) >> 32) + length]
        assert bytes(memoryview(machine.ram)) != given, "no device wrote to RAM"
        assert len(np.unique(value)) > 1000


def test_a_story_that_differs_is_seen() -> None:
    acc, inputs, data = boards.Guest("i440fx", 3, 0).life(300)
    with Machine.from_spec(boards.layout("i440fx")[0]) as machine:
        one = boards.story(machine, acc, inputs, data)
    for n, what in enumerate(boards.WHAT):
        other = list(one)
        other[n] = {**one[n], "odd": 0} if isinstance(one[n], dict) else [*one[n], 0]
        assert boards.differs(one, one) == "" and what in boards.differs(tuple(other), one)
