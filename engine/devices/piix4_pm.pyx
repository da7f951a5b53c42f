"""Intel 82371AB (PIIX4), function 3: power management, SMBus, and the hot-plug registers of PC virtual machines.

Documents: PIIX4 data sheet 290562-001 (April 1997); ACPI 2.0c; the hot-plug registers have no data sheet, their maps are in
QEMU's docs/specs (acpi_pci_hotplug, acpi_cpu_hotplug).  Modelled: the ACPI fixed registers with the 24-bit timer, general
purpose events (a PIIX4's own GPSTS is elsewhere: see docs/devices/piix4_pm.md), APM ports with their SMI, the SMBus host
with serial EEPROMs, the hot-plug registers with nothing ever plugged.  Not modelled: device and idle timers, traps, throttling
(stored in configuration space, without effect), GPIO, resuming.  Called by the owning worker only.

Regions: 8 PM events (4 bytes), 9 PM control (2), 10 PM timer (4): at PMBA + 0, 4, 8 while PMREGMISC.PMIOSE is set, MAP effects;
11 general purpose events (4), 12 APM ports (2), 14 PCI hot-plug (24), 15 CPU hot-plug (32): fixed by the board;
13 SMBus (64): at SMBBA while SMBHSTCFG.SMB_HST_EN is set, MAP effects; mapped after power-on.
"""
from engine._device cimport INPUT_LINE, IO_NO_REGISTER, IO_OK, NEVER, RESET_POWER_ON, io_status, reset_kind
from engine.devices._smbus cimport (EEPROM_SIZE, N_EEPROMS, SMB_SIZE, eeproms_reset, smbus_init, smbus_read, smbus_write)
from engine.pci._config cimport CONFIG_REGION, UNMAPPED
from engine.pci.regs cimport *

from engine.devices._smbus import SMBUS_STATE
from engine.errors import MachineError
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.types import RO, RW, RW1C, WO, Region, Register, Space

cdef extern from *:
    """
    static inline uint64_t engine_muldiv(uint64_t a, uint32_t b, uint32_t c)
    {
        return (uint64_t)((unsigned __int128)a * b / c);
    }
    """
    uint64_t muldiv "engine_muldiv"(uint64_t a, uint32_t b, uint32_t c) noexcept nogil

cdef enum:
    NS_PER_S = 1000000000

_S = "290562-001 7."


def _config(name, offset, width, reset, effect="none"):
    return Register(name, offset, width, RW, reset, (1 << width) - 1, effect, _S + "1 " + name, CONFIG_REGION)


