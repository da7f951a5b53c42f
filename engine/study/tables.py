"""Markdown tables of a study's findings, and the pages that hold them: text between two marks is generated."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import UsageError, reason
from engine.study import plots
from engine.study.compare import APART, COSTS, PAYS, Contrast, contrasts, pairs, verdict
from engine.study.report import block_rows, held, noise
from engine.study.results import Interval, Results, duration, level_text, times, with_interval, write_text

MARK = re.compile(r"(<!-- table: ([^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    right = ["---" if n == 0 else "---:" for n in range(len(columns))]
    return "".join("| " + " | ".join(row) + " |\n" for row in (columns, right, *rows))


def _times(i: Interval) -> str:
    if not i:
        return "-"
    text = f"{times(i.value)} ({times(i.low)} to {times(i.high)})" if i.known else times(i.value)
    return f"**{text}**" if verdict(i) == PAYS else f"*{text}*" if verdict(i) == COSTS else text


def comparison(r: Results, k: Contrast) -> str:
    """How many times better a level is than its base; bold where it pays, italic where it costs."""
    found = pairs(r, k)
    gauges = k.gauges(found)
    rows = [[p.label, *(_times(g.of(r, p.cell, p.base)) if g.fits(p.cell) else "" for g in gauges)] for p in found]
    return _markdown(["load", *(g.name for g in gauges)], rows)


def block(r: Results, name: str) -> str:
    """A block's cells in numbers."""
    found = [b for b in r.design.blocks if b.name == name]
    if not found:
        raise UsageError(f"no block {name!r} in {r.design.name}")
    rows = [[q["cell"], q["throughput"], q["p50"], q["p99"], q["cpu"]] for q in block_rows(r, found[0])]
    return (
        _markdown(["combination", "throughput", "p50", "p99", "CPU time per access"], rows)
        + f"\nHeld: {held(found[0])}.\n"
    )


def late(r: Results) -> str:
    """How late buffered writes are, and how often the ring was full."""
    rows = []
    for c, label in plots.labelled(r, lambda c: c.path == "buffered" and bool(r.median(c, "age_p50_ns"))):
        rows.append(
            [
                label,
                *(with_interval(r.median(c, m), duration) for m in ("age_p50_ns", "age_p99_ns", "age_max_ns")),
                _fell_back(r.mean(c, "fallback_share")),
            ]
        )
    return _markdown(["load", "age p50", "age p99", "oldest of a run", "fell back to sync"], rows)


def _fell_back(i: Interval) -> str:
    return "none" if i and not i.high > 0 and not i.value else with_interval(i, lambda v: f"{v:.2%}")


def stalls(r: Results) -> str:
    """Tail latencies from the schedule and as a closed-loop tool would have said."""
    rows = []
    for c, label in plots.labelled(r, lambda c: c.load is not None and bool(r.median(c, "p99_ns"))):
        rows.append(
            [
                f"{c.path}: {label}",
                *(
                    with_interval(r.median(c, m), duration)
                    for m in ("p50_ns", "p99_ns", "service_p50_ns", "service_p99_ns")
                ),
                _share(r, c),
            ]
        )
    return _markdown(
        ["load", "p50 from when due", "p99 from when due", "p50 from hand-over", "p99 from hand-over", "carried"], rows
    )


def _share(r: Results, c: Any) -> str:
    got = r.throughput(c)
    return f"{got.value / c.load:.0%}" if got else "-"


def host(r: Results) -> str:
    """The host, and how quiet it was."""
    record, n = r.hosts[r.host], noise(r)
    rows = [
        [k, str(record[k])]
        for k in ("cpu", "cpus", "cpus_allowed", "smt", "virtual", "kernel", "governor", "python", "engine", "time")
        if k in record
    ]
    mine = [row for row in r.rows if row["host"] == r.host]
    rows += [
        [
            "replications",
            f"{len(mine):,} of {r.design.size:,}; {r.design.accesses:,} accesses each, recorded guests whole",
        ],
        ["a cache line's round trip meanwhile: 10th, 50th, 90th percentile", n["pingpong"]],
        ["load average meanwhile", n["load"]],
        ["share of the time that a run in one process had its CPU", n["share"]],
        ["cost of timing one access", n["stamp"]],
    ]
    return _markdown(["what", "value"], rows)


def counts(r: Results, factor: str = "path") -> str:
    """How many comparisons each level of a factor wins, loses, or leaves open."""
    found = [k for k in contrasts(r.design) if k.factor == factor]
    if not found:
        raise UsageError(f"{r.design.name} does not vary {factor}")
    rows = []
    for k in found:
        rows_of = pairs(r, k)
        for g in k.gauges(rows_of):
            got = [verdict(i) for p in rows_of if g.fits(p.cell) and (i := g.of(r, p.cell, p.base))]
            rows.append(
                [f"{level_text(factor, k.level)}: {g.name}", *(str(got.count(v)) for v in (PAYS, COSTS, "undecided"))]
            )
    return _markdown([f"against {level_text(factor, found[0].base)}", "pays", "costs", "undecided"], rows)


def make(r: Results, name: str) -> str:
    """One table by the name that a page gives it.  Raises UsageError."""
    whole: dict[str, Callable[[], str]] = {
        **{str(k.level) if k.factor == "path" else str(k): partial(comparison, r, k) for k in contrasts(r.design)},
        "late": lambda: late(r),
        "stalls": lambda: stalls(r),
        "host": lambda: host(r),
        "counts": lambda: counts(r),
    }
    if name in whole:
        return whole[name]()
    kind, _, rest = name.partition(" ")
    if kind == "block":
        return block(r, rest)
    if kind == "counts" and rest in APART:
        return counts(r, rest)
    raise UsageError(f"no table {name!r}; there are {', '.join(whole)}, counts FACTOR and block NAME")


def fill(r: Results, text: str) -> str:
    """A page with every marked table made anew.  Raises UsageError."""
    plots.derive(r)
    return MARK.sub(lambda m: f"{m[1]}{make(r, m[2])}{m[3]}", text)


def fill_page(r: Results, path: Path) -> int:
    """The same for a file; how many tables it holds.  Raises UsageError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"--tables {path}: cannot be read ({reason(e)})") from None
    n = len(MARK.findall(text))
    if not n:
        raise UsageError(
            f"--tables {path}: no table in it: a line <!-- table: NAME --> begins one, <!-- end --> ends it"
        )
    write_text(path, fill(r, text))
    return n
