"""Rings and slots in shared memory: the verbs, as inline functions on small structs private to each process.

A ring is written by one producer and read by one consumer.  The verbs are reserve, commit (producer), peek, release
(consumer).  None blocks; waiting is engine.workers._wait.  A view holds this side's own index (the truth: the word in
shared memory is only its announcement) and the last checked value of the other side's; an index that goes backwards or
runs ahead of what is possible gives RING_BAD, is counted, and changes nothing.  Items may change under the reader's
feet: copy once (ring_copy), check the copy, use the copy.

Order on shared memory: each acquire names the release it pairs with.
    R1 commit, link_commit      A1 peek, link_peek
    R2 release                  A2 reserve
    R3 link_execute             A3 link_completed
    R4 slot_post                A4 slot_take, link_posted
    R5 slot_answer              A5 slot_poll
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine._abi cimport (ENGINE_SLOT_IN_PROCESS, ENGINE_SLOT_NONE, ENGINE_SLOT_READY, ENGINE_SLOT_RESPONSE, ENGINE_STRING,
                          engine_counters, engine_cpl, engine_effect, engine_link, engine_next, engine_rec, engine_slot,
                          engine_stamp)
from engine._atomics cimport (load_acquire32, load_acquire64, load_relaxed64, store_relaxed32, store_relaxed64,
                              store_release32, store_release64, tsc)
from engine._shm cimport Segment

cdef enum:
    RING_BAD = -1          # the other side's words are impossible

cdef enum:
    SAMPLE = 64            # both sides stamp one ring record in so many (at most one of a worker's chunk), and one synchronous access

cdef struct ring_counts:   # one side's counts; `shared` is its copy for tools, or NULL
    uint64_t full, dropped, stalled, bad
    engine_counters *shared

cdef struct ring_view:
    uint64_t *produced     # the producer's index in shared memory
    uint64_t *consumed     # the consumer's
    uint8_t *items
    uint64_t capacity      # a power of two
    uint64_t mask
    uint64_t item_size     # a multiple of 8
    uint64_t mine          # this side's own index
    uint64_t theirs        # the other side's, as last read and checked
    ring_counts *counts

cdef inline void ring_count_bad(ring_counts *c) noexcept nogil:
    c.bad += 1
    if c.shared != NULL:
        store_relaxed64(&c.shared.bad, c.bad)          # relaxed: a statistic, orders nothing

cdef inline void ring_count_full(ring_counts *c) noexcept nogil:
    c.full += 1
    if c.shared != NULL:
        store_relaxed64(&c.shared.full, c.full)

cdef inline void ring_count_stalled(ring_counts *c) noexcept nogil:
    c.stalled += 1
    if c.shared != NULL:
        store_relaxed64(&c.shared.stalled, c.stalled)

cdef inline void ring_copy(void *to, const void *source, uint64_t n) noexcept nogil:
    """Copy n bytes (a multiple of 8, both sides aligned) so that each shared word is read exactly once."""
    cdef uint64_t i
    for i in range(n >> 3):
        (<uint64_t *>to)[i] = load_relaxed64(<const uint64_t *>source + i)   # relaxed: after the acquire that found it

cdef inline void *ring_item(const ring_view *r, uint64_t k) noexcept nogil:
    """The k-th item from this side's index on: of those reserved (producer) or peeked (consumer)."""
    return r.items + ((r.mine + k) & r.mask) * r.item_size

cdef inline int64_t ring_reserve(ring_view *r, uint64_t n) noexcept nogil:
    """Burst: how many of n items may be written now, or RING_BAD."""
    cdef uint64_t room = r.capacity - (r.mine - r.theirs), c
    if room < n:
        c = load_acquire64(r.consumed)                 # A2 pairs with R2 (ring_release)
        if c - r.theirs > r.mine - r.theirs:
            ring_count_bad(r.counts)
            return RING_BAD
        r.theirs = c
        room = r.capacity - (r.mine - c)
        if room < n:
            ring_count_full(r.counts)
            return <int64_t>room
    return <int64_t>n