REGISTERS = (
    Register("VID", VENDOR_ID, 16, RO, 0x8086, section=_S + "1 VID", region=CONFIG_REGION),
    Register("DID", DEVICE_ID, 16, RO, 0x7113, section=_S + "1 DID", region=CONFIG_REGION),
    Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates, see docs", _S + "1 PCICMD", CONFIG_REGION),
    Register("PCISTS", STATUS, 16, RW1C, STATUS_FAST_BACK | STATUS_DEVSEL_MEDIUM, section=_S + "1 PCISTS", region=CONFIG_REGION,
             w1c=STATUS_W1C),
    Register("RID", REVISION_ID, 8, RO, 0x03, section=_S + "1 RID", region=CONFIG_REGION),
    Register("PI", CLASS_CODE, 8, RO, 0x00, section=_S + "1 CLASSC", region=CONFIG_REGION),
    Register("SCC", CLASS_CODE + 1, 8, RO, 0x80, section=_S + "1 CLASSC", region=CONFIG_REGION),
    Register("BCC", CLASS_CODE + 2, 8, RO, 0x06, section=_S + "1 CLASSC", region=CONFIG_REGION),
    Register("HEDT", HEADER_TYPE, 8, RO, 0, section=_S + "1 HEDT", region=CONFIG_REGION),
    Register("INTLN", INTERRUPT_LINE, 8, RW, 0, 0xFF, "none", _S + "1 INTLN", CONFIG_REGION),
    Register("INTPN", INTERRUPT_PIN, 8, RO, 0x01, section=_S + "1 INTPN", region=CONFIG_REGION),
    _config("PMBA", PMBA, 32, 0x00000001, "base of PMSTS to PMTMR"),
    _config("CNTA", 0x44, 32, 0),
    _config("CNTB", 0x48, 32, 0),
    _config("GPICTL", 0x4C, 32, 0),
    _config("DEVRESD", 0x50, 32, 0),
    _config("DEVACTA", 0x54, 32, 0),
    _config("DEVACTB", DEVACTB, 32, 0, "bit 25 lets APMC make an SMI"),
    _config("DEVRESA", DEVRESA, 32, None, "reports the parallel port"),
    _config("DEVRESB", DEVRESB, 32, 0x60000000),
    _config("DEVRESC", DEVRESC, 32, None, "reports the serial ports"),
    _config("PMREGMISC", PMREGMISC, 8, 0x00, "PMIOSE maps PMBA"),
    _config("SMBBA", SMBBA, 32, None, "base of the SMBus registers"),
    _config("SMBHSTCFG", SMBHSTCFG, 8, 0x09, "SMB_HST_EN maps SMBBA"),
    Register("PMSTS", PMSTS, 16, RW1C, None, 0, "clears SCI sources", _S + "2 PMSTS", EVT_REGION, w1c=0xFFFF),
    Register("PMEN", PMEN, 16, RW, 0, 0xFFFF, "enables SCI sources", _S + "2 PMEN", EVT_REGION),
    Register("PMCNTRL", 0, 16, RW, 0, 0xFFFF & ~SUS_EN, "SUS_EN suspends", _S + "2 PMCNTRL", CNT_REGION),
    Register("PMTMR", 0, 32, RO, None, 0, section=_S + "2 PMTMR", region=TMR_REGION),
    Register("GPE0_STS", GPE_STS, 16, RW1C, 0, 0, "clears SCI sources", "ACPI 2.0c 4.7.4.1.1", GPE_REGION, w1c=0xFFFF),
    Register("GPE0_EN", GPE_EN, 16, RW, 0, 0xFFFF, "enables SCI sources", "ACPI 2.0c 4.7.4.1.2", GPE_REGION),
    Register("APMC", APMC, 8, RW, 0, 0xFF, "SMI; F1h and F0h set and clear SCI_EN", "290562-001 4.2 APMC", APM_REGION),
    Register("APMS", APMS, 8, RW, 0, 0xFF, "none", "290562-001 4.2 APMS", APM_REGION),
    Register("SMBHSTSTS", 0x00, 8, RW1C, 0, 0, "ends transactions", "290562-001 7.3", SMB_REGION, w1c=0xFE),
    Register("SMBHSTCNT", 0x02, 8, RW, 0, 0x1F, "START, KILL", "290562-001 7.3", SMB_REGION),
    Register("SMBHSTCMD", 0x03, 8, RW, 0, 0xFF, "none", "290562-001 7.3", SMB_REGION),
    Register("SMBHSTADD", 0x04, 8, RW, 0, 0xFF, "none", "290562-001 7.3", SMB_REGION),
    Register("SMBHSTDAT0", 0x05, 8, RW, 0, 0xFF, "none", "290562-001 7.3", SMB_REGION),
    Register("SMBHSTDAT1", 0x06, 8, RW, 0, 0xFF, "none", "290562-001 7.3", SMB_REGION),
    Register("SMBBLKDAT", 0x07, 8, RW, 0, 0, "a window to 32 bytes, which moves on", "290562-001 7.3", SMB_REGION),
    Register("SMBAUXCTL", 0x0D, 8, RW, 0x02, 0x03, "selects the 32-byte buffer", "ICH9 20.2.12", SMB_REGION),
    Register("PCI_UP", PCI_UP, 32, RO, 0, section="acpi_pci_hotplug", region=PCIHP_REGION),
    Register("PCI_DOWN", PCI_DOWN, 32, RO, 0, section="acpi_pci_hotplug", region=PCIHP_REGION),
    Register("PCI_EJECT", PCI_EJECT, 32, WO, 0, 0, "none: nothing is ever pluggable", "acpi_pci_hotplug", PCIHP_REGION),
    Register("PCI_REMOVABLE", PCI_REMOVABLE, 32, RO, None, section="acpi_pci_hotplug", region=PCIHP_REGION),
    Register("PCI_SELECT", PCI_SELECT, 32, RW, 0, 0, "selects bus 0 to 255, else all read zero", "acpi_pci_hotplug", PCIHP_REGION),
    Register("PCI_INDEX", PCI_INDEX, 32, RW, 0, 0, "asks for a slot's index", "acpi_pci_hotplug", PCIHP_REGION),
)


