"""ACPI's fixed registers, general purpose events, and the hot-plug registers of PC virtual machines.

Documents: ACPI 2.0c; the hot-plug registers have no data sheet, their maps are in QEMU's docs/specs (acpi_pci_hotplug,
acpi_cpu_hotplug).  Nothing is ever plugged or pulled.  Functions over structs in device state, called by the worker that owns
them only.
"""
from libc.string cimport memset

from engine._device cimport NEVER

from engine.errors import MachineError

ACPI_PM_STATE = (("overflow", "u8"), ("pmsts", "u2"), ("pmen", "u2"), ("pmcntrl", "u2"), ("gpe", "u1", 16), ("pm_pad", "u1", 2))
ACPI_HOTPLUG_STATE = (("pci_select", "u4"), ("cpu_select", "u4"), ("cpu_modern", "u1"), ("cpu_command", "u1"),
                      ("cpu_fw_remove", "u1", MAX_CPUS), ("hp_pad", "u1", 7))


def check_cpus(id, cpus, max_cpus):
    """Raises MachineError for numbers of CPUs that the registers cannot say."""
    if not 1 <= cpus <= max_cpus <= MAX_CPUS:
        raise MachineError(f"{id}: {cpus} of {max_cpus} CPUs cannot be; there are 1 to {MAX_CPUS}")


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


# ---------------------------------------------------------------------- hot-plug

cdef uint32_t pcihp_read(const acpi_hotplug *h, const hotplug_facts *f, uint32_t offset, uint32_t size) noexcept nogil:
    """Nothing is inserted or wants to go.  Narrow reads give zeros."""
    if h.pci_select >= PCI_BUSES or size != 4:
        return 0
    if offset == PCI_REMOVABLE:
        return ~f.fixed_slots if h.pci_select == 0 else 0xffffffffu
    if offset == PCI_SELECT:
        return h.pci_select
    return 0


cdef void pcihp_write(acpi_hotplug *h, uint32_t offset, uint32_t size, uint32_t value) noexcept nogil:
    if offset == PCI_SELECT and size == 4:
        h.pci_select = value


cdef inline uint8_t cpu_bitmap(const hotplug_facts *f, uint32_t byte) noexcept nogil:
    """One byte of the bitmap of CPUs that are there."""
    cdef uint32_t first = byte * 8
    if first >= f.cpus:
        return 0
    return 0xff if f.cpus - first >= 8 else <uint8_t>((1 << (f.cpus - first)) - 1)


cdef int cpuhp_read(const acpi_hotplug *h, const hotplug_facts *f, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
    """0, or -1 where there is no register."""
    cdef uint32_t i
    value[0] = 0
    if not h.cpu_modern:
        for i in range(size):
            value[0] |= <uint64_t>cpu_bitmap(f, offset + i) << (8 * i)
        return 0
    if offset >= CPU_MODERN_SIZE:
        return -1
    if h.cpu_select >= f.max_cpus:
        return 0
    if offset == CPU_FLAGS:
        if h.cpu_select < f.cpus:
            value[0] = CPU_PRESENT
        if h.cpu_fw_remove[h.cpu_select]:
            value[0] |= CPU_FW_REMOVE
    elif offset == CPU_DATA and (h.cpu_command == CMD_NEXT_EVENT or h.cpu_command == CMD_CPU_ID):
        value[0] = h.cpu_select                 # CPU n has local APIC n
    return 0


cdef int cpuhp_write(acpi_hotplug *h, const hotplug_facts *f, uint32_t offset, uint32_t value) noexcept nogil:
    """0, or -1 where there is no register."""
    cdef uint32_t i, n
    if not h.cpu_modern:
        if offset == 0 and not value & 0xff:
            h.cpu_modern = 1                    # a zero where CPU 0 must show: software knows the selector interface
        return 0
    if offset >= CPU_MODERN_SIZE:
        return -1
    if offset == CPU_SELECT:
        h.cpu_select = value
        return 0
    if h.cpu_select >= f.max_cpus:
        return 0
    if offset == CPU_FLAGS:                     # 02h, 04h acknowledge events that never come, 08h ejects: CPUs stay
        if not value & 0x0E and value & CPU_FW_REMOVE and 0 < h.cpu_select < f.cpus:
            h.cpu_fw_remove[h.cpu_select] = 1
    elif offset == CPU_COMMAND and value <= CMD_CPU_ID:
        h.cpu_command = <uint8_t>value
        if value == CMD_NEXT_EVENT:
            for i in range(f.max_cpus):
                n = (h.cpu_select + i) % f.max_cpus
                if h.cpu_fw_remove[n]:
                    h.cpu_select = n
                    break
    return 0


cdef void hotplug_init(acpi_hotplug *h) noexcept nogil:
    memset(h, 0, sizeof(acpi_hotplug))
