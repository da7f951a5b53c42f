"""Types of i6300esb.pyx, which says what they do."""

from typing import Any, final

from engine._device import Arena, Dma
from engine.pci._config import PciFunction
from engine.types import Register

REGISTERS: tuple[Register, ...]

@final
class I6300esb(PciFunction):
    def __init__(
        self, id: str = "i6300esb", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def set_action(self, action: str) -> None: ...
