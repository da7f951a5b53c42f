"""Guest RAM is not part of the one order, but devices of one unit are: they may hand data to each other through it."""

from __future__ import annotations

import numpy as np
import pytest

from engine import ACC, Machine, PyDevice, Region, Space
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec

N = 100


class Writer(PyDevice):
    """Writes the byte given to RAM at once, and its complement 3 ns later."""

    def setup(self) -> None:
        self.value = 0

    def regions(self) -> tuple[Region, ...]:
        return (Region("w", Space.PIO, 1, accepts=(1,), implements=(1, 1), posted=True),)

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        self.value = value
        self.dma.write_bytes(0x1000, bytes([value]))
        self.call_at(self.now + 3)

    def on_time(self) -> None:
        self.dma.write_bytes(0x1000, bytes([self.value ^ 0xFF]))


class Reader(PyDevice):
    """Gives the byte that is in RAM."""

    def regions(self) -> tuple[Region, ...]:
        return (Region("r", Space.PIO, 1, accepts=(1,), implements=(1, 1)),)

    def read(self, region: int, offset: int, size: int) -> int:
        return self.dma.read_bytes(0x1000, 1)[0]


@pytest.mark.parametrize("path", ["local", "sync", "buffered", "batched"])
def test_devices_of_one_unit_see_each_others_bytes_in_order(path: str) -> None:
    devices = (
        DeviceSpec("w", f"{__name__}:Writer", at={"w": 0x10}, unit="ram"),
        DeviceSpec("r", f"{__name__}:Reader", at={"r": 0x20}, unit="ram"),
        DeviceSpec("beside", f"{__name__}:Reader", at={"r": 0x30}),
    )
    spec = MachineSpec(BoardSpec(ram=1 << 20, config_access="none"), devices)
    acc = np.zeros(3 * N, ACC)
    acc["size"] = 1
    acc["t_ns"] = np.repeat(np.arange(N) * 10, 3) + np.tile([0, 2, 3], N)
    acc["addr"] = np.tile([0x10, 0x20, 0x20], N)
    acc["dir"] = np.tile([1, 0, 0], N)
    acc["value"][::3] = np.arange(N)
    with Machine.from_spec(spec, path=path, workers=2) as machine:
        values = machine.submit(acc)
    assert values[1::3].tolist() == list(range(N))
    assert values[2::3].tolist() == [n ^ 0xFF for n in range(N)]
