"""Do two commits differ in speed?  Both are built in temporary worktrees and run in turn, bench by bench.

    python perf/compare.py HEAD~1 HEAD [NAME...] [--rounds N]

For every result the ratio of the second commit's value to the first's, with a bootstrap interval over the rounds; two
commits differ if the interval leaves 1 out.  Where a result has a limit of the same run, its ratio to the limit is
what is compared, so that a host that drifts does not count.  Both commits are measured by the benches of the working
tree where these run on them, so that old commits can be measured too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
BENCHES = ("local_trace", "batched", "posted", "sync")
NOT_COMPARED = ("test_", "peers")  # no limit of the same run
RESAMPLES, LEVEL = 10_000, 0.99
ENOUGH = 5  # rounds: with fewer, two runs of one build differ by their intervals
MEASURE = "import json, sys; from engine.cli import bench; json.dump(bench.measure(sys.argv[1:], True), sys.stdout)"


def git(*words: str, else_: str = "") -> str:
    """Standard output of a git command.  Ends the program in one line if it fails: `else_`, or what git said."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["(no message)"]
        sys.exit(f"compare: {else_ or f'git {words[0]}: {said[-1]}'}")
    return done.stdout.strip()


def commit(revision: str) -> str:
    """The commit that a revision names."""
    return git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", else_=f"no commit {revision!r}")


@contextlib.contextmanager
def built(revision: str, folder: Path) -> Iterator[Path]:
    """A worktree of the commit with its extensions built, removed at the end."""
    git("worktree", "add", "--detach", "--force", str(folder), commit(revision))
    try:
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j", str(os.cpu_count() or 1)],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"compare: {revision} does not build: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        if not (folder / "engine" / "cli" / "bench.py").exists():
            sys.exit(f"compare: {revision} is older than `engine bench`")
        for name in ("benches", "limits"):
            shutil.copytree(ROOT / "perf" / name, folder / "perf" / name, dirs_exist_ok=True)
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def once(folder: Path, names: list[str]) -> tuple[dict[str, tuple[float, bool]], list[str]]:
    """One quick run of the benches on a build: result -> (ratio to its limit, is more better?); what it skipped."""
    env = dict(os.environ, PYTHONPATH=str(folder))
    done = subprocess.run([sys.executable, "-c", MEASURE, *names], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"compare: the benches fail in {folder.name}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    out: dict[str, Any] = json.loads(done.stdout)
    skipped = [f"{s['name']}: {s['why']}" for s in out["skipped"]]
    return {r["name"]: (r["ratio"], r["unit"].endswith("/s")) for r in out["results"]}, skipped


def interval(a: list[float], b: list[float], rng: np.random.Generator) -> tuple[float, float, float]:
    """(low, median, high) of median(b) / median(a): percentile bootstrap over rounds, which are drawn in pairs."""
    x, y = np.array(a), np.array(b)
    draw = rng.integers(0, len(x), (RESAMPLES, len(x)))
    ratios = np.median(y[draw], axis=1) / np.median(x[draw], axis=1)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(np.median(y) / np.median(x)), float(high)


def verdict(low: float, high: float, more_is_better: bool) -> str:
    """What an interval of the ratio means."""
    if low <= 1 <= high:
        return "no difference shown"
    return "faster" if (low > 1) == more_is_better else "slower"


def main() -> int:
    """Exit status: 1 if the second commit is slower in something."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("first")
    p.add_argument("second")
    p.add_argument("names", nargs="*", default=list(BENCHES), help=f"benches (default: {' '.join(BENCHES)})")
    p.add_argument("--rounds", type=int, default=9, help="runs of each commit (default: 9; fewer than 5 tell nothing)")
    args = p.parse_args()
    if args.rounds < 2:
        p.error(f"--rounds {args.rounds}: at least 2 are needed")
    names = args.names or list(BENCHES)
    there = sorted(p.stem for p in (ROOT / "perf" / "benches").glob("[!_]*.py") if not p.stem.startswith(NOT_COMPARED))
    if odd := [n for n in names if n not in there]:
        p.error(f"no bench {odd[0]!r}; there are {', '.join(there)}")
    for revision in (args.first, args.second):
        commit(revision)
    series: dict[str, tuple[list[float], list[float]]] = {}
    more: dict[str, bool] = {}
    with (
        tempfile.TemporaryDirectory() as tmp,
        built(args.first, Path(tmp) / "first") as one,
        built(args.second, Path(tmp) / "second") as two,
    ):
        for i in range(args.rounds):
            order = [(0, one), (1, two)] if i % 2 == 0 else [(1, two), (0, one)]
            got, skipped = {}, []
            for k, folder in order:
                got[k], skipped = once(folder, names)
            for name in got[0].keys() & got[1].keys():
                for k in (0, 1):
                    series.setdefault(name, ([], []))[k].append(got[k][name][0])
                more[name] = got[0][name][1]
            if not series:
                sys.exit(f"compare: the commits have no result in common; skipped: {'; '.join(skipped) or 'nothing'}")
            print(f"round {i + 1} of {args.rounds}", file=sys.stderr)
    rng, slower = np.random.default_rng(1), False
    for name, (a, b) in sorted(series.items()):
        low, middle, high = interval(a, b, rng)
        said = verdict(low, high, more[name]) if args.rounds >= ENOUGH else "too few rounds to tell"
        slower |= said == "slower"
        print(f"{name:32} {middle:6.3f}  [{low:.3f}, {high:.3f}]  {said}")
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
