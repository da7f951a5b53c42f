"""Debug console port."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind
from engine.devices._output cimport OutputRing

cdef class Debugcon(Device):
    cdef OutputRing ring
    cdef uint8_t readback
