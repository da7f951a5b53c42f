"""Types of _hotplug.pyx, which says what they mean."""

from engine.types import Register

def hotplug_registers(region: int, removable: int | None) -> tuple[Register, ...]: ...
