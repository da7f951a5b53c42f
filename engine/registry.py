"""Type name -> where its class is: an explicit list, nothing registers itself by being imported."""

from __future__ import annotations

from importlib import import_module

from engine._device import Device
from engine.errors import MachineError

TYPES: dict[str, str] = {
    "i440fx": "engine.pci._host:I440fx",
    "q35-mch": "engine.pci._q35:Q35Mch",
    "piix3": "engine.devices.piix3:Piix3",
    "piix3-ide": "engine.devices.piix3_ide:Piix3Ide",
    "piix4-pm": "engine.devices.piix4_pm:Piix4Pm",
    "ich9-lpc": "engine.devices.ich9_lpc:Ich9Lpc",
    "ich9-ahci": "engine.devices.ich9_ahci:Ich9Ahci",
    "ich9-smbus": "engine.devices.ich9_smbus:Ich9Smbus",
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
    "e1000e": "engine.devices.e1000e:E1000E",
    "fw-cfg": "engine.devices.fw_cfg:FwCfg",
    "debugcon": "engine.devices.debugcon:Debugcon",
    "port80": "engine.devices.port80:Port80",
    "pvpanic": "engine.devices.pvpanic:Pvpanic",
    "pvpanic-pci": "engine.devices.pvpanic:PvpanicPci",
    "ib700": "engine.devices.ib700:Ib700",
    "i6300esb": "engine.devices.i6300esb:I6300esb",
    "isa-debug-exit": "engine.devices.isa_debug_exit:IsaDebugExit",
    "pc-testdev": "engine.devices.pc_testdev:PcTestdev",
    "pci-testdev": "engine.devices.pci_testdev:PciTestdev",
    "edu": "engine.devices.edu:Edu",
    "recorder": "engine.devices.recorder:Recorder",
    "pflash": "engine.devices.pflash_cfi01:PflashCfi01",
    "pci-bridge": "engine.pci._bridge:PciPciBridge",
    "i82801b11": "engine.pci._bridge:I82801b11",
    "pcie-root-port": "engine.pci._bridge:PcieRootPort",
    "ioh3420": "engine.pci._bridge:Ioh3420",
    "tpm-tis": "engine.devices.tpm:TpmTis",
    "tpm-crb": "engine.devices.tpm:TpmCrb",
    "post-card": "engine.devices.python.post_card:PostCard",
}


def device_class(name: str) -> type[Device]:
    """The class of a device type: a name of the list, or "package.module:Class" for a user's own.

    Raises MachineError.
    """
    module, colon, attr = TYPES.get(name, name).partition(":")
    if not colon:
        raise MachineError(
            f"unknown device type {name!r}; `engine devices list` names the {len(TYPES)} there are, and a class of "
            f"your own is written as package.module:Class"
        )
    try:
        cls = getattr(import_module(module), attr)
    except (ImportError, AttributeError, TypeError, ValueError) as e:  # the last two: a name that none can have
        raise MachineError(f"device type {name!r} cannot be imported: {e}") from None
    if not (isinstance(cls, type) and issubclass(cls, Device)):
        raise MachineError(f"device type {name!r} is no class of devices; derive it from engine.PyDevice")
    if module == "__main__":
        raise MachineError(
            f"device type {name!r}: worker processes cannot import the main script; put the class in a module"
        )
    return cls
