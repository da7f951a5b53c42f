"""Studies: declarations and their mistakes, the load, kept results, intervals, verdicts, report and tables."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engine import data
from engine.errors import EngineError, UsageError
from engine.frontends import replay
from engine.machine import Machine
from engine.machine.spec import PlacementSpec, load
from engine.measure import _limits, histogram
from engine.study import _offer, compare, conduct, design, mixes, report, results, run, tables
from engine.study.journal import Journal
from engine.study.results import Interval, Results, bootstrap
from engine.types import Space

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("pyarrow")

HEAD = '[study]\nname = "s"\naccesses = 500\nreplications = 4\n'
BLOCK = '[[block]]\nname = "b"\n'
B = HEAD + BLOCK
TWO = B + 'mix = ["vga", "uart"]\npath = ["sync", "buffered"]\n'
BUFFERED, BATCHED = (compare.Contrast("path", path, "sync") for path in ("buffered", "batched"))


# ---------------------------------------------------------------------- what is declared


def test_blocks_are_factorials_and_share_cells() -> None:
    d = design.parse(TWO + '[[block]]\nname = "more"\nmix = "vga"\npath = ["sync", "batched"]\nwait = "adaptive"\n')
    assert [(c.mix, c.path) for c in d.cells] == [
        ("vga", "sync"),
        ("vga", "buffered"),
        ("uart", "sync"),
        ("uart", "buffered"),
        ("vga", "batched"),
    ]
    assert d.blocks[0].varied == ("mix", "path") and d.size == 20


def test_levels_that_mean_nothing_on_a_path_are_not_set() -> None:
    d = design.parse(B + 'path = ["local", "sync", "buffered", "batched"]\nwait = "spin"\n')
    local, sync, buffered, batched = d.cells
    assert (local.wait, local.workers, local.ring, local.cpus, local.batch) == (None, 0, None, None, 1)
    assert (sync.wait, sync.ring, sync.batch, sync.workers, sync.placement) == ("spin", None, None, 1, None)
    assert (buffered.ring, buffered.batch) == (4096, None)
    assert (batched.ring, batched.batch, batched.gather) == (4096, 64, None)


def test_each_replicate_runs_every_cell_once_in_an_order_of_its_own() -> None:
    d = design.parse(B + 'mix = "vga"\npath = "batched"\nbatch = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n')
    order = list(d.order())
    per_replicate = [[n for r, n, _ in order if r == k] for k in range(4)]
    assert all(sorted(p) == list(range(10)) for p in per_replicate)
    assert len({tuple(p) for p in per_replicate}) == 4
    assert order == list(d.order())
    assert [r for r, _, _ in order] == sorted(r for r, _, _ in order)


def test_the_digest_follows_what_is_measured_and_not_how_often() -> None:
    d = design.parse(TWO)
    assert d.digest == replace(d, replications=99, question="?").digest
    assert (
        len(
            {
                d.digest,
                replace(d, accesses=501).digest,
                replace(d, seed=2).digest,
                design.parse(TWO.replace("uart", "polling")).digest,
            }
        )
        == 4
    )


def test_quick_takes_its_own_settings() -> None:
    text = (
        TWO
        + '[[block]]\nname = "long"\nmix = "polling"\n'
        + '[quick]\nreplications = 2\naccesses = 200\nseconds = 9\nleave_out = ["long"]\n'
    )
    d, q = design.parse(text), design.parse(text, quick=True)
    assert (d.size, d.accesses, d.seconds, d.stem) == (20, 500, 0, "s")
    assert (q.size, q.accesses, q.seconds, q.stem) == (8, 200, 9, "s-quick")


@pytest.mark.parametrize("name", design.shipped())
def test_shipped_studies_are_possible(name: str) -> None:
    for quick in (False, True):
        d = design.load(f"shipped:{name}", quick)
        assert d.cells and d.name == name
        for c in d.cells:
            if len(os.sched_getaffinity(0)) > 1:
                run.check(c)


def test_the_shipped_comparison_covers_the_real_traces_and_four_mixes() -> None:
    mixes_of = {c.mix for c in design.load("shipped:sync-vs-buffered").cells}
    assert mixes_of - set(data.traces()) == {"vga", "uart", "doorbell", "polling"}
    assert {"seabios-pc", "boot-pc", "grub-pc"} <= mixes_of


MISTAKES = {
    "unknown factor": (B + "depth = 4\n", ["block 'b'", "unknown factor 'depth'", "ring"]),
    "unknown key": (HEAD + "reps = 4\n" + BLOCK, ["unknown key 'reps'", "replications"]),
    "unknown table": (HEAD + "[more]\n" + BLOCK, ["unknown table 'more'"]),
    "unknown quick key": (HEAD + "[quick]\nfast = 1\n" + BLOCK, ["unknown key 'fast' in [quick]"]),
    "not TOML": ("[study\n", ["not TOML"]),
    "brackets without end": ("x = " + "[" * 100_000, ["not TOML"]),
    "digits without end": ("x = " + "9" * 5000, ["not TOML"]),
    "a number of many bits": (B + "batch = 0x1" + "0" * 16, ["not TOML", "64 bits"]),
    "a mix that can be no file": (B + f'mix = "{"y" * 5000}"\n', ["is neither a synthetic mix"]),
    "no head": (BLOCK, ["no [study] table"]),
    "no block": (HEAD, ["no [[block]] table"]),
    "newer format": (HEAD + "format = 2\n" + BLOCK, ["format = 2", "reads format 1"]),
    "a name with a slash": ('[study]\nname = "../x"\n' + BLOCK, ["'../x'"]),
    "two of a name": (HEAD + BLOCK + BLOCK, ["two blocks are called 'b'"]),
    "left out what is not there": (HEAD + '[quick]\nleave_out = ["c"]\n' + BLOCK, ["leave_out", "of b"]),
    "left out what cannot be there": (HEAD + "[quick]\nleave_out = [[1]]\n" + BLOCK, ["leave_out", "of b"]),
    "all left out": (HEAD + '[quick]\nleave_out = ["b"]\n' + BLOCK, ["not all"]),
    "no level": (B + "path = []\n", ["path has no level"]),
    "a level twice": (B + 'path = ["sync", "sync"]\n', ["path names a level twice"]),
    "unknown path": (B + 'path = "fast"\n', ["path = 'fast'", "local, sync, buffered or batched"]),
    "unknown mix": (B + 'mix = "vag"\n', ["mix = 'vag'", "vga", "seabios-pc"]),
    "share beyond one": (B + "write_share = 1.5\n", ["write_share = 1.5", "between 0 and 1"]),
    "share of a recording": (B + 'mix = ["vga", "boot-pc"]\nwrite_share = 0.5\n', ["boot-pc", "has its own"]),
    "odd ring": (B + 'path = "buffered"\nring = 100\n', ["ring = 100", "power of two"]),
    "ring of sync": (
        B + 'path = "sync"\nring = 64\n',
        ["ring means nothing on path sync", "buffered and batched"],
    ),
    "rings of sync too": (
        B + 'path = ["sync", "buffered"]\nring = [64, 128]\n',
        ["ring means nothing on path sync"],
    ),
    "batch of buffered": (B + 'path = "buffered"\nbatch = 8\n', ["batch means nothing on path buffered"]),
    "workers of local": (B + 'path = "local"\nworkers = 2\n', ["workers means nothing on path local"]),
    "no worker": (B + "workers = 0\n", ["workers = 0"]),
    "a batch that gathers nothing": (
        B + 'path = "batched"\nload = 1000\nbatch = 1\ngather = "full"\n',
        ["gather means nothing with batch 1"],
    ),
    "gather without schedule": (B + 'path = "batched"\ngather = "full"\n', ["gather", "closed load"]),
    "arrivals without schedule": (B + 'load = ["closed", 100]\narrivals = "even"\n', ["arrivals", "closed load"]),
    "a negative load": (B + "load = -1\n", ["load = -1"]),
    "a load by name": (B + 'load = "much"\n', ["load = 'much'", "closed"]),
    "placement of one": (B + 'placement = "spread"\n', ["placement means nothing with one worker"]),
    "placement by what": (B + 'workers = 2\nplacement = "random"\n', ["placement = 'random'", "random:SEED"]),
    "accesses by text": ('[study]\nname = "s"\naccesses = "many"\n' + BLOCK, ["accesses = 'many'", "whole number"]),
    "too much of everything": (
        B + 'path = "batched"\nbatch = [' + ",".join(map(str, range(1, 121))) + "]\n"
        "wait = ['spin','block','adaptive']\n"
        + "write_share = [" + ",".join(f"{k / 100}" for k in range(40)) + "]\n",
        ["14400 combinations"],
    ),
    "more than memory holds": (
        B + 'path = "batched"\n' + f"batch = {list(range(1, 9999))}\nload = {list(range(1, 9999))}\n"
        f"ring = {[2**k for k in range(1, 20)]}\n",
        [f"{9998 * 9998 * 19} combinations"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_answered_in_one_line(case: str) -> None:
    text, words = MISTAKES[case]
    with pytest.raises(UsageError) as e:
        design.parse(text, "my.toml")
    assert str(e.value).startswith("my.toml") and "\n" not in str(e.value)
    for w in words:
        assert w in str(e.value)


def test_more_workers_than_units_are_refused_before_anything_runs() -> None:
    d = design.parse(B + "workers = 500\n")
    with pytest.raises(UsageError, match=r"500 workers: the machine of vga has \d+ units"):
        run.check(d.cells[0])


@pytest.mark.parametrize("path", ["local", "sync", "buffered", "batched"])
def test_no_path_is_timed_by_its_machine_too(path: str) -> None:
    """Two more readings of the clock in each synchronous access made posted loads' reads look a third faster."""
    with run._machine(design.parse(HEAD + f'[[block]]\nname = "b"\nmix = "vga"\npath = "{path}"\n').cells[0]) as m:
        assert m.path == path
        m.read(Space.PIO, 0x64, 1)
        assert m.stamps == "none" and not m.sequencer.histogram().any()


