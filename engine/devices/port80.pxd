"""POST code port and coprocessor error port."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:                  # regions
    REGION_POST = 0         # 80h
    REGION_FERR = 1         # F0h

cdef enum:
    PIN_IRQ = 0
    PIN_IGNNE = 1
    PIN_FERR = 0            # input

cdef struct port80_state:
    device_core core
    uint8_t code            # last one written
    uint8_t ferr            # level of FERR#

cdef class Port80(Device):
    cdef port80_state *s
