"""The I/O APIC: turns 24 request lines into messages to local APICs.

Documents: Intel 82093AA data sheet, 290566-001; for the EOI register, 82801DB (ICH4) data sheet 290744, section 9.5.5.
Modelled: edge and level requests, masks, remote IRR, every delivery mode (a message carries it; the local APIC acts on
it), end of interrupt from local APICs and by register.  Not modelled: the three-wire APIC bus and its arbitration (a
message is delivered at once, so that DELIVS never reads 1), INTPOL (a line's level is its assertion).  Deviations:
docs/devices/i82093aa.md.  Called by the owning worker only.
"""
cimport cython

from engine._abi cimport ENGINE_EFFECT_MESSAGE
from engine._device cimport INPUT_LINE, IO_OK, IO_UNALIGNED, NEVER
from engine.devices.i8259 cimport I8259

from engine.errors import MachineError
from engine.types import RO, RW, WO, Region, Register, Space

cdef enum:
    # A guest that ends a level interrupt without quieting its source gets it again at once, for ever.  After this many
    # in a row the next one waits, so that the guest's other work proceeds.  Both numbers are the reference's.
    STORM = 10000
    STORM_PAUSE_NS = 10000000

cdef extern from *:
    int __builtin_ctz(unsigned int) nogil

_REGISTERS = (
    Register("IOREGSEL", IOREGSEL, 32, RW, 0x00, 0xFF, "", "290566 3.1.1"),
    Register("EOI", EOIR, 32, WO, None, 0, "ends the level interrupts of a vector", "290744 9.5.5"),
    Register("IOAPICID", IOWIN, 32, RW, 0x00000000, ID_WMASK << ID_SHIFT, "", "290566 3.2.1", index=IOAPICID),
    Register("IOAPICVER", IOWIN, 32, RO, 0x00170020, 0, "", "290566 3.2.2", index=IOAPICVER),
    Register("IOAPICARB", IOWIN, 32, RO, 0x00000000, 0, "shows the ID", "290566 3.2.3", index=IOAPICARB),
) + tuple(
    r for n in range(PINS) for r in (
        Register(f"IOREDTBL{n}.low", IOWIN, 32, RW, MASKED, RTE_LOW_WMASK, "sends a request that waits",
                 "290566 3.2.4", index=IOREDTBL + 2 * n),
        Register(f"IOREDTBL{n}.high", IOWIN, 32, RW, 0x00000000, 0xFFFFFFFF, "", "290566 3.2.4",
                 index=IOREDTBL + 2 * n + 1),
    )
)

_GSI = tuple(f"gsi{n}" for n in range(PINS))