# ---------------------------------------------------------------------- the load


def test_buckets_hold_what_lies_between_their_edges() -> None:
    edges = [int(e) for e in _offer.edges()]
    assert edges == sorted(edges)
    ns = [*range(2000), 12345, 1 << 20, (1 << 33) + 5, (1 << 44) - 1]
    for v, b in zip(ns, _offer.buckets(ns), strict=True):
        assert edges[b] <= v < edges[b + 1]
    assert _offer.buckets([1 << 50]) == [len(edges) - 2]


@pytest.mark.parametrize(
    ("path", "batch"), [("local", 1), ("local", 100), ("sync", 1), ("buffered", 1), ("batched", 64)]
)
def test_a_recording_offered_piece_by_piece_reads_what_it_reads_at_once(path: str, batch: int) -> None:
    """Inputs keep their places between the accesses, however the load is cut."""
    job = mixes.recorded("boot-pc")
    n = 3000
    spec = replace(job.spec, placement=PlacementSpec(workers=1))

    def machine(path: str) -> Machine:
        return Machine(spec, path=path, contents=job.contents, **({} if path == "local" else {"workers": 1}))

    with machine("local") as m:
        given = replay.machine_inputs(m, job.trace)
        part = given.records[given.records["index"] < n]
        want = m.run(replay.poisoned(job.trace)[:n], part, given.ram_bytes)
    with machine(path) as m:
        got = _offer.offer(
            m.sequencer,
            replay.poisoned(job.trace)[:n],
            path,
            _limits.tsc_hz(),
            batch=batch,
            inputs=part,
            ram_bytes=given.ram_bytes,
        )
    reads = job.trace.acc["dir"][:n] == 0
    assert len(part) and (got["value"] == want[0]).all() and (got["status"][reads] == want[1][reads]).all()
    assert int(got["reads"].sum()) == reads.sum() and int(got["writes"].sum()) == n - reads.sum()
    assert sum(got["parts_ns"]) <= got["seconds"] * 1e9 + 64


