"""What a device sends to the outside and a person may read: a bounded ring of bytes in plain C memory."""
from libc.stdint cimport uint8_t, uint64_t


cdef class OutputRing:
    cdef uint8_t *mem
    cdef uint64_t mask
    cdef readonly uint64_t total      # bytes ever put

    cdef inline void put(self, uint8_t byte) noexcept nogil:
        self.mem[self.total & self.mask] = byte
        self.total += 1
