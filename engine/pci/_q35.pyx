"""Intel 82Q35 (GMCH), host bridge of the Q35 chipset.  Document: Intel 3 Series Express Chipset Family data sheet, 316966-002
(September 2007), section 5.1.

Modelled: configuration space; PCIEXBAR, whose window the router decodes; PAM and SMRAM, whose changes go to the router as
MAP effects, because the memory they steer is the board's; TSEG, with its size and lock, which outside system management mode
reads as ones; SMRAM while it is open, low or high (H_SMRAME); the two registers that virtual machines add, for a larger TSEG
and for SMRAM at the power-on SMBASE.  Not modelled: EPBAR, MCHBAR, DMIBAR, DRAM and graphics registers (all stored, without
effect).

MAP effects: pin 8 + n is PAM segment n (0: F0000h-FFFFFh; 1 to 12: 16 KiB each from C0000h), value its attributes; pin 21 is
SMRAM, value SMRAM | ESMRAMC << 8; regions 22 to 24 are the configuration window by length, 25 to 28 TSEG by size, 29 SMRAM at
the power-on SMBASE, 30 to 33 SMRAM at its two places, open to all and in system management mode: mapped while they answer.  Called by the owning worker only.
"""
from engine._abi cimport ENGINE_EFFECT_MAP
from engine._device cimport IO_NO_REGISTER, IO_OK, io_status, reset_kind
from engine.pci._config cimport CONFIG_REGION
from engine.pci._host cimport SMRAM_AT, SMRAM_SIZE, pam_attributes, smram_read, smram_write
from engine.pci.regs cimport *

from engine.errors import MachineError
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.types import RO, RW, RW1C, Region, Register, Space

cdef extern from *:
    """
    #define Q35_ECAM_MASK 0xFF0000000ull    /* bits 35 to 28 */
    #define Q35_HIGH_SMRAM 0xFEDA0000ull    /* where H_SMRAME puts SMRAM */
    """
    const uint64_t ECAM_MASK "Q35_ECAM_MASK"
    const uint64_t HIGH_SMRAM_AT "Q35_HIGH_SMRAM"

cdef enum:
    MIB = 1 << 20
    ECAM_MASK_128M = 0x06000000     # address bits that shorter windows have as well: see docs/devices/q35_mch.md
    ECAM_MASK_64M = 0x02000000
    SMBASE_AT = 0x30000
    SMBASE_SIZE = 0x20000

_S = "316966-002 5.1 "
REGISTERS = (
    Register("VID", VENDOR_ID, 16, RO, 0x8086, section=_S + "VID", region=CONFIG_REGION),
    Register("DID", DEVICE_ID, 16, RO, 0x29C0, section=_S + "DID", region=CONFIG_REGION),
    Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates, see docs", _S + "PCICMD", CONFIG_REGION),
    Register("PCISTS", STATUS, 16, RW1C, 0, section=_S + "PCISTS", region=CONFIG_REGION, w1c=STATUS_W1C),
    Register("RID", REVISION_ID, 8, RO, 0, section=_S + "RID", region=CONFIG_REGION),
    Register("PI", CLASS_CODE, 8, RO, 0x00, section=_S + "CC", region=CONFIG_REGION),
    Register("SCC", CLASS_CODE + 1, 8, RO, 0x00, section=_S + "CC", region=CONFIG_REGION),
    Register("BCC", CLASS_CODE + 2, 8, RO, 0x06, section=_S + "CC", region=CONFIG_REGION),
    Register("HDR", HEADER_TYPE, 8, RO, 0, section=_S + "HDR", region=CONFIG_REGION),
    Register("EXT_TSEG_MBYTES", EXT_TSEG_MBYTES, 16, RW, 16, 0xFFFF, "FFFFh asks for the size", "QEMU q35 fw_cfg interface", CONFIG_REGION),
    Register("PCIEXBAR", PCIEXBAR, 32, RW, 0xB0000000, 0xFFFFFFFF, "maps the configuration window", _S + "PCIEXBAR", CONFIG_REGION),
    Register("PCIEXBAR_HI", PCIEXBAR + 4, 32, RW, 0, 0xFFFFFFFF, "maps the configuration window", _S + "PCIEXBAR", CONFIG_REGION),
    *(Register(f"PAM{n}", PAM0 + n, 8, RW, 0, 0xFF, "attributes of C0000h-FFFFFh", _S + "PAM", CONFIG_REGION) for n in range(7)),
    Register("F_SMBASE", F_SMBASE, 8, RW, 0, 0, "FFh asks for SMRAM at 30000h, then 02h locks it", "QEMU q35 SMBASE interface", CONFIG_REGION),
    Register("SMRAM", SMRAM, 8, RW, C_BASE_SEG, SMRAM_WMASK, "visibility of A0000h-BFFFFh; D_LCK locks it", _S + "SMRAM", CONFIG_REGION),
    Register("ESMRAMC", ESMRAMC, 8, RW, ESMRAMC_RESET, ESMRAMC_WMASK, "shuts TSEG", _S + "ESMRAMC", CONFIG_REGION),
)


