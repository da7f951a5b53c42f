"""engine study: a declared experiment, run in random interleaved order, resumable, with intervals and a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engine.cli import command_parser
from engine.cli.output import BAD, GOOD, NOTE, Cell, Output, progress
from engine.cli.text import check_output, json_argument, make_folder, write_json
from engine.errors import UsageError
from engine.study import compare, conduct, report, tables
from engine.study.design import Design, load, shipped
from engine.study.journal import Journal
from engine.study.results import Interval, Results, times, write_text


def add(parsers: Any) -> None:
    """The parser."""
    p = command_parser(
        parsers,
        "study",
        "Run a declared experiment: every combination of its factors, several times, in random interleaved order.\n"
        "Finished replications are kept in NAME.jsonl; the same command goes on where it stopped, and when all are\n"
        "there writes NAME.csv, NAME.parquet and the report NAME.html.  docs/study.md describes study files.",
        "engine study shipped:sync-vs-buffered --quick --out /tmp/study",
    )
    p.add_argument(
        "study", metavar="STUDY", help=f"a study file (TOML), or shipped:NAME with NAME one of {', '.join(shipped())}"
    )
    p.add_argument("--quick", action="store_true", help="the study's [quick] settings: a few minutes, wide intervals")
    p.add_argument(
        "--out",
        default=".",
        metavar="DIR",
        help="the folder of results and report, which is made (default: the current one)",
    )
    p.add_argument(
        "--scheduler", metavar="ADDRESS", help="spread replications over an existing Dask cluster, one a host at a time"
    )
    p.add_argument("--csv", metavar="FILE", help="measure nothing: analyse these results of the study (.csv, .csv.gz)")
    p.add_argument("--tables", metavar="FILE", help="make the marked tables of a Markdown page anew from the results")
    p.add_argument("--hgrm", metavar="DIR", help="a HdrHistogram percentile file for each combination")
    json_argument(p, "results for machines")


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 if the replications are there and every run of a load read the same values."""
    design = load(args.study, args.quick)
    report.check_libraries()
    folder = Path(args.out)
    check_output("--out", folder, folder=True)
    check_output("--json", args.json)
    check_output("--hgrm", args.hgrm, folder=True)
    if args.tables is not None and not Path(args.tables).is_file():
        raise UsageError(f"--tables {args.tables}: no such page")
    if args.csv is not None and args.hgrm is not None:
        raise UsageError("--hgrm needs the study's own journal: a CSV file holds no histograms")
    make_folder("--out", folder)
    if args.csv is not None:
        results = Results.from_csv(design, Path(args.csv))
    else:
        with Journal(design, folder) as journal:
            _measure(design, journal, args.scheduler)
            results = Results.of(journal)
    files = _write(results, folder, args)
    out = Output(sys.stderr if args.json == "-" else None)
    show(results, files, out)
    if args.json is not None:
        write_json(args.json, as_json(results, files))
    return 0 if _ok(results) else 1


def _measure(design: Design, journal: Journal, scheduler: str | None) -> None:
    left = len(conduct.missing(design, journal))
    with progress() as step:
        advance = step(design.stem, design.size)
        advance(design.size - left)
        if scheduler is None:
            conduct.here(design, journal, advance)
        else:
            conduct.spread(design, journal, advance, scheduler)


def _ok(r: Results) -> bool:
    """Everything is there (where there was a time limit: each combination once at least), and reads agree."""
    enough = r.design.size if not r.design.seconds else len(r.design.cells)
    there = len(r.rows) if not r.design.seconds else len({row["cell"] for row in r.rows})
    return there >= enough and not r.disagreeing()


def _write(r: Results, folder: Path, args: argparse.Namespace) -> list[str]:
    """Every file that was asked for; their names."""
    out = []
    if args.csv is None:
        r.write_csv(folder / f"{r.design.stem}.csv")
        r.write_parquet(folder / f"{r.design.stem}.parquet")
        out += [f"{r.design.stem}.csv", f"{r.design.stem}.parquet"]
    write_text(folder / f"{r.design.stem}.html", report.render(r))
    out.append(f"{r.design.stem}.html")
    if args.tables is not None:
        tables.fill_page(r, Path(args.tables))
    if args.hgrm is not None:
        r.write_hgrm(Path(args.hgrm))
    return [str(folder / name) for name in out]


def _value(i: Interval) -> dict[str, Any] | None:
    return (
        {"value": i.value, "low": i.low if i.known else None, "high": i.high if i.known else None, "n": i.n}
        if i
        else None
    )


def as_json(r: Results, files: list[str]) -> dict[str, Any]:
    """Combinations with their intervals, and the comparisons."""
    metrics = ("p50_ns", "p99_ns", "read_p50_ns", "write_p50_ns", "age_p99_ns", "fallback_share")
    return {
        "study": r.design.as_dict() | {"digest": r.design.digest},
        "replications": len(r.rows),
        "of": r.design.size,
        "cells": [
            {**c.as_dict(), "per_s": _value(r.throughput(c)), **{m: _value(r.median(c, m)) for m in metrics}}
            for c in r.design.cells
        ],
        "comparisons": [
            {
                "factor": k.factor,
                "level": k.level,
                "base": k.base,
                "path": p.cell.path,
                "block": p.block.name,
                "load": p.label,
                **{
                    g.name: None
                    if not (i := g.of(r, p.cell, p.base))
                    else {**(_value(i) or {}), "verdict": compare.verdict(i)}
                    for g in k.gauges([p])
                },
            }
            for k in compare.contrasts(r.design)
            for p in compare.pairs(r, k)
        ],
        "disagreeing": r.disagreeing(),
        "hosts": r.hosts,
        "files": files,
        "ok": _ok(r),
    }


def _verdict(i: Interval) -> Cell:
    if not i:
        return ""
    text = f"{times(i.value)} ({times(i.low)} to {times(i.high)})" if i.known else times(i.value)
    return (text, {compare.PAYS: GOOD, compare.COSTS: BAD}.get(compare.verdict(i), ""))


def show(r: Results, files: list[str], out: Output) -> None:
    """What a person sees: the combinations, then where a path pays."""
    for b in r.design.blocks:
        out.table(
            f"{b.name}: {b.question}",
            ("combination", ">throughput", ">p50", ">p99"),
            [(q["cell"], q["throughput"], q["p50"], q["p99"]) for q in report.block_rows(r, b)],
        )
        out.line()
    for k in compare.contrasts(r.design):
        rows = compare.pairs(r, k)
        gauges = k.gauges(rows)
        if rows:
            out.table(
                f"{k}: how many times better",
                ("load", *(">" + g.name for g in gauges)),
                [
                    (p.label, *(_verdict(g.of(r, p.cell, p.base)) if g.fits(p.cell) else "" for g in gauges))
                    for p in rows
                ],
            )
            out.line()
    for d in r.disagreeing():
        out.line(f"reads did not give the same values in every run of {d}", BAD)
    out.line(f"{len(r.rows):,} of {r.design.size:,} replications; {', '.join(files)}", GOOD if _ok(r) else BAD)
    if len(r.rows) < r.design.size:
        limit = f"stopped at the time limit of {r.design.seconds} s; " if r.design.seconds else ""
        out.line(f"{limit}the same command goes on with what is missing", NOTE)
    quiet = report.noise(r)
    if quiet:
        out.line(
            f"host meanwhile: cache line round trip {quiet['pingpong']}, load {quiet['load']}, "
            f"CPU share {quiet['share']}",
            NOTE,
        )
