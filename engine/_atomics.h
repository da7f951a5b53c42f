/*
 * Atomic operations on shared memory, each with what it guarantees.  x86-64; every operand is naturally aligned.
 */
#ifndef ENGINE_ATOMICS_H
#define ENGINE_ATOMICS_H

#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

/* Acquire: nothing after it in program order is done before it.  Pairs with a release store of the same word. */
static inline uint32_t engine_load_acquire32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint64_t engine_load_acquire64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }

/* Relaxed: the word is read whole and once; orders nothing.  For words whose only writer is the caller, and hints. */
static inline uint32_t engine_load_relaxed32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline uint64_t engine_load_relaxed64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void engine_store_relaxed32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline void engine_store_relaxed64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }

/* Release: everything before it in program order is visible to whoever acquires the value. */
static inline void engine_store_release32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline void engine_store_release64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

/* Full fence: orders an earlier store before a later load, which release and acquire do not.  Needed on both sides of a
   sleep: publish, fence, look at the sleeper's flag / set the flag, fence, look for work. */
static inline void engine_full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* Read-modify-write, sequentially consistent. */
static inline uint32_t engine_exchange32(uint32_t *p, uint32_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
static inline uint32_t engine_fetch_add32(uint32_t *p, uint32_t v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
static inline uint64_t engine_fetch_add64(uint64_t *p, uint64_t v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
static inline int engine_compare_exchange32(uint32_t *p, uint32_t *expected, uint32_t v)
{
    return __atomic_compare_exchange_n(p, expected, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline int engine_compare_exchange64(uint64_t *p, uint64_t *expected, uint64_t v)
{
    return __atomic_compare_exchange_n(p, expected, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Tell the core that this is a spin loop. */
static inline void engine_pause(void) { _mm_pause(); }

/* Time stamp counter; invariant on every machine this is built for, not serialising. */
static inline uint64_t engine_tsc(void) { return __rdtsc(); }

/* Nanoseconds of CLOCK_MONOTONIC. */
static inline uint64_t engine_monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Sleep while *p is v, at most ns; shared between processes.  0 when woken, else ETIMEDOUT, EAGAIN or EINTR. */
static inline int engine_futex_wait(uint32_t *p, uint32_t v, uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    return syscall(SYS_futex, p, FUTEX_WAIT, v, &t, NULL, 0) == 0 ? 0 : errno;
}

/* Wake at most n sleepers on p; how many were woken, or -1. */
static inline int engine_futex_wake(uint32_t *p, int n)
{
    return (int)syscall(SYS_futex, p, FUTEX_WAKE, n, NULL, NULL, 0);
}

#endif
