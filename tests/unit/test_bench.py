"""engine bench: the arithmetic of rows and intervals, the raw loops against the engine, names and exit status."""

import contextlib
import json

import numpy as np
import pytest

from engine.cli import bench, main
from engine.errors import EngineError, UsageError
from engine.machine import Machine
from engine.machine.spec import load
from engine.testing._walk import Walk
from perf import compare
from perf.benches import _common, _qemu, peers


def test_a_row_is_medians_and_the_median_of_ratios():
    got = _common.row("x", "ns", [10.0, 20.0, 60.0], "c", [10.0, 10.0, 20.0], 2.5)
    assert (got["value"], got["limit"], got["ratio"], got["n"]) == (20.0, 10.0, 2.0, 3)
    assert got["spread"] == pytest.approx((2.5 - 1.5) / 2.0)
    assert got["ok"] and not _common.row("x", "ns", [10.0], "c", [3.0], 3.0)["ok"]


@pytest.mark.parametrize(
    ("value", "way", "ok"), [(0.9, ">=", True), (0.7, ">=", False), (0.7, "<=", True), (0.9, "<=", False)]
)
def test_a_goal_bounds_from_its_side(value, way, ok):
    assert _common.row("x", "M/s", [value], "c", 1.0, 0.8, way)["ok"] is ok


def test_bench_and_limit_take_turns_after_one_call_of_each():
    calls = []
    a, b = _common.turns(lambda: calls.append("a") or len(calls), lambda: calls.append("b") or len(calls), 4)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab" + "ba"
    assert (len(a), len(b)) == (4, 4)


@pytest.mark.parametrize("q", [0.5, 0.99])
def test_quantiles_lie_in_their_bucket(q):
    edges = [float(x) for x in _common.Sequencer.bucket_ticks()]
    histogram = np.zeros(len(edges), np.uint64)
    histogram[100] = 1000
    ns = _common.quantile(histogram, q) * _common._limits.tsc_hz() / 1e9
    assert edges[100] <= ns <= edges[101]
    assert (ns - edges[100]) / (edges[101] - edges[100]) == pytest.approx(q, abs=1e-6)


def test_the_raw_loops_make_the_same_accesses_as_the_engine():
    """A recording's content (files, sectors) comes out of the raw loops as out of the engine: same look-ups, same
    devices."""
    r = _common.recording("boot-pc")
    walk = r.walk()
    with Machine(r.job.spec, path="local", contents=r.job.contents) as m:
        value, status, _ = m.run(r.acc, *r.inputs(m))
    _, raw = walk.local(r.acc)
    read = r.acc["dir"] == 0
    assert np.mean(raw[read] == value[read]) > 0.98
    content = (status & 0x80) != 0
    assert content.sum() > 1000 and np.array_equal(raw[content], value[content])


def test_raw_rings_answer_as_the_raw_loop():
    try:
        on = _common.cpus()
    except _common.Skipped as e:
        pytest.skip(str(e))
    r = _common.recording("boot-pc")
    walk = r.walk()
    walk.local(r.acc)
    acc = r.acc[r.acc["addr"] == 0x402][:2_000]
    seconds, got = walk.pair(acc, on)
    assert seconds > 0 and np.array_equal(got[acc["dir"] == 1], acc["value"][acc["dir"] == 1])
    for batch in (1, 64):
        assert walk.oneway(acc, on, batch)[0] > 0
    with pytest.raises(EngineError, match="nothing to walk"):
        walk.pair(acc[:0], on)


def test_a_walk_needs_the_devices_in_its_process():
    with Machine(load("i440fx"), workers=1) as m, pytest.raises(EngineError, match="without workers"):
        Walk(m)


def test_intervals_tell_a_difference_from_noise():
    rng = np.random.default_rng(2)
    a = list(1 + 0.02 * rng.standard_normal(30))
    low, _, high = compare.interval(a, [1.1 * x for x in a], rng)
    assert (
        low > 1
        and compare.verdict(low, high, more_is_better=False) == "slower"
        and compare.verdict(low, high, True) == "faster"
    )
    low, _, high = compare.interval(a, list(1 + 0.02 * rng.standard_normal(30)), rng)
    assert compare.verdict(low, high, True) == "no difference shown"


def test_a_wrong_name_lists_the_right_ones(capsys):
    assert main(["bench", "loacl"]) == 2
    said = capsys.readouterr().err
    assert "no bench 'loacl'" in said and "local_trace" in said and said.count("\n") == 1


def test_without_the_source_there_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    with pytest.raises(UsageError, match="they come with the source"):
        bench.names()


def test_json_and_exit_status(monkeypatch, tmp_path, capsys):
    class Fake:
        def __init__(self, ok):
            self.ok = ok

        def run(self, quick):
            assert quick
            return [_common.row("fake.x", "ns", [3.0], "c", 2.0, 1.6 if self.ok else 1.4)]

    for ok, status in ((True, 0), (False, 1)):
        monkeypatch.setattr(bench, "bench", lambda name, ok=ok: Fake(ok))
        assert main(["bench", "--quick", "sync", "--json", str(tmp_path / "b.json")]) == status
        got = json.loads((tmp_path / "b.json").read_text())
        assert set(got["results"][0]) >= {
            "name",
            "value",
            "unit",
            "limit_name",
            "limit",
            "ratio",
            "goal",
            "ok",
            "n",
            "spread",
        }
        assert got["ok"] is ok and got["peers"] == [] and got["host"]["cpus"]
        assert ("every goal met" if ok else "missed fake.x") in capsys.readouterr().out