cdef class Piix4Pm(PciFunction):
    """Power management function.

    Settings: smm: the board has SMM (else APMC makes an SMI from reset on: DEVACTB); smb_io_base: SMBBA after power-on;
    parallel, serial1, serial2: what DEVRESA and DEVRESC report as present; eeproms: how many serial EEPROMs from 50h on;
    spd: their contents, in hexadecimal, 256 bytes each, zeros after its end; cpus, max_cpus: for the CPU registers;
    fixed_slots: bit n set if what is in slot n of bus 0 cannot be removed.

    pwrbtn is the power button (a rising edge presses it).  sci is a level; smi gives a pulse; power_off and suspend rise
    when software asks for it and fall at reset.
    """
    TITLE = "Intel 82371AB (PIIX4) power management"
    REGISTERS = REGISTERS
    IN = ("pwrbtn",)
    OUT = ("inta", "sci", "smi", "power_off", "suspend")
    CONFIG = {**PCI_CONFIG, "smm": True, "smb_io_base": 0xB100, "parallel": False, "serial1": True, "serial2": False,
              "eeproms": 8, "spd": "", "cpus": 1, "max_cpus": 1, "fixed_slots": 0x00000007}
    STATE = PCI_STATE + (
        ("overflow", "u8"), ("pm_base", "u8"), ("smb_base", "u8"), ("pci_select", "u4"), ("cpu_select", "u4"),
        ("pmsts", "u2"), ("pmen", "u2"), ("pmcntrl", "u2"), ("gpe", "u1", 4), ("apmc", "u1"), ("apms", "u1"),
        ("cpu_modern", "u1"), ("cpu_command", "u1"), ("cpu_fw_remove", "u1", MAX_CPUS)) + SMBUS_STATE

    def __init__(self, str id="piix4-pm", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        c = self.config
        self.cpus, self.max_cpus, self.fixed_slots = c["cpus"], c["max_cpus"], c["fixed_slots"]
        if not 1 <= self.cpus <= self.max_cpus <= MAX_CPUS:
            raise MachineError(f"{id}: {self.cpus} of {self.max_cpus} CPUs cannot be; there are 1 to {MAX_CPUS}")
        if not 0 <= c["eeproms"] <= N_EEPROMS:
            raise MachineError(f"{id}: eeproms = {c['eeproms']}; there is room for {N_EEPROMS}")
        try:
            spd = bytes.fromhex(c["spd"])
        except ValueError as e:
            raise MachineError(f"{id}: spd: {e}") from None
        if len(spd) > c["eeproms"] * EEPROM_SIZE:
            raise MachineError(f"{id}: spd: {len(spd)} bytes do not fit {c['eeproms']} EEPROMs of {EEPROM_SIZE}")
        self.spd = spd.ljust(N_EEPROMS * EEPROM_SIZE, b"\0")
        self.eeproms = c["eeproms"]
        self.spd_bytes = self.spd
        self.s = <piix4_pm_state *>self.pci_alloc(sizeof(piix4_pm_state))
        self.s.pm_base = self.s.smb_base = UNMAPPED
        self.identify(0x8086, 0x7113, 0x03, 0x068000, interrupt_pin=1)
        self.initial[STATUS] = STATUS_FAST_BACK
        self.initial[STATUS + 1] = STATUS_DEVSEL_MEDIUM >> 8
        self.initial[PMBA] = 0x01
        self.initial[DEVACTB + 3] = 0 if c["smm"] else DEVACTB_APMC_EN
        self.initial[DEVRESA + 3] = 0x10 | (0x80 if c["parallel"] else 0)
        self.initial[DEVRESB + 3] = 0x60
        self.initial[DEVRESC + 3] = (0x08 if c["serial1"] else 0) | (0x90 if c["serial2"] else 0)
        self.initial[SMBBA] = (c["smb_io_base"] & BASE_MASK & 0xff) | 1
        self.initial[SMBBA + 1] = c["smb_io_base"] >> 8 & 0xff
        self.initial[SMBHSTCFG] = 0x08 | SMB_HST_EN
        for n in range(HEADER_SIZE, CONFIG_SIZE):
            self.keep[n] = n != PMBA and not DEVACTB <= n < DEVACTB + 4 and n != PMREGMISC
        self.power_on()

    def fixed_regions(self):
        return (Region("pm-event", Space.PIO, 4, (1, 2, 4), (2, 2)),
                Region("pm-control", Space.PIO, 2, (1, 2, 4), (2, 2)),
                Region("pm-timer", Space.PIO, 4, (1, 2, 4), (4, 4)),
                Region("gpe0", Space.PIO, 4, (1, 2, 4), (1, 1)),
                Region("apm", Space.PIO, 2, (1, 2, 4), (1, 1)),
                Region("smbus", Space.PIO, SMB_SIZE, (1, 2, 4), (1, 1)),
                Region("pci-hotplug", Space.PIO, 0x18, (4,), (4, 4)),
                Region("cpu-hotplug", Space.PIO, CPU_LEGACY_SIZE, (1, 2, 4), (1, 4)))

    def mappings(self):
        out = PciFunction.mappings(self)
        for region, base, at in ((EVT_REGION, self.s.pm_base, PMSTS), (CNT_REGION, self.s.pm_base, PMCNTRL),
                                 (TMR_REGION, self.s.pm_base, PMTMR), (SMB_REGION, self.s.smb_base, 0)):
            on = base != UNMAPPED
            out.append((region, int(on), base + at if on else 0))
        return out

    # ------------------------------------------------------------------ accesses

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        cdef uint32_t i
        if region == TMR_REGION:
            value[0] = self.ticks() & PM_TIMER_MASK
        elif region == EVT_REGION:
            value[0] = self.get_pmsts() if offset == PMSTS else self.s.pmen if offset == PMEN else 0
        elif region == CNT_REGION:
            value[0] = self.s.pmcntrl
        elif region == GPE_REGION:
            if offset >= 4:
                return IO_NO_REGISTER
            value[0] = self.s.gpe[offset]
        elif region == APM_REGION:
            value[0] = self.s.apms if offset & 1 else self.s.apmc
        elif region == SMB_REGION:
            value[0] = smbus_read(&self.s.smb, offset)
        elif region == PCIHP_REGION:
            value[0] = self.pcihp_read(offset)
        elif region == CPUHP_REGION:
            if self.s.cpu_modern:
                if offset >= CPU_MODERN_SIZE:
                    return IO_NO_REGISTER
                value[0] = self.cpuhp_read(offset)
            else:
                value[0] = 0
                for i in range(size):
                    value[0] |= <uint64_t>self.cpu_bitmap(offset + i) << (8 * i)
        else:
            return IO_NO_REGISTER
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region == EVT_REGION:
            self.evt_write(offset, <uint16_t>value)
        elif region == CNT_REGION:
            self.pmcntrl_write(<uint16_t>value)
        elif region == TMR_REGION:
            pass
        elif region == GPE_REGION:
            if offset >= 4:
                return IO_NO_REGISTER
            self.gpe_write(offset, <uint8_t>value)
        elif region == APM_REGION:
            if offset & 1:
                self.s.apms = <uint8_t>value
            else:
                self.apmc_write(<uint8_t>value)
        elif region == SMB_REGION:
            smbus_write(&self.s.smb, offset, <uint8_t>value)
        elif region == PCIHP_REGION:
            if offset == PCI_SELECT:
                self.s.pci_select = <uint32_t>value
        elif region == CPUHP_REGION:
            if self.s.cpu_modern:
                if offset >= CPU_MODERN_SIZE:
                    return IO_NO_REGISTER
                self.cpuhp_write(offset, <uint32_t>value)
            elif offset == 0 and not value & 0xff:
                self.s.cpu_modern = 1       # a zero where CPU 0 must show: software knows the selector interface
        else:
            return IO_NO_REGISTER
        return IO_OK

    # ------------------------------------------------------------------ configuration space: 7.1

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        self.update_ranges()

    cdef void update_ranges(self) noexcept nogil:
        """Publish where the PM and the SMBus registers answer: PMBA with PMREGMISC, SMBBA with SMBHSTCFG."""
        cdef uint64_t base = self.config32(PMBA) & BASE_MASK if self.p.config[PMREGMISC] & PMIOSE else UNMAPPED
        cdef bint on = base != UNMAPPED
        if base != self.s.pm_base:
            self.s.pm_base = base
            self.set_map(EVT_REGION, on, base + PMSTS)
            self.set_map(CNT_REGION, on, base + PMCNTRL)
            self.set_map(TMR_REGION, on, base + PMTMR)
        base = self.config32(SMBBA) & BASE_MASK if self.p.config[SMBHSTCFG] & SMB_HST_EN else UNMAPPED
        if base != self.s.smb_base:
            self.s.smb_base = base
            self.set_map(SMB_REGION, base != UNMAPPED, base)

    # ------------------------------------------------------------------ ACPI fixed registers: 7.2

    cdef uint64_t ticks(self) noexcept nogil:
        """Ticks of the timer since time 0, rounded down."""
        return muldiv(self.core.now, PM_TIMER_HZ, NS_PER_S)

    cdef uint16_t get_pmsts(self) noexcept nogil:
        """PMSTS.  TMROF rises in the nanosecond that on_time is asked for, though the tick may complete in the next."""
        if self.core.now >= muldiv(self.s.overflow, NS_PER_S, PM_TIMER_HZ):
            self.s.pmsts |= TMROF
        return self.s.pmsts

    cdef void evt_write(self, uint32_t offset, uint16_t value) noexcept nogil:
        """PMSTS, PMEN.  Clearing TMROF begins the wait for the next toggle of bit 23."""
        if offset == PMSTS:
            if self.get_pmsts() & value & TMROF:
                self.s.overflow = (self.ticks() + PM_TIMER_HALF) & ~<uint64_t>(PM_TIMER_HALF - 1)
            self.s.pmsts &= ~value
        elif offset == PMEN:
            self.s.pmen = value
        self.update_sci()

    cdef void pmcntrl_write(self, uint16_t value) noexcept nogil:
        """PMCNTRL.  SUS_EN reads as zero."""
        cdef uint32_t kind = value >> SUS_TYP_SHIFT & SUS_TYP_MASK
        self.s.pmcntrl = value & ~<uint16_t>SUS_EN
        if value & SUS_EN:
            if kind == SUS_SOFT_OFF or kind == SUS_STD:
                self.set_line(POWER_OFF, 1)
            elif kind == SUS_STR:
                self.set_line(SUSPEND, 1)

    cdef void gpe_write(self, uint32_t offset, uint8_t value) noexcept nogil:
        """ACPI 2.0c 4.7.4.1."""
        if offset < GPE_EN:
            self.s.gpe[offset] &= ~value
        else:
            self.s.gpe[offset] = value
        self.update_sci()

    cdef void update_sci(self) noexcept nogil:
        """The SCI, and when the timer may next change it.  Events of the first GPE byte only: the others have no source."""
        cdef uint16_t pmsts = self.get_pmsts()
        self.set_line(SCI, pmsts & self.s.pmen & SCI_SOURCES or self.s.gpe[GPE_STS] & self.s.gpe[GPE_EN])
        if self.s.pmen & TMROF and not pmsts & TMROF:
            self.set_deadline(muldiv(self.s.overflow, NS_PER_S, PM_TIMER_HZ))
        else:
            self.core.deadline = NEVER

    cdef void on_time(self) noexcept nogil:
        self.update_sci()

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        """The power button, pressed: PMSTS.PWRBTN_STS."""
        if kind == INPUT_LINE and value and self.s.pmen & PWRBTN:
            self.s.pmsts |= PWRBTN
            self.update_sci()
        return 0

    # ------------------------------------------------------------------ APM: 4.2 (APMC, APMS)

    cdef void apmc_write(self, uint8_t value) noexcept nogil:
        """A request to the firmware.  The two values by which an OS turns ACPI mode on and off are answered here."""
        self.s.apmc = value
        if value == ACPI_ENABLE:
            self.s.pmcntrl |= SCI_EN
        elif value == ACPI_DISABLE:
            self.s.pmcntrl &= ~<uint16_t>SCI_EN
        elif self.p.config[DEVACTB + 3] & DEVACTB_APMC_EN:
            self.set_line(SMI, 1)
            self.set_line(SMI, 0)

    # ------------------------------------------------------------------ hot-plug

    cdef uint32_t pcihp_read(self, uint32_t offset) noexcept nogil:
        """Nothing is inserted or wants to go.  Only bus 0 has slots that are taken."""
        if self.s.pci_select >= PCI_BUSES:
            return 0
        if offset == PCI_REMOVABLE:
            return ~self.fixed_slots if self.s.pci_select == 0 else 0xffffffffu
        if offset == PCI_SELECT:
            return self.s.pci_select
        return 0

    cdef uint8_t cpu_bitmap(self, uint32_t byte) noexcept nogil:
        """One byte of the bitmap of CPUs that are there."""
        cdef uint32_t first = byte * 8
        if first >= self.cpus:
            return 0
        return 0xff if self.cpus - first >= 8 else <uint8_t>((1 << (self.cpus - first)) - 1)

    cdef uint32_t cpuhp_read(self, uint32_t offset) noexcept nogil:
        if self.s.cpu_select >= self.max_cpus:
            return 0
        if offset == CPU_FLAGS:
            return ((CPU_PRESENT if self.s.cpu_select < self.cpus else 0)
                    | (CPU_FW_REMOVE if self.s.cpu_fw_remove[self.s.cpu_select] else 0))
        if offset == CPU_DATA and (self.s.cpu_command == CMD_NEXT_EVENT or self.s.cpu_command == CMD_CPU_ID):
            return self.s.cpu_select            # CPU n has local APIC n
        return 0

    cdef void cpuhp_write(self, uint32_t offset, uint32_t value) noexcept nogil:
        cdef uint32_t i, n
        if offset == CPU_SELECT:
            self.s.cpu_select = value
            return
        if self.s.cpu_select >= self.max_cpus:
            return
        if offset == CPU_FLAGS:                 # 02h, 04h acknowledge events that never come, 08h ejects: CPUs stay
            if not value & 0x0E and value & CPU_FW_REMOVE and 0 < self.s.cpu_select < self.cpus:
                self.s.cpu_fw_remove[self.s.cpu_select] = 1
        elif offset == CPU_COMMAND and value <= CMD_CPU_ID:
            self.s.cpu_command = <uint8_t>value
            if value == CMD_NEXT_EVENT:
                for i in range(self.max_cpus):
                    n = (self.s.cpu_select + i) % self.max_cpus
                    if self.s.cpu_fw_remove[n]:
                        self.s.cpu_select = n
                        break

    # ------------------------------------------------------------------ reset

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """The fixed registers go back; of configuration space PMBA's low byte, DEVACTB and PMREGMISC do; the hot-plug
        selectors and the SMBus controller keep their state."""
        PciFunction.on_reset(self, kind)
        self.s.pmsts = self.s.pmen = self.s.pmcntrl = 0
        self.s.overflow = 0
        self.s.gpe[0] = self.s.gpe[1] = self.s.gpe[2] = self.s.gpe[3] = 0
        self.set_line(POWER_OFF, 0)
        self.set_line(SUSPEND, 0)
        self.set_line(SMI, 0)
        if kind == RESET_POWER_ON:
            self.clear_extras()
        else:
            eeproms_reset(&self.s.smb, <const uint8_t *>self.spd_bytes)
        self.update_sci()
        self.update_ranges()

    cdef void clear_extras(self) noexcept nogil:
        cdef int i
        self.s.apmc = self.s.apms = 0
        self.s.pci_select = self.s.cpu_select = 0
        self.s.cpu_modern = self.s.cpu_command = 0
        for i in range(MAX_CPUS):
            self.s.cpu_fw_remove[i] = 0
        smbus_init(&self.s.smb, <uint8_t>((1 << self.eeproms) - 1), <const uint8_t *>self.spd_bytes)
