"""One replication of one cell: a fresh machine, the load, and every number that came of it."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

import engine
from engine.errors import EngineError, UsageError
from engine.frontends import replay
from engine.machine import Machine
from engine.machine.build import plan
from engine.machine.derive import derive
from engine.machine.spec import MachineSpec, PlacementSpec, load
from engine.measure import _limits, host
from engine.measure.histogram import mean, quantile
from engine.study import _offer
from engine.study.design import Cell
from engine.study.mixes import MIXES, recorded, setup, synthetic
from engine.workers import placement

Array = npt.NDArray[Any]
AGE_EVERY = 32  # one posted write in so many is watched
PINGPONG = 2_000  # round trips of the limit that stands beside each replication
KINDS = ("reads", "writes", "service", "age")
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))
EDGES = _offer.edges()


@cache
def this_host() -> tuple[str, dict[str, Any]]:
    """(short id, record) of the host: the id depends on what does not change from run to run."""
    record = host.record()
    fixed = {k: v for k, v in record.items() if k not in ("time", "load", "tsc_mhz")}
    node = os.uname().nodename
    return hashlib.sha256(json.dumps([node, fixed], sort_keys=True).encode()).hexdigest()[:10], {**record, "node": node}


@contextlib.contextmanager
def on_cpus(cpus: set[int]) -> Iterator[None]:
    """The calling thread on these CPUs; processes started meanwhile begin there too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def check(cell: Cell) -> None:
    """Raises UsageError if this host or this machine cannot run a cell."""
    if cell.path == "local":
        return
    allowed = len(os.sched_getaffinity(0))
    if cell.cpus == "apart" and allowed < 2:
        raise UsageError(f'cpus = "apart" needs two CPUs, this process may use {allowed}; study cpus = "together"')
    units = len(plan(derive(_spec(cell))).units)
    if cell.workers > units:
        raise UsageError(f"{cell.workers} workers: the machine of {cell.mix} has {units} units to place")


def _spec(cell: Cell) -> MachineSpec:
    return load("i440fx") if cell.mix in MIXES else recorded(cell.mix).spec


def _machine(cell: Cell) -> Machine:
    """The cell's machine, not yet started.  It times nothing: the load times each access, alike on every path."""
    spec = _spec(cell)
    contents = None if cell.mix in MIXES else recorded(cell.mix).contents
    if cell.path == "local":
        return Machine(spec, path="local", contents=contents, stamps="none")
    spec = replace(
        spec, placement=PlacementSpec(workers=cell.workers, wait=cell.wait or "adaptive", ring=cell.ring or 4096)
    )
    owners = None
    if cell.placement is not None and cell.placement != "spread":
        owners = placement.shuffled(plan(derive(spec)), cell.workers, int(cell.placement.removeprefix("random:")))
    return Machine(spec, workers=cell.workers, owners=owners, path=cell.path, contents=contents, stamps="none")


def _load(cell: Cell, machine: Machine, accesses: int) -> tuple[Array, Array | None, Any]:
    """(accesses, inputs, RAM bytes) at the machine's present time."""
    now = np.uint64(machine.clock.now)
    if cell.mix in MIXES:
        assert cell.write_share is not None
        acc, inputs, ram = synthetic(cell.mix, accesses, cell.write_share), None, None
    else:
        trace = recorded(cell.mix).trace
        given = replay.machine_inputs(machine, trace)
        acc, inputs, ram = replay.poisoned(trace), given.records.copy(), given.ram_bytes
        inputs["t_ns"] += now
    acc["t_ns"] += now
    return acc, inputs, ram


def _due(cell: Cell, n: int, seed: int) -> Array | None:
    """When each access is due, in ns; None for a closed load."""
    if cell.load is None:
        return None
    gap = 1e9 / cell.load
    if cell.arrivals == "poisson":
        return np.cumsum(np.random.default_rng(seed).exponential(gap, n))
    return np.arange(n) * gap


def _pin(cell: Cell, machine: Machine, cpus: list[int]) -> None:
    """Each worker on a CPU that is not the router's, as far as there are such."""
    if cell.cpus == "apart" and machine.pool is not None:
        for n, w in enumerate(machine.pool.workers):
            os.sched_setaffinity(w.pid, {cpus[1 + n % (len(cpus) - 1)]})


def _cpus() -> list[int]:
    """The CPUs this process may use, the router's first; the next is on another core if there is one."""
    first, second = _limits.pair()
    return [first, *({second} - {first}), *sorted(os.sched_getaffinity(0) - {first, second})]


