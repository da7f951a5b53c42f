"""x86 PC devices without a virtual machine monitor: accesses in, values and interrupts out."""

from engine._device import Device, PyDevice
from engine.errors import EngineError, MachineError, RingError, StateError, TraceError, UsageError, WorkerDied
from engine.types import Bdf, Region, Register, Space

__version__ = "0.1.0"
__all__ = ["Bdf", "Device", "EngineError", "MachineError", "PyDevice", "Region", "Register", "RingError", "Space",
           "StateError", "TraceError", "UsageError", "WorkerDied", "__version__"]
