"""What runs a program from power-on: the engine in any configuration or build, QEMU over qtest, a recording."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine._device import CONTENT, INTACK
from engine._device import KEY as KEY_INPUT
from engine._device import LINE as LINE_INPUT
from engine.errors import EngineError, UsageError
from engine.machine import Machine
from engine.measure.diff.board import ACK, CONTROL, KEY, LINE, Array, Board
from engine.sequencer import INPUT
from engine.types import Space

ROM_BYTES = 1 << 16  # of zeros, where a firmware would be: what devices read there by DMA is the same on both sides
BLOCK = 512  # qtest requests under way at once
IDLE = 2  # requests of their own after which what QEMU has put off is done
ANSWER_S = 20


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
    """The engine by one of its paths; one_by_one submits each access alone."""

    control = True

    def __init__(self, board: Board, path: str = "local", workers: int = 2, one_by_one: bool = False) -> None:
        self.board, self.path, self.workers, self.one_by_one = board, path, workers, one_by_one
        self.title = f"engine, {path} path" + (
            ", one access at a time" if one_by_one else f", {workers} workers" if path != "local" else ""
        )
        names = {p.spec.type: p.rank for p in reversed(board.plan.devices)}
        self.pic, self.ioapic, self.key = names["i8259"], names["ioapic"], names.get("i8042", 0)
        self.ack = names.get("lapic", self.pic)

    def run(self, program: Array) -> Result:
        """Run it on a new machine."""
        access = program["space"] <= Space.MMIO
        acc = program[access]
        acc["value"][acc["dir"] == 0] = 0
        events = program[~access]
        given = np.zeros(len(events), INPUT)
        given["t_ns"], given["value"] = events["t_ns"], events["value"]
        given["index"] = np.cumsum(access)[~access]
        kinds = {ACK: (INTACK, self.ack << 8), KEY: (KEY_INPUT, self.key << 8), LINE: (LINE_INPUT, self.ioapic << 8)}
        for n, e in enumerate(events):
            given["kind"][n], given["target"][n] = kinds[int(e["space"])]
            given["target"][n] |= int(e["addr"])
        at_pic = np.flatnonzero((events["space"] == LINE) & (events["addr"] < 16))  # both controllers see it
        again = given[at_pic]
        again["target"] = self.pic << 8 | events["addr"][at_pic].astype(np.uint32)
        given = np.insert(given, at_pic, again)
        first = np.delete(np.arange(len(given)), at_pic + np.arange(len(at_pic)))  # what answers an event
        options: dict[str, Any] = {"path": self.path} | ({"workers": self.workers} if self.path != "local" else {})
        value = np.zeros(len(program), np.uint64)
        with Machine(self.board.spec, **options) as machine:
            machine.lines()
            if self.one_by_one:
                values, status, answers, lines = self._single(machine, acc, given)
            else:
                values, status, answers = machine.run(acc, given)
                lines = machine.lines()
        value[access], value[~access] = values, answers[first].astype(np.int64).view(np.uint64) & np.uint64(0xFFFFFFFF)
        where = np.append(np.flatnonzero(access), len(program))
        rows = [(int(where[int(c["index"])]), int(c["line"]), int(c["level"])) for c in lines]
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

    @staticmethod
    def _single(machine: Machine, acc: Array, given: Array) -> tuple[Array, Array, Array, Array]:
        values, status, answers, lines = (
            np.zeros(len(acc), np.uint64),
            np.zeros(len(acc), np.uint8),
            np.zeros(len(given), np.int64),
            [],
        )
        for i in range(len(acc) + 1):
            a, b = np.searchsorted(given["index"], [i, i + 1])
            part = given[a:b].copy()
            part["index"] = 0
            values[i : i + 1], status[i : i + 1], answers[a:b] = machine.run(acc[i : i + 1], part)
            more = machine.lines()
            more["index"] += np.uint64(i)
            lines.append(more)
        return values, status, answers, np.concatenate(lines)


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
            [sys.executable, "-m", "engine.measure.diff.answer", self.board.name],
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
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise UsageError(f"{path}: no recording of engine diff ({e})") from None
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
    """Write a file for RecordedSide."""
    arrays: dict[str, Any] = {f"program{n}": r.program for n, r in enumerate(programs)}
    for n, r in enumerate(programs):
        arrays |= r.result.packed(n)
    facts = json.dumps({"of": of, "programs": [[r.board, r.part, r.seed] for r in programs]})
    with path.open("wb") as f:
        np.savez_compressed(f, facts=np.array(facts), **arrays)


SUFFIX = {1: "b", 2: "w", 4: "l", 8: "q"}


def qtest_lines(program: Array) -> tuple[list[str], list[int]]:
    """A program as qtest requests; for each request the record it belongs to, ~record for a move of the clock."""
    out: list[str] = []
    tags: list[int] = []
    now = 0
    for i, (t, space, addr, size, write, value) in enumerate(
        program[["t_ns", "space", "addr", "size", "dir", "value"]].tolist()
    ):
        if t > now:
            out.append(f"clock_set {t}")
            tags.append(~i)
            now = t
        if space == Space.PIO:
            text = f"out{SUFFIX[size]} {addr:#x} {value:#x}" if write else f"in{SUFFIX[size]} {addr:#x}"
        elif space == Space.MMIO:
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
        access = np.append(np.flatnonzero(space <= Space.MMIO), len(program))
        following = access[
            np.searchsorted(access, np.arange(len(program) + 1))
        ].tolist()  # record -> the access it is, or comes before
        reads = ((program["dir"] == 0) & (space <= ACK)).tolist()
        late = self.board.late(program).tolist()
        stops = [n + 1 for n, tag in enumerate(tags) if tag >= 0 and late[tag]] + [len(requests)]
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
                for _ in range(IDLE if at else 0):  # its main loop goes round: what it left for later is done
                    rows += [(following[i], *_irq(line)) for line in q.block(["endianness"]) if line.startswith(b"IRQ")]
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
        self.folder = tempfile.TemporaryDirectory(prefix="engine-diff-")
        path, rom = Path(self.folder.name, "qtest"), Path(self.folder.name, "rom")
        rom.write_bytes(bytes(ROM_BYTES))
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
            "-bios",
            str(rom),
            *self.side.board.args,
        ]
        self.errors = Path(self.folder.name, "stderr")
        with socket.socket(socket.AF_UNIX) as server, self.errors.open("wb") as errors:
            server.bind(str(path))
            server.listen()
            server.settimeout(0.1)
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=self.side.env
            )
            while True:
                try:
                    self.socket = server.accept()[0]
                    break
                except TimeoutError:
                    if self.process.poll() is not None:
                        said = self.said()
                        self.folder.cleanup()
                        raise UsageError(
                            f"{self.side.qemu} did not start: {said or f'exit status {self.process.returncode}'}"
                        ) from None
        self.socket.settimeout(ANSWER_S)
        try:
            self.block(["irq_intercept_in ioapic", f"outl {CONTROL:#x} 0"])
            port, cpu = (
                ln for ln in self.block([f"inl {CONTROL + 4:#x}", f"inl {CONTROL:#x}"]) if ln.startswith(b"OK")
            )
            self.control = int(cpu[3:], 16) == int(port[3:], 16) == 0xFFFFFFFF and "QEMU_MODULE_DIR" in self.side.env
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

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
                chunk = self.socket.recv(1 << 18)
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
                f"gave no answer for {ANSWER_S} s"
                if isinstance(e, TimeoutError)
                else f"went away (status {self.process.poll()}{': ' + said if said else ''})"
            )
            raise EngineError(f"{self.side.title} {why} at {requests[min(at, len(requests) - 1)]}") from None
        return out
