"""Types of piix3_ide.pyx, which says what they do."""

from typing import Any, final

from engine._device import Arena, Dma
from engine.devices.ata import AtaController
from engine.types import Region

@final
class Piix3Ide(AtaController):
    def __init__(
        self, id: str = "ide", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def fixed_regions(self) -> tuple[Region, ...]: ...
    def restore(self, state: dict[str, Any]) -> None: ...
