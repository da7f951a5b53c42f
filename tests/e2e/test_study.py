"""engine study as a user starts it: files, resuming after every kind of end, a Dask cluster, mistakes in one line."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from engine.measure.host import cpu_seconds

pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="router and worker need a CPU each")

STUDY = """[study]
name = "small"
question = "Does it end?"
accesses = 300
replications = 2

[[block]]
name = "paths"
mix = "uart"
path = ["local", "sync", "buffered", "batched"]

[[block]]
name = "offered"
mix = "uart"
path = ["sync", "buffered"]
load = [5000, 20000]
"""
SIZE = 16


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of eight combinations, twice each."""
    path = tmp_path / "small.toml"
    path.write_text(STUDY)
    return path


def rows(folder: Path) -> list[dict[str, Any]]:
    """The finished replications."""
    path = folder / "small.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [r for r in map(json.loads, lines) if "values" in r]


def one_line(done: Any, status: int, *words: str) -> None:
    """The command ended with a status and one line that says why."""
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for w in words:
        assert w in done.stderr, done.stderr


def test_a_study_writes_results_and_a_report_into_the_current_folder(engine: Any, study: Path) -> None:
    done = engine("study", study, "--json", "out.json", "--hgrm", "h")
    folder = engine.folder
    assert done.returncode == 0, done.stderr
    assert "16 of 16 replications" in done.stdout and "buffered against sync" in done.stdout
    assert {p.name for p in folder.iterdir()} >= {"small.jsonl", "small.csv", "small.parquet", "small.html", "h"}
    assert len((folder / "small.csv").read_text().splitlines()) == SIZE + 1
    out = json.loads((folder / "out.json").read_text())
    assert out["ok"] and len(out["cells"]) == 8 and out["cells"][1]["per_s"]["n"] == 2 and not out["disagreeing"]
    assert {c["path"] for c in out["comparisons"]} == {"buffered", "batched"}
    html = (folder / "small.html").read_text()
    assert html.count("<svg") >= 6 and "Every run of a load read the same values" in html
    before = (folder / "small.jsonl").read_bytes()
    again = engine("study", study, "--out", ".", "--json", "-")  # nothing is left to do
    assert again.returncode == 0 and json.loads(again.stdout)["ok"] and "16 of 16" in again.stderr
    assert (folder / "small.jsonl").read_bytes() == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_study_goes_on_where_it_stopped(engine: Any, study: Path, how: signal.Signals) -> None:
    p = engine.start("study", study)
    end = time.monotonic() + 60
    while len(rows(engine.folder)) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(p.pid, how)
    _, err = p.communicate(timeout=60)
    kept = rows(engine.folder)
    assert 3 <= len(kept) < SIZE
    assert p.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in err
    assert not engine.left(p)
    done = engine("study", study)
    assert done.returncode == 0, done.stderr
    assert rows(engine.folder)[: len(kept)] == kept
    assert len({(r["replicate"], r["cell"]) for r in rows(engine.folder)}) == len(rows(engine.folder)) == SIZE


def test_mistakes_are_answered_in_one_line_before_anything_is_written(engine: Any, study: Path) -> None:
    one_line(engine("study", "shipped:nothing"), 2, "no such study", "sync-vs-buffered", "waiting", "scaling")
    one_line(engine("study", "nothing.toml"), 2, "nothing.toml: no such study file", "shipped:waiting")
    study.write_text(STUDY.replace('path = ["sync"', 'depth = 3\npath = ["sync"'))
    one_line(engine("study", study), 2, "unknown factor 'depth'")
    study.write_text(STUDY.replace('path = ["sync", "buffered"]', 'path = ["sync", "buffered"]\nbatch = [1, 2]'))
    one_line(engine("study", study), 2, "block 'offered'", "batch means nothing on path sync")
    study.write_text(STUDY + "workers = 900\n")
    one_line(engine("study", study), 2, "900 workers")
    study.write_text(STUDY)
    one_line(engine("study", study, "--out", study), 2, "--out", "not a folder")
    one_line(engine("study", study, "--out", study / "new"), 2, "--out", "cannot be made (Not a directory)")
    one_line(engine("study", study, "--csv", "no.csv"), 2, "no.csv: cannot be read (No such file or directory)")
    one_line(engine("study", study, "--json", "no/where.json"), 2, "--json no/where.json: no such folder")
    one_line(engine("study", study, "--hgrm", study), 2, "--hgrm", "not a folder")
    one_line(engine("study", study, "--tables", "no.md"), 2, "--tables no.md: no such page")
    assert not (engine.folder / "small.csv").exists() and not rows(engine.folder)


