"""x86 PC devices without a virtual machine monitor: accesses in, values and interrupts out.

Importing starts nothing, and loads what a name needs only when the name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine._abi import ACC
    from engine._device import Device, PyDevice
    from engine.errors import EngineError, MachineError, RingError, StateError, TraceError, UsageError, WorkerDied
    from engine.machine import Machine
    from engine.types import Bdf, Region, Register, Space

__version__ = "0.1.0"
__all__ = [
    "ACC",
    "Bdf",
    "Device",
    "EngineError",
    "Machine",
    "MachineError",
    "PyDevice",
    "Region",
    "Register",
    "RingError",
    "Space",
    "StateError",
    "TraceError",
    "UsageError",
    "WorkerDied",
    "__version__",
]
_HOME = {
    "engine._abi": ("ACC",),
    "engine._device": ("Device", "PyDevice"),
    "engine.errors": (
        "EngineError",
        "MachineError",
        "RingError",
        "StateError",
        "TraceError",
        "UsageError",
        "WorkerDied",
    ),
    "engine.machine": ("Machine",),
    "engine.types": ("Bdf", "Region", "Register", "Space"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            value = getattr(import_module(module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'engine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
