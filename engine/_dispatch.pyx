"""The address map: ranges in, an immutable radix table out.

`Dispatcher` is the one writer: it keeps the mapped ranges with their priorities and publishes tables.  `Table` is one
published version, read-only, for any number of readers; it shares the views that did not change with the one before.
`Counters` remembers accesses that met nothing.  Layout and algorithm: _dispatch.h, docs/dispatch.md.

Priorities: of the ranges that hold an address, the one with the highest priority is seen; among equals a hole wins, then
the higher region id, which is the one mapped later since a range that moves gets a new id.  So the map is a function of the
set of ranges, not of the order in which they came.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign

from engine._abi cimport ENGINE_CONFIG, ENGINE_MMIO, ENGINE_PIO, engine_acc
from engine._atomics cimport full_fence, load_acquire64, pause, store_release64

import time
from collections import namedtuple

import numpy as np

from engine._abi import ACC
from engine.errors import MachineError, UsageError

cdef extern from "sys/mman.h" nogil:
    int madvise(void *addr, size_t length, int advice)
    const int MADV_HUGEPAGE

cdef extern from "wchar.h" nogil:
    int *wmemset(int *at, int value, size_t n)     # wchar_t has 32 bits on Linux

cdef extern from * nogil:
    void prefetch "__builtin_prefetch"(const void *p)

cdef enum:
    N_SPACES = 3
    SMALL = 1 << 10        # entries of a map that counts as small
    ROOT_BITS = 12         # log2 of the least slots of a root: below 4 GiB, megabytes
    PIO_BITS = 14          # the same for ports: four of them a slot
    RUN = 3                # entries a slot may name before a finer node takes over: a linear scan of two cache lines
    HUGE = 1 << 21         # a huge page; tables of this size and more ask for them
    STAGED = 1 << 19       # bytes of a table above which batches prefetch: it no longer lies in the nearest caches
    GROUP = 32             # accesses in flight then
    SETS = 512             # of the counters
    WAYS = 8
    OWN_FLAGS = DISPATCH_POSTED | DISPATCH_BARRIER | DISPATCH_UNALIGNED | DISPATCH_ECAM | DISPATCH_CLOCK   # an alias has its region's
    ALL_FLAGS = OWN_FLAGS | DISPATCH_SMM_ONLY | DISPATCH_NON_SMM_ONLY

# The last address of each space: ports, 52 physical address bits, register 0FFFh of function 7FFF:FF:1F.7.
cdef uint64_t[3] LAST = [0xffff, 0xfffffffffffff, 0x7fffffff00000fff]

# What a width adds to an entry's `accepts`: nothing if it is none.
cdef uint8_t[256] WIDTH
memset(WIDTH, 0, sizeof(WIDTH))
WIDTH[1], WIDTH[2], WIDTH[4], WIDTH[8] = 1, 2, 4, 8

POSTED, BARRIER, ALIAS, UNALIGNED, ECAM, CLOCK = (
    DISPATCH_POSTED, DISPATCH_BARRIER, DISPATCH_ALIAS, DISPATCH_UNALIGNED, DISPATCH_ECAM, DISPATCH_CLOCK)
SMM_ONLY, NON_SMM_ONLY, SMM = DISPATCH_SMM_ONLY, DISPATCH_NON_SMM_ONLY, DISPATCH_SMM
HIT_OK, HIT_UNCLAIMED, HIT_STRADDLE, HIT_REFUSED = (
    DISPATCH_OK, DISPATCH_UNCLAIMED, DISPATCH_STRADDLE, DISPATCH_REFUSED)
STATUS_NAMES = ("ok", "unclaimed", "straddle", "refused")
NO_REGION, NO_OWNER = DISPATCH_NO_REGION, DISPATCH_NO_OWNER
# What lookup_many gives in place of a region id.
UNCLAIMED, STRADDLE, REFUSED = 0xffffffff, 0xfffffffe, 0xfffffffd
LAST_REGION = 0xffffffef
SPACE_NAMES = ("PIO", "MMIO", "CONFIG")

ENTRY = np.dtype([("base", "<u8"), ("last", "<u8"), ("delta", "<u8"), ("region", "<u4"), ("owner", "<u2"),
                  ("flags", "u1"), ("accepts", "u1")])
HIT = np.dtype([("addr", "<u8"), ("region", "<u4"), ("owner", "<u2"), ("flags", "u1"), ("status", "u1")])
# What map_many takes: any structured array with the first four fields; the others have the defaults of map().
RANGE = np.dtype([("space", "u1"), ("base", "<u8"), ("size", "<u8"), ("region", "<u4"), ("priority", "<i4"),
                  ("owner", "<u2"), ("flags", "u1"), ("accepts", "u1")], align=True)
# A mapped range as ranges() gives it.  kind: 0 a region, 1 an alias, 2 a hole, 255 removed.
ROW = np.dtype([("base", "<u8"), ("last", "<u8"), ("delta", "<u8"), ("region", "<u4"), ("priority", "<i4"),
                ("handle", "<u4"), ("owner", "<u2"), ("flags", "u1"), ("accepts", "u1"), ("space", "u1"),
                ("kind", "u1"), ("pad", "<u2"), ("pad2", "<u4")])

cdef enum:
    KIND_REGION = 0
    KIND_ALIAS = 1
    KIND_HOLE = 2
    KIND_DEAD = 255

if sizeof(row) != ROW.itemsize or sizeof(dispatch_entry) != ENTRY.itemsize or sizeof(dispatch_hit) != HIT.itemsize:
    raise ImportError("engine._dispatch: a dtype differs from its structure")

Entry = namedtuple("Entry", "region owner base last delta flags accepts")
Overlap = namedtuple("Overlap", "space base last priority region_a owner_a region_b owner_b")


# ---------------------------------------------------------------------- from ranges to pieces

cdef inline bint outranks(const row *a, const row *b) noexcept nogil:
    """Whether a hides b where both are."""
    if a.priority != b.priority:
        return a.priority > b.priority
    if (a.kind == KIND_HOLE) != (b.kind == KIND_HOLE):
        return a.kind == KIND_HOLE
    if a.region != b.region:
        return a.region > b.region
    if a.delta != b.delta:                 # aliases of one region: any rule that does not depend on when they came
        return a.delta > b.delta
    return a.base > b.base


cdef void heap_push(const row *rows, uint32_t *heap, size_t n, uint32_t r) noexcept nogil:
    """Add row r to a heap of n rows with the highest rank on top."""
    cdef size_t i = n, up
    while i:
        up = (i - 1) >> 1
        if not outranks(&rows[r], &rows[heap[up]]):
            break
        heap[i] = heap[up]
        i = up
    heap[i] = r


cdef void heap_pop(const row *rows, uint32_t *heap, size_t n) noexcept nogil:
    """Take the top of a heap of n rows away."""
    cdef size_t i = 0, c
    cdef uint32_t r = heap[n - 1]
    n -= 1
    while True:
        c = 2 * i + 1
        if c >= n:
            break
        if c + 1 < n and outranks(&rows[heap[c + 1]], &rows[heap[c]]):
            c += 1
        if not outranks(&rows[heap[c]], &rows[r]):
            break
        heap[i] = heap[c]
        i = c
    heap[i] = r


cdef struct begin:         # where a row begins
    uint64_t base
    uint32_t row


cdef int compare(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const begin *>a).base, y = (<const begin *>b).base
    return (x > y) - (x < y)


cdef size_t sweep(const row *rows, const begin *order, size_t n, dispatch_entry *out, uint32_t *heap) noexcept nogil:
    """The visible pieces of the n rows, which `order` lists by rising base; returns how many (at most 2 n).

    A line moves over the addresses; the heap holds the rows that began and whose end has not been noticed yet.
    """
    cdef size_t k = 0, h = 0, m = 0
    cdef uint64_t at = 0, end
    cdef const row *top
    cdef const row *r
    while True:
        while h and rows[heap[0]].last < at:
            heap_pop(rows, heap, h)
            h -= 1
        if h == 0:
            if k == n:
                return m
            at = order[k].base
        while k < n and order[k].base <= at:
            heap_push(rows, heap, h, order[k].row)
            h += 1
            k += 1
        top = &rows[heap[0]]               # not ended: it began at `at`, or the loop above has looked
        end = top.last
        while k < n and order[k].base <= end:
            r = &rows[order[k].row]
            if outranks(r, top):
                end = r.base - 1           # r.base > at: what begins at `at` is in the heap already
                break
            heap_push(rows, heap, h, order[k].row)
            h += 1
            k += 1
        if m and out[m - 1].last + 1 == at and out[m - 1].region == top.region and out[m - 1].delta == top.delta:
            out[m - 1].last = end          # two aliases that show neighbouring bytes side by side
        elif top.kind != KIND_HOLE:
            out[m].base = at
            out[m].last = end
            out[m].delta = top.delta
            out[m].region = top.region
            out[m].owner = top.owner
            out[m].flags = top.flags & ~(DISPATCH_SMM_ONLY | DISPATCH_NON_SMM_ONLY)
            out[m].accepts = top.accepts
            m += 1
        at = end + 1


# ---------------------------------------------------------------------- from pieces to a trie

# A node to be filled: the entries that meet it, and its inclusive end.
cdef struct pending:
    uint32_t first, end
    uint64_t lo, hi


cdef inline uint32_t log2_up(uint64_t n) noexcept nogil:
    """Smallest b with 1 << b >= n."""
    cdef uint32_t b = 0
    while b < 64 and (<uint64_t>1 << b) < n:
        b += 1
    return b


cdef inline uint32_t fan_out(size_t m) noexcept nogil:
    """log2 of the slots for m entries.  Generous: slots of small maps cost nothing, and are touched where accesses fall;
    in big ones 16 bytes of slots for each entry keep nearly all of them one load away."""
    return log2_up(m) + (3 if m <= SMALL else 2)


# A view while it is made.  Its block holds entries and slots, then nodes, too; each begins at a multiple of 64 bytes.
cdef struct draft:
    uint8_t *block
    size_t room, slots                     # bytes of the block; where in it the slots begin
    dispatch_node *nodes                   # nodes[0] is the root
    size_t n_entries, n_nodes, n_slots


cdef inline size_t aligned(size_t n) noexcept nogil:
    return (n + 63) & ~<size_t>63


cdef int widen(draft *d, size_t need) noexcept nogil:
    """Make the block so many bytes long or longer.  0, or -1 without memory."""
    cdef void *wider
    if need <= d.room:
        return 0
    need = max(need, 2 * d.room)
    if posix_memalign(&wider, HUGE if need >= HUGE else 64, need):
        return -1
    if need >= HUGE:
        madvise(wider, need, MADV_HUGEPAGE)    # only a wish
    if d.room:
        memcpy(wider, d.block, d.room)
    free(d.block)
    d.block = <uint8_t *>wider
    d.room = need
    return 0


cdef int index(draft *d, uint32_t bits, uint32_t run) noexcept nogil:
    """Nodes and slots over the entries, breadth first: 1 << bits slots or more in the root, at most `run` entries at a slot.
    0, or -1 without memory."""
    cdef const dispatch_entry *e = <const dispatch_entry *>d.block
    cdef uint32_t *slots
    cdef size_t cap_nodes = 64, q = 0, want, j, n, same
    cdef uint32_t shift, i, c
    cdef uint64_t lo, hi, slot_lo, slot_hi, mask
    cdef pending *todo = <pending *>malloc(cap_nodes * sizeof(pending))
    cdef void *p
    d.nodes = <dispatch_node *>malloc(cap_nodes * sizeof(dispatch_node))
    if todo == NULL or d.nodes == NULL:
        free(todo)
        return -1
    todo[0].first = 0
    todo[0].end = <uint32_t>d.n_entries
    todo[0].lo = e[0].base
    todo[0].hi = e[d.n_entries - 1].last
    d.n_nodes = 1
    while q < d.n_nodes:
        hi = todo[q].hi
        want = fan_out(todo[q].end - todo[q].first)
        if q == 0 and want < bits:
            want = bits
        shift = log2_up(hi - todo[q].lo + 1)
        shift = 0 if shift < want else <uint32_t>(shift - want)
        mask = (<uint64_t>1 << shift) - 1
        lo = todo[q].lo & ~mask
        n = ((hi - lo) >> shift) + 1
        if widen(d, d.slots + (d.n_slots + n) * sizeof(uint32_t)):
            free(todo)
            return -1
        e = <const dispatch_entry *>d.block
        slots = <uint32_t *>(d.block + d.slots) + d.n_slots
        d.nodes[q].lo = lo
        d.nodes[q].size = hi - lo + 1
        d.nodes[q].slots = <uint32_t>d.n_slots
        d.nodes[q].shift = shift
        d.nodes[q].pad = 0
        i = c = todo[q].first
        j = 0
        while j < n:
            slot_lo = lo + (<uint64_t>j << shift)
            slot_hi = min(slot_lo + mask, hi)
            while e[i].last < slot_lo:             # ends: slot_lo <= hi, which the last entry reaches
                i += 1
            if c < i:
                c = i
            while c < todo[q].end and e[c].base <= slot_hi:
                c += 1
            if c - i <= run:
                same = j + 1
                if c - i <= 1:                     # the same for all slots up to the entry's end or the next entry
                    same = min(n, ((e[i].last - lo) >> shift) + 1)
                    if i + 1 < todo[q].end:
                        same = min(same, (e[i + 1].base - lo) >> shift)
                    same = max(same, j + 1)
                wmemset(<int *>slots + j, <int>i, same - j)
                j = same
                continue
            if d.n_nodes == cap_nodes:
                cap_nodes *= 2
                p = realloc(todo, cap_nodes * sizeof(pending))
                if p != NULL:
                    todo = <pending *>p
                    p = realloc(d.nodes, cap_nodes * sizeof(dispatch_node))
                if p == NULL:
                    free(todo)
                    return -1
                d.nodes = <dispatch_node *>p
            todo[d.n_nodes].first = i
            todo[d.n_nodes].end = c
            todo[d.n_nodes].lo = max(slot_lo, e[i].base)
            todo[d.n_nodes].hi = min(slot_hi, e[c - 1].last)
            slots[j] = DISPATCH_NODE | <uint32_t>d.n_nodes
            d.n_nodes += 1
            j += 1
        d.n_slots += n
        q += 1
    free(todo)
    return 0


cdef class _View:
    """Pieces and trie of one view: one block, immutable once it is made, for every table that shows it."""
    cdef uint8_t *block                    # NULL if nothing is mapped
    cdef size_t size                       # bytes of it
    cdef dispatch_view at                  # the offsets are from the block's start

    def __dealloc__(self):
        free(self.block)

    cdef int build(self, const row *rows, begin *order, size_t n, uint32_t bits) noexcept nogil:
        """From n rows, of which `order` has base and number.  0, or -1 without memory."""
        cdef uint32_t *heap
        cdef draft d
        cdef int rc = -1
        memset(&d, 0, sizeof(d))
        heap = <uint32_t *>malloc(n * sizeof(uint32_t))
        if heap != NULL and widen(&d, 2 * n * sizeof(dispatch_entry) + (<size_t>8 << max(bits, fan_out(n)))) == 0:
            qsort(order, n, sizeof(begin), compare)
            d.n_entries = sweep(rows, order, n, <dispatch_entry *>d.block, heap)
            d.slots = aligned(d.n_entries * sizeof(dispatch_entry))
            rc = 0
            if d.n_entries:
                rc = index(&d, bits, RUN if bits == PIO_BITS or d.n_entries > SMALL else 1)
                if rc == 0:
                    rc = self.take(&d)
        free(heap)
        free(d.nodes)
        free(d.block)
        return rc

    cdef int take(self, draft *d) noexcept nogil:
        """Put the nodes behind the slots, and keep the block.  0, or -1 without memory."""
        cdef dispatch_view *v = &self.at
        v.slots = d.slots
        v.nodes = aligned(v.slots + d.n_slots * sizeof(uint32_t))
        self.size = aligned(v.nodes + d.n_nodes * sizeof(dispatch_node))
        if widen(d, self.size):
            return -1
        memcpy(d.block + v.nodes, d.nodes, d.n_nodes * sizeof(dispatch_node))
        v.lo, v.size, v.shift = d.nodes[0].lo, d.nodes[0].size, d.nodes[0].shift
        v.n_entries, v.n_nodes, v.n_slots = <uint32_t>d.n_entries, <uint32_t>d.n_nodes, <uint32_t>d.n_slots
        self.block = d.block
        d.block = NULL
        return 0

    cdef void show(self, dispatch_view *v, uint64_t at, uint64_t fill) noexcept nogil:
        """Fill in a table's words about it; its block begins `at` bytes behind the table's start."""
        v[0] = self.at
        v.fill = fill
        if v.n_entries:
            v.entries += at
            v.nodes += at
            v.slots += at


cdef _View build_view(const row *rows, uint32_t n_rows, uint32_t key):
    """The view of a key."""
    cdef _View view = _View.__new__(_View)
    cdef uint32_t hidden = DISPATCH_NON_SMM_ONLY if key & DISPATCH_SMM else DISPATCH_SMM_ONLY
    cdef uint32_t space = key & 3, i
    cdef size_t n = 0
    cdef int rc = 0
    cdef begin *order = <begin *>malloc(max(n_rows, <uint32_t>1) * sizeof(begin))
    if order == NULL:
        raise MemoryError(f"no memory for a map of {n_rows} ranges")
    with nogil:
        for i in range(n_rows):
            if rows[i].space == space and rows[i].kind != KIND_DEAD and not rows[i].flags & hidden:
                order[n].base = rows[i].base
                order[n].row = i
                n += 1
        if n:
            rc = view.build(rows, order, n, PIO_BITS if space == ENGINE_PIO else ROOT_BITS)
        free(order)
    if rc:
        raise MemoryError(f"no memory for a map of {n} ranges")
    return view


cdef bint differs(const row *rows, uint32_t n_rows, uint32_t space) noexcept nogil:
    """Whether system management mode sees a space otherwise."""
    cdef uint32_t i
    for i in range(n_rows):
        if rows[i].space == space and rows[i].kind != KIND_DEAD and rows[i].flags & (DISPATCH_SMM_ONLY | DISPATCH_NON_SMM_ONLY):
            return True
    return False


# ---------------------------------------------------------------------- looking up

cdef inline bint is_width(uint32_t size) noexcept nogil:
    return size - 1 < 8 and (size & (size - 1)) == 0


cdef inline bint told(uint64_t addr, uint64_t who, uint32_t status, dispatch_hit *hit) noexcept nogil:
    """Fill hit in two stores; whether it is not DISPATCH_OK.  who: region, owner and flags, side by side as there."""
    hit.addr = addr
    (<uint64_t *>&hit.region)[0] = who | <uint64_t>status << 56
    return status != DISPATCH_OK


cdef inline uint64_t who_answers(const dispatch_entry *e) noexcept nogil:
    """For told: less `accepts`, where a hit has its status."""
    return (<const uint64_t *>&e.region)[0] & <uint64_t>0x00ffffffffffffffULL


cdef inline bint nowhere(uint64_t addr, uint8_t size, uint64_t gap, dispatch_hit *hit) noexcept nogil:
    """Fill hit for an address where nothing is; the next entry begins `gap` bytes behind it."""
    return told(addr, DISPATCH_NO_REGION | <uint64_t>DISPATCH_NO_OWNER << 32,
                DISPATCH_REFUSED if not WIDTH[size] else DISPATCH_UNCLAIMED if gap >= size else DISPATCH_STRADDLE, hit)


cdef inline bint answer(const dispatch_entry *e, uint64_t addr, uint8_t size, dispatch_hit *hit) noexcept nogil:
    """Fill hit, given an entry none before which ends at or behind addr, where one does; whether it is not DISPATCH_OK."""
    while e.last < addr:
        e += 1
    if e.last - addr >= <uint32_t>size - 1 and e.base <= addr and e.accepts & WIDTH[size]:
        return told(addr + e.delta, who_answers(e), DISPATCH_OK, hit)
    if e.base > addr:
        return nowhere(addr, size, e.base - addr, hit)
    return told(addr + e.delta, who_answers(e),
                DISPATCH_STRADDLE if WIDTH[size] and e.last - addr < <uint32_t>size - 1 else DISPATCH_REFUSED, hit)


cdef bint finish(const dispatch_entry *e, uint64_t addr, uint8_t size, dispatch_hit *hit) noexcept nogil:
    """The same, given the first entry that ends at or behind addr, or NULL."""
    return answer(e, addr, size, hit) if e != NULL else nowhere(addr, size, ~<uint64_t>0, hit)


cdef uint32_t dispatch_resolve(const dispatch_table *t, uint32_t space, uint64_t addr, uint32_t size,
                               dispatch_hit *hit) noexcept nogil:
    """Where one access goes; the status, which hit has too."""
    finish(dispatch_next(t, space, addr), addr, <uint8_t>size if is_width(size) else 0, hit)
    return hit.status


cdef inline uint32_t key_of(const engine_acc *a) noexcept nogil:
    """The view of an access; an empty one if its space is none."""
    return (a.space if a.space < N_SPACES else N_SPACES) | (a.flags & DISPATCH_SMM)


cdef size_t dispatch_batch(const dispatch_table *t, const engine_acc *acc, size_t n, dispatch_hit *out) noexcept nogil:
    """Where each of n accesses goes; returns how many are not DISPATCH_OK."""
    cdef size_t i = 0, bad = 0
    if t.bytes <= STAGED:
        return near(t, acc, n, out)
    while i < n:
        bad += staged(t, acc + i, min(n - i, <size_t>GROUP), out + i)
        i += GROUP
    return bad


# A view with pointers in place of offsets, for the length of one batch.
cdef struct near_view:
    uint64_t lo, size, shift
    const uint32_t *slots
    const dispatch_entry *entries
    const dispatch_node *nodes


cdef size_t near(const dispatch_table *t, const engine_acc *acc, size_t n, dispatch_hit *out) noexcept nogil:
    """dispatch_batch for a table in the nearest caches: one access after the other."""
    cdef near_view views[DISPATCH_KEYS]
    cdef const near_view *v
    cdef uint64_t addr
    cdef uint32_t s, key
    cdef size_t i, bad = 0
    for key in range(<uint32_t>DISPATCH_KEYS):
        views[key].lo, views[key].size, views[key].shift = t.view[key].lo, t.view[key].size, t.view[key].shift
        views[key].slots = slots_of(t, &t.view[key])
        views[key].entries = entries_of(t, &t.view[key])
        views[key].nodes = nodes_of(t, &t.view[key])
    for i in range(n):
        addr = acc[i].addr
        if acc[i].space < N_SPACES:
            v = &views[acc[i].space | (acc[i].flags & DISPATCH_SMM)]
            if addr - v.lo < v.size:
                s = v.slots[(addr - v.lo) >> v.shift]
                while s & DISPATCH_NODE:
                    s = v.slots[dispatch_step(v.nodes + (s ^ DISPATCH_NODE), addr)]
                bad += answer(v.entries + s, addr, acc[i].size, &out[i])
                continue
            if addr < v.lo:
                bad += nowhere(addr, acc[i].size, v.entries.base - addr, &out[i])
                continue
        bad += nowhere(addr, acc[i].size, ~<uint64_t>0, &out[i])
    return bad


cdef size_t staged(const dispatch_table *t, const engine_acc *acc, size_t n, dispatch_hit *out) noexcept nogil:
    """dispatch_batch for at most GROUP accesses and a table that lies far away: every step down the trie is made for all of
    them before the next, and asks for what the next will read, so that the cache misses of different accesses overlap."""
    cdef const uint32_t *slot[GROUP]       # where the access stands; NULL outside the view
    cdef const dispatch_view *v
    cdef const dispatch_node *node
    cdef uint64_t at
    cdef size_t i, bad = 0
    cdef bint deeper = True
    for i in range(n):
        v = &t.view[key_of(&acc[i])]
        at = acc[i].addr - v.lo
        slot[i] = NULL
        if at < v.size:
            slot[i] = slots_of(t, v) + (at >> v.shift)
            prefetch(slot[i])
    while deeper:
        deeper = False
        for i in range(n):
            if slot[i] != NULL and slot[i][0] & DISPATCH_NODE:
                prefetch(nodes_of(t, &t.view[key_of(&acc[i])]) + (slot[i][0] ^ DISPATCH_NODE))
                deeper = True
        if not deeper:
            break
        for i in range(n):
            if slot[i] != NULL and slot[i][0] & DISPATCH_NODE:
                v = &t.view[key_of(&acc[i])]
                node = nodes_of(t, v) + (slot[i][0] ^ DISPATCH_NODE)
                slot[i] = slots_of(t, v) + dispatch_step(node, acc[i].addr)
                prefetch(slot[i])
    for i in range(n):
        if slot[i] != NULL:
            prefetch(entries_of(t, &t.view[key_of(&acc[i])]) + slot[i][0])
    for i in range(n):
        if slot[i] != NULL:
            bad += answer(entries_of(t, &t.view[key_of(&acc[i])]) + slot[i][0], acc[i].addr, acc[i].size, &out[i])
        else:
            bad += finish(dispatch_next(t, key_of(&acc[i]), acc[i].addr), acc[i].addr, acc[i].size, &out[i])
    return bad


cdef void dispatch_route(const dispatch_hit *hits, size_t n, uint32_t owners, uint32_t *order, uint32_t *starts) noexcept nogil:
    """Sort a batch by owner, keeping its order within each.

    order: the n indices of the accesses; those of owner k are order[starts[k] .. starts[k + 1]], and those that go nowhere as
    they are (any status but DISPATCH_OK) are at k = owners.  starts: owners + 2 words.
    """
    cdef size_t i
    cdef uint32_t k, at = 0, many
    memset(starts, 0, (owners + 2) * sizeof(uint32_t))
    for i in range(n):
        starts[bucket(&hits[i], owners)] += 1
    for k in range(owners + 1):
        many = starts[k]
        starts[k] = at
        at += many
    for i in range(n):
        k = bucket(&hits[i], owners)
        order[starts[k]] = <uint32_t>i
        starts[k] += 1
    for k in range(owners + 1, 0, -1):     # each start has moved to its end, which is the next one's start
        starts[k] = starts[k - 1]
    starts[0] = 0


cdef inline uint32_t bucket(const dispatch_hit *hit, uint32_t owners) noexcept nogil:
    return hit.owner if hit.status == DISPATCH_OK and hit.owner < owners else owners


cdef uint32_t dispatch_split(const dispatch_table *t, uint32_t space, uint64_t addr, uint32_t size,
                             dispatch_part *parts) noexcept nogil:
    """Cut an access that straddles into naturally aligned parts that do not, low address first; returns how many, at most
    8, or 0 if size is no width.  A part may be unclaimed or refused, which its hit says."""
    cdef uint32_t n = 0, at = 0, width
    if not is_width(size):
        return 0
    while at < size:
        width = size
        while width > 1 and (width > size - at or (addr + at) & (width - 1)):
            width >>= 1
        while width > 1 and dispatch_resolve(t, space, addr + at, width, &parts[n].hit) == DISPATCH_STRADDLE:
            width >>= 1
        dispatch_resolve(t, space, addr + at, width, &parts[n].hit)
        parts[n].offset = at
        parts[n].size = width
        at += width
        n += 1
    return n


@cython.final
cdef class Counters:
    """Accesses that went nowhere, counted by (status, space, address, size, direction); one thread writes.

    Bounded: SETS x WAYS lines.  A key that finds its set full takes the place of the set's smallest count and goes on from
    there (Metwally and others, "Efficient computation of frequent and top-k elements in data streams", 2005), so a key's
    count may be too high by at most its `error`, and one that comes more often than its set's total / WAYS is never lost.
    """

    def __cinit__(self):
        self.tallies = <tally *>calloc(SETS * WAYS, sizeof(tally))
        if self.tallies == NULL:
            raise MemoryError("no memory for counters")
        memset(self.sums, 0, sizeof(self.sums))

    def __dealloc__(self):
        free(self.tallies)

    cdef void note(self, uint32_t status, uint32_t space, uint64_t addr, uint32_t size, uint32_t dir) noexcept nogil:
        """Count one access."""
        cdef tally *t
        cdef tally *least
        cdef uint32_t i
        cdef uint64_t key = addr ^ (<uint64_t>(status & 255) << 56 | <uint64_t>(space & 255) << 48 |
                                    <uint64_t>(size & 255) << 40 | <uint64_t>(dir & 1) << 32)
        self.sums[status & 3] += 1
        t = &self.tallies[((key * 0x9e3779b97f4a7c15ULL) >> 32) % SETS * WAYS]
        least = t
        for i in range(WAYS):
            if t[i].count and t[i].addr == addr and t[i].space == <uint8_t>space and t[i].size == <uint8_t>size and (
                    t[i].dir == <uint8_t>(dir & 1) and t[i].status == <uint8_t>status):
                t[i].count += 1
                return
            if t[i].count < least.count:
                least = &t[i]
        least.error = least.count
        least.count += 1
        least.addr = addr
        least.space, least.size, least.dir, least.status = <uint8_t>space, <uint8_t>size, <uint8_t>(dir & 1), <uint8_t>status

    cdef void note_batch(self, const engine_acc *acc, const dispatch_hit *hits, size_t n) noexcept nogil:
        """Count those of n answered accesses that are not DISPATCH_OK."""
        cdef size_t i
        for i in range(n):
            if hits[i].status != DISPATCH_OK:
                self.note(hits[i].status, acc[i].space, acc[i].addr, acc[i].size, acc[i].dir)

    @property
    def totals(self):
        """Status name -> how many, exactly."""
        return {STATUS_NAMES[i]: self.sums[i] for i in range(1, 4)}

    def top(self, limit=None):
        """{(status name, space, addr, size, dir): (count, error)}, the highest counts first."""
        cdef size_t i
        lines = [((STATUS_NAMES[self.tallies[i].status & 3], self.tallies[i].space, self.tallies[i].addr, self.tallies[i].size,
                   self.tallies[i].dir), (self.tallies[i].count, self.tallies[i].error))
                 for i in range(SETS * WAYS) if self.tallies[i].count]
        lines.sort(key=lambda line: (-line[1][0], line[0]))
        return dict(lines[:limit])

    def clear(self):
        """Forget everything."""
        memset(self.tallies, 0, SETS * WAYS * sizeof(tally))
        memset(self.sums, 0, sizeof(self.sums))


cdef str flaw(const uint8_t *block, size_t n):
    """What is wrong with a table in n bytes of foreign memory; None if it can be used: no look-up then leaves the block or
    runs on for ever.  Who may write there may still make it answer wrongly."""
    cdef const dispatch_table *t = <const dispatch_table *>block
    cdef const dispatch_view *v
    cdef const dispatch_node *node
    cdef const dispatch_entry *e
    cdef const uint32_t *slots
    cdef uint64_t count
    cdef uint32_t key, q
    cdef size_t i
    if <size_t>block & 7 or n < sizeof(dispatch_table):
        return "is too short, or not aligned to 8 bytes"
    if t.magic != DISPATCH_MAGIC or t.abi != DISPATCH_ABI:
        return f"has magic {t.magic:#x} and version {t.abi}, not {DISPATCH_MAGIC:#x} and {DISPATCH_ABI}"
    if t.bytes > n:
        return f"is cut off: {n} of {t.bytes} bytes"
    n = t.bytes
    for key in range(<uint32_t>DISPATCH_KEYS):
        v = &t.view[key]
        if (v.entries | v.nodes | v.slots) & 7 or v.entries > n or v.nodes > n or v.slots > n or (
                v.n_entries > (n - v.entries) // sizeof(dispatch_entry) or v.n_nodes > (n - v.nodes) // sizeof(dispatch_node)
                or v.n_slots > (n - v.slots) // sizeof(uint32_t) or v.size and (v.n_entries == 0 or v.n_nodes == 0)):
            return f"has arrays outside itself (view {key})"
        if v.size == 0:
            continue
        e = entries_of(t, v)
        for i in range(v.n_entries):
            if e[i].base > e[i].last or i and e[i].base <= e[i - 1].last:
                return f"has entries out of order (view {key}, entry {i})"
        if v.lo + (v.size - 1) != e[v.n_entries - 1].last or v.lo + (v.size - 1) >> 63 or v.lo > e[0].base:
            return f"has a root that ends elsewhere than its entries (view {key})"
        node = nodes_of(t, v)
        if v.lo != node.lo or v.size != node.size or v.shift != node.shift or node.slots:
            return f"has two roots (view {key})"
        slots = slots_of(t, v)
        for q in range(v.n_nodes):
            if node[q].size == 0 or node[q].shift > 63:
                return f"has an impossible node (view {key}, node {q})"
            count = (node[q].size - 1 >> node[q].shift) + 1
            if node[q].slots > v.n_slots or count > v.n_slots - node[q].slots:
                return f"has slots outside itself (view {key}, node {q})"
            for i in range(node[q].slots, node[q].slots + count):
                if slots[i] & DISPATCH_NODE:
                    if slots[i] ^ DISPATCH_NODE <= q or slots[i] ^ DISPATCH_NODE >= v.n_nodes:
                        return f"has a node under itself, or none (view {key}, slot {i})"
                elif slots[i] >= v.n_entries:
                    return f"names no entry (view {key}, slot {i})"
    return None


@cython.final
cdef class Table:
    """One published version of the map: immutable, for any number of readers, in any thread.

    Dispatcher.publish makes it; its memory lives as long as the object.
    """

    def __init__(self):
        raise TypeError("tables are made by Dispatcher.publish and Table.over")

    def __dealloc__(self):
        free(self.made)
        PyBuffer_Release(&self.held)       # does nothing if none is held

    @staticmethod
    def over(buffer):
        """A table that lies in a buffer (shared memory, a copy), which it keeps.  Raises UsageError if that is none."""
        cdef Table made = Table.__new__(Table)
        PyObject_GetBuffer(buffer, &made.held, PyBUF_SIMPLE)
        wrong = flaw(<const uint8_t *>made.held.buf, made.held.len)
        if wrong is not None:
            raise UsageError(f"the address map {wrong}")
        made.t = <const dispatch_table *>made.held.buf
        return made

    @property
    def version(self):
        """1 for the first table published, then rising."""
        return self.t.version

    @property
    def nbytes(self):
        """Size as one block."""
        return self.t.bytes

    def to_bytes(self):
        """A copy as one block, with all of its views."""
        cdef bytes out = PyBytes_FromStringAndSize(NULL, self.t.bytes)
        cdef uint8_t *block = <uint8_t *>PyBytes_AS_STRING(out)
        cdef dispatch_table *t = <dispatch_table *>block
        cdef size_t at = sizeof(dispatch_table)
        cdef uint32_t key
        cdef _View view
        if self.views is None:
            memcpy(block, self.t, self.t.bytes)
            return out
        memcpy(block, self.t, sizeof(dispatch_table))
        for key in range(<uint32_t>DISPATCH_KEYS):
            view = self.views[key]
            if view is None:
                continue
            if key & DISPATCH_SMM and view is self.views[key ^ DISPATCH_SMM]:
                t.view[key] = t.view[key ^ DISPATCH_SMM]
                continue
            if view.size:
                memcpy(block + at, view.block, view.size)
            view.show(&t.view[key], at, t.view[key].fill)
            at += view.size
        return out

    def entries(self, uint32_t space, bint smm=False):
        """The visible pieces of a space, by address: an array of ENTRY."""
        cdef const dispatch_view *v
        if space >= N_SPACES:
            raise UsageError(f"there is no space {space}")
        v = &self.t.view[space | (DISPATCH_SMM if smm else 0)]
        if v.n_entries == 0:
            return np.empty(0, ENTRY)
        return np.frombuffer((<const char *>entries_of(self.t, v))[:v.n_entries * sizeof(dispatch_entry)], ENTRY)

    def shape(self, uint32_t space, bint smm=False):
        """Sizes of the index of a space: {"entries", "nodes", "slots"}."""
        cdef const dispatch_view *v
        if space >= N_SPACES:
            raise UsageError(f"there is no space {space}")
        v = &self.t.view[space | (DISPATCH_SMM if smm else 0)]
        return {"entries": v.n_entries, "nodes": v.n_nodes, "slots": v.n_slots}

    def lookup(self, uint32_t space, uint64_t addr, bint smm=False):
        """The piece that holds an address: an Entry; None where nothing is."""
        cdef const dispatch_entry *e = NULL
        if space < N_SPACES:
            e = dispatch_find(self.t, space | (DISPATCH_SMM if smm else 0), addr)
        if e == NULL:
            return None
        return Entry(e.region, e.owner, e.base, e.last, e.delta, e.flags, e.accepts)

    def fill(self, uint32_t space, uint32_t size, bint smm=False):
        """What a read that nobody answers gives."""
        return dispatch_fill(self.t, space | (DISPATCH_SMM if smm else 0), size)

    def lookup_batch(self, acc, out=None, Counters counters=None):
        """Where each access of an ACC array goes: an array of HIT (`out`, if given).  What goes nowhere is counted."""
        return _lookup_batch(self.t, acc, out, counters)

    def route(self, hits):
        """(order, starts): a batch's indices sorted by owner, order kept within each; owner k has order[starts[k]:starts[k+1]],
        and what goes nowhere as it is comes last."""
        cdef Py_buffer h
        cdef uint32_t owners = <uint32_t>self.t.owners
        _get_hits(hits, &h, 0)
        order = np.empty(len(hits), np.uint32)
        starts = np.empty(owners + 2, np.uint32)
        cdef uint32_t[::1] s = starts
        cdef uint32_t[::1] o = order if len(order) else np.empty(1, np.uint32)
        with nogil:
            dispatch_route(<const dispatch_hit *>h.buf, h.len // sizeof(dispatch_hit), owners, &o[0], &s[0])
        PyBuffer_Release(&h)
        return order, starts

    def split(self, uint32_t space, uint64_t addr, uint32_t size, bint smm=False):
        """The parts of an access that straddles: a list of (offset, size, status, region or None, address there)."""
        cdef dispatch_part parts[8]
        cdef uint32_t n, i
        if space >= N_SPACES:
            return []
        n = dispatch_split(self.t, space | (DISPATCH_SMM if smm else 0), addr, size, parts)
        return [(parts[i].offset, parts[i].size, parts[i].hit.status,
                 None if parts[i].hit.region == DISPATCH_NO_REGION else parts[i].hit.region, parts[i].hit.addr)
                for i in range(n)]

    def lookup_many(self, space, addr, size=1, smm=False):
        """Region ids of many accesses: uint32, UNCLAIMED, STRADDLE or REFUSED where there is none to go to.

        Each argument is an array or one value for all.
        """
        addr = np.asarray(addr, np.uint64)
        acc = np.zeros(addr.shape[0], ACC)
        acc["addr"] = addr
        acc["space"] = space
        acc["size"] = size
        acc["flags"] = np.where(smm, DISPATCH_SMM, 0)
        hit = self.lookup_batch(acc)
        return np.where(hit["status"] == DISPATCH_OK, hit["region"],
                        _SPECIAL[hit["status"]]).astype(np.uint32)


_LAST = np.array([LAST[0], LAST[1], LAST[2]], np.uint64)
_SPECIAL = np.array([0, UNCLAIMED, STRADDLE, REFUSED], np.uint32)


cdef object good_acc = ACC                 # the dtype object last found equal to ACC: comparing takes a microsecond


cdef int _get_records(acc, Py_buffer *view) except -1:
    """The buffer of a contiguous ACC array, for the caller to release.  Raises UsageError if it is none."""
    global good_acc
    t = getattr(acc, "dtype", None)
    if t is not good_acc:
        if t is None or t != ACC:
            raise UsageError(f"accesses have to be an array of ACC records, not of {t}")
        good_acc = t
    try:
        PyObject_GetBuffer(acc, view, PyBUF_SIMPLE)
    except (BufferError, ValueError) as e:
        raise UsageError(f"accesses have to lie side by side in memory: {e}") from None
    return 0


cdef int _get_hits(out, Py_buffer *view, size_t n) except -1:
    """The buffer of an array of at least n HIT records.  Raises UsageError."""
    if getattr(out, "dtype", None) != HIT or len(out) < n:
        raise UsageError(f"the answers need an array of at least {n} HIT records")
    try:
        PyObject_GetBuffer(out, view, PyBUF_WRITABLE)
    except (BufferError, ValueError) as e:
        raise UsageError(f"the answers have to lie side by side in writable memory: {e}") from None
    return 0


cdef _lookup_batch(const dispatch_table *t, acc, out, Counters counters):
    """dispatch_batch on arrays."""
    cdef Py_buffer a, o
    cdef size_t n
    if out is None:
        out = np.empty(len(acc), HIT)
    _get_records(acc, &a)
    try:
        n = a.len // sizeof(engine_acc)
        _get_hits(out, &o, n)
        try:
            with nogil:
                if dispatch_batch(t, <const engine_acc *>a.buf, n, <dispatch_hit *>o.buf) and counters is not None:
                    counters.note_batch(<const engine_acc *>a.buf, <const dispatch_hit *>o.buf, n)
        finally:
            PyBuffer_Release(&o)
    finally:
        PyBuffer_Release(&a)
    return out


# ---------------------------------------------------------------------- the writer

@cython.final
cdef class Dispatcher:
    """The address map of a machine and its publisher.  One thread maps and publishes; readers may be anywhere.

    `mmio_fill`: what reads of MMIO that nobody answers give (cut to size); ports and configuration space give all ones.
    Ranges mapped or unmapped are seen only after publish().
    """
    def __cinit__(self, mmio_fill=0):
        if posix_memalign(<void **>&self.root, 64, sizeof(dispatch_root)):
            raise MemoryError("no memory for the readers' words")
        memset(self.root, 0, sizeof(dispatch_root))
        self.fills[0] = self.fills[2] = ~<uint64_t>0
        self.fills[1] = mmio_fill
        self.rows = bytearray(64 * sizeof(row))
        self.free_rows = []
        self.by_region = {}
        self.aliases = {}
        self.views = [None] * DISPATCH_KEYS
        self.retired = []
        self.publish()

    def __dealloc__(self):
        free(self.root)

    # -------------------------------------------------------------- ranges

    def _check(self, space, base, size, region, flags, accepts):
        if space not in (0, 1, 2):
            raise MachineError(f"there is no space {space}")
        if size < 1 or base < 0 or base + size - 1 > LAST[space]:
            raise MachineError(f"{SPACE_NAMES[space]} {base:#x}, {size:#x} bytes: the space ends at {LAST[space]:#x}")
        if not 0 <= region <= LAST_REGION:
            raise MachineError(f"{region:#x} is no region id")
        if flags & ~ALL_FLAGS or flags & DISPATCH_SMM_ONLY and flags & DISPATCH_NON_SMM_ONLY:
            raise MachineError(f"region {region}: flags {flags:#x}")
        if accepts & ~15:
            raise MachineError(f"region {region}: widths {accepts:#x} are not among 1, 2, 4, 8")

    cdef row *_at(self, uint32_t handle):
        """A range, until the next one is added."""
        return <row *>PyByteArray_AS_STRING(self.rows) + handle

    cdef object _table(self):
        """The ranges as an array of ROW."""
        return np.frombuffer(self.rows, ROW)[:self.n_rows]

    def _add(self, uint32_t space, uint64_t base, uint64_t last, uint64_t delta, uint32_t region, int32_t priority,
             uint16_t owner, uint8_t flags, uint8_t accepts, uint8_t kind):
        cdef uint32_t handle
        cdef row *r
        self._own()
        if self.free_rows:
            handle = self.free_rows.pop()
        else:
            handle = self.n_rows
            self._room(1)
            self.n_rows += 1
        r = self._at(handle)
        r.base, r.last, r.delta, r.region, r.priority, r.handle = base, last, delta, region, priority, handle
        r.owner, r.flags, r.accepts, r.space, r.kind = owner, flags, accepts, <uint8_t>space, kind
        self.views[space] = self.views[space | DISPATCH_SMM] = None
        return handle

    def _room(self, more):
        """Make room for so many rows more."""
        rows = len(self.rows) // sizeof(row)
        if self.n_rows + more > rows:
            self.rows = self.rows + bytearray((max(2 * rows, self.n_rows + more) - rows) * sizeof(row))

    def map(self, space, base, size, region, priority=0, flags=0, owner=0, accepts=15):
        """A region's range; returns its handle.  A region id is mapped once (see alias for showing it elsewhere).

        accepts: or of the widths it takes.  flags: POSTED, BARRIER, SMM_ONLY or NON_SMM_ONLY.
        """
        self._check(space, base, size, region, flags, accepts)
        if region in self.by_region:
            raise MachineError(f"region {region} is mapped already, at {self._where(self.by_region[region])}")
        handle = self._add(space, base, base + size - 1, 0, region, priority, owner, flags, accepts, KIND_REGION)
        self.by_region[region] = handle
        return handle

    def _where(self, handle):
        cdef const row *r = self._at(handle)
        return f"{SPACE_NAMES[r.space]} {r.base:#x}..{r.last:#x}"

    def alias(self, base, size, region, offset=0, priority=0, flags=0):
        """Show `size` bytes of a mapped region, from `offset` on, at `base` of its space as well; returns a handle.

        Accesses are delivered at the region's own addresses.  Owner, widths and posting are the region's.
        """
        cdef const row *r
        if region not in self.by_region:
            raise MachineError(f"region {region} is not mapped, so it has no alias")
        r = self._at(self.by_region[region])
        space, start = r.space, r.base
        self._check(space, base, size, region, flags, 0)
        if offset < 0 or start + offset + size - 1 > r.last:
            raise MachineError(f"alias of region {region}: bytes {offset:#x}..{offset + size - 1:#x} are not all inside it")
        delta = (start + offset - base) & 0xffffffffffffffff
        keep = r.flags & OWN_FLAGS
        handle = self._add(space, base, base + size - 1, delta, region, priority, r.owner,
                           flags | keep | (DISPATCH_ALIAS if delta else 0), r.accepts, KIND_ALIAS)
        self.aliases.setdefault(region, []).append(handle)
        return handle

    def hole(self, space, base, size, priority=0, flags=0):
        """A range where nothing of this or a lower priority is seen; returns a handle."""
        self._check(space, base, size, 0, flags, 0)
        return self._add(space, base, base + size - 1, 0, DISPATCH_NO_REGION, priority, DISPATCH_NO_OWNER, flags, 0,
                         KIND_HOLE)

    def map_many(self, ranges):
        """map() for each record of a structured array with fields space, base, size and region, and any of priority,
        owner, flags, accepts.  All or none."""
        given = np.asarray(ranges)
        names = given.dtype.names or ()
        odd = set(names) - set(RANGE.names) | {"space", "base", "size", "region"} - set(names)
        if odd:
            raise UsageError(f"ranges have fields missing or unknown: {', '.join(sorted(odd))}")
        r = np.zeros(len(given), RANGE)
        r["accepts"] = 15
        for name in names:
            r[name] = given[name]
            if np.any(r[name] != given[name]):
                raise UsageError(f"field {name} has values out of range")
        last = r["base"] + (r["size"] - np.uint64(1))
        bad = (r["space"] >= N_SPACES) | (r["size"] == 0) | (last < r["base"])
        bad |= last > _LAST[np.minimum(r["space"], N_SPACES - 1)]
        bad |= (r["region"] > LAST_REGION) | (r["flags"] & ~np.uint8(ALL_FLAGS) != 0) | (r["accepts"] > 15)
        views = DISPATCH_SMM_ONLY | DISPATCH_NON_SMM_ONLY
        bad |= r["flags"] & views == views
        for i in np.flatnonzero(bad)[:1]:
            self._check(*(int(r[i][f]) for f in ("space", "base", "size", "region", "flags", "accepts")))
            raise MachineError(f"range {i} cannot be mapped: {r[i]}")
        ids = r["region"].tolist()
        taken = self.by_region.keys() & ids
        if taken or len(set(ids)) != len(ids):
            twice = min(taken) if taken else ids[0] if len(ids) < 2 else min(i for i in ids if ids.count(i) > 1)
            raise MachineError(f"region {twice} is mapped already, or twice in one call")
        self._own()
        reused = self.free_rows[len(self.free_rows) - min(len(self.free_rows), len(r)):]
        fresh = len(r) - len(reused)
        self._room(fresh)
        handles = reused + list(range(self.n_rows, self.n_rows + fresh))
        del self.free_rows[len(self.free_rows) - len(reused):]
        self.n_rows += <uint32_t>fresh
        at = np.array(handles, np.int64)
        rows = self._table()
        for name in ("base", "region", "priority", "owner", "flags", "accepts", "space"):
            rows[name][at] = r[name]
        rows["last"][at] = last
        rows["delta"][at] = 0
        rows["kind"][at] = KIND_REGION
        rows["handle"][at] = at
        self.by_region.update(zip(ids, handles))
        for space in np.unique(r["space"]).tolist():
            self.views[space] = self.views[space | DISPATCH_SMM] = None

    def remove(self, handle):
        """Take back one alias or hole, or a region with its aliases, by handle."""
        cdef const row *r
        if not 0 <= handle < self.n_rows or self._at(handle).kind == KIND_DEAD:
            raise MachineError(f"there is no range {handle}")
        self._own()
        r = self._at(handle)
        if r.kind == KIND_REGION:
            del self.by_region[r.region]
            for other in self.aliases.pop(r.region, ()):
                self._drop(other)
        elif r.kind == KIND_ALIAS:
            self.aliases[r.region].remove(handle)
        self._drop(handle)

    cdef int _drop(self, uint32_t handle) except -1:
        cdef row *r = self._at(handle)
        r.kind = KIND_DEAD
        self.free_rows.append(handle)
        self.views[r.space] = self.views[r.space | DISPATCH_SMM] = None

    def unmap(self, region):
        """Take back a region and its aliases."""
        if region not in self.by_region:
            raise MachineError(f"region {region} is not mapped")
        self.remove(self.by_region[region])

    def unmap_many(self, regions):
        """unmap() for each of many regions.  All or none."""
        ids = np.asarray(regions).tolist()
        odd = set(ids) - self.by_region.keys()
        if odd or len(set(ids)) != len(ids):
            raise MachineError(f"region {min(odd) if odd else ids} is not mapped, or given twice")
        for region in ids:
            self.remove(self.by_region[region])

    def overlaps(self, int limit=100, *, bint same_owner=False):
        """Regions of equal priority that claim the same addresses: at most `limit` Overlap tuples, by space, priority and
        address.  Those of one owner are left out unless asked for; so are views that no access shares."""
        r = self.ranges()
        r = r[r["kind"] != KIND_HOLE]
        found = []
        for space, priority in sorted(set(zip(r["space"].tolist(), r["priority"].tolist()))):
            g = r[(r["space"] == space) & (r["priority"] == priority)]      # by rising base, as ranges() gives them
            if not same_owner and len(np.unique(g["owner"])) < 2:
                continue
            reach = np.maximum.accumulate(g["last"])
            for i in (np.flatnonzero(g["base"][1:] <= reach[:len(g) - 1]) + 1).tolist():
                for j in np.flatnonzero(g["last"][:i] >= g["base"][i]).tolist():
                    a, b = g[j], g[i]
                    apart = {int(x["flags"]) & (DISPATCH_SMM_ONLY | DISPATCH_NON_SMM_ONLY) for x in (a, b)}
                    if a["region"] == b["region"] or a["owner"] == b["owner"] and not same_owner or len(apart) == 2 and (
                            0 not in apart):
                        continue
                    found.append(Overlap(space, int(b["base"]), int(min(a["last"], b["last"])), priority, int(a["region"]),
                                         int(a["owner"]), int(b["region"]), int(b["owner"])))
                    if len(found) == limit:
                        return found
        return found

    def ranges(self):
        """What is mapped, by space and address: an array of ROW (kind 0 a region, 1 an alias, 2 a hole)."""
        rows = self._table()
        live = rows[rows["kind"] != KIND_DEAD]
        return live[np.lexsort((live["handle"], live["base"], live["space"]))]

    def set_policy(self, uint32_t space, uint64_t value):
        """What reads that nobody answers give in a space, from the next publication on; cut to the access's size."""
        if space >= N_SPACES:
            raise MachineError(f"there is no space {space}")
        self.fills[space] = value
        self.fills_changed = True

    # -------------------------------------------------------------- publication

    def publish(self):
        """Make the changes since the last call visible; returns the version of the table that shows them."""
        cdef uint32_t space, key, i
        cdef const row *rows
        cdef dispatch_table *t
        cdef _View view
        cdef Table made
        if self.table != NULL and None not in self.views[:N_SPACES] and not self.fills_changed:
            return self.table.version
        rows = self._at(0)
        for space in range(<uint32_t>N_SPACES):
            if self.views[space] is None:
                view = build_view(rows, self.n_rows, space)
                self.views[space | DISPATCH_SMM] = (
                    build_view(rows, self.n_rows, space | DISPATCH_SMM) if differs(rows, self.n_rows, space) else view)
                self.views[space] = view
        made = Table.__new__(Table)
        made.t = made.made = t = <dispatch_table *>calloc(1, sizeof(dispatch_table))
        if t == NULL:
            raise MemoryError("no memory for a table")
        made.views = tuple(self.views)
        t.magic = DISPATCH_MAGIC
        t.abi = DISPATCH_ABI
        t.bytes = sizeof(dispatch_table)
        self.versions += 1
        t.version = self.versions
        for i in range(self.n_rows):
            if rows[i].kind == KIND_REGION:
                t.owners = max(t.owners, <uint64_t>rows[i].owner + 1)
        for key in range(<uint32_t>DISPATCH_KEYS):
            if key & 3 < N_SPACES:
                view = self.views[key]
                view.show(&t.view[key], <uint64_t>view.block - <uint64_t>t, self.fills[key & 3])
                if not key & DISPATCH_SMM or view is not self.views[key ^ DISPATCH_SMM]:
                    t.bytes += view.size
        self.fills_changed = False
        self._show(made)
        return t.version

    cdef int _show(self, Table made) except -1:
        """Let readers find this table."""
        if self.current is not None:
            self.retired.append((self.root.version, self.current))
        self.current = made
        self.table = made.t
        store_release64(&self.root.current, <uint64_t>made.t)             # D4 pairs with D3 (dispatch_enter)
        store_release64(&self.root.version, self.root.version + 1)        # D2 pairs with D1 (dispatch_enter)
        self._reap()
        return 0

    def keep(self):
        """The map, published, for put_back().  What is changed later does not touch it."""
        self.publish()
        self.shared = True
        return (self, self.current, self.rows, self.n_rows, self.free_rows, self.by_region, self.aliases, self.views,
                (self.fills[0], self.fills[1], self.fills[2]))

    def put_back(self, kept):
        """Publish a map again that keep() gave, in microseconds: its table is still there, and keeps its version."""
        cdef Table table
        if kept[0] is not self:
            raise UsageError("the map that was kept is another one's")
        _, table, self.rows, self.n_rows, self.free_rows, self.by_region, self.aliases, self.views, fills = kept
        self.fills[0], self.fills[1], self.fills[2] = fills
        self.fills_changed = False
        self.shared = True
        self._show(table)

    def _own(self):
        """Before a change: what a kept map has, too, is copied."""
        if self.shared:
            self.rows, self.free_rows, self.by_region, self.views = (
                bytearray(self.rows), list(self.free_rows), dict(self.by_region), list(self.views))
            self.aliases = {region: list(handles) for region, handles in self.aliases.items()}
            self.shared = False

    cdef bint passed(self, uint64_t version) noexcept nogil:
        """Whether no reader can hold a table older than `version`, which is published."""
        cdef uint32_t i
        cdef uint64_t epoch
        full_fence()
        for i in range(<uint32_t>DISPATCH_READERS):
            epoch = load_acquire64(&self.root.readers[i].epoch)   # D6 pairs with D5 (dispatch_leave)
            if epoch and epoch < version:
                return False
        return True

    def _reap(self):
        """Free the tables that no reader can hold."""
        while self.retired and self.passed(self.retired[0][0] + 1):
            self.retired.pop(0)

    def wait_readers(self, double timeout=1.0):
        """Wait until every reader has passed to the current table or waits outside; False if that took too long."""
        cdef uint64_t version = self.root.version
        cdef uint32_t i
        end = time.monotonic() + timeout
        while not self.passed(version):
            with nogil:
                for i in range(64):
                    pause()
            if time.monotonic() >= end:
                return False
            time.sleep(0)
        self._reap()
        return True

    @property
    def retired_tables(self):
        """How many old tables wait for readers."""
        self._reap()
        return len(self.retired)

    def lookup(self, space, addr, smm=False):
        """Table.lookup on the current table."""
        return self.current.lookup(space, addr, smm)

    def lookup_many(self, space, addr, size=1, smm=False):
        """Table.lookup_many on the current table."""
        return self.current.lookup_many(space, addr, size, smm)

    def lookup_batch(self, acc, out=None, counters=None):
        """Table.lookup_batch on the current table."""
        return self.current.lookup_batch(acc, out, counters)

    def reader(self):
        """A Reader, for one thread that looks up while others publish."""
        return Reader(self)


