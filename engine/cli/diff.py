"""engine diff: parts against QEMU, another configuration or build of the engine, or a recording; random programs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine import data
from engine.cli import command_parser
from engine.cli.machine import choose_owners
from engine.cli.output import BAD, GOOD, NOTE, Cell, Output, progress
from engine.cli.text import check_output, json_argument, write_json
from engine.errors import UsageError
from engine.frontends.replay import parse_files
from engine.machine import PATHS
from engine.machine.spec import check_workers
from engine.measure.diff.board import BOARDS, Board, Part
from engine.measure.diff.judge import Row, load_case, one_program, outcome, summary
from engine.measure.diff.programs import Generator
from engine.measure.diff.recordings import recorded
from engine.measure.diff.sides import (
    BuildSide,
    EngineSide,
    QemuSide,
    Recorded,
    RecordedSide,
    Side,
    save_recording,
)
from engine.measure.diff.swtpm import installed

SEEDS, ACCESSES = 3, 20_000
QUICK = (1, 20_000)
WORKERS = 2
ANEW = "anew"


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
        "--trace",
        action="append",
        default=[],
        metavar="TRACE",
        help="instead of programs at random a recorded guest: a trace file, or a shipped trace; more than once",
    )
    p.add_argument("--file", action="append", default=[], metavar="NAME=PATH", help="a file that a trace names")
    p.add_argument("--path", default="local", choices=PATHS, help="how the engine carries accesses (default: local)")
    p.add_argument("--workers", type=int, metavar="N", help=f"of both sides where a path has them (default: {WORKERS})")
    p.add_argument(
        "--placement",
        metavar="FILE|spread|random:SEED|anew",
        help="who runs where, on both sides; anew: at random for each program (default: spread)",
    )
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
    json_argument(p, "results for machines")


Work = tuple[Board, list[tuple[Part, list[tuple[int, Any]]]]]  # a board, its parts, their programs: number, records


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    if args.all and args.parts:
        raise UsageError(f"--all and {args.parts[0]}: give one of them")
    if args.trace and (args.all or args.parts or args.case):
        raise UsageError("--trace: recorded guests have no parts to choose; give it alone")
    if args.workers is not None:
        check_workers(args.workers, "--workers")
    for option, path in (("--json", args.json), ("--record", args.record)):
        check_output(option, path)
    check_output("--out", args.out, folder=True)
    out = Output(sys.stderr if args.json == "-" else None)
    if args.case:
        return _case(args, out)
    seeds, accesses = QUICK if args.quick else (SEEDS, ACCESSES)
    seeds = seeds if args.seeds is None else args.seeds
    accesses = accesses if args.accesses is None else args.accesses
    if seeds < 1 or accesses < 1:
        raise UsageError("--seeds and --accesses count from 1")
    if args.first_seed < 0:
        raise UsageError("--first-seed counts from 0")
    recording = RecordedSide(Path(args.against)) if Path(args.against).is_file() else None
    numbers = range(args.first_seed, args.first_seed + seeds)
    runs, kept, title = [], [], ""
    with progress(args.json == "-") as step:
        for board, parts in _traces(args) if args.trace else _parts(args, numbers, recording):
            ours = _engine(args, board, args.path)
            theirs = recording or other_side(args, board)
            title = theirs.title
            if not theirs.control:
                out.line(
                    f"{theirs.title}, {board.name}: no control port, so no interrupts are taken, no keys typed, no "
                    "lines raised, and the local APIC, drives with media and TPMs are not compared.",
                    NOTE,
                )
                parts = [p for p in parts if p[0].type != "lapic" and not board.media and not board.tpm]
            if board.tpm and not installed():
                out.line(f"{board.name}: swtpm is not installed, so its TPM is not compared.", NOTE)
                parts = []
            rows = []
            for part, programs in parts:
                rows.append(row := Row(part))
                advance = step(f"{board.name} {part.id}", len(programs))
                for seed, given in programs:
                    before = len(row.found)
                    program = given
                    if program is None:
                        events = ours.control and theirs.control
                        program = Generator(board, part, seed, events).program(accesses)
                    answered = one_program(board, row, seed, program, ours, theirs, args.out)
                    if answered is not None and args.record:
                        kept.append(Recorded(board.name, part.id, seed, program, answered))
                    for f in row.found[before:]:
                        out.line(found_line(f), BAD)
                    advance(1)
            runs.append((board, rows))
    if args.record:
        save_recording(args.record, title, kept)
    facts = summary(runs, ours.title, title)
    if args.json:
        write_json(args.json, facts)
    show(facts, out)
    return 0 if facts["ok"] else 1


def _parts(args: argparse.Namespace, numbers: Sequence[int], recording: RecordedSide | None) -> Iterator[Work]:
    """The parts that are asked for, with numbers of programs or a recording's programs."""
    boards = [Board(name) for name in BOARDS if args.board in (None, name)]
    for name in args.parts:
        if not any(name in (p.id, p.type) for b in boards for p in b.parts.values()):
            raise UsageError(
                f"{name!r} is no part; parts are {', '.join(sorted({i for b in boards for i in b.parts}))}"
            )
    for board in boards:
        work: list[tuple[Part, list[tuple[int, Any]]]] = []
        for part in board.select(args.parts):
            if recording is None:
                work.append((part, [(n, None) for n in numbers]))
            else:
                mine = [r for r in recording.programs if (r.board, r.part) == (board.name, part.id)]
                work.append((part, [(r.seed, r.program) for r in mine]))
        if work:
            yield board, work


