"""Message-signalled interrupts: PCI Local Bus Specification 3.0, 6.8.1 (MSI).  Functions over a PciFunction.

The function keeps the offset that add_msi gave, calls msi_written from config_written, and asks msi_enabled before it
chooses between msi_notify and set_intx.
"""
from libc.stdint cimport uint32_t, uint64_t

from engine.pci._config cimport PciFunction

cdef enum:                     # offsets within the capability, 6.8.1
    MSI_CONTROL = 2
    MSI_ADDRESS = 4
    MSI_DATA_32 = 8
    MSI_MASK_32 = 12
    MSI_DATA_64 = 12
    MSI_MASK_64 = 16

cdef enum:                     # MSI_CONTROL, 6.8.1.3
    MSI_ENABLE = 0x0001
    MSI_CAPABLE_SHIFT = 1
    MSI_ENABLED_SHIFT = 4
    MSI_ENABLED_MASK = 0x0070
    MSI_64 = 0x0080
    MSI_MASKABLE = 0x0100

cdef enum:                     # where a message is an interrupt: Intel SDM volume 3, 11.11.1
    MESSAGE_BASE = 0xFEE
    MESSAGE_SHIFT = 20

cdef void send_message(PciFunction f, uint32_t vector, uint64_t addr, uint32_t data) noexcept nogil
cdef bint msi_enabled(PciFunction f, uint32_t at) noexcept nogil
cdef void msi_notify(PciFunction f, uint32_t at, uint32_t vector) noexcept nogil
cdef void msi_written(PciFunction f, uint32_t at, uint32_t offset, uint32_t size) noexcept nogil
