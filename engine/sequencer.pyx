"""One router's sequencer: virtual time, the order of inputs and effects, and the four ways to carry an access.

What makes results the same on every path and placement is one order, `key`: inputs are numbered by the access they are or
precede; a deadline belongs to the first input whose time reaches it; an effect inherits the key of what caused it.  A
device sees its inputs in that order, whoever executes it.

local      every device in this process: each access is executed at once, effects follow immediately.
sync       one access at a time through the worker's slot; before it, the devices upstream of its device are settled.
buffered   the same, but writes to posted regions go into the ring and the guest goes on.
batched    a stretch of accesses is routed into the rings at once.  Devices without upstream run while it is being routed;
           the others follow level by level, with the effects of the levels above merged into their accesses.  A stretch ends
           behind a write that can move a region or reset (barrier), before RAM contents, where
           much time has passed, and where HELD accesses or BUSY effects wait.

docs/ordering.md says why this is enough.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport PyObject
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memcpy, memset

import mmap

import numpy as np

from engine._abi cimport *
from engine._atomics cimport load_relaxed32, load_relaxed64, monotonic_ns, pause, tsc
from engine._device cimport (INPUT_AUX, INPUT_INTACK, INPUT_LINE, INPUT_MESSAGE, INPUT_PACKET, IO_CONTENT, IO_OK, IO_UNCLAIMED, NEVER,
                             RESET_BUS, RESET_POWER_ON, Arena, effect_queue)
from engine._executor cimport Executor, quick_access, quick_string, region_entry, string_until, unit_entry
from engine._dispatch cimport (DISPATCH_BARRIER, DISPATCH_CLOCK, DISPATCH_ECAM, DISPATCH_NON_SMM_ONLY, DISPATCH_POSTED, DISPATCH_SMM,
                               DISPATCH_SMM_ONLY, DISPATCH_UNALIGNED, Dispatcher, dispatch_fill, dispatch_find)
from engine._muldiv cimport muldiv
from engine._wire cimport LINE_AGAIN
from engine.pci._decode cimport CONFIG_ADDRESS, CONFIG_DATA, NO_CONFIG, ecam_target, latch_read, latch_written, window_target
from engine._ring cimport (SAMPLE, Link, link_answers, link_block, link_commit, link_completed, link_completion, link_next,
                           link_read_deadline, link_request, link_reserve, link_seen, ring_copy, ring_item, ring_peek, ring_release,
                           slot_fill, slot_poll, string_slots)
from engine.workers._wait cimport (WAIT_ADAPTIVE, WAIT_BLOCK, WAIT_SPIN, WAIT_SPIN_NS, wait_any, wait_word, waiter_init,
                                   wake)

from engine._device import PyDevice
from engine.errors import EngineError, MachineError, RingError, UsageError, WorkerDied
from engine.types import Space

cdef enum:
    HELD = 16384           # accesses held back after which a cut is made before the next one (batched)
    COMMIT_AT = 64         # slots of a ring published at once, and one look whether the worker sleeps: blocks, in which strings lie whole
    PATIENCE = 511         # slots of a batch that a worker is not woken for, if its policy is to sleep whenever it has nothing to do
    POST_AT = 32           # the same for posted writes, if nothing is waited for before
    TIME_ONE_IN = 67       # path buffered: so many accesses have one timed (a prime: every place among POST_AT comes up)
    LOOK_EACH = 1 << 16    # accesses between two looks at signals and at the workers' lives
    NS_PER_S = 1000000000
    LOOKS = 16             # at a slot, before the waiting policy is asked
    NO_AUX = 0xFFFFFFFF
    SLOT_CAUSE_BIT = 62
    META_LOW = (1 << 27) - 1               # of a record's meta word, key << 6 | delta: place, phase and delta
    META_ACCESS = (PLACE_ACCESS << 1 | 1) << 6     # an access itself
    HIST = 2048            # 32 sub-buckets per octave of TSC ticks
    PAST = 1024            # single accesses on the waiting paths between two cuts
    SLICE = 80000000       # ns: a longer step is cut, where deadlines are due in it (idle guests step 55 ms)
    LONG = 64              # SLICEs between two cuts at most, as long as timers make little happen; else one
    BUSY = 1 << 20         # effects after which a cut is made before the next input
    FLOOD = 1 << 24        # effects between two cuts: a worker that makes more is broken
    MAPPINGS = 1 << 16     # after so many they are numbered anew
    KNOWN_MAPPINGS = 8     # remembered, each with its table
    REGIONS = 1 << 14      # ids that have a meaning; above that those of ranges that are gone are given to others
    LINES = 1 << 22        # line changes that are kept until they are taken
    MAX_NESTED_RESETS = 8
    MAX_LEVELS = 60        # chains of effects longer than 62 would lose their order
    STAMPED_NOT = 0        # places in STAMPS
    STAMPED_ENDS = 1
    STAMPED_ALL = 2
    FIND_OK = 0
    FIND_ROUTER = 1        # the router itself answers
    FIND_NOBODY = 2
    FIND_SPLIT = 3
    FIND_NO_FUNCTION = 4   # configuration space where no function, or nothing of it, is
    FIND_CLOCK = 5         # a read of the time, on its way to a worker: the router works it out

# What of an access is stamped: nothing; when it was produced and its answer seen; with workers also when it was taken and
# done.  Whole: produced to seen.  Its stages: produced to taken, taken to done, done to seen.
STAMPS = ("none", "ends", "all")
STAGES = ("whole", "queued", "in_worker", "returning")
PATHS = {"local": SEQ_LOCAL, "sync": SEQ_SYNC, "buffered": SEQ_BUFFERED, "batched": SEQ_BATCHED}
RAM = SEQ_RAM
INPUT = np.dtype([("t_ns", "<u8"), ("index", "<u8"), ("addr", "<u8"), ("value", "<u8"), ("kind", "<u4"), ("target", "<u4")])
LINE_CHANGE = np.dtype([("index", "<u8"), ("t_ns", "<u8"), ("line", "<u2"), ("level", "u1"), ("phase", "u1"), ("pad", "<u4")])
POLICIES = {"spin": WAIT_SPIN, "adaptive": WAIT_ADAPTIVE, "block": WAIT_BLOCK}


cdef extern from *:
    """
    /* 32 buckets an octave, exact below 64. */
    static inline uint32_t log_bucket(uint64_t v)
    {
        uint32_t e = 58 - (uint32_t)__builtin_clzll(v | 32);
        return e * 32 + (uint32_t)(v >> e);
    }
    """
    uint32_t log_bucket(uint64_t v) nogil


cdef inline bint net_changed(net_entry *net, uint64_t level) noexcept nogil:
    """Take what a source did to its wire.  Has the wire's level changed?"""
    cdef bint was = net.high != 0
    if level == 0:
        net.high -= was
    elif level != LINE_AGAIN:
        net.high += 1
    return was != (net.high != 0)


cdef int fx_push(fx_vec *v, const fx_item *item) except -1 nogil:
    cdef fx_item *at
    cdef uint32_t cap
    if v.n == v.cap:
        cap = v.cap * 2 if v.cap else 64
        at = <fx_item *>realloc(v.at, cap * sizeof(fx_item))
        if at == NULL:
            with gil:
                raise MemoryError("effects")
        v.at = at
        v.cap = cap
    v.at[v.n] = item[0]
    v.n += 1
    return 0


cdef held_item *held_push(held_vec *v) except NULL nogil:
    cdef held_item *at
    cdef uint32_t cap
    if v.n == v.cap:
        cap = v.cap * 2 if v.cap else 64
        at = <held_item *>realloc(v.at, cap * sizeof(held_item))
        if at == NULL:
            with gil:
                raise MemoryError("held records")
        v.at = at
        v.cap = cap
    v.n += 1
    return &v.at[v.n - 1]


cdef inline int _order(uint64_t ka, uint64_t kb, uint64_t ta, uint64_t tb, uint32_t da, uint32_t db, uint32_t ra, uint32_t rb,
                       uint32_t na, uint32_t nb) noexcept nogil:
    if ka != kb:
        return -1 if ka < kb else 1
    if ta != tb:
        return -1 if ta < tb else 1
    if da != db:
        return -1 if da < db else 1
    if ra != rb:
        return -1 if ra < rb else 1
    return -1 if <int>(na - nb) < 0 else (1 if na != nb else 0)


cdef int fx_compare(const void *a, const void *b) noexcept nogil:
    cdef const fx_item *x = <const fx_item *>a
    cdef const fx_item *y = <const fx_item *>b
    return _order(x.key, y.key, x.t_ns, y.t_ns, x.delta, y.delta, x.rank, y.rank, x.n, y.n)


cdef int held_compare(const void *a, const void *b) noexcept nogil:
    cdef const held_item *x = <const held_item *>a
    cdef const held_item *y = <const held_item *>b
    cdef int order = _order(x.key, y.key, x.t_ns, y.t_ns, x.delta, y.delta, x.rank, y.rank, x.n, y.n)
    if order:
        return order
    return -1 if x.rec.region < y.rec.region else x.rec.region > y.rec.region      # one effect, several pins


cdef int wave_compare(const void *a, const void *b) noexcept nogil:
    cdef const engine_effect *x = <const engine_effect *>a
    cdef const engine_effect *y = <const engine_effect *>b
    if x.device != y.device:
        return -1 if x.device < y.device else 1
    return -1 if x.cause < y.cause else 1


cdef inline void put_in_order(void *at, size_t n, size_t size, int (*compare)(const void *, const void *) noexcept nogil) noexcept nogil:
    """qsort, unless they are in order already: those of one source come so."""
    cdef size_t i
    for i in range(1, n):
        if compare(<uint8_t *>at + (i - 1) * size, <uint8_t *>at + i * size) > 0:
            qsort(at, n, size, compare)
            break


cdef inline uint64_t access_key(uint64_t index) noexcept nogil:
    return index << KEY_INDEX_SHIFT | PLACE_ACCESS << 1 | 1


cdef inline uint8_t log2_size(uint32_t size) noexcept nogil:
    """Of 1, 2, 4 or 8, without a branch."""
    return <uint8_t>((size >> 1) - (size >> 3))


cdef inline void fill(engine_rec *rec, const engine_acc *a, uint64_t addr, uint32_t space, uint32_t region) noexcept nogil:
    """An access as a record has it.  Its last word is one store: a copy would wait for narrower ones."""
    rec.t_ns = a.t_ns
    rec.addr = addr
    rec.value = a.value
    (<uint64_t *>rec)[3] = region | <uint64_t>a.vcpu << 32 | <uint64_t>(
        space | a.dir << 4 | <uint32_t>log2_size(a.size) << ENGINE_OP_SIZE_SHIFT) << 48


cdef inline bint repeats(const engine_acc *a, const engine_acc *b) noexcept nogil:
    """Is b the access a once more, but for time and value?"""
    return a.addr == b.addr and ((<const uint64_t *>a)[3] ^ (<const uint64_t *>b)[3]) << 16 == 0   # less the trace's region


def vet(acc, inputs, uint64_t now):
    """What a batch is like: (index of the first record that no guest can make, or -1; whether times never decrease).

    acc: ACC records; inputs: INPUT records sorted by index, or None; times are looked at over both, from `now` on.
    """
    cdef const unsigned char[::1] a = np.ascontiguousarray(acc).view(np.uint8).reshape(-1)
    cdef const unsigned char[::1] b
    cdef uint64_t i = 0, j = 0, end, block = 0, n = a.shape[0] // sizeof(engine_acc), m = 0
    cdef const engine_acc *access = <const engine_acc *>&a[0] if n else NULL
    cdef const seq_input *one = NULL
    cdef bint back = False
    if inputs is not None and len(inputs):
        b = np.ascontiguousarray(inputs).view(np.uint8).reshape(-1)
        one = <const seq_input *>&b[0]
        m = b.shape[0] // sizeof(seq_input)
    with nogil:
        while True:
            if i == block and i < n:                   # both looks at a record while it is in the cache
                block = min(i + 512, n)
                end = acc_possible(access + i, block - i, ENGINE_CONFIG + 1)
                if i + end < block:
                    i += end
                    break
            end = min(one[j].index, block) if j < m else block
            while i < end:                             # no branch in it: every batch passes here
                back |= access[i].t_ns < now
                now = access[i].t_ns
                i += 1
            if j < m and one[j].index <= i:
                back |= one[j].t_ns < now
                now = one[j].t_ns
                j += 1
            elif i == n:
                break
    return (-1 if i == n else i), not back and now >> 63 == 0


cdef inline uint32_t quick_find(Sequencer s, const engine_acc *a, route *r, uint64_t *addr, uint32_t *space) noexcept nogil:
    """Sequencer._find; accesses to the region of the one before are not looked up.

    FIND_*; for FIND_OK and FIND_CLOCK the address and space as a record has them, and r.  After anything that may change the
    map, r.space has to be 255.
    """
    if a.addr - r.base <= r.span and a.space == r.space and not a.flags & ENGINE_FLAG_SMM:
        r.fresh = False
        addr[0] = a.addr + r.delta
        space[0] = a.space
        return FIND_SPLIT if (a.addr - r.base) & (a.size - 1) & r.align else FIND_OK
    return fresh_find(s, a, r, addr, space)


cdef inline bint shows_time(const clock_entry *c, uint64_t addr, uint32_t size) noexcept nogil:
    """Is a read at addr one of the register or a part of it that its device would see as it is?"""
    return size >= c.least and addr - c.base < c.width and addr - c.base + size <= c.width


