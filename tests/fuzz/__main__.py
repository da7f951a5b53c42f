"""`make fuzz`, or PYTHONPATH=tests python -m fuzz [PART ...]: random operations on parts, as many as wanted.

Each part stands with what is in its unit, over RAM with descriptors that loop, cross RAM's ends and have lengths that
cannot be; it gets reads and writes of every width at every offset, inputs, jumps of time and resets.  What crashes,
hangs, raises or breaks a promise of engine.Device is made small and printed with the line that repeats it.  Exit
status: 0 nothing found, 1 something, 2 usage.
"""

from __future__ import annotations

import argparse
import sys
import time

from engine.errors import EngineError
from engine.registry import TYPES, device_class

from . import boards, programs, run

BOARD = "board:"


def show(kind: str, seed: int, length: int, found: run.Found) -> None:
    """What was found, in few operations."""
    print(f"{kind}: {found.what}: seed {seed}, life {found.life}, operation {found.at}", flush=True)
    if kind.startswith(BOARD):
        length = run.shorten(kind.removeprefix(BOARD), seed, found.life, length)
        print(f"  again: {run.again(kind, seed, found.life, length)}", flush=True)
        return
    print(f"  again: {run.again(kind, seed, found.life, length)}")
    ops = run.minimise(kind, programs.program(kind, seed, found.life, length)[: found.at + 1])
    for op in ops[:200]:
        print(f"  {programs.describe(kind, op)}")
    sys.stdout.flush()


def main() -> int:
    """The command."""
    p = argparse.ArgumentParser(prog="fuzz", description="random operations on parts and boards")
    p.add_argument(
        "part",
        nargs="*",
        help="a part of `engine devices list`, package.module:Class, board:i440fx or board:q35 (default: every one)",
    )
    p.add_argument("--accesses", type=int, default=1_000_000, metavar="N", help="for each part (default %(default)s)")
    p.add_argument("--seed", type=int, default=1, help="another seed makes other lives (default %(default)s)")
    p.add_argument("--life", type=int, default=0, help="begin with this life")
    p.add_argument(
        "--length", type=int, metavar="N", help=f"operations of a life (default {run.LIFE}; boards {run.BOARD_LIFE})"
    )
    args = p.parse_args()
    if args.accesses < 1 or (args.length is not None and args.length < 1) or args.life < 0 or args.seed < 0:
        p.error("--accesses and --length are at least 1, --seed and --life at least 0")
    kinds = args.part or [*sorted(TYPES), *(BOARD + name for name in boards.BOARDS)]
    try:
        for kind in kinds:
            if kind.removeprefix(BOARD) not in boards.BOARDS or not kind.startswith(BOARD):
                device_class(kind)
    except EngineError as e:
        p.error(str(e))
    bad = []
    for kind in kinds:
        began = time.monotonic()
        board = kind.startswith(BOARD)
        length = args.length or (run.BOARD_LIFE if board else run.LIFE)
        job = run.fuzz_board if board else run.fuzz
        a = job(kind.removeprefix(BOARD), args.accesses, args.seed, args.life, length)
        if a.found:
            bad.append(kind)
            show(kind, args.seed, length, a.found)
            continue
        took = time.monotonic() - began
        if board:
            print(f"{kind}: {a.accesses:,} accesses, {a.lives} lives, {took:.1f} s", flush=True)
            continue
        print(f"{kind}: {a.accesses:,} accesses, {a.lives} lives, {a.effects:,} effects, {took:.1f} s; "
              f"slowest {a.slowest_ns / 1e6:.3f} ms: {a.slowest}", flush=True)  # fmt: skip
    print(
        f"{len(kinds) - len(bad)} of {len(kinds)} fine, seed {args.seed}" + (f"; not: {', '.join(bad)}" if bad else "")
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
