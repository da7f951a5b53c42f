"""Types of _function.pyx, which says what they do."""

from typing import Any, ClassVar

from engine._device import Arena, Dma
from engine.pci._config import PciFunction

class InterruptFunction(PciFunction):
    MESSAGE_SOURCE: ClassVar[bool]
    def __init__(
        self, id: str = "function", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    @property
    def capabilities(self) -> tuple[int, int]: ...
