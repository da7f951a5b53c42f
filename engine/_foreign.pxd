"""Xen's ioreq pages and KVM's coalesced page behind the ring verbs; both sides of each (the hypervisor's for doubles).

xenbuf_*: Xen's buffered page.  xensync_*: Xen's synchronous page.  kvmco_*: KVM's coalesced page.  As in _ring.pxd: nothing
blocks, shared words are read once and checked, RING_BAD means that the other side's words are impossible.
Records come out as engine_rec; what has no kind there (Xen's time offset and invalidate) is ENGINE_REC_INPUT with
addr = XEN_TYPE_* and value = data.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine._abi cimport (ENGINE_OP_SIZE_SHIFT, ENGINE_OP_WRITE, ENGINE_REC_INPUT, ENGINE_REC_MMIO, ENGINE_REC_PIO,
                          engine_rec)
from engine._atomics cimport (compare_exchange64, fetch_add32, full_fence, load_acquire32, load_acquire64,
                              load_relaxed32, load_relaxed64, store_relaxed32, store_relaxed64, store_release32)
from engine._ring cimport RING_BAD, ring_copy, ring_count_bad, ring_count_full, ring_counts

cdef extern from "_foreign.h" nogil:
    ctypedef struct xen_ioreq:
        uint64_t addr, data
        uint32_t count, size, vp_eport
        uint8_t bits, type
    ctypedef struct xen_buffered:
        uint32_t read_pointer, write_pointer
        uint64_t slots[511]
    ctypedef struct kvm_entry:
        uint64_t addr
        uint32_t len, pio
        uint64_t data
    ctypedef struct kvm_coalesced:
        uint32_t first, last
        kvm_entry *entries
    enum:
        FOREIGN_PAGE
        XEN_VCPUS
        XEN_SLOTS
        XEN_STATE_MASK
        XEN_BIT_PTR
        XEN_BIT_READ
        XEN_BIT_DF
        XEN_STATE_NONE
        XEN_STATE_READY
        XEN_STATE_IN_PROCESS
        XEN_STATE_RESPONSE
        XEN_TYPE_PIO
        XEN_TYPE_MEMORY
        XEN_TYPE_CONFIG
        XEN_TYPE_TIMEOFFSET
        XEN_TYPE_INVALIDATE
        KVM_ENTRIES
    uint32_t XEN_SLOT_TYPE(uint64_t s)
    uint32_t XEN_SLOT_READ(uint64_t s)
    uint32_t XEN_SLOT_SIZE_CODE(uint64_t s)
    uint32_t XEN_SLOT_ADDR(uint64_t s)
    uint32_t XEN_SLOT_DATA(uint64_t s)
    uint8_t foreign_load8(const uint8_t *p)
    void foreign_store8(uint8_t *p, uint8_t v)

cdef inline uint8_t _size_code(uint32_t size) noexcept nogil:
    """log2 of 1, 2, 4 or 8; 0xFF for any other size."""
    return 0 if size == 1 else 1 if size == 2 else 2 if size == 4 else 3 if size == 8 else 0xFF

cdef inline void _rec(engine_rec *out, uint32_t type, uint64_t addr, uint64_t value, uint8_t code, bint write,
                      uint32_t vcpu) noexcept nogil:
    out.t_ns = 0
    if type <= XEN_TYPE_CONFIG:      # Xen's 0, 1, 2 are ENGINE_REC_PIO, _MMIO, _CONFIG, with the same address forms
        out.addr = addr
        out.op = <uint8_t>type
    else:
        out.addr = type
        out.op = ENGINE_REC_INPUT
    out.value = value
    out.region = 0
    out.vcpu = vcpu
    out.op |= <uint8_t>((ENGINE_OP_WRITE if write else 0) | code << ENGINE_OP_SIZE_SHIFT)
    out.more = 0


# ---- Xen's buffered page ----
# Slot of pointer p is p mod 511.  LEGACY: pointers run free modulo 2^32; 2^32 mod 511 is 32, so what lies unread
# across the wrap is overwritten 32 slots later: that is the layout's own loss, which no reader can prevent or see.
# ATOMIC: the hypervisor subtracts a multiple of 511 from both pointers in one 64-bit exchange, so that slots stay.

cdef struct xenbuf_view:
    xen_buffered *page
    uint32_t atomic         # 0 LEGACY, 1 ATOMIC
    uint32_t mine           # server: read pointer; hypervisor: write pointer
    uint32_t have           # server: slots that may be read from `mine` on
    ring_counts counts

cdef inline uint64_t _xenbuf_pointers(const xenbuf_view *v) noexcept nogil:
    # One 64-bit load: two loads could straddle a renumbering and show 2^32 - 508 entries that were never sent.
    # Acquire pairs with the hypervisor's write barrier (xenbuf_commit).
    return load_acquire64(<const uint64_t *>&v.page.read_pointer)

cdef inline int64_t xenbuf_peek(xenbuf_view *v, uint32_t n) noexcept nogil:
    """Server, burst: how many of n slots may be read now, or RING_BAD."""
    cdef uint64_t both = _xenbuf_pointers(v)
    cdef uint32_t read = <uint32_t>both, write = <uint32_t>(both >> 32)
    if write - read > XEN_SLOTS or (read % XEN_SLOTS != v.mine % XEN_SLOTS if v.atomic else read != v.mine):
        ring_count_bad(&v.counts)
        return RING_BAD
    v.mine = read
    v.have = write - read
    return v.have if v.have < n else n

cdef inline int xenbuf_take(xenbuf_view *v, uint32_t k, engine_rec *out) noexcept nogil:
    """Server: copy and decode the entry that begins at the k-th peeked slot.  How many slots it has: 1 or 2; or RING_BAD."""
    cdef uint64_t slot = load_relaxed64(&v.page.slots[<uint32_t>(v.mine + k) % XEN_SLOTS])  # relaxed: after peek
    cdef uint64_t value = XEN_SLOT_DATA(slot)
    cdef uint32_t type = XEN_SLOT_TYPE(slot), code = XEN_SLOT_SIZE_CODE(slot)
    cdef int n = 1
    if code == 3:
        if k + 1 >= v.have:          # the hypervisor publishes both slots at once
            ring_count_bad(&v.counts)
            return RING_BAD
        value |= load_relaxed64(&v.page.slots[<uint32_t>(v.mine + k + 1) % XEN_SLOTS]) >> 32 << 32
        n = 2
    if k >= v.have or (type > XEN_TYPE_CONFIG and type != XEN_TYPE_TIMEOFFSET):
        ring_count_bad(&v.counts)
        return RING_BAD
    _rec(out, type, XEN_SLOT_ADDR(slot), value, <uint8_t>code, not XEN_SLOT_READ(slot), 0)
    return n

cdef inline void xenbuf_release(xenbuf_view *v, uint32_t n) noexcept nogil:
    """Server: give the first n peeked slots back.  An atomic add, because the hypervisor may renumber meanwhile."""
    fetch_add32(&v.page.read_pointer, n)
    v.mine += n
    v.have -= n

cdef inline int64_t xenbuf_reserve(xenbuf_view *v, uint32_t n) noexcept nogil:
    """Hypervisor, bulk: n if n slots (1, or 2 for 8 bytes) may be written now, 0 if the page is full, or RING_BAD."""
    cdef uint64_t both = _xenbuf_pointers(v)
    cdef uint32_t depth = <uint32_t>(both >> 32) - <uint32_t>both
    if <uint32_t>(both >> 32) != v.mine or depth > XEN_SLOTS:
        ring_count_bad(&v.counts)
        return RING_BAD
    if depth + n > XEN_SLOTS:
        ring_count_full(&v.counts)
        return 0
    return n

cdef inline int xenbuf_put(xenbuf_view *v, uint32_t k, uint32_t type, uint32_t addr, uint32_t size, bint write,
                           uint64_t data) noexcept nogil:
    """Hypervisor: encode an entry into the k-th reserved slot (and the next for 8 bytes).  Slots used, or 0: not eligible."""
    cdef uint8_t code = _size_code(size)
    cdef uint64_t head
    if addr > 0xFFFFF or code > 3:
        return 0
    head = type | <uint32_t>(not write) << 9 | <uint32_t>code << 10 | addr << 12
    store_relaxed64(&v.page.slots[<uint32_t>(v.mine + k) % XEN_SLOTS], head | data << 32)   # relaxed: before commit
    if code < 3:
        return 1
    store_relaxed64(&v.page.slots[<uint32_t>(v.mine + k + 1) % XEN_SLOTS], head | data >> 32 << 32)
    return 2

cdef inline void xenbuf_commit(xenbuf_view *v, uint32_t n) noexcept nogil:
    """Hypervisor: publish the first n reserved slots; in ATOMIC mode renumber both pointers below 511 if that is due."""
    cdef uint64_t old, new
    cdef uint32_t less, tries = 0
    v.mine += n
    store_release32(&v.page.write_pointer, v.mine)
    while v.atomic and tries < XEN_SLOTS:
        old = _xenbuf_pointers(v)
        less = <uint32_t>old // XEN_SLOTS * XEN_SLOTS
        if less == 0:
            break
        new = <uint64_t>(<uint32_t>(old >> 32) - less) << 32 | (<uint32_t>old - less)
        if compare_exchange64(<uint64_t *>&v.page.read_pointer, &old, new):
            v.mine = <uint32_t>(new >> 32)
            break
        tries += 1


# ---- Xen's synchronous page ----

cdef struct xensync_view:
    xen_ioreq *page
    uint32_t n_vcpus
    uint32_t *state        # private: this side's opinion of each vCPU's state
    uint32_t *eport        # hypervisor, private: each vCPU's event channel
    ring_counts counts

cdef inline int _xensync_take(xensync_view *v, uint32_t vcpu, uint32_t state, xen_ioreq *out) noexcept nogil:
    cdef xen_ioreq *r = &v.page[vcpu]
    cdef uint8_t bits = foreign_load8(&r.bits)      # acquire: pairs with the hypervisor's barrier before state 1
    if (bits & XEN_STATE_MASK) != state:
        return 0
    ring_copy(out, r, sizeof(xen_ioreq))
    out.bits = bits                                 # as checked, whatever the second look at it showed
    if _size_code(out.size) > 3 or (out.type > XEN_TYPE_CONFIG and out.type != XEN_TYPE_TIMEOFFSET
                                    and out.type != XEN_TYPE_INVALIDATE):
        ring_count_bad(&v.counts)
        return RING_BAD
    v.state[vcpu] = XEN_STATE_IN_PROCESS
    foreign_store8(&r.bits, (bits & ~XEN_STATE_MASK) | XEN_STATE_IN_PROCESS)
    return 1

cdef inline int xensync_take(xensync_view *v, uint32_t vcpu, xen_ioreq *out) noexcept nogil:
    """Server: 1 and a copy of the request if one is ready (now in process), 0 if not, RING_BAD if it is impossible.
    Drain the buffered page first: its entries are older."""
    return _xensync_take(v, vcpu, XEN_STATE_READY, out)

cdef inline int xensync_retake(xensync_view *v, uint32_t vcpu, xen_ioreq *out) noexcept nogil:
    """Server that replaces a dead one: the same for a request its predecessor had taken."""
    return _xensync_take(v, vcpu, XEN_STATE_IN_PROCESS, out)

cdef inline void xensync_answer(xensync_view *v, uint32_t vcpu, const xen_ioreq *req, uint64_t data) noexcept nogil:
    """Server: answer the request taken as `req`; `data` counts for a read without pointer.  Then notify its channel."""
    cdef xen_ioreq *r = &v.page[vcpu]
    if req.bits & XEN_BIT_READ and not req.bits & XEN_BIT_PTR:
        store_relaxed64(&r.data, data)              # relaxed: before the release that follows
    v.state[vcpu] = XEN_STATE_NONE
    foreign_store8(&r.bits, (req.bits & ~XEN_STATE_MASK) | XEN_STATE_RESPONSE)

cdef inline void xensync_abandon(xensync_view *v, uint32_t vcpu) noexcept nogil:
    """Server: the emergency release.  The guest goes on, a read yields all ones.  Then notify the channel."""
    v.state[vcpu] = XEN_STATE_NONE
    foreign_store8(&v.page[vcpu].bits, foreign_load8(&v.page[vcpu].bits) & ~XEN_STATE_MASK)

cdef inline int xen_element(const xen_ioreq *req, uint32_t i, uint32_t vcpu, engine_rec *out, uint64_t *data_at) noexcept nogil:
    """Element i of a request as a record.  1 if its data lie in guest memory at data_at (out.value is then 0), else 0.

    Memory and data addresses move by size, downward with the direction flag; a port does not move.
    """
    cdef uint64_t step = <uint64_t>i * req.size
    cdef uint64_t addr = req.addr, data = req.data
    if req.bits & XEN_BIT_DF:
        step = 0 - step
    if req.type == XEN_TYPE_MEMORY:
        addr += step
    data_at[0] = data + step
    _rec(out, req.type, addr, 0 if req.bits & XEN_BIT_PTR else data, _size_code(req.size), not req.bits & XEN_BIT_READ,
         vcpu)
    return 1 if req.bits & XEN_BIT_PTR else 0

cdef inline int xensync_post(xensync_view *v, uint32_t vcpu, const xen_ioreq *req) noexcept nogil:
    """Hypervisor: post a request.  0; RING_BAD if the slot is not free or the server altered the channel."""
    cdef xen_ioreq *r = &v.page[vcpu]
    cdef xen_ioreq copy = req[0]
    cdef uint32_t i
    if v.state[vcpu] != XEN_STATE_NONE or (foreign_load8(&r.bits) & XEN_STATE_MASK) != XEN_STATE_NONE or \
            load_relaxed32(&r.vp_eport) != v.eport[vcpu]:
        ring_count_bad(&v.counts)
        return RING_BAD
    copy.bits &= ~XEN_STATE_MASK
    copy.vp_eport = v.eport[vcpu]
    for i in range(4):
        store_relaxed64(<uint64_t *>r + i, (<uint64_t *>&copy)[i])   # relaxed: before the fence
    full_fence()
    v.state[vcpu] = XEN_STATE_READY
    foreign_store8(&r.bits, copy.bits | XEN_STATE_READY)
    return 0

cdef inline int xensync_poll(xensync_view *v, uint32_t vcpu, uint64_t *data) noexcept nogil:
    """Hypervisor, on an event: 1 and the data once answered, 0 before, RING_BAD (Xen crashes the domain) if the state
    went backwards or is unknown.  State 0 while waiting: 1 with all ones."""
    cdef xen_ioreq *r = &v.page[vcpu]
    cdef uint8_t bits = foreign_load8(&r.bits)      # acquire: pairs with the server's release of state 3
    cdef uint32_t st = bits & XEN_STATE_MASK
    if v.state[vcpu] == XEN_STATE_NONE:
        ring_count_bad(&v.counts)
        return RING_BAD
    if st == XEN_STATE_RESPONSE:
        data[0] = load_relaxed64(&r.data)
        v.state[vcpu] = XEN_STATE_NONE
        foreign_store8(&r.bits, bits & ~XEN_STATE_MASK)
        return 1
    if st == XEN_STATE_NONE:
        data[0] = ~<uint64_t>0
        v.state[vcpu] = XEN_STATE_NONE
        return 1
    if st < v.state[vcpu] or st > XEN_STATE_RESPONSE:
        ring_count_bad(&v.counts)
        return RING_BAD
    v.state[vcpu] = st
    return 0


# ---- KVM's coalesced page ----
# Indices run from 0 to KVM_ENTRIES - 1 and wrap there; one entry always stays free.  KVM checks nothing but its own.

cdef struct kvmco_view:
    kvm_coalesced *page
    uint32_t mine          # server: first; hypervisor: last
    uint32_t have          # server: entries that may be read from `mine` on
    ring_counts counts

cdef inline int64_t kvmco_peek(kvmco_view *v, uint32_t n) noexcept nogil:
    """Server, burst: how many of n entries may be read now, or RING_BAD."""
    cdef uint32_t last = load_acquire32(&v.page.last)      # pairs with KVM's write barrier (kvmco_commit)
    cdef uint32_t have = last - v.mine if last >= v.mine else last + KVM_ENTRIES - v.mine
    if last >= KVM_ENTRIES or have < v.have:
        ring_count_bad(&v.counts)
        return RING_BAD
    v.have = have
    return have if have < n else n

cdef inline int kvmco_take(kvmco_view *v, uint32_t k, engine_rec *out) noexcept nogil:
    """Server: copy and decode the k-th peeked entry into 1 to 3 records (a write cut at a page's edge may have an odd
    length: low address first).  How many, or RING_BAD."""
    cdef kvm_entry e
    cdef uint32_t left, size
    cdef int n = 0
    ring_copy(&e, &v.page.entries[(v.mine + k) % KVM_ENTRIES], sizeof(kvm_entry))
    if e.len == 0 or e.len > 8 or e.pio > 1 or k >= v.have:
        ring_count_bad(&v.counts)
        return RING_BAD
    left = e.len
    while left:
        size = 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1
        _rec(&out[n], XEN_TYPE_PIO if e.pio else XEN_TYPE_MEMORY, e.addr,
             e.data if size == 8 else e.data & ((<uint64_t>1 << 8 * size) - 1), _size_code(size), True, 0)
        if size == 8:
            return 1
        e.addr += size
        e.data >>= 8 * size
        left -= size
        n += 1
    return n

cdef inline void kvmco_release(kvmco_view *v, uint32_t n) noexcept nogil:
    """Server: give the first n peeked entries back."""
    v.mine = (v.mine + n) % KVM_ENTRIES
    v.have -= n
    store_release32(&v.page.first, v.mine)                 # pairs with KVM's read of first (kvmco_reserve)

cdef inline int64_t kvmco_reserve(kvmco_view *v, uint32_t n) noexcept nogil:
    """Hypervisor, burst: how many of n entries may be written now, or RING_BAD."""
    cdef uint32_t first = load_acquire32(&v.page.first), room
    if first >= KVM_ENTRIES:
        ring_count_bad(&v.counts)
        return RING_BAD
    room = (first + KVM_ENTRIES - v.mine - 1) % KVM_ENTRIES
    if room < n:
        ring_count_full(&v.counts)
        return room
    return n

cdef inline void kvmco_put(kvmco_view *v, uint32_t k, uint64_t addr, uint32_t len, bint pio, uint64_t data) noexcept nogil:
    """Hypervisor: fill the k-th reserved entry."""
    cdef kvm_entry *e = &v.page.entries[(v.mine + k) % KVM_ENTRIES]
    e.addr = addr
    e.len = len
    e.pio = pio
    e.data = data

cdef inline void kvmco_commit(kvmco_view *v, uint32_t n) noexcept nogil:
    """Hypervisor: publish the first n reserved entries."""
    v.mine = (v.mine + n) % KVM_ENTRIES
    store_release32(&v.page.last, v.mine)


cdef class XenBuffered:
    cdef xenbuf_view v
    cdef readonly bint producer
    cdef object _buffer           # keeps the page
    cdef int _side(self, bint producer) except -1
    cdef _bad(self, what)

cdef class XenSync:
    cdef xensync_view v
    cdef readonly bint producer
    cdef xen_ioreq *taken         # private copies of the requests in process
    cdef object _buffer
    cdef int _vcpu(self, uint32_t vcpu, bint producer) except -1

cdef class KvmCoalesced:
    cdef kvmco_view v
    cdef readonly bint producer
    cdef object _buffer
    cdef int _side(self, bint producer) except -1
    cdef _bad(self, what)
