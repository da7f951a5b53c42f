"""Rings and links as Python objects: creation, checked attachment, and the verbs for tests, tools and slow paths.

The fast verbs are the inline functions of _ring.pxd.  Nothing here blocks.  One thread owns one side; the other side is
not trusted, and what it got wrong raises RingError.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from engine._abi cimport *
from engine._atomics cimport (exchange32, full_fence, futex_wake, load_acquire64, load_relaxed32, load_relaxed64,
                              store_relaxed32, store_release64)
from engine._shm cimport Segment

import numpy as np

from engine._abi import CPL, EFFECT, REC
from engine.errors import RingError

ROUTER, WORKER = LINK_ROUTER, LINK_WORKER

STAMP = np.dtype([("taken", "<u8"), ("done", "<u8")])

# Upper limits of geometry, so that no sum of section sizes can overflow 64 bits.
_MAX_LOG2, _MAX_VCPUS, _MAX_UNITS = 24, 4096, 1 << 20
_ring_token = object()


def _log2(n, what):
    if n < 1 or n & (n - 1) or n > 1 << _MAX_LOG2:
        raise RingError(f"{what}: {n} is not a power of two up to {1 << _MAX_LOG2}")
    return n.bit_length() - 1


def link_layout(n_vcpus, n_units, request_log2, effect_log2, stamped):
    """Offsets of a link's sections, each on a page of its own, and "size", the whole.  Both sides compute it."""
    if not (1 <= n_vcpus <= _MAX_VCPUS and 0 <= n_units <= _MAX_UNITS and request_log2 <= _MAX_LOG2
            and effect_log2 <= _MAX_LOG2):
        raise RingError(f"link: impossible geometry: {n_vcpus} vCPUs, {n_units} units, 2^{request_log2} records, "
                        f"2^{effect_log2} effects")
    at, layout = ENGINE_LINK_HEADER, {}
    for name, n in (("slots", n_vcpus * sizeof(engine_slot)),
                    ("requests", sizeof(engine_rec) << request_log2),
                    ("completions", sizeof(engine_cpl) << request_log2),
                    ("effects", sizeof(engine_effect) << effect_log2),
                    ("deadlines", 8 * n_units),
                    ("stamps", sizeof(engine_stamp) * ((1 << request_log2) + n_vcpus) if stamped else 0)):
        layout[name] = at
        at += (n + 4095) & ~4095
    if not stamped:
        layout["stamps"] = 0
    layout["size"] = at
    return layout


