"""Types of ich9_ahci.pyx, which says what they do."""

from typing import Any, ClassVar, final

from engine._device import Arena, Dma
from engine.devices.ata import AtaController
from engine.types import Register

REGISTERS: tuple[Register, ...]

@final
class Ich9Ahci(AtaController):
    def __init__(
        self, id: str = "ich9-ahci", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    MESSAGE_SOURCE: ClassVar[bool]
    def restore(self, state: dict[str, Any]) -> None: ...
