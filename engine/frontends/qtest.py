"""The qtest protocol: a text line per access, clock step or interrupt interception; what QEMU's test programs, fuzz
reproducers and scripts speak.

    outb 0x70 0x0f      OK                          clock_step 1000     OK 1000
    inb 0x71            OK 0x0000                   irq_intercept_in ioapic
    readl 0xfed00000    OK 0x000000008086a201       IRQ raise 0         (before any later answer)

Port accesses go to the devices; memory accesses to RAM, ROM or the devices as the chipset's switches stand
(engine.machine.memory), in the parts that the reference makes of them: aligned powers of two, low address first, no
wider than what answers takes.  Time is virtual, starts at 0 and moves by clock_step and clock_set alone.

Requests may come in blocks.  Device accesses that follow each other in a block are one batch of the engine.  A line
that is not understood is answered FAIL (where QEMU stops at an assertion, too); nothing that comes over the socket
ends the server.

docs/frontends/qtest.md says what is there and what is not.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine._abi import ACC
from engine._device import LINE
from engine.errors import UsageError
from engine.frontends import migration
from engine.frontends.qmp import MODELS, Guest, Monitor
from engine.machine import Machine
from engine.machine.memory import BUS, LOW_END, NOTHING, RAM, RAM_READ_ONLY, ROM, VIDEO, Memory
from engine.machine.spec import MachineSpec
from engine.types import Space

MAX_BYTES = 256 << 20  # of one read, write or memset
MAX_LINE = 2 * MAX_BYTES + 256
MAX_ANSWERS = 1 << 20  # bytes of memory told in one block of answers; requests behind it wait until they are sent
BATCH = 1 << 14  # accesses of one batch
STEP_NS = 1 << 30  # of one clock advance between two looks at signals and lines
U64 = (1 << 64) - 1

_NUMBER = rb"0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,18}"
_fast = re.compile(rb"((?:in|out)[bwl]|(?:read|write)[bwlq]) (" + _NUMBER + rb")(?: (" + _NUMBER + rb"))?").fullmatch
_c_number = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))").fullmatch
_pack = struct.Struct("<QQQQ").pack  # an ACC record; the last word is size, space and direction


class Malformed(ValueError):
    """A request that QEMU would stop at; the text tells why."""


def number(text: str, signed: bool = False) -> int:
    """A number in C notation, as strtoull(text, 0) takes it: 0x.., 0.., decimal, a sign.  Raises Malformed."""
    m = _c_number(text)
    if not m:
        raise Malformed(f"{text[:40]!a} is no number")
    value = int(m[2], 16) if m[2] else int(m[3], 8) if m[3] else int(m[4])
    if signed:
        value = -value if m[1] == "-" else value
        if not -(1 << 63) <= value < 1 << 63:
            raise Malformed(f"{text[:40]!a} is out of range")
        return value
    if value > U64:
        raise Malformed(f"{text[:40]!a} is out of range")
    return -value & U64 if m[1] == "-" else value


def _tail(size: int, space: int, write: bool) -> int:
    return int(np.array([(0, 0, 0, 0, size, space, write, 0, 0)], ACC).view("<u8")[3])


# verb -> (size, the record's last word, is a port access, is a write, answer of a read)
_OPS: dict[bytes, tuple[int, int, bool, bool, bytes]] = {
    **{
        f"{d}{c}".encode(): (1 << n, _tail(1 << n, Space.PIO, d == "out"), True, d == "out", b"OK 0x%04x\n")
        for d in ("in", "out")
        for n, c in enumerate("bwl")
    },
    **{
        f"{d}{c}".encode(): (1 << n, _tail(1 << n, Space.MMIO, d == "write"), False, d == "write", b"OK 0x%016x\n")
        for d in ("read", "write")
        for n, c in enumerate("bwlq")
    },
}


class Qtest:
    """One client's side of the protocol, on a started machine (None: a machine without any device).

    rom: the firmware.  names: other names of devices -> id.  stopping: asked between the parts of a long clock step.
    reset: called with the number of resets since the last call, after the accesses that made them.  notices: wires by
    which devices tell the host something -> what to do when one has risen.  between: called behind each block of
    requests.  One thread.
    """

    def __init__(
        self,
        machine: Machine | None,
        rom: bytes = b"",
        names: dict[str, str] | None = None,
        stopping: Callable[[], bool] = lambda: False,
        reset: Callable[[int], None] = lambda n: None,
        notices: Mapping[str, Callable[[], None]] | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.names = names or {}
        self.stopping, self.reset, self.between = stopping, reset, between
        self._input = bytearray()
        self.held = False  # requests are left for the next call of feed()
        self._out: list[bytes] = []
        self._rows = bytearray()
        self._formats: list[bytes | None] = []
        self._watched = ""
        self._inward = False
        self._watch: dict[int, list[int]] = {}
        self._levels: dict[int, int] = {}
        self._wanted = dict(notices or {})
        self._notices: dict[int, Callable[[], None]] = {}
        self._done = 0  # accesses since the line changes were last taken
        self._commands: dict[str, Callable[[list[str]], str]] = {
            "read": self._read,
            "b64read": self._b64read,
            "write": self._write,
            "b64write": self._b64write,
            "memset": self._memset,
            "clock_step": self._clock_step,
            "clock_set": self._clock_set,
            "irq_intercept_in": self._intercept,
            "irq_intercept_out": self._intercept,
            "set_irq_in": self._set_irq_in,
            "endianness": lambda w: "OK little",
            "module_load": lambda w: "FAIL",
        }
        for verb in _OPS:
            self._commands[verb.decode()] = self._access
        self._rom = rom
        self._stale = self._feeding = False
        self.attach(machine)

    def attach(self, machine: Machine | None) -> None:
        """From now on accesses go to this machine."""
        self.machine = machine
        if machine is not None:
            self.memory = Memory(machine, self._rom)
            self._now = machine.clock.now
            self._resets = int(machine.sequencer.counters["resets"])
            self._ecam = machine.spec.board.config_access == "ecam"
            self._bus_end = (1 << 32) - len(self._rom)
            observed = machine.plan.observed
            self._notices = {observed.index(w): do for w, do in self._wanted.items() if w in observed}
            self._done = 0

    def moved(self) -> None:
        """The machine was reset from outside: the map may have moved, and the clock."""
        self._stale = True
        if self.machine is not None:
            self._now = self.machine.clock.now
            self._resets = int(self.machine.sequencer.counters["resets"])

    def look(self) -> bytes:
        """What the machine's wires have done beside the requests; what is to be sent for it."""
        if self._changed():
            self._out += self._lines().values()
        if self._feeding:
            return b""
        out = b"".join(self._out)
        self._out.clear()
        return out

    # ------------------------------------------------------------------ requests in, answers out

    def feed(self, data: bytes) -> bytes:
        """Bytes from the client; the bytes to send back.  Behind much to send requests are `held` for the next call."""
        self._input += data
        end = self._input.rfind(b"\n")
        if end < 0:
            if len(self._input) > MAX_LINE:
                self._input.clear()
                return b"FAIL request too long\n"
            return b""
        lines = bytes(self._input[:end]).split(b"\n")
        del self._input[: end + 1]
        room = MAX_ANSWERS
        requests = iter(lines)
        for line in requests:
            m = _fast(line)
            if m is None or self.machine is None or not self._quick(*m.groups()):
                self._flush()
                room -= self._slow(line)
                if room < 0:
                    break
        left = b"".join(line + b"\n" for line in requests)
        self.held = bool(left)
        self._input[:0] = left
        self._flush()
        answer = self._out.pop()  # is held back while what was let go leaves
        self._feeding = True
        self.between()
        self._feeding = False
        if self._changed():
            self._out += self._lines().values()
        out = b"".join([*self._out, answer])
        self._out.clear()
        return out

    def _quick(self, verb: bytes, addr_text: bytes, value_text: bytes | None) -> bool:
        """One access, if it is a whole one of a device or lies in RAM; False: not done."""
        size, tail, port, write, answer = _OPS[verb]
        addr = int(addr_text, 0)
        value = 0
        if write:
            if value_text is None:
                return False
            value = int(value_text, 0) & U64
        if port:
            if addr + size > 0x10000:
                return False
            if write and 0xCF8 <= addr < 0xD00:
                self._stale = True
        elif not self.memory.low <= addr <= self._bus_end - size or addr & (size - 1):
            if addr + size > VIDEO and not LOW_END <= addr <= self.memory.low - size:
                return False
            if self._stale or self.memory.covered:
                return False
            if self._rows:
                self._flush()  # a transfer may have been asked for
            if addr + size > self.memory.low:
                return False
            if write:
                self.memory.ram[addr : addr + size] = (value & ((1 << size * 8) - 1)).to_bytes(size, "little")
                self._out.append(b"OK\n")
            else:
                self._out.append(answer % int.from_bytes(self.memory.ram[addr : addr + size], "little"))
            return True
        elif self._ecam and write:
            self._stale = True
        self._rows += _pack(self._now, addr, value, tail)
        self._formats.append(None if write else answer)
        if len(self._formats) >= BATCH:
            self._flush()
        return True

    def _flush(self) -> None:
        """Execute the accesses that are waiting; their answers, each behind the line changes it made."""
        if not self._formats:
            return
        formats, self._formats = self._formats, []
        values, before = self._run(np.frombuffer(bytes(self._rows), ACC))
        self._rows.clear()
        answers = [b"OK\n" if f is None else f % v for f, v in zip(formats, values.tolist(), strict=True)]
        for i, text in before.items():
            answers[i] = text + answers[i]
        self._out += answers

    def _run(self, acc: Any) -> tuple[Any, dict[int, bytes]]:
        """Accesses now; the values and, by place in the batch, the lines to send before that place's answer."""
        m = self.machine
        assert m is not None
        values = m.sequencer.run(acc, None, m.path)[0]
        first, self._done = self._done, self._done + len(acc)
        before = self._lines(first) if self._changed() else {}
        self._look_for_resets()
        return values, before

    def _look_for_resets(self) -> None:
        assert self.machine is not None
        resets = int(self.machine.sequencer.counters["resets"])
        if resets != self._resets:
            self._stale = True
            n, self._resets = resets - self._resets, resets
            self.reset(n)

    def _slow(self, line: bytes) -> int:
        """Any request; how long its answer is."""
        words = line.decode("latin-1").split(" ")
        command = self._commands.get(words[0])
        try:
            if command is None:
                answer = f"FAIL Unknown command '{words[0][:80].encode('unicode_escape').decode()}'"
            elif self.machine is None and words[0] not in ("endianness", "module_load"):
                answer = f"FAIL {words[0]}: the machine has no devices"
            else:
                answer = command(words)
        except (Malformed, MemoryError) as e:
            answer = f"FAIL {words[0]}: {e}"
        if self._changed():
            self._out += self._lines().values()
        self._out.append(answer.encode("ascii", "backslashreplace") + b"\n")
        return len(answer)

    def _changed(self) -> bool:
        """Whether to ask for line changes.  Workers hand theirs over only when asked."""
        m = self.machine
        return m is not None and bool(m.sequencer.n_pending_lines or ((self._watch or self._notices) and m.workers))

    def _lines(self, first: int = 0) -> dict[int, bytes]:
        """The watched line changes since the last call, by the access in which they happened, counted from `first`."""
        assert self.machine is not None
        out: dict[int, bytes] = {}
        changes = self.machine.lines()
        self._done = 0
        if self._notices:
            for c in changes[(changes["level"] != 0) & np.isin(changes["line"], list(self._notices))]:
                self._notices[int(c["line"])]()
        if not self._watch:
            return out
        for c in changes[np.isin(changes["line"], list(self._watch))]:
            i = max(0, int(c["index"]) - first)
            for pin in self._watch[int(c["line"])]:
                out[i] = out.get(i, b"") + self._change(pin, int(c["level"]))
        return out

    def _change(self, pin: int, level: int) -> bytes:
        if self._levels.get(pin, 0) == level:
            return b""
        self._levels[pin] = level
        return b"IRQ %s %d\n" % (b"raise" if level else b"lower", pin)

    # ------------------------------------------------------------------ accesses of any length

    def _bus(self, space: int, addr: int, n: int, data: bytes | None = None) -> bytes:
        """n bytes of devices, read or written in aligned parts."""
        steps: list[tuple[int, int]] = []
        out = []
        at = addr
        while n:
            part = min(8 if space == Space.MMIO else 4, at & -at or 8, 1 << n.bit_length() - 1)
            steps.append((at, part))
            at += part
            n -= part
            if n == 0 or len(steps) == BATCH:
                acc = np.zeros(len(steps), ACC)
                acc["t_ns"] = self._now
                acc["addr"], acc["size"] = np.array(steps, np.uint64).T
                acc["space"] = space
                if data is not None:
                    acc["dir"] = 1
                    acc["value"] = [int.from_bytes(data[a - addr : a - addr + s], "little") for a, s in steps]
                values, before = self._run(acc)
                self._out += before.values()
                out += [v.to_bytes(8, "little")[:s] for v, (_, s) in zip(values.tolist(), steps, strict=True)]
                steps.clear()
        return b"".join(out)

    def _load(self, addr: int, n: int) -> bytes:
        out = []
        self._fresh()
        for kind, at, part, offset in self.memory.pieces(addr, n):
            if kind == BUS:
                out.append(self._bus(Space.MMIO, at, part))
            elif kind == NOTHING:
                out.append(bytes(part))
            else:
                out.append(bytes((self.memory.rom if kind == ROM else self.memory.ram)[offset : offset + part]))
        return b"".join(out)

    def _store(self, addr: int, data: bytes) -> None:
        done = 0
        self._fresh()
        for kind, at, part, offset in self.memory.pieces(addr, len(data)):
            if kind == BUS:
                self._bus(Space.MMIO, at, part, data[done : done + part])
                self._stale |= self._ecam
            elif kind == RAM:
                self.memory.ram[offset : offset + part] = data[done : done + part]
            else:
                assert kind in (RAM_READ_ONLY, ROM, NOTHING)
            done += part

    def _fresh(self) -> None:
        if self._stale:
            self._stale = False
            self.memory.refresh()

    def _access(self, words: list[str]) -> str:
        """The single accesses that _quick leaves: odd numbers, the video window, PAM segments, ROM, what straddles."""
        size, _, port, write, answer = _OPS[words[0].encode()]
        numbers = _numbers(words, 2 if write else 1)
        addr = numbers[0]
        data = (numbers[1] & ((1 << size * 8) - 1)).to_bytes(size, "little") if write else None
        if port:
            if addr > 0xFFFF:
                raise Malformed(f"port {addr:#x} is above 0xffff")
            inside = min(size, 0x10000 - addr)
            if write and 0xCF8 <= addr < 0xD00:
                self._stale = True
            got = self._bus(Space.PIO, addr, inside, data) + bytes(size - inside)
        elif data is not None:
            self._store(addr, data)
        else:
            got = self._load(addr, size)
        return "OK" if write else (answer[:-1] % int.from_bytes(got, "little")).decode()

    def _read(self, words: list[str]) -> str:
        addr, n = _numbers(words, 2)
        if not n:
            raise Malformed("nothing to read")
        return "OK 0x" + self._load(addr, _length(n)).hex()

    def _b64read(self, words: list[str]) -> str:
        addr, n = _numbers(words, 2)
        return "OK " + base64.b64encode(self._load(addr, _length(n))).decode()

    def _write(self, words: list[str]) -> str:
        addr, n = _numbers(words, 2)
        text = _word(words, 3)
        if len(text) < 3:
            return "ERR invalid argument size"
        digits = text[2 : 2 + 2 * _length(n)]
        digits = digits[: len(digits) & ~1]
        if not re.fullmatch("[0-9a-fA-F]*", digits):
            raise Malformed("the data is not hexadecimal")
        data = bytes.fromhex(digits)
        self._store(addr, data.ljust(n, b"\0"))
        return "OK"

    def _b64write(self, words: list[str]) -> str:
        addr, n = _numbers(words, 2)
        text = _word(words, 3)
        if len(text) < 3:
            return "ERR invalid argument size"
        try:
            data = base64.b64decode(text)
        except (binascii.Error, ValueError) as e:
            raise Malformed(f"no base 64: {e}") from None
        self._store(addr, data[: _length(n)].ljust(n, b"\0"))
        return "OK"

    def _memset(self, words: list[str]) -> str:
        addr, n, byte = _numbers(words, 3)
        self._store(addr, bytes([byte & 0xFF]) * _length(n))
        return "OK"

    # ------------------------------------------------------------------ time and lines

    def _move_to(self, target: int) -> str:
        m = self.machine
        assert m is not None
        while m.clock.now < target and not self.stopping():
            m.clock.step(min(STEP_NS, target - m.clock.now))
            if self._changed():
                self._out += self._lines().values()
            self._look_for_resets()
        self._now = m.clock.now
        return f"OK {self._now}"

    def _clock_step(self, words: list[str]) -> str:
        assert self.machine is not None
        if len(words) > 1:
            return self._move_to(self._now + number(words[1], signed=True))
        when = self.machine.clock.next()
        return self._move_to(self._now if when is None else when)

    def _clock_set(self, words: list[str]) -> str:
        return self._move_to(number(_word(words, 1), signed=True))

    def _device(self, path: str) -> str:
        """A device's id by the last part of a path: the id itself, its type, or a name of the reference's."""
        assert self.machine is not None
        name = path.rstrip("/").rpartition("/")[2]
        for p in self.machine.plan.devices:
            if name in (p.id, p.spec.type) or self.names.get(name) in (p.id, p.spec.type):
                return p.id
        return ""

    def _intercept(self, words: list[str]) -> str:
        assert self.machine is not None
        id = self._device(_word(words, 1))
        if not id:
            return "FAIL Unknown device"
        if self._watched:
            return "OK" if self._watched == id else "FAIL IRQ intercept already enabled"
        self._lines()  # what has changed until now nobody asked for
        plan = self.machine.plan
        device = plan.devices[plan.rank(id)]
        inward = words[0] == "irq_intercept_in"
        pins, wires = (device.cls.IN, device.spec.inputs) if inward else (device.cls.OUT, device.spec.lines)
        for n, pin in enumerate(pins):
            if wires.get(pin) in plan.observed:
                self._watch.setdefault(plan.observed.index(wires[pin]), []).append(n)
        self._watched, self._inward = id, inward
        return "OK"

    def _set_irq_in(self, words: list[str]) -> str:
        assert self.machine is not None
        id = self._device(_word(words, 1))
        if not id:
            return "FAIL Unknown device"
        name, n, level = _word(words, 2), number(_word(words, 3), signed=True), number(_word(words, 4), signed=True)
        pins = self.machine.plan.devices[self.machine.plan.rank(id)].cls.IN
        if name in pins:
            pin = name
        elif name == "unnamed-gpio-in" and 0 <= n < len(pins):
            pin = pins[n]
        else:
            raise Malformed(f"device {id} has no input {name[:40]!a} {n}; it has {len(pins)}")
        self.machine.input(LINE, id, int(level != 0), pin)
        if self._inward and id == self._watched:
            self._out.append(self._change(pins.index(pin), int(level != 0)))
        return "OK"


