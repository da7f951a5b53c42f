"""A PCI function, header type 0.  Documents: PCI Local Bus Specification 3.0, chapter 6; PCI Express Base Specification 3.0.

Modelled: the header, byte enables, write masks and write-one-to-clear masks, sizing of base address registers, the
expansion ROM register, the list of capabilities, the command gates (I/O, memory, bus master, INTx disable), INTA#; for PCI
Express functions the extended space of 4096 bytes and the list of extended capabilities.
Not modelled: built-in self test, cardbus, parity and SERR# (their status bits are never set).

A part subclasses PciFunction.  Its __init__:

    Device.__init__(self, id, rank, arena, dma, **config)
    self.s = <x_state *>self.pci_alloc(sizeof(x_state))       # first member: pci_state pci
    self.identify(0x8086, 0x7010, 0, 0x010180)
    self.extend(self.s.extended)                              # a PCI Express function: a uint8_t[3840] of its state
    self.add_bar(4, Space.PIO, 16, name="bmdma")              # any number of these
    self.wmask[0x41] = 0x80 ...                               # private registers: all writable unless said otherwise
    self.initial[...] = ...                                   # their reset values
    self.keep[...] = 1                                        # those that survive a bus reset
    self.power_on()

and STATE = PCI_STATE + (...), CONFIG = {**PCI_CONFIG, ...}, OUT = ("inta", ...).  Regions 0 to 5 are the BARs (one that is
not there has size 0), 6 the ROM, 7 configuration space, and from 8 on what fixed_regions() lists.  It overrides bar_read
and bar_write (every region but 7), config_written for effects of its private registers, and on_reset, which begins with
PciFunction.on_reset(self, kind).

A device never learns where it is: when a BAR or a gate changes what answers, it emits a MAP effect (pin = region number,
addr = 1 if mapped, value = base), which the router applies when the configuration write completes.
"""
from libc.string cimport memset

from engine._abi cimport ENGINE_EFFECT_MAP
from engine._device cimport IO_NO_REGISTER, IO_OK, RESET_POWER_ON, Device, io_status, reset_kind
from engine.pci.regs cimport *

from engine.errors import MachineError
from engine.types import Region, Space

PCI_STATE = (("mapped", "u8", 7), ("config", "u1", 256), ("intx", "u1"), ("legacy", "u1"),
             ("gone", "u1"), ("pci_pad", "u1", 5))
# Settings of every function.  multifunction: the header says that the device has more functions than this one.
PCI_CONFIG = {"subsystem_vendor_id": 0x1AF4, "subsystem_id": 0x1100, "multifunction": False}


cdef inline void put(uint8_t *at, uint64_t value, uint32_t size) noexcept nogil:
    cdef uint32_t i
    for i in range(size):
        at[i] = <uint8_t>(value >> (8 * i))


