"""Two ports of the PC that are only written: the POST code (80h), which guests also use to wait, and the end of a
coprocessor error (F0h).

Documents: IBM PC/AT Technical Reference, "System Board"; 82371FB/82371SB (PIIX/PIIX3) data sheet, 290550-002, "Coprocessor
Error Register".  Modelled: the code's latch, for people; FERR# to IRQ 13, and IGNNE#.  Not modelled:
reading the latch back (the reference machine reads ones).  Called by the owning worker only.
"""
cimport cython

from engine._device cimport INPUT_LINE, IO_OK, NEVER

from engine.types import RO, WO, Region, Register, Space

_REGISTERS = (
    Register("POST", 0, 8, WO, None, 0, "", "PC/AT TR: System Board", region=REGION_POST),
    Register("COPROCESSOR_ERROR", 0, 8, WO, None, 0, "ends the error's interrupt, asserts IGNNE#", "290550: Coprocessor Error Register",
             region=REGION_FERR),
)


@cython.final
cdef class Port80(Device):
    """Input "ferr" is the processor's FERR#, 1 while it is asserted; "irq" is IRQ 13.  inspect()["code"] is the code."""
    TITLE = "POST code port and coprocessor error port"
    IN = ("ferr",)
    OUT = ("irq", "ignne")
    REGISTERS = _REGISTERS
    STATE = (("code", "u1"), ("ferr", "u1"))

    def __init__(self, str id="port80", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.s = <port80_state *>self.state_alloc(sizeof(port80_state))
        self.power_on()

    def regions(self):
        """The two ports.  A POST code may be posted; F0h moves an interrupt line that its writer waits for."""
        return (Region("port80", Space.PIO, 1, implements=(1, 1), posted=True, strings=True),
                Region("portF0", Space.PIO, 1, implements=(1, 1)))

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = 0xFF
        return IO_OK

    cdef uint64_t string_until(self, uint32_t region, uint32_t offset, uint32_t size, bint write) noexcept nogil:
        return NEVER if region == REGION_POST else 0

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region == REGION_POST:
            if offset == 0:               # the code's byte of a wide write
                self.s.code = <uint8_t>value
        elif self.s.ferr:
            self.set_line(PIN_IRQ, False)
            self.set_line(PIN_IGNNE, True)
        return IO_OK

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        if kind == INPUT_LINE and pin == PIN_FERR:
            if value and not self.s.ferr:
                self.set_line(PIN_IRQ, True)
            elif not value:
                self.set_line(PIN_IGNNE, False)
            self.s.ferr = value != 0
        return 0

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        self.s.code = 0
        self.set_line(PIN_IRQ, False)
        self.set_line(PIN_IGNNE, False)
