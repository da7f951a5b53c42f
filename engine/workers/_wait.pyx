"""Waiting for the other side of a ring.

A wait watches words in shared memory (indices, slot states) and ends when one differs from the value known, or after
50 ms, or on a signal, so that its caller can look at signals, the peer's pidfd and the stop word.  To sleep, a thread
sets its futex word, fences, and looks once more; a publisher publishes, fences, and looks at the futex word.  The fences
are needed: an ordinary store may pass a later load of another word, and then each side misses the other (a lost
wake-up, which here would cost a slice of 50 ms and not a hang).

The adaptive policy asks what the last waits would have cost, had it spun for a time and then slept: their length if they were
over by then, else that time and a sleep.  A sleep costs the delay until the sleeper runs again, as much CPU time of who waits
for the sleeper meanwhile, and the waiting of what else comes in that time, at the pace of late.  The delay is measured: who
wakes a sleeper says when.
"""
from libc.errno cimport ETIMEDOUT
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from engine._atomics cimport (exchange32, full_fence, futex_wait, futex_wake, load_acquire32, load_acquire64,
                              load_relaxed64, monotonic_ns, pause, store_relaxed32, store_relaxed64)
from engine._ring cimport LINK_ROUTER, Link, Ring, link_view
from engine._abi cimport engine_ring

import os

from engine.errors import RingError

cdef extern from *:
    """
    #include <errno.h>
    #include <linux/futex.h>
    #include <sched.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    /* Sleep while every *words[i] is 1, at most until end_ns of CLOCK_MONOTONIC.  0, or an errno: ENOSYS before Linux 5.16.
       The structure and the number are spelled out because older kernel headers lack them. */
    static int wait_futex_waitv(uint32_t **words, uint32_t n, uint64_t end_ns)
    {
        struct { uint64_t val, uaddr; uint32_t flags, reserved; } v[64];
        struct timespec t = {.tv_sec = (time_t)(end_ns / 1000000000u), .tv_nsec = (long)(end_ns % 1000000000u)};
        for (uint32_t i = 0; i < n; i++) {
            v[i].val = 1;
            v[i].uaddr = (uint64_t)(uintptr_t)words[i];
            v[i].flags = 2; /* FUTEX_32, shared */
            v[i].reserved = 0;
        }
        return syscall(449, v, n, 0, &t, CLOCK_MONOTONIC) < 0 ? errno : 0;
    }
    """
    enum:
        ENOSYS
    int wait_futex_waitv(uint32_t **words, uint32_t n, uint64_t end_ns) nogil
    int sched_yield() nogil

SPIN, ADAPTIVE, BLOCK = WAIT_SPIN, WAIT_ADAPTIVE, WAIT_BLOCK
POLICIES = {"spin": WAIT_SPIN, "adaptive": WAIT_ADAPTIVE, "block": WAIT_BLOCK}

cdef enum:
    LOOKS = 8           # looks between two readings of the clock
    CROWDED_LOOKS = 16  # looks before the CPU is given away, where threads share CPUs
    TURNS = 8           # times the CPU is given away before anything is chosen, where threads share CPUs
    RECENT = 16         # waits that count, about


cdef void waiter_init(waiter *w, uint32_t policy, uint64_t spin_ns, bint crowded) noexcept nogil:
    """Set a policy; statistics at 0."""
    memset(w, 0, sizeof(waiter))
    w.policy = <uint16_t>policy
    w.spin_ns = spin_ns
    w.crowded = crowded


