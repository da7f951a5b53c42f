"""A bounded ring of output bytes: putting never blocks and never fails, the oldest bytes give way."""
cimport cython
from libc.stdlib cimport calloc, free

from engine.errors import MachineError


@cython.final
cdef class OutputRing:
    """`OutputRing(keep)`: holds the last `keep` bytes, a power of two.  Filled by the thread that owns the device, read
    by that same thread between runs."""

    def __cinit__(self, uint64_t keep=1 << 16):
        if not 1 <= keep <= 1 << 30 or keep & (keep - 1):
            raise MachineError(f"an output of {keep} bytes cannot be kept; give a power of two up to {1 << 30}")
        self.mem = <uint8_t *>calloc(1, keep)
        if self.mem == NULL:
            raise MemoryError(f"no {keep} bytes for output")
        self.mask = keep - 1

    def __dealloc__(self):
        free(self.mem)

    @property
    def lost(self):
        """How many of the oldest bytes are gone."""
        return self.total - min(self.total, self.mask + 1)

    def bytes(self):
        """The bytes kept, oldest first."""
        cdef uint64_t at = self.total & self.mask
        whole = (<char *>self.mem)[:self.mask + 1]
        return whole[at:] + whole[:at] if self.total > self.mask else whole[:at]