cdef inline int64_t ring_reserve_bulk(ring_view *r, uint64_t n) noexcept nogil:
    """Bulk: n if n items may be written now, else 0; or RING_BAD."""
    cdef int64_t got = ring_reserve(r, n)
    return got if got < 0 or <uint64_t>got == n else 0

cdef inline void ring_commit(ring_view *r, uint64_t n) noexcept nogil:
    """Publish the first n reserved items."""
    r.mine += n
    store_release64(r.produced, r.mine)                # R1 pairs with A1 (ring_peek)

cdef inline int64_t ring_peek(ring_view *r, uint64_t n) noexcept nogil:
    """Burst: how many of n items may be read now, or RING_BAD.  Looks at shared memory only if it knows of fewer."""
    cdef uint64_t have = r.theirs - r.mine, p
    if have < n:
        p = load_acquire64(r.produced)                 # A1 pairs with R1 (ring_commit)
        if p - r.theirs > r.capacity - have:
            ring_count_bad(r.counts)
            return RING_BAD
        r.theirs = p
        have = p - r.mine
        if have < n:
            return <int64_t>have
    return <int64_t>n

cdef inline int64_t ring_peek_bulk(ring_view *r, uint64_t n) noexcept nogil:
    """Bulk: n if n items may be read now, else 0; or RING_BAD."""
    cdef int64_t got = ring_peek(r, n)
    return got if got < 0 or <uint64_t>got == n else 0

cdef inline void ring_release(ring_view *r, uint64_t n) noexcept nogil:
    """Give the first n peeked items back to the producer."""
    r.mine += n
    store_release64(r.consumed, r.mine)                # R2 pairs with A2 (ring_reserve)


# ---- A link: one router, one worker ----
# Request and completion rings share their indices.  The router alone decides what may be overwritten: `kept` follows
# `seen`, or stays behind it until a checkpoint says so.

cdef enum:
    LINK_ROUTER = 0
    LINK_WORKER = 1

cdef struct link_view:
    engine_link *hdr
    uint32_t n_vcpus
    uint32_t n_units
    ring_view requests      # mine: produced (router) or executed (worker)
    ring_view effects       # mine: consumed (router) or produced (worker)
    uint64_t executed       # router: the worker's, as last read and checked
    uint64_t seen           # router: completions before this have been read
    uint64_t kept           # router: records before this may be overwritten
    uint32_t keeping        # router: not 0: `kept` waits for link_checkpoint
    uint64_t posted         # router: own; worker: as last read by link_posted
    uint64_t answered       # worker: own
    engine_cpl *completions
    engine_slot *slots
    uint64_t *deadlines
    engine_stamp *stamps    # NULL: not stamped
    uint32_t *slot_state    # private: this side's opinion of each slot
    ring_counts counts

# Strings: the records that follow one with `more` (engine_next) and their answers

cdef inline uint64_t link_block(const link_view *l, uint64_t index) noexcept nogil:
    """Slots from an index to the end of its block: a string lies in one, so that it is published, read and answered whole."""
    cdef uint64_t block = min(<uint64_t>ENGINE_STRING, l.requests.capacity)
    return block - (index & (block - 1))

cdef inline uint64_t string_slots(uint64_t more) noexcept nogil:
    """How many slots `more` accesses take."""
    return (more + 1) >> 1

cdef inline engine_next *link_next(link_view *l, uint64_t k) noexcept nogil:
    """What lies in the k-th slot and those behind it in its block."""
    return <engine_next *>link_request(l, k)

cdef inline uint64_t *link_answers(link_view *l, uint64_t index) noexcept nogil:
    """The answers in the completion of that index and those behind it in its block, each an engine_next_cpl in one word."""
    return <uint64_t *>&l.completions[index & l.requests.mask]

