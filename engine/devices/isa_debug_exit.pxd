"""isa-debug-exit: a port whose writing ends the machine."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:
    EXIT_PIN = 0

cdef struct debug_exit_state:
    device_core core
    uint32_t written          # the first value written
    uint8_t exited
    uint8_t pad[3]

cdef class IsaDebugExit(Device):
    cdef debug_exit_state *s
