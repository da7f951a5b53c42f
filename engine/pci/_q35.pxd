"""Intel 82Q35 (GMCH), device 0: host bridge and DRAM controller.  Names: data sheet 316966-002 (September 2007), section 5.1;
the last registers are of QEMU's docs/specs and firmware (see docs/devices/q35_mch.md)."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                 # configuration registers beside the header
    EXT_TSEG_MBYTES = 0x50 # size of the largest TSEG, 2 bytes (not in the data sheet)
    PCIEXBAR = 0x60        # PCI Express register range base, 8 bytes
    PAM0 = 0x90            # programmable attribute map, 7 bytes
    F_SMBASE = 0x9C        # SMRAM at the processors' power-on SMBASE (not in the data sheet)
    SMRAM = 0x9D           # system management RAM control
    ESMRAMC = 0x9E         # extended system management RAM control

cdef enum:                 # PCIEXBAR
    PCIEXBAREN = 0x1
    LENGTH_MASK = 0x6
    LENGTH_256M = 0x0
    LENGTH_128M = 0x2
    LENGTH_64M = 0x4

cdef enum:                 # SMRAM
    C_BASE_SEG = 0x02
    G_SMRAME = 0x08
    D_LCK = 0x10
    D_CLS = 0x20
    D_OPEN = 0x40
    SMRAM_WMASK = G_SMRAME | D_LCK | D_CLS | D_OPEN

cdef enum:                 # ESMRAMC
    T_EN = 0x01
    TSEG_SZ = 0x06
    ESMRAMC_RESET = 0x38   # SM_CACHE, SM_L1, SM_L2
    H_SMRAME = 0x80
    ESMRAMC_WMASK = T_EN | TSEG_SZ | H_SMRAME

cdef enum:                 # EXT_TSEG_MBYTES, F_SMBASE
    EXT_TSEG_QUERY = 0xFFFF
    SMBASE_QUERY = 0xFF
    SMBASE_IN_RAM = 0x01
    SMBASE_LCK = 0x02

cdef enum:                 # region numbers
    PAM_REGION = 8         # to 20
    SMRAM_REGION = 21
    ECAM_REGION = 22       # 256 MiB, 128 MiB, 64 MiB
    TSEG_REGION = 25       # 1 MiB, 2 MiB, 8 MiB, EXT_TSEG_MBYTES
    SMBASE_REGION = 29
    OPEN_SMRAM_REGION = 30 # A0000h, while D_OPEN is set and H_SMRAME is not
    HIGH_SMRAM_REGION = 31 # FEDA0000h, while both are
    SMM_SMRAM_REGION = 32  # the same two for system management mode alone, while G_SMRAME is set
    SMM_HIGH_SMRAM_REGION = 33
    NO_REGION = 0

cdef enum:
    PAM_SEGMENTS = 13

cdef struct q35_mch_state:
    pci_state pci
    uint64_t ecam_base     # where the configuration window answers
    uint8_t ecam           # which of the ECAM regions it is; NO_REGION
    uint8_t tseg           # which of the TSEG regions is shut; NO_REGION
    uint8_t pam[13]        # attributes of each segment, as last published
    uint8_t smram          # SMRAM and ESMRAMC, as last published
    uint8_t esmramc
    uint8_t smbase         # F_SMBASE
    uint8_t open           # which of the SMRAM regions answers everybody; NO_REGION
    uint8_t smm            # which answers in system management mode; NO_REGION
    uint8_t pad[4]

cdef class Q35Mch(PciFunction):
    cdef q35_mch_state *s
    cdef uint64_t low_ram
    cdef uint16_t ext_tseg
    cdef bint has_smm             # whether there is system management memory
    cdef bint has_smbase          # and F_SMBASE
    cdef void update_pam(self) noexcept nogil
    cdef void update_ecam(self) noexcept nogil
    cdef void update_smram(self) noexcept nogil
    cdef uint8_t show(self, uint8_t before, uint8_t now) noexcept nogil
    cdef void smm_written(self) noexcept nogil
    cdef uint8_t next_smbase(self, uint8_t written) noexcept nogil
    cdef void lock(self) noexcept nogil
    cdef uint64_t tseg_base(self) noexcept nogil
