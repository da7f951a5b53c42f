"""Types of _acpi_pm.pyx, which says what they mean."""

from typing import Any

ACPI_PM_STATE: tuple[tuple[Any, ...], ...]
ACPI_HOTPLUG_STATE: tuple[tuple[Any, ...], ...]

def check_cpus(id: str, cpus: int, max_cpus: int) -> None: ...
