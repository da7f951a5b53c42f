"""Intel 82371AB (PIIX4), function 3: power management, SMBus, and the hot-plug registers of PC virtual machines.

Documents: PIIX4 data sheet 290562-001 (April 1997); ACPI 2.0c; the hot-plug registers have no data sheet, their maps are in
QEMU's docs/specs (acpi_pci_hotplug, acpi_cpu_hotplug, acpi_mem_hotplug).  Modelled: the ACPI fixed registers with the 24-bit
timer, general purpose events (a PIIX4's own GPSTS is elsewhere: see docs/devices/piix4_pm.md), APM ports with their SMI, the SMBus host
with serial EEPROMs, the hot-plug registers.  Not modelled: device and idle timers, traps, throttling
(stored in configuration space, without effect), GPIO, resuming.  Called by the owning worker only.

Regions: 8 PM events (4 bytes), 9 PM control (2), 10 PM timer (4): at PMBA + 0, 4, 8 while PMREGMISC.PMIOSE is set, MAP effects;
11 general purpose events (4), 12 APM ports (2), 14 PCI hot-plug (24), 15 CPU hot-plug (32), 16 memory hot-plug (24): fixed by
the board;
13 SMBus (64): at SMBBA while SMBHSTCFG.SMB_HST_EN is set, MAP effects; mapped after power-on.
"""
from libc.string cimport memset

from engine._device cimport INPUT_LINE, IO_NO_REGISTER, IO_OK, RESET_POWER_ON, io_status, reset_kind
from engine.devices._acpi_pm cimport (PM1_EN, PM1_STS, PM_TIMER_MASK, PWRBTN_STS, SLEEP_OFF, SLEEP_SUSPEND, SLP_EN, pm_acpi_mode,
                                      pm_control_write, pm_event_write, pm_gpe_write, pm_reset, pm_sci, pm_status, pm_ticks)
from engine.devices._hotplug cimport (CPU_LEGACY_SIZE, MEM_HOTPLUG_SIZE, PCI_HOTPLUG_SIZE, hotplug_facts_of, hotplug_input, hotplug_read,
                                      hotplug_reset, hotplug_taken, hotplug_write)
from engine.devices._smbus cimport SMB_SIZE, eeproms_reset, smbus_init, smbus_read, smbus_write
from engine.pci._config cimport CONFIG_REGION, UNMAPPED
from engine.pci.regs cimport *

from engine.devices._acpi_pm import ACPI_PM_STATE, PM_CLOCK
from engine.devices._hotplug import HOTPLUG_CONFIG, HOTPLUG_PINS, HOTPLUG_STATE, hotplug_registers
from engine.devices._smbus import SMBUS_STATE, spd_contents
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.types import RO, RW, RW1C, Region, Register, Space

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
    Register("PMSTS", PM1_STS, 16, RW1C, None, 0, "clears SCI sources", _S + "2 PMSTS", EVT_REGION, w1c=0xFFFF),
    Register("PMEN", PM1_EN, 16, RW, 0, 0xFFFF, "enables SCI sources", _S + "2 PMEN", EVT_REGION),
    Register("PMCNTRL", 0, 16, RW, 0, 0xFFFF & ~SLP_EN, "SUS_EN suspends", _S + "2 PMCNTRL", CNT_REGION),
    Register("PMTMR", 0, 32, RO, None, 0, section=_S + "2 PMTMR", region=TMR_REGION),
    Register("GPE0_STS", 0, 16, RW1C, 0, 0, "clears SCI sources", "ACPI 2.0c 4.7.4.1.1", GPE_REGION, w1c=0xFFFF),
    Register("GPE0_EN", GPE_HALF, 16, RW, 0, 0xFFFF, "enables SCI sources", "ACPI 2.0c 4.7.4.1.2", GPE_REGION),
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
    *hotplug_registers(PCIHP_REGION, None),
)


