"""A worker that lies in the words only it may write: the router says so and never hangs."""

from __future__ import annotations

import numpy as np
import pytest

from engine._abi import ACC, EFFECT
from engine._device import PyDevice
from engine._ring import link_layout
from engine.errors import RingError
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec
from engine.sequencer import INPUT
from engine.testing import probe
from engine.types import Region, Space
from tests.property.boards import PROBE, Bench, Stream

SPEC = MachineSpec(
    BoardSpec(ram=1 << 20, config_access="none"),
    (DeviceSpec("timer", f"{__name__}:Timer", at={"timer": 0x40}),),
)


class Timer(PyDevice):
    """A part whose timer may reset the machine; it does not."""

    TIMED_RESET = True

    def regions(self) -> tuple[Region, ...]:
        return (Region("timer", Space.PIO, 1, accepts=(1,), implements=(1, 1), barrier=True),)

    def read(self, region: int, offset: int, size: int) -> int:
        return 7


def stream(t_ns: int) -> Stream:
    acc = np.zeros(2, ACC)
    acc["t_ns"], acc["addr"], acc["size"] = t_ns, 0x40, 1
    return Stream(acc, np.zeros(0, INPUT), b"")


@pytest.mark.parametrize("path", ["sync", "buffered", "batched"])
@pytest.mark.parametrize("lie", [0, 5, 1000])
def test_a_deadline_that_stands_still_ends_the_run(path: str, lie: int) -> None:
    with Bench(SPEC, [0]) as bench:
        assert bench.run(stream(10), path=path).value == [7, 7]
        link = bench.links[0]
        at = link_layout(link.n_vcpus, link.n_units, 6, 6, False)["deadlines"]
        np.frombuffer(link.segment, np.uint64)[at // 8] = lie
        with pytest.raises(RingError, match="deadline stands still"):
            bench.run(stream(1000), path=path)
            bench.run(stream(2000), path=path)


PAIR = MachineSpec(
    BoardSpec(ram=1 << 20, config_access="none"),
    (
        DeviceSpec("mine", PROBE, at={"port": 0x1000}, config={"reaction": "none"}),
        DeviceSpec("other", PROBE, at={"port": 0x2000}, config={"reaction": "none"}),
    ),
)


def accesses(*rows: tuple[int, int]) -> Stream:
    """Two-byte writes of (port, value)."""
    acc = np.zeros(len(rows), ACC)
    acc["addr"], acc["value"] = np.array(rows, np.uint64).T
    acc["size"], acc["dir"], acc["t_ns"] = 2, 1, 100
    return Stream(acc, np.zeros(0, INPUT), b"")


@pytest.mark.parametrize(
    "lie",
    [
        {"device": 1},
        {"device": 2},
        {"device": 65535},
        {"pin": 64},
        {"t_ns": 101},
        {"cause": 1 << 40},
        {"cause": 1 << 54},
        {"kind": 0},
    ],
    ids=str,
)
def test_an_effect_that_cannot_be_ends_the_run(lie: dict[str, int]) -> None:
    """Of another worker's device, of no device, of no pin, from the future, of no record, of none behind one; the
    last is believed."""
    with Bench(PAIR, [0, 1]) as bench:
        bench.run(accesses((0x1002, 0)), path="batched")
        link = bench.links[0]
        at = link_layout(link.n_vcpus, link.n_units, 6, 6, False)["effects"]
        words = np.frombuffer(link.segment, np.uint64)
        effect = np.zeros(1, EFFECT)
        for name, value in ({"t_ns": 50, "cause": link.indices["produced"] - 1} | lie).items():
            effect[name] = value
        words[at // 8 :][: EFFECT.itemsize // 8] = effect.view(np.uint64)
        words[512 // 8] += 1  # effects_produced
        if "kind" in lie:
            bench.run(accesses((0x1002, 0)), path="batched")
            return
        with pytest.raises(RingError, match="worker 1: impossible words in its effect ring"):
            bench.run(accesses((0x1002, 0)), path="batched")


def test_effects_without_end_end_the_run() -> None:
    with Bench(PAIR, [0, 1], requests=4096, effects=4096) as bench:
        burst = [(0x1000 + probe.BURST, 0xFFFF)] * 260
        with pytest.raises(RingError, match="worker 1: more than 16777216 effects"):
            bench.run(accesses(*burst), path="batched")
