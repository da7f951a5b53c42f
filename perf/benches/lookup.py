"""What does finding the region of an access cost: for boards against flat tables in C, and with a million ranges?

Boards: recorded boots on the i440FX board's map, against perf/limits/lookup.c (a table of ports and one of pages, which
gives the very same answers: compared here).  Both are called from Python, in turn, on the same arrays.
A million: 2^20 random ranges over 52 bits, look-ups inside them and anywhere.

    python -m perf.benches.lookup [--quick]
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import data
from engine._abi import ACC
from engine._dispatch import ENTRY, HIT, RANGE, Dispatcher, Table
from engine.errors import EngineError
from engine.frontends import trace
from engine.machine import build, spec
from engine.types import Space
from perf.limits import library

Array = npt.NDArray[Any]
BATCHES = (2_000, 16_000)
MANY = 1 << 20
# Ports that the router itself answers, and where SeaBIOS puts BARs and the power management block: (space, base, size).
ASSIGNED = (
    (Space.PIO, 0xCF8, 4),
    (Space.PIO, 0xCFC, 4),
    (Space.PIO, 0xC000, 16),
    (Space.PIO, 0x600, 0x40),
    (Space.PIO, 0x700, 0x40),
    (Space.MMIO, 0xFD000000, 0x1000000),
    (Space.MMIO, 0xFEBF0000, 0x1000),
)


def board() -> Dispatcher:
    """The i440FX board's address map as firmware leaves it."""
    d = Dispatcher()
    planned = build.plan(spec.load("i440fx"))
    top = 0
    for q in planned.placed:
        if q.size and q.space != Space.CONFIG:
            d.map(int(q.space), q.base, q.size, q.region, accepts=sum(planned.devices[q.rank].regions[q.index].accepts))
        top = max(top, q.region + 1)
    for n, (space, base, size) in enumerate(ASSIGNED):
        d.map(int(space), base, size, top + n, priority=-1)  # CF9h lies within CF8h..CFBh
    d.publish()
    return d


class Flat:
    """perf/limits/lookup.c over the same map."""

    def __init__(self, table: Table) -> None:
        self.pio, self.mmio = np.zeros(1 << 16, np.uint32), np.zeros(1 << 20, np.uint32)
        none = np.zeros(1, ENTRY)
        none["base"] = 1
        entries = [none]
        n = 1
        for space, flat, shift in ((Space.PIO, self.pio, 0), (Space.MMIO, self.mmio, 12)):
            for e in table.entries(int(space)):
                first, last = int(e["base"]) >> shift, int(e["last"]) >> shift
                if flat[first : last + 1].any() or last >= len(flat):
                    raise EngineError(f"lookup bench: {space.name} {int(e['base']):#x} fits no flat table")
                flat[first : last + 1] = n
                n += 1
            entries.append(table.entries(int(space)))
        self.entries = np.concatenate(entries)
        self.call = library("lookup").lookup_flat
        self.call.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_size_t, ctypes.c_void_p]
        self.call.restype = ctypes.c_size_t
        self.tables = (self.pio.ctypes.data, self.mmio.ctypes.data, self.entries.ctypes.data)


def _ns(calls: list[Any], n: int, rounds: int) -> list[Array]:
    """Nanoseconds per access of each call, one call of each in every round, in changing order."""
    took = np.empty((rounds, len(calls)))
    for i in range(rounds):
        for k in range(len(calls)):
            which = (i + k) % len(calls)
            start = time.perf_counter_ns()
            calls[which]()
            took[i, which] = (time.perf_counter_ns() - start) / n
    return list(took.T)


def _row(
    name: str, unit: str, value: float, limit_name: str, limit: float, goal: float, n: int, spread: float
) -> dict[str, Any]:
    ratio = value / limit
    return {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "limit_name": limit_name,
        "limit": round(limit, 3),
        "ratio": round(ratio, 3),
        "goal": goal,
        "ok": ratio <= goal,
        "n": n,
        "spread": round(spread, 3),
    }


def _spread(x: Array) -> float:
    """Distance of the quartiles over the median."""
    low, middle, high = np.percentile(x, (25, 50, 75))
    return float((high - low) / middle)


