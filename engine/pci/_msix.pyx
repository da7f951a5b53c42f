"""MSI-X: PCI Local Bus Specification 3.0, 6.8.2.  Up to 2048 vectors, table and pending bits in memory BARs."""
from libc.string cimport memset

from engine.pci._msi cimport send_message
from engine.pci.regs cimport CAP_MSIX

from engine.errors import MachineError


def add_msix(PciFunction f not None, uint32_t vectors, uint32_t table_bar, uint32_t table_offset, uint32_t pba_bar,
             uint32_t pba_offset):
    """Give the function an MSI-X capability; its offset.  Raises MachineError for what no function can have."""
    cdef uint32_t at
    cdef int n
    if not 1 <= vectors <= MSIX_MAX:
        raise MachineError(f"{f.id}: MSI-X cannot have {vectors} vectors; there are 1 to {MSIX_MAX}")
    for what, bar, offset, size in (("table", table_bar, table_offset, vectors * ENTRY_SIZE),
                                    ("pending bits", pba_bar, pba_offset, (vectors + 63) // 64 * 8)):
        if bar > 5 or offset & 7 or offset + size > f.bars[bar].size:
            raise MachineError(f"{f.id}: the MSI-X {what}, {size:#x} bytes at {offset:#x}, do not lie in base address register {bar}")
    at = f.add_capability(CAP_MSIX, MSIX_LENGTH)
    f.resets(at + MSIX_CONTROL, 2)
    f.initial[at + MSIX_CONTROL] = <uint8_t>(vectors - 1)
    f.initial[at + MSIX_CONTROL + 1] = <uint8_t>((vectors - 1) >> 8)
    f.wmask[at + MSIX_CONTROL + 1] = MSIX_ENABLE | MSIX_FUNCTION_MASK
    for n in range(4):
        f.initial[at + MSIX_TABLE + n] = <uint8_t>((table_offset | table_bar) >> (8 * n))
        f.initial[at + MSIX_PBA + n] = <uint8_t>((pba_offset | pba_bar) >> (8 * n))
    return at


cdef inline uint32_t vectors_of(PciFunction f, uint32_t at) noexcept nogil:
    return (f.config16(at + MSIX_CONTROL) & (MSIX_MAX - 1)) + 1


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8 | <uint32_t>at[2] << 16 | <uint32_t>at[3] << 24


cdef bint msix_enabled(PciFunction f, uint32_t at) noexcept nogil:
    return f.p.config[at + MSIX_CONTROL + 1] & MSIX_ENABLE


cdef bint msix_masked(PciFunction f, uint32_t at) noexcept nogil:
    """No vector may send: the function is masked, or MSI-X is off."""
    return (f.p.config[at + MSIX_CONTROL + 1] & (MSIX_ENABLE | MSIX_FUNCTION_MASK)) != MSIX_ENABLE


cdef uint64_t msix_load(const uint8_t *bytes, uint32_t length, uint32_t offset, uint32_t size) noexcept nogil:
    """`size` bytes at `offset` of a table or its pending bits; zero past the end."""
    cdef uint64_t value = 0
    cdef uint32_t i
    for i in range(size):
        if offset + i < length:
            value |= <uint64_t>bytes[offset + i] << (8 * i)
    return value


cdef void deliver(PciFunction f, uint32_t at, uint8_t *table, uint8_t *pending, uint32_t vector) noexcept nogil:
    """Send what the vector remembers, if it may send now."""
    cdef uint8_t bit = <uint8_t>(1 << (vector & 7))
    if not pending[vector // 8] & bit or msix_masked(f, at) or table[vector * ENTRY_SIZE + ENTRY_CONTROL] & ENTRY_MASKED:
        return
    pending[vector // 8] &= ~bit
    msix_notify(f, at, table, pending, vector)


cdef void msix_notify(PciFunction f, uint32_t at, uint8_t *table, uint8_t *pending, uint32_t vector) noexcept nogil:
    """Send the vector's message, or remember it while the vector or the function is masked."""
    cdef uint8_t *entry = table + vector * ENTRY_SIZE
    if vector >= vectors_of(f, at):
        return
    if msix_masked(f, at) or entry[ENTRY_CONTROL] & ENTRY_MASKED:
        pending[vector // 8] |= <uint8_t>(1 << (vector & 7))
        return
    send_message(f, vector, load32(entry) | <uint64_t>load32(entry + 4) << 32, load32(entry + ENTRY_DATA))


cdef void msix_table_write(PciFunction f, uint32_t at, uint8_t *table, uint8_t *pending, uint32_t offset, uint32_t size,
                           uint64_t value) noexcept nogil:
    """A write of `size` bytes at `offset` of the table.  Unmasking an entry sends what it remembers."""
    cdef uint32_t i
    if offset + size > vectors_of(f, at) * ENTRY_SIZE:
        return
    for i in range(size):
        table[offset + i] = <uint8_t>(value >> (8 * i))
    deliver(f, at, table, pending, offset // ENTRY_SIZE)


cdef void msix_written(PciFunction f, uint32_t at, uint8_t *table, uint8_t *pending, uint32_t offset,
                       uint32_t size) noexcept nogil:
    """Configuration space was written: what enabling and unmasking the function do."""
    cdef uint32_t vector
    if not offset <= at + MSIX_CONTROL + 1 < offset + size or not msix_enabled(f, at):
        return
    f.set_intx(0)                     # 6.8: a function that uses messages does not use its pin
    for vector in range(vectors_of(f, at)):
        deliver(f, at, table, pending, vector)


cdef void msix_reset(PciFunction f, uint32_t at, uint8_t *table, uint8_t *pending) noexcept nogil:
    """Every entry zero and masked, nothing pending: 6.8.2.9."""
    cdef uint32_t vector, n = vectors_of(f, at)
    memset(table, 0, n * ENTRY_SIZE)
    memset(pending, 0, (n + 63) // 64 * 8)
    for vector in range(n):
        table[vector * ENTRY_SIZE + ENTRY_CONTROL] = ENTRY_MASKED
