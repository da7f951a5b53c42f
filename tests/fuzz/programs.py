"""Parts under random operations: a part with what stands in one unit with it, over RAM of its own, and its programs.

A program is one life of a part, made from (part, seed, life) alone; so is what it shows.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from contract.parts import NOTHING, PARTS  # of the folder beside: both are packages in tests

from engine._device import AUX, INTACK, KEY, LINE, MESSAGE, PACKET, Device
from engine._executor import Executor
from engine._shm import Segment
from engine.machine import build_devices
from engine.machine.build import Plan, plan
from engine.machine.derive import derive
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec, load
from engine.testing._fuzz import INPUT, OP, POKE, READ, RESET, WRITE, Fuzzer
from engine.types import RW, Register, Space

from . import subjects

Array = npt.NDArray[Any]
BOARDS = ("i440fx", "q35")
RAM, LOW_RAM = 1 << 20, 3 << 18  # a part of it is above 4 GiB: a transfer may run out of either
HIGH = 1 << 32
NOISE = random.Random("noise").randbytes(1 << 16)
STATION = bytes.fromhex("525400123456")
SIZES = (1, 2, 4, 8)
COMMAND = 4  # of configuration space
STEPS = (0, 0, 0, 0, 25, 25, 1000, 20_000)
ALL = (1 << 64) - 1


def packets() -> bytes:
    """Bytes from which frames are cut: some for the station, some for everyone, of IPv4 and of none."""
    out = bytearray(NOISE)
    for at in range(0, len(out) - 64, 512):
        out[at : at + 6] = (STATION, b"\xff" * 6, STATION, b"\x01\x00\x5e\x00\x00\x01")[at // 512 % 4]
        if at // 512 % 3:
            out[at + 12 : at + 15] = b"\x08\x00\x45" if at // 512 % 2 else b"\x81\x00\x00"
            out[at + 23] = (6, 17, 1)[at // 512 % 3]
    return bytes(out)


@cache
def layout(kind: str) -> tuple[Plan, tuple[int, ...]]:
    """A plan, and the ranks of the part and of all that stand in one unit with it, the part first."""
    subject = subjects.SUBJECTS.get(kind, subjects.NOTHING)
    for board in BOARDS:
        spec = derive(load(board))
        rank = next((n for n, d in enumerate(spec.devices) if d.type == kind), None)
        if rank is not None:
            spec = spec.with_config(spec.devices[rank].id, **subject.settings)
            break
    else:
        part = DeviceSpec("part", kind, config={**PARTS.get(kind, NOTHING).config, **subject.settings})
        spec, rank = MachineSpec(BoardSpec(), (part,)), 0
    made = plan(spec)
    made.spec = replace(made.spec, board=replace(made.spec.board, low_ram=LOW_RAM))
    unit = next(u for u in made.units if rank in u)
    return made, (rank, *(r for r in unit if r != rank))


@dataclass(frozen=True)
class Window:
    """A region: its id, whose it is, its size and the registers in it."""

    id: int
    rank: int
    size: int
    registers: tuple[Register, ...]
    index: int


class Part:
    """A fresh part with its unit."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.plan, self.ranks = layout(kind)
        subject = subjects.SUBJECTS.get(kind, subjects.NOTHING)
        self.ram = Segment.create("fuzz", RAM)
        memoryview(self.ram)[:] = (NOISE + bytes(len(NOISE))) * (RAM // len(NOISE) // 2)
        devices, _ = build_devices(self.plan, list(self.ranks), self.ram)
        self.devices: dict[int, Device] = {d.rank: d for d in devices.values()}
        for d in self.devices.values():
            for n, size in enumerate(subject.disks if hasattr(d, "insert") else ()):
                if n < d.config["drives"]:
                    d.insert(n, random.Random(n).randbytes(size), n == 1)  # type: ignore[attr-defined]
        wires = [w for w in self.plan.inner_wires() if w[0] in self.ranks]
        self.executor = Executor(self.devices.values(), [list(self.ranks)], wires)
        for w in windows(kind):
            self.executor.map_region(w.id, w.rank, w.index, 0)
        self.executor.take_effects()
        self.fuzzer = Fuzzer(self.executor, self.ram, packets())

    def errors(self) -> int:
        """Exceptions of devices written in Python."""
        return sum(getattr(d, "errors", 0) for d in self.devices.values())


@cache
def windows(kind: str) -> tuple[Window, ...]:
    made, ranks = layout(kind)
    out: list[Window] = []
    for rank in ranks:
        p = made.devices[rank]
        for n, region in enumerate(p.regions):
            if region.size:
                here = tuple(r for r in p.cls.REGISTERS if r.region == n)
                out.append(Window(len(out), rank, region.size, here, n))
    return tuple(out)


# ---------------------------------------------------------------------- numbers


def pointers(rng: random.Random) -> list[int]:
    """Where descriptors and data of one life may be: in RAM, at its edges, outside."""
    end = HIGH + RAM - LOW_RAM
    edges = [LOW_RAM - n for n in (0, 1, 8, 16, 4096)]
    edges += [0, HIGH - 16, HIGH, end - 16, end, ALL - 15, ALL, 1 << 52, 0xFEE00000, 0xA0000]
    pages = [page << 12 for page in rng.sample(range(LOW_RAM >> 12), INSIDE - 2)]
    return [*pages, rng.randrange(LOW_RAM) & ~15, rng.randrange(LOW_RAM), *rng.sample(edges, 5)]


def place(gpa: int) -> int | None:
    """Where a guest-physical address lies in the RAM file."""
    if gpa < LOW_RAM:
        return gpa
    return gpa - HIGH + LOW_RAM if HIGH <= gpa < HIGH + RAM - LOW_RAM else None


INSIDE = 8  # of a life's pointers lie in RAM
LENGTHS = (0, 1, 2, 3, 8, 16, 60, 511, 512, 513, 1514, 2048, 4095, 4096, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)


def number(text: str, rng: random.Random, names: dict[str, int]) -> int:
    """The value of a word's right side."""
    text = rng.choice(text.split("|")) if "|" in text else text
    if text.startswith(">>"):
        return int.from_bytes(number(text[2:], rng, names).to_bytes(8, "little"), "big")
    if text.startswith(">"):
        return int.from_bytes((number(text[1:], rng, names) & 0xFFFFFFFF).to_bytes(4, "little"), "big")
    if text.startswith("?"):
        return rng.getrandbits(64) & (int(text[1:], 16) if text[1:] else ALL)
    if text == "n":
        return rng.choice(LENGTHS)
    name, plus, more = text.partition("+")
    if name in names:
        return names[name] + (int(more, 16) if plus else 0) & ALL
    return int(text, 16)


WORD = re.compile(
    r"\+(?P<step>\d+)|\[(?P<at>[a-d](\+[0-9A-F]+)?)\]:(?P<size>\d)=(?P<poke>\S+)|(?P<packet>packet)|(?P<name>[^=]+)(=(?P<value>\S+))?"
)


def _is_config(kind: str, w: Window) -> bool:
    """Is it the configuration space of a PCI function?"""
    return layout(kind)[0].devices[w.rank].regions[w.index].space == Space.CONFIG


Row = tuple[int, int, int, int, int, int, int]  # as OP, without the padding


@cache
def compiled(kind: str) -> tuple[tuple[Any, ...], ...]:
    """The part's sequences with names resolved: of each word its match, and the window and register it names."""
    named: dict[str, tuple[Window, Register]] = {}
    for w in windows(kind):
        for r in w.registers:
            named.setdefault(r.name, (w, r))
        if _is_config(kind, w):
            named.setdefault("PCICMD", (w, Register("PCICMD", COMMAND, 16, RW)))
    out = []
    for sequence in subjects.SUBJECTS.get(kind, subjects.NOTHING).sequences:
        words = []
        for word in sequence.split():
            m = WORD.fullmatch(word)
            assert m, f"{kind}: {word!r} is no word of a sequence"
            words.append((m, *(named[m["name"]] if m["name"] else (None, None))))
        out.append(tuple(words))
    return tuple(out)


def sequence(kind: str, words: Sequence[Any], rng: random.Random, pool: list[int]) -> list[Row]:
    """One sequence with its values drawn; now and then a word is left out or done twice."""
    names = dict(zip("abcd", rng.sample(pool[:INSIDE], 4), strict=True))
    for name in names:
        if rng.random() < 0.08:
            names[name] = rng.choice(pool)
    rows: list[Row] = []
    step = 0
    for m, w, r in words:
        luck = rng.random()
        if luck < 0.02:
            continue
        if m["step"]:
            step += int(m["step"])
        elif m["at"]:
            at, size, value = place(number(m["at"], rng, names)), int(m["size"]), number(m["poke"], rng, names)
            if at is not None and at + size <= RAM:
                rows.append((0, at, value, 0, POKE, size, 0))
        elif m["packet"]:
            rows.append(
                (step, rng.randrange(0, len(NOISE) - 16384, 512), _frame(rng), layout(kind)[1][0], INPUT, PACKET, 0)
            )
            step = 0
        else:
            size = max(1, r.width // 8)
            write = m["value"] is not None
            value = number(m["value"], rng, names) if write else 0
            rows.extend([(step, r.offset, value, w.id, WRITE if write else READ, size, 0)] * (1 + (luck > 0.98)))
            step = 25
    return [*rows, (step, 0, 0, 0, POKE, 0, 0)]


def _frame(rng: random.Random) -> int:
    return rng.choice((60, 64, 1, 0, 14, 17, 1514, 1518, 1522, 9000, 16288, 16384, rng.randrange(16384)))


# ---------------------------------------------------------------------- programs


def program(kind: str, seed: int, life: int, n: int, masters: bool = True) -> Array:
    """About n operations of one life.  masters: PCI functions are let on the bus now and then, not by chance alone."""
    key = (zlib.crc32(kind.encode()), seed, life)
    rng, fast = random.Random(repr(key)), np.random.default_rng(key)
    made, ranks = layout(kind)
    pool = pointers(rng)
    ops = np.zeros(n, OP)
    dice = fast.random(n)
    ops["step"] = fast.choice(STEPS, n)
    ops["kind"] = np.where(fast.random(n) < 0.5, READ, WRITE)
    _accesses(ops, kind, fast, pool)
    _inputs(ops, np.flatnonzero(dice < 0.05), made, ranks, fast)
    _pokes(ops, np.flatnonzero((dice >= 0.05) & (dice < 0.09)), fast, pool)
    for i in np.flatnonzero((dice >= 0.09) & (dice < 0.0905)):
        ops[i] = (ops[i]["step"], 0, 0, 0, RESET, rng.randrange(2), 0, 0)
    longest = min(PARTS.get(made.devices[r].spec.type, NOTHING).longest_ns for r in ranks)
    longest = min(longest, subjects.SUBJECTS.get(kind, subjects.NOTHING).longest_ns)
    jumps = [j for j in (10**6, 10**7, 10**8, 10**9, 10**12, 10**15) if j <= longest]
    far = np.flatnonzero((dice >= 0.0905) & (dice < 0.12))
    ops["step"][far] = fast.choice(jumps, len(far), p=_falling(len(jumps)))
    rows: list[tuple[int, list[Row]]] = []
    sequences = compiled(kind)
    if sequences:
        each = sum(len(s) for s in sequences) / len(sequences)
        for _ in range(int(n * 0.3 / each) + 1):
            rows.append((rng.randrange(n), sequence(kind, rng.choice(sequences), rng, pool)))
    for w in windows(kind):
        if masters and _is_config(kind, w):
            rows += [(rng.randrange(n), [(25, COMMAND, 7, w.id, WRITE, 2, 0)]) for _ in range(n // 400)]
    return _insert(ops, rows)


def _falling(n: int) -> list[float]:
    weights = [3.0**-i for i in range(n)]
    return [w / sum(weights) for w in weights]


def _insert(ops: Array, rows: list[tuple[int, list[Row]]]) -> Array:
    """The sequences between the operations."""
    pieces, at = [], 0
    for where, more in sorted(rows, key=lambda r: r[0]):
        extra = np.zeros(len(more), OP)
        if more:
            array = np.array(more, dtype=np.uint64)
            for column, name in enumerate(("step", "addr", "value", "target", "kind", "size", "pin")):
                extra[name] = array[:, column]
        pieces += [ops[at:where], extra]
        at = where
    return np.concatenate([*pieces, ops[at:]])


def _accesses(ops: Array, kind: str, fast: np.random.Generator, pool: list[int]) -> None:
    """Fill in window, offset, width and value: registers more often than not, then anywhere."""
    all_windows = windows(kind)
    own = [w.id for w in all_windows if w.rank == all_windows[0].rank]
    weight = np.array(
        [max(1.0, len(w.registers)) ** 0.5 * (1 if w.id in own else 0.3 / len(all_windows)) for w in all_windows]
    )
    which = fast.choice(len(all_windows), len(ops), p=weight / weight.sum())
    for w in all_windows:
        i = np.flatnonzero(which == w.id)
        m = len(i)
        size = fast.choice(SIZES, m, p=(0.3, 0.25, 0.35, 0.1)).astype(np.uint64)
        offset = fast.integers(0, w.size, m, dtype=np.uint64)
        where = fast.random(m)
        near = where < 0.85
        offset[near] = fast.integers(0, min(w.size, 4096), int(near.sum()), dtype=np.uint64)
        end = where > 0.95
        offset[end] = w.size - 1 - fast.integers(0, min(w.size, 16), int(end.sum()), dtype=np.uint64)
        value = _values(m, fast, pool)
        if w.registers:
            table = np.array([(r.offset, max(1, r.width // 8), r.wmask | r.w1c) for r in w.registers], np.uint64)
            pick = fast.integers(0, len(table), m)
            at = where < 0.6
            offset[at] = table[pick[at], 0]
            natural = at & (fast.random(m) < 0.8)
            size[natural] = table[pick[natural], 1]
            masked = natural & (fast.random(m) < 0.3)
            value[masked] &= table[pick[masked], 2]
        ops["target"][i], ops["addr"][i], ops["size"][i], ops["value"][i] = w.id, offset, size, value


def _values(m: int, fast: np.random.Generator, pool: list[int]) -> Array:
    value = fast.integers(0, ALL, m, dtype=np.uint64, endpoint=True)
    how = fast.integers(0, 8, m)
    hot = np.array(pool, np.uint64)[fast.integers(0, len(pool), m)] + fast.integers(
        0, 8, m, dtype=np.uint64
    ) * np.uint64(16)
    bit = np.uint64(1) << fast.integers(0, 64, m, dtype=np.uint64)
    few = np.zeros(m, np.uint64), np.full(m, ALL, np.uint64), bit, value & np.uint64(0xFF), value & np.uint64(0xF), hot
    for n, other in enumerate(few):
        value = np.where(how == n, other, value)
    return value


def _inputs(ops: Array, i: Array, made: Plan, ranks: Sequence[int], fast: np.random.Generator) -> None:
    m = len(i)
    what = fast.choice((LINE, INTACK, KEY, MESSAGE, AUX), m, p=(0.6, 0.1, 0.1, 0.1, 0.1))
    who = np.array(ranks)[np.where(fast.random(m) < 0.6, 0, fast.integers(0, len(ranks), m))]
    pins = np.array([len(d.cls.IN) for d in made.devices])[who]
    what[(what == LINE) & (pins == 0)] = KEY
    ops["kind"][i], ops["target"][i], ops["size"][i] = INPUT, who, what
    ops["pin"][i] = np.where(what == LINE, fast.integers(0, 256, m) % np.maximum(pins, 1), 0)
    ops["addr"][i] = np.where(what == MESSAGE, 0xFEE00000 + (fast.integers(0, 1 << 18, m) << 2), 0)
    small = fast.integers(0, 256, m)
    ops["value"][i] = np.where(
        what == LINE, small & 1, np.where(what == INTACK, 0, np.where(what == MESSAGE, small << 8 | small, small))
    )


def _pokes(ops: Array, i: Array, fast: np.random.Generator, pool: list[int]) -> None:
    """What the guest puts into RAM: pointers, lengths, flags, near where descriptors may be."""
    m = len(i)
    hot = [p for p in map(place, pool) if p is not None and p < RAM - 4096] or [0]
    ops["kind"][i], ops["target"][i] = POKE, 0
    ops["addr"][i] = np.array(hot)[fast.integers(0, len(hot), m)] + fast.integers(0, 64, m) * 4
    ops["size"][i] = fast.choice((1, 2, 4, 8), m, p=(0.1, 0.1, 0.4, 0.4))
    value = _values(m, fast, pool)
    lengths = np.array(LENGTHS, np.uint64)[fast.integers(0, len(LENGTHS), m)]
    ops["value"][i] = np.where(fast.random(m) < 0.3, lengths, value)


# ---------------------------------------------------------------------- for people


def describe(kind: str, op: Any) -> str:
    """One operation in words."""
    step = f"{int(op['step'])} ns later " if op["step"] else ""
    addr, value, size = int(op["addr"]), int(op["value"]), int(op["size"])
    if op["kind"] <= WRITE:
        w = windows(kind)[int(op["target"])]
        made = layout(kind)[0].devices[w.rank]
        name = next((r.name for r in w.registers if r.offset == addr and r.index is None), "")
        where = f"{made.id} {made.regions[w.index].name}+{addr:#x}" + (f" ({name})" if name else "")
        if op["kind"] == READ:
            return f"{step}read {size} at {where}"
        return f"{step}write {size} at {where}: {value & (1 << 8 * size) - 1:#x}"
    if op["kind"] == POKE:
        return f"{step}RAM file at {addr:#x}: {size} bytes of {value:#x}"
    if op["kind"] == RESET:
        return f"{step}reset, {'bus' if size else 'power-on'}"
    what = {LINE: "line", INTACK: "acknowledge", KEY: "key", AUX: "mouse", MESSAGE: "message", PACKET: "packet"}[size]
    return f"{step}{what} at {layout(kind)[0].devices[int(op['target'])].id}: pin {int(op['pin'])} {addr:#x} {value:#x}"
