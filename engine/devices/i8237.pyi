"""Types of i8237.pyx, which says what they do."""

from typing import Any

from engine._device import Arena, Device, Dma
from engine.types import Region

class DmaClient(Device): ...

class I8237(Device):
    def __init__(
        self, id: str = "dma", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def regions(self) -> tuple[Region, ...]: ...
    def on_restore(self) -> None: ...
