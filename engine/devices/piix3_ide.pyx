"""PCI IDE function of the 82371SB (PIIX3): two ATA channels at their legacy addresses, and bus mastering for both.

Documents: Intel 82371FB (PIIX) and 82371SB (PIIX3) data sheet, 290550 (registers cited by their printed names);
Programming Interface for Bus Master IDE Controller, revision 1.0 ("BMIDE"). Modelled: the command and control blocks
of both channels, physical region descriptors, both channels' interrupts (IRQ14 and IRQ15; the function has no INTA#
of its own). Not modelled: bus timing (IDETIM and SIDETIM keep what is written and change nothing; both channels are
always decoded), the ERROR bit of BMISX (memory that is not there reads as zeros). A transfer is over when the write
that started it returns. What the drives do: engine/devices/ata.pyx. Deviations: docs/devices/piix3_ide.md. Called by
the owning worker only.
"""
cimport cython
from cpython.ref cimport PyObject

from engine._device cimport INPUT_LINE, IO_OK, NEVER, RESET_POWER_ON, Device
from engine.devices.ata cimport (BUFFER, CD_RAW, CD_SECTOR, DATA, DMA_PACKET, DMA_TRIM, DMA_WRITE, FX_DMA, FX_IRQ, FX_IRQ_OFF, FX_STOP, FX_TRAY,
                                 MAX_MULTIPLE, NO_SECTOR, PHASE_DMA, PHASE_IN_PACKET, PHASE_IN_SECTORS, PHASE_OUT_SECTORS)
from engine.pci._config cimport CONFIG_REGION, FIRST_FIXED

from engine.devices.ata import ata_state, check_drives
from engine.errors import StateError
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.types import RO, RW, RW1C, WO, Region, Register, Space


def _channel_registers(n):
    cmd, ctl, sheet = REGION_CMD0 + 2 * n, REGION_CTL0 + 2 * n, "ATA/ATAPI-6"
    return (
        Register(f"DATA{n}", 0, 16, RW, 0, 0, "moves the next word of a PIO transfer", f"{sheet} 7.6", cmd),
        Register(f"ERROR{n}", 1, 8, RO, 0, 0, "", f"{sheet} 7.9", cmd),
        Register(f"FEATURES{n}", 1, 8, WO, None, 0, "the value before goes to the previous-content byte", f"{sheet} 7.10", cmd),
        Register(f"SECTOR_COUNT{n}", 2, 8, RW, None, 0xFF, "as FEATURES", f"{sheet} 7.14", cmd),
        Register(f"LBA_LOW{n}", 3, 8, RW, None, 0xFF, "as FEATURES", f"{sheet} 7.12", cmd),
        Register(f"LBA_MID{n}", 4, 8, RW, None, 0xFF, "as FEATURES", f"{sheet} 7.13", cmd),
        Register(f"LBA_HIGH{n}", 5, 8, RW, None, 0xFF, "as FEATURES", f"{sheet} 7.11", cmd),
        Register(f"DEVICE{n}", 6, 8, RW, None, 0x5F, "selects a drive", f"{sheet} 7.7", cmd),
        Register(f"STATUS{n}", 7, 8, RO, None, 0, "reading acknowledges the interrupt", f"{sheet} 7.15", cmd),
        Register(f"COMMAND{n}", 7, 8, WO, None, 0, "executes a command", f"{sheet} 7.4", cmd),
        Register(f"ALTERNATE_STATUS{n}", 0, 8, RO, None, 0, "", f"{sheet} 7.3", ctl),
        Register(f"DEVICE_CONTROL{n}", 0, 8, WO, None, 0, "SRST resets both drives", f"{sheet} 7.8", ctl),
        Register(f"BMIC{n}", BM_CHANNEL * n + BMICX, 8, RW, 0, BMICX_WMASK, "SSBM starts a waiting transfer", "290550 BMICX",
                 REGION_BMIBA),
        Register(f"BMIS{n}", BM_CHANNEL * n + BMISX, 8, RW1C, 0, BMISX_DMACAP, "", "290550 BMISX", REGION_BMIBA, w1c=BMISX_W1C),
        Register(f"BMIDTP{n}", BM_CHANNEL * n + BMIDTPX, 32, RW, 0, BMIDTPX_WMASK, "", "290550 BMIDTPX", REGION_BMIBA),
    )


cdef inline uint32_t aligned_part(uint32_t offset, uint32_t size) noexcept nogil:
    """How much of an access is one naturally aligned access."""
    cdef uint32_t part = 4
    while part > size or offset & (part - 1):
        part >>= 1
    return part


_CHECKED = ("unit", "phase", "dma", "pos", "end", "index", "cd_size", "block", "cd_lba", "packet_left")
_BM = (("table", "u4"), ("at", "u4"), ("command", "u1"), ("status", "u1"), ("pad", "u1", 2))
_BM_STATE = tuple((f"bm{n}_{field[0]}", *field[1:]) for n in range(2) for field in _BM) + (("fill", "u1", 8),)


