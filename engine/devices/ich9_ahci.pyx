"""Intel 82801IB (ICH9), device 31 function 2: Serial ATA host bus adapter in AHCI mode, six ports.

Documents: AHCI 1.3.1; Serial ATA 3.0 for frames; ICH9 data sheet 316972-004 (August 2008), chapter 15.  Modelled: configuration
space with MSI and the index-data pair; generic and port registers; command lists, command tables, region descriptors; received
frames (device to host, PIO setup, set device bits); PIO, DMA, packet and queued commands; software, port and adapter resets.
Not modelled: IDE mode, port multipliers, hot-plug and power management of links, command completion coalescing, enclosure
management, DMA setup frames (queued transfers begin at once).  A command is over when the write that issued it returns.  What the
drives do: engine/devices/ata.pyx.  Deviations: docs/devices/ich9_ahci.md.  Called by the owning worker only.

What a guest can get wrong, and what it meets: a command list or received-frame area that is not wholly in RAM keeps its engine
from starting (PxCMD.ST or FRE reads 0); a command table that is not in RAM is no command, one that begins in RAM and leaves it a
host bus fatal error (PxIS.HBFS); region descriptors that are not wholly in RAM are none; data addresses outside RAM read as zeros
and swallow writes; too few bytes of regions end a DMA command without data, a queued one with PxIS.OFS; a packet command by PIO
with a byte count limit of 1 stays where it is until the port is reset.
"""
cimport cython
from cpython.ref cimport PyObject
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from engine._device cimport INPUT_LINE, IO_NO_REGISTER, IO_OK, RESET_POWER_ON
from engine.devices._medium cimport Medium
from engine.devices.ata cimport (ABRT, ATA_CDROM, ATA_DISK, ATA_NONE, BSY, BUFFER, DMA_PACKET, DMA_TRIM, DMA_WRITE, DRDY, DRQ, DSC, ERR, FX_TRAY,
                                 MAX_MULTIPLE, NO_SECTOR, PHASE_DMA, PHASE_IDLE, PHASE_IN_PACKET, PHASE_IN_SECTORS, PHASE_OUT_SECTORS, ata_drive)
from engine.pci._config cimport CONFIG_REGION
from engine.pci._msi cimport msi_enabled, msi_notify, msi_written
from engine.pci.regs cimport *

from engine.devices.ata import ata_state, check_drives
from engine.errors import MachineError, StateError
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.pci._msi import add_msi
from engine.types import RO, RW, RW1C, Register, Space

cdef enum:                      # commands of which no device to host frame tells the end
    DEVICE_RESET = 0x08
    EXECUTE_DEVICE_DIAGNOSTIC = 0x90
    FLUSH_CACHE = 0xE7          # and those that wait for the medium without a transfer
    FLUSH_CACHE_EXT = 0xEA
    SET_FEATURES = 0xEF
    DISABLE_WRITE_CACHE = 0x82

cdef enum:
    RESET_STATUS = 0x20         # device fault, as drives show it between reset and first command
    PACKET_GROUP = 64 * 2048    # bytes of a packet read that are checked for room at once
    PACKET_SECTOR = 2048

_S = "316972-004 15.1 "


def _port_registers(n):
    at = PORTS + n * PORT_SIZE

    def register(name, offset, access, reset, wmask=0, effect="none", section="", w1c=0):
        return Register(f"P{n}{name}", at + offset, 32, access, reset, wmask, effect, f"AHCI 1.3.1 3.3.{section}", HBA_BAR, w1c=w1c)

    return (
        register("CLB", CLB, RW, 0, 0xFFFFFFFF, section=1), register("CLBU", CLBU, RW, 0, 0xFFFFFFFF, section=2),
        register("FB", FB, RW, 0, 0xFFFFFFFF, section=3), register("FBU", FBU, RW, 0, 0xFFFFFFFF, section=4),
        register("IS", PXIS, RW1C, 0, 0, "lowers the interrupt", 5, 0xFFFFFFFF), register("IE", PXIE, RW, 0, PXIE_WMASK, "gates the interrupt", 6),
        register("CMD", CMD, RW, CMD_SUD | CMD_POD, 0xFFFFFFFF & ~(CMD_RO | CMD_ICC | CMD_ST | CMD_FRE), "ST and FRE start engines", 7),
        register("TFD", TFD, RO, TFD_RESET, section=8), register("SIG", SIG, RO, 0xFFFFFFFF, section=9),
        register("SSTS", SSTS, RO, None, section=10), register("SCTL", SCTL, RW, 0, 0xFFFFFFFF, "DET from 1 to 0 resets the port", 11),
        register("SERR", SERR, RW1C, 0, 0, section=12, w1c=0xFFFFFFFF), register("SACT", SACT, RW, 0, 0, "ones are set", 13),
        register("CI", CI, RW, 0, 0, "ones are set, and issue commands", 14))


