"""Where one path pays against another: pairs of cells that differ in the path alone, and their verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from engine.study.design import Block, Cell
from engine.study.results import Interval, Results, label

APART = ("ring", "batch", "gather", "path")  # what may differ in a pair: only one of its paths knows them
PAYS, COSTS, UNDECIDED = "pays", "costs", "undecided"
MARGIN = 1.05  # a difference below five per cent is none: the host's own drift


@dataclass(frozen=True, slots=True)
class Gauge:
    """One thing to compare.  better: +1 more is better, -1 less is."""

    name: str
    metric: str
    better: int
    loop: str  # closed, open, any

    def of(self, r: Results, cell: Cell, base: Cell) -> Interval:
        """How many times better cell is than base."""
        if self.metric == "per_s":
            return r.speedup(cell, base)
        return r.ratio(cell, base, self.metric) if self.better > 0 else r.ratio(base, cell, self.metric)

    def fits(self, cell: Cell) -> bool:
        """Whether it says something of this load."""
        return self.loop == "any" or (self.loop == "closed") == (cell.load is None)


GAUGES = (
    Gauge("throughput", "per_s", +1, "closed"),
    Gauge("latency of a write, p50", "write_p50_ns", -1, "any"),
    Gauge("latency of a read, p50", "read_p50_ns", -1, "any"),
    Gauge("p50 from the hand-over", "service_p50_ns", -1, "open"),
    Gauge("latency, p99", "p99_ns", -1, "any"),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A cell on one path and its like on another."""

    block: Block
    cell: Cell
    base: Cell
    label: str


def pairs(r: Results, path: str, base: str) -> list[Pair]:
    """Every pair of the design, each once, in declared order."""
    out, seen = [], set()
    for block in r.design.blocks:
        bases = {_rest(c): c for c in reversed(block.cells) if c.path == base}
        for c in block.cells:
            if c.path == path and (b := bases.get(_rest(c))) is not None and (c, b) not in seen:
                seen.add((c, b))
                out.append(Pair(block, c, b, label(r.design, block, c)))
    return out


def _rest(c: Cell) -> tuple[object, ...]:
    return tuple(v for k, v in c.as_dict().items() if k not in APART)


def verdict(i: Interval) -> str:
    """pays: the whole interval lies above MARGIN; costs: below 1 / MARGIN; else undecided."""
    if not i.known:
        return UNDECIDED
    return PAYS if i.low > MARGIN else COSTS if i.high < 1 / MARGIN else UNDECIDED
