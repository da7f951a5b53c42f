"""Type name -> where its class is: an explicit list, nothing registers itself by being imported."""

from __future__ import annotations

from importlib import import_module

from engine._device import Device
from engine.errors import MachineError

TYPES: dict[str, str] = {
    "i440fx": "engine.pci._host:I440fx",
    "piix3": "engine.devices.piix3:Piix3",
    "piix3-ide": "engine.devices.piix3_ide:Piix3Ide",
    "piix4-pm": "engine.devices.piix4_pm:Piix4Pm",
    "vga": "engine.devices.vga:Vga",
    "i8259": "engine.devices.i8259:I8259",
    "ioapic": "engine.devices.i82093aa:I82093aa",
    "lapic": "engine.devices.lapic:LocalApic",
    "i8254": "engine.devices.i8254:I8254",
    "mc146818": "engine.devices.mc146818:Mc146818",
    "hpet": "engine.devices.hpet:Hpet",
    "i8042": "engine.devices.i8042:I8042",
    "uart16550": "engine.devices.uart16550:Uart16550",
    "parallel": "engine.devices.parallel:Parallel",
    "i8237": "engine.devices.i8237:I8237",
    "fdc": "engine.devices.i82078:I82078",
    "e1000": "engine.devices.e1000:E1000",
    "fw-cfg": "engine.devices.fw_cfg:FwCfg",
    "debugcon": "engine.devices.debugcon:Debugcon",
    "port80": "engine.devices.port80:Port80",
    "post-card": "engine.devices.python.post_card:PostCard",
}


def device_class(name: str) -> type[Device]:
    """The class of a device type.  Raises MachineError for a type that is not in the list."""
    try:
        module, _, attr = TYPES[name].partition(":")
    except KeyError:
        raise MachineError(f"unknown device type {name!r}; `engine devices list` names the {len(TYPES)} there are") from None
    cls: type[Device] = getattr(import_module(module), attr)
    return cls
