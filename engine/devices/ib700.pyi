"""Types of ib700.pyx, which says what they do."""

from typing import Any, final

from engine._device import Arena, Device, Dma
from engine.types import Region

@final
class Ib700(Device):
    def __init__(
        self, id: str = "ib700", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def regions(self) -> tuple[Region, ...]: ...
    def set_action(self, action: str) -> None: ...
