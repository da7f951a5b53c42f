"""Types of e1000.pyx, which says what they do."""

from typing import Any

from engine._device import Arena, Dma
from engine.devices._e1000_common import E1000Common

class E1000(E1000Common):
    def __init__(
        self, id: str = "e1000", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def restore(self, state: dict[str, Any]) -> None: ...
