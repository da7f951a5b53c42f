"""The HTML report of a session: one self-contained file, plots as inline SVG.  Needs the extra [report]."""

from __future__ import annotations

import io
import logging
from importlib import resources
from importlib.util import find_spec
from typing import Any

import numpy as np

from engine.errors import UsageError
from engine.frontends import replay
from engine.measure import budgets
from engine.measure.session import Session
from engine.types import Space

# Okabe and Ito's colours: told apart with any kind of colour vision.
COLOURS = {"local": "#009e73", "sync": "#d55e00", "buffered": "#e69f00", "batched": "#0072b2"}
LIMIT = "#555555"
WORKERS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#999999")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "ioreq-engine",
    "figure.constrained_layout.use": True,
}


def check_libraries() -> None:
    """Raises UsageError with the command to type, if the libraries of the report are not there."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the report needs {' and '.join(missing)}: pip install 'ioreq-engine[report]', or replay without one: "
            "engine replay TRACE --path all"
        )


def svg(figure: Any) -> str:
    """A figure as an <svg> element."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def figure(width: float, height: float, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure and its axes, row by row."""
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    # It would tell of each font for formulas that a system lacks; the plots need none of them.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    f = Figure(figsize=(width, height))
    return f, f.subplots(rows, columns, squeeze=False, **options).ravel()


def _traces(session: Session) -> list[tuple[str, list[replay.Run]]]:
    out: dict[str, list[replay.Run]] = {}
    for r in session.runs:
        out.setdefault(r.result["trace"], []).append(r)
    return list(out.items())


