"""Intel 82371AB (PIIX4), function 3, with the hot-plug registers PC virtual machines add beside it.

Names: data sheet 290562-001 (April 1997), chapter 7; ACPI 2.0c for what its registers mean.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.devices._acpi_pm cimport acpi_pm
from engine.devices._hotplug cimport acpi_hotplug, hotplug_facts
from engine.devices._smbus cimport smbus_state
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                    # configuration registers beside the header, 7.1
    PMBA = 0x40               # power management base address, 4 bytes
    DEVACTB = 0x58            # device activity B, 4 bytes
    DEVACTB_APMC_EN = 0x02    #   bit 25: a write of APMC makes an SMI (in byte 5Bh)
    DEVRESA = 0x5C            # device resource A, 4 bytes
    DEVRESB = 0x60            # device resource B
    DEVRESC = 0x64            # device resource C
    PMREGMISC = 0x80          # miscellaneous power management
    PMIOSE = 0x01             #   PMBA answers
    SMBBA = 0x90              # SMBus base address, 4 bytes
    SMBHSTCFG = 0xD2          # SMBus host configuration
    SMB_HST_EN = 0x01         #   SMBBA answers
    BASE_MASK = 0xFFC0        # of PMBA and SMBBA

cdef enum:                    # power management I/O, 7.2
    PMSTS = 0x00              # 2 bytes
    PMCNTRL = 0x04            # 2 bytes
    PMTMR = 0x08              # 4 bytes

cdef enum:                    # APM ports, 4.2
    APMC = 0
    APMS = 1
    ACPI_ENABLE = 0xF1        # values of APMC that the reference's FADT names
    ACPI_DISABLE = 0xF0

cdef enum:                    # general purpose events: 2 status and 2 enable bytes
    GPE_HALF = 2

cdef enum:                    # region numbers
    EVT_REGION = 8
    CNT_REGION = 9
    TMR_REGION = 10
    GPE_REGION = 11
    APM_REGION = 12
    SMB_REGION = 13
    PCIHP_REGION = 14
    CPUHP_REGION = 15
    MEMHP_REGION = 16

cdef enum:                    # input pins
    PWRBTN = 0
    HOTPLUG_IN = 1            # HOTPLUG_PINS

cdef enum:                    # output pins
    SCI = 1
    SMI = 2
    POWER_OFF = 3
    SUSPEND = 4
    EJECT = 5

cdef struct piix4_pm_state:
    pci_state pci
    uint64_t pm_base          # where the power management ranges answer; UNMAPPED
    uint64_t smb_base
    acpi_pm pm
    acpi_hotplug hotplug
    uint8_t apmc, apms
    smbus_state smb

cdef class Piix4Pm(PciFunction):
    cdef piix4_pm_state *s
    cdef hotplug_facts facts
    cdef uint8_t eeproms
    cdef bytes spd                     # what spd_bytes points into
    cdef const char *spd_bytes
    cdef void eject(self) noexcept nogil
    cdef void clear_extras(self) noexcept nogil
    cdef void update_sci(self) noexcept nogil
    cdef void update_ranges(self) noexcept nogil
    cdef void pmcntrl_write(self, uint16_t value) noexcept nogil
    cdef void apmc_write(self, uint8_t value) noexcept nogil
