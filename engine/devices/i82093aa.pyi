"""Types of i82093aa.pyx, which says what they do."""

from typing import Any, final

from engine._device import Arena, Device, Dma
from engine.types import Region

@final
class I82093aa(Device):
    def __init__(
        self, id: str = "ioapic", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def regions(self) -> tuple[Region, ...]: ...
    def connect(self, name: str, peer: Device) -> None: ...