cdef class Link:
    """One side of a link between a router and a worker.

    `Link.create(...)` in the process that plans the link, `Link.attach(fd, role)` in the other.  The Python methods are
    for tests and tools; routers and workers use `v` with the functions of _ring.pxd.
    """

    def __init__(self, token=None):
        if token is not _ring_token:
            raise TypeError("Link is made by Link.create or Link.attach")

    def __dealloc__(self):
        free(self.v.slot_state)

    @staticmethod
    def create(*, str name="link", uint32_t role=LINK_ROUTER, n_vcpus=1, n_units=0, requests=4096, effects=4096,
               bint stamped=False, bint prefault=True, bint huge=False):
        """Make a link.  requests, effects: capacities, powers of two."""
        cdef Segment s
        cdef engine_link *h
        request_log2, effect_log2 = _log2(requests, f"link {name!r}: requests"), _log2(effects, f"link {name!r}: effects")
        at = link_layout(n_vcpus, n_units, request_log2, effect_log2, stamped)
        s = Segment.create(name, at["size"], ENGINE_SEGMENT_LINK, header_size=ENGINE_LINK_HEADER, prefault=prefault,
                           huge=huge)
        h = <engine_link *>s.mem
        h.n_vcpus = n_vcpus
        h.n_units = n_units
        h.request_log2 = request_log2
        h.effect_log2 = effect_log2
        h.slots_at = at["slots"]
        h.requests_at = at["requests"]
        h.completions_at = at["completions"]
        h.effects_at = at["effects"]
        h.deadlines_at = at["deadlines"]
        h.stamps_at = at["stamps"]
        memset(s.mem + <size_t>at["deadlines"], 0xFF, 8 * n_units)      # NEVER
        return Link._over(s, role)

    @staticmethod
    def attach(int fd, uint32_t role=LINK_WORKER):
        """Map a link made elsewhere and check all of its header; continues where the side's last holder stopped."""
        return Link._over(Segment.attach(fd, ENGINE_SEGMENT_LINK), role)

    @staticmethod
    def _over(Segment s, uint32_t role):
        cdef Link self = Link(_ring_token)
        cdef engine_link h
        cdef link_view *v = &self.v
        if role not in (LINK_ROUTER, LINK_WORKER):
            raise RingError(f"link {s.name!r}: role {role} is neither ROUTER nor WORKER")
        if s.size < sizeof(engine_link):
            raise RingError(f"link {s.name!r}: {s.size} bytes cannot hold the header")
        ring_copy(&h, s.mem, sizeof(engine_link))
        at = link_layout(h.n_vcpus, h.n_units, h.request_log2, h.effect_log2, h.stamps_at != 0)
        found = {"slots": h.slots_at, "requests": h.requests_at, "completions": h.completions_at,
                 "effects": h.effects_at, "deadlines": h.deadlines_at, "stamps": h.stamps_at,
                 "size": s.size}
        for key in found:
            if found[key] != at[key]:
                raise RingError(f"link {s.name!r}: {key} is {found[key]:#x}, its geometry gives {at[key]:#x}")
        capacity = 1 << h.request_log2
        if not (h.produced - h.kept <= <uint64_t>capacity and h.seen - h.kept <= h.produced - h.kept
                and h.executed - h.kept <= h.produced - h.kept
                and h.effects_produced - h.effects_consumed <= <uint64_t>1 << h.effect_log2):
            raise RingError(f"link {s.name!r}: impossible indices: produced {h.produced}, executed {h.executed}, "
                            f"seen {h.seen}, kept {h.kept}, effects {h.effects_produced} and {h.effects_consumed}")
        self.segment = s
        self.role = role
        v.hdr = <engine_link *>s.mem
        v.n_vcpus = h.n_vcpus
        v.n_units = h.n_units
        v.slot_state = <uint32_t *>calloc(h.n_vcpus, sizeof(uint32_t))
        if v.slot_state == NULL:
            raise MemoryError()
        v.slots = <engine_slot *>(s.mem + h.slots_at)
        v.completions = <engine_cpl *>(s.mem + h.completions_at)
        v.deadlines = <uint64_t *>(s.mem + h.deadlines_at)
        v.stamps = <engine_stamp *>(s.mem + h.stamps_at) if h.stamps_at else NULL
        v.counts.shared = &v.hdr.router if role == LINK_ROUTER else &v.hdr.worker
        v.counts.full, v.counts.dropped = v.counts.shared.full, v.counts.shared.dropped
        v.counts.stalled, v.counts.bad = v.counts.shared.stalled, v.counts.shared.bad
        v.requests.produced = &v.hdr.produced
        v.requests.consumed = &v.hdr.executed
        v.requests.items = s.mem + h.requests_at
        v.requests.capacity = capacity
        v.requests.mask = capacity - 1
        v.requests.item_size = sizeof(engine_rec)
        v.requests.counts = &v.counts
        v.effects.produced = &v.hdr.effects_produced
        v.effects.consumed = &v.hdr.effects_consumed
        v.effects.items = s.mem + h.effects_at
        v.effects.capacity = <uint64_t>1 << h.effect_log2
        v.effects.mask = v.effects.capacity - 1
        v.effects.item_size = sizeof(engine_effect)
        v.effects.counts = &v.counts
        v.executed = h.executed
        v.seen = h.seen
        v.kept = h.kept
        if role == LINK_ROUTER:
            v.requests.mine, v.requests.theirs = h.produced, h.executed
            v.effects.mine, v.effects.theirs = h.effects_consumed, h.effects_consumed
            v.posted = h.posted
            for i in range(h.n_vcpus):
                v.slot_state[i] = v.slots[i].state
                if v.slot_state[i] > ENGINE_SLOT_IN_PROCESS:       # answered: nothing is out
                    v.slot_state[i] = ENGINE_SLOT_NONE
        else:
            v.requests.mine, v.requests.theirs = h.executed, h.executed
            v.effects.mine, v.effects.theirs = h.effects_produced, h.effects_consumed
            v.answered = h.answered
            v.posted = h.posted - 1     # look at the slots once
        return self

    @property
    def n_vcpus(self):
        return self.v.n_vcpus

    @property
    def n_units(self):
        return self.v.n_units

    @property
    def capacity(self):
        return self.v.requests.capacity

    @property
    def indices(self):
        """produced, executed, seen, kept, posted, answered, and the effects' two, as this moment's shared words."""
        self.segment.check()
        cdef engine_link *h = self.v.hdr
        return {"produced": load_relaxed64(&h.produced), "executed": load_relaxed64(&h.executed),
                "seen": load_relaxed64(&h.seen), "kept": load_relaxed64(&h.kept),
                "posted": load_relaxed64(&h.posted), "answered": load_relaxed64(&h.answered),
                "effects_produced": load_relaxed64(&h.effects_produced),
                "effects_consumed": load_relaxed64(&h.effects_consumed)}

    @property
    def counters(self):
        """This side's own counts."""
        return {"full": self.v.counts.full, "dropped": self.v.counts.dropped, "stalled": self.v.counts.stalled,
                "bad": self.v.counts.bad}

    def _role(self, uint32_t role):
        self.segment.check()
        if self.role != role:
            raise RingError(f"link {self.segment.name!r}: only the {'router' if role == LINK_ROUTER else 'worker'} may do this")

    cdef _bad(self, what):
        return RingError(f"link {self.segment.name!r}: impossible {what}: the "
                         f"{'worker' if self.role == LINK_ROUTER else 'router'} is broken or hostile")

    # Router

    def push(self, records):
        """Write as many REC records as fit and publish them; how many."""
        cdef const uint8_t[::1] data
        cdef int64_t n, i
        self._role(LINK_ROUTER)
        records = np.ascontiguousarray(records, REC)
        if not len(records):
            return 0
        data = records.view(np.uint8)
        n = link_reserve(&self.v, len(records))
        for i in range(n):
            link_request(&self.v, i)[0] = (<const engine_rec *>&data[0])[i]
        if n:
            link_commit(&self.v, n)
        return n

    def completions(self, max_n=None):
        """The completions that are there, in order, as a CPL array."""
        cdef uint8_t[::1] data
        cdef int64_t n, i
        self._role(LINK_ROUTER)
        n = link_completed(&self.v, self.v.requests.capacity if max_n is None else max_n)
        if n < 0:
            raise self._bad("executed index")
        out = np.empty(n, CPL)
        if n:
            data = out.view(np.uint8)
            for i in range(n):
                if link_completion(&self.v, i, <engine_cpl *>&data[0] + i) < 0:
                    raise self._bad(f"completion of record {self.v.seen + i}")
            link_seen(&self.v, n)
        return out

    def effects(self, max_n=None):
        """The effects that are there, in order, as an EFFECT array."""
        cdef uint8_t[::1] data
        cdef int64_t n, i
        self._role(LINK_ROUTER)
        n = ring_peek(&self.v.effects, self.v.effects.capacity if max_n is None else max_n)
        if n < 0:
            raise self._bad("effect index")
        out = np.empty(n, EFFECT)
        if n:
            data = out.view(np.uint8)
            for i in range(n):
                ring_copy(<engine_effect *>&data[0] + i, ring_item(&self.v.effects, i), sizeof(engine_effect))
            ring_release(&self.v.effects, n)
        return out

    def post(self, uint32_t vcpu, record, after=None):
        """Post one synchronous access (a REC record); it executes after all ring records, or those before `after`."""
        cdef const uint8_t[::1] data
        self._role(LINK_ROUTER)
        data = np.ascontiguousarray(record, REC).reshape(1).view(np.uint8)
        if vcpu >= self.v.n_vcpus:
            raise RingError(f"link {self.segment.name!r}: vCPU {vcpu} of {self.v.n_vcpus}")
        if slot_post(&self.v, vcpu, <const engine_rec *>&data[0],
                     self.v.requests.mine if after is None else after) < 0:
            raise RingError(f"link {self.segment.name!r}: vCPU {vcpu} already has an access out")

    def poll(self, uint32_t vcpu):
        """(value, status) of the access posted, or None while it is out."""
        cdef uint64_t value = 0
        cdef uint32_t status = 0
        cdef int st
        self._role(LINK_ROUTER)
        if vcpu >= self.v.n_vcpus:
            raise RingError(f"link {self.segment.name!r}: vCPU {vcpu} of {self.v.n_vcpus}")
        st = slot_poll(&self.v, vcpu, &value, &status)
        if st < 0:
            raise self._bad(f"state of slot {vcpu}")
        return (value, status) if st else None

    def deadlines(self):
        """Each unit's published deadline."""
        cdef uint32_t i
        self.segment.check()
        return [link_read_deadline(&self.v, i) for i in range(self.v.n_units)]

    def keep(self, bint on):
        """Keep records that were seen until checkpoint() says that they are not needed."""
        self._role(LINK_ROUTER)
        self.v.keeping = on

    def checkpoint(self, uint64_t index):
        """Records before index are needed no more."""
        self._role(LINK_ROUTER)
        if index - self.v.kept > self.v.seen - self.v.kept:
            raise RingError(f"link {self.segment.name!r}: checkpoint {index} is outside {self.v.kept} to {self.v.seen}")
        link_checkpoint(&self.v, index)

    def rewind(self):
        """While no worker runs: let the next worker execute again from `kept` on; what was seen is not shown twice.

        Effects that are in the ring are dropped (the next worker makes them again).
        """
        self._role(LINK_ROUTER)
        self.v.executed = self.v.kept
        self.v.requests.theirs = self.v.kept
        store_release64(&self.v.hdr.executed, self.v.kept)
        self.v.effects.theirs = self.v.effects.mine
        store_release64(&self.v.hdr.effects_produced, self.v.effects.mine)
        return self.v.kept

    def stop(self, uint32_t word=1):
        """Ask the worker to leave its loop, and wake it: 1 to end, 2 to look at its control socket, 0 takes it back."""
        self.segment.check()
        store_relaxed32(&self.v.hdr.stop, word)
        full_fence()                    # as in engine.workers._wait.wake
        if exchange32(&self.v.hdr.worker_asleep, 0):
            futex_wake(&self.v.hdr.worker_asleep, 1)

    # Worker

    def take(self, max_n=None):
        """Copies of the records that can be read, as a REC array.  answer() them, then execute(n)."""
        cdef uint8_t[::1] data
        cdef int64_t n, i
        self._role(LINK_WORKER)
        n = link_peek(&self.v, self.v.requests.capacity if max_n is None else max_n)
        if n < 0:
            raise self._bad("produced index")
        out = np.empty(n, REC)
        if n:
            data = out.view(np.uint8)
            for i in range(n):
                link_take(&self.v, i, <engine_rec *>&data[0] + i)
        return out

    def answer(self, values, status=0, flags=0):
        """Complete the first len(values) records taken."""
        cdef const uint64_t[::1] v = np.ascontiguousarray(values, np.uint64)
        cdef const uint32_t[::1] s = np.ascontiguousarray(np.broadcast_to(np.asarray(status, np.uint32), (len(v),)))
        cdef uint32_t f = flags
        cdef Py_ssize_t i
        self._role(LINK_WORKER)
        if <uint64_t>len(v) > self.v.requests.theirs - self.v.requests.mine:
            raise RingError(f"link {self.segment.name!r}: {len(v)} answers for "
                            f"{self.v.requests.theirs - self.v.requests.mine} records taken")
        for i in range(v.shape[0]):
            link_answer(&self.v, i, v[i], s[i], f)
        link_execute(&self.v, len(v))

    def emit(self, effects):
        """Write as many EFFECT records as fit and publish them; how many."""
        cdef const uint8_t[::1] data
        cdef int64_t n, i
        self._role(LINK_WORKER)
        effects = np.ascontiguousarray(effects, EFFECT)
        if not len(effects):
            return 0
        n = ring_reserve(&self.v.effects, len(effects))
        if n < 0:
            raise self._bad("consumed index of effects")
        data = effects.view(np.uint8)
        for i in range(n):
            (<engine_effect *>ring_item(&self.v.effects, i))[0] = (<const engine_effect *>&data[0])[i]
        if n:
            ring_commit(&self.v.effects, n)
        return n

    def any_posted(self):
        """Has an access been posted in any slot since the last call?"""
        self._role(LINK_WORKER)
        return bool(link_posted(&self.v))

    def take_posted(self, uint32_t vcpu, bint again=False):
        """(REC record, after) of the access posted in a vCPU's slot, or None.  again: one a dead worker had taken."""
        cdef uint8_t[::1] data
        cdef uint64_t after = 0
        cdef int st
        self._role(LINK_WORKER)
        if vcpu >= self.v.n_vcpus:
            raise RingError(f"link {self.segment.name!r}: vCPU {vcpu} of {self.v.n_vcpus}")
        out = np.empty(1, REC)
        data = out.view(np.uint8)
        if again:
            st = slot_retake(&self.v, vcpu, <engine_rec *>&data[0], &after)
        else:
            st = slot_take(&self.v, vcpu, <engine_rec *>&data[0], &after)
        if st < 0:
            raise self._bad(f"order of slot {vcpu}")
        return (out[0], after) if st else None

    def answer_posted(self, uint32_t vcpu, uint64_t value, uint32_t status=0):
        """Answer the access taken from a slot."""
        self._role(LINK_WORKER)
        if vcpu >= self.v.n_vcpus or self.v.slot_state[vcpu] != ENGINE_SLOT_IN_PROCESS:
            raise RingError(f"link {self.segment.name!r}: slot {vcpu} has no access in process")
        slot_answer(&self.v, vcpu, value, status)

    def deadline(self, uint32_t unit, uint64_t t_ns):
        """Publish a unit's next deadline, seen with the answer() that follows."""
        self._role(LINK_WORKER)
        if unit >= self.v.n_units:
            raise RingError(f"link {self.segment.name!r}: unit {unit} of {self.v.n_units}")
        link_deadline(&self.v, unit, t_ns)

    @property
    def stopping(self):
        self.segment.check()
        return load_relaxed32(&self.v.hdr.stop) != 0


