"""engine machine: check, show and import machine files, list the boards that come with the engine."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine._device import Device
from engine._executor import Executor
from engine.cli import command_parser
from engine.cli.output import Output
from engine.cli.text import json_argument, write_json
from engine.errors import UsageError, reason
from engine.frontends.replay import parse_files
from engine.machine.build import CONFIG_REGION, Placed, Plan, PlannedDevice, bus_path, connect, plan
from engine.machine.derive import derive
from engine.machine.qemu_args import Imported, from_qemu
from engine.machine.spec import check_workers, load, load_placement, shipped_boards
from engine.types import Bdf, Space
from engine.workers import placement

CONFIG_PORTS = ((0xCF8, "pci-conf-idx"), (0xCFC, "pci-conf-data"))
WIRES = "wires (level: place in the order of units, drivers first)"


def add(parsers: Any) -> None:
    """The parser."""
    top = command_parser(
        parsers,
        "machine",
        "Check, show and import machine files; list the boards that come with the engine.",
        "engine machine import --from boot.json > pc.toml && engine machine show pc.toml --workers 3",
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    check = verbs.add_parser(
        "check",
        help="say whether a machine file can be built",
        description="Read a machine file and lay it out: keys, types, overlaps, wires, peers, units, placement, "
        "images.  Exit 0 if it can be built; else one line says what, where, and which two parties.  Nothing of the "
        "host is taken: locks of images, TAP interfaces and sockets are met when the machine starts.",
    )
    show = verbs.add_parser(
        "show",
        help="memory map, port map, functions, wires, units and placement",
        description="Print what a machine file makes, in the style of QEMU's `info mtree`.",
    )
    for one in (check, show):
        one.add_argument("source", metavar="FILE|BOARD")
    placement_arguments(show)
    imp = verbs.add_parser(
        "import",
        help="turn a QEMU command line into a machine file",
        description="Print the machine file for a QEMU command line, and on standard error what of it is not modelled.",
        epilog="example:\n  engine machine import -- -M pc -m 256 -drive if=ide,index=0,file=disk.img > pc.toml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    imp.add_argument(
        "--from",
        dest="origin",
        metavar="FILE",
        help="a trace's side file (JSON with machine_args), or a text file with a command line",
    )
    imp.add_argument(
        "--file", action="append", default=[], metavar="NAME=PATH", help="the file for a placeholder {NAME}"
    )
    imp.add_argument("args", nargs="*", metavar="-- QEMU ARGS", help="the command line, behind --")
    boards = verbs.add_parser("list", help="the boards that come with the engine")
    for one in (check, show, imp, boards):
        json_argument(one, "the same for machines")


def placement_arguments(parser: argparse.ArgumentParser) -> None:
    """--workers and --placement, as every command that places devices has them."""
    parser.add_argument(
        "--workers", type=int, metavar="N", help="number of worker processes (default: as the machine file says)"
    )
    parser.add_argument(
        "--placement",
        metavar="FILE|spread|random:SEED",
        help="who owns what: a TOML file with a [placement] table, heaviest parts "
        "apart, or a random legal placement (default: as the machine file says)",
    )


def _output(args: argparse.Namespace) -> Output:
    return Output(sys.stderr if args.json == "-" else None)


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    return {"check": _check, "show": _show, "import": _import, "list": _list}[args.verb](args)


def choose_owners(planned: Plan, workers: int | None, how: str | None) -> list[int]:
    """The worker of each unit, from --workers and --placement; [] for no workers.  Raises MachineError, UsageError."""
    spec = planned.spec.placement
    if workers is not None:
        check_workers(workers, "--workers")
    if how is not None and how != "spread" and not how.startswith("random:"):
        spec = load_placement(how)
        if workers not in (None, spec.workers):
            raise UsageError(
                f"--workers {workers}: {how} places devices on {spec.workers} workers; leave one of the two away"
            )
        return placement.from_spec(replace(planned, spec=replace(planned.spec, placement=spec, path=how)), spec)
    n = spec.workers if workers is None else workers
    if how is None:
        if workers is None or workers == spec.workers:
            return placement.from_spec(planned, spec) if n else []
        return placement.spread(planned, n)
    if workers is None and not n:
        raise UsageError(f"--placement {how}: say how many workers with --workers N")
    if how == "spread":
        return placement.spread(planned, n)
    try:
        seed = int(how.removeprefix("random:"))
    except ValueError:
        raise UsageError(f"--placement {how}: the seed is a whole number, as in random:7") from None
    return placement.shuffled(planned, n, seed)


def _planned(source: str) -> tuple[Plan, dict[str, Device]]:
    probes: dict[str, Device] = {}
    return plan(derive(load(source)), probes), probes


# ---------------------------------------------------------------------- check


def _check(args: argparse.Namespace) -> int:
    planned, probes = _planned(args.source)
    connect(planned.spec, probes)
    owners = choose_owners(planned, None, None)
    counts = {
        "devices": len(planned.devices),
        "regions": len(planned.placed),
        "wires": len(planned.nets),
        "units": len(planned.units),
        "functions": sum(p.spec.bdf is not None for p in planned.devices),
        "workers": max(owners, default=-1) + 1,
    }
    if args.json:
        write_json(args.json, {"ok": True, "source": args.source, "board": planned.spec.board.name, **counts})
    name = planned.spec.board.title or planned.spec.board.name
    parts = [f"{n} {what if n != 1 else what[:-1]}" for what, n in counts.items() if n or what != "workers"]
    _output(args).line(f"ok: {args.source}: {name}: {', '.join(parts)}")
    return 0


# ---------------------------------------------------------------------- show


def describe(planned: Plan, probes: dict[str, Device], owners: list[int]) -> dict[str, Any]:
    """Everything `show` prints, as plain data."""
    board = planned.spec.board
    low = min(board.ram, board.low_ram)
    ram = [{"base": 0, "size": low}] + ([{"base": 1 << 32, "size": board.ram - low}] if board.ram > low else [])
    vcpu_of = {region: vcpu for table in planned.vcpu_regions.values() for vcpu, region in table.items()}
    out: dict[str, Any] = {
        "board": {k: v for k, v in asdict(board).items() if k != "facts"},
        "ram": ram,
        "memory": [_range(planned, q, vcpu_of) for q in _sorted(planned, Space.MMIO)],
        "ports": [_range(planned, q, vcpu_of) for q in _sorted(planned, Space.PIO)],
        "guest_maps": _guest_maps(planned),
        "functions": _functions(planned, probes),
        "wires": [
            {
                "name": n.name,
                "level": n.level,
                "line": n.line if n.line >= 0 else None,
                "sources": [_pin(planned, r, pin, True) for r, pin in n.sources],
                "sinks": [_pin(planned, r, pin, False) for r, pin in n.sinks],
                "inner": [_pin(planned, r, pin, False) for r, pin in n.inner],
            }
            for n in planned.nets
        ],
        "messages": {"sinks": [planned.devices[r].id for r in planned.message_sinks]},
        "units": [
            {
                "name": planned.unit_names[u],
                "level": planned.unit_level[u],
                "devices": [planned.devices[r].id for r in ranks],
                "worker": owners[u] + 1 if owners else None,
            }
            for u, ranks in enumerate(planned.units)
        ],
        "workers": placement.table(planned, owners),
    }
    return out


def _sorted(planned: Plan, space: Space) -> list[Placed]:
    return sorted((q for q in planned.placed if q.space == space), key=lambda q: (q.base, q.region))


def _range(planned: Plan, q: Placed, vcpu_of: dict[int, int]) -> dict[str, Any]:
    d = planned.devices[q.rank]
    r = d.regions[q.index]
    return {
        "base": q.base,
        "size": r.size,
        "region": r.name,
        "device": d.id,
        "priority": r.priority,
        "posted": r.posted,
        "barrier": r.barrier,
        "vcpu": vcpu_of.get(q.region),
    }


def _guest_maps(planned: Plan) -> list[dict[str, Any]]:
    """Regions without an address at power-on: the guest gives them one."""
    placed = {(q.rank, q.index) for q in planned.placed}
    return [
        {
            "device": d.id,
            "region": r.name,
            "space": r.space.name,
            "size": r.size,
            "bar": i if d.spec.bdf and i < 7 else None,
        }
        for d in planned.devices
        for i, r in enumerate(d.regions)
        if r.size and (d.rank, i) not in placed
    ]


def _functions(planned: Plan, probes: dict[str, Device]) -> list[dict[str, Any]]:
    out = []

    def path(d: PlannedDevice) -> list[Bdf]:
        """The address of each bridge above a function, from bus 0 on, and its own."""
        return [s.bdf or Bdf(0, 0, 0) for s in (*reversed(bus_path(planned.spec, d.spec)), d.spec)]

    for d in sorted((d for d in planned.devices if d.spec.bdf is not None), key=path):
        probe = probes[d.id]
        one = Executor([probe])
        one.map_region(0, probe.rank, CONFIG_REGION, 0)
        ids, _, class_code = (one.run_access(0, 0, at, 4, False)[1] for at in (0x00, 0x04, 0x08))
        bars = [
            {"bar": i, "region": r.name, "space": r.space.name, "size": r.size}
            for i, r in enumerate(d.regions[:7])
            if r.size
        ]
        out.append(
            {
                "bdf": str(d.spec.bdf),
                "behind": d.spec.bus or None,
                "depth": len(path(d)) - 1,
                "device": d.id,
                "type": d.spec.type,
                "vendor_id": ids & 0xFFFF,
                "device_id": ids >> 16,
                "class": class_code >> 8,
                "revision": class_code & 0xFF,
                "title": d.cls.TITLE,
                "bars": bars,
            }
        )
    return out


def _pin(planned: Plan, rank: int, pin: int, out: bool) -> str:
    d = planned.devices[rank]
    return f"{d.id}.{(d.cls.OUT if out else d.cls.IN)[pin]}"


def print_page(facts: dict[str, Any], out: Output) -> None:
    """What describe() found, for people."""
    board = facts["board"]
    out.line(f"machine {board['name']}: {board['title'] or 'no title'}", "bold")
    out.line(f"  {board['ram'] >> 20} MiB RAM, {board['cpus']} vCPU, configuration by {board['config_access']}")

    rows = [(r["base"], 0, f"    {_span(r, 16)} (ram): ram") for r in facts["ram"]]
    rows += [(m["base"], 1, f"    {_span(m, 16)} {_what(m)}") for m in facts["memory"]]
    _heading(out, "address-space: memory")
    out.line(f"  {_span({'base': 0, 'size': 1 << 52}, 16)} (container): unclaimed reads give {board['mmio_unclaimed']}")
    for _, _, text in sorted(rows):
        out.line(text)

    rows = [(m["base"], 1, f"    {_span(m, 4)} {_what(m)}") for m in facts["ports"]]
    if board["config_access"] != "none":
        rows += [(at, 0, f"    {at:04x}-{at + 3:04x} (router): {name}") for at, name in CONFIG_PORTS]
    _heading(out, "address-space: I/O")
    out.line(f"  0000-ffff (container): unclaimed reads give {board['pio_unclaimed']}")
    for _, _, text in sorted(rows):
        out.line(text)

    if facts["guest_maps"]:
        _table(
            out,
            "mapped by the guest",
            ("device", "region", "space", ">size", "by"),
            [(m["device"], m["region"], m["space"], f"{m['size']:#x}", _by(m["bar"])) for m in facts["guest_maps"]],
        )
    if facts["functions"]:
        _table(
            out,
            "PCI functions",
            ("address", "device", "type", "ids", "class", "rev", "BARs"),
            [
                (
                    f["bdf"] if not f["depth"] else f"{'   ' * (f['depth'] - 1)}+- {f['bdf'].partition(':')[2]}",
                    f["device"],
                    f["type"],
                    f"{f['vendor_id']:04x}:{f['device_id']:04x}",
                    f"{f['class']:06x}",
                    f"{f['revision']:02x}",
                    ", ".join(f"{_by(b['bar'])} {b['region']} {b['size']:#x}" for b in f["bars"]) or "-",
                )
                for f in facts["functions"]
            ],
        )
    _table(
        out,
        WIRES,
        ("wire", ">level", ">line", "from", "to"),
        [
            (
                n["name"],
                str(n["level"]),
                "-" if n["line"] is None else str(n["line"]),
                " + ".join(n["sources"]) or "(outside)",
                _ends(n),
            )
            for n in facts["wires"]
        ],
    )
    if facts["messages"]["sinks"]:
        out.line(f"  message-signalled interrupts go to {', '.join(facts['messages']['sinks'])}")
    _table(
        out,
        "same_worker units",
        ("unit", ">level", ">worker", "devices"),
        [
            (u["name"], str(u["level"]), "-" if u["worker"] is None else str(u["worker"]), " ".join(u["devices"]))
            for u in facts["units"]
        ],
    )
    _heading(out, "placement")
    if not facts["workers"]:
        out.line("  no workers: every device in the calling process")
    for number, devices in enumerate(facts["workers"], 1):
        out.line(f"  worker {number}: {' '.join(devices) or '(idle)'}")


def _heading(out: Output, text: str) -> None:
    out.line()
    out.line(text, "bold")


def _table(out: Output, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    out.line()
    out.table(title, columns, rows)


def _span(r: dict[str, Any], digits: int) -> str:
    return f"{r['base']:0{digits}x}-{r['base'] + r['size'] - 1:0{digits}x}"


def _what(m: dict[str, Any]) -> str:
    vcpu = f" vCPU {m['vcpu']}" if m["vcpu"] is not None else ""
    return f"(prio {m['priority']}, i/o{', posted' if m['posted'] else ''}): {m['region']} @{m['device']}{vcpu}"


def _by(bar: int | None) -> str:
    return "register" if bar is None else "ROM" if bar == 6 else f"BAR{bar}"


def _ends(net: dict[str, Any]) -> str:
    ends = net["sinks"] + [f"{pin} (same unit)" for pin in net["inner"]]
    return ", ".join(ends) or ("(observed)" if net["line"] is not None else "(nowhere)")


def _show(args: argparse.Namespace) -> int:
    planned, probes = _planned(args.source)
    facts = describe(planned, probes, choose_owners(planned, args.workers, args.placement))
    if args.json:
        write_json(args.json, facts)
    print_page(facts, _output(args))
    return 0


# ---------------------------------------------------------------------- import


def _origin(path: str) -> tuple[list[str], dict[str, int]]:
    """(arguments, sizes of the files they name) in a trace's side file or a text file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"--from {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"--from {path}: cannot be read ({reason(e)})") from None
    if text.lstrip().startswith("{"):
        try:
            side = json.loads(text)
            args = side["machine_args"]
            sizes = {str(name): int(f.get("bytes", 0)) for name, f in side.get("files", {}).items()}
        except (ValueError, KeyError, AttributeError, TypeError) as e:
            raise UsageError(
                f"--from {path}: not a trace's side file ({type(e).__name__}: {e}); machine_args is wanted"
            ) from None
        if not isinstance(args, list) or not all(isinstance(a, str) for a in args):
            raise UsageError(f"--from {path}: machine_args is no list of strings")
        return ["-serial", "null", *args], sizes  # the recorder adds the serial port
    try:
        return shlex.split(text.replace("\\\n", " "), comments=True), {}
    except ValueError as e:
        raise UsageError(f"--from {path}: not a command line ({e})") from None