REGISTERS = (
    Register("VID", VENDOR_ID, 16, RO, 0x8086, section=_S + "VID", region=CONFIG_REGION),
    Register("DID", DEVICE_ID, 16, RO, 0x2922, section=_S + "DID", region=CONFIG_REGION),
    Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates, see docs", _S + "PCICMD", CONFIG_REGION),
    Register("PCISTS", STATUS, 16, RW1C, STATUS_CAP_LIST, section=_S + "PCISTS", region=CONFIG_REGION, w1c=STATUS_W1C),
    Register("RID", REVISION_ID, 8, RO, 0x02, section=_S + "RID", region=CONFIG_REGION),
    Register("PI", CLASS_CODE, 8, RO, 0x01, section=_S + "PI", region=CONFIG_REGION),
    Register("SCC", CLASS_CODE + 1, 8, RO, 0x06, section=_S + "SCC", region=CONFIG_REGION),
    Register("BCC", CLASS_CODE + 2, 8, RO, 0x01, section=_S + "BCC", region=CONFIG_REGION),
    Register("LBAR", BAR0 + 4 * IDP_BAR, 32, RW, BAR_IO, 0xFFFFFFE0, "base of the index-data pair", _S + "LBAR", CONFIG_REGION),
    Register("ABAR", BAR0 + 4 * HBA_BAR, 32, RW, 0, 0xFFFFF000, "base of the adapter's registers", _S + "ABAR", CONFIG_REGION),
    Register("CAP_POINTER", CAP_POINTER, 8, RO, MSI_AT, section=_S + "CAP", region=CONFIG_REGION),
    Register("INT_LN", INTERRUPT_LINE, 8, RW, 0, 0xFF, "none", _S + "INT_LN", CONFIG_REGION),
    Register("INT_PN", INTERRUPT_PIN, 8, RO, 0x01, section=_S + "INT_PN", region=CONFIG_REGION),
    Register("MID", MSI_AT, 16, RO, SATA_CAP_AT << 8 | CAP_MSI, section=_S + "MID", region=CONFIG_REGION),
    Register("MAP", MAP, 8, RW, 0x40, 0xFF, "none", _S + "MAP", CONFIG_REGION),
    Register("SATACR0", SATA_CAP_AT, 32, RO, 0x00100012, section=_S + "SATACR0", region=CONFIG_REGION),
    Register("SATACR1", SATA_CAP_AT + 4, 32, RO, 0x00000048, section=_S + "SATACR1", region=CONFIG_REGION),
    Register("CAP", CAP, 32, RO, 0xC0141F05, section="AHCI 1.3.1 3.1.1", region=HBA_BAR),
    Register("GHC", GHC, 32, RW, GHC_AE, GHC_IE, "HR resets the adapter", "AHCI 1.3.1 3.1.2", HBA_BAR),
    Register("IS", IS, 32, RW1C, 0, 0, "bits whose port still wants its interrupt come back", "AHCI 1.3.1 3.1.3", HBA_BAR, w1c=0xFFFFFFFF),
    Register("PI.HBA", PI, 32, RO, 0x3F, section="AHCI 1.3.1 3.1.4", region=HBA_BAR),
    Register("VS", VS, 32, RO, 0x00010000, section="AHCI 1.3.1 3.1.5", region=HBA_BAR),
    *(r for n in range(N_PORTS) for r in _port_registers(n)),
    Register("INDEX", IDP_INDEX, 32, RW, 0, 0xFFC, "none", "AHCI 1.3.1 2.4.2", IDP_BAR),
    Register("DATA", IDP_DATA, 32, RW, None, 0, "the adapter's register at INDEX", "AHCI 1.3.1 2.4.2", IDP_BAR),
)
_PORT = (("list_at", "u8"), ("fis_at", "u8"),
         *((name, "u4") for name in ("clb", "clbu", "fb", "fbu", "pxis", "pxie", "cmd", "tfd", "sig", "sctl", "serr", "sact", "ci", "finished", "held")),
         ("srst", "u1"), ("d2h_sent", "u1"), ("waits", "u1"), ("pad", "u1"))
_PORTS = tuple((f"port{n}_{field[0]}", *field[1:]) for n in range(N_PORTS) for field in _PORT)
_ATA = tuple(field for n in range(N_PORTS) for field in ata_state(f"ata{n}_"))


