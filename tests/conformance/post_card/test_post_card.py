"""POST card, the example of a device written in Python."""

from __future__ import annotations

import pytest

from engine.devices.python.post_card import PostCard
from engine.errors import StateError
from engine.testing.bus import FakeBus


def test_latch_and_history() -> None:
    bus = FakeBus(PostCard(depth=2))
    for code in (0x01, 0x02, 0x03):
        bus.step(100)
        bus.write(0, 0, code)
        assert bus.read(0, 0) == code
    assert list(bus.dut.history) == [(200, 0x02), (300, 0x03)]


def test_reset_clears_the_latch_only() -> None:
    bus = FakeBus(PostCard())
    bus.write(0, 0, 0x5A)
    bus.reset()
    assert bus.read(0, 0) == 0x00
    assert list(bus.dut.history) == [(0, 0x5A)]


def test_save_and_restore() -> None:
    bus = FakeBus(PostCard())
    bus.step(7)
    bus.write(0, 0, 0x5A)
    other = PostCard()
    other.restore(bus.dut.save())
    assert other.save() == bus.dut.save()
    with pytest.raises(StateError):
        other.restore({"part": "PostCard", "version": 1})
