"""Devices that break promises, for the tests of the fuzzer itself."""

from __future__ import annotations

import os
import signal
from typing import Any, ClassVar

from engine import PyDevice
from engine.types import RW, Region, Register, Space


class Broken(PyDevice):
    """Breaks at a write of 5Ah to its third byte after one of A5h to its first."""

    TITLE = "breaks"
    REGISTERS: ClassVar[Any] = (Register("KEY", 0, 8, RW, 0, 0xFF), Register("LOCK", 2, 8, RW, 0, 0xFF))
    OUT = ("irq",)

    def setup(self) -> None:
        self.key = 0

    def regions(self) -> tuple[Region, ...]:
        return (Region("broken", Space.PIO, 4, (1,), (1, 1)),)

    def read(self, region: int, offset: int, size: int) -> int:
        return 0

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self.key = value
        elif offset == 2 and self.key & 0x80 and value == 0xFF:
            self.broken()

    def broken(self) -> None:
        raise RuntimeError("broken")


class Dies(Broken):
    """Takes its process along."""

    def broken(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Hangs(Broken):
    """Never comes back."""

    def broken(self) -> None:
        while True:
            pass


class Forgets(Broken):
    """Answers by what is none of its state."""

    count: ClassVar[int] = 0

    def read(self, region: int, offset: int, size: int) -> int:
        Forgets.count += 1
        return Forgets.count & 0xFF
