"""A router whose first worker lies: a process of its own, so that a crash or a hang of the router is seen.

`python -m tests.stress.liar told PATH [LIE]` tries each lie once; `... drawn BOARD SEED N` tells lies at random.
One line of JSON per run: [name, exception or null, message].
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np

from engine._abi import ACC, CPL, EFFECT, SLOT
from engine._executor import Executor
from engine._ring import WORKER, Link, link_layout
from engine._shm import Segment
from engine.errors import EngineError
from engine.machine import build_devices
from engine.machine.build import plan
from engine.machine.derive import derive
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec, load
from engine.sequencer import Sequencer
from engine.types import Bdf
from engine.workers._loop import WorkerLoop
from engine.workers._wait import Waiter
from tests.property.guests import random_stream

sys.path.insert(0, str(Path(__file__).parents[2]))
PRODUCED, POSTED, SEEN, KEPT, EXECUTED, ANSWERED, FX_PRODUCED, FX_CONSUMED = 256, 264, 272, 280, 384, 392, 512, 640
WORKER_ASLEEP, ROUTER_ASLEEP, STOP, HEARTBEAT = 768, 896, 1024, 1152
READY, IN_PROCESS, RESPONSE = 1, 2, 3
LINE, MESSAGE, MAP, RESET = 0, 1, 2, 3
TIMER, SLOT_CAUSE = 1 << 63, 1 << 62
RECORDS, EFFECTS = 16, 1024  # capacities of a link
PATIENCE, SHORT = 30.0, 0.2  # seconds; the short one where silence is the lie


class Liar(threading.Thread):
    """The worker's end of a link, in plain memory accesses.  It is honest until `lie` is set, which is called with
    "slot", "record" or "idle" at each turn and returns True if it has answered itself."""

    def __init__(self, link, n_units):
        super().__init__(daemon=True)
        self.end, self.waiter = Link.attach(link.segment.fileno(), WORKER), Waiter("block")
        at = link_layout(link.n_vcpus, n_units, RECORDS.bit_length() - 1, EFFECTS.bit_length() - 1, False)
        memory = np.frombuffer(link.segment, np.uint8)
        self.words = memory.view(np.uint64)
        self.slot = memory[at["slots"] :][:64].view(SLOT)
        self.requests = memory[at["requests"] :][: 32 * RECORDS].view(np.uint64)
        self.completions = memory[at["completions"] :][: 16 * RECORDS].view(CPL)
        self.effects = memory[at["effects"] :][: 32 * EFFECTS].view(EFFECT)
        self.deadlines = memory[at["deadlines"] :][: 8 * n_units].view(np.uint64)
        self.executed = self.fx = 0
        self.lie = None
        self.leave = False
        self.told = 0

    def word(self, at):
        return int(self.words[at >> 3])

    def set(self, at, value):
        self.words[at >> 3] = np.uint64(value % (1 << 64))

    def run(self):
        while not self.leave:
            if not self.turn():
                time.sleep(0.0001)

    def turn(self):
        if self.slot["state"][0] == READY:
            if not (self.lie and self.lie("slot")):
                self.answer()
            return True
        if self.executed < self.word(PRODUCED):
            if not (self.lie and self.lie("record")):
                self.complete()
            return True
        return bool(self.lie and self.lie("idle"))

    def answer(self, value=0, status=0):
        self.slot["state"] = IN_PROCESS
        self.slot["value"] = value
        self.slot["status"] = status
        self.slot["state"] = RESPONSE
        self.waiter.wake(self.end)

    def complete(self, value=0, seq=None, status=0, flags=0):
        i = self.executed
        self.completions[i % RECORDS] = (value, (i if seq is None else seq) & 0xFFFFFFFF, status, flags, 0)
        self.executed += 1
        self.set(EXECUTED, self.executed)
        self.waiter.wake(self.end)

    def emit(self, device=0, pin=0, kind=LINE, value=1, t_ns=0, cause=None, addr=0):
        """One effect, if there is room; the cause is the record in hand."""
        if self.fx - self.word(FX_CONSUMED) >= EFFECTS:
            return False
        cause = self.executed if cause is None else cause
        self.effects[self.fx % EFFECTS] = (t_ns, cause % (1 << 64), value, addr, device, pin, kind)
        self.fx += 1
        self.set(FX_PRODUCED, self.fx)
        return True


class Router:
    """A board whose first worker is a liar; the second is honest.  Both are threads."""

    def __init__(self, spec, owners):
        self.plan = plan(derive(spec))
        self.ram = Segment.create("liar", spec.board.ram)
        n = len(self.plan.units)
        self.links = [
            Link.create(name=f"w{k + 1}", n_units=n, requests=RECORDS, effects=EFFECTS, n_vcpus=spec.board.cpus)
            for k in (0, 1)
        ]
        self.liar = Liar(self.links[0], n)
        ranks = [r for u, unit in enumerate(self.plan.units) if owners[u] == 1 for r in unit]
        self.devices, self.arena = build_devices(self.plan, ranks, self.ram)
        groups = sorted(sorted(unit) for unit in self.plan.units if unit[0] in ranks)
        executor = Executor(self.devices.values(), groups, [w for w in self.plan.inner_wires() if w[0] in ranks])
        end = Link.attach(self.links[1].segment.fileno(), WORKER)
        self.loop = WorkerLoop(executor, end, [self.plan.devices[g[0]].unit for g in groups], "adaptive", True)
        self.honest = threading.Thread(target=self._serve, daemon=True)
        self.liar.start()
        self.honest.start()
        self.sequencer = Sequencer(self.plan, memoryview(self.ram), None, self.links, owners, "adaptive", True)
        self.sequencer.patience = PATIENCE

    def _serve(self):
        while self.loop.serve() != 1:
            pass

    def close(self):
        """End both workers; the honest one must still be there to be ended."""
        self.liar.leave = True
        self.links[1].stop()
        self.liar.join(10)
        self.honest.join(10)
        if self.liar.is_alive() or self.honest.is_alive():
            raise SystemExit("a worker does not end")

    def everything(self, acc, inputs, path):
        """All that a user can ask of a router."""
        s = self.sequencer
        s.run(acc, inputs, path)
        s.settle(s.clock + 1000)
        s.next_event()
        s.access(0, 0x1000, 1)
        s.take_lines()
        s.reset()
        s.state()
        s.counters.values()


# ---------------------------------------------------------------------- one lie each


def small():
    """d0 and d2 belong to the liar, d1 to the honest worker; a wire runs from d0 to d1."""
    probe = "engine.testing._probe:Probe"
    at = [
        {"port": 0x1000 + 16 * n, "reset": 0x2000 + 4 * n, "mem": 0x10000 + 64 * n, "odd": 0x20000 + 16 * n}
        for n in (0, 1)
    ]
    return MachineSpec(
        BoardSpec(name="small", ram=1 << 16, observe=("wire",)),
        (
            DeviceSpec("d0", probe, None, at[0], {}, {"steady": "wire"}),
            DeviceSpec("d1", probe, None, at[1], {"i0": "wire"}, {}),
            DeviceSpec("d2", "engine.testing._function:InterruptFunction", Bdf(0, 1, 0)),
        ),
    )


def guest(n=150):
    """Reads and posted writes of all three devices, one that straddles, and a barrier."""
    acc = np.zeros(n, ACC)
    acc["t_ns"] = 10 * np.arange(n)
    acc["addr"] = np.resize([0x1003, 0x1000, 0x1013, 0x1010, 0x1008, 0x1000], n)
    acc["dir"] = np.resize([1, 0, 1, 0, 1, 0], n)
    acc["size"] = 1
    acc[n // 2] = (acc[n // 2]["t_ns"], 0x1003E, 0, 0, 4, 1, 0, 0, 0)
    acc[n // 2 + 1] = (acc[n // 2 + 1]["t_ns"], 1 << 35 | 4, 2, 0, 2, 2, 1, 0, 0)
    return acc


def once(when, what):
    """A lie told the first time that `when` comes; what(liar) is True if that was the answer."""

    def make(liar):
        def lie(now):
            if now != when or liar.told:
                return False
            liar.told += 1
            return what(liar)

        return lie

    return make


def always(when, what):
    """A lie told each time."""

    def make(liar):
        def lie(now):
            if now != when:
                return False
            liar.told += 1
            return what(liar)

        return lie

    return make


def last(what):
    """A lie about records after which nothing is answered."""

    def make(liar):
        def lie(now):
            if now == "record":
                if not liar.told:
                    what(liar)
                    liar.waiter.wake(liar.end)
                liar.told += 1
            return now == "record"

        return lie

    return make


def goes_back(liar):
    """The answer is seen, and then was never there."""
    liar.complete()
    end = time.monotonic() + PATIENCE / 2
    while liar.word(SEEN) < liar.executed and time.monotonic() < end:
        time.sleep(0.001)
    liar.set(EXECUTED, liar.executed - 1)


def lap_ago(liar):
    """An effect of a record whose place in the ring is another's by now."""

    def lie(now):
        if now == "record" and liar.executed >= RECORDS and not liar.told:
            liar.told += 1
            liar.emit(cause=liar.executed - RECORDS)
        return False

    return lie


