"""POST card: the worked example of a device written in Python.  docs/devices/post-card.md walks through it."""

from __future__ import annotations

from collections import deque
from operator import index
from typing import Any, ClassVar

from engine._device import PyDevice
from engine.errors import StateError
from engine.types import RW, Region, Register, Space


class PostCard(PyDevice):
    """POST code latch at one port, and the last `depth` codes.  No data sheet; PC/AT Technical Reference, port 80h."""

    TITLE = "POST card: code latch with history"
    CONFIG: ClassVar = {"depth": 64}
    REGISTERS = (Register("POST", 0, 8, RW, reset=0x00, wmask=0xFF, section="PC/AT TR: System Board"),)

    def setup(self) -> None:
        self.history: deque[tuple[int, int]] = deque(maxlen=self.config["depth"])  # (t_ns, code), oldest first

    def regions(self) -> tuple[Region, ...]:
        return (Region("post", Space.PIO, 1, accepts=(1,), implements=(1, 1), posted=True),)

    def on_reset(self, kind: int) -> None:
        self.code = 0x00  # the history stays: a person wants to see what came before the reset

    def read(self, region: int, offset: int, size: int) -> int:
        return self.code

    def write(self, region: int, offset: int, size: int, value: int) -> None:
        self.code = value
        self.history.append((self.now, value))

    def save(self) -> dict[str, Any]:
        return super().save() | {"code": self.code, "history": list(self.history)}

    def restore(self, state: dict[str, Any]) -> None:
        try:
            code, history = index(state["code"]), [(index(t), index(c)) for t, c in state["history"]]
        except (KeyError, TypeError, ValueError) as e:
            raise StateError(f"{self.id}: code or history: {type(e).__name__}: {e}") from None
        if not all(0 <= c <= 0xFF for c in (code, *(c for _, c in history))):
            raise StateError(f"{self.id}: code or history: a code is one byte")
        super().restore({k: v for k, v in state.items() if k not in ("code", "history")})
        self.code = code
        self.history = deque(history, maxlen=self.config["depth"])
