"""Parallel port with a printer that takes a byte with each strobe.

Document: IBM PC/AT Technical Reference, "IBM Personal Computer AT Serial/Parallel Adapter".  Modelled: data, status and
control, the strobe/busy/acknowledge exchange with interrupt, printer reset.  Not modelled: bytes from the other end, EPP
and ECP (their ports read as ones).  Deviations: docs/devices/parallel.md.  Called by the owning worker only.
"""
cimport cython

from engine._device cimport IO_NO_REGISTER, IO_OK
from engine._wire cimport drive

from engine.errors import MachineError
from engine.types import RO, RW, Region, Register, Space

_REGISTERS = (
    Register("DATA", DATA, 8, RW, 0xFF, 0xFF, "", "PC/AT TR: Printer Application"),
    Register("STATUS", STATUS, 8, RO, STS_RESET, 0, "ends the interrupt; the printer goes on", "PC/AT TR: Printer Application"),
    Register("CONTROL", CONTROL, 8, RW, CTL_RESET, 0x3F, "strobes, resets the printer", "PC/AT TR: Printer Application"),
)


@cython.final
cdef class Parallel(Device):
    """One port.  backend "null" forgets what is printed, "log" keeps the last `keep` bytes for output()."""
    TITLE = "Parallel port"
    OUT = ("irq",)
    CONFIG = {"backend": "null", "keep": 1 << 16}
    REGISTERS = _REGISTERS
    STATE = (("data", "u1"), ("status", "u1"), ("control", "u1"), ("pending", "u1"))

    def __init__(self, str id="lpt", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        if self.config["backend"] not in ("null", "log"):
            raise MachineError(f"device {id!r}: backend = {self.config['backend']!r}; there are \"null\" and \"log\"")
        self.log = self.config["backend"] == "log"
        self.ring = OutputRing(self.config["keep"] if self.log else 1)
        self.s = <parallel_state *>self.state_alloc(sizeof(parallel_state))
        self.power_on()

    def regions(self):
        """Eight ports; the upper five, EPP's, have nothing behind them."""
        return (Region("parallel", Space.PIO, PORTS, ports=True),)

    def output(self):
        """The bytes printed so far, as far as they are kept; empty for backend "null"."""
        return self.ring.bytes() if self.log else b""

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if offset == DATA:
            value[0] = 0xFF if self.s.control & CTL_INPUT else self.s.data
        elif offset == STATUS:
            value[0] = self.read_status()
        elif offset == CONTROL:
            value[0] = self.s.control
        else:
            return IO_NO_REGISTER
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if offset == DATA:
            self.s.data = <uint8_t>value
        elif offset == CONTROL:
            self.write_control(<uint8_t>value)
        elif offset != STATUS:
            return IO_NO_REGISTER
        drive(self, 0, self.s.pending)
        return IO_OK

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        self.s.data = 0xFF
        self.s.status = STS_RESET
        self.s.control = CTL_RESET
        self.s.pending = 0
        self.set_line(0, False)

    cdef void write_control(self, uint8_t v) noexcept nogil:
        """A rising strobe prints; its end makes the printer acknowledge, which may interrupt."""
        v |= CTL_ONES
        if not v & CTL_INIT:
            self.s.status = STS_READY
        elif v & CTL_SELECT:
            if v & CTL_STROBE:
                self.s.status &= ~STS_BUSY
                if self.log and not self.s.control & CTL_STROBE:
                    self.ring.put(self.s.data)
            elif self.s.control & CTL_IRQ:
                self.s.pending = 1
        self.s.control = v

    cdef uint8_t read_status(self) noexcept nogil:
        """The status; each look at a busy, unstrobed printer brings it on: first it acknowledges, then it is ready."""
        cdef uint8_t v = self.s.status
        self.s.pending = 0
        if not v & STS_BUSY and not self.s.control & CTL_STROBE:
            if v & STS_ACK:
                self.s.status &= ~STS_ACK
            else:
                self.s.status |= STS_ACK | STS_BUSY
        self.set_line(0, False)
        return v