def _word(words: list[str], n: int) -> str:
    if len(words) <= n:
        raise Malformed(f"{n} arguments wanted, {len(words) - 1} given")
    return words[n]


def _numbers(words: list[str], n: int) -> list[int]:
    return [number(_word(words, i)) for i in range(1, n + 1)]


def _length(n: int) -> int:
    if n > MAX_BYTES:
        raise Malformed(f"{n} bytes at once; {MAX_BYTES} at most")
    return n


def observing_all(machine_spec: MachineSpec) -> MachineSpec:
    """The same machine spec with every wire observed, so that any device's lines can be intercepted."""
    board = machine_spec.board
    wires = dict.fromkeys(board.observe)
    for d in machine_spec.devices:
        wires |= dict.fromkeys([*d.lines.values(), *d.inputs.values()])
    return replace(machine_spec, board=replace(board, observe=tuple(wires)))


# ---------------------------------------------------------------------- the server


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client is: protocol "qtest" or "qmp"; path of a UNIX socket, "" for standard input and output; listen:
    it comes to us."""

    protocol: str
    path: str
    listen: bool = False


class _Peer:
    """One connection.  What cannot be sent yet waits in `out`; a client that does not read is not read either."""

    WAITING_MAX = 16 << 20

    def __init__(
        self, server: Server, source: int, sink: int, protocol: str, owner: socket.socket | None = None
    ) -> None:
        self.source, self.sink, self.owner = source, sink, owner
        self.out = bytearray()
        self.server = server
        self.open = True
        self.monitor: Monitor | None = None
        self.held: Callable[[], bool] = lambda: False  # whether feed(b"") has something to do
        if owner is not None:
            os.set_blocking(source, False)
        server.peers.append(self)
        server.selector.register(source, selectors.EVENT_READ, self.ready)
        if protocol == "qmp":
            monitor = Monitor(server.guest, self.send)
            self.feed: Callable[[bytes], object] = monitor.feed
            if self.open:
                self.monitor = monitor
            else:
                monitor.close()  # the client had gone before its greeting
        else:
            self.qtest = server.qtest()
            self.feed = lambda data: self.send(self.qtest.feed(data))
            self.held = lambda: self.qtest.held
            server.guest.clients.append(self)

    def look(self) -> None:
        """Take what the machine's wires have done."""
        self.send(self.qtest.look())

    def moved(self) -> None:
        """The machine was reset from outside, or is another one."""
        if self.qtest.machine is not self.server.guest.machine:
            self.qtest.attach(self.server.guest.machine)
        self.qtest.moved()

    def send(self, data: bytes) -> None:
        """Queue bytes, and write what goes at once."""
        self.out += data
        self.flush()

    def flush(self) -> None:
        """Write what can be written now, and say what is waited for."""
        if not self.open:
            return
        try:
            while self.out:
                del self.out[: os.write(self.sink, self.out)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self.source in self.server.selector.get_map():
            read = selectors.EVENT_READ if len(self.out) < self.WAITING_MAX and not self.held() else 0
            write = selectors.EVENT_WRITE if (self.out or self.held()) and self.sink == self.source else 0
            self.server.selector.modify(self.source, read | write, self.ready)

    def ready(self, mask: int) -> None:
        """The client has sent something, or can take something."""
        if mask & selectors.EVENT_WRITE:
            self.flush()
            if self.open and self.held() and not self.out:
                self.feed(b"")
        if not mask & selectors.EVENT_READ or not self.open:
            return
        try:
            data = os.read(self.source, 1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.feed(data)
            while self.held() and self.sink != self.source and not self.server.guest.ended:
                self.feed(b"")  # standard output: a write waits
        else:
            self.close()

    def close(self) -> None:
        """The client is gone."""
        if self.open:
            self.open = False
            self.server.selector.unregister(self.source)
            self.server.peers.remove(self)
            if self.monitor is not None:
                self.monitor.close()
            if self in self.server.guest.clients:
                self.server.guest.clients.remove(self)
            if self.owner is not None:
                self.owner.close()


class Server:
    """Serves a guest's clients, each on its own connection, from one thread, until the guest ends, the process is
    terminated, or nobody
    is left.  Use as a context: it puts back the signal handlers."""

    def __init__(self, guest: Guest, rom: bytes = b"") -> None:
        self.guest, self.rom = guest, rom
        self.selector = selectors.PollSelector()  # takes regular files for standard input, which epoll does not
        self.peers: list[_Peer] = []
        self.listeners: list[tuple[socket.socket, str]] = []
        self._arriving: list[tuple[socket.socket, str]] = []  # where a state is awaited

    def qtest(self) -> Qtest:
        """A new client's side of the protocol."""
        return Qtest(
            self.guest.machine,
            self.rom,
            {theirs: ours for ours, theirs in MODELS.items()},
            lambda: self.guest.ended,
            self.guest.resets,
            self.guest.notices,
            self.guest.settle,
        )

    def open(self, endpoints: Iterable[Endpoint]) -> None:
        """Connect to, or wait for, the clients.  Raises UsageError."""
        for e in endpoints:
            if not e.path:
                _Peer(self, 0, 1, e.protocol)
                continue
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                if e.listen:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(e.path)
                    s.bind(e.path)
                    s.listen()
                    self.listeners.append((s, e.path))
                    self.selector.register(s, selectors.EVENT_READ, self._accept(s, e.protocol))
                else:
                    s.connect(e.path)
                    _Peer(self, s.fileno(), s.fileno(), e.protocol, s)
            except OSError as error:
                s.close()
                raise UsageError(f"{e.protocol} socket {e.path}: {error.strerror or error}") from None

    def incoming(self, uri: str, running: bool) -> None:
        """Wait for the machine's state.  Raises UsageError."""
        listener = migration.listen(uri)
        self._arriving.append((listener, uri.removeprefix("unix:") if uri.startswith("unix:") else ""))

        def accept(mask: int) -> None:
            s, _ = listener.accept()
            self.selector.unregister(listener)
            s.setblocking(True)
            arrival = migration.Arrival()

            def ready(mask: int) -> None:
                state = arrival.feed(s.recv(1 << 20))
                if state is not None:
                    self.selector.unregister(s)
                    s.close()
                    self.guest.arrive(state, running)

            self.selector.register(s, selectors.EVENT_READ, ready)

        self.selector.register(listener, selectors.EVENT_READ, accept)

    def _accept(self, listener: socket.socket, protocol: str) -> Callable[[int], None]:
        def ready(mask: int) -> None:
            s, _ = listener.accept()
            _Peer(self, s.fileno(), s.fileno(), protocol, s)

        return ready

    def run(self) -> int:
        """Serve; the exit status."""
        wake_in, wake_out = socket.socketpair()
        wake_out.setblocking(False)
        before = signal.signal(signal.SIGTERM, lambda n, f: self.guest.end(False, "host-signal"))
        old = signal.set_wakeup_fd(wake_out.fileno(), warn_on_full_buffer=False)
        self.selector.register(wake_in, selectors.EVENT_READ, lambda mask: wake_in.recv(64))
        try:
            while not self.guest.ended and (self.peers or self.listeners):
                for key, mask in self.selector.select():
                    key.data(mask)
        finally:
            signal.set_wakeup_fd(old)
            signal.signal(signal.SIGTERM, before)
            self.close()
            wake_in.close()
            wake_out.close()
        return self.guest.status or 0

    def close(self) -> None:
        """Send what is waiting, for a second at most, and close everything."""
        end = time.monotonic() + 1
        while any(p.out for p in self.peers) and time.monotonic() < end:
            for p in list(self.peers):
                p.flush()
            time.sleep(0.001)
        for p in list(self.peers):
            p.close()
        for s, path in self.listeners + self._arriving:
            s.close()
            if path:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        self.listeners.clear()
