"""The worker's loop: take records, execute them, answer.  No GIL, except for devices written in Python.

Per turn: a chunk of ring records (their effects are published first, then the deadlines, then the completions), then the
synchronous slots, each after the ring records that precede it.  Idle, it waits by policy and returns at least each 50 ms
to beat its heart and look at signals and the stop word.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

cimport cython
from cpython.ref cimport PyObject
from engine._abi cimport *
from engine._atomics cimport load_acquire32, load_relaxed32, load_relaxed64, tsc
from engine._device cimport NEVER
from engine._executor cimport Executor, owned, quick_access, quick_execute, quick_string, region_entry, string_until
from engine._ring cimport (SAMPLE, Link, link_answer, link_answers, link_block, link_deadline, link_execute, link_heartbeat, link_next,
                           link_peek, link_stamp, link_take, link_view, ring_commit, ring_item, ring_reserve, slot_answer, slot_stamp,
                           slot_take, string_slots)
from engine.workers._wait cimport (WAIT_ADAPTIVE, WAIT_BLOCK, WAIT_SPIN, WAIT_SPIN_NS, wait_any, wait_index, wait_word,
                                   waiter, waiter_init, wake)

from engine._device import PyDevice
from engine.errors import EngineError, RingError

cdef extern from *:
    """
    /* Have the line of p in this CPU's cache, ready to be written; a CPU without PREFETCHW does nothing. */
    static inline void prefetch_write(const void *p)
    {
        __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
    }
    """
    void prefetch_write(const void *p) nogil

cdef extern from "Python.h" nogil:
    void *PyEval_SaveThread()
    void PyEval_RestoreThread(void *)

cdef enum:
    SLOT_CAUSE_BIT = 62
    CPL_LINE = 4           # completions in a line of the cache

POLICIES = {"spin": WAIT_SPIN, "adaptive": WAIT_ADAPTIVE, "block": WAIT_BLOCK}

cdef struct worker_state:
    link_view *v
    uint64_t *published    # deadline of each unit, as last published
    uint32_t *unit_number  # the plan's number of each of the executor's units
    wait_word *words       # what ends a wait: the ring's index, the stop word, and each slot's state
    waiter wait
    int bad
    int lost               # a device made more effects than there can be
    bint stamped           # the router wants to know when records were taken and done
    int stopping


@cython.final
cdef class WorkerLoop:
    """`WorkerLoop(executor, link, unit_numbers, wait="adaptive", crowded=False)`; serve() runs until something wants attention."""
    cdef Executor ex
    cdef Link link
    cdef worker_state w
    cdef bint python       # some device needs the GIL: take it once per chunk

    def __init__(self, Executor executor, Link link, unit_numbers, str wait="adaptive", bint crowded=False):
        cdef uint32_t i
        self.ex = executor
        self.link = link
        self.w.v = &link.v
        waiter_init(&self.w.wait, POLICIES[wait], WAIT_SPIN_NS, crowded)
        self.w.published = <uint64_t *>calloc(executor.n_units + 1, sizeof(uint64_t))
        self.w.unit_number = <uint32_t *>calloc(executor.n_units + 1, sizeof(uint32_t))
        self.w.words = <wait_word *>calloc(link.v.n_vcpus + 2, sizeof(wait_word))
        if self.w.published == NULL or self.w.unit_number == NULL or self.w.words == NULL:
            raise MemoryError()
        for i in range(link.v.n_vcpus + 2):
            self.w.words[i].asleep = &link.v.hdr.worker_asleep
            if i > 1:
                self.w.words[i].word = &link.v.slots[i - 2].state
        self.w.words[0].word = &link.v.hdr.produced
        self.w.words[0].wide = 1
        self.w.words[1].word = &link.v.hdr.stop
        for i in range(executor.n_units):
            self.w.unit_number[i] = unit_numbers[i]
        executor.flush = flush_effects
        executor.flush_ctx = <void *>self
        self.python = any(isinstance(d, PyDevice) for d in executor.keep)
        self._every_deadline()

    def __dealloc__(self):
        free(self.w.published)
        free(self.w.unit_number)
        free(self.w.words)

    cdef void _deadline(self, uint32_t u) noexcept nogil:
        """Publish a unit's deadline if it changed; seen with the completion or answer that follows."""
        cdef uint64_t d = self.ex.units[u].next
        if d != self.w.published[u]:
            self.w.published[u] = d
            link_deadline(self.w.v, self.w.unit_number[u], d)

    cdef void _deadlines(self) noexcept nogil:
        """Those of all units that changed."""
        cdef uint32_t u
        for u in range(self.ex.n_units):
            self._deadline(u)

    cdef void _every_deadline(self) noexcept nogil:
        """Those of all units, whatever was published before."""
        cdef uint32_t u
        for u in range(self.ex.n_units):
            self.w.published[u] = ~self.ex.units[u].next
        self._deadlines()

    cdef int _flush(self) noexcept nogil:
        """Publish the effects in fx, waiting for room.  1 if the worker has to stop instead."""
        cdef link_view *v = self.w.v
        cdef uint32_t i = 0
        cdef int64_t room, k
        if self.ex.fx.lost:
            self.w.lost = 1
            return 1
        while i < self.ex.fx.n:
            room = ring_reserve(&v.effects, self.ex.fx.n - i)
            if room < 0:
                self.w.bad = 1
                return 1
            if room == 0:
                self._wait_for_room()
                if load_relaxed32(&v.hdr.stop) == 1:
                    self.w.stopping = 1
                    return 1
                continue
            for k in range(room):
                (<engine_effect *>ring_item(&v.effects, k))[0] = self.ex.fx.items[i + k]
            ring_commit(&v.effects, room)
            i += <uint32_t>room
        self.ex.fx.n = 0
        return 0

    cdef void _wait_for_room(self) noexcept nogil:
        """Sleep until the router has taken effects; a turn's interpreter lock is given up meanwhile."""
        cdef link_view *v = self.w.v
        cdef void *saved
        wake(&self.w.wait, &v.hdr.router_asleep)
        saved = PyEval_SaveThread() if self.python else NULL
        wait_index(&self.w.wait, &v.hdr.effects_consumed, v.effects.theirs, &v.hdr.worker_asleep)
        if saved != NULL:
            PyEval_RestoreThread(saved)
        link_heartbeat(v)

    cdef int _chunk(self, int64_t n) noexcept nogil:
        """Execute n peeked records and answer them."""
        cdef link_view *v = self.w.v
        cdef PyObject *ex = <PyObject *>self.ex
        cdef engine_rec rec
        cdef uint64_t value = 0
        cdef uint32_t status
        cdef int64_t i = 0, got, sampled = -v.requests.mine & (SAMPLE - 1) if self.w.stamped else SAMPLE
        cdef uint64_t taken = 0
        while i < n:                                   # the router has read these lines last
            prefetch_write(&v.completions[(v.requests.mine + i) & v.requests.mask])
            i += CPL_LINE
        i = 0
        while i < n:
            link_take(v, i, &rec)
            if i == sampled:
                taken = tsc()
            (<Executor>ex).fx.cause = v.requests.mine + i
            status = quick_execute(<Executor>ex, &rec, &value)
            link_answer(v, i, value, status, 0)
            if i == sampled:
                link_stamp(v, i, taken)
            if (<Executor>ex).fx.n:
                if self._flush():
                    return 1
            i += 1
            if rec.more:
                got = self._string(i, n - i, &rec)
                if got < 0:
                    return 1
                i += got
        self._deadlines()
        link_execute(v, n)
        if self.w.wait.policy != WAIT_SPIN:
            wake(&self.w.wait, &v.hdr.router_asleep)
        return 0

    cdef int64_t _string(self, int64_t first, int64_t n, const engine_rec *rec) noexcept nogil:
        """Execute the accesses that follow a record in the slots from `first` on, of which n are there.  Slots taken; -1 to leave
        the loop."""
        cdef link_view *v = self.w.v
        cdef PyObject *ex = <PyObject *>self.ex
        cdef const engine_next *next = link_next(v, first)
        cdef uint64_t *answers = link_answers(v, v.requests.mine + first)
        cdef uint64_t value, t_ns, cause = self.ex.fx.cause
        cdef uint32_t status, i, size = <uint32_t>1 << (rec.op >> ENGINE_OP_SIZE_SHIFT)
        cdef region_entry *e
        if not owned(<Executor>ex, rec) or <int64_t>string_slots(rec.more) > n:
            self.w.bad = 1
            return -1
        e = &(<Executor>ex).regions[rec.region]
        i = 0
        while True:
            if e.strings and i < rec.more:
                i += self._row(e, next + i, answers + i, rec, rec.more - i)
            if i == rec.more:
                break
            t_ns = load_relaxed64(&next[i].t_ns)       # relaxed: after the acquire that found the record, and each read once
            value = load_relaxed64(&next[i].value)
            (<Executor>ex).fx.cause = cause + (<uint64_t>(i + 1) << ENGINE_CAUSE_NEXT)
            status = quick_access(<Executor>ex, e, t_ns, rec.addr, size, rec.op & ENGINE_OP_WRITE, &value)
            answers[i] = <uint32_t>value | <uint64_t>(status & 0xff) << 32
            if (<Executor>ex).fx.n and self._flush():
                return -1
            i += 1
        self.ex.executed += rec.more
        self.ex.accesses += rec.more
        return string_slots(rec.more)

    cdef uint32_t _row(self, region_entry *e, const engine_next *next, uint64_t *answers, const engine_rec *rec, uint32_t n) noexcept nogil:
        """The next n accesses of a string: how many the device has made at once; 0: one by one."""
        cdef uint64_t values[256]
        cdef uint64_t v, t_ns = load_relaxed64(&next[0].t_ns)
        cdef uint32_t i, k = 1, status = 0, size = <uint32_t>1 << (rec.op >> ENGINE_OP_SIZE_SHIFT)
        cdef uint64_t until = string_until(e, t_ns, rec.addr, size, rec.op & ENGINE_OP_WRITE)
        if until <= t_ns:
            return 0
        while k < n and load_relaxed64(&next[k].t_ns) < until:
            k += 1
        if rec.op & ENGINE_OP_WRITE:
            for i in range(k):
                values[i] = load_relaxed64(&next[i].value)
            v = values[k - 1]
            status = quick_access(self.ex, e, load_relaxed64(&next[k - 1].t_ns), rec.addr, size, True, &v)
        else:
            k = quick_string(e, rec.addr, size, k, values, &status)
        for i in range(k):
            answers[i] = <uint32_t>values[i] | <uint64_t>(status & 0xff) << 32
        e.core.now = load_relaxed64(&next[k - 1].t_ns)
        return k

    cdef int _catch_up(self, uint64_t after) noexcept nogil:
        """Execute the ring records that precede a synchronous access."""
        cdef link_view *v = self.w.v
        cdef int64_t n
        while <int64_t>(after - v.requests.mine) > 0:
            n = link_peek(v, min(after - v.requests.mine, link_block(v, v.requests.mine)))
            if n <= 0:
                self.w.bad = 1
                return 1
            if self._chunk(n):
                return 1
        return 0

    cdef int _slot(self, uint32_t vcpu) noexcept nogil:
        """Take and answer the access in a slot, if there is one.  1: done, -1: leave the loop."""
        cdef link_view *v = self.w.v
        cdef PyObject *ex = <PyObject *>self.ex
        cdef engine_rec rec
        cdef uint64_t value = 0, after = 0, taken = 0
        cdef uint32_t status
        cdef bint sampled = self.w.stamped and not v.answered & (SAMPLE - 1)
        cdef int got = slot_take(v, vcpu, &rec, &after)
        if got <= 0:
            self.w.bad |= got < 0
            return got
        if sampled:
            taken = tsc()
        if <int64_t>(after - v.requests.mine) > 0 and self._catch_up(after):
            return -1
        (<Executor>ex).fx.cause = <uint64_t>1 << SLOT_CAUSE_BIT
        status = quick_execute(<Executor>ex, &rec, &value)
        if (<Executor>ex).fx.n and self._flush():
            return -1
        if owned(<Executor>ex, &rec):
            self._deadline(<uint32_t>((<Executor>ex).regions[rec.region].unit - (<Executor>ex).units))   # it touched this unit alone
        else:
            self._deadlines()
        if sampled:
            slot_stamp(v, vcpu, taken)
        slot_answer(v, vcpu, value, status)
        if self.w.stamped and not v.answered & (SAMPLE - 1):
            slot_stamp(v, vcpu, 0)     # the next one is stamped: its line is fetched now, not while the router waits
        if self.w.wait.policy != WAIT_SPIN:
            wake(&self.w.wait, &v.hdr.router_asleep)
        return 1

    cdef int _turn(self) noexcept nogil:
        """Do what is there.  Number of things done, -1 to leave the loop."""
        cdef link_view *v = self.w.v
        cdef uint32_t vcpu
        cdef int64_t n
        cdef int done = 0, got
        for vcpu in range(v.n_vcpus):
            if load_relaxed32(&v.slots[vcpu].state) == ENGINE_SLOT_READY:
                got = self._slot(vcpu)
                if got < 0:
                    return -1
                done += got
        n = link_peek(v, link_block(v, v.requests.mine))
        if n < 0:
            self.w.bad = 1
            return -1
        if n:
            if self._chunk(n):
                return -1
            done += 1
        return done

    cdef int _idle(self) noexcept nogil:
        """Wait for work, at most one slice."""
        cdef link_view *v = self.w.v
        cdef wait_word *words = self.w.words
        cdef uint32_t vcpu
        words[0].known = v.requests.theirs
        for vcpu in range(v.n_vcpus):
            words[vcpu + 2].known = load_acquire32(&v.slots[vcpu].state)
            if words[vcpu + 2].known == ENGINE_SLOT_READY:
                return 1
        return wait_any(&self.w.wait, words, v.n_vcpus + 2)

    cdef int _serve(self) noexcept nogil:
        cdef int got
        while True:
            got = self._turn()
            if got < 0:
                return -1
            if got == 0 and self._idle() == 0:
                link_heartbeat(self.w.v)
                return 0
            if load_relaxed32(&self.w.v.hdr.stop):
                return 0

    cdef int _serve_python(self) noexcept:
        """As _serve, with the GIL held through each turn, so that Python devices find it at hand."""
        cdef int got
        while True:
            got = self._turn()
            if got < 0:
                return -1
            if got == 0:
                with nogil:
                    got = self._idle()
                if got == 0:
                    link_heartbeat(self.w.v)
                    return 0
            if load_relaxed32(&self.w.v.hdr.stop):
                return 0

    def serve(self):
        """Work until a slice passes idle or the stop word is set; returns the stop word.  Raises RingError if the router's
        words are impossible."""
        cdef int got
        if self.python:
            got = self._serve_python()
        else:
            with nogil:
                got = self._serve()
        if self.w.bad:
            raise RingError(f"{self.link.segment.name}: the router's words are impossible")
        if self.w.lost:
            raise EngineError(f"a device made {self.ex.fx.lost} effects too many in one access or deadline")
        return 1 if self.w.stopping else load_acquire32(&self.w.v.hdr.stop)

    def stamp(self, bint on):
        """From now on, write down when records are taken and done, or do not.  The link needs room for it."""
        if on and self.w.v.stamps == NULL:
            raise EngineError(f"{self.link.segment.name} has no room for stamps")
        self.w.stamped = on

    def refresh(self):
        """Work out and publish every deadline again: after devices were restored."""
        self.ex.refresh()
        self._every_deadline()

    @property
    def accesses(self):
        """Guest accesses among them."""
        return self.ex.accesses

    @property
    def executed(self):
        """Records executed so far."""
        return self.ex.executed


cdef int flush_effects(void *ctx) noexcept nogil:
    return (<WorkerLoop>ctx)._flush()
