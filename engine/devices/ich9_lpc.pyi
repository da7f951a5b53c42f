"""Types of ich9_lpc.pyx, which says what they do."""

from typing import Any, ClassVar, final

from engine._device import Arena, Dma
from engine.pci._config import PciFunction
from engine.types import Region, Register

REGISTERS: tuple[Register, ...]

@final
class Ich9Lpc(PciFunction):
    TIMED_RESET: ClassVar[bool]
    def __init__(
        self, id: str = "ich9-lpc", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def set_action(self, action: str) -> None: ...
    def fixed_regions(self) -> tuple[Region, ...]: ...
    def mappings(self) -> list[tuple[int, int, int]]: ...
    def restore(self, state: dict[str, Any]) -> None: ...
    def on_restore(self) -> None: ...
