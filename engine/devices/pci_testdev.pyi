"""Types of pci_testdev.pyx, which says what they do."""

from typing import Any, final

from engine._device import Arena, Dma
from engine.pci._config import PciFunction
from engine.types import Register

KINDS: tuple[str, ...]
REGISTERS: tuple[Register, ...]

@final
class PciTestdev(PciFunction):
    def __init__(
        self, id: str = "pci-testdev", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
