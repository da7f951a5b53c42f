"""The test device of order (see _probe.pyx) in Python: what it does in plain words, alone and as a device.

Pins: `steady` does what LINES and BURST say, `beat` changes at each deadline, `react` answers input lines by the
setting `reaction`, `keyed` rises with a key and falls with an acknowledge cycle.
"""

from __future__ import annotations

from typing import Any, ClassVar

from engine._device import INTACK, KEY, LINE, POWER_ON, PyDevice
from engine.types import Region, Space

OUT = ("steady", "beat", "react", "keyed")
IN = ("i0", "i1", "i2", "i3")
REACTIONS = ("none", "follow", "toggle", "invert", "delay", "pulse")
CONFIG: dict[str, Any] = {"reaction": "none", "delay": 10, "posted": True, "unaligned": False}
# Offsets of regions 0 ("port") and 2 ("mem"); a write anywhere else only adds to what was seen.
LINES, CANCEL, ARM, BURST, TRAIN, DMA, MESSAGE = 0, 2, 4, 6, 8, 12, 14
M = (1 << 64) - 1


def regions(config: dict[str, Any]) -> tuple[Region, ...]:
    """`port` and `mem` take every write; an odd value to `reset` resets the board; `odd` lacks some widths."""
    return (
        Region("port", Space.PIO, 16, posted=config["posted"]),
        Region("reset", Space.PIO, 4, barrier=True),
        Region("mem", Space.MMIO, 64, (1, 2, 4, 8), (1, 8), posted=config["posted"], unaligned=config["unaligned"]),
        Region("odd", Space.MMIO, 16, (2, 4, 8), (2, 4)),
    )


class Logic:
    """The device without an engine.

    What surrounds it is in `host`: now, set_line, line_level, call_at, reset, message, fetch.
    """

    def __init__(self, host: Any, config: dict[str, Any]) -> None:
        self.host = host
        self.reaction = config["reaction"]
        self.delay = config["delay"]
        self.seen = self.period = self.left = self.inputs = 0

    def mix(self, kind: int, a: int, b: int) -> None:
        x = (
            self.seen
            ^ (kind * 0x9E3779B97F4A7C15 + a * 0xC2B2AE3D27D4EB4F + b * 0x165667B19E3779F9 + self.host.now) & M
        )
        x = x * 0xD6E8FEB86659FD93 & M
        self.seen = x ^ x >> 32

    def read(self, region: int, offset: int, size: int) -> int | None:
        self.mix(2, region << 32 | offset, size)
        return None if region == 3 and offset >= 12 else self.seen

    def write(self, region: int, offset: int, size: int, value: int) -> bool:
        """False: there is no such register."""
        host = self.host
        self.mix(1, region << 32 | offset, value)
        if region == 1:
            if value & 1:
                host.reset()
        elif region == 3:
            return offset < 12
        elif offset == LINES:
            for pin in range(4):
                if value >> 4 + pin & 1:
                    host.set_line(pin, value >> pin & 1)
        elif offset == ARM:
            self.left = 1
            host.call_at(host.now + value)
        elif offset == BURST:
            for _ in range(value):
                host.set_line(0, not host.line_level(0))
        elif offset == TRAIN:
            self.period, self.left = (value & 0xFFFF) + 1, (value >> 16) + 1
            host.call_at(host.now + self.period)
        elif offset == CANCEL:
            host.call_at(None)
        elif offset == DMA:
            self.mix(6, int.from_bytes(host.fetch(value << 3, 8), "little"), 0)
        elif offset == MESSAGE:
            host.message(value, self.seen & 0xFFFF)
        return True

    def on_time(self) -> None:
        self.mix(4, self.left, 0)
        self.host.set_line(1, not self.host.line_level(1))
        self.left -= 1
        if self.left:
            self.host.call_at(self.host.now + self.period)

    def on_input(self, kind: int, pin: int, addr: int, value: int) -> int:
        host = self.host
        self.mix(3, kind << 8 | pin, addr << 32 & M ^ value)
        if kind == INTACK:
            host.set_line(3, 0)
            return self.seen & 0xFF
        if kind == KEY:
            host.set_line(3, 1)
        elif kind == LINE:
            self.inputs = self.inputs & ~(1 << pin) | value << pin
            if self.reaction in ("follow", "invert"):
                host.set_line(2, (self.inputs != 0) == (self.reaction == "follow"))
            elif value and self.reaction == "toggle":
                host.set_line(2, not host.line_level(2))
            elif value and self.reaction == "delay":
                self.left = 1
                host.call_at(host.now + self.delay)
            elif value and self.reaction == "pulse":
                host.set_line(2, 1)
                host.set_line(2, 0)
        return self.seen

    def on_reset(self, kind: int) -> None:
        if kind == POWER_ON:
            self.seen = self.inputs = 0
        self.mix(5, kind, 0)
        self.period = self.left = 0
        self.host.call_at(None)
        for pin in range(4):
            self.host.set_line(pin, pin == 2 and self.reaction == "invert" and not self.inputs)


class PyProbe(PyDevice):
    """The test device as a device written in Python.  It cannot reset the board or send messages."""

    TITLE = "test device that remembers everything, in Python"
    OUT = OUT
    IN = IN
    CONFIG: ClassVar = CONFIG

    def setup(self) -> None:
        self.logic = Logic(self, self.config)
        self.levels = 0

    def regions(self) -> tuple[Region, ...]:
        return regions(self.config)

    def set_line(self, pin: int, level: int) -> None:
        self.levels = self.levels & ~(1 << pin) | bool(level) << pin
        self.line(pin, bool(level))

    def line_level(self, pin: int) -> int:
        return self.levels >> pin & 1

    def reset(self) -> None:
        """Devices written in Python have no reset output."""

    def message(self, addr: int, value: int) -> None:
        """Nor do they send messages."""

    def fetch(self, gpa: int, n: int) -> bytes:
        return self.dma.read_bytes(gpa, n)

    def read(self, region: int, offset: int, size: int) -> int | None:
        return self.logic.read(region, offset, size)

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        self.logic.write(region, offset, size, value)

    def on_time(self) -> None:
        self.logic.on_time()

    def on_input(self, kind: int, pin: int, addr: int, value: int) -> int:
        return self.logic.on_input(kind, pin, addr, value)

    def on_reset(self, kind: int) -> None:
        self.logic.on_reset(kind)

    def save(self) -> dict[str, Any]:
        return super().save() | {k: getattr(self.logic, k) for k in ("seen", "period", "left", "inputs")}

    def restore(self, state: dict[str, Any]) -> None:
        own = ("seen", "period", "left", "inputs")
        super().restore({k: v for k, v in state.items() if k not in own})
        for k in own:
            setattr(self.logic, k, state[k])
        self.levels = state["levels"]
