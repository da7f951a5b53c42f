"""What a board works out from the rest of its file: CMOS bytes, firmware-configuration items, RAM straps.

Settings that the file gives itself are left alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from engine.errors import MachineError, blame
from engine.machine.cmos import Disk, pc_cmos
from engine.machine.fw_cfg_items import Facts, apic_id, machine_items, memory
from engine.machine.spec import DeviceSpec, MachineSpec
from engine.registry import device_class

CHIPSET = {"i440fx": "pc", "q35": "q35"}
DISKS = {"i440fx": "piix3-ide", "q35": "ich9-ahci"}  # whose first function's disks the board writes into CMOS RAM
FLOPPY_DRIVES = {"120": "1.2M", "144": "1.44M", "288": "2.88M"}  # the controller's names, and those of pc_cmos
HOST_BRIDGES = ("i440fx", "q35-mch")
POWER_MANAGEMENT = ("piix4-pm", "ich9-lpc")
ENDPOINTS = ("e1000e",)  # PCI Express functions that are not bridges
# PCI functions that are part of the board, and display adapters; bridges stay, too.
STAY = ("i440fx", "piix3", "piix3-ide", "piix4-pm", "vga", "q35-mch", "ich9-lpc", "ich9-ahci", "ich9-smbus")
PORTS = {
    0x3F8: "serial1",
    0x2F8: "serial2",
    0x378: "parallel",
    0x3F1: "floppy",
}  # base address -> what it is called in a power management part

_zero = re.compile(r"(?<!\d)0(?!\d)")  # the vCPU's number in the name of a wire


def _disk(drive: dict[str, Any]) -> Disk | None:
    """The geometry the board finds on a disk: as given, else from its partition table, else from its size.

    None: it has no size and no image with sectors, which the controller refuses.
    """
    size, translation = drive.get("size"), drive.get("translation")
    if drive.get("chs"):
        cylinders, heads, per_track = drive["chs"]
        return Disk(cylinders, heads, per_track, translation)
    first, path = b"", Path(drive.get("image") or "")
    if path.is_file() or path.is_block_device():
        with path.open("rb") as image:
            first = image.read(512)
            size = image.seek(0, os.SEEK_END) if size is None else size
    if not size:
        return None
    disk = Disk.of_content(size // 512, first)
    return disk if translation is None else disk._replace(translation=translation)


def _ide_disks(d: DeviceSpec) -> list[Disk | None]:
    out: list[Disk | None] = [None] * 4
    for drive in d.config.get("drives", ()):
        if drive.get("kind", "disk") == "disk" and drive.get("channel", 0) < 2:
            out[drive.get("channel", 0) * 2 + drive.get("unit", 0)] = _disk(drive)
    return out


def _is_bridge(d: DeviceSpec) -> bool:
    """Whether a bus lies behind a device.  A type that nobody knows is refused, by file and line, where it is built."""
    try:
        return hasattr(device_class(d.type), "secondary_bus")
    except MachineError:
        return False


def _hotplug_buses(spec: MachineSpec) -> list[list[Any]]:
    """The buses that functions can be put on and taken from: [name, slots that stay], as the reference numbers them.

    The root bus, if it is one of them, then those behind bridges, each before what is behind it, the last bridge first.
    """
    bridges = [d for d in spec.devices if _is_bridge(d)]

    def below(bus: str) -> list[str]:
        return [name for d in reversed(bridges) if d.bus == bus for name in (d.id, *below(d.id))]

    def staying(bus: str) -> int:
        return sum(
            {1 << d.bdf.device for d in spec.devices if d.bdf and d.bus == bus and (d in bridges or d.type in STAY)}
        )

    root = [""] if spec.board.chipset == "i440fx" else []  # of a q35 nothing on bus 0 can be exchanged
    return [[bus, staying(bus)] for bus in (*root, *below(""))]


def _power_management(spec: MachineSpec, d: DeviceSpec, facts: Facts) -> dict[str, Any]:
    """Settings of the power management part that tell what else the machine has."""
    most = max(spec.board.cpus, facts.max_cpus)
    ids = [apic_id(facts, n) for n in range(most)]
    own: dict[str, Any] = {
        "cpus": spec.board.cpus,
        "max_cpus": most,
        "cpu_ids": ids if ids != list(range(most)) else [],
        "hotplug_buses": _hotplug_buses(spec),
    }
    present = {PORTS[base] for other in spec.devices for base in other.at.values() if base in PORTS}
    own |= {name: name in present for name in PORTS.values() if name in device_class(d.type).CONFIG}
    return {k: v for k, v in own.items() if k not in d.config}


def each_vcpu(first: DeviceSpec, vcpu: int, apic_id: int) -> DeviceSpec:
    """What a further vCPU has where the first one has this: lapic0, lapic1, ..."""
    return replace(
        first,
        id=f"{first.id.removesuffix('0')}{vcpu}",
        vcpu=vcpu,
        lines={pin: _zero.sub(str(vcpu), wire) for pin, wire in first.lines.items()},
        config={**first.config, "apic_id": apic_id, "bsp": False},
    )


def _vcpus(spec: MachineSpec, apic_ids: list[int]) -> MachineSpec:
    """Each further vCPU gets what the first one has for itself, unless the file gives any of them theirs."""
    devices = list(spec.devices)
    for first in [d for d in spec.devices if d.vcpu == 0]:
        before = first
        if not any(d.type == first.type and d.vcpu for d in spec.devices):
            for vcpu in range(1, spec.board.cpus):
                one = each_vcpu(first, vcpu, apic_ids[vcpu])
                before = replace(one, peers={**first.peers, "before": before.id})
                devices.append(before)
    return replace(spec, devices=tuple(devices))


def _content(what: Any) -> bytes | int:
    """A file for the firmware, as `facts` give it: bytes, their number, text, {path = FILE}."""
    if isinstance(what, str):
        return what.encode()
    if isinstance(what, Mapping):
        try:
            return Path(what["path"]).read_bytes()
        except (OSError, KeyError, TypeError) as e:
            raise MachineError(f"facts: files: {getattr(e, 'strerror', None) or e}: {what}") from None
    return what  # type: ignore[no-any-return]


def _floppy(d: DeviceSpec, n: int) -> str:
    """CMOS type of a floppy drive: as given, else by its disk, else the reference's choice for an empty drive."""
    given = d.config.get(f"type_{'ab'[n]}", "auto")
    if given != "auto":
        return FLOPPY_DRIVES.get(given, str(given))
    image = d.config.get(f"image_{'ab'[n]}", "")
    size = Path(image).stat().st_size if image and Path(image).is_file() else d.config.get(f"size_{'ab'[n]}", 0)
    return FLOPPY_DRIVES[device_class(d.type).drive_for(size)]  # type: ignore[attr-defined]


