"""What the benches share: interleaved repetitions, rows of results, machines on two CPUs.

A bench and its limit take turns in one run, since what a host can do drifts within minutes.  A row's value and limit
are the medians of their repetitions; its ratio is the median of the repetitions' ratios, its spread the distance of
their quartiles over that median.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import data
from engine._abi import ACC
from engine.errors import EngineError
from engine.frontends import replay, trace
from engine.machine import Machine
from engine.machine.spec import MachineSpec, PlacementSpec
from engine.measure import _limits
from engine.sequencer import Sequencer
from engine.testing._walk import Walk

Array = npt.NDArray[Any]
Row = dict[str, Any]


# What keeps a row from its goal or aim, by the beginning of its name; docs/performance.md has the whole of it.
BOUNDS = {
    "local_trace.": "what the loop has not: deadlines, order, effects, inputs and changes of the map",
    "batched.": "88 instructions an access in the worker, 108 in the router; both wait at each write that may "
    "move a region, which the raw rings do not",
    "posted.": "each write is answered, and the batch is vetted first: the raw ring does neither",
    "sync_spin.": "the two passages of a line are the ping-pong's; look-up, device and deadlines come on top",
    "qemu.tcg.": "4 ns an access: vetting, its check, number, status, value; .bound: a loop of look-up and call",
    "stamps.batched": "a string of 127 accesses, 0.6 us, is stamped four times: one in 64 slots of the ring",
    "adaptive.": "a stall of the host is charged to each access behind it, in whichever policy it meets",
    "oversubscribed": "other work on these CPUs: workers that wait for one have to be let in",
}

HISTOGRAMS: dict[str, Array] = {}  # of the engine's own latencies, by what was measured; for --hgrm


class Skipped(EngineError):
    """A bench that this host cannot run; the message says why."""


def row(
    name: str,
    unit: str,
    values: Any,
    limit_name: str,
    limits: Any,
    goal: float | None = None,
    way: str = "<=",
    aim: float | None = None,
) -> Row:
    """One result.  limits: one for each value, or one number.  goal: the promised bound of value / limit, None if
    nothing is promised; aim: where it is to come; `bound` says what keeps a row from either."""
    v, x = np.asarray(values, float), np.broadcast_to(np.asarray(limits, float), np.shape(values))
    ratios = v / x
    low, ratio, high = (float(q) for q in np.percentile(ratios, (25, 50, 75)))

    def reached(least: float | None) -> bool:
        return least is None or (ratio <= least if way == "<=" else ratio >= least)

    why = next((text for start, text in BOUNDS.items() if name.startswith(start)), "")
    return {
        "name": name,
        "value": round(float(np.median(v)), 3),
        "unit": unit,
        "limit_name": limit_name,
        "limit": round(float(np.median(x)), 3),
        "ratio": round(ratio, 3),
        "goal": goal,
        "way": way,
        "ok": reached(goal),
        "n": len(v),
        "spread": round((high - low) / abs(ratio), 3) if ratio else 0.0,
        "aim": aim,
        "bound": "" if reached(goal) and reached(aim) else why,
    }


def turns(first: Callable[[], Any], second: Callable[[], Any], n: int) -> tuple[list[Any], list[Any]]:
    """n results of each, called in turn, every other time in the other order; one call of each before the first is
    not counted."""
    first(), second()
    a: list[Any] = []
    b: list[Any] = []
    for i in range(n):
        if i & 1:
            b.append(second())
            a.append(first())
        else:
            a.append(first())
            b.append(second())
    return a, b


def cpus() -> tuple[int, int]:
    """Two CPUs on different cores if there are such.  Raises Skipped on a host with one."""
    pair = _limits.pair()
    if pair[0] == pair[1]:
        raise Skipped("needs two CPUs, this process may use one")
    return pair


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """The calling thread on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def machine(
    spec: MachineSpec, path: str, wait: str = "adaptive", contents: Any = None
) -> Iterator[tuple[Machine, tuple[int, int]]]:
    """A started machine whose one worker is on the second of two CPUs; the caller runs it `pinned` to the first."""
    a, b = cpus()
    spec = replace(spec, placement=PlacementSpec(workers=1, wait=wait))
    with Machine(spec, workers=1, path=path, contents=contents) as m:
        assert m.pool is not None
        os.sched_setaffinity(m.pool.workers[0].pid, {b})
        yield m, (a, b)


def accesses(n: int, space: int, addr: int, size: int = 1, write: bool = False) -> Array:
    """n equal accesses, 100 ns apart; writes carry counting values."""
    acc = np.zeros(n, ACC)
    acc["space"], acc["addr"], acc["size"], acc["dir"] = space, addr, size, write
    acc["t_ns"] = np.arange(n) * 100
    if write:
        acc["value"] = np.arange(n) & 0xFF
    return acc


def later(m: Machine, acc: Array) -> Array:
    """The same accesses, beginning at the machine's present time."""
    acc = acc.copy()
    acc["t_ns"] += np.uint64(m.clock.now)
    return acc


def keep(name: str, histogram: Array) -> None:
    """Add a sequencer's latency histogram to what --hgrm writes."""
    HISTOGRAMS[name] = HISTOGRAMS.get(name, 0) + histogram


def quantile(histogram: Array, q: float) -> float:
    """A quantile in ns of a sequencer's latency histogram, linear within the bucket (3 % wide)."""
    edges = np.array([float(x) for x in Sequencer.bucket_ticks()])
    counts = histogram.astype(float)
    up_to = np.cumsum(counts)
    want = q * up_to[-1]
    i = int(np.searchsorted(up_to, want))
    low = edges[i]
    high = edges[i + 1] if i + 1 < len(edges) else low
    inside = (want - (up_to[i] - counts[i])) / counts[i]
    return float((low + inside * (high - low)) * 1e9 / _limits.tsc_hz())


class Recording:
    """A shipped trace with its machine, ready to be run: reads poisoned, content learnt."""

    def __init__(self, name: str) -> None:
        self.trace = trace.load(data.trace(name))
        self.job = replay.open_job(self.trace, None, "auto", {})
        replay.learn(self.job)
        self.acc = np.ascontiguousarray(replay.poisoned(self.trace))

    def inputs(self, m: Machine) -> tuple[Array, Any]:
        """(INPUT records at the machine's present time, RAM bytes)."""
        given = replay.machine_inputs(m, self.trace)
        records = given.records.copy()
        records["t_ns"] += np.uint64(m.clock.now)
        return records, given.ram_bytes

    def walk(self) -> Walk:
        """The raw loops over a machine of its own that has run the trace once."""
        self.kept = Machine(self.job.spec, path="local", contents=self.job.contents).start()
        self.kept.run(self.acc, *self.inputs(self.kept))
        return Walk(self.kept)


@cache
def recording(name: str) -> Recording:
    """A shipped trace, read once."""
    return Recording(name)
