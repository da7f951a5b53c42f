"""What runs a program from power-on: the engine in any configuration or build, QEMU over qtest, a recording."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine._device import CONTENT, INTACK
from engine._device import KEY as KEY_INPUT
from engine._device import LINE as LINE_INPUT
from engine.errors import EngineError, UsageError, reason
from engine.machine import Machine
from engine.measure.diff.board import ACK, CONTROL, KEY, LINE, MEM, RESET, ROUNDS, SPACE_SHIFT, Array, Board
from engine.measure.diff.swtpm import SoftwareTpm
from engine.measure.host import cpu_seconds
from engine.sequencer import INPUT, RAM
from engine.types import Space
from engine.workers.placement import shuffled

ROM_BYTES = 1 << 16  # of zeros, where a firmware would be: what devices read there by DMA is the same on both sides
BLOCK = 512  # qtest requests under way at once
IDLE = 2  # requests of their own after which what QEMU has put off is done
ANSWER_S = 20  # of QEMU's own processor time
SILENT_S = 300  # if it waits for something itself


NOTHING: Array = np.zeros(0, bool)


@dataclass(slots=True)
class Result:
    """What a program gave: a value for each record, and for each access the line changes since the one before."""

    value: Array
    lines: dict[
        int, tuple[tuple[int, int], ...]
    ]  # index of an access -> (line, level), lines in order, each line's changes as they came
    content: Array = field(
        default_factory=lambda: NOTHING
    )  # by record: the value is content, that somebody gave the part; empty: not known

    def __post_init__(self) -> None:
        if not len(self.content):
            self.content = np.zeros(len(self.value), bool)

    def packed(self, n: int = 0) -> dict[str, Array]:
        """As arrays, named for number n."""
        rows = [(at, *change) for at, changes in self.lines.items() for change in changes]
        return {
            f"value{n}": self.value,
            f"lines{n}": np.array(rows, np.uint32).reshape(-1, 3),
            f"content{n}": self.content,
        }

    @classmethod
    def unpacked(cls, arrays: Mapping[str, Array], n: int = 0) -> Result:
        """From `packed`."""
        lines: dict[int, list[tuple[int, int]]] = {}
        for at, line, level in arrays[f"lines{n}"].tolist():
            lines.setdefault(at, []).append((line, level))
        return cls(arrays[f"value{n}"], {at: tuple(c) for at, c in lines.items()}, arrays[f"content{n}"])


class Side(Protocol):
    """An implementation that runs a program from power-on."""

    title: str
    control: bool

    def run(self, program: Array) -> Result:
        """Run it.  Raises EngineError if the implementation dies."""


def _sorted_lines(rows: Iterable[tuple[int, int, int]]) -> dict[int, tuple[tuple[int, int], ...]]:
    """(access, line, level) -> by access, without what is no change.  Lines count as low before the program."""
    level: dict[int, int] = {}
    out: dict[int, list[tuple[int, int]]] = {}
    for at, line, now in rows:
        if level.get(line, 0) != now:
            level[line] = now
            out.setdefault(at, []).append((line, now))
    return {at: tuple(sorted(changes, key=lambda c: c[0])) for at, changes in out.items()}


class EngineSide:
    """The engine by one of its paths; one_by_one submits each access alone.  owners: the worker of each unit; anew:
    another placement at random for each program."""

    control = True

    def __init__(
        self,
        board: Board,
        path: str = "local",
        workers: int = 2,
        owners: list[int] | None = None,
        *,
        one_by_one: bool = False,
        anew: bool = False,
    ) -> None:
        self.board, self.path, self.workers, self.one_by_one = board, path, workers, one_by_one
        self.owners, self.anew = owners, anew
        how = ", one access at a time" if one_by_one else f", {workers} workers" if path != "local" else ""
        self.title = f"engine, {path} path{how}" + ", placed anew for each program" * anew
        devices = board.plan.devices
        names = {p.spec.type: p.rank for p in reversed(devices)}
        self.pic, self.ioapic, self.key = names["i8259"], names.get("ioapic", 0), names.get("i8042", 0)
        lapics = {p.spec.vcpu: p.rank for p in devices if p.spec.type == "lapic"}
        self.ack = lapics or {0: self.pic}

    def run(self, program: Array) -> Result:
        """Run it on a new machine."""
        access = (program["space"] <= Space.MMIO) | (program["space"] == RESET)
        acc = program[access]
        acc["value"][acc["dir"] == 0] = 0
        reset = acc["space"] == RESET
        acc["space"][reset] = Space.PIO
        before = np.cumsum(access) - access  # accesses before each record
        looks = np.flatnonzero((program["space"] == MEM) & (program["dir"] == 0))
        event = ~access
        event[looks] = False
        given, doubled = self._inputs(program[event], before[event])
        of = np.arange(int(event.sum()) + 1)
        first = of + np.searchsorted(doubled, of, "left")  # where each event's inputs begin
        # The batch is cut where RAM is looked at, and before every access if they go one by one.
        cuts = [
            (int(before[i]), int(first[n]), int(i))
            for i, n in zip(looks, (np.cumsum(event) - event)[looks], strict=True)
        ]
        if self.one_by_one:
            starts = np.searchsorted(given["index"], np.arange(len(acc) + 1)).tolist()
            cuts = sorted(cuts + [(n, at, -1) for n, at in enumerate(starts)])
        cuts.append((len(acc), len(given), -1))
        options: dict[str, Any] = {"path": self.path}
        if self.path != "local":
            options |= {"workers": self.workers, "owners": self._owners(program)}
        value = np.zeros(len(program), np.uint64)
        values, status = np.zeros(len(acc), np.uint64), np.zeros(len(acc), np.uint8)
        answers, lines = np.zeros(len(given), np.int64), []
        sent = program["value"][(program["space"] == MEM) & (program["dir"] == 1)].tobytes()
        tpm: AbstractContextManager[object] = SoftwareTpm(self.board.tpm) if self.board.tpm else nullcontext()
        with tpm, Machine(self.board.spec, contents=self.board.contents, **options) as machine:
            machine.lines()
            a = g = 0
            for b, h, look in cuts:
                part = given[g:h].copy()
                part["index"] -= np.uint64(a)
                values[a:b], status[a:b], answers[g:h] = machine.run(acc[a:b], part, sent)
                lines.append(self._lines(machine, a))
                if look >= 0:
                    machine.clock.step(max(0, int(program["t_ns"][look]) - machine.clock.now))
                    lines.append(self._lines(machine, b, b))
                    at, size = int(program["addr"][look]), int(program["size"][look])
                    value[look] = int.from_bytes(memoryview(machine.ram)[at : at + size], "little")
                a, g = b, h
        changes = np.concatenate(lines)
        # What a reset changes comes before the next access: it belongs to the access that asked for it.
        of_one = np.append(False, reset)[changes["index"]] & (changes["phase"] == 0)
        of_one &= changes["t_ns"] <= np.append(0, acc["t_ns"])[changes["index"]].astype(np.uint64)
        changes["index"] -= of_one.astype(np.uint64)
        value[access] = values
        told = answers[first[:-1] + np.isin(of[:-1], doubled)].astype(np.int64).view(np.uint64)
        value[event] = told & np.uint64(0xFFFFFFFF)
        where = np.append(np.flatnonzero(access), len(program))
        rows = [(int(where[int(c["index"])]), int(c["line"]), int(c["level"])) for c in changes]
        driven = np.flatnonzero(program["space"] == LINE)
        rows += zip(
            where[np.searchsorted(where, driven)].tolist(),
            program["addr"][driven].tolist(),
            program["value"][driven].tolist(),
            strict=True,
        )
        value[driven] = program["value"][driven]
        content = np.zeros(len(program), bool)
        content[access] = status & CONTENT != 0
        return Result(value, _sorted_lines(sorted(rows, key=lambda r: r[0])), content)

    def _inputs(self, events: Array, index: Array) -> tuple[Array, Array]:
        """Events as inputs of the machine, and the numbers of those that are two, the second of which answers: an input
        line reaches two controllers."""
        given = np.zeros(len(events), INPUT)
        given["t_ns"], given["value"], given["index"] = events["t_ns"], events["value"], index
        offset = 0
        kinds = {ACK: (INTACK, 0), KEY: (KEY_INPUT, self.key << 8), LINE: (LINE_INPUT, self.ioapic << 8), MEM: (RAM, 0)}
        for n, e in enumerate(events):
            space, addr = int(e["space"]), int(e["addr"])
            given["kind"][n], given["target"][n] = kinds[space]
            if space == LINE:
                given["target"][n] |= addr
            elif space == ACK:
                given["target"][n], given["value"][n] = self.ack[addr] << 8, addr
            elif space == MEM:
                given["addr"][n], given["value"][n] = addr, offset << 32 | int(e["size"])
                offset += 8
        at_pic = np.flatnonzero((events["space"] == LINE) & (events["addr"] < 16))  # both controllers see it
        again = given[at_pic]
        again["target"] = self.pic << 8 | events["addr"][at_pic].astype(np.uint32)
        return np.insert(given, at_pic, again), at_pic

    @staticmethod
    def _lines(machine: Machine, base: int, at: int | None = None) -> Array:
        """Line changes since the last call, counted from access `base`; all of them at access `at` if it is given."""
        got = machine.lines()
        got["index"] = got["index"] + np.uint64(base) if at is None else at
        return got

    def _owners(self, program: Array) -> list[int] | None:
        if self.anew:
            return shuffled(self.board.plan, self.workers, zlib.crc32(program.tobytes()))
        return self.owners


class BuildSide:
    """Another build of the engine: a folder that holds its package, used by a process of its own."""

    control = True

    def __init__(self, board: Board, folder: Path) -> None:
        if not (folder / "engine" / "__init__.py").exists():
            raise UsageError(f"{folder}: no build of the engine (there is no engine/__init__.py in it)")
        self.board, self.folder = board, folder.resolve()
        self.title = f"engine of {folder}"

    def run(self, program: Array) -> Result:
        """Run it in a new process."""
        sent = io.BytesIO()
        np.save(sent, program)
        env = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(
            [sys.executable, "-m", "engine.measure.diff.answer", self.board.name, *self.board.args],
            input=sent.getvalue(),
            capture_output=True,
            env=env,
            cwd=self.folder,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise EngineError(f"{self.title}: ended with status {done.returncode}{': ' + said[-1] if said else ''}")
        return Result.unpacked(np.load(io.BytesIO(done.stdout)))


@dataclass(frozen=True, slots=True)
class Recorded:
    """One program and what an implementation answered."""

    board: str
    part: str
    seed: int
    program: Array
    result: Result


class RecordedSide:
    """A recording of what an implementation answered; its programs are run instead of generated ones."""

    control = True

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path) as f:
                facts = json.loads(str(f["facts"]))
                self.programs = [
                    Recorded(board, part, seed, f[f"program{n}"], Result.unpacked(f, n))
                    for n, (board, part, seed) in enumerate(facts["programs"])
                ]
        except OSError as e:
            raise UsageError(f"{path}: cannot be read ({reason(e)})") from None
        except (ValueError, KeyError, TypeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error):
            raise UsageError(f"{path}: no recording of engine diff, or a damaged one") from None
        self.title = f"a recording of {facts['of']}"

    def run(self, program: Array) -> Result:
        """What was answered to it, or to the recorded program that begins with it."""
        n = len(program)
        for r in self.programs:
            if len(r.program) >= n and np.array_equal(r.program[:n], program):
                lines = r.result.lines if n == len(r.program) else {at: v for at, v in r.result.lines.items() if at < n}
                return Result(r.result.value[:n], lines)
        raise EngineError(f"{self.title} has no such program")


def save_recording(path: Path, of: str, programs: Sequence[Recorded]) -> None:
    """Write a file for RecordedSide.  Raises UsageError."""
    arrays: dict[str, Any] = {f"program{n}": r.program for n, r in enumerate(programs)}
    for n, r in enumerate(programs):
        arrays |= r.result.packed(n)
    facts = json.dumps({"of": of, "programs": [[r.board, r.part, r.seed] for r in programs]})
    try:
        with path.open("wb") as f:
            np.savez_compressed(f, facts=np.array(facts), **arrays)
    except OSError as e:
        raise UsageError(f"{path}: cannot be written ({reason(e)})") from None


SUFFIX = {1: "b", 2: "w", 4: "l", 8: "q"}


def qtest_lines(program: Array) -> tuple[list[str], list[int]]:
    """A program as qtest requests; for each request the record it belongs to, ~record for a move of the clock."""
    out: list[str] = []
    tags: list[int] = []
    now = cpu = 0
    for i, (t, space, addr, size, write, value, vcpu) in enumerate(
        program[["t_ns", "space", "addr", "size", "dir", "value", "vcpu"]].tolist()
    ):
        vcpu = addr if space == ACK else vcpu
        if vcpu != cpu and space <= ACK:
            out.append(f"outl {CONTROL:#x} {vcpu}")
            tags.append(~i)
            cpu = vcpu
        if t > now:
            out.append(f"clock_set {t}")
            tags.append(~i)
            now = t
        if space in (Space.PIO, RESET):
            text = f"out{SUFFIX[size]} {addr:#x} {value:#x}" if write else f"in{SUFFIX[size]} {addr:#x}"
        elif space in (Space.MMIO, MEM):
            text = f"write{SUFFIX[size]} {addr:#x} {value:#x}" if write else f"read{SUFFIX[size]} {addr:#x}"
        else:
            text = {
                ACK: f"inl {CONTROL + 4:#x}",
                KEY: f"outl {CONTROL + 4:#x} {value:#x}",
                LINE: f"outl {CONTROL + 8:#x} {value << 8 | addr:#x}",
            }[space]
        out.append(text)
        tags.append(i)
    return out, tags


def find_qemu(qemu: str) -> dict[str, str]:
    """The environment in which `qemu` has a qtest accelerator.  Raises UsageError that says what to install."""
    program = shutil.which(qemu)
    if not program:
        raise UsageError(
            f"{qemu}: no such program; install QEMU (Debian: apt install qemu-system-x86) or give --qemu PATH"
        )
    env = {**os.environ, "QTEST_CONTROL_PORT": "1"}  # for tools/accel_qtest.c
    if (
        "qtest"
        in subprocess.run([program, "-accel", "help"], capture_output=True, text=True, check=False).stdout.split()
    ):
        return env
    if Path(env.get("QEMU_MODULE_DIR", "/nonexistent"), "accel-qtest-x86_64.so").exists():
        return env
    tool = Path(__file__).parents[3] / "tools" / "qemu_qtest.py"
    spec = importlib.util.spec_from_file_location("qemu_qtest", tool) if tool.exists() else None
    if spec is None or spec.loader is None:
        raise UsageError(
            f"{qemu}: no qtest accelerator; install a QEMU that lists qtest under `-accel help`, or make Debian's "
            "missing module with "
            "tools/qemu_qtest.py of the source tree and set QEMU_MODULE_DIR"
        )
    supply = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(supply)
    try:
        return {**supply.reference(program)[1], "QTEST_CONTROL_PORT": "1"}
    except supply.NoReference as e:
        raise UsageError(f"{e}; install a QEMU that lists qtest under `-accel help`, or give --qemu PATH") from None


class QemuSide:
    """A QEMU started for each program and driven over qtest."""

    def __init__(self, board: Board, qemu: str = "qemu-system-x86_64") -> None:
        self.board, self.qemu = board, qemu
        self.env = find_qemu(qemu)
        version = (
            subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False)
            .stdout.partition("version ")[2]
            .split(" ")[0]
            .strip()
        )
        self.title = f"QEMU {version}"
        self.control = False
        with _Qemu(self) as q:
            self.control = q.control

    def run(self, program: Array) -> Result:
        """Run it on a new QEMU."""
        requests, tags = qtest_lines(program)
        value = program["value"].copy()
        rows: list[tuple[int, int, int]] = []
        space = program["space"]
        access = np.append(np.flatnonzero((space <= Space.MMIO) | (space == RESET)), len(program))
        following = access[
            np.searchsorted(access, np.arange(len(program) + 1))
        ].tolist()  # record -> the access it is, or comes before
        reads = ((program["dir"] == 0) & ((space <= ACK) | (space == MEM))).tolist()
        late = self.board.late(program).tolist()
        stops = [n + 1 for n, tag in enumerate(tags) if tag >= 0 and late[tag]]
        if not stops or stops[-1] < len(requests):
            stops.append(len(requests))
        with _Qemu(self) as q:
            at = 0
            for stop in stops:
                while at < stop:
                    for line in q.block(requests[at : min(at + BLOCK, stop)]):
                        tag = tags[min(at, stop - 1)]
                        i = tag if tag >= 0 else ~tag
                        if line.startswith(b"IRQ"):
                            rows.append((following[i], *_irq(line)))
                            continue
                        if tag >= 0 and reads[i]:
                            value[i] = int(line[3:], 16)
                        at += 1
                how = self.board.deferred.get(int(program["space"][i]) << SPACE_SHIFT | int(program["addr"][i]))
                for line in q.finish(how.rounds if how else ROUNDS, how.until if how else None):
                    if line.startswith(b"IRQ"):
                        rows.append((following[i], *_irq(line)))
        return Result(value, _sorted_lines(rows))


def _irq(line: bytes) -> tuple[int, int]:
    """Line and level of an IRQ message."""
    words = line.split()
    return int(words[2]), int(words[1] == b"raise")


class _Qemu:
    """One QEMU process, from start to end of a `with`."""

    def __init__(self, side: QemuSide) -> None:
        self.side = side
        self.rest = b""

    def __enter__(self) -> _Qemu:
        with ExitStack() as stack:
            self._start(stack)
            self.stack = stack.pop_all()
        return self

    def _start(self, stack: ExitStack) -> None:
        """Start it; what that needs goes with `stack`."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="engine-diff-")))
        path, rom = folder / "qtest", folder / "rom"
        files = {name: Path(shutil.copy(file, folder / name)) for name, file in self.side.board.files.items()}
        if self.side.board.tpm:
            files["tpm"] = stack.enter_context(SoftwareTpm(folder / "tpm")).path
        args = [re.sub(r"\{(\w+)\}", lambda m: str(files[m[1]]), a) for a in self.side.board.args]
        if self.side.board.own and "firmware" not in files:
            rom.write_bytes(bytes(ROM_BYTES))
            args += ["-bios", str(rom)]
        command = [
            self.side.qemu,
            "-accel",
            "qtest",
            "-qtest",
            f"unix:{path}",
            "-qtest-log",
            "/dev/null",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-shutdown",
            *args,
        ]
        self.errors = folder / "stderr"
        with socket.socket(socket.AF_UNIX) as server, self.errors.open("wb") as errors:
            server.bind(str(path))
            server.listen()
            server.settimeout(0.1)
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=self.side.env
            )
            stack.callback(self.process.wait)
            stack.callback(self.process.kill)
            while True:
                try:
                    self.socket = stack.enter_context(server.accept()[0])
                    break
                except TimeoutError:
                    if self.process.poll() is not None:
                        said = self.said()
                        raise UsageError(
                            f"{self.side.qemu} did not start: {said or f'exit status {self.process.returncode}'}"
                        ) from None
        self.socket.settimeout(1.0)
        self.block(["irq_intercept_in ioapic", f"outl {CONTROL:#x} 0"])
        port, cpu = (ln for ln in self.block([f"inl {CONTROL + 4:#x}", f"inl {CONTROL:#x}"]) if ln.startswith(b"OK"))
        self.control = int(cpu[3:], 16) == int(port[3:], 16) == 0xFFFFFFFF and "QEMU_MODULE_DIR" in self.side.env

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def finish(self, rounds: int, until: tuple[int, int, int, int] | None = None) -> list[bytes]:
        """What it has put off is done: disk transfers, a TPM's command, what its main loop does on its way round, a
        thread's work."""
        if until is not None:
            space, addr, bits, value = until
            request = f"inl {addr:#x}" if space == Space.PIO else f"readl {addr:#x}"
            while int(next(ln for ln in self.block([request]) if ln.startswith(b"OK"))[3:], 16) & bits != value:
                time.sleep(0.0001)
        board = self.side.board
        drain = [f"outl {CONTROL + 12:#x} {rounds}"] if self.control and (board.media or board.tpm) else []
        return [ln for request in drain + IDLE * ["endianness"] + drain for ln in self.block([request])]

    def _receive(self) -> bytes:
        """Some of its answers.  Raises TimeoutError if it makes none, whoever else keeps the host busy."""
        began, used = time.monotonic(), cpu_seconds(self.process.pid)
        while True:
            try:
                return self.socket.recv(1 << 18)
            except TimeoutError:
                if cpu_seconds(self.process.pid) - used > ANSWER_S or time.monotonic() - began > SILENT_S:
                    raise

    def said(self) -> str:
        """The last thing it complained about."""
        lines = self.errors.read_text(errors="replace").splitlines()
        return next((ln for ln in reversed(lines) if "warning:" not in ln), "")

    def block(self, requests: Sequence[str]) -> list[bytes]:
        """Send requests; all lines up to the last answer.  Raises EngineError if QEMU goes away or refuses one."""
        out: list[bytes] = []
        want = len(requests)
        try:
            self.socket.sendall(("\n".join(requests) + "\n").encode())
            while want:
                chunk = self._receive()
                if not chunk:
                    raise ConnectionError
                *lines, self.rest = (self.rest + chunk).split(b"\n")
                for line in lines:
                    if not line.startswith((b"OK", b"IRQ")):
                        raise EngineError(
                            f"{self.side.title}: {line.decode(errors='replace')[:80]} to "
                            f"{requests[len(requests) - want]}"
                        )
                    want -= line.startswith(b"OK")
                out += lines
        except OSError as e:
            time.sleep(0.05)
            said = self.said()
            at = len(requests) - want
            why = (
                "gave no answer"
                if isinstance(e, TimeoutError)
                else f"went away (status {self.process.poll()}{': ' + said if said else ''})"
            )
            raise EngineError(f"{self.side.title} {why} at {requests[min(at, len(requests) - 1)]}") from None
        return out
