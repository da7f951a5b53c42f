"""What the power management functions of PIIX4 and the ICHs share: ACPI's fixed registers with the 24-bit timer, and one block
of general purpose events.  Functions over a struct.

Names: Advanced Configuration and Power Interface 2.0c (ACPI), section 4.7.3.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._muldiv cimport muldiv

cdef enum:                    # the event block, 4.7.3.1, 2 bytes each
    PM1_STS = 0
    PM1_EN = 2

cdef enum:                    # bits of PM1_STS and PM1_EN
    TMR_STS = 0x0001
    GBL_STS = 0x0020
    PWRBTN_STS = 0x0100
    RTC_STS = 0x0400
    SCI_SOURCES = TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS

cdef enum:                    # PM1_CNT, 4.7.3.2
    SCI_EN = 0x0001
    SLP_TYP_SHIFT = 10
    SLP_TYP_MASK = 7
    SLP_EN = 0x2000
    SLP_SOFT_OFF = 0          # values of SLP_TYP as the reference's tables name them
    SLP_STR = 1
    SLP_STD = 2

cdef enum:                    # PM_TMR, 4.7.3.3
    PM_TIMER_HZ = 3579545
    PM_TIMER_MASK = 0xFFFFFF
    PM_TIMER_HALF = 0x800000  # TMR_STS is set each time bit 23 toggles
    NS_PER_S = 1000000000

cdef enum:                    # what a write of PM1_CNT asks for
    SLEEP_NOT = 0
    SLEEP_OFF = 1
    SLEEP_SUSPEND = 2

# In device state: ACPI_PM_STATE describes the fields.
cdef struct acpi_pm:
    uint64_t overflow         # the tick of the timer at which TMR_STS is set next
    uint16_t pmsts, pmen, pmcntrl
    uint8_t gpe[16]           # status bytes, then as many enable bytes
    uint8_t pad[2]

cdef inline uint64_t pm_ticks(uint64_t now) noexcept nogil:
    """Ticks of the timer since time 0, rounded down."""
    return muldiv(now, PM_TIMER_HZ, NS_PER_S)

cdef inline uint16_t pm_status(acpi_pm *p, uint64_t now) noexcept nogil:
    """PM1_STS.  TMR_STS rises in the nanosecond that on_time is asked for, though the tick may complete in the next."""
    if now >= muldiv(p.overflow, NS_PER_S, PM_TIMER_HZ):
        p.pmsts |= TMR_STS
    return p.pmsts

cdef void pm_event_write(acpi_pm *p, uint64_t now, uint32_t offset, uint16_t value) noexcept nogil
cdef uint32_t pm_control_write(acpi_pm *p, uint16_t value) noexcept nogil
cdef void pm_acpi_mode(acpi_pm *p, bint on) noexcept nogil
cdef void pm_gpe_write(acpi_pm *p, uint32_t half, uint32_t offset, uint8_t value) noexcept nogil
cdef bint pm_sci(acpi_pm *p, uint32_t half, uint64_t now, uint64_t *deadline) noexcept nogil
cdef void pm_reset(acpi_pm *p) noexcept nogil
