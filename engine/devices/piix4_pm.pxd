"""Intel 82371AB (PIIX4), function 3, with the hot-plug registers PC virtual machines add beside it.

Names: data sheet 290562-001 (April 1997), chapter 7; ACPI 2.0c for what its registers mean.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
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
    PMEN = 0x02               # 2 bytes
    PMCNTRL = 0x04            # 2 bytes
    PMTMR = 0x08              # 4 bytes

cdef enum:                    # PMSTS and PMEN
    TMROF = 0x0001
    GBL = 0x0020
    PWRBTN = 0x0100
    RTC = 0x0400
    SCI_SOURCES = TMROF | GBL | PWRBTN | RTC

cdef enum:                    # PMCNTRL
    SCI_EN = 0x0001
    SUS_TYP_SHIFT = 10
    SUS_TYP_MASK = 7
    SUS_EN = 0x2000
    SUS_SOFT_OFF = 0          # values of SUS_TYP as the reference's tables name them
    SUS_STR = 1
    SUS_STD = 2

cdef enum:
    PM_TIMER_HZ = 3579545     # ACPI 2.0c 4.7.3.3
    PM_TIMER_MASK = 0xFFFFFF
    PM_TIMER_HALF = 0x800000  # TMROF is set each time bit 23 toggles

cdef enum:                    # APM ports, 4.2
    APMC = 0
    APMS = 1
    ACPI_ENABLE = 0xF1        # values of APMC that the reference's FADT names
    ACPI_DISABLE = 0xF0

cdef enum:                    # general purpose events: 2 status and 2 enable bytes
    GPE_STS = 0
    GPE_EN = 2

cdef enum:                    # PCI hot-plug registers, 4 bytes each
    PCI_UP = 0x00
    PCI_DOWN = 0x04
    PCI_EJECT = 0x08
    PCI_REMOVABLE = 0x0C
    PCI_SELECT = 0x10
    PCI_INDEX = 0x14
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

cdef enum:                    # region numbers
    EVT_REGION = 8
    CNT_REGION = 9
    TMR_REGION = 10
    GPE_REGION = 11
    APM_REGION = 12
    SMB_REGION = 13
    PCIHP_REGION = 14
    CPUHP_REGION = 15

cdef enum:                    # output pins
    SCI = 1
    SMI = 2
    POWER_OFF = 3
    SUSPEND = 4

cdef struct piix4_pm_state:
    pci_state pci
    uint64_t overflow         # the tick of the timer at which TMROF is set next
    uint64_t pm_base          # where the power management ranges answer; UNMAPPED
    uint64_t smb_base
    uint32_t pci_select
    uint32_t cpu_select
    uint16_t pmsts, pmen, pmcntrl
    uint8_t gpe[4]
    uint8_t apmc, apms
    uint8_t cpu_modern        # the CPU registers have been switched from the bitmap to the selector interface
    uint8_t cpu_command
    uint8_t cpu_fw_remove[255]
    smbus_state smb

cdef class Piix4Pm(PciFunction):
    cdef piix4_pm_state *s
    cdef uint32_t cpus, max_cpus
    cdef uint32_t fixed_slots
    cdef uint8_t eeproms
    cdef bytes spd                     # what spd_bytes points into
    cdef const char *spd_bytes
    cdef uint8_t cpu_bitmap(self, uint32_t byte) noexcept nogil
    cdef void clear_extras(self) noexcept nogil
    cdef uint64_t ticks(self) noexcept nogil
    cdef uint16_t get_pmsts(self) noexcept nogil
    cdef void update_sci(self) noexcept nogil
    cdef void update_ranges(self) noexcept nogil
    cdef void evt_write(self, uint32_t offset, uint16_t value) noexcept nogil
    cdef void pmcntrl_write(self, uint16_t value) noexcept nogil
    cdef void gpe_write(self, uint32_t offset, uint8_t value) noexcept nogil
    cdef void apmc_write(self, uint8_t value) noexcept nogil
    cdef uint32_t pcihp_read(self, uint32_t offset) noexcept nogil
    cdef uint32_t cpuhp_read(self, uint32_t offset) noexcept nogil
    cdef void cpuhp_write(self, uint32_t offset, uint32_t value) noexcept nogil
