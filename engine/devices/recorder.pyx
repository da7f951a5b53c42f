"""A part that answers what no other part does, and keeps a record of it: for finding out what a guest looks for.

No data sheet: it stands for no hardware.  It lies below every other range of ports and memory; configuration space of absent functions
stays the router's.  Called by the owning worker only.

The record is a host's log: it is neither saved nor restored, and what is longer ago than `keep` accesses is forgotten.
"""
cimport cython
from libc.stdlib cimport calloc, free

import numpy as np

from engine._device cimport IO_OK, RESET_POWER_ON, io_status, reset_kind

from engine._abi import ACC
from engine.errors import MachineError
from engine.types import RW, Region, Register, Space

MAX_WINDOWS = 64
LOWEST = -1000                # of priorities: below every BAR


@cython.final
cdef class Recorder(Device):
    """Every port, and memory below `windows` times 4 GiB.

    Settings: keep, how many accesses are kept; pio_answer and mmio_answer, what reads give (the low bits of a number: -1 is all
    ones), as the shipped boards answer where nobody is; windows.
    """
    TITLE = "Recorder of unknown accesses"
    REGISTERS = (
        Register("PORT", 0, 32, RW, 0xFFFFFFFF, 0, "is recorded", "none: every port without a part", PORTS),
        Register("MEMORY", 0, 32, RW, 0, 0, "is recorded", "none: all memory without a part", FIRST_WINDOW),
    )
    CONFIG = {"keep": 1 << 16, "pio_answer": -1, "mmio_answer": 0, "windows": 1}

    def __init__(self, str id="recorder", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        c = self.config
        if not 1 <= c["keep"] <= 1 << 26:
            raise MachineError(f"device {id!r}: keep = {c['keep']}; 1 to {1 << 26} accesses can be kept")
        if not 0 <= c["windows"] <= MAX_WINDOWS:
            raise MachineError(f"device {id!r}: windows = {c['windows']}; 0 to {MAX_WINDOWS} of 4 GiB are possible")
        self.keep, self.windows = c["keep"], c["windows"]
        self.port_answer = c["pio_answer"] & 0xFFFFFFFFFFFFFFFF
        self.memory_answer = c["mmio_answer"] & 0xFFFFFFFFFFFFFFFF
        self.ring = <engine_acc *>calloc(self.keep, sizeof(engine_acc))
        if self.ring == NULL:
            raise MemoryError(f"no room for a record of {self.keep} accesses")
        self.power_on()

    def __dealloc__(self):
        free(self.ring)

    def regions(self):
        """Ports, and memory in windows."""
        wide = (1, 2, 4, 8)
        return (Region("ports", Space.PIO, 0x10000, (1, 2, 4), (1, 4), unaligned=True, priority=LOWEST),
                *(Region(f"memory{n}", Space.MMIO, 1 << 32, wide, (1, 8), unaligned=True, priority=LOWEST) for n in range(self.windows)))

    def recorded(self):
        """The accesses that are kept, oldest first: the bytes of engine.ACC records.  What a read was answered is its value."""
        cdef uint64_t n = min(self.seen, self.keep), first = self.seen - n
        cdef char *ring = <char *>self.ring
        cdef uint64_t at = first % self.keep, head = min(n, self.keep - at)
        return ring[at * sizeof(engine_acc):(at + head) * sizeof(engine_acc)] + ring[:(n - head) * sizeof(engine_acc)]

    def accesses(self):
        """recorded(), as an array of engine.ACC records."""
        return np.frombuffer(self.recorded(), ACC)

    def forget(self):
        """Begin a new record."""
        self.seen = 0

    cdef void note(self, uint32_t region, uint32_t offset, uint32_t size, bint write, uint64_t value) noexcept nogil:
        cdef engine_acc *a = &self.ring[self.seen % self.keep]
        a.t_ns = self.core.now
        a.addr = offset if region == PORTS else <uint64_t>(region - FIRST_WINDOW) << 32 | offset
        a.value = value
        a.vcpu = 0
        a.size = <uint8_t>size
        a.space = 0 if region == PORTS else 1
        a.dir = write
        a.flags = 0
        a.region = region != PORTS
        self.seen += 1

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = self.port_answer if region == PORTS else self.memory_answer
        if size < 8:
            value[0] &= (<uint64_t>1 << (8 * size)) - 1
        self.note(region, offset, size, False, value[0])
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        self.note(region, offset, size, True, value)
        return IO_OK

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """A bus reset ends no record."""
        if kind == RESET_POWER_ON:
            self.seen = 0
