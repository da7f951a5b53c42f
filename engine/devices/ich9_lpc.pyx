"""Intel 82801IB (ICH9), device 31 function 0: LPC bridge with power management, the TCO watchdog and the root complex block.

Documents: ICH9 data sheet 316972-004 (August 2008), chapters 10 and 13; ACPI 2.0c.  Modelled: configuration space; routing of
PIRQA# to PIRQH# to ISA interrupts and to GSI 16 to 23; the routes of the chipset's own slots 25 to 31 to PIRQs (DnnIR); ACPI's
fixed registers with the 24-bit timer and the SCI's route; general purpose events; SMI_EN with its locks; TCO with its two
timeouts; APM ports; the reset control register; the hot-plug registers of PC virtual machines.  Not modelled: what lies
behind LPC decode ranges, GPIO, device monitors, throttling, SPI and the rest of the root complex block (stored, without
effect), the RTC's and USB's power events.  The parts inside the chip (8237s, 8254, 8259s, IOAPIC, HPET, RTC) are devices of
their own.  Called by the owning worker only.

Regions: 8 PM events (4 bytes), 9 PM control (2), 10 PM timer (4), 11 general purpose events (16), 12 SMI (8), 13 TCO (32): at
PMBASE + 0, 4, 8, 20h, 30h, 60h while ACPI_CNTL.ACPI_EN is set; 14 root complex block (16 KiB): at RCBA; MAP effects.  15 APM ports
(2), 16 reset control (1), 17 PCI hot-plug (24), 18 CPU hot-plug (32), 19 memory hot-plug
(24): fixed by the board.
"""
cimport cython
from libc.string cimport memcpy, memset

from engine._abi cimport ENGINE_EFFECT_RESET
from engine._device cimport INPUT_LINE, IO_NO_REGISTER, IO_OK, NEVER, RESET_BUS, RESET_POWER_ON, io_status, reset_kind
from engine.devices._acpi_pm cimport (PM1_EN, PM1_STS, PM_TIMER_MASK, PWRBTN_STS, SLEEP_OFF, SLEEP_SUSPEND, SLP_EN, pm_acpi_mode,
                                      pm_control_write, pm_event_write, pm_gpe_write, pm_reset, pm_sci, pm_status, pm_ticks)
from engine.devices._hotplug cimport (CPU_LEGACY_SIZE, MEM_HOTPLUG_SIZE, PCI_HOTPLUG_SIZE, hotplug_facts_of, hotplug_input, hotplug_read,
                                      hotplug_reset, hotplug_taken, hotplug_write)
from engine.pci._config cimport CONFIG_REGION, UNMAPPED
from engine.pci.regs cimport *

from engine.devices._acpi_pm import ACPI_PM_STATE, PM_CLOCK
from engine.devices._hotplug import HOTPLUG_CONFIG, HOTPLUG_PINS, HOTPLUG_STATE, hotplug_registers
from engine.devices._watchdog import checked_action
from engine.errors import StateError
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.types import RO, RW, RW1C, Region, Register, Space

_S = "316972-004 13."


def _config(name, offset, width, reset, effect="none", wmask=None, section="1 "):
    return Register(name, offset, width, RW, reset, (1 << width) - 1 if wmask is None else wmask, effect, _S + section + name, CONFIG_REGION)


def _tco(name, offset, width, reset, wmask, effect="none"):
    return Register(name, offset, width, RW, reset, wmask, effect, _S + "9 " + name, TCO_REGION)


