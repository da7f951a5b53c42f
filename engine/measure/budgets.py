"""Budgets: what each path costs here, by kind of device, as a ratio to what raw C costs here at the same moment.

Bursts of each path alternate with bursts of the limits on the same two CPUs; a budget's ratio is the median of the
ratios of its rounds, so what other work does to a few bursts, or to all of a round, does not count.  A budget that
seems missed is measured five times as long before it is called missed.
"""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import data
from engine._abi import ACC
from engine.errors import UsageError
from engine.frontends import replay
from engine.frontends.trace import load as load_trace
from engine.machine import Machine
from engine.machine.spec import PlacementSpec
from engine.measure import _limits
from engine.measure.histogram import middles, sequencer_edges
from engine.testing._walk import Walk

Array = npt.NDArray[Any]

ROUNDS = 40
WORKLOAD = "seabios-pc"
MIDDLE = 1 << 17  # where a mixed stretch begins (port reads, VGA memory, timers), to the recording's end
BURST, SYNC_BURST = 1 << 13, 1 << 10
LIMITS = ("pingpong_p50_ns", "pingpong_p99_ns", "futex_us", "spsc_per_s")
# What the devices' bursts are, beside the recorded stretch: space, address, size, is it a write.
DEVICES = {
    "register": (0, 0x3FF, 1, False),  # the scratch register of a 16550A
    "timer": (0, 0x608, 2, False),  # the ACPI timer, where firmware put it; four bytes are the router's
    "config": (2, 0x8 << 32, 4, False),  # 00:01.0, vendor and device
    "content": (0, 0x511, 1, False),  # fw_cfg's data port
    "memory": (1, 0xB8000, 4, True),  # the VGA's window
    "port": (0, 0x402, 1, True),  # the debug console
}
KEYS = {"path", "device", "measure", "limit", "why"}
EDGES = 2.0 ** np.arange(0, 24.5, 0.5)  # ns: of the histograms that are shown


def load() -> list[dict[str, Any]]:
    """The budgets' table, checked; each with its name.  Raises UsageError."""
    path = data.FOLDER / "budgets.toml"
    rows: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["budget"]
    for n, row in enumerate(rows):
        if set(row) not in (KEYS | {"at_most"}, KEYS | {"at_least"}):
            raise UsageError(f"{path}: budget {n + 1} needs {', '.join(sorted(KEYS))}, and at_most or at_least")
        if row["device"] not in {"boot", *DEVICES}:
            there = ", ".join(("boot", *DEVICES))
            raise UsageError(f"{path}: budget {n + 1}: no device {row['device']!r}; there are {there}")
        row["name"] = f"{row['path']}, {row['device']}: {row['measure'].replace('_ns', '').replace('per_s', 'rate')}"
    return rows


def judge(budget: dict[str, Any], measured: float, limit: float, ratio: float | None = None) -> dict[str, Any]:
    """One budget as the JSON output has it.  `ratio` is measured to limit, `allowed` what the budget permits."""
    way = "at_most" if "at_most" in budget else "at_least"
    if ratio is None:
        ratio = measured / limit if limit else float("inf")
    ok = ratio <= budget[way] if way == "at_most" else ratio >= budget[way]
    return {
        "name": budget["name"],
        "path": budget["path"],
        "device": budget["device"],
        "measure": budget["measure"],
        "limit": limit,
        "limit_name": budget["limit"],
        "measured": measured,
        "ratio": round(ratio, 4),
        "way": way,
        "allowed": budget[way],
        "ok": ok,
    }


