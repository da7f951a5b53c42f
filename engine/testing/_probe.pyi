"""Types of _probe.pyx, which says what they do."""

from typing import Any, ClassVar

from engine._device import Arena, Device, Dma
from engine.types import Region

class Probe(Device):
    def __init__(
        self, id: str = "probe", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
    def regions(self) -> tuple[Region, ...]: ...

class MessageProbe(Probe):
    MESSAGE_SOURCE: ClassVar[bool]

class ProbeSink(Probe):
    MESSAGE_SINK: ClassVar[bool]