cdef inline uint64_t clock_read(const clock_entry *c, uint64_t addr, uint32_t size, uint64_t t_ns) noexcept nogil:
    """What the device would answer: shows_time(c, addr, size), and no write to it is on its way."""
    cdef uint64_t shown
    if c.runs == NULL:
        shown = muldiv(t_ns, c.hz, NS_PER_S)
    elif load_relaxed32(c.runs) & c.running:           # relaxed: after the acquire that found the last write to it answered
        shown = muldiv(t_ns + load_relaxed64(c.ahead), c.hz, NS_PER_S)
    else:
        shown = load_relaxed64(c.halted)
    return (shown & c.mask) >> (addr - c.base) * 8 & ~<uint64_t>0 >> (64 - 8 * size)


cdef uint32_t fresh_find(Sequencer s, const engine_acc *a, route *r, uint64_t *addr, uint32_t *space) noexcept nogil:
    """For quick_find: with the look-up in line for what needs no second thought."""
    cdef uint64_t at = a.addr
    cdef uint32_t op = 0, found
    cdef const dispatch_entry *e = NULL
    cdef const clock_entry *c
    r.fresh = True
    r.space = 255
    if (at & ~<uint64_t>7) != CONFIG_ADDRESS and not a.flags & ENGINE_FLAG_SMM:
        e = dispatch_find(s.table, a.space, at)
    if e == NULL or e.flags & DISPATCH_ECAM:
        found = s._find(a, addr, &op, &e)
        space[0] = op & ENGINE_REC_KIND_MASK
        if found != FIND_OK:
            return found
    else:
        r.base = e.base
        r.span = e.last - e.base
        r.delta = e.delta
        r.align = 0 if e.flags & DISPATCH_UNALIGNED else 0xffffffff
        r.space = a.space if s.n_vcpus == 1 else 255
        addr[0] = at + r.delta
        space[0] = a.space
        found = FIND_SPLIT if (at - r.base) & (a.size - 1) & r.align else FIND_OK
    r.region = e.region
    r.unit = e.owner
    r.flags = e.flags
    if s.n_vcpus > 1:
        r.region = s._bank(e.region, a.vcpu)
        r.unit = s.region_unit[r.region]
    if e.flags & DISPATCH_CLOCK:
        r.space = 255                                  # some of them the router answers: each is looked at
        c = &s.clocks[r.region]
        if found == FIND_OK and not a.dir and shows_time(c, addr[0], a.size) and s.units[r.unit].clock_set < s.counts.cuts:
            return FIND_CLOCK
    return found


def _shape(r, bint clock):
    """What the map needs to know of a Region: (space, size, priority, flags, widths).  clock: the router answers reads of the time."""
    flags = ((DISPATCH_POSTED if r.posted else 0) | (DISPATCH_BARRIER if r.barrier else 0)
             | (DISPATCH_UNALIGNED if r.unaligned else 0) | (DISPATCH_ECAM if r.ecam else 0)
             | (DISPATCH_NON_SMM_ONLY if r.hidden_in_smm else 0) | (DISPATCH_SMM_ONLY if r.only_in_smm else 0)
             | (DISPATCH_CLOCK if clock and r.clock is not None else 0))
    return int(r.space), r.size, r.priority * MAPPINGS, flags, sum(r.accepts)


