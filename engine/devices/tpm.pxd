"""TPM register interfaces: FIFO (TIS) and command response buffer (CRB).  Names: TCG PC Client Platform TPM Profile
Specification for TPM 2.0, 1.05 (PTP)."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind
from engine.devices._swtpm cimport TPM_BUFFER, Swtpm

cdef enum:                 # regions
    REGISTERS_REGION = 0
    PPI_REGION = 1

cdef enum:
    LOCALITIES = 5
    NO_LOCALITY = 0xFF
    PPI_SIZE = 0x400
    PPI_MOVV = 0x15A       # memory overwrite variable: QEMU tpm.rst
    MOVV_OVERWRITE = 0x01
    CRB_SIZE = 0x1000
    CRB_BUFFER = 0x80      # offset of the command buffer
    CRB_BUFFER_SIZE = CRB_SIZE - CRB_BUFFER

cdef enum:                 # FIFO registers, PTP table "Register Space Addresses": offsets within a locality
    TPM_ACCESS = 0x00
    TPM_INT_ENABLE = 0x08
    TPM_INT_VECTOR = 0x0C
    TPM_INT_STATUS = 0x10
    TPM_INTF_CAPABILITY = 0x14
    TPM_STS = 0x18
    TPM_DATA_FIFO = 0x24
    TPM_INTERFACE_ID = 0x30
    TPM_XDATA_FIFO = 0x80
    TPM_XDATA_FIFO_LAST = 0xBC
    TPM_DID_VID = 0xF00
    TPM_RID = 0xF04
    LOCALITY_SHIFT = 12

cdef enum:                 # TPM_ACCESS
    ACCESS_ESTABLISHMENT = 0x01
    ACCESS_REQUEST_USE = 0x02
    ACCESS_PENDING = 0x04
    ACCESS_SEIZE = 0x08
    ACCESS_BEEN_SEIZED = 0x10
    ACCESS_ACTIVE = 0x20
    ACCESS_VALID = 0x80

cdef enum:                 # TPM_STS
    STS_RESPONSE_RETRY = 0x02
    STS_SELFTEST_DONE = 0x04
    STS_EXPECT = 0x08
    STS_DATA_AVAILABLE = 0x10
    STS_GO = 0x20
    STS_COMMAND_READY = 0x40
    STS_VALID = 0x80
    STS_BURST_SHIFT = 8
    STS_CANCEL = 1 << 24
    STS_RESET_ESTABLISHMENT = 1 << 25
    STS_FAMILY_2_0 = 1 << 26
    STS_FAMILY_MASK = 3 << 26

cdef enum:                 # interrupts
    INT_DATA_AVAILABLE = 0x01
    INT_STS_VALID = 0x02
    INT_LOCALITY_CHANGE = 0x04
    INT_POLARITY = 0x18
    INT_LOW_LEVEL = 0x08
    INT_COMMAND_READY = 0x80
    INT_SUPPORTED = INT_DATA_AVAILABLE | INT_STS_VALID | INT_LOCALITY_CHANGE | INT_COMMAND_READY
    INTERFACE_SELECT_LOCK = 1 << 19

cdef extern from *:
    """
    #define TPM_INT_GLOBAL 0x80000000u
    """
    const uint32_t INT_GLOBAL "TPM_INT_GLOBAL"

cdef enum:                 # what a locality is doing: PTP, FIFO state transition table
    STATE_IDLE = 0
    STATE_READY = 1
    STATE_COMPLETION = 2
    STATE_EXECUTION = 3
    STATE_RECEPTION = 4

cdef enum:                 # CRB registers, PTP table "CRB Interface Identifier and registers"
    LOC_STATE = 0x00
    LOC_CTRL = 0x08
    LOC_STS = 0x0C
    INTF_ID = 0x30
    INTF_ID_2 = 0x34
    CTRL_REQ = 0x40
    CTRL_STS = 0x44
    CTRL_CANCEL = 0x48
    CTRL_START = 0x4C
    CTRL_CMD_SIZE = 0x58
    CTRL_CMD_LADDR = 0x5C
    CTRL_RSP_SIZE = 0x64
    CTRL_RSP_ADDR = 0x68

cdef enum:                 # their bits
    LOC_STATE_ESTABLISHED = 0x01
    LOC_STATE_ASSIGNED = 0x02
    LOC_STATE_VALID = 0x80
    LOC_CTRL_REQUEST = 0x01
    LOC_CTRL_RELINQUISH = 0x02
    LOC_STS_GRANTED = 0x01
    LOC_STS_BEEN_SEIZED = 0x02
    REQ_COMMAND_READY = 0x01
    REQ_GO_IDLE = 0x02
    CTRL_STS_FATAL = 0x01
    CTRL_STS_IDLE = 0x02
    START = 0x01
    CANCEL = 0x01

cdef struct tis_state:
    device_core core
    uint32_t sts[5]
    uint32_t inte[5]
    uint32_t ints[5]
    uint32_t interface[5]
    uint32_t offset        # in the buffer, of the next byte
    uint8_t access[5]
    uint8_t state[5]
    uint8_t active
    uint8_t aborting
    uint8_t next
    uint8_t running        # the locality whose command is under way
    uint8_t ppi[0x400]
    uint8_t buffer[4096]

cdef struct crb_state:
    device_core core
    uint32_t regs[32]
    uint8_t ppi[0x400]
    uint8_t buffer[0xF80]

cdef class Tpm(Device):
    cdef Swtpm backend
    cdef uint32_t buffer_size
    cdef uint64_t latency
    cdef bint failed
    cdef bint established(self) noexcept nogil
    cdef void start(self, uint8_t locality, const uint8_t *buffer, uint32_t n) noexcept nogil
    cdef bint answer(self, uint8_t *buffer) noexcept nogil
    cdef bint overwrite(self, const uint8_t *ppi) noexcept nogil

cdef class TpmTis(Tpm):
    cdef tis_state *s
    cdef uint32_t interrupt
    cdef void set_status(self, uint32_t locality, uint32_t flags) noexcept nogil
    cdef void interrupt_for(self, uint32_t locality, uint32_t what) noexcept nogil
    cdef void activate(self, uint8_t locality) noexcept nogil
    cdef void abort(self) noexcept nogil
    cdef void prepare_abort(self, uint8_t locality, uint8_t then) noexcept nogil
    cdef bint wanted_by_another(self, uint32_t locality) noexcept nogil
    cdef uint8_t fifo_read(self, uint32_t locality) noexcept nogil
    cdef void fifo_write(self, uint32_t locality, uint32_t value, uint32_t size) noexcept nogil
    cdef void access_write(self, uint32_t locality, uint32_t value) noexcept nogil
    cdef void status_write(self, uint32_t locality, uint32_t value) noexcept nogil

cdef class TpmCrb(Tpm):
    cdef crb_state *s
