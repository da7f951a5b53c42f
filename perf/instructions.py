"""How many instructions does an access take on each path?  A guard that no busy host can disturb.

    python -m perf.instructions            # count, and compare with perf/instructions.toml
    python -m perf.instructions --record   # count, and record what this compiler gives

valgrind's callgrind runs each path.  A path's count is what its hot function and all that it calls execute, less the
calls that wait for the other side, over the accesses.  Workers are threads beside the router, and sleep instead of
spinning.  The same compiler has to give what was recorded with it, within SAME.  For another, the ratio to the raw
loop of engine.testing._walk, which it compiled too, has to be that of the record, within OTHER.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engine import _ring
from engine._dispatch import HIT, RANGE, Dispatcher
from engine._executor import Executor
from engine._ring import WORKER, Link
from engine._shm import Segment
from engine.errors import EngineError, UsageError
from engine.machine import Machine, build_devices
from engine.machine.build import plan
from engine.machine.derive import derive
from engine.machine.spec import MachineSpec
from engine.sequencer import Sequencer
from engine.types import Space
from engine.workers._loop import WorkerLoop
from perf.benches._common import accesses, recording
from perf.limits import library

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "perf" / "instructions.toml"
HEADER = Path("/usr/include/valgrind/callgrind.h")
LIMIT = 300.0  # s that a count may take; it takes some 20
SAME, OTHER = 0.05, 0.3
STOP = 1
TRACE = "seabios-pc"
UART_SCR, PORT80 = 0x3FF, 0x80
SINGLE = 500  # calls of Machine.read
RANGES = 1 << 15  # of a map that lies outside of the nearest caches

SEQUENCER, LOOP = "__pyx_f_6engine_9sequencer_9Sequencer_", "__pyx_f_6engine_7workers_5_loop_10WorkerLoop_"
LOOKUP = "__pyx_f_6engine_9_dispatch_dispatch_batch"
RAW = "raw loop"
# Path -> (part of the count, function).
PATHS = {
    RAW: ("raw", "__pyx_pw_6engine_7testing_5_walk_4Walk_7local"),
    "local": ("local", SEQUENCER + "_run_local"),
    "sync, router": ("sync", SEQUENCER + "_run_waiting"),
    "sync, worker": ("sync", LOOP + "_slot"),
    "buffered, router": ("buffered", SEQUENCER + "_run_waiting"),
    "buffered, worker": ("buffered", LOOP + "_turn"),
    "batched, router": ("batched", SEQUENCER + "_run_batched"),
    "batched, worker": ("batched", LOOP + "_turn"),
    "Machine.read": ("single", "__pyx_pw_6engine_7machine_7_single_12SingleAccess_3read"),
    "look-up, board": ("board", LOOKUP),
    "look-up, many ranges": ("many", LOOKUP),
}
# What waits or wakes inside of those is no part of an access: it happens as the other side has it.
WAITS = re.compile(f"__pyx_f_6engine_7workers_5_wait_|{SEQUENCER}_await$")


# ---------------------------------------------------------------------- what is counted, inside of valgrind


@contextmanager
def threads(spec: MachineSpec) -> Iterator[Sequencer]:
    """A board whose devices belong to one worker, which is a thread here and sleeps when it has nothing to do."""
    planned = plan(derive(spec))
    ram = Segment.create("counted", spec.board.ram)
    link = Link.create(name="counted", n_units=len(planned.units))
    devices, _ = build_devices(planned, list(range(len(planned.devices))), ram)
    executor = Executor(devices.values(), planned.units, planned.inner_wires())
    loop = WorkerLoop(
        executor, Link.attach(link.segment.fileno(), WORKER), range(len(planned.units)), "block", crowded=True
    )

    def serve() -> None:
        while loop.serve() != STOP:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Sequencer(planned, memoryview(ram), None, [link], [0] * len(planned.units), "block", True)
    finally:
        link.stop(STOP)
        thread.join(10)


def count() -> None:
    """Run every path once, counted in a part of its name; `accesses NAME N` is printed for each."""
    valgrind = library("counted")
    if not valgrind.counted_here():
        raise UsageError("perf.instructions --count is for valgrind; run without it")

    def part(name: str, n: int, run: Callable[[], Any]) -> None:
        valgrind.counted_start()
        run()
        valgrind.counted_stop(ctypes.c_char_p(name.encode()))
        print("accesses", name, n)

    r = recording(TRACE)
    walk = r.walk()
    part("raw", len(r.acc), lambda: walk.local(r.acc))
    with Machine(r.job.spec, path="local", contents=r.job.contents) as m:
        inputs = r.inputs(m)
        part("local", len(r.acc), lambda: m.run(r.acc, *inputs))
        read = m.read
        part("single", SINGLE, lambda: [read("pio", UART_SCR, 1) for _ in range(SINGLE)])
        table, out = m.sequencer.map.current, np.empty(len(r.acc), HIT)
        part("board", len(r.acc), lambda: table.lookup_batch(r.acc, out))
    with threads(r.job.spec) as s:
        part("batched", len(r.acc), lambda: s.run(r.acc, inputs[0], "batched", inputs[1]))
        now = np.uint64(s.clock)
        for name, acc in (("sync", accesses(2_000, 0, UART_SCR)), ("buffered", accesses(4_000, 0, PORT80, write=True))):
            acc["t_ns"] += now
            now = acc["t_ns"][-1]
            part(name, len(acc), lambda name=name, acc=acc: s.run(acc, None, name))
    part("many", len(r.acc), many(len(r.acc)))


def many(n: int) -> Callable[[], Any]:
    """Look-ups of n random addresses among RANGES ranges over 52 bits."""
    rng = np.random.default_rng(1)
    cuts = np.unique(rng.integers(0, 1 << 52, 2 * RANGES, dtype=np.uint64))
    cuts = cuts[: len(cuts) & ~1]
    ranges = np.zeros(len(cuts) // 2, RANGE)
    ranges["space"], ranges["accepts"] = int(Space.MMIO), 15
    ranges["base"], ranges["size"] = cuts[::2], cuts[1::2] - cuts[::2]
    ranges["region"] = np.arange(len(ranges))
    d = Dispatcher()
    d.map_many(ranges)
    d.publish()
    acc = accesses(n, int(Space.MMIO), 0)
    acc["addr"] = rng.integers(0, 1 << 52, n, dtype=np.uint64)
    out = np.empty(n, HIT)
    return lambda: d.current.lookup_batch(acc, out)


# ---------------------------------------------------------------------- callgrind's files


class Profile:
    """One part of a callgrind file: what each function cost by itself, and the calls it made."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.own: dict[str, int] = defaultdict(int)
        self.calls: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        function = callee = ""
        for line in lines:
            if line.startswith("fn="):
                function = line[3:].strip()
            elif line.startswith("cfn="):
                callee = line[4:].strip()
            elif line[:1].isdigit():
                cost = int(line.split()[1])
                if callee:
                    self.calls[function][callee] += cost
                else:
                    self.own[function] += cost
                callee = ""

    def total(self, function: str) -> int:
        """Instructions of a function and of all that it calls, however deep, but WAITS."""
        if function not in self.own:
            raise EngineError(f"{function} was not called: renamed, or in line now? perf/instructions.py names it")
        sum_, below, todo = self.own[function], {function}, [function]
        sum_ += sum(cost for callee, cost in self.calls[function].items() if callee != function)
        while todo:
            f = todo.pop()
            for callee, cost in self.calls[f].items():
                if WAITS.match(callee):
                    sum_ -= cost
                elif callee not in below:
                    below.add(callee)
                    todo.append(callee)
        return sum_


