"""What a machine file says: frozen values, read and checked for form; machine/build.py turns them into a plan.

A machine file is TOML with three separable tables: [board] (which board, how it is wired), [[device]] (its parts),
[placement] (who runs where).  `[board] base = "i440fx"` starts from a shipped board: a [[device]] with a known id
changes that device, one with a new id is added, `remove = [ids]` takes away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from engine import toml
from engine.errors import MachineError, reason
from engine.types import Bdf

MAX_WORKERS = 1024
MAX_CPUS = 255
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str | int) -> int:
    """'128M' -> bytes; a plain number is bytes.  Raises ValueError."""
    if isinstance(text, int):
        return text
    m = re.fullmatch(r"(\d+)\s*([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
    if not m:
        raise ValueError(f"{text!r} is no size; write it like 128M")
    return int(m[1]) * _UNITS[m[2].upper()]


@dataclass(frozen=True, slots=True)
class BoardSpec:
    """The [board] table."""

    name: str = "custom"
    title: str = ""
    chipset: str = ""
    config_access: str = "cf8"
    ram: int = 128 << 20
    low_ram: int = 3 << 30
    cpus: int = 1
    pio_unclaimed: str = "ones"
    mmio_unclaimed: str = "zeros"
    observe: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    keyboard: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One [[device]] table.  `at` maps region names to base addresses; `inputs` and `lines` map pin names to wires."""

    id: str
    type: str
    bdf: Bdf | None = None
    at: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)
    peers: Mapping[str, str] = field(default_factory=dict)
    unit: str = ""
    vcpu: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""  # file:line, for messages
    bus: str = ""  # id of the bridge that the function is behind; bdf is then its number there, with bus 00


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One [[placement.worker]] table."""

    devices: tuple[str, ...]
    cpu: int | None = None


@dataclass(frozen=True, slots=True)
class PlacementSpec:
    """The [placement] table.  `workers` 0: everything in the calling process."""

    workers: int = 0
    pin: bool = False
    wait: str = "adaptive"
    ring: int = 4096  # records in each worker's ring, a power of two
    worker: tuple[WorkerSpec, ...] = ()
    sync: tuple[str, ...] = ()  # device ids whose writes are never buffered


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A whole machine file."""

    board: BoardSpec
    devices: tuple[DeviceSpec, ...]
    placement: PlacementSpec = PlacementSpec()
    path: str = ""

    def device(self, id: str) -> DeviceSpec:
        """The device called `id`; KeyError if there is none."""
        for d in self.devices:
            if d.id == id:
                return d
        raise KeyError(id)

    def with_config(self, id: str, **config: Any) -> MachineSpec:
        """The same machine with settings of one device changed; unchanged if it has no such device."""
        devices = tuple(replace(d, config={**d.config, **config}) if d.id == id else d for d in self.devices)
        return replace(self, devices=devices)

    def without(self, *ids: str) -> MachineSpec:
        """The same machine with some devices taken away."""
        return replace(self, devices=tuple(d for d in self.devices if d.id not in ids))


