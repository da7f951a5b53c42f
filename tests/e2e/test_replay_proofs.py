"""It really computes: recorded values never reach devices, time matters, one other value in a reference is noticed."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from engine import data
from engine.frontends import replay
from engine.frontends import trace as traces
from engine.machine import Machine


@pytest.fixture(scope="module")
def job():
    trace = traces.load(data.trace("seabios-pc"))
    job = replay.open_job(trace, traces.load_golden(traces.golden_path(trace), trace), "auto", {})
    replay.learn(job)
    return job


@pytest.mark.parametrize("path", ["local", "batched"])
def test_no_recorded_read_value_is_submitted(job, path, monkeypatch):
    seen = []
    run = Machine.run

    def spy(self, acc, *rest):
        seen.append(acc[acc["dir"] == 0]["value"].copy())
        return run(self, acc, *rest)

    monkeypatch.setattr(Machine, "run", spy)
    result = replay.replay(job, path, 3).result
    assert result["ok"]
    submitted = np.concatenate(seen)
    assert len(submitted) == 161482 and bool((submitted == traces.POISON).all())


def test_answers_do_not_depend_on_the_values_submitted_for_reads(job, monkeypatch):
    want = replay.replay(job, "batched", 3).result["digest"]
    for poison in (0, 2**64 - 1):
        monkeypatch.setattr(replay, "POISON", poison)
        assert replay.replay(job, "batched", 3).result["digest"] == want


def test_one_microsecond_later_every_pm_timer_read_differs_and_nothing_else(job):
    trace = job.trace
    acc, evt = trace.acc.copy(), trace.evt.copy()
    acc["t_ns"] += np.uint64(1000)
    evt["t_ns"] += np.uint64(1000)
    later = replace(job, trace=replace(trace, acc=acc, evt=evt))
    result = replay.replay(later, "batched", 3).result
    differ = {
        row["region"]: row["reads"] - row["matching"] for row in result["by_region"] if row["reads"] != row["matching"]
    }
    assert differ == {"acpi-tmr|PIIX4_PM": 10038}
    assert not result["ok"] and len(result["mismatches"]) == 20
    assert result["vectors"] == {"compared": 1368, "matching": 1368} and result["lines"] == {
        "compared": 2747,
        "matching": 2747,
    }


def flip_value(z, trace):
    compared = np.flatnonzero((trace.acc["dir"] == 0) & (trace.acc["addr"] == 0x608))
    z["value"][compared[5000]] ^= np.uint64(1)


def flip_vector(z, trace):
    z["vector"][700] ^= 1


def flip_irq_level(z, trace):
    z["irq"]["level"][1500] ^= 1


def flip_irq_phase(z, trace):
    z["irq"]["phase"][1500] ^= 1


def flip_irq_index(z, trace):
    z["irq"]["index"][1500] += 1


def flip_irq_line(z, trace):
    z["irq"]["line"][1500] ^= 1


@pytest.mark.parametrize(
    "flip, kind",
    [
        (flip_value, "read"),
        (flip_vector, "vector"),
        (flip_irq_level, "line"),
        (flip_irq_phase, "line"),
        (flip_irq_index, "line"),
        (flip_irq_line, "line"),
    ],
)
def test_one_flipped_value_in_the_reference_fails_the_command(engine, tmp_path, flip, kind):
    trace = traces.load(data.trace("seabios-pc"))
    with np.load(traces.golden_path(trace)) as f:
        z = {k: f[k] for k in f.files}
    flip(z, trace)
    np.savez(tmp_path / "other.golden.npz", **z)
    shutil.copy(data.TRACES / "seabios-pc.golden.json", tmp_path / "other.golden.json")
    got = engine("replay", "seabios-pc", "--golden", "other.golden.npz", "--path", "local", "--no-budgets")
    assert got.returncode == 1, got.stdout
    assert f"local: {kind} at access" in got.stdout and "DIFFERS" in got.stdout and "NOT ok" in got.stdout
    assert engine("replay", "seabios-pc", "--path", "local", "--no-budgets").returncode == 0
