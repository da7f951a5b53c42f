"""A QEMU command line -> a machine file: the board, its drives and settings, and what of it is not modelled.

Only what decides how devices answer is taken; accelerators, displays and monitors are passed over in silence, options
that are not understood are named.  Option names: QEMU's system emulation manual, "Invocation".
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import MachineError
from engine.machine.fw_cfg_items import Facts, place
from engine.machine.processors import APIC, processor
from engine.machine.spec import DeviceSpec, MachineSpec, load, parse, parse_size, shipped_boards
from engine.types import Bdf

CHIPSETS = {"q35": "q35", "pc": "i440fx", "isapc": ""}  # in this order: "pc-q35-7.2" begins as "pc" does
# Options without an argument, and with one, that no device of ours can tell.
SILENT_FLAGS = {
    "-no-user-config",
    "-enable-kvm",
    "-S",
    "-no-reboot",
    "-no-shutdown",
    "-daemonize",
    "-nographic",
    "-snapshot",
    "-s",
    "-no-fd-bootchk",
    "-full-screen",
    "-singlestep",
    "-preconfig",
}
FLAGS = {"-nodefaults", "-no-hpet", "-no-acpi", "-usb"}  # without an argument, and told
SILENT = {
    "-accel",
    "-display",
    "-monitor",
    "-name",
    "-cpu",
    "-icount",
    "-chardev",
    "-netdev",
    "-D",
    "-d",
    "-L",
    "-qmp",
    "-mon",
    "-qtest",
    "-qtest-log",
    "-pidfile",
    "-trace",
    "-k",
    "-msg",
    "-audiodev",
    "-vnc",
    "-plugin",
    "-sandbox",
    "-action",
    "-watchdog-action",
    "-overcommit",
    "-incoming",
    "-tpmdev",
    "-option-rom",
    "-add-fd",
    "-set",
}
# Devices that the command line adds, by our type; None needs no slot.
ISA_DEVICES = {"isa-debugcon": "debugcon"}
PCI_DEVICES = {
    "e1000": "e1000",
    "e1000-82540em": "e1000",
    "e1000e": "e1000e",
    "pvpanic-pci": "pvpanic-pci",
    "i6300esb": "i6300esb",
    "pci-testdev": "pci-testdev",
    "edu": "edu",
    "ahci": "ich9-ahci",
    "ich9-ahci": "ich9-ahci",
    "pci-bridge": "pci-bridge",
    "i82801b11-bridge": "i82801b11",
    "pcie-root-port": "pcie-root-port",
    "ioh3420": "ioh3420",
}
BRIDGES = {
    "pci-bridge": 32,
    "i82801b11-bridge": 32,
    "pcie-root-port": 1,
    "ioh3420": 1,
}  # and the device numbers behind each
RESERVE = ("bus-reserve", "io-reserve", "mem-reserve", "pref32-reserve", "pref64-reserve")
HOTPLUG = ("hotplug", "x-native-hotplug")
BRIDGE_SETTINGS = {"pci-bridge": (*RESERVE, "shpc", "msi"), "pcie-root-port": (*RESERVE, *HOTPLUG), "ioh3420": HOTPLUG}
TPMS = {
    "tpm-tis": {"tpm-tis-mmio": 0xFED40000, "tpm-ppi": 0xFED45000},
    "tpm-crb": {"tpm-crb": 0xFED40000, "tpm-ppi": 0xFED45000},
}
ROOT_BUSES = ("pci.0", "pcie.0", "pci", "pcie")
# Parts on the ISA bus: regions with their ports, the property that moves the first one, wires.
ISA_PARTS: dict[str, tuple[dict[str, int], str, dict[str, str]]] = {
    "pvpanic": ({"pvpanic": 0x505}, "ioport", {"panicked": "panicked", "crash_loaded": "crash_loaded"}),
    "ib700": ({"ib700": 0x441}, "", {"watchdog": "watchdog"}),
    "isa-debug-exit": ({"debug-exit": 0x501}, "iobase", {"exit": "exit"}),
    "pc-testdev": ({"word": 0xE0, "flush": 0xE4, "bytes": 0xE8, "lines": 0x2000, "memory": 0xFF000000}, "",
                   {f"irq{n}": f"isa{n}" if n < 16 else f"gsi{n}" for n in range(24)}),
}  # fmt: skip
# The floppy controller of a board that has none of its own; the DMA controller is in its unit.
FDC: dict[str, Any] = {
    "type": "fdc", "unit": "isa-dma", "at": {"fdc": 0x3F1, "fdc-dir": 0x3F7}, "peers": {"dma": "dma"},
    "lines": {"irq": "isa6"},
}  # fmt: skip
# Wires that tell the host something, by our type.
NOTICES = {
    "ich9-ahci": {"io_error": "io_error", "tray": "tray"},
    "pvpanic-pci": {"panicked": "panicked", "crash_loaded": "crash_loaded"},
    "i6300esb": {"watchdog": "watchdog"},
}
# Properties of added devices that are settings of ours under the same name.
VGA_SETTINGS = ("vgamem_mb", "edid", "xres", "yres", "xmax", "ymax", "refresh_rate")
SETTINGS = {"pvpanic": ("events",), "pvpanic-pci": ("events",), "pci-testdev": ("membar",), "edu": ("dma_mask",)}
# Functions that a guest can be booted from: their node in an OpenFirmware device path, and what is below it.
BOOTABLE: dict[str, tuple[str, str]] = {
    "nvme": ("pci1b36,0010", "/namespace@1,0"),
    **dict.fromkeys(("virtio-blk-pci", "virtio-blk-pci-transitional", "virtio-blk-pci-non-transitional"),
                    ("scsi", "/disk@0,0")),
    **dict.fromkeys(("e1000", "e1000-82540em", "e1000-82544gc", "e1000-82545em", "e1000e", "ne2k_pci", "pcnet",
                     "rtl8139", "tulip", "vmxnet3", "virtio-net-pci", "virtio-net-pci-transitional",
                     "virtio-net-pci-non-transitional", "i82550", "i82551", "i82557a", "i82557b", "i82557c",
                     "i82558a", "i82558b", "i82559a", "i82559b", "i82559c", "i82559er", "i82562", "i82801"),
                    ("ethernet", "/ethernet-phy@0")),
}  # fmt: skip
ROOT_NODE, BRIDGE_NODE, AHCI_NODE = "/pci@i0cf8", "pci-bridge", "pci8086,2922"
ISA_NODES = {"i440fx": "isa@1", "q35": "isa@1f"}
IDE_NODES = {"i440fx": "ide@1,1", "q35": f"{AHCI_NODE}@1f,2"}
WATCHDOGS = ("ib700", "i6300esb")
AHCI_PORTS = 6
SERIAL_PORTS = ((0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3))  # (base, interrupt) of COM1 to COM4
PARALLEL_PORTS = ((0x378, 7), (0x278, 7), (0x3BC, 7))
# -vga NAME -> the device it is; ours is "std".
VGAS = {"std": "VGA", "cirrus": "cirrus-vga", "vmware": "vmware-svga", "qxl": "qxl-vga", "virtio": "virtio-vga"}
# Devices that take the place of the default VGA.
VGA_DEVICES = {*VGAS.values(), "isa-vga", "isa-cirrus-vga", "ati-vga", "vhost-user-vga"}
USB = {
    "i440fx": (("piix3-usb-uhci", "00:01.2"),),
    "q35": (("ich9-usb-ehci1", "00:1d.7"), *((f"ich9-usb-uhci{n + 1}", f"00:1d.{n}") for n in range(3))),
}
# -machine NAME=off -> what is not there.
SWITCHED_OFF = {"hpet": "hpet", "sata": "ahci", "smbus": "smbus", "i8042": "kbc", "pit": "pit", "pic": "pic"}
OPTION_ROM = 0x40000  # bytes of the base address register for the reference's own option ROMs of network controllers
# Devices without a PCI slot, beside those whose names begin or end so.
BUSLESS = {"pc-dimm", "nvdimm", "vmgenid", "vmcoreinfo", "loader", "guest-loader", "intel-iommu", "virtconsole"}
BUSLESS |= {"nvme-ns", "hda-duplex", "hda-output", "hda-micro", "ipmi-bmc-sim", "ipmi-bmc-extern", "smbus-eeprom"}
_REGION = {"uart16550": "serial", "parallel": "parallel"}
PASSIVE = {"ide-hd", "ide-cd", "usb-kbd", "usb-mouse", "usb-tablet", "virtserialport", "floppy"}
# Properties of ide-hd and ide-cd -> keys of our drive tables; "" is dealt with apart.
_DRIVE = {
    "serial": "serial",
    "ver": "firmware",
    "model": "model",
    "wwn": "wwn",
    "rotation_rate": "rotation_rate",
    "physical_block_size": "physical_block",
    "unit": "",
    "cyls": "",
    "heads": "",
    "secs": "",
    "bios-chs-trans": "",
}
_NUMBERS = ("wwn", "rotation_rate", "physical_block")
FAILURES = {"read_aio": "read", "write_aio": "write", "flush_to_disk": "flush"}  # blkdebug's events


# What firmware is told by machine types before a version.
OLDER: tuple[tuple[tuple[int, int], dict[str, Any]], ...] = (
    ((7, 1), {"reserved": []}),  # the HyperTransport range is not kept free
    ((6, 1), {"processor": [0x00000663, Facts().processor[1]]}),  # another qemu64
    ((2, 9), {"smi": False}),
    ((2, 6), {"files_by_kind": True}),
    ((2, 3), {"rsdp": 36}),
)

# Properties of their devices, as -global would give them.
OLDER_PROPERTIES: tuple[tuple[tuple[int, int], dict[str, str]], ...] = (
    ((6, 2), {"pcie-root-port.x-native-hotplug": "off", "ioh3420.x-native-hotplug": "off"}),
    ((6, 1), {"pcie-root-port.x-native-hotplug": "on", "ioh3420.x-native-hotplug": "on"}),
    ((5, 2), {"pvpanic.events": "1"}),
    ((5, 0), {"mch.smbase-smram": "off"}),
    ((4, 1), {"VGA.edid": "off"}),
    ((2, 10), {"pci-bridge.shpc": "off"}),
    ((2, 9), {"pci-bridge.shpc": "on"}),
    ((2, 5), {"fw_cfg_io.dma_enabled": "off", "fw_cfg_mem.dma_enabled": "off"}),
)
# Files of devices (and a switch) that are not modelled: sizes of those that firmware reads, and those that it writes.
FILES: dict[str, dict[str, int]] = {
    "isa-vga": {"vgaroms/vgabios.bin": 39424},
    "isa-cirrus-vga": {"vgaroms/vgabios-cirrus.bin": 39424},
    "ramfb": {"vgaroms/vgabios-ramfb.bin": 29184},
    "vmgenid": {"etc/vmgenid_guid": 4096},
    "nvdimm=on": {"etc/acpi/nvdimm-mem": 4096},
    "pxb": {"etc/extra-pci-roots": 8},
    "pxb-pcie": {"etc/extra-pci-roots": 8},
}
WRITTEN_FILES = {"ramfb": {"etc/ramfb": 28}, "vmgenid": {"etc/vmgenid_addr": 8}, "vmcoreinfo": {"etc/vmcoreinfo": 16}}
SMBIOS_SYSTEM = ("manufacturer", "product", "version", "serial", "sku", "family")  # strings of its type 1
SMBIOS = {  # fields of its other types
    "0": ("vendor", "version", "date", "release", "uefi"),
    "2": ("manufacturer", "product", "version", "serial", "asset", "location"),
    "3": ("manufacturer", "version", "serial", "asset", "sku"),
    "4": (
        "sock_pfx",
        "manufacturer",
        "version",
        "max-speed",
        "current-speed",
        "serial",
        "asset",
        "part",
        "processor-id",
    ),
    "17": ("loc_pfx", "bank", "manufacturer", "serial", "asset", "part", "speed"),
}
ON, OFF = ("on", "true", "yes"), ("off", "false", "no")
TOPOLOGY = ("max_cpus", "sockets", "dies", "cores", "threads")
_bare = re.compile("[A-Za-z0-9_-]+").fullmatch
_versioned = re.compile(r"pc-(?:i440fx|q35)-(\d+)\.(\d+)(?:\.\d+)?").fullmatch


@dataclass(slots=True)
class Imported:
    """What an import gives: the machine file's text, the devices that are not modelled, and remarks.

    unmodelled: (name, PCI slot or "").  firmware: path of the image that -bios or the first pflash drive names, ""
    for none.  once: the boot order that holds until the first reset, "" for none; after it `[board] facts` holds.
    importer: what knows the rest of the command line, for devices that come later.
    """

    text: str
    unmodelled: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    firmware: str = ""
    once: str = ""
    importer: Importer | None = field(default=None, repr=False)

    def spec(self, path: str = "imported machine") -> MachineSpec:
        """The machine file, read."""
        return parse(self.text, path)


def options(text: str) -> dict[str, str]:
    """'a,b=c,,d' -> {'': 'a', 'b': 'c,d'}: QEMU's comma lists, ',,' for a comma."""
    out: dict[str, str] = {}
    for n, part in enumerate(text.replace(",,", "\0").split(",")):
        key, eq, value = part.replace("\0", ",").partition("=")
        if eq:
            out[key] = value
        elif n == 0:
            out[""] = key
        else:
            out[key] = "on"
    return out


