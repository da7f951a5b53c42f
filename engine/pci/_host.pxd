"""Intel 82441FX (PMC), the host bridge.  Names and section numbers: data sheet 290549-001 (May 1996)."""
from libc.stdint cimport uint8_t, uint32_t

from engine._device cimport io_status, reset_kind
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                 # configuration registers beside the header, section 3.2
    PMCCFG = 0x50          # 3.2.14 PMC configuration, 2 bytes
    DETURBO = 0x52         # 3.2.15 deturbo counter
    DBC = 0x53             # 3.2.16 DRAM buffer control
    AXC = 0x54             # 3.2.17 auxiliary control
    DRT = 0x55             # 3.2.18 DRAM row type, 2 bytes
    DRAMC = 0x57           # 3.2.19 DRAM control
    DRAMT = 0x58           # 3.2.20 DRAM timing
    PAM0 = 0x59            # 3.2.21 programmable attribute map, 7 bytes
    PAM6 = 0x5F
    DRB0 = 0x60            # 3.2.22 DRAM row boundary, 8 bytes
    FDHC = 0x68            # 3.2.23 fixed DRAM hole control
    MTT = 0x70             # 3.2.24 multi-transaction timer
    CLT = 0x71             # 3.2.25 CPU latency timer
    SMRAM = 0x72           # 3.2.26 system management RAM control
    ERRCMD = 0x90          # 3.2.27 error command
    ERRSTS = 0x91          # 3.2.28 error status
    TRC = 0x93             # 3.2.29 turbo reset control

cdef enum:                 # a PAM nibble, 3.2.21: what the region number's MAP effect carries
    PAM_RE = 0x1           # reads go to DRAM
    PAM_WE = 0x2           # writes go to DRAM
    PAM_SEGMENTS = 13      # segment 0: F0000h, 64 KiB (PAM0 high nibble); 1 to 12: C0000h + (n - 1) * 16 KiB

cdef enum:                 # SMRAM, 3.2.26
    SMRAM_C_BASE_SEG = 0x07
    SMRAM_G_SMRAME = 0x08
    SMRAM_D_LCK = 0x10
    SMRAM_D_CLS = 0x20
    SMRAM_D_OPEN = 0x40
    SMRAM_RESET = 0x02

cdef enum:                 # region numbers of MAP effects
    PAM_REGION = 8         # to 20
    SMRAM_REGION = 21

cdef struct i440fx_state:
    pci_state pci
    uint8_t pam[13]        # attributes of each segment, as last published
    uint8_t smram          # SMRAM, as last published
    uint8_t pad[2]

cdef class I440fx(PciFunction):
    cdef i440fx_state *s
    cdef void update_attributes(self) noexcept nogil