def test_what_is_due_waits_for_what_came_before() -> None:
    """With everything due at once, the schedule's latencies hold the queue; those of a closed loop do not."""
    edges, n = _offer.edges(), 4000
    with Machine(load("i440fx"), path="local") as m:
        got = _offer.offer(m.sequencer, mixes.synthetic("polling", n, 0.02), "local", _limits.tsc_hz(), due=np.zeros(n))
    waited = histogram.quantile(edges, got["reads"] + got["writes"], 0.5)
    assert waited > 100 * histogram.quantile(edges, got["service"], 0.5)
    assert got["behind_s"] > 0


def test_a_schedule_is_not_run_ahead_of() -> None:
    n, gap = 200, 20_000
    with Machine(load("i440fx"), path="local") as m:
        got = _offer.offer(
            m.sequencer, mixes.synthetic("polling", n, 0.02), "local", _limits.tsc_hz(), due=np.arange(n) * gap
        )
    assert got["seconds"] >= (n - 1) * gap * 1e-9


@pytest.mark.parametrize("fill", [False, True])
def test_a_batch_takes_what_is_due_or_waits_until_it_is_full(fill: bool) -> None:
    """Five accesses are due at once, the others a second later."""
    n, later = 30, 1e9
    spec = replace(load("i440fx"), placement=PlacementSpec(workers=1))
    with Machine(spec, path="batched", workers=1) as m:
        got = _offer.offer(
            m.sequencer,
            mixes.synthetic("polling", n, 0.0),
            "batched",
            _limits.tsc_hz(),
            due=np.where(np.arange(n) < 5, 0, later),
            batch=10,
            fill=fill,
        )
        made = m.sequencer.counters["batches"]
    assert made == (3 if fill else 4)
    if fill:
        assert histogram.quantile(_offer.edges(), got["reads"], 1.0) > 0.9 * later  # the five have waited for five more


def test_posted_writes_are_watched_until_they_have_executed_and_full_rings_are_counted() -> None:
    spec = replace(load("i440fx"), placement=PlacementSpec(workers=1, ring=2))
    with Machine(spec, path="buffered", workers=1) as m:
        got = _offer.offer(
            m.sequencer, mixes.synthetic("doorbell", 3200, 1.0), "buffered", _limits.tsc_hz(), age_every=32
        )
        c = m.sequencer.counters
    assert c["fallback"] > 0 and c["buffered"] + c["fallback"] == c["posted_eligible"] == 3200
    assert 0 < int(got["age"].sum()) <= c["buffered"] // 32


def test_impossible_loads_are_refused() -> None:
    acc, hz = mixes.synthetic("uart", 100, 0.5), _limits.tsc_hz()
    with Machine(load("i440fx"), path="local") as m:
        with pytest.raises(EngineError, match="path sync does not fit a machine without workers"):
            _offer.offer(m.sequencer, acc, "sync", hz)
        with pytest.raises(UsageError, match="0 accesses at once"):
            _offer.offer(m.sequencer, acc, "local", hz, batch=0)
        with pytest.raises(UsageError, match="99 times for 100 accesses"):
            _offer.offer(m.sequencer, acc, "local", hz, due=np.zeros(99))
        with pytest.raises(UsageError, match=r"engine\.ACC"):
            _offer.offer(m.sequencer, np.zeros(3), "local", hz)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 31 / 32, 1.0])
