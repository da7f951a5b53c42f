"""What this machine can do at best between two processes, measured in plain C: the yardstick of the budgets.

Each limit forks a helper process inside C and pins both sides (the calling thread only for the duration).  Limits drift
within minutes on shared hosts, so they are measured beside what they are compared with, in the same run.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport strerror

import os
from pathlib import Path

import numpy as np

from engine.errors import EngineError, UsageError

cdef extern from "measure/limits.h" nogil:
    ctypedef struct limit_result:
        double mean_ns, p50_ns, p99_ns, p999_ns, max_ns, per_s
        uint64_t n
    int limit_pingpong(uint64_t n, uint32_t turn, uint32_t *samples, int cpu_a, int cpu_b, limit_result *r)
    int limit_futex(uint64_t n, int cpu_a, int cpu_b, limit_result *r)
    int limit_spsc(uint64_t n, uint32_t batch, int cpu_a, int cpu_b, limit_result *r)
    double limit_ticks_per_ns()
    enum:
        LIMIT_BATCH_MAX


TURN = 100      # ticks: about what the quickest device takes


def siblings(int cpu):
    """CPUs that share a core with this one (itself included)."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        out = set()
        for part in text.strip().split(","):
            first, _, last = part.partition("-")
            out.update(range(int(first), int(last or first) + 1))
        return out
    except (OSError, ValueError):
        return {cpu}


def pair():
    """Two CPUs this process may use, on different cores if there are such; the same one twice if there is one only."""
    allowed = sorted(os.sched_getaffinity(0))
    near = siblings(allowed[0])
    far = [c for c in allowed[1:] if c not in near]
    return allowed[0], (far or allowed[1:] or allowed)[0]


cdef _cpus(cpus):
    a, b = pair() if cpus is None else cpus
    allowed = os.sched_getaffinity(0)
    if a not in allowed or b not in allowed:
        raise UsageError(f"limits: CPUs {a} and {b} are not both among those this process may use: {sorted(allowed)}")
    return a, b


cdef _count(n, low, high):
    if not low <= n <= high:
        raise UsageError(f"limits: n is {n}, from {low} to {high} is possible")


cdef _report(str name, int err, limit_result *r, cpus, bint rounds):
    if err:
        raise EngineError(f"limit {name} on CPUs {cpus[0]} and {cpus[1]}: {strerror(err).decode()}")
    out = {"n": r.n, "cpus": tuple(cpus), "same_core": cpus[1] in siblings(cpus[0]), "per_s": r.per_s, "mean_ns": r.mean_ns}
    if rounds:
        out.update(p50_ns=r.p50_ns, p99_ns=r.p99_ns, p999_ns=r.p999_ns, max_ns=r.max_ns)
    return out


def pingpong(uint64_t n=100_000, cpus=None, uint32_t turn=TURN):
    """Round trips of one cache line between two spinning processes: the least a synchronous access can cost.

    turn: TSC ticks each side holds the line before it hands it back (taken off the samples), so that the other one does wait.
    The round trips themselves, in ns and sorted, are "samples_ns".
    """
    cdef limit_result r
    cdef int err, a, b
    _count(n, 100, 10_000_000)
    a, b = _cpus(cpus)
    samples = np.empty(n, np.uint32)
    cdef uint32_t[::1] ticks = samples
    with nogil:
        err = limit_pingpong(n, turn, &ticks[0], a, b, &r)
    return _report("pingpong", err, &r, (a, b), True) | {"samples_ns": samples / limit_ticks_per_ns()}


def futex(uint64_t n=5_000, cpus=None):
    """Round trips of two processes that sleep in each round: the least a blocking access can cost."""
    cdef limit_result r
    cdef int err, a, b
    _count(n, 100, 1_000_000)
    a, b = _cpus(cpus)
    with nogil:
        err = limit_futex(n, a, b, &r)
    return _report("futex", err, &r, (a, b), True)


def spsc(uint64_t n=4_000_000, uint32_t batch=64, cpus=None):
    """32-byte records a second through a ring between two spinning processes, published in batches and copied out."""
    cdef limit_result r
    cdef int err, a, b
    _count(n, 1, 1 << 40)
    if not 1 <= batch <= LIMIT_BATCH_MAX:
        raise UsageError(f"limits: batch is {batch}, from 1 to {LIMIT_BATCH_MAX} is possible")
    a, b = _cpus(cpus)
    with nogil:
        err = limit_spsc(n, batch, a, b, &r)
    return {**_report("spsc", err, &r, (a, b), False), "batch": batch}


def tsc_hz():
    """Time stamp counter ticks a second, measured once against CLOCK_MONOTONIC."""
    return limit_ticks_per_ns() * 1e9


def measure(cpus=None, *, scale=1.0):
    """All three, as the budgets name them.  scale shortens or lengthens the run."""
    a, b = _cpus(cpus)
    p = pingpong(max(100, int(100_000 * scale)), (a, b))
    f = futex(max(100, int(5_000 * scale)), (a, b))
    s = spsc(max(1, int(4_000_000 * scale)), cpus=(a, b))
    return {"pingpong_p50_ns": p["p50_ns"], "pingpong_p99_ns": p["p99_ns"], "futex_us": f["p50_ns"] / 1000,
            "futex_p99_us": f["p99_ns"] / 1000, "spsc_per_s": s["per_s"], "cpus": (a, b), "same_core": p["same_core"]}
