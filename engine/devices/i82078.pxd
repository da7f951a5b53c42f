"""Floppy disk controller 82078.  Names: Intel 82078 data sheet, 290468 / 290474 (64-pin, 44-pin)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind
from engine.devices.i8237 cimport DmaClient, I8237

cdef enum:                  # regions
    REGION_FDC = 0          # 3F1h..3F5h
    REGION_DIR = 1          # 3F7h

cdef enum:                  # offsets in the first region
    SRB = 0                 # 3F1h  read
    DOR = 1
    TDR = 2
    MSR = 3                 # read
    DSR = 3                 # write
    FIFO = 4

cdef enum:                  # status register B
    SRB_MTR0 = 0x01
    SRB_MTR1 = 0x02
    SRB_DR0 = 0x20
    SRB_RESET = 0xC0

cdef enum:                  # digital output register
    DOR_DRIVE = 0x01        # two drives
    DOR_NRESET = 0x04
    DOR_DMAGATE = 0x08
    DOR_MOT0 = 0x10
    DOR_MOT1 = 0x20
    DOR_RESET = DOR_NRESET | DOR_DMAGATE

cdef enum:
    TDR_BOOTSEL = 0x04      # swaps the two drives
    DSR_RATE = 0x03         # data rate select register
    DSR_POWERDOWN = 0x40
    DSR_RESET = 0x80
    DIR_CHANGED = 0x80      # digital input register

cdef enum:                  # main status register
    MSR_BUSY = 0x10
    MSR_NONDMA = 0x20
    MSR_DIO = 0x40
    MSR_RQM = 0x80

cdef enum:                  # status registers 0 to 3
    ST0_HEAD = 0x04
    ST0_SEEK_END = 0x20
    ST0_ABNORMAL = 0x40
    ST0_INVALID = 0x80
    ST0_READY_CHANGED = 0xC0
    ST1_NO_ADDRESS = 0x01   # missing address mark
    ST1_NOT_WRITABLE = 0x02
    ST1_END = 0x80          # end of cylinder
    ST2_SCAN_HIT = 0x08
    ST3_TRACK0 = 0x10
    ST3_ONES = 0x28         # ready, two sides
    ST3_PROTECTED = 0x40

cdef enum:                  # commands
    CMD_INVALID = 0x00
    CMD_READ_TRACK = 0x02
    CMD_SPECIFY = 0x03
    CMD_SENSE_DRIVE = 0x04
    CMD_WRITE = 0x05
    CMD_READ = 0x06
    CMD_RECALIBRATE = 0x07
    CMD_SENSE_INTERRUPT = 0x08
    CMD_WRITE_DELETED = 0x09
    CMD_READ_ID = 0x0A
    CMD_READ_DELETED = 0x0C
    CMD_FORMAT_TRACK = 0x0D
    CMD_DUMPREG = 0x0E
    CMD_SEEK = 0x0F
    CMD_VERSION = 0x10
    CMD_SCAN_EQUAL = 0x11
    CMD_PERPENDICULAR = 0x12
    CMD_CONFIGURE = 0x13
    CMD_LOCK = 0x14
    CMD_VERIFY = 0x16
    CMD_POWERDOWN = 0x17
    CMD_PART_ID = 0x18
    CMD_SCAN_LOW = 0x19
    CMD_SCAN_HIGH = 0x1D
    CMD_SAVE = 0x2E
    CMD_OPTION = 0x33
    CMD_RESTORE = 0x4E
    CMD_DRIVE_SPEC = 0x8E
    CMD_SEEK_OUT = 0x8F
    CMD_FORMAT_WRITE = 0xCD
    CMD_SEEK_IN = 0xCF
    CMD_MT = 0x80           # both sides
    CONFIG_RESET = 0x60     # implied seek, FIFO off, polling
    VERSION_82078 = 0x90
    PART_82078 = 0x41

cdef enum:                  # what a transfer does
    DIR_WRITE = 0
    DIR_READ = 1
    DIR_SCAN_EQUAL = 2
    DIR_SCAN_LOW = 3
    DIR_SCAN_HIGH = 4
    DIR_VERIFY = 5

cdef enum:                  # controller phases
    PHASE_COMMAND = 1
    PHASE_EXECUTION = 2
    PHASE_RESULT = 3

cdef enum:                  # outcome of a seek
    SEEK_HERE = 0           # the head was on the track
    SEEK_MOVED = 1
    SEEK_BAD_TRACK = 2      # or side, or no disk
    SEEK_BAD_SECTOR = 3

cdef enum:
    SECTOR = 512
    N_512 = 2               # code of that size

cdef struct i82078_state:
    device_core core
    uint32_t data_pos       # within the phase's bytes
    uint32_t data_len
    uint8_t srb, dor, tdr, dsr, msr
    uint8_t phase
    uint8_t pending         # the interrupt is on
    uint8_t st0
    uint8_t resets          # ready-changed answers that SENSE INTERRUPT still owes since reset
    uint8_t unit            # selected drive
    uint8_t direction
    uint8_t multi           # MT of the running command
    uint8_t eot
    uint8_t step_rate, head_load, configuration, precompensation, lock, powerdown
    uint8_t track[2]
    uint8_t head[2]
    uint8_t sector[2]
    uint8_t sectors[2]      # a track
    uint8_t tracks[2]
    uint8_t two_sided[2]
    uint8_t rate[2]         # of the medium
    uint8_t changed[2]
    uint8_t perpendicular[2]
    uint8_t fifo[512]

cdef class I82078(DmaClient):
    cdef i82078_state *s
    cdef I8237 peer
    cdef list images             # bytearray or None, for each drive
    cdef list types
    cdef uint8_t *media[2]       # borrowed from `images`; NULL: no disk
    cdef uint64_t media_size[2]
    cdef bint protected[2]
    cdef uint32_t drives
    cdef uint32_t channel
    cdef uint32_t current(self) noexcept nogil
    cdef void set_irq(self) noexcept nogil
    cdef void clear_irq(self) noexcept nogil
    cdef void controller_reset(self, bint interrupt) noexcept nogil
    cdef void write_dor(self, uint8_t v) noexcept nogil
    cdef void write_dsr(self, uint8_t v) noexcept nogil
    cdef uint8_t read_fifo(self) noexcept nogil
    cdef void write_fifo(self, uint8_t v) noexcept nogil
    cdef void command_phase(self) noexcept nogil
    cdef void result_phase(self, uint32_t n) noexcept nogil
    cdef void execute(self) noexcept nogil
    cdef uint32_t select(self) noexcept nogil
    cdef int seek(self, uint32_t d, uint8_t head, uint8_t track, uint8_t sector) noexcept nogil
    cdef void seek_done(self) noexcept nogil
    cdef int64_t number(self, uint32_t d, uint8_t head, uint8_t track, uint8_t sector) noexcept nogil
    cdef bint next_sector(self, uint32_t d) noexcept nogil
    cdef uint8_t *sector_at(self, uint32_t d) noexcept nogil
    cdef void read_sector(self, uint32_t d) noexcept nogil
    cdef bint write_sector(self, uint32_t d) noexcept nogil
    cdef void start(self, uint8_t direction) noexcept nogil
    cdef void refuse(self, uint8_t st1) noexcept nogil
    cdef void finish(self, uint8_t st0, uint8_t st1, uint8_t st2) noexcept nogil
    cdef void sense_interrupt(self) noexcept nogil
    cdef void dumpreg(self) noexcept nogil
    cdef void save_registers(self) noexcept nogil
    cdef void restore_registers(self) noexcept nogil
    cdef void drive_specification(self) noexcept nogil
