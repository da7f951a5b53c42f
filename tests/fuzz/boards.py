"""Whole boards under random accesses to all their spaces: every placement and path tells the same story.

A board has the parts that make DMA besides its own; its guest lets them on the bus, places their ranges, moves the
ranges about, does the parts' sequences, pulls resets, and goes on.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from engine._abi import ACC
from engine._device import AUX, INTACK, KEY
from engine.errors import EngineError
from engine.machine import Machine
from engine.machine.build import CONFIG_REGION, Plan, plan
from engine.machine.derive import derive
from engine.machine.qemu_args import from_qemu
from engine.machine.spec import MachineSpec
from engine.sequencer import INPUT, RAM
from engine.testing._fuzz import POKE, WRITE
from engine.types import Register, Space
from engine.workers.placement import shuffled

from . import programs, subjects

DISPLAY_AND_PORTS = ("-nodefaults", "-vga", "std", "-serial", "null", "-parallel", "null")
MORE = ("e1000", "e1000e", "edu", "i6300esb", "pvpanic-pci", "pci-testdev", "isa-debug-exit", "ib700")
DISK = ("-drive", "file={disk},format=raw,if=none,id=hd", "-device", "ide-hd,drive=hd,bus=ide.0")
DISC = ("-drive", "file={disc},if=none,id=cd,format=raw,media=cdrom", "-device", "ide-cd,drive=cd,bus=ide.1")
COMMON = [*DISPLAY_AND_PORTS, *(word for part in MORE for word in ("-device", part)), *DISK, *DISC]
FLOPPY = ("-drive", "if=floppy,file={floppy},format=raw")
BOARDS = {
    "i440fx": ["-M", "pc", *FLOPPY, "-device", "pci-bridge,id=br,chassis_nr=1", "-device", "edu,bus=br,addr=3"],
    "q35": ["-M", "q35", "-device", "pcie-root-port,id=rp,chassis=1", "-device", "e1000e,bus=rp"],
}
SIZES = {"disk": 1 << 18, "disc": 1 << 18, "floppy": 1474560}
PATHS = ("batched", "buffered", "sync")
PIO_BARS, MMIO_BARS, LATCH, DATA = 0xC000, 0xE0000000, 0xCF8, 0xCFC
SETTLED = 600  # accesses, about, between two guests' set-ups
JUMPS = (10**6, 10**6, 10**7, 50_000_000)


@cache
def layout(name: str) -> tuple[MachineSpec, Plan]:
    """The board, with RAM as the parts have it, and its plan."""
    spec = from_qemu([*BOARDS[name], *COMMON], sizes=SIZES).spec(name)
    spec = replace(spec, board=replace(spec.board, ram=programs.RAM, low_ram=programs.LOW_RAM))
    return spec, plan(derive(spec))


Access = tuple[int, int, int, int, int]  # space, address, bytes, direction, value


Range = tuple[int, int, int, tuple[Register, ...]]  # space, base, bytes, registers


@cache
def ranges(name: str) -> tuple[tuple[Range, ...], dict[tuple[str, int], tuple[int, int]], tuple[Access, ...]]:
    """Where a guest finds registers, where region n of the first device of a type is, and the writes that place what
    can be moved."""
    made = layout(name)[1]
    found: list[Range] = []
    where: dict[tuple[str, int], tuple[int, int]] = {}
    setup: list[Access] = []
    ports, memory = PIO_BARS, MMIO_BARS
    for p in made.devices:
        placed = {q.index: q.base for q in made.placed if q.rank == p.rank}
        if p.spec.bdf is not None:
            number = p.spec.bdf.number
            placed[CONFIG_REGION] = number << 32
            for n, r in enumerate(p.regions[:6] if not p.spec.bus else ()):
                if not r.size:
                    continue
                room = max(r.size, 4096)
                if r.space == Space.PIO:
                    placed[n], ports = ports, ports + max(r.size, 64)
                else:
                    placed[n] = memory = -(-memory // room) * room
                    memory += room
                setup.append((Space.CONFIG, number << 32 | 0x10 + 4 * n, 4, 1, placed[n]))
            setup.append((Space.CONFIG, number << 32 | 4, 2, 1, 7))
            if p.spec.type == "q35-mch":
                setup.append((Space.CONFIG, number << 32 | 0x60, 4, 1, 0xB0000001))
        for n, base in placed.items():
            r = p.regions[n]
            here = tuple(x for x in p.cls.REGISTERS if x.region == n)
            found.append((r.space, base, r.size, here))
            where.setdefault((p.spec.type, n), (r.space, base))
    return tuple(found), where, tuple(setup)


class Guest:
    """Makes one life of a board."""

    def __init__(self, name: str, seed: int, life: int) -> None:
        self.name, self.random = name, random.Random(f"{name} {seed} {life}")
        self.ranges, self.where, self.setup = ranges(name)
        self.plan = layout(name)[1]
        self.pool = programs.pointers(self.random)
        self.places = [p for p in map(programs.place, self.pool) if p is not None and p < programs.RAM - 64]
        types = {d.spec.type for d in self.plan.devices}
        self.kinds = [k for k in subjects.SUBJECTS if k in types and programs.compiled(k)]
        self.acc: list[tuple[int, ...]] = []
        self.inputs: list[tuple[int, ...]] = []
        self.bytes = bytearray()
        self.now = 0

    def life(self, n: int) -> tuple[Any, Any, bytes]:
        """About n accesses, the inputs between them, and the bytes that come into RAM."""
        while len(self.acc) < n:
            if self.random.random() * SETTLED * 3 < 1 or not self.acc:
                for row in self.setup:
                    self.access(*row)
            self.turn()
        acc, inputs = np.zeros(len(self.acc), ACC), np.zeros(len(self.inputs), INPUT)
        acc[:] = self.acc
        inputs[:] = self.inputs
        return acc, inputs, bytes(self.bytes)

    def access(self, space: int, addr: int, size: int, way: int, value: int) -> None:
        """One access, now."""
        if space == Space.PIO:
            addr &= 0xFFFF
        size = min(size, 8 if space == Space.MMIO else 4)
        self.acc.append((self.now, addr, value & (1 << 8 * size) - 1 if way else 0, 0, size, space, way, 0, 0))
        self.now += self.random.choice((25, 25, 25, 1000, 20_000))

    def poke(self, at: int, data: bytes) -> None:
        """Bytes into RAM, at a place in its file."""
        gpa = at if at < programs.LOW_RAM else at - programs.LOW_RAM + programs.HIGH
        self.inputs.append((self.now, len(self.acc), gpa, len(self.bytes) << 32 | len(data), RAM, 0))
        self.bytes += data

    def turn(self) -> None:
        """One thing that a guest does."""
        r = self.random
        luck = r.random()
        if luck < 0.02:
            self.sequence()
        elif luck < 0.04:
            self.now += r.choice(JUMPS)
        elif luck < 0.09 and (not self.inputs or self.inputs[-1][1] != len(self.acc)):
            kind, id = r.choice(((KEY, "kbc"), (AUX, "kbc"), (INTACK, "lapic0"), (INTACK, "lapic0"), (KEY, "com1")))
            value = 0 if kind == INTACK else r.getrandbits(8)
            self.inputs.append((self.now, len(self.acc), 0, value, kind, self.plan.rank(id) << 8))
        elif luck < 0.11:
            self.poke(r.choice(self.places), r.randbytes(8))
        elif luck < 0.80:
            space, base, size, registers = r.choice(self.ranges)
            if registers and r.random() < 0.7:
                x = r.choice(registers)
                self.access(space, base + x.offset, max(1, x.width // 8), r.getrandbits(1), self.value(x))
            else:
                at = r.randrange(min(size, 4096)) if r.random() < 0.9 else r.randrange(size)
                self.access(space, base + at, r.choice((1, 1, 2, 4, 8)), r.getrandbits(1), r.getrandbits(64))
        elif luck < 0.90:  # configuration space by its two ports
            number = r.choice([d.spec.bdf.number for d in self.plan.devices if d.spec.bdf])
            register = r.choice((4, r.randrange(256), r.randrange(256), 0x10 + 4 * r.randrange(6)))
            self.access(Space.PIO, LATCH, 4, 1, 1 << 31 | number << 8 | register & 0xFC)
            self.access(Space.PIO, DATA + (register & 3), r.choice((1, 2, 4)), r.getrandbits(1), r.getrandbits(32))
        elif luck < 0.95:
            port = r.getrandbits(r.choice((10, 16)))
            self.access(Space.PIO, port, r.choice((1, 2, 4)), r.getrandbits(1), r.getrandbits(32))
        else:
            top = r.choice((20, 24, 32, 36, 52))
            addr = r.getrandbits(top) if r.random() < 0.7 else 0xFEC00000 | r.getrandbits(22)
            self.access(Space.MMIO, addr, r.choice((1, 2, 4, 8)), r.getrandbits(1), r.getrandbits(64))

    def value(self, x: Register) -> int:
        """A value for a register: any, its writable bits, one bit, an address."""
        r = self.random
        some = r.getrandbits(64)
        return r.choice((0, 1, -1, some, some & (x.wmask | x.w1c), 1 << r.randrange(64), r.choice(self.pool)))

    def sequence(self) -> None:
        """A sequence of a part that makes DMA."""
        kind = self.random.choice(self.kinds)
        made, _ = programs.layout(kind)
        for step, addr, value, target, op, size, _ in programs.sequence(
            kind, self.random.choice(programs.compiled(kind)), self.random, self.pool
        ):
            self.now += step
            if op == POKE:
                if size:
                    self.poke(addr, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
            elif op <= WRITE:
                w = programs.windows(kind)[target]
                at = self.where.get((made.devices[w.rank].spec.type, w.index))
                if at is not None:
                    self.access(at[0], at[1] + addr, size, op, value)


Story = tuple[Any, ...]


def story(machine: Machine, acc: Any, inputs: Any, data: bytes) -> Story:
    """All that a guest and the wires' observer see of a life, and what is left of it."""
    value, status, answers = machine.run(acc, inputs, data)
    saved = machine.save()
    left = {id: {k: v for k, v in d["state"].items() if k != "now"} for id, d in saved["devices"].items()}
    return value.tolist(), status.tolist(), answers.tolist(), machine.lines().tolist(), saved["ram"], left