def test_writes_of_a_mix_are_spread_evenly(share: float) -> None:
    d = mixes.synthetic("vga", 3200, share)["dir"]
    assert abs(int(d.sum()) - 3200 * share) <= 1
    windows = d.reshape(-1, 320).sum(axis=1)
    assert windows.max() - windows.min() <= 1


@pytest.mark.parametrize("name", mixes.MIXES)
def test_a_mix_reaches_its_device(name: str) -> None:
    """Nothing of a mix is unclaimed, and the window that the vga mix writes to is the one that it reads back."""
    with Machine(load("i440fx"), path="local") as m:
        rows = mixes.setup(name)
        if len(rows):
            m.run(rows)
        acc = mixes.synthetic(name, 64, 0.5)
        acc["t_ns"] += np.uint64(m.clock.now)
        _, status, _ = m.run(acc)
        assert not status.any()
        if name == "vga":
            m.write("mmio", 0xB8000, 4, 0x12345678)
            assert m.read("mmio", 0xB8000, 4) == 0x12345678


# ---------------------------------------------------------------------- histograms


def test_a_percentile_file_is_what_hdrhistogram_prints() -> None:
    edges = np.array([0.0, 1000.0, 2000.0, 3000.0])
    text = histogram.hgrm(edges, np.array([50, 40, 10]))
    lines = text.splitlines()
    assert lines[:2] == ["       Value     Percentile TotalCount 1/(1-Percentile)", ""]
    rows = [line.split() for line in lines[2:] if not line.startswith("#")]
    assert rows[0] == ["1.000", "0.000000000000", "50", "1.00"]
    assert rows[1] == ["1.000", "0.100000000000", "50", "1.11"]
    assert rows[-1] == ["3.000", "1.000000000000", "100"]
    by_share = {r[1]: (r[0], r[2]) for r in rows}
    assert by_share["0.500000000000"] == ("1.000", "50") and by_share["0.550000000000"] == ("2.000", "90")
    assert by_share["0.900000000000"] == ("2.000", "90")
    shares = [float(r[1]) for r in rows]
    assert shares == sorted(shares) and len(set(shares)) == len(shares)
    assert lines[-3:] == [
        "#[Mean    =        1.100, StdDeviation   =        0.663]",
        "#[Max     =        3.000, Total count    =          100]",
        "#[Buckets =            1, SubBuckets     =            3]",
    ]
    assert "nan" not in histogram.hgrm(edges, np.zeros(3))


def test_quantiles_are_linear_within_their_bucket() -> None:
    edges = np.array([0.0, 10.0, 20.0, 40.0])
    assert histogram.quantile(edges, np.array([0, 4, 0]), 0.5) == 15
    assert histogram.quantile(edges, np.array([1, 1, 2]), 1.0) == 40
    assert histogram.quantile(edges, np.array([0, 1, 1]), 0.0) == 10
    assert math.isnan(histogram.quantile(edges, np.zeros(3), 0.5))
    assert histogram.mean(edges, np.array([1, 0, 1])) == 17.5


# ---------------------------------------------------------------------- results made up, with known truth


def made_up(cell: design.Cell, replicate: int, factor: float = 1.0, host: str = "h") -> dict:
    """A replication whose every latency is factor times what its path needs, on a host that drifts meanwhile."""
    base = (
        {"local": 30.0, "sync": 300.0, "buffered": 100.0, "batched": 4000.0}[cell.path] * factor * (1 + 0.3 * replicate)
    )
    values = {
        f"{k}{q}_ns": base
        for k in ("", "read_", "write_", "service_", "age_")
        for q in ("p50", "p90", "p99", "p999", "max", "mean")
    }
    values |= dict.fromkeys(
        ("router_cpu_ns", "worker_cpu_ns", "call_ns", "stamp_ns", "limit_p50_ns", "limit_p99_ns"), base
    )
    values |= {
        "accesses": 1000,
        "writes": 500,
        "reads": 500,
        "seconds": base * 1e-6,
        "per_s": 1e9 / base,
        "parts_ns": " ".join([str(int(base * 1000 / 16))] * 16),
        "behind_s": 0.0,
        "digest_reads": "d" + cell.mix,
        "age_samples": 10,
        "fallback_share": 0.0 if cell.path == "buffered" else math.nan,
        "cpu_share": 1.0,
        "switched": 0,
        "load_average": 0.5,
        "began": 0.0,
        "took_s": 0.1,
        **{f"n_{k}": 0 for k in ("local", "router", "sync", "buffered", "batched", "fallback", "posted_eligible")},
    }
    import engine

    return {
        "values": values,
        "histograms": {"reads": {7: 3}, "writes": {9: 1}, "service": {}, "age": {}},
        "host": host,
        "host_record": {"cpu": "made up", "load": [0.5, 0.5], "node": host},
        "engine": engine.__version__,
    }


