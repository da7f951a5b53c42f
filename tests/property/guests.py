"""What a guest may do to a shipped board, drawn at random, and machines whose workers are threads."""

from __future__ import annotations

import queue
import random
import threading

import numpy as np
from hypothesis import strategies as st

from engine._abi import ACC
from engine._device import AUX, INTACK, KEY
from engine._executor import Executor
from engine._ring import WORKER, Link
from engine.errors import EngineError
from engine.machine import build_devices
from engine.sequencer import INPUT
from engine.workers._loop import WorkerLoop
from engine.workers.main import ATTENTION, STOP, _obey, plain


def _numbers(text):
    return tuple(int(word, 16) for word in text.split())


# Ports whose reads and writes of single bytes do something on both boards.
PORTS = _numbers("""
00 08 20 21 40 41 42 43 60 61 64 70 71 80 81 92 A0 A1 B2 B3 C0 D0 170 177 1CE 1F0 1F6 1F7 378 379 37A 376 3B4
3C0 3C4 3C5 3CE 3CF 3D4 3D5 3DA 3F2 3F4 3F5 3F6 3F7 3F8 3F9 3FA 3FB 3FC 3FD 402 4D0 510 511 CF9 600 604 608
700 C000
""")
MEMORY = _numbers("""
A0000 A0004 AFFFC B8000 FEC00000 FEC00010 FED00000 FED00010 FED000F0 FED00100 FED00108 FEE00020 FEE00080
FEE000B0 FEE000F0 FEE00100 FEE00200 FEE00320 FEE00350 FEE00390 E0000000 FEBF0000 B0000000 B00F8000 C0000000
100000
""")
# What needs several accesses in a row: out, in, store and load with size, address and value in hexadecimal; ? is drawn.
IDIOMS = tuple(
    line.split()
    for line in """
o1:43=34 o1:40=? o1:40=4 i1:40
o1:43=B6 o1:42=? o1:42=10 o1:61=3 i1:61
o1:43=C2 i1:40 i1:40
o1:70=A o1:71=26 o1:70=B o1:71=72 o1:70=C i1:71
o1:70=0 i1:71 o1:70=? i1:71
o1:20=11 o1:21=8 o1:21=4 o1:21=1 o1:21=0 i1:20
o1:A0=11 o1:A1=70 o1:A1=2 o1:A1=1 o1:A1=0
o1:20=20 o1:20=B i1:20
o1:3FB=3 o1:3F9=F o1:3FC=1B o1:3F8=? i1:3FA i1:3F8
o1:64=60 o1:60=47 i1:64 i1:60
o1:64=D4 o1:60=F4 i1:60 o1:60=? i1:60
o1:1F6=A0 o1:1F7=EC i1:1F7 i2:1F0 i4:1F0
o1:3F2=1C o1:3F5=8 i1:3F4 i1:3F5
o2:510=0 i1:511 i1:511
o4:CF8=80000904 o2:CFC=5 o4:CF8=80000920 o4:CFC=C001 i1:C002
o4:CF8=80000B40 o4:CFC=601 o4:CF8=80000B80 o1:CFC=1 i4:608
o4:CF8=8000F840 o4:CFC=601 o4:CF8=8000F844 o1:CFC=80 i4:608
o4:CF8=80000060 o4:CFC=B0000001 l4:B0000000 s1:B00F8060=?
o4:CF8=80001010 o4:CFC=E0000000 o4:CF8=80001004 o1:CFC=3 s4:E0000010=?
o4:CF8=80000810 o4:CFC=E0000000 o4:CF8=80000804 o1:CFC=3 l4:E0000010
s4:FEE000F0=1FF s4:FEE00320=20040 s4:FEE003E0=0 s4:FEE00380=123456
l4:FEE00390 l4:FEE00210 s4:FEE000B0=0
s4:FEC00000=14 s4:FEC00010=41 s4:FEC00000=? l4:FEC00010
s4:FED00100=2C s4:FED00108=11170 s4:FED00108=11170 s4:FED00010=1 l4:FED000F0
s4:FED00010=3 l4:FED00020
""".strip().split("\n")
)
W, R = 1, 0
STEPS = (0, 0, 0, 30, 120, 1000, 1000, 20_000, 400_000, 3_000_000)


def _parse(text, drawn):
    """(space, address, size, direction, value) of one access of an idiom."""
    at, _, value = text[3:].partition("=")
    space, way = {"o": (0, W), "i": (0, R), "s": (1, W), "l": (1, R)}[text[0]]
    return space, int(at, 16), int(text[1]), way, drawn if value == "?" else int(value or "0", 16)


