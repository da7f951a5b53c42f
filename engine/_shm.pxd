"""Sealed memory files shared between processes: made, checked, mapped and freed here and nowhere else."""
from libc.stdint cimport uint8_t, uint32_t

cdef class Segment:
    """One mapped memory file.  Made by create() or attach(); any thread may use it, the rings inside have their own rules."""
    cdef uint8_t *mem          # NULL once closed
    cdef readonly size_t size
    cdef readonly str name
    cdef readonly uint32_t kind
    cdef int _fd
    cdef int pid               # the process that mapped it; a fork's child is refused
    cdef Py_ssize_t exports    # buffers that are out
    cdef int check(self) except -1
    cdef int _map(self, size_t n, bint prefault, bint huge) except -1
    cdef void _free(self)