def filled(d: design.Design, folder: Path, **change: float) -> Results:
    with Journal(d, folder) as j:
        for r, n, c in d.order():
            j.add(r, n, made_up(c, r, change.get(c.path, 1.0)))
        return Results.of(j)


@pytest.fixture
def two(tmp_path: Path) -> tuple[design.Design, Results]:
    d = design.parse(TWO)
    return d, filled(d, tmp_path)


def test_ratios_are_made_within_a_replicate_so_that_drift_drops_out(two: tuple[design.Design, Results]) -> None:
    d, r = two
    sync, buffered = d.cells[:2]
    i = r.ratio(sync, buffered, "p50_ns")
    assert (i.value, i.low, i.high) == pytest.approx((3, 3, 3)) and i.n == 4
    assert r.speedup(buffered, sync).value == pytest.approx(3, rel=0.01)
    m = r.median(sync, "p50_ns")
    assert m.low < m.value < m.high and m.value == pytest.approx(300 * 1.45)


def test_a_speedup_is_of_accesses_and_not_of_runs(two: tuple[design.Design, Results]) -> None:
    """Loads of different lengths: one made twice the accesses in a third of the time."""
    d, r = two
    sync, buffered = d.cells[:2]
    for row in r.rows_of(buffered):
        row["accesses"] *= 2
    assert r.speedup(buffered, sync).value == pytest.approx(6, rel=0.01)
    assert r.speedup(sync, buffered).value == pytest.approx(1 / 6, rel=0.01)


def test_pairs_of_two_hosts_are_not_mixed(tmp_path: Path) -> None:
    d = design.parse(TWO)
    sync, buffered = d.cells[:2]
    with Journal(d, tmp_path) as j:
        j.add(0, 0, made_up(sync, 0, 1.0, "slow"))
        j.add(0, 1, made_up(buffered, 0, 0.1, "fast"))
        j.add(1, 0, made_up(sync, 0, 1.0, "slow"))
        j.add(1, 1, made_up(buffered, 0, 1.0, "slow"))
        r = Results.of(j)
    assert r.ratio(sync, buffered, "p50_ns").value == pytest.approx(3) and r.ratio(sync, buffered, "p50_ns").n == 1
    assert r.host == "slow" and len(r.series(buffered, "p50_ns")) == 1


def test_an_interval_covers_the_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    got = [bootstrap(rng.normal(10, 1, 15), np.median, k) for k in range(200)]
    assert 0.88 <= np.mean([i.low <= 10 <= i.high for i in got]) <= 1.0
    one = bootstrap(np.array([5.0, math.nan]), np.median, 1)
    assert one.value == 5 and not one.known and not bootstrap(np.array([math.nan]), np.median, 1)


