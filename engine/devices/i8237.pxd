"""The PC's two 8237A DMA controllers and their page registers.

Names: Intel 8237A data sheet (231466); page registers: 82371FB/82371SB (PIIX/PIIX3) data sheet 290550-002, "DMA Registers".
"""
from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:                  # regions
    REGION_DMA0 = 0         # 00h..0Fh  channels 0 to 3, bytes
    REGION_DMA1 = 1         # C0h..DFh  channels 4 to 7, words; every register at two ports
    REGION_PAGE = 2         # 81h..8Fh  page registers

cdef enum:                  # register numbers within a controller; 0..7 are address and count of each channel
    COMMAND = 8             # write
    STATUS = 8              # read
    REQUEST = 9             # write
    SINGLE_MASK = 10
    MODE = 11
    CLEAR_POINTER = 12
    MASTER_CLEAR = 13
    CLEAR_MASK = 14
    ALL_MASK = 15

cdef enum:
    CMD_DISABLE = 0x04      # the only bit of the command register that the PC can use
    SET_BIT = 0x04          # in REQUEST and SINGLE_MASK
    CHANNEL = 0x03
    MODE_TRANSFER = 0x0C    # 0: verify, which moves nothing
    MODE_AUTOINIT = 0x10
    MODE_DECREMENT = 0x20
    MASK_RESET = 0xFF
    CASCADE = 4             # channel 4 carries the first controller's requests

cdef struct i8237_state:
    device_core core
    int32_t at[8]           # current address, of bytes, without page
    int32_t moved[8]        # bytes moved since it was set
    uint16_t base_address[8]
    uint16_t base_count[8]
    uint8_t mode[8]
    uint8_t page[8]
    uint8_t command[2]
    uint8_t status[2]       # bits 3..0: terminal count; 7..4: requests
    uint8_t mask[2]
    uint8_t high[2]         # byte pointer: the next access is the high byte
    uint8_t running[2]

cdef class DmaClient(Device):
    """A device behind a DMA channel.  The controller calls it when the channel may run; it moves bytes with
    I8237.from_ram and to_ram."""
    cdef uint32_t dma_run(self, uint32_t channel, uint32_t moved, uint32_t size) noexcept nogil

cdef class I8237(Device):
    cdef i8237_state *s
    cdef PyObject *clients[8]     # borrowed from `owners`
    cdef list owners
    cdef int attach(self, uint32_t channel, DmaClient client) except -1
    cdef void master_clear(self, uint32_t chip) noexcept nogil
    cdef void request(self, uint32_t channel, bint level, uint64_t now) noexcept nogil
    cdef void from_ram(self, uint32_t channel, uint8_t *buf, uint32_t pos, uint32_t n) noexcept nogil
    cdef void to_ram(self, uint32_t channel, uint8_t *buf, uint32_t pos, uint32_t n) noexcept nogil
    cdef uint32_t ram_address(self, uint32_t channel, uint32_t pos, uint32_t n) noexcept nogil
    cdef uint8_t read_channel(self, uint32_t chip, uint32_t reg) noexcept nogil
    cdef void write_channel(self, uint32_t chip, uint32_t reg, uint8_t v) noexcept nogil
    cdef void write_control(self, uint32_t chip, uint32_t reg, uint8_t v) noexcept nogil
    cdef void run(self, uint32_t chip) noexcept nogil
    cdef void run_channel(self, uint32_t channel) noexcept nogil
