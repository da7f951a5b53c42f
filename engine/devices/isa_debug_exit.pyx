"""isa-debug-exit: a port whose writing ends the machine with an exit status of the guest's choice.

No data sheet: QEMU's convention (kvm-unit-tests, x86/README; the status is twice the value written, plus one).  The part itself ends
nothing: it raises `exit` and keeps the value, of which status() tells the exit status.  Called by the owning worker only.
"""
cimport cython

from engine._device cimport IO_OK, RESET_POWER_ON, io_status, reset_kind

from engine.errors import MachineError
from engine.types import RO, WO, Region, Register, Space

_S = "QEMU: isa-debug-exit"


@cython.final
cdef class IsaDebugExit(Device):
    """The port.  Setting: size, how many ports it has (iosize)."""
    TITLE = "Debug exit port"
    REGISTERS = (
        Register("ZERO", 0, 8, RO, 0, section=_S),
        Register("EXIT", 0, 8, WO, None, 0, "ends the machine", _S),
    )
    CONFIG = {"size": 2}
    OUT = ("exit",)
    STATE = (("written", "u4"), ("exited", "u1"), ("pad", "u1", 3))

    def __init__(self, str id="isa-debug-exit", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        if not 1 <= self.config["size"] <= 0x10000:
            raise MachineError(f"device {id!r}: size = {self.config['size']}; a port range has 1 to 65536")
        self.s = <debug_exit_state *>self.state_alloc(sizeof(debug_exit_state))
        self.power_on()

    def regions(self):
        """The ports.  A batch ends behind a write, so that nothing the guest did later has been done."""
        return (Region("debug-exit", Space.PIO, self.config["size"], (1, 2, 4), (1, 4), barrier=True),)

    def status(self):
        """The exit status that the guest asked for, as a process gives it (8 bits); None if it has not."""
        return (self.s.written << 1 | 1) & 0xFF if self.s.exited else None

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = 0
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if not self.s.exited:
            self.s.exited = 1
            self.s.written = <uint32_t>value
            self.set_line(EXIT_PIN, 1)
        return IO_OK

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """An end is an end, but for the machine's next power-on."""
        if kind == RESET_POWER_ON:
            self.s.exited = 0
            self.s.written = 0
            self.set_line(EXIT_PIN, 0)
