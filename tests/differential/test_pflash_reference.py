"""The CFI flash against a recording of QEMU 7.2.22: equal answers to random cycles, and an equal array afterwards."""

from __future__ import annotations

from hashlib import sha256, shake_256
from pathlib import Path

from engine.devices.pflash_cfi01 import PflashCfi01
from engine.testing.bus import FakeBus

DATA = Path(__file__).parent / "data" / "pflash.txt"
SIZE = 32768


def test_answers_and_array_are_the_references(tmp_path: Path) -> None:
    image = tmp_path / "flash.bin"
    image.write_bytes(shake_256(b"flash").digest(SIZE))
    arrays = 0
    for number, line in enumerate(DATA.read_text().splitlines(), 1):
        match line.split():
            case ["readonly" | "writable" as kind]:
                bus = FakeBus(PflashCfi01(image=str(image), readonly=kind == "readonly"))
            case ["reset"]:
                bus.reset(1)
            case ["w", offset, size, value]:
                bus.write(0, int(offset, 16), int(value, 16), int(size))
            case ["r", offset, size, value]:
                got = bus.read(0, int(offset, 16), int(size))
                assert got == int(value, 16), f"{DATA.name}:{number}: {line}: {got:x}"
            case ["array", digest]:
                got = b"".join(bus.read(0, at, 8).to_bytes(8, "little") for at in range(0, SIZE, 8))
                assert sha256(got).hexdigest() == digest
                arrays += 1
            case other:
                raise AssertionError(other)
    assert arrays == 2
    assert image.read_bytes() == shake_256(b"flash").digest(SIZE)  # an overlay: the file stays