def test_a_bench_the_host_cannot_run_is_named(monkeypatch):
    class Fake:
        def run(self, quick):
            raise _common.Skipped("needs two CPUs")

    monkeypatch.setattr(bench, "bench", lambda name: Fake())
    got = bench.measure(["sync"], True)
    assert got["skipped"] == [{"name": "sync", "why": "needs two CPUs"}] and got["results"] == []


def test_kept_histograms_become_percentile_files(tmp_path, monkeypatch):
    monkeypatch.setattr(_common, "HISTOGRAMS", {})
    n = len(_common.Sequencer.bucket_ticks())
    one = np.zeros(n, np.uint64)
    one[100] = 7
    _common.keep("sync_spin", one)
    _common.keep("sync_spin", one)
    bench.write_histograms(tmp_path / "made")
    text = (tmp_path / "made" / "sync_spin.hgrm").read_text()
    assert text.splitlines()[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert "Total count    =           14]" in text
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        bench.write_histograms(tmp_path / "file")


def test_a_missing_peer_is_named_with_how_to_install_it_and_a_broken_one_with_why(monkeypatch):
    def broken(quick):
        raise OSError("no")

    monkeypatch.setattr(
        peers,
        "PEERS",
        [
            ("here", "ns", lambda quick: (1.23456, "as is"), lambda: True, ""),
            ("missing", "ns", broken, lambda: False, "apt install missing"),
            ("broken", "ns", broken, lambda: True, "apt install broken"),
        ],
    )
    assert peers.run(True) == [
        {"name": "here", "value": 1.235, "unit": "ns", "note": "as is"},
        {"name": "missing", "value": None, "unit": "ns", "note": "not installed: apt install missing"},
        {"name": "broken", "value": None, "unit": "ns", "note": "failed: OSError: no"},
    ]


def test_every_peer_that_can_be_missing_says_how_to_install_it():
    for name, _, _, needs, install in peers.PEERS:
        assert install.startswith(("pip install ", "apt install ")) or needs(), name


def test_without_qemu_its_bench_is_skipped(monkeypatch):
    monkeypatch.setattr(_qemu.shutil, "which", lambda name: None)
    got = bench.measure(["qemu"], True)
    assert got["results"] == [] and "apt install qemu-system-x86" in got["skipped"][0]["why"]


@pytest.mark.skipif(not _qemu.there(), reason="qemu-system-x86_64 is missing (Debian: apt install qemu-system-x86)")
def test_a_qemu_answers_over_each_of_its_ways():
    with _qemu.Translated() as q:
        assert 1 < q.ns(0x80, _qemu.OUT) < 100_000 and 1 < q.ns(0x21, _qemu.IN) < 100_000
    for kind in (_qemu.Qtest, _qemu.Remote):
        with kind() as q:
            assert q.rate(64, 1) > 1 and q.rate(512, 64) > 1


def compared(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["compare.py", *words])
    return compare.main()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["HEAD"], "the following arguments are required: second"),
        (["HEAD", "HEAD", "--rounds", "1"], "--rounds 1: at least 2 are needed"),
        (["HEAD", "HEAD", "loacl"], "no bench 'loacl'; there are "),
        (["HEAD", "HEAD", "peers"], "no bench 'peers'"),
        (["HEAD", "no-such-commit"], "compare: no commit 'no-such-commit'"),
    ],
)
def test_compare_refuses_before_it_builds(monkeypatch, capsys, words, said):
    monkeypatch.setattr(compare, "built", lambda *a: pytest.fail("built"))
    with pytest.raises(SystemExit) as end:
        compared(monkeypatch, *words)
    assert end.value.code not in (0, None)
    text = capsys.readouterr().err + str(end.value.code)
    assert said in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("second", "status", "word"), [(1.3, 1, "slower"), (1.0, 0, "no difference shown"), (0.7, 0, "faster")]
)
def test_compare_runs_both_in_turn_and_says_what_differs(monkeypatch, capsys, second, status, word):
    ran = []

    @contextlib.contextmanager
    def built(revision, folder):
        yield folder

    def once(folder, names):
        ran.append(folder.name)
        return {"x.ns": ((second if folder.name == "second" else 1.0) + 0.001 * len(ran), False)}, []

    monkeypatch.setattr(compare, "built", built)
    monkeypatch.setattr(compare, "once", once)
    assert compared(monkeypatch, "HEAD", "HEAD", "sync", "--rounds", "6") == status
    assert ran == ["first", "second", "second", "first"] * 3
    assert word in capsys.readouterr().out


def test_compare_of_two_rounds_tells_nothing(monkeypatch, capsys):
    monkeypatch.setattr(compare, "built", lambda revision, folder: contextlib.nullcontext(folder))
    monkeypatch.setattr(
        compare, "once", lambda folder, names: ({"x": (2.0 if folder.name == "second" else 1.0, False)}, [])
    )
    assert compared(monkeypatch, "HEAD", "HEAD", "sync", "--rounds", "2") == 0
    assert "too few rounds to tell" in capsys.readouterr().out


def test_compare_says_why_nothing_could_be_compared(monkeypatch):
    monkeypatch.setattr(compare, "built", lambda revision, folder: contextlib.nullcontext(folder))
    monkeypatch.setattr(compare, "once", lambda folder, names: ({}, ["qemu: it is missing"]))
    with pytest.raises(SystemExit, match="no result in common; skipped: qemu: it is missing"):
        compared(monkeypatch, "HEAD", "HEAD", "qemu")


def test_streams_before_one_lock():
    from perf.benches.scale import locked

    assert locked(1, 100, 10) == 1
    assert locked(8, 100, 0) == 8
    assert locked(2, 100, 20) == pytest.approx(2 / (1 + 0.2**2))
    assert 5 > locked(8, 100, 20) > locked(4, 100, 20)  # the lock alone lets five through
    assert locked(100, 100, 20) == pytest.approx(5)