def _traces(args: argparse.Namespace) -> Iterator[Work]:
    """Recorded guests, each a board of its own with one program."""
    files = parse_files(args.file)
    for name in args.trace:
        board, program = recorded(data.trace(name), files, args.against == "qemu")
        yield board, [(Part("guest", "trace", [], None), [(0, program)])]


def _engine(args: argparse.Namespace, board: Board, path: str, one_by_one: bool = False) -> EngineSide:
    """The engine by one of its paths, placed as the options say."""
    workers = WORKERS if args.workers is None else args.workers
    owners = None
    if path != "local" and args.placement not in (None, ANEW):
        owners = choose_owners(board.plan, workers, args.placement)
    anew = args.placement == ANEW and path != "local"
    return EngineSide(board, path, workers, owners, one_by_one=one_by_one, anew=anew)


def other_side(args: argparse.Namespace, board: Board) -> Side:
    """What --against names, but for a recording.  Raises UsageError."""
    if args.against == "qemu":
        return QemuSide(board, args.qemu)
    if args.against in PATHS:
        return _engine(args, board, args.against, args.against == "local")
    if Path(args.against).is_dir():
        return BuildSide(board, Path(args.against))
    raise UsageError(f"--against {args.against}: neither qemu, {', '.join(PATHS)}, nor a folder, nor a file")


def found_line(f: dict[str, Any]) -> str:
    """One difference in one line."""
    head = f"{f['board']} {f['part']}, seed {f['seed']}: "
    records = f"{f['records']} record{'s' * (f['records'] != 1)}"
    if f["what"] == "end":
        return f"{head}{f['where']}; {records} in {f['qtest']}"
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
    board, part, program = load_case(args.case)
    theirs = RecordedSide(Path(args.against)) if Path(args.against).is_file() else other_side(args, board)
    found, _ = outcome(board, program, _engine(args, board, args.path), theirs)
    if found is None:
        out.line(f"{part}: {len(program)} records, no difference to {theirs.title}", GOOD)
        return 0
    out.line(
        f"{part}: {found.what}, {found.where}: engine {found.ours}, other {found.theirs} "
        f"(record {found.index + 1} of {len(program)})",
        BAD,
    )
    return 1
