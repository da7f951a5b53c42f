"""Intel 82801IB (ICH9), device 31 function 0: LPC bridge.  Names: data sheet 316972-004 (August 2008), chapters 10 and 13."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.devices._acpi_pm cimport acpi_pm
from engine.devices._hotplug cimport acpi_hotplug, hotplug_facts
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                    # configuration registers beside the header, 13.1
    PMBASE = 0x40             # ACPI base address, 4 bytes
    PMBASE_MASK = 0xFF80
    ACPI_CNTL = 0x44
    ACPI_EN = 0x80
    SCI_IRQ_SEL = 0x07
    PIRQA_ROUT = 0x60         # PIRQA to PIRQD
    PIRQE_ROUT = 0x68         # PIRQE to PIRQH
    PIRQ_IRQEN = 0x80         # set: not routed
    PIRQ_IRQ = 0x0F
    LPC_IO_DEC = 0x80         # LPC I/O decode ranges, enables: 4 bytes; byte 82h reports what is there
    GEN_PMCON_1 = 0xA0        # general PM configuration 1, 2 bytes
    SMI_LOCK = 0x10
    RCBA = 0xF0               # root complex base address, 4 bytes
    RCBA_EN = 0x1
    RCBA_MASK = 0xFFFFC000

cdef enum:                    # power management I/O, 13.8.3; each block is a region
    PM1_AT = 0x00             # PM1_STS, PM1_EN
    PM1_CNT_AT = 0x04
    PM1_TMR_AT = 0x08
    GPE0_AT = 0x20            # GPE0_STS, GPE0_EN
    GPE_HALF = 8
    GPE_SIZE = 16
    SMI_AT = 0x30             # SMI_EN, SMI_STS
    SMI_SIZE = 8
    TCO_AT = 0x60             # 13.9
    TCO_SIZE = 0x20

cdef enum:                    # SMI_EN, 13.8.3.8
    SMI_EN = 0
    GBL_SMI_EN = 0x0001
    APMC_EN = 0x0020
    TCO_EN = 0x2000

cdef enum:                    # TCO registers, 13.9
    TCO_RLD = 0x00            # 2 bytes
    TCO_DAT_IN = 0x02
    TCO_DAT_OUT = 0x03
    TCO1_STS = 0x04           # 2 bytes
    TCO2_STS = 0x06           # 2 bytes
    TCO1_CNT = 0x08           # 2 bytes
    TCO2_CNT = 0x0A           # 2 bytes
    TCO_MESSAGE1 = 0x0C
    TCO_MESSAGE2 = 0x0D
    TCO_WDCNT = 0x0E
    SW_IRQ_GEN = 0x10
    TCO_TMR = 0x12            # 2 bytes

cdef enum:
    SW_TCO_SMI = 0x0002       # TCO1_STS
    TCO_INT_STS = 0x0004
    TIMEOUT = 0x0008
    TCO1_STS_MASK = 0xE870
    SECOND_TO_STS = 0x0002    # TCO2_STS
    BOOT_STS = 0x0004
    TCO2_STS_MASK = 0xFFF8
    TCO_TMR_HLT = 0x0800      # TCO1_CNT
    TCO_LOCK = 0x1000
    TCO1_CNT_MASK = 0xFEFF
    TCO2_CNT_RESET = 0x0008
    TCO_COUNT = 0x03FF        # of TCO_RLD and TCO_TMR
    TCO_TMR_RESET = 0x0004
    SW_IRQ_RESET = 0x03
    TCO_TICK = 600000000      # ns, 13.9.1

cdef enum:                    # APM ports, 13.7: APM_CNT and APM_STS, and the values of APM_CNT that the reference's FADT names
    ACPI_ENABLE = 0x02
    ACPI_DISABLE = 0x03

cdef enum:                    # root complex block, chapter 10
    RC_SIZE = 0x4000
    D31IR = 0x3140            # interrupt routes, 2 bytes each, 4 bits a pin
    D30IR = 0x3142
    D29IR = 0x3144
    D28IR = 0x3146
    D27IR = 0x3148
    D26IR = 0x314C
    D25IR = 0x3150
    DIR_RESET = 0x3210
    GCS = 0x3410              # general control and status
    GCS_NO_REBOOT = 0x20

cdef enum:                    # RST_CNT, 13.7.5
    SYS_RST = 0x02
    RST_CPU = 0x04
    FULL_RST = 0x08

cdef enum:                    # region numbers
    EVT_REGION = 8
    CNT_REGION = 9
    TMR_REGION = 10
    GPE_REGION = 11
    SMI_REGION = 12
    TCO_REGION = 13
    RC_REGION = 14
    APM_REGION = 15
    RST_REGION = 16
    PCIHP_REGION = 17
    CPUHP_REGION = 18
    MEMHP_REGION = 19

cdef enum:                    # pins
    N_PIRQ = 8
    N_PIC = 16
    N_GSI = 24
    GSI_PIRQA = 16            # PIRQ n is GSI 16 + n, always
    SLOT_PIN = 8              # input pins 8 to 35: INTA to INTD of slots 25 to 31
    FIRST_SLOT = 25
    PWRBTN_PIN = 36
    HOTPLUG_IN = 37           # HOTPLUG_PINS
    OUT_GSI = 1               # output pins: GSI n is 1 + n; those below 16 reach the 8259s too
    OUT_SMI = 25
    OUT_POWER_OFF = 26
    OUT_SUSPEND = 27
    OUT_WATCHDOG = 28
    OUT_EJECT = 29

cdef struct ich9_lpc_state:
    pci_state pci
    uint64_t pm_base          # where the power management ranges answer; UNMAPPED
    uint64_t rc_base          # where the root complex block answers; UNMAPPED
    uint64_t tco_expires      # NEVER: the timer stands still
    acpi_pm pm
    acpi_hotplug hotplug
    uint32_t smi_en, smi_sts
    uint16_t tco_rld, tco1_sts, tco2_sts, tco1_cnt, tco2_cnt, tco_tmr
    uint8_t tco_din, tco_dout, tco_msg1, tco_msg2, tco_wdcnt, sw_irq_gen
    uint8_t tco_timeouts      # since the last reload
    uint8_t apmc, apms
    uint8_t rst_cnt
    uint8_t smi_locked        # SMI_EN.GBL_SMI_EN is, until reset
    uint8_t sci, sci_gsi      # level; where it goes
    uint8_t highs[8]          # how many inputs are high on each PIRQ
    uint8_t pirq_of[28]       # of each slot pin that is high: 1 + the PIRQ it counts for; 0: it is low
    uint8_t rc[16384]

cdef class Ich9Lpc(PciFunction):
    cdef ich9_lpc_state *s
    cdef hotplug_facts facts
    cdef bint smm, no_reboot, resets
    cdef void update_ranges(self) noexcept nogil
    cdef void lock(self) noexcept nogil
    cdef uint32_t pirq_for(self, uint32_t slot, uint32_t intx) noexcept nogil
    cdef void update_gsi(self, uint32_t gsi) noexcept nogil
    cdef void update_pirq(self, uint32_t pirq) noexcept nogil
    cdef uint8_t sci_route(self) noexcept nogil
    cdef void set_sci(self, bint level) noexcept nogil
    cdef void sleep(self, uint32_t asked) noexcept nogil
    cdef void update_sci(self) noexcept nogil
    cdef void smi_en_write(self, uint32_t value) noexcept nogil
    cdef void smi(self) noexcept nogil
    cdef void eject(self) noexcept nogil
    cdef void apmc_write(self, uint8_t value) noexcept nogil
    cdef uint64_t tco_period(self) noexcept nogil
    cdef bint tco_reboots(self) noexcept nogil
    cdef bint tco_heard(self) noexcept nogil
    cdef bint tco_runs(self) noexcept nogil
    cdef void tco_reload(self) noexcept nogil
    cdef void tco_expired(self) noexcept nogil
    cdef void tco_catch_up(self) noexcept nogil
    cdef uint16_t tco_read(self, uint32_t offset) noexcept nogil
    cdef void tco_write(self, uint32_t offset, uint16_t value) noexcept nogil
    cdef void power_up(self) noexcept nogil