def scribbled(*at, value=(1 << 64) - 1):
    def lie(liar):
        for word in at:
            liar.set(word, value)

    return lie


def slot_states(*states):
    def lie(liar):
        for state in states:
            liar.slot["state"] = state
            liar.waiter.wake(liar.end)
            time.sleep(0.02)
        return True

    return lie


def flood(liar):
    """Effects without end, as fast as there is room."""
    fx = liar.effects
    fx["kind"], fx["device"], fx["t_ns"], fx["cause"] = LINE, 0, 0, TIMER
    fx["pin"] = 3  # no wire
    while not liar.leave:
        liar.fx = liar.word(FX_CONSUMED) + EFFECTS
        liar.set(FX_PRODUCED, liar.fx)
        liar.waiter.wake(liar.end)
        time.sleep(0)
    return True


def garbage(section, seed=5):
    def lie(liar):
        memory = getattr(liar, section).view(np.uint64)
        memory[:] = np.random.default_rng(seed).integers(0, 1 << 63, len(memory), dtype=np.uint64)

    return lie


BAD_ANSWER = "worker 1: impossible words in its completion ring"
BAD_EFFECT = "worker 1: impossible words in its effect ring"
STATE = "worker 1: impossible state in the slot of vCPU 0"
SILENT = r"worker 1 has not answered for 0\.2 seconds"
# Name -> (lie, the error it must give; None: it is ignored).
LIES = {
    "honest": (once("record", lambda w: False), None),
    "executed one ahead": (last(lambda w: w.set(EXECUTED, w.word(PRODUCED) + 1)), BAD_ANSWER),
    "executed half the world ahead": (last(lambda w: w.set(EXECUTED, 1 << 63)), BAD_ANSWER),
    "executed all ones": (last(scribbled(EXECUTED)), BAD_ANSWER),
    "executed goes back": (last(goes_back), BAD_ANSWER),
    "another record's answer": (once("record", lambda w: w.complete(seq=w.executed + 1) or True), BAD_ANSWER),
    "an answer a lap ago": (once("record", lambda w: w.complete(seq=w.executed - RECORDS) or True), BAD_ANSWER),
    "any status": (always("record", lambda w: w.complete(status=w.executed & 0xFF, flags=0xFF) or True), None),
    "any value": (always("record", lambda w: w.complete((1 << 64) - 1 - w.executed) or True), None),
    "never an answer": (always("record", lambda w: True), SILENT),
    "never an answer in a slot": (always("slot", lambda w: True), SILENT),
    "unknown device": (once("record", lambda w: w.emit(device=3) and False), BAD_EFFECT),
    "last device number": (once("record", lambda w: w.emit(device=0xFFFF) and False), BAD_EFFECT),
    "another worker's device": (once("record", lambda w: w.emit(device=1) and False), BAD_EFFECT),
    "pin 64": (once("record", lambda w: w.emit(pin=64) and False), BAD_EFFECT),
    "pin 255": (once("record", lambda w: w.emit(pin=255, kind=MAP) and False), BAD_EFFECT),
    "no wire at the pin": (once("record", lambda w: w.emit(pin=63) and False), None),
    "effect of the future": (once("record", lambda w: w.emit(t_ns=1 << 62) and False), BAD_EFFECT),
    "effect at the end of time": (
        once("record", lambda w: w.emit(t_ns=(1 << 64) - 1, cause=TIMER) and False),
        BAD_EFFECT,
    ),
    "effect of long ago": (always("record", lambda w: w.emit(t_ns=0, value=w.executed & 1) and False), None),
    "timer of long ago": (
        always("record", lambda w: w.emit(t_ns=0, value=w.executed & 1, cause=TIMER) and False),
        None,
    ),
    "cause not yet sent": (once("record", lambda w: w.emit(cause=w.word(PRODUCED) + RECORDS) and False), BAD_EFFECT),
    "cause a lap ago": (lap_ago, BAD_EFFECT),
    "cause in the slot": (
        always("record", lambda w: w.emit(value=w.executed & 1, cause=SLOT_CAUSE | 77) and False),
        None,
    ),
    "unknown kinds": (always("record", lambda w: w.emit(kind=4 + w.executed % 252) and False), None),
    "level without change": (always("record", lambda w: w.emit(value=0) and False), None),
    "maps a region that is none": (always("record", lambda w: w.emit(kind=MAP, pin=63, addr=1) and False), None),
    "maps behind the end": (always("record", lambda w: w.emit(kind=MAP, addr=1, value=(1 << 64) - 1) and False), None),
    "maps nothing": (always("record", lambda w: w.emit(device=2, kind=MAP, addr=0, value=5) and False), None),
    "maps its ports everywhere": (
        always("record", lambda w: w.emit(kind=MAP, addr=1, value=w.executed * 7 % 0xFF00) and False),
        None,
    ),
    "maps a function where none can be": (
        always("record", lambda w: w.emit(2, 7, MAP, (1 << 52) - 5, addr=1) and False),
        None,
    ),
    "refuses a region": (
        always("slot", lambda w: w.answer(status=5) or w.emit(kind=MAP, addr=1, value=w.fx * 8, cause=SLOT_CAUSE)),
        "worker refuses region 0 of d0",
    ),
    "resets once": (once("record", lambda w: w.emit(kind=RESET) and False), None),
    "resets always": (always("record", lambda w: w.emit(kind=RESET) and False), "each of which asked for the next"),
    "a message of a silent part": (
        once("record", lambda w: w.emit(kind=MESSAGE) and False),
        "does not say MESSAGE_SOURCE",
    ),
    "messages to nobody": (always("record", lambda w: w.emit(device=2, kind=MESSAGE, addr=w.executed) and False), None),
    "effects one ahead of room": (
        once("record", lambda w: w.set(FX_PRODUCED, w.word(FX_CONSUMED) + EFFECTS + 1)),
        BAD_EFFECT,
    ),
    "effects half the world ahead": (once("record", lambda w: w.set(FX_PRODUCED, 1 << 63)), BAD_EFFECT),
    "effects go back": (once("record", lambda w: w.set(FX_PRODUCED, w.fx - 1)), BAD_EFFECT),
    "effects without end": (always("record", flood), "worker 1: more than 16777216 effects"),
    "slot state 4": (once("slot", slot_states(4)), STATE),
    "slot state all ones": (once("slot", slot_states(0xFFFFFFFF)), STATE),
    "slot emptied": (once("slot", slot_states(0)), STATE),
    "slot goes back": (once("slot", slot_states(IN_PROCESS, READY)), STATE),
    "slot in process for ever": (once("slot", slot_states(IN_PROCESS)), SILENT),
    "any slot status": (always("slot", lambda w: w.answer((1 << 64) - 1, 0xFFFFFF00) or True), None),
    "answers before it is asked": (always("idle", lambda w: w.slot["state"].fill(RESPONSE)), None),
    "deadlines at 0": (always("record", lambda w: w.deadlines.fill(0)), None),
    "deadlines that are past": (always("record", lambda w: w.deadlines.fill(w.executed)), None),
    "no deadlines": (always("record", lambda w: w.deadlines.fill((1 << 64) - 1)), None),
    "the router's own words": (always("record", scribbled(POSTED, SEEN, KEPT)), None),
    "more records than were sent": (always("record", scribbled(PRODUCED)), BAD_ANSWER),
    "the router's effect index": (always("record", scribbled(FX_CONSUMED, value=77)), None),
    "sleep words": (always("record", scribbled(WORKER_ASLEEP, ROUTER_ASLEEP, HEARTBEAT, HEARTBEAT + 8)), None),
    "stop word": (always("record", scribbled(STOP, value=1)), None),
    "counters": (always("record", scribbled(*range(1168, 1200, 8), *range(1280, 1312, 8))), None),
    "header": (always("record", scribbled(*range(0, 144, 8))), None),
    "the requests": (always("record", garbage("requests")), None),
    "effects that nobody published": (always("record", garbage("effects")), None),
    "any deadline": (always("record", garbage("deadlines")), None),
}