_ROUTES = ((31, D31IR), (29, D29IR), (28, D28IR), (27, D27IR), (26, D26IR), (25, D25IR))
REGISTERS = (
    Register("VID", VENDOR_ID, 16, RO, 0x8086, section=_S + "1 VID", region=CONFIG_REGION),
    Register("DID", DEVICE_ID, 16, RO, 0x2918, section=_S + "1 DID", region=CONFIG_REGION),
    Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates, see docs", _S + "1 PCICMD", CONFIG_REGION),
    Register("PCISTS", STATUS, 16, RW1C, 0, section=_S + "1 PCISTS", region=CONFIG_REGION, w1c=STATUS_W1C),
    Register("RID", REVISION_ID, 8, RO, 0x02, section=_S + "1 RID", region=CONFIG_REGION),
    Register("PI", CLASS_CODE, 8, RO, 0x00, section=_S + "1 PI", region=CONFIG_REGION),
    Register("SCC", CLASS_CODE + 1, 8, RO, 0x01, section=_S + "1 SCC", region=CONFIG_REGION),
    Register("BCC", CLASS_CODE + 2, 8, RO, 0x06, section=_S + "1 BCC", region=CONFIG_REGION),
    Register("HEADTYP", HEADER_TYPE, 8, RO, HEADER_MULTIFUNCTION, section=_S + "1 HEADTYP", region=CONFIG_REGION),
    _config("PMBASE", PMBASE, 32, 0x00000001, "base of the power management registers", 0xFF87),
    _config("ACPI_CNTL", ACPI_CNTL, 8, 0, "ACPI_EN maps PMBASE; SCI_IRQ_SEL routes the SCI"),
    *(_config(f"PIRQ{'ABCD'[n]}_ROUT", PIRQA_ROUT + n, 8, PIRQ_IRQEN, f"routes PIRQ{'ABCD'[n]}#, from its next change on") for n in range(4)),
    *(_config(f"PIRQ{'EFGH'[n]}_ROUT", PIRQE_ROUT + n, 8, PIRQ_IRQEN, f"routes PIRQ{'EFGH'[n]}#, from its next change on") for n in range(4)),
    _config("LPC_IO_DEC", LPC_IO_DEC, 16, 0),
    _config("LPC_EN", LPC_IO_DEC + 2, 16, None, "reports serial and parallel ports and the floppy controller"),
    _config("GEN_PMCON_1", GEN_PMCON_1, 16, 0, "SMI_LOCK locks itself and SMI_EN.GBL_SMI_EN", 0xFFFF & ~SMI_LOCK, "8.1 "),
    _config("RCBA", RCBA, 32, 0, "maps the root complex block"),
    Register("PM1_STS", PM1_STS, 16, RW1C, None, 0, "clears SCI sources", _S + "8.3 PM1_STS", EVT_REGION, w1c=0xFFFF),
    Register("PM1_EN", PM1_EN, 16, RW, 0, 0xFFFF, "enables SCI sources", _S + "8.3 PM1_EN", EVT_REGION),
    Register("PM1_CNT", 0, 16, RW, 0, 0xFFFF & ~SLP_EN, "SLP_EN suspends", _S + "8.3 PM1_CNT", CNT_REGION),
    Register("PM1_TMR", 0, 32, RO, None, 0, section=_S + "8.3 PM1_TMR", region=TMR_REGION),
    Register("GPE0_STS", 0, 64, RW1C, 0, 0, "clears SCI sources", _S + "8.3 GPE0_STS", GPE_REGION, w1c=0xFFFFFFFFFFFFFFFF),
    Register("GPE0_EN", GPE_HALF, 64, RW, 0, 0xFFFFFFFFFFFFFFFF, "enables SCI sources", _S + "8.3 GPE0_EN", GPE_REGION),
    Register("SMI_EN", SMI_EN, 32, RW, 0, 0xFFFFFFFF, "APMC_EN, TCO_EN let APM_CNT and TCO make SMIs", _S + "8.3 SMI_EN", SMI_REGION),
    Register("SMI_STS", SMI_EN + 4, 32, RO, 0, section=_S + "8.3 SMI_STS", region=SMI_REGION),
    _tco("TCO_RLD", TCO_RLD, 16, 0, 0, "any write reloads the timer"),
    _tco("TCO_DAT_IN", TCO_DAT_IN, 8, 0, 0xFF, "makes an SMI"),
    _tco("TCO_DAT_OUT", TCO_DAT_OUT, 8, 0, 0xFF, "sets TCO_INT_STS"),
    _tco("TCO1_STS", TCO1_STS, 16, 0, TCO1_STS_MASK),
    _tco("TCO2_STS", TCO2_STS, 16, 0, TCO2_STS_MASK),
    _tco("TCO1_CNT", TCO1_CNT, 16, 0, TCO1_CNT_MASK & ~TCO_LOCK, "TCO_TMR_HLT stops the timer, else it is reloaded; TCO_LOCK locks itself and SMI_EN.TCO_EN"),
    _tco("TCO2_CNT", TCO2_CNT, 16, TCO2_CNT_RESET, 0xFFFF),
    _tco("TCO_MESSAGE1", TCO_MESSAGE1, 8, 0, 0xFF),
    _tco("TCO_MESSAGE2", TCO_MESSAGE2, 8, 0, 0xFF),
    _tco("TCO_WDCNT", TCO_WDCNT, 8, 0, 0xFF),
    _tco("SW_IRQ_GEN", SW_IRQ_GEN, 8, SW_IRQ_RESET, 0xFF),
    _tco("TCO_TMR", TCO_TMR, 16, TCO_TMR_RESET, 0xFFFF, "the next reload's count"),
    *(Register(f"D{n}IR", at, 16, RW, DIR_RESET, 0xFFFF, f"routes INTA# to INTD# of slot {n}", f"316972-004 10.1 D{n}IR", RC_REGION)
      for n, at in _ROUTES),
    Register("D30IR", D30IR, 16, RW, 0, 0xFFFF, "none", "316972-004 10.1 D30IR", RC_REGION),
    Register("GCS", GCS, 32, RW, GCS_NO_REBOOT, 0xFFFFFFFF, "NO_REBOOT: TCO's second timeout does not reset; nor does it with the strap", "316972-004 10.1 GCS", RC_REGION),
    Register("APM_CNT", 0, 8, RW, 0, 0xFF, "SMI; 02h and 03h set and clear SCI_EN", _S + "7 APM_CNT", APM_REGION),
    Register("APM_STS", 1, 8, RW, 0, 0xFF, "none", _S + "7 APM_STS", APM_REGION),
    Register("RST_CNT", 0, 8, RW, 0, SYS_RST | FULL_RST, "bit 2 resets the machine", _S + "7 RST_CNT", RST_REGION),
    *hotplug_registers(PCIHP_REGION, 0xFFFFFFFF),
)
IN = (*(f"pirq{c}" for c in "abcdefgh"), *(f"d{slot}{pin}" for slot in range(25, 32) for pin in "abcd"), "pwrbtn", *HOTPLUG_PINS)
OUT = ("inta", *(f"gsi{n}" for n in range(N_GSI)), "smi", "power_off", "suspend", "watchdog", "eject")