cdef class Ring:
    """One side of a single ring of structured items: `Ring.create(dtype, capacity)`, `Ring.attach(fd, dtype)`.

    Producer: `for view in ring.reserve(n)` gives one or two NumPy views to fill (two where the ring wraps), then
    `commit(n)`.  Consumer: `peek(n)` gives views, read-only, of memory that a hostile producer may still change, then
    `release(n)`.  `push` and `pop` copy.
    """

    def __init__(self, token=None):
        if token is not _ring_token:
            raise TypeError("Ring is made by Ring.create or Ring.attach")

    @staticmethod
    def create(dtype, capacity, *, str name="ring", bint producer=True, start=0, bint prefault=False):
        """Make a ring of `capacity` (a power of two) items.  start: first index, for tests of wrap-around."""
        cdef Segment s
        cdef engine_ring *h
        dtype = np.dtype(dtype)
        log2 = _log2(capacity, f"ring {name!r}")
        if not 0 < dtype.itemsize <= 1 << 20 or dtype.itemsize % 8:
            raise RingError(f"ring {name!r}: items of {dtype.itemsize} bytes; a multiple of 8 is needed")
        s = Segment.create(name, 4096 + (dtype.itemsize << log2), ENGINE_SEGMENT_RING, header_size=4096,
                           prefault=prefault)
        h = <engine_ring *>s.mem
        h.item_size = dtype.itemsize
        h.log2 = log2
        h.produced = h.consumed = start
        return Ring._over(s, dtype, producer)

    @staticmethod
    def attach(int fd, dtype, *, bint producer=False):
        """Map a ring made elsewhere and check its header; continues where the side's last holder stopped."""
        return Ring._over(Segment.attach(fd, ENGINE_SEGMENT_RING), np.dtype(dtype), producer)

    @staticmethod
    def _over(Segment s, dtype, bint producer):
        cdef Ring self = Ring(_ring_token)
        cdef engine_ring h
        ring_copy(&h, s.mem, sizeof(engine_ring))
        if h.item_size != dtype.itemsize:
            raise RingError(f"ring {s.name!r}: items of {h.item_size} bytes, expected {dtype.itemsize}")
        if h.log2 > _MAX_LOG2 or s.size < 4096 + (<uint64_t>h.item_size << h.log2) or h.segment.header_size != 4096:
            raise RingError(f"ring {s.name!r}: 2^{h.log2} items of {h.item_size} bytes do not fit {s.size} bytes")
        if h.produced - h.consumed > <uint64_t>1 << h.log2:
            raise RingError(f"ring {s.name!r}: impossible indices: produced {h.produced}, consumed {h.consumed}")
        self.segment = s
        self.dtype = dtype
        self.producer = producer
        self.counts.shared = &(<engine_ring *>s.mem).producer if producer else &(<engine_ring *>s.mem).consumer
        self.v.counts = &self.counts
        self.v.produced = &(<engine_ring *>s.mem).produced
        self.v.consumed = &(<engine_ring *>s.mem).consumed
        self.v.items = s.mem + 4096
        self.v.capacity = <uint64_t>1 << h.log2
        self.v.mask = self.v.capacity - 1
        self.v.item_size = h.item_size
        self.v.mine = h.produced if producer else h.consumed
        self.v.theirs = h.consumed
        self._items = np.frombuffer(s, dtype, count=self.v.capacity, offset=4096)
        return self

    @property
    def capacity(self):
        return self.v.capacity

    @property
    def index(self):
        """This side's own index."""
        return self.v.mine

    @property
    def counters(self):
        return {"full": self.counts.full, "dropped": self.counts.dropped, "stalled": self.counts.stalled,
                "bad": self.counts.bad}

    def _side(self, bint producer):
        self.segment.check()
        if self.producer != producer:
            raise RingError(f"ring {self.segment.name!r}: only the {'producer' if producer else 'consumer'} may do this")

    cdef tuple _views(self, uint64_t n):
        cdef uint64_t first = self.v.mine & self.v.mask, head = min(n, self.v.capacity - first)
        self.granted = n
        if n == 0:
            return ()
        items = self._items
        if not self.producer:
            items = items.view()
            items.flags.writeable = False
        if head == n:
            return (items[first:first + n],)
        return (items[first:], items[:n - head])

    def reserve(self, uint64_t n, *, bint bulk=False):
        """Views of up to n free items (bulk: n or none), to be filled in order."""
        cdef int64_t got
        self._side(True)
        got = ring_reserve_bulk(&self.v, n) if bulk else ring_reserve(&self.v, n)
        if got < 0:
            raise RingError(f"ring {self.segment.name!r}: impossible consumed index {load_acquire64(self.v.consumed)} "
                            f"(produced {self.v.mine}): the consumer is broken or hostile")
        return self._views(got)

    def commit(self, uint64_t n):
        """Publish the first n reserved items."""
        self._side(True)
        if n > self.granted:
            raise RingError(f"ring {self.segment.name!r}: commit of {n}, {self.granted} were reserved")
        self.granted = 0
        ring_commit(&self.v, n)

    def peek(self, uint64_t n, *, bint bulk=False):
        """Views of up to n items (bulk: n or none), in order."""
        cdef int64_t got
        self._side(False)
        got = ring_peek_bulk(&self.v, n) if bulk else ring_peek(&self.v, n)
        if got < 0:
            raise RingError(f"ring {self.segment.name!r}: impossible produced index {load_acquire64(self.v.produced)} "
                            f"(consumed {self.v.mine}): the producer is broken or hostile")
        return self._views(got)

    def release(self, uint64_t n):
        """Give the first n peeked items back."""
        self._side(False)
        if n > self.granted:
            raise RingError(f"ring {self.segment.name!r}: release of {n}, {self.granted} were peeked")
        self.granted = 0
        ring_release(&self.v, n)

    def push(self, items, *, bint bulk=False):
        """Copy in as many of the items as fit (bulk: all or none) and publish them; how many."""
        items = np.ascontiguousarray(items, self.dtype)
        n = 0
        for view in self.reserve(len(items), bulk=bulk):
            view[:] = items[n:n + len(view)]
            n += len(view)
        self.commit(n)
        return n

    def pop(self, n=None, *, bint bulk=False):
        """Copy out up to n items (bulk: n or none) and release them."""
        views = self.peek(self.v.capacity if n is None else n, bulk=bulk)
        out = np.concatenate(views) if views else np.empty(0, self.dtype)
        self.release(len(out))
        return out
