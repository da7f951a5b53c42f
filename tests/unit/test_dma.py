"""A device's port to guest RAM against a byte at a time: wherever a transfer begins and ends."""

from __future__ import annotations

import random

import pytest

from engine._device import Dma

LOW, ALL, FOUR_GIB = 0x3000, 0x5000, 1 << 32
TOP = 1 << 64


class Bytes:
    """The same in plain words: which addresses are RAM, one at a time."""

    def __init__(self, ram: bytearray, low: int) -> None:
        self.ram, self.low = ram, low

    def place(self, gpa: int) -> int | None:
        gpa %= TOP
        if gpa < self.low:
            return gpa
        high = gpa - FOUR_GIB
        return self.low + high if 0 <= high < len(self.ram) - self.low else None

    def read(self, gpa: int, n: int) -> bytes:
        at = [self.place(gpa + i) for i in range(n)]
        return bytes(0 if p is None else self.ram[p] for p in at)

    def write(self, gpa: int, data: bytes) -> bool:
        at = [self.place(gpa + i) for i in range(len(data))]
        for p, byte in zip(at, data, strict=True):
            if p is not None:
                self.ram[p] = byte
        return None not in at


EDGES = (0, LOW, FOUR_GIB, FOUR_GIB + ALL - LOW, TOP, FOUR_GIB + LOW)


@pytest.mark.parametrize("low", [LOW, ALL, 0], ids=["split", "all_low", "all_high"])
def test_transfers_meet_the_ram_there_is(low: int) -> None:
    rng = random.Random(low)
    ram = bytearray(rng.randbytes(ALL))
    dma, model = Dma(ram, low), Bytes(bytearray(ram), low)
    for _ in range(600):
        gpa = (rng.choice((*EDGES, low)) + rng.randrange(-0x80, 0x80)) % TOP
        n = rng.randrange(0x101)
        if rng.random() < 0.5:
            assert dma.read_bytes(gpa, n) == model.read(gpa, n), hex(gpa)
        else:
            data = rng.randbytes(n)
            assert dma.write_bytes(gpa, data) == model.write(gpa, data), hex(gpa)
    assert ram == model.ram


def test_a_transfer_that_meets_no_ram_is_as_quick_as_one_that_does() -> None:
    """A guest names any address: 256 MiB of nothing is one step, and not 2^28."""
    dma = Dma(bytearray(ALL), LOW)
    assert dma.read_bytes(FOUR_GIB * 2, 1 << 28) == bytes(1 << 28)


def test_nothing_moves_while_bus_mastering_is_off() -> None:
    ram = bytearray(b"\x55" * ALL)
    dma = Dma(ram, LOW, enabled=False)
    assert dma.read_bytes(0, 16) == bytes(16) and not dma.write_bytes(0, bytes(16))
    assert ram == b"\x55" * ALL
