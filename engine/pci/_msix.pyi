"""Types of _msix.pyx, which says what they do."""

from engine.pci._config import PciFunction

def add_msix(f: PciFunction, vectors: int, table_bar: int, table_offset: int, pba_bar: int, pba_offset: int) -> int: ...
