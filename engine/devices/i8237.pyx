"""The PC's two 8237A DMA controllers with their page registers.

Documents: Intel 8237A data sheet, 231466; 82371FB/82371SB (PIIX/PIIX3) data sheet, 290550-002, "DMA Registers".
Modelled: every register of both chips, byte and word channels, requests by line, by client and by software, masks,
terminal count, verify transfers, both address directions.  A channel that may run moves its whole block at once.  Not
modelled: memory to memory, priority rotation, timing and sense of DREQ and DACK (the PC's chipsets cannot use them), bus
time.  Deviations: docs/devices/i8237.md.  Called by the owning worker only.
"""
cimport cython
from libc.string cimport memset

from engine._device cimport INPUT_LINE, IO_NO_REGISTER, IO_OK, RESET_POWER_ON

from engine.errors import MachineError
from engine.types import RO, RW, WO, Region, Register, Space

cdef enum:
    PIN_TC = 0
    NO_CHANNEL = 0xFF

# 290550 "DMA Memory Low Page Registers": port 81h + n belongs to channel PAGE_CHANNEL[n]; what has none answers nobody.
cdef uint8_t PAGE_CHANNEL[15]
PAGE_CHANNEL[:] = [2, 3, 1, NO_CHANNEL, NO_CHANNEL, NO_CHANNEL, 0, NO_CHANNEL, 6, 7, 5,
                   NO_CHANNEL, NO_CHANNEL, NO_CHANNEL, 4]

_CONTROL = (
    ("COMMAND", COMMAND, WO, None, "", "8237A: Command Register"),
    ("STATUS", STATUS, RO, 0x00, "clears the terminal count bits", "8237A: Status Register"),
    ("REQUEST", REQUEST, WO, None, "may start a transfer", "8237A: Request Register"),
    ("SINGLE_MASK", SINGLE_MASK, WO, None, "may start a transfer", "8237A: Mask Register"),
    ("MODE", MODE, WO, None, "", "8237A: Mode Register"),
    ("CLEAR_POINTER", CLEAR_POINTER, WO, None, "the next access to a channel is the low byte", "8237A: Software Commands"),
    ("MASTER_CLEAR", MASTER_CLEAR, WO, None, "resets the controller", "8237A: Software Commands"),
    ("CLEAR_MASK", CLEAR_MASK, WO, None, "may start a transfer", "8237A: Software Commands"),
    ("ALL_MASK", ALL_MASK, WO, None, "may start a transfer", "8237A: Mask Register"),
)

_REGISTERS = tuple(
    Register(f"{name}.{chip}", reg << chip, 8, access, reset, 0, effects, section, region=chip)
    for chip in (0, 1) for name, reg, access, reset, effects, section in (
        *((f"{what}{chip * 4 + reg // 2}", reg, WO, None, "low byte, then high byte", f"8237A: {text} Register")
          for reg in range(8) for what, text in ((("COUNT", "Current Word") if reg & 1 else ("ADDRESS", "Current Address")),)),
        *_CONTROL)
) + tuple(
    Register(f"PAGE{channel}", port - 0x81, 8, RW, 0x00, 0xFF, "", "290550: DMA Memory Low Page Registers", region=REGION_PAGE)
    for port, channel in ((0x87, 0), (0x83, 1), (0x81, 2), (0x82, 3), (0x8F, 4), (0x8B, 5), (0x89, 6), (0x8A, 7)))