def _access(code, v, where):
    """One drawn step as accesses without their times."""
    if code < 30:
        return [_parse(one, v & 0xFF) for one in IDIOMS[where % len(IDIOMS)]]
    if code < 45:
        return [(0, PORTS[where % len(PORTS)], 1, W, v & 0xFF)]
    if code < 70:
        return [(0, PORTS[where % len(PORTS)], (1, 1, 1, 2, 4)[v % 5], R, 0)]
    if code < 76:
        return [(1, MEMORY[where % len(MEMORY)] | (v & 0x3F) << 2 & 0xFC, (1, 2, 4, 8)[v >> 8 & 3], R, 0)]
    if code < 80:
        return [(1, MEMORY[where % 4] + (v & 63), (1, 2, 4, 8)[v >> 8 & 3], W, v)]
    devfn = ((0, 0), (1, 0), (1, 1), (1, 3), (2, 0), (31, 0), (31, 2), (31, 3))[where % 8]
    way = W if code > 94 else R
    register = v & 0xFC
    if way == W and (0x10 <= register < 0x28 or register == 0x30):
        register = 0x3C  # where two BARs overlap, which one is seen depends on where they were before
    return [(2, (devfn[0] << 3 | devfn[1]) << 32 | register, (1, 2, 4, 1)[v >> 8 & 3], way, v >> 16 & 0xFF)]


def stream_of(plan, steps):
    """(ACC records, INPUT records) of a guest of a shipped board that does these steps; times begin at 0."""
    keyboard, lapic, com1 = (plan.rank(id) for id in ("kbc", "lapic0", "com1"))
    acc, inputs, t = [], [], 0
    for code, v, where, dt in steps:
        t += dt
        if v & 0xF == 0xF:
            kind, rank = ((KEY, keyboard), (INTACK, lapic), (AUX, keyboard), (KEY, com1), (INTACK, lapic))[where % 5]
            inputs.append((t, len(acc), 0, 0 if kind == INTACK else v >> 4 & 0xFF, kind, rank << 8))
        for space, addr, n, way, value in _access(code, v, where):
            acc.append((t, addr, value, 0, min(n, 4) if space != 1 else n, space, way, 0, 0))
            t += 25
    a, i = np.zeros(len(acc), ACC), np.zeros(len(inputs), INPUT)
    a[:] = acc
    i[:] = inputs
    return a, i


def streams(plan, size):
    """Strategy: streams of up to `size` steps."""
    step = st.tuples(st.integers(0, 99), st.integers(0, (1 << 32) - 1), st.integers(0, 255), st.sampled_from(STEPS))
    return st.lists(step, min_size=8, max_size=size).map(lambda steps: stream_of(plan, steps))


def random_stream(plan, size, seed):
    """One stream of `size` steps."""
    rng = random.Random(seed)
    return stream_of(
        plan, [(rng.randrange(100), rng.getrandbits(32), rng.randrange(256), rng.choice(STEPS)) for _ in range(size)]
    )


class Threads:
    """engine.workers.pool.Pool with threads for processes: a machine starts in milliseconds."""

    crowded = True

    def __init__(self, plan, owners, ram, contents, wait="adaptive", pin=False, **others):
        assert not any(others.values())  # no network here
        self.plan, self.owners, self.ram, self.contents, self.wait = plan, owners, ram, contents, wait
        self.workers, self.links, self.errors = [], [], []

    def start(self):
        for number in range(max(self.owners) + 1):
            self.workers.append(_Worker(self, number))
        self.links = [w.link for w in self.workers]
        self.arenas = [w.arena for w in self.workers]
        self.states = {d.rank: (w.arena, d.state_at) for w in self.workers for d in w.made.values()}
        for w in self.workers:
            w.start()
        return self

    def check(self):
        if self.errors:
            raise self.errors[0]

    def command(self, number, *command):
        w = self.workers[number]
        w.asked.put(command)
        w.link.stop(ATTENTION)
        try:
            kind, what = w.answers.get(timeout=60)
        finally:
            w.link.stop(0)
        if kind == "error":
            raise what if isinstance(what, EngineError) else EngineError(str(what))
        return what

    def call(self, device, method, *args):
        number = next(w.number for w in self.workers if device in w.devices)
        return self.command(number, "call", device, method, args)

    def stop(self):
        for w in self.workers:
            w.link.stop(STOP)
        for w in self.workers:
            w.join(30)
            assert not w.is_alive()
        assert not self.errors
        self.workers, self.links = [], []


class _Worker(threading.Thread):
    def __init__(self, pool, number):
        super().__init__(daemon=True)
        plan = pool.plan
        ranks = [r for u, unit in enumerate(plan.units) if pool.owners[u] == number for r in unit]
        self.pool, self.number, self.devices = pool, number, [plan.devices[r].id for r in ranks]
        self.pid = 0
        self.link = Link.create(name=f"t{number}", n_units=len(plan.units), requests=4096, effects=4096)
        self.made, self.arena = build_devices(plan, ranks, pool.ram, pool.contents)
        groups = sorted(sorted(unit) for unit in plan.units if unit[0] in ranks)
        executor = Executor(self.made.values(), groups, [w for w in plan.inner_wires() if w[0] in ranks])
        theirs = Link.attach(self.link.segment.fileno(), WORKER)
        self.loop = WorkerLoop(executor, theirs, [plan.devices[g[0]].unit for g in groups], pool.wait, True)
        self.asked, self.answers = queue.SimpleQueue(), queue.SimpleQueue()

    def run(self):
        try:
            while (word := self.loop.serve()) != STOP:
                if word != ATTENTION:
                    continue
                try:
                    command = self.asked.get_nowait()
                except queue.Empty:
                    continue
                try:
                    self.answers.put(("ok", plain(_obey(command, self.made, self.loop))))
                except Exception as e:
                    self.answers.put(("error", e))
        except BaseException as e:
            self.pool.errors.append(e)