def _endpoints(spec: MachineSpec) -> MachineSpec:
    """Each PCI Express function is told whether it is on a root complex's own bus: an i440fx has none."""
    root = spec.board.chipset != "i440fx"
    for d in spec.devices:
        if d.type in ENDPOINTS and "integrated" not in d.config:
            spec = spec.with_config(d.id, integrated=root and not d.bus)
    return spec


def derive(spec: MachineSpec) -> MachineSpec:
    """The same machine with its derived settings filled in.  Raises MachineError."""
    with blame(f"{spec.path or 'machine'}: the board's facts"):
        return _derived(_endpoints(spec))


def _derived(spec: MachineSpec) -> MachineSpec:
    board = spec.board
    if board.chipset not in CHIPSET:
        return _vcpus(spec, list(range(board.cpus)))
    own = dict(board.facts)
    disks: list[Disk | None] = []
    floppies: list[str | None] = []
    dma, hpet = True, False
    for d in spec.devices:
        if d.type == DISKS[board.chipset] and not disks:
            with blame(f"{d.source}: device {d.id!r}: its drives"):
                disks = _ide_disks(d)
        elif d.type == "fdc":
            with blame(f"{d.source}: device {d.id!r}: its drives"):
                drives = min(d.config.get("drives", 1), 2)  # the controller refuses more
                floppies = [_floppy(d, n) for n in range(drives)]
        elif d.type == "fw-cfg":
            dma = d.config.get("dma_enabled", True)
        elif d.type == "hpet":
            hpet = True
        elif d.type == "pvpanic" and d.at:
            port = next(iter(d.at.values()))
            own["files"] = {**own.get("files", {}), "etc/pvpanic-port": port.to_bytes(2, "little")}
    boot = {
        "boot_order": own.pop("boot_order", "cad"),
        "check_floppy_signature": own.pop("check_floppy_signature", True),
    }
    given: dict[str, Any] = {
        "machine": CHIPSET[board.chipset],
        "ram": board.ram,
        "cpus": board.cpus,
        "dma": dma,
        "hpet": hpet,
        **own,
    }
    given["uuid"] = UUID(given["uuid"]).bytes if given.get("uuid") else b""
    given["files"] = {name: _content(what) for name, what in given.get("files", {}).items()}
    for name in ("kernel", "initrd"):
        if isinstance(given.get(name), str):
            given[name] = Path(given[name]).read_bytes() if given[name] else None
    facts = Facts.checked(given, spec.path or "machine")
    spec = _vcpus(spec, [apic_id(facts, n) for n in range(board.cpus)])
    low = sum(size for base, size in memory(facts) if base == 0)
    for d in spec.devices:
        if d.type == "mc146818" and "cmos" not in d.config:
            cmos = pc_cmos(board.ram, below_4g=low, cpus=board.cpus, floppies=floppies, disks=disks, **boot)
            spec = spec.with_config(d.id, cmos={str(k): v for k, v in cmos.items()})
        elif d.type == "fw-cfg" and "items" not in d.config:
            spec = spec.with_config(d.id, items=machine_items(facts))
            if facts.files_by_kind:
                spec = spec.with_config(d.id, sorted_files=False)
        elif d.type in HOST_BRIDGES and "ram_mib" not in d.config:
            spec = spec.with_config(d.id, ram_mib=low >> 20)
        elif d.type in POWER_MANAGEMENT:
            spec = spec.with_config(d.id, **_power_management(spec, d, facts))
    return replace(spec, board=replace(board, low_ram=low))
