"""Accesses offered to a started machine, by a schedule or one after the other, each one timed.

The schedule does not wait for the machine: an access is due when it is due, and its latency counts from then, so that a
stall is charged to every access that it kept waiting.  Without a schedule the next access is made when the one before has
returned (closed loop); a stall then delays the load and shows in one latency only.

Latencies are counted in log-linear histograms of ns: SUB buckets an octave, exact below 2 * SUB.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from cpython.exc cimport PyErr_CheckSignals

import numpy as np

from engine._abi cimport engine_acc
from engine._atomics cimport load_acquire64, pause, tsc
from engine.sequencer cimport SEQ_BUFFERED, SEQ_LOCAL, SEQ_SYNC, Sequencer, seq_input

from engine._abi import ACC
from engine.errors import EngineError, UsageError
from engine.sequencer import INPUT as _INPUT
from engine.sequencer import PATHS as _PATHS

cdef enum:
    SUB = 128
    LOG2_SUB = 7
    BUCKETS = (45 - LOG2_SUB) * SUB     # up to 2^44 ns, five hours
    CHECK = 1 << 16                     # accesses between two looks at signals
    PARTS = 64                          # equal parts of a run that are timed apart

cdef extern from *:
    """
    static inline uint32_t offer_bucket(uint64_t ns)
    {
        uint32_t e;
        if (ns < 256)
            return (uint32_t)ns;
        e = 63 - (uint32_t)__builtin_clzll(ns) - 7;
        return e >= 37 ? 45u * 128 - 7 * 128 - 1 : e * 128 + (uint32_t)(ns >> e);
    }
    """
    uint32_t offer_bucket(uint64_t ns) nogil

cdef extern from *:
    """
    #include <time.h>
    static double offer_cpu_s(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    }
    """
    double offer_cpu_s() nogil


def edges():
    """Lower edge of each bucket, in ns, and behind the last one its end."""
    n = np.arange(BUCKETS + 1, dtype=np.uint64)
    e, m = n >> np.uint64(LOG2_SUB), n & np.uint64(SUB - 1)
    return np.where(e == 0, m, (m | np.uint64(SUB)) << (np.maximum(e, np.uint64(1)) - np.uint64(1)))


def buckets(ns):
    """The bucket of each of some times, for tests."""
    cdef uint64_t v
    return [offer_bucket(v) for v in ns]


cdef class Counts:
    """Histograms of one run, and what was seen of posted writes."""
    cdef uint64_t *reads        # from when the access was due to its answer
    cdef uint64_t *writes
    cdef uint64_t *service      # from when it was handed over to its answer: what a closed-loop tool would have said
    cdef uint64_t *age          # of sampled posted writes: from when it was made until it was seen to have executed
    cdef double ns_per_tick

    def __cinit__(self, double tsc_hz):
        self.reads = <uint64_t *>calloc(4 * BUCKETS, sizeof(uint64_t))
        if self.reads == NULL:
            raise MemoryError()
        self.writes = self.reads + BUCKETS
        self.service = self.reads + 2 * BUCKETS
        self.age = self.reads + 3 * BUCKETS
        self.ns_per_tick = 1e9 / tsc_hz

    def __dealloc__(self):
        free(self.reads)

    cdef inline uint32_t bucket(self, uint64_t ticks) noexcept nogil:
        return offer_bucket(<uint64_t>(<double>ticks * self.ns_per_tick))

    def arrays(self):
        cdef const uint64_t[:, ::1] view = <uint64_t[:4, :BUCKETS]>self.reads
        return dict(zip(("reads", "writes", "service", "age"), np.array(view)))


def stamp_ns(double tsc_hz):
    """What timing one access costs, in ns: two readings of the counter and one count."""
    cdef Counts c = Counts(tsc_hz)
    cdef uint64_t i, t0, t1, start
    with nogil:
        start = tsc()
        for i in range(4096):
            t0 = tsc()
            t1 = tsc()
            c.reads[c.bucket(t1 - t0)] += 1
        t1 = tsc()
    return (t1 - start) * c.ns_per_tick / 4096


def offer(Sequencer seq, acc, str path, double tsc_hz, *, due=None, uint64_t batch=1, bint fill=False,
          uint32_t age_every=64, uint32_t cpu_every=0, inputs=None, ram_bytes=None, meter=None):
    """Hand over `acc` (ACC records, not before the machine's clock) with the inputs between them; when the last has
    executed, what came of it.

    due: for each access, ns after the start when it is due; None: one after the other.  batch: so many at most at once
    (batched only); fill: wait until that many are due, else take those that are.  age_every: one posted write in so many
    is watched until it has executed.  cpu_every: one hand-over in so many is timed by the thread's CPU clock, for "call_cpu_s", what
    all of them used (the schedule's own waiting apart).  meter: called just before the first access and behind the last; what it
    gave more then is "metered".
    """
    cdef int kind = _PATHS[path]
    if (seq.local is None) != (kind != SEQ_LOCAL):
        raise EngineError(f"path {path} does not fit a machine {'without' if seq.local is not None else 'with'} workers")
    if batch < 1 or (batch > 1 and kind in (SEQ_SYNC, SEQ_BUFFERED)):
        raise UsageError(f"path {path}: {batch} accesses at once")
    if acc.dtype != ACC or not len(acc):
        raise UsageError("a load needs records of engine.ACC")
    cdef uint64_t n = len(acc), m = 0 if inputs is None else len(inputs)
    own = np.ascontiguousarray(acc)
    cdef const unsigned char[::1] records = own.view(np.uint8).reshape(-1)
    cdef const engine_acc *a = <const engine_acc *>&records[0]
    cdef const uint64_t[::1] schedule
    cdef const uint64_t *at = NULL
    if due is not None:
        if np.shape(due) != np.shape(acc):
            raise UsageError(f"{np.size(due)} times for {n} accesses")
        schedule = np.ascontiguousarray(np.asarray(due, float) * (tsc_hz / 1e9)).astype(np.uint64)
        at = &schedule[0]
    cdef unsigned char[::1] given
    cdef seq_input *inp = NULL
    answers = np.full(max(1, m), -1, np.int64)
    cdef int64_t[::1] w = answers
    if m:
        seq._check_inputs(inputs, n, 0 if ram_bytes is None else len(ram_bytes))
        mine = np.array(inputs, _INPUT)
        given = mine.view(np.uint8).reshape(-1)
        inp = <seq_input *>&given[0]
    cdef const unsigned char[::1] ram
    cdef const uint8_t *ram_at = NULL
    if ram_bytes is not None and len(ram_bytes):
        ram = ram_bytes
        ram_at = &ram[0]
    value, status = np.zeros(n, np.uint64), np.zeros(n, np.uint8)
    cdef uint64_t[::1] v = value
    cdef uint8_t[::1] s = status
    cdef Counts c = Counts(tsc_hz)
    cdef uint64_t i = 0, j = 0, j_end, k, got, start, t0, t1, end, busy = 0, posted = 0, checked = 0, late = 0, shift
    cdef uint64_t watched = 0, mark = 0, made = 0        # the watched write's ring index, and when it was made
    cdef uint32_t countdown = age_every, link, on = 0, links = seq.n_links
    cdef uint64_t before[64]
    cdef uint64_t parts[PARTS]
    cdef uint64_t part = 0, last
    cdef const uint64_t *executed
    if links > 64:
        raise UsageError(f"{links} workers; a load can watch 64")
    cdef double cpu, used = 0, reading = 0, since = 0
    cdef uint64_t calls = 0, timed = 0
    metered = 0.0 if meter is None else -meter()
    try:
        with nogil:
            if cpu_every:
                for k in range(64):                    # what one reading costs is no part of a call
                    since = offer_cpu_s()
                    reading += offer_cpu_s() - since
                reading /= 64
            cpu = offer_cpu_s()
            start = last = tsc()
            while i < n:
                if at == NULL:
                    got = min(batch, n - i)
                else:
                    got = min(batch, n - i) if fill else 1
                    while tsc() - start < at[i + got - 1]:
                        if watched:
                            executed = &seq.link[on].v.hdr.executed
                            if <int64_t>(load_acquire64(executed) - mark) >= 0:
                                c.age[c.bucket(tsc() - made)] += 1
                                watched = 0
                        pause()
                    if batch > 1 and not fill:
                        t0 = tsc() - start
                        while got < batch and i + got < n and at[i + got] <= t0:
                            got += 1
                j_end = j
                while j_end < m and (inp[j_end].index < i + got or i + got == n):
                    inp[j_end].index -= i
                    j_end += 1
                seq.acc = a + i
                seq.n_acc = got
                seq.value = &v[i]
                seq.status = &s[i]
                seq.inp = inp + j if j_end > j else NULL
                seq.n_inp = j_end - j
                seq.answers = &w[j] if j_end > j else NULL
                seq.ram_bytes = ram_at
                if kind == SEQ_BUFFERED:
                    posted = seq.counts.buffered
                    if countdown == 1 and not watched:
                        for link in range(links):
                            before[link] = seq.link[link].v.requests.mine
                calls += 1
                if cpu_every and calls % cpu_every == 0:
                    since = offer_cpu_s()
                t0 = tsc()
                seq._carry_out(kind)
                t1 = tsc()
                busy += t1 - t0
                if cpu_every and calls % cpu_every == 0:
                    used += offer_cpu_s() - since - reading
                    timed += 1
                for k in range(i, i + got):
                    shift = t1 - (t0 if at == NULL else start + at[k])
                    if a[k].dir:
                        c.writes[c.bucket(shift)] += 1
                    else:
                        c.reads[c.bucket(shift)] += 1
                c.service[c.bucket(t1 - t0)] += got
                if kind == SEQ_BUFFERED:
                    if watched:
                        executed = &seq.link[on].v.hdr.executed
                        if <int64_t>(load_acquire64(executed) - mark) >= 0:
                            c.age[c.bucket(tsc() - made)] += 1
                            watched = 0
                    elif seq.counts.buffered != posted:
                        if countdown > 1:
                            countdown -= 1
                        else:
                            for link in range(links):
                                if seq.link[link].v.requests.mine != before[link]:
                                    watched, on, mark, made = 1, link, seq.link[link].v.requests.mine, t0
                            countdown = age_every
                i += got
                j = j_end
                while part < PARTS and i * PARTS >= n * (part + 1):
                    parts[part] = t1 - last
                    last = t1
                    part += 1
                checked += got
                if checked >= CHECK:
                    checked = 0
                    with gil:
                        PyErr_CheckSignals()
                        if seq.check is not None:
                            seq.check()
            t1 = tsc()
        seq._cut()
        end = tsc()
        parts[PARTS - 1] += end - last
        cpu = offer_cpu_s() - cpu
        metered += 0.0 if meter is None else meter()
        if watched:
            c.age[c.bucket(end - made)] += 1
        if at != NULL and t1 - start > at[n - 1]:
            late = t1 - start - at[n - 1]
    except BaseException as e:
        seq._broke(e)
        raise
    finally:
        seq._let_go()
    return {"value": value, "status": status, "seconds": (end - start) / tsc_hz, "busy_s": busy / tsc_hz, "behind_s": late / tsc_hz,
            "parts_ns": [int(parts[k] * c.ns_per_tick) for k in range(PARTS)], "cpu_s": cpu,
            "call_cpu_s": used * calls / timed if timed else float("nan"), "metered": metered, **c.arrays()}
