"""Floppy disk controller 82078 with up to two drives.

Document: Intel 82078 CHMOS single-chip floppy disk controller data sheet (290468 and 290474).  Modelled: the registers
that the PC/AT decodes, all commands, transfers by DMA and by program, multi-track, scan, verify, write protection, the
changed line, sense interrupt after reset, data rates, geometries of 3.5" and 5.25" media.  A disk is a raw image held in
memory; what the guest writes stays there (image()).  Not modelled: the time that the mechanics take, but for READ ID,
which guests use as a clock; deleted data; formatting of single sectors; gaps, CRCs, motors; tape drives.  Deviations:
docs/devices/fdc.md.  Called by the owning worker only.
"""
cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.string cimport memcmp, memcpy, memset

from engine._device cimport IO_CONTENT, IO_NO_REGISTER, IO_OK, NEVER, RESET_POWER_ON

from engine.devices._medium import read_image
from engine.errors import MachineError
from engine.types import RO, RW, WO, Region, Register, Space

cdef enum:
    RESULT_NS = 20000000    # READ ID: the next sector's address passes the head (50 a second)
    IMAGE_MAX = 1 << 24     # bytes; no drive reaches a quarter of it
    NO_DISK_BOUND = 0xFF    # an empty drive steps as far as it is told

# 82078 "Command Set/Descriptions": first byte under a mask, number of parameters.  The first that matches counts; the last line but
# one is a WRITE with bits that the data sheet wants zero (BeOS).
_COMMANDS = (
    (CMD_READ, 0x1F, 8), (CMD_WRITE, 0x3F, 8), (CMD_SEEK, 0xFF, 2), (CMD_SENSE_INTERRUPT, 0xFF, 0),
    (CMD_RECALIBRATE, 0xFF, 1), (CMD_FORMAT_TRACK, 0xBF, 5), (CMD_READ_TRACK, 0xBF, 8), (CMD_RESTORE, 0xFF, 17),
    (CMD_SAVE, 0xFF, 0), (CMD_READ_DELETED, 0x1F, 8), (CMD_SCAN_EQUAL, 0x1F, 8), (CMD_VERIFY, 0x1F, 8),
    (CMD_SCAN_LOW, 0x1F, 8), (CMD_SCAN_HIGH, 0x1F, 8), (CMD_WRITE_DELETED, 0x3F, 8), (CMD_READ_ID, 0xBF, 1),
    (CMD_SPECIFY, 0xFF, 2), (CMD_SENSE_DRIVE, 0xFF, 1), (CMD_PERPENDICULAR, 0xFF, 1), (CMD_CONFIGURE, 0xFF, 3),
    (CMD_POWERDOWN, 0xFF, 2), (CMD_OPTION, 0xFF, 1), (CMD_DRIVE_SPEC, 0xFF, 5), (CMD_SEEK_OUT, 0xFF, 2),
    (CMD_FORMAT_WRITE, 0xFF, 10), (CMD_SEEK_IN, 0xFF, 2), (CMD_LOCK, 0x7F, 0), (CMD_DUMPREG, 0xFF, 0),
    (CMD_VERSION, 0xFF, 0), (CMD_PART_ID, 0xFF, 0), (CMD_WRITE, 0x1F, 8), (CMD_INVALID, 0x00, 0))

cdef uint8_t COMMAND_OF[256]
cdef uint8_t PARAMETERS_OF[256]
for _byte in range(256):
    COMMAND_OF[_byte], PARAMETERS_OF[_byte] = next(
        (command, n) for command, mask, n in _COMMANDS if _byte & mask == command & mask)

# Media by drive type and data rate code (DSR): (sectors a track, tracks, sides).  Earlier ones win where sizes collide.
_MEDIA = tuple(
    (drive, rate, *geometry) for drive, rate, geometries in (
        ("144", 0, ((18, 80, 2), (20, 80, 2), (21, 80, 2), (21, 82, 2), (21, 83, 2), (22, 80, 2), (23, 80, 2), (24, 80, 2))),
        ("288", 3, ((36, 80, 2), (39, 80, 2), (40, 80, 2), (44, 80, 2), (48, 80, 2))),
        ("144", 2, ((9, 80, 2), (10, 80, 2), (10, 82, 2), (10, 83, 2), (13, 80, 2), (14, 80, 2))),
        ("120", 0, ((15, 80, 2), (18, 80, 2), (18, 82, 2), (18, 83, 2), (20, 80, 2))),
        ("120", 2, ((9, 80, 2), (11, 80, 2))),
        ("120", 1, ((9, 40, 2), (9, 40, 1), (10, 41, 2), (10, 42, 2))),
        ("120", 2, ((8, 40, 2), (8, 40, 1))),
        ("144", 2, ((9, 80, 1),)),
    ) for geometry in geometries)