def attempt(name, router, acc, inputs, path):
    """One run; what came of it, as one line."""
    try:
        router.everything(acc, inputs, path)
    except EngineError as e:
        print(json.dumps([name, type(e).__name__, str(e), router.liar.told]), flush=True)
    else:
        print(json.dumps([name, None, "", router.liar.told]), flush=True)
    finally:
        router.close()


def told(path, names=()):
    for name, (make, want) in LIES.items():
        if names and name not in names:
            continue
        router = Router(small(), [0, 1, 0])
        if want == SILENT:
            router.sequencer.patience = SHORT
        router.liar.lie = make(router.liar)
        attempt(name, router, guest(), None, path)


# ---------------------------------------------------------------------- lies at random


def drawn(board, seed, n):
    """A liar that owns half of a shipped board, answers anything and drives its wires as it likes."""
    for k in range(seed, seed + n):
        rng = random.Random(k)
        spec = load(board)
        planned = plan(derive(spec))
        owners = [rng.randrange(2) for _ in planned.units]
        owners[rng.randrange(len(owners))] = 0
        owners[owners.index(0) - 1] = 1
        router = Router(spec, owners)
        liar = router.liar
        mine = [r for u, unit in enumerate(planned.units) if owners[u] == 0 for r in unit]

        sources = [r for r in mine if planned.devices[r].cls.MESSAGE_SOURCE]

        def lie(now, liar=liar, rng=rng, mine=mine, sources=sources, router=router):
            if now == "idle":
                return False
            liar.told += 1
            clock = router.sequencer.clock
            for _ in range(rng.choice([0, 0, 0, 1, 1, 3])):
                t = rng.choice([0, clock, clock, clock, rng.randint(0, clock), clock // 2])
                cause = SLOT_CAUSE if now == "slot" else rng.choice([liar.executed, liar.executed, TIMER, SLOT_CAUSE])
                kind, who, value = LINE, rng.choice(mine), rng.randrange(2)
                chance = rng.randrange(200)
                if chance < 20:
                    kind, value = MAP, rng.choice([0, 0x60, 0x1000, 0xFEC00000, 0xE0000000, rng.getrandbits(64)])
                elif chance < 40 and sources:
                    kind, who, value = MESSAGE, rng.choice(sources), rng.getrandbits(16)
                elif chance == 40:
                    kind = RESET
                liar.emit(who, rng.randrange(24 if kind == LINE else 8), kind, value, t, cause, rng.randrange(2))
            if rng.randrange(16) == 0:
                liar.deadlines[rng.randrange(len(liar.deadlines))] = rng.choice([clock + 999, 1 << 40, (1 << 64) - 1])
            value = rng.choice([0, (1 << 64) - 1, rng.getrandbits(64)])
            if now == "slot":
                liar.answer(value, rng.choice([0, 0, 0, 0x80]))
            else:
                liar.complete(value, status=rng.choice([0, 0, 1, 0xFF]))
            return True

        liar.lie = lie
        attempt(f"{board} {k}", router, *random_stream(planned, 60, k), ("sync", "buffered", "batched")[k % 3])


if __name__ == "__main__":
    if sys.argv[1] == "told":
        told(sys.argv[2], sys.argv[3:])
    else:
        drawn(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
