"""What a guest looks for and does not find: a machine with a recorder behind all else, and its record as a file.

`with_recorder` adds the device to a machine's spec, `take` fetches its record from the running machine, `write` makes
a trace (.npz, for `engine trace`) or a list for people and machines (.json) of it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine._abi import ACC
from engine.errors import UsageError
from engine.frontends.trace import DMA, EVT
from engine.machine import Machine
from engine.machine.spec import DeviceSpec, MachineSpec
from engine.types import Space

RECORDER = "recorder"
REGIONS = ("ports|recorder", "memory|recorder")


def with_recorder(spec: MachineSpec, **config: Any) -> MachineSpec:
    """The same machine with a recorder (engine.devices.recorder; config: its settings); as it is if it has one."""
    if any(d.type == RECORDER for d in spec.devices):
        return spec
    at = {"ports": 0} | {f"memory{n}": n << 32 for n in range(config.get("windows", 1))}
    answers = {
        "pio_answer": -(spec.board.pio_unclaimed == "ones"),
        "mmio_answer": -(spec.board.mmio_unclaimed == "ones"),
    }
    return replace(spec, devices=(*spec.devices, DeviceSpec(RECORDER, RECORDER, at=at, config=answers | config)))


def take(machine: Machine) -> npt.NDArray[Any]:
    """The record so far, oldest first, as ACC records; a read's value is what it was answered."""
    for p in machine.plan.devices:
        if p.spec.type == RECORDER:
            return np.frombuffer(machine.call(p.id, "recorded"), ACC)
    raise UsageError(
        "the machine has no recorder; use engine.frontends.unknown.with_recorder, or add a device of that type"
    )


def summary(acc: npt.NDArray[Any]) -> list[dict[str, Any]]:
    """One row for each address, width and direction, most often first: space, addr, size, dir, count, first_ns,
    last_ns, value (the last one)."""
    keys = ["space", "addr", "size", "dir"]
    rows = []
    for one in np.unique(acc[keys]):
        mine = acc[acc[keys] == one]
        rows.append(
            {
                "space": Space(int(one["space"])).name.lower(),
                "addr": hex(int(one["addr"])),
                "size": int(one["size"]),
                "dir": ("read", "write")[int(one["dir"])],
                "count": len(mine),
                "first_ns": int(mine["t_ns"][0]),
                "last_ns": int(mine["t_ns"][-1]),
                "value": hex(int(mine["value"][-1])),
            }
        )
    rows.sort(key=lambda r: -r["count"])  # type: ignore[operator]
    return rows


def check_path(path: str | Path) -> Path:
    """A path that write() can be asked for.  Raises UsageError."""
    p = Path(path)
    if p.suffix not in (".npz", ".json"):
        raise UsageError(f"{p}: a record is written as a trace, .npz, or as a list, .json")
    if not p.parent.is_dir():
        raise UsageError(f"{p}: there is no folder {p.parent}")
    return p


def write(acc: npt.NDArray[Any], path: str | Path) -> None:
    """A record as a file: .npz a trace, .json the summary.  Raises UsageError."""
    p = check_path(path)
    try:
        if p.suffix == ".json":
            p.write_text(json.dumps({"accesses": len(acc), "unknown": summary(acc)}, indent=1) + "\n")
        else:
            empty = {"evt": np.zeros(0, EVT), "dma": np.zeros(0, DMA), "dma_data": np.zeros(0, np.uint8)}
            np.savez_compressed(p, acc=acc, regions=np.array(REGIONS), version=np.array([1]), **empty)  # type: ignore[arg-type]
    except OSError as e:
        raise UsageError(f"{p}: {e.strerror}") from None
