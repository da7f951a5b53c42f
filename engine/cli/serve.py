"""engine serve: a machine behind a socket, driven by another program.  `engine-system-x86_64` is the same under a QEMU-
like name."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from engine.cli import command_parser, standard_streams
from engine.errors import EngineError, MachineError, UsageError
from engine.frontends.plugging import Plugging
from engine.frontends.qmp import ACTIONS, MODELS, Guest
from engine.frontends.qtest import Endpoint, Server, observing_all
from engine.frontends.unknown import check_path, take, with_recorder, write
from engine.machine import PATHS, Machine
from engine.machine.cmos import pc_cmos
from engine.machine.hotplug import store_cmos
from engine.machine.qemu_args import Importer, from_qemu, options, pairs
from engine.machine.spec import MachineSpec, check_workers, load
from engine.registry import device_class

LAUNCHER = "engine-system-x86_64"
FIRMWARE_MAX = 16 << 20
NO_FIRMWARE = bytes(256 << 10)  # the ROM is there, as large as the reference's, and empty
BOOT_BYTES = (0x38, 0x3D)

DESCRIPTION = f"""Serve a machine over the qtest protocol, with QMP beside it, as QEMU does with -accel qtest.

Behind -- stands a QEMU command line: -qtest unix:PATH[,server=on] or stdio, -chardev socket,... with -mon ..., or
-qmp ..., and the machine: -machine, -m, -device, -drive, -rtc, -global, -boot, -uuid, -bios, ...  `{LAUNCHER}`
takes the same command line without the rest, so QEMU's test programs run with QTEST_QEMU_BINARY={LAUNCHER}."""


def add(subparsers: Any) -> None:
    """The command's arguments."""
    p = command_parser(subparsers, "serve", DESCRIPTION, "engine serve qtest -- -machine pc -m 64 -qtest stdio")
    p.add_argument("protocol", choices=["qtest"])
    _add_options(p)
    p.add_argument("args", nargs=argparse.REMAINDER, metavar="-- QEMU ARGS")


def _add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--machine",
        metavar="FILE|BOARD",
        help="a machine file, instead of the machine that the QEMU command line names",
    )
    p.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="spread the devices over N worker processes (default 0: this process)",
    )
    p.add_argument(
        "--path", choices=PATHS[1:], default="batched", help="how accesses go to the workers (default %(default)s)"
    )
    p.add_argument(
        "--unknown",
        metavar="FILE",
        help="record the accesses that no device answers; written at the end as a list (.json) or a trace (.npz)",
    )


def run(args: argparse.Namespace) -> int:
    """engine serve."""
    rest = args.args
    if "--" in rest:  # options between the protocol and -- are ours, though argparse counts them as the rest
        ours = argparse.ArgumentParser(prog="engine serve qtest", add_help=False)
        _add_options(ours)
        at = rest.index("--")
        for name, value in vars(ours.parse_args(rest[:at])).items():
            if value != ours.get_default(name):
                setattr(args, name, value)
        rest = rest[at + 1 :]
    if args.workers:
        check_workers(args.workers, "--workers")
    path = args.path if args.workers else "local"
    return serve(rest, machine=args.machine, workers=args.workers, path=path, unknown=args.unknown)


@dataclass(slots=True)
class _Wanted:
    """What of a QEMU command line concerns the server."""

    endpoints: list[Endpoint] = field(default_factory=list)
    stopped: bool = False
    incoming: str = ""
    actions: dict[str, str] = field(default_factory=dict)
    machine: str = "pc"
    name: str = ""
    uuid: str = ""
    localtime: bool = False