def parts(folder: Path) -> dict[str, Profile]:
    """Name -> profile of what counted_stop wrote into a folder."""
    out = {}
    for path in folder.glob("callgrind.*"):
        text = path.read_text(errors="replace")
        if name := re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE):
            out[name[1].strip()] = Profile(text.splitlines())
    return out


# ---------------------------------------------------------------------- counting, comparing, recording


def compiler() -> str:
    """Who compiled the engine, as it wrote into the extension: "gcc 12"."""
    found = re.search(rb"(GCC|clang version)[^\0]*? (\d+)\.\d+", Path(_ring.__file__).read_bytes())
    return f"{'clang' if found[1] != b'GCC' else 'gcc'} {found[2].decode()}" if found else "an unknown compiler"


def lacking() -> str:
    """What a count needs and this host lacks; empty if it has all."""
    if shutil.which("valgrind") is None:
        return "valgrind is missing (Debian: apt install valgrind)"
    if not HEADER.is_file():
        return f"{HEADER} is missing (Debian: apt install valgrind)"
    if shutil.which(os.environ.get("CC", "cc").split()[0]) is None:
        return "no C compiler (Debian: apt install gcc)"
    return ""


def counts() -> dict[str, float]:
    """Path -> instructions for each access, or call, or look-up.  Raises EngineError."""
    if why := lacking():
        raise UsageError(f"instructions: {why}")
    with tempfile.TemporaryDirectory() as tmp:
        words = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={tmp}/callgrind"]
        words += ["--instr-atstart=no", "--compress-strings=no", "--compress-pos=no"]
        words += [sys.executable, "-m", "perf.instructions", "--count"]
        # hash seed: what a dictionary costs must not change from run to run
        env = dict(os.environ, PYTHONHASHSEED="0", PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path[1:]]))
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT)
        if done.returncode:
            raise EngineError(f"instructions: the count failed: {done.stderr.strip()[-2000:]}")
        made = {k: int(n) for k, n in re.findall(r"^accesses (\w+) (\d+)$", done.stdout, re.MULTILINE)}
        found = parts(Path(tmp))
        return {path: found[part].total(function) / made[part] for path, (part, function) in PATHS.items()}


