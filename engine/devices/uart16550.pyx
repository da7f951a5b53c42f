"""NS16550A: serial port with 16-byte FIFOs.

Document: National Semiconductor PC16550D data sheet, June 1995.  Modelled: all registers, both FIFOs, the five interrupts
with their priorities, trigger levels, character time-out in virtual time, overrun, loopback.  A transmitted character
leaves at once (as the reference does when nobody holds up the other end), so that THRE and TEMT are seen set and the
transmitter FIFO is never seen filled.  Not modelled: the modem lines of the other end (CTS, DSR and DCD stay on), parity
and framing errors, DMA mode pins.  Deviations: docs/devices/uart16550.md.  Called by the owning worker only.
"""
cimport cython
from libc.string cimport memset

from engine._device cimport INPUT_PACKET, IO_OK, NEVER

from engine.errors import MachineError
from engine.types import RO, RW, WO, Region, Register, Space

cdef extern from *:
    """
    /* The reference's arithmetic, single precision throughout; 3500 baud stands for the impossible divisor 0. */
    static inline uint64_t uart_char_ns(uint32_t divisor, uint32_t bits)
    {
        float baud = divisor ? (float)115200 / divisor : 3500;
        return (uint64_t)((1000000000LL / baud) * bits);
    }
    """
    uint64_t uart_char_ns(uint32_t divisor, uint32_t bits) noexcept nogil

cdef enum:
    TIMEOUT_CHARS = 4       # 8.11.2: the time-out interrupt comes after four character times without traffic
    CHAR_NS_RESET = 1041660 # ten bits at 9600 baud

cdef uint8_t TRIGGER[4]
TRIGGER[:] = [1, 4, 8, 14]  # 8.5, bits 7..6

_REGISTERS = (
    Register("RBR", RBR, 8, RO, 0x00, 0, "takes the oldest character", "PC16550D 8.0"),
    Register("THR", THR, 8, WO, None, 0, "transmits, ends a THRE interrupt", "PC16550D 8.0"),
    Register("IER", IER, 8, RW, 0x00, IER_WMASK, "", "PC16550D 8.7"),
    Register("IIR", IIR, 8, RO, IIR_NONE, 0, "ends a THRE interrupt that it reports", "PC16550D 8.6"),
    Register("FCR", FCR, 8, WO, None, 0, "may clear the FIFOs", "PC16550D 8.5"),
    Register("LCR", LCR, 8, RW, 0x00, 0xFF, "bit 7 shows DLL and DLM at 0 and 1", "PC16550D 8.1"),
    Register("MCR", MCR, 8, RW, MCR_RESET, MCR_WMASK, "bit 4 loops the transmitter back", "PC16550D 8.8"),
    Register("LSR", LSR, 8, RO, LSR_RESET, 0, "clears OE and BI", "PC16550D 8.4"),
    Register("MSR", MSR, 8, RO, MSR_RESET, 0, "clears the four delta bits", "PC16550D 8.9"),
    Register("SCR", SCR, 8, RW, 0x00, 0xFF, "", "PC16550D 8.10"),
)


