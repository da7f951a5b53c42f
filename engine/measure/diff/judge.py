"""Comparing two runs of a program, making a program that shows a difference short, and keeping score."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine._abi import ACC
from engine.errors import EngineError, UsageError, reason
from engine.measure.diff.board import ACK, MEM, RESET, Array, Board, Entry, Filter, Part, board_of, refused
from engine.measure.diff.sides import Result, Side, qtest_lines
from engine.types import Space

Lines = dict[int, tuple[tuple[int, int], ...]]
MINIMISE_S, MINIMISE_RUNS = 30.0, 400
ENTRY = ("part", "register", "condition", "section", "reason")


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference that nothing explains."""

    index: int
    what: str  # "read", "vector" or "lines"
    where: str
    ours: str
    theirs: str


def compare(board: Board, program: Array, ours: Result, theirs: Result, count: bool = True) -> Difference | None:
    """The first unexplained difference, or None; explained ones are counted in their entries."""
    width = np.where(program["size"] >= 8, 64, program["size"].astype(np.uint64) * 8).astype(np.uint64)
    mask = np.where(width == 64, np.uint64(2**64 - 1), (np.uint64(1) << (width % np.uint64(64))) - np.uint64(1))
    read = (program["dir"] == 0) & ((program["space"] <= Space.MMIO) | (program["space"] == MEM))
    read |= program["space"] == ACK
    wrong = np.flatnonzero(read & ((ours.value ^ theirs.value) & mask != 0))
    first: Difference | None = None
    if len(wrong):
        bad = set(wrong.tolist())
        f = Filter(board)
        for i, row in enumerate(program[["space", "addr", "size", "dir", "value"]].tolist()):
            f.allow(*row)
            if i in bad:
                a, b = int(ours.value[i] & mask[i]), int(theirs.value[i] & mask[i])
                entry = _explains(f, row[2], a ^ b, bool(ours.content[i])) if row[0] <= Space.MMIO else None
                if entry is None:
                    kind = "vector" if row[0] == ACK else "read"
                    first = Difference(i, kind, describe(board, f, row), f"{a:#x}", f"{b:#x}")
                    break
                entry.count += count
    our_lines, their_lines = ours.lines, theirs.lines
    resets = np.flatnonzero(program["space"] == RESET).tolist()
    if resets:
        our_lines, their_lines = _without_left(resets, ours.lines, theirs.lines)
    at = min((i for i in our_lines.keys() | their_lines.keys() if our_lines.get(i) != their_lines.get(i)), default=None)
    if at is not None and (first is None or at < first.index):
        mine, other = our_lines.get(at, ()), their_lines.get(at, ())
        odd = min(
            c[0] for c in (*mine, *other) if [d for d in mine if d[0] == c[0]] != [d for d in other if d[0] == c[0]]
        )
        first = Difference(min(at, len(program) - 1), "lines", f"line {odd}", _levels(mine, odd), _levels(other, odd))
    return first


def _without_left(resets: Sequence[int], ours: Lines, theirs: Lines) -> tuple[Lines, Lines]:
    """Line changes without those in a reset, and behind it those of lines that the other side leaves high, until both
    sides agree again.  A device's reset lowers its lines here; the reference's devices often say nothing of theirs."""
    out: tuple[Lines, Lines] = ({}, {})
    levels: tuple[dict[int, int], dict[int, int]] = ({}, {})
    blind: set[int] = set()
    for i in sorted({*resets, *ours, *theirs}):
        for side, mine, level in zip((ours, theirs), out, levels, strict=True):
            changes = side.get(i, ())
            level.update(changes)
            kept = tuple(c for c in changes if c[0] not in blind)
            if kept and i not in resets:
                mine[i] = kept
        ends = [{n for n, high in level.items() if high} for level in levels]
        if i in resets:
            blind = ends[1] - ends[0]
            if extra := ends[0] - ends[1]:  # a line that a reset should lower, and does not
                out[0][i] = tuple((n, 1) for n in sorted(extra))
        else:
            blind &= ends[0] ^ ends[1]
    return out


def outcome(
    board: Board, program: Array, ours: Side, theirs: Side, count: bool = True
) -> tuple[Difference | None, Result | None]:
    """The first difference of a run on both sides, and what the other side answered; a side that ends is one, too."""
    answered: list[Result] = []
    for side in (ours, theirs):
        try:
            answered.append(side.run(program))
        except UsageError:
            raise
        except EngineError as e:
            why = str(e).partition(" at ")[0]
            said = ("", why) if answered else (why, "")
            return Difference(len(program) - 1, "end", why, *said), None
    return compare(board, program, answered[0], answered[1], count), answered[1]


