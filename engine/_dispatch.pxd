"""The address map: which region an access meets.

Readers hold a `const dispatch_table *` (an immutable block, see _dispatch.h) and ask it with the inline functions here.
`space` is always a view's key: ENGINE_PIO, ENGINE_MMIO or ENGINE_CONFIG, or'ed with DISPATCH_SMM for an access made in
system management mode.
"""
from cpython.buffer cimport Py_buffer
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine._abi cimport engine_acc
from engine._atomics cimport full_fence, load_acquire64, store_relaxed64, store_release64

cdef extern from "_dispatch.h" nogil:
    const uint32_t DISPATCH_MAGIC
    const uint32_t DISPATCH_ABI
    const uint32_t DISPATCH_NODE
    const uint32_t DISPATCH_NO_REGION
    const uint16_t DISPATCH_NO_OWNER
    enum:
        DISPATCH_SMM
        DISPATCH_KEYS
        DISPATCH_POSTED
        DISPATCH_BARRIER
        DISPATCH_ALIAS
        DISPATCH_SMM_ONLY
        DISPATCH_NON_SMM_ONLY
        DISPATCH_UNALIGNED
        DISPATCH_ECAM
        DISPATCH_CLOCK
        DISPATCH_OK
        DISPATCH_UNCLAIMED
        DISPATCH_STRADDLE
        DISPATCH_REFUSED
    ctypedef struct dispatch_entry:
        uint64_t base, last, delta
        uint32_t region
        uint16_t owner
        uint8_t flags, accepts
    ctypedef struct dispatch_node:
        uint64_t lo, size
        uint32_t slots, shift
        uint64_t pad
    ctypedef struct dispatch_view:
        uint64_t lo, size, slots, nodes, entries
        uint32_t shift, n_slots, n_nodes, n_entries
        uint64_t fill
    ctypedef struct dispatch_table:
        uint32_t magic, abi
        uint64_t bytes, version, owners
        dispatch_view view[8]
    ctypedef struct dispatch_hit:
        uint64_t addr
        uint32_t region
        uint16_t owner
        uint8_t flags, status
    ctypedef struct dispatch_part:
        dispatch_hit hit
        uint32_t offset, size

# One reader's word, on a cache line of its own.
cdef struct dispatch_reader:
    uint64_t epoch         # reader: the version it saw when it entered; 0 while it holds no table
    uint64_t taken         # publisher: 1 while a Reader owns this line
    uint64_t pad[6]

cdef enum:
    DISPATCH_READERS = 64

# Where readers find the table.  Written by the publisher, but for the readers' own words.
cdef struct dispatch_root:
    uint64_t current       # address of the table in this process
    uint64_t version       # its version; stored after `current`
    uint64_t pad[6]
    dispatch_reader readers[DISPATCH_READERS]


cdef inline const dispatch_entry *entries_of(const dispatch_table *t, const dispatch_view *v) noexcept nogil:
    return <const dispatch_entry *>(<uint64_t>t + v.entries)


cdef inline const dispatch_node *nodes_of(const dispatch_table *t, const dispatch_view *v) noexcept nogil:
    return <const dispatch_node *>(<uint64_t>t + v.nodes)


cdef inline const uint32_t *slots_of(const dispatch_table *t, const dispatch_view *v) noexcept nogil:
    return <const uint32_t *>(<uint64_t>t + v.slots)


cdef inline uint64_t dispatch_step(const dispatch_node *node, uint64_t addr) noexcept nogil:
    """The slot of an address that lies in the slot above the node, but perhaps before its first entry or behind its last."""
    cdef uint64_t at = addr - node.lo
    if at >= node.size:
        at = 0 if addr < node.lo else node.size - 1
    return node.slots + (at >> node.shift)


cdef inline const dispatch_entry *dispatch_start(const dispatch_table *t, const dispatch_view *v,
                                                 uint64_t addr) noexcept nogil:
    """The entry the trie names for an address inside the view: none before it ends at or behind addr."""
    cdef uint32_t s = slots_of(t, v)[(addr - v.lo) >> v.shift]
    while s & DISPATCH_NODE:
        s = slots_of(t, v)[dispatch_step(nodes_of(t, v) + (s ^ DISPATCH_NODE), addr)]
    return entries_of(t, v) + s


cdef inline const dispatch_entry *dispatch_next(const dispatch_table *t, uint32_t space, uint64_t addr) noexcept nogil:
    """The first entry that ends at or behind `addr`: it holds addr, or begins behind it.  NULL if there is none."""
    cdef const dispatch_view *v
    cdef const dispatch_entry *e
    if space >= DISPATCH_KEYS:
        return NULL
    v = &t.view[space]
    if addr - v.lo >= v.size:              # wraps below lo, so that one comparison checks both ends
        return entries_of(t, v) if addr < v.lo and v.size else NULL
    e = dispatch_start(t, v, addr)
    while e.last < addr:                   # ends: addr is inside the view, which ends where its last entry does
        e += 1
    return e


