"""ATA channel with two drives.  Names and section numbers, where nothing else is said: ATA/ATAPI-6 (T13/1410D)."""
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from engine._device cimport IO_CONTENT, IO_OK, io_status
from engine.pci._config cimport PciFunction

cdef enum:                      # command block, clause 7
    DATA = 0
    ERROR = 1                   # RO
    FEATURES = 1                # WO
    SECTOR_COUNT = 2
    LBA_LOW = 3
    LBA_MID = 4
    LBA_HIGH = 5
    DEVICE = 6
    STATUS = 7                  # RO  reading acknowledges the interrupt
    COMMAND = 7                 # WO

cdef enum:                      # Status, 7.15
    ERR = 0x01
    DRQ = 0x08
    DSC = 0x10                  # device seek complete: obsolete since ATA-4, still set by what guests know
    DRDY = 0x40
    BSY = 0x80

cdef enum:                      # Error, 7.9
    ABRT = 0x04

cdef enum:                      # Device, 7.7
    DEVICE_HEAD = 0x0F
    DEVICE_DEV = 0x10
    DEVICE_LBA = 0x40
    DEVICE_OBSOLETE = 0xA0      # read as ones

cdef enum:                      # Device Control, 7.8
    NIEN = 0x02
    SRST = 0x04
    HOB = 0x80

cdef enum:                      # interrupt reason, in Sector Count after PACKET
    REASON_CD = 0x01
    REASON_IO = 0x02
    REASON_MASK = 0x07

cdef enum:                      # kinds of drive
    ATA_NONE = 0
    ATA_DISK = 1
    ATA_CDROM = 2

cdef enum:                      # what the data port does
    PHASE_IDLE = 0
    PHASE_IN = 1                # data to the host, then the command ends
    PHASE_IN_SECTORS = 2        # the same, then the next sectors
    PHASE_IN_PACKET = 3         # the same, then the rest of a packet command's reply
    PHASE_OUT_SECTORS = 4       # sectors from the host
    PHASE_OUT_PACKET = 5        # a command packet from the host
    PHASE_DMA = 6               # a DMA command waits for, or is in, its transfer

cdef enum:                      # what a DMA command moves
    DMA_READ = 0                # sectors to memory
    DMA_WRITE = 1               # sectors from memory
    DMA_TRIM = 2                # range entries from memory
    DMA_PACKET = 3              # a packet command's reply to memory

cdef enum:                      # AtaChannel.fx
    FX_IRQ_OFF = 1              # INTRQ is negated ...
    FX_IRQ = 2                  # ... then asserted
    FX_DMA = 4                  # a DMA command is ready: DMARQ
    FX_STOP = 8                 # a command has met a failure, and waits for the host
    FX_TRAY = 16                # the guest has moved a tray

cdef enum:
    MAX_MULTIPLE = 16           # sectors a READ MULTIPLE block may have
    BUFFER = MAX_MULTIPLE * 512
    PACKET_SIZE = 12
    CD_SECTOR = 2048
    CD_RAW = 2352
    IDENTIFY_SIZE = 512

cdef enum:                      # ata_drive.news
    NEWS_MEDIA = 1
    NEWS_EJECT = 2

# One drive's registers and modes.
cdef struct ata_drive:
    uint32_t count              # sectors to go; the register is its low byte
    uint8_t features, error, sector, lba_mid, lba_high, device, status
    uint8_t hob_features, hob_count, hob_sector, hob_mid, hob_high
    uint8_t lba48               # the last command has 48-bit addresses
    uint8_t multiple            # sectors of a READ MULTIPLE block; 0: disabled
    uint8_t write_cache
    uint8_t identified          # `identify` has been made
    uint8_t smart_enabled, smart_autosave, selftests
    uint8_t sense_key, asc      # packet devices
    uint8_t tray_open, tray_locked
    uint8_t heads, sectors      # of the current translation
    uint8_t reverts             # the next reset restores the default translation
    uint8_t changed             # another disc: 1, and 2 once the guest has been told that there is none
    uint8_t news                # media events that no guest has asked for yet
    uint8_t identify[512]       # what IDENTIFY (PACKET) DEVICE answers
    uint8_t selftest_log[512]

