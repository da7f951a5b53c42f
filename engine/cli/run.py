"""engine run: shipped recordings of real boots over every path, checked and measured; the first command to try."""

from __future__ import annotations

import argparse
from typing import Any

from engine import data
from engine.cli import command_parser
from engine.cli.replay import add_output, carry_out
from engine.frontends import replay
from engine.frontends.trace import golden_path, load, load_golden
from engine.machine import PATHS
from engine.measure.session import DEFAULT_WORKERS, Session

TRACES = ("seabios-pc", "boot-pc")


def add(parsers: Any) -> None:
    """The parser."""
    p = command_parser(
        parsers,
        "run",
        "Replay shipped recordings of real boots (SeaBIOS to its prompt, and to a boot sector) over every path, with\n"
        "the devices spread over worker processes; check every answer against the reference, measure, write a report.",
        "engine run --json results.json",
    )
    p.add_argument(
        "--report", default="engine-report.html", metavar="FILE", help="the HTML report (default: engine-report.html)"
    )
    add_output(p)


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    jobs = []
    for name in TRACES:
        trace = load(data.trace(name))
        jobs.append(replay.open_job(trace, load_golden(golden_path(trace), trace), "auto", {}))
    return carry_out(Session(jobs, PATHS, DEFAULT_WORKERS, check_budgets=not args.no_budgets), args.json, args.report)