def replication(cell: Cell, replicate: int, seed: int, accesses: int) -> dict[str, Any]:
    """Run a cell once: {"values": {name: number}, "histograms": {kind: {bucket: count}}, "host", "host_record"}."""
    check(cell)
    cpus = _cpus()
    began = time.time()
    limit = _limits.pingpong(PINGPONG, (cpus[0], cpus[1])) if len(cpus) > 1 else {}
    router = {cpus[0]} if cell.path == "local" or cell.cpus in ("apart", "together") else set(cpus)
    machine = _machine(cell)
    # Together: all are born on the router's CPU, so that they know that they share it.
    with on_cpus(router if cell.cpus == "together" else set(cpus)), machine:
        _pin(cell, machine, cpus)
        if cell.mix in MIXES and MIXES[cell.mix].setup:
            machine.run(setup(cell.mix))
        acc, inputs, ram = _load(cell, machine, accesses)
        due = _due(cell, len(acc), seed + replicate)
        tsc_hz = _limits.tsc_hz()
        pids = [w.pid for w in machine.pool.workers] if machine.pool is not None else []
        before = machine.sequencer.counters
        gc.collect()
        with on_cpus(router):
            switched = _switched()
            got = _offer.offer(
                machine.sequencer,
                acc,
                cell.path,
                tsc_hz,
                due=due,
                batch=cell.batch or 1,
                fill=cell.gather == "full",
                age_every=AGE_EVERY,
                inputs=inputs,
                ram_bytes=ram,
                meter=lambda: host.cpu_seconds(*pids),
            )
            switched = _switched() - switched
        after = machine.sequencer.counters
        machine.lines()
        stamp = _offer.stamp_ns(tsc_hz)
    values = figures(cell, acc, got, {k: after[k] - before[k] for k in before if k != "mean_batch"})
    n = len(acc)
    values |= {
        "router_cpu_ns": got["cpu_s"] / n * 1e9,
        "worker_cpu_ns": got["metered"] / n * 1e9,
        "cpu_share": got["cpu_s"] / got["seconds"],
        "switched": switched,
        "stamp_ns": stamp,
        "limit_p50_ns": limit.get("p50_ns", float("nan")),
        "limit_p99_ns": limit.get("p99_ns", float("nan")),
        "load_average": os.getloadavg()[0],
        "began": began,
        "took_s": time.time() - began,
    }
    values = {k: float(f"{v:.6g}") if isinstance(v, float) and k != "began" else v for k, v in values.items()}
    id, record = this_host()
    return {
        "values": values,
        "histograms": {k: {int(b): int(got[k][b]) for b in np.flatnonzero(got[k])} for k in KINDS},
        "host": id,
        "host_record": record,
        "engine": engine.__version__,
    }


def _switched() -> int:
    """How often the calling thread gave its CPU to another while it had work: preempted, or giving way."""
    import resource

    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def figures(cell: Cell, acc: Array, got: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one run."""
    n, writes = len(acc), int(acc["dir"].sum())
    both = got["reads"] + got["writes"]
    if int(both.sum()) != n:
        raise EngineError(f"{int(both.sum())} latencies for {n} accesses")
    out: dict[str, Any] = {
        "accesses": n,
        "writes": writes,
        "reads": n - writes,
        "seconds": got["seconds"],
        "per_s": n / got["seconds"],
        "parts_ns": " ".join(map(str, got["parts_ns"])),
        "call_ns": got["busy_s"] / n * 1e9,
        "behind_s": got["behind_s"],
        "digest_reads": hashlib.sha256(got["value"][acc["dir"] == 0].tobytes()).hexdigest()[:12],
    }
    for name, h in (
        ("", both),
        ("read_", got["reads"]),
        ("write_", got["writes"]),
        ("service_", got["service"]),
        ("age_", got["age"]),
    ):
        for label, q in QUANTILES:
            out[f"{name}{label}_ns"] = quantile(EDGES, h, q)
        out[f"{name}mean_ns"] = mean(EDGES, h)
    out["age_samples"] = int(got["age"].sum())
    for key in (
        "local",
        "router",
        "sync",
        "buffered",
        "batched",
        "fallback",
        "posted_eligible",
        "batches",
        "batch_accesses",
        "settles",
        "cuts",
    ):
        out[f"n_{key}"] = int(counts[key])
    out["fallback_share"] = (
        counts["fallback"] / counts["posted_eligible"] if counts["posted_eligible"] else float("nan")
    )
    return out