cdef class Piix4Pm(PciFunction):
    """Power management function.

    Settings: smm: the board has SMM (else APMC makes an SMI from reset on: DEVACTB); smb_io_base: SMBBA after power-on;
    parallel, serial1, serial2: what DEVRESA and DEVRESC report as present; eeproms: how many serial EEPROMs from 50h on;
    spd: their contents, in hexadecimal, 256 bytes each, zeros after its end; those of hot-plug: engine/devices/_hotplug.pyx.

    pwrbtn is the power button (a rising edge presses it); pci_plug, pci_unplug, cpu_plug, cpu_unplug tell of what comes and is
    to go.  sci is a level; smi gives a pulse, as eject does where software lets something go (`taken`); power_off and suspend
    rise when software asks for it and fall at reset.
    """
    TITLE = "Intel 82371AB (PIIX4) power management"
    REGISTERS = REGISTERS
    IN = ("pwrbtn", *HOTPLUG_PINS)
    OUT = ("inta", "sci", "smi", "power_off", "suspend", "eject")
    CONFIG = {**PCI_CONFIG, "smm": True, "smb_io_base": 0xB100, "parallel": False, "serial1": True, "serial2": False,
              "eeproms": 8, "spd": "", **HOTPLUG_CONFIG}
    STATE = PCI_STATE + (
        ("pm_base", "u8"), ("smb_base", "u8"), *ACPI_PM_STATE, *HOTPLUG_STATE, ("apmc", "u1"), ("apms", "u1"), *SMBUS_STATE)

    def __init__(self, str id="piix4-pm", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        c = self.config
        hotplug_facts_of(&self.facts, id, c)
        self.spd = spd_contents(id, c["eeproms"], c["spd"])
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
                Region("pm-timer", Space.PIO, 4, (1, 2, 4), (4, 4), clock=PM_CLOCK),
                Region("gpe0", Space.PIO, 4, (1, 2, 4), (1, 1)),
                Region("apm", Space.PIO, 2, (1, 2, 4), (1, 1)),
                Region("smbus", Space.PIO, SMB_SIZE, (1, 2, 4), (1, 1)),
                Region("pci-hotplug", Space.PIO, PCI_HOTPLUG_SIZE),
                Region("cpu-hotplug", Space.PIO, CPU_LEGACY_SIZE, (1, 2, 4), (1, 4)),
                Region("mem-hotplug", Space.PIO, MEM_HOTPLUG_SIZE, (1, 2, 4), (1, 4)))

    def mappings(self):
        out = PciFunction.mappings(self)
        for region, base, at in ((EVT_REGION, self.s.pm_base, PMSTS), (CNT_REGION, self.s.pm_base, PMCNTRL),
                                 (TMR_REGION, self.s.pm_base, PMTMR), (SMB_REGION, self.s.smb_base, 0)):
            on = base != UNMAPPED
            out.append((region, int(on), base + at if on else 0))
        return out

    # ------------------------------------------------------------------ accesses

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if region == TMR_REGION:
            value[0] = pm_ticks(self.core.now) & PM_TIMER_MASK
        elif region == EVT_REGION:
            value[0] = pm_status(&self.s.pm, self.core.now) if offset == PM1_STS else self.s.pm.pmen if offset == PM1_EN else 0
        elif region == CNT_REGION:
            value[0] = self.s.pm.pmcntrl
        elif region == GPE_REGION:
            if offset >= 4:
                return IO_NO_REGISTER
            value[0] = self.s.pm.gpe[offset]
        elif region == APM_REGION:
            value[0] = self.s.apms if offset & 1 else self.s.apmc
        elif region == SMB_REGION:
            value[0] = smbus_read(&self.s.smb, offset)
        elif hotplug_read(&self.s.hotplug, &self.facts, region - PCIHP_REGION, offset, size, value):
            return IO_NO_REGISTER
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef int gone
        if region == EVT_REGION:
            pm_event_write(&self.s.pm, self.core.now, offset, <uint16_t>value)
            self.update_sci()
        elif region == CNT_REGION:
            self.pmcntrl_write(<uint16_t>value)
        elif region == TMR_REGION:
            pass
        elif region == GPE_REGION:
            if offset >= 4:
                return IO_NO_REGISTER
            pm_gpe_write(&self.s.pm, GPE_HALF, offset, <uint8_t>value)
            self.update_sci()
        elif region == APM_REGION:
            if offset & 1:
                self.s.apms = <uint8_t>value
            else:
                self.apmc_write(<uint8_t>value)
        elif region == SMB_REGION:
            smbus_write(&self.s.smb, offset, <uint8_t>value)
        else:
            gone = hotplug_write(&self.s.hotplug, &self.facts, region - PCIHP_REGION, offset, size, value)
            if gone < 0:
                return IO_NO_REGISTER
            if gone:
                self.eject()
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

    cdef void pmcntrl_write(self, uint16_t value) noexcept nogil:
        """PMCNTRL.  SUS_EN reads as zero."""
        cdef uint32_t asked = pm_control_write(&self.s.pm, value)
        if asked == SLEEP_OFF:
            self.set_line(POWER_OFF, 1)
        elif asked == SLEEP_SUSPEND:
            self.set_line(SUSPEND, 1)

    cdef void update_sci(self) noexcept nogil:
        cdef uint64_t deadline
        self.set_line(SCI, pm_sci(&self.s.pm, GPE_HALF, self.core.now, &deadline))
        self.set_deadline(deadline)

    cdef void on_time(self) noexcept nogil:
        self.update_sci()

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        """The power button, pressed: PMSTS.PWRBTN_STS.  Something that comes or is to go: a general purpose event."""
        if kind != INPUT_LINE or not value or pin > HOTPLUG_IN + 3:
            return 0
        if pin >= HOTPLUG_IN:
            self.s.pm.gpe[0] |= hotplug_input(&self.s.hotplug, &self.facts, pin - HOTPLUG_IN, addr)
        elif self.s.pm.pmen & PWRBTN_STS:
            self.s.pm.pmsts |= PWRBTN_STS
        self.update_sci()
        return 0

    cdef void eject(self) noexcept nogil:
        """Tell the host that there is something to take out."""
        self.set_line(EJECT, 1)
        self.set_line(EJECT, 0)

    def taken(self):
        """What software has let go since the last call: ("pci", bus, slot) and ("cpu", number)."""
        return hotplug_taken(&self.s.hotplug, &self.facts)

    # ------------------------------------------------------------------ APM: 4.2 (APMC, APMS)

    cdef void apmc_write(self, uint8_t value) noexcept nogil:
        """A request to the firmware.  The two values by which an OS turns ACPI mode on and off are answered here."""
        self.s.apmc = value
        if value == ACPI_ENABLE or value == ACPI_DISABLE:
            pm_acpi_mode(&self.s.pm, value == ACPI_ENABLE)
        elif self.p.config[DEVACTB + 3] & DEVACTB_APMC_EN:
            self.set_line(SMI, 1)
            self.set_line(SMI, 0)

    # ------------------------------------------------------------------ reset

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """The fixed registers go back; of configuration space PMBA's low byte, DEVACTB and PMREGMISC do; the hot-plug
        selectors and the SMBus controller keep their state."""
        PciFunction.on_reset(self, kind)
        pm_reset(&self.s.pm)
        self.set_line(POWER_OFF, 0)
        self.set_line(SUSPEND, 0)
        self.set_line(SMI, 0)
        if kind == RESET_POWER_ON:
            self.clear_extras()
        else:
            eeproms_reset(&self.s.smb, <const uint8_t *>self.spd_bytes)
            if hotplug_reset(&self.s.hotplug, &self.facts):
                self.eject()
        self.update_sci()
        self.update_ranges()

    cdef void clear_extras(self) noexcept nogil:
        self.s.apmc = self.s.apms = 0
        memset(&self.s.hotplug, 0, sizeof(acpi_hotplug))
        smbus_init(&self.s.smb, <uint8_t>((1 << self.eeproms) - 1), <const uint8_t *>self.spd_bytes)
