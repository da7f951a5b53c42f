"""iBASE IB700 single-board computer: watchdog.  Names: IB700 user's manual, "Watchdog timer configuration"."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:                    # ports from 441h on
    WDT_DISABLE = 0           # 441h
    WDT_ENABLE = 2            # 443h
    WDT_PORTS = 4

cdef enum:                    # the time that a value of WDT_ENABLE stands for: 30 s less 2 s each
    TIME_MASK = 0x0F
    TIME_MAX = 15
    TIME_UNIT = 2000000000    # ns

cdef enum:
    WATCHDOG_PIN = 0

cdef struct ib700_state:
    device_core core
    uint8_t running
    uint8_t pad[7]

cdef class Ib700(Device):
    cdef ib700_state *s
    cdef bint resets
    cdef void bite(self) noexcept nogil