def _endpoint(protocol: str, text: str, chardevs: dict[str, dict[str, str]]) -> Endpoint:
    """A character device as -qtest, -qmp and -mon name it."""
    o = options(text)
    if o.get("", "").startswith("chardev:") or "chardev" in o:
        id = o.get("chardev") or o[""].partition(":")[2]
        if id not in chardevs:
            raise UsageError(f"chardev {id!r} not found")
        c = chardevs[id]
        if c.get("", "") == "stdio":
            return Endpoint(protocol, "")
        if c.get("", "") != "socket" or "path" not in c:
            raise UsageError(f"chardev {id!r}: a UNIX socket with path=..., or stdio, is needed")
        return Endpoint(protocol, c["path"], c.get("server", "off") != "off")
    if o.get("") == "stdio":
        return Endpoint(protocol, "")
    kind, _, path = o.get("", "").partition(":")
    if kind != "unix" or not path:
        raise UsageError(f"-{protocol} {text}: write unix:PATH, unix:PATH,server=on or stdio")
    return Endpoint(protocol, path, o.get("server", "off") != "off")


def _actions(given: dict[str, str]) -> dict[str, str]:
    for what, action in given.items():
        if what not in ACTIONS:
            raise UsageError(f"-action {what}={action}: what can be chosen is {', '.join(ACTIONS)}")
        if action not in ACTIONS[what]:
            raise UsageError(f"-action {what}={action}: choose one of {', '.join(ACTIONS[what])}")
    return given


def _wanted(args: Sequence[str]) -> _Wanted:
    w = _Wanted()
    given = list(pairs(args))
    chardevs = {o["id"]: o for o in (options(v) for n, v in given if n == "-chardev") if "id" in o}
    for name, value in given:
        o = options(value)
        if name == "-qtest":
            w.endpoints.append(_endpoint("qtest", value, chardevs))
        elif name == "-qmp" or (name == "-mon" and o.get("mode") == "control"):
            w.endpoints.append(_endpoint("qmp", value, chardevs))
        elif name == "-S":
            w.stopped = True
        elif name == "-incoming":
            w.incoming = value
        elif name == "-no-reboot":
            w.actions["reboot"] = "shutdown"
        elif name == "-no-shutdown":
            w.actions["shutdown"] = "pause"
        elif name in ("-action", "-watchdog-action"):
            w.actions |= _actions(o if name == "-action" else {"watchdog": value})
        elif name in ("-M", "-machine"):
            w.machine = o.get("", o.get("type", w.machine))
        elif name == "-name":
            w.name = o.get("", o.get("guest", ""))
        elif name == "-uuid":
            try:
                w.uuid = str(UUID(value))
            except ValueError:
                raise UsageError(f"-uuid {value}: no UUID") from None
        elif name == "-rtc" and o.get("base") == "localtime":
            w.localtime = True
    if not any(e.protocol == "qtest" for e in w.endpoints):
        raise UsageError("no -qtest unix:PATH or -qtest stdio: nothing to serve")
    if sum(not e.path for e in w.endpoints) > 1:
        raise UsageError("stdio can serve one protocol only")
    return w


def _firmware(path: str) -> bytes:
    if not path:
        return NO_FIRMWARE
    try:
        rom = Path(path).read_bytes()
    except OSError as e:
        raise MachineError(f"firmware {path}: {e.strerror}") from None
    if not 0 < len(rom) <= FIRMWARE_MAX or len(rom) % 4096:
        raise MachineError(f"firmware {path}: {len(rom)} bytes; whole pages, {FIRMWARE_MAX >> 20} MiB at most")
    return rom


def _clock_at_now(spec: MachineSpec, localtime: bool) -> MachineSpec:
    """The real-time clock starts at the time of day, unless the command line gave a base."""
    now = datetime.now() if localtime else datetime.now(UTC).replace(tzinfo=None)
    for d in spec.devices:
        if d.type == "mc146818" and "base" not in d.config:
            spec = spec.with_config(d.id, base=now.isoformat(timespec="seconds"))
    return spec


def _at_once(spec: MachineSpec) -> MachineSpec:
    """TPMs answer at the moment they are asked: clients wait in their own time, which does not move the machine's."""
    for d in spec.devices:
        if "latency_us" in device_class(d.type).CONFIG and "latency_us" not in d.config:
            spec = spec.with_config(d.id, latency_us=0)
    return spec


def _boot_once(guest: Guest, spec: MachineSpec) -> None:
    """After the first reset the CMOS has the lasting boot order (-boot once=)."""
    machine = guest.machine
    assert machine is not None
    facts = spec.board.facts
    cmos = pc_cmos(
        spec.board.ram,
        boot_order=facts.get("boot_order", "cad"),
        check_floppy_signature=facts.get("check_floppy_signature", True),
    )
    store_cmos(machine, {n: cmos[n] for n in BOOT_BYTES})


