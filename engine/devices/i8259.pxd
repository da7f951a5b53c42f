"""Two cascaded 8259A interrupt controllers and their ELCRs.  Names: Intel 8259A data sheet 231468, PIIX3 290550."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:                # regions
    PIC0 = 0
    PIC1 = 1
    ELCR0 = 2
    ELCR1 = 3

cdef enum:                # byte offsets; A0 of the data sheet
    ICW1 = 0              # WO  with ICW1_SELECT set
    OCW2 = 0              # WO  with bits 4:3 = 00
    OCW3 = 0              # WO  with bits 4:3 = 01
    IRR = 0               # RO  or the ISR, as OCW3 chose; the poll byte after a poll command
    OCW1 = 1              # RW  the interrupt mask; ICW2, ICW3 and ICW4 go here while initialisation lasts

cdef enum:                # ICW1
    ICW1_IC4 = 0x01       # an ICW4 follows
    ICW1_SNGL = 0x02      # no cascade: no ICW3 follows
    ICW1_SELECT = 0x10

cdef enum:                # ICW2
    ICW2_BASE = 0xF8      # T7:T3 of the vector

cdef enum:                # ICW4
    ICW4_AEOI = 0x02
    ICW4_SFNM = 0x10
    ICW4_KEPT = 0x12      # the bits that change how these two chips behave

cdef enum:                # OCW2, bits 7:5: R, SL, EOI
    OCW2_LEVEL = 0x07     # L2:L0
    OCW2_SHIFT = 5
    CLEAR_ROTATE_AEOI = 0
    EOI = 1
    NO_OPERATION = 2
    SPECIFIC_EOI = 3
    SET_ROTATE_AEOI = 4
    ROTATE_EOI = 5
    SET_PRIORITY = 6
    ROTATE_SPECIFIC_EOI = 7

cdef enum:                # OCW3
    OCW3_RIS = 0x01       # with RR: read the ISR rather than the IRR
    OCW3_RR = 0x02
    OCW3_P = 0x04         # poll command
    OCW3_SELECT = 0x08
    OCW3_SMM = 0x20       # with ESMM: special mask mode on
    OCW3_ESMM = 0x40

cdef enum:                # ELCR: a one makes the request level-sensitive
    ELCR0_WMASK = 0xF8    # IRQ0, 1 and 2 are always edges
    ELCR1_WMASK = 0xDE    # and so are IRQ8 and IRQ13

cdef enum:
    CASCADE = 2           # the master's IR to which the slave's INT goes
    NO_IR = 8             # "no request": below every priority
    DEFAULT_IR = 7        # answered when a request has vanished before its acknowledge

cdef enum init_step:      # what a write to offset 1 is
    STEP_OCW1 = 0
    STEP_ICW2 = 1
    STEP_ICW3 = 2
    STEP_ICW4 = 3

# [0] is the master, [1] the slave.
cdef struct i8259_state:
    device_core core
    uint64_t reset_at     # the moment of the last bus reset; NEVER: none since power-on
    uint8_t irr[2]
    uint8_t isr[2]
    uint8_t imr[2]
    uint8_t sensed[2]     # edge detectors: inputs last seen high
    uint8_t elcr[2]
    uint8_t base[2]       # T7:T3
    uint8_t icw1[2]
    uint8_t icw4[2]
    uint8_t step[2]       # init_step
    uint8_t top[2]        # the IR of highest priority
    uint8_t rotate_aeoi[2]
    uint8_t smm[2]
    uint8_t read_isr[2]
    uint8_t poll[2]

cdef class I8259(Device):
    cdef i8259_state *s
    cdef uint32_t request(self, uint32_t chip) noexcept nogil
    cdef void sense(self, uint32_t chip, uint32_t ir, bint level) noexcept nogil
    cdef void update_irq(self, uint32_t chip) noexcept nogil
    cdef void take(self, uint32_t chip, uint32_t ir) noexcept nogil
    cdef uint32_t acknowledge(self) noexcept nogil
    cdef uint8_t poll_byte(self, uint32_t chip) noexcept nogil
    cdef void initialise(self, uint32_t chip) noexcept nogil
    cdef void write_icw1(self, uint32_t chip, uint8_t value) noexcept nogil
    cdef void write_ocw2(self, uint32_t chip, uint8_t value) noexcept nogil
    cdef void write_ocw3(self, uint32_t chip, uint8_t value) noexcept nogil
    cdef void write_data(self, uint32_t chip, uint8_t value) noexcept nogil
