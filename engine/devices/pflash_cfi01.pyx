"""CFI parallel flash, eight bits wide, with the Intel command set: the firmware's code, and the variables it keeps.

Documents: 3 Volt Intel StrataFlash Memory (28F128J3A), data sheet 290667, "Command Definitions" and "Status Register
Definitions"; Common Flash Interface, JESD68.01.  Modelled: read array, status, identifier, CFI query; byte, word and
doubleword program, buffered program, block erase, the lock commands; an image as the medium, read-only, written to, or
under an overlay in memory.  Not modelled: the time that programming and erasing take (the part is always ready), lock bits
(the lock commands are taken and lock nothing), suspend, one-time programmable bits, voltages.  Deviations:
docs/devices/pflash_cfi01.md.  Called by the owning worker only.
"""
cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from engine._device cimport IO_CONTENT, IO_NO_REGISTER, IO_OK
from engine.devices._medium cimport SECTOR

from engine.errors import MachineError
from engine.types import RO, RW, Region, Register, Space

SIZE_MAX = 8 << 20         # the room below 4 GiB that the reference's boards give to flash
_S, _Q = "290667: ", "JESD68.01 2.4: "
_REGISTERS = (
    Register("COMMAND", 0, 8, RW, None, 0, "at any address; what reads then give", _S + "Command Definitions"),
    Register("STATUS", 0, 8, RO, SR_RESET, 0, "", _S + "Status Register Definitions", index=READ_STATUS),
    Register("IDENTIFIER", 0, 8, RO, 0, 0, "", _S + "Read Identifier Codes", index=READ_ID),
    Register("QUERY", 0, 8, RO, 0, 0, "the CFI structure begins at offset 10h", _Q + "Query Structure", index=READ_QUERY),
)