def serve(
    args: Sequence[str],
    machine: str | None = None,
    workers: int = 0,
    path: str = "local",
    say: str = "engine serve",
    unknown: str | None = None,
) -> int:
    """Serve what a QEMU command line asks for until it ends; the exit status."""
    if unknown is not None:
        check_path(unknown)
    wanted = _wanted(args)
    rom = NO_FIRMWARE
    spec: MachineSpec | None = None
    lasting: MachineSpec | None = None
    importer: Importer | None = None
    if machine is not None:
        spec = load(machine)
    elif wanted.machine != "none":
        got = from_qemu(args)
        spec = got.spec(say)
        importer = got.importer
        rom = _firmware(got.firmware)
        for name, where in got.unmodelled:
            print(f"{say}: {name}{' at ' + where if where else ''} is not modelled", file=sys.stderr)
        for remark in got.remarks:
            print(f"{say}: {remark}", file=sys.stderr)
        if got.once:
            lasting = spec
            spec = replace(spec, board=replace(spec.board, facts={**spec.board.facts, "boot_order": got.once}))
    with contextlib.ExitStack() as stack:
        board = None
        if spec is not None:
            if unknown is not None:
                spec = with_recorder(spec)
            spec = _at_once(_clock_at_now(spec, wanted.localtime))
            board = Machine(observing_all(spec), workers=workers, path=path).start()
        guest = Guest(board, running=not wanted.stopped, actions=wanted.actions, name=wanted.name, uuid=wanted.uuid)
        stack.callback(guest.close)
        if importer is not None:
            guest.plugging = Plugging(importer, observing_all, MODELS)
        if lasting is not None:
            guest.first_reset = lambda: _boot_once(guest, lasting)
        server = Server(guest, rom)
        server.open(wanted.endpoints)
        if wanted.incoming and board is not None:
            guest.state = "inmigrate"
            server.incoming(wanted.incoming, running=not wanted.stopped)
        status = server.run()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end is on its way, with its own status
        if unknown is not None and guest.machine is not None:
            write(take(guest.machine), unknown)
        return status


def _listing(args: Sequence[str]) -> str | None:
    """What -version and the like print; None if there is nothing to print."""
    from engine.frontends.qmp import BOARDS, VERSION
    from engine.machine.spec import shipped_boards
    from engine.registry import TYPES

    if "-version" in args or "--version" in args:
        return f"QEMU emulator version {VERSION['major']}.{VERSION['minor']}.{VERSION['micro']} (ioreq-engine)"
    if {"-h", "-help", "--help"} & set(args):
        return f"usage: {LAUNCHER} -qtest unix:PATH [QEMU options]\n\n{DESCRIPTION}"
    for option, value in pairwise(args):
        if option in ("-M", "-machine") and value in ("help", "?"):
            rows = [f"{alias:20} {BOARDS[b][0]}" for b in shipped_boards() if b in BOARDS for alias in (BOARDS[b][1],)]
            return "Supported machines are:\n" + "\n".join([*rows, f"{'none':20} empty machine"])
        if option == "-device" and value in ("help", "?"):
            return "\n".join(f'name "{MODELS[t]}"' for t in sorted(TYPES) if t in MODELS)
    return None


def launcher() -> int:
    """The program engine-system-x86_64: a QEMU command line, served.  Exit: 0 at the end, 1 a mistake (as QEMU), 3 the
    engine failed."""
    standard_streams()
    args = sys.argv[1:]
    text = _listing(args)
    if text is not None:
        print(text)
        return 0
    signal.signal(signal.SIGTERM, lambda n, f: sys.exit(0))  # until the server has its own
    try:
        return serve(args, say=LAUNCHER)
    except UsageError as e:
        print(f"{LAUNCHER}: {e}", file=sys.stderr)
        return 1
    except EngineError as e:
        print(f"{LAUNCHER}: {e}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 0