@cython.final
cdef class Reader:
    """One thread's way to the current table while another thread publishes.

    Between enter() and leave() the thread holds one table, which the publisher keeps; a thread that waits for something
    leaves first.  `with reader:` does both.  At most DISPATCH_READERS at a time.
    """

    def __cinit__(self, Dispatcher owner not None):
        cdef uint32_t i
        for i in range(<uint32_t>DISPATCH_READERS):
            if not owner.root.readers[i].taken:
                owner.root.readers[i].taken = 1
                self.index = i
                self.owner = owner
                return
        raise MachineError(f"all {DISPATCH_READERS} readers of the map are taken")

    def __dealloc__(self):
        if self.owner is not None:
            dispatch_leave(self.owner.root, self.index)
            self.owner.root.readers[self.index].taken = 0

    def enter(self):
        """Take the current table (again); its version."""
        self.t = dispatch_enter(self.owner.root, self.index)
        return self.t.version

    def leave(self):
        """Hold no table."""
        self.t = NULL
        dispatch_leave(self.owner.root, self.index)

    def __enter__(self):
        self.enter()
        return self

    def __exit__(self, *exc):
        self.leave()

    def lookup_batch(self, acc, out=None, Counters counters=None):
        """Table.lookup_batch on the table held; releases the interpreter meanwhile."""
        if self.t == NULL:
            raise UsageError("the reader is outside: enter() first")
        return _lookup_batch(self.t, acc, out, counters)

    @property
    def version(self):
        """Version of the table held; None outside."""
        return None if self.t == NULL else self.t.version
