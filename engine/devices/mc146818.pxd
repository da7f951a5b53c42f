"""MC146818A real-time clock plus RAM.  Names: Motorola MC146818A data sheet; index and data port: 82371AB (PIIX4)."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from engine._device cimport Device, device_core

cdef enum:                # ports
    INDEX = 0             # WO
    DATA = 1              # RW

cdef enum:                # bytes of the RAM; A..D and what is below them are registers
    SECONDS = 0x00
    SECONDS_ALARM = 0x01
    MINUTES = 0x02
    MINUTES_ALARM = 0x03
    HOURS = 0x04
    HOURS_ALARM = 0x05
    DAY_OF_WEEK = 0x06    # 1 is Sunday
    DAY_OF_MONTH = 0x07
    MONTH = 0x08
    YEAR = 0x09
    REGISTER_A = 0x0A
    REGISTER_B = 0x0B
    REGISTER_C = 0x0C     # RO  reading clears it
    REGISTER_D = 0x0D     # RO
    SHUTDOWN_STATUS = 0x0F    # the firmware's; a reset clears it
    CENTURY = 0x32        # the PC/AT's; kept up to date by this part
    CENTURY_PS2 = 0x37    # another name of CENTURY
    RAM_BYTES = 128
    INDEX_MASK = 0x7F

cdef enum:                # register A
    A_UIP = 0x80          # RO  update in progress
    A_DV = 0x70           # divider
    A_DV_32KHZ = 0x20
    A_DV_RESET = 0x60     # both bits set: the divider chain is held in reset
    A_RS = 0x0F           # rate of the periodic interrupt
    A_POWER_ON = A_DV_32KHZ | 0x06

cdef enum:                # register B
    B_SET = 0x80          # updates are held off
    B_PIE = 0x40
    B_AIE = 0x20
    B_UIE = 0x10
    B_SQWE = 0x08         # the pin is not wired
    B_DM = 0x04           # 1: binary, 0: BCD
    B_24H = 0x02
    B_DSE = 0x01          # daylight saving: stored, no effect
    B_POWER_ON = B_24H

cdef enum:                # register C; PF, AF, UF lie where B has their enables
    C_IRQF = 0x80
    C_PF = 0x40
    C_AF = 0x20
    C_UF = 0x10

cdef enum:
    D_VRT = 0x80          # valid RAM and time
    HOURS_PM = 0x80
    DONT_CARE = 0xC0      # both bits set in an alarm byte

cdef enum:                # pins
    OUT_IRQ = 0

cdef struct mc146818_state:
    device_core core
    uint64_t next_periodic     # when the periodic flag is next set; NEVER if PIE is off, 0 at once
    uint64_t next_update       # when the update cycle that matters next ends; NEVER if none
    uint64_t next_alarm        # when the alarm bytes next match
    int64_t base_s             # seconds since 1970 that the clock showed at last_set
    uint64_t last_set
    uint64_t offset            # nanoseconds into that second
    uint8_t ram[128]
    uint8_t index

cdef class Mc146818(Device):
    cdef mc146818_state *s
    cdef int64_t base_s
    cdef bint host_time
    cdef uint8_t image[128]    # the RAM at power-on
    cdef bint counting(self) noexcept nogil
    cdef uint64_t clock_ns(self) noexcept nogil
    cdef uint8_t encode(self, int32_t v) noexcept nogil
    cdef int32_t decode(self, int32_t v) noexcept nogil
    cdef int32_t hour24(self, int32_t hour) noexcept nogil
    cdef void show_time(self) noexcept nogil
    cdef void write_clock_bytes(self, int64_t t) noexcept nogil
    cdef void set_time(self) noexcept nogil
    cdef int32_t seconds_to_alarm(self) noexcept nogil
    cdef bint update_in_progress(self) noexcept nogil
    cdef void plan_update(self) noexcept nogil
    cdef uint32_t period(self) noexcept nogil
    cdef bint requested(self) noexcept nogil
    cdef void plan_periodic(self, uint32_t old_period) noexcept nogil
    cdef void pass_periods(self) noexcept nogil
    cdef void end_update(self) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef void write_register_a(self, uint32_t value) noexcept nogil
    cdef void write_register_b(self, uint32_t value) noexcept nogil
    cdef uint32_t read_data(self) noexcept nogil
    cdef void write_data(self, uint32_t value) noexcept nogil