# Router: records

cdef inline int64_t link_reserve(link_view *l, uint64_t n) noexcept nogil:
    """Burst: how many of n records may be written now.  Never bad: the answer is the router's own."""
    cdef uint64_t room = l.requests.capacity - (l.requests.mine - l.kept)
    if room < n:
        ring_count_full(&l.counts)
        return <int64_t>room
    return <int64_t>n

cdef inline engine_rec *link_request(link_view *l, uint64_t k) noexcept nogil:
    """The k-th reserved record, to be filled; the worker's k-th peeked one."""
    return <engine_rec *>l.requests.items + ((l.requests.mine + k) & l.requests.mask)

cdef inline uint64_t link_commit(link_view *l, uint64_t n) noexcept nogil:
    """Publish the first n reserved records; the index of the first.  Then wake the worker (engine.workers._wait)."""
    cdef uint64_t first = l.requests.mine
    ring_commit(&l.requests, n)                        # R1 pairs with A1 (link_peek)
    return first

cdef inline int64_t link_completed(link_view *l, uint64_t n) noexcept nogil:
    """Burst: how many of n completions may be read now, or RING_BAD."""
    cdef uint64_t e
    if <int64_t>(l.executed - l.seen) < <int64_t>n:
        e = load_acquire64(&l.hdr.executed)            # A3 pairs with R3 (link_execute)
        if e - l.executed > l.requests.mine - l.executed:
            ring_count_bad(&l.counts)
            return RING_BAD
        l.executed = e
    if <int64_t>(l.executed - l.seen) <= 0:            # below 0 while a restarted worker repeats what was seen
        return 0
    return <int64_t>(l.executed - l.seen) if l.executed - l.seen < n else <int64_t>n

cdef inline int link_completion(link_view *l, uint64_t k, engine_cpl *out) noexcept nogil:
    """Copy the k-th completion that may be read.  0, or RING_BAD if it is not the answer to that record."""
    ring_copy(out, &l.completions[(l.seen + k) & l.requests.mask], sizeof(engine_cpl))
    if out.seq != <uint32_t>(l.seen + k):
        ring_count_bad(&l.counts)
        return RING_BAD
    return 0

cdef inline void link_seen(link_view *l, uint64_t n) noexcept nogil:
    """The first n completions have been read; their records may be overwritten unless they are being kept."""
    l.seen += n
    store_relaxed64(&l.hdr.seen, l.seen)               # relaxed: for recovery after this process stopped writing
    if not l.keeping:
        l.kept = l.seen
        store_relaxed64(&l.hdr.kept, l.kept)           # relaxed, same reason

cdef inline void link_checkpoint(link_view *l, uint64_t index) noexcept nogil:
    """Records before `index` (at most `seen`) will never be replayed: a checkpoint covers them."""
    if index - l.kept <= l.seen - l.kept:
        l.kept = index
        store_relaxed64(&l.hdr.kept, l.kept)           # relaxed, same reason

# Worker: records

cdef inline int64_t link_peek(link_view *l, uint64_t n) noexcept nogil:
    """Burst: how many of n records may be read now, or RING_BAD."""
    return ring_peek(&l.requests, n)                   # A1 pairs with R1 (link_commit)

cdef inline void link_take(link_view *l, uint64_t k, engine_rec *out) noexcept nogil:
    """Copy the k-th peeked record.  The copy is what must be checked and used."""
    ring_copy(out, link_request(l, k), sizeof(engine_rec))

cdef inline void link_answer(link_view *l, uint64_t k, uint64_t value, uint32_t status, uint32_t flags) noexcept nogil:
    """Write the completion of the k-th peeked record; valid once link_execute passed it."""
    cdef uint64_t i = l.requests.mine + k
    cdef engine_cpl *c = &l.completions[i & l.requests.mask]
    c.value = value
    (<uint64_t *>c)[1] = <uint32_t>i | <uint64_t>(status & 0xff) << 32 | <uint64_t>(flags & 0xff) << 40   # seq, status, flags: one store

