"""A recorded boot has one digest: of all values read, vectors taken and line changes, wherever its devices are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine import data
from engine.frontends import replay
from engine.frontends import trace as traces
from engine.workers import pool
from engine.workers.placement import shuffled

from .guests import Threads

LINKS = ("sync", "buffered", "batched")


def without_screen(trace):
    """The same guest with most of its writes to the screen left out: they are most of a boot, and all alike."""
    number, names = trace.region_names()
    screen = (number == names.index("vga-lowmem|VGA")) & (trace.acc["dir"] == 1)
    keep = ~screen | (np.arange(len(screen)) % 40 == 0)
    before = np.concatenate(([0], np.cumsum(keep))).astype(np.uint64)  # how many are kept of those before
    evt, dma = trace.evt.copy(), trace.dma.copy()
    evt["index"], dma["index"] = before[evt["index"]], before[dma["index"]]
    return replace(trace, acc=trace.acc[keep], evt=evt, dma=dma)


@pytest.fixture(scope="module")
def job():
    """Firmware to a boot sector that reads its disk, sets a timer and waits for interrupts."""
    trace = without_screen(traces.load(data.trace("boot-pc")))
    job = replay.open_job(trace, None, "auto", {})
    replay.learn(job)
    assert 5000 < len(trace.acc) < 15000 and len(trace.dma) == 40 and "ide" in job.learnt
    return job


@pytest.fixture(scope="module")
def want(job):
    result = replay.replay(job, "local", 0).result
    assert result["done"] == len(job.trace.acc)
    return result["digest"]


@pytest.mark.parametrize("seed", range(20))
def test_any_placement(job, want, monkeypatch, seed):
    monkeypatch.setattr(pool, "Pool", Threads)
    plan, path = job.plan(), LINKS[seed % 3]
    workers = 1 + seed % 5
    owners = shuffled(plan, workers, seed)
    result = replay.replay(job, path, workers, owners).result
    assert result["digest"] == want, (path, owners)
    assert result["counts"]["local"] == 0 and len(result["worker_list"]) == workers
    assert sum(row["accesses"] for row in result["worker_list"]) > 5000


@pytest.mark.parametrize("path", LINKS)
def test_each_device_on_a_worker_of_its_own(job, want, monkeypatch, path):
    monkeypatch.setattr(pool, "Pool", Threads)
    units = len(job.plan().units)
    assert replay.replay(job, path, units, list(range(units))).result["digest"] == want


def test_worker_processes(job, want):
    assert replay.replay(job, "batched", 2, shuffled(job.plan(), 2, 99)).result["digest"] == want


def test_the_digest_is_of_everything(job, want):
    """One other value, vector or line change is another digest."""
    trace = job.trace
    with replay.running(job, "local", 0) as machine:
        got = replay.execute(machine, trace, replay.poisoned(trace))
    assert replay.digest(trace, got) == want and len(got.vectors) == 21 and len(got.lines) > 40
    read = int(np.flatnonzero(trace.acc["dir"] == 0)[-1])
    for name, where in (("value", read), ("vectors", 20)):
        array = getattr(got, name)
        array[where] ^= 1
        assert replay.digest(trace, got) != want, name
        array[where] ^= 1
    for field in ("index", "line", "level", "phase"):
        got.lines[field][7] ^= 1
        assert replay.digest(trace, got) != want, field
        got.lines[field][7] ^= 1
    assert replay.digest(trace, got) == want
