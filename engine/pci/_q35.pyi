"""Types of _q35.pyx, which says what they do."""

from typing import Any

from engine._device import Arena, Dma
from engine.pci._config import PciFunction
from engine.types import Region, Register

REGISTERS: tuple[Register, ...]

class Q35Mch(PciFunction):
    def __init__(
        self, id: str = "q35-mch", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def fixed_regions(self) -> tuple[Region, ...]: ...
    def mappings(self) -> list[tuple[int, int, int]]: ...
    def on_restore(self) -> None: ...