@pytest.mark.parametrize(
    ("i", "word"),
    [
        ((1.5, 1.2, 2.0), "pays"),
        ((0.5, 0.4, 0.6), "costs"),
        ((1.5, 0.9, 2.0), "undecided"),
        ((1.02, 1.01, 1.03), "undecided"),
        ((0.6, 0.4, 1.1), "undecided"),
        ((0.98, 0.97, 0.99), "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(i: tuple[float, float, float], word: str) -> None:
    assert compare.verdict(Interval(*i, 5)) == word
    assert compare.verdict(Interval(9, math.nan, math.nan, 1)) == "undecided"


def test_pairs_differ_in_their_path_alone() -> None:
    d = design.parse(
        B + 'mix = ["vga", "uart"]\npath = ["sync", "buffered", "batched"]\nload = [100, 1000]\n'
        '[[block]]\nname = "c"\npath = "buffered"\nring = [2, 4]\n'
    )
    r = Results(d, [], {})
    got = compare.pairs(r, BUFFERED)
    assert len(got) == 4 and len(compare.pairs(r, BATCHED)) == 4
    for p in got:
        assert (p.cell.mix, p.cell.load, p.cell.wait) == (
            p.base.mix,
            p.base.load,
            p.base.wait,
        ) and p.base.path == "sync"


def test_a_study_compares_the_levels_of_waiting_and_workers_that_it_varies(tmp_path: Path) -> None:
    d = design.parse(
        B + 'path = ["sync", "batched"]\nwait = ["spin", "block"]\n[[block]]\nname = "more"\npath = "sync"\n'
        "workers = [1, 2]\nload = [100, 200]\n"
    )
    wait, workers = compare.contrasts(d)[2:]
    assert [str(k) for k in compare.contrasts(d)[2:]] == ["wait block against wait spin", "2 workers against 1 worker"]
    r = Results(d, [], {})
    assert [(p.cell.path, p.cell.wait, p.base.wait, p.label) for p in compare.pairs(r, wait)] == [
        ("sync", "block", "spin", "sync: vga"),
        ("batched", "block", "spin", "batched: vga"),
    ]
    assert [(p.cell.workers, p.cell.placement, p.base.workers, p.label) for p in compare.pairs(r, workers)] == [
        (2, "spread", 1, "sync: vga, 100 /s offered, wait adaptive"),
        (2, "spread", 1, "sync: vga, 200 /s offered, wait adaptive"),
    ]
    with Journal(d, tmp_path) as j:
        for rep, n, c in d.order():
            j.add(rep, n, made_up(c, rep, 2.0 if c.wait == "block" else 1.0))
        r = Results.of(j)
    page = tables.fill(r, "<!-- table: wait block against wait spin -->\n<!-- end -->\n")
    assert "| sync: vga | *0.50 (0.50 to 0.50)* |" in page and "CPU time per access" in page
    assert "| wait block: throughput | 0 | 2 | 0 |" in tables.make(r, "counts wait")
    whole = report.render(r)
    assert "2 workers against 1 worker: where it pays" in whole and "Wait block against wait spin: where it" in whole
    with pytest.raises(UsageError, match=r"no table 'wait adaptive against wait spin'; there are .*counts FACTOR"):
        tables.make(r, "wait adaptive against wait spin")
    with pytest.raises(UsageError, match="does not vary wait"):
        tables.make(Results(design.parse(TWO), [], {}), "counts wait")


def test_reads_that_differ_between_paths_are_reported(tmp_path: Path) -> None:
    d = design.parse(TWO)
    r = filled(d, tmp_path)
    assert r.disagreeing() == []
    r.rows[0]["digest_reads"] = "other"
    assert r.disagreeing() == ["vga with write share 0.95"]


# ---------------------------------------------------------------------- what is kept


def test_finished_replications_are_not_run_again(tmp_path: Path) -> None:
    d = design.parse(TWO)
    with Journal(d, tmp_path) as j:
        first = list(d.order())[:5]
        for r, n, c in first:
            j.add(r, n, made_up(c, r))
    with Journal(d, tmp_path) as j:
        assert len(j.rows) == 5 and j.hosts["h"]["cpu"] == "made up"
        assert conduct.missing(d, j) == list(d.order())[5:]


@pytest.mark.parametrize("cancelled", conduct.CANCELLED)
def test_a_result_that_goes_with_its_scheduler_is_one_line(cancelled: type[BaseException], tmp_path: Path) -> None:
    """It had finished, and the connection breaks before it is fetched."""

    class Future:
        status = "finished"

        def result(self, timeout: float) -> None:
            client.status = "closed"
            raise cancelled

        def done(self) -> bool:
            return True

    client = SimpleNamespace(
        status="running",
        scheduler_info=lambda **_: {"workers": {"tcp://w": {"host": "h"}}},
        submit=lambda *_, **__: Future(),
    )
    d = design.parse(B)
    with Journal(d, tmp_path) as journal:
        cluster = conduct._Cluster(d, journal, lambda n: None, "tcp://s", client, lambda *_, **__: None)
        with pytest.raises(EngineError, match="tcp://s: the scheduler went away; 0 finished replications are kept"):
            cluster.run(conduct.missing(d, journal))


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    d = design.parse(TWO)
    filled(d, tmp_path)
    path = tmp_path / "s.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with Journal(d, tmp_path) as j:
        assert len(j.rows) == d.size - 1
        r, n, c = conduct.missing(d, j)[0]
        j.add(r, n, made_up(c, r))
    with Journal(d, tmp_path) as j:
        assert len(j.rows) == d.size
    path.write_bytes(whole[:30])  # not even the first line
    with Journal(d, tmp_path) as j:
        assert not j.rows
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("fails_after", [0, 10])
def test_a_full_disk_leaves_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_after: int
) -> None:
    d = design.parse(TWO)
    (r0, n0, c0), (r1, n1, c1) = list(d.order())[:2]
    write = os.write
    with Journal(d, tmp_path) as j:
        j.add(r0, n0, made_up(c0, r0))
        size = (tmp_path / "s.jsonl").stat().st_size
        left = fails_after

        def full(fd: int, what: bytes) -> int:
            nonlocal left
            if left <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            n = write(fd, what[:left])
            left -= n
            return n

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(
            EngineError, match=r"No space left on device\); 1 finished replications are kept: make room"
        ) as e:
            j.add(r1, n1, made_up(c1, r1))
        assert "\n" not in str(e.value)
        monkeypatch.undo()
    assert (tmp_path / "s.jsonl").stat().st_size == size
    with Journal(d, tmp_path) as j:
        j.add(r1, n1, made_up(c1, r1))
        assert len(j.rows) == 2


def spoil(text: str, how: str) -> str:
    lines = text.splitlines()
    head = json.loads(lines[0])
    if how == "version":
        head["version"] = 2
    elif how == "kind":
        head["kind"] = "shopping list"
    elif how == "digest":
        head["digest"] = "0" * 16
    elif how == "engine":
        row = json.loads(lines[2])
        row["engine"] = "9.9.9"
        lines[2] = json.dumps(row)
    elif how == "cell":
        row = json.loads(lines[2])
        row["cell"] = 77
        lines[2] = json.dumps(row)
    elif how == "middle":
        lines[2] = lines[2][:50]
    return "\n".join([json.dumps(head), *lines[1:]]) + "\n"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("version", "results of format 2"),
        ("kind", "not a study's results"),
        ("digest", "results of another experiment"),
        ("engine", r"results of engine 9\.9\.9, this is"),
        ("cell", "cell 77"),
        ("middle", r"s\.jsonl:3: not a study's results"),
    ],
)
def test_results_of_something_else_are_refused_and_left_alone(tmp_path: Path, how: str, words: str) -> None:
    d = design.parse(TWO, "my.toml")
    filled(d, tmp_path)
    path = tmp_path / "s.jsonl"
    path.write_text(spoil(path.read_text(), how))
    before = path.read_bytes()
    with pytest.raises(UsageError, match=words) as e:
        Journal(d, tmp_path).open()
    assert "\n" not in str(e.value) and "--out" in str(e.value)
    assert path.read_bytes() == before