cdef inline uint64_t smram_at(uint8_t region) noexcept nogil:
    return SMRAM_AT if region == OPEN_SMRAM_REGION or region == SMM_SMRAM_REGION else HIGH_SMRAM_AT


cdef class Q35Mch(PciFunction):
    """The host bridge, function 00:00.0.  `ram_mib`: RAM below 4 GiB, at whose end TSEG is; `ext_tseg_mbytes`: the largest TSEG; `smm`:
    off, its registers of system management memory are plain bytes without effect, as for a processor that has none; `smbase`: off,
    F_SMBASE is such a byte."""
    TITLE = "Intel 82Q35 host bridge"
    REGISTERS = REGISTERS
    STATE = PCI_STATE + (("ecam_base", "u8"), ("ecam", "u1"), ("tseg", "u1"), ("pam", "u1", PAM_SEGMENTS), ("smram", "u1"),
                         ("esmramc", "u1"), ("smbase", "u1"), ("open", "u1"), ("smm", "u1"), ("pad", "u1", 4))
    CONFIG = {**PCI_CONFIG, "ram_mib": 128, "ext_tseg_mbytes": 16, "smm": True, "smbase": True}

    def __init__(self, str id="q35-mch", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.low_ram = self.config["ram_mib"] * MIB
        self.has_smm = self.config["smm"]
        self.has_smbase = self.config["smbase"] and self.has_smm
        if not 0 < self.config["ext_tseg_mbytes"] <= 0xFFF:
            raise MachineError(f"{id}: ext_tseg_mbytes = {self.config['ext_tseg_mbytes']}; it is 1 to 4095")
        self.ext_tseg = self.config["ext_tseg_mbytes"]
        self.s = <q35_mch_state *>self.pci_alloc(sizeof(q35_mch_state))
        self.identify(0x8086, 0x29C0, 0, 0x060000)
        for n in range(HEADER_SIZE, CONFIG_SIZE):
            self.keep[n] = not (PCIEXBAR <= n < PCIEXBAR + 8 or self.has_smm and (
                EXT_TSEG_MBYTES <= n < EXT_TSEG_MBYTES + 2 or SMRAM <= n <= ESMRAMC) or self.has_smbase and n == F_SMBASE)
        self.initial[PCIEXBAR + 3] = 0xB0
        if self.has_smm:
            for n in range(2):
                self.initial[EXT_TSEG_MBYTES + n] = self.ext_tseg >> (8 * n) & 0xff
            self.initial[SMRAM] = C_BASE_SEG
            self.initial[ESMRAMC] = ESMRAMC_RESET
        self.power_on()

    def fixed_regions(self):
        """Names of the ranges whose attributes change, whose memory is the board's; then those that come and go."""
        ecam = tuple(Region(name, Space.MMIO, mib * MIB, ecam=True)
                     for name, mib in (("ecam", 256), ("ecam-128m", 128), ("ecam-64m", 64)))
        shut = tuple(Region(name, Space.MMIO, size, (1, 2, 4, 8), (1, 8), priority=1, hidden_in_smm=True)
                     for name, size in (("tseg-1m", MIB), ("tseg-2m", 2 * MIB), ("tseg-8m", 8 * MIB), ("tseg-ext", self.ext_tseg * MIB),
                                        ("smbase", SMBASE_SIZE)))
        opened = tuple(Region(name, Space.MMIO, SMRAM_SIZE, (1, 2, 4, 8), (1, 8), priority=2, only_in_smm=name.startswith("smm"))
                       for name in ("open-smram", "high-smram", "smm-smram", "smm-high-smram"))
        return (*(Region(f"pam{n}", Space.MMIO, 0) for n in range(PAM_SEGMENTS)), Region("smram", Space.MMIO, 0), *ecam, *shut, *opened)

    def mappings(self):
        out = [(PAM_REGION + n, 1, self.s.pam[n]) for n in range(PAM_SEGMENTS)]
        out.append((SMRAM_REGION, 1, self.s.smram | self.s.esmramc << 8))
        if self.s.ecam:
            out.append((self.s.ecam, 1, self.s.ecam_base))
        if self.s.tseg:
            out.append((self.s.tseg, 1, self.tseg_base()))
        if self.s.smbase & SMBASE_LCK:
            out.append((SMBASE_REGION, 1, SMBASE_AT))
        out += [(region, 1, smram_at(region)) for region in (self.s.open, self.s.smm) if region]
        return out

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """SMRAM, for whoever sees it; what is left of TSEG outside system management mode.  Accesses to the configuration window end
        at the router."""
        if region < TSEG_REGION:
            return IO_NO_REGISTER
        if region >= OPEN_SMRAM_REGION:
            return smram_read(self, offset, size, value)
        value[0] = ~<uint64_t>0
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region >= OPEN_SMRAM_REGION:
            return smram_write(self, offset, size, value)
        return IO_OK if region >= TSEG_REGION else IO_NO_REGISTER

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        self.update_pam()
        if self.has_smm:
            self.smm_written()
        # a reserved length, and writes elsewhere, leave the window where it is
        if offset < PCIEXBAR + 8 and offset + size > PCIEXBAR and self.p.config[PCIEXBAR] & LENGTH_MASK != LENGTH_MASK:
            self.update_ecam()

    cdef void smm_written(self) noexcept nogil:
        """The registers of system management memory after a write: queries are answered, locks hold."""
        if self.config16(EXT_TSEG_MBYTES) == EXT_TSEG_QUERY:
            self.p.config[EXT_TSEG_MBYTES] = <uint8_t>self.ext_tseg
            self.p.config[EXT_TSEG_MBYTES + 1] = <uint8_t>(self.ext_tseg >> 8)
        if self.has_smbase:
            self.p.config[F_SMBASE] = self.next_smbase(self.p.config[F_SMBASE])
        self.lock()
        self.update_smram()

    cdef uint8_t next_smbase(self, uint8_t written) noexcept nogil:
        """F_SMBASE after a write: asked for, then locked, until reset."""
        if self.s.smbase == 0:
            return <uint8_t>(SMBASE_IN_RAM if written == SMBASE_QUERY else 0)
        return <uint8_t>(SMBASE_LCK if (self.s.smbase | written) & SMBASE_LCK else SMBASE_IN_RAM)

    cdef void lock(self) noexcept nogil:
        """SMRAM.D_LCK ends D_OPEN and makes the rest of SMRAM and ESMRAMC read-only until reset, D_CLS excepted."""
        cdef bint locked = self.p.config[SMRAM] & D_LCK
        if locked:
            self.p.config[SMRAM] &= ~<uint8_t>D_OPEN
        self.wmask[SMRAM] = D_CLS if locked else SMRAM_WMASK
        self.wmask[ESMRAMC] = 0 if locked else ESMRAMC_WMASK

    cdef void update_pam(self) noexcept nogil:
        """Publish the PAM nibbles that have changed."""
        cdef uint32_t n
        cdef uint8_t value
        for n in range(<uint32_t>PAM_SEGMENTS):
            value = pam_attributes(self.p.config + PAM0, n)
            if value != self.s.pam[n]:
                self.s.pam[n] = value
                self.emit(ENGINE_EFFECT_MAP, <uint8_t>(PAM_REGION + n), 1, value)

    cdef void update_ecam(self) noexcept nogil:
        """Publish where the configuration window answers."""
        cdef uint64_t bar = self.config32(PCIEXBAR) | <uint64_t>self.config32(PCIEXBAR + 4) << 32, base = bar & ECAM_MASK
        cdef uint8_t region = NO_REGION
        if bar & PCIEXBAREN:
            region = <uint8_t>(ECAM_REGION + ((bar & LENGTH_MASK) >> 1))
            if bar & LENGTH_MASK == LENGTH_128M:
                base = bar & (ECAM_MASK | ECAM_MASK_128M)
            elif bar & LENGTH_MASK == LENGTH_64M:
                base = bar & (ECAM_MASK | ECAM_MASK_64M)
        if region == self.s.ecam and (region == NO_REGION or base == self.s.ecam_base):
            return
        if self.s.ecam and self.s.ecam != region:
            self.set_map(self.s.ecam, 0, 0)
        self.s.ecam = region
        self.s.ecam_base = base if region else 0
        if region:
            self.set_map(region, 1, base)

    cdef uint64_t tseg_base(self) noexcept nogil:
        """TSEG ends where RAM below 4 GiB does."""
        cdef uint64_t size = self.ext_tseg
        if self.s.tseg == TSEG_REGION:
            size = 1
        elif self.s.tseg == TSEG_REGION + 1:
            size = 2
        elif self.s.tseg == TSEG_REGION + 2:
            size = 8
        return self.low_ram - size * MIB

    cdef void update_smram(self) noexcept nogil:
        """Publish SMRAM and ESMRAMC, TSEG, and SMRAM at the power-on SMBASE."""
        cdef uint8_t smram = self.p.config[SMRAM], esmramc = self.p.config[ESMRAMC], tseg = NO_REGION
        cdef bint high = esmramc & H_SMRAME != 0
        if smram != self.s.smram or esmramc != self.s.esmramc:
            self.s.smram, self.s.esmramc = smram, esmramc
            self.emit(ENGINE_EFFECT_MAP, SMRAM_REGION, 1, smram | <uint64_t>esmramc << 8)
        self.s.open = self.show(self.s.open, <uint8_t>(OPEN_SMRAM_REGION + high if smram & D_OPEN else NO_REGION))
        self.s.smm = self.show(self.s.smm, <uint8_t>(SMM_SMRAM_REGION + high if smram & G_SMRAME else NO_REGION))
        if esmramc & T_EN and smram & G_SMRAME:
            tseg = <uint8_t>(TSEG_REGION + ((esmramc & TSEG_SZ) >> 1))
        if tseg != self.s.tseg:
            if self.s.tseg:
                self.set_map(self.s.tseg, 0, 0)
            self.s.tseg = tseg
            if tseg and self.tseg_base() < self.low_ram:
                self.set_map(tseg, 1, self.tseg_base())
        if self.has_smbase and self.p.config[F_SMBASE] != self.s.smbase:
            if (self.p.config[F_SMBASE] ^ self.s.smbase) & SMBASE_LCK:
                self.set_map(SMBASE_REGION, self.p.config[F_SMBASE] & SMBASE_LCK != 0, SMBASE_AT)
            self.s.smbase = self.p.config[F_SMBASE]

    cdef uint8_t show(self, uint8_t before, uint8_t now) noexcept nogil:
        """Map one of SMRAM's regions where another, or none, was; which it is."""
        if now != before:
            if before:
                self.set_map(before, 0, 0)
            if now:
                self.set_map(now, 1, smram_at(now))
        return now

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """PCIEXBAR, SMRAM and what belongs to it go back; the reference keeps the rest, PAM too."""
        PciFunction.on_reset(self, kind)
        self.update_pam()
        if self.has_smm:
            self.lock()
            self.update_smram()
        self.update_ecam()

    def on_restore(self):
        PciFunction.on_restore(self)
        if self.has_smm:
            self.lock()
