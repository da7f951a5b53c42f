"""engine devices: the parts there are, with regions, pins, settings and register maps."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from engine._device import Device, PyDevice
from engine.cli.text import Page, hexes, write_json
from engine.errors import MachineError
from engine.registry import TYPES, device_class
from engine.types import Region

EXAMPLES = """examples:
  engine devices list
  engine devices show uart16550
  engine devices show hpet --json hpet.json
"""


def add(subparsers: Any) -> None:
    """The command's arguments."""
    top = subparsers.add_parser(
        "devices",
        help="list the modelled parts, show their register maps",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="list|show")
    every = verbs.add_parser(
        "list", help="list the device types", description="List the device types a machine file may name."
    )
    show = verbs.add_parser(
        "show",
        help="print one part's register map",
        description="Print one part's regions, pins, settings and registers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument("type", metavar="TYPE")
    for parser in (every, show):
        parser.add_argument(
            "--json", metavar="FILE", help="write the result as JSON too ('-': instead, to standard output)"
        )


def run(args: argparse.Namespace) -> int:
    """Exit status of the command."""
    facts = [describe(name) for name in (TYPES if args.verb == "list" else [args.type])]
    if args.json:
        write_json(args.json, {"devices": facts} if args.verb == "list" else facts[0])
    if args.json != "-":
        (_list_page(facts) if args.verb == "list" else _show_page(facts[0])).print()
    return 0


def describe(name: str) -> dict[str, Any]:
    """Everything about a device type, as plain data.  Raises MachineError if there is no such type, or it cannot be loaded."""
    try:
        cls = device_class(name)
    except (ImportError, AttributeError) as e:
        raise MachineError(f"device type {name!r}: {TYPES[name]} cannot be loaded ({e}); rebuild the engine") from None
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
        "messages": {
            "sends": bool(getattr(cls, "MESSAGE_SOURCE", False)),
            "takes": bool(getattr(cls, "MESSAGE_SINK", False)),
        },
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
    }


def _regions(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [r for r in facts["regions"] if r["size"]]


def _list_page(facts: list[dict[str, Any]]) -> Page:
    p = Page()
    p.table(
        ("type", "title", "regions", "out", "in", "registers"),
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
    return p


def _pins(names: list[str]) -> str:
    return " ".join(names) if len(names) <= 3 else f"{names[0]}..{names[-1]} ({len(names)})"


def _show_page(f: dict[str, Any]) -> Page:
    p = Page()
    p.line(f"{f['type']}: {f['title']}", "bold")
    p.line(f"  {f['part']}")
    p.line(f"  {f['class']}" + (", written in Python" if f["python"] else ""))
    p.heading("regions")
    p.table(
        ("name", "space", "bytes", "accepts", "executes", "policy"),
        [
            (
                r["name"],
                r["space"],
                f"{r['size']:#x}",
                "/".join(map(str, r["accepts"])),
                "-".join(map(str, sorted(set(r["implements"])))),
                " ".join(k for k in ("posted", "barrier") if r[k]) or "-",
            )
            for r in _regions(f)
        ],
    )
    p.heading("pins")
    p.line(f"  out: {' '.join(f['outputs']) or 'none'}")
    p.line(f"  in:  {' '.join(f['inputs']) or 'none'}")
    for key, text in (("sends", "sends message-signalled interrupts"), ("takes", "takes message-signalled interrupts")):
        if f["messages"][key]:
            p.line(f"  {text}")
    if f["settings"]:
        p.heading("settings")
        p.table(("name", "type", "default"), [(s["name"], s["type"], str(s["default"])) for s in f["settings"]])
    p.heading(f"registers ({len(f['registers'])})")
    p.table(
        ("region", "at", "name", "bits", "access", "reset", "writable", "section", "side effects"),
        [
            (
                r["region"],
                f"+{r['offset']:#04x}" + (f"[{r['index']:#04x}]" if r["index"] is not None else ""),
                r["name"],
                str(r["width"]),
                r["access"],
                hexes(r["reset"], r["width"]),
                (f"w1c {hexes(r['w1c'], r['width'])}" if r["w1c"] else "")
                + (" " if r["w1c"] and r["wmask"] else "")
                + (hexes(r["wmask"], r["width"]) if r["wmask"] else "")
                or "-",
                r["section"],
                r["side_effects"],
            )
            for r in f["registers"]
        ],
    )
    return p
