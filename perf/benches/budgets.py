"""Do the latency budgets hold?  The table of perf/budgets.toml, as `engine run` checks it, on every path."""

from __future__ import annotations

from engine.machine import PATHS
from engine.measure import budgets
from perf.benches._common import Row, Skipped


def run(quick: bool = False) -> list[Row]:
    """A row for each budget; its goal is what it allows."""
    _, judged, why_not = budgets.measure(PATHS)
    if why_not:
        raise Skipped(why_not)
    return [
        {
            "name": f"budget.{b['path']}.{b['device']}.{b['measure']}",
            "value": round(b["measured"], 1),
            "unit": "1/s" if b["measure"] == "per_s" else "ns",
            "limit_name": b["limit_name"],
            "limit": round(b["limit"], 1),
            "ratio": b["ratio"],
            "goal": b["allowed"],
            "way": "<=" if b["way"] == "at_most" else ">=",
            "ok": b["ok"],
            "n": b["n"],
            "spread": b["spread"],
            "aim": None,
            "bound": "",
        }
        for b in judged
    ]
