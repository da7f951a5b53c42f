"""Types of _bridge.pyx, which says what they do."""

from typing import Any, ClassVar

from engine._device import Arena, Device, Dma
from engine.pci._config import PciFunction

class PciBridge(PciFunction):
    SLOTS: ClassVar[int]
    RESERVE: ClassVar[dict[str, int]]
    def bridge_header(
        self, vendor: int, device: int, revision: int, interrupt_pin: int, control: int, decode: int = 0
    ) -> None: ...
    def resets(self, at: int, length: int) -> None: ...
    def reserve(self, ports: int) -> None: ...
    def connect(self, name: str, peer: Device) -> None: ...
    def secondary_bus(self) -> int: ...

class PciPciBridge(PciBridge):
    def __init__(
        self, id: str = "pci-bridge", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...

class I82801b11(PciBridge):
    def __init__(
        self, id: str = "i82801b11", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...

class RootPort(PciBridge):
    def root_port(self, at: int, link_capabilities: int, link_status: int) -> None: ...
    def power_slot(self) -> None: ...
    def connect(self, name: str, peer: Device) -> None: ...

class PcieRootPort(RootPort):
    def __init__(
        self,
        id: str = "pcie-root-port",
        rank: int = 0,
        arena: Arena | None = None,
        dma: Dma | None = None,
        **config: Any,
    ) -> None: ...

class Ioh3420(RootPort):
    def __init__(
        self, id: str = "ioh3420", rank: int = 0, arena: Arena | None = None, dma: Dma | None = None, **config: Any
    ) -> None: ...