cdef class PciFunction(Device):
    """Base of every PCI function; see the module."""
    STATE = PCI_STATE
    CONFIG = PCI_CONFIG
    OUT = ("inta",)

    # ------------------------------------------------------------------ building

    cdef void *state_alloc(self, size_t size) except NULL:
        """The state struct, which begins with a pci_state; nothing is mapped."""
        self.p = <pci_state *>Device.state_alloc(self, size)
        memset(self.p.mapped, 0xff, sizeof(self.p.mapped))
        self.bar_regions = [Region(f"bar{n}", Space.MMIO, 0) for n in range(N_BARS)] + [Region("rom", Space.MMIO, 0)]
        self.all_regions = None
        self.config_size = CONFIG_SIZE
        return self.p

    cdef void *pci_alloc(self, size_t size) except NULL:
        return self.state_alloc(size)

    cdef void extend(self, uint8_t *extended):
        """Make it a PCI Express function: PCIe 7.2.  `extended`: 3840 bytes of the state struct, read-only unless wmask or w1c
        say otherwise."""
        self.extended = extended
        self.config_size = EXTENDED_SIZE

    def identify(self, uint16_t vendor, uint16_t device, uint8_t revision, uint32_t class_code,
                      uint8_t interrupt_pin=0):
        """Fill the header: PCI 6.2.1, 6.2.4.  interrupt_pin 1 is INTA#.  Bytes 40h to FFh become read-write, and
        a bus reset leaves them, as in the reference; resets() names those that it does not."""
        put(self.initial + VENDOR_ID, vendor, 2)
        put(self.initial + DEVICE_ID, device, 2)
        self.initial[REVISION_ID] = revision
        put(self.initial + CLASS_CODE, class_code, 3)
        self.initial[HEADER_TYPE] = HEADER_MULTIFUNCTION if self.config["multifunction"] else 0
        put(self.initial + SUBSYSTEM_VENDOR_ID, self.config["subsystem_vendor_id"], 2)
        put(self.initial + SUBSYSTEM_ID, self.config["subsystem_id"], 2)
        self.initial[INTERRUPT_PIN] = interrupt_pin
        put(self.wmask + COMMAND, COMMAND_WMASK, 2)
        put(self.w1c + STATUS, STATUS_W1C, 2)
        self.wmask[CACHE_LINE_SIZE] = 0xff
        self.wmask[INTERRUPT_LINE] = 0xff
        memset(self.wmask + HEADER_SIZE, 0xff, CONFIG_SIZE - HEADER_SIZE)
        memset(self.keep + HEADER_SIZE, 1, CONFIG_SIZE - HEADER_SIZE)
        self.cap_next = HEADER_SIZE

    def resets(self, uint32_t at, uint32_t length):
        """A bus reset sets these bytes back."""
        memset(self.keep + at, 0, length)

    def add_bar(self, uint32_t n, space, uint64_t size, bint prefetch=False, bint is64=False, str name=None,
                     tuple accepts=(1, 2, 4), tuple implements=(1, 4), bint posted=False, bint barrier=False):
        """Declare base address register n: PCI 6.2.5.1.  Raises MachineError for what no BAR can be."""
        cdef bint io = space == Space.PIO
        cdef uint8_t reg = <uint8_t>(BAR0 + 4 * n)
        if n >= N_BARS or (is64 and (io or n == N_BARS - 1)):
            raise MachineError(f"{self.id}: there is no such base address register: {n}")
        if size & (size - 1) or size < (4 if io else 16) or (io and size > 256) or (not is64 and size > 1 << 31):
            raise MachineError(f"{self.id}: a base address register cannot be {size:#x} bytes of {space.name} long")
        if self.bars[n].size or self.bars[n].reg or (is64 and self.bars[n + 1].size):
            raise MachineError(f"{self.id}: base address register {n} is taken")
        self.bars[n].size = size
        self.bars[n].reg = reg
        self.bars[n].flags = BAR_IO if io else (BAR_MEM_64 if is64 else 0) | (BAR_MEM_PREFETCH if prefetch else 0)
        self.initial[reg] = self.bars[n].flags
        put(self.wmask + reg, ~(size - 1), 8 if is64 else 4)
        if is64:
            self.bars[n + 1].reg = <uint8_t>(reg + 4)
        self.all_regions = None
        # ports of a BAR hide fixed ones, memory of a BAR lies behind the chipset's
        self.bar_regions[n] = Region(name or f"bar{n}", space, size, accepts, implements, posted, barrier, priority=1 if io else -1)

    def add_rom(self, uint64_t size, str name="rom"):
        """Declare the expansion ROM base address register: PCI 6.2.5.2."""
        if size & (size - 1) or not 2048 <= size <= 1 << 24:
            raise MachineError(f"{self.id}: an expansion ROM cannot be {size:#x} bytes long")
        self.bars[ROM_BAR].size = size
        self.bars[ROM_BAR].reg = EXPANSION_ROM
        put(self.wmask + EXPANSION_ROM, ~(size - 1) | ROM_ENABLE, 4)
        self.all_regions = None
        self.bar_regions[ROM_BAR] = Region(name, Space.MMIO, size, (1, 2, 4, 8), (1, 8), priority=-1)

    def add_capability(self, uint8_t cap, uint32_t length, where=None):
        """Put a capability in front of the list (PCI 6.7), read-only and zero but for its header; its offset.  `where`: it,
        if not behind the one before."""
        cdef uint32_t at = self.cap_next if where is None else where
        if at < HEADER_SIZE or at + length > CONFIG_SIZE:
            raise MachineError(f"{self.id}: no room for capability {cap:#x} of {length} bytes at {at:#x}")
        memset(self.wmask + at, 0, length)
        memset(self.w1c + at, 0, length)
        memset(self.initial + at, 0, length)
        self.initial[at] = cap
        self.initial[at + 1] = self.initial[CAP_POINTER]
        self.initial[CAP_POINTER] = <uint8_t>at
        self.initial[STATUS] |= STATUS_CAP_LIST
        self.cap_next = <uint8_t>((at + length + 3) & ~3)
        return at

    def add_extended_capability(self, uint16_t cap, uint8_t version, uint32_t at, uint32_t length):
        """Append a capability to the extended list (PCIe 7.9.3), read-only and zero but for its header; its offset.  The first
        one is at 100h."""
        cdef uint32_t last = CONFIG_SIZE, n
        cdef bint first = self.initial[CONFIG_SIZE] == 0 and self.initial[CONFIG_SIZE + 1] == 0
        if self.extended == NULL or at < CONFIG_SIZE or at & 3 or at + length > EXTENDED_SIZE or first != (at == CONFIG_SIZE):
            raise MachineError(f"{self.id}: no room for extended capability {cap:#x} of {length} bytes at {at:#x}")
        while not first:
            n = (self.initial[last + 2] >> 4 | <uint32_t>self.initial[last + 3] << 4)
            if n == 0:
                self.initial[last + 2] = self.initial[last + 2] & 0x0f | <uint8_t>(at << 4)
                self.initial[last + 3] = <uint8_t>(at >> 4)
                break
            last = n
        put(self.initial + at, cap | <uint32_t>version << 16, 4)
        return at

    def fixed_regions(self):
        """Ranges beside the BARs; their region numbers begin at 8."""
        return ()

    def regions(self):
        if self.all_regions is None:
            self.all_regions = (*self.bar_regions, Region("config", Space.CONFIG, self.config_size, (1, 2, 4), (1, 4), barrier=True),
                                *self.fixed_regions())
        return self.all_regions

    # ------------------------------------------------------------------ accesses

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if region == CONFIG_REGION:
            return self.config_read(offset, size, value)
        return self.bar_read(region, offset, size, value)

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region == CONFIG_REGION:
            return self.config_write(offset, size, value)
        return self.bar_write(region, offset, size, value)

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """A read of any region but configuration space."""
        return IO_NO_REGISTER

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """A write of any region but configuration space."""
        return IO_NO_REGISTER

    cdef io_status config_read(self, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """Bytes past the end read as zero."""
        cdef uint32_t i
        if offset >= self.config_size:
            return IO_NO_REGISTER
        value[0] = 0
        for i in range(min(size, self.config_size - offset)):
            value[0] |= <uint64_t>self.config_byte(offset + i)[0] << (8 * i)
        return IO_OK

    cdef io_status config_write(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint32_t i, at
        cdef uint8_t byte
        cdef uint8_t *p
        if offset >= self.config_size:
            return IO_NO_REGISTER
        size = min(size, self.config_size - offset)
        for i in range(size):
            at = offset + i
            byte = <uint8_t>(value >> (8 * i))
            p = self.config_byte(at)
            p[0] = (p[0] & ~self.wmask[at] | byte & self.wmask[at]) & ~(byte & self.w1c[at])
        if offset < HEADER_SIZE:
            self.update_mappings()
            self.update_command()
        self.config_written(offset, size)
        return IO_OK

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        """`size` bytes at `offset` have been written: effects of private registers."""
        pass

    # ------------------------------------------------------------------ what the header does

    cdef uint64_t bar_address(self, uint32_t n) noexcept nogil:
        """Where BAR n answers, or UNMAPPED.  An address of 0 and one whose range reaches the top do not (sizing)."""
        cdef uint64_t base, last, size = self.bars[n].size
        cdef bint io = n != ROM_BAR and self.bars[n].flags & BAR_IO
        if size == 0 or not self.p.config[COMMAND] & (COMMAND_IO if io else COMMAND_MEMORY):
            return UNMAPPED
        base = self.config32(self.bars[n].reg)
        if n == ROM_BAR and not base & ROM_ENABLE:
            return UNMAPPED
        if self.bars[n].flags & BAR_MEM_64:
            base |= <uint64_t>self.config32(self.bars[n].reg + 4) << 32
        base &= ~(size - 1)
        last = base + size - 1
        if base == 0 or last < base or last == UNMAPPED:
            return UNMAPPED
        if last >= 0xffffffffu and not self.bars[n].flags & BAR_MEM_64:
            return UNMAPPED
        if self.above != NULL and not (<PciFunction>self.above).forwards(io, base, last):
            return UNMAPPED
        return base

    cdef bint forwards(self, bint io, uint64_t first, uint64_t last) noexcept nogil:
        """Whether accesses to first..last reach this function's secondary bus; only bridges have one."""
        return False

    cdef bint leads_to(self, uint32_t bus) noexcept nogil:
        """Whether type 1 configuration accesses for a bus reach this function's secondary bus, and go on from there."""
        return False

    cdef void bridge_moved(self) noexcept nogil:
        """A bridge above has changed what it forwards."""
        self.update_mappings()

    cdef void update_mappings(self) noexcept nogil:
        """Tell the router which BARs, and which fixed ranges behind a bridge, have moved, come or gone."""
        cdef int n
        cdef bint on
        cdef uint64_t base
        for n in range(N_BARS + 1):
            if self.bars[n].size == 0:
                continue
            base = self.bar_address(n)
            if base != self.p.mapped[n]:
                self.p.mapped[n] = base
                self.set_map(n, base != UNMAPPED, base)
        for n in range(<int>self.n_legacy):
            on = (<PciFunction>self.above).forwards(self.legacy[n].io, self.legacy[n].first, self.legacy[n].last)
            if on != (self.p.legacy >> n & 1):
                self.p.legacy ^= <uint8_t>(1 << n)
                self.set_map(self.legacy[n].region, on, self.legacy[n].first)

    cdef void set_map(self, uint32_t region, bint on, uint64_t base) noexcept nogil:
        """Ask for region `region` to answer at `base`, or nowhere."""
        self.emit(ENGINE_EFFECT_MAP, <uint8_t>region, on, base if on else 0)

    cdef void update_command(self) noexcept nogil:
        """The gates of COMMAND beside those of the mappings."""
        self.dma.enabled = (self.p.config[COMMAND] & COMMAND_MASTER) != 0
        self.set_line(INTA, self.p.intx and not self.config16(COMMAND) & COMMAND_INTX_DISABLE)

    cdef void set_intx(self, bint level) noexcept nogil:
        """The function's interrupt request: PCI 6.2.3 (status bit 3), 6.2.2 (disable), 2.2.6."""
        self.p.intx = level
        if level:
            self.p.config[STATUS] |= STATUS_INTERRUPT
        else:
            self.p.config[STATUS] &= ~STATUS_INTERRUPT
        self.set_line(INTA, level and not self.config16(COMMAND) & COMMAND_INTX_DISABLE)

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """Configuration space as after RST# (PCI 4.3.2, 6.1): the initial bytes, but for those that the part keeps."""
        cdef uint32_t i
        for i in range(self.config_size):
            if kind == RESET_POWER_ON or not self.keep[i]:
                self.config_byte(i)[0] = self.initial[i]
        self.p.intx = 0
        if kind == RESET_POWER_ON:
            self.p.gone = 0
        self.update_mappings()
        self.update_command()

    def on_restore(self):
        self.dma.enabled = (self.p.config[COMMAND] & COMMAND_MASTER) != 0

    def stands_behind(self, PciFunction bridge not None, dict fixed not None):
        """The function is on the secondary bus of `bridge`.  fixed: base addresses of its fixed ranges by name.  Raises
        MachineError."""
        regions = {r.name: (n, r) for n, r in enumerate(self.regions()) if r.size and n >= FIRST_FIXED}
        if len(fixed) > N_LEGACY or any(name not in regions for name in fixed):
            raise MachineError(f"device {self.id!r}: behind a bridge it can have up to {N_LEGACY} fixed ranges, of {', '.join(regions)}")
        self.bridge = bridge
        self.above = <PyObject *>bridge
        for name, base in fixed.items():
            n, r = regions[name]
            self.legacy[self.n_legacy] = pci_legacy(base, base + r.size - 1, n, r.space == Space.PIO)
            self.n_legacy += 1

    def mappings(self):
        """Where the ranges that move answer now: a list of (region, mapped, base), as MAP effects tell the changes."""
        return [(n, int(self.p.mapped[n] != UNMAPPED), 0 if self.p.mapped[n] == UNMAPPED else self.p.mapped[n])
                for n in range(N_BARS + 1) if self.bars[n].size]

    def identity(self):
        """(vendor, device, revision, class code, subsystem vendor, subsystem) of the header."""
        return (self.config16(VENDOR_ID), self.config16(DEVICE_ID), self.p.config[REVISION_ID],
                self.config32(REVISION_ID) >> 8, self.config16(SUBSYSTEM_VENDOR_ID), self.config16(SUBSYSTEM_ID))