def test_results_of_another_study_are_not_touched(engine: Any, study: Path) -> None:
    assert engine("study", study).returncode == 0
    before = (engine.folder / "small.jsonl").read_bytes()
    study.write_text(STUDY.replace("accesses = 300", "accesses = 400"))
    one_line(engine("study", study), 2, "results of another experiment", "--out")
    assert (engine.folder / "small.jsonl").read_bytes() == before
    study.write_text(STUDY.replace("replications = 2", "replications = 3"))  # more of the same is no other experiment
    done = engine("study", study)
    assert done.returncode == 0 and "24 of 24" in done.stdout
    assert (engine.folder / "small.jsonl").read_bytes().startswith(before)


@pytest.fixture
def cluster() -> Any:
    """A Dask cluster of two worker processes on this host."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50, processes=True
    ) as c:
        yield c


def test_a_cluster_runs_one_replication_a_host_at_a_time(engine: Any, study: Path, cluster: Any) -> None:
    done = engine("study", study, "--scheduler", cluster.scheduler_address)
    assert done.returncode == 0, done.stderr
    got = rows(engine.folder)
    assert len(got) == SIZE
    spans = sorted((r["values"]["began"], r["values"]["began"] + r["values"]["took_s"]) for r in got)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert len({r["host"] for r in got}) == 1


def test_a_scheduler_that_goes_away_costs_nothing_that_was_finished(engine: Any, study: Path, cluster: Any) -> None:
    study.write_text(STUDY.replace("replications = 2", "replications = 200"))
    p = engine.start("study", study, "--scheduler", cluster.scheduler_address)
    end = time.monotonic() + 60
    while len(rows(engine.folder)) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    cluster.close()
    out, err = p.communicate(timeout=90)
    kept = rows(engine.folder)
    assert len(kept) >= 2
    assert p.returncode == 3, (out, err)
    assert "the scheduler went away" in err and "finished replications are kept" in err and err.count("\n") == 1, err
    study.write_text(STUDY)
    assert engine("study", study).returncode == 0
    assert rows(engine.folder)[: len(kept)] == kept


def test_no_scheduler_is_said_in_one_line(engine: Any, study: Path) -> None:
    one_line(engine("study", study, "--scheduler", "tcp://127.0.0.1:9"), 2, "tcp://127.0.0.1:9", "no Dask scheduler")
    one_line(engine("study", study, "--scheduler", "nonsense://x"), 2, "nonsense://x", "unknown scheme")


def test_a_replication_whose_dask_worker_was_killed_is_run_again(engine: Any, study: Path, cluster: Any) -> None:
    study.write_text(STUDY.replace("accesses = 300", "accesses = 20000").replace("[5000, 20000]", "[20000, 40000]"))
    p = engine.start("study", study, "--scheduler", cluster.scheduler_address)
    end = time.monotonic() + 60
    while len(rows(engine.folder)) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    busy = max(cluster.workers.values(), key=lambda w: cpu_seconds(w.pid))  # one replication a host: the other idles
    os.kill(busy.pid, signal.SIGKILL)
    out, err = p.communicate(timeout=180)
    assert p.returncode == 0, (out, err)
    assert len({(r["replicate"], r["cell"]) for r in rows(engine.folder)}) == len(rows(engine.folder)) == SIZE


# A small file system of the process's own, which goes with it: the study fills it, gets more room, and goes on.
SMALL_DISK = """
import ctypes, json, os, subprocess, sys

libc = ctypes.CDLL(None)
NEWNS, NEWUSER, REMOUNT, PRIVATE, RECURSIVE = 0x20000, 0x10000000, 32, 1 << 18, 16384
uid, gid = os.getuid(), os.getgid()
if libc.unshare(NEWNS if uid == 0 else NEWNS | NEWUSER):
    sys.exit(77)
if uid:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as f:
            f.write(text)
libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None)
if libc.mount(b"none", b"disk", b"tmpfs", 0, b"size=32k"):
    sys.exit(77)
runs = []
for room in (b"size=32k", b"size=8m"):
    libc.mount(b"none", b"disk", b"tmpfs", REMOUNT, room)
    done = subprocess.run([sys.executable, "-m", "engine", *sys.argv[1:]], capture_output=True, text=True)
    with open("disk/small.jsonl") as f:
        lines = f.read().splitlines()
    runs.append((done.returncode, done.stderr, [line for line in lines if '"values"' in line]))
print(json.dumps(runs))
"""


def test_a_disk_that_fills_up_costs_nothing_that_was_finished(engine: Any, study: Path) -> None:
    (engine.folder / "disk").mkdir()
    done = engine("study", study, "--out", "disk", code=SMALL_DISK)
    if done.returncode == 77:
        pytest.skip("this system lets nobody mount a file system of his own")
    (status, said, kept), (status_again, said_again, whole) = json.loads(done.stdout)
    assert status == 3 and said.count("\n") == 1, said
    assert "small.jsonl: cannot be written (No space left on device)" in said and "make room" in said
    assert 0 < len(kept) < SIZE and f"{len(kept)} finished replications are kept" in said
    assert status_again == 0, said_again
    assert whole[: len(kept)] == kept and len(whole) == SIZE
