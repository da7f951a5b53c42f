"""Intel 82801IB (ICH9), device 31 function 2 in AHCI mode.  Names and section numbers: Serial ATA Advanced Host Controller
Interface 1.3.1 (AHCI); frames: Serial ATA Revision 3.0 (SATA), 10.3."""
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.devices.ata cimport AtaChannel, AtaController, ata_channel
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                 # region numbers
    IDP_BAR = 4
    HBA_BAR = 5

cdef enum:
    N_PORTS = 6
    N_SLOTS = 32
    IDP_INDEX = 0x10       # index register of the index-data pair; the data register follows
    IDP_DATA = 0x14
    HBA_SIZE = 0x1000
    MSI_AT = 0x80
    SATA_CAP_AT = 0xA8
    MAP = 0x90             # ICH9 15.1.31: AHCI mode, all ports

cdef enum:                 # generic host control, 3.1
    CAP = 0x00
    GHC = 0x04
    IS = 0x08
    PI = 0x0C
    VS = 0x10
    PORTS = 0x100
    PORT_SIZE = 0x80

cdef enum:                 # CAP
    CAP_NCS = (N_SLOTS - 1) << 8
    CAP_SAM = 1 << 18
    CAP_GEN1 = 1 << 20
    CAP_SNCQ = 1 << 30

cdef enum:                 # GHC
    GHC_HR = 0x1
    GHC_IE = 0x2

cdef enum:                 # port registers, 3.3
    CLB = 0x00
    CLBU = 0x04
    FB = 0x08
    FBU = 0x0C
    PXIS = 0x10
    PXIE = 0x14
    CMD = 0x18
    TFD = 0x20
    SIG = 0x24
    SSTS = 0x28
    SCTL = 0x2C
    SERR = 0x30
    SACT = 0x34
    CI = 0x38

cdef enum:                 # PxIS, 3.3.5: bit numbers
    DHRS = 0
    PSS = 1
    SDBS = 3
    OFS = 24
    HBFS = 29
    TFES = 30

cdef enum:                 # PxCMD, 3.3.7
    CMD_ST = 0x00000001
    CMD_SUD = 0x00000002
    CMD_POD = 0x00000004
    CMD_FRE = 0x00000010
    CMD_FR = 0x00004000
    CMD_CR = 0x00008000
    CMD_RO = 0x007DFFE0    # bits that software does not change

cdef extern from *:
    """
    #define AHCI_CAP_S64A 0x80000000u
    #define AHCI_GHC_AE 0x80000000u
    #define AHCI_CMD_ICC 0xF0000000u
    #define AHCI_PXIE_WMASK 0xFDC000FFu
    """
    const uint32_t CAP_S64A "AHCI_CAP_S64A"
    const uint32_t GHC_AE "AHCI_GHC_AE"
    const uint32_t CMD_ICC "AHCI_CMD_ICC"
    const uint32_t PXIE_WMASK "AHCI_PXIE_WMASK"

cdef enum:
    SSTS_UP = 0x113        # a device at 1.5 Gb/s, active: 3.3.10
    SCTL_DET = 0x0F
    TFD_RESET = 0x7F

cdef enum:                 # a command header, 4.2.2
    HEADER_SIZE_BYTES = 32
    LIST_SIZE = N_SLOTS * HEADER_SIZE_BYTES
    OPT_A = 0x0020         # ATAPI
    OPT_W = 0x0040         # host to device
    OPT_C = 0x0400         # clear busy upon R_OK

cdef enum:                 # a command table, 4.2.3
    TABLE_SIZE = 0x80
    ACMD_AT = 0x40
    ACMD_SIZE = 16
    PRD_SIZE = 16
    PRD_COUNT = 0x3FFFFF   # DBC: bytes - 1

cdef enum:                 # the received FIS structure, 4.2.1
    FIS_SIZE = 256
    PSFIS = 0x20
    RFIS = 0x40
    SDBFIS = 0x58

cdef enum:                 # frame types, SATA 10.3
    FIS_H2D = 0x27
    FIS_D2H = 0x34
    FIS_PIO = 0x5F
    FIS_SDB = 0xA1
    FIS_LENGTH = 20
    FIS_C = 0x80           # the frame carries a command
    FIS_I = 0x40
    SRST = 0x04            # device control

cdef enum:                 # queued commands, ATA8-ACS-3
    READ_FPDMA_QUEUED = 0x60
    WRITE_FPDMA_QUEUED = 0x61
    NCQ_NON_DATA = 0x63
    SEND_FPDMA_QUEUED = 0x64
    RECEIVE_FPDMA_QUEUED = 0x65

cdef enum:
    IO_ERROR_PIN = 1           # behind INTA#
    TRAY_PIN = 2

