"""Waiting for the other side of a ring.

A wait watches words in shared memory (indices, slot states) and ends when one differs from the value known, or after
50 ms, or on a signal, so that its caller can look at signals, the peer's pidfd and the stop word.  To sleep, a thread
sets its futex word, fences, and looks once more; a publisher publishes, fences, and looks at the futex word.  The fences
are needed: an ordinary store may pass a later load of another word, and then each side misses the other (a lost
wake-up, which here would cost a slice of 50 ms and not a hang).
"""
from libc.errno cimport EINTR, ETIMEDOUT
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from engine._atomics cimport (exchange32, full_fence, futex_wait, futex_wake, load_acquire32, load_acquire64,
                              load_relaxed32, monotonic_ns, pause, store_relaxed32)

import os

cdef extern from *:
    """
    #include <errno.h>
    #include <linux/futex.h>
    #include <sched.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    /* Sleep while every words[i] is 1; until CLOCK_MONOTONIC end_ns.  -1 with errno, ENOSYS before Linux 5.16. */
    struct wait_waitv { uint64_t val, uaddr; uint32_t flags, reserved; };
    #define WAIT_WAITV_MAX 64
    static long wait_futex_waitv(uint32_t **words, uint32_t n, uint64_t end_ns)
    {
        struct wait_waitv v[WAIT_WAITV_MAX];
        struct timespec t = {.tv_sec = (time_t)(end_ns / 1000000000u), .tv_nsec = (long)(end_ns % 1000000000u)};
        for (uint32_t i = 0; i < n; i++)
            v[i] = (struct wait_waitv){.val = 1, .uaddr = (uint64_t)(uintptr_t)words[i], .flags = 2 /* FUTEX_32 */};
        return syscall(449, v, n, 0, &t, CLOCK_MONOTONIC);
    }
    """
    long wait_futex_waitv(uint32_t **words, uint32_t n, uint64_t end_ns) nogil
    int sched_yield() nogil

SPIN, ADAPTIVE, BLOCK = WAIT_SPIN, WAIT_ADAPTIVE, WAIT_BLOCK
POLICIES = {"spin": WAIT_SPIN, "adaptive": WAIT_ADAPTIVE, "block": WAIT_BLOCK}

cdef enum:
    LOOKS = 64          # looks between two readings of the clock
    CROWDED_LOOKS = 16  # looks before the CPU is given away, where threads share CPUs


cdef void waiter_init(waiter *w, uint32_t policy, uint64_t spin_ns, bint crowded) noexcept nogil:
    """Set a policy; statistics at 0."""
    memset(w, 0, sizeof(waiter))
    w.policy = policy
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


cdef int _sleep(waiter *w, const wait_word *words, uint32_t n, uint64_t end_ns) noexcept nogil:
    """Sleep until woken, a signal, or end_ns.  1: a word changed, 0: look around."""
    cdef uint32_t *futexes[WAIT_MAX]
    cdef uint32_t i, j, m = 0
    cdef uint64_t now
    cdef int ready
    for i in range(n):      # each futex once: a link's two words share one
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
        now = monotonic_ns()
        if now < end_ns:
            w.sleeps += 1
            if m == 1:
                futex_wait(futexes[0], 1, end_ns - now)
            elif wait_futex_waitv(futexes, m, end_ns) < 0 and errno_is_enosys():
                futex_wait(futexes[0], 1, min(end_ns - now, <uint64_t>1000000))   # poll the others each millisecond
        ready = changed(words, n)
    for j in range(m):
        store_relaxed32(futexes[j], 0)
    return ready


cdef extern from *:
    """
    static int errno_is_enosys(void) { return errno == ENOSYS; }
    """
    int errno_is_enosys() nogil


cdef int wait_any(waiter *w, const wait_word *words, uint32_t n) noexcept nogil:
    """Wait until one of up to WAIT_MAX words differs from its known value.  1: one does; 0: a slice ended or a signal
    came, none does yet."""
    cdef uint64_t start, now, spin_end, end
    cdef uint32_t i
    cdef uint32_t looks = CROWDED_LOOKS if w.crowded else LOOKS
    w.waits += 1
    if changed(words, n):
        return 1
    if w.policy == WAIT_BLOCK:
        end = monotonic_ns() + WAIT_SLICE_NS
    else:
        start = monotonic_ns()
        end = start + WAIT_SLICE_NS
        spin_end = end if w.policy == WAIT_SPIN else start + w.spin_ns
        while True:
            for i in range(looks):
                pause()
                if changed(words, n):
                    w.spins += i + 1
                    return 1
            w.spins += looks
            if w.crowded:
                w.yields += 1
                sched_yield()
            now = monotonic_ns()
            if now >= spin_end:
                break
    if w.policy != WAIT_SPIN and _sleep(w, words, n, end):
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


cdef int wait_state(waiter *w, const uint32_t *state, uint32_t known, uint32_t *asleep) noexcept nogil:
    """wait_any for one 32-bit word, such as the state of a slot."""
    cdef wait_word one
    one.word = state
    one.known = known
    one.asleep = asleep
    one.wide = 0
    return wait_any(w, &one, 1)


cdef void _wake(waiter *w, uint32_t *asleep) noexcept nogil:
    if exchange32(asleep, 0) != 0:
        w.wakes += 1
        futex_wake(asleep, 1)


def crowded(threads):
    """Are there more threads that spin than CPUs this process may use?  Then a spinner only delays whom it waits for."""
    return threads > len(os.sched_getaffinity(0))


cdef class Waiter:
    """`Waiter("adaptive", spin_us=20, threads=2)`: a policy for one thread.  threads: how many spin on these CPUs."""

    def __init__(self, policy="adaptive", *, double spin_us=20.0, int threads=2, crowded=None):
        try:
            number = POLICIES[policy]
        except KeyError:
            raise ValueError(f"waiting policy {policy!r} is not one of {', '.join(POLICIES)}") from None
        if not 0 <= spin_us <= 50000:
            raise ValueError(f"spin_us {spin_us} is not between 0 and 50000")
        waiter_init(&self.w, number, <uint64_t>(spin_us * 1000),
                    globals()["crowded"](threads) if crowded is None else crowded)

    @property
    def stats(self):
        w = self.w
        return {"waits": w.waits, "spins": w.spins, "yields": w.yields, "sleeps": w.sleeps, "timeouts": w.timeouts,
                "wakes": w.wakes, "crowded": bool(w.crowded)}