def recorded() -> dict[str, dict[str, float]]:
    """Compiler -> path -> count, as recorded."""
    return tomllib.loads(RECORD.read_text())


def differences(now: dict[str, float], who: str, record: dict[str, dict[str, float]]) -> list[str]:
    """One line for each path that is off the record."""
    if who in record:
        want, within, unit = record[who], SAME, "instructions"
        got = now
    else:  # as near as its nearest relative, in units of the raw loop
        who = next((k for k in record if k.split()[0] == who.split()[0]), next(iter(record)))
        want = {k: v / record[who][RAW] for k, v in record[who].items()}
        got = {k: v / now[RAW] for k, v in now.items()}
        within, unit = OTHER, "raw loops"
    if set(want) != set(got):
        return [f"{', '.join(sorted(set(want) ^ set(got)))}: counted or recorded, not both; record again"]
    return [
        f"{path}: {got[path]:.4g} {unit}, {got[path] / want[path] - 1:+.1%} from the {want[path]:.4g} of {who}; "
        f"{within:.0%} is allowed"
        for path in want
        if abs(got[path] / want[path] - 1) > within
    ]


def write(now: dict[str, float], who: str) -> None:
    """Put the counts of a compiler into the record."""
    record = recorded() if RECORD.is_file() else {}
    record[who] = now
    lines = ["# Instructions an access, by the compiler that made the engine: python -m perf.instructions --record"]
    for name, each in sorted(record.items()):
        lines += ["", f'["{name}"]', *(f'"{path}" = {value:.1f}' for path, value in each.items())]
    RECORD.write_text("\n".join(lines) + "\n")


def main() -> int:
    """Exit status: 1 if a path is off the record."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--record", action="store_true", help="write what was counted into perf/instructions.toml")
    p.add_argument("--count", action="store_true", help=argparse.SUPPRESS)  # what valgrind runs
    args = p.parse_args()
    if args.count:
        count()
        return 0
    try:
        now, who = counts(), compiler()
    except EngineError as e:
        sys.exit(str(e))
    for path, value in now.items():
        print(f"{path:24} {value:8.1f}")
    if args.record:
        write(now, who)
        return 0
    odd = differences(now, who, recorded())
    print(*odd, sep="\n")
    return int(bool(odd))


if __name__ == "__main__":
    sys.exit(main())
