"""Intel 82801IB (ICH9), device 31 function 3: SMBus host controller.  Names: data sheet 316972-004 (August 2008), chapter 20."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.devices._smbus cimport smbus_state
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                    # configuration registers beside the header, 20.1
    HOSTC = 0x40              # host configuration
    HST_EN = 0x01
    SMB_SMI_EN = 0x02
    I2C_EN = 0x04
    SSRESET = 0x08

cdef enum:                    # region number
    SMB_BAR = 4

cdef struct ich9_smbus_state:
    pci_state pci
    uint8_t decodes           # the host registers answer at SMB_BASE, as HOSTC was last written
    uint8_t irq               # the interrupt request, as the last access to a host register left it
    smbus_state smb

cdef class Ich9Smbus(PciFunction):
    cdef ich9_smbus_state *s
    cdef uint8_t eeproms
    cdef bytes spd                     # what spd_bytes points into
    cdef const char *spd_bytes
    cdef void update_irq(self) noexcept nogil