cdef inline void reverse(uint8_t *p, uint32_t n, uint32_t unit) noexcept nogil:
    """Reverse n bytes in units of 1 or 2."""
    cdef uint32_t i, k, last = n // unit - 1
    cdef uint8_t t
    for i in range(n // unit // 2):
        for k in range(unit):
            t = p[i * unit + k]
            p[i * unit + k] = p[(last - i) * unit + k]
            p[(last - i) * unit + k] = t


cdef class DmaClient(Device):
    """Base of devices that a DMA channel serves."""

    cdef uint32_t dma_run(self, uint32_t channel, uint32_t moved, uint32_t size) noexcept nogil:
        """The channel is unmasked and requested: move what there is of `size` bytes, of which `moved` are done.  Returns
        how many are done now.  core.now is set."""
        return moved


@cython.final
cdef class I8237(Device):
    """Both controllers.  A device that moves data registers with attach(); a plain request line without a client moves
    nothing.  "tc" pulses at terminal count."""
    TITLE = "8237A pair: ISA DMA controllers and page registers"
    IN = ("drq0", "drq1", "drq2", "drq3", "drq4", "drq5", "drq6", "drq7")
    OUT = ("tc",)
    REGISTERS = _REGISTERS
    STATE = (("at", "i4", 8), ("moved", "i4", 8), ("base_address", "u2", 8), ("base_count", "u2", 8), ("mode", "u1", 8),
             ("page", "u1", 8), ("command", "u1", 2), ("status", "u1", 2), ("mask", "u1", 2), ("high", "u1", 2),
             ("running", "u1", 2))

    def __init__(self, str id="dma", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.owners = []
        self.s = <i8237_state *>self.state_alloc(sizeof(i8237_state))
        self.power_on()

    def regions(self):
        """Two controllers and the page registers, from 81h."""
        return (Region("dma0", Space.PIO, 16, implements=(1, 1)), Region("dma1", Space.PIO, 32, implements=(1, 1)),
                Region("page0", Space.PIO, 15, ports=True))

    def on_restore(self):
        """No transfer is under way between two records."""
        self.s.running[0] = self.s.running[1] = 0

    cdef int attach(self, uint32_t channel, DmaClient client) except -1:
        """Make a device the client of a channel.  Raises MachineError if the channel has one, or is the cascade."""
        if channel >= 8 or channel == CASCADE:
            raise MachineError(f"device {client.id!r}: {self.id!r} has no channel {channel} for devices")
        if self.clients[channel] != NULL and self.clients[channel] != <PyObject *>client:
            raise MachineError(f"devices {(<Device>self.clients[channel]).id!r} and {client.id!r}: both use channel "
                               f"{channel} of {self.id!r}")
        self.owners.append(client)
        self.clients[channel] = <PyObject *>client
        return 0

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        cdef uint32_t reg
        if region == REGION_PAGE:
            if PAGE_CHANNEL[offset] == NO_CHANNEL:
                return IO_NO_REGISTER
            value[0] = self.s.page[PAGE_CHANNEL[offset]]
            return IO_OK
        reg = offset >> region               # word channels: A0 is not decoded
        if reg < COMMAND:
            value[0] = self.read_channel(region, reg)
        elif reg == STATUS:
            value[0] = self.s.status[region]
            self.s.status[region] &= 0xF0
        elif reg == REQUEST:                 # not readable in the 8237A; the reference shows the mask here
            value[0] = self.s.mask[region]
        else:
            value[0] = 0
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint32_t reg
        if region == REGION_PAGE:
            if PAGE_CHANNEL[offset] == NO_CHANNEL:
                return IO_NO_REGISTER
            self.s.page[PAGE_CHANNEL[offset]] = <uint8_t>value
            return IO_OK
        reg = offset >> region
        if reg < COMMAND:
            self.write_channel(region, reg, <uint8_t>value)
        else:
            self.write_control(region, reg, <uint8_t>value)
        return IO_OK

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        if kind == INPUT_LINE and pin < 8:
            self.request(pin, value != 0, self.core.now)
        return 0

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        # 8237A "RESET", "Master Clear": the same.  Addresses, counts, modes and pages are undefined after power-on, zero here,
        # and stay afterwards.
        cdef uint32_t chip
        if kind == RESET_POWER_ON:
            memset(<uint8_t *>self.s + sizeof(device_core), 0, sizeof(i8237_state) - sizeof(device_core))
        for chip in range(2):
            self.master_clear(chip)

    cdef void master_clear(self, uint32_t chip) noexcept nogil:
        self.s.high[chip] = 0
        self.s.mask[chip] = MASK_RESET
        self.s.status[chip] = 0
        self.s.command[chip] = 0

    # ------------------------------------------------------------------ registers

    cdef uint8_t read_channel(self, uint32_t chip, uint32_t reg) noexcept nogil:
        """Half of a channel's current address or count.  After the last transfer the count is FFFFh."""
        cdef uint32_t n = chip * 4 + (reg >> 1)
        cdef int32_t v
        if reg & 1:
            v = (self.s.base_count[n] << chip) - self.s.moved[n]
        else:
            v = self.s.at[n] + (-self.s.moved[n] if self.s.mode[n] & MODE_DECREMENT else self.s.moved[n])
        v >>= chip + (8 if self.s.high[chip] else 0)
        self.s.high[chip] ^= 1
        return <uint8_t>v

    cdef void write_channel(self, uint32_t chip, uint32_t reg, uint8_t v) noexcept nogil:
        """Half of a base register; the high byte, which comes second, also starts the channel anew."""
        cdef uint32_t n = chip * 4 + (reg >> 1)
        cdef uint16_t *base = &self.s.base_count[n] if reg & 1 else &self.s.base_address[n]
        if self.s.high[chip]:
            base[0] = base[0] & 0x00FF | v << 8
            self.s.at[n] = self.s.base_address[n] << chip
            self.s.moved[n] = 0
        else:
            base[0] = base[0] & 0xFF00 | v
        self.s.high[chip] ^= 1

    cdef void write_control(self, uint32_t chip, uint32_t reg, uint8_t v) noexcept nogil:
        cdef uint8_t bit = 1 << (v & CHANNEL)
        if reg == COMMAND:
            if not v & ~CMD_DISABLE:         # anything else the PC's wiring cannot do; ignored whole
                self.s.command[chip] = v
        elif reg == REQUEST:
            self.s.status[chip] = self.s.status[chip] & ~bit & ~(bit << 4) | (bit << 4 if v & SET_BIT else 0)
            self.run(chip)
        elif reg == SINGLE_MASK:
            self.s.mask[chip] = self.s.mask[chip] & ~bit | (bit if v & SET_BIT else 0)
            self.run(chip)
        elif reg == MODE:
            self.s.mode[chip * 4 + (v & CHANNEL)] = v
        elif reg == CLEAR_POINTER:
            self.s.high[chip] = 0
        elif reg == MASTER_CLEAR:
            self.master_clear(chip)
        elif reg == CLEAR_MASK:
            self.s.mask[chip] = 0
            self.run(chip)
        else:
            self.s.mask[chip] = v
            self.run(chip)

    # ------------------------------------------------------------------ transfers

    cdef void request(self, uint32_t channel, bint level, uint64_t now) noexcept nogil:
        """The channel's DREQ changes at `now`."""
        cdef uint32_t chip = channel >> 2
        cdef uint8_t bit = 0x10 << (channel & 3)
        self.core.now = now
        self.s.status[chip] = self.s.status[chip] | bit if level else self.s.status[chip] & ~bit
        self.run(chip)

    cdef void run(self, uint32_t chip) noexcept nogil:
        """Let the requested, unmasked channels move their blocks, the lowest first.  A client that drops its request
        meanwhile comes here again, and is ignored: the channel is then done."""
        cdef uint32_t i
        if self.s.running[chip]:
            return
        self.s.running[chip] = 1
        for i in range(4):
            if not self.s.mask[chip] >> i & 1 and self.s.status[chip] >> (4 + i) & 1:
                self.run_channel(chip * 4 + i)
        self.s.running[chip] = 0

    cdef void run_channel(self, uint32_t channel) noexcept nogil:
        cdef uint32_t chip = channel >> 2, size = (<uint32_t>self.s.base_count[channel] + 1) << chip
        cdef PyObject *client = self.clients[channel]
        if client == NULL:
            return
        (<DmaClient>client).core.now = self.core.now
        self.s.moved[channel] = (<DmaClient>client).dma_run(channel, self.s.moved[channel], size)
        if <uint32_t>self.s.moved[channel] == size:
            self.s.status[chip] |= 1 << (channel & 3)
            self.set_line(PIN_TC, True)
            self.set_line(PIN_TC, False)

    cdef uint32_t ram_address(self, uint32_t channel, uint32_t pos, uint32_t n) noexcept nogil:
        """Lowest address of n bytes that are `pos` bytes into the block.  The address does not wrap at the page's end."""
        cdef uint32_t start = <uint32_t>self.s.page[channel] << 16 | <uint32_t>self.s.at[channel]
        if self.s.mode[channel] & MODE_DECREMENT:
            return start + (1 << (channel >> 2)) - pos - n
        return start + pos

    cdef void from_ram(self, uint32_t channel, uint8_t *buf, uint32_t pos, uint32_t n) noexcept nogil:
        """n bytes for a client, `pos` bytes into the block; a verify channel leaves buf as it is."""
        if self.s.mode[channel] & MODE_TRANSFER:
            self.dma.read(self.ram_address(channel, pos, n), buf, n)
            if self.s.mode[channel] & MODE_DECREMENT:
                reverse(buf, n, 1 << (channel >> 2))

    cdef void to_ram(self, uint32_t channel, uint8_t *buf, uint32_t pos, uint32_t n) noexcept nogil:
        """n bytes from a client.  In a block that runs downwards buf comes back reversed."""
        if self.s.mode[channel] & MODE_TRANSFER:
            if self.s.mode[channel] & MODE_DECREMENT:
                reverse(buf, n, 1 << (channel >> 2))
            self.dma.write(self.ram_address(channel, pos, n), buf, n)