cdef struct ata_channel:
    uint64_t content_at         # byte of the medium that buf[content_lo] is
    uint64_t cd_lba             # next sector of a packet read; NO_SECTOR for other replies
    uint64_t packet_left        # bytes of the reply not yet offered
    uint32_t pos, end           # of the data port in buf
    uint32_t content_lo, content_n   # buf[content_lo:][:content_n] is sector data
    uint32_t cd_size            # bytes of a sector of the packet read
    uint32_t index              # of the reply in buf
    uint32_t block_left         # bytes of the announced byte count not yet offered
    uint32_t block              # sectors the data port moves at once
    uint8_t phase
    uint8_t dma                 # DMA_*, in PHASE_DMA
    uint8_t packet_dma          # the packet command asked for DMA
    uint8_t unit                # selected drive
    uint8_t control             # Device Control
    uint8_t waits               # 1 + the unit whose flush waits for the host
    uint8_t pad[2]
    ata_drive drive[2]
    uint8_t buf[8192]           # BUFFER

# What a drive is, fixed when it is built.
cdef struct ata_unit:
    uint32_t kind
    uint32_t cylinders, heads, sectors      # of the default translation
    uint64_t n_sectors          # 512-byte sectors; 0: no medium
    uint8_t identify[512]       # at power-on

cdef extern from *:
    """
    #define ATA_NO_SECTOR UINT64_MAX
    """
    const uint64_t NO_SECTOR "ATA_NO_SECTOR"

