"""Intel 82441FX (PMC), host bridge of the i440FX chipset.  Document: 82441FX data sheet, 290549-001 (May 1996).

Modelled: configuration space; PAM and SMRAM, whose changes go to the router as MAP effects, because the memory they steer is
the board's.  Not modelled: DRAM timing and sizing (DRT, DRB, FDHC: stored, without effect), ECC and error reporting, the turbo
control, the lock bit of SMRAM (D_LCK is stored; see docs/devices/i440fx.md).

MAP effects: pin 8 + n is PAM segment n (0: F0000h-FFFFFh; 1 to 12: 16 KiB each from C0000h), value its attributes (bit 0 reads,
bit 1 writes go to DRAM); pin 21 is SMRAM, value the register.  addr is 1: the ranges themselves never move.
Called by the owning worker only.
"""
from engine.pci.regs cimport *
from engine.pci._config cimport CONFIG_REGION
from engine._abi cimport ENGINE_EFFECT_MAP
from engine._device cimport IO_NO_REGISTER, io_status, reset_kind

from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.types import RO, RW, RW1C, Region, Register, Space

_S = "290549-001 3.2 "
REGISTERS = (
    Register("VID", VENDOR_ID, 16, RO, 0x8086, section=_S + "VID", region=CONFIG_REGION),
    Register("DID", DEVICE_ID, 16, RO, 0x1237, section=_S + "DID", region=CONFIG_REGION),
    Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates, see docs", _S + "PCICMD", CONFIG_REGION),
    Register("PCISTS", STATUS, 16, RW1C, 0, section=_S + "PCISTS", region=CONFIG_REGION, w1c=STATUS_W1C),
    Register("RID", REVISION_ID, 8, RO, 0x02, section=_S + "RID", region=CONFIG_REGION),
    Register("PI", CLASS_CODE, 8, RO, 0x00, section=_S + "CLASSC", region=CONFIG_REGION),
    Register("SCC", CLASS_CODE + 1, 8, RO, 0x00, section=_S + "CLASSC", region=CONFIG_REGION),
    Register("BCC", CLASS_CODE + 2, 8, RO, 0x06, section=_S + "CLASSC", region=CONFIG_REGION),
    Register("HEDT", HEADER_TYPE, 8, RO, 0, section=_S + "HEDT", region=CONFIG_REGION),
    Register("PMCCFG", PMCCFG, 16, RW, 0, 0xFFFF, "none", _S + "PMCCFG", CONFIG_REGION),
    Register("DETURBO", DETURBO, 8, RW, 0, 0xFF, "none", _S + "DETURBO", CONFIG_REGION),
    Register("DBC", DBC, 8, RW, 0, 0xFF, "none", _S + "DBC", CONFIG_REGION),
    Register("AXC", AXC, 8, RW, 0, 0xFF, "none", _S + "AXC", CONFIG_REGION),
    Register("DRT", DRT, 16, RW, 0, 0xFFFF, "none", _S + "DRT", CONFIG_REGION),
    Register("DRAMC", DRAMC, 8, RW, None, 0xFF, "none; holds RAM size / 8 MiB after power-on", _S + "DRAMC", CONFIG_REGION),
    Register("DRAMT", DRAMT, 8, RW, 0, 0xFF, "none", _S + "DRAMT", CONFIG_REGION),
    *(Register(f"PAM{n}", PAM0 + n, 8, RW, 0, 0xFF, "attributes of C0000h-FFFFFh", _S + "PAM", CONFIG_REGION)
      for n in range(7)),
    *(Register(f"DRB{n}", DRB0 + n, 8, RW, 0, 0xFF, "none", _S + "DRB", CONFIG_REGION) for n in range(8)),
    Register("FDHC", FDHC, 8, RW, 0, 0xFF, "none", _S + "FDHC", CONFIG_REGION),
    Register("MTT", MTT, 8, RW, 0, 0xFF, "none", _S + "MTT", CONFIG_REGION),
    Register("CLT", CLT, 8, RW, 0, 0xFF, "none", _S + "CLT", CONFIG_REGION),
    Register("SMRAM", SMRAM, 8, RW, SMRAM_RESET, 0xFF, "visibility of A0000h-BFFFFh", _S + "SMRAM", CONFIG_REGION),
    Register("ERRCMD", ERRCMD, 8, RW, 0, 0xFF, "none", _S + "ERRCMD", CONFIG_REGION),
    Register("ERRSTS", ERRSTS, 8, RW, 0, 0xFF, "none", _S + "ERRSTS", CONFIG_REGION),
    Register("TRC", TRC, 8, RW, 0, 0xFF, "none", _S + "TRC", CONFIG_REGION),
)


