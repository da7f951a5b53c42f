"""The machine's limits: they run, they measure what they say, they refuse what cannot be."""

import os
import shutil
from pathlib import Path

import pytest

from engine.errors import EngineError, UsageError
from engine.measure import _limits
from perf import limits

CHILDREN = Path("/proc/thread-self/children")
ROUNDS = [_limits.pingpong, _limits.futex]


@pytest.mark.parametrize("limit", ROUNDS)
def test_round_trips_have_ordered_percentiles(limit):
    got = limit(500)
    assert got["n"] == 500
    assert 0 < got["p50_ns"] <= got["p99_ns"] <= got["p999_ns"] <= got["max_ns"]
    assert got["per_s"] == pytest.approx(1e9 / got["mean_ns"])
    assert set(got["cpus"]) <= os.sched_getaffinity(0)


@pytest.mark.parametrize(("n", "batch"), [(1, 1), (4095, 1024), (100_000, 64), (100_001, 7)])
def test_ring_limit_checks_its_own_sum(n, batch):
    got = _limits.spsc(n, batch)
    assert (got["n"], got["batch"]) == (n, batch)
    assert got["per_s"] == pytest.approx(1e9 / got["mean_ns"])


def test_both_sides_may_share_a_cpu():
    cpu = min(os.sched_getaffinity(0))
    assert _limits.pingpong(200, (cpu, cpu))["same_core"]
    assert _limits.spsc(10_000, cpus=(cpu, cpu))["n"] == 10_000


def test_affinity_is_restored_and_no_process_is_left():
    before, children = os.sched_getaffinity(0), CHILDREN.read_text()
    _limits.measure(scale=0.02)
    assert os.sched_getaffinity(0) == before
    assert CHILDREN.read_text() == children


def test_the_budgets_names():
    got = limits.measure(scale=0.02)
    assert {"pingpong_p50_ns", "pingpong_p99_ns", "futex_us", "spsc_per_s"} <= set(got)
    assert all(got[k] > 0 for k in ("pingpong_p50_ns", "pingpong_p99_ns", "futex_us", "spsc_per_s"))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: _limits.pingpong(10), "n is 10, from 100 to"),
        (lambda: _limits.spsc(100, 5000), "batch is 5000, from 1 to 1024"),
        (lambda: _limits.pingpong(200, (0, 99999)), "CPUs 0 and 99999 are not both among"),
    ],
)
def test_impossible_requests_are_refused(call, complaint):
    with pytest.raises(UsageError, match=complaint):
        call()


needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@needs_cc
@pytest.mark.parametrize("limit", [limits.eventfd, limits.socket])
def test_compiled_round_trips(limit):
    got = limit(200)
    assert 0 < got["p50_ns"] <= got["p99_ns"] <= got["max_ns"]


@needs_cc
def test_compiled_call_limit_and_its_cache():
    assert limits.call(100_000)["per_s"] > 0
    built = sorted(limits.BUILD.glob("call-*.so"))
    limits.call(100_000)
    assert sorted(limits.BUILD.glob("call-*.so")) == built


def test_a_missing_compiler_is_said(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(UsageError, match=r"no C compiler \('no-such-compiler'\) to build call\.c"):
        limits.call()


@needs_cc
def test_a_compile_error_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "HERE", tmp_path)
    monkeypatch.setattr(limits, "BUILD", tmp_path)
    (tmp_path / "broken.c").write_text("int x = ;\n")
    with pytest.raises(EngineError, match=r"broken\.c does not compile: .*error") as info:
        limits.library("broken")
    assert "\n" not in str(info.value)
