"""MSI: PCI Local Bus Specification 3.0, 6.8.1.  Up to 32 vectors, 32- or 64-bit addresses, per-vector masking."""
from libc.stdint cimport uint8_t, uint16_t

from engine._abi cimport ENGINE_EFFECT_MESSAGE
from engine.pci.regs cimport CAP_MSI, COMMAND, COMMAND_MASTER

from engine.errors import MachineError


def add_msi(PciFunction f not None, uint32_t vectors=1, bint is64=True, bint maskable=False, where=None):
    """Give the function an MSI capability (at `where`, if given); its offset.  Raises MachineError for a number of vectors
    that cannot be."""
    cdef uint32_t length = (0x18 if maskable else 0x0E) if is64 else (0x14 if maskable else 0x0A)
    cdef uint32_t at, mask
    cdef int i
    if vectors not in (1, 2, 4, 8, 16, 32):
        raise MachineError(f"{f.id}: MSI cannot have {vectors} vectors; they are a power of two up to 32")
    at = f.add_capability(CAP_MSI, length, where)
    f.resets(at + MSI_CONTROL, length - MSI_CONTROL)
    f.initial[at + MSI_CONTROL] = ((vectors.bit_length() - 1) << MSI_CAPABLE_SHIFT) | (MSI_64 if is64 else 0)
    f.initial[at + MSI_CONTROL + 1] = MSI_MASKABLE >> 8 if maskable else 0
    f.wmask[at + MSI_CONTROL] = MSI_ENABLE | MSI_ENABLED_MASK
    f.wmask[at + MSI_ADDRESS] = 0xFC
    for i in range(1, 8 if is64 else 4):
        f.wmask[at + MSI_ADDRESS + i] = 0xFF
    for i in range(2):
        f.wmask[at + (MSI_DATA_64 if is64 else MSI_DATA_32) + i] = 0xFF
    if maskable:
        mask = 0xFFFFFFFF >> (32 - vectors)
        for i in range(4):
            f.wmask[at + (MSI_MASK_64 if is64 else MSI_MASK_32) + i] = <uint8_t>(mask >> (8 * i))
    return at


cdef void send_message(PciFunction f, uint32_t vector, uint64_t addr, uint32_t data) noexcept nogil:
    """A function's message is a write to memory (6.8): an interrupt where the local APICs listen, a DMA write elsewhere,
    nothing while the function is no bus master."""
    if not f.p.config[COMMAND] & COMMAND_MASTER:
        return
    if addr >> MESSAGE_SHIFT == MESSAGE_BASE:
        f.emit(ENGINE_EFFECT_MESSAGE, <uint8_t>vector, <uint32_t>addr, data)
    else:
        f.dma.write(addr, &data, 4)


cdef bint msi_enabled(PciFunction f, uint32_t at) noexcept nogil:
    return f.p.config[at + MSI_CONTROL] & MSI_ENABLE


cdef inline uint32_t mask_at(PciFunction f, uint32_t at) noexcept nogil:
    """Offset of the mask bits, behind which the pending bits are; 0 if there are none."""
    cdef uint16_t control = f.config16(at + MSI_CONTROL)
    if not control & MSI_MASKABLE:
        return 0
    return at + (MSI_MASK_64 if control & MSI_64 else MSI_MASK_32)


cdef inline uint32_t vectors_enabled(PciFunction f, uint32_t at) noexcept nogil:
    """How many vectors software allows, never more than the function asked for: 6.8.1.3."""
    cdef uint16_t control = f.config16(at + MSI_CONTROL)
    cdef uint32_t asked = control >> MSI_CAPABLE_SHIFT & 7, allowed = (control & MSI_ENABLED_MASK) >> MSI_ENABLED_SHIFT
    return <uint32_t>1 << min(asked, allowed)


cdef void msi_notify(PciFunction f, uint32_t at, uint32_t vector) noexcept nogil:
    """Send the vector's message, or remember it while the vector is masked."""
    cdef uint32_t mask = mask_at(f, at), n = vectors_enabled(f, at), data
    cdef uint64_t addr = f.config32(at + MSI_ADDRESS)
    if not msi_enabled(f, at):
        return
    vector &= n - 1
    if mask and f.config32(mask) >> vector & 1:
        f.p.config[mask + 4 + vector // 8] |= <uint8_t>(1 << (vector & 7))
        return
    if f.p.config[at + MSI_CONTROL] & MSI_64:
        addr |= <uint64_t>f.config32(at + MSI_ADDRESS + 4) << 32
        data = f.config16(at + MSI_DATA_64)
    else:
        data = f.config16(at + MSI_DATA_32)
    send_message(f, vector, addr, (data & ~(n - 1)) | vector)


cdef void msi_written(PciFunction f, uint32_t at, uint32_t offset, uint32_t size) noexcept nogil:
    """Configuration space was written: what enabling and unmasking do."""
    cdef uint32_t mask = mask_at(f, at), n = vectors_enabled(f, at), end = mask + 8 if mask else at + 16, control, vector
    if offset + size <= at or offset >= end or not msi_enabled(f, at):
        return
    f.set_intx(0)                     # 6.8: a function that uses messages does not use its pin
    control = f.config16(at + MSI_CONTROL)
    if (control & MSI_ENABLED_MASK) >> MSI_ENABLED_SHIFT > (control >> MSI_CAPABLE_SHIFT & 7):
        control = control & ~MSI_ENABLED_MASK | (control >> MSI_CAPABLE_SHIFT & 7) << MSI_ENABLED_SHIFT
        f.p.config[at + MSI_CONTROL] = <uint8_t>control
    if not mask:
        return
    for vector in range(<uint32_t>32):
        if not f.p.config[mask + 4 + vector // 8] >> (vector & 7) & 1:
            continue
        if vector < n and f.config32(mask) >> vector & 1:
            continue
        f.p.config[mask + 4 + vector // 8] &= <uint8_t>~(1 << (vector & 7))
        if vector < n:
            msi_notify(f, at, vector)