class _Lines:
    """Where in a TOML text a table or key stands, for error messages."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.lines = text.splitlines()

    def table(self, header: str, nth: int = 0, key: str | None = None) -> str:
        """'file:line' of the nth `header` line, or of `key` below it."""
        seen = -1
        for i, line in enumerate(self.lines):
            if line.split("#")[0].strip() == header:
                seen += 1
                if seen == nth:
                    if key is not None:
                        for j in range(i + 1, len(self.lines)):
                            if self.lines[j].lstrip().startswith("["):
                                break
                            if re.match(rf"\s*\"?{re.escape(key)}\"?\s*[.=]", self.lines[j]):
                                return f"{self.path}:{j + 1}"
                    return f"{self.path}:{i + 1}"
        return self.path


def shipped_boards() -> list[str]:
    """Names of the boards in the package."""
    folder = resources.files("engine.machine") / "boards"
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml"))


def load(source: str | Path) -> MachineSpec:
    """A machine file, or a shipped board by name.  Raises MachineError with file and line."""
    text_source = str(source)
    if text_source in shipped_boards():
        text = (resources.files("engine.machine") / "boards" / f"{text_source}.toml").read_text(encoding="utf-8")
        return parse(text, f"{text_source}.toml")
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MachineError(
            f"{source}: no such machine file; shipped boards are {', '.join(shipped_boards())}"
        ) from None
    except (OSError, ValueError) as e:
        raise MachineError(f"{source}: cannot be read ({reason(e)})") from None
    return parse(text, text_source)


_KINDS = {str: "a string", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}


def _typed(where: str, key: str, value: Any, want: type | tuple[type, ...]) -> Any:
    if not isinstance(value, want) or (isinstance(value, bool) and want is int):
        names = " or ".join(_KINDS[t] for t in (want if isinstance(want, tuple) else (want,)))
        raise MachineError(f"{where}: {key} = {value!r} should be {names}")
    return value


def _strings(where: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise MachineError(f"{where}: {key} should be a list of strings")
    return tuple(value)


def _board(raw: Mapping[str, Any], base: BoardSpec, lines: _Lines) -> BoardSpec:
    changes: dict[str, Any] = {}
    known = {f.name for f in fields(BoardSpec)}
    for key, value in raw.items():
        where = lines.table("[board]", 0, key)
        if key in ("base", "remove"):
            continue
        if key not in known:
            raise MachineError(
                f"{where}: unknown key {key!r} in [board]; known are {', '.join(sorted(known | {'base', 'remove'}))}"
            )
        if key in ("ram", "low_ram"):
            try:
                changes[key] = parse_size(_typed(where, key, value, (str, int)))
            except ValueError as e:
                raise MachineError(f"{where}: {key}: {e}") from None
            if not 1 << 20 <= changes[key] <= 1 << 40:
                raise MachineError(f"{where}: {key} = {value!r} should lie between 1M and 1024G")
        elif key == "cpus":
            changes[key] = _typed(where, key, value, int)
            if not 1 <= value <= MAX_CPUS:
                raise MachineError(f"{where}: cpus = {value} should lie between 1 and {MAX_CPUS}")
        elif key == "observe":
            changes[key] = _strings(where, key, value)
        elif key == "external":
            changes[key] = (*base.external, *_strings(where, key, value))
        elif key == "facts":
            changes[key] = {**base.facts, **_typed(where, key, value, dict)}
        else:
            changes[key] = _typed(where, key, value, str)
            choices = {
                "pio_unclaimed": ("ones", "zeros"),
                "mmio_unclaimed": ("ones", "zeros"),
                "config_access": ("cf8", "ecam", "none"),
                "chipset": ("", "i440fx", "q35"),
            }
            if key in choices and value not in choices[key]:
                known_values = ", ".join(filter(None, choices[key]))
                raise MachineError(f"{where}: {key} = {value!r}; choose one of {known_values}")
    return replace(base, **changes)


_DEVICE_KEYS = {f.name for f in fields(DeviceSpec)} - {"source"}


def _device(raw: Mapping[str, Any], there: Mapping[str, DeviceSpec], nth: int, lines: _Lines) -> DeviceSpec:
    where = lines.table("[[device]]", nth)
    _typed(where, "device", raw, dict)
    for key in raw:
        if key not in _DEVICE_KEYS:
            raise MachineError(
                f"{lines.table('[[device]]', nth, key)}: unknown key {key!r} in [[device]]; known are "
                f"{', '.join(sorted(_DEVICE_KEYS))}"
            )
    id = _typed(where, "id", raw.get("id"), str)
    if not id or not id.isprintable() or "/" in id:
        raise MachineError(f"{where}: id = {id!r} is no name: messages and files have it in them")
    base = there.get(id)
    if base is None and "type" not in raw:
        raise MachineError(f"{where}: device {id!r} has no type, and the board has no device of that id to change")
    changes: dict[str, Any] = {"id": id, "source": where}
    for key, value in raw.items():
        at = lines.table("[[device]]", nth, key)
        if key == "bdf":
            try:
                changes[key] = Bdf.parse(_typed(at, key, value, str))
            except ValueError as e:
                raise MachineError(f"{at}: device {id!r}: {e}") from None
        elif key in ("at", "inputs", "lines", "peers", "config"):
            old = dict(getattr(base, key)) if base is not None else {}
            new = _typed(at, key, value, dict)
            want = int if key == "at" else str
            if key != "config":
                for name, v in new.items():
                    if v is not False:
                        _typed(at, f"{key}.{name}", v, want)
            merged = {**old, **new}
            changes[key] = {k: v for k, v in merged.items() if key == "config" or v is not False}
        elif key == "vcpu":
            changes[key] = _typed(at, key, value, int)
            if not 0 <= value < MAX_CPUS:
                raise MachineError(f"{at}: device {id!r}: vcpu = {value} should lie between 0 and {MAX_CPUS - 1}")
        else:
            changes[key] = _typed(at, key, value, str)
    return replace(base, **changes) if base is not None else DeviceSpec(**changes)


def check_workers(workers: int, where: str) -> int:
    """The number of workers, 1 to 1024.  Raises MachineError."""
    if not 1 <= workers <= MAX_WORKERS:
        raise MachineError(
            f"{where}: workers = {workers} should lie between 1 and {MAX_WORKERS}; without workers use the local path"
        )
    return workers


def _placement(raw: Mapping[str, Any], lines: _Lines) -> PlacementSpec:
    known = {f.name for f in fields(PlacementSpec)}
    out: dict[str, Any] = {}
    for key, value in raw.items():
        where = lines.table("[placement]", 0, key)
        if key not in known:
            raise MachineError(f"{where}: unknown key {key!r} in [placement]; known are {', '.join(sorted(known))}")
        if key == "workers":
            out[key] = check_workers(_typed(where, key, value, int), where)
        elif key == "pin":
            out[key] = _typed(where, key, value, bool)
        elif key == "wait":
            if value not in ("spin", "adaptive", "block"):
                raise MachineError(f"{where}: wait = {value!r}; choose spin, adaptive or block")
            out[key] = value
        elif key == "ring":
            if not 2 <= _typed(where, key, value, int) <= 1 << 20 or value & (value - 1):
                raise MachineError(f"{where}: ring = {value} should be a power of two from 2 to {1 << 20}")
            out[key] = value
        elif key == "sync":
            out[key] = _strings(where, key, value)
        elif key == "worker":
            rows = []
            for i, row in enumerate(_typed(where, key, value, list)):
                here = lines.table("[[placement.worker]]", i)
                odd = set(_typed(here, "worker", row, dict)) - {"devices", "cpu"}
                if odd:
                    raise MachineError(
                        f"{here}: unknown key {sorted(odd)[0]!r} in [[placement.worker]]; known are cpu, devices"
                    )
                cpu = _typed(here, "cpu", row["cpu"], int) if "cpu" in row else None
                rows.append(WorkerSpec(_strings(here, "devices", row.get("devices", [])), cpu))
            out[key] = tuple(rows)
    if out.get("worker"):
        n = out.setdefault("workers", len(out["worker"]))
        if n != len(out["worker"]):
            raise MachineError(
                f"{lines.table('[placement]')}: workers = {n}, "
                f"but there are {len(out['worker'])} [[placement.worker]] tables"
            )
    return PlacementSpec(**out)


def parse(text: str, path: str = "machine.toml") -> MachineSpec:
    """A machine file's text.  Raises MachineError naming file and line."""
    lines = _Lines(path, text)
    raw = toml.parse(text, path, MachineError)
    odd = set(raw) - {"board", "device", "placement"}
    if odd:
        name = sorted(odd)[0]
        raise MachineError(
            f"{lines.table(f'[{name}]')}: unknown table {name!r}; a machine file has board, device and placement"
        )
    board_raw = _typed(path, "board", raw.get("board", {}), dict)
    base = None
    if "base" in board_raw:
        name = _typed(lines.table("[board]", 0, "base"), "base", board_raw["base"], str)
        if name not in shipped_boards():
            raise MachineError(
                f"{lines.table('[board]', 0, 'base')}: unknown board {name!r}; "
                f"shipped are {', '.join(shipped_boards())}"
            )
        base = load(name)
    board = _board(board_raw, base.board if base else BoardSpec(), lines)
    devices = {d.id: d for d in base.devices} if base else {}
    for id in _strings(lines.table("[board]", 0, "remove"), "remove", board_raw.get("remove", [])):
        if id not in devices:
            raise MachineError(
                f"{lines.table('[board]', 0, 'remove')}: remove names {id!r}, which the board does not have"
            )
        del devices[id]
    seen: dict[str, str] = {}
    for nth, row in enumerate(_typed(path, "device", raw.get("device", []), list)):
        d = _device(row, devices, nth, lines)
        if d.id in seen:
            raise MachineError(f"{d.source}: device {d.id!r} stands twice; first at {seen[d.id]}")
        seen[d.id] = d.source
        devices[d.id] = d
    if not devices:
        raise MachineError(f'{path}: no devices; give [board] base = "i440fx" or [[device]] tables')
    return MachineSpec(
        board,
        tuple(devices.values()),
        _placement(_typed(path, "placement", raw.get("placement", {}), dict), lines),
        path,
    )


def load_placement(path: str | Path) -> PlacementSpec:
    """The [placement] table of a TOML file; other tables of a machine file may stand beside it.

    Raises MachineError.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MachineError(f"{path}: no such placement file") from None
    except (OSError, UnicodeDecodeError) as e:
        raise MachineError(f"{path}: cannot be read ({reason(e)})") from None
    raw = toml.parse(text, str(path), MachineError)
    odd = set(raw) - {"board", "device", "placement"}
    if odd or "placement" not in raw:
        raise MachineError(f"{path}: " + (f"unknown table {sorted(odd)[0]!r}" if odd else "no [placement] table"))
    got = _placement(_typed(str(path), "placement", raw["placement"], dict), _Lines(str(path), text))
    if not got.workers:
        raise MachineError(f"{path}: [placement] names neither workers nor [[placement.worker]] tables")
    return got