@cython.final
cdef class PflashCfi01(Device):
    """One part.  Settings: `size` in bytes, whole blocks of 4 KiB (0: the image's); `image`, a raw file; `readonly`;
    `write`: what the guest programs goes to the image (else it is kept in memory).  `name`: of the region."""
    TITLE = "CFI parallel flash, Intel command set"
    REGISTERS = _REGISTERS
    CONFIG = {"size": 0, "image": "", "readonly": False, "write": False, "name": "system.flash0"}
    STATE = (("block", "u4"), ("cmd", "u1"), ("cycle", "u1"), ("status", "u1"), ("left", "u1"), ("buffer", "u1", BUFFER))

    def __init__(self, str id="pflash", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        cdef object c = self.config
        cdef uint32_t n
        size, image = c["size"], c["image"] or None
        if image is None and not size:
            size = BLOCK
        self.medium = Medium(id, size or None, image, c["readonly"], c["write"])
        if self.medium.size % BLOCK or not 0 < self.medium.size <= SIZE_MAX or (image and self.medium.file_size % BLOCK):
            raise MachineError(f"{id}: a flash of {self.medium.file_size if image else self.medium.size} bytes; it has whole "
                               f"blocks of {BLOCK}, and {SIZE_MAX} bytes at most")
        self.size = <uint32_t>self.medium.size
        self.data = <uint8_t *>calloc(self.size, 1)
        if self.data == NULL:
            raise MemoryError()
        self.load()
        memcpy(self.query + CFI_QRY, b"QRY", 3)
        self.query[CFI_COMMAND_SET] = 0x01                  # Intel/Sharp extended
        self.query[CFI_EXTENDED] = CFI_PRI
        self.query[CFI_VCC_MIN] = 0x45
        self.query[CFI_VCC_MAX] = 0x55
        self.query[CFI_PROGRAM_TIME] = self.query[CFI_BUFFER_TIME] = 7      # 2^7 us; an erase 2^10 ms
        self.query[CFI_ERASE_TIME] = 10
        # a timeout is 2^4 times that
        self.query[CFI_PROGRAM_TIMEOUT] = self.query[CFI_BUFFER_TIMEOUT] = self.query[CFI_ERASE_TIMEOUT] = 4
        self.query[CFI_SIZE] = <uint8_t>((self.size & -self.size).bit_length() - 1)
        self.query[CFI_INTERFACE] = 2                       # x8 and x16
        self.query[CFI_BUFFER_SIZE] = BUFFER_BITS
        self.query[CFI_REGIONS] = 1
        n = self.size // BLOCK - 1
        self.query[CFI_BLOCKS] = <uint8_t>n
        self.query[CFI_BLOCKS + 1] = <uint8_t>(n >> 8)
        self.query[CFI_BLOCK_SIZE] = <uint8_t>(BLOCK >> 8)
        memcpy(self.query + CFI_PRI, b"PRI10", 5)
        self.query[CFI_PROTECTION_FIELDS] = 1
        self.s = <pflash_state *>self.state_alloc(sizeof(pflash_state))
        self.power_on()

    def __dealloc__(self):
        free(self.data)

    def open_backend(self):
        """The image is in use from now on; called once for a device that runs.  Raises MachineError for a locked one."""
        self.medium.lock(f"device {self.id!r}")

    def detach(self):
        """The image is no longer in use."""
        self.medium.unlock()

    def load(self):
        """Read the medium.  Raises MachineError if it cannot be read."""
        if self.medium.read(0, self.data, self.size):
            raise MachineError(f"{self.id}: image {self.config['image']!r} cannot be read")

    def regions(self):
        return (Region(self.config["name"], Space.MMIO, self.size, (1, 2, 4, 8), (1, 4)),)

    # ------------------------------------------------------------------ reads

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        cdef uint8_t cmd = self.s.cmd
        cdef uint32_t n
        value[0] = 0
        if offset >= self.size or size > self.size - offset:
            return IO_NO_REGISTER
        if cmd == READ_ARRAY_0:
            memcpy(value, self.data + offset, size)
            n = offset // SECTOR
            if self.medium.fd < 0 and not (self.medium.dirty != NULL and self.medium.dirty[n >> 3] >> (n & 7) & 1):
                return <io_status>(IO_OK | IO_CONTENT)      # neither an image nor the guest has said what is there
        elif cmd == READ_ID:
            value[0] = 0                    # manufacturer and device code of the reference's part
        elif cmd == READ_QUERY:
            offset &= 0xFF
            value[0] = self.query[offset] if offset < <uint32_t>CFI_LENGTH else 0
        else:
            value[0] = self.s.status        # a doubleword has it in both halves, as two parts of 16 bits would
            if size > 2:
                value[0] |= <uint64_t>self.s.status << 16
        return IO_OK

    cdef void learn(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if self.s.cmd == READ_ARRAY_0 and offset < self.size and size <= self.size - offset:
            if self.medium.learn(offset, value, size):
                memcpy(self.data + offset, &value, size)

    # ------------------------------------------------------------------ writes

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef pflash_state *s = self.s
        cdef uint8_t byte = <uint8_t>value
        if offset >= self.size or size > self.size - offset:
            return IO_NO_REGISTER
        if s.cycle == 0:
            self.first_cycle(offset, byte)
        elif s.cycle == 1:
            if s.cmd == PROGRAM or s.cmd == PROGRAM_ALTERNATE:
                self.program(offset, size, value)
                s.cycle = 0
            elif s.cmd == WRITE_BUFFER:
                s.left = byte
                s.cycle = 2
                s.block = offset & ~<uint32_t>(BUFFER - 1)
                memcpy(s.buffer, self.data + s.block, BUFFER)
            elif (s.cmd == BLOCK_ERASE and byte == CONFIRM) or (s.cmd == LOCK_SETUP and (byte == CONFIRM or byte == LOCK_SET)):
                s.status |= SR_READY
                s.cycle = 0
            elif s.cmd != READ_QUERY or byte == READ_ARRAY:
                self.read_array()
        elif s.cycle == 2:
            self.buffered(offset, size, value)
        elif byte == CONFIRM and not s.status & SR_PROGRAM_ERROR:
            if s.block != NO_BLOCK:
                memcpy(self.data + s.block, s.buffer, BUFFER)
                self.keep(s.block, BUFFER, SR_PROGRAM_ERROR)
            s.block = NO_BLOCK
            s.status |= SR_READY
            s.cycle = 0
        else:
            s.block = NO_BLOCK
            self.read_array()
        return IO_OK

    cdef void first_cycle(self, uint32_t offset, uint8_t command) noexcept nogil:
        """290667, Command Definitions: the first bus cycle."""
        cdef pflash_state *s = self.s
        if command == READ_STATUS or command == READ_ID:
            s.cmd = command
            return
        if command == BLOCK_ERASE:
            self.erase(offset)              # already now, as the reference does
        elif command == WRITE_BUFFER:
            s.status |= SR_READY
        elif command == CLEAR_STATUS:
            s.status = 0
            self.read_array()
            return
        elif command != PROGRAM and command != PROGRAM_ALTERNATE and command != LOCK_SETUP and command != READ_QUERY:
            self.read_array()
            return
        s.cmd = command
        s.cycle = 1

    cdef void read_array(self) noexcept nogil:
        self.s.cmd = READ_ARRAY_0
        self.s.cycle = 0

    cdef void program(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """Put `size` bytes into the array.  Bits become what is written; the part could only clear them."""
        cdef pflash_state *s = self.s
        s.status |= SR_READY
        if self.medium.readonly:
            s.status |= SR_PROGRAM_ERROR
            return
        memcpy(self.data + offset, &value, size)
        self.keep(offset, size, SR_PROGRAM_ERROR)

    cdef void buffered(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """290667, Write to Buffer: one data cycle.  The cycle before, with the count, has chosen the block; a cycle outside
        it is an error."""
        cdef pflash_state *s = self.s
        s.status |= SR_READY
        if self.medium.readonly or offset < s.block or offset + size > s.block + BUFFER:
            s.status |= SR_PROGRAM_ERROR
        else:
            memcpy(s.buffer + (offset - s.block), &value, size)
        if s.left == 0:
            s.cycle = 3
        else:
            s.left -= 1

    cdef void erase(self, uint32_t offset) noexcept nogil:
        cdef pflash_state *s = self.s
        s.status |= SR_READY
        if self.medium.readonly:
            s.status |= SR_ERASE_ERROR
            return
        offset &= ~<uint32_t>(BLOCK - 1)
        memset(self.data + offset, 0xFF, BLOCK)
        self.keep(offset, BLOCK, SR_ERASE_ERROR)

    cdef void keep(self, uint32_t offset, uint32_t size, uint8_t error) noexcept nogil:
        """Hand what was programmed to the medium; `error` is the status bit for a medium that fails."""
        cdef uint32_t first = offset & ~<uint32_t>(SECTOR - 1), end = (offset + size + SECTOR - 1) & ~<uint32_t>(SECTOR - 1)
        if self.medium.write(first, self.data + first, end - first):
            self.s.status |= error

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """290667, Reset/Power-Down: read array, status 80h.  The array keeps what it holds."""
        self.s.cmd = READ_ARRAY_0
        self.s.cycle = self.s.left = 0
        self.s.block = NO_BLOCK
        memset(self.s.buffer, 0, BUFFER)
        self.s.status = SR_RESET

    # ------------------------------------------------------------------ what Python sees

    def on_restore(self):
        """The buffer stays inside the array, whatever was restored."""
        if self.s.block != NO_BLOCK:
            self.s.block = min(self.s.block, self.size - BUFFER) & ~<uint32_t>(BUFFER - 1)

    def contents(self):
        """What was learnt or given, where there is no image: {first sector: bytes}."""
        return self.medium.contents()

    def set_contents(self, contents):
        """Add contents, as contents() gives them.  Raises StateError for what does not fit, or over an image."""
        self.medium.set_contents(contents)
        self.load()

    def written_sectors(self):
        """What the guest has programmed and no file holds, in the form of contents()."""
        return self.medium.written_sectors()

    def set_written_sectors(self, contents):
        """Replace what the guest has programmed.  Raises StateError for what does not fit."""
        self.medium.set_written_sectors(contents)
        self.load()
