"""The device contract: what every device gives the engine, and what the engine gives every device.

A device knows its registers, its pins, its clock and its DMA port; never an address, a ring or a process.  Everything
here runs on the one thread that owns the device.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine._abi cimport engine_effect

# Status of one access.  The dispatcher answers errors by the bus's policy; a device never raises and never logs.
cdef enum io_status:
    IO_OK = 0
    IO_NO_REGISTER = 1    # nothing at this offset: the bus's "nobody there" value
    IO_BAD_SIZE = 2       # the register refuses this width
    IO_UNALIGNED = 3
    IO_ERROR = 4          # a device written in Python raised
    IO_UNCLAIMED = 5      # no region at this address (set by the router, never by a device)
    IO_CONTENT = 0x80     # or'ed to IO_OK: the value read is content (a file's byte, a sector), not device state

# Kinds of Device.on_input
cdef enum:
    INPUT_LINE = 0        # pin = input pin, value = level
    INPUT_INTACK = 1      # an acknowledge cycle; answers the vector, or ~0 if nothing is pending.  value = vCPU
    INPUT_KEY = 2         # value = one byte from the keyboard's user (a scan code of set 2, as the key sends it)
    INPUT_MESSAGE = 3     # addr, value = address and data of a message-signalled interrupt
    INPUT_PACKET = 4      # a packet from the network: addr, value = pointer and length, valid during the call
    INPUT_AUX = 5         # value = one byte from the mouse

cdef enum reset_kind:
    RESET_POWER_ON = 0
    RESET_BUS = 1         # the board's reset line: PCIRST#, RSTDRV

cdef extern from *:
    """
    #define ENGINE_NEVER UINT64_MAX
    """
    const uint64_t NEVER "ENGINE_NEVER"    # "no deadline"

# First member of every device's state struct, kept by the engine and the base class.
cdef struct device_core:
    uint64_t now          # virtual time of the input or deadline being executed
    uint64_t deadline     # when on_time wants to be called next; NEVER if not at all
    uint64_t levels       # level of each output pin, bit n = pin n

cdef struct effect_queue:
    engine_effect *items
    uint32_t n
    uint32_t cap
    uint64_t lost         # effects for which there was no room: an error that ends the run
    uint64_t cause        # set by the executor: what the effects that follow are caused by

cdef class Arena:
    """Page-aligned memory for guest-visible device state: one block per owner, copied whole by a snapshot."""
    cdef uint8_t *mem
    cdef size_t size
    cdef size_t used
    cdef object owner     # keeps foreign memory (a mapping) alive; None if the arena owns its block
    cdef void *alloc(self, size_t n) except NULL

cdef class Dma:
    """A device's only way to guest RAM: limited to the RAM there is, and to what bus mastering allows."""
    cdef uint8_t *ram
    cdef uint64_t below_4g      # bytes of RAM that start at address 0
    cdef uint64_t above_4g      # bytes of RAM that start at 4 GiB (they follow the first part in the file)
    cdef bint enabled           # bus-master enable; True for devices that are no PCI function
    cdef uint64_t refused       # transfers, or parts of one, that met no RAM or a closed gate
    cdef object owner
    cdef int read(self, uint64_t gpa, void *buf, size_t n) noexcept nogil
    cdef int write(self, uint64_t gpa, const void *buf, size_t n) noexcept nogil
    cdef uint8_t *_find(self, uint64_t gpa, size_t *n) noexcept nogil

cdef class Device:
    """Base of every compiled device.  See the methods for the contract."""
    cdef readonly str id
    cdef readonly uint32_t rank       # the board's order; names the device in records and effects
    cdef readonly dict config
    cdef readonly Arena arena
    cdef readonly Dma dma
    cdef device_core *core
    cdef size_t state_size
    cdef effect_queue *fx             # the executor's; NULL while the device stands alone
    cdef void *state_alloc(self, size_t size) except NULL
    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil
    cdef uint64_t string_until(self, uint32_t region, uint32_t offset, uint32_t size, bint write) noexcept nogil
    cdef uint32_t read_string(self, uint32_t region, uint32_t offset, uint32_t size, uint32_t n, uint64_t *values,
                              io_status *status) noexcept nogil
    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
    cdef void on_time(self) noexcept nogil
    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil
    cdef void on_reset(self, reset_kind kind) noexcept nogil
    cdef void learn(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
    cdef void emit(self, uint8_t kind, uint8_t pin, uint32_t addr, uint64_t value) noexcept nogil

    cdef inline void set_line(self, uint32_t pin, bint level) noexcept nogil:
        """Drive output `pin`.  Only a change makes an effect."""
        if ((self.core.levels >> pin) & 1) != <uint64_t>level:
            self.core.levels ^= <uint64_t>1 << pin
            self.emit(0, <uint8_t>pin, 0, level)

    cdef inline bint line_level(self, uint32_t pin) noexcept nogil:
        return (self.core.levels >> pin) & 1

    cdef inline void set_deadline(self, uint64_t when) noexcept nogil:
        """Ask for on_time at `when`; a time that is not after now becomes now + 1."""
        if when <= self.core.now:
            when = self.core.now + 1
        self.core.deadline = when

cdef class PyDevice(Device):
    """Base of devices written in Python; see engine/devices/python."""
    cdef readonly uint64_t errors
    cdef readonly object last_error
    cdef object _read, _write, _on_time, _on_input, _on_reset
    cdef void _failed(self, str what, e)
