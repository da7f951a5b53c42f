"""Differential runs: one program of accesses on the engine and on another implementation, every answer and line change compared.

A program is an array of engine.ACC records whose times are the clock; records of the spaces ACK, KEY and LINE are an interrupt taken, a
key typed and an input line driven.  `Generator` makes programs from register maps, `EngineSide` and `QemuSide` run them from power-on,
`compare` finds the first difference that no entry of engine/data/differences.toml explains, `minimise` makes the program short.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine._abi import ACC
from engine._device import INTACK, KEY as KEY_INPUT, LINE as LINE_INPUT
from engine.data import FOLDER
from engine.errors import EngineError, UsageError
from engine.machine import Machine
from engine.machine.build import CONFIG_REGION, Plan, PlannedDevice, plan
from engine.machine.derive import derive
from engine.machine.qemu_args import from_qemu
from engine.machine.spec import MachineSpec
from engine.sequencer import INPUT
from engine.types import RO, RW, WO, Register, Space

Array = npt.NDArray[Any]

BOARDS = {
    "i440fx": ["-M", "pc", "-m", "128", "-nodefaults", "-vga", "std", "-serial", "null", "-parallel", "null", "-rtc",
               "base=2024-01-01T00:00:00,clock=vm", "-chardev", "null,id=debug", "-device", "isa-debugcon,iobase=0x402,chardev=debug",
               "-device", "e1000,romfile=,mac=52:54:00:12:34:56,addr=3"],
}  # fmt: skip
ACK, KEY, LINE = 8, 9, 10  # spaces of records that are no accesses
CONTROL, CONTROL_BYTES = 0xFE00, 16  # ports of the reference's control registers: tools/accel_qtest.c
EVENTS = {"i8259": (ACK, ACK, LINE), "ioapic": (ACK, LINE, LINE), "lapic": (ACK, ACK, LINE), "i8042": (KEY, ACK)}
LINES = (3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15)  # interrupts that no part raises while another is under test
LATCH, DATA = 0xCF8, 0xCFC
PIO_BARS, MMIO_BARS = 0xC000, 0xE0000000
DEFAULT_STEP_NS = 50_000_000
ROM_BYTES = 1 << 16  # of zeros, where a firmware would be: what devices read there by DMA is the same on both sides
BLOCK = 512  # qtest requests under way at once
IDLE = 2  # requests of their own after which what QEMU has put off is done
MINIMISE_S, MINIMISE_RUNS = 30.0, 400
ANSWER_S = 20


# ---------------------------------------------------------------------- what is known beside the register maps


def _holds(rule: Mapping[str, Any], value: int, present: int) -> bool:
    """The condition of an [[excluded]] entry for the bytes of its register that a write has: see docs/diff.md."""
    bits = int(rule.get("bits", 0))
    if "below" in rule:
        return value & (bits or -1) < int(rule["below"])
    if "value" in rule:
        return bits & present == bits and value & bits == int(rule["value"])
    return not bits or value & bits & present != 0


@dataclass(slots=True)
class Entry:
    """One [[difference]] or [[excluded]] entry, and how often it was met."""

    raw: Mapping[str, Any]
    part: str
    register: str
    condition: str
    section: str
    reason: str
    count: int = 0

    @property
    def bits(self) -> int:
        """Bits of the register that may differ."""
        return int(self.raw.get("bits", -1))


def load_entries(path: Path = FOLDER / "differences.toml") -> dict[str, Any]:
    """The file's tables, checked.  Raises UsageError for an entry that names no single register and condition."""
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise UsageError(f"{path}: cannot be used ({e})") from None
    for table in ("difference", "excluded", "deferred"):
        for n, row in enumerate(raw.get(table, [])):
            missing = [k for k in ("part", "register", "condition", "section", "reason") if not isinstance(row.get(k), str) or not row[k].strip("* ")]
            if missing:
                raise UsageError(f"{path}: {table} {n + 1}: {missing[0]} is missing; an entry names one part, one register and one condition")
    return raw


@dataclass(frozen=True, slots=True)
class Window:
    """One region of a part where the guest sees it."""

    region: int
    space: int  # a Space; CONFIG: base is the function's number << 32
    base: int
    size: int
    accepts: tuple[int, ...]
    direct: tuple[Register, ...]
    indexed: tuple[tuple[int, int, Register], ...]  # offset and bytes of the index register, and the register


@dataclass(slots=True)
class Part:
    """A device under test."""

    id: str
    type: str
    windows: list[Window]
    number: int | None  # PCI function number
    bases: dict[int, tuple[int, int]] = field(default_factory=dict)  # config offset of a base address register -> (value, size)