def test_one_study_at_a_time_writes_a_folder(tmp_path: Path) -> None:
    d = design.parse(TWO)
    with Journal(d, tmp_path), pytest.raises(UsageError, match="another `engine study` is writing it"):
        Journal(d, tmp_path).open()
    (tmp_path / "s.jsonl").unlink()
    (tmp_path / "s.jsonl").mkdir()
    with pytest.raises(UsageError, match="not a file"):
        Journal(d, tmp_path).open()


def test_a_csv_file_gives_back_what_it_holds(two: tuple[design.Design, Results], tmp_path: Path) -> None:
    d, r = two
    r.write_csv(tmp_path / "x.csv")
    back = Results.from_csv(d, tmp_path / "x.csv")
    assert len(back.rows) == len(r.rows) == 16
    for a, b in zip(r.rows, back.rows, strict=True):
        assert a.keys() == b.keys()
        for k in a:
            assert a[k] == b[k] or (a[k] != a[k] and b[k] != b[k]), k
    assert back.hosts["h"]["cpu"] == "made up" and back.hosts["h"]["load"] == "0.5 0.5"
    assert tables.comparison(back, BUFFERED) == tables.comparison(r, BUFFERED)
    with pytest.raises(UsageError, match="results of another experiment"):
        Results.from_csv(replace(d, seed=5), tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="not a study's results"):
        Results.from_csv(d, tmp_path / "x.csv")


def test_a_parquet_file_has_the_same_columns_and_the_host_records(
    two: tuple[design.Design, Results], tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    d, r = two
    r.write_parquet(tmp_path / "x.parquet")
    t = pq.read_table(tmp_path / "x.parquet")
    assert t.column_names == r.columns and t.num_rows == 16
    assert t["p50_ns"].to_pylist() == [row["p50_ns"] for row in r.rows]
    assert t["load"].null_count == 16 and t["host_cpu"].to_pylist() == ["made up"] * 16
    about = json.loads(t.schema.metadata[b"ioreq-engine"])
    assert about["digest"] == d.digest and about["hosts"]["h"]["cpu"] == "made up"


def test_a_file_that_cannot_be_written_leaves_the_old_one(two: tuple[design.Design, Results], tmp_path: Path) -> None:
    _, r = two
    (tmp_path / "x.csv").write_text("old")
    (tmp_path / "x.csv.new").mkdir()
    with pytest.raises(EngineError, match="cannot be written"):
        r.write_csv(tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "old"


# ---------------------------------------------------------------------- what people see


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    d = design.parse(
        TWO.replace('"buffered"]', '"buffered", "batched"]')
        + '[[block]]\nname = "offered"\nquestion = "Which?"\npath = ["sync", "buffered"]\n'
        + 'load = [1000, 10000]\nwait = ["spin", "block"]\n'
        + '[[block]]\nname = "deep"\npath = "buffered"\nring = [2, 4, 8]\n'
    )
    return report.render(filled(d, tmp_path_factory.mktemp("page")))


def test_the_report_is_one_file_that_loads_nothing(page: str) -> None:
    assert not re.search(r"<(script|link|img|iframe)\b", page) and not re.search(r"\b(src|href)=\"(?!#|data:)", page)
    assert "@import" not in page and "url(http" not in page


def test_every_plot_has_a_sentence_a_unit_and_a_legend(page: str) -> None:
    assert page.count("<svg") == page.count('<p class="says">') >= 10
    for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        words = " ".join(re.findall(r"<!-- (.*?) -->", text))
        assert re.search(r"\bns\b|per second|times better|%", words), words
        assert 'id="legend_1"' in text
        assert "LineCollection" in text  # error bars
    for sentence in re.findall(r'<p class="says">(.*?)</p>', page, re.DOTALL):
        assert re.search(r"\d", sentence) and sentence.endswith(".") and "nan" not in sentence


def test_sentences_say_what_is_true(tmp_path: Path) -> None:
    from engine.study import plots

    d = design.parse(TWO)
    r = filled(d, tmp_path)
    plots.derive(r)
    said = plots.pays(r, BUFFERED).sentence
    assert said.startswith("Of 8 comparisons of buffered against sync with equal load 8 are better, 0 worse, and in 0")
    assert "3.00 times (3.00 to 3.00)" in said
    assert "No posted write of any of the 2 loads found the ring full" in plots.fallbacks(r).sentence
    assert plots.pays(r, BATCHED) is None and plots.stalls(r) is None
    worse = filled(d, _folder(tmp_path), buffered=30.0)
    plots.derive(worse)
    assert "with equal load 0 are better, 8 worse" in plots.pays(worse, BUFFERED).sentence


def _folder(at: Path) -> Path:
    (at / "other").mkdir()
    return at / "other"


def test_an_unfinished_study_has_a_report_too(tmp_path: Path) -> None:
    d = design.parse(TWO + '[[block]]\nname = "offered"\npath = ["sync", "buffered"]\nload = [1000, 10000]\n')
    with Journal(d, tmp_path) as j:
        r, n, c = next(d.order())
        j.add(r, n, made_up(c, r))
        page = report.render(Results.of(j))
    assert "Not finished: 31 replications are missing" in page


def test_marked_tables_of_a_page_are_made_anew(two: tuple[design.Design, Results], tmp_path: Path) -> None:
    _, r = two
    text = "# A\n<!-- table: buffered -->\nold\n<!-- end -->\nwords\n<!-- table: block b -->\n<!-- end -->\n"
    new = tables.fill(r, text)
    assert "old" not in new and "words" in new and "| vga | **3.00 (3.00 to 3.00)**" in new
    assert tables.fill(r, new) == new
    with pytest.raises(UsageError, match="no table 'x'"):
        tables.fill(r, "<!-- table: x -->\n<!-- end -->")
    (tmp_path / "p.md").write_text("nothing")
    with pytest.raises(UsageError, match="no table in it"):
        tables.fill_page(r, tmp_path / "p.md")


def test_percentile_files_of_every_combination(two: tuple[design.Design, Results], tmp_path: Path) -> None:
    _, r = two
    r.write_hgrm(tmp_path / "h")
    names = sorted(p.name for p in (tmp_path / "h").iterdir())
    assert len(names) == 8 and names[0] == "000-vga-sync-reads.hgrm"
    assert "Total count    =           12]" in (tmp_path / "h" / names[0]).read_text()


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0.4, "0 ns"), (374.4, "374 ns"), (999.6, "1 us"), (12_340, "12.3 us"), (100_000, "100 us"), (2.5e9, "2.5 s")],
)
def test_durations(ns: float, text: str) -> None:
    assert results.duration(ns) == text


