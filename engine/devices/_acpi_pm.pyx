"""ACPI's fixed registers and general purpose events.

Document: ACPI 2.0c.  Functions over a struct in device state, called by the worker that owns it only.
"""
from libc.string cimport memset

from engine._device cimport NEVER

from engine.types import Clock

ACPI_PM_STATE = (("overflow", "u8"), ("pmsts", "u2"), ("pmen", "u2"), ("pmcntrl", "u2"), ("gpe", "u1", 16), ("pm_pad", "u1", 2))
PM_CLOCK = Clock(PM_TIMER_HZ, PM_TIMER_MASK.bit_length())       # pm_ticks() & PM_TIMER_MASK

# ---------------------------------------------------------------------- fixed registers

cdef void pm_event_write(acpi_pm *p, uint64_t now, uint32_t offset, uint16_t value) noexcept nogil:
    """PM1_STS, PM1_EN.  Clearing TMR_STS begins the wait for the next toggle of bit 23."""
    if offset == PM1_STS:
        if pm_status(p, now) & value & TMR_STS:
            p.overflow = (pm_ticks(now) + PM_TIMER_HALF) & ~<uint64_t>(PM_TIMER_HALF - 1)
        p.pmsts &= ~value
    elif offset == PM1_EN:
        p.pmen = value


cdef uint32_t pm_control_write(acpi_pm *p, uint16_t value) noexcept nogil:
    """PM1_CNT, and what it asks for (SLEEP_*).  SLP_EN reads as zero."""
    cdef uint32_t kind = value >> SLP_TYP_SHIFT & SLP_TYP_MASK
    p.pmcntrl = value & ~<uint16_t>SLP_EN
    if not value & SLP_EN:
        return SLEEP_NOT
    if kind == SLP_SOFT_OFF or kind == SLP_STD:
        return SLEEP_OFF
    return SLEEP_SUSPEND if kind == SLP_STR else SLEEP_NOT


cdef void pm_acpi_mode(acpi_pm *p, bint on) noexcept nogil:
    """What firmware does when it is asked through the APM port: 4.7.2.5."""
    if on:
        p.pmcntrl |= SCI_EN
    else:
        p.pmcntrl &= ~<uint16_t>SCI_EN


cdef void pm_gpe_write(acpi_pm *p, uint32_t half, uint32_t offset, uint8_t value) noexcept nogil:
    """4.7.4.1: `half` bytes of status, cleared by ones, and as many that enable."""
    if offset < half:
        p.gpe[offset] &= ~value
    else:
        p.gpe[offset] = value


cdef bint pm_sci(acpi_pm *p, uint32_t half, uint64_t now, uint64_t *deadline) noexcept nogil:
    """The SCI, and when the timer may next change it.  Events of the first GPE byte only: the others have no source."""
    cdef uint16_t status = pm_status(p, now)
    if p.pmen & TMR_STS and not status & TMR_STS:
        deadline[0] = muldiv(p.overflow, NS_PER_S, PM_TIMER_HZ)
    else:
        deadline[0] = NEVER
    return status & p.pmen & SCI_SOURCES or p.gpe[0] & p.gpe[half]


cdef void pm_reset(acpi_pm *p) noexcept nogil:
    memset(p, 0, sizeof(acpi_pm))
