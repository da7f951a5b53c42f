"""Boards of test devices, drawn at random; what a guest does to them; and the order of everything in plain Python.

Workers are threads here, so that a thousand boards can be run over real rings in a minute.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

from engine._abi import ACC
from engine._device import BUS_RESET, INTACK, KEY, LINE, POWER_ON
from engine._executor import Executor
from engine._ring import WORKER, Link
from engine._shm import Segment
from engine.machine import build_devices
from engine.machine.build import plan
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec
from engine.sequencer import INPUT, RAM, Sequencer
from engine.testing import probe
from engine.types import Bdf
from engine.workers._loop import WorkerLoop

PROBE = "engine.testing._probe:Probe"
SENDER = "engine.testing._probe:MessageProbe"
SINK = "engine.testing._probe:ProbeSink"
PYTHON = "engine.testing.probe:PyProbe"
FUNCTION = "engine.testing._function:InterruptFunction"
PORT, RESET, MEM, ODD, BARS = 0x1000, 0x2000, 0x10000, 0x20000, (0xE0000000, 0xE0001000, 0xE0000000, 0x10000, 0x1F000)
STOP = 1


# ---------------------------------------------------------------------- boards


@st.composite
def boards(draw, functions=True, python=True):
    """A machine of two to ten devices on random wires, shared ones and several deep; ranks do not follow the wires."""
    n = draw(st.integers(2, 6))
    kinds = [PROBE, PROBE, PROBE, SENDER] + [PYTHON] * python
    order = [draw(st.sampled_from(kinds)) for _ in range(n)] + [FUNCTION] * draw(st.integers(0, 2 if functions else 0))
    order = draw(st.permutations(order)) + [SINK] * draw(st.integers(0, 2))  # upstream first
    n = len(order)
    unit, units = 0, []
    for i in range(n):  # neighbours may share a unit
        unit += i > 0 and draw(st.integers(0, 3)) > 0
        units.append(unit)
    lines = [{} for _ in range(n)]
    inputs = [{} for _ in range(n)]
    names = []
    for w in range(draw(st.integers(1, 6))):
        name = f"wire{w}"
        sources = set(draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=3)))
        free = [
            (i, p)
            for i in sorted(sources)
            for p in (("inta",) if order[i] == FUNCTION else probe.OUT)
            if p not in lines[i]
        ]
        taken = {}
        for i, p in free:
            if draw(st.integers(0, 2)) == 0 or i not in taken:
                taken[i] = p
        for i, p in taken.items():
            lines[i][p] = name
        if not taken:
            continue
        names.append(name)
        last = max(taken)
        for i in range(n):
            inner = len(taken) == 1 and units[i] == units[last] and i != last
            if (
                order[i] != FUNCTION
                and (inner or (i > last and units[i] > max(units[k] for k in taken)))
                and draw(st.booleans())
            ):
                pins = [p for p in probe.IN if p not in inputs[i]]
                if pins:
                    inputs[i][pins[0]] = name
    ranks = draw(st.permutations(range(n)))
    specs = []
    for rank, i in enumerate(ranks):
        config, at, bdf = {}, {}, None
        if order[i] == FUNCTION:
            bdf = Bdf(0, 1 + rank, 0)
        else:
            config = {
                "reaction": draw(st.sampled_from(probe.REACTIONS)),
                "delay": draw(st.integers(1, 40)),
                "posted": draw(st.booleans()),
                "unaligned": draw(st.booleans()),
            }
            at = {"port": PORT + 16 * rank, "reset": RESET + 4 * rank, "mem": MEM + 64 * rank, "odd": ODD + 16 * rank}
        specs.append(DeviceSpec(f"d{rank}", order[i], bdf, at, inputs[i], lines[i], unit=f"u{units[i]}", config=config))
    board = BoardSpec(
        name="drawn", ram=1 << 16, observe=tuple(names), mmio_unclaimed=draw(st.sampled_from(["ones", "zeros"]))
    )
    return MachineSpec(board, tuple(specs))


# ---------------------------------------------------------------------- what a guest does


@dataclass
class Stream:
    """Accesses, inputs between them, and bytes for RAM."""

    acc: np.ndarray
    inputs: np.ndarray
    ram: bytes


OFFSETS = (probe.LINES, probe.LINES, probe.ARM, probe.BURST, probe.TRAIN, probe.CANCEL, probe.DMA, probe.MESSAGE, 3, 15)
AGAIN = (0,) * 12 + (1, 2, 3, 9, 150)
STEPS = (0, 0, 0, 1, 1, 2, 3, 7, 10, 40, 1000, 10**12)


def _value(offset, v):
    """A value that makes something of a write at this offset, and not too much."""
    return {
        probe.LINES: v & 0xFF,
        probe.ARM: v & 63,
        probe.BURST: v & 7,
        probe.TRAIN: v & 0x1F0003F,
        probe.DMA: v & 0xFF,
    }.get(offset, v)


@st.composite
def streams(draw, spec, size=60, simple=False):
    """A stream for a board.  simple: only whole, aligned accesses to devices."""
    probes = [r for r, d in enumerate(spec.devices) if d.type != FUNCTION]
    functions = [r for r, d in enumerate(spec.devices) if d.type == FUNCTION]
    acc, inputs, ram, t = [], [], bytearray(), 0
    what = st.tuples(
        st.integers(0, 99),
        st.integers(0, 63),
        st.integers(0, (1 << 32) - 1),
        st.integers(0, 255),
        st.sampled_from(STEPS),
        st.sampled_from(AGAIN),
    )
    for code, who, v, where, dt, again in draw(st.lists(what, min_size=1, max_size=size)):
        t += dt
        before = len(acc)
        rank = probes[who % len(probes)] if probes else 0
        offset = OFFSETS[where % len(OFFSETS)]
        if code < 20:  # a device is told something
            w = {
                probe.LINES: (1, 2, 4),
                probe.DMA: (1, 2, 4),
                probe.BURST: (1, 2, 2),
                probe.ARM: (2,) * 3,
                probe.TRAIN: (4,) * 3,
            }.get(offset, (1,) * 3)[v % 3]
            acc.append((t, PORT + 16 * rank + offset, _value(offset, v), 0, w, 0, 1, 0, 0))
        elif code < 40:  # the same through memory
            acc.append(
                (
                    t,
                    MEM + 64 * rank + offset % 64,
                    _value(offset, v),
                    0,
                    1 if simple else (1, 2, 4, 8)[where % 4],
                    1,
                    1,
                    0,
                    0,
                )
            )
        elif code < 60:
            acc.append((t, PORT + 16 * rank + (where & 12), 0, 0, (1, 2, 4)[v % 3], 0, 0, 0, 0))
        elif code < 64:
            acc.append((t, MEM + 64 * rank + (where & 56), 0, 0, (1, 2, 4, 8)[v % 4], 1, 0, 0, 0))
        elif code < 68:
            acc.append((t, ODD + 16 * rank + (where & 8), v, 0, 4, 1, v & 1, 0, 0))
        elif code < 70:
            acc.append((t, RESET + 4 * rank, v & 1, 0, 1, 0, v >> 1 & 1, 0, 0))
        elif code < 82:
            kind = (LINE, INTACK, KEY)[where % 3]
            if kind == LINE:
                kind = KEY
            inputs.append((t, len(acc), v & 0xFF, v & 0x7F if kind != INTACK else 0, kind, rank << 8))
        elif code < 85:
            at = len(ram)
            ram += v.to_bytes(8, "little")
            inputs.append((t, len(acc), (where << 3) + (0 if simple else who & 3), at << 32 | 8, RAM, 0))
        elif simple:
            continue
        elif code < 90:  # anything anywhere: straddling, unaligned, nobody
            w = (1, 2, 4, 8)[v % 4]
            space = who & 1 if w < 8 else 1
            base = (PORT, MEM)[space] if who & 2 else (RESET - 2, ODD)[space]
            acc.append((t, base + where % (18 * len(spec.devices)), v, 0, w, space, v >> 9 & 1, 0, 0))
        elif code < 93 and functions:  # configuration: through the ports, in all widths, or directly
            bdf = spec.devices[functions[who % len(functions)]].bdf.number
            reg = (0x04, 0x10, 0x10, 0x00)[where % 4]
            value = {0x04: v & 7, 0x10: BARS[v % len(BARS)]}.get(reg, 0)
            if who & 8:
                acc.append((t, bdf << 32 | reg, value, 0, 4, 2, 1, 0, 0))
            else:
                acc.append((t, 0xCF8, 1 << 31 | bdf << 8 | reg, 0, 4, 0, 1, 0, 0))
                acc.append((t, 0xCFC + (v >> 8 & 1), value, 0, (4, 2, 1)[who >> 4 & 1], 0, who & 1, 0, 0))
        elif functions:
            reg = (0x000, 0x004, 0x400, 0x404)[where % 4]
            acc.append((t, BARS[v % 3] + reg, v >> 3 & 3, 0, 4, 1, who & 1, 0, 0))
        for _ in range(again if len(acc) > before else 0):  # a string: the last one again, with other values
            t += dt % 40
            addr, value = acc[-1][1:3]
            acc.append((t, addr, value ^ (again & 1 and addr != 0xCF8), *acc[-1][3:]))
    a, i = np.zeros(len(acc), ACC), np.zeros(len(inputs), INPUT)
    a[:] = acc
    i[:] = inputs
    return Stream(a, i, bytes(ram))


# ---------------------------------------------------------------------- machines without processes


@dataclass
class Result:
    """All that can be seen of a run."""

    value: list = field(default_factory=list)
    status: list = field(default_factory=list)
    answers: list = field(default_factory=list)
    lines: list = field(default_factory=list)
    states: dict = field(default_factory=dict)


class Bench:
    """A board on the local path, or on workers that are threads.  Rings are as small as asked."""

    def __init__(self, spec, owners=None, wait="adaptive", requests=64, effects=64):
        self.plan = plan(spec)
        self.ram = Segment.create("bench", spec.board.ram)
        self.view = memoryview(self.ram)
        self.threads, self.links, self.loops, self.errors = [], [], [], []
        self.workers = []
        if owners is None:
            self.devices, _ = build_devices(self.plan, list(range(len(self.plan.devices))), self.ram)
            self.executor = Executor(self.devices.values(), self.plan.units, self.plan.inner_wires())
            self.sequencer = Sequencer(self.plan, self.view, self.executor)
            return
        self.devices = {}
        for n in range(max(owners) + 1):
            ranks = [r for u, unit in enumerate(self.plan.units) if owners[u] == n for r in unit]
            link = Link.create(name=f"w{n}", n_units=len(self.plan.units), requests=requests, effects=effects)
            mine, _ = build_devices(self.plan, ranks, self.ram)
            self.devices |= mine
            groups = sorted(sorted(unit) for unit in self.plan.units if unit[0] in ranks)
            ex = Executor(mine.values(), groups, [w for w in self.plan.inner_wires() if w[0] in ranks])
            loop = WorkerLoop(
                ex,
                Link.attach(link.segment.fileno(), WORKER),
                [self.plan.devices[g[0]].unit for g in groups],
                wait,
                True,
            )
            self.links.append(link)
            self.loops.append(loop)
            self.threads.append(threading.Thread(target=self._serve, args=(loop,)))
        for thread in self.threads:
            thread.start()
        try:
            self.sequencer = Sequencer(self.plan, self.view, None, self.links, owners, wait, True)
            self.sequencer.check = self._check
        except BaseException:
            self.close()
            raise

    def _check(self):
        if self.errors:
            raise self.errors[0]

    def _serve(self, loop):
        try:
            while loop.serve() != STOP:
                pass
        except BaseException as e:
            self.errors.append(e)

    def close(self):
        for link in self.links:
            link.stop(STOP)
        for thread in self.threads:
            thread.join(10)
        assert not any(t.is_alive() for t in self.threads)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def run(self, stream, pieces=None, path="local"):
        """Run a stream; pieces: (accesses, path or "step") of each run in turn, the last one takes what is left."""
        out = Result()
        s = self.sequencer
        at = taken = 0
        for n, how in [*(pieces or []), (None, path)]:
            end = min(at + n, len(stream.acc)) if n is not None else len(stream.acc)
            if how == "step":
                t = int(stream.acc["t_ns"][at]) if at < len(stream.acc) else int(s.clock)
                if taken < len(stream.inputs):
                    t = min(t, int(stream.inputs["t_ns"][taken]))
                s.settle(s.clock + (max(t, s.clock) - s.clock) // 2)
                continue
            more = len(stream.inputs) if n is None else int(np.searchsorted(stream.inputs["index"], end, "left"))
            inputs = stream.inputs[taken:more].copy()
            inputs["index"] -= np.uint64(at)
            v, st_, a = s.run(stream.acc[at:end], inputs, how, stream.ram)
            out.value += v.tolist()
            out.status += st_.tolist()
            out.answers += a[inputs["kind"] != RAM].tolist()
            at, taken = end, more
        out.lines = [
            (int(r["index"]), int(r["t_ns"]), int(r["line"]), int(r["level"]), int(r["phase"])) for r in s.take_lines()
        ]
        assert not any(getattr(d, "errors", 0) for d in self.devices.values())
        out.states = {k: d.save() for k, d in self.devices.items()}
        return out


def same(a, b):
    """Assert that two results are one; the first difference is shown."""
    for name in ("status", "value", "answers", "lines"):
        x, y = getattr(a, name), getattr(b, name)
        for i in range(max(len(x), len(y))):
            p, q = x[i] if i < len(x) else None, y[i] if i < len(y) else None
            assert p == q, f"{name}[{i}]: {p} and {q}"
    for id in a.states:
        # when a device last looked at the clock is no state of the machine
        p, q = ({k: v for k, v in r.states[id].items() if k != "now"} for r in (a, b))
        assert p == q, id


# ---------------------------------------------------------------------- the order, in plain Python


class Host:
    """What surrounds one device's logic in the model."""

    def __init__(self, model, rank, spec, cls):
        self.model, self.rank, self.compiled = model, rank, spec.type != PYTHON
        self.speaks = cls.MESSAGE_SOURCE if self.compiled else False
        self.now, self.deadline, self.levels = 0, None, 0
        self.logic = probe.Logic(self, {**probe.CONFIG, **spec.config})

    def set_line(self, pin, level):
        if (self.levels >> pin & 1) != bool(level):
            self.levels ^= 1 << pin
            self.model.effects.append((self.rank, "line", pin, int(bool(level)), 0, self.now))

    def line_level(self, pin):
        return self.levels >> pin & 1

    def call_at(self, t):
        self.deadline = None if t is None else max(t, self.now + 1)

    def reset(self):
        if self.compiled:
            self.model.effects.append((self.rank, "reset", 0, 0, 0, self.now))

    def message(self, addr, value):
        if self.speaks:
            self.model.effects.append((self.rank, "message", 0, value, addr & 0xFFFFFFFF, self.now))

    def fetch(self, gpa, n):
        return bytes(self.model.ram[gpa : gpa + n]).ljust(n, b"\0")


