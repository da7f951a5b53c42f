"""Local APIC (xAPIC mode).  Names: Intel SDM, volume 3, chapter 10 (253668-060US)."""
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:                # byte offsets; every register is 32 bits wide on a 16-byte boundary
    MSI = 0x000           # WO  and all above PAGE: a message-signalled interrupt
    APIC_ID = 0x020       # RW
    VERSION = 0x030       # RO
    TPR = 0x080           # RW
    APR = 0x090           # RO
    PPR = 0x0A0           # RO
    EOI = 0x0B0           # WO  ends the interrupt of highest priority
    LDR = 0x0D0           # RW
    DFR = 0x0E0           # RW
    SVR = 0x0F0           # RW
    ISR = 0x100           # RO  eight of each
    TMR = 0x180           # RO
    IRR = 0x200           # RO
    ESR = 0x280           # RO
    ICR_LOW = 0x300       # RW  sends an interprocessor interrupt
    ICR_HIGH = 0x310      # RW
    LVT = 0x320           # RW  six: timer, thermal, performance, LINT0, LINT1, error
    INITIAL_COUNT = 0x380 # RW  starts the timer
    CURRENT_COUNT = 0x390 # RO
    DIVIDE = 0x3E0        # RW
    PAGE = 0x1000

cdef enum:                # places in the local vector table
    LVT_TIMER = 0
    LVT_THERMAL = 1
    LVT_PERFORMANCE = 2
    LVT_LINT0 = 3
    LVT_LINT1 = 4
    LVT_ERROR = 5
    LVT_ENTRIES = 6

cdef enum:                # LVT, ICR low, and a message's data
    VECTOR = 0xFF
    MODE_SHIFT = 8
    MODE = 0x7
    MODE_FIXED = 0
    MODE_LOWEST = 1
    MODE_SMI = 2
    MODE_NMI = 4
    MODE_INIT = 5
    MODE_SIPI = 6
    MODE_EXTINT = 7
    LEVEL_ASSERT = 0x4000
    TRIGGER_LEVEL = 0x8000
    LVT_MASKED = 0x10000
    LVT_PERIODIC = 0x20000

cdef enum:                # ICR low
    ICR_DESTMOD_SHIFT = 11
    ICR_SHORTHAND_SHIFT = 18
    TO_SELF = 1
    TO_ALL = 2
    TO_OTHERS = 3

cdef enum:
    ID_SHIFT = 24         # APIC_ID, LDR, ICR high
    DFR_SHIFT = 28
    DFR_ONES = 0x0FFFFFFF
    DFR_FLAT = 0xF
    DFR_CLUSTER = 0x0
    SVR_ENABLE = 0x100
    SVR_WMASK = 0x1FF
    SVR_RESET = 0xFF
    ESR_ILLEGAL_REGISTER = 0x80
    DIVIDE_WMASK = 0x0B
    SHIFT_MASK = 7            # halvings of the clock: none to seven
    VERSION_VALUE = 0x00050014
    BROADCAST = 0xFF

cdef enum:                # a message's address
    MSI_ADDRESS = 0xFEE00000
    MSI_DEST_SHIFT = 12
    MSI_DEST = 0xFF
    MSI_LOGICAL = 0x4

cdef enum:                # input pins
    LINT0 = 0
    LINT1 = 1

cdef enum:                # output pins
    INTR = 0
    NMI = 1
    SMI = 2
    INIT = 3
    SIPI = 4

cdef struct lapic_state:
    device_core core
    uint64_t load_time    # when INITIAL_COUNT was written
    uint64_t next_time    # when the timer expires; NEVER if it does not run
    uint32_t isr[8]
    uint32_t tmr[8]
    uint32_t irr[8]
    uint32_t lvt[6]
    uint32_t icr[2]
    uint32_t svr
    uint32_t esr
    uint32_t initial_count
    uint8_t id
    uint8_t tpr
    uint8_t ldr
    uint8_t dfr
    uint8_t divide
    uint8_t shift         # log2 of the divisor
    uint8_t lint          # levels of the input pins
    uint8_t wait_for_sipi
    uint8_t sipi_vector

cdef class LocalApic(Device):
    cdef lapic_state *s
    cdef PyObject *pic        # borrowed from peers, like the next two
    cdef PyObject *ioapic
    cdef PyObject *before
    cdef list peers
    cdef uint8_t apic_id
    cdef bint bsp
    cdef void init_reset(self) noexcept nogil
    cdef int pending(self) noexcept nogil
    cdef uint32_t ppr(self) noexcept nogil
    cdef bint accepts_pic(self) noexcept nogil
    cdef bint pic_requests(self) noexcept nogil
    cdef void update_irq(self) noexcept nogil
    cdef void pulse(self, uint32_t pin) noexcept nogil
    cdef void request(self, uint32_t vector, bint level) noexcept nogil
    cdef void local_interrupt(self, uint32_t entry) noexcept nogil
    cdef void lint0_changed(self, bint level) noexcept nogil
    cdef uint64_t acknowledge(self) noexcept nogil
    cdef void end_of_interrupt(self) noexcept nogil
    cdef bint addressed(self, uint64_t addr, uint64_t value) noexcept nogil
    cdef void accept(self, uint64_t addr, uint64_t value) noexcept nogil
    cdef void deliver(self, uint64_t value) noexcept nogil
    cdef void send_ipi(self) noexcept nogil
    cdef uint32_t current_count(self) noexcept nogil
    cdef void start_timer(self) noexcept nogil
    cdef void publish_timer(self) noexcept nogil
    cdef uint32_t read_register(self, uint32_t index) noexcept nogil
    cdef void write_register(self, uint32_t index, uint32_t value) noexcept nogil