def throughput(session: Session) -> str:
    """Accesses a second of each path, a group of bars for each trace."""
    traces = _traces(session)
    f, (ax,) = figure(9, 1.2 + 0.85 * len(traces))
    paths = [p for p in COLOURS if any(r.result["path"] == p for _, runs in traces for r in runs)]
    high = 0.8 / max(1, len(paths))
    for k, path in enumerate(paths):
        at, rates = [], []
        for n, (_, runs) in enumerate(traces):
            for r in runs:
                if r.result["path"] == path:
                    at.append(n + (k - (len(paths) - 1) / 2) * high)
                    rates.append(max(1.0, r.result["accesses_per_s"]))
        bars = ax.barh(at, rates, high * 0.9, color=COLOURS[path], label=path)
        ax.bar_label(bars, [_rate(v) for v in rates], padding=3, fontsize=8)
    if session.limits.get("spsc_per_s"):
        ax.axvline(
            session.limits["spsc_per_s"], color=LIMIT, ls="--", lw=1, label="limit: records/s through a raw C ring"
        )
    ax.set_xscale("log")
    slowest = min((r.result["accesses_per_s"] for r in session.runs), default=1)
    ax.set_xlim(10 ** np.floor(np.log10(max(1, slowest) / 2)), ax.get_xlim()[1] * 2)
    ax.set_yticks(range(len(traces)), [name for name, _ in traces])
    ax.set_ylim(len(traces) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("accesses per second of host time (log scale)")
    ax.set_title("Throughput per path")
    f.legend(loc="outside lower center", ncols=5, fontsize=8)
    return svg(f)


def _rate(v: float) -> str:
    return f"{v / 1e6:.3g} M/s" if v >= 1e6 else f"{v / 1e3:.3g} k/s"


TAILS = (0.5, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)


def latency(session: Session) -> str:
    """Latency against percentile for each path; the raw limits as marks."""
    from matplotlib.ticker import NullFormatter, NullLocator

    traces = _traces(session)
    f, axes = figure(9 if len(traces) > 1 else 6.5, 3.9, len(traces))
    lim = session.limits
    for ax, (name, runs) in zip(axes, traces, strict=True):
        last = TAILS[2]
        for r in runs:
            ns, counts = replay.curve(r.histogram)
            if not len(ns):
                continue
            total = counts.sum()
            above = 1.0 - (np.cumsum(counts) - counts) / total  # share that is at least this slow
            last = min(last, 1.0 / float(total))
            ax.step(
                np.append(above, 1.0 / total),
                np.append(ns, ns[-1]),
                where="post",
                color=COLOURS[r.result["path"]],
                label=r.result["path"],
                lw=1.6,
            )
        if lim.get("pingpong_p50_ns"):
            ax.plot(
                [0.5, 0.01],
                [lim["pingpong_p50_ns"], lim["pingpong_p99_ns"]],
                "D--",
                color=LIMIT,
                ms=4,
                lw=1,
                label="limit: raw C round trip, p50 and p99",
            )
            ax.axhline(
                lim["futex_us"] * 1e3, color=LIMIT, ls=":", lw=1, label="limit: round trip of two that sleep, p50"
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlim(1.0, last)
        ticks = [t for t in TAILS if t >= last * 0.99]
        ax.set_xticks(ticks, [f"{100 * (1 - t):.6g}" for t in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_yticks(
            [10.0**k for k in range(1, 9)], ["10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms"]
        )
        ax.set_xlabel("percentile of accesses")
        ax.set_title(name)
    axes[0].set_ylabel("latency of one access (log scale)")
    handles, labels = axes[0].get_legend_handles_labels()
    f.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return svg(f)


def activity(session: Session) -> str:
    """Accesses of each device over the guest's time, as a map."""
    from matplotlib.colors import LogNorm

    seen = {r.job.trace.stem: r.job for r in session.runs}
    figures = []
    for name, job in seen.items():
        labels, table = replay.series(job.trace)
        order = np.argsort(-table.sum(axis=1), kind="stable")
        table, labels = table[order], [labels[i] for i in order]
        f, (ax,) = figure(9, 0.9 + 0.19 * len(labels))
        t, n = job.trace.acc["t_ns"], max(1, len(job.trace.acc))
        image = ax.imshow(
            np.ma.masked_equal(table, 0),
            aspect="auto",
            interpolation="nearest",
            cmap="viridis_r",
            norm=LogNorm(1, max(2, int(table.max()))),
            extent=(0, n, len(labels) - 0.5, -0.5),
        )
        ax.set_yticks(
            range(len(labels)),
            [f"{label}  {int(k):,}" for label, k in zip(labels, table.sum(axis=1), strict=True)],
            fontsize=8,
        )
        marks = [n * k // 8 for k in range(9)]
        ax.set_xticks(marks, [f"{m:,}\n{_ns(float(t[min(m, n - 1)]))}" if len(t) else "" for m in marks])
        ax.grid(visible=False)
        ax.set_xlabel("access number, and the guest's virtual time there")
        ax.set_title(f"{name}: accesses per device over time")
        f.colorbar(image, ax=ax, label=f"accesses, of {n // replay.SERIES:,} in a column", pad=0.01)
        figures.append(svg(f))
    return "\n".join(figures)


def differences(session: Session) -> list[dict[str, Any]]:
    """For each trace: its regions with what was compared on all paths together."""
    out = []
    for name, runs in _traces(session):
        rows: dict[str, list[int]] = {}
        for r in runs:
            for row in r.result["by_region"]:
                have = rows.setdefault(row["region"], [0, 0])
                have[0] += row["reads"]
                have[1] += row["matching"]
        wrong = [m | {"path": r.result["path"]} for r in runs for m in r.result["mismatches"]]
        out.append(
            {
                "trace": name,
                "rows": [{"region": k, "reads": v[0], "matching": v[1]} for k, v in sorted(rows.items())],
                "wrong": wrong,
                "compared": sum(r.result["compared"] for r in runs),
                "golden": any(r.result["golden"] for r in runs),
                "paths": len(runs),
                "unmodelled": runs[0].result["unmodelled"],
                "payload": runs[0].result["payload_reads"],
            }
        )
    return out


def differences_plot(session: Session) -> str:
    """Where in each trace compared reads match and where they differ, region by region."""
    figures = []
    for name, runs in _traces(session):
        if not runs[0].result["golden"]:
            continue
        compared = runs[0].result["by_region"]
        f, (ax,) = figure(9, 1.15 + 0.17 * len(compared))
        regions = [row["region"] for row in compared]
        total = [
            sum(row["reads"] for r in runs for row in r.result["by_region"] if row["region"] == g) for g in regions
        ]
        match = [
            sum(row["matching"] for r in runs for row in r.result["by_region"] if row["region"] == g) for g in regions
        ]
        ax.barh(regions, match, 0.75, color="#9bc2b2", label="equal to the reference")
        wrong = [t - m for t, m in zip(total, match, strict=True)]
        ax.barh(
            regions, wrong, 0.75, left=match, color="#c00000", label="different" + ("" if any(wrong) else " (none)")
        )
        ax.set_xscale("symlog", linthresh=10)
        ax.set_xlim(0, 3 * max(total, default=1))
        ax.invert_yaxis()
        ax.tick_params(axis="y", labelsize=7.5)
        ax.grid(axis="y", visible=False)
        paths = f", all {len(runs)} paths together" if len(runs) > 1 else ""
        ax.set_xlabel(f"reads compared{paths} (log scale)")
        ax.set_title(f"{name}: reads against the reference")
        f.legend(loc="outside lower center", ncols=2, fontsize=8)
        figures.append(svg(f))
    return "\n".join(figures)


def machine_map(session: Session) -> list[dict[str, Any]]:
    """Each different machine with its placement: workers with their devices, and the address map at power-on."""
    out: list[dict[str, Any]] = []
    for job, placed in zip(session.jobs, session.placed, strict=False):
        plan = placed.plan
        ranges = []
        for q in sorted((q for q in plan.placed if q.size), key=lambda q: (q.space, q.base)):
            d = plan.devices[q.rank]
            if q.space == Space.CONFIG:
                where = f"{q.base >> 40 & 0xFF:02x}:{q.base >> 35 & 0x1F:02x}.{q.base >> 32 & 7}"
            else:
                where = (
                    f"{q.base:04x}-{q.base + q.size - 1:04x}"
                    if q.space == Space.PIO
                    else f"{q.base:08x}-{q.base + q.size - 1:08x}"
                )
            ranges.append(
                {
                    "space": Space(q.space).name,
                    "range": where,
                    "device": d.id,
                    "region": d.regions[q.index].name,
                    "worker": placed.owners[d.unit],
                }
            )
        workers = [
            [
                {"id": plan.devices[r].id, "type": plan.devices[r].spec.type, "unit": plan.unit_names[u]}
                for u, w in enumerate(placed.owners)
                if w == n
                for r in plan.units[u]
            ]
            for n in range(max(placed.owners) + 1)
        ]
        entry = {
            "traces": [job.trace.stem],
            "name": plan.spec.board.title or plan.spec.board.name,
            "ram": plan.spec.board.ram >> 20,
            "ranges": ranges,
            "workers": workers,
        }
        for old in out:
            if all(old[k] == entry[k] for k in ("name", "ram", "ranges", "workers")):
                old["traces"].append(job.trace.stem)
                break
        else:
            out.append(entry)
    return out


def render(session: Session) -> str:
    """The report as one HTML text.  Raises UsageError if its libraries are missing."""
    check_libraries()
    import jinja2
    import matplotlib

    env = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    env.filters |= {"rate": _rate, "ns": _ns, "n": lambda v: f"{v:,}"}
    template = env.from_string(
        (resources.files("engine.measure") / "templates" / "report.html").read_text(encoding="utf-8")
    )
    with matplotlib.rc_context(STYLE):
        plots = {
            name: draw(session) if session.runs else ""
            for name, draw in (
                ("throughput", throughput),
                ("latency", latency),
                ("activity", activity),
                ("differences", differences_plot),
            )
        }
    return template.render(
        session=session,
        traces=_traces(session),
        plots=plots,
        differences=differences(session),
        machines=machine_map(session),
        colours=WORKERS,
        whys={b["name"]: b["why"] for b in budgets.load()},
    )


def _ns(v: float) -> str:
    for unit, scale in (("ns", 1.0), ("µs", 1e3), ("ms", 1e6)):
        if v < 999.5 * scale:
            return f"{v / scale:.3g} {unit}"
    return f"{v / 1e9:.3g} s"
