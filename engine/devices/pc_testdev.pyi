"""Types of pc_testdev.pyx, which says what they do."""

from typing import Any, final

from engine._device import Arena, Device, Dma
from engine.types import Region

@final
class PcTestdev(Device):
    def __init__(
        self, id: str = "pc-testdev", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def regions(self) -> tuple[Region, ...]: ...
    def memory(self) -> memoryview: ...
