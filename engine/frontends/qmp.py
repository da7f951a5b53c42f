"""QMP, the QEMU monitor protocol, as far as the clients of qtest need it: JSON, one object a request, an answer or an
event a line.

A Guest is what monitors command: a machine, and whether it runs.  A Monitor is one client's connection; each hears
all events.

Commands: qmp_capabilities, query-version, query-status, query-name, query-uuid, query-machines, query-commands,
query-kvm, query-memory-size-summary, qom-list-types, qom-list, qom-get, system_reset, system_powerdown, stop, cont,
quit, set-action, watchdog-set-action, migrate, query-migrate, screendump, eject and blockdev-change-medium (floppy
disks, CDs), blockdev-open-tray, -close-tray, -remove-medium, -insert-medium, blockdev-add (files),
human-monitor-command (two commands of qemu-io), device_add and device_del (PCI functions and CPUs),
query-hotpluggable-cpus.  Others answer CommandNotFound.  QEMU Machine Protocol Specification; QEMU QMP Reference
Manual.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from engine._device import LINE
from engine.errors import EngineError, StateError
from engine.frontends import migration
from engine.frontends.plugging import Plugging, Refused
from engine.frontends.replay import OWNERS
from engine.machine import Machine
from engine.machine.spec import shipped_boards
from engine.registry import TYPES, device_class

VERSION = {"major": 7, "minor": 2, "micro": 0}  # of the reference whose protocol and device behaviour this is
MAX_REQUEST = 64 << 20
BOARDS = {"i440fx": ("pc-i440fx-7.2", "pc"), "q35": ("pc-q35-7.2", "q35")}  # board -> machine type, alias
MODELS = {ours: theirs for theirs, ours in OWNERS.items() if ours}  # our device types -> the reference's
DISKS = ("piix3-ide", "ich9-ahci")
POWER_BUTTONS = ("piix4-pm", "ich9-lpc")
# What the host does when the guest ends, crashes, hangs: QMP reference, set-action.  The first is the default.
ACTIONS = {
    "reboot": ("reset", "shutdown"),
    "shutdown": ("poweroff", "pause"),
    "panic": ("shutdown", "pause", "exit-failure", "none"),
    "watchdog": ("reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"),
}
Json = dict[str, Any]


class QmpError(Exception):
    """An error answer: its class and text."""

    def __init__(self, text: str, kind: str = "GenericError") -> None:
        super().__init__(text)
        self.kind = kind


class Client(Protocol):
    """Whoever makes the guest's accesses."""

    def look(self) -> None:
        """Take what the machine's wires have done."""

    def moved(self) -> None:
        """The machine was reset from outside, or is another one: the map may have moved, and the clock."""


