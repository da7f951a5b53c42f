"""engine bench: the performance suite, with its limits in the same run and the peers that are installed."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import engine
from engine.cli import command_parser
from engine.cli.output import BAD, GOOD, NOTE, Output, progress
from engine.cli.text import check_output, json_argument, write_json
from engine.errors import EngineError, UsageError
from engine.measure import histogram

ROOT = Path(engine.__file__).parent.parent
PEERS = "peers"


def add(parsers: Any) -> None:
    """The command's parser."""
    p = command_parser(
        parsers,
        "bench",
        "Measure every path next to what plain C reaches on the same CPUs in the same seconds: value, limit and\n"
        "ratio are medians of interleaved repetitions.  Exit 1 if a goal is missed.  docs/measuring.md says how to\n"
        "read the numbers.",
        "engine bench --quick local_trace sync --json bench.json",
    )
    p.add_argument("names", nargs="*", metavar="NAME", help="benches to run (default: all; a wrong name lists them)")
    p.add_argument("--quick", action="store_true", help="fewer repetitions: about a minute")
    p.add_argument(
        "--hgrm", metavar="DIR", help="a HdrHistogram percentile file of the engine's latencies for each path measured"
    )
    json_argument(p, "write the results as JSON too")


def names() -> list[str]:
    """The benches there are: one file each in perf/benches."""
    folder = ROOT / "perf" / "benches"
    found = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith(("_", "test_")))
    if not found:
        raise UsageError(
            f"no benches in {folder}: they come with the source, not with the package; "
            "run from a clone after `make build`"
        )
    return [*sorted(set(found) - {PEERS}), PEERS]


def bench(name: str) -> ModuleType:
    """The bench's module."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"perf.benches.{name}")


def measure(wanted: list[str], quick: bool, advance: Any = None) -> dict[str, Any]:
    """Everything the JSON output holds.  A bench that cannot run on this host is in `skipped`, with the reason."""
    out: dict[str, Any] = {
        "results": [],
        "peers": [],
        "skipped": [],
        "quick": quick,
        "host": importlib.import_module("perf.hostinfo").record(),
    }
    start = time.perf_counter()
    for name in wanted:
        try:
            out["peers" if name == PEERS else "results"] += bench(name).run(quick)
        except UsageError as e:
            out["skipped"].append({"name": name, "why": str(e)})
        except EngineError as e:
            if type(e).__name__ != "Skipped":
                raise
            out["skipped"].append({"name": name, "why": str(e)})
        if advance:
            advance(1)
    out["seconds"] = round(time.perf_counter() - start, 1)
    out["ok"] = all(r["ok"] for r in out["results"])
    return out


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 if every goal is met."""
    there = names()
    odd = [n for n in args.names if n not in there]
    if odd:
        raise UsageError(f"no bench {odd[0]!r}; there are {', '.join(there)}")
    check_output("--json", args.json)
    check_output("--hgrm", args.hgrm, folder=True)
    wanted = list(dict.fromkeys(args.names)) or there
    bench(wanted[0])  # puts the source on the path
    with progress(args.json == "-") as step:
        out = measure(wanted, args.quick, step("benches", len(wanted)))
    if args.hgrm:
        write_histograms(Path(args.hgrm))
    if args.json:
        write_json(args.json, out)
    if args.json != "-":
        show(out)
    return 0 if out["ok"] else 1


def write_histograms(folder: Path) -> None:
    """NAME.hgrm for every latency histogram that the benches kept, in microseconds.  Raises UsageError."""
    edges = histogram.sequencer_edges()
    for name, counts in importlib.import_module("perf.benches._common").HISTOGRAMS.items():
        histogram.write_hgrm(folder, name, edges, counts)


def figure(x: float) -> str:
    """Three or four figures."""
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def goal(r: dict[str, Any]) -> str:
    """What is promised, or else aimed at."""
    bound, word = (r["goal"], "") if r["goal"] is not None else (r.get("aim"), "aim ")
    return "-" if bound is None else f"{word}{r.get('way', '<=')} {bound:g}"


def show(out: dict[str, Any]) -> None:
    """The table for people."""
    o = Output()
    h = out["host"]
    o.line(
        f"{h['cpu']}{', virtual' if h['hypervisor'] else ''}; CPUs {h['pinned_to'][0]} and {h['pinned_to'][1]} of "
        f"{len(h['cpus'])}; load {h['load_average'][0]:.1f}; Linux {h['kernel']}; Python {h['python']}",
        NOTE,
    )
    if out["results"]:
        o.table(
            "",
            ("bench", ">value", "unit", ">limit", ">ratio", ">goal", "", ">n", ">spread", "limit is"),
            [
                (
                    r["name"],
                    figure(r["value"]),
                    r["unit"],
                    figure(r["limit"]),
                    f"{r['ratio']:.2f}",
                    goal(r),
                    ("", NOTE) if r["goal"] is None else ("ok", GOOD) if r["ok"] else ("missed", BAD),
                    str(r["n"]),
                    f"{r['spread']:.0%}",
                    (r["limit_name"], NOTE),
                )
                for r in out["results"]
            ],
        )
    bounds: dict[str, list[str]] = {}
    for r in out["results"]:
        if r.get("bound"):
            bounds.setdefault(r["bound"], []).append(r["name"])
    for why, rows in bounds.items():
        o.line(f"short of goal or aim: {', '.join(rows)}: {why}", NOTE)
    if out["peers"]:
        o.line()
        o.table(
            "peers",
            ("peer", ">value", "unit", "note"),
            [
                (p["name"], "-" if p["value"] is None else figure(p["value"]), p["unit"], (p["note"], NOTE))
                for p in out["peers"]
            ],
        )
    for s in out["skipped"]:
        o.line(f"skipped {s['name']}: {s['why']}", NOTE)
    missed = [r["name"] for r in out["results"] if not r["ok"]]
    o.line(
        f"{len(out['results'])} results in {out['seconds']:.0f} s: "
        + (f"missed {', '.join(missed)}" if missed else "every goal met"),
        BAD if missed else GOOD,
    )
