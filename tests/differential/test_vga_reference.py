"""The standard VGA against a recording of QEMU 7.2.22: equal answers to random accesses, and equal video memory."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from engine.devices.vga import Vga
from engine.testing.bus import FakeBus

DATA = Path(__file__).parent / "data" / "vga.txt"


def test_answers_and_memory_are_the_references() -> None:
    bus = FakeBus(Vga())
    memory = ""
    for number, line in enumerate(DATA.read_text().splitlines(), 1):
        match line.split("#")[0].split():
            case ["memory", digest]:
                memory = digest
            case ["reset"]:
                bus.reset(1)
            case ["w", region, offset, size, value]:
                bus.write(int(region), int(offset, 16), int(value, 16), int(size))
            case ["r", region, offset, size, value]:
                got = bus.read(int(region), int(offset, 16), int(size))
                assert got == int(value, 16), f"{DATA.name}:{number}: {line}: {got:x}"
    assert sha256(bus.dut.memory()[: 1 << 18]).hexdigest() == memory