WHAT = ("values", "statuses", "answers", "line changes", "RAM", "states")


def differs(a: Story, b: Story) -> str:
    """Where two stories part, or ""."""
    for what, x, y in zip(WHAT, a, b, strict=True):
        if x == y:
            continue
        if isinstance(x, dict):
            keys = [k for k in x if x[k] != y.get(k)]
            return f"{what} of {', '.join(map(str, keys))[:200]} differ"
        first = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
        return f"{what} differ from {first} on: {x[first : first + 1]} and {y[first : first + 1]}"
    return ""


def live(name: str, seed: int, life: int, n: int, placements: int = 1) -> str:
    """One life in this process and on some placements over workers: what is wrong, or ""."""
    spec, made = layout(name)
    program = Guest(name, seed, life).life(n)
    rng = random.Random(f"{seed} {life}")
    try:
        with Machine.from_spec(spec) as machine:
            want = story(machine, *program)
        for _ in range(placements):
            workers, path, key = rng.randrange(1, 4), rng.choice(PATHS), rng.getrandbits(16)
            owners = shuffled(made, workers, key)
            with Machine.from_spec(spec, workers=workers, owners=owners, path=path) as machine:
                wrong = differs(want, story(machine, *program))
            if wrong:
                return f"{path} over {workers} workers, placement {key}: {wrong}"
    except EngineError as e:
        return f"{type(e).__name__}: {e}"
    return ""
