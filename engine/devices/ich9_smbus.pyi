"""Types of ich9_smbus.pyx, which says what they do."""

from typing import Any, final

from engine._device import Arena, Dma
from engine.pci._config import PciFunction
from engine.types import Register

REGISTERS: tuple[Register, ...]

@final
class Ich9Smbus(PciFunction):
    def __init__(
        self, id: str = "ich9-smbus", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