cdef inline const dispatch_entry *dispatch_find(const dispatch_table *t, uint32_t space, uint64_t addr) noexcept nogil:
    """The entry that holds `addr`; NULL for a hole, an unclaimed address, or a space that is none."""
    cdef const dispatch_entry *e = dispatch_next(t, space, addr)
    return e if e != NULL and e.base <= addr else NULL


cdef inline bint dispatch_contains(const dispatch_entry *e, uint64_t addr, uint32_t size) noexcept nogil:
    """Whether all of [addr, addr + size) lies in e, which holds addr.  size is not 0."""
    return size - 1 <= e.last - addr


cdef inline uint64_t dispatch_fill(const dispatch_table *t, uint32_t space, uint32_t size) noexcept nogil:
    """What a read that nobody answers gives: the bus's policy."""
    if space >= DISPATCH_KEYS:
        return 0
    return t.view[space].fill if size >= 8 else t.view[space].fill & ((<uint64_t>1 << size * 8) - 1)


cdef inline const dispatch_table *dispatch_enter(dispatch_root *root, uint32_t reader) noexcept nogil:
    """The current table, which stays until this reader enters again or leaves.

    The reader says which version it has seen, then, behind a full fence, looks for the table; the publisher stores the
    table, then, behind a full fence, looks at the readers.  Either the publisher sees the reader or the reader sees the
    new table.
    """
    store_relaxed64(&root.readers[reader].epoch, load_acquire64(&root.version))   # D1 pairs with D2 (publish)
    full_fence()
    return <const dispatch_table *>load_acquire64(&root.current)                  # D3 pairs with D4 (publish)


cdef inline void dispatch_leave(dispatch_root *root, uint32_t reader) noexcept nogil:
    """The reader holds no table: it waits for something, or is done."""
    store_release64(&root.readers[reader].epoch, 0)                               # D5 pairs with D6 (passed)


cdef uint32_t dispatch_resolve(const dispatch_table *t, uint32_t space, uint64_t addr, uint32_t size,
                               dispatch_hit *hit) noexcept nogil
cdef size_t dispatch_batch(const dispatch_table *t, const engine_acc *acc, size_t n, dispatch_hit *out) noexcept nogil
cdef void dispatch_route(const dispatch_hit *hits, size_t n, uint32_t owners, uint32_t *order, uint32_t *starts) noexcept nogil
cdef uint32_t dispatch_split(const dispatch_table *t, uint32_t space, uint64_t addr, uint32_t size,
                             dispatch_part *parts) noexcept nogil

# One line of Counters.
cdef struct tally:
    uint64_t addr, count, error
    uint8_t space, size, dir, status
    uint32_t pad

cdef class Counters:
    cdef tally *tallies                    # SETS sets of WAYS
    cdef uint64_t[4] sums                  # by status; exact
    cdef void note(self, uint32_t status, uint32_t space, uint64_t addr, uint32_t size, uint32_t dir) noexcept nogil
    cdef void note_batch(self, const engine_acc *acc, const dispatch_hit *hits, size_t n) noexcept nogil

# A mapped range: ROW.
cdef struct row:
    uint64_t base, last, delta
    uint32_t region
    int32_t priority
    uint32_t handle
    uint16_t owner
    uint8_t flags, accepts, space, kind
    uint16_t pad
    uint32_t pad2

cdef class Table:
    """One published version of the map, for Python readers."""
    cdef const dispatch_table *t
    cdef dispatch_table *made              # the same, if it was made here
    cdef tuple views                       # then: what it shows, by key
    cdef Py_buffer held                    # somebody else's memory, if that is where it lies
    cdef object __weakref__

cdef class Dispatcher:
    cdef const dispatch_table *table       # the current version: valid until the owner publishes and no reader holds it
    cdef dispatch_root *root
    cdef readonly Table current
    cdef bytearray rows                    # of ROW; a handle is an index
    cdef uint32_t n_rows
    cdef list free_rows
    cdef dict by_region                    # region id -> handle
    cdef dict aliases                      # region id -> handles of its aliases
    cdef list views                        # by key: built view, or None where a space changed since
    cdef list retired                      # (when it was current, table) of tables that readers may still hold
    cdef uint64_t versions                 # of tables, so far
    cdef bint shared                       # rows, free_rows, by_region, aliases and views are a kept map's, too
    cdef uint64_t[3] fills
    cdef bint fills_changed
    cdef object __weakref__
    cdef bint passed(self, uint64_t version) noexcept nogil
    cdef row *_at(self, uint32_t handle)
    cdef object _table(self)
    cdef int _drop(self, uint32_t handle) except -1
    cdef int _show(self, Table made) except -1

cdef class Reader:
    cdef Dispatcher owner
    cdef uint32_t index
    cdef const dispatch_table *t           # NULL outside