def _levels(changes: Iterable[tuple[int, int]], line: int) -> str:
    return ", ".join("raise" if level else "lower" for n, level in changes if n == line) or "no change"


def _explains(f: Filter, size: int, bits: int, content: bool) -> Entry | None:
    """The [[difference]] entry that covers all the bits that differ in the access the filter has just seen."""
    left, entry = bits, None
    for kind, e, at, _ in f.touched:
        if kind == "difference" and f.holds_after(e) and content >= bool(e.raw.get("content")):
            for n in range(size):
                left &= ~((e.bits >> 8 * at & 0xFF) << 8 * n) if size == 1 or n == at else left
            entry = e
    return entry if entry is not None and not left else None


def describe(board: Board, f: Filter, row: tuple[int, int, int, int, int]) -> str:
    """What an access reaches, for people: 'pm PMSTS (0xb000, 2 bytes)'."""
    space, addr, size = row[:3]
    if space == MEM:
        return f"RAM {addr:#x}, {size} byte{'s' * (size > 1)}"
    if space > Space.MMIO:
        return "interrupt acknowledge"
    kind, key = next(iter(f.reaches(space, addr, size)))
    for part in board.parts.values():
        for w in part.windows:
            if w.space == kind and w.base <= key < w.base + w.size:
                offset = key - w.base
                name = next((r.name for r in w.direct if r.offset <= offset < r.offset + max(1, r.width // 8)), "")
                for at, _, r in w.indexed:
                    if r.offset == offset and f.index.get(w.base + at) == r.index:
                        name = r.name
                where = (
                    f"config {offset:#x}"
                    if kind == Space.CONFIG
                    else f"{'port' if kind == Space.PIO else 'memory'} {addr:#x}"
                )
                return f"{part.id} {name or f'+{offset:#x}'} ({where}, {size} byte{'s' * (size > 1)})"
    return f"{'port' if space == Space.PIO else 'memory'} {addr:#x}, {size} byte{'s' * (size > 1)}"


def minimise(
    board: Board,
    program: Array,
    found: Difference,
    ours: Side,
    theirs: Side,
    head: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Array, Difference]:
    """A short program with the same difference (the same place), and that difference: delta debugging, each trial from
    power-on.  The first `head` records are a set-up, which stays."""
    fixed, best, where = program[:head], program[head : found.index + 1], found
    sure = set(refused(board, program).tolist())  # what a driver does although a program at random may not
    end, runs = time.monotonic() + MINIMISE_S, 0

    def still(trial: Array) -> bool:
        nonlocal best, where, runs
        runs += 1
        tick()
        whole = np.concatenate([fixed, trial])
        if not len(trial) or not set(refused(board, whole).tolist()) <= sure:
            return False
        got, _ = outcome(board, whole, ours, theirs, count=False)
        if got is None or got.index < head or (got.what, got.where) != (found.what, found.where):
            return False
        best, where = trial[: got.index + 1 - head], got
        return True

    def spent() -> bool:
        return time.monotonic() > end or runs >= MINIMISE_RUNS

    keep = 1
    while keep < len(best) and not spent():  # the cause is often near: the last few accesses
        if still(best[-keep:]):
            break
        keep *= 4
    parts = 2
    while len(best) > 1 and not spent():
        size, whole, less = -(-len(best) // parts), best, False
        for start in range(0, len(whole), size):
            if spent():
                break
            if still(np.concatenate([whole[:start], whole[start + size :]])):
                less = True
                break
        if less:
            parts = max(2, parts - 1)
        elif size == 1:
            break
        else:
            parts = min(2 * parts, len(best))
    return np.concatenate([fixed, best]), where


def write_case(
    board: Board, part: Part, seed: int, program: Array, found: Difference, folder: Path
) -> tuple[Path, Path]:
    """PART-SEED.qtest (requests that QEMU can replay) and PART-SEED.json (a case for `load_case`)."""
    requests, _ = qtest_lines(program)
    log, case = folder / f"{board.name}-{part.id}-{seed}.qtest", folder / f"{board.name}-{part.id}-{seed}.json"
    rows = [[int(x) for x in r] for r in program[["t_ns", "space", "addr", "size", "dir", "value"]].tolist()]
    facts: dict[str, Any] = {
        "board": board.name,
        "part": part.id,
        "seed": seed,
        "what": found.what,
        "where": found.where,
        "engine": found.ours,
        "other": found.theirs,
    }
    facts |= {"qemu": board.args, "records": ["t_ns", "space", "addr", "size", "dir", "value"], "program": rows}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.write_text("\n".join(["irq_intercept_in ioapic", *requests]) + "\n")
        case.write_text(json.dumps(facts, indent=1) + "\n")
    except OSError as e:
        raise UsageError(f"{folder}: cannot be written ({reason(e)})") from None
    return log, case


def load_case(path: Path) -> tuple[Board, str, Array]:
    """(board, part, program) of a case file.  Raises UsageError."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        out = np.zeros(len(raw["program"]), ACC)
        for n, name in enumerate(raw["records"]):
            out[name] = [row[n] for row in raw["program"]]
        return board_of(str(raw["board"]), list(raw["qemu"])), str(raw["part"]), out
    except OSError as e:
        raise UsageError(f"{path}: cannot be read ({reason(e)})") from None
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise UsageError(f"{path}: no case of engine diff ({type(e).__name__}: {e})") from None


@dataclass(slots=True)
class Row:
    """One part's score."""

    part: Part
    seeds: int = 0
    accesses: int = 0
    reads: int = 0
    line_changes: int = 0
    explained: int = 0
    found: list[dict[str, Any]] = field(default_factory=list)


def one_program(
    board: Board,
    row: Row,
    seed: int,
    program: Array,
    ours: Side,
    theirs: Side,
    folder: Path,
    tick: Callable[[], None] = lambda: None,
) -> Result | None:
    """Run one program of a part, add it to its score, and give what the other side answered, if it did not end."""
    before = sum(e.count for e in board.differences)
    found, answered = outcome(board, program, ours, theirs)
    n = len(program) if found is None else found.index + 1
    row.seeds += 1
    row.accesses += n
    row.reads += int((program["dir"][:n] == 0).sum())
    row.line_changes += sum(len(v) for v in answered.lines.values()) if answered else 0
    row.explained += sum(e.count for e in board.differences) - before
    if found is not None:
        short, found = minimise(board, program, found, ours, theirs, len(board.preamble(row.part)), tick)
        log, case = write_case(board, row.part, seed, short, found, folder)
        row.found.append(
            {
                "board": board.name,
                "part": row.part.id,
                "seed": seed,
                "what": found.what,
                "where": found.where,
                "engine": found.ours,
                "other": found.theirs,
                "records": len(short),
                "qtest": str(log),
                "case": str(case),
            }
        )
    return answered


def summary(runs: Sequence[tuple[Board, Sequence[Row]]], engine: str, against: str) -> dict[str, Any]:
    """Everything, for machines."""
    names = ("seeds", "accesses", "reads", "line_changes", "explained")
    parts = [
        {"board": b.name, "part": r.part.id, "type": r.part.type}
        | {k: getattr(r, k) for k in names}
        | {"unexplained": len(r.found)}
        for b, rows in runs
        for r in rows
    ]
    totals = Counter(dict.fromkeys((*names, "unexplained"), 0))
    for _, rows in runs:
        for r in rows:
            totals.update({k: getattr(r, k) for k in names} | {"unexplained": len(r.found)})
    entries: dict[str, dict[tuple[str, ...], dict[str, Any]]] = {"differences": {}, "excluded": {}}
    for b, _ in runs:
        for kind, of in (("differences", b.differences), ("excluded", [*b.excluded, b.moved])):
            for e in of:
                if e.part in {p.type for p in b.parts.values()} or e is b.moved:
                    one = entries[kind].setdefault(
                        (e.part, e.register, e.condition), {k: getattr(e, k) for k in ENTRY} | {"count": 0}
                    )
                    one["count"] += e.count
    return {
        "boards": [b.name for b, _ in runs],
        "engine": engine,
        "against": against,
        "parts": parts,
        "totals": dict(totals),
        "differences": list(entries["differences"].values()),
        "excluded": list(entries["excluded"].values()),
        "unexplained": [f for _, rows in runs for r in rows for f in r.found],
        "ok": not totals["unexplained"],
    }