def pairs(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, argument); the argument is "" for flags."""
    rest = list(args)
    if rest and not rest[0].startswith("-"):
        rest.pop(0)  # the program
    while rest:
        name = rest.pop(0)
        if name.startswith("--"):
            name = name[1:]
        if not name.startswith("-"):
            yield "-hda", name
        elif name in SILENT_FLAGS or name in FLAGS:
            yield name, ""
        elif not rest:
            raise MachineError(f"QEMU command line: {name} has no argument")
        else:
            yield name, rest.pop(0)


class Importer:
    """One command line on its way to a machine file."""

    def __init__(self, files: Mapping[str, str], sizes: Mapping[str, int]) -> None:
        self.files, self.sizes = files, sizes
        self.machine = "pc"
        self.switches: dict[str, str] = {}
        self.ram = 128 << 20
        self.slots = 0  # for memory modules
        self.smp: dict[str, str] = {}
        self.numa: list[dict[str, str]] = []
        self.objects: dict[str, dict[str, str]] = {}
        self.defaults = True
        self.vga = ""
        self.rtc: dict[str, str] = {}
        self.boot: dict[str, str] = {}
        self.drives: list[dict[str, str]] = []
        self.nodes: dict[str, dict[str, str]] = {}  # -blockdev by node name
        self.devices: list[dict[str, str]] = []
        self.ids: set[str] = set()  # the names that the command line gives to devices
        self.serials: list[str] = []
        self.parallels: list[str] = []
        self.globals: dict[str, str] = {}
        self.facts: dict[str, Any] = {}
        self.firmware = ""
        self.snapshot = False
        self.backends: dict[tuple[str, str], dict[str, str]] = {}  # by option, -chardev or -tpmdev, and id
        self.bridges: dict[
            str, tuple[str, str, int]
        ] = {}  # by the name of the bus behind: device name, bus, number there
        self.nics: list[dict[str, str]] = []
        self.default_nic = True
        self.macs: set[int] = set()
        self.added: list[tuple[str, dict[str, Any]]] = []
        self.indices: list[list[Any]] = []  # bus, slot and acpi-index
        self.cpu_type = "qemu64-x86_64-cpu"
        self.watchdog_action = "reset"
        self.netdevs: dict[str, dict[str, str]] = {}
        self.remarks: list[str] = []
        self.unmodelled: list[tuple[str, str]] = []
        self.foreign: set[str] = set()  # ids of devices that are not modelled: what is on their buses is not, either
        self.ahcis: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}  # drives of added controllers, by id
        self.boot_drives: dict[str, list[tuple[int, str]]] = {}  # by controller: bootindex and path below it
        self.boot_paths: dict[int, str] = {}  # by bootindex
        self.bus_paths = {"": ROOT_NODE}  # by the name of the bus: OpenFirmware device path of what it belongs to
        self.q35 = False

    def read(self, args: Sequence[str]) -> None:
        for name, value in pairs(args):
            if name in SILENT or name in SILENT_FLAGS:
                if name in ("-chardev", "-tpmdev"):
                    self.backends[name, options(value).get("id", "")] = options(value)
                elif name == "-cpu":
                    self.cpu_type = value.partition(",")[0] + "-x86_64-cpu"
                elif name == "-nographic":
                    self.facts["nographic"] = True
                elif name == "-snapshot":
                    self.snapshot = True
                elif name == "-no-fd-bootchk":
                    self.facts["check_floppy_signature"] = False
                elif name == "-netdev":
                    self.default_nic = False
                    o = options(value)
                    self.netdevs[o.get("id", "")] = o
                elif name == "-watchdog-action":
                    self.watchdog_action = value
                elif name == "-action":
                    self.watchdog_action = options(value).get("watchdog", self.watchdog_action)
                continue
            self._option(name, value)

    def _option(self, name: str, value: str) -> None:
        o = options(value)
        if name in ("-M", "-machine"):
            self.switches |= o
            self.smp |= {k.removeprefix("smp."): v for k, v in o.items() if k.startswith("smp.")}
            self.machine = o.get("", o.get("type", self.machine))
        elif name == "-m":
            text = o.get("", o.get("size", "128"))
            self.ram = _mebibytes(text)
            self.slots = int(o.get("slots", self.slots))
            if "maxmem" in o:
                self.facts["max_ram"] = _mebibytes(o["maxmem"])
        elif name == "-smp":
            self.smp |= {k or "cpus": v for k, v in o.items()}
        elif name == "-nodefaults":
            self.defaults = self.default_nic = False
        elif name in ("-no-hpet", "-no-acpi"):
            self.switches[name.removeprefix("-no-")] = "off"
        elif name == "-usb":
            self.switches["usb"] = "on"
        elif name == "-bios":
            self.firmware = self._path(value)
        elif name == "-vga":
            self.vga = value
        elif name == "-rtc":
            self.rtc |= o
        elif name == "-boot":
            self.boot |= {"order" if k == "" else k: v for k, v in o.items()}
        elif name == "-drive":
            self.drives.append(o)
        elif name == "-blockdev":
            node = {k: str(v) for k, v in json.loads(value).items()} if value.startswith("{") else o
            self.nodes[node.get("node-name", "")] = node
        elif name in ("-hda", "-hdb", "-hdc", "-hdd"):
            self.drives.append({"if": "ide", "index": str("abcd".index(name[-1])), "file": value})
        elif name == "-cdrom":
            self.drives.append({"if": "ide", "index": "2", "media": "cdrom", "file": value})
        elif name in ("-fda", "-fdb"):
            self.drives.append({"if": "floppy", "index": str("ab".index(name[-1])), "file": value})
        elif name == "-device":
            self.devices.append(json.loads(value) | {"": json.loads(value)["driver"]} if value.startswith("{") else o)
            self.ids |= {self.devices[-1].get("id", "")} - {""}
        elif name == "-serial":
            self.serials.append(value)
        elif name == "-parallel":
            self.parallels.append(value)
        elif name == "-global":
            key, _, v = value.partition("=")
            self.globals[key] = v
        elif name == "-uuid":
            self.facts["uuid"] = value
        elif name == "-fw_cfg":
            self._fw_cfg_file(o)
        elif name == "-smbios" and self._smbios(o, value):
            pass
        elif name == "-object":
            self.objects[o.get("id", "")] = o
        elif name == "-numa":
            cpus = [part.removeprefix("cpus=") for part in value.split(",") if part.startswith("cpus=")]
            self.numa.append(o | {"cpus": ",".join(cpus)})
        elif name == "-append":
            self.facts["cmdline"] = value
        elif name == "-initrd" and (" " in value or "," in value) and not Path(value).exists():
            self.remarks.append("-initrd: modules of a multiboot kernel are not modelled")
        elif name in ("-kernel", "-initrd"):
            if given := self._path(value) or self.sizes.get(value[1:-1], 0):
                self.facts[name[1:]] = given
        elif name in ("-nic", "-net"):
            self.default_nic = False
            if o.get("", "") != "none" if name == "-nic" else o.get("", "") == "nic":
                mac = o.get("mac", o.get("macaddr", ""))
                self.nics.append(
                    ({"": o["model"]} if "model" in o else {})
                    | ({"mac": mac} if mac else {})
                    | ({"addr": o["addr"]} if "addr" in o else {})
                )
        elif name == "-debugcon":
            self.devices.append({"": "isa-debugcon", "iobase": "0xe9"})
        else:
            self.remarks.append(f"{name} {value}: not understood, passed over")

    def _smbios(self, o: Mapping[str, str], text: str) -> bool:
        """What firmware is to say of the machine; False if that is not modelled."""
        kind, given = o.get("type", ""), {k: v for k, v in o.items() if k != "type"}
        if kind == "11" and set(given) == {"value"}:
            parts = text.replace(",,", "\0").split(",")
            values = [p.removeprefix("value=").replace("\0", ",") for p in parts if p.startswith("value=")]
            self.facts["oem_strings"] = [*self.facts.get("oem_strings", []), *values]
        elif kind == "1" and set(given) <= {*SMBIOS_SYSTEM, "uuid"}:
            if uuid := given.pop("uuid", ""):
                self.facts["uuid"] = uuid
            self.facts["system"] = self.facts.get("system", {}) | given
        elif kind in SMBIOS and set(given) <= set(SMBIOS[kind]):
            types = self.facts.setdefault("smbios", {})
            types[kind] = types.get(kind, {}) | given
        else:
            return False
        return True

    def _path(self, text: str) -> str:
        """A file name in which {NAME} stands for a file given by name; "" if it was not given."""
        if text.startswith("{") and text.endswith("}"):
            return self.files.get(text[1:-1], "")
        return text

    def _node(self, name: str) -> dict[str, str]:
        """The drive that a block node is: its protocol node's file, through any number of format nodes."""
        node = self.nodes[name]
        below = node.get("file", "")
        if below in self.nodes and below != name:
            return self._node(below) | {k: v for k, v in node.items() if k == "size"}
        return (
            {"file": node["filename"]}
            if "filename" in node
            else {"file.driver": node.get("driver", ""), "file.size": node.get("size", "1G")}
        )

    def _medium(self, d: Mapping[str, str]) -> tuple[int, str]:
        """(bytes, image path) of a drive; (0, "") without a medium."""
        if d.get("file.driver", d.get("driver", "")) in ("null-co", "null-aio") or d.get("file", "").startswith(
            "null-co:"
        ):
            return parse_size(d.get("file.size", d.get("size", "1G"))), ""
        text = d.get("file", d.get("file.filename", ""))
        if not text:
            return 0, ""
        if text.startswith("blkdebug:"):
            text = text.split(":", 2)[-1]
        path = self._path(text)
        if path:
            return _size_of(path), str(Path(path).absolute())
        return self.sizes.get(text[1:-1], 0), ""

    def _failing(self, file: str) -> list[str]:
        """What fails once on a drive "blkdebug:RULES:FILE".  QEMU: docs/devel/blkdebug.txt."""
        if not file.startswith("blkdebug:") or not file.split(":", 2)[1]:
            return []
        rules = file.split(":", 2)[1]
        try:
            text = Path(rules).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise MachineError(f"blkdebug rules {rules}: {getattr(e, 'strerror', None) or e}") from None
        out = []
        for section in text.split("[")[1:]:
            name, _, body = section.partition("]")
            keys = dict(line.split("=", 1) for line in body.splitlines() if "=" in line)
            rule = {k.strip(): v.strip().strip('"') for k, v in keys.items()}
            if name == "inject-error" and rule.get("event") in FAILURES and rule.get("once") == "on":
                out.append(FAILURES[rule["event"]])
            elif name != "set-state":
                self.remarks.append(f"{rules}: {name} {rule.get('event', '')}: not understood, passed over")
        return out

    # ------------------------------------------------------------------ the machine file

    def build(self) -> Imported:
        kind = next(
            (
                k
                for k in CHIPSETS
                if self.machine == k or self.machine.startswith((f"{k}-", f"{k}_")) or f"-{k}-" in self.machine
            ),
            "",
        )
        board = CHIPSETS.get(kind, "")
        if not board or board not in shipped_boards():
            raise MachineError(
                f"QEMU machine {self.machine!r} is not modelled; boards are {', '.join(shipped_boards())}"
            )
        base = load(board)
        remove: list[str] = []
        tables: list[tuple[str, dict[str, Any]]] = []
        have = {d.id: d for d in base.devices}
        self.q35 = board == "q35"
        facts = dict(self.facts)
        usual_vga = "std"
        if typed := _versioned(self.machine):
            facts["version"] = self.machine
            version = int(typed[1]), int(typed[2])
            usual_vga = "cirrus" if version < (2, 2) else "std"
            facts |= {k: v for end, old in OLDER if version < end for k, v in old.items()}
            self.globals = {k: v for end, o in OLDER_PROPERTIES if version < end for k, v in o.items()} | self.globals
        ide, floppies = self._drives()
        for id in ("ide", "ahci"):
            if id in have and ide:
                tables.append((id, {"config": {"drives": ide}}))
        added_fdc = "fdc" not in have and any(d.get("") == "isa-fdc" for d in self.devices)
        if "fdc" in have or added_fdc:
            config: dict[str, Any] = {"drives": 1 + max(floppies) if floppies else 0}
            for n, (size, image) in floppies.items():
                if image:
                    config[f"image_{'ab'[n]}"] = image
                elif size:
                    config[f"size_{'ab'[n]}"] = size
            tables.append(("fdc", {**(FDC if added_fdc else {}), "config": config}))
            if added_fdc:
                tables.append(("dma", {"unit": FDC["unit"]}))
        named = {d.get("", "") for d in self.devices}
        if not self.vga:
            self.vga = usual_vga if self.defaults and not named & VGA_DEVICES else "none"
        if self.vga != "std":
            remove.append("vga")
        remove += [id for name, id in SWITCHED_OFF.items() if self.switches.get(name, "on") == "off"]
        rtc: dict[str, Any] = {}
        if "hpet" in remove:  # through which the two would go
            tables.append(("pit", {"lines": {"out0": "isa0"}}))
            rtc["lines"] = {"irq": "isa8"}
        if "pic" in remove:  # whom these two would ask for vectors
            tables += [(id, {"peers": {"pic": False}}) for id in ("ioapic", "lapic0")]
        if self.switches.get("acpi", "on") == "off":
            facts["acpi"] = False
            remove.append("pm")
        if self.switches.get("graphics", "on") == "off":
            facts["nographic"] = True
        if most := self.switches.get("max-ram-below-4g"):
            facts["max_low_ram"] = parse_size(most)
        if self.switches.get("usb", "off") == "on":
            self.unmodelled += USB[board]
        debug = [d for d in self.devices if d.get("", "") in ISA_DEVICES]
        if debug:
            table: dict[str, Any] = {"at": {"debugcon": int(debug[0].get("iobase", "0xe9"), 0)}}
            if "readback" in debug[0]:
                table["config"] = {"readback": int(debug[0]["readback"], 0)}
            tables.append(("debugcon", table))
        else:
            remove.append("debugcon")
        self._ports(remove)
        if "base" in self.rtc and self.rtc["base"] not in ("utc", "localtime"):
            when = self.rtc["base"]
            rtc["config"] = {"base": when if "T" in when else when + "T00:00:00"}
        if "config" not in rtc or self.rtc.get("clock", "host") != "vm":
            rtc.setdefault("config", {})["host_time"] = True
        if rtc:
            tables.append(("rtc", rtc))
        dma = self.globals.get("fw_cfg_io.dma_enabled", self.globals.get("fw_cfg.dma_enabled", "on"))
        if dma in ("off", "false", "no", "0"):
            tables.append(("fwcfg", {"config": {"dma_enabled": False}}))
        cpus = self._processors()
        if self.slots:
            self.facts["ram_slots"] = self.slots
        self._nodes(cpus)
        facts |= self.facts
        remove += self._processor(facts)
        givers = [d.get("", "") for d in self.devices] + ["nvdimm=on"] * (self.switches.get("nvdimm", "off") == "on")
        for key, known in (("files", FILES), ("writable", WRITTEN_FILES)):
            if own := {name: size for giver in givers for name, size in known.get(giver, {}).items()}:
                facts[key] = own | facts.get(key, {})
        if "order" in self.boot:
            facts["boot_order"] = self.boot["order"]
        if self.boot.get("menu") == "on":
            facts["boot_menu"] = True
        if self.boot.get("strict") == "on":
            facts["strict"] = True
        for key, name in (("splash-time", "splash_time"), ("reboot-timeout", "reboot_timeout")):
            if key in self.boot:
                facts[name] = int(self.boot[key])
        power: dict[str, Any] = {}
        if self.switches.get("smm", "auto") == "off":
            power["smm"] = False
            tables.append(("mch", {"config": {"smm": False}}))
        elif "mch" in have and self.globals.get("mch.smbase-smram", "on") in OFF:
            tables.append(("mch", {"config": {"smbase": False}}))
        if "lpc" in have and self.globals.get("ICH9-LPC.noreboot", "on") in ("off", "false", "no", "0"):
            power["no_reboot"] = False
        if "lpc" in have and self.watchdog_action != "reset":
            power["action"] = "none"
        parts = [d for d in self.devices if d.get("", "") in ISA_PARTS]
        for n, d in enumerate(parts):
            self._isa_part(d, sum(e[""] == d[""] for e in parts[:n]))
        tables += self._flash() + self._tpms()
        for index, below in self.boot_drives.get("", ()):
            self._boot(index, f"{ROOT_NODE}/{IDE_NODES[board]}{below}")
        for n in range(2):
            if text := self.globals.get(f"isa-fdc.bootindex{'AB'[n]}", ""):
                self._boot(int(text, 0), f"{ROOT_NODE}/{ISA_NODES[board]}/fdc@03f0/floppy@{n}")
        if (place := self._slots()) and self.vga == "none":
            remove.remove("vga")
        vga = next((d for d in self.devices if d.get("") == "VGA"), {})
        if screen := {k: _switch(v) for k in VGA_SETTINGS if (v := self._property("VGA", vga, k))}:
            place["config"] = screen
        if place:
            tables.append(("vga", place))
        if self.boot_paths:
            facts["bootorder"] = [path for _, path in sorted(self.boot_paths.items())]
        at = {"at": {"mem-hotplug": 0xA00}} if self.slots else {}
        if self.slots:
            power["memory_slots"] = self.slots
        adapters = [int(where[3:5], 16) for name, where in self.unmodelled if where and name in VGA_DEVICES]
        if adapters and "pm" in have:
            power["staying_slots"] = sum({1 << n for n in adapters})
        if self.indices:
            power["slot_index"] = self.indices
        if power:
            tables.append(("lpc" if "lpc" in have else "pm", {**at, "config": power}))
        remove = [r for r in remove if r in have]
        tables = [(i, t) for i, t in tables if (i in have and i not in remove) or "type" in t] + self.added
        return Imported(
            _toml(board, self.ram, cpus, facts, remove, tables),
            self.unmodelled,
            self.remarks,
            self.firmware,
            self.boot.get("once", ""),
            self,
        )

    def _property(self, kind: str, own: Mapping[str, Any], key: str) -> str:
        """A property of a device: its own, or what -global says of its kind; "" for neither."""
        return str(own.get(key, self.globals.get(f"{kind}.{key}", "")))

    def _processor(self, facts: dict[str, Any]) -> list[str]:
        """What firmware is told of the processor; what is not there without a local APIC."""
        name = self.cpu_type.removesuffix("-x86_64-cpu")
        if name == "qemu64":  # as the facts have it, by the machine type's version
            return []
        if not (known := processor(name)):
            self.remarks.append(f"-cpu {name}: not known; what firmware is told is that of qemu64")
            return []
        signature, features, reserved = known
        facts["processor"] = [signature, features]
        if not reserved:
            facts["reserved"] = []
        if features & APIC:
            return []
        facts["roms"] = {}
        return ["lapic0"]

    def _processors(self) -> int:
        """How many vCPUs there are; how they are arranged, and how many there may be, become facts."""
        if odd := set(self.smp) - {"cpus", "maxcpus", "sockets", "dies", "clusters", "cores", "threads"}:
            raise MachineError(f"QEMU command line: -smp: unknown parameter {sorted(odd)[0]!r}")
        n = {k: int(v) for k, v in self.smp.items() if int(v)}
        if odd := {k for k, v in n.items() if v < 0}:
            raise MachineError(f"QEMU command line: -smp: {sorted(odd)[0]} is negative")
        if n.pop("clusters", 1) > 1:
            raise MachineError("QEMU command line: -smp: a PC has no clusters")
        product = n.get("sockets", 1) * n.get("dies", 1) * n.get("cores", 1) * n.get("threads", 1)
        cpus = n.pop("cpus", 0) or n.get("maxcpus", product)
        most = n.pop("maxcpus", cpus)
        self.facts |= n | ({"max_cpus": most} if most != cpus else {})
        return cpus

    def _fw_cfg_file(self, o: Mapping[str, str]) -> None:
        """A file that firmware finds."""
        name, given = o.get("name", o.get("", "")), [k for k in ("file", "string", "gen_id") if o.get(k)]
        if not name or len(given) != 1:
            raise MachineError("QEMU command line: -fw_cfg: name, and one of file and string, are needed")
        if given == ["gen_id"]:
            self.remarks.append(f"-fw_cfg {name}: what object {o['gen_id']!r} generates is not modelled")
            return
        files = self.facts.setdefault("files", {})
        if given == ["string"]:
            files[name] = o["string"]
        else:
            size, path = self._medium({"file": o["file"]})
            files[name] = {"path": path} if path else size

    def _nodes(self, cpus: int) -> None:
        """NUMA nodes: each one's memory and CPUs."""
        nodes: list[tuple[int, list[int]]] = []
        facts = Facts(cpus=cpus, **{k: v for k, v in self.facts.items() if k in TOPOLOGY})
        every = range(facts.max_cpus or cpus)
        for o in self.numa:
            if o.get("", o.get("type")) == "node":
                size = self.objects.get(o.get("memdev", ""), {}).get("size", o.get("mem", "0"))
                number = int(o.get("nodeid", str(len(nodes))))
                nodes += [(0, [])] * (number + 1 - len(nodes))
                nodes[number] = (_mebibytes(size) if "mem" in o else parse_size(size), _ranges(o.get("cpus", "")))
        for o in self.numa:
            if o.get("", o.get("type")) == "cpu":
                wanted = {k: int(o[k]) for k in ("socket-id", "die-id", "core-id", "thread-id") if k in o}
                found = [n for n in every if wanted.items() <= place(facts, n).items()]
                nodes[int(o["node-id"])][1].extend(found)
        if nodes and not any(those for _, those in nodes):
            nodes = [
                (size, [c for c in every if place(facts, c)["socket-id"] % len(nodes) == n])
                for n, (size, _) in enumerate(nodes)
            ]
        if nodes:
            self.facts["numa"] = [list(node) for node in nodes]

    def _ports(self, remove: list[str]) -> None:
        """Serial and parallel ports: the board's first ones stay or go, others are added."""
        for ports, options_, kind, type, id in (
            (SERIAL_PORTS, self.serials, "isa-serial", "uart16550", "com"),
            (PARALLEL_PORTS, self.parallels, "isa-parallel", "parallel", "lpt"),
        ):
            parts = [d for d in self.devices if d.get("", "") == kind]
            here = [o != "none" for o in options_] or [self.defaults and not parts]
            rows = [ports[n] for n, there in enumerate(here[: len(ports)]) if there]
            for d in parts:
                base, irq = ports[min(int(d.get("index", len(rows))), len(ports) - 1)]
                rows.append((int(d.get("iobase", str(base)), 0), int(d.get("irq", str(irq)), 0)))
            if ports[0] not in rows:
                remove.append(f"{id}1")
            for base, irq in rows:
                if (base, irq) != ports[0]:
                    number = ports.index((base, irq)) + 1 if (base, irq) in ports else 0
                    table = {"type": type, "at": {_REGION[type]: base}, "lines": {"irq": f"isa{irq}"}}
                    self.added.append((f"{id}{number or f'-{base:x}'}", table))

    def _bus(self, d: Mapping[str, str], channels: int) -> tuple[str, int] | None:
        """(id of the added AHCI controller or "", port or channel) of a drive's bus; None on no controller of ours.

        QEMU's IDE buses are "ide.N" for the board's own and for controllers without an id, counted on, and "ID.N".
        """
        name, _, number = d["bus"].rpartition(".")
        if name in self.ahcis:
            return name, int(number)
        if name not in ("ide", ""):
            return None
        n, own = int(number), [i for i in self.ahcis if i.startswith("#")]
        if n < channels:
            return "", n
        which, port = divmod(n - channels, AHCI_PORTS)
        return (own[which], port) if which < len(own) else None

    def _drives(self) -> tuple[list[dict[str, Any]], dict[int, tuple[int, str]]]:
        ide: dict[tuple[int, int], dict[str, Any]] = {}
        channels, units = (AHCI_PORTS, 1) if self.q35 else (2, 2)  # AHCI ports, or channels of two
        floppies: dict[int, tuple[int, str]] = {}
        for d in self.devices:
            if PCI_DEVICES.get(d.get("", "")) == "ich9-ahci":
                self.ahcis[d.setdefault("id", f"#{len(self.ahcis)}")] = {}
        by_id = {name: self._node(name) for name in self.nodes} | {d["id"]: d for d in self.drives if "id" in d}
        todo = [d for d in self.drives if d.get("if", "ide") in ("ide", "floppy", "virtio", "scsi", "pflash", "sd")]
        last = ("", channels - 1)  # QEMU's choice of a bus: that of the controller named last, of its buses the last
        for dev in self.devices:
            if PCI_DEVICES.get(dev.get("", "")) == "ich9-ahci":
                last = (dev["id"], AHCI_PORTS - 1)
            if dev.get("") in ("ide-hd", "ide-cd", "ide-drive"):
                drive = dict(by_id.get(dev.get("drive", ""), {}))
                place = self._bus(dev, channels) if "bus" in dev else last
                if place is None:
                    continue  # with a controller that is named as not modelled
                bus = str(place[1])
                drive["ahci"] = place[0]
                drive |= {"if": "ide", "bus": bus, "media": "cdrom" if dev[""] == "ide-cd" else "disk"} | {
                    k: dev[k] for k in (*_DRIVE, "id", "bootindex") if k in dev
                }
                if place[0]:
                    drive["unit"] = "0"
                own = [_place(d, units) for d in todo if d.get("if", "ide") == "ide" and not d.get("ahci")]
                drive.setdefault("unit", "1" if (int(bus), 0) in own else "0")
                if not place[0] and ((int(bus), int(drive["unit"])) in own or int(drive["unit"]) >= units):
                    raise MachineError(f"QEMU command line: {dev['']}: no place is left on ide.{bus}")
                todo.append(drive)
        for d in todo:
            where = d.get("if", "ide")
            if where == "floppy":
                floppies[int(d.get("index", d.get("unit", "0")))] = self._medium(d)
                continue
            if where == "pflash":
                continue
            if where != "ide":
                self.unmodelled.append((f"{where} drive", ""))
                continue
            channel, unit = _place(d, units) or next(p for n in range(64) if (p := divmod(n, units)) not in ide)
            size, image = self._medium(d)
            kind = "cdrom" if d.get("media") == "cdrom" else "disk"
            row: dict[str, Any] = {"channel": channel, "unit": unit, "kind": kind}
            if size:
                row["size"] = size
            if image:
                row["image"] = image
            model = {
                k: v
                for name in ("ide-cd" if kind == "cdrom" else "ide-hd",)
                for k in _DRIVE
                if (v := self.globals.get(f"{name}.{k}"))
            }
            for theirs, ours in _DRIVE.items():
                if ours and theirs in (both := model | dict(d)):
                    row[ours] = _number(str(both[theirs])) if ours in _NUMBERS else both[theirs]
            if {"cyls", "heads", "secs"} <= set(d):
                row["chs"] = [int(d[k]) for k in ("cyls", "heads", "secs")]
            if "id" in d and kind == "cdrom":  # by which the host changes discs
                row["id"] = d["id"]
            if "stop" in (d.get("rerror"), d.get("werror")):
                row["on_error"] = "stop"
            if failing := self._failing(d.get("file", "")):
                row["fail"] = failing
            if d.get("bios-chs-trans", "auto") != "auto":
                row["translation"] = d["bios-chs-trans"]
            (self.ahcis[d["ahci"]] if d.get("ahci") else ide)[channel, unit] = row
            if "bootindex" in d:
                below = (int(str(d["bootindex"]), 0), f"/drive@{channel:x}/disk@{unit}")
                self.boot_drives.setdefault(d.get("ahci", ""), []).append(below)
        named = {d.get("", "") for d in self.devices}
        for n, d in enumerate(d for d in self.devices if d.get("", "") == "floppy"):
            medium = self._medium(by_id[d["drive"]]) if d.get("drive") in by_id else (0, "")
            floppies.setdefault(int(d.get("unit", str(n))), medium)
        if self.defaults and not named & {"floppy", "isa-fdc"}:
            floppies.setdefault(0, (0, ""))
        if self.defaults and not named & {"ide-cd", "ide-hd", "scsi-cd", "scsi-hd"}:
            channel = 2 // units
            ide.setdefault((channel, 0), {"channel": channel, "unit": 0, "kind": "cdrom"})
        return [ide[k] for k in sorted(ide) if k[0] < channels and k[1] < units], floppies

    def _flash(self) -> list[tuple[str, dict[str, Any]]]:
        """Flash parts, the first one ending at 4 GiB, the second one below it; the first holds the firmware."""
        parts: dict[int, tuple[Mapping[str, str], str]] = {}
        for d in self.drives:
            if d.get("if") == "pflash":
                unit = int(d.get("unit", d.get("index", len(parts))))
                parts[unit] = (d, d.get("file", d.get("file.filename", "")))
        for unit in (0, 1):
            name = self.switches.get(f"pflash{unit}", "")
            if name and name not in self.nodes:
                raise MachineError(f"QEMU command line: pflash{unit}={name}: there is no block node of that name")
            if name:
                node = self.nodes[name]
                parts[unit] = (self._node(name) | {k: node[k] for k in ("read-only",) if k in node}, "")
        if set(parts) not in (set(), {0}, {0, 1}):
            raise MachineError(
                f"QEMU command line: pflash unit {max(parts)} without the one before it; there are units 0 and 1"
            )
        out: list[tuple[str, dict[str, Any]]] = []
        base = 1 << 32
        for unit, (drive, text) in sorted(parts.items()):
            size, image = self._medium(drive)
            if not size:
                self.unmodelled.append((f"pflash unit {unit} without a medium", ""))
                continue
            base -= size
            name = f"system.flash{unit}"
            config: dict[str, Any] = {"size": size, "name": name}
            if image:
                config["image"] = image
            if drive.get("readonly", drive.get("read-only", "off")) in ("on", "true", "True", "yes"):
                config["readonly"] = True
            elif image and drive.get("snapshot", "on" if self.snapshot else "off") != "on" and not text.startswith("{"):
                config["write"] = (
                    True  # a file that the command line names itself, as in QEMU; a recording's stays as it is
                )
            out.append((f"pflash{unit}", {"type": "pflash", "at": {name: base}, "config": config}))
            if unit == 0:
                self.firmware = self.firmware or image
        return out

    def _tpms(self) -> list[tuple[str, dict[str, Any]]]:
        """TPMs, each with the socket of its swtpm.

        -device tpm-crb,tpmdev=T -tpmdev emulator,id=T,chardev=C -chardev socket,id=C,path=P
        """
        out: list[tuple[str, dict[str, Any]]] = []
        for d in self.devices:
            if (kind := d.get("", "")) in TPMS:
                tpm = self.backends.get(("-tpmdev", d.get("tpmdev", "")), {})
                path = self._path(self.backends.get(("-chardev", tpm.get("chardev", "")), {}).get("path", ""))
                if tpm.get("") != "emulator" or not path:
                    raise MachineError(
                        f"QEMU command line: {kind} needs -tpmdev emulator,chardev=C and "
                        f"-chardev socket,id=C,path=SOCKET of swtpm"
                    )
                table: dict[str, Any] = {"type": kind, "at": TPMS[kind], "config": {"swtpm": path}}
                out.append((d.get("id", "tpm"), table | ({"lines": {"irq": "isa5"}} if kind == "tpm-tis" else {})))
        return out

    def _slots(self) -> dict[str, Any]:
        """PCI slots as QEMU gives them: in order of the command line, the lowest free one.

        Returns where a VGA stands that is given as a device, {} for none.
        """
        taken = {0, 31} if self.q35 else {0, 1}
        buses: dict[str, set[int]] = {"": taken}  # numbers in use, by bus
        slot = 1 if self.q35 else 2
        vga: dict[str, Any] = {}
        if self.vga != "none":
            taken.add(slot)
            if self.vga != "std":
                self.unmodelled.append((VGAS.get(self.vga, self.vga), f"00:{slot:02x}.0"))
        if self.q35 and self.switches.get("usb", "off") == "on":
            taken.add(0x1D)
        devices = [d for d in self.devices if not {d.get("")} & {*ISA_DEVICES, *ISA_PARTS, *PASSIVE, *TPMS}]
        nic = "e1000e" if self.q35 else "e1000"
        for d in [{"": nic, **n} for n in (self.nics or [{}] * self.default_nic)] + devices:
            if _busless(d[""]):
                if d[""] not in ("isa-serial", "isa-parallel", "isa-fdc"):
                    self._not_modelled(d)
                self._boot_unknown(d)
                continue
            bus = "" if d.get("bus", "") in ROOT_BUSES else d.get("bus", "")
            if bus and {bus, bus.rpartition(".")[0]} & self.foreign:
                self._not_modelled(d)  # on a bus of something that is not modelled either
                self._boot_unknown(d)
                continue
            if bus and bus not in self.bridges:
                raise MachineError(f"QEMU command line: {d['']}: bus {bus!r} is that of no bridge named before it")
            end = BRIDGES[self.bridges[bus][0]] if bus else 32
            if "addr" in d:
                number, _, function = d["addr"].partition(".")
                dev, fn = int(number, 16), int(function or "0", 16)
            else:
                dev = next((n for n in range(0 if bus else slot, end) if n not in buses.setdefault(bus, set())), end)
                fn = 0
            if dev >= end:
                raise MachineError(
                    f"QEMU command line: no PCI slot is left for {d['']}" + (f" behind {bus!r}" if bus else "")
                )
            buses.setdefault(bus, set()).add(dev)
            if d[""] in BRIDGES and "id" in d:
                self.bridges[d["id"]] = (d[""], bus, dev)
            if d[""] == "VGA" and self.vga == "none" and not vga and not bus:
                vga = {"bdf": f"00:{dev:02x}.{fn}"}
                continue
            self._boot_function(d, dev, fn, bus)
            self._pci_device(d, dev, fn, bus)
        return vga

    # ------------------------------------------------------------------ devices that come later

    @property
    def root_bus(self) -> str:
        """The reference's name of the root bus."""
        return "pcie.0" if self.q35 else "pci.0"

    def plugged(self, d: dict[str, str], spec: MachineSpec, bus: str) -> DeviceSpec:
        """The device that `-device` with these options would be, put into a machine that runs.

        bus: a bridge's id, or "".  Raises MachineError, with the reference's words.
        """
        here = {x.bdf.number: x for x in spec.devices if x.bdf is not None and x.bus == bus}
        places = {n >> 3 for n in here} | {int(where[3:5], 16) for _, where in self.unmodelled if where and not bus}
        end = BRIDGES[self.bridges[bus][0]] if bus else 32
        if "addr" in d:
            text, _, part = d["addr"].partition(".")
            dev, fn = int(text, 16), int(part or "0", 16)
        else:
            dev, fn = next((n for n in range(0 if bus else 1, end) if n not in places), end), 0
        if dev >= end:
            raise MachineError(f"PCI: no slot/function available for {d['']}, all in use or reserved")
        if dev << 3 | fn in here or (dev in places and not fn):
            other = here.get(dev << 3 | fn)
            name = next((k for k, v in PCI_DEVICES.items() if other is not None and v == other.type), "another")
            id = other.id if other is not None and other.id in self.ids else "(null)"
            raise MachineError(f"PCI: slot {dev} function {fn} not available for {d['']}, in use by {name},id={id}")
        if d.get("netdev", "") not in {"", *self.netdevs}:
            raise MachineError(f"Property '{d['']}.netdev' can't find value '{d['netdev']}'")
        self.macs = {int(x.config["mac"].replace(":", ""), 16) for x in spec.devices if "mac" in x.config}
        self.added.clear()
        if d[""] in BRIDGES and "id" in d:
            self.bridges[d["id"]] = (d[""], bus, dev)
        self._pci_device(d, dev, fn, bus)
        id, table = self.added.pop()
        taken = {x.id for x in spec.devices}
        if id in taken:  # of a device of the board, or without a name and in a slot that has been emptied and filled
            id = next(f"{id}.{n}" for n in range(len(taken) + 1) if f"{id}.{n}" not in taken)
        return DeviceSpec(**{**table, "id": id, "bdf": Bdf.parse(table["bdf"]), "source": "device_add"})

    def _boot(self, index: int, path: str) -> None:
        """What firmware tries to boot from, at its place in the order; below 0 not at all."""
        if index >= 0 and self.boot_paths.setdefault(index, path) != path:
            raise MachineError(f"QEMU command line: two devices with bootindex {index}")

    def _boot_unknown(self, d: Mapping[str, str]) -> None:
        if int(str(d.get("bootindex", "-1")), 0) >= 0:
            self.remarks.append(f"{d['']}: its place in the boot order is not modelled")

    def _boot_function(self, d: Mapping[str, str], dev: int, fn: int, bus: str) -> None:
        """A PCI function's places in the boot order: its own, those of the drives on it.

        Device paths: IEEE 1275, PCI Bus Binding, unit addresses as text.
        """
        where = f"@{dev:x},{fn:x}" if fn else f"@{dev:x}"
        if d[""] in BRIDGES and "id" in d:
            self.bus_paths[d["id"]] = f"{self.bus_paths[bus]}/{BRIDGE_NODE}{where}"
        for index, below in self.boot_drives.get(d["id"], ()) if d.get("id") in self.ahcis else ():
            self._boot(index, f"{self.bus_paths[bus]}/{AHCI_NODE}{where}{below}")
        if d[""] not in BOOTABLE:
            self._boot_unknown(d)
        elif "bootindex" in d:
            node, below = BOOTABLE[d[""]]
            self._boot(int(str(d["bootindex"]), 0), f"{self.bus_paths[bus]}/{node}{where}{below}")

    def _intx(self, bus: str, dev: int) -> str:
        """The wire of INTA# of a function: swizzled by each bridge above, then by the board.

        PCI-to-PCI Bridge Architecture 1.2, 9.1.
        """
        pin = 0
        while bus:
            _, above, number = self.bridges[bus]
            bus, dev, pin = above, number, dev + pin & 3
        if not self.q35:
            return "pirq" + "abcd"[dev - 1 + pin & 3]
        if dev == 30:  # the DMI-to-PCI bridge, whose pins the reference ties to PIRQ E to H
            return "pirq" + "efgh"[pin]
        return "pirq" + "efgh"[dev + pin & 3] if dev < 25 else f"d{dev}{'abcd'[pin]}"

    def _settings(self, d: Mapping[str, Any]) -> dict[str, Any]:
        """Properties of an added device that are settings of ours."""
        kind = d[""]
        given = {k: self._property(kind, d, k) for k in SETTINGS.get(kind, ())}
        own: dict[str, Any] = {k: parse_size(v) if k == "membar" else int(v, 0) for k, v in given.items() if v}
        if kind == "isa-debug-exit" and "iosize" in d:
            own["size"] = int(str(d["iosize"]), 0)
        if d.get("multifunction", "off") == "on":
            own["multifunction"] = True
        return own | ({"action": "none"} if kind in WATCHDOGS and self.watchdog_action != "reset" else {})

    def _isa_part(self, d: Mapping[str, Any], n: int) -> None:
        """A part on the ISA bus: a [[device]] of ours at its ports."""
        kind = d[""]
        at, base, lines = ISA_PARTS[kind]
        at = dict(at)
        if base and base in d:
            at[next(iter(at))] = int(str(d[base]), 0)
        self.added.append(
            (
                d.get("id", f"{kind}-{n}" if n else kind),
                {"type": kind, "at": at, "lines": lines, "config": self._settings(d)},
            )
        )

    def _not_modelled(self, d: Mapping[str, str], where: str = "") -> None:
        """A device, and with it what is on its buses, that we have no part for."""
        self.unmodelled.append((d[""], where))
        if "id" in d:
            self.foreign.add(d["id"])

    def _pci_device(self, d: Mapping[str, str], dev: int, fn: int, bus: str = "") -> None:
        """A PCI function: a [[device]] of ours, or one that is not modelled.

        INTA# of ours is wired as the board swizzles slots.
        """
        bdf, kind = f"00:{dev:02x}.{fn}", PCI_DEVICES.get(d[""])
        if kind is None:
            self._not_modelled(d, "" if bus else bdf)
            return
        if "acpi-index" in d and (bus or not self.q35):
            self.indices.append([bus, dev, int(d["acpi-index"], 0)])
        config: dict[str, Any] = self._settings(d)
        if d[""] in BRIDGES:
            chassis, slot = d.get("chassis_nr", d.get("chassis", "0")), d.get("slot", "0")
            config |= {"chassis": int(chassis, 0), "slot": int(slot, 0)}
            config |= self._bridge_settings(d)
        if kind in ("e1000", "e1000e"):
            config["mac"] = self._mac(d.get("mac", ""))
            net = self.netdevs.get(d.get("netdev", ""), {})
            if net.get("") == "socket" and net.get("fd", "").isdecimal():  # a stream of frames, each behind its length
                config |= {"backend": "stream", "fd": int(net["fd"])}
            config |= self._option_rom(d)
        if kind == "ich9-ahci":
            drives = self.ahcis[d["id"]]
            config.setdefault("multifunction", False)
            config["drives"] = [drives[k] for k in sorted(drives) if k[0] < AHCI_PORTS]
        self.added.append(
            (
                d["id"]
                if not d.get("id", "#").startswith("#")
                else f"{kind}-{bus}-{dev:x}.{fn}"
                if bus
                else f"{kind}-{dev:x}.{fn}",
                {
                    "type": kind,
                    "bdf": bdf,
                    **({"bus": bus} if bus else {}),
                    "lines": {"inta": self._intx(bus, dev), **NOTICES.get(kind, {})},
                    "config": config,
                },
            )
        )

    def _bridge_settings(self, d: Mapping[str, Any]) -> dict[str, Any]:
        """What a bridge asks firmware to keep for cards to come, and how a slot's cards come."""
        out: dict[str, Any] = {}
        for name in BRIDGE_SETTINGS.get(d[""], ()):
            if (text := self._property(d[""], d, name)) not in ("", "auto"):
                key = name.removeprefix("x-").replace("-", "_")
                out[key] = _number(text) if name in RESERVE else _switch(text)
        return out

    def _option_rom(self, d: Mapping[str, str]) -> dict[str, Any]:
        """The option ROM of a network controller: the image that romfile= names, else one of the reference's size."""
        name = d.get("romfile", "unset")
        if not name or d.get("rombar", "1") in ("0", "off"):
            return {}
        size = int(d.get("romsize", "0"), 0)
        if name != "unset":
            length, image = self._medium({"file": name})
            return {"rom": image} | ({"rom_size": size} if size else {}) if image else {"rom_size": size or length}
        return {"rom_size": size or OPTION_ROM}

    def _mac(self, text: str) -> str:
        """A station address: the one given, or the first of QEMU's own that is free."""
        own = 0x525400123456
        number = (
            int(text.replace(":", "").replace("-", ""), 16)
            if text
            else next(n for n in range(own, own + 256) if n not in self.macs)
        )
        self.macs.add(number)
        return number.to_bytes(6, "big").hex(":")


