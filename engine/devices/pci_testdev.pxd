"""pci-testdev: writes at an offset that the device names, and counts.  Names: QEMU 7.2, docs/specs/pci-testdev.txt."""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                    # regions
    MEMORY_BAR = 0
    PORT_BAR = 1
    EMPTY_BAR = 2             # a range without anything, as large as asked for
    MEMORY_SIZE = 4096
    PORT_SIZE = 256

cdef enum:                    # the header
    TEST = 0x00
    WIDTH = 0x01
    OFFSET = 0x04
    DATA = 0x08
    COUNT = 0x0C
    NAME = 0x10
    HEADER_MAX = 48

cdef enum:                    # tests of one range; those of the ports follow those of the memory
    N_KINDS = 3
    NO_EVENT = 0              # writes are counted
    WILDCARD = 1              # byte-wide ones are signalled past the device, others are counted
    DATA_MATCH = 2            # the same, for one value
    N_TESTS = 6
    NO_TEST = 0xFF

cdef enum:
    MATCHED = 0xFA            # DATA of the tests that look at it, and of the one that does not
    UNMATCHED = 0xCE

cdef struct pci_testdev_state:
    pci_state pci
    uint32_t counts[6]
    uint8_t current           # NO_TEST
    uint8_t pad[7]

cdef class PciTestdev(PciFunction):
    cdef pci_testdev_state *s
    cdef uint8_t headers[6][48]
    cdef uint32_t lengths[6]
    cdef uint32_t offset_of(self, uint32_t test) noexcept nogil
    cdef void byte_written(self, uint32_t region, uint32_t offset, uint8_t value) noexcept nogil
