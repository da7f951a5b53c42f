"""What executes records on devices, in a worker or in the calling process: one owner thread, no rings, no addresses."""
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._abi cimport (ENGINE_OP_SIZE_SHIFT, ENGINE_OP_WRITE, ENGINE_REC_CONFIG, ENGINE_REC_KIND_MASK, engine_effect,
                          engine_rec)
from engine._device cimport IO_CONTENT, IO_OK, Device, device_core, effect_queue, io_status

cdef struct unit_entry:
    uint64_t next          # no member's deadline is before this; exact after every call of a member
    uint32_t first         # members are Executor.members[first .. first + n], in rank order
    uint32_t n

# A region id's meaning: (device, region number, base), until the router gives it another.  One cache line.
cdef struct region_entry:
    PyObject *dev          # borrowed from Executor.keep; NULL: this executor does not own the region
    device_core *core      # of dev
    unit_entry *unit
    uint64_t base
    uint64_t size
    uint32_t index         # the device's own region number
    uint8_t accepts        # widths in bytes that are accepted, or'ed
    uint8_t direct         # those that reach the device's code as they are
    uint8_t impl_min
    uint8_t impl_max
    uint8_t ports          # ports of a byte each, with a decoder each: Region.ports
    uint8_t strings        # Region.strings: string_until may be asked
    uint8_t pad[14]

# A wire that begins and ends within one unit: delivered here, at once.
cdef struct wire_entry:
    uint16_t sink          # rank
    uint8_t kind           # ENGINE_EFFECT_LINE or ENGINE_EFFECT_MESSAGE
    uint8_t pin            # output pin of the source
    uint8_t sink_pin

cdef class Executor:
    cdef region_entry *regions
    cdef uint32_t n_regions, cap_regions
    cdef region_entry *templates       # by rank << 8 | index: a region without its base
    cdef PyObject **devices            # by rank; NULL where not owned
    cdef uint32_t *unit_of             # by rank
    cdef uint32_t n_devices
    cdef unit_entry *units
    cdef uint32_t n_units
    cdef PyObject **members
    cdef uint32_t n_members
    cdef wire_entry *wires             # by rank of their source
    cdef uint32_t *wires_from          # where those of a rank begin; they end where those of the next do
    cdef uint32_t n_wires
    cdef effect_queue fx
    cdef int (*flush)(void *ctx) noexcept nogil    # makes room in fx; NULL: effects wait for the caller
    cdef void *flush_ctx
    cdef bint learning
    cdef uint64_t executed, accesses
    cdef list keep                     # owns what the tables borrow
    cdef uint32_t execute(self, const engine_rec *r, uint64_t *value) noexcept nogil
    cdef uint32_t access(self, region_entry *e, uint64_t t_ns, uint64_t addr, uint32_t size, bint write,
                         uint64_t *value) noexcept nogil
    cdef uint32_t _split(self, region_entry *e, uint32_t offset, uint32_t size, bint write,
                         uint64_t *value) noexcept nogil
    cdef void _fire(self, unit_entry *u, uint64_t t_ns) noexcept nogil
    cdef void _deliver(self, uint32_t mark) noexcept nogil
    cdef void _refresh(self, unit_entry *u) noexcept nogil
    cdef void _restored(self) noexcept
    cdef uint32_t _two_ports(self, region_entry *e, uint32_t offset, uint32_t size, bint write,
                             uint64_t *value) noexcept nogil
    cdef uint32_t _narrow(self, region_entry *e, uint64_t t_ns, uint64_t addr, uint32_t size, bint write,
                          uint64_t *value) noexcept nogil
    cdef int set_region(self, uint32_t region, uint32_t rank, uint32_t index, uint64_t base) noexcept nogil

cdef inline uint32_t quick_access(Executor ex, region_entry *e, uint64_t t_ns, uint64_t addr, uint32_t size, bint write,
                                  uint64_t *value) noexcept nogil:
    """Executor.access, with the common case in line: nothing due, a width that the device implements, a unit of one."""
    cdef uint32_t status
    if not e.direct & size or e.unit.next <= t_ns or e.unit.n > 1:
        return ex.access(e, t_ns, addr, size, write, value)
    e.core.now = t_ns
    if write:
        status = (<Device>e.dev).write(e.index, <uint32_t>(addr - e.base), size,
                                          value[0] & ~<uint64_t>0 >> (64 - 8 * size))
    else:
        value[0] = 0
        status = (<Device>e.dev).read(e.index, <uint32_t>(addr - e.base), size, value)
        value[0] &= ~<uint64_t>0 >> (64 - 8 * size)
    e.unit.next = e.core.deadline
    return status

cdef inline uint64_t string_until(region_entry *e, uint64_t t_ns, uint64_t addr, uint32_t size, bint write) noexcept nogil:
    """Accesses to one register of a region with `strings` follow each other, the first at t_ns: before which time may they be made at
    once?  0: not at all."""
    if not e.direct & size or e.unit.next <= t_ns:
        return 0
    e.core.now = t_ns
    return min((<Device>e.dev).string_until(e.index, <uint32_t>(addr - e.base), size, write), e.unit.next)

cdef inline uint32_t quick_string(region_entry *e, uint64_t addr, uint32_t size, uint32_t n, uint64_t *values, uint32_t *status) noexcept nogil:
    """n such reads: how many of them are made, at once and with one status.  core.now is left to the caller, who knows their times."""
    cdef io_status one = IO_OK
    n = (<Device>e.dev).read_string(e.index, <uint32_t>(addr - e.base), size, n, values, &one)
    status[0] = one
    return n

cdef inline bint owned(Executor ex, const engine_rec *r) noexcept nogil:
    """Is it an access to a region that this executor has?"""
    return r.op & ENGINE_REC_KIND_MASK <= ENGINE_REC_CONFIG and r.region < ex.n_regions and ex.regions[r.region].dev != NULL


cdef inline uint32_t quick_execute(Executor ex, const engine_rec *r, uint64_t *value) noexcept nogil:
    """One record of any kind: an access in line, the rest by Executor.execute.  value[0] is the answer; the status is IO_*, perhaps
    with IO_CONTENT."""
    if not owned(ex, r):
        return ex.execute(r, value)
    ex.executed += 1
    ex.accesses += 1
    value[0] = r.value
    return quick_access(ex, &ex.regions[r.region], r.t_ns, r.addr, <uint32_t>1 << (r.op >> ENGINE_OP_SIZE_SHIFT),
                        r.op & ENGINE_OP_WRITE, value)
