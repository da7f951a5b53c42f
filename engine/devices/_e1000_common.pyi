"""Types of _e1000_common.pyx, which says what they do."""

from typing import Any

from engine._device import Arena, Dma
from engine.devices._net import NetController
from engine.types import Register

ALL: int
READ_CLEARS: str
READ_CLEARS_PAIR: str
SIZES: tuple[str, ...]
FIFO: tuple[str, ...]
ERRORS: tuple[str, ...]
E1000_CONFIG: dict[str, Any]
CONTEXT_STATE: tuple[tuple[str, str], ...]

def how_read(register: Register) -> int: ...
def rom(image: tuple[int, ...], address: bytes) -> tuple[int, ...]: ...

class E1000Common(NetController):
    UNSEEN: tuple[str, ...]
    def __init__(self, id: str, rank: int, arena: Arena | None, dma: Dma | None, **config: Any) -> None: ...
    def inspect(self) -> dict[str, Any]: ...
    def receive(self, packet: bytes, t_ns: int = 0) -> bool: ...
