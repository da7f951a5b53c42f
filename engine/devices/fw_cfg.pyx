"""The firmware configuration device: items of bytes that the firmware selects and reads, by port or by DMA.

Document: QEMU's fw_cfg specification (docs/specs/fw_cfg, version 7.2).  Modelled: both key spaces, the directory of
files, the data port, the DMA interface with read, skip, select and write, writable items, the negotiation of SMI
features.  Which items there are is the machine's business (engine.machine.fw_cfg_items); the device orders the files,
gives them keys and makes the signature, the interface's ID and the directory.  Not modelled: the memory-mapped variant
of other architectures, writing through the data port (removed from QEMU).  Deviations: docs/devices/fw_cfg.md.  Called
by the owning worker only.

An item is state (its bytes follow from the machine) or content (a table, ROM or kernel made elsewhere; only its size
follows from the machine).  Content is supplied, or learnt from a recorded guest's reads of the data port.
"""
cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from engine._device cimport IO_BAD_SIZE, IO_CONTENT, IO_NO_REGISTER, IO_OK, NEVER, RESET_POWER_ON

from engine.errors import MachineError
from engine.types import RO, RW, WO, Region, Register, Space

cdef extern from *:
    """
    #define FW_CFG_DMA_SIGNATURE 0x51454d5520434647ull    /* "QEMU CFG", as the DMA address register reads */
    """
    const uint64_t FW_CFG_DMA_SIGNATURE
    uint32_t __builtin_bswap32(uint32_t v) nogil
    uint64_t __builtin_bswap64(uint64_t v) nogil

SPEC = "fw_cfg: "
SMI_REQUESTED, SMI_OK, SMI_SUPPORTED = "etc/smi/requested-features", "etc/smi/features-ok", "etc/smi/supported-features"


cdef inline uint64_t big_endian(const uint8_t *at, uint32_t n) noexcept nogil:
    cdef uint64_t v = 0
    cdef uint32_t i
    for i in range(n):
        v = v << 8 | at[i]
    return v


cdef inline uint64_t little_endian(const uint8_t *at, uint32_t n) noexcept nogil:
    cdef uint64_t v = 0
    while n:
        n -= 1
        v = v << 8 | at[n]
    return v


