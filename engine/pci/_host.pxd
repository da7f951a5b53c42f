"""Intel 82441FX (PMC), the host bridge.  Names: data sheet 290549-001 (May 1996), section 3.2."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from engine._device cimport IO_OK, io_status, reset_kind
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                 # configuration registers beside the header
    PMCCFG = 0x50          # PMC configuration, 2 bytes
    DETURBO = 0x52         # deturbo counter
    DBC = 0x53             # DRAM buffer control
    AXC = 0x54             # auxiliary control
    DRT = 0x55             # DRAM row type, 2 bytes
    DRAMC = 0x57           # DRAM control
    DRAMT = 0x58           # DRAM timing
    PAM0 = 0x59            # programmable attribute map, 7 bytes
    PAM6 = 0x5F
    DRB0 = 0x60            # DRAM row boundary, 8 bytes
    FDHC = 0x68            # fixed DRAM hole control
    MTT = 0x70             # multi-transaction timer
    CLT = 0x71             # CPU latency timer
    SMRAM = 0x72           # system management RAM control
    ERRCMD = 0x90          # error command
    ERRSTS = 0x91          # error status
    TRC = 0x93             # turbo reset control

cdef enum:                 # a PAM nibble: what the region number's MAP effect carries
    PAM_RE = 0x1           # reads go to DRAM
    PAM_WE = 0x2           # writes go to DRAM
    PAM_SEGMENTS = 13      # segment 0: F0000h, 64 KiB (PAM0 high nibble); 1 to 12: C0000h + (n - 1) * 16 KiB

cdef enum:                 # SMRAM
    SMRAM_C_BASE_SEG = 0x07
    SMRAM_G_SMRAME = 0x08
    SMRAM_D_LCK = 0x10
    SMRAM_D_CLS = 0x20
    SMRAM_D_OPEN = 0x40
    SMRAM_RESET = 0x02

cdef enum:                 # region numbers of MAP effects
    PAM_REGION = 8         # to 20
    SMRAM_REGION = 21
    OPEN_SMRAM_REGION = 22 # A0000h, while D_OPEN is set
    SMM_SMRAM_REGION = 23  # A0000h, for system management mode alone, while G_SMRAME is set

cdef enum:                 # where SMRAM is
    SMRAM_AT = 0xA0000
    SMRAM_SIZE = 0x20000

cdef struct i440fx_state:
    pci_state pci
    uint8_t pam[13]        # attributes of each segment, as last published
    uint8_t smram          # SMRAM, as last published
    uint8_t pad[2]

cdef inline uint8_t pam_attributes(const uint8_t *pam, uint32_t n) noexcept nogil:
    """Attributes of segment n in the seven PAM registers, which later host bridges have too."""
    cdef uint8_t value = pam[(n + 1) // 2]
    return (value if n & 1 else value >> 4) & (PAM_RE | PAM_WE)

cdef inline io_status smram_read(PciFunction f, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
    """A read of the RAM behind SMRAM; ones where there is none."""
    cdef size_t n = size
    cdef uint8_t *p = f.dma._find(SMRAM_AT + offset, &n)
    value[0] = ~<uint64_t>0
    if p != NULL and n == size:
        memcpy(value, p, size)
    return IO_OK

cdef inline io_status smram_write(PciFunction f, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
    cdef size_t n = size
    cdef uint8_t *p = f.dma._find(SMRAM_AT + offset, &n)
    if p != NULL and n == size:
        memcpy(p, &value, size)
    return IO_OK

cdef class I440fx(PciFunction):
    cdef i440fx_state *s
    cdef void update_attributes(self) noexcept nogil
