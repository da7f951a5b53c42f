"""pvpanic: how a guest tells its host that it has crashed.  Names: QEMU 7.2, docs/specs/pvpanic.txt."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport Device, io_status
from engine.pci._config cimport PciFunction

cdef enum:                    # the register, "Bit Definition"
    PANICKED = 0x01           # a panic the host should handle
    CRASH_LOADED = 0x02       # a panic the guest handles itself

cdef enum:                    # region and size of the PCI part
    PVPANIC_BAR = 0
    PVPANIC_SIZE = 2

cdef enum:                    # output pins of the ISA part; those of the PCI part are one further
    PANICKED_PIN = 0
    CRASH_LOADED_PIN = 1

cdef class Pvpanic(Device):
    cdef uint8_t events

cdef class PvpanicPci(PciFunction):
    cdef uint8_t events