ACCESS = 1 << 20  # the place of an access, behind all inputs before it


class Model:
    """docs/ordering.md as a program: one queue, one clock, no rings.  Whole accesses to test devices only."""

    def __init__(self, spec):
        self.plan = p = plan(spec)
        self.ram = bytearray(spec.board.ram)
        self.effects = []
        self.hosts = [Host(self, d.rank, d.spec, d.cls) for d in p.devices]
        for h in self.hosts:
            h.logic.on_reset(POWER_ON)
        self.effects = []  # levels at power-on are told as levels
        self.unit = {r: u for u, unit in enumerate(p.units) for r in unit}
        self.net = {source: n for n, net in enumerate(p.nets) for source in net.sources}
        self.high = [sum(self.hosts[r].levels >> pin & 1 for r, pin in net.sources) for net in p.nets]
        self.lines, self.key, self.now = [], (0, 0, 0), 0  # key: index, place, phase
        for net, high in zip(p.nets, self.high, strict=True):
            if high:
                for rank, pin in sorted(net.sinks):
                    self.call(self.hosts[rank], lambda h, pin=pin: h.logic.on_input(LINE, pin, 0, 1), 0)
        self.carry()
        self.lines = []

    def call(self, host, what, t):
        """One call of a device, and what its effects do to the rest of its unit."""
        host.now = t
        mark = len(self.effects)
        answer = what(host)
        self.inner(mark)
        return answer

    def inner(self, mark):
        while mark < len(self.effects):
            rank, kind, pin, value, addr, t = self.effects[mark]
            for source, k, p, sink, sink_pin in self.plan.inner_wires():
                if source == rank and ("line", "message")[k] == kind and (k == 1 or p == pin):
                    h = self.hosts[sink]
                    h.now = t
                    h.logic.on_input((LINE, 3)[k], sink_pin, addr, value)
            mark += 1

    def carry(self):
        """Effects, wave by wave."""
        reset = False
        while self.effects:
            wave = sorted(self.effects, key=lambda e: e[0])
            self.effects = []
            for rank, kind, pin, value, addr, t in wave:
                if kind == "reset":
                    reset = True
                elif kind == "message":
                    for sink in self.plan.message_sinks:
                        if self.unit[sink] != self.unit[rank]:
                            self.due(self.hosts[sink], t)
                            self.call(self.hosts[sink], lambda h, a=addr, v=value: h.logic.on_input(3, 0, a, v), t)
                elif (rank, pin) in self.net:
                    n = self.net[rank, pin]
                    was = self.high[n] > 0
                    self.high[n] += 1 if value else -1
                    if was == (self.high[n] > 0):
                        continue
                    if self.plan.nets[n].line >= 0:
                        self.lines.append((self.key, t, self.plan.nets[n].line, int(not was)))
                    for sink, sink_pin in sorted(self.plan.nets[n].sinks):
                        self.call(
                            self.hosts[sink], lambda h, p=sink_pin, v=int(not was): h.logic.on_input(LINE, p, 0, v), t
                        )
        if reset:
            index, place, phase = self.key
            if phase:  # behind the access that asked for it
                self.key = (index + 1, 0, 0) if place == ACCESS else (index, place + 1, 0)
            for h in self.hosts:
                h.now = self.now
                h.logic.on_reset(BUS_RESET)
            self.inner(0)
            self.carry()

    def due(self, host, t):
        assert host.deadline is None or host.deadline > t

    def advance(self, t):
        while True:
            first = min((h.deadline for h in self.hosts if h.deadline is not None), default=t + 1)
            if first > t:
                break
            for unit in sorted(self.plan.units, key=min):
                for rank in sorted(unit):
                    h = self.hosts[rank]
                    if h.deadline is not None and h.deadline <= first:
                        h.deadline = None
                        self.call(h, lambda h: h.logic.on_time(), first)
            self.carry()
        self.now = max(self.now, t)

    def run(self, stream):
        out = Result()
        j = 0
        for i in range(len(stream.acc) + 1):
            first = j
            while j < len(stream.inputs) and stream.inputs[j]["index"] == i:
                r = stream.inputs[j]
                j += 1
                value = int(r["value"])
                if r["kind"] == RAM:
                    at, n = value >> 32, value & 0xFFFFFFFF
                    self.ram[int(r["addr"]) : int(r["addr"]) + n] = stream.ram[at : at + n]
                    continue
                self.key = (i, j - first, 0)
                t = max(self.now, int(r["t_ns"]))
                self.advance(t)
                self.key = (i, j - first, 1)
                kind = int(r["kind"])
                addr = 0 if kind == INTACK else int(r["addr"])
                got = self.call(
                    self.hosts[int(r["target"]) >> 8],
                    lambda h, k=kind, a=addr, v=value: h.logic.on_input(k, 0, a, v),
                    t,
                )
                out.answers.append(got - (1 << 64) if got >> 63 else got)
                self.carry()
            if i == len(stream.acc):
                break
            a = stream.acc[i]
            t, addr, size, value = int(a["t_ns"]), int(a["addr"]), int(a["size"]), int(a["value"])
            self.key = (i, ACCESS, 0)
            self.advance(t)
            self.key = (i, ACCESS, 1)
            region, base = next((k, b) for k, b in ((3, ODD), (2, MEM), (1, RESET), (0, PORT)) if addr >= b)
            each = (16, 4, 64, 16)[region]
            host, offset = self.hosts[(addr - base) // each], (addr - base) % each
            mask = (1 << 8 * size) - 1
            if a["dir"]:
                ok = self.call(host, lambda h, r=region, o=offset, s=size, v=value & mask: h.logic.write(r, o, s, v), t)
                out.value.append(value)
                out.status.append(0 if ok else 1)
            else:
                got = self.call(host, lambda h, r=region, o=offset, s=size: h.logic.read(r, o, s), t)
                ones = self.plan.spec.board.mmio_unclaimed == "ones"
                out.value.append(got & mask if got is not None else mask if ones else 0)
                out.status.append(1 if got is None else 0x80 if region == 3 and offset >= 8 and host.compiled else 0)
            self.carry()
        out.lines = [
            (index, t, line, level, int((place, phase) == (ACCESS, 1)))
            for (index, place, phase), t, line, level in sorted(self.lines, key=lambda r: r[:3])
        ]
        return out


def placements(spec):
    """Strategy: owners of the units, without an empty worker."""
    n = len(plan(spec).units)
    return st.lists(st.integers(0, min(3, n - 1)), min_size=n, max_size=n).map(
        lambda owners: [sorted(set(owners)).index(w) for w in owners]
    )


def restricted(spec, **config):
    """The same board with settings changed in every test device."""
    return replace(
        spec,
        devices=tuple(d if d.type == FUNCTION else replace(d, config={**d.config, **config}) for d in spec.devices),
    )
