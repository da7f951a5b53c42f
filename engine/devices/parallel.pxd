"""Parallel port.  Names: IBM PC/AT Technical Reference (6139362), "Serial/Parallel Adapter"; IEEE 1284 for the direction bit."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind
from engine.devices._output cimport OutputRing

cdef enum:
    DATA = 0
    STATUS = 1
    CONTROL = 2
    PORTS = 8

cdef enum:                  # status; the lines as the host reads them: BUSY is inverted
    STS_TIMEOUT = 0x01      # EPP time-out, on until the first printer reset
    STS_ERROR = 0x08        # 1: no error
    STS_ONLINE = 0x10
    STS_ACK = 0x40          # 0 while the printer acknowledges
    STS_BUSY = 0x80         # 0 while the printer is busy
    STS_READY = STS_BUSY | STS_ACK | STS_ONLINE | STS_ERROR
    STS_RESET = STS_READY | STS_TIMEOUT

cdef enum:                  # control
    CTL_STROBE = 0x01
    CTL_AUTOFEED = 0x02
    CTL_INIT = 0x04         # 0 resets the printer
    CTL_SELECT = 0x08
    CTL_IRQ = 0x10
    CTL_INPUT = 0x20        # data lines are inputs
    CTL_ONES = 0xC0
    CTL_RESET = CTL_ONES | CTL_SELECT | CTL_INIT

cdef struct parallel_state:
    device_core core
    uint8_t data
    uint8_t status
    uint8_t control
    uint8_t pending         # the acknowledge's interrupt

cdef class Parallel(Device):
    cdef parallel_state *s
    cdef OutputRing ring
    cdef bint log
    cdef void write_control(self, uint8_t v) noexcept nogil
    cdef uint8_t read_status(self) noexcept nogil
