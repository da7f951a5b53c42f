"""The plots of a study, each with a sentence made from the same numbers that it shows.  Needs the extra [study]."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.measure.report import COLOURS, LIMIT, figure, svg
from engine.study.compare import COSTS, PAYS, Contrast, Pair, pairs, verdict
from engine.study.design import FACTORS, Block, Cell
from engine.study.results import (
    NOTHING,
    Interval,
    Results,
    duration,
    grouped,
    label,
    level_text,
    rate,
    times,
    with_interval,
)

VERDICTS = {PAYS: "#009e73", COSTS: "#d55e00", "undecided": "#888888"}
MARKS = "osD^vPX*"
PANELS = 4  # in a row
LOGARITHMIC = ("load", "batch", "ring", "workers")


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing as SVG, what it is called, and the sentence that says what it shows."""

    title: str
    svg: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Metric:
    """What a plot has on its other axis.  curves: metric names with how they are drawn."""

    title: str
    axis: str
    curves: tuple[tuple[str, str, str], ...]  # metric, what it is, line style
    show: Callable[[float], str]
    better: int
    mean: bool = False

    def of(self, r: Results, cell: Cell, metric: str) -> Interval:
        if metric == "per_s":
            return r.throughput(cell)
        return r.mean(cell, metric) if self.mean else r.median(cell, metric)


THROUGHPUT = Metric("Throughput", "accesses per second", (("per_s", "", "-"),), rate, +1)
LATENCY = Metric("Latency", "latency of an access, ns", (("p50_ns", "p50", "-"), ("p99_ns", "p99", "--")), duration, -1)
CPU = Metric("CPU time", "CPU time of router and workers per access, ns", (("cpu_ns", "", "-"),), duration, -1, True)
COST = Metric(
    "Cost: waiting and CPU time",
    "mean latency + CPU time per access, ns (one ns of each counts the same)",
    (("cost_ns", "", "-"),),
    duration,
    -1,
    True,
)


def derive(r: Results) -> None:
    """Numbers that are sums of others."""
    for row in r.rows:
        row["cpu_ns"] = row["router_cpu_ns"] + row["worker_cpu_ns"]
        row["cost_ns"] = row["mean_ns"] + row["cpu_ns"]


# ------------------------------------------------------------------ one block


def block_plots(r: Results, block: Block) -> list[Plot]:
    """Throughput and latency against each factor that the block varies; CPU time and cost where that may vary."""
    names = [n for n in block.varied if n not in ("mix", "path")] or (["mix"] if "mix" in block.varied else ["path"])
    metrics = [THROUGHPUT, LATENCY]
    if {"wait", "cpus", "workers"} & set(block.varied):
        metrics.append(CPU)
    if "wait" in block.varied:
        metrics.append(COST)
    out = []
    for name in names:
        for m in metrics:
            if name == "load" and m is THROUGHPUT and all(c.load is not None for c in block.cells):
                out.append(_against(r, block, name, m, offered=True))
            else:
                out.append(_against(r, block, name, m))
    return out


def _against(r: Results, block: Block, name: str, m: Metric, offered: bool = False) -> Plot:
    """A metric against a factor: a panel for each mix, a curve for each path and level of the other factors."""
    others = [n for n in block.varied if n not in (name, "mix")]
    by_mix = grouped(block.cells, () if name == "mix" else ("mix",))
    columns = min(PANELS, len(by_mix))
    lines = math.ceil(len(by_mix) / columns)
    wide = len(by_mix) == 1
    f, axes = figure(7.5 if wide else 2.55 * columns + 0.8, (3.4 if wide else 2.6 * lines) + 0.7, columns, lines)
    levels = list(dict.fromkeys(getattr(c, name) for c in block.cells))
    numeric = name in (*LOGARITHMIC, "write_share") and all(isinstance(v, (int, float)) for v in levels)
    keys = list(grouped(block.cells, others))
    for ax, (mix, cells) in zip(axes, by_mix.items(), strict=False):
        for k, (key, mine) in enumerate(grouped(cells, others).items()):
            colour = _colour(key, others, k)
            for metric, what, style in m.curves:
                got = [(getattr(c, name), m.of(r, c, metric)) for c in mine]
                got = [(x, i) for x, i in got if i and i.value > 0]
                if not got:
                    continue
                shift = 0.0 if numeric else 0.16 * (keys.index(key) - (len(keys) - 1) / 2) / max(1, len(keys) / 4)
                xs = [x if numeric else levels.index(x) + shift for x, _ in got]
                low = [max(0.0, i.value - i.low) if i.known else 0.0 for _, i in got]
                high = [max(0.0, i.high - i.value) if i.known else 0.0 for _, i in got]
                ax.errorbar(
                    xs,
                    [i.value for _, i in got],
                    [low, high],
                    color=colour,
                    ls=style if numeric or name not in ("mix", "path") else "none",
                    lw=1.2,
                    marker=MARKS[keys.index(key) % len(MARKS)],
                    mfc="white" if style == "--" else colour,
                    ms=4,
                    capsize=2.5,
                    elinewidth=0.9,
                    label=", ".join(filter(None, [_key_text(key, others) or mine[0].path, what])),
                )
        if offered:
            ax.plot(levels, levels, color=LIMIT, ls=":", lw=1, label="as offered")
        ax.set_yscale("log")
        if numeric and name in LOGARITHMIC:
            ax.set_xscale("log")
        if numeric:
            ax.set_xticks(levels, [_tick(name, v) for v in levels])
            ax.minorticks_off()
        else:
            ax.set_xticks(range(len(levels)), [_tick(name, v) for v in levels], rotation=30 if len(levels) > 4 else 0)
            ax.set_xlim(-0.6, len(levels) - 0.4)
        if mix:
            ax.set_title(mix[0])
        ax.set_xlabel(_axis(name))
    for ax in axes[len(by_mix) :]:
        ax.set_visible(False)
    f.supylabel(m.axis, fontsize=9)
    found: dict[str, Any] = {}
    for ax in axes:
        for h, text in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(text, h)
    f.legend(
        list(found.values()), list(found), loc="outside lower center", ncols=min(4, max(1, len(found))), fontsize=8
    )
    return Plot(
        f"{m.title} against {FACTORS[name].name.replace('_', ' ')}", svg(f), _block_sentence(r, block, name, m, others)
    )


