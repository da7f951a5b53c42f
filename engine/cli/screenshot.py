"""engine screenshot: the VGA's picture at a moment of a recorded guest."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine import data
from engine.cli import command_parser
from engine.cli.output import Output, progress, time_text
from engine.cli.text import check_output
from engine.errors import UsageError
from engine.frontends import replay
from engine.frontends.trace import Trace, load

UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "": 10**9}
FORMATS = {".png": "png", ".ppm": "ppm"}


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser."""
    p = command_parser(
        parsers,
        "screenshot",
        "Replay a recorded guest up to a moment and write what its screen shows then.  What a guest drew in a linear\n"
        "frame buffer is on it as far as the recording has those writes.",
        "engine screenshot grub-pc --at 12.5 -o grub.png",
    )
    p.add_argument("trace", metavar="TRACE", help=f"a trace file, or a shipped trace: {', '.join(data.traces())}")
    p.add_argument("-o", "--output", metavar="FILE", required=True, help="where to; the ending says how: .png or .ppm")
    p.add_argument("--at", metavar="T", help="moment of the recording: 2.5 or 2500ms (default: its end)")
    p.add_argument(
        "--machine",
        default="auto",
        metavar="FILE|auto",
        help="machine file or board; auto: from the side file (default)",
    )
    p.add_argument("--file", action="append", default=[], metavar="NAME=PATH", help="content that the trace names")
    p.add_argument("--no-cursor", action="store_true", help="leave the text cursor out, as in its dark phase")
    p.add_argument(
        "--blink",
        choices=["on", "off"],
        help="let attribute bit 7 blink where the guest asked for it, and draw this phase (default: it is background)",
    )


def moment(text: str) -> int:
    """'2.5', '2500ms' -> ns.  Raises UsageError."""
    m = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|ms|s|)", text.strip())
    if not m:
        raise UsageError(f"--at {text}: write a time like 2.5 or 2500ms")
    return round(float(m[1]) * UNITS[m[2]])


def until(trace: Trace, t_ns: int) -> Trace:
    """What of a recording lies before or at t_ns."""
    n = int(np.searchsorted(trace.acc["t_ns"], t_ns, side="right"))
    return replace(
        trace, acc=trace.acc[:n], evt=trace.evt[trace.evt["index"] <= n], dma=trace.dma[trace.dma["index"] <= n]
    )


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    out = Path(args.output)
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"-o {args.output}: the name should end in {' or '.join(FORMATS)}")
    check_output("-o", args.output)
    t_ns = None if args.at is None else moment(args.at)
    trace = load(data.trace(args.trace))
    last = int(trace.acc["t_ns"][-1]) if len(trace.acc) else 0
    if t_ns is not None:
        if t_ns > last:
            raise UsageError(f"--at {args.at}: the recording ends at {time_text(last)}")
        trace = until(trace, t_ns)
    job = replay.open_job(trace, None, args.machine, replay.parse_files(args.file))
    with progress() as step, replay.running(job, "local", 0) as machine:
        replay.execute(machine, trace, trace.acc, step(trace.stem, len(trace.acc)), learn=True)
        blink = None if args.blink is None else args.blink == "on"
        picture = machine.screen(cursor=not args.no_cursor, blink=blink)
    try:
        out.write_bytes(getattr(picture, FORMATS[out.suffix.lower()])())
    except OSError as e:
        raise UsageError(f"{args.output}: cannot be written ({e.strerror})") from None
    when = time_text(last if t_ns is None else t_ns)
    Output().line(f"{args.output}: {picture.width} x {picture.height}, {trace.stem} at {when}")
    return 0
