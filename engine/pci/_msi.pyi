"""Types of _msi.pyx, which says what they do."""

from engine.pci._config import PciFunction

def add_msi(
    f: PciFunction, vectors: int = 1, is64: bool = True, maskable: bool = False, where: int | None = None
) -> int: ...
