"""A PCI function: its configuration space with write masks, its BARs, its command gates and its INTx pin.

Names and section numbers: PCI Local Bus Specification 3.0 (PCI), PCI Express Base Specification 3.0 (PCIe).
"""
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:
    N_BARS = 6
    N_LEGACY = 8
    ROM_BAR = 6            # the expansion ROM, kept behind the six BARs
    CONFIG_REGION = 7      # region number of configuration space
    FIRST_FIXED = 8        # region number of the function's own first fixed range
    INTA = 0               # output pin 0 of every function

cdef extern from *:
    """
    #define PCI_UNMAPPED UINT64_MAX
    """
    const uint64_t UNMAPPED "PCI_UNMAPPED"

# First member of every function's state struct.  A multiple of 8 bytes long, so that what follows is not padded.
cdef struct pci_state:
    device_core core
    uint64_t mapped[7]     # where each BAR and the ROM answer now; UNMAPPED
    uint8_t config[256]
    uint8_t intx           # the function's interrupt request, before COMMAND_INTX_DISABLE
    uint8_t legacy         # which of the fixed ranges behind a bridge answer, bit n = range n
    uint8_t gone           # software has let it go (a bridge's hot-plug controller): it answers nowhere
    uint8_t pci_pad[5]

# What a BAR is, fixed when the function is built.
cdef struct pci_bar:
    uint64_t size          # 0: not implemented (or the upper half of a 64-bit BAR)
    uint8_t reg            # offset of its register
    uint8_t flags          # the read-only low bits

# A fixed range (a VGA's ports, say) of a function behind a bridge: it answers where the bridges forward it.
cdef struct pci_legacy:
    uint64_t first
    uint64_t last
    uint8_t region
    bint io

cdef class PciFunction(Device):
    cdef pci_state *p
    cdef uint8_t *extended          # bytes 256 to 4095, in the part's own state (see extend); NULL: there are none
    cdef uint8_t wmask[4096]        # writable bits
    cdef uint8_t w1c[4096]          # bits that a written one clears
    cdef uint8_t initial[4096]      # what configuration space holds after reset
    cdef uint8_t keep[4096]         # 1: a bus reset leaves the byte alone
    cdef uint32_t config_size       # 256 or 4096
    cdef pci_bar bars[7]
    cdef uint8_t cap_next           # where the next capability goes
    cdef list bar_regions
    cdef tuple all_regions
    cdef PciFunction bridge         # the bridge above, which keeps this function in its children; None on bus 0
    cdef PyObject *above            # the same, for use without reference counting
    cdef pci_legacy legacy[8]       # fixed ranges of a function behind a bridge
    cdef uint32_t n_legacy
    cdef void *pci_alloc(self, size_t size) except NULL
    cdef void extend(self, uint8_t *extended)
    cdef io_status config_read(self, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil
    cdef io_status config_write(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil
    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil
    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
    cdef uint64_t bar_address(self, uint32_t n) noexcept nogil
    cdef void update_mappings(self) noexcept nogil
    cdef void update_command(self) noexcept nogil
    cdef void set_intx(self, bint level) noexcept nogil
    cdef bint forwards(self, bint io, uint64_t first, uint64_t last) noexcept nogil
    cdef bint leads_to(self, uint32_t bus) noexcept nogil
    cdef void bridge_moved(self) noexcept nogil
    cdef void set_map(self, uint32_t region, bint on, uint64_t base) noexcept nogil

    cdef inline uint8_t *config_byte(self, uint32_t at) noexcept nogil:
        if at < 256:
            return &self.p.config[at]
        return &self.extended[at - 256]

    cdef inline uint16_t config16(self, uint32_t at) noexcept nogil:
        return <uint16_t>(self.p.config[at] | self.p.config[at + 1] << 8)

    cdef inline uint32_t config32(self, uint32_t at) noexcept nogil:
        return self.config16(at) | <uint32_t>self.config16(at + 2) << 16
