"""Raw-C limits that the benches divide by.

`pingpong`, `futex` and `spsc` are the ones the engine itself ships (engine.measure._limits).  The others are single C
files here, compiled when first asked for, with the engine's flags, into build/limits.  They are frozen: a changed limit
changes the meaning of every number divided by it.  `library(name)` compiles any other C file of this folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from engine.errors import EngineError, UsageError
from engine.measure._limits import futex, measure, pair, pingpong, spsc, tsc_hz

__all__ = ["call", "eventfd", "futex", "library", "measure", "pair", "pingpong", "socket", "spsc", "tsc_hz"]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "limits"
# As in setup.py, release mode.
FLAGS = [
    "-O2",
    "-std=gnu11",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wno-unused-function",
    "-fPIC",
    "-shared",
    f"-I{ROOT / 'engine'}",
    f"-I{ROOT / 'engine' / 'measure'}",
]


NAMES = ("mean_ns", "p50_ns", "p99_ns", "p999_ns", "max_ns", "per_s")


class _Result(ctypes.Structure):
    """limit_result of engine/measure/limits.h."""

    _fields_ = [*((name, ctypes.c_double) for name in NAMES), ("n", ctypes.c_uint64)]


def library(name: str) -> ctypes.CDLL:
    """The C file `name`.c of this folder as a loaded library, compiled if it or limits.h changed."""
    source = HERE / f"{name}.c"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise UsageError(f"perf/limits: no C compiler ({compiler[0]!r}) to build {source.name}; install one or set CC")
    headers = sorted((ROOT / "engine" / "measure").glob("*.h")) + sorted((ROOT / "engine").glob("*.h"))
    digest = hashlib.sha256(" ".join([*compiler, *FLAGS]).encode())
    for path in (source, *headers):
        digest.update(path.read_bytes())
    built = BUILD / f"{name}-{digest.hexdigest()[:16]}.so"
    if not built.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        partial = built.with_suffix(f".{os.getpid()}")
        done = subprocess.run([*compiler, *FLAGS, str(source), "-o", str(partial)], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["(no message)"]
            first = next((line for line in said if "error" in line), said[0])
            raise EngineError(f"perf/limits: {source.name} does not compile: {first}")
        partial.rename(built)
    return ctypes.CDLL(str(built))


def _run(name: str, n: int, cpus: tuple[int, int] | None) -> dict[str, object]:
    if not 100 <= n <= 100_000_000:
        raise UsageError(f"limits: n is {n}, from 100 to 100000000 is possible")
    a, b = pair() if cpus is None else cpus
    result = _Result()
    err = getattr(library(name), f"limit_{name}")(ctypes.c_uint64(n), a, b, ctypes.byref(result))
    if err:
        raise EngineError(f"limit {name} on CPUs {a} and {b}: {os.strerror(err)}")
    return {**{name: getattr(result, name) for name in NAMES}, "n": result.n, "cpus": (a, b)}


def eventfd(n: int = 5_000, cpus: tuple[int, int] | None = None) -> dict[str, object]:
    """Round trips of two processes over two eventfds, each blocking in read."""
    return _run("eventfd", n, cpus)


def socket(n: int = 5_000, cpus: tuple[int, int] | None = None) -> dict[str, object]:
    """Round trips of a 32-byte message and a 16-byte answer over a UNIX stream socket."""
    return _run("socket", n, cpus)


def call(n: int = 20_000_000, cpus: tuple[int, int] | None = None) -> dict[str, object]:
    """An access in one process at its least: look up the port in a flat table, call the handler it names."""
    result = _run("call", n, cpus)
    return {key: result[key] for key in ("n", "cpus", "mean_ns", "per_s")}
