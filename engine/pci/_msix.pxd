"""MSI-X: PCI Local Bus Specification 3.0, 6.8.2.  Functions over a PciFunction and the table in its own state.

The owner keeps `table` (16 bytes a vector) and `pending` (a bit a vector, in whole 8-byte words) in its state struct, answers
the accesses of the BAR they lie in with msix_load, msix_table_write (the pending bits are read-only), calls msix_reset from
on_reset and msix_written from config_written, and asks msix_enabled before msix_notify.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine.pci._config cimport PciFunction

cdef enum:                     # offsets within the capability, 6.8.2
    MSIX_CONTROL = 2
    MSIX_TABLE = 4
    MSIX_PBA = 8
    MSIX_LENGTH = 12

cdef enum:                     # upper byte of MSIX_CONTROL, 6.8.2.3
    MSIX_ENABLE = 0x80
    MSIX_FUNCTION_MASK = 0x40
    MSIX_MAX = 2048

cdef enum:                     # a table entry, 6.8.2.6 to 6.8.2.9
    ENTRY_ADDRESS = 0
    ENTRY_DATA = 8
    ENTRY_CONTROL = 12
    ENTRY_MASKED = 0x01
    ENTRY_SIZE = 16

cdef bint msix_enabled(PciFunction f, uint32_t at) noexcept nogil
cdef bint msix_masked(PciFunction f, uint32_t at) noexcept nogil
cdef uint64_t msix_load(const uint8_t *bytes, uint32_t length, uint32_t offset, uint32_t size) noexcept nogil
cdef void msix_table_write(PciFunction f, uint32_t at, uint8_t *table, uint8_t *pending, uint32_t offset, uint32_t size,
                           uint64_t value) noexcept nogil
cdef void msix_notify(PciFunction f, uint32_t at, uint8_t *table, uint8_t *pending, uint32_t vector) noexcept nogil
cdef void msix_written(PciFunction f, uint32_t at, uint8_t *table, uint8_t *pending, uint32_t offset,
                       uint32_t size) noexcept nogil
cdef void msix_reset(PciFunction f, uint32_t at, uint8_t *table, uint8_t *pending) noexcept nogil
