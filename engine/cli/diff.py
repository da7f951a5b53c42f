"""engine diff: parts against QEMU, another configuration or build of the engine, or a recording; random programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engine.cli import command_parser
from engine.cli.output import BAD, GOOD, NOTE, Cell, Output, progress
from engine.cli.text import write_json
from engine.errors import EngineError, UsageError
from engine.measure.diff.board import BOARDS, Board
from engine.measure.diff.judge import Row, compare, load_case, one_program, summary
from engine.measure.diff.programs import Generator
from engine.measure.diff.sides import (
    BuildSide,
    EngineSide,
    QemuSide,
    Recorded,
    RecordedSide,
    Side,
    save_recording,
)

SEEDS, ACCESSES = 3, 20_000
QUICK = (2, 20_000)
PATHS = ("local", "sync", "buffered", "batched")


def add(parsers: Any) -> None:
    """The parser."""
    p = command_parser(
        parsers,
        "diff",
        "Run random programs of accesses, made from the register maps, on the engine and on QEMU (over qtest) and\n"
        "compare every read, every interrupt taken and every change of an interrupt line.  A difference is made\n"
        "short and written as a qtest log and as a case for --case.  Exit status 0 if none is unexplained.",
        "engine diff rtc pit --seeds 10 --accesses 100000",
    )
    p.add_argument("parts", nargs="*", metavar="PART", help="a part of a board, by device id or type")
    p.add_argument("--all", action="store_true", help="every part (so it is without PART)")
    p.add_argument("--board", choices=sorted(BOARDS), help="default: each board that has the part")
    p.add_argument("--seeds", type=int, metavar="N", help=f"programs of each part (default: {SEEDS})")
    p.add_argument("--first-seed", type=int, default=0, metavar="N", help="the first program's number (default: 0)")
    p.add_argument("--accesses", type=int, metavar="N", help=f"accesses of each program (default: {ACCESSES})")
    p.add_argument("--quick", action="store_true", help=f"{QUICK[0]} program of {QUICK[1]} accesses each")
    p.add_argument(
        "--against",
        default="qemu",
        metavar="WHAT",
        help="the other side: qemu (default); local, the engine access by access; sync, buffered or batched, a path "
        "with two workers; a folder, another build of the engine; a file that --record wrote, whose programs are run",
    )
    p.add_argument("--record", type=Path, metavar="FILE", help="write the programs and the other side's answers")
    p.add_argument("--qemu", default="qemu-system-x86_64", metavar="PATH", help="default: qemu-system-x86_64")
    p.add_argument(
        "--out", type=Path, default=Path("engine-diff"), metavar="DIR", help="for differences (default: engine-diff)"
    )
    p.add_argument("--case", type=Path, metavar="FILE", help="run one case file again instead")
    p.add_argument("--json", metavar="FILE", help="results for machines; - is standard output")


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    if args.all and args.parts:
        raise UsageError(f"--all and {args.parts[0]}: give one of them")
    out = Output(sys.stderr if args.json == "-" else None)
    if args.case:
        return _case(args, out)
    seeds, accesses = QUICK if args.quick else (SEEDS, ACCESSES)
    seeds = seeds if args.seeds is None else args.seeds
    accesses = accesses if args.accesses is None else args.accesses
    if seeds < 1 or accesses < 1:
        raise UsageError("--seeds and --accesses count from 1")
    boards = [Board(name) for name in BOARDS if args.board in (None, name)]
    for name in args.parts:
        if not any(name in (p.id, p.type) for b in boards for p in b.parts.values()):
            raise UsageError(
                f"{name!r} is no part; parts are {', '.join(sorted({i for b in boards for i in b.parts}))}"
            )
    recording = RecordedSide(Path(args.against)) if Path(args.against).is_file() else None
    runs, kept, title = [], [], ""
    with progress(args.json == "-") as step:
        for board in boards:
            ours = EngineSide(board)
            theirs = recording or other_side(args, board)
            title = theirs.title
            parts = board.select(args.parts)
            if not theirs.control:
                out.line(
                    f"{theirs.title}, {board.name}: no control port, so no interrupts are taken, no keys typed, no "
                    "lines raised, and the local APIC is not compared.",
                    NOTE,
                )
                parts = [p for p in parts if p.type != "lapic"]
            rows = []
            for part in parts:
                rows.append(row := Row(part))
                programs: list[tuple[int, Any]]
                if recording is not None:
                    todo = [r for r in recording.programs if (r.board, r.part) == (board.name, part.id)]
                    programs = [(r.seed, r.program) for r in todo]
                else:
                    last = args.first_seed + seeds
                    events = ours.control and theirs.control
                    programs = [(n, None) for n in range(args.first_seed, last)]
                advance = step(f"{board.name} {part.id}", len(programs))
                for seed, program in programs:
                    before = len(row.found)
                    try:
                        if program is None:
                            program = Generator(board, part, seed, events).program(accesses)
                        answered = one_program(board, row, seed, program, ours, theirs, args.out)
                        kept.append(Recorded(board.name, part.id, seed, program, answered))
                    except EngineError as e:
                        if isinstance(e, UsageError):
                            raise
                        lost = {"board": board.name, "part": part.id, "seed": seed, "what": "end", "where": str(e)}
                        row.found.append(lost)
                    for f in row.found[before:]:
                        out.line(found_line(f), BAD)
                    if not args.record:
                        kept.clear()
                    advance(1)
            runs.append((board, rows))
    if args.record:
        save_recording(args.record, title, kept)
    facts = summary(runs, EngineSide(boards[0]).title, title)
    if args.json:
        write_json(args.json, facts)
    show(facts, out)
    return 0 if facts["ok"] else 1


def other_side(args: argparse.Namespace, board: Board) -> Side:
    """What --against names, but for a recording.  Raises UsageError."""
    if args.against == "qemu":
        return QemuSide(board, args.qemu)
    if args.against in PATHS:
        return EngineSide(board, args.against, one_by_one=args.against == "local")
    if Path(args.against).is_dir():
        return BuildSide(board, Path(args.against))
    raise UsageError(f"--against {args.against}: neither qemu, {', '.join(PATHS)}, nor a folder, nor a file")


def found_line(f: dict[str, Any]) -> str:
    """One difference in one line."""
    head = f"{f['board']} {f['part']}, seed {f['seed']}: "
    if f["what"] == "end":
        return head + str(f["where"])
    records = f"{f['records']} record{'s' * (f['records'] != 1)}"
    return f"{head}{f['what']}, {f['where']}: engine {f['engine']}, other {f['other']}; {records} in {f['qtest']}"


def show(facts: dict[str, Any], out: Output) -> None:
    """The tables for people."""
    counts = ("accesses", "reads", "line_changes")
    rows: list[list[Cell]] = [
        [p["board"], p["part"], p["type"], str(p["seeds"]), *(f"{p[k]:,}" for k in counts), str(p["explained"]),
         (str(p["unexplained"]), BAD if p["unexplained"] else GOOD)] for p in facts["parts"]
    ]  # fmt: skip
    head = ("board", "part", "type", ">programs", ">accesses", ">reads", ">line changes", ">explained", ">unexplained")
    out.table(f"{facts['engine']} against {facts['against']}", head, rows)
    for name, title in (("differences", "Deliberate differences"), ("excluded", "Never done")):
        out.line()
        cells = [
            [e["part"], e["register"], e["condition"], e["reason"], f"{e['count']:,}"]
            for e in facts[name]
            if e["count"] or name == "differences"
        ]
        out.table(title, ("part", "register", "condition", "reason", ">times"), cells)
    t = facts["totals"]
    out.line()
    out.line(
        f"{len(facts['parts'])} parts, {t['seeds']} programs, {t['accesses']:,} accesses, {t['reads']:,} reads, "
        f"{t['line_changes']:,} line changes: {t['explained']} differences explained, {t['unexplained']} unexplained",
        GOOD if facts["ok"] else BAD,
    )


def _case(args: argparse.Namespace, out: Output) -> int:
    name, part, program = load_case(args.case)
    board = Board(name)
    theirs = RecordedSide(Path(args.against)) if Path(args.against).is_file() else other_side(args, board)
    found = compare(board, program, EngineSide(board).run(program), theirs.run(program))
    if found is None:
        out.line(f"{part}: {len(program)} records, no difference to {theirs.title}", GOOD)
        return 0
    out.line(
        f"{part}: {found.what}, {found.where}: engine {found.ours}, other {found.theirs} "
        f"(record {found.index + 1} of {len(program)})",
        BAD,
    )
    return 1