@cython.final
cdef class I82093aa(Device):
    """`version`: 0x20 has the EOI register, 0x11 (the 82093AA itself) has not.

    Peer "pic" (an I8259) is acknowledged for entries in ExtINT mode.  Sends ENGINE_EFFECT_MESSAGE, `pin` being the input.
    """
    TITLE = "82093AA: I/O APIC"
    MESSAGE_SOURCE = True
    IN = _GSI
    CONFIG = {"version": 0x20}
    STATE = (("entry", "u8", 24), ("eoi_count", "u4", 24), ("irr", "u4"), ("regsel", "u1"), ("id", "u1"))
    REGISTERS = _REGISTERS

    def __init__(self, str id="ioapic", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        if self.config["version"] not in (0x11, 0x20):
            raise MachineError(f"device {id!r}: version = {self.config['version']:#x} is neither 0x11 nor 0x20")
        self.version = self.config["version"]
        self.peers = []
        self.s = <ioapic_state *>self.state_alloc(sizeof(ioapic_state))
        self.power_on()

    def regions(self):
        """One page, of which the low byte of the address counts."""
        return (Region("ioapic", Space.MMIO, 0x1000, accepts=(1, 2, 4, 8)),)

    def connect(self, str name, Device peer):
        """Peer "pic": the I8259."""
        if name != "pic" or not isinstance(peer, I8259):
            raise MachineError(f"device {self.id!r}: an I/O APIC's peer is pic, an i8259; not {name}, {peer.id!r}")
        self.peers.append(peer)
        self.pic = <PyObject *>peer

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if offset & (size - 1):
            return IO_UNALIGNED
        offset &= 0xFF
        value[0] = 0
        if offset == IOREGSEL:
            value[0] = self.s.regsel
        elif offset == IOWIN and size == 4:
            value[0] = self.read_indexed()
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if offset & (size - 1):
            return IO_UNALIGNED
        offset &= 0xFF
        if offset == IOREGSEL:
            self.s.regsel = <uint8_t>value
        elif offset == IOWIN and size == 4:
            self.write_indexed(<uint32_t>value)
        elif offset == EOIR and size == 4 and self.version >= 0x20 and value <= VECTOR:   # the rest of the word is reserved
            self.end_of_interrupt(<uint32_t>value)
        return IO_OK

    cdef void on_time(self) noexcept nogil:
        """The pause in an interrupt storm is over."""
        self.service()

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        if kind == INPUT_LINE and pin < PINS:
            self.sense(TIMER_PIN if pin == 0 else pin, value != 0)
        return ~<uint64_t>0

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        cdef ioapic_state *s = self.s
        cdef uint32_t pin
        for pin in range(<uint32_t>PINS):
            s.entry[pin] = MASKED
            s.eoi_count[pin] = 0
        s.irr = s.regsel = s.id = 0
        s.core.deadline = NEVER

    def on_restore(self):
        """There are no requests of pins that are not there, whatever was restored."""
        self.s.irr &= (<uint32_t>1 << PINS) - 1

    # ------------------------------------------------------------------ requests

    cdef void sense(self, uint32_t pin, bint level) noexcept nogil:
        """A change of one request line.  290566 3.2.4: a masked pin forgets edges and remembers levels."""
        cdef uint32_t bit = <uint32_t>1 << pin
        cdef uint64_t entry = self.s.entry[pin]
        if not level:
            if entry & TRIGGER_LEVEL:
                self.s.irr &= ~bit
        elif entry & TRIGGER_LEVEL or not entry & MASKED:
            self.s.irr |= bit
            self.service()

    cdef void service(self) noexcept nogil:
        """Send a message for each request that may go out.  A level request in service (remote IRR) may not."""
        cdef ioapic_state *s = self.s
        cdef uint32_t waiting = s.irr, pin
        while waiting:
            pin = __builtin_ctz(waiting)
            waiting &= waiting - 1
            if s.entry[pin] & MASKED:
                continue
            if not s.entry[pin] & TRIGGER_LEVEL:
                s.irr &= ~(<uint32_t>1 << pin)
            elif s.entry[pin] & REMOTE_IRR:
                continue
            else:
                s.entry[pin] |= REMOTE_IRR
            self.send(pin)

    cdef void send(self, uint32_t pin) noexcept nogil:
        """The message of one pin, in the form of a message-signalled interrupt."""
        cdef uint64_t entry = self.s.entry[pin]
        cdef uint32_t mode = (entry >> DELMOD_SHIFT) & DELMOD, vector = entry & VECTOR, addr, data
        if mode == DELMOD_EXTINT and self.pic != NULL:
            (<I8259>self.pic).core.now = self.core.now
            vector = (<I8259>self.pic).acknowledge()
        addr = (<uint32_t>MSI_ADDRESS | <uint32_t>(entry >> DEST_SHIFT) << MSI_DEST_SHIFT |
                ((entry >> DESTMOD_SHIFT) & 1) << MSI_DESTMOD_SHIFT)
        data = vector | mode << MSI_DELMOD_SHIFT | (entry & TRIGGER_LEVEL)
        self.emit(ENGINE_EFFECT_MESSAGE, <uint8_t>pin, addr, data)

    cdef void end_of_interrupt(self, uint32_t vector) noexcept nogil:
        """From a local APIC, or by the EOI register: requests of this vector that are still there go out again."""
        cdef ioapic_state *s = self.s
        cdef uint32_t pin
        for pin in range(<uint32_t>PINS):
            if (s.entry[pin] & (VECTOR | TRIGGER_LEVEL | REMOTE_IRR)) != (vector | TRIGGER_LEVEL | REMOTE_IRR):
                continue
            s.entry[pin] &= ~<uint64_t>REMOTE_IRR
            if s.entry[pin] & MASKED or not s.irr >> pin & 1:
                s.eoi_count[pin] = 0
                continue
            s.eoi_count[pin] += 1
            if s.eoi_count[pin] < STORM:
                self.service()
            else:
                s.eoi_count[pin] = 0
                if self.core.now + STORM_PAUSE_NS < self.core.deadline:
                    self.set_deadline(self.core.now + STORM_PAUSE_NS)

    # ------------------------------------------------------------------ indexed registers

    cdef uint32_t read_indexed(self) noexcept nogil:
        cdef uint32_t index = self.s.regsel
        cdef uint64_t entry
        if index == IOAPICID or index == IOAPICARB:
            return <uint32_t>self.s.id << ID_SHIFT
        if index == IOAPICVER:
            return self.version | (PINS - 1) << VER_ENTRIES_SHIFT
        if index < IOREDTBL or index >= IOREDTBL + 2 * PINS:
            return 0
        entry = self.s.entry[(index - IOREDTBL) >> 1]
        return <uint32_t>(entry >> 32 if index & 1 else entry)

    cdef void write_indexed(self, uint32_t value) noexcept nogil:
        cdef ioapic_state *s = self.s
        cdef uint32_t index = s.regsel, pin, old
        if index == IOAPICID:
            s.id = (value >> ID_SHIFT) & ID_WMASK
        if index < IOREDTBL or index >= IOREDTBL + 2 * PINS:
            return
        pin = (index - IOREDTBL) >> 1
        old = <uint32_t>s.entry[pin]
        if index & 1:
            s.entry[pin] = <uint64_t>value << 32 | old
        else:
            value = (value & RTE_LOW_WMASK) | (old & ~<uint32_t>RTE_LOW_WMASK)
            s.entry[pin] = (s.entry[pin] >> 32) << 32 | value
        # Guests without an EOI register clear remote IRR by passing through edge mode.
        if not s.entry[pin] & TRIGGER_LEVEL:
            s.entry[pin] &= ~<uint64_t>REMOTE_IRR
        s.eoi_count[pin] = 0
        self.service()
