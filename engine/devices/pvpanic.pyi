"""Types of pvpanic.pyx, which says what they do."""

from typing import Any, final

from engine._device import Arena, Device, Dma
from engine.pci._config import PciFunction
from engine.types import Region

@final
class Pvpanic(Device):
    def __init__(
        self, id: str = "pvpanic", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def regions(self) -> tuple[Region, ...]: ...

@final
class PvpanicPci(PciFunction):
    def __init__(
        self, id: str = "pvpanic-pci", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
