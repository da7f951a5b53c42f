"""Types of _acpi_pm.pyx, which says what they mean."""

from typing import Any

ACPI_PM_STATE: tuple[tuple[Any, ...], ...]
