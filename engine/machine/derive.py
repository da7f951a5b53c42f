"""What a board works out from the rest of its file: CMOS bytes, firmware-configuration items, RAM straps.

Settings that the file gives itself are left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from engine.machine.cmos import Disk, pc_cmos
from engine.machine.fw_cfg_items import Facts, machine_items, memory
from engine.machine.spec import DeviceSpec, MachineSpec

CHIPSET = {"i440fx": "pc", "q35": "q35"}


def _ide_disks(d: DeviceSpec) -> list[Disk | None]:
    out: list[Disk | None] = [None] * 4
    for drive in d.config.get("drives", ()):
        if drive.get("kind") == "disk":
            out[drive["channel"] * 2 + drive["unit"]] = Disk.of_size(drive["size"] // 512)
    return out


def _floppy(d: DeviceSpec, n: int) -> str:
    """CMOS type of a floppy drive: as given, else by its disk, else the reference's choice for an empty drive."""
    given = d.config.get(f"type_{'ab'[n]}", "auto")
    if given != "auto":
        return str({"120": "1.2M", "144": "1.44M", "288": "2.88M"}.get(given, given))
    image = d.config.get(f"image_{'ab'[n]}", "")
    size = Path(image).stat().st_size if image and Path(image).is_file() else 0
    return "2.88M" if not size or size > 1474560 else "1.2M" if size == 1228800 else "1.44M"


def derive(spec: MachineSpec) -> MachineSpec:
    """The same machine with its derived settings filled in.  Raises MachineError."""
    board = spec.board
    if board.chipset not in CHIPSET:
        return spec
    own = dict(board.facts)
    disks: list[Disk | None] = []
    floppies: list[str | None] = []
    dma, hpet = True, False
    for d in spec.devices:
        if d.type == "piix3-ide":
            disks = _ide_disks(d)
        elif d.type == "fdc":
            floppies = [_floppy(d, n) for n in range(d.config.get("drives", 1))]
        elif d.type == "fw-cfg":
            dma = d.config.get("dma_enabled", True)
        elif d.type == "hpet":
            hpet = True
    boot = {"boot_order": own.pop("boot_order", "cad"), "check_floppy_signature": own.pop("check_floppy_signature", True)}
    given: dict[str, Any] = {"machine": CHIPSET[board.chipset], "ram": board.ram, "cpus": board.cpus, "dma": dma, "hpet": hpet, **own}
    given["uuid"] = UUID(given["uuid"]).bytes if given.get("uuid") else b""
    for name in ("kernel", "initrd"):
        if isinstance(given.get(name), str):
            given[name] = Path(given[name]).read_bytes() if given[name] else None
    facts = Facts.checked(given, spec.path or "machine")
    low = sum(size for base, size in memory(facts) if base == 0)
    for d in spec.devices:
        if d.type == "mc146818" and "cmos" not in d.config:
            cmos = pc_cmos(board.ram, below_4g=low, cpus=board.cpus, floppies=floppies, disks=disks, **boot)
            spec = spec.with_config(d.id, cmos={str(k): v for k, v in cmos.items()})
        elif d.type == "fw-cfg" and "items" not in d.config:
            spec = spec.with_config(d.id, items=machine_items(facts))
        elif d.type == "i440fx" and "ram_mib" not in d.config:
            spec = spec.with_config(d.id, ram_mib=low >> 20)
    return spec