class Probe:
    """A machine with one worker and, for path local, one without: both have booted the recording's firmware."""

    def __init__(self, local: bool) -> None:
        trace = load_trace(data.TRACES / f"{WORKLOAD}.npz")
        job = replay.open_job(trace, None, "auto", {})
        self.cpus = _limits.pair()
        self.trace, self.acc = trace, replay.poisoned(trace)
        spec = replace(job.spec, placement=PlacementSpec(workers=1))
        self.machine = Machine(spec, workers=1, path="batched")
        self.alone = Machine(job.spec, path="local") if local else None
        self.walk: Walk | None = None

    def __enter__(self) -> Probe:
        for m in (self.machine, self.alone):
            if m is None:
                continue
            m.start()
            given = replay.machine_inputs(m, self.trace)
            m.run(self.acc, given.records, given.ram_bytes)
            if m.pool is not None:
                os.sched_setaffinity(m.pool.workers[0].pid, {self.cpus[1]})
            else:
                self.walk = Walk(m)
        return self

    def __exit__(self, *what: object) -> None:
        self.machine.stop()
        if self.alone is not None:
            self.alone.stop()

    def accesses(self, path: str, device: str) -> Array:
        """One burst, from time 0 on."""
        n = SYNC_BURST if path == "sync" else BURST
        if device == "boot":
            acc = self.acc[MIDDLE:][: n if path == "sync" else None].copy()
            acc["t_ns"] -= acc["t_ns"][0]
            return acc
        acc = np.zeros(n, ACC)
        acc["space"], acc["addr"], acc["size"], acc["dir"] = DEVICES[device]
        acc["t_ns"] = np.arange(n) * 100
        return acc

    def limits(self) -> tuple[dict[str, float], Array]:
        """One burst of each limit that does not depend on the load, and the round trips in ns."""
        p = _limits.pingpong(4_000, self.cpus)
        s = _limits.spsc(100_000, cpus=self.cpus)
        out = {"pingpong_p50_ns": p["p50_ns"], "pingpong_p99_ns": p["p99_ns"], "spsc_per_s": s["per_s"]}
        return out, p["samples_ns"]

    def burst(self, path: str, device: str) -> tuple[dict[str, float], Array]:
        """One burst of a path, later in time than the one before: measures by name, and its latency histogram."""
        m = self.alone if path == "local" else self.machine
        assert m is not None
        acc = self.accesses(path, device)
        acc["t_ns"] += np.uint64(m.clock.now)
        m.path = path
        m.sequencer.clear_histogram()
        start = time.perf_counter()
        m.run(acc)
        seconds = time.perf_counter() - start
        histogram = m.sequencer.histogram()
        got = replay.percentiles(histogram)
        out = {"per_s": len(acc) / seconds, "p50_ns": got["p50"], "p99_ns": got["p99"]}
        if path == "local":
            assert self.walk is not None
            out["loop_per_s"] = len(acc) / self.walk.local(acc)[0]
        return out, histogram


def measure(
    paths: Collection[str], progress: Callable[[int], None] | None = None
) -> tuple[dict[str, float], list[dict[str, Any]], str]:
    """(limits, budgets of these paths, a note if they could not be measured)."""
    if len(os.sched_getaffinity(0)) < 2:
        return dict.fromkeys(LIMITS, 0.0), [], "budgets need two CPUs; this process may use one, so none was checked"
    wanted = [b for b in load() if b["path"] in paths]
    loads = sorted({(b["path"], b["device"]) for b in wanted})
    series: dict[str, list[float]] = {}
    counts: dict[str, Array] = {}

    def note(prefix: str, got: dict[str, float]) -> None:
        for name, value in got.items():
            series.setdefault(prefix + name, []).append(value)

    def count(name: str, histogram: Array) -> None:
        counts[name] = counts.get(name, 0) + histogram

    before, fine = os.sched_getaffinity(0), sequencer_edges()
    with Probe("local" in paths) as probe:
        for turn in range(5 * ROUNDS):
            if turn == ROUNDS and all(b["ok"] for b in _judged(wanted, series, counts)):
                break
            limits, trips = probe.limits()
            note("", limits)
            count("pingpong", np.histogram(trips, EDGES)[0])
            try:
                os.sched_setaffinity(0, {probe.cpus[0]})
                for path, device in loads:
                    got, histogram = probe.burst(path, device)
                    note(f"{path} {device} ", got)
                    count(f"{path} {device}", np.histogram(middles(fine), EDGES, weights=histogram)[0])
            finally:
                os.sched_setaffinity(0, before)
            if progress:
                progress(1)
    medians = {name: float(np.median(series[name])) for name in LIMITS if name in series}
    medians["futex_us"] = _limits.futex(1_000, probe.cpus)["p50_ns"] / 1000
    return {name: round(medians[name], 3) for name in LIMITS}, _judged(wanted, series, counts), ""


def _judged(
    wanted: list[dict[str, Any]], series: dict[str, list[float]], counts: dict[str, Array]
) -> list[dict[str, Any]]:
    out = []
    for b in wanted:
        load = f"{b['path']} {b['device']}"
        ours = np.array(series[f"{load} {b['measure']}"])
        limit = np.array(series[f"{load} {b['limit']}" if b["limit"] == "loop_per_s" else b["limit"]])
        low, middle, high = (float(q) for q in np.percentile(ours / limit, (25, 50, 75)))
        one = judge(b, float(np.median(ours)), float(np.median(limit)), middle)
        one |= {"n": len(ours), "spread": round((high - low) / middle, 3)}
        if b["measure"] == "per_s":  # ns an access, of each burst
            shown = [np.histogram(1e9 / x, EDGES)[0] for x in (ours, limit)]
        else:
            shown = [counts[load], counts["pingpong"]]
        out.append(one | {"histogram": _histogram(*shown)})
    return out


def _histogram(ours: Array, limit: Array) -> dict[str, list[float]]:
    """Shares of what was measured and of its limit between edges in ns, where there are any."""
    used = np.flatnonzero(ours + limit)
    at = slice(used[0], used[-1] + 1) if len(used) else slice(0)
    return {
        "from_ns": [round(float(x), 1) for x in EDGES[:-1][at]],
        **{
            name: [round(float(x), 4) for x in h[at] / max(1, h.sum())]
            for name, h in (("measured", ours), ("limit", limit))
        },
    }