def _colour(key: tuple[Any, ...], others: Sequence[str], k: int) -> str:
    """A path's own colour; curves of one path that differ in something else get lighter ones in turn."""
    import matplotlib.colors as mc

    if "path" not in others:
        return ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")[k % 7]
    base = mc.to_rgb(COLOURS[key[others.index("path")]])
    rest = [n for n in others if n != "path"]
    if not rest:
        return mc.to_hex(base)
    lighter = 0.18 * (k % 4)
    r, g, b = (v + (1 - v) * lighter for v in base)
    return mc.to_hex((r, g, b))


def _key_text(key: tuple[Any, ...], others: Sequence[str]) -> str:
    return ", ".join(level_text(n, v) for n, v in zip(others, key, strict=True) if v is not None or n == "load")


def _axis(name: str) -> str:
    unit = {"load": "offered accesses per second", "write_share": "share of writes"}
    return (
        unit.get(name) or f"{name} ({FACTORS[name].unit})"
        if FACTORS[name].unit
        else unit.get(name, name.replace("_", " "))
    )


def _tick(name: str, v: Any) -> str:
    if name == "load":
        return "closed" if v is None else f"{v / 1e6:g} M" if v >= 1e6 else f"{v / 1e3:g} k" if v >= 1e3 else str(v)
    return f"{v:.0%}" if name == "write_share" and v is not None else "-" if v is None else str(v)


def _block_sentence(r: Results, block: Block, name: str, m: Metric, others: Sequence[str]) -> str:
    """For each mix the best and the worst curve at the factor's last level, and how the best moves with the factor."""
    metric = m.curves[0][0]
    parts = []
    for mix, cells in grouped(block.cells, () if name == "mix" else ("mix",)).items():
        where = f"{mix[0]}: " if mix else ""
        if name in ("mix", "path"):
            parts.append(_extremes(r, cells, m, metric, where, block.varied))
            continue
        ends = list(dict.fromkeys(getattr(c, name) for c in cells))
        moves = []
        for key, mine in grouped(cells, others).items():
            first = next((c for c in mine if getattr(c, name) == ends[0]), None)
            last = next((c for c in mine if getattr(c, name) == ends[-1]), None)
            if first is None or last is None or first == last:
                continue
            i = r.speedup(last, first) if metric == "per_s" else r.ratio(last, first, metric)
            if i:
                word = "(undecided) " if not i.known or i.low <= 1 <= i.high else ""
                moves.append(
                    f"{_key_text(key, others) or mine[0].path} {word}{times(i.value)} times"
                    + (f" ({times(i.low)} to {times(i.high)})" if i.known else "")
                )
        if moves:
            parts.append(f"{where}from {level_text(name, ends[0])} to {level_text(name, ends[-1])} " + ", ".join(moves))
    what = {"per_s": "Throughput", "p50_ns": "Median latency", "cpu_ns": "CPU time per access", "cost_ns": "Cost"}[
        metric
    ]
    return f"{what}, medians and 95 % intervals. " + "; ".join(parts) + "." if parts else "Nothing was measured yet."


