"""engine trace: look into a recorded guest, take its content out, write it for other tools."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine import data
from engine.cli import command_parser
from engine.cli.output import NOTE, Cell, Output, progress
from engine.cli.text import json_argument
from engine.errors import UsageError
from engine.frontends import replay
from engine.frontends.trace import EV_MSI, EV_PIC_ACK, EV_PS2, EV_VECTOR, Trace, golden_path, load, load_golden

EVENTS = {
    EV_VECTOR: "interrupt taken",
    EV_PIC_ACK: "8259 acknowledge",
    EV_MSI: "message-signalled interrupt",
    EV_PS2: "key",
}
SECTOR = 512


def add(parsers: Any) -> None:
    """The parser."""
    p = command_parser(parsers, "trace", "Look into a recorded guest.", "engine trace info seabios-pc")
    acts = p.add_subparsers(dest="action", metavar="ACTION", required=True)
    info = acts.add_parser("info", help="the guest, its machine, accesses by region, events, the reference")
    json_argument(info, "the same for machines")
    contents = acts.add_parser(
        "contents", help="the content that devices handed over: firmware configuration items, disk sectors"
    )
    contents.add_argument(
        "--out", metavar="DIR", help="write the content as files, with an index.json; without it only the list is shown"
    )
    export = acts.add_parser("export", help="the accesses as commands of QEMU's qtest protocol")
    export.add_argument("--qtest", metavar="FILE", required=True, help="where to; - is standard output")
    for one in (info, contents, export):
        one.add_argument("trace", metavar="TRACE", help=f"a trace file, or a shipped trace: {', '.join(data.traces())}")


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    trace = load(data.trace(args.trace))
    actions = {"info": _info, "contents": _contents, "export": _export}
    actions[args.action](trace, args)
    return 0


def summary(trace: Trace) -> dict[str, Any]:
    """A trace's numbers."""
    acc = trace.acc
    number, names = trace.region_names()
    rows = []
    for i, name in enumerate(names):
        mine = acc[number == i]
        if len(mine):
            rows.append(
                {
                    "region": name,
                    "device": replay.device_type(name),
                    "accesses": len(mine),
                    "reads": int((mine["dir"] == 0).sum()),
                    "space": ("pio", "mmio")[int(mine["space"][0])],
                    "first": hex(int(mine["addr"].min())),
                    "last": hex(int(mine["addr"].max())),
                    "sizes": sorted({int(s) for s in np.unique(mine["size"])}),
                }
            )
    rows.sort(key=lambda r: -r["accesses"])  # type: ignore[operator]
    golden = golden_path(trace)
    out = {
        "trace": trace.stem,
        "guest": trace.side.get("guest", ""),
        "recorded_on": trace.side.get("qemu", ""),
        "machine_args": trace.side.get("machine_args", []),
        "files": trace.side.get("files", {}),
        "accesses": len(acc),
        "reads": int((acc["dir"] == 0).sum()),
        "vcpus": int(acc["vcpu"].max()) + 1 if len(acc) else 0,
        "virtual_s": float(acc["t_ns"][-1]) / 1e9 if len(acc) else 0.0,
        "events": {name: int((trace.evt["kind"] == kind).sum()) for kind, name in EVENTS.items()},
        "dma": {"reads": len(trace.dma), "bytes": int(trace.dma["len"].sum())},
        "regions": rows,
        "reference": None,
    }
    if golden.is_file():
        g = load_golden(golden, trace)
        out["reference"] = {
            "file": golden.name,
            "by": g.side.get("qemu", ""),
            "vectors": len(g.vector),
            "line_changes": len(g.irq),
        }
    return out


def _info(trace: Trace, args: argparse.Namespace) -> None:
    s = summary(trace)
    out = Output(sys.stderr if args.json == "-" else None)
    out.line(f"{s['trace']}: {s['guest']}" if s["guest"] else s["trace"])
    out.line(f"recorded on {s['recorded_on']}" if s["recorded_on"] else "no side file: machine unknown", NOTE)
    out.line(
        f"{s['accesses']:,} accesses ({s['reads']:,} reads) of {s['vcpus']} vCPU in {s['virtual_s']:.3f} s of virtual "
        "time"
    )
    out.line(
        "events: "
        + ", ".join(f"{n:,} x {name}" for name, n in s["events"].items() if n)
        + f"; {s['dma']['reads']:,} reads of guest RAM by devices "
        f"({s['dma']['bytes']:,} bytes)"
    )
    if s["files"]:
        out.line(
            "content that belongs to it (--file NAME=PATH): "
            + ", ".join(f"{k} ({f.get('name')}, {f.get('bytes'):,} bytes)" for k, f in s["files"].items())
        )
    ref = s["reference"]
    out.line(
        f"reference: {ref['file']}, {ref['vectors']:,} vectors, {ref['line_changes']:,} line changes"
        if ref
        else "reference: none beside it"
    )
    rows: list[list[Cell]] = []
    for r in s["regions"]:
        modelled: Cell = ("not modelled", NOTE) if r["device"] is None else r["device"] or "router"
        rows.append(
            [
                r["region"],
                r["space"],
                f"{r['first']}-{r['last']}",
                "/".join(map(str, r["sizes"])),
                f"{r['accesses']:,}",
                f"{r['reads']:,}",
                f"{100 * r['accesses'] / s['accesses']:.1f} %",
                modelled,
            ]
        )
    out.table("", ["region", "space", "addresses", "sizes", ">accesses", ">reads", ">share", "part"], rows)
    if args.json is not None:
        _put(args.json, json.dumps(s, indent=1) + "\n")