cdef enum run_next:         # does another pass over PxCI follow?
    RUN_NOT = 0
    RUN_NOW = 1            # before the queued commands
    RUN_LATER = 2

cdef struct ahci_port:
    uint64_t list_at       # the command list, as PxCMD.ST found it
    uint64_t fis_at        # the received FIS structure, as PxCMD.FRE found it
    uint32_t clb, clbu, fb, fbu
    uint32_t pxis, pxie, cmd, tfd, sig, sctl, serr, sact, ci
    uint32_t finished      # queued commands that no set device bits frame has told yet
    uint32_t held          # slots of the queued commands that wait for the host
    uint8_t srst           # a software reset is under way
    uint8_t d2h_sent       # the first frame after a reset is
    uint8_t waits          # a command that is not queued waits for the host
    uint8_t pad

cdef struct ahci_state:
    pci_state pci
    uint32_t ghc, hba_is, index
    uint32_t pad
    ahci_port port[6]
    ata_channel ata[6]

# One command while it is carried out.
cdef struct ahci_command:
    uint32_t n             # port
    uint32_t slot
    uint16_t opts
    uint64_t header        # address of its header
    uint64_t prd           # address of the next region descriptor
    uint32_t prds          # how many are left
    uint64_t addr          # the rest of the one before it
    uint32_t left
    uint32_t bytes         # PRDBC
    bint drq               # data have been transferred
    bint io                # the medium was read or written

# A queued command between its frame and its transfer.
cdef struct ahci_queued:
    ahci_command c
    uint8_t op, tag
    uint64_t lba
    uint32_t count

cdef class Ich9Ahci(AtaController):
    cdef ahci_state *s
    cdef PyObject *channel[6]       # borrowed from `channels`
    cdef uint32_t msi
    cdef ahci_queued queue[32]      # within one call
    cdef uint32_t queued
    cdef ata_channel *before        # the channel, as the command that is carried out has found it; NULL: no drive may wait
    cdef uint32_t hba_read(self, uint32_t offset) noexcept nogil
    cdef uint64_t hba_part(self, uint32_t offset, uint32_t size) noexcept nogil
    cdef void hba_write(self, uint32_t offset, uint32_t value) noexcept nogil
    cdef void port_write(self, uint32_t n, uint32_t offset, uint32_t value) noexcept nogil
    cdef void cmd_write(self, uint32_t n, uint32_t value) noexcept nogil
    cdef void hba_reset(self) noexcept nogil
    cdef void port_reset(self, uint32_t n) noexcept nogil
    cdef void check_irq(self) noexcept nogil
    cdef void trigger(self, uint32_t n, uint32_t bit) noexcept nogil
    cdef bint reaches(self, uint64_t gpa, size_t n) noexcept nogil
    cdef bint send_d2h(self, uint32_t n, bint interrupt) noexcept nogil
    cdef void send_pio(self, uint32_t n, uint32_t size, bint interrupt) noexcept nogil
    cdef void send_sdb(self, uint32_t n) noexcept nogil
    cdef void first_d2h(self, uint32_t n) noexcept nogil
    cdef void frame(self, uint32_t n, uint8_t *fis, uint8_t kind, bint interrupt) noexcept nogil
    cdef void run(self, uint32_t n) noexcept nogil
    cdef bint clear_ci(self, uint32_t n, uint32_t slot) noexcept nogil
    cdef bint issue(self, uint32_t n, uint32_t slot, run_next *next) noexcept nogil
    cdef void control(self, ahci_command *c, const uint8_t *fis) noexcept nogil
    cdef bint execute(self, ahci_command *c, const uint8_t *fis) noexcept nogil
    cdef int fetch(self, uint32_t n, uint32_t slot, ahci_command *c, uint8_t *table) noexcept nogil
    cdef bint restrained(self, uint32_t n, uint64_t failures) noexcept nogil
    cdef void stop(self) noexcept nogil
    cdef void resume(self, uint32_t n) noexcept nogil
    cdef void describe(self, ahci_queued *q, ahci_command *c, const uint8_t *fis) noexcept nogil
    cdef void enqueue(self, ahci_command *c, const uint8_t *fis) noexcept nogil
    cdef void finish_queued(self, ahci_queued *q) noexcept nogil
    cdef bint next_prd(self, ahci_command *c) noexcept nogil
    cdef int move(self, ahci_command *c, uint8_t *buf, uint32_t n, bint to_memory) noexcept nogil
    cdef uint64_t room(self, const ahci_command *c, uint64_t most) noexcept nogil
    cdef void moved(self, ahci_command *c, uint32_t n) noexcept nogil
    cdef void run_pio(self, ahci_command *c) noexcept nogil
    cdef void run_dma(self, ahci_command *c) noexcept nogil
    cdef int run_packet_dma(self, ahci_command *c) noexcept nogil