def _import(args: argparse.Namespace) -> int:
    if bool(args.origin) == bool(args.args):
        raise UsageError("import: give either --from FILE or -- QEMU ARGS")
    words, sizes = _origin(args.origin) if args.origin else (args.args, {})
    got = from_qemu(words, parse_files(args.file), sizes)
    plan(derive(got.spec()))  # refuses here, by name, what could not be built
    if args.json:
        write_json(
            args.json,
            {
                "toml": got.text,
                "unmodelled": [{"device": d, "slot": s or None} for d, s in got.unmodelled],
                "remarks": got.remarks,
            },
        )
    if args.json != "-":
        sys.stdout.write(got.text)
    _remarks(got)
    return 0


def _remarks(got: Imported) -> None:
    for name, slot in got.unmodelled:
        print(f"not modelled: {name}" + (f" at {slot}" if slot else ""), file=sys.stderr)
    for text in got.remarks:
        print(f"note: {text}", file=sys.stderr)


# ---------------------------------------------------------------------- list


def _list(args: argparse.Namespace) -> int:
    boards = [(name, load(name)) for name in shipped_boards()]
    if args.json:
        rows = [
            {
                "name": name,
                "title": s.board.title,
                "chipset": s.board.chipset,
                "ram": s.board.ram,
                "devices": [d.id for d in s.devices],
            }
            for name, s in boards
        ]
        write_json(args.json, {"boards": rows})
    _output(args).table(
        "",
        ("board", "title", ">devices", ">functions", ">RAM"),
        [
            (
                name,
                s.board.title,
                str(len(s.devices)),
                str(sum(d.bdf is not None for d in s.devices)),
                f"{s.board.ram >> 20}M",
            )
            for name, s in boards
        ],
    )
    return 0