def _extremes(r: Results, cells: Sequence[Cell], m: Metric, metric: str, where: str, names: Sequence[str]) -> str:
    out = []
    for mix, mine in grouped(cells, ("mix",)).items():
        got = [(c, m.of(r, c, metric)) for c in mine]
        got = sorted([(c, i) for c, i in got if i], key=lambda g: g[1].value * -m.better)
        if not got:
            continue
        (best, a), (worst, b) = got[0], got[-1]
        shown = [n for n in names if n != "mix"]
        text = f"{mix[0]}: {_cell_text(best, shown)} best with {with_interval(a, m.show)}"
        if best != worst:
            text += f", {_cell_text(worst, shown)} last with {with_interval(b, m.show)}"
        out.append(text)
    return where + "; ".join(out)


def _cell_text(c: Cell, names: Sequence[str]) -> str:
    return ", ".join(level_text(n, getattr(c, n)) for n in names if getattr(c, n) is not None or n == "load") or "it"


# ------------------------------------------------------------------ the whole study


def pays(r: Results, k: Contrast) -> Plot | None:
    """How many times better a level of a factor is than another, gauge by gauge, load by load."""
    base = level_text(k.factor, k.base)
    found = pairs(r, k)
    gauges = k.gauges(found)
    got = [(p, [(g, g.of(r, p.cell, p.base)) for g in gauges if g.fits(p.cell)]) for p in found]
    got = [(p, gs) for p, gs in got if any(i for _, i in gs)]
    if not got:
        return None
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    f, axes = figure(11, 1.3 + 0.21 * len(got), len(gauges), sharey=True)
    count = dict.fromkeys(VERDICTS, 0)
    for ax, g in zip(axes, gauges, strict=True):
        for y, (_, gs) in enumerate(got):
            i = dict(gs).get(g, NOTHING)
            if not i:
                continue
            v = verdict(i)
            count[v] += 1
            _points(ax, [(y, i)], VERDICTS[v], "o", "")
        ax.axvline(1, color=LIMIT, lw=0.8, ls=":")
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=5))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_title(g.name, fontsize=8.5)
        ax.set_xlabel(f"times better than {base}", fontsize=8)
        ax.grid(axis="y", visible=True)
    _lines(axes[0], [p.label for p, _ in got], 7.5)
    marks = [Line2D([], [], color=c, marker="o", ms=4, ls="none", label=v) for v, c in VERDICTS.items()]
    marks.append(Line2D([], [], color=LIMIT, lw=0.8, ls=":", label=f"the same as {base}"))
    f.legend(handles=marks, loc="outside lower center", ncols=4, fontsize=8)
    title = f"{k}: where it pays, and where it costs"
    return Plot(title[0].upper() + title[1:], svg(f), _pays_sentence(got, k, count))


def _pays_sentence(got: list[tuple[Pair, list[tuple[Any, Interval]]]], k: Contrast, count: dict[str, int]) -> str:
    flat = [(p, g, i) for p, gs in got for g, i in gs if i]
    text = (
        f"Of {len(flat)} comparisons of {k} with equal load {count[PAYS]} are better, {count[COSTS]} worse, and in "
        f"{count['undecided']} the interval does not decide"
    )
    for word, v, pick in (("It pays most", PAYS, max), ("It costs most", COSTS, min)):
        some = [(i.value, p, g, i) for p, g, i in flat if verdict(i) == v]
        if some:
            _, p, g, i = pick(some, key=lambda s: s[0])
            text += f". {word} in {g.name} of {p.label}: {times(i.value)} times ({times(i.low)} to {times(i.high)})"
    return text + "."


def _points(ax: Any, got: Sequence[tuple[float, Interval]], colour: str, mark: str, what: str) -> None:
    """A mark with its interval at each height at which there is a number."""
    got = [(y, i) for y, i in got if i]
    err = [
        [i.value - i.low if i.known else 0.0 for _, i in got],
        [i.high - i.value if i.known else 0.0 for _, i in got],
    ]
    xs, ys = [i.value for _, i in got], [y for y, _ in got]
    ax.errorbar(
        xs, ys, xerr=np.maximum(err, 0), color=colour, marker=mark, ms=4, capsize=2.5, elinewidth=0.9, ls="none",
        label=what,
    )  # fmt: skip


def _lines(ax: Any, texts: Sequence[str], size: float) -> None:
    """A line of the plot for each text, from above."""
    ax.set_yticks(range(len(texts)), texts, fontsize=size)
    ax.set_ylim(len(texts) - 0.5, -0.5)


