"""PCI-to-PCI bridges and PCI Express root ports: header type 1 and what it forwards.

Documents: PCI-to-PCI Bridge Architecture Specification 1.2 (Bridge); PCI Express Base Specification 3.0 (PCIe); PCI Standard
Hot-Plug Controller and Subsystem Specification 1.0 (SHPC); Intel ICH9 data sheet 316972 (the DMI-to-PCI bridge); Intel 5520
Chipset data sheet 321328 (3420h). Modelled: bus numbers, the I/O, memory and prefetchable windows, VGA enable, secondary bus
reset, the capabilities with their write masks. The hot-plug controller carries out its commands; functions go by them, none
comes. Not modelled: hot-plug events (the slot registers of root ports hold their reset values and what is written), error
reporting, ISA enable, discard timers, the windows' effect on upstream transfers.
Deviations: docs/devices/pci_bridge.md.  Called by the owning worker only.

A bridge and every function behind it are one unit: the bridge tells its functions where their configuration space answers, and
each function asks the bridges above whether they forward its ranges.  Interrupt pins are wires of the board, which swizzles
them (Bridge, 9.1).
"""
from cpython.ref cimport PyObject
from libc.stdint cimport uint16_t
from libc.string cimport memset

from engine._device cimport IO_NO_REGISTER, IO_OK, RESET_BUS, Device
from engine.pci._config cimport CONFIG_REGION
from engine.pci._decode cimport bus_leads_to, function_at
from engine.pci._msi cimport MSI_CONTROL, MSI_ENABLED_MASK, msi_enabled, msi_notify, msi_written
from engine.pci._msix cimport ENTRY_SIZE, msix_load, msix_reset, msix_table_write, msix_written
from engine.pci.regs cimport *

from engine.errors import MachineError
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.pci._msi import add_msi
from engine.pci._msix import add_msix
from engine.types import RO, RW, RW1C, Register, Space

cdef extern from *:
    """
    #define BRIDGE_SHPC_SLOTS 0xe0000100u     /* SHPC 4.10: physical slot numbers fall, MRL and button are implemented */
    #define BRIDGE_SHPC_EMPTY 0x7f000d0fu     /* SHPC 4.17: empty, powered down, indicators off; latches clear */
    #define BRIDGE_SHPC_TAKEN 0x7f000006u     /* a card of 7.5 W, enabled, power indicator on, the latch closed */
    """
    const uint32_t SLOT_CONFIGURATION "BRIDGE_SHPC_SLOTS"
    const uint32_t SLOT_EMPTY "BRIDGE_SHPC_EMPTY"
    const uint32_t SLOT_TAKEN "BRIDGE_SHPC_TAKEN"

_B, _E = "Bridge 3.2.5: ", "PCIe 7.8: "


def _header(uint32_t vendor, uint32_t device, uint32_t io_base, uint32_t control):
    """The rows of header type 1 that all have."""
    c = CONFIG_REGION
    disabled = 0xFFF0 if io_base else 0
    return (
        Register("VENDOR_ID", VENDOR_ID, 16, RO, vendor, section="PCI 6.2.1", region=c),
        Register("DEVICE_ID", DEVICE_ID, 16, RO, device, section="PCI 6.2.1", region=c),
        Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates the windows", "Bridge 3.2.4.3", c),
        Register("PCISTS", STATUS, 16, RW1C, None, section="Bridge 3.2.4.4", region=c, w1c=STATUS_W1C),
        Register("HEADER_TYPE", HEADER_TYPE, 8, RO, HEADER_BRIDGE, section="Bridge 3.2.4.8", region=c),
        Register("PRIMARY_BUS", PRIMARY_BUS, 8, RW, 0, 0xFF, "none", _B + "Primary Bus Number", c),
        Register("SECONDARY_BUS", SECONDARY_BUS, 8, RW, 0, 0xFF, "where the functions behind answer", _B + "Secondary Bus Number", c),
        Register("SUBORDINATE_BUS", SUBORDINATE_BUS, 8, RW, 0, 0xFF, "the last bus behind", _B + "Subordinate Bus Number", c),
        Register("SECONDARY_LATENCY", SECONDARY_LATENCY, 8, RW, 0, 0xFF, "none", _B + "Secondary Latency Timer", c),
        Register("IO_BASE", IO_BASE, 8, RW, io_base, 0xF0, "moves the I/O window", _B + "I/O Base", c),
        Register("IO_LIMIT", IO_LIMIT, 8, RW, 0, 0xF0, "moves the I/O window", _B + "I/O Limit", c),
        Register("MEMORY_BASE", MEMORY_BASE, 16, RW, disabled, 0xFFF0, "moves the memory window", _B + "Memory Base", c),
        Register("MEMORY_LIMIT", MEMORY_LIMIT, 16, RW, 0, 0xFFF0, "moves the memory window", _B + "Memory Limit", c),
        Register("PREFETCH_BASE", PREFETCH_BASE, 16, RW, disabled | 1, 0xFFF0, "moves the prefetchable window", _B + "Prefetchable Memory Base", c),
        Register("PREFETCH_LIMIT", PREFETCH_LIMIT, 16, RW, 1, 0xFFF0, "moves the prefetchable window", _B + "Prefetchable Memory Limit", c),
        Register("PREFETCH_BASE_UPPER", PREFETCH_BASE_UPPER, 32, RW, 0, 0xFFFFFFFF, "moves the prefetchable window",
                 _B + "Prefetchable Base Upper 32 Bits", c),
        Register("PREFETCH_LIMIT_UPPER", PREFETCH_LIMIT_UPPER, 32, RW, 0, 0xFFFFFFFF, "moves the prefetchable window",
                 _B + "Prefetchable Limit Upper 32 Bits", c),
        Register("BRIDGE_CONTROL", BRIDGE_CONTROL, 16, RW, 0, control, "bit 6 resets what is behind, bit 3 forwards a VGA's ranges",
                 _B + "Bridge Control", c),
    )


