"""Types of _config.pyx, which says what they do."""

from typing import Any

from engine._device import Device
from engine.types import Region, Space

PCI_CONFIG: dict[str, Any]
PCI_STATE: tuple[tuple[Any, ...], ...]

class PciFunction(Device):
    def regions(self) -> tuple[Region, ...]: ...
    def identify(
        self,
        vendor: int,
        device: int,
        revision: int,
        class_code: int,
        interrupt_pin: int = 0,
    ) -> None: ...
    def resets(self, at: int, length: int) -> None: ...
    def add_bar(
        self,
        n: int,
        space: Space,
        size: int,
        prefetch: bool = False,
        is64: bool = False,
        name: str | None = None,
        accepts: tuple[int, ...] = (1, 2, 4),
        implements: tuple[int, int] = (1, 4),
        posted: bool = False,
        barrier: bool = False,
    ) -> None: ...
    def add_rom(self, size: int, name: str = "rom") -> None: ...
    def add_capability(self, cap: int, length: int, where: int | None = None) -> int: ...
    def add_extended_capability(self, cap: int, version: int, at: int, length: int) -> int: ...
    def fixed_regions(self) -> tuple[Region, ...]: ...
    def stands_behind(self, bridge: PciFunction, fixed: dict[str, int]) -> None: ...
    def mappings(self) -> list[tuple[int, int, int]]: ...
    def identity(self) -> tuple[int, int, int, int, int, int]: ...
    def on_restore(self) -> None: ...