cdef inline void link_stamp(link_view *l, uint64_t k, uint64_t taken) noexcept nogil:
    """Stamp the k-th peeked record as done now, if the link is stamped."""
    cdef engine_stamp *s
    if l.stamps != NULL:
        s = &l.stamps[(l.requests.mine + k) & l.requests.mask]
        s.taken = taken
        s.done = tsc()

cdef inline void slot_stamp(link_view *l, uint32_t vcpu, uint64_t taken) noexcept nogil:
    """The same for the access in process in a synchronous slot."""
    cdef engine_stamp *s
    if l.stamps != NULL:
        s = &l.stamps[l.requests.capacity + vcpu]
        s.taken = taken
        s.done = tsc()

cdef inline void link_execute(link_view *l, uint64_t n) noexcept nogil:
    """Publish the first n completions (and the effects and deadlines written before).  Then wake the router."""
    l.requests.mine += n
    store_release64(&l.hdr.executed, l.requests.mine)  # R3 pairs with A3 (link_completed)

cdef inline void link_deadline(link_view *l, uint32_t unit, uint64_t t_ns) noexcept nogil:
    """Publish a unit's next deadline; readers see it with the link_execute or slot_answer that follows."""
    store_relaxed64(&l.deadlines[unit], t_ns)          # relaxed: published by R3 or R5

cdef inline uint64_t link_read_deadline(const link_view *l, uint32_t unit) noexcept nogil:
    """Router: a unit's deadline as of the last link_completed or slot_poll.  Any value is possible from a bad worker."""
    return load_relaxed64(&l.deadlines[unit])

# Synchronous slots: one outstanding access per vCPU

cdef inline int slot_fill(link_view *l, uint32_t vcpu, const engine_rec *rec, uint64_t after) noexcept nogil:
    """Router: post one access to a worker that watches the slots themselves.  `after`: ring records before this index
    execute first.  0, or RING_BAD if one is out.  Then wake the worker."""
    cdef engine_slot *s = &l.slots[vcpu]
    if l.slot_state[vcpu] != ENGINE_SLOT_NONE:
        return RING_BAD
    s.rec = rec[0]
    s.after = after
    l.slot_state[vcpu] = ENGINE_SLOT_READY
    store_release32(&s.state, ENGINE_SLOT_READY)       # R4 pairs with A4 (slot_take)
    l.posted += 1
    return 0

cdef inline int slot_post(link_view *l, uint32_t vcpu, const engine_rec *rec, uint64_t after) noexcept nogil:
    """The same, announced in `posted` for a worker that watches this one word."""
    if slot_fill(l, vcpu, rec, after) < 0:
        return RING_BAD
    store_release64(&l.hdr.posted, l.posted)           # R4 pairs with A4 (link_posted)
    return 0

cdef inline int slot_poll(link_view *l, uint32_t vcpu, uint64_t *value, uint32_t *status) noexcept nogil:
    """Router: 1 and the answer once it is there (the slot is free again), 0 before, RING_BAD if the state went wrong."""
    cdef engine_slot *s = &l.slots[vcpu]
    cdef uint32_t st = load_acquire32(&s.state)        # A5 pairs with R5 (slot_answer)
    if st == ENGINE_SLOT_RESPONSE and l.slot_state[vcpu] != ENGINE_SLOT_NONE:
        value[0] = load_relaxed64(&s.value)
        status[0] = <uint32_t>load_relaxed64(<uint64_t *>&s.status)
        l.slot_state[vcpu] = ENGINE_SLOT_NONE          # the shared state stays RESPONSE: storing NONE moves the line once more
        return 1
    if st < l.slot_state[vcpu] or st > ENGINE_SLOT_IN_PROCESS or l.slot_state[vcpu] == ENGINE_SLOT_NONE:
        ring_count_bad(&l.counts)
        return RING_BAD
    l.slot_state[vcpu] = st                            # READY -> IN_PROCESS: it may not go back
    return 0

