"""Configuration mechanism #1: the latch at CF8h and the data window at CFCh, as the router decodes them.

PCI Local Bus Specification 3.0, section 3.2.2.3.2; Intel 82441FX (290549-001), section 3.1.  Where the two leave room, the
reference machine's behaviour is taken:

* Only a 4-byte write at CF8h loads the latch, all 32 bits of it.  Narrower writes anywhere in CF8h-CFBh are absorbed.
* A read anywhere in CF8h-CFBh gives the latch from bit 0 on, whatever the offset.
* Bits 30-24 are ignored.  Bits 1-0 are kept, and or'ed with those of the data port, to make the register number.
* While bit 31 is clear the window reads as ones and absorbs writes.
* An access to the window that is not aligned to its size comes in parts that are; one whose register number is not (odd low
  bits in the latch) goes to the function whole, which answers zero past register FFh.
"""
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    CONFIG_ADDRESS = 0xCF8
    CONFIG_DATA = 0xCFC

cdef extern from *:
    """
    #define PCI_CONFIG_ENABLE 0x80000000u
    #define PCI_NO_CONFIG UINT64_MAX
    """
    const uint32_t CONFIG_ENABLE "PCI_CONFIG_ENABLE"
    const uint64_t NO_CONFIG "PCI_NO_CONFIG"      # no function is addressed


cdef inline uint32_t latch_written(uint32_t latch, uint32_t port, uint32_t size, uint64_t value) noexcept nogil:
    """The latch after a write of `size` bytes at `port` (CF8h-CFBh)."""
    return <uint32_t>value if port == CONFIG_ADDRESS and size == 4 else latch


cdef inline uint64_t latch_read(uint32_t latch, uint32_t size) noexcept nogil:
    """What a read of `size` bytes at any of CF8h-CFBh gives."""
    return latch & (((<uint64_t>1 << (8 * size)) - 1))


cdef inline uint32_t window_part(uint32_t port, uint32_t size) noexcept nogil:
    """How many bytes of an access to the window at `port` (CFCh-CFFh) go in its first part."""
    cdef uint32_t align = port & -port & 3
    if port & 3 == 0:
        return size
    return align if align < size else size


cdef inline uint64_t window_target(uint32_t latch, uint32_t port) noexcept nogil:
    """SBDF << 32 | register that an access at `port` (CFCh-CFFh) addresses; NO_CONFIG if none."""
    if not latch & CONFIG_ENABLE:
        return NO_CONFIG
    return <uint64_t>(latch >> 8 & 0xffff) << 32 | (latch & 0xff) | (port & 3)


cdef inline bint bus_leads_to(uint32_t number, uint32_t secondary, uint32_t subordinate) noexcept nogil:
    """Whether a bridge hands a type 1 access for bus `number` down as a type 1: PCI-to-PCI Bridge Architecture 1.2, 3.1.2.1.  (For
    `secondary` itself it makes a type 0 of it.)"""
    return secondary < number and number <= subordinate


cdef inline uint64_t function_at(uint32_t bus, uint32_t devfn) noexcept nogil:
    """Where the configuration space of a function begins: its SBDF << 32."""
    return <uint64_t>(bus << 8 | devfn) << 32


cdef inline uint64_t ecam_target(uint64_t offset) noexcept nogil:
    """SBDF << 32 | register of an access at `offset` within an enhanced configuration window: PCI Express 3.0, 7.2.2."""
    return (offset >> 12 & 0xffff) << 32 | (offset & 0xfff)
