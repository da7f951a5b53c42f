"""Exact rescaling of times and tick counts for timers: no rounding but the final floor, no floating point."""
from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    /* floor(a * b / c) modulo 2^64.  a = q * c + r gives a * b / c = q * b + r * b / c, where r * b < c * b needs no more
       than 64 bits: two 64-bit divisions, which are multiplications when c is a constant, and no 128-bit one. */
    static inline uint64_t engine_muldiv(uint64_t a, uint32_t b, uint32_t c)
    {
        return a / c * b + a % c * b / c;
    }
    """
    uint64_t muldiv "engine_muldiv"(uint64_t a, uint32_t b, uint32_t c) noexcept nogil
