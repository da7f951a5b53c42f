"""The HTML report of a study: one self-contained file, plots as inline SVG.  Needs the extra [study]."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from typing import Any

from engine.errors import UsageError
from engine.measure.report import STYLE
from engine.study import plots
from engine.study.compare import contrasts
from engine.study.design import FACTORS, Block
from engine.study.mixes import MIXES
from engine.study.results import CONFIDENCE, RESAMPLES, Results, duration, level_text, rate, with_interval


def check_libraries() -> None:
    """Raises UsageError with the command to type, if the libraries of a study are not there."""
    missing = [name for name in ("jinja2", "matplotlib", "pyarrow") if find_spec(name) is None]
    if missing:
        raise UsageError(f"a study needs {' and '.join(missing)}: pip install 'ioreq-engine[study]'")


def block_rows(r: Results, block: Block) -> list[dict[str, Any]]:
    """A line for each cell of a block, as people read it."""
    return [
        {
            "cell": ", ".join(
                level_text(n, getattr(c, n))
                for n in ("mix", "path", *_rest(block))
                if getattr(c, n) is not None or n == "load"
            ),
            "throughput": with_interval(r.throughput(c), rate),
            "p50": with_interval(r.median(c, "p50_ns"), duration),
            "p99": with_interval(r.median(c, "p99_ns"), duration),
            "read": with_interval(r.median(c, "read_p50_ns"), duration),
            "write": with_interval(r.median(c, "write_p50_ns"), duration),
            "cpu": with_interval(r.mean(c, "cpu_ns"), duration),
            "n": len(r.series(c, "per_s")),
        }
        for c in block.cells
    ]


def _rest(block: Block) -> list[str]:
    return [n for n in block.varied if n not in ("mix", "path")]


def held(block: Block) -> str:
    """The factors that the block holds still, where they mean something."""
    out = []
    for name in FACTORS:
        levels = list(dict.fromkeys(getattr(c, name) for c in block.cells))
        if name not in block.varied and name != "write_share" and (len(levels) == 1 or name == "batch"):
            some = [v for v in levels if v not in (None, 0)]
            if some or name == "load":
                out.append(level_text(name, some[-1] if some else None))
    return ", ".join(out)


def render(r: Results) -> str:
    """The report as one HTML text.  Raises UsageError if its libraries are missing."""
    check_libraries()
    import jinja2
    import matplotlib

    plots.derive(r)
    env = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    env.filters |= {"n": lambda v: f"{v:,}"}
    template = env.from_string(
        (resources.files("engine.study") / "templates" / "study.html").read_text(encoding="utf-8")
    )
    with matplotlib.rc_context(STYLE):
        whole = [*(plots.pays(r, k) for k in contrasts(r.design)), plots.age(r), plots.fallbacks(r), plots.stalls(r)]
        blocks = [
            {"block": b, "held": held(b), "plots": plots.block_plots(r, b), "rows": block_rows(r, b)}
            for b in r.design.blocks
        ]
    hosts = [
        {"id": id, "record": record, "n": sum(row["host"] == id for row in r.rows), "main": id == r.host}
        for id, record in r.hosts.items()
    ]
    return template.render(
        design=r.design,
        rows=r.rows,
        hosts=hosts,
        noise=noise(r),
        disagreeing=r.disagreeing(),
        whole=[p for p in whole if p is not None],
        blocks=blocks,
        mixes={c.mix: MIXES[c.mix].what if c.mix in MIXES else "a recorded guest" for c in r.design.cells},
        resamples=RESAMPLES,
        confidence=CONFIDENCE,
    )


def noise(r: Results) -> dict[str, str]:
    """How quiet the main host was: a cache line's round trip meanwhile, and how much else there was to do."""
    import numpy as np

    mine = [row for row in r.rows if row["host"] == r.host]
    if not mine:
        return {}
    limit = np.array([row["limit_p50_ns"] for row in mine], float)
    limit = limit[~np.isnan(limit)]
    load = np.array([row["load_average"] for row in mine], float)
    share = np.array([row["cpu_share"] for row in mine if row["path"] == "local"] or [np.nan], float)
    return {
        "pingpong": " to ".join(duration(float(v)) for v in np.quantile(limit, (0.1, 0.5, 0.9))) if len(limit) else "-",
        "load": f"{load.min():.1f} to {load.max():.1f}",
        "share": f"{float(np.nanmedian(share)):.0%}" if not np.isnan(share).all() else "-",
        "stamp": duration(float(np.median([row["stamp_ns"] for row in mine]))),
    }
