"""Types of lapic.pyx, which says what they do."""

from typing import Any, ClassVar, final

from engine._device import Arena, Device, Dma
from engine.types import Region

@final
class LocalApic(Device):
    def __init__(
        self, id: str = "lapic", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    MESSAGE_SINK: ClassVar[bool]
    def regions(self) -> tuple[Region, ...]: ...
    def connect(self, name: str, peer: Device) -> None: ...
