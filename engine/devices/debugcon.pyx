"""Debug console: one port to which firmware writes its log.

No data sheet: the convention is Bochs's port E9h, which emulators took over (402h for SeaBIOS and OVMF).  Reading gives a
fixed byte, by which firmware finds the port.  Called by the owning worker only.
"""
cimport cython

from engine._device cimport IO_OK

from engine.types import RO, WO, Region, Register, Space

_REGISTERS = (
    Register("READBACK", 0, 8, RO, 0xE9, 0, "", "Bochs: port E9h"),
    Register("OUTPUT", 0, 8, WO, None, 0, "one byte of log", "Bochs: port E9h"),
)


@cython.final
cdef class Debugcon(Device):
    """One port; output() gives the last `keep` bytes written.  Writes may be posted: reading shows none of them."""
    TITLE = "Debug console port"
    CONFIG = {"readback": 0xE9, "keep": 1 << 16}
    REGISTERS = _REGISTERS

    def __init__(self, str id="debugcon", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.readback = self.config["readback"] & 0xFF
        self.ring = OutputRing(self.config["keep"])
        self.power_on()

    def regions(self):
        """The port."""
        return (Region("debugcon", Space.PIO, 1, implements=(1, 1), posted=True),)

    def output(self):
        """The bytes written so far, as far as they are kept."""
        return self.ring.bytes()

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = self.readback if offset == 0 else 0xFF     # behind the one port is nobody
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if offset == 0:
            self.ring.put(<uint8_t>value)
        return IO_OK
