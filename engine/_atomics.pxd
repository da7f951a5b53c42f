"""C view of engine/_atomics.h; what each operation guarantees is said there."""
from libc.stdint cimport uint32_t, uint64_t

cdef extern from "_atomics.h" nogil:
    uint32_t load_acquire32 "engine_load_acquire32"(const uint32_t *p)
    uint64_t load_acquire64 "engine_load_acquire64"(const uint64_t *p)
    uint32_t load_relaxed32 "engine_load_relaxed32"(const uint32_t *p)
    uint64_t load_relaxed64 "engine_load_relaxed64"(const uint64_t *p)
    void store_relaxed32 "engine_store_relaxed32"(uint32_t *p, uint32_t v)
    void store_relaxed64 "engine_store_relaxed64"(uint64_t *p, uint64_t v)
    void store_release32 "engine_store_release32"(uint32_t *p, uint32_t v)
    void store_release64 "engine_store_release64"(uint64_t *p, uint64_t v)
    void full_fence "engine_full_fence"()
    uint32_t exchange32 "engine_exchange32"(uint32_t *p, uint32_t v)
    uint32_t fetch_add32 "engine_fetch_add32"(uint32_t *p, uint32_t v)
    uint64_t fetch_add64 "engine_fetch_add64"(uint64_t *p, uint64_t v)
    int compare_exchange32 "engine_compare_exchange32"(uint32_t *p, uint32_t *expected, uint32_t v)
    int compare_exchange64 "engine_compare_exchange64"(uint64_t *p, uint64_t *expected, uint64_t v)
    void pause "engine_pause"()
    uint64_t tsc "engine_tsc"()
    uint64_t monotonic_ns "engine_monotonic_ns"()
    int futex_wait "engine_futex_wait"(uint32_t *p, uint32_t v, uint64_t ns)
    int futex_wake "engine_futex_wake"(uint32_t *p, int n)
