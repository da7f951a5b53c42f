"""pc-testdev: ports, memory and interrupt lines for tests of a machine."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:                    # regions
    WORD = 0                  # 4 bytes that hold what is written
    FLUSH = 1
    BYTES = 2                 # the same 4 bytes, reached byte by byte
    LINES = 3                 # a port for each interrupt line
    MEMORY = 4

cdef enum:
    N_LINES = 24
    MEMORY_SIZE = 0x10000

cdef struct pc_testdev_state:
    device_core core
    uint32_t word
    uint8_t pad[4]

cdef class PcTestdev(Device):
    cdef pc_testdev_state *s
    cdef uint8_t *bytes