@cython.final
cdef class Ich9Ahci(AtaController):
    """The function.  Setting `drives`: a list of tables as those of an IDE function (see Piix3Ide); `channel` is the port, 0 to 5,
    `unit` is 0; with on_error "stop" every command that meets a failure of the image waits: io_error gives a pulse, and until
    `resume` rises the command has not happened, but for the frames of a PIO command's blocks before it."""
    TITLE = "Intel 82801IB (ICH9) AHCI adapter, six Serial ATA ports"
    REGISTERS = REGISTERS
    CONFIG = {**PCI_CONFIG, "multifunction": True, "drives": []}
    STATE = PCI_STATE + (("ghc", "u4"), ("hba_is", "u4"), ("index", "u4"), ("ahci_pad", "u4")) + _PORTS + _ATA
    MESSAGE_SOURCE = True
    IN = ("resume",)
    OUT = ("inta", "io_error", "tray")

    def __dealloc__(self):
        free(self.before)

    def __init__(self, str id="ich9-ahci", uint32_t rank=0, arena=None, dma=None, **config):
        cdef AtaChannel c
        cdef uint8_t *identify
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        drives = check_drives(f"device {id!r}", self.config["drives"], N_PORTS)
        if any(table.get("unit", 0) for table in drives):
            raise MachineError(f"device {id!r}: a Serial ATA port has one drive, unit 0")
        self.s = <ahci_state *>self.pci_alloc(sizeof(ahci_state))
        if any(table.get("on_error") == "stop" for table in drives):
            self.before = <ata_channel *>malloc(sizeof(ata_channel))
            if self.before == NULL:
                raise MemoryError(f"device {id!r}")
        self.channels = tuple(AtaChannel() for _ in range(N_PORTS))
        for n in range(N_PORTS):
            c = self.channels[n]
            c.setup(&self.s.ata[n], f"device {id!r}", n, drives)
            self.channel[n] = <PyObject *>c
            identify = c.units[0].identify          # words 75 and 76: 32 queued commands, 1.5 Gb/s queueing
            identify[150], identify[153] = N_SLOTS - 1, 0x01
        self.identify(0x8086, 0x2922, 0x02, 0x010601, interrupt_pin=1)
        self.add_capability(CAP_SATA, 8, SATA_CAP_AT)
        self.initial[SATA_CAP_AT + 2] = 0x10        # revision 1.0
        self.initial[SATA_CAP_AT + 4] = 0x48        # in BAR 4, from its fourth double word on
        self.msi = add_msi(self, 1, True, False, MSI_AT)
        self.initial[MAP] = 0x40
        self.add_bar(IDP_BAR, Space.PIO, 32, name="index-data")
        self.add_bar(HBA_BAR, Space.MMIO, HBA_SIZE, name="ahci", accepts=(1, 2, 4, 8), implements=(1, 4))
        self.power_on()

    # ------------------------------------------------------------------ reset

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """RST# resets the adapter and the drives.  The addresses of the ports' memory stay."""
        cdef uint32_t n
        PciFunction.on_reset(self, kind)
        for n in range(<uint32_t>N_PORTS):
            if kind == RESET_POWER_ON:
                memset(&self.s.port[n], 0, sizeof(ahci_port))
                self.s.index = 0
            (<AtaChannel>self.channel[n]).reset(kind == RESET_POWER_ON)
        self.hba_reset()

    cdef void hba_reset(self) noexcept nogil:
        """10.4.3.  The interrupt line is looked at again with the next event."""
        cdef uint32_t n
        self.s.hba_is = 0
        self.s.ghc = GHC_AE
        for n in range(<uint32_t>N_PORTS):
            self.s.port[n].pxis = 0
            self.s.port[n].pxie = 0
            self.s.port[n].sctl = 0
            self.s.port[n].cmd = CMD_SUD | CMD_POD
            self.port_reset(n)

    cdef void port_reset(self, uint32_t n) noexcept nogil:
        """10.4.2: COMRESET, and the end of a software reset (10.4.1).  The device's first frame tells its signature."""
        cdef ahci_port *p = &self.s.port[n]
        cdef ata_drive *d = &self.s.ata[n].drive[0]
        cdef uint32_t kind = (<AtaChannel>self.channel[n]).units[0].kind
        (<AtaChannel>self.channel[n]).reset(False)
        (<AtaChannel>self.channel[n]).fx = 0
        p.serr = 0
        p.sact = 0
        p.ci = 0
        p.tfd = TFD_RESET
        p.sig = 0xFFFFFFFFu
        p.d2h_sent = 0
        p.held = 0
        p.waits = 0
        if kind == ATA_NONE:
            return
        p.srst = 0
        d.status = DSC | RESET_STATUS | DRDY if kind == ATA_CDROM else DSC | RESET_STATUS
        d.error = 1
        self.first_d2h(n)

    # ------------------------------------------------------------------ registers

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if region == HBA_BAR:
            value[0] = self.hba_part(offset, size)
        elif region == IDP_BAR:
            value[0] = self.s.index if offset == IDP_INDEX else self.hba_part(self.s.index, size) if offset == IDP_DATA else 0
        else:
            return IO_NO_REGISTER
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """A write that is not at a register's first byte is lost; a narrow one has zeros above it."""
        if region == HBA_BAR:
            if not offset & 3:
                self.hba_write(offset, <uint32_t>value)
        elif region == IDP_BAR:
            if offset == IDP_INDEX:
                self.s.index = <uint32_t>value & (HBA_SIZE - 4)
            elif offset == IDP_DATA:
                self.hba_write(self.s.index, <uint32_t>value)
        else:
            return IO_NO_REGISTER
        return IO_OK

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        msi_written(self, self.msi, offset, size)

    cdef uint64_t hba_part(self, uint32_t offset, uint32_t size) noexcept nogil:
        return self.hba_read(offset & ~<uint32_t>3) >> (8 * (offset & 3))

    cdef uint32_t hba_read(self, uint32_t offset) noexcept nogil:
        cdef uint32_t n = (offset - PORTS) // PORT_SIZE, at = offset & (PORT_SIZE - 1)
        cdef ahci_port *p
        if offset < PORTS:
            if offset == CAP:
                return CAP_S64A | CAP_SNCQ | CAP_GEN1 | CAP_SAM | CAP_NCS | (N_PORTS - 1)
            if offset == GHC:
                return self.s.ghc
            if offset == IS:
                return self.s.hba_is
            if offset == PI:
                return (1 << N_PORTS) - 1
            return 0x00010000 if offset == VS else 0
        if n >= N_PORTS:
            return 0
        p = &self.s.port[n]
        if at == CLB:
            return p.clb
        if at == CLBU:
            return p.clbu
        if at == FB:
            return p.fb
        if at == FBU:
            return p.fbu
        if at == PXIS:
            return p.pxis
        if at == PXIE:
            return p.pxie
        if at == CMD:
            return p.cmd
        if at == TFD:
            return p.tfd
        if at == SIG:
            return p.sig
        if at == SSTS:
            return 0 if (<AtaChannel>self.channel[n]).units[0].kind == ATA_NONE else SSTS_UP
        if at == SCTL:
            return p.sctl
        if at == SERR:
            return p.serr
        if at == SACT:
            return p.sact
        return p.ci if at == CI else 0

    cdef void hba_write(self, uint32_t offset, uint32_t value) noexcept nogil:
        if offset >= PORTS:
            if (offset - PORTS) // PORT_SIZE < N_PORTS:
                self.port_write((offset - PORTS) // PORT_SIZE, offset & (PORT_SIZE - 1), value)
        elif offset == GHC:
            if value & GHC_HR:
                self.hba_reset()
            else:
                self.s.ghc = value & GHC_IE | GHC_AE
                self.check_irq()
        elif offset == IS:
            self.check_irq()                    # what is cleared comes back while its cause is there: 3.1.3

    cdef void port_write(self, uint32_t n, uint32_t offset, uint32_t value) noexcept nogil:
        cdef ahci_port *p = &self.s.port[n]
        if offset == CLB:
            p.clb = value
        elif offset == CLBU:
            p.clbu = value
        elif offset == FB:
            p.fb = value
        elif offset == FBU:
            p.fbu = value
        elif offset == PXIS:
            p.pxis &= ~value
            self.check_irq()
        elif offset == PXIE:
            p.pxie = value & PXIE_WMASK
            self.check_irq()
        elif offset == CMD:
            self.cmd_write(n, value)
        elif offset == SCTL:
            if p.sctl & SCTL_DET == 1 and not value & SCTL_DET:
                self.port_reset(n)
            p.sctl = value
        elif offset == SERR:
            p.serr &= ~value
        elif offset == SACT:
            p.sact |= value
        elif offset == CI:
            p.ci |= value
            self.run(n)

    cdef void cmd_write(self, uint32_t n, uint32_t value) noexcept nogil:
        """PxCMD: engines start and stop at once, if their memory is there (3.3.7 ST, FRE)."""
        cdef ahci_port *p = &self.s.port[n]
        if p.cmd & CMD_ST and not value & CMD_ST:
            p.sact = 0
            p.ci = 0
        p.cmd = p.cmd & CMD_RO | value & ~(CMD_RO | CMD_ICC)
        if not p.cmd & CMD_ST:
            p.cmd &= ~<uint32_t>CMD_CR
        elif not p.cmd & CMD_CR:
            p.list_at = p.clb | <uint64_t>p.clbu << 32
            p.cmd = p.cmd | CMD_CR if self.reaches(p.list_at, LIST_SIZE) else p.cmd & ~<uint32_t>CMD_ST
        if not p.cmd & CMD_FRE:
            p.cmd &= ~<uint32_t>CMD_FR
        elif not p.cmd & CMD_FR:
            p.fis_at = p.fb | <uint64_t>p.fbu << 32
            p.cmd = p.cmd | CMD_FR if self.reaches(p.fis_at, FIS_SIZE) else p.cmd & ~<uint32_t>CMD_FRE
        if p.cmd & CMD_FR and not p.d2h_sent:
            self.first_d2h(n)
        self.run(n)

    cdef bint reaches(self, uint64_t gpa, size_t n) noexcept nogil:
        """Are n bytes at gpa in RAM, in one piece, and the function a bus master?"""
        cdef size_t there = n
        return self.dma.enabled and self.dma._find(gpa, &there) != NULL and there == n

    # ------------------------------------------------------------------ interrupts: 10.7

    cdef void check_irq(self) noexcept nogil:
        """IS from the ports; then the interrupt.  As a message it is sent at each look that finds one wanted."""
        cdef uint32_t n, wanted = 0
        for n in range(<uint32_t>N_PORTS):
            if self.s.port[n].pxis & self.s.port[n].pxie:
                wanted |= <uint32_t>1 << n
        self.s.hba_is = wanted
        if wanted and self.s.ghc & GHC_IE:
            if msi_enabled(self, self.msi):
                msi_notify(self, self.msi, 0)
            else:
                self.set_intx(1)
        elif not msi_enabled(self, self.msi):
            self.set_intx(0)

    cdef void trigger(self, uint32_t n, uint32_t bit) noexcept nogil:
        self.s.port[n].pxis |= <uint32_t>1 << bit
        self.check_irq()

    # ------------------------------------------------------------------ received frames: SATA 10.3

    cdef void frame(self, uint32_t n, uint8_t *fis, uint8_t kind, bint interrupt) noexcept nogil:
        """The registers of the drive, as frames from it begin."""
        cdef ata_drive *d = &self.s.ata[n].drive[0]
        memset(fis, 0, FIS_LENGTH)
        fis[0] = kind
        fis[1] = FIS_I if interrupt else 0
        fis[2] = d.status
        fis[3] = d.error
        fis[4], fis[5], fis[6] = d.sector, d.lba_mid, d.lba_high
        fis[7] = d.device
        fis[8], fis[9], fis[10] = d.hob_sector, d.hob_mid, d.hob_high
        fis[12], fis[13] = <uint8_t>d.count, <uint8_t>(d.count >> 8)
        self.s.port[n].tfd = <uint32_t>d.error << 8 | d.status

    cdef bint send_d2h(self, uint32_t n, bint interrupt) noexcept nogil:
        """Register, device to host: 10.3.5.  False while the port receives no frames."""
        cdef uint8_t fis[20]
        if not self.s.port[n].cmd & CMD_FRE:
            return False
        self.frame(n, fis, FIS_D2H, interrupt)
        self.dma.write(self.s.port[n].fis_at + RFIS, fis, FIS_LENGTH)
        if fis[2] & ERR:
            self.trigger(n, TFES)
        if interrupt:
            self.trigger(n, DHRS)
        return True

    cdef void send_pio(self, uint32_t n, uint32_t size, bint interrupt) noexcept nogil:
        """PIO setup: 10.3.8."""
        cdef uint8_t fis[20]
        if not self.s.port[n].cmd & CMD_FRE:
            return
        self.frame(n, fis, FIS_PIO, interrupt)
        fis[15] = fis[2]
        fis[16], fis[17] = <uint8_t>size, <uint8_t>(size >> 8)
        self.dma.write(self.s.port[n].fis_at + PSFIS, fis, FIS_LENGTH)
        if fis[2] & ERR:
            self.trigger(n, TFES)

    cdef void send_sdb(self, uint32_t n) noexcept nogil:
        """Set device bits, for the queued commands that have finished: 10.3.6.  BSY and DRQ stay in PxTFD."""
        cdef ahci_port *p = &self.s.port[n]
        cdef ata_drive *d = &self.s.ata[n].drive[0]
        cdef uint8_t fis[8]
        if not p.cmd & CMD_FRE:
            return
        fis[0], fis[1] = FIS_SDB, FIS_I
        fis[2], fis[3] = d.status & 0x77, d.error
        memcpy(fis + 4, &p.finished, 4)
        self.dma.write(p.fis_at + SDBFIS, fis, 8)
        p.tfd = <uint32_t>d.error << 8 | d.status & 0x77 | p.tfd & (BSY | DRQ)
        p.sact &= ~p.finished
        p.finished = 0
        self.trigger(n, TFES if d.status & ERR else SDBS)

    cdef void first_d2h(self, uint32_t n) noexcept nogil:
        """The first frame after a reset: its signature goes to PxSIG (3.3.9)."""
        cdef ata_drive *d = &self.s.ata[n].drive[0]
        if not self.s.port[n].d2h_sent and self.send_d2h(n, True):
            self.s.port[n].d2h_sent = 1
            self.s.port[n].sig = <uint32_t>d.lba_high << 24 | <uint32_t>d.lba_mid << 16 | <uint32_t>d.sector << 8 | <uint8_t>d.count

    # ------------------------------------------------------------------ commands: 5.3

    cdef void run(self, uint32_t n) noexcept nogil:
        """Issue the commands in PxCI, by slot.  One that waits for the medium ends the pass; a command that ends well with others
        left begins the next one, at slot 0.  Queued commands are carried out when no pass follows at once."""
        cdef ahci_port *p = &self.s.port[n]
        cdef uint32_t slot, i
        cdef run_next next = RUN_NOW
        self.queued = 0
        while next != RUN_NOT:
            next = RUN_NOT
            if p.cmd & CMD_ST:
                for slot in range(<uint32_t>N_SLOTS):
                    if p.ci >> slot & 1 and not self.issue(n, slot, &next):
                        break
            if next == RUN_NOW:
                continue
            for i in range(self.queued):
                self.finish_queued(&self.queue[i])
            self.queued = 0

    cdef bint clear_ci(self, uint32_t n, uint32_t slot) noexcept nogil:
        """A command leaves PxCI when the device is neither busy nor in error: 5.3.8."""
        if self.s.ata[n].drive[0].status & (ERR | BSY | DRQ):
            return False
        self.s.port[n].ci &= ~(<uint32_t>1 << slot)
        return True

    cdef bint issue(self, uint32_t n, uint32_t slot, run_next *next) noexcept nogil:
        """Fetch the command of a slot and carry it out.  False ends the pass."""
        cdef ahci_port *p = &self.s.port[n]
        cdef ahci_command c
        cdef uint8_t table[128]
        if self.s.ata[n].drive[0].status & (BSY | DRQ) or (<AtaChannel>self.channel[n]).units[0].kind == ATA_NONE:
            return False
        if self.fetch(n, slot, &c, table):
            return True
        if not table[1] & FIS_C:
            self.control(&c, table)
        elif (table[2] == READ_FPDMA_QUEUED or table[2] == WRITE_FPDMA_QUEUED or table[2] == NCQ_NON_DATA
              or table[2] == SEND_FPDMA_QUEUED or table[2] == RECEIVE_FPDMA_QUEUED):
            self.enqueue(&c, table)
        elif self.execute(&c, table):
            if not self.s.ata[n].drive[0].status & ERR and p.ci:
                next[0] = RUN_LATER if c.io else RUN_NOW
            return not c.io
        return True

    cdef int fetch(self, uint32_t n, uint32_t slot, ahci_command *c, uint8_t *table) noexcept nogil:
        """The command of a slot, and its table, from memory.  -1 if there is none."""
        cdef uint8_t header[16]
        cdef uint64_t at
        cdef size_t there = TABLE_SIZE
        memset(c, 0, sizeof(c[0]))
        c.n, c.slot = n, slot
        c.header = self.s.port[n].list_at + slot * HEADER_SIZE_BYTES
        self.dma.read(c.header, header, 16)
        memcpy(&c.opts, header, 2)
        memcpy(&at, header + 8, 8)
        if not self.dma.enabled or self.dma._find(at, &there) == NULL:
            return -1
        if there < TABLE_SIZE:
            self.trigger(n, HBFS)
            return -1
        self.dma.read(at, table, TABLE_SIZE)
        if table[0] != FIS_H2D or table[1] & 0x7F:             # no port multiplier
            return -1
        c.prds = header[2] | <uint32_t>header[3] << 8
        c.prd = at + TABLE_SIZE
        if not self.reaches(c.prd, c.prds * PRD_SIZE):
            c.prds = 0
        return 0

    cdef void control(self, ahci_command *c, const uint8_t *fis) noexcept nogil:
        """A frame without a command: software reset, as SRST rises and falls (10.4.1)."""
        cdef ahci_port *p = &self.s.port[c.n]
        if not p.srst:
            if fis[15] & SRST:
                p.srst = 1
                if c.opts & OPT_C:
                    self.clear_ci(c.n, c.slot)
        elif not fis[15] & SRST:
            self.port_reset(c.n)

    cdef bint execute(self, ahci_command *c, const uint8_t *fis) noexcept nogil:
        """A command that is not queued.  False if no frame tells its end, so that it stays in PxCI."""
        cdef PyObject *ch = self.channel[c.n]
        cdef ata_drive *d = &self.s.ata[c.n].drive[0]
        cdef PyObject *m = (<AtaChannel>ch).media[0]
        cdef uint64_t failures = (<Medium>m).failures if m != NULL else 0
        cdef uint8_t command = fis[2], features = fis[3]
        if self.before != NULL:
            memcpy(self.before, &self.s.ata[c.n], sizeof(ata_channel))
        d.features = fis[3]
        d.sector, d.lba_mid, d.lba_high = fis[4], fis[5], fis[6]
        d.device = fis[7]
        d.hob_sector, d.hob_mid, d.hob_high = fis[8], fis[9], fis[10]
        d.hob_features = fis[11]
        d.count = fis[12] | <uint32_t>fis[13] << 8
        d.hob_count = 0
        d.error = 0
        if c.opts & OPT_A:
            memcpy(self.s.ata[c.n].buf, fis + ACMD_AT, ACMD_SIZE)
        self.moved(c, 0)
        (<AtaChannel>ch).command(command)
        while self.s.ata[c.n].phase != PHASE_IDLE:
            if self.s.ata[c.n].phase == PHASE_DMA:
                self.run_dma(c)
            elif self.s.ata[c.n].pos == self.s.ata[c.n].end:
                (<AtaChannel>ch).idle()         # a byte count limit of 1 lets nothing through: DRQ until a reset
                return False
            else:
                self.run_pio(c)
        if (<AtaChannel>ch).fx & FX_TRAY:
            self.set_line(TRAY_PIN, 1)
            self.set_line(TRAY_PIN, 0)
        (<AtaChannel>ch).fx = 0
        if self.restrained(c.n, failures):
            memcpy(&self.s.ata[c.n], self.before, sizeof(ata_channel))
            d.status = BSY | DRDY | DSC
            self.s.port[c.n].waits = 1
            self.stop()
            return False
        if self.s.ata[c.n].waits:                   # a flush that the host holds
            return False
        if (command == FLUSH_CACHE or command == FLUSH_CACHE_EXT and (<AtaChannel>ch).units[0].kind == ATA_DISK
                or command == SET_FEATURES and features == DISABLE_WRITE_CACHE):
            c.io = True
        if command == EXECUTE_DEVICE_DIAGNOSTIC or command == DEVICE_RESET and (<AtaChannel>ch).units[0].kind == ATA_CDROM:
            return False
        self.clear_ci(c.n, c.slot)
        self.send_d2h(c.n, True)
        return True

    # ------------------------------------------------------------------ commands that wait for the host

    cdef bint restrained(self, uint32_t n, uint64_t failures) noexcept nogil:
        """Has the medium failed since it counted `failures`, and is the command to wait for that?"""
        cdef PyObject *m = (<AtaChannel>self.channel[n]).media[0]
        return self.before != NULL and m != NULL and (<Medium>m).stops and (<Medium>m).failures != failures

    cdef void stop(self) noexcept nogil:
        """Tell the host."""
        self.set_line(IO_ERROR_PIN, 1)
        self.set_line(IO_ERROR_PIN, 0)

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        cdef uint32_t n
        if kind == INPUT_LINE and value:
            for n in range(<uint32_t>N_PORTS):
                self.resume(n)
        return 0

    cdef void resume(self, uint32_t n) noexcept nogil:
        """The host has seen to the media: commands that wait are fetched anew and carried out."""
        cdef ahci_port *p = &self.s.port[n]
        cdef ahci_queued q
        cdef uint8_t table[128]
        cdef uint32_t slot, held = p.held
        p.held = 0
        for slot in range(<uint32_t>N_SLOTS):
            if held >> slot & 1 and self.fetch(n, slot, &q.c, table) == 0:
                self.describe(&q, &q.c, table)
                self.finish_queued(&q)
        if p.waits or self.s.ata[n].waits:
            p.waits = 0
            self.s.ata[n].waits = 0
            self.s.ata[n].drive[0].status = DRDY | DSC
            self.run(n)

    # ------------------------------------------------------------------ queued commands: 5.6.4

    cdef void describe(self, ahci_queued *q, ahci_command *c, const uint8_t *fis) noexcept nogil:
        """What a queued command's frame asks for."""
        q.c = c[0]
        q.op, q.tag = fis[2], fis[12] >> 3
        q.lba = (<uint64_t>fis[10] << 40 | <uint64_t>fis[9] << 32 | <uint64_t>fis[8] << 24 | <uint64_t>fis[6] << 16
                 | <uint64_t>fis[5] << 8 | fis[4])
        q.count = fis[3] | <uint32_t>fis[11] << 8
        if q.count == 0:
            q.count = 0x10000

    cdef void enqueue(self, ahci_command *c, const uint8_t *fis) noexcept nogil:
        """Take a queued command off PxCI.  Too few bytes of regions, and commands other than the two, fail at once."""
        cdef ata_drive *d = &self.s.ata[c.n].drive[0]
        cdef ahci_queued *q = &self.queue[self.queued]
        cdef uint32_t i
        for i in range(self.queued):
            if self.queue[i].tag == fis[12] >> 3:
                return
        self.clear_ci(c.n, c.slot)
        self.send_d2h(c.n, False)
        self.describe(q, c, fis)
        if self.room(c, <uint64_t>q.count * 512) < <uint64_t>q.count * 512:
            d.error = ABRT
            d.status = DRDY | ERR
            self.trigger(c.n, OFS)
        elif q.op != READ_FPDMA_QUEUED and q.op != WRITE_FPDMA_QUEUED:
            d.error = ABRT
            d.status = DRDY | ERR
        else:
            self.queued += 1

    cdef void finish_queued(self, ahci_queued *q) noexcept nogil:
        """The transfer of a queued command, and the frame that tells its end.  One that fails keeps its bit in PxSACT."""
        cdef uint32_t n = q.c.n, chunk
        cdef ata_drive *d = &self.s.ata[n].drive[0]
        cdef PyObject *m = (<AtaChannel>self.channel[n]).media[0]
        cdef uint8_t *buf = self.s.ata[n].buf
        cdef uint64_t at = q.lba * 512, left = <uint64_t>q.count * 512
        cdef bint bad = m == NULL or at > (<Medium>m).size or left > (<Medium>m).size - at
        cdef uint64_t failures = (<Medium>m).failures if m != NULL else 0
        while left and not bad:
            chunk = <uint32_t>min(left, <uint64_t>BUFFER)
            if q.op == READ_FPDMA_QUEUED:
                bad = (<Medium>m).read(at, buf, chunk) != 0
                if not bad:
                    self.move(&q.c, buf, chunk, True)
            else:
                self.move(&q.c, buf, chunk, False)
                bad = (<Medium>m).write(at, buf, chunk) != 0
            at += chunk
            left -= chunk
        if bad and self.restrained(n, failures):
            self.s.port[n].held |= <uint32_t>1 << q.c.slot
            self.stop()
            return
        if bad:
            d.error = ABRT
            d.status = DRDY | ERR
        else:
            d.status = DRDY | DSC
            self.s.port[n].finished |= <uint32_t>1 << q.tag
        self.send_sdb(n)

    # ------------------------------------------------------------------ transfers: 5.6, region descriptors 4.2.3.3

    cdef bint next_prd(self, ahci_command *c) noexcept nogil:
        """Go on to the next region.  False at the end."""
        cdef uint32_t prd[4]
        if c.prds == 0:
            return False
        self.dma.read(c.prd, prd, PRD_SIZE)
        c.prd += PRD_SIZE
        c.prds -= 1
        c.addr = prd[0] | <uint64_t>prd[1] << 32
        c.left = (prd[3] & PRD_COUNT) + 1
        return True

    cdef int move(self, ahci_command *c, uint8_t *buf, uint32_t n, bint to_memory) noexcept nogil:
        """Move n bytes between buf and the regions, or as many as there are.  -1 if the regions had ended before."""
        cdef uint32_t part
        if c.left == 0 and c.prds == 0:
            return -1
        while n:
            if c.left == 0 and not self.next_prd(c):
                break
            part = min(n, c.left)
            if to_memory:
                self.dma.write(c.addr, buf, part)
            else:
                self.dma.read(c.addr, buf, part)
            c.addr += part
            c.left -= part
            buf += part
            n -= part
        return 0

    cdef uint64_t room(self, const ahci_command *c, uint64_t most) noexcept nogil:
        """How many bytes the regions that are left have, up to `most`."""
        cdef ahci_command walk = c[0]
        cdef uint64_t bytes = walk.left
        while bytes < most and self.next_prd(&walk):
            bytes += walk.left
        return min(bytes, most)

    cdef void moved(self, ahci_command *c, uint32_t n) noexcept nogil:
        """Count n bytes in the header's PRDBC: 4.2.2."""
        c.bytes += n
        self.dma.write(c.header + 4, &c.bytes, 4)

    cdef void run_pio(self, ahci_command *c) noexcept nogil:
        """One block through the data port.  That of a command packet came with the command; the first of data to the device, or of
        a packet command, brings no interrupt: SATA 11.6, 11.9."""
        cdef PyObject *ch = self.channel[c.n]
        cdef uint32_t size = self.s.ata[c.n].end - self.s.ata[c.n].pos
        cdef bint to_device = c.opts & OPT_W, packet = c.opts & OPT_A
        cdef bint interrupt = c.drq or not (packet or to_device)
        cdef bint writes = self.s.ata[c.n].phase == PHASE_OUT_SECTORS
        if self.s.ata[c.n].phase == PHASE_IN_SECTORS or self.s.ata[c.n].phase == PHASE_IN_PACKET and self.s.ata[c.n].cd_lba != NO_SECTOR:
            c.io = True
        self.send_pio(c.n, size, interrupt)
        if c.drq or not packet:
            self.move(c, self.s.ata[c.n].buf + self.s.ata[c.n].pos, size, not to_device)
            self.moved(c, size)
        c.drq = True
        if interrupt:
            self.trigger(c.n, PSS)
        self.s.ata[c.n].pos = self.s.ata[c.n].end
        (<AtaChannel>ch).data_done()
        if writes and not self.s.ata[c.n].drive[0].status & ERR:
            c.io = True

    cdef void run_dma(self, ahci_command *c) noexcept nogil:
        """The transfer of a DMA command, which needs regions of its whole length."""
        cdef PyObject *ch = self.channel[c.n]
        cdef uint8_t dma = self.s.ata[c.n].dma
        cdef uint64_t total = (<AtaChannel>ch).dma_bytes(), done = 0
        cdef uint32_t chunk
        cdef int outcome = 0
        if dma == DMA_PACKET:
            (<AtaChannel>ch).dma_end(self.run_packet_dma(c))
            return
        if self.room(c, total) < total:
            outcome = 1
        elif not (<AtaChannel>ch).dma_allowed():
            outcome = 2
        else:
            c.io = total != 0
        while outcome == 0 and done < total:
            chunk = (<AtaChannel>ch).dma_chunk(total - done)
            if dma == DMA_WRITE or dma == DMA_TRIM:
                self.move(c, self.s.ata[c.n].buf, chunk, False)
                if (<AtaChannel>ch).dma_store(done, chunk):
                    outcome = 2
            elif (<AtaChannel>ch).dma_fetch(done, chunk):
                outcome = 2
            else:
                self.move(c, self.s.ata[c.n].buf, chunk, True)
            done += chunk
        if outcome == 0:
            self.moved(c, <uint32_t>total)
        (<AtaChannel>ch).dma_end(outcome)

    cdef int run_packet_dma(self, ahci_command *c) noexcept nogil:
        """The reply of a packet command: by groups of sectors, the last of which may meet regions that are too short for it.  0,
        1 if there was no region for a group, 2 after a medium error."""
        cdef PyObject *ch = self.channel[c.n]
        cdef uint64_t total = (<AtaChannel>ch).dma_bytes(), done = 0, group, in_group
        cdef bint sectors = self.s.ata[c.n].cd_lba != NO_SECTOR
        cdef uint32_t chunk
        cdef int rc
        while done < total:
            group = total - done
            if sectors:
                c.io = True
                group = min(group, <uint64_t>(PACKET_GROUP if self.s.ata[c.n].cd_size == PACKET_SECTOR else self.s.ata[c.n].cd_size))
            in_group = 0
            while in_group < group:
                chunk = (<AtaChannel>ch).dma_chunk(group - in_group)
                if (<AtaChannel>ch).dma_fetch(done + in_group, chunk):
                    return 2
                rc = self.move(c, self.s.ata[c.n].buf, chunk, True)
                if rc and in_group == 0:
                    return 1
                in_group += chunk
            self.moved(c, <uint32_t>group)
            done += group
        return 0

    # ------------------------------------------------------------------ state

    def restore(self, dict state not None):
        """As Device.restore.  Raises StateError, too, for drives in the middle of what is always over between two accesses."""
        for n in range(N_PORTS):
            try:
                good = (state[f"ata{n}_phase"] == PHASE_IDLE and state[f"ata{n}_unit"] == 0
                        and all(state[f"ata{n}_dev{u}_multiple"] <= MAX_MULTIPLE and state[f"ata{n}_dev{u}_selftests"] <= 21 for u in range(2)))
            except (KeyError, TypeError):
                continue                            # Device.restore says what is wrong
            if not good:
                raise StateError(f"{self.id}: the saved transfer of port {n} does not fit its drive")
        PciFunction.restore(self, state)
