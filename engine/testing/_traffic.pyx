"""Traffic over a link at the speed of C, checked record by record: for stress tests and benches of rings and waiting.

The worker keeps one accumulator, acc = acc * K + value over records and posted accesses in the order of execution, and
answers each with it; about every 64th answer also makes an effect.  The router keeps the same accumulator in the order
that was promised, so one lost, repeated or reordered record makes that answer and every later one wrong.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from engine._abi cimport engine_cpl, engine_effect, engine_rec
from engine._atomics cimport load_relaxed32, monotonic_ns, tsc
from engine._ring cimport *
from engine.workers._wait cimport Waiter, wait_any, wait_index, wait_word, waiter, wake

from engine.errors import RingError

cdef extern from *:
    """
    #define TRAFFIC_K 0x9E3779B97F4A7C15ull
    """
    const uint64_t K "TRAFFIC_K"

cdef enum:
    BURST = 256
    OK = 0
    STOPPED = 1         # the router asked the worker to stop
    IMPOSSIBLE = 2      # the other side's words
    WRONG = 3           # an answer or effect that differs from the model's

cdef struct traffic:
    uint64_t acc        # of what has executed (worker) or been answered (router)
    uint64_t effects_acc    # router: sum of the effects the answers announced, less those that came
    uint64_t records, posts, effects
    uint64_t jitter, seed

cdef inline bint has_effect(uint64_t acc) noexcept nogil:
    return acc >> 58 == 0


cdef inline void _dawdle(traffic *t) noexcept nogil:
    cdef uint64_t end
    if t.jitter:
        t.seed ^= t.seed << 13          # xorshift64
        t.seed ^= t.seed >> 7
        t.seed ^= t.seed << 17
        end = tsc() + t.seed % t.jitter
        while tsc() < end:
            pass


cdef int _idle(link_view *l) except -1 nogil:
    """After a slice without news: let signals through."""
    ring_count_stalled(&l.counts)
    with gil:
        pass
    return 0


# ---- worker ----

cdef int _emit(link_view *l, waiter *w, uint64_t acc) except -1 nogil:
    cdef int64_t room = ring_reserve(&l.effects, 1)
    cdef engine_effect fx
    while room == 0:
        wake(w, &l.hdr.router_asleep)
        if load_relaxed32(&l.hdr.stop):
            return STOPPED
        if not wait_index(w, &l.hdr.effects_consumed, l.effects.theirs, &l.hdr.worker_asleep):
            _idle(l)
        room = ring_reserve(&l.effects, 1)
    if room < 0:
        return IMPOSSIBLE
    memset(&fx, 0, sizeof(fx))
    fx.value = acc
    (<engine_effect *>ring_item(&l.effects, 0))[0] = fx
    ring_commit(&l.effects, 1)
    return OK


cdef int _execute(link_view *l, waiter *w, traffic *t, uint64_t n) except -1 nogil:
    """Execute up to n records that are there."""
    cdef int64_t got = link_peek(l, n), i
    cdef engine_rec rec
    cdef int st
    if got < 0:
        return IMPOSSIBLE
    for i in range(got):
        link_take(l, i, &rec)
        t.acc = t.acc * K + rec.value
        if has_effect(t.acc):
            st = _emit(l, w, t.acc)
            if st:
                return st
            t.effects += 1
        link_answer(l, i, t.acc, 0, 0)
    if got:
        t.records += got
        link_execute(l, got)
        wake(w, &l.hdr.router_asleep)
    return OK


cdef int _posted(link_view *l, waiter *w, traffic *t, uint32_t vcpu) except -1 nogil:
    """Execute the access in a slot, if there is one, after the records that come before it."""
    cdef engine_rec rec
    cdef uint64_t after = 0
    cdef int st = slot_take(l, vcpu, &rec, &after)
    if st <= 0:
        return IMPOSSIBLE if st < 0 else OK
    while <int64_t>(after - l.requests.mine) > 0:       # slot_take has seen that they are there
        st = _execute(l, w, t, after - l.requests.mine)
        if st:
            return st
    t.acc = t.acc * K + rec.value
    t.posts += 1
    slot_answer(l, vcpu, t.acc, 0)
    wake(w, &l.hdr.router_asleep)
    return OK


cdef int _serve(link_view *l, waiter *w, traffic *t) except -1 nogil:
    cdef wait_word words[3]
    cdef uint32_t vcpu
    cdef int st
    memset(words, 0, sizeof(words))
    words[0].word, words[0].wide = &l.hdr.produced, 1
    words[1].word, words[1].wide = &l.hdr.posted, 1
    words[2].word = &l.hdr.stop
    words[0].asleep = words[1].asleep = words[2].asleep = &l.hdr.worker_asleep
    while True:
        st = _execute(l, w, t, BURST)
        if st == OK and link_posted(l):
            for vcpu in range(l.n_vcpus):
                st = _posted(l, w, t, vcpu)
                if st:
                    break
        if st or load_relaxed32(&l.hdr.stop):
            return st
        link_heartbeat(l)
        words[0].known = l.requests.mine
        words[1].known = l.posted
        _dawdle(t)
        if not wait_any(w, words, 3):
            _idle(l)


def serve(Link link, Waiter waiter, *, uint64_t jitter=0):
    """Worker: execute records and posted accesses until the stop word is set.  jitter: as in Router.exchange."""
    cdef traffic t
    cdef int st
    link._role(LINK_WORKER)
    memset(&t, 0, sizeof(t))
    t.seed, t.jitter = 362436069, jitter
    with nogil:
        st = _serve(&link.v, &waiter.w, &t)
    if st == IMPOSSIBLE:
        raise RingError(f"link {link.segment.name!r}: the router's words are impossible")
    return {"records": t.records, "posts": t.posts, "effects": t.effects, "acc": t.acc, **waiter.stats}


# ---- router ----

cdef int _collect(link_view *l, waiter *w, traffic *t) except -1 nogil:
    """Read and check what completions and effects are there."""
    cdef int64_t got = link_completed(l, l.requests.capacity), i
    cdef engine_cpl cpl
    cdef engine_effect fx
    if got < 0:
        return IMPOSSIBLE
    for i in range(got):
        if link_completion(l, i, &cpl) < 0:
            return IMPOSSIBLE
        t.acc = t.acc * K + t.records + i
        if cpl.value != t.acc:
            return WRONG
        if has_effect(t.acc):
            t.effects_acc += t.acc
    if got:
        t.records += got
        link_seen(l, got)
    got = ring_peek(&l.effects, l.effects.capacity)
    if got < 0:
        return IMPOSSIBLE
    for i in range(got):
        ring_copy(&fx, ring_item(&l.effects, i), sizeof(fx))
        if not has_effect(fx.value):
            return WRONG
        t.effects_acc -= fx.value
    if got:
        t.effects += got
        ring_release(&l.effects, got)
        wake(w, &l.hdr.worker_asleep)
    return OK


cdef int _await(link_view *l, waiter *w) except -1 nogil:
    cdef wait_word words[2]
    words[0].word, words[0].wide, words[0].known = &l.hdr.executed, 1, l.executed
    words[1].word, words[1].wide, words[1].known = &l.hdr.effects_produced, 1, l.effects.mine
    words[0].asleep = words[1].asleep = &l.hdr.router_asleep
    if not wait_any(w, words, 2):
        _idle(l)
    return 0


cdef int _stream(link_view *l, waiter *w, traffic *t, uint64_t n, uint64_t batch) except -1 nogil:
    cdef uint64_t sent = t.records, end = t.records + n, i
    cdef int64_t room
    cdef engine_rec rec
    cdef int st
    memset(&rec, 0, sizeof(rec))
    while t.records != end:
        room = link_reserve(l, min(batch, end - sent)) if sent != end else 0
        for i in range(<uint64_t>room):
            rec.value = sent + i
            link_request(l, i)[0] = rec
        if room:
            sent += room
            link_commit(l, room)
            wake(w, &l.hdr.worker_asleep)
        st = _collect(l, w, t)
        if st:
            return st
        if room == 0 and t.records != sent:
            _await(l, w)
    return OK


cdef int _post(link_view *l, waiter *w, traffic *t, uint32_t vcpu, uint64_t value) except -1 nogil:
    """One posted access; the records sent before it execute first."""
    cdef engine_rec rec
    cdef uint64_t got = 0
    cdef uint32_t status = 0
    cdef wait_word words[2]
    cdef int st
    words[0].word, words[0].wide = &l.slots[vcpu].state, 0
    words[1].word, words[1].wide = &l.hdr.effects_produced, 1
    words[0].asleep = words[1].asleep = &l.hdr.router_asleep
    memset(&rec, 0, sizeof(rec))
    rec.value = value
    if slot_post(l, vcpu, &rec, l.requests.mine) < 0:
        return WRONG
    wake(w, &l.hdr.worker_asleep)
    while True:
        st = slot_poll(l, vcpu, &got, &status)
        if st < 0:
            return IMPOSSIBLE
        if st:
            break
        st = _collect(l, w, t)               # effects too: the worker may be waiting for room
        if st:
            return st
        _dawdle(t)
        words[0].known = l.slot_state[vcpu]
        words[1].known = l.effects.mine
        if not wait_any(w, words, 2):
            _idle(l)
    while t.records != l.requests.mine:      # they executed before it: nothing to wait for
        st = _collect(l, w, t)
        if st:
            return st
    t.acc = t.acc * K + value
    t.posts += 1
    return OK if got == t.acc else WRONG


cdef int _exchange(link_view *l, waiter *w, traffic *t, uint64_t n, uint64_t before) except -1 nogil:
    cdef uint64_t i, k
    cdef int64_t room
    cdef engine_rec rec
    cdef int st
    memset(&rec, 0, sizeof(rec))
    for i in range(n):
        room = link_reserve(l, before)
        for k in range(<uint64_t>room):
            rec.value = t.records + k
            link_request(l, k)[0] = rec
        if room:
            link_commit(l, room)
        st = _post(l, w, t, <uint32_t>(i % l.n_vcpus), i)
        if st:
            return st
    return OK


cdef class Router:
    """Drives the router's side: `Router(link, waiter)`; each method checks every answer and returns what it did."""
    cdef traffic t
    cdef Link link
    cdef Waiter waiter

    def __init__(self, Link link, Waiter waiter):
        link._role(LINK_ROUTER)
        self.link, self.waiter = link, waiter
        self.t.seed = 88172645463325252

    def _report(self, int st, uint64_t ns):
        if st:
            what = "words are impossible" if st == IMPOSSIBLE else "answers are wrong"
            raise RingError(f"link {self.link.segment.name!r}: the worker's {what} (after {self.t.records} records, "
                            f"{self.t.posts} posted accesses)")
        return {"records": self.t.records, "posts": self.t.posts, "effects": self.t.effects, "acc": self.t.acc,
                "effects_open": self.t.effects_acc != 0, "ns": ns, **self.waiter.stats}

    def stream(self, uint64_t n, uint64_t batch=64):
        """Send n records in batches, reading answers as they come."""
        cdef uint64_t start = monotonic_ns()
        cdef int st
        with nogil:
            st = _stream(&self.link.v, &self.waiter.w, &self.t, n, batch)
        return self._report(st, monotonic_ns() - start)

    def exchange(self, uint64_t n, uint64_t before=0, *, uint64_t jitter=0):
        """Make n posted accesses, each after up to `before` records that must execute first.

        jitter: dawdle up to so many TSC ticks before each wait, so that the other side's publishing meets this side at
        every point of its way to sleep.
        """
        self.t.jitter = jitter
        cdef uint64_t start = monotonic_ns()
        cdef int st
        with nogil:
            st = _exchange(&self.link.v, &self.waiter.w, &self.t, n, before)
        return self._report(st, monotonic_ns() - start)