class Board:
    """The board both sides are: its parts with their addresses, the entries that concern them, the program every run begins with."""

    def __init__(self, name: str, entries: Mapping[str, Any] | None = None) -> None:
        if name not in BOARDS:
            raise UsageError(f"board {name!r}: choose one of {', '.join(BOARDS)}")
        self.name = name
        self.args = BOARDS[name]
        self.spec: MachineSpec = derive(from_qemu(self.args).spec(f"{name} of engine diff"))
        self.raw = load_entries() if entries is None else dict(entries)
        probes: dict[str, Any] = {}
        self.plan: Plan = plan(self.spec, probes)
        self.mappings = {id: list(getattr(d, "mappings", tuple)()) for id, d in probes.items()}
        self.parts: dict[str, Part] = {}
        ports, memory = PIO_BARS, MMIO_BARS
        for p in self.plan.devices:
            part = Part(p.id, p.spec.type, [], p.spec.bdf.number if p.spec.bdf else None)
            placed = {q.index: q.base for q in self.plan.placed if q.rank == p.rank}
            if part.number is not None:
                for n, r in enumerate(p.regions[:6]):
                    if not r.size:
                        continue
                    if r.space == Space.PIO:
                        ports = -(-ports // max(r.size, 16)) * max(r.size, 16)
                        placed[n], ports = ports, ports + r.size
                    else:
                        memory = -(-memory // max(r.size, 4096)) * max(r.size, 4096)
                        placed[n], memory = memory, memory + r.size
                    part.bases[0x10 + 4 * n] = (placed[n], r.size)
            self._fixed(part, p, placed)
            part.windows = [self._window(p, i, base) for i, base in sorted(placed.items())]
            self.parts[p.id] = part
        self.differences, self.excluded = (
            [Entry(r, r["part"], r["register"], r["condition"], r["section"], r["reason"]) for r in self.raw.get(t, [])] for t in ("difference", "excluded")
        )
        self.moved = Entry({}, "any PCI function", "base address registers", "an address that is not one of the part's own", "PCI 3.0 6.2.5.1",
                           "what answers where two ranges overlap is the board's affair and not the part's")  # fmt: skip
        self._keys()
        slow = {(e["part"], e["register"]) for e in self.raw.get("deferred", [])}
        self.deferred = [w.base + r.offset for p in self.parts.values() for w in p.windows for r in w.direct
                         if w.space == Space.PIO and (p.type, r.name) in slow]  # fmt: skip

    def _fixed(self, part: Part, p: PlannedDevice, placed: dict[int, int]) -> None:
        """Ranges that [[setup]] turns on: where the function's own mapping registers put them."""
        ranges = {0x40: ("pm-event", "pm-control", "pm-timer"), 0x90: ("smbus",)} if part.type == "piix4-pm" else {}
        offsets = {"pm-event": 0, "pm-control": 4, "pm-timer": 8, "smbus": 0}
        for row in self._setup(part.type):
            for reg, names in ranges.items():
                if row[0] == reg:
                    for n, r in enumerate(p.regions):
                        if r.name in names:
                            placed[n] = (row[2] & ~1) + offsets[r.name]

    def _setup(self, type: str) -> list[list[int]]:
        return [w for s in self.raw.get("setup", []) if s["part"] == type for w in s.get("config", [])]

    def _window(self, p: PlannedDevice, index: int, base: int) -> Window:
        r = p.regions[index]
        how = {(i["region"], i["data"]): i for i in self.raw.get("index", []) if i["part"] == p.spec.type}
        same = next((i["same"] for i in self.raw.get("index", []) if i["part"] == p.spec.type and i["region"] == r.name and "same" in i), r.name)
        source = next(n for n, x in enumerate(p.regions) if x.name == same)
        registers = [x for x in p.cls.REGISTERS if x.region in (index, source)]
        registers += [Register(x["name"], x["offset"], x["width"], RW, None, -1 & (1 << x["width"]) - 1) for x in self.raw.get("register", [])
                      if x["part"] == p.spec.type and x["region"] == r.name]  # fmt: skip
        return Window(
            index, r.space, base, r.size, r.accepts, tuple(x for x in registers if x.index is None),
            tuple((i["at"], i.get("width", 8) // 8, x) for x in registers if x.index is not None for i in [how[r.name, x.offset]]))  # fmt: skip

    def _keys(self) -> None:
        """Byte address -> the entries about it, so that a look at an access is one look at a table."""
        self.rules: dict[tuple[int, int], list[tuple[str, Entry, int, int | None]]] = {}  # kind, entry, byte of the register, index
        self.index_ports: dict[tuple[int, int], tuple[int, int]] = {}  # data port -> index port and its bytes
        self.base_bytes: dict[int, tuple[Part, int]] = {}
        self.single: set[tuple[int, int]] = set()  # ranges of one byte, whose register every byte of a wide access meets
        for part in self.parts.values():
            named = {r for b in self.raw.get("base", []) if b["part"] == part.type for r in b["registers"]}
            for w in part.windows:
                mirrors = {r.name: [0, *self._mirrors(part.type, r.name)] for r in w.direct}
                for r in w.direct:
                    if w.space == Space.CONFIG and r.name in named:
                        self.base_bytes |= {w.base + r.offset + n: (part, r.offset) for n in range(r.width // 8)}
                for at, width, r in w.indexed:
                    self.index_ports[w.space, w.base + r.offset] = (w.base + at, width)
                for kind, entries in (("difference", self.differences), ("excluded", self.excluded)):
                    for e in entries:
                        if e.part != part.type:
                            continue
                        for r, index in [(r, None) for r in w.direct] + [(r, r.index) for _, _, r in w.indexed]:
                            for name in {e.register, e.raw.get("after", {}).get("register", e.register)}:
                                if r.name == name:
                                    use = kind if name == e.register else "after"
                                    for n in range(r.width // 8):
                                        for away in mirrors[name] if index is None else (0,):
                                            self.rules.setdefault((w.space, w.base + r.offset + away + n), []).append((use, e, n, index))
                                    if w.size == 1 and index is None:
                                        self.single.add((w.space, w.base))
            if part.number is not None:
                base = part.number << 32
                self.base_bytes |= {base + n: (part, n & ~3) for n in [*range(0x10, 0x28), *range(0x30, 0x34)]}

    def _mirrors(self, type: str, register: str) -> list[int]:
        return [away for e in self.raw.get("excluded", []) if e["part"] == type and e["register"] == register for away in e.get("mirrors", [])]

    def preamble(self, under_test: Part | None = None) -> list[tuple[int, int, int, int, int]]:
        """(space, address, bytes, 1, value) of the writes that place every function's ranges, and of a part's own set-up."""
        out: list[tuple[int, int, int, int, int]] = []
        for s in self.raw.get("setup", []):
            if under_test is not None and s["part"] == under_test.type:
                out += [(Space.PIO, port, size, 1, value) for port, size, value in s.get("ports", [])]
        for part in self.parts.values():
            if part.number is None:
                continue
            rows = [(reg, 4, base) for reg, (base, _) in part.bases.items()] + [tuple(r) for r in self._setup(part.type)] + [(4, 2, 7)]
            for reg, size, value in rows:
                out += [(Space.PIO, LATCH, 4, 1, 1 << 31 | part.number << 8 | reg & 0xFC), (Space.PIO, DATA + (reg & 3), size, 1, value)]
        return out

    def late(self, program: Array) -> Array:
        """For each record whether the reference may put off what it does: an access to a register of [[deferred]]."""
        out = np.zeros(len(program), bool)
        if self.deferred:
            for n in range(8):
                out |= (program["space"] == Space.PIO) & (program["dir"] == 1) & (program["size"] > n) & np.isin(program["addr"] + np.uint64(n), self.deferred)
        return out

    def select(self, names: Sequence[str]) -> list[Part]:
        """Parts by device id or type; all of them for no names.  Raises UsageError."""
        for n in names:
            if not any(n in (p.id, p.type) for p in self.parts.values()):
                raise UsageError(f"{n!r} is no part of the {self.name} board; parts are {', '.join(self.parts)}")
        return [p for p in self.parts.values() if not names or p.id in names or p.type in names]


class Filter:
    """Follows a program and says which records may not be made; `count` adds to the entries' counters."""

    def __init__(self, board: Board, count: bool = False) -> None:
        self.board, self.count = board, count
        self.latch = 0
        self.index: dict[int, int] = {}
        self.last: dict[int, int] = {}  # id of an entry -> last value of its `after` register
        self.watched = {at for at, _ in board.index_ports.values()}
        self.touched: list[tuple[str, Entry, int, int | None]] = []

    def _bytes(self, space: int, addr: int, size: int) -> Iterable[tuple[int, int]]:
        """What each byte of an access reaches: a space and an address, that of configuration space behind its window."""
        if (space, addr) in self.board.single:  # a range of one byte takes every byte of a wide access
            for _ in range(size):
                yield space, addr
        elif space == Space.PIO and addr < DATA + 4 and addr + size > DATA and self.latch >> 31:
            base = (self.latch >> 8 & 0xFFFF) << 32 | self.latch & 0xFC
            for n in range(size):
                if DATA <= addr + n < DATA + 4:
                    yield Space.CONFIG, base + (addr + n - DATA | self.latch & 3)
                else:
                    yield space, addr + n
        else:
            for n in range(size):
                yield space, addr + n

    def allow(self, space: int, addr: int, size: int, write: int, value: int) -> bool:
        """May this record be made after those allowed before?"""
        if space > Space.MMIO:
            return True
        b = self.board
        value &= (1 << 8 * size) - 1
        if space == Space.PIO and CONTROL - 8 < addr < CONTROL + CONTROL_BYTES:
            return False
        self.touched = []
        found: dict[tuple[int, str, int], list[int]] = {}  # entry, its use, where the register begins in the access -> value, bytes that are there
        entries: dict[int, Entry] = {}
        for n, key in enumerate(self._bytes(space, addr, size)):
            byte = value >> 8 * n & 0xFF
            if write and key[0] == Space.CONFIG and key[1] in b.base_bytes and not self._own(key[1], space, addr, size, value):
                if self.count:
                    b.moved.count += 1
                return False
            for rule in b.rules.get(key, ()):
                kind, e, at, index = rule
                if index is not None and self.index.get(b.index_ports[key][0]) != index:
                    continue
                self.touched.append(rule)
                entries[id(e)] = e
                has = found.setdefault((id(e), kind, n - at), [0, 0])
                has[0] |= byte << 8 * at
                has[1] |= 0xFF << 8 * at
        if not write:
            return True
        for (which, kind, _), (v, present) in found.items():
            e = entries[which]
            if kind == "excluded" and _holds(e.raw, v, present) and self._after(e):
                if self.count:
                    e.count += 1
                return False
        for (which, kind, _), (v, _) in found.items():
            among = entries[which].raw.get("after", {}).get("among")
            if kind == "after" and (among is None or v in among):
                self.last[which] = v
            elif kind == "excluded" and among is not None:
                self.last.pop(which, None)  # this is the write that the other one waited for
        if space == Space.PIO and addr == LATCH and size == 4:
            self.latch = value
        for n in range(size):
            if addr + n in self.watched:
                self.index[addr + n] = value >> 8 * n & (0xFFFF if n + 2 <= size and size < 4 else 0xFF)
        return True

    def _after(self, e: Entry) -> bool:
        after = e.raw.get("after")
        return after is None or self.last.get(id(e), 0) & after["bits"] == after["value"]

    def _own(self, key: int, space: int, addr: int, size: int, value: int) -> bool:
        """Is this a write of a whole base address register with an address of the part's own, or one that tells its size?"""
        part, reg = self.board.base_bytes[key]
        if size != 4 or addr != DATA or self.latch & 3:
            return False
        if value == 0xFFFFFFFF and reg >= 0x10 and reg < 0x34:
            return True
        allowed = {v for v, _ in [part.bases.get(reg, (0, 0))]} | {0} | {r[2] for r in self.board._setup(part.type) if r[0] == reg}
        return value in allowed


def filtered(board: Board, program: Array) -> Array:
    """The records of a program that may be made, in order."""
    f = Filter(board)
    rows = program[["space", "addr", "size", "dir", "value"]].tolist()
    return program[np.array([f.allow(*r) for r in rows], bool)] if rows else program


# ---------------------------------------------------------------------- programs


class Generator:
    """Programs for one part: what drivers do, and what no driver does."""

    def __init__(self, board: Board, part: Part, seed: int, events: bool = True) -> None:
        self.board, self.part = board, part
        self.random = random.Random(f"{board.name}/{part.id}/{seed}")
        self.filter = Filter(board, count=True)
        self.rows: list[tuple[int, int, int, int, int, int]] = []
        self.now = 0
        self.step_max = int(board.raw.get("step", {}).get(part.type, DEFAULT_STEP_NS))
        self.high = 0  # input lines
        self.events = EVENTS.get(part.type, ()) if events else ()
        self.targets = [(w, r, i) for w in part.windows for r, i in [(r, None) for r in w.direct] + [(r, (at, n)) for at, n, r in w.indexed]]

    def program(self, accesses: int) -> Array:
        """At least so many accesses, then what reads every register once more."""
        for row in self.board.preamble(self.part):
            self._emit(*row)
        while len(self.rows) < accesses:
            self._turn()
        self._sweep()
        out = np.zeros(len(self.rows), ACC)
        out["t_ns"], out["space"], out["addr"], out["size"], out["dir"], out["value"] = np.array(self.rows, np.uint64).T
        return out

    def _event(self) -> None:
        """Something from outside: an interrupt is taken, a key typed, an input line moves."""
        kind = self.random.choice(self.events)
        if kind == LINE:
            line = self.random.choice(LINES)
            self.high ^= 1 << line
            self._emit(LINE, line, 4, 0, self.high >> line & 1)
        else:
            self._emit(kind, 0, 4, 0, self.random.getrandbits(7) if kind == KEY else 0)

    def _turn(self) -> None:
        pick = self.random.random()
        if pick < 0.62 and self.targets:
            w, r, index = self.random.choice(self.targets)
            if index is not None:
                self._emit(w.space, w.base + index[0], index[1], 1, r.index or 0)
            size = min(max(1, r.width // 8), 4 if w.space != Space.MMIO else 8)
            for _ in range(1 if self.random.random() < 0.8 else self.random.randrange(2, 9)):
                write = self.random.random() < (0.1 if r.access == RO else 0.85 if r.access == WO else 0.5)
                self._access(w, r.offset, size, write, self._value(r))
        elif pick < 0.93:
            w = self.random.choice(self.part.windows)
            near = min(w.size, 4096)
            offset = self.random.randrange(near if self.random.random() < 0.8 else w.size)
            size = self.random.choice((1, 1, 2, 4) if w.space != Space.MMIO else (1, 2, 4, 4, 8))
            if w.space == Space.CONFIG and self.random.random() < 0.9:
                size = min(size, (4, 1, 2, 1)[offset & 3])
            self._access(w, offset, size, self.random.random() < 0.5, self.random.getrandbits(8 * size))
        elif pick < 0.935:
            self._sweep()
        elif self.events:
            self._event()

    def _value(self, r: Register) -> int:
        bits, pick = r.width, self.random.random()
        if pick < 0.3:
            return self.random.getrandbits(bits)
        if pick < 0.6:
            return self.random.getrandbits(bits) & (r.wmask | r.w1c)
        if pick < 0.75:
            return 1 << self.random.randrange(bits)
        return self.random.choice((0, (1 << bits) - 1, r.reset or 0, self.random.randrange(16) & (1 << bits) - 1, r.wmask))

    def _access(self, w: Window, offset: int, size: int, write: bool, value: int) -> None:
        value &= (1 << 8 * size) - 1
        if w.space == Space.CONFIG:
            self._emit(Space.PIO, LATCH, 4, 1, 1 << 31 | (w.base >> 32) << 8 | offset & 0xFC)
            self._emit(Space.PIO, DATA + (offset & 3), size, int(write), value)
        else:
            if w.space == Space.MMIO or self.random.random() < 0.9:  # else it may end behind the range
                offset = max(0, min(offset, w.size - size))
                size = min(size, w.size)
            self._emit(w.space, w.base + offset, size, int(write), value & (1 << 8 * size) - 1)

    def _sweep(self) -> None:
        """Read every register of the part."""
        for w, r, index in self.targets:
            if index is not None:
                self._emit(w.space, w.base + index[0], index[1], 1, r.index or 0)
            self._access(w, r.offset, min(max(1, r.width // 8), 4), False, 0)

    def _emit(self, space: int, addr: int, size: int, write: int, value: int) -> None:
        if self.filter.allow(space, addr, size, write, value):
            # Never two accesses at one moment: what a write makes due at once, the reference does at an undefined time before the next.
            pick = self.random.random()
            top = 1 if pick < 0.7 else 2_000 if pick < 0.92 else min(1_000_000, self.step_max) if pick < 0.99 else self.step_max
            self.now += self.random.randrange(1, top + 1)
            self.rows.append((self.now, space, addr, size, write, value if write or space > Space.MMIO else 0))


# ---------------------------------------------------------------------- the two sides


@dataclass(slots=True)
class Result:
    """What a program gave: a value for each record, and for each access the line changes since the one before."""

    value: Array
    lines: dict[int, tuple[tuple[int, int], ...]]  # index of an access -> (line, level), lines in order, each line's changes as they came


class Side(Protocol):
    """An implementation that runs a program from power-on."""

    title: str
    control: bool

    def run(self, program: Array) -> Result:
        """Run it.  Raises EngineError if the implementation dies."""


def _sorted_lines(rows: Iterable[tuple[int, int, int]]) -> dict[int, tuple[tuple[int, int], ...]]:
    """(access, line, level) -> by access, without what is no change.  Lines count as low before the program."""
    level: dict[int, int] = {}
    out: dict[int, list[tuple[int, int]]] = {}
    for at, line, now in rows:
        if level.get(line, 0) != now:
            level[line] = now
            out.setdefault(at, []).append((line, now))
    return {at: tuple(sorted(changes, key=lambda c: c[0])) for at, changes in out.items()}


class EngineSide:
    """The engine: path local or batched; one_by_one submits each access alone."""

    control = True

    def __init__(self, board: Board, path: str = "local", workers: int = 2, one_by_one: bool = False) -> None:
        self.board, self.path, self.workers, self.one_by_one = board, path, workers, one_by_one
        self.title = f"engine, {path} path" + (", one access at a time" if one_by_one else f", {workers} workers" if path != "local" else "")
        names = {p.spec.type: p.rank for p in reversed(board.plan.devices)}
        self.pic, self.ioapic, self.key = names["i8259"], names["ioapic"], names.get("i8042", 0)
        self.ack = names.get("lapic", self.pic)

    def run(self, program: Array) -> Result:
        """Run it on a new machine."""
        access = program["space"] <= Space.MMIO
        acc = program[access]
        acc["value"][acc["dir"] == 0] = 0
        events = program[~access]
        given = np.zeros(len(events), INPUT)
        given["t_ns"], given["value"] = events["t_ns"], events["value"]
        given["index"] = np.cumsum(access)[~access]
        kinds = {ACK: (INTACK, self.ack << 8), KEY: (KEY_INPUT, self.key << 8), LINE: (LINE_INPUT, self.ioapic << 8)}
        for n, e in enumerate(events):
            given["kind"][n], given["target"][n] = kinds[int(e["space"])]
            given["target"][n] |= int(e["addr"])
        at_pic = np.flatnonzero((events["space"] == LINE) & (events["addr"] < 16))  # both controllers see it
        again = given[at_pic]
        again["target"] = self.pic << 8 | events["addr"][at_pic].astype(np.uint32)
        given = np.insert(given, at_pic, again)
        first = np.delete(np.arange(len(given)), at_pic + np.arange(len(at_pic)))  # what answers an event
        options: dict[str, Any] = {"path": self.path} | ({"workers": self.workers} if self.path != "local" else {})
        value = np.zeros(len(program), np.uint64)
        with Machine(self.board.spec, **options) as machine:
            machine.lines()
            if self.one_by_one:
                values, answers, lines = self._single(machine, acc, given)
            else:
                values, _, answers = machine.run(acc, given)
                lines = machine.lines()
        value[access], value[~access] = values, answers[first].astype(np.int64).view(np.uint64) & np.uint64(0xFFFFFFFF)
        where = np.append(np.flatnonzero(access), len(program))
        rows = [(int(where[int(c["index"])]), int(c["line"]), int(c["level"])) for c in lines]
        driven = np.flatnonzero(program["space"] == LINE)
        rows += zip(where[np.searchsorted(where, driven)].tolist(), program["addr"][driven].tolist(), program["value"][driven].tolist(), strict=True)
        value[driven] = program["value"][driven]
        return Result(value, _sorted_lines(sorted(rows, key=lambda r: r[0])))

    @staticmethod
    def _single(machine: Machine, acc: Array, given: Array) -> tuple[Array, Array, Array]:
        values, answers, lines = np.zeros(len(acc), np.uint64), np.zeros(len(given), np.int64), []
        for i in range(len(acc) + 1):
            a, b = np.searchsorted(given["index"], [i, i + 1])
            part = given[a:b].copy()
            part["index"] = 0
            values[i : i + 1], _, answers[a:b] = machine.run(acc[i : i + 1], part)
            more = machine.lines()
            more["index"] += np.uint64(i)
            lines.append(more)
        return values, answers, np.concatenate(lines)


SUFFIX = {1: "b", 2: "w", 4: "l", 8: "q"}


def qtest_lines(program: Array) -> tuple[list[str], list[int]]:
    """A program as qtest requests; for each request the record it belongs to, ~record for a move of the clock."""
    out: list[str] = []
    tags: list[int] = []
    now = 0
    for i, (t, space, addr, size, write, value) in enumerate(program[["t_ns", "space", "addr", "size", "dir", "value"]].tolist()):
        if t > now:
            out.append(f"clock_set {t}")
            tags.append(~i)
            now = t
        if space == Space.PIO:
            text = f"out{SUFFIX[size]} {addr:#x} {value:#x}" if write else f"in{SUFFIX[size]} {addr:#x}"
        elif space == Space.MMIO:
            text = f"write{SUFFIX[size]} {addr:#x} {value:#x}" if write else f"read{SUFFIX[size]} {addr:#x}"
        else:
            text = {ACK: f"inl {CONTROL + 4:#x}", KEY: f"outl {CONTROL + 4:#x} {value:#x}", LINE: f"outl {CONTROL + 8:#x} {value << 8 | addr:#x}"}[space]
        out.append(text)
        tags.append(i)
    return out, tags


def find_qemu(qemu: str) -> dict[str, str]:
    """The environment in which `qemu` has a qtest accelerator.  Raises UsageError that says what to install."""
    program = shutil.which(qemu)
    if not program:
        raise UsageError(f"{qemu}: no such program; install QEMU (Debian: apt install qemu-system-x86) or give --qemu PATH")
    env = {**os.environ, "QTEST_CONTROL_PORT": "1"}  # for tools/accel_qtest.c
    if "qtest" in subprocess.run([program, "-accel", "help"], capture_output=True, text=True, check=False).stdout.split():
        return env
    if Path(env.get("QEMU_MODULE_DIR", "/nonexistent"), "accel-qtest-x86_64.so").exists():
        return env
    tool = Path(__file__).parents[2] / "tools" / "qemu_qtest.py"
    spec = importlib.util.spec_from_file_location("qemu_qtest", tool) if tool.exists() else None
    if spec is None or spec.loader is None:
        raise UsageError(f"{qemu}: no qtest accelerator; install a QEMU that lists qtest under `-accel help`, or make Debian's missing module with "
                         "tools/qemu_qtest.py of the source tree and set QEMU_MODULE_DIR")
    supply = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(supply)
    try:
        return {**supply.reference(program)[1], "QTEST_CONTROL_PORT": "1"}
    except supply.NoReference as e:
        raise UsageError(f"{e}; install a QEMU that lists qtest under `-accel help`, or give --qemu PATH") from None


class QemuSide:
    """A QEMU started for each program and driven over qtest."""

    def __init__(self, board: Board, qemu: str = "qemu-system-x86_64") -> None:
        self.board, self.qemu = board, qemu
        self.env = find_qemu(qemu)
        version = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False).stdout.partition("version ")[2].split(" ")[0].strip()
        self.title = f"QEMU {version}"
        self.control = False
        with _Qemu(self) as q:
            self.control = q.control

    def run(self, program: Array) -> Result:
        """Run it on a new QEMU."""
        requests, tags = qtest_lines(program)
        value = program["value"].copy()
        rows: list[tuple[int, int, int]] = []
        space = program["space"]
        access = np.append(np.flatnonzero(space <= Space.MMIO), len(program))
        following = access[np.searchsorted(access, np.arange(len(program) + 1))].tolist()  # record -> the access it is, or comes before
        reads = ((program["dir"] == 0) & (space <= ACK)).tolist()
        late = self.board.late(program).tolist()
        stops = [n + 1 for n, tag in enumerate(tags) if tag >= 0 and late[tag]] + [len(requests)]
        with _Qemu(self) as q:
            at = 0
            for stop in stops:
                while at < stop:
                    for line in q.block(requests[at : min(at + BLOCK, stop)]):
                        tag = tags[min(at, stop - 1)]
                        i = tag if tag >= 0 else ~tag
                        if line.startswith(b"IRQ"):
                            rows.append((following[i], *_irq(line)))
                            continue
                        if tag >= 0 and reads[i]:
                            value[i] = int(line[3:], 16)
                        at += 1
                for _ in range(IDLE if at else 0):  # its main loop goes round: what it left for later is done
                    rows += [(following[i], *_irq(line)) for line in q.block(["endianness"]) if line.startswith(b"IRQ")]
        return Result(value, _sorted_lines(rows))


def _irq(line: bytes) -> tuple[int, int]:
    """Line and level of an IRQ message."""
    words = line.split()
    return int(words[2]), int(words[1] == b"raise")


class _Qemu:
    """One QEMU process, from start to end of a `with`."""

    def __init__(self, side: QemuSide) -> None:
        self.side = side
        self.rest = b""

    def __enter__(self) -> _Qemu:
        self.folder = tempfile.TemporaryDirectory(prefix="engine-diff-")
        path, rom = Path(self.folder.name, "qtest"), Path(self.folder.name, "rom")
        rom.write_bytes(bytes(ROM_BYTES))
        command = [self.side.qemu, "-accel", "qtest", "-qtest", f"unix:{path}", "-qtest-log", "/dev/null",
                   "-display", "none", "-monitor", "none", "-no-shutdown", "-bios", str(rom), *self.side.board.args]  # fmt: skip
        self.errors = Path(self.folder.name, "stderr")
        with socket.socket(socket.AF_UNIX) as server, self.errors.open("wb") as errors:
            server.bind(str(path))
            server.listen()
            server.settimeout(0.1)
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=self.side.env)
            while True:
                try:
                    self.socket = server.accept()[0]
                    break
                except TimeoutError:
                    if self.process.poll() is not None:
                        said = self.said()
                        self.folder.cleanup()
                        raise UsageError(f"{self.side.qemu} did not start: {said or f'exit status {self.process.returncode}'}") from None
        self.socket.settimeout(ANSWER_S)
        try:
            self.block(["irq_intercept_in ioapic", f"outl {CONTROL:#x} 0"])
            port, cpu = (ln for ln in self.block([f"inl {CONTROL + 4:#x}", f"inl {CONTROL:#x}"]) if ln.startswith(b"OK"))
            self.control = int(cpu[3:], 16) == int(port[3:], 16) == 0xFFFFFFFF and "QEMU_MODULE_DIR" in self.side.env
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def said(self) -> str:
        """The last thing it complained about."""
        lines = self.errors.read_text(errors="replace").splitlines()
        return next((ln for ln in reversed(lines) if "warning:" not in ln), "")

    def block(self, requests: Sequence[str]) -> list[bytes]:
        """Send requests, return all lines up to the last answer.  Raises EngineError if QEMU goes away or refuses one."""
        out: list[bytes] = []
        want = len(requests)
        try:
            self.socket.sendall(("\n".join(requests) + "\n").encode())
            while want:
                chunk = self.socket.recv(1 << 18)
                if not chunk:
                    raise ConnectionError
                *lines, self.rest = (self.rest + chunk).split(b"\n")
                for line in lines:
                    if not line.startswith((b"OK", b"IRQ")):
                        raise EngineError(f"{self.side.title}: {line.decode(errors='replace')[:80]} to {requests[len(requests) - want]}")
                    want -= line.startswith(b"OK")
                out += lines
        except OSError as e:
            time.sleep(0.05)
            said = self.said()
            at = len(requests) - want
            why = f"gave no answer for {ANSWER_S} s" if isinstance(e, TimeoutError) else f"went away (status {self.process.poll()}{': ' + said if said else ''})"
            raise EngineError(f"{self.side.title} {why} at {requests[min(at, len(requests) - 1)]}") from None
        return out


# ---------------------------------------------------------------------- comparing


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference that nothing explains."""

    index: int
    what: str  # "read", "vector" or "lines"
    where: str
    ours: str
    theirs: str


def compare(board: Board, program: Array, ours: Result, theirs: Result, count: bool = True) -> Difference | None:
    """The first unexplained difference, or None; explained ones are counted in their entries."""
    width = np.where(program["size"] >= 8, 64, program["size"].astype(np.uint64) * 8).astype(np.uint64)
    mask = np.where(width == 64, np.uint64(2**64 - 1), (np.uint64(1) << (width % np.uint64(64))) - np.uint64(1))
    read = ((program["dir"] == 0) & (program["space"] <= Space.MMIO)) | (program["space"] == ACK)
    wrong = np.flatnonzero(read & ((ours.value ^ theirs.value) & mask != 0))
    first: Difference | None = None
    if len(wrong):
        bad = set(wrong.tolist())
        f = Filter(board)
        for i, row in enumerate(program[["space", "addr", "size", "dir", "value"]].tolist()):
            f.allow(*row)
            if i in bad:
                a, b = int(ours.value[i] & mask[i]), int(theirs.value[i] & mask[i])
                entry = _explains(f, row[2], a ^ b) if row[0] <= Space.MMIO else None
                if entry is None:
                    kind = "vector" if row[0] == ACK else "read"
                    first = Difference(i, kind, describe(board, f, row), f"{a:#x}", f"{b:#x}")
                    break
                entry.count += count
    at = min((i for i in ours.lines.keys() | theirs.lines.keys() if ours.lines.get(i) != theirs.lines.get(i)), default=None)
    if at is not None and (first is None or at < first.index):
        mine, other = ours.lines.get(at, ()), theirs.lines.get(at, ())
        odd = min(c[0] for c in (*mine, *other) if [d for d in mine if d[0] == c[0]] != [d for d in other if d[0] == c[0]])
        first = Difference(min(at, len(program) - 1), "lines", f"line {odd}", _levels(mine, odd), _levels(other, odd))
    return first


def _levels(changes: Iterable[tuple[int, int]], line: int) -> str:
    return ", ".join("raise" if level else "lower" for n, level in changes if n == line) or "no change"


def _explains(f: Filter, size: int, bits: int) -> Entry | None:
    """The [[difference]] entry that covers all the bits that differ in the access the filter has just seen."""
    left, entry = bits, None
    for kind, e, at, _ in f.touched:
        if kind == "difference" and f._after(e):
            for n in range(size):
                left &= ~((e.bits >> 8 * at & 0xFF) << 8 * n) if size == 1 or n == at else left
            entry = e
    return entry if entry is not None and not left else None


def describe(board: Board, f: Filter, row: tuple[int, int, int, int, int]) -> str:
    """What an access reaches, for people: 'pm PMSTS (0xb000, 2 bytes)'."""
    space, addr, size = row[:3]
    if space > Space.MMIO:
        return "interrupt acknowledge"
    kind, key = next(iter(f._bytes(space, addr, size)))
    for part in board.parts.values():
        for w in part.windows:
            if w.space == kind and w.base <= key < w.base + w.size:
                offset = key - w.base
                name = next((r.name for r in w.direct if r.offset <= offset < r.offset + max(1, r.width // 8)), "")
                for at, _, r in w.indexed:
                    if r.offset == offset and f.index.get(w.base + at) == r.index:
                        name = r.name
                where = f"config {offset:#x}" if kind == Space.CONFIG else f"{'port' if kind == Space.PIO else 'memory'} {addr:#x}"
                return f"{part.id} {name or f'+{offset:#x}'} ({where}, {size} byte{'s' * (size > 1)})"
    return f"{'port' if space == Space.PIO else 'memory'} {addr:#x}, {size} byte{'s' * (size > 1)}"


def minimise(board: Board, program: Array, found: Difference, ours: Side, theirs: Side, head: int = 0,
             tick: Callable[[], None] = lambda: None) -> tuple[Array, Difference]:
    """A short program with the same difference (the same place), and that difference: delta debugging, each trial from power-on.
    The first `head` records are a set-up."""
    best, where = program[: found.index + 1], found
    end, runs = time.monotonic() + MINIMISE_S, 0

    def still(trial: Array) -> bool:
        nonlocal best, where, runs
        runs += 1
        tick()
        if not len(trial) or len(filtered(board, trial)) != len(trial):
            return False
        try:
            got = compare(board, trial, ours.run(trial), theirs.run(trial), count=False)
        except EngineError:
            return False
        if got is None or (got.what, got.where) != (found.what, found.where):
            return False
        best, where = trial[: got.index + 1], got
        return True

    def spent() -> bool:
        return time.monotonic() > end or runs >= MINIMISE_RUNS

    keep = 1
    while keep < len(best) and not spent():  # the cause is often near: the last few accesses, with or without the set-up
        whole = best
        if still(whole[-keep:]) or (keep + head < len(whole) and still(np.concatenate([whole[:head], whole[-keep:]]))):
            break
        keep *= 4
    parts = 2
    while len(best) > 1 and not spent():
        size, whole, less = -(-len(best) // parts), best, False
        for start in range(0, len(whole), size):
            if spent():
                break
            if still(np.concatenate([whole[:start], whole[start + size :]])):
                less = True
                break
        if less:
            parts = max(2, parts - 1)
        elif size == 1:
            break
        else:
            parts = min(2 * parts, len(best))
    return best, where


def write_case(board: Board, part: Part, seed: int, program: Array, found: Difference, folder: Path) -> tuple[Path, Path]:
    """PART-SEED.qtest (requests that QEMU can replay) and PART-SEED.json (a case for `load_case`)."""
    import json

    requests, _ = qtest_lines(program)
    folder.mkdir(parents=True, exist_ok=True)
    log, case = folder / f"{part.id}-{seed}.qtest", folder / f"{part.id}-{seed}.json"
    log.write_text("\n".join(["irq_intercept_in ioapic", *requests]) + "\n")
    rows = [[int(x) for x in r] for r in program[["t_ns", "space", "addr", "size", "dir", "value"]].tolist()]
    facts = {"board": board.name, "part": part.id, "seed": seed, "what": found.what, "where": found.where, "engine": found.ours, "other": found.theirs}
    case.write_text(json.dumps({**facts, "qemu": board.args, "records": ["t_ns", "space", "addr", "size", "dir", "value"], "program": rows}, indent=1) + "\n")
    return log, case


def load_case(path: Path) -> tuple[str, str, Array]:
    """(board, part, program) of a case file.  Raises UsageError."""
    import json

    try:
        raw = json.loads(path.read_text())
        out = np.zeros(len(raw["program"]), ACC)
        for n, name in enumerate(raw["records"]):
            out[name] = [row[n] for row in raw["program"]]
        return str(raw["board"]), str(raw["part"]), out
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UsageError(f"{path}: no case of engine diff ({e})") from None


@dataclass(slots=True)
class Row:
    """One part's score."""

    part: Part
    seeds: int = 0
    accesses: int = 0
    reads: int = 0
    line_changes: int = 0
    explained: int = 0
    found: list[dict[str, Any]] = field(default_factory=list)


def one_seed(board: Board, row: Row, seed: int, accesses: int, ours: Side, theirs: Side, folder: Path, tick: Callable[[], None] = lambda: None) -> None:
    """Run one seed of one part and add it to its score."""
    program = Generator(board, row.part, seed, events=ours.control and theirs.control).program(accesses)
    before = sum(e.count for e in board.differences)
    a, b = ours.run(program), theirs.run(program)
    found = compare(board, program, a, b)
    row.seeds += 1
    row.accesses += len(program) if found is None else found.index + 1
    row.reads += int((program["dir"][: len(program) if found is None else found.index + 1] == 0).sum())
    row.line_changes += sum(len(v) for v in a.lines.values())
    row.explained += sum(e.count for e in board.differences) - before
    if found is not None:
        short, found = minimise(board, program, found, ours, theirs, len(board.preamble(row.part)), tick)
        log, case = write_case(board, row.part, seed, short, found, folder)
        row.found.append({"part": row.part.id, "seed": seed, "what": found.what, "where": found.where, "engine": found.ours, "other": found.theirs,
                          "records": len(short), "qtest": str(log), "case": str(case)})  # fmt: skip


def summary(board: Board, rows: Sequence[Row], ours: Side, theirs: Side) -> dict[str, Any]:
    """Everything, for machines."""
    parts = [{"part": r.part.id, "type": r.part.type, "seeds": r.seeds, "accesses": r.accesses, "reads": r.reads, "line_changes": r.line_changes,
              "explained": r.explained, "unexplained": len(r.found)} for r in rows]  # fmt: skip
    totals = Counter[str]()
    for p in parts:
        totals.update({k: int(p[k]) for k in ("seeds", "accesses", "reads", "line_changes", "explained", "unexplained")})  # type: ignore[call-overload]
    names = ("part", "register", "condition", "section", "reason", "count")
    return {
        "board": board.name, "engine": ours.title, "against": theirs.title, "parts": parts, "totals": dict(totals),
        "differences": [{k: getattr(e, k) for k in names} for e in board.differences],
        "excluded": [{k: getattr(e, k) for k in names} for e in [*board.excluded, board.moved]],
        "unexplained": [f for r in rows for f in r.found], "ok": not totals["unexplained"],
    }  # fmt: skip
