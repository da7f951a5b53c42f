"""Types of _smbus.pyx, which says what they mean."""

from typing import Any

SMBUS_STATE: tuple[tuple[Any, ...], ...]

def spd_contents(id: str, eeproms: int, spd: str) -> bytes: ...