def _place(d: Mapping[str, str], units: int) -> tuple[int, int] | None:
    """(channel, unit) that an IDE drive is given; None: the first one that is free."""
    if "index" in d:
        return divmod(int(d["index"]), units)
    if "bus" in d or "unit" in d:
        return int(d.get("bus", "0")), int(d.get("unit", "0"))
    return None


def _size_of(image: str) -> int:
    """Bytes of a file, or of a block device.  Raises MachineError."""
    try:
        fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait
        try:
            mode, size = os.fstat(fd).st_mode, os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)
    except OSError as e:
        raise MachineError(f"drive image {image}: {e.strerror}") from None
    if not size or not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise MachineError(f"drive image {image}: {'no file with sectors' if size else 'it is empty'}")
    return size


def _mebibytes(text: str) -> int:
    return parse_size(text if text[-1:].isalpha() else text + "M")


def _switch(text: str) -> bool | int:
    return text in ON if text in (*ON, *OFF) else int(text, 0)


def _number(text: str) -> int:
    return int(text, 16) if text.startswith("0x") else parse_size(text)


def _busless(name: str) -> bool:
    prefixes = ("isa-", "scsi-", "usb-", "u2f-")
    return name in BUSLESS or name.endswith("-x86_64-cpu") or (name.startswith(prefixes) and name != "usb-ehci")