cdef inline bint link_posted(link_view *l) noexcept nogil:
    """Worker: has a synchronous access been posted since the last call?  Then look at the slots."""
    cdef uint64_t p = load_acquire64(&l.hdr.posted)    # A4 pairs with R4 (slot_post)
    if p == l.posted:
        return False
    l.posted = p                                       # a hint only: a wrong one costs a look at the slots
    return True

cdef inline int _slot_take(link_view *l, uint32_t vcpu, uint32_t state, engine_rec *out, uint64_t *after) noexcept nogil:
    cdef engine_slot *s = &l.slots[vcpu]
    if load_acquire32(&s.state) != state:              # A4 pairs with R4 (slot_post)
        return 0
    ring_copy(out, &s.rec, sizeof(engine_rec))
    after[0] = load_relaxed64(&s.after)                # relaxed: after A4
    if <int64_t>(after[0] - l.requests.theirs) > 0 and (
            ring_peek(&l.requests, l.requests.capacity) < 0 or <int64_t>(after[0] - l.requests.theirs) > 0):
        ring_count_bad(&l.counts)
        return RING_BAD
    l.slot_state[vcpu] = ENGINE_SLOT_IN_PROCESS
    store_release32(&s.state, ENGINE_SLOT_IN_PROCESS)  # for the router's eyes only; release costs nothing on x86
    return 1

cdef inline int slot_take(link_view *l, uint32_t vcpu, engine_rec *out, uint64_t *after) noexcept nogil:
    """Worker: 1 and a copy of the access if one is posted (now in process), 0 if not, RING_BAD if impossible.

    The caller executes ring records until l.requests.mine reaches `after` (checked: those records are there), then
    the access, then slot_answer.
    """
    return _slot_take(l, vcpu, ENGINE_SLOT_READY, out, after)

cdef inline int slot_retake(link_view *l, uint32_t vcpu, engine_rec *out, uint64_t *after) noexcept nogil:
    """Worker that replaces a dead one: the same for an access its predecessor took and did not answer."""
    return _slot_take(l, vcpu, ENGINE_SLOT_IN_PROCESS, out, after)

cdef inline void slot_answer(link_view *l, uint32_t vcpu, uint64_t value, uint32_t status) noexcept nogil:
    """Worker: answer the access in process; status = ENGINE_IO_* | flags << 8.  Then wake the router."""
    cdef engine_slot *s = &l.slots[vcpu]
    s.value = value
    s.status = status
    l.slot_state[vcpu] = ENGINE_SLOT_NONE
    store_release32(&s.state, ENGINE_SLOT_RESPONSE)    # R5 pairs with A5 (slot_poll)
    l.answered += 1
    store_release64(&l.hdr.answered, l.answered)

# Effects, worker -> router, are a plain ring: ring_reserve / ring_item / ring_commit on l.effects by the worker,
# ring_peek / ring_copy / ring_release by the router.

cdef inline void link_heartbeat(link_view *l) noexcept nogil:
    """Worker: I am alive; at least once each 50 ms."""
    store_relaxed64(&l.hdr.heartbeat, load_relaxed64(&l.hdr.heartbeat) + 1)   # relaxed: looked at, never ordered by


cdef class Link:
    """One side of a link.  One thread owns it."""
    cdef link_view v
    cdef readonly Segment segment
    cdef readonly uint32_t role
    cdef _bad(self, what)

cdef class Ring:
    """One side of a single ring.  One thread owns it."""
    cdef ring_view v
    cdef ring_counts counts
    cdef readonly Segment segment
    cdef readonly object dtype
    cdef readonly bint producer
    cdef uint64_t granted          # reserved or peeked and not yet committed or released
    cdef object _items
    cdef tuple _views(self, uint64_t n)