cdef class AtaChannel:
    cdef ata_channel *s         # in the owning device's state
    cdef ata_unit units[2]
    cdef PyObject *media[2]     # borrowed from `keep`; NULL: no medium
    cdef readonly list keep
    cdef uint32_t fx            # what the owner has to do after a call; it clears this

    cdef int setup(self, ata_channel *s, str who, uint32_t n, list drives) except -1
    # ---- for the owner
    cdef uint8_t read_register(self, uint32_t reg) noexcept nogil
    cdef uint8_t alternate_status(self) noexcept nogil
    cdef void write_register(self, uint32_t reg, uint8_t value) noexcept nogil
    cdef void write_control(self, uint8_t value) noexcept nogil
    cdef void data_write(self, uint32_t size, uint64_t value) noexcept nogil
    cdef void learn(self, uint32_t size, uint64_t value) noexcept nogil
    cdef void reset(self, bint power_on) noexcept nogil
    cdef uint64_t dma_bytes(self) noexcept nogil
    cdef uint32_t dma_chunk(self, uint64_t left) noexcept nogil
    cdef bint dma_allowed(self) noexcept nogil
    cdef int dma_fetch(self, uint64_t done, uint32_t n) noexcept nogil
    cdef int dma_store(self, uint64_t done, uint32_t n) noexcept nogil
    cdef void dma_end(self, int outcome) noexcept nogil
    # ---- inside
    cdef void irq(self) noexcept nogil
    cdef bint present(self, uint32_t unit) noexcept nogil
    cdef void idle(self) noexcept nogil
    cdef void offer(self, uint32_t phase, uint32_t at, uint32_t n) noexcept nogil
    cdef void data_done(self) noexcept nogil
    cdef void drive_reset(self, uint32_t unit) noexcept nogil
    cdef void signature(self, uint32_t unit) noexcept nogil
    cdef void diagnose(self, uint32_t unit) noexcept nogil
    cdef uint64_t address(self, ata_drive *d) noexcept nogil
    cdef void set_address(self, ata_drive *d, uint64_t sector) noexcept nogil
    cdef void command(self, uint8_t cmd) noexcept nogil
    cdef void abort(self) noexcept nogil
    cdef void complete(self, uint8_t status) noexcept nogil
    cdef void answer(self) noexcept nogil
    cdef void identify(self) noexcept nogil
    cdef void set_features(self) noexcept nogil
    cdef void smart(self) noexcept nogil
    cdef void flush(self) noexcept nogil
    cdef void resume(self) noexcept nogil
    cdef void start_count(self, bint ext) noexcept nogil
    cdef void read_sectors(self) noexcept nogil
    cdef void offer_write(self) noexcept nogil
    cdef void write_sectors(self) noexcept nogil
    cdef void start_dma(self, uint8_t dma) noexcept nogil
    cdef void packet(self) noexcept nogil
    cdef void packet_ok(self) noexcept nogil
    cdef void packet_error(self, uint8_t key, uint8_t asc) noexcept nogil
    cdef void packet_reply(self, uint32_t n, uint32_t room) noexcept nogil
    cdef void packet_next(self) noexcept nogil
    cdef int packet_sector(self) noexcept nogil
    cdef void packet_read(self, uint32_t sector_size, uint64_t lba, uint64_t n) noexcept nogil
    cdef bint attention(self, uint8_t op) noexcept nogil
    cdef bint room_given(self) noexcept nogil
    cdef void cd_toc(self) noexcept nogil
    cdef void cd_product_data(self, uint8_t page, uint32_t room) noexcept nogil
    cdef void cd_mode_sense(self) noexcept nogil
    cdef void cd_dvd_structure(self) noexcept nogil

    cdef inline io_status data_read(self, uint32_t size, uint64_t *value) noexcept nogil:
        """A read of the data port, 2 or 4 bytes.  0 while there is nothing, or less than that, to read."""
        cdef ata_channel *s = self.s
        cdef uint8_t *p = s.buf + s.pos     # after an odd byte count of a packet, no word's place
        cdef uint16_t word
        cdef uint32_t dword
        cdef io_status status
        if s.pos + size > s.end or s.phase > PHASE_IN_PACKET:
            value[0] = 0
            return IO_OK
        if size == 2:
            memcpy(&word, p, 2)
            value[0] = word
        else:
            memcpy(&dword, p, 4)
            value[0] = dword
        status = <io_status>(IO_OK | IO_CONTENT) if s.pos - s.content_lo < s.content_n else IO_OK
        s.pos += size
        if s.pos >= s.end:
            self.data_done()
        return status

    cdef inline bint in_row(self, uint32_t size) noexcept nogil:
        """Does the next such read do nothing but bring a value?  The last of a block does more."""
        return self.s.phase > PHASE_IN_PACKET or self.s.pos + size != self.s.end

    cdef inline uint32_t data_string(self, uint32_t size, uint32_t n, uint64_t *values, io_status *status) noexcept nogil:
        """As many such reads as are alike, after in_row has allowed them: how many."""
        cdef ata_channel *s = self.s
        cdef const uint8_t *p = s.buf + s.pos
        cdef uint32_t i, left, content = s.pos - s.content_lo       # wraps while the content is ahead
        cdef uint16_t word
        cdef uint32_t dword
        if s.pos + size > s.end or s.phase > PHASE_IN_PACKET:
            memset(values, 0, n * sizeof(uint64_t))
            return n
        n = min(n, (s.end - s.pos - 1) // size)
        left = s.content_n - content if content < s.content_n else s.content_lo - s.pos if s.pos < s.content_lo else 0
        if left:
            n = min(n, (left + size - 1) // size)
        for i in range(n):
            if size == 2:
                memcpy(&word, p + 2 * i, 2)
                values[i] = word
            else:
                memcpy(&dword, p + 4 * i, 4)
                values[i] = dword
        status[0] = <io_status>(IO_OK | IO_CONTENT) if content < s.content_n else IO_OK
        s.pos += n * size
        return n


cdef class AtaController(PciFunction):
    cdef readonly tuple channels
    cdef bint runs                     # the images are in use