def age(r: Results) -> Plot | None:
    """How late a posted write is carried out, for each cell of the buffered path."""
    rows = labelled(r, lambda c: c.path == "buffered" and bool(r.median(c, "age_p50_ns")))
    if not rows:
        return None
    f, (ax,) = figure(8.5, 1.3 + 0.23 * len(rows))
    for k, (metric, what, colour) in enumerate(
        (("age_p50_ns", "p50", "#0072b2"), ("age_p99_ns", "p99", "#e69f00"), ("age_max_ns", "oldest seen", "#d55e00"))
    ):
        _points(ax, [(y, r.median(c, metric)) for y, (c, _) in enumerate(rows)], colour, MARKS[k], what)
    ax.set_xscale("log")
    _lines(ax, [text for _, text in rows], 8)
    ax.set_xlabel("time from the posting of a write until it was seen to have executed, ns")
    f.legend(loc="outside lower center", ncols=3, fontsize=8)
    by = sorted(((r.median(c, "age_p99_ns"), text) for c, text in rows), key=lambda x: x[0].value)
    (a, first), (b, last) = by[0], by[-1]
    worst = max(((r.median(c, "age_max_ns"), text) for c, text in rows), key=lambda x: x[0].value)
    sentence = (
        f"Late-write age: of a hundred posted writes 99 had executed within {with_interval(a, duration)} on {first}"
        + (f", and within {with_interval(b, duration)} on {last}" if first != last else "")
        + f"; the oldest of a run was typically {with_interval(worst[0], duration)} old on {worst[1]}."
    )
    return Plot("How late a buffered write is", svg(f), sentence)


def fallbacks(r: Results) -> Plot | None:
    """How often a posted write found the ring full and went the synchronous way."""
    rows = labelled(r, lambda c: c.path == "buffered" and bool(r.mean(c, "fallback_share")))
    if not rows:
        return None
    f, (ax,) = figure(8.5, 1.3 + 0.23 * len(rows))
    got = [r.mean(c, "fallback_share") for c, _ in rows]
    shares = [(y, Interval(100 * i.value, 100 * i.low, 100 * i.high, i.n)) for y, i in enumerate(got)]
    _points(ax, shares, COLOURS["buffered"], "o", "share that fell back, mean of the replications")
    ax.set_xscale("symlog", linthresh=0.01)
    ax.set_xlim(-0.002, 120)
    _lines(ax, [text for _, text in rows], 8)
    ax.set_xlabel("posted writes that found the ring full, % (linear below 0.01 %)")
    f.legend(loc="outside lower center", fontsize=8)
    full = [(i, text, c) for i, (c, text) in zip(got, rows, strict=True) if i.value > 0]
    if full:
        i, where, c = max(full, key=lambda x: x[0].value)
        n = r.mean(c, "n_fallback")
        sentence = (
            f"The ring was ever full in {len(full)} of {len(rows)} loads; most on {where}, where "
            f"{with_interval(i, lambda v: f'{v:.2%}')} of the posted writes ({n.value:,.0f} a run) fell back to a "
            "synchronous access."
        )
    else:
        sentence = f"No posted write of any of the {len(rows)} loads found the ring full."
    return Plot("Fallbacks: a full ring", svg(f), sentence)


def stalls(r: Results) -> Plot | None:
    """What a load on schedule suffers, beside what a tool would say that waits for each answer before it asks again."""
    rows = labelled(r, lambda c: c.load is not None and c.path != "local" and bool(r.median(c, "p99_ns")))
    if not rows:
        return None
    f, (ax,) = figure(8.5, 1.3 + 0.2 * len(rows))
    for k, (metric, what, colour) in enumerate(
        (
            ("service_p99_ns", "from when it was handed over (closed-loop view)", "#0072b2"),
            ("p99_ns", "from when it was due", "#d55e00"),
        )
    ):
        heights = [(y + 0.2 * (k - 0.5), r.median(c, metric)) for y, (c, _) in enumerate(rows)]
        _points(ax, heights, colour, MARKS[k], what)
    ax.set_xscale("log")
    _lines(ax, [f"{c.path}: {text}" for c, text in rows], 7.5)
    ax.set_xlabel("latency p99, ns")
    f.legend(loc="outside lower center", ncols=2, fontsize=8)
    ratios = [(r.ratio_of(c, "p99_ns", "service_p99_ns"), c, text) for c, text in rows]
    i, c, where = max(ratios, key=lambda x: x[0].value)
    sentence = (
        "Stalls are charged to every access that was due meanwhile. The two views differ most on "
        f"{c.path}, {where}: {times(i.value)} times"
        + (f" ({times(i.low)} to {times(i.high)})" if i.known else "")
        + "."
    )
    return Plot("Latency from the schedule, and as a closed loop would see it", svg(f), sentence)


def labelled(r: Results, wanted: Callable[[Cell], bool]) -> list[tuple[Cell, str]]:
    """Cells that are wanted, each once, with what is particular to them."""
    out: dict[Cell, str] = {}
    for b in r.design.blocks:
        for c in b.cells:
            if c not in out and wanted(c):
                out[c] = label(r.design, b, c)
    return list(out.items())
