"""Types of piix4_pm.pyx, which says what they do."""

from typing import Any

from engine._device import Arena, Dma
from engine.pci._config import PciFunction
from engine.types import Region, Register

REGISTERS: tuple[Register, ...]

class Piix4Pm(PciFunction):
    def __init__(
        self, id: str = "piix4-pm", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def taken(self) -> list[tuple[str | int, ...]]: ...
    def fixed_regions(self) -> tuple[Region, ...]: ...
    def mappings(self) -> list[tuple[int, int, int]]: ...