_REGISTERS = (
    Register("SRB", SRB, 8, RO, SRB_RESET, 0, "", "82078: Status Register B (SRB)", region=REGION_FDC),
    Register("DOR", DOR, 8, RW, DOR_RESET, 0xFF, "leaving reset (bit 2) resets the controller and interrupts",
             "82078: Digital Output Register (DOR)", region=REGION_FDC),
    Register("TDR", TDR, 8, RW, 0x00, TDR_BOOTSEL, "", "82078: Tape Drive Register (TDR)", region=REGION_FDC),
    Register("MSR", MSR, 8, RO, MSR_RQM, 0, "ends power down", "82078: Main Status Register (MSR)", region=REGION_FDC),
    Register("DSR", DSR, 8, WO, None, 0, "may reset the controller", "82078: Datarate Select Register (DSR)", region=REGION_FDC),
    Register("FIFO", FIFO, 8, RW, None, 0, "commands, data, results", "82078: FIFO (Data)", region=REGION_FDC),
    Register("DIR", 0, 8, RO, None, 0, "", "82078: Digital Input Register (DIR)", region=REGION_DIR),
    Register("CCR", 0, 8, WO, None, 0, "sets the data rate", "82078: Configuration Control Register (CCR)", region=REGION_DIR),
)


def geometry(sectors, drive="auto"):
    """(type, rate, sectors a track, tracks, sides) of a medium of that many sectors in a drive of that type: same type
    and size, else same diameter and size, else the type's usual medium.  "auto" takes any type by size, else 2.88 MB."""
    same = [m for m in _MEDIA if m[2] * m[3] * m[4] == sectors]
    if drive == "auto":
        return next(iter(same), None) or next(m for m in _MEDIA if m[0] == "288")
    return next((m for m in same if m[0] == drive), None) or next(
        (m for m in same if (m[0] == "120") == (drive == "120")), None) or next(m for m in _MEDIA if m[0] == drive)


