"""The command `engine`.  One module a command, imported when it is named.

A command's module has `add(parsers)`, which makes its parser (with `command_parser`), and `run(args) -> int`, its exit
status: 0 all that was checked held, 1 something did not (or nobody reads the output any more), 2 a user's mistake, or
an output that cannot be written, 3 the engine failed in mid-run, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from engine.errors import EngineError, UsageError, reason

COMMANDS = {
    "run": "replay shipped recordings of real boots over every path, check every answer, write a report",
    "replay": "replay recorded guests against their references",
    "diff": "compare parts with QEMU, or with another configuration of the engine, by random programs",
    "screenshot": "write what a recorded guest's screen shows, as a PNG file",
    "trace": "look into a recorded guest, take its content out, export it",
    "machine": "check, show and import machine files",
    "devices": "list the modelled parts and their registers",
    "serve": "serve a machine over qtest and QMP, as QEMU does",
    "bench": "the performance suite, with its limits",
    "study": "a declared experiment over paths and loads, with intervals and plots",
}


def command_parser(parsers: Any, name: str, description: str, example: str) -> argparse.ArgumentParser:
    """The parser of one command: help that keeps its line breaks, and an example at the end."""
    parser: argparse.ArgumentParser = parsers.add_parser(
        name,
        help=COMMANDS[name],
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _parser(argv: Sequence[str]) -> tuple[argparse.ArgumentParser, Any, dict[str, Any]]:
    """(the whole parser, its commands' parsers, their modules); only the command that argv names is imported."""
    top = argparse.ArgumentParser(
        prog="engine",
        description="x86 PC devices without a virtual machine monitor around them.",
        epilog="first: engine run.  Every command has --help.",
    )
    top.add_argument("--version", action="store_true", help="print the version")
    parsers = top.add_subparsers(dest="command", metavar="COMMAND")
    named = next((a for a in argv if not a.startswith("-")), "")
    modules = {}
    for name, text in COMMANDS.items():
        if name == named and find_spec(f"engine.cli.{name}"):
            modules[name] = import_module(f"engine.cli.{name}")
            modules[name].add(parsers)
        elif find_spec(f"engine.cli.{name}"):
            parsers.add_parser(name, help=text)
    return top, parsers, modules


def _dispatch(argv: Sequence[str]) -> int:
    top, parsers, modules = _parser(argv)
    args, rest = top.parse_known_args(argv)
    if rest:
        (parsers.choices.get(args.command) or top).error(f"unrecognized arguments: {' '.join(rest)}")
    if args.version:
        from engine import __version__

        print(f"engine {__version__}")
        return 0
    if args.command is None:
        top.print_help()
        return 2
    try:
        status: int = modules[args.command].run(args)
        return status
    except UsageError as e:
        print(f"engine {args.command}: {e}", file=sys.stderr)
        return 2
    except EngineError as e:
        print(f"engine {args.command}: {e}", file=sys.stderr)
        return 3


def standard_streams() -> None:
    """Closed streams lead nowhere, so that no file gets their number; what the output's encoding lacks is escaped."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: fd
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _silence() -> None:
    """Nothing more can be written to standard output: or the interpreter complains once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    standard_streams()
    try:
        status = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except SystemExit as e:  # argparse: 0 after --help, 2 after a mistake
        return e.code if isinstance(e.code, int) else 2
    except KeyboardInterrupt:
        print("engine: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _silence()
        return 1
    except OSError as e:  # files that a command names it answers for itself
        print(f"engine: {e.filename or 'the output'}: {reason(e)}", file=sys.stderr)
        _silence()
        return 2
