"""A worker that lies in the words only it may write: the router says so and never hangs."""

from __future__ import annotations

import numpy as np
import pytest

from engine._abi import ACC
from engine._device import PyDevice
from engine._ring import link_layout
from engine.errors import RingError
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec
from engine.sequencer import INPUT
from engine.types import Region, Space
from tests.property.boards import Bench, Stream

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
        at = link_layout(link.n_vcpus, link.n_units, 6, 6, 0, False)["deadlines"]
        np.frombuffer(link.segment, np.uint64)[at // 8] = lie
        with pytest.raises(RingError, match="deadline stands still"):
            bench.run(stream(1000), path=path)
            bench.run(stream(2000), path=path)