cdef class I440fx(PciFunction):
    """The host bridge, function 00:00.0.  `ram_mib`: the machine's RAM, which its firmware finds in byte 57h."""
    TITLE = "Intel 82441FX host bridge"
    REGISTERS = REGISTERS
    STATE = PCI_STATE + (("pam", "u1", PAM_SEGMENTS), ("smram", "u1"), ("pad", "u1", 2))
    CONFIG = {**PCI_CONFIG, "ram_mib": 128}

    def __init__(self, str id="i440fx", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.s = <i440fx_state *>self.pci_alloc(sizeof(i440fx_state))
        self.identify(0x8086, 0x1237, 0x02, 0x060000)
        self.initial[DRAMC] = <uint8_t>min(self.config["ram_mib"] // 8, 255)
        self.initial[SMRAM] = SMRAM_RESET
        for n in range(HEADER_SIZE, CONFIG_SIZE):
            self.keep[n] = 1                    # the reference keeps them, PAM and SMRAM too; the data sheet would not
        self.power_on()

    def fixed_regions(self):
        """Names of the ranges whose attributes change; the memory behind them is the board's."""
        return (*(Region(f"pam{n}", Space.MMIO, 0) for n in range(PAM_SEGMENTS)), Region("smram", Space.MMIO, 0),
                Region("open-smram", Space.MMIO, SMRAM_SIZE, (1, 2, 4, 8), (1, 8), priority=2),
                Region("smm-smram", Space.MMIO, SMRAM_SIZE, (1, 2, 4, 8), (1, 8), priority=2, only_in_smm=True))

    def mappings(self):
        out = [(PAM_REGION + n, 1, self.s.pam[n]) for n in range(PAM_SEGMENTS)] + [(SMRAM_REGION, 1, self.s.smram)]
        if self.s.smram & SMRAM_D_OPEN:
            out.append((OPEN_SMRAM_REGION, 1, SMRAM_AT))
        if self.s.smram & SMRAM_G_SMRAME:
            out.append((SMM_SMRAM_REGION, 1, SMRAM_AT))
        return out

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """SMRAM, for whoever sees it: the RAM behind it."""
        return smram_read(self, offset, size, value) if region >= OPEN_SMRAM_REGION else IO_NO_REGISTER

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        return smram_write(self, offset, size, value) if region >= OPEN_SMRAM_REGION else IO_NO_REGISTER

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        self.update_attributes()

    cdef void update_attributes(self) noexcept nogil:
        """Publish the PAM nibbles and SMRAM that have changed."""
        cdef int n
        cdef uint8_t value
        for n in range(PAM_SEGMENTS):
            value = pam_attributes(self.p.config + PAM0, n)
            if value != self.s.pam[n]:
                self.s.pam[n] = value
                self.emit(ENGINE_EFFECT_MAP, <uint8_t>(PAM_REGION + n), 1, value)
        value = self.p.config[SMRAM]
        if value != self.s.smram:
            if (value ^ self.s.smram) & SMRAM_D_OPEN:
                self.set_map(OPEN_SMRAM_REGION, value & SMRAM_D_OPEN != 0, SMRAM_AT)
            if (value ^ self.s.smram) & SMRAM_G_SMRAME:
                self.set_map(SMM_SMRAM_REGION, value & SMRAM_G_SMRAME != 0, SMRAM_AT)
            self.s.smram = value
            self.emit(ENGINE_EFFECT_MAP, SMRAM_REGION, 1, value)

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        PciFunction.on_reset(self, kind)
        self.update_attributes()
