"""ATA channel with two drives: the command block, disk commands, and packet commands of a CD-ROM drive.

Documents: AT Attachment with Packet Interface - 6 (T13/1410D), and ATA8-ACS-3 (T13/2161-D) for what came later (DATA
SET MANAGEMENT, SMART); for packet commands MMC-5 (T10/1675-D) and SPC-3 (T10/1416-D). Modelled: two drives that hear
every register write, 48-bit addresses, PIO with one sector or a multiple, DMA, identification, SMART, software reset
and device reset; of packet devices a CD/DVD-ROM drive with or without a medium. Commands finish at once: BSY is seen
only while a packet command waits for bus mastering. Not modelled: overlap and queueing, security, host protected area
beyond READ NATIVE MAX, power modes (every drive is always active), media change while running, audio. Deviations:
docs/devices/ata.md.

A channel is no device: its owner (an IDE function, an AHCI port) holds the state struct, calls the methods from its
own read and write, and then acts on `fx`: the interrupt line, and a DMA command to be carried out with dma_bytes,
dma_chunk, dma_allowed, dma_fetch or dma_store, and dma_end. Called by the owning worker only.
"""
cimport cython
from cpython.ref cimport PyObject
from libc.string cimport memcpy, memset

from engine.devices._medium cimport Medium

from engine.devices._medium import FAILS
from engine.errors import MachineError, StateError

# The fields of ata_channel, flat, with `prefix` in front: for the owner's STATE.
_DRIVE = (("count", "u4"), *((name, "u1") for name in (
    "features", "error", "sector", "lba_mid", "lba_high", "device", "status", "hob_features", "hob_count", "hob_sector",
    "hob_mid", "hob_high", "lba48", "multiple", "write_cache", "identified", "smart_enabled", "smart_autosave", "selftests",
    "sense_key", "asc", "tray_open", "tray_locked", "heads", "sectors",
    "reverts", "changed", "news")), ("identify", "u1", 512), ("selftest_log", "u1", 512))


def ata_state(prefix):
    """STATE entries of one ata_channel; every name begins with prefix."""
    fields = [(name, "u8") for name in ("content_at", "cd_lba", "packet_left")]
    fields += [(name, "u4") for name in ("pos", "end", "content_lo", "content_n", "cd_size", "index", "block_left", "block")]
    fields += [(name, "u1") for name in ("phase", "dma", "packet_dma", "unit", "control", "waits")] + [("pad", "u1", 2)]
    for n in range(2):
        fields += [(f"dev{n}_{f[0]}", *f[1:]) for f in _DRIVE]
    fields.append(("buf", "u1", BUFFER))
    return tuple((prefix + f[0], *f[1:]) for f in fields)


cdef enum:                      # commands, ATA/ATAPI-6 annex E and ACS-3 annex B
    DATA_SET_MANAGEMENT = 0x06
    DEVICE_RESET = 0x08
    RECALIBRATE = 0x10
    READ_SECTORS = 0x20
    READ_SECTORS_ONCE = 0x21
    READ_SECTORS_EXT = 0x24
    READ_DMA_EXT = 0x25
    READ_NATIVE_MAX_EXT = 0x27
    READ_MULTIPLE_EXT = 0x29
    WRITE_SECTORS = 0x30
    WRITE_SECTORS_ONCE = 0x31
    WRITE_SECTORS_EXT = 0x34
    WRITE_DMA_EXT = 0x35
    WRITE_MULTIPLE_EXT = 0x39
    WRITE_VERIFY = 0x3C
    READ_VERIFY = 0x40
    READ_VERIFY_ONCE = 0x41
    READ_VERIFY_EXT = 0x42
    SEEK = 0x70
    EXECUTE_DEVICE_DIAGNOSTIC = 0x90
    INITIALIZE_DEVICE_PARAMETERS = 0x91
    STANDBY_IMMEDIATE_OLD = 0x94
    IDLE_IMMEDIATE_OLD = 0x95
    STANDBY_OLD = 0x96
    IDLE_OLD = 0x97
    CHECK_POWER_MODE_OLD = 0x98
    SLEEP_OLD = 0x99
    PACKET = 0xA0
    IDENTIFY_PACKET_DEVICE = 0xA1
    SMART = 0xB0
    READ_MULTIPLE = 0xC4
    WRITE_MULTIPLE = 0xC5
    SET_MULTIPLE_MODE = 0xC6
    READ_DMA = 0xC8
    READ_DMA_ONCE = 0xC9
    WRITE_DMA = 0xCA
    WRITE_DMA_ONCE = 0xCB
    STANDBY_IMMEDIATE = 0xE0
    IDLE_IMMEDIATE = 0xE1
    STANDBY = 0xE2
    IDLE = 0xE3
    CHECK_POWER_MODE = 0xE5
    SLEEP = 0xE6
    FLUSH_CACHE = 0xE7
    FLUSH_CACHE_EXT = 0xEA
    IDENTIFY_DEVICE = 0xEC
    SET_FEATURES = 0xEF
    SECURITY_FREEZE_LOCK = 0xF5
    READ_NATIVE_MAX = 0xF8

cdef enum:                      # SMART subcommands in Features
    SMART_READ_DATA = 0xD0
    SMART_READ_THRESHOLDS = 0xD1
    SMART_AUTOSAVE = 0xD2
    SMART_EXECUTE_OFFLINE = 0xD4
    SMART_READ_LOG = 0xD5
    SMART_ENABLE = 0xD8
    SMART_DISABLE = 0xD9
    SMART_RETURN_STATUS = 0xDA
    SMART_MID = 0x4F            # LBA Mid and High must hold these
    SMART_HIGH = 0xC2
    SELFTESTS = 21              # descriptors in the self-test log
    SELFTEST_SIZE = 24

cdef enum:                      # packet commands, MMC-5 clause 6
    TEST_UNIT_READY = 0x00
    REQUEST_SENSE = 0x03
    INQUIRY = 0x12
    START_STOP_UNIT = 0x1B
    PREVENT_ALLOW = 0x1E
    READ_CAPACITY = 0x25
    READ_10 = 0x28
    SEEK_10 = 0x2B
    READ_TOC = 0x43
    GET_CONFIGURATION = 0x46
    GET_EVENT_STATUS = 0x4A
    READ_DISC_INFORMATION = 0x51
    MODE_SENSE_10 = 0x5A
    READ_12 = 0xA8
    READ_DISC_STRUCTURE = 0xAD
    SET_CD_SPEED = 0xBB
    MECHANISM_STATUS = 0xBD
    READ_CD = 0xBE

cdef enum:                      # sense keys and additional sense codes, SPC-3
    NOT_READY = 2
    UNIT_ATTENTION = 6
    ILLEGAL_REQUEST = 5
    ASC_ILLEGAL_OPCODE = 0x20
    ASC_LBA_OUT_OF_RANGE = 0x21
    ASC_INVALID_FIELD = 0x24
    ASC_INCOMPATIBLE_FORMAT = 0x30
    ASC_SAVING_NOT_SUPPORTED = 0x39
    ASC_NO_MEDIUM = 0x3A
    ASC_MEDIUM_CHANGED = 0x28
    ASC_DATA_PHASE = 0x4B
    ASC_REMOVAL_PREVENTED = 0x53

cdef enum:
    CD_MAX = 80 * 60 * 75 * 4   # 512-byte sectors of the longest CD: a larger disc is a DVD
    PROFILE_CD_ROM = 0x0008     # MMC-5
    PROFILE_DVD_ROM = 0x0010
    SERIAL_NUMBER = 10          # words of IDENTIFY DEVICE data
    FIRMWARE_REVISION = 23
    MODEL_NUMBER = 27
    WORLD_WIDE_NAME = 108
    OUTCOME_DONE = 0            # of dma_end
    OUTCOME_SHORT = 1
    OUTCOME_ERROR = 2

# id, flags (2), value, worst, raw (6), threshold: a healthy drive.  The layout is the one of SFF-8035i table 3.
cdef uint8_t SMART_ATTRIBUTES[7][12]
SMART_ATTRIBUTES[0][:] = [0x01, 3, 0, 100, 100, 0, 0, 0, 0, 0, 0, 6]           # read errors
SMART_ATTRIBUTES[1][:] = [0x03, 3, 0, 100, 100, 16, 0, 0, 0, 0, 0, 0]          # spin-up
SMART_ATTRIBUTES[2][:] = [0x04, 2, 0, 100, 100, 100, 0, 0, 0, 0, 0, 20]        # starts and stops
SMART_ATTRIBUTES[3][:] = [0x05, 3, 0, 100, 100, 0, 0, 0, 0, 0, 0, 36]          # remapped sectors
SMART_ATTRIBUTES[4][:] = [0x09, 3, 0, 100, 100, 1, 0, 0, 0, 0, 0, 0]           # hours on
SMART_ATTRIBUTES[5][:] = [0x0C, 3, 0, 100, 100, 0, 0, 0, 0, 0, 0, 0]           # power cycles
SMART_ATTRIBUTES[6][:] = [0xBE, 3, 0, 69, 69, 31, 0, 31, 31, 0, 0, 50]         # temperature, Celsius


# ---------------------------------------------------------------------- small helpers

