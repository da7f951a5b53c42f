"""pc-testdev: ports and memory that hold what is written, and ports that drive the interrupt lines, for tests of a machine.

No data sheet: QEMU's pc-testdev, for which kvm-unit-tests is written.  Modelled: all of it; the port that makes a hypervisor drop a
mapping of a page has no effect that a guest could see.  Called by the owning worker only.
"""
cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from cpython.buffer cimport PyBuffer_FillInfo

from engine._device cimport IO_NO_REGISTER, IO_OK, RESET_POWER_ON, io_status, reset_kind

from engine.types import RW, WO, Region, Register, Space

_S = "QEMU: pc-testdev"
_LINES = tuple(Register(f"LINE_{n}", n, 8, WO, None, 0, f"drives line {n}", _S + " irq-line", LINES) for n in range(N_LINES))
_PINS = tuple(f"irq{n}" for n in range(N_LINES))


@cython.final
cdef class PcTestdev(Device):
    """The ports and the memory.  irq0 to irq23 are levels, as last written."""
    TITLE = "PC test device"
    REGISTERS = (
        Register("WORD", 0, 32, RW, 0, 0xFFFFFFFF, "none", _S + " ioport", WORD),
        Register("FLUSH", 0, 32, WO, None, 0, "none that a guest sees", _S + " flush", FLUSH),
        Register("BYTES", 0, 32, RW, 0, 0xFFFFFFFF, "WORD, byte by byte", _S + " ioport-byte", BYTES),
        *_LINES,
        Register("MEMORY", 0, 32, RW, 0, 0xFFFFFFFF, "none", _S + " iomem", MEMORY),
    )
    OUT = _PINS
    STATE = (("word", "u4"), ("pad", "u1", 4))

    def __cinit__(self):
        self.bytes = <uint8_t *>calloc(MEMORY_SIZE, 1)
        if self.bytes == NULL:
            raise MemoryError("memory of a test device")

    def __dealloc__(self):
        free(self.bytes)

    def __init__(self, str id="pc-testdev", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.s = <pc_testdev_state *>self.state_alloc(sizeof(pc_testdev_state))
        self.power_on()

    def regions(self):
        """Two windows to four bytes, the page port, the line ports, the memory."""
        return (Region("word", Space.PIO, 4, (1, 2, 4), (1, 4)), Region("flush", Space.PIO, 4),
                Region("bytes", Space.PIO, 4, (1, 2, 4), (1, 1)), Region("lines", Space.PIO, N_LINES, (1,), (1, 1)),
                Region("memory", Space.MMIO, MEMORY_SIZE, (1, 2, 4, 8), (1, 4), posted=True))

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = 0
        if region == WORD or region == BYTES:
            value[0] = self.s.word >> (8 * (offset & 3))
        elif region == MEMORY:
            if offset + size > MEMORY_SIZE:
                return IO_NO_REGISTER
            memcpy(value, self.bytes + offset, size)
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        cdef uint32_t shift = 8 * (offset & 3), mask
        if region == WORD or region == BYTES:
            mask = <uint32_t>(((<uint64_t>1 << (8 * size)) - 1) << shift)
            self.s.word = self.s.word & ~mask | <uint32_t>(value << shift) & mask
        elif region == LINES:
            if offset >= N_LINES:
                return IO_NO_REGISTER
            self.set_line(offset, value != 0)
        elif region == MEMORY:
            if offset + size > MEMORY_SIZE:
                return IO_NO_REGISTER
            memcpy(self.bytes + offset, &value, size)
        return IO_OK

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """A bus reset changes nothing."""
        cdef uint32_t n
        if kind == RESET_POWER_ON:
            self.s.word = 0
            memset(self.bytes, 0, MEMORY_SIZE)
            for n in range(<uint32_t>N_LINES):
                self.set_line(n, 0)

    def memory(self):
        """The memory, writable in place; holds the device."""
        return memoryview(_Memory(self))


cdef class _Memory:
    """The buffer behind PcTestdev.memory()."""
    cdef PcTestdev device

    def __cinit__(self, PcTestdev device not None):
        self.device = device

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.device.bytes, MEMORY_SIZE, 0, flags)
