"""82093AA I/O APIC with the EOI register of its successors.  Names: Intel 82093AA data sheet 290566."""
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:                # byte offsets
    IOREGSEL = 0x00       # RW  index of the register that IOWIN shows
    IOWIN = 0x10          # RW  32 bits wide
    EOIR = 0x40           # WO  version 20h only

cdef enum:                # indexes
    IOAPICID = 0x00
    IOAPICVER = 0x01
    IOAPICARB = 0x02
    IOREDTBL = 0x10       # two for each pin, low half first

cdef enum:
    PINS = 24
    ID_SHIFT = 24
    ID_WMASK = 0x0F
    VER_ENTRIES_SHIFT = 16
    TIMER_PIN = 2         # where the PC's GSI 0 goes

cdef enum:                # IOREDTBL, low half
    VECTOR = 0xFF
    DELMOD_SHIFT = 8
    DELMOD = 0x7
    DELMOD_EXTINT = 7
    DESTMOD_SHIFT = 11
    DELIVS = 0x1000       # RO
    REMOTE_IRR = 0x4000   # RO
    TRIGGER_LEVEL = 0x8000
    MASKED = 0x10000
    RTE_LOW_WMASK = 0xFFFFAFFF
    DEST_SHIFT = 56       # of the whole entry

cdef enum:                # a message-signalled interrupt, as PCI 3.0 6.8.1 and the SDM (volume 3, 10.11) form it
    MSI_ADDRESS = 0xFEE00000
    MSI_DEST_SHIFT = 12
    MSI_DESTMOD_SHIFT = 2
    MSI_DELMOD_SHIFT = 8
    MSI_LEVEL = 0x8000

cdef struct ioapic_state:
    device_core core
    uint64_t entry[24]
    uint32_t eoi_count[24]    # end-of-interrupts in a row that found the request still there
    uint32_t irr              # a request for each pin: the level, or an edge not yet sent
    uint8_t regsel
    uint8_t id

cdef class I82093aa(Device):
    cdef ioapic_state *s
    cdef uint8_t version
    cdef PyObject *pic        # borrowed from peers
    cdef list peers
    cdef void sense(self, uint32_t pin, bint level) noexcept nogil
    cdef void service(self) noexcept nogil
    cdef void send(self, uint32_t pin) noexcept nogil
    cdef void end_of_interrupt(self, uint32_t vector) noexcept nogil
    cdef uint32_t read_indexed(self) noexcept nogil
    cdef void write_indexed(self, uint32_t value) noexcept nogil