def _put(name: str, text: str) -> None:
    if name == "-":
        sys.stdout.write(text)
        return
    try:
        Path(name).write_text(text)
    except OSError as e:
        raise UsageError(f"{name}: cannot be written ({e.strerror})") from None


def contents(trace: Trace) -> Iterator[tuple[dict[str, Any], bytes]]:
    """(index entry, bytes) of each piece of content that the trace's reads carry."""
    job = replay.open_job(trace, None, "auto", {})
    with progress() as step:
        replay.learn(job, step(f"{trace.stem}: content", len(trace.acc)))
    for id, pieces in sorted(job.contents.items()):
        for key, body in sorted(pieces.items(), key=lambda kv: str(kv[0])):
            entry: dict[str, Any] = {"device": id, "bytes": len(body)}
            drive = re.fullmatch(r"(\d+):(\d+) (\d+)", str(key))
            if drive:
                channel, unit, first = map(int, drive.groups())
                entry |= {
                    "channel": channel,
                    "unit": unit,
                    "lba": first,
                    "sectors": len(body) // SECTOR,
                    "file": f"{id}-{channel}-{unit}-lba{first}.bin",
                }
            else:
                name = key if isinstance(key, str) else f"{key:#06x}"
                entry |= {"name": key} if isinstance(key, str) else {"selector": key}
                entry["file"] = f"{id}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.bin"
            yield entry, body


def _contents(trace: Trace, args: argparse.Namespace) -> None:
    found = list(contents(trace))
    out = Output()
    rows: list[list[Cell]] = []
    for e, _ in found:
        what = (
            f"LBA {e['lba']:,} to {e['lba'] + e['sectors'] - 1:,}, drive {e['channel']}:{e['unit']}"
            if "lba" in e
            else e.get("name", f"selector {e.get('selector', 0):#06x}")
        )
        rows.append([e["device"], what, f"{e['bytes']:,}", e["file"] if args.out else ""])
    out.table(
        f"{trace.stem}: content in its reads" if rows else f"{trace.stem}: no content in its reads",
        ["device", "content", ">bytes", "file"],
        rows,
    )
    if args.out is None:
        return
    folder = Path(args.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for e, body in found:
            (folder / e["file"]).write_bytes(body)
        (folder / "index.json").write_text(
            json.dumps({"trace": trace.stem, "contents": [e for e, _ in found]}, indent=1) + "\n"
        )
    except OSError as e:
        raise UsageError(f"{folder}: cannot be written ({e.strerror})") from None
    out.line(f"{len(found)} file{'s' if len(found) != 1 else ''} and index.json in {folder}")


def qtest_lines(trace: Trace) -> Iterator[str]:
    """The accesses as qtest commands; the clock moves where their time moves.  8-byte port accesses do not exist."""
    now = -1
    letters = {1: "b", 2: "w", 4: "l", 8: "q"}
    for a in trace.acc:
        t, addr, size = int(a["t_ns"]), int(a["addr"]), int(a["size"])
        if t != now:
            now = t
            yield f"clock_set {t}\n"
        if a["space"] == 0:
            yield (
                f"out{letters[size]} {addr:#x} {int(a['value']):#x}\n" if a["dir"] else f"in{letters[size]} {addr:#x}\n"
            )
        else:
            yield (
                f"write{letters[size]} {addr:#x} {int(a['value']):#x}\n"
                if a["dir"]
                else f"read{letters[size]} {addr:#x}\n"
            )


def _export(trace: Trace, args: argparse.Namespace) -> None:
    lines = qtest_lines(trace)
    if args.qtest == "-":
        sys.stdout.writelines(lines)
        return
    try:
        with open(args.qtest, "w") as f:
            f.writelines(lines)
    except OSError as e:
        raise UsageError(f"{args.qtest}: cannot be written ({e.strerror})") from None
    taken = int((trace.evt["kind"] == EV_VECTOR).sum())
    print(
        f"{args.qtest}: {len(trace.acc):,} accesses"
        + (f"; qtest cannot take interrupts, so {taken:,} acknowledge cycles are left out" if taken else "")
    )