cdef inline void put(uint8_t *at, uint64_t value, uint32_t size) noexcept nogil:
    cdef uint32_t i
    for i in range(size):
        at[i] = <uint8_t>(value >> (8 * i))


cdef inline uint32_t capability(PciFunction f, uint8_t wanted) noexcept nogil:
    """Where a function has a capability, or 0: PCI 6.7.  A list that has no end ends after as many as there can be."""
    cdef uint32_t at = f.p.config[CAP_POINTER] & ~3u, n
    for n in range((CONFIG_SIZE - HEADER_SIZE) // 4):
        if at < HEADER_SIZE or f.p.config[at] == wanted:
            break
        at = f.p.config[at + 1] & ~3u
    return at if at >= HEADER_SIZE else 0


cdef class PciBridge(PciFunction):
    """Header type 1, without what a part adds.  `chassis`, `slot`: numbers that guests show to people."""
    STATE = PCI_STATE + (("extended", "u1", 3840), ("table", "u1", 16), ("pending", "u1", 8), ("bus", "u1"), ("control", "u1"), ("wanted", "u1"),
                         ("pad", "u1", 5))
    CONFIG = {**PCI_CONFIG, "chassis": 0, "slot": 0}
    SLOTS = 32              # device numbers on the secondary bus
    RESERVE = {"bus_reserve": -1, "io_reserve": -1, "mem_reserve": -1, "pref32_reserve": -1, "pref64_reserve": -1}

    def bridge_header(self, uint16_t vendor, uint16_t device, uint8_t revision, uint8_t interrupt_pin, uint16_t control, uint8_t decode=0):
        """Fill the header.  control: the writable bits of BRIDGE_CONTROL; decode: the programming interface."""
        self.s = <bridge_state *>self.pci_alloc(sizeof(bridge_state))
        self.held = []
        self.identify(vendor, device, revision, 0x060400 | decode, interrupt_pin)
        self.initial[HEADER_TYPE] |= HEADER_BRIDGE
        put(self.initial + SUBSYSTEM_VENDOR_ID, 0, 4)
        memset(self.wmask + PRIMARY_BUS, 0xff, 4)
        put(self.wmask + IO_BASE, 0xf0f0, 2)
        put(self.w1c + SECONDARY_STATUS, STATUS_W1C, 2)
        put(self.wmask + MEMORY_BASE, 0xfff0fff0, 4)
        put(self.wmask + PREFETCH_BASE, 0xfff0fff0, 4)
        put(self.initial + PREFETCH_BASE, 0x00010001, 4)                # 64-bit addresses
        memset(self.wmask + PREFETCH_BASE_UPPER, 0xff, 8)
        put(self.wmask + BRIDGE_CONTROL, control, 2)
        memset(self.keep + CONFIG_SIZE, 1, EXTENDED_SIZE - CONFIG_SIZE)   # as the reference; what a part resets, resets() names

    def reserve(self, ports):
        """What firmware is asked to keep for cards that come later: the settings of RESERVE, of which ports is io_reserve; -1
        for no wish."""
        cdef uint32_t n
        wishes = [ports if name == "io_reserve" else self.config[name] for name in self.RESERVE]
        limits = (0xFF, 1 << 64, 0xFFFFFFFF, 0xFFFFFFFF, 1 << 64)
        if any(not -1 <= wish < limit for wish, limit in zip(wishes, limits)) or wishes[3] != -1 != wishes[4]:
            raise MachineError(f"device {self.id!r}: {', '.join(self.RESERVE)} are {wishes}: too much, or both windows for prefetching")
        if any(wish != -1 for wish in wishes):
            n = self.add_capability(CAP_VENDOR, 32)
            self.initial[n + 2] = 32                                    # length and, of the reference's own kinds, which it is
            self.initial[n + 3] = 1
            for at, size, wish in zip((4, 8, 16, 20, 24), (4, 8, 4, 4, 8), wishes):
                put(self.initial + n + <uint32_t>at, wish & (1 << 8 * size) - 1, size)

    def connect(self, str name, Device peer):
        """`name` is the device and function number of a function behind the bridge, as in "03.0"."""
        device, _, function = name.partition(".")
        try:
            n = int(device, 16) << 3 | int(function)
        except ValueError:
            n = CHILDREN
        if not 0 <= n < self.SLOTS * 8 or not isinstance(peer, PciFunction):
            raise MachineError(f"device {self.id!r}: {peer.id!r} cannot be at {name!r} behind it; device numbers are 0 to {self.SLOTS - 1}")
        if self.children[n] != NULL:
            raise MachineError(f"device {self.id!r}: two functions at {name!r} behind it")
        self.held.append(peer)
        self.children[n] = <PyObject *>peer

    # ------------------------------------------------------------------ what is forwarded

    cdef uint32_t window_first(self, uint32_t at) noexcept nogil:
        """Bits 31 to 20 of a memory window's base or limit."""
        return <uint32_t>(self.config16(at) & 0xfff0) << 16

    cdef bint forwards(self, bint io, uint64_t first, uint64_t last) noexcept nogil:
        """Bridge 4: an access goes down if it lies in a window, or is a VGA's while CONTROL_VGA is set."""
        cdef uint16_t command = self.config16(COMMAND)
        cdef bint vga = self.config16(BRIDGE_CONTROL) & CONTROL_VGA
        cdef bint inside
        if not command & (COMMAND_IO if io else COMMAND_MEMORY):
            return False
        if io:
            inside = ((<uint32_t>(self.p.config[IO_BASE] & 0xf0) << 8) <= first and last <= (<uint32_t>(self.p.config[IO_LIMIT] & 0xf0) << 8 | 0xfff)
                      or vga and (VGA_PORTS_LOW <= first and last <= VGA_PORTS_LOW_LAST or VGA_PORTS_HIGH <= first and last <= VGA_PORTS_HIGH_LAST))
        else:
            inside = (self.window_first(MEMORY_BASE) <= first and last <= (self.window_first(MEMORY_LIMIT) | 0xfffffu)
                      or (self.window_first(PREFETCH_BASE) | <uint64_t>self.config32(PREFETCH_BASE_UPPER) << 32) <= first
                      and last <= (self.window_first(PREFETCH_LIMIT) | <uint64_t>self.config32(PREFETCH_LIMIT_UPPER) << 32 | 0xfffffu)
                      or vga and VGA_MEMORY <= first and last <= VGA_MEMORY_LAST)
        return inside and (self.above == NULL or (<PciFunction>self.above).forwards(io, first, last))

    cdef bint leads_to(self, uint32_t bus) noexcept nogil:
        if self.config16(BRIDGE_CONTROL) & CONTROL_RESET or not bus_leads_to(bus, self.p.config[SECONDARY_BUS], self.p.config[SUBORDINATE_BUS]):
            return False
        return self.above == NULL or (<PciFunction>self.above).leads_to(bus)

    cdef void update_bus(self) noexcept nogil:
        """Tell the router where configuration space of the functions behind answers."""
        cdef uint8_t bus = self.p.config[SECONDARY_BUS]
        cdef uint32_t n
        if bus and self.above != NULL and not (<PciFunction>self.above).leads_to(bus):
            bus = 0
        if bus == self.s.bus:
            return
        self.s.bus = bus
        for n in range(<uint32_t>CHILDREN):
            if self.children[n] != NULL and not (<PciFunction>self.children[n]).p.gone:
                (<PciFunction>self.children[n]).core.now = self.core.now
                (<PciFunction>self.children[n]).set_map(CONFIG_REGION, bus != 0, function_at(bus, n))

    cdef void update_mappings(self) noexcept nogil:
        cdef uint32_t n
        PciFunction.update_mappings(self)
        self.update_bus()
        for n in range(<uint32_t>CHILDREN):
            if self.children[n] != NULL:
                (<PciFunction>self.children[n]).core.now = self.core.now
                (<PciFunction>self.children[n]).bridge_moved()

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        """Bridge 3.2.5.18: CONTROL_RESET resets the secondary bus as it rises."""
        cdef uint8_t control = self.p.config[BRIDGE_CONTROL], before = self.s.control
        cdef uint32_t n
        self.s.control = control
        if control & ~before & CONTROL_RESET:
            for n in range(<uint32_t>CHILDREN):
                if self.children[n] != NULL:
                    (<PciFunction>self.children[n]).core.now = self.core.now
                    (<PciFunction>self.children[n]).on_reset(RESET_BUS)

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """A reset of the bridge reaches what is behind it: Bridge 11."""
        cdef uint32_t n
        self.s.control = 0
        PciFunction.on_reset(self, kind)
        for n in range(<uint32_t>CHILDREN):
            if self.children[n] != NULL:
                (<PciFunction>self.children[n]).core.now = self.core.now
                (<PciFunction>self.children[n]).on_reset(kind)

    def secondary_bus(self):
        """The number under which the functions behind answer now; 0: they do not."""
        return self.s.bus


cdef class PciPciBridge(PciBridge):
    """A PCI-to-PCI bridge, 1B36:0001.  shpc: with a standard hot-plug controller, which needs an interrupt; msi: messages, too."""
    TITLE = "PCI-to-PCI bridge"
    REGISTERS = _header(0x1B36, 0x0001, 0, 0x0BFF)
    MESSAGE_SOURCE = True
    CONFIG = {**PciBridge.CONFIG, **PciBridge.RESERVE, "shpc": True, "msi": True}

    def __init__(self, str id="pci-bridge", uint32_t rank=0, arena=None, dma=None, **config):
        cdef uint32_t n
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        cdef bint hot_plug = self.config["shpc"]
        self.bridge_header(0x1B36, 0x0001, 0, hot_plug, 0x0BFF)
        put(self.initial + STATUS, 0x00A0, 2)                           # 66 MHz, fast back to back
        put(self.initial + SECONDARY_STATUS, 0x00A0, 2)
        if hot_plug:
            self.add_bar(0, Space.MMIO, SHPC_SIZE, is64=True, name="shpc-mmio", implements=(1, 4))
            self.shpc_at = self.add_capability(CAP_HOT_PLUG, SHPC_LENGTH)
            self.wmask[self.shpc_at + SHPC_SELECT] = 0xff
            put(self.wmask + self.shpc_at + SHPC_DATA, 0xffffffff, 4)
        n = self.add_capability(CAP_SLOT_ID, 4)
        self.initial[n + 2] = 0x20                                      # first in chassis, no slots of its own
        self.initial[n + 3] = <uint8_t>self.config["chassis"]
        self.wmask[n + 3] = 0xff
        if hot_plug and self.config["msi"]:
            self.msi = add_msi(self, 1, True, True)
        self.reserve(self.config["io_reserve"])
        memset(self.shpc_wmask + SHPC_COMMAND, 0xff, 1)
        self.shpc_wmask[SHPC_TARGET] = SHPC_TARGET_MASK
        self.shpc_wmask[SHPC_CONTROL] = SHPC_CONTROL_WMASK
        self.shpc_w1c[SHPC_CONTROL + 2] = SHPC_CONTROL_W1C
        for n in range(SHPC_SLOTS):
            self.shpc_w1c[SHPC_SLOT0 + 4 * n + SHPC_SLOT_EVENTS] = SHPC_EVENTS
            self.shpc_wmask[SHPC_SLOT0 + 4 * n + SHPC_SLOT_MASK] = SHPC_MASK_WMASK
        self.power_on()

    def connect(self, str name, Device peer):
        """A function in a slot is there from power-on, enabled."""
        PciBridge.connect(self, name, peer)
        self.shpc_reset()

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        PciBridge.on_reset(self, kind)
        self.shpc_reset()

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = msix_load(self.s.extended, SHPC_SIZE, offset, size)
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        self.shpc_store(offset, size, value)
        return IO_OK

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        """SHPC 4.4, 4.5: a write of SHPC_DATA is one of the selected doubleword."""
        PciBridge.config_written(self, offset, size)
        if self.msi:
            msi_written(self, self.msi, offset, size)
        if not self.shpc_at or offset >= self.shpc_at + SHPC_LENGTH or offset + size <= self.shpc_at:
            return
        if offset + size > self.shpc_at + SHPC_DATA:
            self.shpc_store(4 * <uint32_t>self.p.config[self.shpc_at + SHPC_SELECT], 4, self.config32(self.shpc_at + SHPC_DATA))
        self.shpc_show()

    # ------------------------------------------------------------------ hot-plug controller: functions go, none comes

    cdef void shpc_show(self) noexcept nogil:
        """SHPC 4.5: the selected doubleword stands in SHPC_DATA, as it is when the capability is written."""
        cdef uint32_t at = self.shpc_at
        put(self.p.config + at + SHPC_DATA, msix_load(self.s.extended, SHPC_SIZE, 4 * <uint32_t>self.p.config[at + SHPC_SELECT], 4), 4)

    cdef bint occupied(self, uint32_t slot) noexcept nogil:
        """Whether function 0 of a slot is there.  Slots have device numbers 1 to 31."""
        return self.children[slot << 3] != NULL and not (<PciFunction>self.children[slot << 3]).p.gone

    cdef void shpc_reset(self) noexcept nogil:
        cdef uint8_t *r = self.s.extended
        cdef uint32_t n
        memset(r, 0, SHPC_SIZE)
        put(r + SHPC_SLOTS_33, SHPC_SLOTS, 4)                           # SHPC 4.9: slots at 33 MHz
        put(r + SHPC_CONFIGURATION, SLOT_CONFIGURATION | SHPC_SLOTS | <uint32_t>0x00010000, 4)
        put(r + SHPC_BUS, 0x01000000, 4)                                # programming interface 1
        r[SHPC_CONTROL] = SHPC_CONTROL_WMASK
        for n in range(<uint32_t>SHPC_SLOTS):
            put(r + SHPC_SLOT0 + 4 * n, SLOT_TAKEN if self.occupied(n + 1) else SLOT_EMPTY, 4)
        self.s.wanted = 0

    cdef void let_go(self, uint32_t slot) noexcept nogil:
        """Power and bus leave a slot: its functions are reset, and answer nowhere until the machine is switched on again."""
        cdef uint32_t n
        for n in range(slot << 3, (slot + 1) << 3):
            if self.children[n] != NULL:
                (<PciFunction>self.children[n]).core.now = self.core.now
                (<PciFunction>self.children[n]).on_reset(RESET_BUS)
                (<PciFunction>self.children[n]).set_map(CONFIG_REGION, False, 0)
                (<PciFunction>self.children[n]).p.gone = 1

    cdef void shpc_store(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint8_t *r = self.s.extended
        cdef uint32_t i, at
        if offset >= SHPC_BYTES:
            return
        for i in range(size):
            at = offset + i
            if at < SHPC_BYTES:
                r[at] = (r[at] & ~self.shpc_wmask[at]) | (<uint8_t>(value >> (8 * i)) & self.shpc_wmask[at])
                r[at] &= ~(<uint8_t>(value >> (8 * i)) & self.shpc_w1c[at])
        if offset < SHPC_STATUS and offset + size > SHPC_COMMAND:
            self.shpc_command()
        self.shpc_interrupt()

    cdef void shpc_command(self) noexcept nogil:
        """SHPC 4.11, 4.12: a command is complete at once."""
        cdef uint8_t *r = self.s.extended
        cdef uint8_t command = r[SHPC_COMMAND]
        cdef uint32_t n
        cdef bint done = True
        r[SHPC_STATUS] = 0
        if command < 0x40:
            done = self.slot_command(r[SHPC_TARGET], command)
        elif command < 0x48:
            if command & SHPC_BUS_MODE:                                 # 33 MHz is all there is
                r[SHPC_STATUS] |= SHPC_INVALID_MODE
        elif command <= 0x49:
            for n in range(<uint32_t>SHPC_SLOTS):
                if r[SHPC_SLOT0 + 4 * n] & SHPC_STATE == SHPC_ENABLED:
                    done = False
            if done:                                                    # a slot whose latch is open gets no power
                for n in range(<uint32_t>SHPC_SLOTS):
                    if r[SHPC_SLOT0 + 4 * n + 1] & SHPC_LATCH:
                        self.slot_command(n + 1, SHPC_LED_OFF)
                    else:
                        self.slot_command(n + 1, SHPC_LED_ON | (SHPC_ENABLED if command & 1 else SHPC_POWERED))
        else:
            done = False
        if not done:
            r[SHPC_STATUS] |= SHPC_INVALID_COMMAND
        r[SHPC_CONTROL + 2] |= SHPC_COMPLETED

    cdef bint slot_command(self, uint32_t slot, uint8_t command) noexcept nogil:
        """SHPC 4.11.1: state and indicators of a slot, 0 leaves each as it is.  False if it cannot be."""
        cdef uint8_t *status
        cdef uint8_t state = command & SHPC_STATE, before
        if slot < 1 or slot > SHPC_SLOTS:
            return False
        status = self.s.extended + SHPC_SLOT0 + 4 * (slot - 1)
        before = status[0] & SHPC_STATE
        if before == SHPC_ENABLED and state == SHPC_POWERED:
            return False
        if command & SHPC_POWER_LED:
            status[0] = (status[0] & ~SHPC_POWER_LED) | (command & SHPC_POWER_LED)
        if command & SHPC_ATTENTION_LED:
            status[0] = (status[0] & ~SHPC_ATTENTION_LED) | (command & SHPC_ATTENTION_LED)
        if before == SHPC_DISABLED and state in (SHPC_POWERED, SHPC_ENABLED) or before != SHPC_DISABLED and state == SHPC_DISABLED:
            status[0] = (status[0] & ~SHPC_STATE) | state
            if state == SHPC_DISABLED and status[0] & SHPC_POWER_LED == SHPC_LED_OFF:   # whoever is in it goes
                self.let_go(slot)
                status[1] |= SHPC_MISSING
                status[SHPC_SLOT_EVENTS] |= SHPC_WENT
        return True

    cdef void shpc_interrupt(self) noexcept nogil:
        """SHPC 4.13, 4.15: which slots and commands ask for attention, and whether that interrupts."""
        cdef uint8_t *r = self.s.extended
        cdef uint32_t n, asking = 0
        cdef bint wanted
        for n in range(<uint32_t>SHPC_SLOTS):
            if r[SHPC_SLOT0 + 4 * n + SHPC_SLOT_EVENTS] & ~r[SHPC_SLOT0 + 4 * n + SHPC_SLOT_MASK]:
                asking |= <uint32_t>2 << n
        if r[SHPC_CONTROL + 2] & SHPC_COMPLETED and not r[SHPC_CONTROL] & SHPC_COMMAND_OFF:
            asking |= 1
        put(r + SHPC_INTERRUPTS, asking, 4)
        wanted = asking != 0 and not r[SHPC_CONTROL] & SHPC_INTERRUPT_OFF
        if self.msi and msi_enabled(self, self.msi) and wanted != self.s.wanted:
            msi_notify(self, self.msi, 0)
        else:
            self.set_intx(wanted)
        self.s.wanted = wanted


cdef class I82801b11(PciBridge):
    """The DMI-to-PCI bridge of the ICH9, 8086:244E: 316972, chapter 11."""
    TITLE = "Intel 82801 DMI-to-PCI bridge"
    REGISTERS = _header(0x8086, 0x244E, 0, 0x0BFF)

    def __init__(self, str id="i82801b11", uint32_t rank=0, arena=None, dma=None, **config):
        cdef uint32_t n
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.bridge_header(0x8086, 0x244E, 0x92, 0, 0x0BFF, 1)     # subtractive decoding
        put(self.initial + STATUS, 0x00A0, 2)
        put(self.initial + SECONDARY_STATUS, 0x00A0, 2)
        self.add_capability(CAP_SUBSYSTEM, 8, 0x50)
        self.power_on()


cdef class RootPort(PciBridge):
    """What PCI Express root ports have in common: PCIe 7.8, 7.10.  One function can be plugged in.

    Settings: hotplug: cards may come and go; native_hotplug: and guests see to it through the slot's registers.
    """
    CONFIG = {**PciBridge.CONFIG, "hotplug": True, "native_hotplug": True}
    SLOTS = 1
    MESSAGE_SOURCE = True

    def root_port(self, uint32_t at, uint32_t link_capabilities, uint32_t link_status):
        """The capabilities; `at` is where the PCI Express one goes."""
        cdef uint32_t e = at
        self.express = at
        self.extend(self.s.extended)
        put(self.initial + IO_BASE, 0xF0, 1)                            # windows that are shut
        put(self.initial + MEMORY_BASE, 0xFFF0, 2)
        put(self.initial + PREFETCH_BASE, 0xFFF1, 2)
        self.add_capability(CAP_EXPRESS, EXP_LENGTH, at)
        put(self.initial + e + EXP_FLAGS, 2 | EXP_TYPE_ROOT_PORT << 4 | EXP_SLOT_IMPLEMENTED, 2)
        put(self.initial + e + EXP_DEVCAP, 0x00008000, 4)               # role-based error reporting
        put(self.wmask + e + EXP_DEVCTL, 0x000F, 2)
        put(self.initial + e + EXP_LNKCAP, link_capabilities, 4)
        put(self.initial + e + EXP_LNKSTA, link_status, 2)
        put(self.initial + e + EXP_SLTCAP, 0x0002001B | <uint32_t>self.config["slot"] << 19, 4)
        if self.config["hotplug"] and self.config["native_hotplug"]:
            self.initial[e + EXP_SLTCAP] |= 0x60                       # hot-plug capable, surprise
        put(self.initial + e + EXP_SLTCTL, SLTCTL_INDICATORS_OFF | SLTCTL_POWER_OFF, 2)
        put(self.wmask + e + EXP_SLTCTL, 0x0FF9, 2)
        put(self.w1c + e + EXP_SLTSTA, 0x011F, 2)
        put(self.wmask + e + EXP_RTCTL, 0x0007, 2)
        put(self.initial + e + EXP_DEVCAP2, 0x00300020, 4)
        put(self.wmask + e + EXP_DEVCTL2, 0x8020, 2)
        self.resets(e + EXP_DEVCTL, 2)
        self.resets(e + EXP_SLTCTL, 6)
        self.resets(e + EXP_DEVCTL2, 1)                                 # ARI forwarding
        memset(self.wmask + CONFIG_SIZE, 0xff, EXTENDED_SIZE - CONFIG_SIZE)
        e = self.add_extended_capability(EXT_CAP_AER, 2, CONFIG_SIZE, AER_LENGTH)
        memset(self.wmask + e, 0, AER_LENGTH)
        put(self.initial + e + AER_SEVERITY, 0x00462030, 4)
        put(self.wmask + e + AER_SEVERITY, 0x03FFF030, 4)
        put(self.initial + e + AER_CORRECTABLE_MASK, 0x0000E000, 4)
        put(self.wmask + e + AER_CORRECTABLE_MASK, 0x0000F1C1, 4)
        put(self.initial + e + AER_CONTROL, 0x000002A0, 4)
        put(self.wmask + e + AER_CONTROL, 0x00000540, 4)
        put(self.wmask + e + AER_ROOT_COMMAND, 0x00000007, 4)
        self.resets(e + AER_ROOT_COMMAND, 4)                            # the others are sticky: PCIe 7.10

    def connect(self, str name, Device peer):
        """A function in the slot: it is powered, and its power indicator is on (PCIe 6.7.1.1)."""
        PciBridge.connect(self, name, peer)
        put(self.initial + self.express + EXP_SLTCTL, SLTCTL_ATTENTION_OFF | SLTCTL_POWER_INDICATOR_ON, 2)
        put(self.p.config + self.express + EXP_SLTCTL, SLTCTL_ATTENTION_OFF | SLTCTL_POWER_INDICATOR_ON, 2)

    def power_slot(self):
        """A function has been put into the slot: the host switches its power on."""
        self.p.config[self.express + EXP_SLTCTL + 1] &= ~<uint8_t>(SLTCTL_POWER_OFF >> 8)

    cdef uint16_t link(self) noexcept nogil:
        """PCIe 7.8.8: speed and width are what the function in the slot has, within the port's own; without one that knows, those."""
        cdef PyObject *child = self.children[0]
        cdef uint16_t most = self.config16(self.express + EXP_LNKCAP), speed, width
        cdef uint32_t at = capability(<PciFunction>child, CAP_EXPRESS) if child != NULL else 0
        cdef uint64_t has = 0
        if at == 0:
            return most & (LINK_SPEED | LINK_WIDTH)
        (<PciFunction>child).config_read(at + EXP_LNKSTA, 2, &has)
        speed = <uint16_t>has & LINK_SPEED
        width = <uint16_t>has & LINK_WIDTH
        return (min(speed, most & LINK_SPEED) if speed else LINK_SLOWEST) | (min(width, most & LINK_WIDTH) if width else LINK_ONE_LANE)

    cdef io_status config_read(self, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        cdef uint32_t at = self.express + EXP_LNKSTA
        if offset < at + 2 and offset + size > at:
            put(self.p.config + at, self.config16(at) & ~(LINK_SPEED | LINK_WIDTH) | self.link(), 2)
        return PciFunction.config_read(self, offset, size, value)

    cdef void express_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        """PCIe 6.7.3.2: a write of Slot Control is a command, which is complete at once."""
        cdef uint32_t at = self.express + EXP_SLTCTL
        cdef uint8_t *status = self.p.config + self.express + EXP_SLTSTA
        if offset >= at + 2 or offset + size <= at:
            return
        if self.p.config[at + 1] & SLTCTL_INTERLOCK >> 8:
            self.p.config[at + 1] &= ~<uint8_t>(SLTCTL_INTERLOCK >> 8)
            status[0] ^= SLTSTA_INTERLOCK
        status[0] |= SLTSTA_COMPLETED

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        PciBridge.config_written(self, offset, size)
        self.express_written(offset, size)
        if self.msi:
            msi_written(self, self.msi, offset, size)
            self.number_message()
        if self.msix:
            msix_written(self, self.msix, self.s.table, self.s.pending, offset, size)

    cdef void number_message(self) noexcept nogil:
        """PCIe 7.10.10, Advanced Error Interrupt Message Number: the second message's, once the guest has allowed for two."""
        self.s.extended[AER_ROOT_STATUS + 3] = ((self.config16(self.msi + MSI_CONTROL) & MSI_ENABLED_MASK) != 0) << 3

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        PciBridge.on_reset(self, kind)
        if self.msi:
            self.number_message()
        if self.msix:
            msix_reset(self, self.msix, self.s.table, self.s.pending)


cdef class PcieRootPort(RootPort):
    """A PCI Express root port, 1B36:000C, 32 lanes of 16 GT/s."""
    TITLE = "PCI Express root port"
    CONFIG = {**RootPort.CONFIG, **PciBridge.RESERVE}
    REGISTERS = _header(0x1B36, 0x000C, 0xF0, 0x005F)

    def __init__(self, str id="pcie-root-port", uint32_t rank=0, arena=None, dma=None, **config):
        cdef uint32_t e
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.bridge_header(0x1B36, 0x000C, 0, 1, 0x005F)
        e = self.add_capability(CAP_SUBSYSTEM, 8)
        put(self.initial + e + 4, 0x1B36, 2)
        self.add_bar(0, Space.MMIO, 4096, name="msix", accepts=(4, 8), implements=(4, 4))
        self.msix = add_msix(self, 1, 0, 0, 0, 0x800)
        self.root_port(0x54, 0x00300604, 0x0204)
        put(self.initial + 0x54 + EXP_LNKCAP2, 0x0000001E, 4)           # 2.5 to 16 GT/s
        put(self.initial + 0x54 + EXP_LNKCTL2, 0x0004, 2)
        e = self.add_extended_capability(EXT_CAP_ACS, 1, 0x148, 8)
        memset(self.wmask + e, 0, 8)
        put(self.initial + e + ACS_CAPABILITY, ACS_BITS, 2)
        put(self.wmask + e + ACS_CONTROL, ACS_BITS, 2)
        self.resets(e + ACS_CONTROL, 2)
        ports = self.config["io_reserve"]
        if ports == -1 and self.config["hotplug"] and not self.config["native_hotplug"]:
            ports = 4096                                                # for what the ACPI hot-plug registers bring
        self.reserve(ports)
        if ports == 0:                                                  # no I/O window at all
            self.wmask[COMMAND] &= ~<uint8_t>COMMAND_IO
            put(self.wmask + IO_BASE, 0, 2)
        self.power_on()

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = 0
        if offset < 0x800:
            value[0] = msix_load(self.s.table, ENTRY_SIZE, offset, size)
        else:
            value[0] = msix_load(self.s.pending, 8, offset - 0x800, size)
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if offset < 0x800:
            msix_table_write(self, self.msix, self.s.table, self.s.pending, offset, size, value)
        return IO_OK


cdef class Ioh3420(RootPort):
    """A root port of the Intel 5520 I/O hub, 8086:3420."""
    TITLE = "Intel 5520 root port"
    REGISTERS = _header(0x8086, 0x3420, 0xF0, 0x005F)

    def __init__(self, str id="ioh3420", uint32_t rank=0, arena=None, dma=None, **config):
        cdef uint32_t e
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.bridge_header(0x8086, 0x3420, 2, 1, 0x005F)
        e = self.add_capability(CAP_SUBSYSTEM, 8, 0x40)
        put(self.initial + e + 4, 0x8086, 2)
        self.msi = add_msi(self, 2, False, True, 0x60)
        self.root_port(0x90, 0x00000411, 0x0011)
        self.power_on()