def _ranges(text: str) -> list[int]:
    """'0-2,5' -> [0, 1, 2, 5]."""
    out: list[int] = []
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        out += range(int(first), int(last or first) + 1)
    return out


def _value(v: Any) -> str:
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, int):
        return hex(v) if v > 0xFFFF else str(v)
    if isinstance(v, str):
        return json.dumps(v)
    if isinstance(v, list | tuple):
        return "[" + ", ".join(_value(x) for x in v) + "]"
    return "{ " + ", ".join(f"{k if _bare(k) else json.dumps(k)} = {_value(x)}" for k, x in v.items()) + " }"


def _toml(
    board: str,
    ram: int,
    cpus: int,
    facts: Mapping[str, Any],
    remove: Sequence[str],
    tables: Sequence[tuple[str, Mapping[str, Any]]],
) -> str:
    out = ["[board]", f'base = "{board}"', f'ram = "{ram >> 20}M"']
    if cpus != 1:
        out.append(f"cpus = {cpus}")
    if remove:
        out.append(f"remove = {_value(list(remove))}")
    if facts:
        out.append(f"facts = {_value(dict(facts))}")
    for id, table in tables:
        out += ["", "[[device]]", f'id = "{id}"'] + [f"{k} = {_value(v)}" for k, v in table.items()]
    return "\n".join(out) + "\n"


def from_qemu(
    args: Sequence[str], files: Mapping[str, str] | None = None, sizes: Mapping[str, int] | None = None
) -> Imported:
    """The machine that a QEMU command line describes.

    files: paths for {NAME} placeholders; sizes: their sizes in bytes where no file is given.  Raises MachineError for
    a machine that is not modelled or a malformed line.
    """
    one = Importer(files or {}, sizes or {})
    try:
        one.read(args)
        return one.build()
    except (ValueError, KeyError) as e:
        raise MachineError(f"QEMU command line: {e}") from None