cdef inline bint changed(const wait_word *words, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        # Acquire: what the other side published with the change is visible; pairs with its release.
        if words[i].wide:
            if load_acquire64(<const uint64_t *>words[i].word) != words[i].known:
                return True
        elif load_acquire32(<const uint32_t *>words[i].word) != <uint32_t>words[i].known:
            return True
    return False


cdef inline uint64_t *woken(uint32_t *asleep) noexcept nogil:
    """Where a waker says when it woke the sleeper of a futex word."""
    return <uint64_t *>(asleep + 2)


cdef uint64_t _spin(waiter *w) noexcept nogil:
    """How long to spin in the wait that begins: as long as would have been cheapest in the last ones."""
    cdef int64_t gap = w.gap_ns, sleep
    cdef int64_t times[WAIT_CHOICES]
    cdef uint32_t i, best = 0
    w.gap_ns = 0
    if gap:
        w.pace_ns += (min(gap, 2 * w.wake_ns) - w.pace_ns) // (RECENT if w.pace_ns else 1)
    sleep = 2 * w.wake_ns + w.wake_ns * w.wake_ns // (2 * max(w.pace_ns, 1))
    times[0] = 0
    times[1] = min(sleep >> 3, w.spin_ns)
    times[2] = min(sleep, w.spin_ns)
    for i in range(WAIT_CHOICES):
        if gap:
            w.cost_ns[i] += ((gap if gap <= times[i] else times[i] + sleep) - w.cost_ns[i]) // RECENT
        if w.cost_ns[i] < w.cost_ns[best]:
            best = i
    return times[best]


cdef int _sleep(waiter *w, const wait_word *words, uint32_t n, uint64_t start) noexcept nogil:
    """Sleep until woken, a signal, or the end of the slice that began at `start`.  1: a word changed, 0: look around."""
    cdef uint32_t *futexes[WAIT_MAX]
    cdef uint32_t i, j, m = 0, still = 0
    cdef uint64_t now, then, slept = start, end_ns = start + WAIT_SLICE_NS
    cdef int ready, why = 0
    for i in range(n):      # each futex once: the words of one link share theirs
        for j in range(m):
            if futexes[j] == words[i].asleep:
                break
        else:
            futexes[m] = words[i].asleep
            m += 1
    for j in range(m):
        store_relaxed32(futexes[j], 1)
    full_fence()            # between announcing the sleep and looking; pairs with the fence in wake
    ready = changed(words, n)
    if not ready:
        slept = monotonic_ns()
        if slept < end_ns:
            w.sleeps += 1
            if m == 1:
                why = futex_wait(futexes[0], 1, end_ns - slept)
            else:
                why = wait_futex_waitv(futexes, m, end_ns)
                if why == ENOSYS:       # look at the other words each millisecond
                    futex_wait(futexes[0], 1, min(end_ns - slept, <uint64_t>1000000))
        ready = changed(words, n)
    now = monotonic_ns()
    w.gap_ns = (now - start) | 1
    for j in range(m):
        still += exchange32(futexes[j], 0)
        then = load_relaxed64(woken(futexes[j]))       # relaxed: a hint; of this sleep, or it is not used
        if slept < then <= now:
            w.gap_ns = then - start
            w.wake_ns += (min(<int64_t>(now - then), w.spin_ns) - w.wake_ns) // 8
    if ready and why == ETIMEDOUT and still == m:
        w.missed += 1       # every publisher that saw the flag would have cleared it
    return ready


cdef int wait_any(waiter *w, const wait_word *words, uint32_t n) noexcept nogil:
    """Wait until one of up to WAIT_MAX words differs from its known value.  1: one does; 0: a slice ended or a signal
    came, none does yet."""
    cdef uint64_t start, now, spin = 0
    cdef uint32_t i
    cdef uint32_t looks = CROWDED_LOOKS if w.crowded else LOOKS
    w.waits += 1
    if changed(words, n):
        return 1
    if w.policy != WAIT_BLOCK:
        for i in range(TURNS if w.crowded else LOOKS): # whatever the policy: it takes less than to choose
            if w.crowded:
                w.yields += 1
                sched_yield()                          # whom this one waits for may wait for the CPU
            else:
                pause()
            if changed(words, n):
                w.spins += i + 1
                return 1
    start = now = monotonic_ns()
    if w.policy == WAIT_SPIN:
        spin = WAIT_SLICE_NS
    elif w.policy == WAIT_ADAPTIVE:
        spin = _spin(w)
    while now - start < spin:
        for i in range(looks):
            pause()
            if changed(words, n):
                w.spins += i + 1
                w.gap_ns = (now - start) | 1           # as of the last reading: no clock is read while somebody waits
                return 1
        w.spins += looks
        if w.crowded:
            w.yields += 1
            sched_yield()
        now = monotonic_ns()
    if w.policy != WAIT_SPIN and _sleep(w, words, n, start) != 0:
        return 1
    w.timeouts += 1
    return 0


cdef int wait_index(waiter *w, const uint64_t *index, uint64_t known, uint32_t *asleep) noexcept nogil:
    """wait_any for one 64-bit index."""
    cdef wait_word one
    one.word = index
    one.known = known
    one.asleep = asleep
    one.wide = 1
    return wait_any(w, &one, 1)


cdef void _wake(waiter *w, uint32_t *asleep) noexcept nogil:
    if exchange32(asleep, 0) != 0:
        store_relaxed64(woken(asleep), monotonic_ns())     # relaxed: a hint
        w.wakes += 1
        futex_wake(asleep, 1)


def crowded(threads):
    """Are there more threads that spin than CPUs this process may use?  Then a spinner only delays whom it waits for."""
    return threads > len(os.sched_getaffinity(0))


def chosen(gaps_ns, int64_t wake_ns, *, int64_t spin_ns=WAIT_SPIN_NS):
    """How long the adaptive policy would spin, in ns, before each of these waits, were a sleeper awake after wake_ns."""
    cdef waiter w
    waiter_init(&w, WAIT_ADAPTIVE, spin_ns, False)
    w.wake_ns = wake_ns
    out = []
    for gap in gaps_ns:
        out.append(_spin(&w))
        w.gap_ns = gap
    return out


cdef class Waiter:
    """`Waiter("adaptive", spin_us=200, threads=2)`: a policy for one thread.

    spin_us: the longest that it spins before a sleep.  threads: how many spin on these CPUs.
    """

    def __init__(self, policy="adaptive", *, double spin_us=WAIT_SPIN_NS / 1000, int threads=2, crowded=None):
        try:
            number = POLICIES[policy]
        except KeyError:
            raise ValueError(f"waiting policy {policy!r} is not one of {', '.join(POLICIES)}") from None
        if not 0 <= spin_us <= 50000:
            raise ValueError(f"spin_us {spin_us} is not between 0 and 50000")
        waiter_init(&self.w, number, <uint64_t>(spin_us * 1000),
                    globals()["crowded"](threads) if crowded is None else crowded)

    def wait(self, *sides, vcpu=None):
        """Wait at most a slice (50 ms) for the other side of any of these Rings and Links; True: something changed.

        Ring: the consumer waits for items, the producer for room.  Link: the worker waits for records, posted accesses
        and the stop word, the router for completions and effects, or with vcpu for the answer in that slot.
        """
        cdef wait_word words[WAIT_MAX]
        cdef uint32_t n = 0
        cdef int ready
        for side in sides:
            if n + 3 > WAIT_MAX:
                raise RingError(f"one wait can watch {WAIT_MAX} words, not all of {len(sides)} rings and links")
            side.segment.fileno()                   # refuses after close and after a fork
            if isinstance(side, Ring):
                n += _watch_ring(side, words + n)
            else:
                n += _watch_link(side, words + n, vcpu)
        with nogil:
            ready = wait_any(&self.w, words, n)
        return ready != 0

    def wake(self, side):
        """After publishing: wake the other side of a Ring or Link if it sleeps."""
        cdef Ring ring
        cdef Link link
        cdef engine_ring *h
        side.segment.fileno()
        if isinstance(side, Ring):
            ring = side
            h = <engine_ring *>ring.segment.mem
            wake(&self.w, &h.consumer_asleep if ring.producer else &h.producer_asleep)
        else:
            link = side
            wake(&self.w, &link.v.hdr.worker_asleep if link.role == LINK_ROUTER else &link.v.hdr.router_asleep)

    @property
    def stats(self):
        w = self.w
        return {"waits": w.waits, "spins": w.spins, "yields": w.yields, "sleeps": w.sleeps, "timeouts": w.timeouts,
                "wakes": w.wakes, "missed": w.missed, "wake_ns": w.wake_ns, "crowded": bool(w.crowded)}


cdef void _watch64(wait_word *w, const uint64_t *index, uint64_t known, uint32_t *asleep) noexcept:
    w.word, w.known, w.asleep, w.wide = index, known, asleep, 1


cdef void _watch32(wait_word *w, const uint32_t *word, uint32_t known, uint32_t *asleep) noexcept:
    w.word, w.known, w.asleep, w.wide = word, known, asleep, 0


cdef uint32_t _watch_ring(Ring ring, wait_word *words) noexcept:
    cdef engine_ring *h = <engine_ring *>ring.segment.mem
    _watch64(words, ring.v.consumed if ring.producer else ring.v.produced, ring.v.theirs,
             &h.producer_asleep if ring.producer else &h.consumer_asleep)
    return 1


cdef uint32_t _watch_link(Link link, wait_word *words, vcpu) except 0:
    cdef link_view *l = &link.v
    cdef uint32_t v
    if link.role != LINK_ROUTER:
        _watch64(words, &l.hdr.produced, l.requests.theirs, &l.hdr.worker_asleep)
        _watch64(words + 1, &l.hdr.posted, l.posted, &l.hdr.worker_asleep)
        _watch32(words + 2, &l.hdr.stop, 0, &l.hdr.worker_asleep)
        return 3
    if vcpu is None:
        _watch64(words, &l.hdr.executed, l.executed, &l.hdr.router_asleep)
        _watch64(words + 1, &l.hdr.effects_produced, l.effects.theirs, &l.hdr.router_asleep)
        return 2
    if not 0 <= vcpu < l.n_vcpus:
        raise RingError(f"link {link.segment.name!r}: vCPU {vcpu} of {l.n_vcpus}")
    v = vcpu
    _watch32(words, &l.slots[v].state, l.slot_state[v], &l.hdr.router_asleep)
    return 1
