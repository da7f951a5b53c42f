"""engine replay: recorded guests through the engine, every answer compared with the reference's."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from engine import data
from engine.cli import command_parser
from engine.cli.output import BAD, GOOD, NOTE, Cell, Output, matched, progress, rate_text, time_text
from engine.cli.text import check_output, json_argument
from engine.errors import UsageError
from engine.frontends import replay
from engine.frontends.trace import golden_path, load, load_golden
from engine.machine import PATHS
from engine.machine.spec import check_workers
from engine.measure.session import DEFAULT_WORKERS, Session


def add(parsers: Any) -> None:
    """The parser."""
    p = command_parser(
        parsers,
        "replay",
        "Replay recorded guests: each access goes to the devices of a machine, and what they answer is compared with\n"
        "the reference beside the trace.  Exit status 0 if every comparison matched and every budget held.",
        "engine replay seabios-pc --path all --workers 3 --report report.html",
    )
    p.add_argument(
        "traces", nargs="+", metavar="TRACE", help=f"a trace file, or a shipped trace: {', '.join(data.traces())}"
    )
    p.add_argument(
        "--machine",
        default="auto",
        metavar="FILE|auto",
        help="machine file or board; auto: from the trace's side file (default)",
    )
    p.add_argument(
        "--path", default="batched", choices=[*PATHS, "all"], help="how accesses are carried (default: batched)"
    )
    p.add_argument(
        "--workers", type=int, metavar="N", help=f"worker processes (default: as placed, else {DEFAULT_WORKERS})"
    )
    p.add_argument(
        "--golden",
        default="auto",
        metavar="FILE|auto|none",
        help="the reference; auto: the file beside the trace, or none (default)",
    )
    p.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="content that the trace names (a disk image); compared too",
    )
    p.add_argument(
        "--placement",
        metavar="FILE|spread|random:SEED",
        help="who runs where (default: the machine file's, else spread)",
    )
    p.add_argument("--report", metavar="FILE", help="an HTML report with plots")
    add_output(p)


def add_output(p: argparse.ArgumentParser) -> None:
    """The options that every measuring command has."""
    json_argument(p, "results for machines")
    p.add_argument("--no-budgets", action="store_true", help="check answers only, not how fast they come")


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    files = replay.parse_files(args.file)
    jobs = []
    for name in args.traces:
        trace = load(data.trace(name))
        golden = None
        if args.golden not in ("auto", "none"):
            golden = load_golden(args.golden, trace)
        elif args.golden == "auto" and golden_path(trace).is_file():
            golden = load_golden(golden_path(trace), trace)
        job = replay.open_job(trace, golden, args.machine, files)
        if golden is None:
            job.remarks.append(
                "no reference: nothing was compared"
                if args.golden == "none"
                else f"no reference beside the trace ({golden_path(trace).name}): nothing was compared"
            )
        jobs.append(job)
    for name in files:
        if not any(name in j.trace.side.get("files", {}) for j in jobs):
            known = sorted({n for j in jobs for n in j.trace.side.get("files", {})})
            raise UsageError(f"--file {name}: no trace names such a file; they name {', '.join(known) or 'none'}")
    paths = PATHS if args.path == "all" else (args.path,)
    if args.workers is not None and paths != ("local",):
        check_workers(args.workers, "--workers")
    return carry_out(Session(jobs, paths, args.workers, args.placement, not args.no_budgets), args.json, args.report)


def carry_out(session: Session, json_file: str | None, report_file: str | None) -> int:
    """Run a session, show it, write what was asked for; the exit status."""
    check_output("--json", json_file)
    check_output("--report", report_file)
    if report_file is not None:
        from engine.measure import report

        report.check_libraries()
    out = Output(sys.stderr if json_file == "-" else None)
    with progress() as step:
        session.run(step)
    show(session, out)
    if json_file is not None:
        text = json.dumps(session.as_json(), indent=1)
        if json_file == "-":
            print(text)
        else:
            _write(json_file, text + "\n")
    if report_file is not None:
        with progress() as step:
            step("report", 1)
            _write(report_file, report.render(session))
        out.line(f"report: {report_file}")
    return 3 if session.failure is not None else 0 if session.ok else 1


def _write(name: str, text: str) -> None:
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as e:
        raise UsageError(f"{name}: cannot be written ({e.strerror})") from None


# ------------------------------------------------------------------ what a person sees


def show(session: Session, out: Output) -> None:
    """Tables and findings."""
    for job in session.jobs:
        runs = [r for r in session.runs if r.job is job]
        if runs:
            _show_trace(job, runs, out)
    if session.limits.get("pingpong_p50_ns"):
        rows: list[list[Cell]] = []
        for b in session.budgets:
            value = rate_text if b["way"] == "at_least" else time_text
            rows.append(
                [
                    b["name"],
                    value(b["measured"]),
                    value(b["limit"]),
                    f"{b['ratio']:.2f}",
                    f"{'at most' if b['way'] == 'at_most' else 'at least'} {b['allowed']:g}",
                    ("ok", GOOD) if b["ok"] else ("MISSED", BAD),
                ]
            )
        lim = session.limits
        title = (
            f"Budgets, against raw C on this host: round trip {time_text(lim['pingpong_p50_ns'])} "
            f"(p99 {time_text(lim['pingpong_p99_ns'])}), "
            f"sleep and wake {time_text(lim['futex_us'] * 1e3)}, ring {rate_text(lim['spsc_per_s'])}"
        )
        if rows:
            out.table(title, ["budget", ">measured", ">limit", ">ratio", "allowed", ""], rows)
            for b in session.budgets:
                if not b["ok"]:
                    show_missed(b, out)
        else:
            out.line(title)
    for note in session.notes:
        out.line(note, NOTE)
    if session.failure is not None:
        out.line(f"failed: {session.failure}", BAD)
    elif session.ok:
        compared = any(r.result["golden"] for r in session.runs)
        out.line("ok: every answer as the reference has it" if compared else "ok: nothing to compare with", GOOD)
    else:
        missed = sorted({b["path"] for b in session.budgets if not b["ok"]})
        wrong = sorted({f"{r.result['trace']} {r.result['path']}" for r in session.runs if not r.result["ok"]})
        why = [f"differences from the reference in {', '.join(wrong)}"] if wrong else []
        why += [f"paths disagree with each other on {', '.join(session.disagreeing)}"] if session.disagreeing else []
        why += [f"budget missed on {', '.join(missed)}"] if missed else []
        out.line("NOT ok: " + "; ".join(why), BAD)


def show_missed(budget: dict[str, Any], out: Output) -> None:
    """How a missed budget's times lie beside its limit's."""
    h = budget["histogram"]

    def bar(share: float) -> str:
        return f"{share:6.1%} {'#' * round(share * 30)}" if share else ""

    rows = [
        [time_text(low), bar(ours), bar(limit)]
        for low, ours, limit in zip(h["from_ns"], h["measured"], h["limit"], strict=True)
        if max(ours, limit) >= 0.001
    ]
    each = "bursts" if budget["measure"] == "per_s" else "accesses"
    title = f"MISSED {budget['name']}: {budget['ratio']:.2f} x {budget['limit_name']}; {each} by time"
    out.table(title, [">from", "measured", f"limit ({budget['limit_name']})"], rows)


def _show_trace(job: replay.Job, runs: list[replay.Run], out: Output) -> None:
    first = runs[0].result
    rows: list[list[Cell]] = []
    for r in (run.result for run in runs):
        lat = r["latency_ns"]
        batch = f"{r['counts']['mean_batch']:.0f}" if r["counts"]["mean_batch"] else "-"
        if "error" in r:
            verdict: Cell = (f"failed after {r['done']:,} accesses", BAD)
        else:
            verdict = ("ok", GOOD) if r["ok"] else ("DIFFERS", BAD)
        rows.append(
            [
                r["path"],
                str(r["workers"]) if r["workers"] else "-",
                rate_text(r["accesses_per_s"]),
                matched(r["compared"], r["matching"]),
                matched(**r["vectors"]),
                matched(**r["lines"]),
                time_text(lat["p50"]),
                time_text(lat["p99"]),
                time_text(lat["p999"]),
                batch,
                verdict,
            ]
        )
    title = (
        f"{first['trace']} on {first['machine']}: {first['accesses']:,} accesses, {first['reads']:,} reads, of which "
        f"{first['payload_reads']:,} are payload (content, set apart)"
    )
    out.table(
        title,
        ["path", ">workers", ">accesses", ">reads equal", ">vectors", ">lines", ">p50", ">p99", ">p99.9", ">batch", ""],
        rows,
    )
    if first["unmodelled"]:
        out.line("not modelled: " + ", ".join(f"{name} ({n:,} reads)" for name, n in first["unmodelled"].items()), NOTE)
    if first["unmodelled_functions"]:
        text = ", ".join(f"{f['device']} at {f['function']}" for f in first["unmodelled_functions"])
        out.line(f"PCI functions not modelled, whose configuration space is not compared: {text}", NOTE)
    for text in job.remarks:
        out.line(f"note: {text}", NOTE)
    if first["as_recorded_only"]:
        out.line(f"note: {first['as_recorded_only']:,} answers as recorded, where the reference differs", NOTE)
    if first["later_in_reference"]:
        out.line(f"note: {first['later_in_reference']:,} interrupts of disks come later in the reference", NOTE)
    for r in (run.result for run in runs):
        for m in r["mismatches"]:
            where = f"{m['region']} {m['space']} {m['addr']} size {m['size']}" if m["kind"] == "read" else m["region"]
            out.line(
                f"{r['path']}: {m['kind']} at access {m['index']:,}: {where}: expected {m['expected']}, got {m['got']}",
                BAD,
            )
    out.line()