@cython.final
cdef class FwCfg(Device):
    """The device at ports 510h (selector and data) and 514h (DMA).

    Settings: `dma_enabled` offers the DMA interface; `items` is a sequence of (key, data, size, content, writable): key
    a number (not one of the device's own) or a file's name, data bytes or None for zeros, size in bytes.
    """
    TITLE = "fw_cfg: QEMU's firmware configuration device"
    CONFIG = {"dma_enabled": True, "items": None, "sorted_files": True}
    STATE = (("dma_addr", "u8"), ("offset", "u4"), ("key", "u2"), ("smi_ok", "u1"), ("pad", "u1"),
             ("smi_features", "u8"), ("written", "u1", WRITABLE_ROOM))
    REGISTERS = (
        Register("SELECTOR", SELECTOR, 16, WO, None, 0, "goes to the start of the item",
                 SPEC + "Selector (Control) Register"),
        Register("DATA", DATA, 8, RO, 0x51, 0, "goes to the next byte of the item", SPEC + "Data Register", region=IO),
        Register("DMA_HIGH", DMA_HIGH, 32, RW, 0x554D4551, 0, "reads as half a signature", SPEC + "DMA Interface",
                 region=DMA),
        Register("DMA_LOW", DMA_LOW, 32, RW, 0x47464320, 0, "reads as half a signature; a write starts a transfer",
                 SPEC + "DMA Interface", region=DMA),
    )

    def __init__(self, str id="fwcfg", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.s = <fw_cfg_state *>self.state_alloc(sizeof(fw_cfg_state))
        self.dma_on = self.config["dma_enabled"]
        self._lay_out(self.config["items"] or ())
        self.power_on()

    def __dealloc__(self):
        free(self.payload)

    # ------------------------------------------------------------------ building

    def _lay_out(self, given):
        """Give every item its key and its bytes.  Raises MachineError."""
        cdef fw_cfg_item *item
        cdef uint64_t at = 0
        cdef uint32_t written = 0
        names = {}
        rows = [(KEY_SIGNATURE, b"QEMU", 4, False, False),
                (KEY_ID, (ID_TRADITIONAL | (ID_DMA if self.dma_on else 0)).to_bytes(4, "little"), 4, False, False)]
        for row in given:
            key, data, size, content, writable = row
            if data is not None and len(data) > size or not 0 <= size < 1 << 32:
                raise MachineError(f"device {self.id!r}: item {key!r} of {size} bytes cannot hold {len(data or b'')}")
            if isinstance(key, str):
                if key in names or not 0 < len(key.encode()) < FILE_NAME:
                    raise MachineError(f"device {self.id!r}: file {key!r} stands twice, or its name is not 1 to "
                                       f"{FILE_NAME - 1} bytes long")
                names[key] = row
            else:
                if key & ~(KEY_ARCH_LOCAL | KEYS - 1) or (key < KEYS and key >= KEY_FILE_FIRST) or key in (
                        KEY_SIGNATURE, KEY_ID, KEY_FILE_DIR):
                    raise MachineError(f"device {self.id!r}: key {key:#x} is no item that a machine may set")
                rows.append(row)
        if len(names) > FILE_SLOTS:
            raise MachineError(f"device {self.id!r}: {len(names)} files, but the directory has {FILE_SLOTS} slots")
        files = sorted(names, key=str.encode) if self.config["sorted_files"] else names
        self.keys = {name: KEY_FILE_FIRST + n for n, name in enumerate(files)}
        directory = len(names).to_bytes(4, "big")
        for name, key in self.keys.items():
            directory += (names[name][2].to_bytes(4, "big") + key.to_bytes(2, "big") + bytes(2)
                          + name.encode().ljust(FILE_NAME, b"\0"))
            rows.append((key, *names[name][1:]))
        rows.append((KEY_FILE_DIR, directory, 4 + DIR_ENTRY * FILE_SLOTS, False, False))

        self.payload = <uint8_t *>calloc(sum(row[2] for row in rows) + 1, 1)
        if self.payload == NULL:
            raise MemoryError()
        for key, data, size, content, writable in rows:
            item = &self.items[1 if key & KEY_ARCH_LOCAL else 0][key & (KEYS - 1)]
            if item.data != NULL:
                raise MachineError(f"device {self.id!r}: key {key:#x} stands twice")
            item.size = size
            item.data = self.payload + at
            at += size
            if data:
                memcpy(item.data, <const char *>(<bytes>data), len(data))
            if content:
                item.flags |= ITEM_CONTENT
                item.known = 0 if data is None else size
            if writable:
                if content or written + size > <uint32_t>WRITABLE_ROOM:
                    raise MachineError(f"device {self.id!r}: writable items are state and have {WRITABLE_ROOM} bytes")
                item.flags |= ITEM_WRITABLE
                memcpy(self.start + written, item.data, size)
                item.data = self.s.written + written
                written += size
        if SMI_OK in self.keys:
            if SMI_REQUESTED not in self.keys or SMI_SUPPORTED not in self.keys:
                raise MachineError(f"device {self.id!r}: {SMI_OK} needs {SMI_REQUESTED} and {SMI_SUPPORTED}")
            self.requested = &self.items[0][self.keys[SMI_REQUESTED]]
            item = &self.items[0][self.keys[SMI_SUPPORTED]]
            if self.requested.size != 8 or item.size != 8 or names[SMI_OK][2] != 1:
                raise MachineError(f"device {self.id!r}: SMI features are two items of 8 bytes and one of 1")
            self.smi_supported = little_endian(item.data, 8)
            item = &self.items[0][self.keys[SMI_OK]]
            item.flags |= ITEM_SMI_OK
            item.data = &self.s.smi_ok

    def regions(self):
        """The selector with the data port, and the DMA address (which answers nothing without `dma_enabled`)."""
        return (Region("fwcfg", Space.PIO, 2, strings=True), Region("fwcfg.dma", Space.PIO, 8, (1, 2, 4, 8), (1, 8)))

    # ------------------------------------------------------------------ accesses

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        cdef fw_cfg_item *item
        if region == DMA:
            if not self.dma_on or offset + size > 8:
                return IO_NO_REGISTER
            # Big endian: the lowest address holds the first letter.
            value[0] = __builtin_bswap64(FW_CFG_DMA_SIGNATURE) >> (8 * offset)
            return IO_OK
        value[0] = 0
        if size != 1:
            return IO_OK      # refused, which this device answers with zero and without going on
        item = self.item()
        if item == NULL or self.s.offset >= item.size:
            return IO_OK
        value[0] = item.data[self.s.offset]
        self.s.offset += 1
        if item.flags & ITEM_CONTENT:
            if self.s.offset > item.known:
                self.unknown += 1
            return <io_status>(IO_OK | IO_CONTENT)
        return IO_OK

    cdef uint64_t string_until(self, uint32_t region, uint32_t offset, uint32_t size, bint write) noexcept nogil:
        return NEVER if region == IO and not write else 0

    cdef uint32_t read_string(self, uint32_t region, uint32_t offset, uint32_t size, uint32_t n, uint64_t *values,
                              io_status *status) noexcept nogil:
        cdef fw_cfg_item *item = self.item()
        cdef uint32_t i, at = self.s.offset
        if size != 1 or item == NULL or at >= item.size:
            memset(values, 0, n * sizeof(uint64_t))
            return n
        n = min(n, item.size - at)
        for i in range(n):
            values[i] = item.data[at + i]
        self.s.offset += n
        if item.flags & ITEM_CONTENT:
            if at + n > item.known:
                self.unknown += at + n - max(at, item.known)
            status[0] = <io_status>(IO_OK | IO_CONTENT)
        return n

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint64_t at
        if region == IO:
            if size == 2:
                self.select(<uint32_t>value)
            return IO_OK      # a byte written to the data port goes nowhere
        if not self.dma_on:
            return IO_NO_REGISTER
        if size == 4 and offset == DMA_HIGH:
            self.s.dma_addr = <uint64_t>__builtin_bswap32(<uint32_t>value) << 32
        elif size == 4 and offset == DMA_LOW:
            at = self.s.dma_addr | __builtin_bswap32(<uint32_t>value)
            self.s.dma_addr = 0
            self.transfer(at)
        elif size == 8 and offset == DMA_HIGH:
            self.s.dma_addr = 0
            self.transfer(__builtin_bswap64(value))
        else:
            return IO_BAD_SIZE
        return IO_OK

    cdef void learn(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef fw_cfg_item *item = self.item()
        if region != IO or size != 1 or item == NULL or not item.flags & ITEM_CONTENT or self.s.offset >= item.size:
            return
        item.data[self.s.offset] = <uint8_t>value
        if item.known == self.s.offset:
            item.known += 1

    # ------------------------------------------------------------------ what the registers do

    cdef fw_cfg_item *item(self) noexcept nogil:
        """The selected item; NULL if the key names nothing."""
        cdef fw_cfg_item *it
        if self.s.key == KEY_INVALID:
            return NULL
        it = &self.items[1 if self.s.key & KEY_ARCH_LOCAL else 0][self.s.key & (KEYS - 1)]
        return it if it.data != NULL else NULL

    cdef void select(self, uint32_t key) noexcept nogil:
        """Selector Register.  A key past the last slot selects nothing."""
        cdef fw_cfg_item *it
        self.s.offset = 0
        if key & ~<uint32_t>(KEY_WRITE_CHANNEL | KEY_ARCH_LOCAL) >= KEYS:
            self.s.key = KEY_INVALID
            return
        self.s.key = <uint16_t>key
        it = self.item()
        if it != NULL and it.flags & ITEM_SMI_OK:
            self.judge_smi_features()

    cdef void judge_smi_features(self) noexcept nogil:
        """The first valid request is agreed on and locked until reset.  CPU hotplug needs broadcast SMIs, and unplug
        needs plug."""
        cdef uint64_t want, cpu
        if self.s.smi_ok:
            return
        want = little_endian(self.requested.data, 8)
        cpu = want & (SMI_CPU_HOTPLUG | SMI_CPU_HOT_UNPLUG)
        if want & ~self.smi_supported or (cpu and not want & SMI_BROADCAST) or cpu == SMI_CPU_HOT_UNPLUG:
            return
        self.s.smi_features = want
        self.s.smi_ok = 1

    cdef int zero(self, uint64_t gpa, uint64_t n) noexcept nogil:
        """n zeros at gpa; stops at the first block that meets no RAM, and returns -1."""
        cdef uint8_t block[4096]
        cdef size_t part
        memset(block, 0, sizeof(block))
        while n:
            part = min(n, <uint64_t>sizeof(block))
            if self.dma.write(gpa, block, part):
                return -1
            gpa += part
            n -= part
        return 0

    cdef void transfer(self, uint64_t at) noexcept nogil:
        """DMA Interface: the descriptor at guest-physical `at` is control, length and address, big endian.  Its control
        word becomes zero when the transfer is done, or CTL_ERROR."""
        cdef uint8_t raw[16]
        cdef uint32_t control, length, part = 0, left
        cdef uint64_t to
        cdef fw_cfg_item *it
        cdef int failed = self.dma.read(at, raw, sizeof(raw))
        if not failed:
            control = <uint32_t>big_endian(raw, 4)
            length = <uint32_t>big_endian(raw + 4, 4)
            to = big_endian(raw + 8, 8)
            if control & CTL_SELECT:
                self.select(control >> 16)
            if not control & (CTL_READ | CTL_WRITE | CTL_SKIP):
                length = 0
            it = self.item()
            left = it.size - self.s.offset if it != NULL and self.s.offset < it.size else 0
            if length:
                part = min(length, left)
                if control & CTL_READ:
                    if part:
                        failed = self.dma.write(to, it.data + self.s.offset, part)
                        if it.flags & ITEM_CONTENT and self.s.offset + part > it.known:
                            self.unknown += 1
                    if not failed:
                        failed = self.zero(to + part, length - part)
                elif control & CTL_WRITE:
                    # Nothing is written unless all of it fits.  A source outside RAM has been read as zeros by then.
                    failed = part != length or not it.flags & ITEM_WRITABLE
                    if not failed:
                        failed = self.dma.read(to, it.data + self.s.offset, part)
                self.s.offset += part
        memset(raw, 0, 4)
        raw[3] = CTL_ERROR if failed else 0
        self.dma.write(at, raw, 4)

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """The signature is selected and what the guest wrote is forgotten.  Only power-on clears the address latch."""
        if kind == RESET_POWER_ON:
            self.s.dma_addr = 0
        memcpy(self.s.written, self.start, WRITABLE_ROOM)
        self.s.smi_ok = 0
        self.s.smi_features = 0
        self.select(KEY_SIGNATURE)

    # ------------------------------------------------------------------ what Python sees

    def _content(self):
        """(key or name, selector) of every content item."""
        cdef int space, n
        names = {key: name for name, key in self.keys.items()}
        for space in range(2):
            for n in range(KEYS):
                if self.items[space][n].flags & ITEM_CONTENT:
                    key = n | (KEY_ARCH_LOCAL if space else 0)
                    yield names.get(key, key), key

    def contents(self):
        """The known content: a file's name or a key -> its bytes from the start, as far as they are known."""
        cdef fw_cfg_item *it
        out = {}
        for name, key in self._content():
            it = &self.items[1 if key & KEY_ARCH_LOCAL else 0][key & (KEYS - 1)]
            if it.known:
                out[name] = (<char *>it.data)[:it.known]
        return out

    def set_contents(self, contents):
        """Supply content: what contents() gives.  Raises MachineError, and changes nothing, for an item that is no
        content of this machine or is shorter than the bytes given."""
        cdef fw_cfg_item *it
        known = dict(self._content())
        for name, data in contents.items():
            if name not in known:
                raise MachineError(f"device {self.id!r}: {name!r} is no content; there are "
                                   f"{', '.join(map(str, known)) or 'none'}")
            it = &self.items[1 if known[name] & KEY_ARCH_LOCAL else 0][known[name] & (KEYS - 1)]
            if <size_t>len(data) > it.size:
                raise MachineError(f"device {self.id!r}: {len(data)} bytes for {name!r}, which has {it.size}")
        for name, data in contents.items():
            it = &self.items[1 if known[name] & KEY_ARCH_LOCAL else 0][known[name] & (KEYS - 1)]
            memcpy(it.data, <const char *>(<bytes>data), len(data))
            it.known = len(data)

    def directory(self):
        """name -> (key, size) of the files, in the directory's order."""
        return {name: (key, self.items[0][key].size) for name, key in self.keys.items()}

    def inspect(self):
        out = Device.inspect(self)
        del out["pad"]
        out["item"] = {key: name for name, key in self.keys.items()}.get(self.s.key, hex(self.s.key))
        out["unknown"] = self.unknown
        return out
