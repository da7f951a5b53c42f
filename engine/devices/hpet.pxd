"""IA-PC HPET.  Names and section numbers: IA-PC HPET (High Precision Event Timers) Specification, revision 1.0a."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport Device, device_core

cdef enum:                   # byte offsets of 64-bit registers
    GCAP_ID = 0x000          # RO
    GEN_CONF = 0x010         # RW
    GINTR_STA = 0x020        # RW1C
    MAIN_CNT = 0x0F0         # RW
    TIMERS = 0x100           # timer n at TIMERS + n * TIMER_STRIDE
    TIMER_STRIDE = 0x20
    TN_CONF = 0x00           # RW
    TN_CMP = 0x08            # RW
    TN_FSB = 0x10            # RW
    HIGH = 4                 # added to an offset: the upper half

cdef enum:                   # GCAP_ID, low half
    GCAP_REV = 0x01
    GCAP_NUM_TIM_SHIFT = 8   # number of the last timer
    GCAP_COUNT_SIZE = 0x2000 # 64-bit main counter
    GCAP_LEG_RT = 0x8000     # legacy replacement is there

cdef enum:                   # GEN_CONF
    ENABLE_CNF = 0x1         # the main counter runs, timers may interrupt
    LEG_RT_CNF = 0x2         # timers 0 and 1 replace the 8254 and the RTC
    GEN_WMASK = ENABLE_CNF | LEG_RT_CNF

cdef enum:                   # TN_CONF, low half
    TN_INT_TYPE = 0x0002     # 1: level
    TN_INT_ENB = 0x0004
    TN_TYPE = 0x0008         # 1: periodic
    TN_PER_INT_CAP = 0x0010  # RO
    TN_SIZE_CAP = 0x0020     # RO  64 bits
    TN_VAL_SET = 0x0040      # the next comparator write sets the comparator too
    TN_32MODE = 0x0100
    TN_INT_ROUTE = 0x3E00
    TN_INT_ROUTE_SHIFT = 9
    TN_FSB_EN = 0x4000
    TN_WMASK = TN_INT_TYPE | TN_INT_ENB | TN_TYPE | TN_VAL_SET | TN_32MODE | TN_INT_ROUTE | TN_FSB_EN

cdef enum:                   # pins
    N_GSI = 24               # OUT 0 .. 23: gsi0 .. gsi23
    OUT_PIT_DISABLE = 24
    IN_PIT = 0
    IN_RTC = 1
    GSI_PIT = 0
    GSI_RTC = 8

cdef enum:
    N_TIMERS = 3
    N_SLOTS = 4              # register blocks that answer: the timers, and one behind them

cdef struct hpet_state:
    device_core core
    uint64_t counter         # the main counter while it is halted
    uint64_t offset          # nanoseconds from the virtual clock to the counter while it runs, modulo 2^64
    uint64_t comparator[4]
    uint64_t period[4]
    uint64_t fsb[4]
    uint64_t expiry[4]       # when the timer is next looked at; NEVER if not armed
    uint64_t armed[4]        # value of `armings` then: timers that expire together do so in the order they were armed
    uint64_t armings
    uint32_t conf[4]
    uint32_t gen_conf
    uint32_t status
    uint8_t at_wrap[4]       # the timer is armed for the wrap of a 32-bit one-shot, its match comes after
    uint8_t rtc_level        # levels of the input pins
    uint8_t pit_level

cdef class Hpet(Device):
    cdef hpet_state *s
    cdef uint32_t intcap
    cdef uint64_t ticks(self) noexcept nogil
    cdef uint64_t main_counter(self) noexcept nogil
    cdef void update_irq(self, uint32_t n, bint active) noexcept nogil
    cdef void drive(self, uint32_t gsi, bint level) noexcept nogil
    cdef uint64_t ticks_to_match(self, uint32_t n, uint64_t now) noexcept nogil
    cdef void arm(self, uint32_t n, uint64_t since, uint64_t ticks) noexcept nogil
    cdef void start(self, uint32_t n) noexcept nogil
    cdef void stop(self, uint32_t n) noexcept nogil
    cdef void advance(self, uint32_t n, uint64_t period, uint64_t now) noexcept nogil
    cdef void expire(self, uint32_t n) noexcept nogil
    cdef uint32_t route(self, uint32_t n) noexcept nogil
    cdef uint64_t period(self, uint32_t n) noexcept nogil
    cdef bint idle(self, uint32_t n) noexcept nogil
    cdef uint32_t unheard(self) noexcept nogil
    cdef void pass_periods(self) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef uint32_t read_timer(self, uint32_t n, uint32_t offset) noexcept nogil
    cdef void write_timer(self, uint32_t n, uint32_t offset, uint32_t value) noexcept nogil
    cdef void write_gen_conf(self, uint32_t value) noexcept nogil
