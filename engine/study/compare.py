"""Where one level of a factor pays against another: pairs of cells that differ in it alone, and their verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from engine.study.design import Block, Cell, Design
from engine.study.results import Interval, Results, label, level_text

# What may differ in a pair: the factor, and what only one of its levels knows.
APART = {"path": ("path", "ring", "batch", "gather"), "wait": ("wait",), "workers": ("workers", "placement")}
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
LEVEL_GAUGES = (
    GAUGES[0],
    Gauge("latency, p50", "p50_ns", -1, "any"),
    GAUGES[-1],
    Gauge("p99 from the hand-over", "service_p99_ns", -1, "open"),
    Gauge("CPU time per access", "cpu_ns", -1, "any"),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A cell at one level and its like at another."""

    block: Block
    cell: Cell
    base: Cell
    label: str


@dataclass(frozen=True, slots=True)
class Contrast:
    """A level of a factor, and the one that it is compared with."""

    factor: str
    level: str | int
    base: str | int

    def __str__(self) -> str:
        return f"{level_text(self.factor, self.level)} against {level_text(self.factor, self.base)}"

    def gauges(self, rows: list[Pair]) -> list[Gauge]:
        """What is compared: each gauge that says something of some pair."""
        known = GAUGES if self.factor == "path" else LEVEL_GAUGES
        return [g for g in known if any(g.fits(p.cell) for p in rows)]


def contrasts(design: Design) -> list[Contrast]:
    """What a study compares: paths with sync; waiting and workers, where a block varies them, with the first level."""
    out = [Contrast("path", path, "sync") for path in ("buffered", "batched")]
    for factor in ("wait", "workers"):
        cells = [c for b in design.blocks if factor in b.varied for c in b.cells]
        levels = list(dict.fromkeys(v for c in cells if (v := getattr(c, factor))))
        out += [Contrast(factor, level, levels[0]) for level in levels[1:]]
    return out


def pairs(r: Results, k: Contrast) -> list[Pair]:
    """Every pair of the design, each once, in declared order."""
    out, seen = [], set()
    for block in r.design.blocks:
        bases = {_rest(c, k.factor): c for c in reversed(block.cells) if getattr(c, k.factor) == k.base}
        for c in block.cells:
            b = bases.get(_rest(c, k.factor))
            if getattr(c, k.factor) == k.level and b is not None and (c, b) not in seen:
                seen.add((c, b))
                text = label(r.design, block, c, without=k.factor)
                out.append(Pair(block, c, b, text if k.factor == "path" else f"{c.path}: {text}"))
    return out


def _rest(c: Cell, factor: str) -> tuple[object, ...]:
    return tuple(v for k, v in c.as_dict().items() if k not in APART[factor])


def verdict(i: Interval) -> str:
    """pays: the whole interval lies above MARGIN; costs: below 1 / MARGIN; else undecided."""
    if not i.known:
        return UNDECIDED
    return PAYS if i.low > MARGIN else COSTS if i.high < 1 / MARGIN else UNDECIDED
