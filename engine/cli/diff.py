"""engine diff: parts against QEMU, or against another configuration of the engine, with random programs of accesses."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engine.cli import command_parser
from engine.cli.output import BAD, GOOD, NOTE, Cell, Output, progress
from engine.cli.text import write_json
from engine.errors import EngineError, UsageError
from engine.measure.diff import BOARDS, Board, EngineSide, QemuSide, Row, Side, compare, load_case, one_seed, summary

SEEDS, ACCESSES = 3, 20_000
QUICK = (1, 4_000)


def add(parsers: Any) -> None:
    """The parser."""
    p = command_parser(
        parsers,
        "diff",
        "Run random programs of accesses, made from the register maps, on the engine and on QEMU (over qtest) and compare\n"
        "every read, every interrupt taken and every change of an interrupt line.  A difference is made as short as possible\n"
        "and written as a qtest log and as a case for --case.  Exit status 0 if no difference is unexplained.",
        "engine diff rtc pit --seeds 10 --accesses 100000",
    )
    p.add_argument("parts", nargs="*", metavar="PART", help="a part of the board, by device id or type")
    p.add_argument("--all", action="store_true", help="every part of the board (so it is without PART)")
    p.add_argument("--board", default="i440fx", choices=sorted(BOARDS), help="default: i440fx")
    p.add_argument("--seeds", type=int, metavar="N", help=f"programs of each part (default: {SEEDS})")
    p.add_argument("--first-seed", type=int, default=0, metavar="N", help="the first program's number (default: 0)")
    p.add_argument("--accesses", type=int, metavar="N", help=f"accesses of each program (default: {ACCESSES})")
    p.add_argument("--quick", action="store_true", help=f"{QUICK[0]} program of {QUICK[1]} accesses each")
    p.add_argument("--against", default="qemu", choices=("qemu", "local", "batched"),
                   help="the other side: QEMU (default), the engine access by access, the engine's batched path with two workers")  # fmt: skip
    p.add_argument("--qemu", default="qemu-system-x86_64", metavar="PATH", help="the QEMU to start (default: qemu-system-x86_64)")
    p.add_argument("--out", type=Path, default=Path("engine-diff"), metavar="DIR", help="where differences are written (default: engine-diff)")
    p.add_argument("--case", type=Path, metavar="FILE", help="run one case file again instead")
    p.add_argument("--json", metavar="FILE", help="results for machines; - is standard output, and the tables go to standard error")


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    if args.all and args.parts:
        raise UsageError(f"--all and {args.parts[0]}: give one of them")
    board_name, case = args.board, None
    if args.case:
        board_name, part, case = load_case(args.case)
    board = Board(board_name)
    ours = EngineSide(board)
    theirs: Side
    if args.against == "qemu":
        theirs = QemuSide(board, args.qemu)
    else:
        theirs = EngineSide(board, args.against, one_by_one=args.against == "local")
    out = Output(sys.stderr if args.json == "-" else None)
    if case is not None:
        return _case(board, part, case, ours, theirs, out)
    parts = board.select(args.parts)
    seeds, accesses = QUICK if args.quick else (SEEDS, ACCESSES)
    seeds, accesses = args.seeds or seeds, args.accesses or accesses
    if seeds < 1 or accesses < 1:
        raise UsageError("--seeds and --accesses count from 1")
    if not theirs.control and args.against == "qemu":
        out.line("This QEMU has no control port: no interrupts are taken, no keys typed, and the local APIC is not compared.", NOTE)
        parts = [p for p in parts if p.type != "lapic"]
    rows = []
    with progress(args.json == "-") as step:
        for part_ in parts:
            row = Row(part_)
            rows.append(row)
            advance = step(part_.id, seeds)
            for seed in range(args.first_seed, args.first_seed + seeds):
                try:
                    one_seed(board, row, seed, accesses, ours, theirs, args.out)
                except EngineError as e:
                    if isinstance(e, UsageError):
                        raise
                    row.found.append({"part": part_.id, "seed": seed, "what": "end", "where": str(e)})
                for f in row.found[-1:]:
                    if f["seed"] == seed:
                        out.line(found_line(f), BAD)
                advance(1)
    facts = summary(board, rows, ours, theirs)
    if args.json:
        write_json(args.json, facts)
    show(facts, out)
    return 0 if facts["ok"] else 1


def found_line(f: dict[str, Any]) -> str:
    """One difference in one line."""
    if f["what"] == "end":
        return f"{f['part']}, seed {f['seed']}: {f['where']}"
    return (f"{f['part']}, seed {f['seed']}: {f['what']}, {f['where']}: engine {f['engine']}, other {f['other']}; "
            f"{f['records']} record{'s' * (f['records'] != 1)} in {f['qtest']}")  # fmt: skip


def show(facts: dict[str, Any], out: Output) -> None:
    """The tables for people."""
    rows: list[list[Cell]] = [
        [p["part"], p["type"], str(p["seeds"]), f"{p['accesses']:,}", f"{p['reads']:,}", f"{p['line_changes']:,}", str(p["explained"]),
         (str(p["unexplained"]), BAD if p["unexplained"] else GOOD)] for p in facts["parts"]
    ]  # fmt: skip
    out.table(f"{facts['engine']} against {facts['against']}, {facts['board']} board",
              ("part", "type", ">programs", ">accesses", ">reads", ">line changes", ">explained", ">unexplained"), rows)  # fmt: skip
    for name, title in (("differences", "Deliberate differences"), ("excluded", "Never done")):
        out.line()
        out.table(title, ("part", "register", "condition", "reason", ">times"),
                  [[e["part"], e["register"], e["condition"], e["reason"], f"{e['count']:,}"] for e in facts[name]])  # fmt: skip
    t = facts["totals"]
    out.line()
    out.line(f"{len(facts['parts'])} parts, {t['seeds']} programs, {t['accesses']:,} accesses, {t['reads']:,} reads, {t['line_changes']:,} line changes: "
             f"{t['explained']} differences explained, {t['unexplained']} unexplained", GOOD if facts["ok"] else BAD)  # fmt: skip


def _case(board: Board, part: str, program: Any, ours: Side, theirs: Side, out: Output) -> int:
    found = compare(board, program, ours.run(program), theirs.run(program))
    if found is None:
        out.line(f"{part}: {len(program)} records, no difference to {theirs.title}", GOOD)
        return 0
    out.line(f"{part}: {found.what}, {found.where}: engine {found.ours}, other {found.theirs} (record {found.index + 1} of {len(program)})", BAD)
    return 1
