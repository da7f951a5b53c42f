"""Waiting for the other side of a ring: spin, adaptive, block.  Apart from the rings, which never block."""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from engine._atomics cimport full_fence, load_relaxed32

cdef enum:
    WAIT_SPIN = 0       # never sleeps
    WAIT_ADAPTIVE = 1   # spins for as long as has paid lately, then sleeps
    WAIT_BLOCK = 2      # sleeps at once
    WAIT_SLICE_NS = 50000000   # every wait returns after this at the latest
    WAIT_MAX = 64       # words one wait can watch
    WAIT_CHOICES = 3    # how long the adaptive policy may spin: not at all, for an eighth of what a sleep costs, for all of it
    WAIT_SPIN_NS = 200000      # and for no longer than this

# One word in shared memory that another process will change, and the futex this thread can sleep on meanwhile.
cdef struct wait_word:
    const void *word    # uint64_t if wide, else uint32_t
    uint64_t known      # the wait ends when the word differs from this
    uint32_t *asleep    # futex in shared memory: 1 = this thread sleeps, wake it after changing the word; when that was done
                        # stands 8 bytes on (engine_link.worker_woken)
    uint32_t wide

cdef struct waiter:
    uint16_t policy
    uint16_t crowded    # more spinning threads than CPUs: give way while spinning
    uint32_t missed     # wake-ups lost: slept a slice out although the word had changed.  0, or a fence is missing
    int64_t spin_ns     # adaptive: the longest that it spins
    int64_t wake_ns     # from being woken to running, lately
    int64_t gap_ns      # how long the last wait had to be; 0: cost_ns knows
    int64_t pace_ns     # the waits of late, long ones cut
    int64_t cost_ns[WAIT_CHOICES]      # of a wait, lately, with each choice
    uint64_t waits, spins, yields, sleeps, timeouts, wakes   # statistics; wakes: futex wake-ups this side sent

cdef void waiter_init(waiter *w, uint32_t policy, uint64_t spin_ns, bint crowded) noexcept nogil
cdef int wait_index(waiter *w, const uint64_t *index, uint64_t known, uint32_t *asleep) noexcept nogil
cdef int wait_any(waiter *w, const wait_word *words, uint32_t n) noexcept nogil
cdef void _wake(waiter *w, uint32_t *asleep) noexcept nogil

cdef inline void wake(waiter *w, uint32_t *asleep) noexcept nogil:
    """After publishing: wake the other side if it sleeps (or is about to)."""
    full_fence()        # between publishing and looking; pairs with the fence in wait_any
    if load_relaxed32(asleep) != 0:
        _wake(w, asleep)


cdef class Waiter:
    """A waiting policy and its statistics, for one thread."""
    cdef waiter w