@cython.final
cdef class I82078(DmaClient):
    """The controller and its drives.

    drives: how many there are.  image_a, image_b: raw image files, "" for no disk.  size_a, size_b: bytes of a disk of
    which no image is at hand; it begins blank.  type_a, type_b: "auto", "144", "288"
    or "120".  readonly: all disks are write protected.  dma_channel: of the peer "dma".
    """
    TITLE = "82078: floppy disk controller with two drives"
    OUT = ("irq",)
    CONFIG = {"drives": 1, "image_a": "", "image_b": "", "size_a": 0, "size_b": 0, "type_a": "auto", "type_b": "auto", "readonly": False,
              "dma_channel": 2}
    REGISTERS = _REGISTERS
    STATE = (("data_pos", "u4"), ("data_len", "u4"), ("srb", "u1"), ("dor", "u1"), ("tdr", "u1"), ("dsr", "u1"),
             ("msr", "u1"), ("phase", "u1"), ("pending", "u1"), ("st0", "u1"), ("resets", "u1"), ("unit", "u1"),
             ("direction", "u1"), ("multi", "u1"), ("eot", "u1"), ("step_rate", "u1"), ("head_load", "u1"),
             ("configuration", "u1"), ("precompensation", "u1"), ("lock", "u1"), ("powerdown", "u1"), ("track", "u1", 2),
             ("head", "u1", 2), ("sector", "u1", 2), ("sectors", "u1", 2), ("tracks", "u1", 2), ("two_sided", "u1", 2),
             ("rate", "u1", 2), ("changed", "u1", 2), ("perpendicular", "u1", 2), ("fifo", "u1", SECTOR))

    def __init__(self, str id="fdc", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.drives, self.channel = self.config["drives"], self.config["dma_channel"]
        if self.drives > 2:
            raise MachineError(f"device {id!r}: drives = {self.drives}; there can be 0 to 2")
        self.types = [self.config["type_a"], self.config["type_b"]]
        for name in self.types:
            if name != "auto" and name not in [m[0] for m in _MEDIA]:
                raise MachineError(f"device {id!r}: no drive type {name!r}; there are auto, 144, 288, 120")
        self.images = [None, None]
        self.s = <i82078_state *>self.state_alloc(sizeof(i82078_state))
        self.power_on()
        for d in range(2):
            path = self.config["image_a" if d == 0 else "image_b"]
            if d >= self.drives:
                if path:
                    raise MachineError(f"device {id!r}: image {path} needs drive {d}; drives = {self.drives}")
                self.s.changed[d] = 1
                self.protected[d] = True
            elif path:
                self.insert(d, read_image(f"device {id!r}", path, IMAGE_MAX), self.config["readonly"])
            elif self.config["size_a" if d == 0 else "size_b"]:
                size = self.config["size_a" if d == 0 else "size_b"]
                if size > IMAGE_MAX:
                    raise MachineError(f"device {id!r}: a disk of {size} bytes; no drive takes more than {IMAGE_MAX}")
                self.insert(d, bytes(size), self.config["readonly"])
            else:
                if self.types[d] == "auto":
                    self.types[d] = "288"       # an empty drive takes every 3.5" disk
                self.eject(d)
        # Only now are there disks to find track 0 of.
        self.power_on()

    @staticmethod
    def drive_for(uint64_t size):
        """Type of the drive that "auto" is with a disk of so many bytes; 0: with none."""
        return geometry((size + SECTOR - 1) // SECTOR)[0]

    def insert(self, uint32_t drive, image, bint readonly=False):
        """Put a disk, a bytes-like raw image, into a drive; the changed line rises."""
        if drive >= self.drives:
            raise MachineError(f"{self.id}: there is no drive {drive}")
        data = bytearray(image)
        if not data:
            raise MachineError(f"{self.id}: an empty image is no disk")
        data.extend(bytes((SECTOR - len(data) % SECTOR) % SECTOR))
        kind, rate, sectors, tracks, sides = geometry(len(data) // SECTOR, self.types[drive])
        if self.types[drive] == "auto":
            self.types[drive] = kind
        self.images[drive] = data
        self.media[drive] = <uint8_t *>PyByteArray_AS_STRING(data)
        self.media_size[drive] = len(data)
        self.protected[drive] = readonly
        self.s.sectors[drive], self.s.tracks[drive], self.s.rate[drive] = sectors, tracks, rate
        self.s.two_sided[drive] = sides == 2
        self.s.changed[drive] = 1

    def eject(self, uint32_t drive):
        """Take the disk out; the changed line rises."""
        if drive >= self.drives:
            raise MachineError(f"{self.id}: there is no drive {drive}")
        self.media[drive] = NULL
        self.media_size[drive] = 0
        self.images[drive] = None
        self.protected[drive] = True
        self.s.sectors[drive] = self.s.tracks[drive] = NO_DISK_BOUND
        self.s.changed[drive] = 1

    def image(self, uint32_t drive):
        """The disk's bytes as they are now; None if there is no disk.  Media are not part of save()."""
        data = self.images[drive] if drive < 2 else None
        return None if data is None else bytes(data)

    def connect(self, str name, Device peer):
        """Peer "dma": the I8237 whose channel `dma_channel` moves the data."""
        if name != "dma" or not isinstance(peer, I8237):
            raise MachineError(f"device {self.id!r}: its peer is \"dma\", an I8237; not {name!r}, {type(peer).__name__}")
        self.peer = <I8237>peer
        self.peer.attach(self.channel, self)

    def regions(self):
        """3F1h to 3F5h, and 3F7h; 3F6h between them is a disk controller's."""
        return (Region("fdc", Space.PIO, 5, ports=True),
                Region("fdc-dir", Space.PIO, 1, ports=True))

    def on_restore(self):
        """Hold what selects array members in range."""
        self.s.unit &= DOR_DRIVE
        self.s.tdr &= TDR_BOOTSEL

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if region == REGION_DIR:
            value[0] = DIR_CHANGED if self.s.changed[self.current()] else 0
        elif offset == SRB:
            value[0] = self.s.srb
        elif offset == DOR:
            value[0] = self.s.dor | self.s.unit
        elif offset == TDR:
            value[0] = self.s.tdr
        elif offset == MSR:
            self.s.dsr &= ~DSR_POWERDOWN
            self.s.dor |= DOR_NRESET
            value[0] = self.s.msr
        elif self.s.phase == PHASE_EXECUTION:
            value[0] = self.read_fifo()
            return <io_status>(IO_OK | IO_CONTENT)
        else:
            value[0] = self.read_fifo()
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint8_t v = <uint8_t>value
        if region == REGION_FDC and offset == DOR:
            self.write_dor(v)
        elif not self.s.dor & DOR_NRESET:
            pass                          # held in reset: nothing else listens
        elif region == REGION_DIR:
            self.s.dsr = self.s.dsr & ~DSR_RATE | v & DSR_RATE
        elif offset == TDR:
            self.s.tdr = v & TDR_BOOTSEL
        elif offset == DSR:
            self.write_dsr(v)
        elif offset == FIFO:
            self.write_fifo(v)
        return IO_OK

    cdef void on_time(self) noexcept nogil:
        # READ ID: the next sector has come round.
        cdef uint32_t d = self.current()
        if self.s.sectors[d]:
            self.s.sector[d] = self.s.sector[d] % self.s.sectors[d] + 1
        if self.s.dsr & DSR_RATE != self.s.rate[d]:
            self.finish(ST0_ABNORMAL, ST1_NO_ADDRESS, 0)
        else:
            self.finish(0, 0, 0)

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        # 82078 "Reset": the RESET pin sets everything to its default.  What the mechanics hold (geometry of the disk, changed
        # line) stays.
        self.controller_reset(False)
        memset(self.s.fifo, 0, SECTOR)
        self.s.tdr = self.s.dsr = 0
        self.s.step_rate = self.s.head_load = self.s.precompensation = self.s.lock = self.s.powerdown = 0
        self.s.perpendicular[0] = self.s.perpendicular[1] = 0
        self.s.configuration = CONFIG_RESET

    # ------------------------------------------------------------------ registers

    cdef uint32_t current(self) noexcept nogil:
        """The selected drive; the boot select bit of TDR swaps them."""
        return self.s.unit ^ (self.s.tdr >> 2)

    cdef void set_irq(self) noexcept nogil:
        self.s.pending = 1
        self.s.resets = 0
        self.set_line(0, True)

    cdef void clear_irq(self) noexcept nogil:
        self.s.st0 = 0
        self.s.pending = 0
        self.set_line(0, False)

    cdef void controller_reset(self, bint interrupt) noexcept nogil:
        """Stop whatever runs, bring both heads to track 0; a reset by software ends with an interrupt for which four
        SENSE INTERRUPT STATUS answer, one for each drive."""
        self.clear_irq()
        self.s.srb = SRB_RESET
        self.s.unit = 0
        self.s.dor = DOR_RESET
        self.s.msr = MSR_RQM
        self.s.resets = 0
        self.s.multi = 0
        self.core.deadline = NEVER
        self.seek(0, 0, 0, 1)
        self.seek(1, 0, 0, 1)
        self.command_phase()
        if interrupt:
            self.s.st0 = ST0_READY_CHANGED
            self.set_irq()
            self.s.resets = 4

    cdef void write_dor(self, uint8_t v) noexcept nogil:
        self.s.srb = self.s.srb & ~(SRB_MTR0 | SRB_MTR1 | SRB_DR0) | (
            (SRB_MTR0 if v & DOR_MOT0 else 0) | (SRB_MTR1 if v & DOR_MOT1 else 0) | (SRB_DR0 if v & DOR_DRIVE else 0))
        if v & DOR_NRESET and not self.s.dor & DOR_NRESET:
            self.controller_reset(True)
            self.s.dsr &= ~DSR_POWERDOWN
        self.s.unit = v & DOR_DRIVE
        self.s.dor = v

    cdef void write_dsr(self, uint8_t v) noexcept nogil:
        if v & DSR_RESET:
            self.controller_reset(True)
        if v & DSR_POWERDOWN:                 # the reference resets a second time, which takes the interrupt back for a moment
            self.controller_reset(True)
        self.s.dsr = v

    # ------------------------------------------------------------------ phases (82078 "Controller Phases")

    cdef void command_phase(self) noexcept nogil:
        self.s.phase = PHASE_COMMAND
        self.s.direction = DIR_WRITE
        self.s.data_pos = 0
        self.s.data_len = 1               # until the command byte tells
        self.s.msr = self.s.msr & ~(MSR_BUSY | MSR_DIO) | MSR_RQM

    cdef void result_phase(self, uint32_t n) noexcept nogil:
        self.s.phase = PHASE_RESULT
        self.s.direction = DIR_READ
        self.s.data_pos = 0
        self.s.data_len = n
        self.s.msr |= MSR_BUSY | MSR_RQM | MSR_DIO

    cdef uint8_t read_fifo(self) noexcept nogil:
        cdef uint32_t pos = self.s.data_pos % SECTOR, d = self.current()
        cdef uint8_t v
        self.s.dsr &= ~DSR_POWERDOWN
        if self.s.msr & (MSR_RQM | MSR_DIO) != MSR_RQM | MSR_DIO:
            return 0
        if self.s.phase == PHASE_EXECUTION and pos == 0:
            if self.s.data_pos and not self.next_sector(d):
                return 0
            self.read_sector(d)
        v = self.s.fifo[pos]
        self.s.data_pos += 1
        if self.s.data_pos == self.s.data_len:
            self.s.msr &= ~MSR_RQM
            if self.s.phase == PHASE_EXECUTION:
                self.finish(0, 0, 0)
            else:
                self.command_phase()
                self.clear_irq()
        return v

    cdef void write_fifo(self, uint8_t v) noexcept nogil:
        cdef uint32_t pos = self.s.data_pos % SECTOR, d
        if self.s.msr & (MSR_RQM | MSR_DIO) != MSR_RQM:
            return
        self.s.dsr &= ~DSR_POWERDOWN
        self.s.fifo[pos] = v
        self.s.data_pos += 1
        if self.s.data_pos == self.s.data_len:
            self.s.msr &= ~MSR_RQM
        if self.s.phase == PHASE_EXECUTION:
            if pos == SECTOR - 1 or self.s.data_pos == self.s.data_len:
                d = self.current()
                if not self.write_sector(d) or not self.next_sector(d):
                    return
            if self.s.data_pos == self.s.data_len:
                self.finish(0, 0, 0)
            return
        if pos == 0:
            self.s.data_len = PARAMETERS_OF[v] + 1
            self.s.msr |= MSR_BUSY
            if self.s.data_len > 1:
                self.s.msr |= MSR_RQM
        if self.s.data_pos == self.s.data_len:
            self.s.phase = PHASE_EXECUTION
            self.execute()

    # ------------------------------------------------------------------ commands (82078 "Command Descriptions")

    cdef void execute(self) noexcept nogil:
        cdef uint8_t command = COMMAND_OF[self.s.fifo[0]]
        cdef uint8_t *p = self.s.fifo
        cdef uint32_t d
        if command == CMD_READ or command == CMD_READ_TRACK:
            self.start(DIR_READ)
        elif command == CMD_WRITE:
            self.start(DIR_WRITE)
        elif command == CMD_VERIFY:
            self.start(DIR_VERIFY)
        elif command == CMD_SCAN_EQUAL:
            self.start(DIR_SCAN_EQUAL)
        elif command == CMD_SCAN_LOW:
            self.start(DIR_SCAN_LOW)
        elif command == CMD_SCAN_HIGH:
            self.start(DIR_SCAN_HIGH)
        elif command == CMD_READ_DELETED or command == CMD_WRITE_DELETED:
            self.finish(ST0_ABNORMAL | ST0_SEEK_END, 0, 0)        # there are no deleted sectors
        elif command == CMD_FORMAT_TRACK:
            d = self.select()
            self.s.sectors[d] = p[3]
            self.finish(0, 0, 0)
        elif command == CMD_READ_ID:
            self.s.head[self.current()] = p[1] >> 2 & 1
            self.set_deadline(self.core.now + RESULT_NS)
        elif command == CMD_SEEK:
            d = self.select()
            self.seek(d, self.s.head[d], p[2], self.s.sector[d])
            self.seek_done()
        elif command == CMD_RECALIBRATE:
            d = self.select()
            self.seek(d, 0, 0, 1)
            self.seek_done()
        elif command == CMD_SEEK_IN:
            d = self.select()
            self.seek(d, self.s.head[d], self.s.tracks[d] - 1 if self.s.track[d] + p[2] >= self.s.tracks[d] else
                      self.s.track[d] + p[2], self.s.sector[d])
            self.seek_done()
        elif command == CMD_SEEK_OUT:
            d = self.select()
            self.seek(d, self.s.head[d], 0 if p[2] > self.s.track[d] else self.s.track[d] - p[2], self.s.sector[d])
            self.seek_done()
        elif command == CMD_SENSE_INTERRUPT:
            self.sense_interrupt()
        elif command == CMD_SENSE_DRIVE:
            d = self.select()
            self.s.head[d] = p[1] >> 2 & 1
            p[0] = ((ST3_PROTECTED if self.protected[d] else 0) | (0 if self.s.track[d] else ST3_TRACK0) |
                    self.s.head[d] << 2 | self.s.unit | ST3_ONES)
            self.result_phase(1)
        elif command == CMD_SPECIFY:
            self.s.step_rate = p[1] >> 4
            self.s.head_load = p[2] >> 1
            self.s.dor = self.s.dor & ~DOR_DMAGATE | (0 if p[2] & 1 else DOR_DMAGATE)
            self.command_phase()
        elif command == CMD_CONFIGURE:
            self.s.configuration = p[2]
            self.s.precompensation = p[3]
            self.command_phase()
        elif command == CMD_PERPENDICULAR:
            if p[1] & 0x80:
                self.s.perpendicular[self.current()] = p[1] & 7
            self.command_phase()
        elif command == CMD_DUMPREG:
            self.dumpreg()
        elif command == CMD_SAVE:
            self.save_registers()
        elif command == CMD_RESTORE:
            self.restore_registers()
        elif command == CMD_DRIVE_SPEC:
            self.drive_specification()
        elif command == CMD_LOCK:
            self.s.lock = p[0] >> 7
            p[0] = self.s.lock << 4
            self.result_phase(1)
        elif command == CMD_VERSION:
            p[0] = VERSION_82078
            self.result_phase(1)
        elif command == CMD_PART_ID:
            p[0] = PART_82078
            self.result_phase(1)
        elif command == CMD_POWERDOWN:
            self.s.powerdown = p[0] = p[1]
            self.result_phase(1)
        elif command == CMD_OPTION:
            self.command_phase()
        else:                                                     # FORMAT AND WRITE, and what is no command
            p[0] = ST0_INVALID
            self.result_phase(1)

    cdef uint32_t select(self) noexcept nogil:
        """Select the drive that the command's second byte names."""
        self.s.unit = self.s.fifo[1] & DOR_DRIVE
        return self.current()

    cdef void seek_done(self) noexcept nogil:
        self.command_phase()
        self.s.st0 |= ST0_SEEK_END
        self.set_irq()

    cdef void sense_interrupt(self) noexcept nogil:
        """Without an interrupt to explain it is an invalid command."""
        if self.s.resets:
            self.s.fifo[0] = ST0_READY_CHANGED + 4 - self.s.resets
            self.s.resets -= 1
        elif not self.s.pending:
            self.s.fifo[0] = ST0_INVALID
            self.result_phase(1)
            return
        else:
            self.s.fifo[0] = self.s.st0 & ~(ST0_HEAD | 3) | self.s.unit
        self.s.fifo[1] = self.s.track[self.current()]
        self.result_phase(2)
        self.clear_irq()
        self.s.st0 = ST0_READY_CHANGED

    cdef void dumpreg(self) noexcept nogil:
        cdef uint8_t *p = self.s.fifo
        cdef uint32_t d = self.current(), first = self.s.tdr >> 2
        p[0] = self.s.track[first]
        p[1] = self.s.track[first ^ 1]
        p[2] = p[3] = 0
        p[4] = self.s.step_rate
        p[5] = self.s.head_load << 1 | (1 if self.s.dor & DOR_DMAGATE else 0)
        p[6] = self.s.sectors[d]
        p[7] = self.s.lock << 7 | self.s.perpendicular[d] << 2
        p[8] = self.s.configuration
        p[9] = self.s.precompensation
        self.result_phase(10)

    cdef void save_registers(self) noexcept nogil:
        cdef uint8_t *p = self.s.fifo
        cdef uint32_t d = self.current(), first = self.s.tdr >> 2
        memset(p, 0, 15)
        p[2] = self.s.track[first]
        p[3] = self.s.track[first ^ 1]
        p[6] = self.s.step_rate
        p[7] = self.s.head_load
        p[8] = self.s.sectors[d]
        p[9] = self.s.lock << 7 | self.s.perpendicular[d] << 2
        p[10] = self.s.configuration
        p[11] = self.s.precompensation
        p[12] = self.s.powerdown
        self.result_phase(15)

    cdef void restore_registers(self) noexcept nogil:
        cdef uint8_t *p = self.s.fifo
        cdef uint32_t d = self.current(), first = self.s.tdr >> 2
        self.s.track[first] = p[3]
        self.s.track[first ^ 1] = p[4]
        self.s.step_rate = p[7]
        self.s.head_load = p[8]
        self.s.sectors[d] = p[9]
        self.s.lock = p[10] >> 7
        self.s.perpendicular[d] = p[10] >> 2 & 0xF
        self.s.configuration = p[11]
        self.s.precompensation = p[12]
        self.s.powerdown = p[13]
        self.command_phase()

    cdef void drive_specification(self) noexcept nogil:
        """Five parameters, the last with bit 7 set; bit 6 of it asks for a result.  Without bit 7 the controller hangs
        until it is reset, as the reference does."""
        cdef uint8_t *p = self.s.fifo
        if not p[5] & 0x80:
            return
        if p[5] & 0x40:
            p[0] = p[1]
            p[2] = p[3] = 0
            self.result_phase(4)
        else:
            self.command_phase()

    # ------------------------------------------------------------------ drives and media

    cdef int seek(self, uint32_t d, uint8_t head, uint8_t track, uint8_t sector) noexcept nogil:
        """Move a drive to a place, at once.  A step with a disk in the drive ends its changed signal."""
        cdef int outcome = SEEK_HERE
        if track > self.s.tracks[d] or (head and not self.s.two_sided[d]):
            return SEEK_BAD_TRACK
        if sector > self.s.sectors[d]:
            return SEEK_BAD_SECTOR
        # Two names of one sector (sector 0 is the last of the track before) are one place, as in the reference.
        if self.number(d, head, track, sector) != self.number(d, self.s.head[d], self.s.track[d], self.s.sector[d]):
            if self.s.track[d] != track:
                if self.media[d] != NULL:
                    self.s.changed[d] = 0
                outcome = SEEK_MOVED
            self.s.head[d] = head
            self.s.track[d] = track
            self.s.sector[d] = sector
        return SEEK_BAD_TRACK if self.media[d] == NULL else outcome

    cdef int64_t number(self, uint32_t d, uint8_t head, uint8_t track, uint8_t sector) noexcept nogil:
        """A sector's place in the image."""
        return (track * (2 if self.s.two_sided[d] else 1) + head) * self.s.sectors[d] + sector - 1

    cdef bint next_sector(self, uint32_t d) noexcept nogil:
        """Go to the sector after this one; False at the end of the track, or of the cylinder's last side with MT."""
        cdef uint8_t head = self.s.head[d], track = self.s.track[d], sector = self.s.sector[d]
        cdef bint more = True
        if sector < self.s.sectors[d] and sector != self.s.eot:
            sector += 1
        else:
            sector = 1
            if self.s.multi and head == 0 and self.s.two_sided[d]:
                head = 1
            else:
                more = self.s.multi and self.s.two_sided[d]
                if self.s.multi:
                    head = 0
                track += 1
                self.s.st0 |= ST0_SEEK_END
        self.seek(d, head, track, sector)
        return more

    cdef uint8_t *sector_at(self, uint32_t d) noexcept nogil:
        """The drive's current sector in its image; NULL if that has none there."""
        cdef int64_t n = self.number(d, self.s.head[d], self.s.track[d], self.s.sector[d])
        if self.media[d] == NULL or n < 0 or <uint64_t>(n + 1) * SECTOR > self.media_size[d]:
            return NULL
        return self.media[d] + n * SECTOR

    cdef void read_sector(self, uint32_t d) noexcept nogil:
        cdef uint8_t *p = self.sector_at(d)
        if p != NULL:
            memcpy(self.s.fifo, p, SECTOR)
        else:
            memset(self.s.fifo, 0, SECTOR)

    cdef bint write_sector(self, uint32_t d) noexcept nogil:
        cdef uint8_t *p = self.sector_at(d)
        if p == NULL or self.protected[d]:
            return False
        memcpy(p, self.s.fifo, SECTOR)
        return True

    # ------------------------------------------------------------------ data transfers (82078 "Data Transfer Commands")

    cdef void start(self, uint8_t direction) noexcept nogil:
        """Begin a transfer; the command's bytes are cylinder, head, sector, size code, end of track, gap, length."""
        cdef uint8_t *p = self.s.fifo
        cdef uint32_t d = self.select()
        cdef int outcome = self.seek(d, p[3], p[2], p[4]), sectors
        if outcome == SEEK_BAD_TRACK:
            self.refuse(0)
            return
        if outcome == SEEK_BAD_SECTOR:
            self.refuse(ST1_END)
            return
        if outcome == SEEK_MOVED:
            self.s.st0 |= ST0_SEEK_END
        sectors = p[6] - p[4] + 1
        if self.s.dsr & DSR_RATE != self.s.rate[d] or (p[5] and sectors < 0):
            self.refuse(ST1_NO_ADDRESS)
            return
        self.s.multi = p[0] & CMD_MT
        self.s.direction = direction
        self.s.data_pos = 0
        if self.s.multi:
            sectors += p[6]
        self.s.data_len = (<uint32_t>128 << (7 if p[5] > 7 else p[5])) * sectors if p[5] else p[8]
        self.s.eot = p[6]
        if not self.s.dor & DOR_DMAGATE:
            self.s.msr |= MSR_NONDMA | MSR_RQM | (0 if direction == DIR_WRITE else MSR_DIO)
            self.set_irq()
            return
        self.s.msr &= ~MSR_RQM
        if direction == DIR_VERIFY:
            self.dma_run(self.channel, 0, self.s.data_len)
        elif self.peer is not None:
            self.peer.request(self.channel, True, self.core.now)

    cdef void refuse(self, uint8_t st1) noexcept nogil:
        """End a transfer that cannot begin; the result repeats the place that was asked for."""
        cdef uint8_t track = self.s.fifo[2], head = self.s.fifo[3], sector = self.s.fifo[4]
        self.finish(ST0_ABNORMAL, st1, 0)
        self.s.fifo[3], self.s.fifo[4], self.s.fifo[5] = track, head, sector

    cdef void finish(self, uint8_t st0, uint8_t st1, uint8_t st2) noexcept nogil:
        """Result phase of a transfer, with its interrupt."""
        cdef uint32_t d = self.current()
        cdef uint8_t *p = self.s.fifo
        self.s.st0 = self.s.st0 & ~(ST0_HEAD | 3) | self.s.unit | (ST0_HEAD if self.s.head[d] else 0) | st0
        p[0], p[1], p[2] = self.s.st0, st1, st2
        p[3], p[4], p[5], p[6] = self.s.track[d], self.s.head[d], self.s.sector[d], N_512
        if self.peer is not None and not self.s.msr & MSR_NONDMA:
            self.peer.request(self.channel, False, self.core.now)
        self.s.msr &= ~MSR_NONDMA
        self.result_phase(7)
        self.set_irq()

    cdef uint32_t dma_run(self, uint32_t channel, uint32_t moved, uint32_t size) noexcept nogil:
        """Move the whole transfer, as far as the channel's count and the track allow."""
        cdef uint32_t d = self.current(), begin = self.s.data_pos, pos, n
        cdef uint8_t direction = self.s.direction
        cdef uint8_t wanted[SECTOR]
        cdef bint scan = DIR_SCAN_EQUAL <= direction <= DIR_SCAN_HIGH
        cdef int order
        if self.s.msr & MSR_RQM:
            return 0                      # a channel that was left requested: no command waits for it
        size = min(size, self.s.data_len)
        while self.s.data_pos < size:
            pos = self.s.data_pos % SECTOR
            n = min(size - self.s.data_pos, SECTOR - pos)
            if direction != DIR_WRITE or n < SECTOR:
                self.read_sector(d)
            if direction == DIR_READ:
                self.peer.to_ram(channel, self.s.fifo + pos, self.s.data_pos, n)
            elif direction == DIR_WRITE:
                if self.protected[d]:
                    self.finish(ST0_ABNORMAL | ST0_SEEK_END, ST1_NOT_WRITABLE, 0)
                    return n
                self.peer.from_ram(channel, self.s.fifo + pos, self.s.data_pos, n)
                if not self.write_sector(d):
                    self.finish(ST0_ABNORMAL | ST0_SEEK_END, 0, 0)
                    return n
            elif scan:
                memset(wanted, 0, SECTOR)
                self.peer.from_ram(channel, wanted, self.s.data_pos, n)
                order = memcmp(wanted, self.s.fifo + pos, n)
                if order == 0 or (order < 0 and direction == DIR_SCAN_LOW) or (order > 0 and direction == DIR_SCAN_HIGH):
                    break
            self.s.data_pos += n
            if self.s.data_pos % SECTOR == 0 and not self.next_sector(d):
                break
        n = self.s.data_pos - begin
        self.s.data_len -= n
        self.finish(0, 0, ST2_SCAN_HIT if scan else 0)
        return n