cdef inline void put_be(uint8_t *p, uint64_t value, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        p[i] = <uint8_t>(value >> (8 * (n - 1 - i)))


cdef inline uint32_t get_be(const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint32_t i, value = 0
    for i in range(n):
        value = value << 8 | p[i]
    return value


cdef inline void put_msf(uint8_t *p, uint64_t lba) noexcept nogil:
    """Minute, second, frame of a CD address: MMC-5."""
    lba += 150
    p[0] = <uint8_t>(lba // 75 // 60)
    p[1] = <uint8_t>(lba // 75 % 60)
    p[2] = <uint8_t>(lba % 75)


cdef inline void put_address(uint8_t *p, uint64_t lba, bint msf) noexcept nogil:
    """Four bytes of a table of contents: MMC-5."""
    if msf:
        p[0] = 0
        put_msf(p + 1, lba)
    else:
        put_be(p, lba, 4)


cdef inline void put_string(uint8_t *p, const char *text, uint32_t n) noexcept nogil:
    cdef uint32_t i = 0
    while i < n and text[i]:
        p[i] = <uint8_t>text[i]
        i += 1
    memset(p + i, c' ', n - i)


cdef inline void put_words(uint8_t *p, const uint8_t *identify, uint32_t word, uint32_t n) noexcept nogil:
    """n bytes of words of IDENTIFY DEVICE data, in order: clause 8 has the first of two in the high byte."""
    cdef uint32_t i
    for i in range(n):
        p[i] = identify[2 * word + (i ^ 1)]


cdef inline void checksum(uint8_t *p) noexcept nogil:
    """Byte 511 makes the sum of a SMART structure zero: clause 8, SMART READ DATA."""
    cdef uint32_t i
    cdef uint8_t sum = 0
    for i in range(511):
        sum += p[i]
    p[511] = -sum


cdef inline void put_word(uint8_t *block, uint32_t word, uint32_t value) noexcept nogil:
    block[2 * word] = <uint8_t>value
    block[2 * word + 1] = <uint8_t>(value >> 8)


# ---------------------------------------------------------------------- what a drive says of itself

def _words(block, words):
    for word, value in words.items():
        block[2 * word:2 * word + 2] = value.to_bytes(2, "little")


def _string(block, word, text, words):
    """ASCII in words, the first character of two in the high byte: clause 8, IDENTIFY DEVICE."""
    raw = text.encode("ascii").ljust(2 * words)[:2 * words]
    for i in range(words):
        block[2 * (word + i)], block[2 * (word + i) + 1] = raw[2 * i + 1], raw[2 * i]


def _world_wide_name(block, wwn):
    """Words 84, 87 and 108 to 111: clause 8, IDENTIFY DEVICE."""
    if wwn:
        block[2 * 84 + 1] |= 1
        block[2 * 87 + 1] |= 1
        _words(block, {WORLD_WIDE_NAME + i: wwn >> 48 - 16 * i & 0xFFFF for i in range(4)})


def identify_disk(n_sectors, cylinders, serial, model, firmware, wwn=0, rotation_rate=0, physical_block=512):
    """IDENTIFY DEVICE data of a disk, but for what AtaChannel.identify fills in: clause 8, IDENTIFY DEVICE."""
    block = bytearray(512)
    lba28 = n_sectors & 0xFFFFFFFF
    _words(block, {
        0: 0x0040, 1: cylinders, 5: 512,
        20: 3, 21: 512, 22: 4,                          # retired: buffer type, its sectors, ECC bytes
        47: 0x8000 | MAX_MULTIPLE, 48: 1, 49: 0x0B00, 51: 0x0200, 52: 0x0200, 53: 0x0007,
        54: cylinders, 60: lba28 & 0xFFFF, 61: lba28 >> 16,
        62: 0x0007, 63: 0x0007, 64: 0x0003, 65: 120, 66: 120, 67: 120, 68: 120, 69: 0x4000,
        80: 0x00F0, 81: 0x0016,
        82: 0x4021, 83: 0x7400, 84: 0x4000, 86: 0x3400, 87: 0x4000,
        88: 0x203F, 93: 0x6001,
        100: n_sectors & 0xFFFF, 101: n_sectors >> 16 & 0xFFFF, 102: n_sectors >> 32 & 0xFFFF, 103: n_sectors >> 48,
        106: 0x6000 | physical_block.bit_length() - 10, 169: 0x0001, 217: rotation_rate})
    _world_wide_name(block, wwn)
    _string(block, SERIAL_NUMBER, serial, 10)
    _string(block, FIRMWARE_REVISION, firmware, 4)
    _string(block, MODEL_NUMBER, model, 20)
    return bytes(block)


def identify_cdrom(serial, model, firmware, wwn=0):
    """IDENTIFY PACKET DEVICE data: clause 8."""
    block = bytearray(512)
    _words(block, {
        0: 0x85C0,                                      # CD-ROM, removable, 12-byte packets, DRQ within 50 us
        20: 3, 21: 512, 22: 4, 48: 1, 49: 0x0300, 53: 0x0007,
        62: 0x0007, 63: 0x0007, 64: 0x0003, 65: 180, 66: 180, 67: 300, 68: 180, 71: 30, 72: 30,
        80: 0x001E, 88: 0x203F})
    _world_wide_name(block, wwn)
    _string(block, SERIAL_NUMBER, serial, 10)
    _string(block, FIRMWARE_REVISION, firmware, 4)
    _string(block, MODEL_NUMBER, model, 20)
    return bytes(block)


def guess_chs(n_sectors, first_sector):
    """Default translation: what a partition table on the disk was made with if it has at most 16 heads, else 16 x 63."""
    if first_sector[510:512] == b"\x55\xaa":
        for at in range(446, 510, 16):
            entry = first_sector[at:at + 16]
            heads, sectors = entry[5] + 1, entry[6] & 63
            if entry[12:16] == bytes(4) or entry[5] == 0 or sectors == 0:
                continue
            cylinders = n_sectors // (heads * sectors)
            if 1 <= cylinders <= 16383:
                if heads <= 16:
                    return cylinders, heads, sectors
                break
    return max(2, min(16383, n_sectors // (16 * 63))), 16, 63


_KEYS = {"channel": int, "unit": int, "kind": str, "size": int, "image": str, "serial": str, "model": str, "firmware": str,
         "wwn": int, "rotation_rate": int, "physical_block": int, "readonly": bool, "write": bool, "chs": list, "translation": str,
         "on_error": str, "fail": list, "id": str}


def check_drives(who, drives, channels):
    """The list of drive tables of a machine file, sorted by place.  Raises MachineError for what no drive can be."""
    places = {}
    for table in drives:
        if not isinstance(table, dict):
            raise MachineError(f"{who}: a drive is a table, not {table!r}")
        for key, value in table.items():
            if key not in _KEYS:
                raise MachineError(f"{who}: unknown setting {key!r} of a drive; there are {', '.join(sorted(_KEYS))}")
            if value is not None and (not isinstance(value, _KEYS[key]) or isinstance(value, bool) and _KEYS[key] is int):
                raise MachineError(f"{who}: {key} = {value!r} of a drive is no {_KEYS[key].__name__}")
        place = table.get("channel", 0), table.get("unit", 0)
        if not (0 <= place[0] < channels and 0 <= place[1] < 2):
            raise MachineError(f"{who}: there is no channel {place[0]}, unit {place[1]}")
        if place in places:
            raise MachineError(f"{who}: two drives at channel {place[0]}, unit {place[1]}")
        if table.get("kind", "disk") not in ("disk", "cdrom"):
            raise MachineError(f"{who}: a drive's kind is disk or cdrom, not {table['kind']!r}")
        if table.get("on_error", "report") not in ("report", "stop"):
            raise MachineError(f"{who}: a drive's on_error is report or stop, not {table['on_error']!r}")
        for what in table.get("fail") or ():
            if what not in FAILS:
                raise MachineError(f"{who}: {what!r} cannot fail; what can is {', '.join(FAILS)}")
        places[place] = table
    return [places[place] for place in sorted(places)]


@cython.final
cdef class AtaChannel:
    """One channel.  Made by its owner, which then calls setup; see the module."""

    cdef int setup(self, ata_channel *s, str who, uint32_t n, list drives) except -1:
        """Use the state struct s; make the drives of channel n from their tables (see check_drives)."""
        cdef uint32_t unit
        cdef ata_unit *u
        cdef Medium medium
        self.s = s
        self.keep = [None, None]
        for table in drives:
            if table.get("channel", 0) != n:
                continue
            unit = table.get("unit", 0)
            u = &self.units[unit]
            name = f"{who}: drive {n}:{unit}"
            cdrom = table.get("kind", "disk") == "cdrom"
            serial = table.get("serial") or f"QM{2 * n + unit + 1:05d}"
            model = table.get("model") or ("QEMU DVD-ROM" if cdrom else "QEMU HARDDISK")
            firmware = table.get("firmware") or "2.5+"
            for what, text, room in (("serial", serial, 20), ("model", model, 40), ("firmware", firmware, 8)):
                if not text.isascii() or len(text) > room:
                    raise MachineError(f"{name}: {what} {text!r} is not ASCII of at most {room} characters")
            wwn, rotation_rate, physical_block = (table.get(k) or 0 for k in ("wwn", "rotation_rate", "physical_block"))
            physical_block = physical_block or 512
            if not (0 <= wwn < 1 << 64 and 0 <= rotation_rate < 1 << 16):
                raise MachineError(f"{name}: wwn has 64 bits and rotation_rate 16")
            if physical_block not in (512 << n for n in range(16)):
                raise MachineError(f"{name}: physical_block {physical_block} is not 512 bytes times a power of two to 15")
            size, image = table.get("size"), table.get("image") or None
            if cdrom and table.get("write"):
                raise MachineError(f"{name}: a CD-ROM cannot be written")
            if not cdrom or image is not None or size:
                medium = Medium(name, size, image, cdrom or bool(table.get("readonly")), bool(table.get("write")))
                self.keep[unit] = medium
                self.media[unit] = <PyObject *>medium
                u.n_sectors = medium.size // 512
            if cdrom:
                u.kind = ATA_CDROM
                block = identify_cdrom(serial, model, firmware, wwn)
            else:
                u.kind = ATA_DISK
                try:
                    first = medium.read_bytes(0, 512)
                except ValueError:
                    raise MachineError(f"{name}: image {image!r} cannot be read") from None
                chs = table.get("chs") or guess_chs(u.n_sectors, first)
                if len(chs) != 3 or not (1 <= chs[0] <= 65535 and 1 <= chs[1] <= 16 and 1 <= chs[2] <= 255):
                    raise MachineError(f"{name}: chs = {chs!r} is not [cylinders to 65535, heads to 16, sectors to 255]")
                u.cylinders, u.heads, u.sectors = chs
                block = identify_disk(u.n_sectors, u.cylinders, serial, model, firmware, wwn, rotation_rate, physical_block)
            memcpy(u.identify, <char *>block, IDENTIFY_SIZE)
            if self.media[unit] != NULL:
                medium.wait_for_host(table.get("on_error") == "stop")
                for what in table.get("fail") or ():
                    medium.fail(what)
        return 0

    # ------------------------------------------------------------------ what the host does with discs

    def cd_drive(self, uint32_t unit):
        """Whether the unit is a CD-ROM drive."""
        return unit < 2 and self.units[unit].kind == ATA_CDROM

    def tray(self, uint32_t unit):
        """(tray is open, tray is locked, there is a disc)."""
        return bool(self.s.drive[unit].tray_open), bool(self.s.drive[unit].tray_locked), self.media[unit] != NULL

    def move_tray(self, uint32_t unit, bint opened):
        """Open or close the tray.  The guest is told of another disc, whether it is one or not."""
        cdef ata_drive *d = &self.s.drive[unit]
        if d.tray_open != opened:
            d.tray_open = opened
            d.changed = 1
            d.news = NEWS_MEDIA

    def ask_to_eject(self, uint32_t unit):
        """Tell the guest that somebody has pressed the button of a locked drive."""
        self.s.drive[unit].news |= NEWS_EJECT

    def load_disc(self, uint32_t unit, str who, image, bint runs=False):
        """Put the disc of an image into the drive, or take it out (None).  runs: the image is in use from now on.  Raises
        MachineError."""
        if not self.cd_drive(unit):
            raise MachineError(f"{who}: no CD-ROM drive")
        cdef Medium medium = None if image is None else Medium(who, None, image, True)
        if runs and medium is not None:
            medium.lock(who)
        self.keep[unit] = medium
        self.media[unit] = NULL if medium is None else <PyObject *>medium
        self.units[unit].n_sectors = 0 if medium is None else medium.size // 512

    # ------------------------------------------------------------------ reset

    cdef void reset(self, bint power_on) noexcept nogil:
        """RESET-: 9.1 (hardware reset).  What a drive keeps beyond the power, SMART settings among it, it keeps."""
        cdef uint32_t i
        if power_on:
            memset(self.s, 0, sizeof(ata_channel))
            for i in range(2):
                self.s.drive[i].write_cache = 1
                self.s.drive[i].smart_enabled = self.units[i].kind != ATA_NONE
                self.s.drive[i].smart_autosave = self.units[i].kind != ATA_NONE
                self.s.drive[i].heads = <uint8_t>self.units[i].heads
                self.s.drive[i].sectors = <uint8_t>self.units[i].sectors
        self.s.unit = 0
        self.s.control = 0
        self.s.waits = 0
        self.drive_reset(0)
        self.drive_reset(1)
        self.fx |= FX_IRQ_OFF

    cdef void drive_reset(self, uint32_t unit) noexcept nogil:
        """Registers and modes as after any reset: 9.1, 9.2, 9.11."""
        cdef ata_drive *d = &self.s.drive[unit]
        self.idle()
        if self.s.waits == unit + 1:
            self.s.waits = 0
        d.multiple = MAX_MULTIPLE
        d.features = 0
        d.error = 0
        d.hob_features = 0
        d.hob_count = 0
        d.hob_sector = 0
        d.hob_mid = 0
        d.hob_high = 0
        d.device = DEVICE_OBSOLETE
        d.status = DRDY | DSC
        d.lba48 = 0
        d.sense_key = 0
        d.asc = 0
        d.tray_open = 0
        d.tray_locked = 0
        if d.reverts:                                 # for one reset: docs/devices/ata.md
            d.reverts = 0
            d.heads = <uint8_t>self.units[unit].heads
            d.sectors = <uint8_t>self.units[unit].sectors
        self.signature(unit)

    cdef void signature(self, uint32_t unit) noexcept nogil:
        """9.12: how a host tells the kinds of device apart."""
        cdef ata_drive *d = &self.s.drive[unit]
        d.device &= ~DEVICE_HEAD
        d.count = 1
        d.sector = 1
        if self.units[unit].kind == ATA_CDROM:
            d.lba_mid, d.lba_high = 0x14, 0xEB
        elif self.units[unit].kind == ATA_DISK:
            d.lba_mid, d.lba_high = 0, 0
        else:
            d.lba_mid, d.lba_high = 0xFF, 0xFF

    cdef void diagnose(self, uint32_t unit) noexcept nogil:
        """9.10: the device passed; a packet device leaves DRDY clear until its first command, and asks for nothing."""
        cdef ata_drive *d = &self.s.drive[unit]
        self.signature(unit)
        d.device = DEVICE_OBSOLETE
        d.error = 0x01
        if self.units[unit].kind == ATA_CDROM:
            d.status = 0
        else:
            d.status = DRDY | DSC
            self.irq()

    # ------------------------------------------------------------------ registers

    cdef void irq(self) noexcept nogil:
        """INTRQ, unless the host has disabled it: 7.8 (nIEN)."""
        if not self.s.control & NIEN:
            self.fx |= FX_IRQ

    cdef bint present(self, uint32_t unit) noexcept nogil:
        """Does anyone answer for drive `unit`?  Drive 0's registers are there if either drive is: 9.16.1."""
        if self.units[unit].kind != ATA_NONE:
            return True
        return unit == 0 and self.units[1].kind != ATA_NONE

    cdef uint8_t alternate_status(self) noexcept nogil:
        """7.3: Status without the acknowledgement."""
        return self.s.drive[self.s.unit].status if self.present(self.s.unit) else 0

    cdef uint8_t read_register(self, uint32_t reg) noexcept nogil:
        """A byte of the command block but for Data."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef bint hob = self.s.control & HOB
        if reg == STATUS:
            self.fx |= FX_IRQ_OFF
            return self.alternate_status()
        if not self.present(0) or (reg == ERROR and not self.present(self.s.unit)):
            return 0
        if reg == ERROR:
            return d.hob_features if hob else d.error
        if reg == SECTOR_COUNT:
            return d.hob_count if hob else <uint8_t>d.count
        if reg == LBA_LOW:
            return d.hob_sector if hob else d.sector
        if reg == LBA_MID:
            return d.hob_mid if hob else d.lba_mid
        if reg == LBA_HIGH:
            return d.hob_high if hob else d.lba_high
        return d.device

    cdef void write_register(self, uint32_t reg, uint8_t value) noexcept nogil:
        """A byte of the command block; both drives take it: clause 7.  HOB ends with any such write: 7.8."""
        cdef ata_drive *d
        cdef uint32_t i
        if reg == COMMAND:
            self.s.control &= ~HOB
            self.fx |= FX_IRQ_OFF
            self.command(value)
            return
        if reg == DATA or self.s.drive[self.s.unit].status & (BSY | DRQ):
            return
        self.s.control &= ~HOB
        for i in range(2):
            d = &self.s.drive[i]
            if reg == FEATURES:
                d.hob_features = d.features
                d.features = value
            elif reg == SECTOR_COUNT:
                d.hob_count = <uint8_t>d.count
                d.count = value
            elif reg == LBA_LOW:
                d.hob_sector = d.sector
                d.sector = value
            elif reg == LBA_MID:
                d.hob_mid = d.lba_mid
                d.lba_mid = value
            elif reg == LBA_HIGH:
                d.hob_high = d.lba_high
                d.lba_high = value
            else:
                d.device = value | DEVICE_OBSOLETE
        if reg == DEVICE:
            self.s.unit = 1 if value & DEVICE_DEV else 0

    cdef void write_control(self, uint8_t value) noexcept nogil:
        """7.8.  SRST resets when it rises, and is over at once: 9.2."""
        cdef uint32_t i
        if value & SRST and not self.s.control & SRST:
            self.s.control = value & ~SRST
            for i in range(2):
                self.drive_reset(i)
                self.diagnose(i)
        else:
            self.s.control = value

    # ------------------------------------------------------------------ the data port

    cdef void idle(self) noexcept nogil:
        """No transfer."""
        self.s.phase = PHASE_IDLE
        self.s.pos = 0
        self.s.end = 0
        self.s.content_n = 0

    cdef void offer(self, uint32_t phase, uint32_t at, uint32_t n) noexcept nogil:
        """The data port moves buf[at:at + n] next."""
        self.s.phase = <uint8_t>phase
        self.s.pos = at
        self.s.end = at + n
        self.s.drive[self.s.unit].status |= DRQ

    cdef void data_write(self, uint32_t size, uint64_t value) noexcept nogil:
        """A write of the data port, 2 or 4 bytes.  Ignored where nothing, or less than that, is wanted."""
        cdef ata_channel *s = self.s
        if s.phase != PHASE_OUT_SECTORS and s.phase != PHASE_OUT_PACKET or s.pos + size > s.end:
            return
        memcpy(s.buf + s.pos, &value, size)
        s.pos += size
        if s.pos >= s.end:
            self.data_done()

    cdef void data_done(self) noexcept nogil:
        """The block that was offered has been moved."""
        cdef uint8_t phase = self.s.phase
        self.s.drive[self.s.unit].status &= ~DRQ
        if phase == PHASE_IN_SECTORS:
            self.read_sectors()
        elif phase == PHASE_IN_PACKET:
            self.packet_next()
        elif phase == PHASE_OUT_SECTORS:
            self.write_sectors()
        elif phase == PHASE_OUT_PACKET:
            self.packet()
        else:
            self.idle()

    cdef void learn(self, uint32_t size, uint64_t value) noexcept nogil:
        """A recorded read of the data port gave `value`: if it is a sector's, keep it, where there is no image."""
        cdef ata_channel *s = self.s
        cdef PyObject *m = self.media[s.unit]
        if s.phase > PHASE_IN_PACKET or s.pos + size > s.end or s.pos - s.content_lo >= s.content_n or m == NULL:
            return
        if (<Medium>m).learn(s.content_at + s.pos - s.content_lo, value, size):
            memcpy(s.buf + s.pos, &value, size)

    # ------------------------------------------------------------------ addresses

    cdef uint64_t address(self, ata_drive *d) noexcept nogil:
        """The sector that the registers name: 6.2 (CHS, 28 and 48 bits)."""
        if not d.device & DEVICE_LBA:
            return ((<uint64_t>d.lba_high << 8 | d.lba_mid) * d.heads + (d.device & DEVICE_HEAD)) * d.sectors + d.sector - 1
        if not d.lba48:
            return <uint64_t>(d.device & DEVICE_HEAD) << 24 | <uint64_t>d.lba_high << 16 | <uint64_t>d.lba_mid << 8 | d.sector
        return (<uint64_t>d.hob_high << 40 | <uint64_t>d.hob_mid << 32 | <uint64_t>d.hob_sector << 24
                | <uint64_t>d.lba_high << 16 | <uint64_t>d.lba_mid << 8 | d.sector)

    cdef void set_address(self, ata_drive *d, uint64_t sector) noexcept nogil:
        """Put a sector into the registers, in the form of the last command."""
        cdef uint64_t track
        if d.device & DEVICE_LBA:
            d.sector = <uint8_t>sector
            d.lba_mid = <uint8_t>(sector >> 8)
            d.lba_high = <uint8_t>(sector >> 16)
            if d.lba48:
                d.hob_sector = <uint8_t>(sector >> 24)
                d.hob_mid = <uint8_t>(sector >> 32)
                d.hob_high = <uint8_t>(sector >> 40)
            else:
                d.device = d.device & ~DEVICE_HEAD | <uint8_t>(sector >> 24) & DEVICE_HEAD
        elif d.heads and d.sectors:
            track = sector // d.sectors
            d.sector = <uint8_t>(sector % d.sectors + 1)
            d.device = d.device & ~DEVICE_HEAD | <uint8_t>(track % d.heads) & DEVICE_HEAD
            d.lba_mid = <uint8_t>(track // d.heads)
            d.lba_high = <uint8_t>(track // d.heads >> 8)

    # ------------------------------------------------------------------ commands

    cdef void abort(self) noexcept nogil:
        """The command ends with ABRT: 7.9."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        self.idle()
        d.status = DRDY | ERR
        d.error = ABRT
        self.irq()

    cdef void complete(self, uint8_t status) noexcept nogil:
        """The command ends well."""
        self.s.drive[self.s.unit].status = status
        self.irq()

    cdef void answer(self) noexcept nogil:
        """The command ends with the 512 bytes in buf read by the host."""
        self.s.drive[self.s.unit].status = DRDY | DSC
        self.offer(PHASE_IN, 0, 512)
        self.irq()

    cdef void command(self, uint8_t cmd) noexcept nogil:
        """The Command register: 7.4.  Power management commands leave DSC clear, as drives without seeks do."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef ata_unit *u = &self.units[self.s.unit]
        cdef bint cdrom = u.kind == ATA_CDROM
        if self.s.unit and u.kind == ATA_NONE:
            return
        if d.status & (BSY | DRQ) and not (cmd == DEVICE_RESET and cdrom):
            return
        d.error = 0
        if cmd == IDENTIFY_DEVICE:
            if u.kind == ATA_DISK:
                self.identify()
            else:
                if cdrom:
                    self.signature(self.s.unit)       # 9.12
                self.abort()
        elif cmd == EXECUTE_DEVICE_DIAGNOSTIC:
            self.diagnose(self.s.unit)
        elif cmd == FLUSH_CACHE:
            self.flush()
        elif cmd == SET_FEATURES:
            self.set_features()
        elif cdrom:
            if cmd == PACKET:
                if d.features & 0x02:                 # overlap is not supported
                    self.abort()
                    return
                self.s.packet_dma = d.features & 1
                d.status = DRDY | DSC
                d.count = REASON_CD
                self.offer(PHASE_OUT_PACKET, 0, PACKET_SIZE)
            elif cmd == IDENTIFY_PACKET_DEVICE:
                self.identify()
            elif cmd == DEVICE_RESET:                 # 9.11
                self.drive_reset(self.s.unit)
                d.status = 0
            else:
                if cmd == READ_SECTORS:
                    self.signature(self.s.unit)       # 9.12
                self.abort()
        elif cmd == READ_SECTORS or cmd == READ_SECTORS_ONCE or cmd == READ_SECTORS_EXT:
            self.start_count(cmd == READ_SECTORS_EXT)
            self.s.block = 1
            self.read_sectors()
        elif cmd == READ_MULTIPLE or cmd == READ_MULTIPLE_EXT:
            if not d.multiple:
                self.abort()
                return
            self.start_count(cmd == READ_MULTIPLE_EXT)
            self.s.block = d.multiple
            self.read_sectors()
        elif cmd == WRITE_SECTORS or cmd == WRITE_SECTORS_ONCE or cmd == WRITE_SECTORS_EXT or cmd == WRITE_VERIFY:
            self.start_count(cmd == WRITE_SECTORS_EXT)
            self.s.block = 1
            self.offer_write()
        elif cmd == WRITE_MULTIPLE or cmd == WRITE_MULTIPLE_EXT:
            if not d.multiple:
                self.abort()
                return
            self.start_count(cmd == WRITE_MULTIPLE_EXT)
            self.s.block = d.multiple
            self.offer_write()
        elif cmd == READ_DMA or cmd == READ_DMA_ONCE or cmd == READ_DMA_EXT:
            self.start_count(cmd == READ_DMA_EXT)
            self.start_dma(DMA_READ)
        elif cmd == WRITE_DMA or cmd == WRITE_DMA_ONCE or cmd == WRITE_DMA_EXT:
            self.start_count(cmd == WRITE_DMA_EXT)
            self.start_dma(DMA_WRITE)
        elif cmd == DATA_SET_MANAGEMENT:              # ACS-3: only TRIM
            if d.features == 1:
                self.start_dma(DMA_TRIM)
            else:
                self.abort()
        elif cmd == READ_VERIFY or cmd == READ_VERIFY_ONCE or cmd == READ_VERIFY_EXT:
            self.start_count(cmd == READ_VERIFY_EXT)
            self.complete(DRDY | DSC)
        elif cmd == READ_NATIVE_MAX_EXT or cmd == READ_NATIVE_MAX:
            if u.n_sectors == 0:
                self.abort()
                return
            self.start_count(cmd == READ_NATIVE_MAX_EXT)
            self.set_address(d, u.n_sectors - 1)
            self.complete(DRDY | DSC)
        elif cmd == SET_MULTIPLE_MODE:                # a power of two
            if <uint8_t>d.count > MAX_MULTIPLE or d.count & (d.count - 1) and <uint8_t>d.count:
                self.abort()
                return
            d.multiple = <uint8_t>d.count
            self.complete(DRDY | DSC)
        elif cmd == SMART:
            self.smart()
        elif cmd == FLUSH_CACHE_EXT:
            self.flush()
        elif cmd == CHECK_POWER_MODE or cmd == CHECK_POWER_MODE_OLD:
            d.count = 0xFF                            # active or idle
            self.complete(DRDY | DSC)
        elif cmd == SECURITY_FREEZE_LOCK:             # nothing to freeze; hosts send it before they trust a drive
            d.count = 0
            self.complete(DRDY | DSC)
        elif cmd == INITIALIZE_DEVICE_PARAMETERS:     # ATA-5, retired since; not undone by SRST
            if u.kind == ATA_NONE or <uint8_t>d.count == 0:
                self.abort()
                return
            d.heads = (d.device & DEVICE_HEAD) + 1
            d.sectors = <uint8_t>d.count
            self.complete(DRDY | DSC)
        elif cmd == RECALIBRATE or cmd == SEEK:
            self.complete(DRDY | DSC)
        elif (cmd == STANDBY_IMMEDIATE or cmd == IDLE_IMMEDIATE or cmd == STANDBY or cmd == IDLE or cmd == SLEEP
              or cmd == STANDBY_IMMEDIATE_OLD or cmd == IDLE_IMMEDIATE_OLD or cmd == STANDBY_OLD or cmd == IDLE_OLD
              or cmd == SLEEP_OLD):
            self.complete(DRDY)
        else:
            self.abort()

    cdef void identify(self) noexcept nogil:
        """IDENTIFY (PACKET) DEVICE.  The block is made by the first such command; SET FEATURES changes it from then on."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef ata_unit *u = &self.units[self.s.unit]
        cdef uint32_t size
        if not d.identified:
            d.identified = 1
            memcpy(d.identify, u.identify, IDENTIFY_SIZE)
            if u.kind == ATA_DISK:
                size = u.cylinders * d.heads * d.sectors
                put_word(d.identify, 3, d.heads)
                put_word(d.identify, 4, 512 * d.sectors)
                put_word(d.identify, 6, d.sectors)
                put_word(d.identify, 55, d.heads)
                put_word(d.identify, 56, d.sectors)
                put_word(d.identify, 57, size)
                put_word(d.identify, 58, size >> 16)
                if d.multiple:
                    put_word(d.identify, 59, 0x0100 | d.multiple)
                put_word(d.identify, 85, 0x4021 if d.write_cache else 0x4001)
        memcpy(self.s.buf, d.identify, IDENTIFY_SIZE)
        self.answer()

    cdef void set_features(self) noexcept nogil:
        """Clause 8, SET FEATURES."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef uint8_t f = d.features
        cdef uint32_t mode = d.count >> 3, bit = 0x100 << (d.count & 7)
        if self.units[self.s.unit].kind == ATA_NONE:
            self.abort()
            return
        if f == 0x02 or f == 0x82:                    # write cache
            d.write_cache = f == 0x02
            put_word(d.identify, 85, 0x4021 if d.write_cache else 0x4001)
            if f == 0x82:
                self.flush()
                return
        elif f == 0x03:                               # transfer mode: PIO, single word, multiword, Ultra DMA
            if mode != 0 and mode != 1 and mode != 2 and mode != 4 and mode != 8:
                self.abort()
                return
            put_word(d.identify, 62, 0x07 | (bit if mode == 2 else 0))
            put_word(d.identify, 63, 0x07 | (bit if mode == 4 else 0))
            put_word(d.identify, 88, 0x3F | (bit if mode == 8 else 0))
        elif f == 0x66 or f == 0xCC:                  # what a reset does to the translation
            d.reverts = f == 0xCC
        elif not (f == 0x05 or f == 0x42 or f == 0x55 or f == 0x67 or f == 0x69 or f == 0x85 or f == 0x96 or f == 0x9A
                  or f == 0xAA or f == 0xC2):
            self.abort()                              # the others are accepted and change nothing
            return
        self.complete(DRDY | DSC)

    cdef void flush(self) noexcept nogil:
        """FLUSH CACHE (EXT).  A drive without a medium, or with its tray open, has nowhere to flush to."""
        cdef PyObject *m = self.media[self.s.unit]
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef int rc = 0
        if self.units[self.s.unit].kind != ATA_NONE:
            rc = -1 if m == NULL or d.tray_open else (<Medium>m).flush()
            if rc > 0 or rc < 0 and m != NULL and (<Medium>m).stops and not d.tray_open:
                d.status = BSY | DRDY | DSC
                self.s.waits = <uint8_t>(1 + self.s.unit)
                if rc < 0:
                    self.fx |= FX_STOP
                return
        if rc:
            self.abort()
        else:
            self.complete(DRDY | DSC)

    cdef void resume(self) noexcept nogil:
        """The host has seen to the medium: a flush that waits is tried again."""
        cdef uint8_t unit = self.s.unit
        if not self.s.waits:
            return
        self.s.unit = <uint8_t>(self.s.waits - 1) & 1
        self.s.waits = 0
        self.s.drive[self.s.unit].status = DRDY | DSC
        self.flush()
        self.s.unit = unit

    cdef void smart(self) noexcept nogil:
        """Clause 8, SMART."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef uint8_t *buf = self.s.buf
        cdef uint8_t *test
        cdef uint32_t i
        if d.lba_mid != SMART_MID or d.lba_high != SMART_HIGH or not d.smart_enabled and d.features != SMART_ENABLE:
            self.abort()
            return
        if d.features == SMART_ENABLE or d.features == SMART_DISABLE:
            d.smart_enabled = d.features == SMART_ENABLE
        elif d.features == SMART_AUTOSAVE:
            if d.sector != 0 and d.sector != 0xF1:
                self.abort()
                return
            d.smart_autosave = d.sector != 0
        elif d.features == SMART_RETURN_STATUS:       # LBA Mid and High keep the values that mean "healthy"
            pass
        elif d.features == SMART_EXECUTE_OFFLINE:     # a test is over, and passed, at once
            if d.sector > 2:
                self.abort()
                return
            d.selftests = d.selftests + 1 if d.selftests < SELFTESTS else 1
            test = d.selftest_log + 2 + (d.selftests - 1) * SELFTEST_SIZE
            test[0], test[1], test[2], test[3] = d.sector, 0, 0x34, 0x12
        elif d.features == SMART_READ_THRESHOLDS:
            memset(buf, 0, 512)
            buf[0] = 1
            for i in range(7):
                buf[2 + 12 * i] = SMART_ATTRIBUTES[i][0]
                buf[3 + 12 * i] = SMART_ATTRIBUTES[i][11]
            checksum(buf)
            self.answer()
            return
        elif d.features == SMART_READ_DATA:
            memset(buf, 0, 512)
            buf[0] = 1
            for i in range(7):
                memcpy(buf + 2 + 12 * i, SMART_ATTRIBUTES[i], 11)
            buf[362] = 0x82 if d.smart_autosave else 0x02
            buf[363] = d.selftest_log[3 + (d.selftests - 1) * SELFTEST_SIZE] if d.selftests else 0
            buf[364], buf[365] = 0x20, 0x01           # seconds for an off-line collection
            buf[367] = 0x19                           # it can be executed, as can self-tests
            buf[368], buf[370] = 0x03, 0x01           # saves before it sleeps and by itself; has an error log
            buf[372], buf[373], buf[374] = 0x02, 0x36, 0x01     # minutes a test takes
            checksum(buf)
            self.answer()
            return
        elif d.features == SMART_READ_LOG and (d.sector == 0x01 or d.sector == 0x06):
            memset(buf, 0, 512)
            buf[0] = 1
            if d.sector == 0x06 and d.selftests:      # the self-test log; the error log (01h) is empty
                memcpy(buf + 2, d.selftest_log + 2, SELFTESTS * SELFTEST_SIZE)
                buf[508] = d.selftests
            checksum(buf)
            self.answer()
            return
        else:
            self.abort()
            return
        self.complete(DRDY | DSC)

    # ------------------------------------------------------------------ sectors by PIO

    cdef void start_count(self, bint ext) noexcept nogil:
        """How many sectors a command means: 0 is 256, or 65536 with 48-bit addresses (6.2)."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        d.lba48 = ext
        if ext:
            d.count |= <uint32_t>d.hob_count << 8
        if d.count == 0:
            d.count = 65536 if ext else 256

    cdef void read_sectors(self) noexcept nogil:
        """The next block of READ SECTORS or MULTIPLE goes to the data port; at the end of the command, nothing."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef ata_unit *u = &self.units[self.s.unit]
        cdef PyObject *m = self.media[self.s.unit]
        cdef uint32_t n = min(d.count, self.s.block)
        cdef uint64_t sector = self.address(d)
        d.status = DRDY | DSC
        d.error = 0
        if m == NULL:
            self.abort()
        elif n == 0:
            self.idle()
        elif sector > u.n_sectors or (<Medium>m).read(sector * 512, self.s.buf, n * 512):
            self.abort()
        else:
            self.s.content_at = sector * 512
            self.s.content_lo = 0
            self.s.content_n = n * 512
            self.set_address(d, sector + n)
            d.count -= n
            self.offer(PHASE_IN_SECTORS, 0, n * 512)
            self.irq()

    cdef void offer_write(self) noexcept nogil:
        """WRITE SECTORS or MULTIPLE wants its first block; no interrupt asks for it: 9.6."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        if self.media[self.s.unit] == NULL:
            self.abort()
            return
        d.status = DRDY | DSC
        self.offer(PHASE_OUT_SECTORS, 0, min(d.count, self.s.block) * 512)

    cdef void write_sectors(self) noexcept nogil:
        """A block has come through the data port."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef ata_unit *u = &self.units[self.s.unit]
        cdef PyObject *m = self.media[self.s.unit]
        cdef uint32_t n = min(d.count, self.s.block)
        cdef uint64_t sector = self.address(d)
        d.status = DRDY | DSC
        if sector > u.n_sectors or (<Medium>m).write(sector * 512, self.s.buf, n * 512):
            self.abort()
            return
        d.count -= n
        self.set_address(d, sector + n)
        if d.count:
            self.offer(PHASE_OUT_SECTORS, 0, min(d.count, self.s.block) * 512)
        else:
            self.idle()
        self.irq()

    # ------------------------------------------------------------------ DMA: the owner drives it

    cdef void start_dma(self, uint8_t dma) noexcept nogil:
        """The command waits for its transfer: DRQ, and DMARQ to the owner."""
        if self.media[self.s.unit] == NULL and dma != DMA_PACKET:
            self.abort()
            return
        self.s.drive[self.s.unit].status = DRDY | DSC | DRQ
        self.s.phase = PHASE_DMA
        self.s.dma = dma
        self.fx |= FX_DMA

    cdef uint64_t dma_bytes(self) noexcept nogil:
        """Bytes that the waiting command moves."""
        if self.s.dma == DMA_PACKET:
            return self.s.packet_left
        return <uint64_t>self.s.drive[self.s.unit].count * 512

    cdef uint32_t dma_chunk(self, uint64_t left) noexcept nogil:
        """How many of the bytes left dma_fetch or dma_store takes next."""
        cdef uint32_t most = BUFFER
        if self.s.dma == DMA_PACKET and self.s.cd_lba != NO_SECTOR:
            most = self.s.cd_size
        return <uint32_t>left if left < most else most

    cdef bint dma_allowed(self) noexcept nogil:
        """Are all of a disk command's sectors on the medium?"""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef ata_unit *u = &self.units[self.s.unit]
        cdef uint64_t sector = self.address(d)
        if self.s.dma == DMA_TRIM or self.s.dma == DMA_PACKET:
            return True
        return sector <= u.n_sectors and d.count <= u.n_sectors - sector

    cdef int dma_fetch(self, uint64_t done, uint32_t n) noexcept nogil:
        """Put the n bytes (see dma_chunk) that follow `done` into buf.  0, or -1 for a medium error."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        if self.s.dma == DMA_READ:
            return (<Medium>self.media[self.s.unit]).read(
                self.address(d) * 512 + done, self.s.buf, n)
        return self.packet_sector() if self.s.cd_lba != NO_SECTOR else 0

    cdef int dma_store(self, uint64_t done, uint32_t n) noexcept nogil:
        """n bytes (see dma_chunk) are in buf; they follow `done` others.  0, or -1 for a medium error or a bad address.

        A TRIM entry is 48 bits of address and 16 of count (ACS-3, DATA SET MANAGEMENT).  What is trimmed keeps its data, which
        DATA SET MANAGEMENT allows: reads stay determinate."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef ata_unit *u = &self.units[self.s.unit]
        cdef uint64_t entry, sector, count
        cdef uint32_t i
        if self.s.dma == DMA_WRITE:
            return (<Medium>self.media[self.s.unit]).write(self.address(d) * 512 + done, self.s.buf, n)
        for i in range(0, n, 8):
            memcpy(&entry, self.s.buf + i, 8)
            sector, count = entry << 16 >> 16, entry >> 48
            if count and (sector > u.n_sectors or count > u.n_sectors - sector):
                return -1
        return 0

    cdef void dma_end(self, int outcome) noexcept nogil:
        """The transfer is over: 0 all moved, 1 the host's memory was too short for it, 2 a medium error or a bad address."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef ata_unit *u = &self.units[self.s.unit]
        self.idle()
        if self.s.dma == DMA_PACKET:
            if outcome == OUTCOME_DONE:
                self.packet_ok()
            elif outcome == OUTCOME_ERROR:
                self.packet_error(ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE)
        elif outcome == OUTCOME_ERROR:
            self.abort()
        elif outcome == OUTCOME_SHORT:                # no interrupt: the host has to find out
            d.status = DRDY | DSC
        else:
            self.set_address(d, self.address(d) + d.count)
            d.count = 0
            self.complete(DRDY | DSC)

    # ------------------------------------------------------------------ packet commands

    cdef void packet_ok(self) noexcept nogil:
        """GOOD status: 9.8."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        self.idle()
        d.error = 0
        d.count = d.count & ~REASON_MASK | REASON_IO | REASON_CD
        self.complete(DRDY | DSC)

    cdef void packet_error(self, uint8_t key, uint8_t asc) noexcept nogil:
        """CHECK CONDITION: 9.8; the sense data stay until the next one."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        self.idle()
        d.error = <uint8_t>(key << 4)
        d.count = d.count & ~REASON_MASK | REASON_IO | REASON_CD
        d.sense_key = key
        d.asc = asc
        self.complete(DRDY | ERR)

    cdef void packet_reply(self, uint32_t n, uint32_t room) noexcept nogil:
        """Give the host the first n bytes of buf, but no more than it has room for."""
        self.s.cd_lba = NO_SECTOR
        self.s.packet_left = min(n, room)
        self.s.block_left = 0
        self.s.index = 0
        if self.s.packet_dma:
            self.start_dma(DMA_PACKET)
        else:
            self.s.drive[self.s.unit].status = DRDY | DSC
            self.packet_next()

    cdef void packet_read(self, uint32_t sector_size, uint64_t lba, uint64_t n) noexcept nogil:
        """Give the host n sectors from lba on."""
        self.s.cd_lba = lba
        self.s.cd_size = sector_size
        self.s.packet_left = n * sector_size
        self.s.block_left = 0
        self.s.index = sector_size
        if self.s.packet_dma:
            self.start_dma(DMA_PACKET)
            self.s.drive[self.s.unit].status |= BSY
        else:
            self.s.drive[self.s.unit].status = DRDY | DSC
            self.packet_next()

    cdef int packet_sector(self) noexcept nogil:
        """Read the next sector into buf, for READ CD with all its fields: sync, header (MSF, mode 1), data, and zeros for
        EDC and ECC: MMC-5.  0, or -1 for a medium error."""
        cdef uint8_t *data = self.s.buf
        if self.s.cd_size == CD_RAW:
            data += 16
            memset(self.s.buf, 0xFF, 12)
            self.s.buf[0] = 0
            self.s.buf[11] = 0
            put_msf(self.s.buf + 12, self.s.cd_lba)
            self.s.buf[15] = 1
            memset(data + CD_SECTOR, 0, CD_RAW - CD_SECTOR - 16)
        if self.media[self.s.unit] == NULL:           # the host has taken the disc
            return -1
        if (<Medium>self.media[self.s.unit]).read(self.s.cd_lba * CD_SECTOR, data, CD_SECTOR):
            return -1
        self.s.content_at = self.s.cd_lba * CD_SECTOR
        self.s.content_lo = <uint32_t>(data - self.s.buf)
        self.s.content_n = CD_SECTOR
        self.s.cd_lba += 1
        self.s.index = 0
        return 0

    cdef void packet_next(self) noexcept nogil:
        """Offer the next piece of a reply: up to the byte count limit, announced in LBA Mid and High, with an interrupt
        for each announcement; within it sector by sector: 9.8."""
        cdef ata_channel *s = self.s
        cdef ata_drive *d = &s.drive[s.unit]
        cdef bint sectors = s.cd_lba != NO_SECTOR
        cdef uint32_t limit, n, at
        if s.packet_left == 0:
            self.packet_ok()
            return
        if sectors and s.index >= s.cd_size and self.packet_sector():
            self.packet_error(ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE)
            return
        if s.block_left == 0:
            limit = <uint32_t>d.lba_high << 8 | d.lba_mid
            if limit == 0xFFFF:
                limit = 0xFFFE
            if s.packet_left > limit:
                s.block_left = limit & ~<uint32_t>1
            else:
                s.block_left = <uint32_t>s.packet_left
            d.lba_mid = <uint8_t>s.block_left
            d.lba_high = <uint8_t>(s.block_left >> 8)
            d.count = d.count & ~REASON_MASK | REASON_IO
            self.irq()
        n = s.block_left
        if sectors:
            n = min(n, s.cd_size - s.index)
        at = s.index
        s.index += n
        s.block_left -= n
        s.packet_left -= n
        self.offer(PHASE_IN_PACKET, at, n)

    cdef bint room_given(self) noexcept nogil:
        """A PIO command that moves data needs a byte count limit: ACS-3, PACKET.  If there is none, the command is over, and
        no interrupt tells (the reference: docs/devices/ata.md)."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        if self.s.packet_dma or d.lba_mid or d.lba_high:
            return True
        self.idle()
        d.status = DRDY | ERR
        d.error = ABRT
        return False

    cdef bint attention(self, uint8_t op) noexcept nogil:
        """SPC-3, 5.9: what a guest is told before the command is looked at.  A changed disc is no disc at first, then a unit attention."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        if op == REQUEST_SENSE or op == INQUIRY or op == GET_CONFIGURATION or op == GET_EVENT_STATUS:
            return False
        if d.sense_key == UNIT_ATTENTION:
            self.packet_error(UNIT_ATTENTION, d.asc)
            return True
        if d.tray_open or not self.units[self.s.unit].n_sectors or not d.changed:
            return False
        if d.changed == 1:
            self.packet_error(NOT_READY, ASC_NO_MEDIUM)
            d.changed = 2
        else:
            self.packet_error(UNIT_ATTENTION, ASC_MEDIUM_CHANGED)
            d.changed = 0
        return True

    cdef void packet(self) noexcept nogil:
        """A command packet has come."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef ata_unit *u = &self.units[self.s.unit]
        cdef uint8_t *buf = self.s.buf
        cdef uint8_t cdb[PACKET_SIZE]
        cdef uint8_t op = buf[0]
        cdef uint64_t total = u.n_sectors // 4, lba, n
        cdef bint ready = total != 0 and not d.tray_open
        cdef uint32_t room10
        memcpy(cdb, buf, PACKET_SIZE)
        self.idle()
        memset(buf, 0, CD_RAW)                        # every reply is shorter
        room10 = get_be(cdb + 7, 2)
        if self.attention(op):
            return
        # MMC-5: what needs a medium reports NOT READY without one
        if not ready and (op == TEST_UNIT_READY or op == READ_CAPACITY or op == READ_10 or op == READ_12 or op == READ_CD
                          or op == SEEK_10 or op == READ_TOC or op == READ_DISC_INFORMATION or op == READ_DISC_STRUCTURE):
            self.packet_error(NOT_READY, ASC_NO_MEDIUM)
            return
        # ---- commands that move no data
        if op == TEST_UNIT_READY or op == SET_CD_SPEED:
            self.packet_ok()
            return
        if op == PREVENT_ALLOW:                       # MMC-5
            d.tray_locked = cdb[4] & 1
            self.packet_ok()
            return
        if op == START_STOP_UNIT:                     # MMC-5: LoEj and Start, unless a power condition is asked for
            if not cdb[4] & 0xF0 and cdb[4] & 2:
                if not cdb[4] & 1 and not d.tray_open and d.tray_locked:
                    self.packet_error(NOT_READY if u.n_sectors else ILLEGAL_REQUEST, ASC_REMOVAL_PREVENTED)
                    return
                if d.tray_open == cdb[4] & 1:
                    d.tray_open = not cdb[4] & 1
                    self.fx |= FX_TRAY
            self.packet_ok()
            return
        if op == SEEK_10:                             # the address has to exist
            if get_be(cdb + 2, 4) >= total:
                self.packet_error(ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE)
            else:
                self.packet_ok()
            return
        # ---- reads of sectors
        if op == READ_10 or op == READ_12 or op == READ_CD:
            if op != READ_CD and not self.room_given():
                return
            lba = get_be(cdb + 2, 4)
            n = room10 if op == READ_10 else get_be(cdb + 6, 4 if op == READ_12 else 3)
            if n == 0:
                self.packet_ok()
            elif lba >= total or n > total - lba:
                self.packet_error(ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE)
            elif op != READ_CD:
                self.packet_read(CD_SECTOR, lba, n)
            elif cdb[9] & 0xF8 == 0:                  # MMC-5: no field of the sector is wanted
                self.packet_ok()
            elif not self.room_given():
                pass
            elif cdb[9] & 0xF8 == 0x10:
                self.packet_read(CD_SECTOR, lba, n)
            elif cdb[9] & 0xF8 == 0xF8:
                self.packet_read(CD_RAW, lba, n)
            else:
                self.packet_error(ILLEGAL_REQUEST, ASC_INVALID_FIELD)
            return
        # ---- replies; buf is all zeros
        if not (op == REQUEST_SENSE or op == INQUIRY or op == READ_CAPACITY or op == READ_TOC or op == GET_CONFIGURATION
                or op == GET_EVENT_STATUS or op == READ_DISC_INFORMATION or op == MODE_SENSE_10
                or op == READ_DISC_STRUCTURE or op == MECHANISM_STATUS):
            self.packet_error(ILLEGAL_REQUEST, ASC_ILLEGAL_OPCODE)
            return
        if not self.room_given():
            return
        if op == REQUEST_SENSE:                       # SPC-3, fixed format
            buf[0] = 0xF0
            buf[2] = d.sense_key
            buf[7] = 10
            buf[12] = d.asc
            if d.sense_key == UNIT_ATTENTION:
                d.sense_key = 0
            self.packet_reply(18, cdb[4])
        elif op == INQUIRY:                           # SPC-3
            buf[0] = 0x05
            if cdb[1] & 1:                            # vital product data
                self.cd_product_data(cdb[2], cdb[4])
                return
            buf[1] = 0x80
            buf[3] = 0x21
            buf[4] = 31
            put_string(buf + 8, b"QEMU", 8)
            put_string(buf + 16, b"QEMU DVD-ROM", 16)
            put_words(buf + 32, u.identify, FIRMWARE_REVISION, 4)
            self.packet_reply(36, cdb[4])
        elif op == READ_CAPACITY:                     # MMC-5
            put_be(buf, total - 1, 4)
            put_be(buf + 4, CD_SECTOR, 4)
            self.packet_reply(8, 8)
        elif op == GET_EVENT_STATUS:                  # MMC-5: polled only; media events only
            if not cdb[1] & 1:
                self.packet_error(ILLEGAL_REQUEST, ASC_INVALID_FIELD)
                return
            buf[3] = 1 << 4
            if cdb[4] & 1 << 4:
                buf[1], buf[2] = 4, 4
                buf[5] = 1 if d.tray_open else 2 if u.n_sectors else 0
                if d.news & NEWS_MEDIA:
                    buf[4] = 2
                    d.news &= ~<uint8_t>NEWS_MEDIA
                elif d.news & NEWS_EJECT:
                    buf[4] = 1
                    d.news = 0
                self.packet_reply(8, room10)
            else:
                buf[2] = 0x80
                self.packet_reply(4, room10)
        elif op == GET_CONFIGURATION:                 # MMC-5, 5.3.1: the profile list and nothing else
            if cdb[2] or cdb[3]:
                self.packet_error(ILLEGAL_REQUEST, ASC_INVALID_FIELD)
                return
            put_be(buf, 16, 4)
            if ready:
                put_be(buf + 6, PROFILE_DVD_ROM if u.n_sectors > CD_MAX else PROFILE_CD_ROM, 2)
            buf[10] = 0x03                            # persistent, current
            buf[11] = 8
            put_be(buf + 12, PROFILE_DVD_ROM, 2)
            buf[14] = ready and u.n_sectors > CD_MAX
            put_be(buf + 16, PROFILE_CD_ROM, 2)
            buf[18] = ready and u.n_sectors <= CD_MAX
            self.packet_reply(20, room10)
        elif op == READ_DISC_INFORMATION:             # MMC-5: one finished session with one track
            if cdb[1] & 7:
                self.packet_error(ILLEGAL_REQUEST, ASC_INVALID_FIELD)
                return
            buf[1] = 32
            buf[2] = 0x0E
            buf[3], buf[4], buf[5], buf[6] = 1, 1, 1, 1
            buf[7] = 0x20
            self.packet_reply(34, room10)
        elif op == MECHANISM_STATUS:                  # MMC-5
            buf[5] = 1
            self.packet_reply(8, get_be(cdb + 8, 2))
        elif op == MODE_SENSE_10:
            memcpy(buf, cdb, PACKET_SIZE)
            self.cd_mode_sense()
        elif op == READ_TOC:
            memcpy(buf, cdb, PACKET_SIZE)
            self.cd_toc()
        else:
            memcpy(buf, cdb, PACKET_SIZE)
            self.cd_dvd_structure()

    cdef void cd_product_data(self, uint8_t page, uint32_t room) noexcept nogil:
        """SPC-3, 7.6: which pages there are, and who the drive is.  A designator that the host has no room for is left out;
        without room for the first there is no page (the reference: docs/devices/ata.md)."""
        cdef ata_unit *u = &self.units[self.s.unit]
        cdef uint8_t *buf = self.s.buf
        cdef uint32_t n = 6
        if page == 0x00:                              # supported pages
            buf[5] = 0x83
        elif page != 0x83:                            # device identification
            self.packet_error(ILLEGAL_REQUEST, ASC_INVALID_FIELD)
            return
        elif room < 28:
            self.packet_error(ILLEGAL_REQUEST, ASC_DATA_PHASE)
            return
        else:
            n = 28
            buf[4] = 2                                # ASCII, of the vendor's choice: the serial number
            buf[7] = 20
            put_words(buf + 8, u.identify, SERIAL_NUMBER, 20)
            if room >= 100:
                n = 100
                buf[28], buf[29] = 2, 1               # ASCII, vendor first: as SAT has it for an ATA device
                buf[31] = 68
                put_string(buf + 32, b"ATA", 8)
                put_words(buf + 40, u.identify, MODEL_NUMBER, 40)
                put_words(buf + 80, u.identify, SERIAL_NUMBER, 20)
            if room >= 112 and u.identify[2 * 87 + 1] & 1:
                n = 112
                buf[100], buf[101] = 1, 3             # binary, NAA: the world wide name
                buf[103] = 8
                put_words(buf + 104, u.identify, WORLD_WIDE_NAME, 8)
        buf[1] = page
        buf[3] = <uint8_t>(n - 4)
        self.packet_reply(n, room)

    cdef void cd_mode_sense(self) noexcept nogil:
        """MMC-5, SPC-3: current values of the error recovery, audio control and capabilities pages."""
        cdef ata_drive *d = &self.s.drive[self.s.unit]
        cdef uint8_t *buf = self.s.buf
        cdef uint8_t page = buf[2] & 0x3F, control = buf[2] >> 6
        cdef uint32_t room = get_be(buf + 7, 2), n = 16 if page == 0x01 else 24 if page == 0x0E else 30
        if control == 3:
            self.packet_error(ILLEGAL_REQUEST, ASC_SAVING_NOT_SUPPORTED)
            return
        if control or page != 0x01 and page != 0x0E and page != 0x2A:
            self.packet_error(ILLEGAL_REQUEST, ASC_INVALID_FIELD)
            return
        memset(buf, 0, PACKET_SIZE)
        put_be(buf, n - 2, 2)
        buf[2] = 0x70                                 # medium type: no disc, or not told
        buf[8] = page
        buf[9] = <uint8_t>(n - 10)
        if page == 0x01:
            buf[11] = 5                               # retries
        elif page == 0x2A:                            # MMC-3
            buf[10] = 0x3B                            # reads CD-R, CD-RW, DVD-ROM, DVD-R, DVD-RAM
            buf[12] = 0x71                            # plays audio (some hosts mount only what does), multisession, mode 2
            buf[13] = 0x60
            buf[14] = 0x2B if d.tray_locked else 0x29           # tray, eject, lock
            put_be(buf + 16, 704, 2)                  # KiB/s: 4x
            buf[19] = 2
            put_be(buf + 20, 512, 2)                  # KiB of buffer
            put_be(buf + 22, 704, 2)
        self.packet_reply(n, room)

    cdef void cd_toc(self) noexcept nogil:
        """MMC-5: formats 0 (tracks), 1 (sessions), 2 (raw), of a disc with one data track."""
        cdef uint8_t *buf = self.s.buf
        cdef uint64_t total = self.units[self.s.unit].n_sectors // 4
        cdef uint8_t format = buf[9] >> 6, track = buf[6]
        cdef bint msf = buf[1] & 2
        cdef uint32_t room = get_be(buf + 7, 2), n = 4, i
        if format == 3 or format == 0 and track > 1 and track != 0xAA:
            self.packet_error(ILLEGAL_REQUEST, ASC_INVALID_FIELD)
            return
        memset(buf, 0, PACKET_SIZE)
        buf[2], buf[3] = 1, 1                         # first and last
        if format == 0:
            if track <= 1:
                buf[n + 1], buf[n + 2] = 0x14, 1      # ADR 1, data track
                put_address(buf + n + 4, 0, msf)
                n += 8
            buf[n + 1], buf[n + 2] = 0x16, 0xAA       # lead-out
            put_address(buf + n + 4, total, msf)
            n += 8
        elif format == 1:
            n = 12
        else:
            for i in range(4):
                buf[n], buf[n + 1] = 1, 0x14
                buf[n + 3] = <uint8_t>(0xA0 + i) if i < 3 else 1
                if i < 2:
                    buf[n + 8] = 1                    # first track, last track
                elif i == 2:
                    put_address(buf + n + 7, total, msf)
                elif msf:
                    put_address(buf + n + 7, 0, msf)
                n += 11
        put_be(buf, n - 2, 2)
        self.packet_reply(n, room)

    cdef void cd_dvd_structure(self) noexcept nogil:
        """MMC-5: of a DVD, physical format, copyright and manufacturer; FFh lists them.  Any layer is the one."""
        cdef uint8_t *buf = self.s.buf
        cdef uint64_t sectors = self.units[self.s.unit].n_sectors
        cdef uint8_t media = buf[1], format = buf[7]
        cdef uint32_t room = get_be(buf + 8, 2), n
        if format != 0xFF and sectors <= CD_MAX:
            self.packet_error(ILLEGAL_REQUEST, ASC_INCOMPATIBLE_FORMAT)
            return
        if media or not (format == 0 or format == 1 or format == 4 or format == 0xFF):
            self.packet_error(ILLEGAL_REQUEST, ASC_INVALID_FIELD)
            return
        memset(buf, 0, PACKET_SIZE)
        if format == 0:
            n = 2048 + 4
            buf[4], buf[5], buf[6] = 1, 0x0F, 1       # DVD-ROM part version 1; 120 mm; one layer
            put_be(buf + 12, sectors // 4 - 1, 4)
            put_be(buf + 16, sectors // 4 - 1, 4)
        elif format == 1:
            n = 4 + 4
        elif format == 4:
            n = 2048 + 4
        else:
            n = 16 + 4
            buf[5], buf[9], buf[13], buf[17] = 0x40, 0x40, 0x40, 0x40     # readable
            buf[8], buf[12], buf[16] = 1, 3, 4
            put_be(buf + 6, 2048 + 4, 2)
            put_be(buf + 10, 4 + 4, 2)
            put_be(buf + 14, 188 + 4, 2)
            put_be(buf + 18, 2048 + 4, 2)
        put_be(buf, n - 2, 2)
        self.packet_reply(n, room)


cdef class AtaController(PciFunction):
    """What an IDE and an AHCI function have in common for their owners: the drives on `channels` and their media."""

    def open_backend(self):
        """The images are in use from now on; called once for a device that runs.  Raises MachineError for a locked one."""
        self.runs = True
        for n, c in enumerate(self.channels):
            for u, medium in enumerate(c.keep):
                if medium is not None:
                    medium.lock(f"device {self.id!r}: drive {n}:{u}")

    def detach(self):
        """The images are no longer in use."""
        for c in self.channels:
            for medium in c.keep:
                if medium is not None:
                    medium.unlock()

    def hold(self, int channel, int unit, bint on):
        """Let the flushes of a drive wait for `resume`, or pass: see Medium.hold."""
        self.channels[channel].keep[unit].hold(on)

    def trays(self):
        """Of each CD-ROM drive, by (channel, unit): (tray is open, tray is locked, there is a disc)."""
        return {(n, u): c.tray(u) for n, c in enumerate(self.channels) for u in range(2) if c.cd_drive(u)}

    def move_tray(self, int channel, int unit, bint opened):
        """Open or close a tray, locked or not."""
        self.channels[channel].move_tray(unit, opened)

    def ask_to_eject(self, int channel, int unit):
        """Tell the guest that somebody has pressed the button of a locked drive."""
        self.channels[channel].ask_to_eject(unit)

    def load_disc(self, int channel, int unit, image):
        """Put the disc of an image (a path) into a drive, or take it out (None).  Raises MachineError."""
        self.channels[channel].load_disc(unit, f"{self.id}: drive {channel}:{unit}", image, self.runs)

    def medium(self, int channel, int unit=0):
        """The Medium of a drive, or None."""
        return self.channels[channel].keep[unit]

    def contents(self):
        """What the drives without image hold, as learnt or given: {"channel:unit first-sector": bytes}, 512-byte sectors."""
        return self._gathered("contents")

    def set_contents(self, dict contents not None):
        """Give the drives without image contents, as contents() made them.  Raises StateError for what does not fit."""
        self._hand_out(contents, "set_contents")

    def written_sectors(self):
        """What the guest has written and no image file holds, in the form of contents()."""
        return self._gathered("written_sectors")

    def set_written_sectors(self, dict contents not None):
        """Replace what the guest has written.  Raises StateError for what does not fit."""
        self._hand_out(contents, "set_written_sectors")

    def _gathered(self, method):
        """What a method of the drives' media gives, by place: {"channel:unit first-sector": bytes}, 512-byte sectors."""
        return {f"{n}:{u} {first}": run for n, c in enumerate(self.channels) for u, medium in enumerate(c.keep)
                if medium is not None for first, run in getattr(medium, method)().items()}

    def _hand_out(self, contents, method):
        """Hand contents in that form to a method of each medium.  Raises StateError for what does not fit."""
        runs = {(n, u): {} for n, c in enumerate(self.channels) for u, medium in enumerate(c.keep) if medium is not None}
        for key, run in contents.items():
            try:
                place, first = key.split()
                n, u = (int(x) for x in place.split(":"))
                runs[n, u][int(first)] = run
            except (ValueError, KeyError, AttributeError):
                raise StateError(f"{self.id}: no drive takes contents {key!r}") from None
        for (n, u), part in runs.items():
            if part or method == "set_written_sectors":
                getattr(self.medium(n, u), method)(part)
