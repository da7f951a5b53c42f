"""8254 interval timer and port 61h.  Names: Intel 8254 data sheet (231164); 82371AB (PIIX4) data sheet for port 61h."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport Device, device_core

cdef enum:                # regions
    REGION_PIT = 0
    REGION_PORT61 = 1

cdef enum:                # REGION_PIT: byte offsets
    COUNTER_0 = 0         # RW
    COUNTER_1 = 1         # RW
    COUNTER_2 = 2         # RW
    CONTROL = 3           # WO

cdef enum:                # control word
    CW_BCD = 0x01
    CW_M = 0x0E           # M2 M1 M0
    CW_M_SHIFT = 1
    CW_RW = 0x30          # RW1 RW0
    CW_RW_SHIFT = 4
    CW_SC_SHIFT = 6       # SC1 SC0
    CW_SC_READ_BACK = 3

cdef enum:                # RW1 RW0
    RW_LATCH = 0          # counter latch command
    RW_LSB = 1
    RW_MSB = 2
    RW_BOTH = 3           # least significant byte first

cdef enum:                # read-back command, SC1 SC0 = 11
    RB_STATUS_N = 0x10    # 0: latch the status
    RB_COUNT_N = 0x20     # 0: latch the count
    RB_CNT_0 = 0x02       # counter n is RB_CNT_0 << n

cdef enum:                # status byte
    STATUS_OUTPUT_SHIFT = 7
    STATUS_RW_SHIFT = 4
    STATUS_M_SHIFT = 1

cdef enum:                # REGION_PORT61: NMISC
    NMISC_GATE2 = 0x01    # RW  timer counter 2 enable
    NMISC_SPEAKER = 0x02  # RW  speaker data enable
    NMISC_REFRESH = 0x10  # RO  refresh cycle toggle
    NMISC_OUT2_SHIFT = 5  # RO  timer counter 2 output
    NMISC_WMASK = 0x03

cdef enum:                # pins
    OUT_OUT0 = 0
    OUT_OUT2 = 1
    IN_IRQ_DISABLE = 0
    IN_LOWER = 1

cdef struct i8254_state:
    device_core core
    uint64_t load_time[3]      # when the count was loaded, or the gate last triggered it
    uint64_t next[3]           # next transition of OUT; NEVER if none or nobody watches it
    uint32_t count[3]          # 1 .. 65536
    uint16_t latched_count[3]
    uint8_t count_latched[3]   # RW of what is left to read of the latched count; 0: none
    uint8_t status_latched[3]
    uint8_t status[3]
    uint8_t read_second[3]     # RW_BOTH: the next read is the most significant byte
    uint8_t write_second[3]    # RW_BOTH: the next write is the most significant byte
    uint8_t write_latch[3]
    uint8_t rw[3]              # 0 until the first control word
    uint8_t mode[3]
    uint8_t bcd[3]
    uint8_t gate[3]
    uint8_t irq_disable        # level of the input pin
    uint8_t nmisc              # NMISC_SPEAKER and NMISC_REFRESH as last written or read

cdef class I8254(Device):
    cdef i8254_state *s
    cdef bint speaker
    cdef uint64_t ticks(self, uint32_t n) noexcept nogil
    cdef uint32_t counting_element(self, uint32_t n) noexcept nogil
    cdef bint output(self, uint32_t n) noexcept nogil
    cdef uint64_t next_transition(self, uint32_t n) noexcept nogil
    cdef void update_output(self, uint32_t n) noexcept nogil
    cdef void load(self, uint32_t n, uint32_t count) noexcept nogil
    cdef void latch_count(self, uint32_t n) noexcept nogil
    cdef void control_word(self, uint32_t value) noexcept nogil
    cdef void write_counter(self, uint32_t n, uint32_t value) noexcept nogil
    cdef uint32_t read_counter(self, uint32_t n) noexcept nogil
    cdef void set_gate(self, uint32_t n, bint level) noexcept nogil
