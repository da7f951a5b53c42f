"""CFI parallel flash with the Intel command set, as firmware of PCs is kept in.  Names: 3 Volt Intel StrataFlash Memory
(28F128J3A), data sheet 290667; Common Flash Interface, JESD68.01."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind
from engine.devices._medium cimport Medium

cdef enum:                 # commands: 290667, Command Definitions
    READ_ARRAY_0 = 0x00    # what this part keeps for READ_ARRAY
    PROGRAM_ALTERNATE = 0x10
    BLOCK_ERASE = 0x20
    PROGRAM = 0x40
    CLEAR_STATUS = 0x50
    LOCK_SETUP = 0x60
    READ_STATUS = 0x70
    READ_ID = 0x90
    READ_QUERY = 0x98
    WRITE_BUFFER = 0xE8
    READ_ARRAY = 0xFF
    LOCK_SET = 0x01        # second cycles
    CONFIRM = 0xD0

cdef enum:                 # status register: 290667, Status Register Definitions
    SR_READY = 0x80
    SR_ERASE_ERROR = 0x20
    SR_PROGRAM_ERROR = 0x10
    SR_RESET = SR_READY

cdef enum:                 # CFI: JESD68.01, 2.2 to 2.4, offsets in the query structure
    CFI_QRY = 0x10
    CFI_COMMAND_SET = 0x13
    CFI_EXTENDED = 0x15
    CFI_VCC_MIN = 0x1B
    CFI_VCC_MAX = 0x1C
    CFI_PROGRAM_TIME = 0x1F
    CFI_BUFFER_TIME = 0x20
    CFI_ERASE_TIME = 0x21
    CFI_PROGRAM_TIMEOUT = 0x23
    CFI_BUFFER_TIMEOUT = 0x24
    CFI_ERASE_TIMEOUT = 0x25
    CFI_SIZE = 0x27
    CFI_INTERFACE = 0x28
    CFI_BUFFER_SIZE = 0x2A
    CFI_REGIONS = 0x2C
    CFI_BLOCKS = 0x2D
    CFI_BLOCK_SIZE = 0x2F
    CFI_PRI = 0x31
    CFI_PROTECTION_FIELDS = 0x3F
    CFI_LENGTH = 0x52

cdef enum:
    BLOCK = 4096           # bytes that are erased at once
    BUFFER_BITS = 8        # of the write buffer's size in bytes
    BUFFER = 1 << BUFFER_BITS

cdef extern from *:
    """
    #define PFLASH_NO_BLOCK UINT32_MAX
    """
    const uint32_t NO_BLOCK "PFLASH_NO_BLOCK"

cdef struct pflash_state:
    device_core core
    uint32_t block         # WRITE_BUFFER: where the buffer goes; NO_BLOCK between two
    uint8_t cmd            # the command that reads answer for
    uint8_t cycle          # bus cycles of it so far
    uint8_t status
    uint8_t left           # WRITE_BUFFER: data cycles after the next one
    uint8_t buffer[256]

cdef class PflashCfi01(Device):
    cdef pflash_state *s
    cdef Medium medium
    cdef uint8_t *data     # what the medium holds
    cdef uint32_t size
    cdef uint8_t query[CFI_LENGTH]
    cdef void buffered(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
    cdef void program(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
    cdef void erase(self, uint32_t offset) noexcept nogil
    cdef void keep(self, uint32_t offset, uint32_t size, uint8_t error) noexcept nogil
    cdef void first_cycle(self, uint32_t offset, uint8_t command) noexcept nogil
    cdef void read_array(self) noexcept nogil