@cython.final
cdef class Sequencer:
    """`Sequencer(plan, ram=None, executor=None, links=None, owners=None, wait="adaptive")`.

    plan: engine.machine.build.Plan.  ram: writable buffer of guest RAM.  executor: an Executor with every device, for the local path;
    or links: the router's ends of one Link per worker, with owners[unit] = worker number.  states: where the state of the workers'
    devices is, rank -> (Arena, place in it), as far as the router may look at it.  One thread uses it.
    """

    def __cinit__(self):
        self.hist = <uint64_t *>calloc(HIST * 4, sizeof(uint64_t))         # of each of STAGES
        self.past = <uint64_t *>calloc(PAST, sizeof(uint64_t))
        if self.hist == NULL or self.past == NULL:
            raise MemoryError()
        self.patience = 30.0
        self.stamped = STAMPED_ENDS
        self.stuck_at = ~<uint64_t>0

    def __init__(self, plan, ram=None, Executor executor=None, links=None, owners=None, str wait="adaptive", bint crowded=False, check=None,
                 states=None):
        cdef uint32_t u, v, n, i, at
        cdef Link link
        cdef unsigned char[::1] view
        self.plan = plan
        self.check = check
        self.states = dict(states or {})
        self.local = executor
        self.python = executor is not None and any(isinstance(d, PyDevice) for d in executor.keep)
        self.policy = POLICIES[wait]
        self.posting = -1
        waiter_init(&self.wait, self.policy, WAIT_SPIN_NS, crowded)
        self.looks = self.policy != WAIT_BLOCK and not crowded
        self.n_devices = len(plan.devices)
        self.n_units = len(plan.units)
        self.n_levels = max(plan.unit_level) + 1
        if self.n_levels > MAX_LEVELS:
            raise MachineError(f"{self.n_levels} devices hear of each other in one chain of wires; {MAX_LEVELS} are possible")
        self.units = <unit_route *>calloc(self.n_units, sizeof(unit_route))
        self.unit_of = <uint32_t *>calloc(self.n_devices, sizeof(uint32_t))
        self.fx_count = <uint32_t *>calloc(self.n_devices, sizeof(uint32_t))
        self.n_nets = len(plan.nets)
        self.nets = <net_entry *>calloc(self.n_nets + 1, sizeof(net_entry))
        self.net_of = <int *>calloc(self.n_devices << 6, sizeof(int))
        self.sinks = <sink_entry *>calloc(sum(len(n.sinks) for n in plan.nets) + 1, sizeof(sink_entry))
        self.cone = <uint8_t *>calloc(self.n_units * self.n_units + 1, 1)
        self.net_cone = <uint8_t *>calloc(self.n_units * (self.n_nets + 1) + 1, 1)
        self.message_sinks = <uint16_t *>calloc(len(plan.message_sinks) + 1, sizeof(uint16_t))
        self.speaks = <uint8_t *>calloc(self.n_devices, 1)
        if not (self.units and self.unit_of and self.fx_count and self.nets and self.net_of and self.sinks and self.cone
                and self.net_cone and self.message_sinks and self.speaks):
            raise MemoryError()
        synced = set(plan.spec.placement.sync)
        for u in range(self.n_units):
            self.units[u].link = owners[u] if links is not None else -1
            self.units[u].lead = plan.units[u][0]
            self.units[u].level = plan.unit_level[u]
            self.units[u].deadline = NEVER
            self.units[u].is_sync = any(plan.devices[r].id in synced for r in plan.units[u])
            for rank in plan.units[u]:
                self.unit_of[rank] = u
        for i in range(self.n_devices << 6):
            self.net_of[i] = -1
        for i in range(self.n_devices):
            self.speaks[i] = plan.devices[i].cls.MESSAGE_SOURCE
        at = 0
        for n in range(self.n_nets):
            net = plan.nets[n]
            self.nets[n].line = net.line
            self.nets[n].level = net.level
            self.nets[n].first = at
            for rank, pin in net.sources:
                self.net_of[rank << 6 | pin] = n
                self.units[self.unit_of[rank]].source = 1
            for rank, pin in sorted(net.sinks):
                self.sinks[at].rank = rank
                self.sinks[at].pin = pin
                at += 1
            self.nets[n].n = at - self.nets[n].first
        self._cones(plan)
        self.resetters = <uint32_t *>calloc(self.n_units, sizeof(uint32_t))
        if self.resetters == NULL:
            raise MemoryError()
        for u in range(self.n_units):
            if any(plan.devices[r].cls.TIMED_RESET for r in plan.units[u]):
                self.units[u].source = 1       # settled at every cut, so that its deadline is known
                self.resetters[self.n_resetters] = u
                self.n_resetters += 1
        self.timed_reset = NEVER
        self.stretch = SLICE
        self.message_level = min([plan.unit_level[self.unit_of[rank]] for rank in plan.message_sinks], default=0)
        for rank in plan.message_sinks:
            self.message_sinks[self.n_message_sinks] = rank
            self.n_message_sinks += 1
            for d in plan.devices:
                if d.cls.MESSAGE_SOURCE and d.unit != self.unit_of[rank]:
                    self.units[d.unit].source = 1
        self.cf8 = plan.spec.board.config_access in ("cf8", "ecam")
        self.n_vcpus = plan.spec.board.cpus
        self.low_ram = plan.spec.board.low_ram
        if ram is not None:
            view = ram
            self.ram_owner = ram
            self.ram_size = view.shape[0]
            self.ram = &view[0] if self.ram_size else NULL
        self.links = list(links or ())
        self.n_links = len(self.links)
        self.link = <seq_link *>calloc(self.n_links + 1, sizeof(seq_link))
        if self.link == NULL:
            raise MemoryError()
        for i in range(self.n_links):
            link = self.links[i]
            self.link[i].v = &link.v
            self.link[i].owner = <PyObject *>link
            at = <uint32_t>link.v.requests.capacity
            self.link[i].meta = <uint64_t *>calloc(at, sizeof(uint64_t))
            self.link[i].aux = <uint32_t *>calloc(at, sizeof(uint32_t))
            self.link[i].more = <uint8_t *>calloc(at, 1)
            self.link[i].stamp = <uint64_t *>calloc(at // SAMPLE + 1, sizeof(uint64_t))
            if not (self.link[i].meta and self.link[i].aux and self.link[i].more and self.link[i].stamp):
                raise MemoryError()
        self._build_map(plan)
        self.next_deadline = 0
        self._power_levels(plan)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.n_units if self.units != NULL else 0):
            free(self.units[i].held.at)
            free(self.units[i].pend.at)
        for i in range(self.n_nets if self.nets != NULL else 0):
            free(self.nets[i].pend.at)
        for i in range(self.n_links if self.link != NULL else 0):
            free(self.link[i].meta)
            free(self.link[i].aux)
            free(self.link[i].more)
            free(self.link[i].stamp)
        free(self.units)
        free(self.unit_of)
        free(self.fx_count)
        free(self.nets)
        free(self.net_of)
        free(self.sinks)
        free(self.cone)
        free(self.net_cone)
        free(self.message_sinks)
        free(self.speaks)
        free(self.resetters)
        free(self.link)
        free(self.hist)
        free(self.past)
        free(self.wave)
        free(self.lines)
        free(self.maps)
        free(self.messages.at)
        free(self.region_unit)
        free(self.region_bank)
        free(self.clocks)
        free(self.banks)

    def _cones(self, plan):
        """Which units and nets each unit hears of, directly or through others."""
        unit_of = {r: u for u, ranks in enumerate(plan.units) for r in ranks}
        into = {u: [] for u in range(self.n_units)}
        for n, net in enumerate(plan.nets):
            for rank, _ in net.sinks:
                into[unit_of[rank]].append(n)
        for rank in plan.message_sinks:
            for d in plan.devices:
                if d.cls.MESSAGE_SOURCE and d.unit != unit_of[rank]:
                    self.cone[unit_of[rank] * self.n_units + d.unit] = 1
        for u in sorted(into, key=lambda unit: plan.unit_level[unit]):
            for n in into[u]:
                self.net_cone[u * self.n_nets + n] = 1
                for rank, _ in plan.nets[n].sources:
                    self.cone[u * self.n_units + unit_of[rank]] = 1
            for v in range(self.n_units):
                if self.cone[u * self.n_units + v]:
                    for w in range(self.n_units):
                        self.cone[u * self.n_units + w] |= self.cone[v * self.n_units + w]
                    for n in range(self.n_nets):
                        self.net_cone[u * self.n_nets + n] |= self.net_cone[v * self.n_nets + n]

    def _power_levels(self, plan):
        """Wires that are high from the start: their readers are told."""
        cdef uint32_t n, k, status = 0
        cdef uint64_t value = 0
        cdef engine_rec rec
        for n in range(self.n_nets):
            self.nets[n].high = sum(plan.devices[rank].levels >> pin & 1 for rank, pin in plan.nets[n].sources)
            if not self.nets[n].high:
                continue
            for k in range(self.nets[n].first, self.nets[n].first + self.nets[n].n):
                memset(&rec, 0, sizeof(rec))
                rec.op = ENGINE_REC_INPUT
                rec.addr = INPUT_LINE
                rec.value = 1
                rec.region = <uint32_t>self.sinks[k].rank << 8 | self.sinks[k].pin
                if self.local is not None:
                    self.local.execute(&rec, &value)
                else:
                    with nogil:
                        self._sync(self.unit_of[self.sinks[k].rank], &rec, 0, 0, &value, &status)
        if self.local is not None:
            self._effects()
        else:
            self._cut()
        self.n_lines = 0

    # ------------------------------------------------------------------ the address map

    def _build_map(self, plan):
        cdef Dispatcher m = Dispatcher()
        self.map = m
        self.region_ids = {}
        self.regions = {}
        self.free_regions = []
        self.mapped = {}
        self.known = {}
        self.shapes = {(rank, index): _shape(r, self.local is None and (r.clock is None or r.clock.runs is None or rank in self.states))
                       for rank, d in enumerate(plan.devices) for index, r in enumerate(d.regions)}
        m.set_policy(Space.PIO, 0xFFFFFFFFFFFFFFFF if plan.spec.board.pio_unclaimed == "ones" else 0)
        m.set_policy(Space.MMIO, 0xFFFFFFFFFFFFFFFF if plan.spec.board.mmio_unclaimed == "ones" else 0)
        m.set_policy(Space.CONFIG, 0xFFFFFFFFFFFFFFFF)
        for q in plan.placed:
            self._new_region(q.region, q.rank, q.index, q.base)
            if q.size:
                self._map(q.region, q.rank, q.index, q.base)
        self.banks = <uint32_t *>calloc(len(plan.vcpu_regions) * self.n_vcpus + 1, sizeof(uint32_t))
        if self.banks == NULL:
            raise MemoryError()
        for bank, (region, vcpus) in enumerate(plan.vcpu_regions.items()):
            self.region_bank[region] = bank + 1
            for vcpu in range(self.n_vcpus):
                self.banks[bank * self.n_vcpus + vcpu] = vcpus.get(vcpu, region)
        self._publish()

    cdef int _publish(self) except -1:
        """Show the map as it is now, and remember it: guests come back to where their ranges were, by a reset or a restored
        snapshot."""
        cdef Dispatcher m = self.map
        m.publish()
        self.table = m.table
        regions = tuple(self.mapped.values())
        self.mapping = (m, self.regions, self.mapped, self.mappings, self.ecam, m.keep())
        self.known.pop(regions, None)
        self.known[regions] = self.mapping
        if len(self.known) > KNOWN_MAPPINGS:
            del self.known[next(iter(self.known))]
        return 0

    cdef int _show(self, mapping) except -1:
        """Show what was published before, here or by another sequencer of the same plan."""
        cdef Dispatcher m = self.map
        owner, regions, mapped, mappings, ecam, kept = mapping
        if owner is not m or regions is not self.regions:
            return self._show_rows([regions[region] for region in mapped.values()])
        if mapping is not self.mapping:
            m.put_back(kept)
            self.table = m.table
            self.mapped = mapped
            self.mappings = mappings
            self.ecam = ecam
            self.mapping = mapping
        return 0

    cdef int _show_rows(self, rows) except -1:
        """Show these and nothing else: (rank, region number, base), the last on top."""
        wanted = [self._region(rank, index, base) for rank, index, base in rows]
        known = self.known.get(tuple(wanted))
        if known is not None:
            return self._show(known)
        self._map_all(wanted)
        return self._publish()

    def _region(self, rank, index, base):
        """The id of a device's region at a base, made if there is none yet."""
        region = self.region_ids.get((rank, index, base))
        if region is None:
            region = self.free_regions.pop() if self.free_regions else self.n_regions
            self._new_region(region, rank, index, base)
        return region

    def _forget_regions(self):
        """Between two runs, when nothing is on the way: ids of ranges that are not mapped lose their meaning.  Mappings of
        before, which snapshots may have, keep the old ones."""
        stay = {q.region for q in self.plan.placed} | set(self.mapped.values())
        for vcpus in self.plan.vcpu_regions.values():
            stay.update(vcpus.values())
        self.free_regions = [region for region in range(self.n_regions) if region not in stay]
        self.regions = {region: self.regions[region] for region in stay}
        self.region_ids = {row: region for region, row in self.regions.items()}
        self.known = {}

    def _new_region(self, uint32_t region, uint32_t rank, uint32_t index, uint64_t base):
        """Name (device, BAR, base) by a region id and tell the owner."""
        cdef uint32_t cap
        cdef void *p
        cdef engine_rec rec
        cdef uint64_t value
        cdef uint32_t status
        if region >= self.cap_regions:
            cap = max(region + 1, self.cap_regions * 2, 256)
            p = realloc(self.region_unit, cap * sizeof(uint32_t))
            if p == NULL:
                raise MemoryError()
            self.region_unit = <uint32_t *>p
            p = realloc(self.region_bank, cap * sizeof(uint32_t))
            if p == NULL:
                raise MemoryError()
            self.region_bank = <uint32_t *>p
            memset(self.region_bank + self.cap_regions, 0, (cap - self.cap_regions) * sizeof(uint32_t))
            p = realloc(self.clocks, cap * sizeof(clock_entry))
            if p == NULL:
                raise MemoryError()
            self.clocks = <clock_entry *>p
            memset(self.clocks + self.cap_regions, 0, (cap - self.cap_regions) * sizeof(clock_entry))
            self.cap_regions = cap
        self.region_unit[region] = self.unit_of[rank]
        self._new_clock(region, rank, self.plan.devices[rank].regions[index], base)
        self.n_regions = max(self.n_regions, region + 1)
        self.region_ids[rank, index, base] = region
        self.regions[region] = (rank, index, base)
        if self.local is not None:
            self.local.map_region(region, rank, index, base)
        else:
            memset(&rec, 0, sizeof(rec))
            rec.t_ns = self.now
            rec.addr = base
            rec.value = rank << 8 | index
            rec.region = region
            rec.op = ENGINE_REC_MAP
            with nogil:
                self._sync(self.unit_of[rank], &rec, 0, 0, &value, &status)
            if status != IO_OK:
                raise MachineError(f"worker refuses region {index} of {self.plan.devices[rank].id} at {base:#x}")

    def _new_clock(self, uint32_t region, rank, r, uint64_t base):
        """How a region that was named shows the time, if it does."""
        cdef clock_entry *c = &self.clocks[region]
        cdef const uint8_t *state
        cdef Arena arena
        memset(c, 0, sizeof(clock_entry))
        if r.clock is not None:
            c.base = base + r.clock.offset
            c.mask = (1 << r.clock.bits) - 1
            c.hz = r.clock.hz
            c.width = r.clock.width
            c.least = r.implements[0]
            if r.clock.runs is not None and rank in self.states:
                arena, at = self.states[rank]
                state = arena.mem + <size_t>at
                fields = self.plan.devices[rank].cls.state_dtype().fields       # name -> (dtype, offset)
                c.runs = <const uint32_t *>(state + <size_t>fields[r.clock.runs[0]][1])
                c.running = r.clock.runs[1]
                c.set_below = base + r.clock.set_by
                c.ahead = <const uint64_t *>(state + <size_t>fields[r.clock.ahead][1])
                c.halted = <const uint64_t *>(state + <size_t>fields[r.clock.halted][1])

    def _map(self, uint32_t region, uint32_t rank, uint32_t index, uint64_t base):
        """Show a region in the map (not yet published): of ranges of one priority the one that came last is seen."""
        space, size, priority, flags, accepts = self.shapes[rank, index]
        if flags & DISPATCH_ECAM:
            self.ecam = base
        self.map.map(space, base, size, region, priority + self.mappings, flags, self.unit_of[rank], accepts)
        self.mappings += 1
        self.mapped[rank, index] = region

    def _map_all(self, wanted):
        """Show these regions in the map (not yet published), and nothing else; the last on top."""
        self.map.unmap_many(list(self.mapped.values()))
        self.mapped = {}
        self.mappings = 0
        for region in wanted:
            self._map(region, *self.regions[region])

    cdef int _map_later(self, uint32_t rank, uint32_t index, bint on, uint64_t base) except -1 nogil:
        cdef void *p
        cdef uint32_t cap
        if self.n_maps == self.cap_maps:
            cap = self.cap_maps * 2 if self.cap_maps else 64
            p = realloc(self.maps, cap * sizeof(map_change))
            if p == NULL:
                with gil:
                    raise MemoryError("mapping changes")
            self.maps = <map_change *>p
            self.cap_maps = cap
        self.maps[self.n_maps].rank = <uint16_t>rank
        self.maps[self.n_maps].index = <uint8_t>index
        self.maps[self.n_maps].on = on
        self.maps[self.n_maps].base = base
        self.n_maps += 1
        return 0

    cdef int _apply_maps(self) except -1:
        """Publish the next table.  Every record ordered before has executed, so nobody is on the way to an old region."""
        cdef uint32_t i
        cdef Dispatcher m = self.map
        last = {}
        for i in range(self.n_maps):
            regions = self.plan.devices[self.maps[i].rank].regions
            if self.maps[i].index < len(regions) and regions[self.maps[i].index].size:
                last[self.maps[i].rank, self.maps[i].index] = self.maps[i].base if self.maps[i].on else None
        self.n_maps = 0
        mapped = self.mapped.copy()
        for rank, index in sorted(last):
            base = last[rank, index]
            mapped.pop((rank, index), None)
            region = self.plan.devices[rank].regions[index]
            if base is not None and base + region.size <= (1 << 16 if region.space == Space.PIO else 1 << 52):
                mapped[rank, index] = self._region(rank, index, base)
        known = self.known.get(tuple(mapped.values()))
        if known is not None:
            return self._show(known)
        if self.mappings + len(last) > MAPPINGS:
            self._map_all(mapped.values())
            return self._publish()
        for key in last:
            if key in self.mapped:
                m.unmap(self.mapped[key])
        self.mapped = mapped
        for key in sorted(last):
            if key in mapped:
                self._map(mapped[key], *self.regions[mapped[key]])
        return self._publish()

    cdef uint32_t _bank(self, uint32_t region, uint32_t vcpu) noexcept nogil:
        """The vCPU's own region behind an address that all share (its local APIC's registers)."""
        cdef uint32_t bank = self.region_bank[region]
        return self.banks[(bank - 1) * self.n_vcpus + vcpu] if bank and vcpu < self.n_vcpus else region

    cdef uint64_t _nobody(self, uint32_t space, uint32_t size) noexcept nogil:
        return dispatch_fill(self.table, space, size)

    cdef uint32_t _find(self, const engine_acc *a, uint64_t *addr, uint32_t *op, const dispatch_entry **entry) noexcept nogil:
        """Where an access goes: FIND_*, and for FIND_OK the address and kind as a record has them, and the entry."""
        cdef uint32_t space = a.space
        cdef uint64_t at = a.addr
        cdef const dispatch_entry *e
        if self.cf8 and space == ENGINE_PIO and (at & ~<uint64_t>7) == CONFIG_ADDRESS:
            if at < CONFIG_DATA:
                e = NULL
                if at != CONFIG_ADDRESS:                     # a port within the latch's four takes an access whole
                    e = dispatch_find(self.table, space, at)
                if e == NULL:
                    return FIND_SPLIT if at & (a.size - 1) else FIND_ROUTER
            elif at & (a.size - 1):
                return FIND_SPLIT
            else:
                at = window_target(self.latch, <uint32_t>at)
                if at == NO_CONFIG:
                    return FIND_NOBODY
                space = ENGINE_CONFIG
        e = dispatch_find(self.table, space | DISPATCH_SMM if a.flags & ENGINE_FLAG_SMM else space, at)
        if e == NULL:
            return FIND_SPLIT if at & (a.size - 1) else FIND_NOBODY   # aligned parts: a later one may meet somebody
        if (at - e.base) & (a.size - 1) and not e.flags & DISPATCH_UNALIGNED and space != ENGINE_CONFIG:
            return FIND_SPLIT
        if e.flags & DISPATCH_ECAM:
            at = ecam_target(at - self.ecam)
            space = ENGINE_CONFIG
            e = dispatch_find(self.table, space, at)
            if e == NULL:
                return FIND_NO_FUNCTION
        addr[0] = at + e.delta
        op[0] = space | (ENGINE_OP_WRITE if a.dir else 0) | <uint32_t>log2_size(a.size) << ENGINE_OP_SIZE_SHIFT
        entry[0] = e
        return FIND_OK

    # ------------------------------------------------------------------ what all paths share

    cdef int _line(self, uint64_t key, uint64_t t_ns, int line, uint32_t level) except -1 nogil:
        cdef void *p
        if self.n_lines == LINES:                      # the older half goes
            self.n_lines = LINES >> 1
            memcpy(self.lines, self.lines + (LINES >> 1), (LINES >> 1) * sizeof(line_change))
            self.lines_dropped += LINES >> 1
        if self.n_lines == self.cap_lines:
            self.cap_lines = self.cap_lines * 2 if self.cap_lines else 1024
            p = realloc(self.lines, self.cap_lines * sizeof(line_change))
            if p == NULL:
                with gil:
                    raise MemoryError("line changes")
            self.lines = <line_change *>p
        self.lines[self.n_lines].key = key + (self.line_base << KEY_INDEX_SHIFT)
        self.lines[self.n_lines].t_ns = t_ns
        self.lines[self.n_lines].line = <uint16_t>line
        self.lines[self.n_lines].level = <uint8_t>level
        self.n_lines += 1
        return 0

    cdef void _sample(self, uint64_t ticks, uint32_t stage=0) noexcept nogil:
        cdef uint32_t bucket = log_bucket(ticks)
        self.hist[stage * HIST + (bucket if bucket < HIST else HIST - 1)] += 1

    cdef void _seen(self, uint64_t produced, const engine_stamp *theirs) noexcept nogil:
        """An access was answered: count its time and, with the worker's stamps, that of each stage."""
        cdef uint64_t seen = tsc(), taken, done
        self._sample(seen - produced)
        if theirs != NULL:
            # A worker's words: any value is possible.  CPUs' counters may differ by some ticks, which may not look like ages.
            taken = min(max(load_relaxed64(&theirs.taken), produced), seen)
            done = min(max(load_relaxed64(&theirs.done), taken), seen)
            self._sample(taken - produced, 1)
            self._sample(done - taken, 2)
            self._sample(seen - done, 3)

    cdef int _ram_write(self, const seq_input *inp) noexcept nogil:
        """Bytes that the trace says were in RAM."""
        cdef uint64_t n = <uint32_t>inp.value, gpa = inp.addr, at
        cdef const uint8_t *source = &self.ram_bytes[inp.value >> 32]
        cdef uint64_t low = min(self.low_ram, self.ram_size), i
        for i in range(n):
            at = gpa + i
            if at < gpa:                               # behind the last address
                break
            if at >= low:
                if at < <uint64_t>1 << 32:
                    continue
                at = at - (<uint64_t>1 << 32) + low
                if at >= self.ram_size:
                    continue
            self.ram[at] = source[i]
        return 0

    cdef uint64_t _timer_key(self, uint64_t t_ns) noexcept nogil:
        """The key of a deadline: phase 0 of the first input whose time reaches it."""
        cdef uint64_t lo = 0, hi = self.n_acc, mid, j
        cdef uint64_t a = 0, b = self.n_inp
        if self.base and t_ns <= self.past[self.base - 1]:
            hi = self.base
            while lo < hi:
                mid = (lo + hi) >> 1
                if self.past[mid] < t_ns:
                    lo = mid + 1
                else:
                    hi = mid
            return lo << KEY_INDEX_SHIFT | PLACE_ACCESS << 1
        while lo < hi:
            mid = (lo + hi) >> 1
            if self.acc[mid].t_ns < t_ns:
                lo = mid + 1
            else:
                hi = mid
        while a < b:
            mid = (a + b) >> 1
            if self.inp[mid].t_ns < t_ns:
                a = mid + 1
            else:
                b = mid
        if a < self.n_inp and self.inp[a].index <= lo:
            j = a
            while j > 0 and self.inp[j - 1].index == self.inp[a].index:
                j -= 1
            return (self.base + self.inp[a].index) << KEY_INDEX_SHIFT | (a - j) << 1
        return (self.base + lo) << KEY_INDEX_SHIFT | PLACE_ACCESS << 1

    # ------------------------------------------------------------------ local

    cdef int _effects(self) except -1 nogil:
        """Carry the effects in fx along the wires until none is left: wave by wave, those of one delta by their source's rank."""
        cdef uint32_t i, n, k, rank
        cdef engine_effect fx
        cdef engine_rec rec
        cdef net_entry *net
        cdef void *p
        cdef uint64_t value
        cdef bint changed
        cdef int net_number
        memset(&rec, 0, sizeof(rec))
        while self.local.fx.n:
            n = self.local.fx.n
            if n > self.cap_wave:
                p = realloc(self.wave, self.local.fx.cap * sizeof(engine_effect))
                if p == NULL:
                    with gil:
                        raise MemoryError("effects")
                self.wave = <engine_effect *>p
                self.cap_wave = self.local.fx.cap
            for i in range(n):
                self.wave[i] = self.local.fx.items[i]
                self.wave[i].cause = i
            put_in_order(self.wave, n, sizeof(engine_effect), wave_compare)
            self.local.fx.n = 0
            for i in range(n):
                fx = self.wave[i]
                if fx.kind == ENGINE_EFFECT_LINE:
                    net_number = self.net_of[fx.device << 6 | fx.pin]
                    if net_number < 0:
                        continue
                    net = &self.nets[net_number]
                    changed = net_changed(net, fx.value)
                    if not changed and fx.value != LINE_AGAIN:
                        continue
                    if changed and net.line >= 0:
                        self._line(self.key, fx.t_ns, net.line, net.high != 0)
                    rec.op = ENGINE_REC_INPUT
                    rec.t_ns = fx.t_ns
                    rec.addr = INPUT_LINE
                    rec.value = net.high != 0
                    for k in range(net.first, net.first + net.n):
                        rec.region = <uint32_t>self.sinks[k].rank << 8 | self.sinks[k].pin
                        self.local.execute(&rec, &value)
                        self._due(self.local.unit_of[self.sinks[k].rank])
                elif fx.kind == ENGINE_EFFECT_MESSAGE:
                    if not self.speaks[fx.device]:
                        with gil:
                            self._silent(fx.device)
                    rec.op = ENGINE_REC_INPUT
                    rec.t_ns = fx.t_ns
                    rec.addr = INPUT_MESSAGE | <uint64_t>fx.addr << 8
                    rec.value = fx.value
                    for k in range(self.n_message_sinks):
                        rank = self.message_sinks[k]
                        if self.unit_of[rank] == self.unit_of[fx.device]:
                            continue                       # the executor delivered it
                        rec.region = rank << 8
                        self.local.execute(&rec, &value)
                        self._due(self.local.unit_of[rank])
                elif fx.kind == ENGINE_EFFECT_MAP:
                    self._map_later(fx.device, fx.pin, fx.addr != 0, fx.value)
                elif fx.kind == ENGINE_EFFECT_RESET:
                    self.reset_pending = 1
                    self.reset_at = fx.t_ns
        if self.local.fx.lost:
            with gil:
                raise EngineError(f"a device made {self.local.fx.lost} effects too many in one access or deadline")
        if self.n_maps or self.reset_pending:
            self._after()
        return 0

    cdef int _after(self) except -1 nogil:
        """Mappings that changed, and a reset, take effect behind the access that caused them."""
        cdef engine_rec rec
        cdef uint64_t value
        if self.reset_pending:
            self._one_more_reset()
            memset(&rec, 0, sizeof(rec))
            rec.op = ENGINE_REC_RESET
            rec.t_ns = self.reset_at
            rec.value = RESET_BUS
            self.local.execute(&rec, &value)
            self.next_deadline = 0
            self._effects()
            self.nested_resets = 0
        if self.n_maps:
            with gil:
                self._apply_maps()
        return 0

    cdef int _one_more_reset(self) except -1 nogil:
        """A reset begins: behind the access that asked for it, so what it changes is before the next one.  One that is asked for
        during a reset follows it; a chain of them that does not end is an error."""
        self.key += self.key & 1
        self.reset_pending = 0
        self.resets += 1
        self.nested_resets += 1
        if self.nested_resets > MAX_NESTED_RESETS:
            with gil:
                raise EngineError(f"more than {MAX_NESTED_RESETS} resets, each of which asked for the next: a device or worker is broken")
        return 0

    cdef int _advance(self, uint64_t t_ns) except -1 nogil:
        """Fire every deadline up to t_ns, in order of (deadline, rank)."""
        cdef uint64_t best
        cdef uint32_t u, n = self.local.n_units
        cdef unit_entry *units = self.local.units
        self.key &= ~<uint64_t>1
        while True:
            best = NEVER
            for u in range(n):
                if units[u].next < best:
                    best = units[u].next
            self.next_deadline = best
            if best > t_ns:
                break
            for u in range(n):
                if units[u].next == best:
                    self.local._fire(&units[u], best)
            if self.local.fx.n:
                self._effects()
        self.key |= 1
        return 0

    cdef void _due(self, uint32_t unit) noexcept nogil:
        if self.local.units[unit].next < self.next_deadline:
            self.next_deadline = self.local.units[unit].next

    cdef int _local_input(self, uint64_t j, uint32_t place) except -1 nogil:
        cdef const seq_input *inp = &self.inp[j]
        cdef engine_rec rec
        cdef uint64_t value = 0
        if inp.kind == SEQ_RAM:
            return self._ram_write(inp)
        if inp.t_ns > self.now:
            self.now = inp.t_ns
        self.key = inp.index << KEY_INDEX_SHIFT | <uint64_t>place << 1 | 1
        if self.now >= self.next_deadline:
            self._advance(self.now)
        memset(&rec, 0, sizeof(rec))
        rec.op = ENGINE_REC_INTACK if inp.kind == INPUT_INTACK else ENGINE_REC_INPUT
        rec.t_ns = self.now
        rec.addr = inp.kind | inp.addr << 8
        rec.value = inp.value
        rec.vcpu = <uint16_t>inp.value if inp.kind == INPUT_INTACK else 0
        rec.region = inp.target
        self.local.execute(&rec, &value)
        if self.answers != NULL:
            self.answers[j] = <int64_t>value
        if self.local.fx.n:
            self._effects()
        self._due(self.local.unit_of[inp.target >> 8])
        self.counts.inputs += 1
        return 0

    cdef int _split_local(self, const engine_acc *a, uint64_t t_ns, uint64_t *value) except -1 nogil:
        """An access that is not aligned in its region: aligned parts, low address first, each looked up for itself."""
        cdef engine_acc part = a[0]
        cdef uint64_t done = 0, v, whole = 0, addr, mask
        cdef const dispatch_entry *e
        cdef uint32_t worst = IO_OK, st, op = 0, found, align
        self.odd += 1
        while done < a.size:
            part.addr = a.addr + done
            align = 1
            while align * 2 <= a.size - done and not part.addr & (align * 2 - 1):
                align *= 2
            part.size = <uint8_t>align
            mask = ~<uint64_t>0 if align == 8 else (<uint64_t>1 << align * 8) - 1
            v = value[0] >> (done * 8) & mask
            found = self._find(&part, &addr, &op, &e)
            st = IO_OK
            while found == FIND_SPLIT:
                align //= 2
                part.size = <uint8_t>align
                mask = (<uint64_t>1 << align * 8) - 1
                v &= mask
                found = self._find(&part, &addr, &op, &e)
            if found == FIND_OK:
                st = self.local.access(&self.local.regions[self._bank(e.region, a.vcpu)], t_ns, addr, align, a.dir, &v)
                if self.local.fx.n:
                    self._effects()
                self.next_deadline = 0
            elif found == FIND_ROUTER:
                if a.dir:
                    self.latch = latch_written(self.latch, <uint32_t>part.addr, align, v)
                else:
                    v = latch_read(self.latch, align)
            else:
                st = IO_UNCLAIMED
            if st & ~<uint32_t>IO_CONTENT:
                v = self._nobody(ENGINE_CONFIG if found == FIND_NO_FUNCTION else a.space, align)
                worst = st
            whole |= (v & mask) << (done * 8)
            done += align
        if not a.dir:
            value[0] = whole
        return worst

    cdef uint64_t _row(self, region_entry *r, uint64_t i, uint64_t n, uint64_t addr) noexcept nogil:
        """Access i and those behind it that are the same again, before anything is due; n at most.  How many the device has made at
        once; 0: they come one by one."""
        cdef const engine_acc *a = &self.acc[i]
        cdef uint64_t *values = self.value + i
        cdef uint64_t k, until = min(string_until(r, a.t_ns, addr, a.size, a.dir), self.next_deadline), v
        cdef uint32_t status = 0
        if a[1].t_ns >= until:
            return 0
        n = min(n, LOOK_EACH)
        k = 2
        if a.dir:
            values[0] = a.value
            values[1] = a[1].value
            while k < n and repeats(a, a + k) and a[k].t_ns < until:
                values[k] = a[k].value
                k += 1
            v = a[k - 1].value
            status = quick_access(<Executor>self.local, r, a[k - 1].t_ns, addr, a.size, True, &v)
        else:
            while k < n and repeats(a, a + k) and a[k].t_ns < until:
                k += 1
            k = quick_string(r, addr, a.size, <uint32_t>k, values, &status)
        self.now = r.core.now = a[k - 1].t_ns
        memset(self.status + i, <int>status, k)
        return k

    cdef int _run_local(self) except -1 nogil:
        cdef const engine_acc *acc = self.acc
        cdef const seq_input *inp = self.inp
        cdef uint64_t *value = self.value
        cdef uint8_t *status = self.status
        cdef uint64_t i = 0, j = 0, t, v, addr = 0, ticks = 0, n = self.n_acc, m = self.n_inp, routed = 0
        cdef uint64_t next_input = inp[0].index if m else <uint64_t>-1, stop = min(n, next_input)
        cdef uint64_t k
        cdef uint32_t place, st, space = 0, found, size
        cdef route to
        cdef const engine_acc *a
        cdef region_entry *r = NULL
        cdef PyObject *local = <PyObject *>self.local
        cdef effect_queue *fx = &self.local.fx
        memset(&to, 0, sizeof(to))
        to.space = 255
        while i < n:
            a = &acc[i]
            if i >= next_input:
                place = 0
                while j < m and inp[j].index <= i:
                    self._local_input(j, place)
                    place += 1
                    j += 1
                next_input = inp[j].index if j < m else <uint64_t>-1
                stop = min(n, next_input)
                to.space = 255
            if i & (SAMPLE - 1) == SAMPLE - 1 and self.stamped:
                ticks = tsc()
            t = a.t_ns
            size = a.size
            v = a.value
            self.now = t
            self.key = access_key(i)
            if t >= self.next_deadline:
                self._advance(t)
                to.space = 255
            found = quick_find(self, a, &to, &addr, &space)
            if to.fresh:
                r = &(<Executor>local).regions[to.region]
            if found == FIND_OK:
                if r.strings:
                    k = min(stop, i | (SAMPLE - 1)) if self.stamped else stop      # short of the next that is timed
                    if i + 1 < k and repeats(a, a + 1):
                        k = self._row(r, i, k - i, addr)
                        if k:
                            i += k
                            continue
                while True:                            # once; or a string of one access, as to data ports, with nothing in between
                    st = quick_access(<Executor>local, r, t, addr, size, a.dir, &v)
                    if r.unit.next < self.next_deadline:
                        self.next_deadline = r.unit.next
                    if st & ~<uint32_t>IO_CONTENT:
                        v = self._nobody(a.space, size)
                    if (fx.n or r.strings or i + 1 >= stop or not repeats(a, a + 1) or a[1].t_ns >= self.next_deadline
                            or i & (SAMPLE - 1) >= SAMPLE - 2):        # those that are timed
                        break
                    value[i] = a.value if a.dir else v
                    status[i] = <uint8_t>st
                    i += 1
                    a += 1
                    t = a.t_ns
                    v = a.value
                self.now = t
                if fx.n:
                    self.key = access_key(i)
                    self._effects()
                    to.space = 255                     # the map may be another one (a table's address says nothing: it is reused)
            elif found == FIND_ROUTER:
                st = IO_OK
                if a.dir:
                    self.latch = latch_written(self.latch, <uint32_t>a.addr, size, v)
                else:
                    v = latch_read(self.latch, size)
                routed += 1
            elif found == FIND_SPLIT:
                st = self._split_local(a, t, &v)
                to.space = 255
            else:
                st = IO_UNCLAIMED
                v = self._nobody(ENGINE_CONFIG if found == FIND_NO_FUNCTION else a.space, size)
                routed += 1
            value[i] = a.value if a.dir else v
            status[i] = <uint8_t>st
            if i & (SAMPLE - 1) == SAMPLE - 1:
                if self.stamped:
                    self._sample(tsc() - ticks)
                if i & 0xFFFF == 0xFFFF:
                    with gil:
                        self._check()
            i += 1
        self.counts.router += routed
        self.counts.local += n - routed
        place = 0
        while j < m:
            self._local_input(j, place)
            place += 1
            j += 1
        self._ended()
        return 0

    # ------------------------------------------------------------------ links: what sync, buffered and batched share

    cdef int _check(self) except -1:
        """Signals, other threads, and the caller's own check (are the workers alive?)."""
        PyErr_CheckSignals()
        with nogil:
            pass
        if self.check is not None:
            self.check()
        return 0

    cdef int _silent(self, uint32_t rank) except -1:
        """A message from a device that the order of units was made without."""
        d = self.plan.devices[rank]
        raise EngineError(f"device {d.id!r} sent a message-signalled interrupt, but its class {d.cls.__name__} does not say MESSAGE_SOURCE")

    cdef int _drain(self, uint32_t k) except -1 nogil:
        """Take the effects a worker published, give each its key, and put it on its net."""
        cdef seq_link *l = &self.link[k]
        cdef engine_effect e
        cdef fx_item item
        cdef int64_t n, i
        cdef uint64_t meta, cause, number, before = self.flood
        cdef int net
        while True:
            n = ring_peek(&l.v.effects, 256)
            if n == 0:
                if self.policy != WAIT_SPIN and self.flood - before >= min(<uint64_t>256, l.v.effects.capacity >> 1):
                    wake(&self.wait, &l.v.hdr.worker_asleep)       # it may have been waiting for room
                return 0
            if n < 0:
                break
            self.flood += n
            if self.flood > FLOOD:
                with gil:
                    raise RingError(f"worker {k + 1}: more than {FLOOD} effects of one stretch of accesses")
            for i in range(n):
                ring_copy(&e, ring_item(&l.v.effects, i), sizeof(engine_effect))
                if (e.device >= self.n_devices or self.units[self.unit_of[e.device]].link != <int>k or e.pin > 63
                        or e.t_ns > self.now):
                    n = -1
                    break
                item.t_ns = e.t_ns
                item.rank = e.device
                item.n = self.fx_count[e.device]
                self.fx_count[e.device] += 1
                item.addr = e.addr
                item.value = e.value
                item.level = LINE_AGAIN if e.value == LINE_AGAIN else e.value != 0
                item.delta = 1
                if e.cause & ENGINE_CAUSE_TIMER:
                    item.key = self._timer_key(e.t_ns)
                elif e.cause >> SLOT_CAUSE_BIT:
                    item.key = l.slot_key
                    item.delta = l.slot_delta + 1
                else:
                    cause = e.cause & (<uint64_t>1 << ENGINE_CAUSE_NEXT) - 1
                    number = e.cause >> ENGINE_CAUSE_NEXT
                    if (l.v.requests.mine + l.open - 1 - cause >= l.v.requests.capacity
                            or number > l.more[cause & l.v.requests.mask]):
                        n = -1
                        break
                    meta = l.meta[cause & l.v.requests.mask]
                    item.key = (meta >> 6) + (number << KEY_INDEX_SHIFT)
                    item.delta = <uint32_t>(meta & 63) + 1
                if e.kind == ENGINE_EFFECT_LINE:
                    net = self.net_of[<uint32_t>e.device << 6 | e.pin]
                    if net >= 0:
                        fx_push(&self.nets[net].pend, &item)
                elif e.kind == ENGINE_EFFECT_MESSAGE:
                    if not self.speaks[e.device]:
                        with gil:
                            self._silent(e.device)
                    fx_push(&self.messages, &item)
                elif e.kind == ENGINE_EFFECT_MAP:
                    self._map_later(e.device, e.pin, e.addr != 0, e.value)
                elif e.kind == ENGINE_EFFECT_RESET:
                    self.reset_pending = 1
            if n < 0:
                break
            ring_release(&l.v.effects, n)
        with gil:
            raise RingError(f"worker {k + 1}: impossible words in its effect ring")

    cdef int _collect(self, uint32_t k) except -1 nogil:
        """Take the completions that are there, and the effects published before them."""
        cdef seq_link *l = &self.link[k]
        cdef const engine_acc *acc = self.acc
        cdef uint64_t *values = self.value
        cdef uint8_t *statuses = self.status
        cdef engine_cpl c
        cdef int64_t n, i
        cdef uint64_t at, meta, index, more, base = self.base, n_acc = self.n_acc, seen, mask = l.v.requests.mask
        cdef uint32_t aux
        while True:
            n = link_completed(l.v, l.v.requests.capacity)
            if n == 0:
                return 0
            if n < 0:
                break
            self._drain(k)
            seen = l.v.seen
            i = 0
            while i < n:
                at = (seen + i) & mask
                more = l.more[at]
                if i + <int64_t>string_slots(more) >= n:       # a string is taken when all its answers are here
                    break
                if link_completion(l.v, i, &c) < 0:
                    n = -1
                    break
                meta = l.meta[at]
                if meta & META_LOW == META_ACCESS:
                    index = (meta >> KEY_INDEX_SHIFT + 6) - base
                    if index < n_acc:                          # else posted by an earlier run
                        statuses[index] = c.status
                        if acc[index].dir == 0:
                            values[index] = c.value
                            if c.status & ~<uint32_t>IO_CONTENT:
                                values[index] = self._nobody(acc[index].space, acc[index].size)
                        if not (seen + i) & (SAMPLE - 1) and self.stamped and l.stamp[at // SAMPLE]:
                            self._seen(l.stamp[at // SAMPLE], &l.v.stamps[at] if self.stamped == STAMPED_ALL else NULL)
                        if more:
                            self._answers(link_answers(l.v, at + 1), index + 1, more)
                elif meta & META_LOW & ~<uint64_t>63 != META_ACCESS:
                    aux = l.aux[at]
                    if aux != NO_AUX and self.answers != NULL:
                        self.answers[aux] = <int64_t>c.value
                i += 1 + <int64_t>string_slots(more)
            if n < 0:
                break
            link_seen(l.v, i)
            if i < n:
                return 0
        with gil:
            raise RingError(f"worker {k + 1}: impossible words in its completion ring")

    cdef void _answers(self, const uint64_t *answers, uint64_t i, uint64_t n) noexcept nogil:
        """Take n answers to a string, from access i of the run on; their index and number were checked."""
        cdef const engine_acc *a = &self.acc[i]
        cdef uint64_t *values = self.value + i
        cdef uint8_t *statuses = self.status + i
        cdef uint64_t k, answer, nobody = self._nobody(a.space, a.size)
        cdef uint32_t status
        for k in range(n):
            answer = load_relaxed64(answers + k)       # relaxed: after the acquire that found it
            status = answer >> 32 & 0xff
            statuses[k] = <uint8_t>status
            if a.dir == 0:
                values[k] = nobody if status & ~<uint32_t>IO_CONTENT else <uint32_t>answer

    cdef int _commit(self, uint32_t k, uint64_t patience=0) except -1 nogil:
        """Publish what is open.  If the worker sleeps it is woken, but not for `patience` slots or fewer."""
        cdef seq_link *l = &self.link[k]
        if l.open:
            link_commit(l.v, l.open)
            l.open = 0
            if l.batch:
                self.counts.batches += 1
                self.counts.batch_accesses += l.batch
                l.batch = 0
        if l.v.requests.mine - l.roused > patience and self.policy != WAIT_SPIN:
            l.roused = l.v.requests.mine
            wake(&self.wait, &l.v.hdr.worker_asleep)
        return 0

    cdef int _show_posted(self) except -1 nogil:
        """Publish the posted writes that are not yet."""
        if self.posting >= 0:
            self._commit(<uint32_t>self.posting)
            self.posting = -1
        return 0

    cdef int _wait_link(self, uint32_t k) except -1 nogil:
        """Until every record of this link has executed and its answers are here."""
        cdef seq_link *l = &self.link[k]
        self._commit(k)
        while True:
            self._collect(k)
            if l.v.seen == l.v.requests.mine:
                break
            self._drain(k)
            self._pause(k)
        return self._drain(k)

    cdef int _pause(self, uint32_t k) except -1 nogil:
        """Wait for a worker's next completion or effect, at most one slice."""
        cdef seq_link *l = &self.link[k]
        cdef wait_word words[2]
        words[0].word = &l.v.hdr.executed
        words[0].known = l.v.executed
        words[0].asleep = &l.v.hdr.router_asleep
        words[0].wide = 1
        words[1].word = &l.v.hdr.effects_produced
        words[1].known = l.v.effects.mine
        words[1].asleep = &l.v.hdr.router_asleep
        words[1].wide = 1
        if wait_any(&self.wait, words, 2) == 0:
            with gil:
                self._stand(k)
        return 0

    cdef int _stand(self, uint32_t k) except -1:
        """Waiting for worker k has lasted a slice: signals, the workers' lives, and whether this one gets on at all."""
        cdef link_view *v = self.link[k].v
        cdef uint64_t progress = v.executed + v.effects.mine + (v.posted << 20) + (<uint64_t>k << 56), now = monotonic_ns()
        self._check()
        if progress != self.stuck_at:
            self.stuck_at = progress
            self.stuck_since = now
        elif now - self.stuck_since > <uint64_t>(self.patience * 1e9):
            raise WorkerDied(f"worker {k + 1} has not answered for {self.patience:g} seconds: it hangs or was stopped")
        return 0

    cdef int _room(self, uint32_t k) except -1 nogil:
        """Until one more record fits the link's ring."""
        cdef seq_link *l = &self.link[k]
        while link_reserve(l.v, l.open + 1) < <int64_t>l.open + 1:
            self._commit(k)
            self._collect(k)
            if link_reserve(l.v, l.open + 1) >= <int64_t>l.open + 1:
                break
            self._drain(k)
            self._pause(k)
        return 0

    cdef uint64_t _string(self, seq_link *l, uint64_t i, uint64_t n, uint64_t block) noexcept nogil:
        """Behind access i, which is the last record in the ring: those that follow it, are the same access again, and have
        nothing between them.  At most n, in the rest of its block of slots.  How many; they are in the ring, not counted."""
        cdef const engine_acc *a = &self.acc[i]
        cdef uint64_t header = l.v.requests.mine + l.open - 1, room, k = 0, t = a.t_ns
        cdef uint64_t *values = self.value + i
        cdef engine_next *out = link_next(l.v, l.open)
        room = min(link_block(l.v, header), block - (header & (block - 1))) - 1
        room = min(room, l.v.requests.capacity - (l.v.requests.mine - l.v.kept) - l.open)
        n = min(n, room * 2)
        while k < n and repeats(a, a + k + 1) and a[k + 1].t_ns < self.step_at and a[k + 1].t_ns - t <= SLICE:
            t = a[k + 1].t_ns
            out[k].t_ns = t
            out[k].value = values[k + 1] = a[k + 1].value
            k += 1
        link_request(l.v, l.open - 1).more = <uint8_t>k
        l.more[header & l.v.requests.mask] = <uint8_t>k
        l.open += <uint32_t>string_slots(k)
        self.now = t
        return k

    cdef uint64_t _polls(self, const clock_entry *c, uint64_t addr, uint64_t i, uint64_t n) noexcept nogil:
        """Answer access i, which reads the time at addr, and those behind it that are the same again and have nothing between
        them; at most n.  How many."""
        cdef const engine_acc *a = &self.acc[i]
        cdef uint64_t k = 0
        n = min(n, LOOK_EACH)
        while True:
            self.now = a[k].t_ns
            self.value[i + k] = clock_read(c, addr, a.size, self.now)
            self.status[i + k] = IO_OK
            k += 1
            if k >= n or not repeats(a, a + k) or a[k].t_ns >= self.step_at or a[k].t_ns - self.now > SLICE:
                break
        self.counts.router += k
        return k

    cdef int _push(self, uint32_t unit, const engine_rec *rec, uint64_t key, uint32_t delta, uint32_t aux) except -1 nogil:
        """Put one record into the ring of the unit's owner."""
        cdef uint32_t k = self.units[unit].link
        cdef seq_link *l = &self.link[k]
        cdef uint64_t at
        if link_reserve(l.v, l.open + 1) < <int64_t>l.open + 1:
            self._room(k)
        link_request(l.v, l.open)[0] = rec[0]
        at = (l.v.requests.mine + l.open) & l.v.requests.mask
        l.meta[at] = key << 6 | (delta if delta < 63 else 63)
        l.aux[at] = aux
        l.more[at] = 0
        if not (l.v.requests.mine + l.open) & (SAMPLE - 1) and self.stamped:
            l.stamp[at // SAMPLE] = tsc()
        l.open += 1
        self.units[unit].touched += 1
        if not (l.v.requests.mine + l.open) & (COMMIT_AT - 1):
            self._commit(k)
            if not l.v.requests.mine & 511:
                self._collect(k)
        return 0

    cdef int _net(self, uint32_t n) except -1 nogil:
        """Evaluate a wire whose sources have all come as far as its readers will look."""
        cdef net_entry *net = &self.nets[n]
        cdef fx_item *f
        cdef held_item *h
        cdef uint32_t i, k
        cdef bint changed
        if net.pend.n == 0:
            return 0
        put_in_order(net.pend.at, net.pend.n, sizeof(fx_item), fx_compare)
        for i in range(net.pend.n):
            f = &net.pend.at[i]
            changed = net_changed(net, f.level)
            if not changed and f.level != LINE_AGAIN:
                continue
            if changed and net.line >= 0:
                self._line(f.key, f.t_ns, net.line, net.high != 0)
            for k in range(net.first, net.first + net.n):
                h = held_push(&self.units[self.unit_of[self.sinks[k].rank]].pend)
                memset(h, 0, sizeof(held_item))
                h.key = f.key
                h.t_ns = f.t_ns
                h.delta = f.delta
                h.rank = f.rank
                h.n = f.n
                h.aux = NO_AUX
                h.rec.op = ENGINE_REC_INPUT
                h.rec.t_ns = f.t_ns
                h.rec.addr = INPUT_LINE
                h.rec.value = net.high != 0
                h.rec.region = <uint32_t>self.sinks[k].rank << 8 | self.sinks[k].pin
        net.pend.n = 0
        return 0

    cdef int _messages_out(self, uint32_t level) except -1 nogil:
        """Message-signalled interrupts, to the sinks whose units are at this level."""
        cdef uint32_t i, k, rank
        cdef fx_item *f
        cdef held_item *h
        if self.messages.n == 0 or level != self.message_level:
            return 0
        for i in range(self.messages.n):
            f = &self.messages.at[i]
            for k in range(self.n_message_sinks):
                rank = self.message_sinks[k]
                if self.unit_of[rank] == self.unit_of[f.rank]:
                    continue                           # the executor delivered it
                h = held_push(&self.units[self.unit_of[rank]].pend)
                memset(h, 0, sizeof(held_item))
                h.key = f.key
                h.t_ns = f.t_ns
                h.delta = f.delta
                h.rank = f.rank
                h.n = f.n
                h.aux = NO_AUX
                h.rec.op = ENGINE_REC_INPUT
                h.rec.t_ns = f.t_ns
                h.rec.addr = INPUT_MESSAGE | <uint64_t>f.addr << 8
                h.rec.value = f.value
                h.rec.region = rank << 8
        self.messages.n = 0
        return 0

    cdef int _flush_unit(self, uint32_t unit, bint sync) except -1 nogil:
        """Send a unit what waits for it: inputs from wires merged, by key, into the accesses that were held back."""
        cdef unit_route *u = &self.units[unit]
        cdef uint32_t i = 0, j = 0
        cdef held_item *h
        cdef uint64_t value
        cdef uint32_t status
        put_in_order(u.pend.at, u.pend.n, sizeof(held_item), held_compare)
        while i < u.pend.n or j < u.held.n:
            if j >= u.held.n or (i < u.pend.n and u.pend.at[i].key < u.held.at[j].key):
                h = &u.pend.at[i]
                i += 1
            else:
                h = &u.held.at[j]
                j += 1
            if sync:
                self._sync(unit, &h.rec, h.key, h.delta, &value, &status)
            else:
                if h.delta == 0 and h.aux == NO_AUX:
                    self.link[u.link].batch += 1
                self._push(unit, &h.rec, h.key, h.delta, h.aux)
        u.pend.n = 0
        u.held.n = 0
        return 0

    cdef int _finish(self, uint64_t t_ns, bint everything=False) except -1 nogil:
        """A cut: everything pushed has executed, every deadline up to t_ns of a device that others hear (everything: of any
        device) has fired, and every effect has arrived."""
        cdef uint32_t level, u, k, n
        cdef engine_rec rec
        memset(&rec, 0, sizeof(rec))
        rec.op = ENGINE_REC_SETTLE
        rec.t_ns = t_ns
        self.counts.cuts += 1
        for level in range(self.n_levels):
            self._messages_out(level)
            for u in range(self.n_units):
                if self.units[u].level != level:
                    continue
                if self.units[u].pend.n or self.units[u].held.n:
                    self._flush_unit(u, False)
                if (self.units[u].source or everything) and (self.units[u].touched or self.units[u].deadline <= t_ns):
                    rec.region = self.units[u].lead
                    self._push(u, &rec, 0, 63, NO_AUX)
                    self.counts.settles += 1
            for k in range(self.n_links):
                self._commit(k)
            for k in range(self.n_links):
                self._wait_link(k)
            for u in range(self.n_units):
                if self.units[u].touched:
                    self.units[u].touched = 0
                    self.units[u].deadline = link_read_deadline(self.link[self.units[u].link].v, u)
            for n in range(self.n_nets):
                if self.nets[n].level == level + 1 and self.nets[n].pend.n:
                    self._net(n)
        self.n_held = 0
        self.carried = self.flood
        self.flood = 0
        if self.carried > BUSY >> 4:
            self.stretch = SLICE
        self.stretch_end = self.now + self.stretch
        self._timed_resets()
        if self.reset_pending:
            self._reset_links(t_ns, RESET_BUS)
        if self.n_maps:
            with gil:
                self._apply_maps()
        return 0

    cdef int _behind_barrier(self, uint64_t t_ns) except -1 nogil:
        """As _after: a reset and mappings that changed take effect behind the access that caused them."""
        if self.reset_pending:
            self._finish(t_ns)
        elif self.n_maps:
            with gil:
                self._apply_maps()
        return 0

    cdef int _ended(self) except -1 nogil:
        """Behind the last cut of a run: keys begin again."""
        self.line_base += self.base + self.n_acc
        self.base = 0
        return 0

    cdef void _timed_resets(self) noexcept nogil:
        """Until when no timer resets the machine, from the deadlines of the units whose timers may.  What can bring one nearer
        goes through barriers."""
        cdef uint32_t i
        self.timed_reset = NEVER
        for i in range(self.n_resetters):
            if self.units[self.resetters[i]].deadline < self.timed_reset:
                self.timed_reset = self.units[self.resetters[i]].deadline
        self.step_at = min(self.timed_reset, self.stretch_end)

    cdef int _step(self, uint64_t t_ns, uint64_t key) except -1 nogil:
        """Before what has `key` at t_ns: much time passes in slices, so that what timers do is carried before it piles up."""
        cdef uint64_t due, slice = SLICE
        cdef uint32_t u
        if t_ns >= self.stretch_end or t_ns - self.now > SLICE or self.flood > BUSY or self.n_held >= HELD:
            self.key = key & ~<uint64_t>1
            if t_ns >= self.stretch_end and self.stretch < LONG * <uint64_t>SLICE:
                self.stretch *= 2                      # as far as is known timers do little
            self._finish(self.now, t_ns - self.now > SLICE)        # before slices every deadline has to be known
            while t_ns - self.now > SLICE:
                due = NEVER
                for u in range(self.n_units):
                    if self.units[u].deadline < due:
                        due = self.units[u].deadline
                if due > t_ns:
                    break
                due = min(t_ns, max(due, self.now) + slice)
                self._reset_in_time(due, key)
                self.now = due
                self._finish(due, True)
                slice = slice * 2 if self.carried < BUSY >> 4 else max(slice >> 1, <uint64_t>SLICE)
        return self._reset_in_time(t_ns, key)

    cdef int _reset_in_time(self, uint64_t t_ns, uint64_t key) except -1 nogil:
        """Before what has `key` at t_ns: a cut at each moment when a timer may reset the machine, as the local path has it."""
        cdef uint64_t when
        while self.timed_reset <= t_ns:
            when = self.timed_reset
            self.key = key & ~<uint64_t>1
            self.now = max(self.now, when)
            self._finish(when)
            if self.timed_reset <= when:       # settled, and still due
                with gil:
                    raise RingError(f"a worker's deadline stands still at {when} ns: it is broken or hostile")
        return 0

    cdef int _reset_links(self, uint64_t t_ns, uint32_t kind) except -1 nogil:
        cdef engine_rec rec
        self._one_more_reset()
        memset(&rec, 0, sizeof(rec))
        rec.op = ENGINE_REC_RESET
        rec.t_ns = t_ns
        rec.value = kind
        self._push_all(&rec, self.key, 1)
        self._finish(t_ns)
        self.nested_resets = 0
        return 0

    cdef int _push_all(self, const engine_rec *rec, uint64_t key, uint32_t delta) except -1 nogil:
        """One record for every worker, about all of its devices."""
        cdef uint32_t k, u
        for k in range(self.n_links):
            for u in range(self.n_units):
                if self.units[u].link == <int>k:
                    self._push(u, rec, key, delta, NO_AUX)
                    break
        for u in range(self.n_units):
            self.units[u].touched = 1
        return 0

    cdef int _sync(self, uint32_t unit, const engine_rec *rec, uint64_t key, uint32_t delta, uint64_t *value,
                   uint32_t *status) except -1 nogil:
        """One record through the owner's slot; it executes after everything pushed to that owner."""
        cdef uint32_t k = self.units[unit].link, vcpu = 0
        cdef seq_link *l = &self.link[k]
        cdef int got = 0, i
        self._show_posted()
        if l.open:
            self._commit(k)
        l.slot_key = key
        l.slot_delta = delta
        if rec.vcpu < l.v.n_vcpus:
            vcpu = rec.vcpu
        if slot_fill(l.v, vcpu, rec, l.v.requests.mine) < 0:
            with gil:
                raise RingError(f"worker {k + 1}: the slot of vCPU {vcpu} is taken")
        if self.policy != WAIT_SPIN:
            wake(&self.wait, &l.v.hdr.worker_asleep)
        if self.looks:
            for i in range(LOOKS):                     # most answers are here before a clock could be read
                got = slot_poll(l.v, vcpu, value, status)
                if got:
                    break
                pause()
        if got <= 0:
            self._await(k, vcpu, got, value, status)
        status[0] &= 0xff
        if load_relaxed64(&l.v.hdr.effects_produced) != l.v.effects.mine:
            self._drain(k)
        self.units[unit].deadline = link_read_deadline(l.v, unit)
        if self.n_resetters:
            self._timed_resets()
        return 0

    cdef const engine_stamp *_slot_stamps(self, uint32_t unit, uint32_t vcpu) noexcept nogil:
        """What the owner of a unit stamped of a vCPU's last synchronous access, or NULL: it stamps one in SAMPLE."""
        cdef link_view *v = self.link[self.units[unit].link].v
        if self.stamped != STAMPED_ALL or (v.posted - 1) & (SAMPLE - 1):
            return NULL
        return &v.stamps[v.requests.capacity + (vcpu if vcpu < v.n_vcpus else 0)]

    cdef int _await(self, uint32_t k, uint32_t vcpu, int got, uint64_t *value, uint32_t *status) except -1 nogil:
        """Wait for the answer in a slot, by policy, taking what else the worker sends meanwhile."""
        cdef seq_link *l = &self.link[k]
        cdef wait_word words[2]
        words[0].word = &l.v.slots[vcpu].state
        words[0].asleep = words[1].asleep = &l.v.hdr.router_asleep
        words[0].wide = 0
        words[1].word = &l.v.hdr.effects_produced
        words[1].wide = 1
        while not got:
            got = slot_poll(l.v, vcpu, value, status)
            if got:
                break
            if l.v.seen != l.v.requests.mine:
                self._collect(k)
            words[0].known = l.v.slot_state[vcpu]
            words[1].known = l.v.effects.mine
            if wait_any(&self.wait, words, 2) == 0:
                with gil:
                    self._stand(k)
            if load_relaxed64(&l.v.hdr.effects_produced) != l.v.effects.mine:
                self._drain(k)                 # the worker may be waiting for room
        if got < 0:
            with gil:
                raise RingError(f"worker {k + 1}: impossible state in the slot of vCPU {vcpu}")
        return 0

    cdef int _bring_up(self, uint32_t unit, uint64_t t_ns) except -1 nogil:
        """Settle what is upstream of a unit up to t_ns, and give the unit the effects that precede what comes next."""
        cdef uint32_t level, v, n, status
        cdef uint64_t value
        cdef engine_rec rec
        cdef unit_route *r
        if self.units[unit].level:
            memset(&rec, 0, sizeof(rec))
            rec.op = ENGINE_REC_SETTLE
            rec.t_ns = t_ns
            for level in range(self.units[unit].level):
                self._messages_out(level)
                for v in range(self.n_units):
                    r = &self.units[v]
                    if r.level != level or not self.cone[unit * self.n_units + v]:
                        continue
                    if r.pend.n:
                        self._flush_unit(v, True)
                    # as published with the last record of it that was seen; more may be on the way
                    if link_read_deadline(self.link[r.link].v, v) <= t_ns or r.last > self.link[r.link].v.seen:
                        rec.region = r.lead
                        self._sync(v, &rec, 0, 63, &value, &status)
                        self._collect(r.link)
                        self.counts.settles += 1
                for n in range(self.n_nets):
                    if self.nets[n].level == level + 1 and self.net_cone[unit * self.n_nets + n] and self.nets[n].pend.n:
                        self._net(n)
            self._messages_out(self.units[unit].level)
        if self.units[unit].pend.n:
            self._flush_unit(unit, True)
        return 0

    cdef int _split_links(self, const engine_acc *a, uint64_t t_ns, uint64_t key, uint64_t *value) except -1 nogil:
        """As _split_local, each part through the slot of its owner."""
        cdef engine_acc part = a[0]
        cdef engine_rec rec
        cdef uint64_t done = 0, v, whole = 0, addr, mask
        cdef const dispatch_entry *e
        cdef uint32_t worst = IO_OK, st, op = 0, found, align
        self.odd += 1
        while done < a.size:
            part.addr = a.addr + done
            align = 1
            while align * 2 <= a.size - done and not part.addr & (align * 2 - 1):
                align *= 2
            part.size = <uint8_t>align
            found = self._find(&part, &addr, &op, &e)
            while found == FIND_SPLIT:
                align //= 2
                part.size = <uint8_t>align
                found = self._find(&part, &addr, &op, &e)
            mask = ~<uint64_t>0 if align == 8 else (<uint64_t>1 << align * 8) - 1
            v = value[0] >> (done * 8) & mask
            st = IO_OK
            if found == FIND_OK:
                memset(&rec, 0, sizeof(rec))
                rec.t_ns = t_ns
                rec.addr = addr
                rec.value = v
                rec.region = self._bank(e.region, a.vcpu)
                rec.vcpu = a.vcpu
                rec.op = <uint8_t>op
                self._bring_up(self.region_unit[rec.region], t_ns)
                self._sync(self.region_unit[rec.region], &rec, key, 0, &v, &st)
                self._finish(t_ns)             # what a part did is heard before the next part, as the local path has it
            elif found == FIND_ROUTER:
                if a.dir:
                    self.latch = latch_written(self.latch, <uint32_t>part.addr, align, v)
                else:
                    v = latch_read(self.latch, align)
            else:
                st = IO_UNCLAIMED
            if st & ~<uint32_t>IO_CONTENT:
                v = self._nobody(ENGINE_CONFIG if found == FIND_NO_FUNCTION else a.space, align)
                worst = st
            whole |= (v & mask) << (done * 8)
            done += align
        if not a.dir:
            value[0] = whole
        return worst

    cdef int _run_batched(self) except -1 nogil:
        cdef const engine_acc *acc = self.acc
        cdef uint64_t *values = self.value
        cdef uint64_t i = 0, j = 0, addr = 0, key, at, more, n = self.n_acc, m = self.n_inp, base = self.base
        cdef uint64_t next_input = self.inp[0].index if m else <uint64_t>-1, look = LOOK_EACH
        cdef uint32_t place, space = 0, found, size, k
        cdef const engine_acc *a
        cdef engine_rec *rec
        cdef held_item *h
        cdef route to
        cdef unit_route *unit = NULL
        cdef seq_link *l = NULL                        # of the access's unit; NULL if that is held back
        cdef bint apart = True                         # whoever resets the machine by a timer hears nobody
        memset(&to, 0, sizeof(to))
        to.space = 255
        for k in range(self.n_resetters):
            apart &= self.units[self.resetters[k]].level == 0
        while i < n:
            a = &acc[i]
            if i >= next_input:
                place = 0
                while j < m and self.inp[j].index <= i:
                    self._batched_input(j, place)
                    place += 1
                    j += 1
                next_input = self.inp[j].index if j < m else <uint64_t>-1
                to.space = 255
            if a.t_ns >= self.step_at or a.t_ns - self.now > SLICE or self.flood > BUSY or self.n_held >= HELD:
                self._step(a.t_ns, access_key(base + i))
                to.space = 255
            self.now = a.t_ns
            size = a.size
            found = quick_find(self, a, &to, &addr, &space)
            if to.fresh:
                unit = &self.units[to.unit]
                l = &self.link[unit.link] if unit.level == 0 else NULL
            more = 0
            if found == FIND_OK:
                key = access_key(base + i)
                values[i] = a.value                    # a read's answer replaces it
                if l != NULL:
                    if link_reserve(l.v, l.open + 1) < <int64_t>l.open + 1:
                        self._room(unit.link)
                    rec = link_request(l.v, l.open)
                    at = (l.v.requests.mine + l.open) & l.v.requests.mask
                    l.meta[at] = key << 6
                    l.more[at] = 0
                    if not (l.v.requests.mine + l.open) & (SAMPLE - 1) and self.stamped:
                        l.stamp[at // SAMPLE] = tsc()
                else:
                    h = held_push(&unit.held)
                    self.n_held += 1
                    h.key = key
                    h.t_ns = a.t_ns
                    h.delta = 0
                    h.aux = NO_AUX
                    rec = &h.rec
                fill(rec, a, addr, space, to.region)
                if l != NULL:
                    l.open += 1
                    if i + 1 < n and repeats(a, a + 1) and size <= 4 and not (to.flags & DISPATCH_BARRIER and a.dir):
                        more = self._string(l, i, min(n, next_input) - i - 1, COMMIT_AT)
                        i += more
                    l.batch += 1 + <uint32_t>more
                    unit.touched = 1
                    if not (l.v.requests.mine + l.open) & (COMMIT_AT - 1):
                        self._commit(unit.link, PATIENCE if self.policy == WAIT_BLOCK else 0)
                        if not l.v.requests.mine & 511:
                            self._collect(unit.link)
                self.counts.batched += 1 + more
                if to.flags & (DISPATCH_BARRIER | DISPATCH_CLOCK) and a.dir:
                    if addr < self.clocks[to.region].set_below:
                        unit.clock_set = self.counts.cuts
                    if to.flags & DISPATCH_BARRIER:
                        self.key = access_key(base + i)
                        if l == NULL or not apart:
                            self._finish(self.now)
                        else:                          # no other unit can have moved a region or reset
                            self._wait_link(unit.link)
                            unit.deadline = link_read_deadline(l.v, to.unit)
                            self._timed_resets()
                            self._behind_barrier(self.now)
                        to.space = 255                 # the map may be another one
            elif found == FIND_CLOCK:
                more = self._polls(&self.clocks[to.region], addr, i, min(n, next_input) - i) - 1
                i += more
            elif found == FIND_ROUTER:
                values[i] = a.value
                self.status[i] = IO_OK
                if a.dir:
                    self.latch = latch_written(self.latch, <uint32_t>a.addr, size, a.value)
                else:
                    values[i] = latch_read(self.latch, size)
                self.counts.router += 1
            elif found == FIND_NOBODY or found == FIND_NO_FUNCTION:
                values[i] = a.value if a.dir else self._nobody(ENGINE_CONFIG if found == FIND_NO_FUNCTION else a.space, size)
                self.status[i] = IO_UNCLAIMED
                self.counts.router += 1
            else:
                self._finish(a.t_ns)
                self.key = access_key(base + i)
                values[i] = a.value
                self.status[i] = <uint8_t>self._split_links(a, a.t_ns, self.key, &values[i])
                self.counts.sync += 1
                self._finish(a.t_ns)
                to.space = 255
            i += 1
            if i >= look:
                look += LOOK_EACH
                with gil:
                    self._check()
        place = 0
        while j < m:
            self._batched_input(j, place)
            place += 1
            j += 1
        self._finish(self.now, True)
        self._ended()
        return 0

    cdef int _batched_input(self, uint64_t j, uint32_t place) except -1 nogil:
        cdef const seq_input *inp = &self.inp[j]
        cdef engine_rec rec
        cdef uint32_t unit
        cdef uint64_t key = (self.base + inp.index) << KEY_INDEX_SHIFT | <uint64_t>place << 1 | 1
        cdef held_item *h
        if inp.kind == SEQ_RAM:
            self._finish(self.now, True)
            return self._ram_write(inp)
        if inp.t_ns > self.now:
            self._step(inp.t_ns, key)
            self.now = inp.t_ns
        self._input_record(inp, &rec)
        unit = self.unit_of[inp.target >> 8]
        if self.units[unit].level == 0:
            self._push(unit, &rec, key, 0, <uint32_t>j)
        else:
            h = held_push(&self.units[unit].held)
            h.key = key
            h.t_ns = rec.t_ns
            h.delta = 0
            h.aux = <uint32_t>j
            h.rec = rec
        self.counts.inputs += 1
        return 0

    cdef void _input_record(self, const seq_input *inp, engine_rec *rec) noexcept nogil:
        memset(rec, 0, sizeof(engine_rec))
        rec.op = ENGINE_REC_INTACK if inp.kind == INPUT_INTACK else ENGINE_REC_INPUT
        rec.t_ns = self.now
        rec.addr = inp.kind | inp.addr << 8
        rec.value = inp.value
        rec.vcpu = <uint16_t>inp.value if inp.kind == INPUT_INTACK else 0
        rec.region = inp.target

    cdef int _waiting_input(self, uint64_t j, uint32_t place) except -1 nogil:
        cdef const seq_input *inp = &self.inp[j]
        cdef engine_rec rec
        cdef uint32_t unit, status = 0, k
        cdef uint64_t value = 0
        if inp.kind == SEQ_RAM:
            self._finish(self.now, True)
            return self._ram_write(inp)
        if inp.t_ns > self.now:
            self._step(inp.t_ns, (self.base + inp.index) << KEY_INDEX_SHIFT | <uint64_t>place << 1)
            self.now = inp.t_ns
        self._input_record(inp, &rec)
        unit = self.unit_of[inp.target >> 8]
        self._bring_up(unit, self.now)
        self._sync(unit, &rec, (self.base + inp.index) << KEY_INDEX_SHIFT | <uint64_t>place << 1 | 1, 0, &value, &status)
        if self.answers != NULL:
            self.answers[j] = <int64_t>value
        self.counts.inputs += 1
        return 0

    cdef int _run_waiting(self, bint buffered) except -1 nogil:
        cdef uint64_t i = 0, j = 0, addr = 0, v, ticks = 0, at, more, n = self.n_acc, base = self.base
        cdef uint64_t next_input = self.inp[0].index if self.n_inp else <uint64_t>-1, look = LOOK_EACH
        cdef uint32_t place, space = 0, found, st
        cdef bint posted = False
        cdef const engine_acc *a
        cdef engine_rec rec
        cdef route to
        cdef unit_route *unit = NULL
        cdef seq_link *l = NULL
        memset(&to, 0, sizeof(to))
        to.space = 255
        while i < n:
            if i >= look:
                look += LOOK_EACH
                self._finish(self.now)
                to.space = 255
                with gil:
                    self._check()
            a = &self.acc[i]
            if i >= next_input:
                place = 0
                while j < self.n_inp and self.inp[j].index <= i:
                    self._waiting_input(j, place)
                    place += 1
                    j += 1
                next_input = self.inp[j].index if j < self.n_inp else <uint64_t>-1
                to.space = 255
            if a.t_ns >= self.step_at or a.t_ns - self.now > SLICE or self.flood > BUSY:
                self._step(a.t_ns, access_key(base + i))
                to.space = 255
            self.now = a.t_ns
            v = a.value
            ticks = 0
            if self.stamped:
                if not buffered or self.unstamped == 0 or self.stamped == STAMPED_ALL:
                    ticks = tsc()
                    self.unstamped = TIME_ONE_IN
                self.unstamped -= 1
            found = quick_find(self, a, &to, &addr, &space)
            if found == FIND_OK:
                if to.fresh:
                    unit = &self.units[to.unit]
                    l = &self.link[unit.link]
                    posted = buffered and to.flags & DISPATCH_POSTED and not unit.is_sync
                self.key = access_key(base + i)
                if unit.level or unit.pend.n:
                    self._bring_up(to.unit, a.t_ns)
                if posted and a.dir:
                    if unit.link != self.posting:
                        self._show_posted()
                        self.posting = unit.link
                    if link_reserve(l.v, l.open + 1) <= <int64_t>l.open:
                        self._commit(unit.link)
                        self._collect(unit.link)
                    if link_reserve(l.v, l.open + 1) > <int64_t>l.open:
                        fill(link_request(l.v, l.open), a, addr, space, to.region)
                        at = l.v.requests.mine + l.open
                        l.meta[at & l.v.requests.mask] = self.key << 6
                        l.more[at & l.v.requests.mask] = 0
                        if not at & (SAMPLE - 1):
                            l.stamp[(at & l.v.requests.mask) // SAMPLE] = tsc() if self.stamped == STAMPED_ALL else 0
                        l.open += 1
                        self.value[i] = a.value
                        more = 0
                        if i + 1 < n and repeats(a, a + 1) and a.size <= 4 and not ticks and not unit.level:
                            more = self._string(l, i, min(min(n, next_input) - i - 1, self.unstamped if self.stamped else n), POST_AT)
                            self.unstamped -= <uint32_t>more if self.stamped else 0
                        memset(&self.status[i], IO_OK, 1 + more)       # their own may come when this run is over
                        i += 1 + more
                        unit.last = l.v.requests.mine + l.open
                        unit.touched = 1
                        self.counts.buffered += 1 + more
                        if not unit.last & (POST_AT - 1):
                            self._commit(unit.link)
                            if not l.v.requests.mine & 511:
                                self._collect(unit.link)
                        if ticks and n > 1:
                            self._sample(tsc() - ticks)
                        continue
                    self.counts.fallback += 1
                fill(&rec, a, addr, space, to.region)
                self._sync(to.unit, &rec, self.key, 0, &v, &st)
                self.counts.sync += 1
                if ticks:
                    self._seen(ticks, self._slot_stamps(to.unit, a.vcpu))
                if st & ~<uint32_t>IO_CONTENT and not a.dir:
                    v = self._nobody(a.space, a.size)
                if to.flags & DISPATCH_BARRIER and a.dir:
                    self._behind_barrier(a.t_ns)
                    to.space = 255
            elif found == FIND_CLOCK:
                i += self._polls(&self.clocks[to.region], addr, i, min(n, next_input) - i)
                continue
            elif found == FIND_ROUTER:
                st = IO_OK
                if a.dir:
                    self.latch = latch_written(self.latch, <uint32_t>a.addr, a.size, v)
                else:
                    v = latch_read(self.latch, a.size)
                self.counts.router += 1
            elif found == FIND_SPLIT:
                self.key = access_key(base + i)
                st = self._split_links(a, a.t_ns, self.key, &v)
                to.space = 255
                self.counts.sync += 1
            else:
                st = IO_UNCLAIMED
                v = self._nobody(ENGINE_CONFIG if found == FIND_NO_FUNCTION else a.space, a.size)
                self.counts.router += 1
            self.value[i] = a.value if a.dir else v
            self.status[i] = <uint8_t>st
            i += 1
        place = 0
        while j < self.n_inp:
            self._waiting_input(j, place)
            place += 1
            j += 1
        if n == 1 and self.n_inp == 0 and self.base < PAST:
            self._show_posted()
            self.past[self.base] = self.now        # single accesses need no cut each: what is on the way keeps its number
            self.base += 1
            return 0
        self._finish(self.now, True)
        self._ended()
        return 0

    # ------------------------------------------------------------------ what Python sees

    def run(self, acc, inputs=None, str path="local", ram_bytes=None):
        """Execute a batch of accesses, in order, with the inputs between them.

        acc: ACC records (32 bytes, C-contiguous), t_ns never decreasing and not before the clock.  inputs: INPUT records sorted by index;
        `index` is the access they come before.  ram_bytes: what RAM inputs point into.  Returns (value u64[n], status
        u8[n], answers i64[m]): the value read (for a write: written), the status, and each input's answer.
        """
        cdef const unsigned char[::1] a = np.ascontiguousarray(acc).view(np.uint8).reshape(-1)
        cdef const unsigned char[::1] b, r
        cdef int kind = PATHS[path]
        n = a.shape[0] // sizeof(engine_acc)
        value = np.empty(n, np.uint64)         # every path fills in every one
        status = np.empty(n, np.uint8)
        m = 0 if inputs is None else len(inputs)
        answers = np.full(m, -1, np.int64)
        cdef uint64_t[::1] v = value
        cdef uint8_t[::1] s = status
        cdef int64_t[::1] w = answers
        if (self.local is None) != (kind != SEQ_LOCAL):
            raise EngineError(f"path {path} does not fit a machine {'without' if self.local is not None else 'with'} workers")
        if self.failed is not None:
            raise EngineError(self.failed)
        if m:
            self._check_inputs(inputs, n, 0 if ram_bytes is None else len(ram_bytes))
        self.acc = <const engine_acc *>&a[0] if n else NULL
        self.n_acc = n
        self.value = &v[0] if n else NULL
        self.status = &s[0] if n else NULL
        self.inp = NULL
        self.n_inp = m
        self.answers = NULL
        if m:
            b = np.ascontiguousarray(inputs).view(np.uint8).reshape(-1)
            self.inp = <const seq_input *>&b[0]
            self.answers = &w[0]
        self.ram_bytes = NULL
        if ram_bytes is not None and len(ram_bytes):
            r = ram_bytes
            self.ram_bytes = &r[0]
        self._go(kind)
        return value, status, answers

    cdef int _go(self, int kind) except -1:
        """Carry out the run in hand, and let go of its arrays."""
        if len(self.regions) > REGIONS:
            self._forget_regions()
        if kind == SEQ_LOCAL and (self.n_acc == 1 or self.python):
            try:
                self._run_local()              # not worth giving up the GIL for, or its devices find it at hand
            finally:
                self._let_go()
            return 0
        try:
            with nogil:
                self._carry_out(kind)
        except BaseException as e:
            self._broke(e)
            raise
        finally:
            self._let_go()
        return 0

    cdef int _carry_out(self, int kind) except -1 nogil:
        if kind == SEQ_LOCAL:
            return self._run_local()
        if kind == SEQ_BATCHED:
            return self._run_batched()
        return self._run_waiting(kind == SEQ_BUFFERED)

    cdef void _let_go(self) noexcept nogil:
        """No run is in hand: its arrays are the caller's."""
        self.acc = NULL
        self.inp = NULL
        self.n_acc = self.n_inp = 0
        self.value = NULL
        self.status = NULL
        self.answers = NULL
        self.ram_bytes = NULL

    def access(self, uint32_t space, uint64_t addr, uint32_t size, bint write=False, uint64_t value=0, uint64_t t_ns=0):
        """One access by vCPU 0 at t_ns (at the clock, if that is later), local or through its owner's slot: the value read, or
        written.  Raises UsageError if no guest can make it."""
        self.single(space, addr, size, write, &value, t_ns)
        return value

    cdef int single(self, uint32_t space, uint64_t addr, uint32_t size, bint write, uint64_t *value, uint64_t t_ns) except -1:
        """access() from compiled code; value: in for a write, out for a read."""
        cdef engine_acc one
        cdef uint8_t status
        if (space > ENGINE_CONFIG or size - 1 > 7 or size & (size - 1)
                or (space == ENGINE_PIO and (addr > 0xffff or size > 4))):
            raise UsageError(f"access is impossible: space {space}, address {addr:#x}, size {size}; sizes are 1, 2, 4 (and 8 on MMIO), spaces 0 to 2, "
                             f"ports up to 0xffff")
        if self.failed is not None:
            raise EngineError(self.failed)
        memset(&one, 0, sizeof(one))
        one.t_ns = t_ns if t_ns > self.now else self.now
        one.addr = addr
        one.value = value[0]
        one.size = <uint8_t>size
        one.space = <uint8_t>space
        one.dir = write
        self.acc = &one
        self.n_acc = 1
        self.value = value
        self.status = &status
        return self._go(SEQ_LOCAL if self.local is not None else SEQ_SYNC)

    def _broke(self, e):
        """A run ended in the middle: what is on the way to workers can no longer be told from what comes next."""
        if self.local is None:
            self.failed = f"the machine stopped in the middle of a batch ({type(e).__name__}: {e}); stop it and start it again"

    def _check_inputs(self, inputs, n, ram_bytes):
        """Raises UsageError for inputs that name what is not there."""
        if inputs.dtype != INPUT:
            raise UsageError(f"inputs need records of engine.sequencer.INPUT, not {inputs.dtype}")
        index, kind, target = inputs["index"], inputs["kind"], inputs["target"]
        m = len(index)
        if (index[1:] < index[:m - 1]).any() or int(index.max()) > n:
            raise UsageError(f"inputs are not sorted by index, or one comes before access {int(index.max())} of {n}")
        if m >= PLACE_ACCESS and (index[PLACE_ACCESS - 1:] == index[:m - PLACE_ACCESS + 1]).any():
            raise UsageError(f"{PLACE_ACCESS} inputs or more before one access; hand them over in several runs")
        odd = (kind != SEQ_RAM) & ((kind > INPUT_AUX) | (kind == INPUT_PACKET) | (target >> 8 >= self.n_devices))
        pins = np.array([len(d.cls.IN) for d in self.plan.devices], np.uint32)
        odd |= (kind == INPUT_LINE) & ((target & 0xff) >= pins[np.minimum(target >> 8, self.n_devices - 1)])
        odd |= (kind == SEQ_RAM) & ((inputs["value"] >> np.uint64(32)) + (inputs["value"] & np.uint64(0xffffffff)) > ram_bytes)
        if odd.any():
            i = int(np.argmax(odd))
            raise UsageError(f"input {i} is impossible: kind {int(kind[i])} for device {int(target[i]) >> 8}, pin {int(target[i]) & 0xff}, value "
                             f"{int(inputs['value'][i]):#x} (RAM bytes given: {ram_bytes})")

    cdef int _cut(self, uint64_t t_ns=0) except -1:
        """Outside of a run: whatever earlier ones left to do is done, and what is due up to t_ns."""
        if self.local is None:
            if self.failed is not None:
                raise EngineError(self.failed)
            try:
                with nogil:
                    if t_ns > self.now:
                        self._step(t_ns, access_key(0))
                        self.now = t_ns
                    else:
                        self._reset_in_time(self.now, access_key(0))
                    self._finish(self.now, True)
            except BaseException as e:
                self._broke(e)
                raise
            self._ended()
        return 0

    def settle(self, uint64_t t_ns):
        """Move the clock to t_ns (never back); everything due happens."""
        if self.local is not None:
            self.now = max(self.now, t_ns)
            self.key = access_key(0)           # as _timer_key has it between runs
            self._advance(self.now)
        else:
            self._cut(max(self.now, t_ns))

    def reset(self, bint cold=False):
        """The board's reset line, now; cold: as after switching on (guest RAM keeps its contents)."""
        cdef engine_rec rec
        cdef uint64_t value = 0
        self.settle(self.now)
        if cold:
            self.latch = 0
        self.key = access_key(0) & ~<uint64_t>1
        if self.local is not None:
            self.resets += 1
            memset(&rec, 0, sizeof(rec))
            rec.op = ENGINE_REC_RESET
            rec.t_ns = self.now
            rec.value = RESET_POWER_ON if cold else RESET_BUS
            self.local.execute(&rec, &value)
            self.next_deadline = 0
            self._effects()
        else:
            try:
                with nogil:
                    self._reset_links(self.now, RESET_POWER_ON if cold else RESET_BUS)
            except BaseException as e:
                self._broke(e)
                raise

    def state(self):
        """What the router itself knows, with nothing on the way: {"now", "latch", "mapped"}.  mapped: (rank, region number, base),
        what was mapped later (and so is seen where two overlap) behind what was there before."""
        self._cut()
        return {"now": self.now, "latch": self.latch, "mapped": [self.regions[region] for region in self.mapped.values()]}

    def set_state(self, state, levels):
        """Put back what state() gave, after the devices were restored.  levels: output levels of each device, by rank."""
        cdef uint32_t n
        self._cut()
        self.now = state["now"]
        for n in range(self.n_nets):
            self.nets[n].high = sum(levels[rank] >> pin & 1 for rank, pin in self.plan.nets[n].sources)
        self._show_rows(state["mapped"])
        self._resume(state["now"], state["latch"])

    def snapshot(self):
        """The same for restore(), in microseconds: (now, latch, how many sources of each net are high, mapping)."""
        cdef uint32_t n
        self._cut()
        return self.now, self.latch, [self.nets[n].high for n in range(self.n_nets)], self.mapping

    def restore(self, snapshot):
        """Put back what snapshot() gave, after the devices' state was put back into their arenas at a cut."""
        cdef uint32_t n
        now, latch, high, mapping = snapshot
        for n in range(self.n_nets):
            self.nets[n].high = high[n]
        self._show(mapping)
        self._resume(now, latch)

    cdef int _resume(self, uint64_t now, uint32_t latch) except -1:
        """All devices hold another state, of this moment: their owners look at it, and everybody learns the deadlines."""
        cdef uint32_t k, u
        cdef engine_rec rec
        cdef uint64_t value
        self.now = now
        self.stretch_end = now + self.stretch
        self.latch = latch
        memset(&rec, 0, sizeof(rec))
        rec.op = ENGINE_REC_SNAPSHOT
        rec.t_ns = now
        if self.local is not None:
            self.local.execute(&rec, &value)
            self.next_deadline = 0
            return 0
        try:
            with nogil:
                self._push_all(&rec, 0, 63)
                for k in range(self.n_links):
                    self._commit(k)
                for k in range(self.n_links):
                    self._wait_link(k)
        except BaseException as e:
            self._broke(e)
            raise
        for u in range(self.n_units):
            self.units[u].touched = 0
            self.units[u].deadline = link_read_deadline(self.link[self.units[u].link].v, u)
        self._timed_resets()
        return 0

    def next_event(self):
        """When a device wants the clock next, in ns, or None: where a step to the next event ends.  What is due by now happens first."""
        cdef uint64_t best = NEVER
        cdef uint32_t u
        self.settle(self.now)
        for u in range(self.n_units):
            best = min(best, self.local.units[u].next if self.local is not None
                       else link_read_deadline(self.link[self.units[u].link].v, u))
        return None if best == NEVER else best

    @property
    def n_pending_lines(self):
        """How many line changes take_lines would give."""
        return self.n_lines

    def take_lines(self):
        """The observed line changes since the last call, in order: LINE_CHANGE records.  `line` is the number in the
        board's `observe` list, `index` the access (counted since the last call) during which (phase 1) or before which (phase 0)
        it changed.  The last LINES / 2 (2,097,152) at least are kept; what goes before is counted, as counters["lines_dropped"]."""
        if self.failed is None:
            self._cut()
        self.line_base = 0
        out = np.zeros(self.n_lines, LINE_CHANGE)
        keys = np.zeros(self.n_lines, np.uint64)
        cdef uint64_t i
        cdef uint64_t[::1] k = keys
        cdef uint64_t[::1] t = np.zeros(self.n_lines, np.uint64)
        cdef uint16_t[::1] line = np.zeros(self.n_lines, np.uint16)
        cdef uint8_t[::1] level = np.zeros(self.n_lines, np.uint8)
        for i in range(self.n_lines):
            k[i] = self.lines[i].key
            t[i] = self.lines[i].t_ns
            line[i] = self.lines[i].line
            level[i] = self.lines[i].level
        self.n_lines = 0
        out["index"] = keys >> np.uint64(KEY_INDEX_SHIFT)
        out["t_ns"] = t
        out["line"] = line
        out["level"] = level
        out["phase"] = (keys & np.uint64(PLACE_ACCESS << 1 | 1)) == np.uint64(PLACE_ACCESS << 1 | 1)
        return out[np.lexsort((out["line"], out["t_ns"], keys))]

    @property
    def counters(self):
        """How accesses went: local, router, sync, buffered, batched, fallback, posted_eligible, batches, ..."""
        c = dict(self.counts)
        c["posted_eligible"] = c["buffered"] + c["fallback"]
        c["mean_batch"] = c["batch_accesses"] / c["batches"] if c["batches"] else 0.0
        c["split"] = self.odd
        c["resets"] = self.resets
        c["lines_dropped"] = self.lines_dropped
        return c

    @property
    def clock(self):
        """Virtual time of the last input, in ns."""
        return self.now

    @property
    def stamps(self):
        """What of an access is stamped: "none", "ends" or "all" (of STAMPS).  Machine.stamps tells the workers, too."""
        return STAMPS[self.stamped]

    @stamps.setter
    def stamps(self, which):
        if which not in STAMPS:
            raise UsageError(f"stamps {which!r}: choose one of {', '.join(STAMPS)}")
        cdef uint32_t k
        for k in range(self.n_links):
            if which == "all" and self.link[k].v.stamps == NULL:
                raise EngineError(f"{self.links[k].segment.name} has no room for stamps")
        self.stamped = STAMPS.index(which)

    def histogram(self, stage="whole"):
        """Latency counts by bucket, in TSC ticks (see bucket_ticks), of one of STAGES."""
        cdef uint32_t i, first = STAGES.index(stage) * HIST
        return np.array([self.hist[first + i] for i in range(HIST)], np.uint64)

    def clear_histogram(self):
        """Forget the latencies so far."""
        memset(self.hist, 0, HIST * 4 * sizeof(uint64_t))

    @staticmethod
    def bucket_ticks():
        """Lower edge of each histogram bucket, in TSC ticks."""
        out = [0] * HIST
        for i in range(HIST):
            e, m = (0, i) if i < 64 else ((i - 32) // 32, (i - 32) % 32 + 32)
            out[i] = m << e
        return np.array(out, dtype=object)
