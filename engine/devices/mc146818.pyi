"""Types of mc146818.pyx, which says what they do."""

from typing import Any, final

from engine._device import Arena, Device, Dma
from engine.types import Region

@final
class Mc146818(Device):
    def __init__(
        self, id: str = "mc146818", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def regions(self) -> tuple[Region, ...]: ...
    def restore(self, state: dict[str, Any]) -> None: ...
