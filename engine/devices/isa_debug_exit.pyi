"""Types of isa_debug_exit.pyx, which says what they do."""

from typing import Any, final

from engine._device import Arena, Device, Dma
from engine.types import Region

@final
class IsaDebugExit(Device):
    def __init__(
        self,
        id: str = "isa-debug-exit",
        rank: int = 0,
        arena: Arena | None = None,
        dma: Dma | None = None,
        **config: Any,
    ) -> None: ...
    def regions(self) -> tuple[Region, ...]: ...
    def status(self) -> int | None: ...
