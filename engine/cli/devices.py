"""engine devices: the parts there are, with regions, pins, settings and register maps."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from engine._device import Device, PyDevice
from engine.cli import command_parser
from engine.cli.output import Output
from engine.cli.text import hexes, json_argument, write_json
from engine.registry import TYPES, device_class
from engine.types import Region


def add(parsers: Any) -> None:
    """The parser."""
    text = "List the parts a machine file may name; show one's regions, pins, settings and register map."
    top = command_parser(parsers, "devices", text, "engine devices show uart16550")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    every = verbs.add_parser("list", help="the device types a machine file may name")
    show = verbs.add_parser("show", help="one part's regions, pins, settings and registers")
    show.add_argument("type", metavar="TYPE", help="a type that `engine devices list` names, or package.module:Class")
    for one in (every, show):
        json_argument(one, "the same for machines")


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    facts = [describe(name) for name in (TYPES if args.verb == "list" else [args.type])]
    if args.json:
        write_json(args.json, {"devices": facts} if args.verb == "list" else facts[0])
    out = Output(sys.stderr if args.json == "-" else None)
    if args.verb == "list":
        print_list(facts, out)
    else:
        print_one(facts[0], out)
    return 0


def describe(name: str) -> dict[str, Any]:
    """A device type as plain data.  Raises MachineError if there is none of that name, or it cannot be loaded."""
    cls = device_class(name)
    device = cls()
    regions = device.regions()
    return {
        "type": name,
        "title": cls.TITLE,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "part": _part(cls),
        "python": issubclass(cls, PyDevice),
        "regions": [_region(i, r) for i, r in enumerate(regions)],
        "outputs": list(cls.OUT),
        "inputs": list(cls.IN),
        "takes_messages": cls.MESSAGE_SINK,
        "settings": [
            {"name": k, "type": type(v).__name__ if v is not None else "any", "default": v}
            for k, v in cls.CONFIG.items()
        ],
        "registers": [
            {
                "name": r.name,
                "region": regions[r.region].name,
                "offset": r.offset,
                "index": r.index,
                "width": r.width,
                "access": r.access,
                "reset": r.reset,
                "wmask": r.wmask,
                "w1c": r.w1c,
                "side_effects": r.side_effects,
                "section": r.section,
            }
            for r in cls.REGISTERS
        ],
    }


def _part(cls: type[Device]) -> str:
    """The first paragraph of the module's docstring: the part and its document."""
    return " ".join((sys.modules[cls.__module__].__doc__ or "").split("\n\n")[0].split())


def _region(number: int, r: Region) -> dict[str, Any]:
    return {
        "number": number,
        "name": r.name,
        "space": r.space.name,
        "size": r.size,
        "accepts": list(r.accepts),
        "implements": list(r.implements),
        "posted": r.posted,
        "barrier": r.barrier,
        "clock": r.clock is not None,
    }


def _regions(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [r for r in facts["regions"] if r["size"]]


def print_list(facts: list[dict[str, Any]], out: Output) -> None:
    """Every type, a line each."""
    out.table(
        "",
        ("type", "title", "regions", "out", "in", ">registers"),
        [
            (
                f["type"],
                f["title"],
                " ".join(r["name"] for r in _regions(f)[:4]) + (" ..." if len(_regions(f)) > 4 else ""),
                _pins(f["outputs"]),
                _pins(f["inputs"]),
                str(len(f["registers"])),
            )
            for f in facts
        ],
    )


def _pins(names: list[str]) -> str:
    return " ".join(names) if len(names) <= 3 else f"{names[0]}..{names[-1]} ({len(names)})"


def print_one(f: dict[str, Any], out: Output) -> None:
    """One type, whole."""
    out.line(f"{f['type']}: {f['title']}", "bold")
    out.line(f"  {f['part']}")
    out.line(f"  {f['class']}" + (", written in Python" if f["python"] else ""))
    out.line()
    out.table(
        "regions",
        ("name", "space", ">bytes", "accepts", "executes", "policy"),
        [
            (
                r["name"],
                r["space"],
                f"{r['size']:#x}",
                "/".join(map(str, r["accepts"])),
                "-".join(map(str, sorted(set(r["implements"])))),
                " ".join(k for k in ("posted", "barrier", "clock") if r[k]) or "-",
            )
            for r in _regions(f)
        ],
    )
    out.line()
    out.line("pins", "bold")
    out.line(f"  out: {' '.join(f['outputs']) or 'none'}")
    out.line(f"  in:  {' '.join(f['inputs']) or 'none'}")
    if f["takes_messages"]:
        out.line("  takes message-signalled interrupts")
    if f["settings"]:
        out.line()
        rows = [(s["name"], s["type"], str(s["default"])) for s in f["settings"]]
        out.table("settings", ("name", "type", "default"), rows)
    out.line()
    columns = ("region", "at", "name", ">bits", "access", "reset", "writable", "section", "side effects")
    out.table(
        f"registers ({len(f['registers'])})",
        columns,
        [
            (
                r["region"],
                _at(r),
                r["name"],
                str(r["width"]),
                r["access"],
                hexes(r["reset"], r["width"]),
                _writable(r),
                r["section"],
                r["side_effects"],
            )
            for r in f["registers"]
        ],
    )


def _at(r: dict[str, Any]) -> str:
    return f"+{r['offset']:#04x}" + (f"[{r['index']:#04x}]" if r["index"] is not None else "")


def _writable(r: dict[str, Any]) -> str:
    masks = [f"w1c {hexes(r['w1c'], r['width'])}"] * bool(r["w1c"]) + [hexes(r["wmask"], r["width"])] * bool(r["wmask"])
    return " ".join(masks) or "-"