def boards(quick: bool) -> list[dict[str, Any]]:
    """Recorded boots against the flat tables: the longest traces' first, middle and last batches."""
    table = board().current
    flat = Flat(table)
    rows = []
    for name in data.traces():
        acc = trace.load(data.trace(name)).acc
        for size in BATCHES:
            if len(acc) < size:
                continue
            radix_ns, flat_ns = [], []
            for at in (0, (len(acc) - size) // 2, len(acc) - size):
                batch = np.ascontiguousarray(acc[at : at + size])
                ours, theirs = np.empty(size, HIT), np.empty(size, HIT)
                given = (*flat.tables, batch.ctypes.data, size, theirs.ctypes.data)

                def radix(batch: Array = batch, out: Array = ours) -> None:
                    table.lookup_batch(batch, out)

                def plain(given: tuple[int, ...] = given) -> None:
                    flat.call(*given)

                a, b = _ns([radix, plain], size, 60 if quick else 400)
                if not np.array_equal(ours, theirs):
                    raise EngineError(f"lookup bench: {name} from access {at}: the radix and the flat table differ")
                radix_ns.append(a)
                flat_ns.append(b)
            # rounds lie side by side in time: the ratio is that of the medians, its spread that of the rounds' ratios
            a, b = np.concatenate(radix_ns), np.concatenate(flat_ns)
            value, limit = float(np.median(a)), float(np.median(b))
            name_ = f"lookup.board.{name}.{size}"
            rows.append(_row(name_, "ns", value, "flat table in C", limit, 1.5, len(a), _spread(a / b)))
    return rows


def million(quick: bool) -> list[dict[str, Any]]:
    """2^20 random ranges over 52 bits."""
    rng = np.random.default_rng(1)
    cuts = np.unique(rng.integers(0, 1 << 52, 2 * MANY + 1000, dtype=np.uint64))[: 2 * MANY]
    ranges = np.zeros(MANY, RANGE)
    ranges["space"], ranges["accepts"] = int(Space.MMIO), 15
    ranges["base"], ranges["size"] = cuts[::2], cuts[1::2] - cuts[::2]
    ranges["region"] = rng.permutation(MANY)
    d = Dispatcher()
    start = time.perf_counter()
    d.map_many(ranges[rng.permutation(MANY)])
    d.publish()
    seconds = time.perf_counter() - start
    table = d.current
    n = 1 << 16
    pick = ranges[rng.integers(0, MANY, n)]
    where = {
        "inside": pick["base"] + (rng.random(n) * pick["size"]).astype(np.uint64),
        "anywhere": rng.integers(0, 1 << 52, n, dtype=np.uint64),
    }
    rows = [
        _row("lookup.million.build", "s", seconds, "budget", 5.0, 1.0, 1, 0.0),
        _row("lookup.million.bytes_per_range", "B", table.nbytes / MANY, "budget", 200.0, 1.0, 1, 0.0),
    ]
    for name, addr in where.items():
        acc = np.zeros(n, ACC)
        acc["space"], acc["addr"], acc["size"] = int(Space.MMIO), addr, 1
        out = np.empty(n, HIT)
        (took,) = _ns([lambda acc=acc, out=out: table.lookup_batch(acc, out)], n, 20 if quick else 100)
        rows.append(
            _row(f"lookup.million.{name}", "ns", float(np.median(took)), "budget", 25.0, 1.0, len(took), _spread(took))
        )
    return rows


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Every series: name, value, unit; limit_name and limit in that unit; ratio, goal (the highest ratio allowed), ok;
    n rounds; spread (interquartile range over median)."""
    return boards(quick) + million(quick)


if __name__ == "__main__":
    for r in run("--quick" in sys.argv[1:]):
        print(
            f"{r['name']:38} {r['value']:9} {r['unit']:2}   {r['limit_name']}: {r['limit']}   ratio {r['ratio']}",
            end="",
        )
        print(f" of {r['goal']} {'ok' if r['ok'] else 'MISSED'}   spread {r['spread']}")
