"""PIIX3 IDE function.  Names: 82371SB (PIIX3) data sheet, 290550."""
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.devices.ata cimport AtaChannel, AtaController, ata_channel
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                  # region numbers
    REGION_BMIBA = 4
    REGION_CMD0 = 8
    REGION_CTL0 = 9
    REGION_CMD1 = 10
    REGION_CTL1 = 11

cdef enum:                  # pins
    PIN_INTA = 0
    PIN_IRQ14 = 1
    PIN_IRQ15 = 2
    PIN_IO_ERROR = 3
    PIN_TRAY = 4

cdef enum:                  # bus master registers of one channel; the secondary channel's follow at 8
    BMICX = 0
    BMISX = 2
    BMIDTPX = 4
    BM_CHANNEL = 8

cdef enum:                  # BMICX
    BMICX_SSBM = 0x01
    BMICX_RWCON = 0x08
    BMICX_WMASK = 0x09

cdef enum:                  # BMISX
    BMISX_BMIDEA = 0x01     # active
    BMISX_ERROR = 0x02
    BMISX_IDEINTS = 0x04
    BMISX_W1C = 0x06
    BMISX_DMACAP = 0x60     # both drives' bits, for the host's own use

cdef enum:
    BMIDTPX_WMASK = 0xFFFFFFFC
    PRD_SIZE = 8
    PRD_TABLE = 4096        # a table may not be longer

cdef struct bm_channel:
    uint32_t table          # BMIDTPX
    uint32_t at             # of the next descriptor
    uint8_t command
    uint8_t status
    uint8_t pad[2]

cdef struct piix3_ide_state:
    pci_state pci
    bm_channel bm[2]
    uint8_t fill[8]
    ata_channel ata[2]

# A walk along a table of physical region descriptors.
cdef struct prd_walk:
    uint32_t at             # next descriptor
    uint32_t table
    uint32_t addr           # of the region that is left
    uint32_t left           # bytes of it
    bint last               # it was the table's last

cdef class Piix3Ide(AtaController):
    cdef piix3_ide_state *s
    cdef PyObject *channel[2]       # borrowed from `channels`
    cdef void settle(self, uint32_t n) noexcept nogil
    cdef io_status cmd_read(self, uint32_t n, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil
    cdef void cmd_write(self, uint32_t n, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
    cdef uint32_t bm_read_part(self, uint32_t offset, uint32_t size) noexcept nogil
    cdef void bm_write_part(self, uint32_t offset, uint32_t size, uint32_t value) noexcept nogil
    cdef void bm_read(self, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil
    cdef void bm_write(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
    cdef bint prd_next(self, prd_walk *w) noexcept nogil
    cdef int prd_move(self, prd_walk *w, uint8_t *buf, uint32_t n, bint to_memory) noexcept nogil
    cdef void run_dma(self, uint32_t n) noexcept nogil
