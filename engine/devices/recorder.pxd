"""Recorder of accesses that no other part answers."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._abi cimport engine_acc
from engine._device cimport Device, io_status, reset_kind

cdef enum:                    # regions
    PORTS = 0
    FIRST_WINDOW = 1          # of memory, 4 GiB each

cdef class Recorder(Device):
    cdef engine_acc *ring     # the last `keep` accesses; a host's log, no state of the machine
    cdef uint64_t keep, seen
    cdef uint64_t port_answer, memory_answer
    cdef uint32_t windows
    cdef void note(self, uint32_t region, uint32_t offset, uint32_t size, bint write, uint64_t value) noexcept nogil
