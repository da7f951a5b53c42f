"""Intel 82371SB (PIIX3), function 0: PCI-to-ISA bridge.  Document: 290550-001 (May 1996).

Modelled: configuration space, routing of PIRQA# to PIRQD# to ISA interrupts, the reset control register.  Not modelled: what
lies behind X-bus chip selects, motherboard-device routing (MBIRQ, MBDMA), power management of function 0 (SMICNTL and the
timers after it); these registers are stored, without effect.  The parts inside the chip (8237s, 8254, 8259s, NMI logic) are
devices of their own.  Called by the owning worker only.
"""
from engine._abi cimport ENGINE_EFFECT_RESET
from engine._device cimport INPUT_LINE, IO_NO_REGISTER, IO_OK, RESET_BUS, RESET_POWER_ON, io_status, reset_kind
from engine.pci._config cimport CONFIG_REGION
from engine.pci.regs cimport *

from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.types import RO, RW, RW1C, Region, Register, Space

_S = "290550-001 2.2 "


def _private(name, offset, width, reset, effect="none"):
    return Register(name, offset, width, RW, reset, (1 << width) - 1, effect, _S + name, CONFIG_REGION)


REGISTERS = (
    Register("VID", VENDOR_ID, 16, RO, 0x8086, section=_S + "VID", region=CONFIG_REGION),
    Register("DID", DEVICE_ID, 16, RO, 0x7000, section=_S + "DID", region=CONFIG_REGION),
    Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates, see docs", _S + "PCICMD", CONFIG_REGION),
    Register("PCISTS", STATUS, 16, RW1C, STATUS_DEVSEL_MEDIUM, section=_S + "PCISTS", region=CONFIG_REGION, w1c=STATUS_W1C),
    Register("RID", REVISION_ID, 8, RO, 0, section=_S + "RID", region=CONFIG_REGION),
    Register("PI", CLASS_CODE, 8, RO, 0x00, section=_S + "CLASSC", region=CONFIG_REGION),
    Register("SCC", CLASS_CODE + 1, 8, RO, 0x01, section=_S + "CLASSC", region=CONFIG_REGION),
    Register("BCC", CLASS_CODE + 2, 8, RO, 0x06, section=_S + "CLASSC", region=CONFIG_REGION),
    Register("HEDT", HEADER_TYPE, 8, RO, HEADER_MULTIFUNCTION, section=_S + "HEDT", region=CONFIG_REGION),
    _private("IORT", IORT, 8, 0x4D),
    _private("XBCS", XBCS, 16, 0x0003),
    *(_private(f"PIRQRC{'ABCD'[n]}", PIRQRCA + n, 8, PIRQ_DISABLE, f"routes PIRQ{'ABCD'[n]}#") for n in range(4)),
    _private("TOM", TOM, 8, 0x02),
    _private("MSTAT", MSTAT, 16, 0x0000),
    _private("MBIRQ0", MBIRQ0, 8, 0x80),
    _private("MBIRQ1", MBIRQ1, 8, 0x00),
    _private("MBDMA0", MBDMA0, 8, 0x0C),
    _private("MBDMA1", MBDMA0 + 1, 8, 0x0C),
    _private("PCSC", PCSC, 16, 0x0002),
    _private("APICBASE", APICBASE, 8, 0x00),
    _private("DLC", DLC, 8, 0x00),
    _private("SMICNTL", SMICNTL, 8, 0x08),
    _private("SMIEN", SMIEN, 16, 0x0000),
    _private("SEE", SEE, 32, 0x00000000),
    _private("FTMR", FTMR, 8, 0x0F),
    _private("SMIREQ", SMIREQ, 16, 0x0000),
    _private("CTLTMR", CTLTMR, 8, 0x00),
    _private("CTHTMR", CTHTMR, 8, 0x00),
    Register("RC", 0, 8, RW, 0, RC_SRST, "bit 2 resets the machine", "290550-001 2.5 RC", RCR_REGION),
)
OUT = ("inta", *(f"isa{n}" for n in range(N_ISA)), "lower")
# Registers that the reference's bus reset leaves alone; it leaves the bytes that no register owns alone, too.
_KEPT = ("MSTAT", "MBIRQ1")


cdef class Piix3(PciFunction):
    """The ISA bridge, function 0 of its device.  pirqa-pirqd: wired-OR levels of the board's PCI interrupt lines.  lower:
    a pulse when PIRQRC is written, for devices whose interrupt the reference's bridge then takes low."""
    TITLE = "Intel 82371SB (PIIX3) PCI-to-ISA bridge"
    REGISTERS = REGISTERS
    STATE = PCI_STATE + (("pirq", "u1"), ("rc", "u1"), ("pad", "u1", 6))
    IN = ("pirqa", "pirqb", "pirqc", "pirqd")
    CONFIG = {**PCI_CONFIG, "multifunction": True}
    OUT = OUT

    def __init__(self, str id="piix3", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.s = <piix3_state *>self.pci_alloc(sizeof(piix3_state))
        self.identify(0x8086, 0x7000, 0, 0x060100)
        self.initial[STATUS + 1] = STATUS_DEVSEL_MEDIUM >> 8
        for r in REGISTERS:
            if r.region == CONFIG_REGION and r.offset >= HEADER_SIZE:
                for n in range(r.width // 8):
                    self.initial[r.offset + n] = r.reset >> (8 * n) & 0xff
                    self.keep[r.offset + n] = r.name in _KEPT
        self.power_on()

    def fixed_regions(self):
        return (Region("reset-control", Space.PIO, 1, (1, 2, 4), (1, 1), barrier=True),)

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if region != RCR_REGION:
            return IO_NO_REGISTER
        value[0] = self.s.rc
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """RC.  Both types of reset (SRST) end in the board's reset.  Wider accesses meet the register byte by byte."""
        if region != RCR_REGION:
            return IO_NO_REGISTER
        if value & RC_RCPU:
            self.emit(ENGINE_EFFECT_RESET, 0, 0, RESET_BUS)
        else:
            self.s.rc = <uint8_t>(value & RC_SRST)
        return IO_OK

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        self.update_irq()
        if offset < PIRQRCA + N_PIRQ and offset + size > PIRQRCA:
            self.set_line(LOWER, 1)
            self.set_line(LOWER, 0)

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        if kind == INPUT_LINE and pin < N_PIRQ:
            if value:
                self.s.pirq |= <uint8_t>(1 << pin)
            else:
                self.s.pirq &= <uint8_t>~(1 << pin)
            self.update_irq()
        return 0

    cdef void update_irq(self) noexcept nogil:
        """Each ISA interrupt is the OR of the PIRQs routed to it (PIRQRC).  A route of 10h and more goes nowhere."""
        cdef uint32_t isa = 0
        cdef int n
        cdef uint8_t route
        for n in range(N_PIRQ):
            route = self.p.config[PIRQRCA + n]
            if self.s.pirq >> n & 1 and route < N_ISA:
                isa |= <uint32_t>1 << route
        for n in range(N_ISA):
            self.set_line(ISA0 + n, isa >> n & 1)

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        PciFunction.on_reset(self, kind)
        self.s.rc = 0
        if kind == RESET_POWER_ON:
            self.s.pirq = 0
        self.update_irq()