class Guest:
    """A machine (None: one without devices) and its run state.  status is the exit status once it has ended.

    actions: what happens at a guest's reset, end, crash, hang, where it is not the default; see ACTIONS.
    """

    def __init__(
        self,
        machine: Machine | None,
        *,
        running: bool = True,
        actions: Mapping[str, str] | None = None,
        name: str = "",
        uuid: str = "",
    ) -> None:
        self.machine = machine
        self.actions = {what: choices[0] for what, choices in ACTIONS.items()} | dict(actions or {})
        self.name, self.uuid = name, uuid
        self.state = "running" if running else "prelaunch"
        self.status: int | None = None
        self.plugging: Plugging | None = None  # what can come and go
        self._leaving = False
        self.clients: list[Client] = []
        self.first_reset: Callable[[], None] | None = None  # what the first reset does beside its own
        self.monitors: list[Monitor] = []
        self.nodes: dict[str, str] = {}  # block nodes that blockdev-add has made -> their files
        self._open = self._trays()
        self.migration: str | None = None  # "completed" or "failed", once there was one
        # wires by which devices tell the host something -> what it does
        self.notices: dict[str, Callable[[], None]] = {
            "panicked": self._panicked,
            "crash_loaded": lambda: self.event("GUEST_CRASHLOADED", action="run"),
            "watchdog": self._watchdog,
            "power_off": lambda: self.shutdown(True, "guest-shutdown"),
            "suspend": self._suspend,
            "exit": self._exit,
            "io_error": self._io_error,
            "tray": self.trays_moved,
            "eject": self._ejected,
        }

    def close(self) -> None:
        """Stop the machine."""
        if self.machine is not None:
            self.machine.stop()

    def changed(self) -> None:
        """Something beside the accesses has moved the machine."""
        for client in list(self.clients):
            client.moved()

    @property
    def ended(self) -> bool:
        """Whether the process is to end."""
        return self.status is not None

    def event(self, name: str, **data: Any) -> None:
        """Tell every monitor."""
        now = time.time_ns()
        stamp = {"seconds": now // 10**9, "microseconds": now % 10**9 // 1000}
        for m in list(self.monitors):
            m.tell({"timestamp": stamp, "event": name, **({"data": data} if data else {})})

    def set_actions(self, **actions: str) -> None:
        """Choose what happens from now on.  Raises QmpError."""
        for what, action in actions.items():
            if action not in ACTIONS[what]:
                raise QmpError(f"Parameter '{what}' does not accept value '{action}'")
        self.actions |= actions
        if "watchdog" in actions and self.machine is not None:
            own = "reset" if actions["watchdog"] == "reset" else "none"
            for p in self.machine.plan.devices:
                if hasattr(p.cls, "set_action"):
                    self.machine.call(p.id, "set_action", own)

    # ------------------------------------------------------------------ what the guest does

    def resets(self, n: int) -> None:
        """The guest has pulled its reset line n times."""
        for _ in range(n):
            if self.actions["reboot"] == "reset":
                self._once()
                self.event("RESET", guest=True, reason="guest-reset")
            else:
                self.shutdown(True, "guest-reset")

    def _stopped(self, state: str) -> None:
        if self.state == "running":
            self.event("STOP")
        self.state = state

    def _panicked(self) -> None:
        action = self.actions["panic"]
        if action == "pause" or (action == "shutdown" and self.actions["shutdown"] == "pause"):
            self.event("GUEST_PANICKED", action="pause")
            self._stopped("guest-panicked")
        elif action in ("shutdown", "exit-failure"):
            self.event("GUEST_PANICKED", action="poweroff")
            self._stopped("guest-panicked")
            self.shutdown(True, "guest-panic", int(action == "exit-failure"))
        else:
            self.event("GUEST_PANICKED", action="run")

    def _watchdog(self) -> None:
        """A watchdog has bitten.  A reset it has made by itself."""
        action = self.actions["watchdog"]
        self.event("WATCHDOG", action=action)
        if action == "shutdown":
            self.powerdown()
        elif action == "poweroff":
            self.quit()
        elif action == "pause":
            self._stopped("watchdog")
        elif action == "debug":
            print("watchdog: timer fired", file=sys.stderr)

    def _suspend(self) -> None:
        self.state = "suspended"
        self.event("SUSPEND")

    def _io_error(self) -> None:
        """A command of a drive has met a failure of its image, and waits for `cont`."""
        self.event(
            "BLOCK_IO_ERROR", device="", operation="write", action="stop", nospace=False, reason="Input/output error"
        )
        self._stopped("io-error")

    def discs(self) -> dict[tuple[str, int, int], str]:
        """The CD-ROM drives, by (device, channel, unit), with their names."""
        if self.machine is None:
            return {}
        return {
            (d.id, row.get("channel", 0), row.get("unit", 0)): row.get("id")
            or f"ide{row.get('channel', 0)}-cd{row.get('unit', 0)}"
            for d in self.machine.spec.devices
            if d.type in DISKS
            for row in d.config.get("drives", ())
            if row.get("kind") == "cdrom"
        }

    def _trays(self) -> set[tuple[str, int, int]]:
        """The drives whose tray is open."""
        out = set()
        for device in {place[0] for place in self.discs()}:
            assert self.machine is not None
            out |= {(device, *place) for place, tray in self.machine.call(device, "trays").items() if tray[0]}
        return out

    def trays_moved(self) -> None:
        """Tell of the trays that are not as they were."""
        now = self._trays()
        for place in sorted(now ^ self._open):
            self.event("DEVICE_TRAY_MOVED", device="", id=self.discs()[place], **{"tray-open": place in now})
        self._open = now

    # ------------------------------------------------------------------ devices that come and go

    def _goes_on(self, exchange: Callable[[Machine], Machine]) -> None:
        """Another machine takes this one's place; clients have heard all of the first."""
        assert self.machine is not None
        for client in list(self.clients):
            client.look()
        new = exchange(self.machine)
        if new is not self.machine:
            self.machine = new
            self.changed()

    def add(self, arguments: Json) -> None:
        """device_add.  Raises QmpError."""
        plugging = self._pluggable()
        try:
            self._goes_on(lambda machine: plugging.add(machine, arguments))
        except Refused as e:
            raise QmpError(str(e)) from None
        self.changed()

    def remove(self, id: str) -> None:
        """device_del.  Raises QmpError."""
        plugging = self._pluggable()
        assert self.machine is not None
        try:
            plugging.ask(self.machine, id)
        except Refused as e:
            raise QmpError(str(e), "GenericError" if e.found else "DeviceNotFound") from None
        self.changed()

    def _pluggable(self) -> Plugging:
        if self.machine is None or self.plugging is None:
            raise QmpError("Devices of this machine can neither come nor go")
        return self.plugging

    def _ejected(self) -> None:
        """The guest has let a device go, which leaves between two blocks of requests."""
        self._leaving = True

    def settle(self) -> None:
        """Between two blocks of requests: what was let go leaves."""
        plugging = self.plugging
        if not self._leaving or plugging is None:
            return
        self._leaving = False
        left: list[Json] = []

        def exchange(machine: Machine) -> Machine:
            new, gone = plugging.let_go(machine)
            left.extend(gone)
            return new

        try:
            self._goes_on(exchange)
        except Refused as e:
            print(f"device not removed: {e}", file=sys.stderr)
        for data in left:
            self.event("DEVICE_DELETED", **data)

    def proceed(self) -> None:
        """Run again; commands that wait for the host are tried again."""
        if self.state == "running":
            return
        self.state = "running"
        self.event("RESUME")
        self.retry()

    def retry(self) -> None:
        """Commands that wait for the host are tried again."""
        if self.machine is not None:
            for p in self.machine.plan.devices:
                if "resume" in p.cls.IN:
                    for level in (1, 0):
                        self.machine.input(LINE, p.id, level, "resume")

    def _exit(self) -> None:
        """A debug exit port was written: the process ends with the guest's status, and no word more."""
        assert self.machine is not None
        for p in self.machine.plan.devices:
            if p.spec.type == "isa-debug-exit":
                status = self.machine.call(p.id, "status")
                if status is not None:
                    self.quit(status)

    # ------------------------------------------------------------------ what the host does

    def system_reset(self) -> None:
        """Reset from outside."""
        if self.actions["reboot"] != "reset":
            self.shutdown(False, "host-qmp-system-reset")
            return
        if self.machine is not None:
            self.machine.reset()
            self._once()
            self.changed()
            for client in list(self.clients):
                client.look()
            self.settle()
        self.event("RESET", guest=False, reason="host-qmp-system-reset")

    def powerdown(self) -> None:
        """Press the power button."""
        self.event("POWERDOWN")
        if self.machine is not None:
            for p in self.machine.plan.devices:
                if p.spec.type in POWER_BUTTONS:
                    for level in (1, 0):
                        self.machine.input(LINE, p.id, level, "pwrbtn")

    def migrate(self, uri: str) -> None:
        """Send the machine to another process; this one stays, stopped.  Raises UsageError."""
        if self.machine is None:
            raise QmpError("There is no machine to migrate")
        self.migration = "failed"
        migration.send({"machine": self.machine.save(), "running": self.state == "running"}, uri)
        self._stopped("postmigrate")
        self.migration = "completed"

    def arrive(self, state: Mapping[str, Any], running: bool) -> None:
        """A machine has come from another process, where it may have been stopped.  Raises StateError."""
        assert self.machine is not None
        if not isinstance(state.get("running"), bool):
            raise StateError("what came is no state of this engine")
        running = running and state["running"]
        self.machine.load(state.get("machine", {}))
        self.changed()
        self.state = "running" if running else "paused"
        if running:
            self.event("RESUME")

    def _once(self) -> None:
        if self.first_reset is not None:
            then, self.first_reset = self.first_reset, None
            then()

    def shutdown(self, guest: bool, reason: str, status: int = 0) -> None:
        """The machine is switched off: the process ends, unless a shutdown is to pause it."""
        if self.actions["shutdown"] != "pause":
            self.end(guest, reason, status)
            return
        self.event("SHUTDOWN", guest=guest, reason=reason)
        self._stopped("shutdown")

    def end(self, guest: bool, reason: str, status: int = 0) -> None:
        """Let the process end, and say why."""
        if self.status is None:
            self.status = status
            self.event("SHUTDOWN", guest=guest, reason=reason)

    def quit(self, status: int = 0) -> None:
        """Let the process end without a word."""
        if self.status is None:
            self.status = status


class Monitor:
    """One connection.  send takes bytes for the client; the greeting goes out at once."""

    def __init__(self, guest: Guest, send: Callable[[bytes], None]) -> None:
        self.guest = guest
        self._send = send
        self._text = ""
        self._ready = False  # capabilities have been negotiated
        guest.monitors.append(self)
        self._put({"QMP": {"version": {"qemu": VERSION, "package": "ioreq-engine"}, "capabilities": []}})

    def close(self) -> None:
        """The client has gone."""
        self.guest.monitors.remove(self)

    def tell(self, event: Json) -> None:
        """An event, for a client that has negotiated."""
        if self._ready:
            self._put(event)

    def _put(self, message: Json) -> None:
        self._send(json.dumps(message).encode() + b"\r\n")

    def feed(self, data: bytes) -> None:
        """Bytes from the client.  A request may come in pieces; one that can be no JSON is answered and dropped with
        its line; the byte FFh drops what came before it."""
        *broken, last = data.split(b"\xff")
        for part in broken:
            self._take(part)
            self._text = ""
            self._put({"error": {"class": "GenericError", "desc": "JSON parse error, invalid byte 0xff"}})
        self._take(last)

    def _take(self, data: bytes) -> None:
        self._text += data.decode("utf-8", "replace")
        decoder = json.JSONDecoder()
        while self._text:
            text = self._text.lstrip(" \t\r\n")
            try:
                request, end = decoder.raw_decode(text)
            except (ValueError, RecursionError) as e:
                if not text or (
                    len(text) < MAX_REQUEST and (not text.endswith("\n") or getattr(e, "pos", 0) >= len(text.rstrip()))
                ):
                    self._text = text  # the rest may be on its way
                    return
                self._put({"error": {"class": "GenericError", "desc": f"JSON parse error, {str(e)[:120]}"}})
                self._text = text.partition("\n")[2]
                continue
            self._text = text[end:]
            self._put(self._answer(request))

    def _answer(self, request: Any) -> Json:
        mark: Json = {}
        try:
            if not isinstance(request, dict):
                raise QmpError("QMP input must be a JSON object")
            mark = {"id": request["id"]} if "id" in request else {}
            odd = set(request) - {"execute", "arguments", "id"}
            if odd:
                raise QmpError(f"QMP input member '{sorted(odd)[0]}' is unexpected")
            name = request.get("execute")
            if not isinstance(name, str):
                raise QmpError(
                    "QMP input member 'execute' must be a string"
                    if "execute" in request
                    else "QMP input lacks member 'execute'"
                )
            arguments = request.get("arguments", {})
            if not isinstance(arguments, dict):
                raise QmpError("QMP input member 'arguments' must be an object")
            if self._ready == (name == "qmp_capabilities"):
                raise QmpError(
                    "Capabilities negotiation is already complete, command ignored"
                    if self._ready
                    else "Expecting capabilities negotiation with 'qmp_capabilities'",
                    "CommandNotFound",
                )
            if name == "qmp_capabilities":
                if arguments.get("enable"):
                    raise QmpError("Capability not available")
                self._ready = True
                return {"return": {}, **mark}
            command = COMMANDS.get(name)
            if command is None:
                raise QmpError(f"The command {name} has not been found", "CommandNotFound")
            return {"return": command(self.guest, arguments), **mark}
        except QmpError as e:
            return {"error": {"class": e.kind, "desc": str(e)}, **mark}
        except EngineError as e:
            return {"error": {"class": "GenericError", "desc": str(e)}, **mark}


# ---------------------------------------------------------------------- the commands


def _want(arguments: Json, name: str, kind: type = str) -> Any:
    value = arguments.get(name)
    if value is None:
        raise QmpError(f"Parameter '{name}' is missing")
    if not isinstance(value, kind):
        raise QmpError(f"Invalid parameter type for '{name}', expected: {'string' if kind is str else kind.__name__}")
    return value


def _status(g: Guest, a: Json) -> Json:
    return {"status": g.state if g.status is None else "shutdown", "singlestep": False, "running": g.state == "running"}


def _machines(g: Guest, a: Json) -> list[Json]:
    common = {
        "hotpluggable-cpus": False,
        "numa-mem-supported": False,
        "deprecated": False,
        "default-ram-id": "pc.ram",
        "default-cpu-type": "qemu64-x86_64-cpu",
    }
    out = [{"name": "none", "cpu-max": 1, "hotpluggable-cpus": False, "numa-mem-supported": False, "deprecated": False}]
    for board in shipped_boards():
        if board in BOARDS:
            name, alias = BOARDS[board]
            out.append(
                {
                    "name": name,
                    "alias": alias,
                    "cpu-max": 255,
                    **common,
                    **({"is-default": True} if alias == "pc" else {}),
                }
            )
    return out


def _type(ours: str) -> tuple[str, list[str]]:
    """The reference's name of one of our device types, and what it descends from, nearest first."""
    name = MODELS.get(ours, ours)
    functions = [r.name for r in device_class(ours)(ours).regions()]
    parent = (
        "pci-device"
        if "config" in functions
        else "sys-bus-device"
        if ours in ("ioapic", "hpet", "lapic")
        else "isa-device"
    )
    return name, [parent, "device", "object"]


def _types(g: Guest, a: Json) -> list[Json]:
    wanted, abstract = a.get("implements", "object"), a.get("abstract", False)
    rows = [
        ("device", ["object"], True),
        *((n, ["device", "object"], True) for n in ("pci-device", "isa-device", "sys-bus-device")),
    ]
    rows += [(*_type(t), False) for t in TYPES if t in MODELS]
    rows += [
        (f"{name}-machine", ["machine", "object"], False)
        for name in ("none", *(BOARDS[b][0] for b in shipped_boards() if b in BOARDS))
    ]
    out = []
    for name, parents, is_abstract in rows:
        if wanted in (name, *parents) and (abstract or not is_abstract):
            out.append({"name": name, "parent": parents[0], **({"abstract": True} if is_abstract else {})})
    return out


def _object(g: Guest, path: str) -> dict[str, tuple[str, Any]]:
    """The properties of the object at a path: name -> (type, value)."""
    parts = [p for p in path.split("/") if p]
    devices = {p.id: p.spec.type for p in g.machine.plan.devices} if g.machine is not None else {}
    if not parts:
        return {"type": ("string", "container"), "machine": ("child<machine>", "/machine")}
    if parts == ["machine"]:
        board = g.machine.spec.board.name if g.machine is not None else "none"
        out: dict[str, tuple[str, Any]] = {"type": ("string", f"{BOARDS.get(board, (board,))[0]}-machine")}
        return out | {d: (f"child<{MODELS.get(t, t)}>", f"/machine/{d}") for d, t in devices.items()}
    id = parts[-1]
    if id in devices and parts[:-1] in ([], ["machine"]):
        return {"type": ("string", MODELS.get(devices[id], devices[id]))}
    raise QmpError(f"Device '{path}' not found", "DeviceNotFound")


def _qom_list(g: Guest, a: Json) -> list[Json]:
    return [{"name": n, "type": t} for n, (t, _) in _object(g, _want(a, "path")).items()]


def _qom_get(g: Guest, a: Json) -> Any:
    name = _want(a, "property")
    try:
        return _object(g, _want(a, "path"))[name][1]
    except KeyError:
        raise QmpError(f"Property '{a['path']}.{name}' not found") from None


def _reset(g: Guest, a: Json) -> Json:
    g.system_reset()
    return {}


def _stop(g: Guest, a: Json) -> Json:
    if g.state == "running":
        g.state = "paused"
        g.event("STOP")
    return {}


def _cont(g: Guest, a: Json) -> Json:
    g.proceed()
    return {}


def _powerdown(g: Guest, a: Json) -> Json:
    g.powerdown()
    return {}


def _set_action(g: Guest, a: Json) -> Json:
    odd = set(a) - set(ACTIONS)
    if odd:
        raise QmpError(f"Parameter '{sorted(odd)[0]}' is unexpected")
    g.set_actions(**{what: _want(a, what) for what in a})
    return {}


def _watchdog_action(g: Guest, a: Json) -> Json:
    action = _want(a, "action")
    if action not in ACTIONS["watchdog"]:
        raise QmpError(f"Parameter 'action' does not accept value '{action}'")
    g.set_actions(watchdog=action)
    return {}


def _migrate(g: Guest, a: Json) -> Json:
    g.migrate(_want(a, "uri"))
    return {}


_break = re.compile(
    r"""qemu-io\s+(?:ide|ahci)?(\d)-[hc]d(\d)\s+["']?break\s+flush_to_(?:os|disk)\s+(\w+)["']?"""
).fullmatch
_resume = re.compile(r"""qemu-io\s+(?:ide|ahci)?(\d)-[hc]d(\d)\s+["']?resume\s+(\w+)["']?""").fullmatch


def _human(g: Guest, a: Json) -> str:
    """The human monitor: of it only the two commands by which tests hold flushes of IDE drives."""
    line = _want(a, "command-line").strip()
    holds = _break(line)
    m = holds or _resume(line)
    device = next((p.id for p in g.machine.plan.devices if p.spec.type in DISKS), "") if g.machine is not None else ""
    if m is None or not device:
        return f"unknown command: '{line.split()[0] if line else ''}'\r\n"
    assert g.machine is not None
    g.machine.call(device, "hold", int(m[1]), int(m[2]), holds is not None)
    if holds is None:
        g.retry()
    return ""


def _quit(g: Guest, a: Json) -> Json:
    g.end(False, "host-qmp-quit")
    return {}


def _device_add(g: Guest, a: Json) -> Json:
    _want(a, "driver")
    g.add(a)
    return {}


def _device_del(g: Guest, a: Json) -> Json:
    g.remove(_want(a, "id"))
    return {}


def _hotpluggable_cpus(g: Guest, a: Json) -> list[Json]:
    if g.machine is None or g.plugging is None:
        raise QmpError("The feature 'query-hotpluggable-cpus' is not enabled")
    return g.plugging.places(g.machine)


def _screendump(g: Guest, a: Json) -> Json:
    path, device, how = _want(a, "filename"), a.get("device", ""), a.get("format", "ppm")
    if how not in ("ppm", "png"):
        raise QmpError(f"Parameter 'format' does not accept value '{how}'")
    if "head" in a and not device:
        raise QmpError("'head' must be specified together with 'device'")
    planned = {p.id: p for p in g.machine.plan.devices} if g.machine is not None else {}
    if device and device not in planned:
        raise QmpError(f"Device '{device}' not found", "DeviceNotFound")
    if device and not hasattr(planned[device].cls, "picture"):
        raise QmpError(f"Device {device} (head {a.get('head', 0)}) is not bound to a QemuConsole")
    if g.machine is None or not any(hasattr(p.cls, "picture") for p in planned.values()):
        raise QmpError("There is no console to take a screendump from")
    picture = g.machine.screen(device)
    try:
        Path(path).write_bytes(picture.ppm() if how == "ppm" else picture.png())
    except OSError as e:
        raise QmpError(f"failed to open file '{path}': {e.strerror}") from None
    return {}


def _floppy(g: Guest, a: Json) -> tuple[str, int]:
    """(controller, drive) that a command names: floppy0, floppy1."""
    name = a.get("device") or a.get("id") or ""
    fdc = next((p.id for p in g.machine.plan.devices if p.spec.type == "fdc"), "") if g.machine is not None else ""
    if not fdc or name not in ("floppy0", "floppy1"):
        raise QmpError(f"Device '{name}' not found", "DeviceNotFound")
    return fdc, int(name[-1])


def _disc(g: Guest, a: Json) -> tuple[str, int, int] | None:
    """(device, channel, unit) of the CD-ROM drive that a command names."""
    name = a.get("id") or a.get("device") or ""
    return next((place for place, known in g.discs().items() if name == known), None)


def _want_disc(g: Guest, a: Json) -> tuple[str, int, int]:
    place = _disc(g, a)
    if place is None:
        raise QmpError(f"Device '{a.get('id') or a.get('device') or ''}' not found", "DeviceNotFound")
    return place


def _open_tray(g: Guest, a: Json) -> Json:
    device, channel, unit = _want_disc(g, a)
    assert g.machine is not None
    is_open, locked, _ = g.machine.call(device, "trays")[channel, unit]
    if locked and not is_open and not a.get("force"):
        g.machine.call(device, "ask_to_eject", channel, unit)
        raise QmpError(
            f"Device '{g.discs()[device, channel, unit]}' is locked and force was not specified, wait for tray to open "
            f"and try again"
        )
    g.machine.call(device, "move_tray", channel, unit, True)
    g.trays_moved()
    return {}


def _close_tray(g: Guest, a: Json) -> Json:
    device, channel, unit = _want_disc(g, a)
    assert g.machine is not None
    g.machine.call(device, "move_tray", channel, unit, False)
    g.trays_moved()
    return {}


def _load_disc(g: Guest, a: Json, path: str | None) -> None:
    device, channel, unit = _want_disc(g, a)
    assert g.machine is not None
    is_open, _, there = g.machine.call(device, "trays")[channel, unit]
    name = g.discs()[device, channel, unit]
    if not is_open:
        raise QmpError(f"Tray of device '{name}' is not open")
    if there and path is not None:
        raise QmpError(f"There already is a medium in device '{name}'")
    g.machine.call(device, "load_disc", channel, unit, path)


def _remove_medium(g: Guest, a: Json) -> Json:
    _load_disc(g, a, None)
    return {}


def _insert_medium(g: Guest, a: Json) -> Json:
    node = _want(a, "node-name")
    if node not in g.nodes:
        raise QmpError(f"Cannot find device='' nor node-name='{node}'")
    _load_disc(g, a, g.nodes[node])
    return {}


def _blockdev_add(g: Guest, a: Json) -> Json:
    """A node that is a file, or raw above one; it is opened when a drive gets it."""
    name, below = _want(a, "node-name"), a
    while isinstance(below.get("file"), dict):
        below = below["file"]
    if not isinstance(below.get("filename"), str) or a.get("driver") not in ("raw", "file"):
        raise QmpError(f"Node '{name}': only files, and raw above them, can be added")
    if name in g.nodes:
        raise QmpError(f"Duplicate nodes with node-name='{name}'")
    g.nodes[name] = below["filename"]
    return {}


def _eject(g: Guest, a: Json) -> Json:
    if _disc(g, a) is not None:
        _open_tray(g, a)
        return _remove_medium(g, a)
    fdc, drive = _floppy(g, a)
    assert g.machine is not None
    g.machine.call(fdc, "eject", drive)
    return {}


def _change(g: Guest, a: Json) -> Json:
    if _disc(g, a) is not None:
        path = _want(a, "filename")
        _open_tray(g, a)
        _load_disc(g, a, None)
        _load_disc(g, a, path)
        return _close_tray(g, a)
    fdc, drive = _floppy(g, a)
    path = _want(a, "filename")
    try:
        image = Path(path).read_bytes()
    except OSError as e:
        raise QmpError(f"Could not open '{path}': {e.strerror}") from None
    assert g.machine is not None
    g.machine.call(fdc, "insert", drive, image, a.get("read-only-mode") == "read-only")
    return {}


COMMANDS: dict[str, Callable[[Guest, Json], Any]] = {
    "query-version": lambda g, a: {"qemu": VERSION, "package": "ioreq-engine"},
    "query-status": _status,
    "query-name": lambda g, a: {"name": g.name} if g.name else {},
    "query-uuid": lambda g, a: {"UUID": g.uuid or "00000000-0000-0000-0000-000000000000"},
    "query-machines": _machines,
    "query-commands": lambda g, a: [{"name": n} for n in sorted([*COMMANDS, "qmp_capabilities"])],
    "query-kvm": lambda g, a: {"enabled": False, "present": False},
    "query-memory-size-summary": lambda g, a: {"base-memory": g.machine.spec.board.ram if g.machine is not None else 0},
    "qom-list-types": _types,
    "qom-list": _qom_list,
    "qom-get": _qom_get,
    "system_reset": _reset,
    "system_powerdown": _powerdown,
    "set-action": _set_action,
    "watchdog-set-action": _watchdog_action,
    "blockdev-open-tray": _open_tray,
    "blockdev-close-tray": _close_tray,
    "blockdev-remove-medium": _remove_medium,
    "blockdev-insert-medium": _insert_medium,
    "blockdev-add": _blockdev_add,
    "human-monitor-command": _human,
    "migrate": _migrate,
    "query-migrate": lambda g, a: {} if g.migration is None else {"status": g.migration},
    "stop": _stop,
    "cont": _cont,
    "quit": _quit,
    "device_add": _device_add,
    "device_del": _device_del,
    "query-hotpluggable-cpus": _hotpluggable_cpus,
    "screendump": _screendump,
    "eject": _eject,
    "blockdev-change-medium": _change,
}
