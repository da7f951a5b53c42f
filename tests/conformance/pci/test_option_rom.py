"""Option ROMs of network controllers.  PCI Local Bus Specification 3.0, 6.2.5.2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import ACC, Machine
from engine.devices.e1000 import E1000
from engine.devices.e1000e import E1000E
from engine.errors import MachineError
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec
from engine.testing import FakeBus
from engine.types import Bdf, Space

COMMAND, ROM_REGISTER, ROM, CONFIG = 4, 0x30, 6, 7
PARTS = pytest.mark.parametrize("part", [E1000, E1000E])


@PARTS
@pytest.mark.parametrize(
    "size,mask", [(1, 0xFFFFF800), (0x800, 0xFFFFF800), (0x801, 0xFFFFF000), (0x40000, 0xFFFC0000)]
)
def test_the_register_tells_a_power_of_two(part: Any, size: int, mask: int) -> None:
    bus = FakeBus(part(rom_size=size))
    bus.write(CONFIG, ROM_REGISTER, 0xFFFFFFFE, 4)
    assert bus.read(CONFIG, ROM_REGISTER, 4) == mask
    bus.write(CONFIG, ROM_REGISTER, 0xFFFFFFFF, 4)
    assert bus.read(CONFIG, ROM_REGISTER, 4) == mask | 1


@PARTS
def test_without_one_the_register_is_zero(part: Any) -> None:
    bus = FakeBus(part())
    bus.write(CONFIG, ROM_REGISTER, 0xFFFFFFFF, 4)
    assert bus.read(CONFIG, ROM_REGISTER, 4) == 0


@PARTS
def test_both_enables_are_needed(part: Any, tmp_path: Path) -> None:
    image = tmp_path / "a.rom"
    image.write_bytes(b"\x55\xaa\x02" + bytes(range(100)))
    device = part(rom=str(image))
    bus = FakeBus(device)
    assert device.regions()[ROM].size == 0x800

    def where() -> list[tuple[int, int]]:
        return [(on, base) for n, on, base in device.mappings() if n == ROM]

    bus.write(CONFIG, ROM_REGISTER, 0xFEB00001, 4)
    assert where() == [(0, 0)]
    bus.write(CONFIG, COMMAND, 2, 2)
    assert where() == [(1, 0xFEB00000)]
    assert bus.read(ROM, 0, 2) == 0xAA55 and bus.read(ROM, 3, 8) == 0x0706050403020100
    assert bus.read(ROM, 0x400, 4) == 0  # behind the image
    bus.write(ROM, 0, 0, 2)
    assert bus.read(ROM, 0, 2) == 0xAA55
    bus.write(CONFIG, ROM_REGISTER, 0xFEB00000, 4)
    assert where() == [(0, 0)]


@PARTS
def test_unknown_bytes_are_learnt_and_given_back(part: Any) -> None:
    device = part(rom_size=0x1000)
    bus = FakeBus(device)
    assert device.contents() == {}
    bus.learn(ROM, 0, 0xAA55, 2)
    assert device.contents()["rom"][:3] == b"\x55\xaa\x00" and len(device.contents()["rom"]) == 0x1000
    other = part(rom_size=0x1000)
    other.set_contents(device.contents())
    assert FakeBus(other).read(ROM, 0, 2) == 0xAA55


@pytest.mark.parametrize("type", ["e1000", "e1000e"])
def test_bytes_are_learnt_wherever_the_guest_maps_them(type: str) -> None:
    nic = DeviceSpec("nic", type, Bdf(0, 3, 0), config={"rom_size": 0x1000})
    with Machine.from_spec(MachineSpec(BoardSpec(name="card", ram=1 << 16), (nic,))) as machine:
        machine.executor.set_learning(True)
        machine.write("config", 3 << 35 | COMMAND, 2, 2)
        for base, recorded in ((0xFEB00000, 0xAA55), (0xFEC00000, 0xBB66)):
            machine.write("config", 3 << 35 | ROM_REGISTER, 4, base | 1)
            read = np.zeros(1, ACC)
            read["addr"], read["size"], read["space"], read["value"] = base, 2, Space.MMIO, recorded
            assert machine.submit(read).tolist() == [recorded]
            assert machine.devices["nic"].contents()["rom"][:2] == recorded.to_bytes(2, "little")


@PARTS
@pytest.mark.parametrize("config", [{"rom": "/nowhere/a.rom"}, {"rom_size": (1 << 24) + 1}])
def test_what_cannot_be_is_refused(part: Any, config: dict[str, Any]) -> None:
    with pytest.raises(MachineError, match="option ROM"):
        part(**config)
    with pytest.raises(MachineError, match="'rom' has 4096"):
        part(rom_size=0x1000).set_contents({"rom": bytes(0x1001)})
