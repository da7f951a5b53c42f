"""The local APIC of one vCPU, in xAPIC mode.

Document: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3, chapter 10 (Advanced Programmable
Interrupt Controller), 253668-060US.  Modelled: the register page, priorities, the local vector table, the timer (one-shot
and periodic, a bus clock of 1 GHz), interprocessor and message-signalled interrupts with every destination form, end of
interrupt to the I/O APIC, the acknowledge cycle with the 8259 pair behind LINT0.  Not modelled: x2APIC, TSC deadline, the
IA32_APIC_BASE and CR8 registers (they belong to the processor: the APIC is enabled, at its address), remote IRR of LINT0
and LINT1, arbitration, APR.  Deviations: docs/devices/lapic.md.

All vCPUs reach their own APIC at one address, so the router sends an access to that of the vCPU that made it.  Called by
the owning worker only.
"""
cimport cython

from engine._abi cimport ENGINE_EFFECT_MESSAGE
from engine._device cimport INPUT_INTACK, INPUT_LINE, INPUT_MESSAGE, IO_OK, IO_UNALIGNED, NEVER
from engine.devices.i8259 cimport I8259, NO_IR
from engine.devices.i82093aa cimport I82093aa

from engine.errors import MachineError
from engine.types import RO, RW, WO, Region, Register, Space

cdef extern from *:
    int __builtin_clz(unsigned int) nogil

cdef enum:
    REGION_SIZE = 0x100000
    # A message's value holds the data; above it the rank, plus one, of the APIC that a "to all others" message left.
    SENDER_SHIFT = 32


def _bank(name, offset, access, what):
    return tuple(Register(f"{name}{n}", offset + 16 * n, 32, access, 0, 0, what, "SDM 3: 10.8.4") for n in range(8))


def _lvt(place, name, effect):
    return Register(name, LVT + 16 * place, 32, RW, LVT_MASKED, 0xFFFFFFFF, effect, "SDM 3: 10.5.1")


_REGISTERS = (
    Register("APIC_ID", APIC_ID, 32, RW, None, 0xFF << ID_SHIFT, "its reset value is the setting apic_id", "SDM 3: 10.4.6"),
    Register("VERSION", VERSION, 32, RO, VERSION_VALUE, 0, "", "SDM 3: 10.4.8"),
    Register("TPR", TPR, 32, RW, 0, 0xFF, "", "SDM 3: 10.8.3.1"),
    Register("APR", APR, 32, RO, 0, 0, "", "SDM 3: 10.6.2.4"),
    Register("PPR", PPR, 32, RO, 0, 0, "", "SDM 3: 10.8.3.1"),
    Register("EOI", EOI, 32, WO, None, 0, "ends the interrupt of highest priority", "SDM 3: 10.8.5"),
    Register("LDR", LDR, 32, RW, 0, 0xFF << ID_SHIFT, "", "SDM 3: 10.6.2.2"),
    Register("DFR", DFR, 32, RW, 0xFFFFFFFF, 0xF << DFR_SHIFT, "", "SDM 3: 10.6.2.2"),
    Register("SVR", SVR, 32, RW, SVR_RESET, SVR_WMASK, "enables", "SDM 3: 10.9"),
) + _bank("ISR", ISR, RO, "") + _bank("TMR", TMR, RO, "") + _bank("IRR", IRR, RO, "") + (
    Register("ESR", ESR, 32, RW, 0, 0, "", "SDM 3: 10.5.3"),
    Register("ICR_LOW", ICR_LOW, 32, RW, 0, 0xFFFFFFFF, "sends an interprocessor interrupt", "SDM 3: 10.6.1"),
    Register("ICR_HIGH", ICR_HIGH, 32, RW, 0, 0xFFFFFFFF, "", "SDM 3: 10.6.1"),
    _lvt(LVT_TIMER, "LVT_TIMER", "starts or stops the timer"),
    _lvt(LVT_THERMAL, "LVT_THERMAL", ""),
    _lvt(LVT_PERFORMANCE, "LVT_PERFORMANCE", ""),
    _lvt(LVT_LINT0, "LVT_LINT0", "takes a request that waits"),
    _lvt(LVT_LINT1, "LVT_LINT1", ""),
    _lvt(LVT_ERROR, "LVT_ERROR", ""),
    Register("INITIAL_COUNT", INITIAL_COUNT, 32, RW, 0, 0xFFFFFFFF, "starts the timer", "SDM 3: 10.5.4"),
    Register("CURRENT_COUNT", CURRENT_COUNT, 32, RO, 0, 0, "", "SDM 3: 10.5.4"),
    Register("DIVIDE", DIVIDE, 32, RW, 0, DIVIDE_WMASK, "", "SDM 3: 10.5.4"),
)