@pytest.mark.parametrize(("v", "text"), [(100_000, "100 k/s"), (1_234_000, "1.23 M/s"), (10, "10 /s"), (2e9, "2 G/s")])
def test_rates(v: float, text: str) -> None:
    assert results.rate(v) == text


def test_the_page_says_what_there_is() -> None:
    text = (Path(__file__).parents[2] / "docs" / "study.md").read_text()
    example = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    d = design.parse(example[1], "docs/study.md")
    assert d.size == 15 * (4 + 4) and design.parse(example[1], quick=True).size == 3 * 4
    told = re.findall(r"^\| `(\w+)` \|.*\|.*\|.*\|$", text.split("| factor |")[1].split("\n\n")[0], re.MULTILINE)
    assert told == list(design.FACTORS)
    shares = dict(re.findall(r"^\| `(\w+)` \| .* \| ([\d./]+) \|$", text.split("| mix | does |")[1], re.MULTILINE))
    assert {k: eval(v) for k, v in shares.items()} == {k: m.write_share for k, m in mixes.MIXES.items()}


def test_labels_say_what_a_block_holds_otherwise_than_the_first() -> None:
    d = design.parse(
        B + 'path = ["sync", "buffered"]\nwait = "spin"\n'
        '[[block]]\nname = "c"\npath = ["sync", "buffered"]\ncpus = "together"\nload = [100, 200]\n'
        '[[block]]\nname = "d"\npath = "batched"\nload = [100, 200]\narrivals = "poisson"\n'
        '[[block]]\nname = "e"\npath = "batched"\ncpus = "together"\n'
    )
    first, second, third, fourth = d.blocks
    assert results.label(d, first, first.cells[0]) == "vga"
    assert results.label(d, second, second.cells[0]) == "vga, 100 /s offered, wait adaptive, one CPU"
    assert results.label(d, third, third.cells[1]) == "vga, 200 /s offered, arrivals poisson"
    assert results.label(d, fourth, fourth.cells[0]) == "vga, one CPU"


@pytest.mark.parametrize("name", design.shipped())
def test_the_findings_show_the_kept_results(name: str) -> None:
    """The tables of a page are those that the kept results give: nothing in them was written by hand."""
    docs = Path(__file__).parents[2] / "docs"
    r = Results.from_csv(design.load(f"shipped:{name}"), docs / "results" / f"{name}.csv.gz")
    page = (docs / f"study-{name}.md").read_text()
    assert len(tables.MARK.findall(page)) >= 6
    assert tables.fill(r, page) == page
    assert r.disagreeing() == []
