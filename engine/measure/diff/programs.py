"""Programs of accesses for one part, made from its register map: what drivers do, and what no driver does."""

from __future__ import annotations

import random

import numpy as np

from engine._abi import ACC
from engine.measure.diff.board import ACK, DATA, KEY, LATCH, LINE, RESET, Array, Board, Filter, Part, Window
from engine.measure.diff.drivers import DRIVERS, Hands, bridge
from engine.types import RO, WO, Register, Space

EVENTS = {"i8259": (ACK, ACK, LINE), "ioapic": (ACK, LINE, LINE), "lapic": (ACK,), "i8042": (KEY, ACK)}
LINES = (3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15)  # interrupts that no part raises while another is under test
DEFAULT_STEP_NS = 50_000_000
DRIVE, PULL = 0.01, 0.0005  # of the turns: a driver's sequence, a reset of the machine
ON_MEDIA = ("piix3-ide", "ich9-ahci", "fdc")  # whose drivers need media
RESETS = ((0xCF9, 0x06), (0x92, 0x01), (0x64, 0xFE))  # port and value
SETTLE_NS = 10_000  # after the set-up: a counter that it stops ends its last clock


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
        self.sure = False  # a driver may do what a program at random may not
        self.events = EVENTS.get(part.type, ()) if events else ()
        self.targets = [
            (w, r, i)
            for w in part.windows
            for r, i in [(r, None) for r in w.direct] + [(r, (at, n)) for at, n, r in w.indexed]
        ]

        own = part.type in DRIVERS and (board.media or part.type not in ON_MEDIA)
        self.drivers = ([DRIVERS[part.type]] if own else []) + ([bridge] if part.above else [])
        named = {r.name: (w, r) for w in part.windows for r in w.direct if w.space != Space.CONFIG}
        self.hands = Hands(self, self.random, named)

    def program(self, accesses: int) -> Array:
        """At least so many accesses, then what reads every register once more."""
        self._set_up()
        while len(self.rows) < accesses:
            self._turn()
        self._sweep()
        return self.records()

    def records(self) -> Array:
        """What has been made so far."""
        out = np.zeros(len(self.rows), ACC)
        out["t_ns"], out["space"], out["addr"], out["size"], out["dir"], out["value"] = np.array(self.rows, np.uint64).T
        return out

    def _set_up(self) -> None:
        """Ranges where they belong, the part as it is to be, and all that settled."""
        for row in self.board.preamble(self.part):
            self.emit(*row)
        self.now += SETTLE_NS

    def _reset(self) -> None:
        """The machine is reset, by one of the ports that do so, and set up again."""
        for line in [n for n in LINES if self.high >> n & 1]:
            self.emit(LINE, line, 4, 0, 0)
        self.high = 0
        for row in self.board.raw.get("setup", []):
            for at, size, value in row.get("before", []) if self.part.type in row["part"] else ():
                self.emit(Space.PIO, at, size, 1, value)
        port, value = self.random.choice(RESETS)
        self.emit(RESET, port, 1, 1, value)
        self._set_up()

    def _event(self) -> None:
        """Something from outside: an interrupt is taken, a key typed, an input line moves."""
        kind = self.random.choice(self.events)
        if kind == LINE:
            line = self.random.choice(LINES)
            self.high ^= 1 << line
            self.emit(LINE, line, 4, 0, self.high >> line & 1)
        else:
            self.emit(kind, 0, 4, 0, self.random.getrandbits(7) if kind == KEY else 0)

    def _turn(self) -> None:
        pick = self.random.random()
        if pick < PULL:
            self._reset()
        elif pick < PULL + DRIVE and self.drivers:
            self.sure = True
            self.hands.taken.clear()
            self.random.choice(self.drivers)(self.hands)
            self.sure = False
        elif pick < 0.62 and self.targets:
            w, r, index = self.random.choice(self.targets)
            if index is not None:
                self.emit(w.space, w.base + index[0], index[1], 1, r.index or 0)
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
        return self.random.choice(
            (0, (1 << bits) - 1, r.reset or 0, self.random.randrange(16) & (1 << bits) - 1, r.wmask)
        )

    def _access(self, w: Window, offset: int, size: int, write: bool, value: int) -> None:
        value &= (1 << 8 * size) - 1
        if w.space == Space.CONFIG and self.board.ecam[1] and self.random.random() < 0.5:
            self.emit(Space.MMIO, self.board.ecam[0] + (w.base >> 32 << 12) + offset, size, int(write), value)
        elif w.space == Space.CONFIG:
            self.emit(Space.PIO, LATCH, 4, 1, 1 << 31 | (w.base >> 32) << 8 | offset & 0xFC)
            self.emit(Space.PIO, DATA + (offset & 3), size, int(write), value)
        else:
            if w.space == Space.MMIO or self.random.random() < 0.9:  # else it may end behind the range
                offset = max(0, min(offset, w.size - size))
                size = min(size, w.size)
            self.emit(w.space, w.base + offset, size, int(write), value & (1 << 8 * size) - 1)

    def _sweep(self) -> None:
        """Read every register of the part."""
        for w, r, index in self.targets:
            if index is not None:
                self.emit(w.space, w.base + index[0], index[1], 1, r.index or 0)
            self._access(w, r.offset, min(max(1, r.width // 8), 4), False, 0)

    def emit(self, space: int, addr: int, size: int, write: int, value: int) -> None:
        if self.filter.allow(space, addr, size, write, value) or self.sure:
            # Never two accesses at one moment: what a write makes due at once, the reference does at an undefined time
            # before the next.
            pick = self.random.random()
            top = (
                1
                if pick < 0.7
                else 2_000
                if pick < 0.92
                else min(1_000_000, self.step_max)
                if pick < 0.99
                else self.step_max
            )
            self.now += self.random.randrange(1, top + 1)
            self.rows.append((self.now, space, addr, size, write, value if write or space > Space.MMIO else 0))