@cython.final
cdef class Uart16550(Device):
    """One serial port.

    backend "null" forgets what is sent; "log" keeps the last `keep` bytes for output().  INPUT_PACKET: on pin 0, `value`
    is one character from the line, taken even where the receiver is full (it overruns); on pin 1 the line breaks.

    Writes may be posted: reads see all earlier writes (one device, one order), the interrupt line has no reader that is
    not settled behind this device first, and the time in a record, not its arrival, is the time of what follows.
    """
    TITLE = "16550A: serial port"
    OUT = ("irq",)
    CONFIG = {"backend": "null", "keep": 1 << 16}
    REGISTERS = _REGISTERS
    STATE = (("char_ns", "u8"), ("divisor", "u2"), ("rbr", "u1"), ("ier", "u1"), ("iir", "u1"), ("fcr", "u1"),
             ("lcr", "u1"), ("mcr", "u1"), ("lsr", "u1"), ("msr", "u1"), ("scr", "u1"), ("thre_pending", "u1"),
             ("timeout_pending", "u1"), ("first", "u1"), ("count", "u1"), ("fifo", "u1", FIFO))

    def __init__(self, str id="uart", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        if self.config["backend"] not in ("null", "log"):
            raise MachineError(f"device {id!r}: backend = {self.config['backend']!r}; there are \"null\" and \"log\"")
        self.log = self.config["backend"] == "log"
        self.ring = OutputRing(self.config["keep"] if self.log else 1)
        self.s = <uart_state *>self.state_alloc(sizeof(uart_state))
        self.power_on()

    def regions(self):
        """The eight registers, a byte each."""
        return (Region("serial", Space.PIO, 8, implements=(1, 1), posted=True, strings=True),)

    def output(self):
        """The bytes sent so far, as far as they are kept; empty for backend "null"."""
        return self.ring.bytes() if self.log else b""

    def on_restore(self):
        """Hold indices that a saved state may have out of range."""
        self.s.first %= FIFO
        self.s.count = min(self.s.count, FIFO)

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        cdef uart_state *s = self.s
        if offset == RBR:
            value[0] = s.divisor & 0xFF if s.lcr & LCR_DLAB else self.read_rbr()
        elif offset == IER:
            value[0] = s.divisor >> 8 if s.lcr & LCR_DLAB else s.ier
        elif offset == IIR:
            value[0] = s.iir
            if s.iir & IIR_ID == IIR_THRE:
                s.thre_pending = 0
                self.update_irq()
        elif offset == LCR:
            value[0] = s.lcr
        elif offset == MCR:
            value[0] = s.mcr
        elif offset == LSR:
            value[0] = s.lsr
            if s.lsr & (LSR_BI | LSR_OE):
                s.lsr &= ~(LSR_BI | LSR_OE)
                self.update_irq()
        elif offset == MSR:
            if s.mcr & MCR_LOOP:
                value[0] = self.loop_msr()
            else:
                value[0] = s.msr
                if s.msr & MSR_DELTAS:
                    s.msr &= ~MSR_DELTAS
                    self.update_irq()
        else:
            value[0] = s.scr
        return IO_OK

    cdef uint64_t string_until(self, uint32_t region, uint32_t offset, uint32_t size, bint write) noexcept nogil:
        if offset == SCR or not write and (
                offset == LCR or offset == MCR or offset == LSR and not self.s.lsr & (LSR_BI | LSR_OE)):
            return NEVER
        return 0

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uart_state *s = self.s
        cdef uint8_t v = <uint8_t>value
        if offset == THR:
            if s.lcr & LCR_DLAB:
                s.divisor = s.divisor & 0xFF00 | v
                self.update_line()
            else:
                self.write_thr(v)
        elif offset == IER:
            if s.lcr & LCR_DLAB:
                s.divisor = s.divisor & 0x00FF | v << 8
                self.update_line()
            else:
                self.write_ier(v)
        elif offset == FCR:
            self.write_fcr(v)
        elif offset == LCR:
            s.lcr = v
            self.update_line()
        elif offset == MCR:
            s.mcr = v & MCR_WMASK
        elif offset == SCR:
            s.scr = v
        return IO_OK                       # LSR and MSR: writing does nothing (8.4: meant for factory test)

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        if kind == INPUT_PACKET:
            if pin == INPUT_BREAK:
                self.receive_break()
            else:
                self.receive(<uint8_t>value)
        return 0

    cdef void on_time(self) noexcept nogil:
        if self.s.count:
            self.s.timeout_pending = 1
            self.update_irq()

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        # Table III, and what firmware finds in the reference: 9600 baud and OUT2 on.  The line settings are still 8N1.
        memset(<uint8_t *>self.s + sizeof(device_core), 0, sizeof(uart_state) - sizeof(device_core))
        self.s.iir = IIR_NONE
        self.s.mcr = MCR_RESET
        self.s.lsr = LSR_RESET
        self.s.msr = MSR_RESET
        self.s.divisor = DIVISOR_RESET
        self.s.char_ns = CHAR_NS_RESET
        self.core.deadline = NEVER
        self.set_line(0, False)

    # ------------------------------------------------------------------ effects

    cdef void update_irq(self) noexcept nogil:
        """The interrupt of the highest priority, its number in IIR, and the line (8.6, Table IV)."""
        cdef uart_state *s = self.s
        cdef uint8_t id = IIR_NONE
        if s.ier & IER_ELSI and s.lsr & LSR_ERRORS:
            id = IIR_LINE
        elif s.ier & IER_ERBFI and s.timeout_pending:
            id = IIR_TIMEOUT
        elif s.ier & IER_ERBFI and s.lsr & LSR_DR and (
                not s.fcr & FCR_ENABLE or s.count >= TRIGGER[s.fcr >> 6]):
            id = IIR_DATA
        elif s.ier & IER_ETBEI and s.thre_pending:
            id = IIR_THRE
        elif s.ier & IER_EDSSI and s.msr & MSR_DELTAS:
            id = IIR_MODEM
        s.iir = s.iir & IIR_FIFO | id
        self.set_line(0, id != IIR_NONE)

    cdef void update_line(self) noexcept nogil:
        """The length of a character: start, data, parity and stop bits at the divisor's rate (8.1, 8.3)."""
        cdef uint8_t lcr = self.s.lcr
        self.s.char_ns = uart_char_ns(self.s.divisor, 1 + 5 + (lcr & LCR_WLS) + ((lcr & LCR_PEN) != 0) +
                                      (2 if lcr & LCR_STB else 1))

    cdef uint8_t read_rbr(self) noexcept nogil:
        cdef uart_state *s = self.s
        cdef uint8_t v = 0
        if s.fcr & FCR_ENABLE:
            if s.count:
                v = s.fifo[s.first]
                s.first = (s.first + 1) % FIFO
                s.count -= 1
            if s.count:
                self.wait_timeout()
            else:
                s.lsr &= ~(LSR_DR | LSR_BI)
            s.timeout_pending = 0
        else:
            v = s.rbr
            s.lsr &= ~(LSR_DR | LSR_BI)
        self.update_irq()
        return v

    cdef void write_thr(self, uint8_t v) noexcept nogil:
        """The character passes THR and shift register at once: the THRE interrupt ends and comes again."""
        cdef uart_state *s = self.s
        s.thre_pending = 0
        s.lsr &= ~(LSR_THRE | LSR_TEMT)
        self.update_irq()
        s.lsr |= LSR_THRE
        s.thre_pending = 1
        self.update_irq()
        if s.mcr & MCR_LOOP:
            self.receive(v)
        elif self.log:
            self.ring.put(v)
        s.lsr |= LSR_TEMT

    cdef void write_ier(self, uint8_t v) noexcept nogil:
        cdef uint8_t changed = (self.s.ier ^ v) & IER_WMASK
        self.s.ier = v & IER_WMASK
        if changed & IER_ETBEI:            # enabling it with an empty THR interrupts at once
            self.s.thre_pending = (v & IER_ETBEI) != 0 and (self.s.lsr & LSR_THRE) != 0
        if changed:
            self.update_irq()

    cdef void write_fcr(self, uint8_t v) noexcept nogil:
        cdef uart_state *s = self.s
        if (v ^ s.fcr) & FCR_ENABLE:       # 8.5: changing modes clears both FIFOs
            v |= FCR_RX_RESET | FCR_TX_RESET
        if v & FCR_RX_RESET:
            s.lsr &= ~(LSR_DR | LSR_BI)
            s.timeout_pending = 0
            s.count = 0
            self.core.deadline = NEVER
        if v & FCR_TX_RESET:
            s.lsr |= LSR_THRE
            s.thre_pending = 1
        s.fcr = v & FCR_KEPT
        s.iir = s.iir & ~IIR_FIFO | (IIR_FIFO if v & FCR_ENABLE else 0)
        self.update_irq()

    cdef uint8_t loop_msr(self) noexcept nogil:
        """In loopback the modem outputs drive the modem inputs (8.8): RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD."""
        cdef uint8_t mcr = self.s.mcr
        return ((MSR_CTS if mcr & MCR_RTS else 0) | (MSR_DSR if mcr & MCR_DTR else 0) |
                (MSR_RI if mcr & MCR_OUT1 else 0) | (MSR_DCD if mcr & MCR_OUT2 else 0))

    cdef void receive(self, uint8_t v) noexcept nogil:
        """A character has come in, from the line or the loop."""
        cdef uart_state *s = self.s
        if s.fcr & FCR_ENABLE:
            if s.count < FIFO:
                s.fifo[(s.first + s.count) % FIFO] = v
                s.count += 1
            else:
                s.lsr |= LSR_OE            # the new character is lost (8.4)
            self.wait_timeout()
        else:
            if s.lsr & LSR_DR:
                s.lsr |= LSR_OE            # the old one is
            s.rbr = v
        s.lsr |= LSR_DR
        self.update_irq()

    cdef void receive_break(self) noexcept nogil:
        """The line was held low for longer than a character: it shows as one character of zeros (8.4, bit 4)."""
        cdef uart_state *s = self.s
        s.rbr = 0
        if s.fcr & FCR_ENABLE and s.count < FIFO:
            s.fifo[(s.first + s.count) % FIFO] = 0
            s.count += 1
        s.lsr |= LSR_BI | LSR_DR
        self.update_irq()

    cdef void wait_timeout(self) noexcept nogil:
        self.set_deadline(self.core.now + TIMEOUT_CHARS * self.s.char_ns)