# Where the routes of slots 25 to 31 are.
cdef uint16_t DIR_AT[7]
DIR_AT[:] = [D25IR, D26IR, D27IR, D28IR, D29IR, D30IR, D31IR]


@cython.final
cdef class Ich9Lpc(PciFunction):
    """The LPC bridge, function 0 of its device.

    Settings: smm: the board has SMM (else APM_CNT makes an SMI from reset on); serial1, serial2, parallel, floppy: what LPC_EN
    reports as present; those of hot-plug: engine/devices/_hotplug.pyx.

    pirqa-pirqh: wired-OR levels of the board's PCI interrupt lines; dNNa-dNNd: INTA# to INTD# of the chipset's own slots, which
    DNNIR routes; pwrbtn: the power button (a rising edge presses it); pci_plug, pci_unplug, cpu_plug, cpu_unplug tell of what
    comes and is to go.  gsi0-gsi15 are ISA interrupts, for the 8259s and the
    IOAPIC, gsi16-gsi23 the IOAPIC's own; smi and watchdog give a pulse, as eject does where software lets something go
    (`taken`); power_off and suspend rise when software asks for it and fall at reset.
    """
    TITLE = "Intel 82801IB (ICH9) LPC bridge"
    REGISTERS = REGISTERS
    IN = IN
    OUT = OUT
    TIMED_RESET = True              # TCO: what can bring its reset nearer is a barrier
    CONFIG = {**PCI_CONFIG, "multifunction": True, "smm": True, "serial1": True, "serial2": False, "parallel": False, "floppy": False,
              "no_reboot": True, "action": "reset", **HOTPLUG_CONFIG}
    STATE = PCI_STATE + (
        ("pm_base", "u8"), ("rc_base", "u8"), ("tco_expires", "u8"), *ACPI_PM_STATE, *HOTPLUG_STATE, ("smi_en", "u4"), ("smi_sts", "u4"),
        ("tco_rld", "u2"), ("tco1_sts", "u2"), ("tco2_sts", "u2"), ("tco1_cnt", "u2"), ("tco2_cnt", "u2"), ("tco_tmr", "u2"),
        ("tco_din", "u1"), ("tco_dout", "u1"), ("tco_msg1", "u1"), ("tco_msg2", "u1"), ("tco_wdcnt", "u1"), ("sw_irq_gen", "u1"),
        ("tco_timeouts", "u1"), ("apmc", "u1"), ("apms", "u1"), ("rst_cnt", "u1"), ("smi_locked", "u1"), ("sci", "u1"), ("sci_gsi", "u1"),
        ("highs", "u1", N_PIRQ), ("pirq_of", "u1", 28), ("rc", "u1", RC_SIZE))

    def __init__(self, str id="ich9-lpc", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        c = self.config
        hotplug_facts_of(&self.facts, id, c)
        self.smm = c["smm"]
        self.no_reboot = c["no_reboot"]
        self.set_action(c["action"])
        self.s = <ich9_lpc_state *>self.pci_alloc(sizeof(ich9_lpc_state))
        self.s.pm_base = self.s.rc_base = UNMAPPED
        self.identify(0x8086, 0x2918, 0x02, 0x060100)
        for n in range(HEADER_SIZE, CONFIG_SIZE):
            self.keep[n] = not (PMBASE <= n <= ACPI_CNTL or PIRQA_ROUT <= n < PIRQA_ROUT + 4 or PIRQE_ROUT <= n < PIRQE_ROUT + 4
                                or RCBA <= n < RCBA + 4)
        self.initial[PMBASE] = 0x01
        self.wmask[PMBASE] = 0x87
        self.wmask[PMBASE + 2] = self.wmask[PMBASE + 3] = 0
        for n in range(4):
            self.initial[PIRQA_ROUT + n] = self.initial[PIRQE_ROUT + n] = PIRQ_IRQEN
        for bit, name in enumerate(("serial1", "serial2", "parallel", "floppy")):
            if c[name]:
                self.initial[LPC_IO_DEC + 2] |= 1 << bit
        self.power_on()

    def set_action(self, str action):
        """What TCO's second timeout does beside its pulse, from now on.  Raises MachineError."""
        self.resets = checked_action(self.id, action)

    def fixed_regions(self):
        return (Region("pm-event", Space.PIO, 4, (1, 2, 4), (2, 2)),
                Region("pm-control", Space.PIO, 2, (1, 2, 4), (2, 2)),
                Region("pm-timer", Space.PIO, 4, (1, 2, 4), (4, 4), clock=PM_CLOCK),
                Region("gpe0", Space.PIO, GPE_SIZE, (1, 2, 4), (1, 1)),
                Region("smi", Space.PIO, SMI_SIZE),
                Region("tco", Space.PIO, TCO_SIZE, (1, 2, 4), (1, 2), barrier=True),
                Region("root-complex", Space.MMIO, RC_SIZE, (1, 2, 4, 8), (1, 4), barrier=True, priority=1),
                Region("apm", Space.PIO, 2, (1, 2, 4), (1, 1)),
                Region("reset-control", Space.PIO, 1, barrier=True, priority=1),
                Region("pci-hotplug", Space.PIO, PCI_HOTPLUG_SIZE),
                Region("cpu-hotplug", Space.PIO, CPU_LEGACY_SIZE, (1, 2, 4), (1, 4)),
                Region("mem-hotplug", Space.PIO, MEM_HOTPLUG_SIZE, (1, 2, 4), (1, 4)))

    def mappings(self):
        out = PciFunction.mappings(self)
        on = self.s.pm_base != UNMAPPED
        for region, at in ((EVT_REGION, PM1_AT), (CNT_REGION, PM1_CNT_AT), (TMR_REGION, PM1_TMR_AT), (GPE_REGION, GPE0_AT), (SMI_REGION, SMI_AT),
                           (TCO_REGION, TCO_AT)):
            out.append((region, int(on), self.s.pm_base + at if on else 0))
        on = self.s.rc_base != UNMAPPED
        out.append((RC_REGION, int(on), self.s.rc_base if on else 0))
        return out

    # ------------------------------------------------------------------ accesses

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = 0
        if region == TMR_REGION:
            value[0] = pm_ticks(self.core.now) & PM_TIMER_MASK
        elif region == EVT_REGION:
            value[0] = pm_status(&self.s.pm, self.core.now) if offset == PM1_STS else self.s.pm.pmen if offset == PM1_EN else 0
        elif region == CNT_REGION:
            value[0] = self.s.pm.pmcntrl
        elif region == GPE_REGION:
            if offset >= GPE_SIZE:
                return IO_NO_REGISTER
            value[0] = self.s.pm.gpe[offset]
        elif region == SMI_REGION:
            if size == 4:
                value[0] = self.s.smi_en if offset == SMI_EN else self.s.smi_sts if offset == SMI_EN + 4 else 0
        elif region == TCO_REGION:
            value[0] = self.tco_read(offset)
        elif region == RC_REGION:
            if offset + size > RC_SIZE:
                return IO_NO_REGISTER
            memcpy(value, self.s.rc + offset, size)
        elif region == APM_REGION:
            value[0] = self.s.apms if offset & 1 else self.s.apmc
        elif region == RST_REGION:
            value[0] = self.s.rst_cnt
        elif hotplug_read(&self.s.hotplug, &self.facts, region - PCIHP_REGION, offset, size, value):
            return IO_NO_REGISTER
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef int gone
        if region == EVT_REGION:
            pm_event_write(&self.s.pm, self.core.now, offset, <uint16_t>value)
            self.update_sci()
        elif region == CNT_REGION:
            self.sleep(pm_control_write(&self.s.pm, <uint16_t>value))
        elif region == TMR_REGION:
            pass
        elif region == GPE_REGION:
            if offset >= GPE_SIZE:
                return IO_NO_REGISTER
            pm_gpe_write(&self.s.pm, GPE_HALF, offset, <uint8_t>value)
            self.update_sci()
        elif region == SMI_REGION:
            if size == 4 and offset == SMI_EN:
                self.smi_en_write(<uint32_t>value)
        elif region == TCO_REGION:
            self.tco_write(offset, <uint16_t>value)
            self.update_sci()
        elif region == RC_REGION:
            if offset + size > RC_SIZE:
                return IO_NO_REGISTER
            self.tco_catch_up()
            memcpy(self.s.rc + offset, &value, size)
            self.update_sci()
        elif region == APM_REGION:
            if offset & 1:
                self.s.apms = <uint8_t>value
            else:
                self.apmc_write(<uint8_t>value)
        elif region == RST_REGION:
            if value & RST_CPU:
                self.emit(ENGINE_EFFECT_RESET, 0, 0, RESET_BUS)
            else:
                self.s.rst_cnt = <uint8_t>(value & (SYS_RST | FULL_RST))
        else:
            gone = hotplug_write(&self.s.hotplug, &self.facts, region - PCIHP_REGION, offset, size, value)
            if gone < 0:
                return IO_NO_REGISTER
            if gone:
                self.eject()
        return IO_OK

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        cdef uint32_t pirq
        if kind != INPUT_LINE:
            return 0
        if pin < SLOT_PIN:
            self.s.highs[pin] += 1 if value else -1
            self.update_pirq(pin)
        elif pin < PWRBTN_PIN:
            # a pin that is high stays with its PIRQ, whatever becomes of its route
            pin -= SLOT_PIN
            if value:
                pirq = self.pirq_for(FIRST_SLOT + pin // 4, pin & 3)
                self.s.pirq_of[pin] = <uint8_t>(1 + pirq)
                self.s.highs[pirq] += 1
                self.update_pirq(pirq)
            elif self.s.pirq_of[pin]:
                pirq = self.s.pirq_of[pin] - 1
                self.s.pirq_of[pin] = 0
                self.s.highs[pirq] -= 1
                self.update_pirq(pirq)
        elif value and pin <= HOTPLUG_IN + 3:
            if pin >= HOTPLUG_IN:
                self.s.pm.gpe[0] |= hotplug_input(&self.s.hotplug, &self.facts, pin - HOTPLUG_IN, addr)
            elif self.s.pm.pmen & PWRBTN_STS:
                self.s.pm.pmsts |= PWRBTN_STS
            self.update_sci()
        return 0

    # ------------------------------------------------------------------ configuration space: 13.1

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        cdef uint8_t gsi
        self.update_ranges()
        gsi = self.sci_route()
        if gsi != self.s.sci_gsi:
            if self.s.sci:
                self.set_sci(0)
                self.s.sci_gsi = gsi
                self.set_sci(1)
            self.s.sci_gsi = gsi
        if offset < GEN_PMCON_1 + 8 and offset + size > GEN_PMCON_1 and self.p.config[GEN_PMCON_1] & SMI_LOCK:
            self.s.smi_locked = 1
        self.lock()

    cdef void lock(self) noexcept nogil:
        """GEN_PMCON_1.SMI_LOCK stays set: 13.8.1.1."""
        self.wmask[GEN_PMCON_1] = 0xff & ~SMI_LOCK if self.p.config[GEN_PMCON_1] & SMI_LOCK else 0xff

    cdef void update_ranges(self) noexcept nogil:
        """Publish where the power management registers and the root complex block answer."""
        cdef uint64_t base = self.config32(PMBASE) & PMBASE_MASK if self.p.config[ACPI_CNTL] & ACPI_EN else 0
        cdef bint on = base != 0
        if not on:
            base = UNMAPPED
        if base != self.s.pm_base:
            self.s.pm_base = base
            self.set_map(EVT_REGION, on, base + PM1_AT)
            self.set_map(CNT_REGION, on, base + PM1_CNT_AT)
            self.set_map(TMR_REGION, on, base + PM1_TMR_AT)
            self.set_map(GPE_REGION, on, base + GPE0_AT)
            self.set_map(SMI_REGION, on, base + SMI_AT)
            self.set_map(TCO_REGION, on, base + TCO_AT)
        base = self.config32(RCBA) & RCBA_MASK if self.p.config[RCBA] & RCBA_EN else UNMAPPED
        if base != self.s.rc_base:
            self.s.rc_base = base
            self.set_map(RC_REGION, base != UNMAPPED, base)

    # ------------------------------------------------------------------ interrupts: 13.1 PIRQx_ROUT, 10.1 DnnIR

    cdef uint32_t pirq_for(self, uint32_t slot, uint32_t intx) noexcept nogil:
        """The PIRQ of a slot's interrupt pin, by DnnIR.  Slot 30, the bridge to PCI, has PIRQE to PIRQH."""
        if slot == 30:
            return 4 + intx
        return self.s.rc[DIR_AT[slot - FIRST_SLOT] + intx // 2] >> (4 * (intx & 1)) & 7

    cdef void update_gsi(self, uint32_t gsi) noexcept nogil:
        """A GSI's level: its own PIRQ, or the PIRQs routed to it; and the SCI."""
        cdef bint level = self.s.sci and self.s.sci_gsi == gsi
        cdef uint32_t n
        cdef uint8_t route
        if gsi >= N_PIC:
            level = level or self.s.highs[gsi - GSI_PIRQA]
        else:
            for n in range(<uint32_t>N_PIRQ):
                route = self.p.config[(PIRQA_ROUT if n < 4 else PIRQE_ROUT - 4) + n]
                if self.s.highs[n] and not route & PIRQ_IRQEN and route & PIRQ_IRQ == gsi:
                    level = True
        self.set_line(OUT_GSI + gsi, level)

    cdef void update_pirq(self, uint32_t pirq) noexcept nogil:
        """A PIRQ has changed: its GSI, and the ISA interrupt its route names, even a route that is off."""
        self.update_gsi(GSI_PIRQA + pirq)
        self.update_gsi(self.p.config[(PIRQA_ROUT if pirq < 4 else PIRQE_ROUT - 4) + pirq] & PIRQ_IRQ)

    cdef uint8_t sci_route(self) noexcept nogil:
        """ACPI_CNTL.SCI_IRQ_SEL; a reserved value leaves the route."""
        cdef uint32_t n = self.p.config[ACPI_CNTL] & SCI_IRQ_SEL
        if n < 3:
            return <uint8_t>(9 + n)
        if n == 4 or n == 5:
            return <uint8_t>(16 + n)
        return self.s.sci_gsi

    cdef void set_sci(self, bint level) noexcept nogil:
        if level != self.s.sci:
            self.s.sci = level
            self.update_gsi(self.s.sci_gsi)

    # ------------------------------------------------------------------ power management: 13.8

    cdef void sleep(self, uint32_t asked) noexcept nogil:
        if asked == SLEEP_OFF:
            self.set_line(OUT_POWER_OFF, 1)
        elif asked == SLEEP_SUSPEND:
            self.set_line(OUT_SUSPEND, 1)

    cdef void update_sci(self) noexcept nogil:
        cdef uint64_t deadline
        self.set_sci(pm_sci(&self.s.pm, GPE_HALF, self.core.now, &deadline))
        if self.tco_heard() and self.s.tco_expires < deadline:
            deadline = self.s.tco_expires
        self.set_deadline(deadline)

    cdef void on_time(self) noexcept nogil:
        if self.core.now >= self.s.tco_expires and self.tco_heard():
            self.tco_expired()
        self.update_sci()

    cdef void smi_en_write(self, uint32_t value) noexcept nogil:
        """13.8.3 SMI_EN, under the locks of TCO1_CNT and GEN_PMCON_1."""
        cdef uint32_t held = 0
        self.tco_catch_up()
        if self.s.tco1_cnt & TCO_LOCK:
            held |= TCO_EN
        if self.s.smi_locked:
            held |= GBL_SMI_EN
        self.s.smi_en = self.s.smi_en & held | value & ~held
        self.update_sci()

    cdef void eject(self) noexcept nogil:
        """Tell the host that there is something to take out."""
        self.set_line(OUT_EJECT, 1)
        self.set_line(OUT_EJECT, 0)

    def taken(self):
        """What software has let go since the last call: ("pci", bus, slot) and ("cpu", number)."""
        return hotplug_taken(&self.s.hotplug, &self.facts)

    cdef void smi(self) noexcept nogil:
        self.set_line(OUT_SMI, 1)
        self.set_line(OUT_SMI, 0)

    cdef void apmc_write(self, uint8_t value) noexcept nogil:
        """A request to the firmware.  The two values by which an OS turns ACPI mode on and off are answered here."""
        self.s.apmc = value
        if value == ACPI_ENABLE or value == ACPI_DISABLE:
            pm_acpi_mode(&self.s.pm, value == ACPI_ENABLE)
        elif self.s.smi_en & APMC_EN:
            self.smi()

    # ------------------------------------------------------------------ TCO: 13.9

    cdef uint64_t tco_period(self) noexcept nogil:
        return <uint64_t>(self.s.tco_tmr & TCO_COUNT) * TCO_TICK

    cdef bint tco_heard(self) noexcept nogil:
        """Does a timeout do anything that is seen at once: an SMI, or the second one's reset?"""
        return self.s.smi_en & TCO_EN or self.tco_reboots()

    cdef bint tco_reboots(self) noexcept nogil:
        """10.1 GCS.NO_REBOOT, which cannot override the strap."""
        return not self.no_reboot and not self.s.rc[GCS] & GCS_NO_REBOOT

    cdef void tco_reload(self) noexcept nogil:
        """From now on the whole count.  One of 0 stops the timer: 13.9 TCO_TMR."""
        self.s.tco_rld = self.s.tco_tmr
        self.s.tco_expires = self.core.now + self.tco_period() if self.tco_period() else NEVER

    cdef bint tco_runs(self) noexcept nogil:
        return not self.s.tco1_cnt & TCO_TMR_HLT and self.s.tco_tmr > 1

    cdef void tco_expired(self) noexcept nogil:
        """A timeout at this moment: every second one resets the machine, unless that is forbidden."""
        self.s.tco_rld = 0
        self.s.tco1_sts |= TIMEOUT
        self.s.tco_timeouts += 1
        if self.s.tco_timeouts == 2:
            self.s.tco2_sts |= SECOND_TO_STS | BOOT_STS
            self.s.tco_timeouts = 0
            if self.tco_reboots():
                self.s.tco_expires = NEVER
                self.set_line(OUT_WATCHDOG, 1)
                self.set_line(OUT_WATCHDOG, 0)
                if self.resets:
                    self.emit(ENGINE_EFFECT_RESET, 0, 0, RESET_BUS)
                return
        if self.s.smi_en & TCO_EN:
            self.smi()
        self.tco_reload()

    cdef void tco_catch_up(self) noexcept nogil:
        """Timeouts until now that nobody heard, all at once."""
        cdef uint64_t period = self.tco_period(), n = 1, all
        if self.s.tco_expires > self.core.now:
            return
        if period:
            n += (self.core.now - self.s.tco_expires) // period
        all = self.s.tco_timeouts + n
        self.s.tco_rld = self.s.tco_tmr
        self.s.tco1_sts |= TIMEOUT
        if all >= 2:
            self.s.tco2_sts |= SECOND_TO_STS | BOOT_STS
        self.s.tco_timeouts = all & 1
        self.s.tco_expires = self.s.tco_expires + n * period if period else NEVER

    cdef uint16_t tco_read(self, uint32_t offset) noexcept nogil:
        self.tco_catch_up()
        if offset == TCO_RLD:
            if self.s.tco_expires == NEVER:
                return self.s.tco_rld
            return <uint16_t>((self.s.tco_expires - self.core.now) // TCO_TICK) | self.s.tco_rld & ~<uint16_t>TCO_COUNT
        if offset == TCO_DAT_IN:
            return self.s.tco_din
        if offset == TCO_DAT_OUT:
            return self.s.tco_dout
        if offset == TCO1_STS:
            return self.s.tco1_sts
        if offset == TCO2_STS:
            return self.s.tco2_sts
        if offset == TCO1_CNT:
            return self.s.tco1_cnt
        if offset == TCO2_CNT:
            return self.s.tco2_cnt
        if offset == TCO_MESSAGE1:
            return self.s.tco_msg1
        if offset == TCO_MESSAGE2:
            return self.s.tco_msg2
        if offset == TCO_WDCNT:
            return self.s.tco_wdcnt
        if offset == SW_IRQ_GEN:
            return self.s.sw_irq_gen
        return self.s.tco_tmr if offset == TCO_TMR else 0

    cdef void tco_write(self, uint32_t offset, uint16_t value) noexcept nogil:
        """A narrow write is a whole one with zeros above it."""
        self.tco_catch_up()
        if offset == TCO_RLD:
            self.s.tco_timeouts = 0
            if self.tco_runs():
                self.tco_reload()
            else:
                self.s.tco_rld = value
        elif offset == TCO_DAT_IN:
            self.s.tco_din = <uint8_t>value
            self.s.tco1_sts |= SW_TCO_SMI
            self.smi()
        elif offset == TCO_DAT_OUT:
            self.s.tco_dout = <uint8_t>value
            self.s.tco1_sts |= TCO_INT_STS
        elif offset == TCO1_STS:
            self.s.tco1_sts = value & TCO1_STS_MASK
        elif offset == TCO2_STS:
            self.s.tco2_sts = value & TCO2_STS_MASK
        elif offset == TCO1_CNT:
            self.s.tco1_cnt = value & TCO1_CNT_MASK | self.s.tco1_cnt & TCO_LOCK
            if self.tco_runs():
                self.tco_reload()
            else:
                self.s.tco_expires = NEVER
        elif offset == TCO2_CNT:
            self.s.tco2_cnt = value
        elif offset == TCO_MESSAGE1:
            self.s.tco_msg1 = <uint8_t>value
        elif offset == TCO_MESSAGE2:
            self.s.tco_msg2 = <uint8_t>value
        elif offset == TCO_WDCNT:
            self.s.tco_wdcnt = <uint8_t>value
        elif offset == SW_IRQ_GEN:
            self.s.sw_irq_gen = <uint8_t>value
        elif offset == TCO_TMR:
            self.s.tco_tmr = value

    # ------------------------------------------------------------------ reset

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """Routes, bases, fixed registers and the root complex block go back; TCO, the APM ports, the hot-plug selectors and the
        rest of configuration space keep their state."""
        cdef uint32_t n
        if kind == RESET_POWER_ON:
            self.power_up()
        elif hotplug_reset(&self.s.hotplug, &self.facts):
            self.eject()
        self.tco_catch_up()
        PciFunction.on_reset(self, kind)
        pm_reset(&self.s.pm)
        self.s.smi_en = 0 if self.smm else APMC_EN
        self.s.smi_locked = 0
        self.s.rst_cnt = 0
        self.s.sci = 0
        self.s.sci_gsi = 9
        memset(self.s.rc, 0, RC_SIZE)
        for n in range(<uint32_t>7):
            if FIRST_SLOT + n != 30:
                self.s.rc[DIR_AT[n]] = DIR_RESET & 0xff
                self.s.rc[DIR_AT[n] + 1] = DIR_RESET >> 8
        self.s.rc[GCS] = GCS_NO_REBOOT
        self.set_line(OUT_SMI, 0)
        self.set_line(OUT_POWER_OFF, 0)
        self.set_line(OUT_SUSPEND, 0)
        for n in range(<uint32_t>N_GSI):
            self.update_gsi(n)
        self.lock()
        self.update_ranges()
        self.update_sci()

    cdef void power_up(self) noexcept nogil:
        """What only power-on sets.  No input is high then."""
        self.s.tco_expires = NEVER
        self.s.tco_rld = self.s.tco1_sts = self.s.tco2_sts = self.s.tco1_cnt = 0
        self.s.tco_din = self.s.tco_dout = self.s.tco_msg1 = self.s.tco_msg2 = self.s.tco_wdcnt = 0
        self.s.tco2_cnt = TCO2_CNT_RESET
        self.s.tco_tmr = TCO_TMR_RESET
        self.s.sw_irq_gen = SW_IRQ_RESET
        self.s.tco_timeouts = 0
        self.s.apmc = self.s.apms = 0
        self.s.smi_sts = 0
        memset(&self.s.hotplug, 0, sizeof(acpi_hotplug))
        memset(self.s.highs, 0, sizeof(self.s.highs))
        memset(self.s.pirq_of, 0, sizeof(self.s.pirq_of))

    def restore(self, dict state not None):
        """As Device.restore; an interrupt line or a PIRQ that does not exist is refused too, as both are indices."""
        gsi, pirqs = state.get("sci_gsi"), state.get("pirq_of")
        if isinstance(gsi, int) and gsi >= N_GSI:
            raise StateError(f"{self.id}: field sci_gsi: there is no line {gsi}")
        if isinstance(pirqs, list) and any(isinstance(p, int) and p > N_PIRQ for p in pirqs):
            raise StateError(f"{self.id}: field pirq_of: {max(pirqs)} is no PIRQ")
        PciFunction.restore(self, state)

    def on_restore(self):
        PciFunction.on_restore(self)
        self.lock()
