"""Types of edu.pyx, which says what they do."""

from typing import Any, ClassVar, final

from engine._device import Arena, Dma
from engine.pci._config import PciFunction
from engine.types import Register

REGISTERS: tuple[Register, ...]

@final
class Edu(PciFunction):
    MESSAGE_SOURCE: ClassVar[bool]
    def __init__(
        self, id: str = "edu", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