@cython.final
cdef class Piix3Ide(AtaController):
    """The function.  Setting `drives`: a list of tables.

    channel, unit   place: 0 or 1 each
    kind            "disk" or "cdrom"
    size            bytes; of a disk, and of a disc whose image is not at hand
    image           path of a raw file; a disk without one holds zeros; a CD-ROM drive with neither holds no disc
    write           the guest's writes go to the image (else they are kept in memory)
    readonly        writes fail
    serial, model, firmware, chs, wwn, rotation_rate, physical_block    what IDENTIFY DEVICE says
    on_error        "report" (the default), or "stop": a FLUSH CACHE that meets a failure of the image gives a pulse on io_error, and
                    waits until resume rises; other commands report it
    fail            list of "read", "write", "flush": each lets one of these fail

    resume: a rising edge, when the host has seen to the media.
    """
    TITLE = "PIIX3 IDE function, two ATA channels with bus mastering"
    REGISTERS = _channel_registers(0) + _channel_registers(1)
    IN = ("resume",)
    OUT = ("inta", "irq14", "irq15", "io_error", "tray")
    CONFIG = {**PCI_CONFIG, "drives": []}
    STATE = PCI_STATE + _BM_STATE + ata_state("ata0_") + ata_state("ata1_")

    def __init__(self, str id="ide", uint32_t rank=0, arena=None, dma=None, **config):
        cdef AtaChannel c
        Device.__init__(self, id, rank, arena, dma, **config)
        drives = check_drives(f"device {id!r}", self.config["drives"], 2)
        self.s = <piix3_ide_state *>self.pci_alloc(sizeof(piix3_ide_state))
        self.channels = (AtaChannel(), AtaChannel())
        for n in range(2):
            c = self.channels[n]
            c.setup(&self.s.ata[n], f"device {id!r}", n, drives)
            self.channel[n] = <PyObject *>c
        self.identify(0x8086, 0x7010, 0, 0x010180)
        self.initial[0x06] = 0x80                   # fast back-to-back
        self.initial[0x07] = 0x02                   # DEVSEL# medium
        self.add_bar(REGION_BMIBA, Space.PIO, 16, name="bmdma")
        self.power_on()

    def fixed_regions(self):
        return (Region("ide0-cmd", Space.PIO, 8, unaligned=True, strings=True), Region("ide0-ctl", Space.PIO, 1, ports=True),
                Region("ide1-cmd", Space.PIO, 8, unaligned=True, strings=True), Region("ide1-ctl", Space.PIO, 1, ports=True))

    # ------------------------------------------------------------------ reset

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """RST# resets the drives too."""
        cdef uint32_t n
        PciFunction.on_reset(self, kind)
        for n in range(2):
            self.s.bm[n].table = 0
            self.s.bm[n].at = 0
            self.s.bm[n].command = 0
            self.s.bm[n].status = 0
            (<AtaChannel>self.channel[n]).reset(kind == RESET_POWER_ON)
            self.settle(n)

    # ------------------------------------------------------------------ accesses

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        cdef uint32_t n
        if region >= FIRST_FIXED:
            n = (region - FIRST_FIXED) >> 1
            if region & 1:
                value[0] = (<AtaChannel>self.channel[n]).alternate_status()
                return IO_OK
            return self.cmd_read(n, offset, size, value)
        if region == CONFIG_REGION:
            return self.config_read(offset, size, value)
        value[0] = 0
        self.bm_read(offset, size, value)
        return IO_OK

    cdef uint64_t string_until(self, uint32_t region, uint32_t offset, uint32_t size, bint write) noexcept nogil:
        if write or region < FIRST_FIXED or region & 1 or offset != DATA or size == 1:
            return 0
        return NEVER if (<AtaChannel>self.channel[(region - FIRST_FIXED) >> 1]).in_row(size) else 0

    cdef uint32_t read_string(self, uint32_t region, uint32_t offset, uint32_t size, uint32_t n, uint64_t *values,
                              io_status *status) noexcept nogil:
        return (<AtaChannel>self.channel[(region - FIRST_FIXED) >> 1]).data_string(size, n, values, status)

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint32_t n
        if region >= FIRST_FIXED:
            n = (region - FIRST_FIXED) >> 1
            if region & 1:
                (<AtaChannel>self.channel[n]).write_control(<uint8_t>value)
            else:
                self.cmd_write(n, offset, size, value)
            if (<AtaChannel>self.channel[n]).fx:
                self.settle(n)
            return IO_OK
        if region == CONFIG_REGION:
            return self.config_write(offset, size, value)
        self.bm_write(offset, size, value)
        return IO_OK

    cdef void learn(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if (region == REGION_CMD0 or region == REGION_CMD1) and offset == DATA:
            (<AtaChannel>self.channel[(region - FIRST_FIXED) >> 1]).learn(size, value)

    cdef io_status cmd_read(self, uint32_t n, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """The command block.  A byte read at DATA takes a word; two bytes elsewhere are two registers; four are nothing."""
        cdef PyObject *c = self.channel[n]
        cdef io_status status = IO_OK
        if offset == DATA:
            status = (<AtaChannel>c).data_read(size if size > 1 else 2, value)
        elif size == 1:
            value[0] = (<AtaChannel>c).read_register(offset)
        elif size == 2:
            value[0] = (<AtaChannel>c).read_register(offset)
            value[0] |= <uint64_t>(0xFF if offset == 7 else (<AtaChannel>c).read_register(offset + 1)) << 8
        else:
            value[0] = 0xFFFFFFFFu
        if (<AtaChannel>c).fx:
            self.settle(n)
        return status

    cdef void cmd_write(self, uint32_t n, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef PyObject *c = self.channel[n]
        if offset == DATA and size > 1:
            (<AtaChannel>c).data_write(size, value)
        elif size < 4:
            (<AtaChannel>c).write_register(offset, <uint8_t>value)
            if size == 2 and offset < 7:
                (<AtaChannel>c).write_register(offset + 1, <uint8_t>(value >> 8))

    cdef void settle(self, uint32_t n) noexcept nogil:
        """Do what the channel has asked for.  An interrupt passes through the bus master function, which notes it: BMISX."""
        cdef uint32_t fx = (<AtaChannel>self.channel[n]).fx
        (<AtaChannel>self.channel[n]).fx = 0
        if fx & FX_IRQ_OFF:
            self.set_line(PIN_IRQ14 + n, False)
        if fx & FX_IRQ:
            self.s.bm[n].status |= BMISX_IDEINTS
            self.set_line(PIN_IRQ14 + n, True)
        if fx & FX_STOP:
            self.set_line(PIN_IO_ERROR, True)
            self.set_line(PIN_IO_ERROR, False)
        if fx & FX_TRAY:
            self.set_line(PIN_TRAY, True)
            self.set_line(PIN_TRAY, False)
        if fx & FX_DMA and self.s.bm[n].status & BMISX_BMIDEA:
            self.run_dma(n)

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        cdef uint32_t n
        if kind == INPUT_LINE and value:
            for n in range(2):
                (<AtaChannel>self.channel[n]).resume()
                self.settle(n)
        return 0

    # ------------------------------------------------------------------ bus master registers

    cdef uint32_t bm_read_part(self, uint32_t offset, uint32_t size) noexcept nogil:
        """BMICX and BMISX are read by bytes; BMIDTPX in any width."""
        cdef bm_channel *b = &self.s.bm[offset // BM_CHANNEL]
        cdef uint32_t at = offset % BM_CHANNEL
        if at >= BMIDTPX:
            return b.table >> (8 * (at - BMIDTPX))
        if size == 1 and at == BMICX:
            return b.command
        if size == 1 and at == BMISX:
            return b.status
        return 0xFFFFFFFFu

    cdef void bm_write_part(self, uint32_t offset, uint32_t size, uint32_t value) noexcept nogil:
        cdef uint32_t n = offset // BM_CHANNEL, at = offset % BM_CHANNEL, shift, mask
        cdef bm_channel *b = &self.s.bm[n]
        if at >= BMIDTPX:
            shift = 8 * (at - BMIDTPX)
            mask = <uint32_t>(((<uint64_t>1 << 8 * size) - 1) << shift)
            b.table = (b.table & ~mask | value << shift & mask) & BMIDTPX_WMASK
        elif size == 1 and at == BMISX:
            b.status = <uint8_t>(value & BMISX_DMACAP | b.status & ~(value & BMISX_W1C | BMISX_DMACAP))
        elif size == 1 and at == BMICX:
            if (b.command ^ value) & BMICX_SSBM:
                if value & BMICX_SSBM:
                    b.at = b.table
                    if not b.status & BMISX_BMIDEA:
                        b.status |= BMISX_BMIDEA
                        if self.s.ata[n].phase == PHASE_DMA:
                            self.run_dma(n)
                else:
                    b.status &= ~BMISX_BMIDEA
            b.command = <uint8_t>(value & BMICX_WMASK)

    cdef void bm_read(self, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """An access that is not aligned is several that are."""
        cdef uint32_t done = 0, part, bits
        while done < size and offset + done < 2 * BM_CHANNEL:
            part = aligned_part(offset + done, size - done)
            bits = self.bm_read_part(offset + done, part)
            value[0] |= (bits & ((<uint64_t>1 << 8 * part) - 1)) << 8 * done
            done += part

    cdef void bm_write(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint32_t done = 0, part
        while done < size and offset + done < 2 * BM_CHANNEL:
            part = aligned_part(offset + done, size - done)
            self.bm_write_part(offset + done, part, <uint32_t>(value >> 8 * done))
            done += part

    # ------------------------------------------------------------------ bus master transfers: BMIDE

    cdef bint prd_next(self, prd_walk *w) noexcept nogil:
        """Fetch the next descriptor: address, count (0 is 64 KiB), end of table.  False at the end."""
        cdef uint32_t prd[2]
        if w.last or w.at - w.table >= PRD_TABLE:
            return False
        self.dma.read(w.at, prd, PRD_SIZE)
        w.at += PRD_SIZE
        w.addr = prd[0]
        w.left = prd[1] & 0xFFFE
        if w.left == 0:
            w.left = 0x10000
        w.last = prd[1] >> 31
        return True

    cdef int prd_move(self, prd_walk *w, uint8_t *buf, uint32_t n, bint to_memory) noexcept nogil:
        """Move n bytes between buf and the regions of the table.  0, or -1 when it ends before them."""
        cdef uint32_t part
        while n:
            if w.left == 0 and not self.prd_next(w):
                return -1
            part = min(n, w.left)
            if to_memory:
                self.dma.write(w.addr, buf, part)
            else:
                self.dma.read(w.addr, buf, part)
            w.addr += part
            w.left -= part
            buf += part
            n -= part
        return 0

    cdef void run_dma(self, uint32_t n) noexcept nogil:
        """Carry out the waiting DMA command.

        A disk command needs a table of at least its length: with a shorter one nothing moves and no interrupt comes; with
        a longer one the function stays active (BMIDE, status bits).  A packet command moves what there is room for.
        """
        cdef bm_channel *b = &self.s.bm[n]
        cdef PyObject *c = self.channel[n]
        cdef uint8_t *buf = self.s.ata[n].buf
        cdef uint8_t dma = self.s.ata[n].dma
        cdef uint64_t total = (<AtaChannel>c).dma_bytes(), room = 0, done = 0
        cdef uint32_t chunk
        cdef int outcome = 0
        cdef bint more = False
        cdef prd_walk w
        w.at, w.table, w.addr, w.left, w.last = b.at, b.table, 0, 0, False
        if dma != DMA_PACKET:
            while self.prd_next(&w):
                room += w.left
            more = room > total
            b.at, w.at, w.left, w.last = w.at, b.at, 0, False
            if room < total:
                outcome = 1
            elif not (<AtaChannel>c).dma_allowed():
                outcome = 2
        while outcome == 0 and done < total:
            chunk = (<AtaChannel>c).dma_chunk(total - done)
            if dma == DMA_WRITE or dma == DMA_TRIM:
                self.prd_move(&w, buf, chunk, False)
                if (<AtaChannel>c).dma_store(done, chunk):
                    outcome = 2
            elif (<AtaChannel>c).dma_fetch(done, chunk):
                outcome = 2
            elif self.prd_move(&w, buf, chunk, True):
                outcome = 1
            done += chunk
        if dma == DMA_PACKET:
            b.at = w.at
        if not (more and outcome == 0):
            b.status &= ~BMISX_BMIDEA
        (<AtaChannel>c).dma_end(outcome)
        self.settle(n)

    # ------------------------------------------------------------------ state

    def restore(self, dict state not None):
        """As Device.restore.  Raises StateError, too, for a transfer that these drives cannot be in."""
        for n in range(2):
            try:
                field = {name: state[f"ata{n}_{name}"] for name in _CHECKED}
                unit = field["unit"]
                sectors = (field["phase"] in (PHASE_IN_SECTORS, PHASE_OUT_SECTORS)
                           or field["phase"] == PHASE_DMA and field["dma"] != DMA_PACKET
                           or field["phase"] in (PHASE_IN_PACKET, PHASE_DMA) and field["cd_lba"] != NO_SECTOR
                           and field["packet_left"] > 0)
                good = (unit <= 1 and field["phase"] <= PHASE_DMA and field["dma"] <= DMA_PACKET
                        and field["pos"] <= field["end"] <= BUFFER and field["index"] <= BUFFER
                        and field["cd_size"] in (0, CD_SECTOR, CD_RAW) and 0 <= field["block"] <= MAX_MULTIPLE
                        and all(state[f"ata{n}_dev{u}_multiple"] <= MAX_MULTIPLE and state[f"ata{n}_dev{u}_selftests"] <= 21
                                for u in range(2))
                        and (self.medium(n, unit) is not None or not sectors))
            except (KeyError, TypeError, OverflowError):
                continue                            # Device.restore says what is wrong
            if not good:
                raise StateError(f"{self.id}: the saved transfer of channel {n} does not fit its drives")
        PciFunction.restore(self, state)