cdef inline void set_bit(uint32_t *bank, uint32_t vector, bint on) noexcept nogil:
    if on:
        bank[vector >> 5] |= <uint32_t>1 << (vector & 31)
    else:
        bank[vector >> 5] &= ~(<uint32_t>1 << (vector & 31))


cdef inline bint get_bit(const uint32_t *bank, uint32_t vector) noexcept nogil:
    return bank[vector >> 5] >> (vector & 31) & 1


cdef inline int highest(const uint32_t *bank) noexcept nogil:
    """The highest vector set, or -1."""
    cdef int word = 7
    while word >= 0:
        if bank[word]:
            return word * 32 + 31 - __builtin_clz(bank[word])
        word -= 1
    return -1


@cython.final
cdef class LocalApic(Device):
    """`apic_id`: the ID at reset.  `bsp`: the bootstrap processor's; another waits for a start-up interrupt.

    Peers: "pic", an I8259, which INTA cycles reach; "ioapic", an I82093aa, which hears ends of interrupt; "before", the
    LocalApic that lowest-priority messages prefer to this one.  Messages come as INPUT_MESSAGE, and every APIC looks
    whether it is meant.  Output intr is a level: an INTACK would give a vector.  The other outputs pulse.
    """
    TITLE = "Local APIC (xAPIC)"
    MESSAGE_SOURCE = True
    IN = ("lint0", "lint1")
    OUT = ("intr", "nmi", "smi", "init", "sipi")
    CONFIG = {"apic_id": 0, "bsp": True}
    MESSAGE_SINK = True
    STATE = (("load_time", "u8"), ("next_time", "u8"), ("isr", "u4", 8), ("tmr", "u4", 8), ("irr", "u4", 8), ("lvt", "u4", 6),
             ("icr", "u4", 2), ("svr", "u4"), ("esr", "u4"), ("initial_count", "u4"), ("id", "u1"), ("tpr", "u1"),
             ("ldr", "u1"), ("dfr", "u1"), ("divide", "u1"), ("shift", "u1"), ("lint", "u1"), ("wait_for_sipi", "u1"),
             ("sipi_vector", "u1"))
    REGISTERS = _REGISTERS

    def __init__(self, str id="lapic", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        if not 0 <= self.config["apic_id"] < BROADCAST:
            raise MachineError(f"device {id!r}: apic_id = {self.config['apic_id']} is not below 255")
        self.peers = []
        self.s = <lapic_state *>self.state_alloc(sizeof(lapic_state))
        self.apic_id = self.config["apic_id"]
        self.bsp = self.config["bsp"]
        self.power_on()

    def regions(self):
        """The register page, and above it the addresses of messages."""
        return (Region("apic-msi", Space.MMIO, REGION_SIZE),)

    def connect(self, str name, Device peer):
        """Peers "pic" (I8259), "ioapic" (I82093aa), "before" (LocalApic)."""
        cdef PyObject *p
        if name == "pic" and isinstance(peer, I8259):
            self.pic = <PyObject *>peer
        elif name == "ioapic" and isinstance(peer, I82093aa):
            self.ioapic = <PyObject *>peer
        elif name == "before" and isinstance(peer, LocalApic):
            p = <PyObject *>peer
            while p != NULL:
                if p == <PyObject *>self:
                    raise MachineError(f"device {self.id!r}: peer before = {peer.id!r} leads round to itself")
                p = (<LocalApic>p).before
            self.before = <PyObject *>peer
        else:
            raise MachineError(f"device {self.id!r}: a local APIC's peers are pic (i8259), ioapic (ioapic) and before "
                               f"(lapic); not {name}, {peer.id!r}")
        self.peers.append(peer)

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if offset & (size - 1):
            return IO_UNALIGNED
        # SDM 3: 10.4.1 leaves narrower accesses undefined.
        value[0] = self.read_register(offset & 0xFF0) if size == 4 else 0
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if offset & (size - 1):
            return IO_UNALIGNED
        if size < 4:
            return IO_OK
        if offset >= PAGE or offset < MSI + 16:
            self.emit(ENGINE_EFFECT_MESSAGE, 0, <uint32_t>MSI_ADDRESS + offset, value)
            return IO_OK
        self.write_register(offset & 0xFF0, <uint32_t>value)
        self.update_irq()
        return IO_OK

    cdef void on_time(self) noexcept nogil:
        """The timer has expired."""
        self.start_timer()
        self.request(self.s.lvt[LVT_TIMER] & VECTOR, False)
        self.publish_timer()
        self.update_irq()

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        cdef uint8_t bit
        cdef uint64_t answer = ~<uint64_t>0
        if kind == INPUT_INTACK:
            answer = self.acknowledge()
        elif kind == INPUT_MESSAGE:
            self.accept(addr, value)
        elif kind == INPUT_LINE and pin <= LINT1:
            bit = <uint8_t>(1 << pin)
            self.s.lint = self.s.lint | bit if value else self.s.lint & ~bit
            if pin == LINT0:
                self.lint0_changed(value != 0)
            elif value:
                self.local_interrupt(LVT_LINT1)
        self.update_irq()
        return answer

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        self.s.id = self.apic_id
        self.init_reset()
        self.update_irq()

    cdef void init_reset(self) noexcept nogil:
        """SDM 3: 10.4.7.1 and 10.4.7.3.  The ID and the levels of the input pins stay."""
        cdef lapic_state *s = self.s
        cdef uint32_t n
        for n in range(8):
            s.isr[n] = s.tmr[n] = s.irr[n] = 0
        for n in range(<uint32_t>LVT_ENTRIES):
            s.lvt[n] = LVT_MASKED
        s.icr[0] = s.icr[1] = s.esr = s.initial_count = 0
        s.tpr = s.ldr = s.divide = s.shift = s.sipi_vector = 0
        s.svr = SVR_RESET
        s.dfr = DFR_FLAT
        s.load_time = 0
        s.next_time = NEVER
        s.wait_for_sipi = not self.bsp
        self.publish_timer()

    # ------------------------------------------------------------------ priority, and what the processor sees

    cdef uint32_t ppr(self) noexcept nogil:
        """SDM 3: 10.8.3.1."""
        cdef int serving = highest(self.s.isr)
        if serving < 0 or self.s.tpr >> 4 >= serving >> 4:
            return self.s.tpr
        return serving & 0xF0

    cdef int pending(self) noexcept nogil:
        """The vector to deliver; 0 if there is none, -1 if its priority is too low."""
        cdef int vector
        cdef uint32_t floor
        if not self.s.svr & SVR_ENABLE:
            return 0
        vector = highest(self.s.irr)
        if vector < 0:
            return 0
        floor = self.ppr()
        if floor and (<uint32_t>vector & 0xF0) <= (floor & 0xF0):
            return -1
        return vector

    cdef bint accepts_pic(self) noexcept nogil:
        return not self.s.lvt[LVT_LINT0] & LVT_MASKED

    cdef bint pic_requests(self) noexcept nogil:
        """The 8259 pair has an interrupt, and LINT0 lets it through."""
        if not self.accepts_pic():
            return False
        if self.pic == NULL:
            return self.s.lint >> LINT0 & 1
        return (<I8259>self.pic).request(0) != NO_IR

    cdef void update_irq(self) noexcept nogil:
        cdef uint32_t lint0 = self.s.lvt[LVT_LINT0]
        cdef bint extint = self.accepts_pic() and (lint0 >> MODE_SHIFT & MODE) == MODE_EXTINT and self.s.lint >> LINT0 & 1
        self.set_line(INTR, extint or self.pending() > 0)

    cdef void pulse(self, uint32_t pin) noexcept nogil:
        """An event without a level, for the processor."""
        self.set_line(pin, True)
        self.set_line(pin, False)

    cdef uint64_t acknowledge(self) noexcept nogil:
        """The processor takes an interrupt: the vector, or all ones.

        An interrupt of the 8259 pair comes first, since priorities do not hold it back (SDM 3: 10.1, ExtINT).
        """
        cdef lapic_state *s = self.s
        cdef int vector
        if s.svr & SVR_ENABLE:
            vector = self.pending()
            if vector:
                if self.pic_requests():
                    self.local_interrupt(LVT_LINT0)
                elif vector < 0:
                    return s.svr & VECTOR
                else:
                    set_bit(s.irr, vector, False)
                    set_bit(s.isr, vector, True)
                    self.publish_timer()
                    return vector
        if self.pic == NULL or not self.accepts_pic():
            return ~<uint64_t>0
        (<I8259>self.pic).core.now = self.core.now
        return (<I8259>self.pic).acknowledge()

    cdef void end_of_interrupt(self) noexcept nogil:
        """SDM 3: 10.8.5.  A level interrupt's end goes on to the I/O APIC."""
        cdef int vector = highest(self.s.isr)
        if vector < 0:
            return
        set_bit(self.s.isr, vector, False)
        if self.ioapic != NULL and get_bit(self.s.tmr, vector):
            (<I82093aa>self.ioapic).core.now = self.core.now
            (<I82093aa>self.ioapic).end_of_interrupt(vector)

    # ------------------------------------------------------------------ interrupts from outside, from others, from here

    cdef void request(self, uint32_t vector, bint level) noexcept nogil:
        set_bit(self.s.irr, vector, True)
        set_bit(self.s.tmr, vector, level)
        self.publish_timer()

    cdef void local_interrupt(self, uint32_t entry) noexcept nogil:
        """A source of the local vector table other than the timer.  ExtINT is update_irq's."""
        cdef uint32_t lvt = self.s.lvt[entry], mode = lvt >> MODE_SHIFT & MODE
        if lvt & LVT_MASKED:
            return
        if mode == MODE_FIXED:
            self.request(lvt & VECTOR, lvt & TRIGGER_LEVEL)
        elif mode == MODE_SMI:
            self.pulse(SMI)
        elif mode == MODE_NMI:
            self.pulse(NMI)

    cdef void lint0_changed(self, bint level) noexcept nogil:
        cdef uint32_t lvt = self.s.lvt[LVT_LINT0]
        if level:
            self.local_interrupt(LVT_LINT0)
        elif not lvt & LVT_MASKED and (lvt >> MODE_SHIFT & MODE) == MODE_FIXED and lvt & TRIGGER_LEVEL:
            set_bit(self.s.irr, lvt & VECTOR, False)
            self.publish_timer()

    cdef bint addressed(self, uint64_t addr, uint64_t value) noexcept nogil:
        """Is the message for this APIC?  SDM 3: 10.6.2, 10.11.1."""
        cdef uint32_t dest = addr >> MSI_DEST_SHIFT & MSI_DEST
        if value >> SENDER_SHIFT == <uint64_t>self.rank + 1:
            return False
        if not addr & MSI_LOGICAL:
            return dest == BROADCAST or dest == self.s.id
        if self.s.dfr == DFR_FLAT:
            return (dest & self.s.ldr) != 0
        if self.s.dfr == DFR_CLUSTER:
            return (dest ^ self.s.ldr) < 0x10 and (dest & self.s.ldr & 0x0F) != 0
        return False

    cdef void accept(self, uint64_t addr, uint64_t value) noexcept nogil:
        """A message passes by.  Of the APICs that a lowest-priority message names, the first in board order takes it."""
        cdef PyObject *p = self.before
        if not self.addressed(addr, value):
            return
        if (value >> MODE_SHIFT & MODE) == MODE_LOWEST:
            while p != NULL:
                if (<LocalApic>p).addressed(addr, value):
                    return
                p = (<LocalApic>p).before
        self.deliver(value)

    cdef void deliver(self, uint64_t value) noexcept nogil:
        """A message for this APIC.  SDM 3: 10.6.1, delivery mode."""
        cdef uint32_t vector = value & VECTOR, mode = value >> MODE_SHIFT & MODE
        if mode == MODE_FIXED or mode == MODE_LOWEST or mode == MODE_EXTINT:
            self.request(vector, value & TRIGGER_LEVEL)
        elif mode == MODE_SMI:
            self.pulse(SMI)
        elif mode == MODE_NMI:
            self.pulse(NMI)
        elif mode == MODE_INIT:
            self.init_reset()
            self.pulse(INIT)
        elif mode == MODE_SIPI and self.s.wait_for_sipi:
            self.s.wait_for_sipi = 0
            self.s.sipi_vector = vector
            self.pulse(SIPI)

    cdef void send_ipi(self) noexcept nogil:
        """SDM 3: 10.6.1.  To this processor alone it needs no bus; else it is a message that every APIC sees."""
        cdef uint32_t low = self.s.icr[0], to = low >> ICR_SHORTHAND_SHIFT & 3, dest = self.s.icr[1] >> ID_SHIFT
        cdef uint32_t logical = low >> ICR_DESTMOD_SHIFT & 1
        cdef uint64_t value = low & (VECTOR | MODE << MODE_SHIFT | LEVEL_ASSERT | TRIGGER_LEVEL)
        if (low >> MODE_SHIFT & MODE) == MODE_INIT and (low & (LEVEL_ASSERT | TRIGGER_LEVEL)) == TRIGGER_LEVEL:
            return                           # INIT level de-assert: only sets arbitration IDs
        if to == TO_SELF:
            self.deliver(value)
            return
        if to:
            dest = BROADCAST
            logical = 0
        if to == TO_OTHERS:
            value |= (<uint64_t>self.rank + 1) << SENDER_SHIFT
        self.emit(ENGINE_EFFECT_MESSAGE, 0, <uint32_t>MSI_ADDRESS | dest << MSI_DEST_SHIFT | (MSI_LOGICAL if logical else 0),
                  value)

    # ------------------------------------------------------------------ timer, SDM 3: 10.5.4

    cdef uint32_t current_count(self) noexcept nogil:
        cdef lapic_state *s = self.s
        cdef uint64_t ticks = (s.core.now - s.load_time) >> s.shift
        if s.lvt[LVT_TIMER] & LVT_PERIODIC:
            return s.initial_count - <uint32_t>(ticks % (<uint64_t>s.initial_count + 1))
        return 0 if ticks >= s.initial_count else s.initial_count - <uint32_t>ticks

    def on_restore(self):
        """A shift of the timer's clock stays one that the divide configuration register can name."""
        self.s.shift &= SHIFT_MASK

    cdef void start_timer(self) noexcept nogil:
        """When the timer next expires: the count runs from its initial value through zero."""
        cdef lapic_state *s = self.s
        cdef uint64_t ticks = (s.core.now - s.load_time) >> s.shift, period = <uint64_t>s.initial_count + 1
        s.next_time = NEVER
        if s.lvt[LVT_TIMER] & LVT_MASKED:
            return
        if s.lvt[LVT_TIMER] & LVT_PERIODIC:
            if s.initial_count:
                s.next_time = s.load_time + ((ticks / period + 1) * period << s.shift)
        elif ticks < s.initial_count:
            s.next_time = s.load_time + (period << s.shift)

    cdef void publish_timer(self) noexcept nogil:
        """Ask for on_time, unless expiring would change nothing: while the vector of a periodic timer is already requested,
        the periods that pass are not stepped through.  So a guest that lets a short period run costs nothing."""
        cdef lapic_state *s = self.s
        cdef uint32_t lvt = s.lvt[LVT_TIMER], vector = lvt & VECTOR
        if s.next_time <= s.core.now:
            self.start_timer()
        if s.next_time == NEVER or (lvt & LVT_PERIODIC and get_bit(s.irr, vector) and not get_bit(s.tmr, vector)):
            s.core.deadline = NEVER
        else:
            self.set_deadline(s.next_time)

    # ------------------------------------------------------------------ registers

    cdef uint32_t read_register(self, uint32_t offset) noexcept nogil:
        cdef lapic_state *s = self.s
        cdef uint32_t n = offset >> 4 & 7, entry = (offset - LVT) >> 4
        if offset == APIC_ID:
            return <uint32_t>s.id << ID_SHIFT
        elif offset == VERSION:
            return VERSION_VALUE
        elif offset == TPR:
            return s.tpr
        elif offset == APR or offset == EOI:
            return 0
        elif offset == PPR:
            return self.ppr()
        elif offset == LDR:
            return <uint32_t>s.ldr << ID_SHIFT
        elif offset == DFR:
            return <uint32_t>s.dfr << DFR_SHIFT | DFR_ONES
        elif offset == SVR:
            return s.svr
        elif offset == ESR:
            return s.esr
        elif offset == ICR_LOW or offset == ICR_HIGH:
            return s.icr[n]
        elif offset == INITIAL_COUNT:
            return s.initial_count
        elif offset == CURRENT_COUNT:
            return self.current_count()
        elif offset == DIVIDE:
            return s.divide
        elif ISR <= offset < ISR + 0x80:
            return s.isr[n]
        elif TMR <= offset < TMR + 0x80:
            return s.tmr[n]
        elif IRR <= offset < IRR + 0x80:
            return s.irr[n]
        elif entry < LVT_ENTRIES:
            return s.lvt[entry]
        s.esr |= ESR_ILLEGAL_REGISTER
        return 0

    cdef void write_register(self, uint32_t offset, uint32_t value) noexcept nogil:
        cdef lapic_state *s = self.s
        cdef uint32_t entry = (offset - LVT) >> 4
        if offset == EOI:
            self.end_of_interrupt()
        elif offset == INITIAL_COUNT:
            s.initial_count = value
            s.load_time = s.core.now
            self.start_timer()
            self.publish_timer()
        elif offset == APIC_ID:
            s.id = value >> ID_SHIFT
        elif offset == TPR:
            s.tpr = <uint8_t>value
        elif offset == LDR:
            s.ldr = value >> ID_SHIFT
        elif offset == DFR:
            s.dfr = value >> DFR_SHIFT
        elif offset == SVR:
            s.svr = value & SVR_WMASK
        elif offset == ICR_LOW:
            s.icr[0] = value
            self.send_ipi()
        elif offset == ICR_HIGH:
            s.icr[1] = value
        elif offset == DIVIDE:
            self.publish_timer()             # an expiry that is on its way keeps the divisor it started with
            s.divide = value & DIVIDE_WMASK
            s.shift = ((s.divide & 3 | s.divide >> 1 & 4) + 1) & SHIFT_MASK
        elif entry < LVT_ENTRIES:
            s.lvt[entry] = value
            if entry == LVT_TIMER:
                self.start_timer()
                self.publish_timer()
            elif entry == LVT_LINT0 and self.pic_requests():
                self.local_interrupt(LVT_LINT0)
        elif not (offset == VERSION or offset == APR or offset == PPR or offset == ESR or offset == CURRENT_COUNT or
                  ISR <= offset < IRR + 0x80):
            s.esr |= ESR_ILLEGAL_REGISTER
