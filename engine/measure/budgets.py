"""Budgets: what a path costs on this host, as a ratio to what raw C costs there at the same moment.

Bursts of each path through one worker alternate with bursts of the limits, on the same two CPUs, and the best tenths of
both are compared: a burst is less than a millisecond, so other work on the host spoils many bursts of either and not
the best tenth.  A budget that seems missed is measured five times as long before it is called missed.
"""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from engine import data
from engine.errors import UsageError
from engine.frontends import replay
from engine.frontends.trace import load as load_trace
from engine.machine import Machine
from engine.machine.spec import PlacementSpec
from engine.measure import _limits

ROUNDS = 40
WORKLOAD = "seabios-pc"
MIDDLE, BURST = (
    1 << 17,
    1 << 13,
)  # where a mixed stretch begins (port reads, VGA memory, timers); synchronous bursts have a quarter
LIMITS = ("pingpong_p50_ns", "pingpong_p99_ns", "futex_us", "spsc_per_s")


def load() -> list[dict[str, Any]]:
    """The budgets' table, checked.  Raises UsageError."""
    path = data.FOLDER / "budgets.toml"
    rows: list[dict[str, Any]] = tomllib.loads(path.read_text())["budget"]
    for row in rows:
        if set(row) not in ({"name", "path", "measure", "limit", "why", way} for way in ("at_most", "at_least")):
            raise UsageError(
                f"{path}: budget {row.get('name')!r} needs name, path, measure, limit, why, at_most or at_least"
            )
    return rows


def judge(budget: dict[str, Any], measured: float, limit: float) -> dict[str, Any]:
    """One budget as the JSON output has it.  `ratio` is measured to limit, `allowed` what the budget permits."""
    way = "at_most" if "at_most" in budget else "at_least"
    ratio = measured / limit if limit else float("inf")
    ok = ratio <= budget[way] if way == "at_most" else ratio >= budget[way]
    return {
        "name": budget["name"],
        "path": budget["path"],
        "limit": limit,
        "measured": measured,
        "ratio": round(ratio, 4),
        "way": way,
        "allowed": budget[way],
        "ok": ok,
    }


class Probe:
    """One machine with one worker, and the two CPUs on which paths and limits take turns."""

    def __init__(self) -> None:
        trace = load_trace(data.TRACES / f"{WORKLOAD}.npz")
        job = replay.open_job(trace, None, "auto", {})
        self.cpus = _limits.pair()
        self.machine = Machine(replace(job.spec, placement=PlacementSpec(workers=1)), workers=1, path="batched")
        acc = replay.poisoned(trace)
        self.bursts = {
            "batched": acc[MIDDLE:][:BURST],
            "sync": acc[MIDDLE:][: BURST // 4],
            "buffered": acc[(acc["addr"] == 0x402) & (acc["dir"] == 1)][: BURST // 4],
        }

    def __enter__(self) -> Probe:
        self.machine.start()
        assert self.machine.pool is not None
        os.sched_setaffinity(self.machine.pool.workers[0].pid, {self.cpus[1]})
        return self

    def __exit__(self, *what: object) -> None:
        self.machine.stop()

    def limits(self) -> dict[str, float]:
        """One burst of each limit."""
        p = _limits.pingpong(4_000, self.cpus)
        s = _limits.spsc(100_000, cpus=self.cpus)
        return {"pingpong_p50_ns": p["p50_ns"], "pingpong_p99_ns": p["p99_ns"], "spsc_per_s": s["per_s"]}

    def burst(self, path: str) -> dict[str, float]:
        """One burst of a path, later in time than the one before."""
        m = self.machine
        acc = self.bursts[path].copy()
        acc["t_ns"] += np.uint64(m.clock.now)
        m.path = path
        m.sequencer.clear_histogram()
        start = time.perf_counter()
        m.run(acc)
        seconds = time.perf_counter() - start
        p50 = replay.percentiles(m.sequencer.histogram())["p50"]
        return {"accesses_per_s": len(acc) / seconds, "posted_p50_ns" if path == "buffered" else "p50_ns": p50}


def measure(
    paths: Collection[str], progress: Callable[[int], None] | None = None
) -> tuple[dict[str, float], list[dict[str, Any]], str]:
    """(limits, budgets of these paths, a note if they could not be measured)."""
    if len(os.sched_getaffinity(0)) < 2:
        return dict.fromkeys(LIMITS, 0.0), [], "budgets need two CPUs; this process may use one, so none was checked"
    wanted = [b for b in load() if b["path"] in paths]
    series: dict[str, list[float]] = {}
    before = os.sched_getaffinity(0)
    with Probe() as probe:
        for turn in range(5 * ROUNDS):
            if turn == ROUNDS and all(b["ok"] for b in _judged(wanted, series)):
                break
            got = probe.limits()
            try:
                os.sched_setaffinity(0, {probe.cpus[0]})
                for path in sorted({b["path"] for b in wanted}):
                    got |= {f"{path} {k}": v for k, v in probe.burst(path).items()}
            finally:
                os.sched_setaffinity(0, before)
            for name, value in got.items():
                series.setdefault(name, []).append(value)
            if progress:
                progress(1)
    limits = {name: _typical(name, series[name]) for name in LIMITS if name in series}
    limits["futex_us"] = _limits.futex(1_000, probe.cpus)["p50_ns"] / 1000
    return {name: round(limits[name], 3) for name in LIMITS}, _judged(wanted, series), ""


def _typical(name: str, values: list[float]) -> float:
    """The edge of the best tenth: of rates the upper, of times the lower."""
    return float(np.quantile(values, 0.9 if name.endswith("_per_s") else 0.1))


def _judged(wanted: list[dict[str, Any]], series: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        judge(
            b, _typical(b["measure"], series[f"{b['path']} {b['measure']}"]), _typical(b["limit"], series[b["limit"]])
        )
        for b in wanted
    ]
