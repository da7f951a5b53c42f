"""What the power management functions of PIIX4 and the ICHs share: ACPI's fixed registers with the 24-bit timer, one block of
general purpose events, and the hot-plug registers that PC virtual machines add.  Functions over two structs.

Names: Advanced Configuration and Power Interface 2.0c (ACPI), section 4.7.3.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine.devices._muldiv cimport muldiv

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

cdef enum:                    # PCI hot-plug registers, 4 bytes each
    PCI_UP = 0x00
    PCI_DOWN = 0x04
    PCI_EJECT = 0x08
    PCI_REMOVABLE = 0x0C
    PCI_SELECT = 0x10
    PCI_INDEX = 0x14
    PCI_HOTPLUG_SIZE = 0x18
    PCI_BUSES = 256

cdef enum:                    # CPU hot-plug registers
    CPU_SELECT = 0            # WO 4 bytes
    CPU_DATA2 = 0             # RO 4 bytes
    CPU_FLAGS = 4             # RW 1 byte
    CPU_COMMAND = 5           # WO 1 byte
    CPU_DATA = 8              # RW 4 bytes
    CPU_MODERN_SIZE = 12
    CPU_LEGACY_SIZE = 32
    CPU_PRESENT = 0x01        # CPU_FLAGS
    CPU_FW_REMOVE = 0x10
    CMD_NEXT_EVENT = 0        # CPU_COMMAND
    CMD_OST_EVENT = 1
    CMD_OST_STATUS = 2
    CMD_CPU_ID = 3
    MAX_CPUS = 255

# In device state: ACPI_PM_STATE and ACPI_HOTPLUG_STATE describe the fields.
cdef struct acpi_pm:
    uint64_t overflow         # the tick of the timer at which TMR_STS is set next
    uint16_t pmsts, pmen, pmcntrl
    uint8_t gpe[16]           # status bytes, then as many enable bytes
    uint8_t pad[2]

cdef struct acpi_hotplug:
    uint32_t pci_select
    uint32_t cpu_select
    uint8_t cpu_modern        # the CPU registers have been switched from the bitmap to the selector interface
    uint8_t cpu_command
    uint8_t cpu_fw_remove[255]
    uint8_t pad[7]

# What the machine is, fixed when it is built.
cdef struct hotplug_facts:
    uint32_t cpus, max_cpus
    uint32_t fixed_slots      # bit n: what is in slot n of bus 0 cannot be removed

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
cdef uint32_t pcihp_read(const acpi_hotplug *h, const hotplug_facts *f, uint32_t offset, uint32_t size) noexcept nogil
cdef void pcihp_write(acpi_hotplug *h, uint32_t offset, uint32_t size, uint32_t value) noexcept nogil
cdef int cpuhp_read(const acpi_hotplug *h, const hotplug_facts *f, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil
cdef int cpuhp_write(acpi_hotplug *h, const hotplug_facts *f, uint32_t offset, uint32_t value) noexcept nogil
cdef void hotplug_init(acpi_hotplug *h) noexcept nogil
