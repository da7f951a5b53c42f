"""Raw loops over a machine's own devices: the limits of the paths that execute accesses.

A Walk knows every region that a recording reached, in flat tables: one for ports, one for pages below 4 GiB, one for the
functions of bus 0.  Its loops do for each access what no engine can do without: find the region, set the device's clock,
call the device's own code.  They move no deadline, carry no effect, deliver no input and keep no order between devices.

local    one process
pair     a ring of 32-byte records out, a ring of 16-byte answers back; the devices in a forked process
oneway   a ring of 32-byte records; look-ups and calls in the forked process; no answers

Frozen: a change here changes the meaning of every ratio to it.
"""
from cpython.ref cimport PyObject
from libc.errno cimport EILSEQ
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strerror

import numpy as np

from engine._abi cimport ENGINE_CONFIG, ENGINE_MMIO, ENGINE_PIO, engine_acc
from engine._device cimport IO_CONTENT, Device, device_core
from engine._executor cimport Executor, region_entry
from engine.sequencer cimport Sequencer

from engine.errors import EngineError
from engine.types import Space

cdef extern from "measure/limits.h" nogil:
    enum:
        LIMIT_RING
    ctypedef struct limit_rec:
        uint64_t word[4]
    ctypedef struct limit_shared:
        uint64_t produced, consumed, checksum
        limit_rec ring[4096]
    ctypedef struct limit_job:
        limit_shared *shared
        uint64_t n, end_ns, elapsed_ns
        uint32_t batch, share
    uint64_t limit_now()
    int limit_spin(limit_job *j, uint32_t *spins)
    int limit_pair(limit_job *j, int cpu_a, int cpu_b, int (*caller)(limit_job *) noexcept nogil, int (*helper)(limit_job *) noexcept nogil)

cdef extern from "sys/mman.h" nogil:
    void *mmap(void *at, size_t n, int prot, int flags, int fd, long offset)
    int munmap(void *at, size_t n)
    enum:
        PROT_READ, PROT_WRITE, MAP_SHARED, MAP_ANONYMOUS, MAP_POPULATE
    void *MAP_FAILED

cdef extern from *:
    """
    #define walk_acquire(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
    #define walk_release(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
    """
    uint64_t walk_acquire(const uint64_t *p) nogil
    void walk_release(uint64_t *p, uint64_t v) nogil

cdef enum:
    LAST = 0x7FFFFFFF      # of a record's last word: nothing follows

cdef struct walk_entry:
    uint64_t base, last    # visible addresses; entry 0 holds none: 1 and 0
    uint64_t origin        # of the region
    PyObject *dev
    device_core *core
    region_entry *region
    uint32_t index
    uint32_t direct        # widths that the device's code takes as they are

cdef struct answer:
    uint64_t value
    uint32_t seq
    uint32_t status


cdef class Walk:
    """`Walk(machine)`: of a started local machine that has executed the recording once."""
    cdef object machine
    cdef PyObject *executor
    cdef walk_entry *entries
    cdef uint32_t n
    cdef uint32_t *pio         # entry of each port
    cdef uint32_t *page        # of each page below 4 GiB
    cdef uint32_t *function    # of each function of bus 0
    cdef uint64_t pio_fill, mmio_fill
    cdef readonly uint64_t missed   # accesses of the last loop that met no region
    cdef readonly uint64_t split    # accesses wider or narrower than the device's code

    def __cinit__(self):
        self.pio = <uint32_t *>calloc(1 << 16, sizeof(uint32_t))
        self.page = <uint32_t *>calloc(1 << 20, sizeof(uint32_t))
        self.function = <uint32_t *>calloc(256, sizeof(uint32_t))
        if not (self.pio and self.page and self.function):
            raise MemoryError()

    def __dealloc__(self):
        free(self.pio)
        free(self.page)
        free(self.function)
        free(self.entries)

    def __init__(self, machine):
        cdef Sequencer s = machine.sequencer
        cdef Executor ex = s.local
        if ex is None:
            raise EngineError("a Walk needs a machine without workers")
        self.machine = machine
        self.executor = <PyObject *>ex
        devices = machine.plan.devices
        was = sorted((region, key) for key, region in s.region_ids.items() if key[0] != "vcpu")
        now = [r for space in (Space.PIO, Space.MMIO) for r in s.map.current.entries(int(space))]
        self.entries = <walk_entry *>calloc(len(was) + len(now) + 1, sizeof(walk_entry))
        if self.entries == NULL:
            raise MemoryError()
        self.entries[0].base = 1
        self.n = 1
        spaces = {}
        for region, (rank, index, base) in was:                # wherever it ever was
            r = devices[rank].regions[index]
            spaces[region] = r.space
            if r.size:
                self._paint(r.space, base, base + r.size - 1, base, ex, region)
        for r in now:                                          # and where it is now
            self._paint(spaces[int(r["region"])], int(r["base"]), int(r["last"]), int(r["base"] + r["delta"]), ex, int(r["region"]))
        self.pio_fill = 0xFFFFFFFFFFFFFFFF if machine.plan.spec.board.pio_unclaimed == "ones" else 0
        self.mmio_fill = 0xFFFFFFFFFFFFFFFF if machine.plan.spec.board.mmio_unclaimed == "ones" else 0

    cdef _paint(self, space, first, last, origin, Executor ex, uint32_t region):
        cdef walk_entry *e = &self.entries[self.n]
        cdef uint64_t i
        cdef region_entry *r = &ex.regions[region]
        if last >= 1 << 32 and space == Space.MMIO:
            return
        e.base, e.last, e.region = first, last, r
        e.origin = <uint64_t>first - (<uint64_t>origin - r.base)
        e.dev, e.core, e.index, e.direct = r.dev, r.core, r.index, r.direct
        if space == Space.PIO:
            for i in range(e.base, e.last + 1):
                self.pio[i] = self.n
        elif space == Space.MMIO:
            for i in range(e.base >> 12, (e.last >> 12) + 1):
                self.page[i] = self.n
        else:
            self.function[(e.base >> 32) & 0xff] = self.n
        self.n += 1

    def local(self, acc):
        """(seconds, value u64[n]) of one pass in this process."""
        cdef const unsigned char[::1] a = acc.view(np.uint8).reshape(-1)
        value = np.empty(len(acc), np.uint64)         # not cleared: whether the allocator has to is chance
        status = np.empty(len(acc), np.uint8)
        cdef uint64_t[::1] v = value
        cdef uint8_t[::1] s = status
        cdef uint64_t took = 0, n = len(acc)
        if n:
            with nogil:
                took = limit_now()
                walk_local(self, <const engine_acc *>&a[0], n, &v[0], &s[0])
                took = limit_now() - took
        return took / 1e9, value

    def pair(self, acc, cpus, uint32_t batch=64):
        """(seconds, value u64[n]): records out, answers back, published `batch` at a time."""
        return self._ring(acc, cpus, batch, True)

    def oneway(self, acc, cpus, uint32_t batch=64):
        """(seconds, None): records out, until all have been executed."""
        return self._ring(acc, cpus, batch, False)

    cdef _ring(self, acc, cpus, uint32_t batch, bint back):
        global ring_walk, ring_acc, ring_value, ring_answers
        cdef const unsigned char[::1] a = acc.view(np.uint8).reshape(-1)
        value = np.zeros(len(acc), np.uint64)
        cdef uint64_t[::1] v = value
        cdef limit_job j
        cdef int err, cpu_a = cpus[0], cpu_b = cpus[1]
        cdef size_t room = LIMIT_RING * sizeof(answer)
        if not len(acc):
            raise EngineError("nothing to walk")
        memset(&j, 0, sizeof(j))
        j.n = len(acc)
        j.batch = batch
        ring_answers = <answer *>mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0)
        if ring_answers == MAP_FAILED:
            raise MemoryError()
        ring_walk, ring_acc, ring_value = <PyObject *>self, <const engine_acc *>&a[0], &v[0]
        with nogil:
            if back:
                err = limit_pair(&j, cpu_a, cpu_b, pair_caller, pair_helper)
            else:
                err = limit_pair(&j, cpu_a, cpu_b, oneway_caller, oneway_helper)
        munmap(ring_answers, room)
        if err:
            raise EngineError(f"raw ring on CPUs {cpu_a} and {cpu_b}: {strerror(err).decode()}")
        return j.elapsed_ns / 1e9, value if back else None


cdef PyObject *ring_walk
cdef const engine_acc *ring_acc
cdef uint64_t *ring_value
cdef answer *ring_answers


cdef inline uint32_t walk_execute(Walk w, walk_entry *e, uint64_t t_ns, uint64_t addr, uint32_t size, bint write, uint64_t *value) noexcept nogil:
    """The device's own code, and nothing else, for a width that it takes."""
    cdef uint32_t status
    if not e.direct & size:
        w.split += 1
        return (<Executor>w.executor).access(e.region, t_ns, addr, size, write, value)
    e.core.now = t_ns
    if write:
        return (<Device>e.dev).write(e.index, <uint32_t>(addr - e.origin), size, value[0])
    value[0] = 0
    status = (<Device>e.dev).read(e.index, <uint32_t>(addr - e.origin), size, value)
    value[0] &= ~<uint64_t>0 >> (64 - 8 * size)
    return status


cdef inline walk_entry *walk_find(Walk w, const engine_acc *a, uint32_t *latch, uint64_t *addr, uint64_t *value) noexcept nogil:
    """The entry that holds the access, or NULL and what it reads."""
    cdef walk_entry *e
    cdef uint64_t at = a.addr
    if a.space == ENGINE_PIO:
        if (at & ~<uint64_t>7) == 0xCF8 and not (a.size == 1 and w.pio[at] and at < 0xCFC):
            if at < 0xCFC:
                if a.dir and a.size == 4 and at == 0xCF8:
                    latch[0] = <uint32_t>a.value
                value[0] = latch[0] & ~<uint64_t>0 >> (64 - 8 * a.size)
                return NULL
            e = &w.entries[w.function[latch[0] >> 8 & 0xff]]
            if latch[0] >> 31 and latch[0] >> 16 & 0xff == 0 and e.region != NULL:
                addr[0] = e.base | (latch[0] & 0xff) | (at & 3)
                return e
            value[0] = ~<uint64_t>0 >> (64 - 8 * a.size)
            return NULL
        e = &w.entries[w.pio[at]]
        value[0] = w.pio_fill & ~<uint64_t>0 >> (64 - 8 * a.size)
    elif at >> 32:
        value[0] = w.mmio_fill & ~<uint64_t>0 >> (64 - 8 * a.size)
        return NULL
    else:
        e = &w.entries[w.page[at >> 12]]
        value[0] = w.mmio_fill & ~<uint64_t>0 >> (64 - 8 * a.size)
    addr[0] = at
    return NULL if at - e.base > e.last - e.base or e.region == NULL else e


cdef void walk_local(Walk w, const engine_acc *acc, uint64_t n, uint64_t *value, uint8_t *status) noexcept nogil:
    cdef uint64_t i, v, addr = 0
    cdef uint32_t latch = 0, st
    cdef const engine_acc *a
    cdef walk_entry *e
    cdef PyObject *ex = w.executor
    w.missed = w.split = 0
    for i in range(n):
        a = &acc[i]
        e = walk_find(w, a, &latch, &addr, &v)
        if e == NULL:
            w.missed += 1
            value[i] = v
            continue
        v = a.value
        st = walk_execute(w, e, a.t_ns, addr, a.size, a.dir, &v)
        if st & ~<uint32_t>IO_CONTENT:
            v = ~<uint64_t>0 >> (64 - 8 * a.size)
        value[i] = a.value if a.dir else v
        status[i] = <uint8_t>st
        (<Executor>ex).fx.n = 0


cdef int pair_caller(limit_job *j) noexcept nogil:
    return _pair_caller(<Walk>ring_walk, j)


cdef int _pair_caller(Walk w, limit_job *j) noexcept nogil:
    cdef limit_shared *s = j.shared
    cdef uint64_t i, v, addr = 0, mine = 0, shown = 0, seen = 0, theirs = 0, at
    cdef uint32_t latch = 0, spins = 0
    cdef const engine_acc *a
    cdef walk_entry *e
    cdef limit_rec *rec
    cdef uint64_t *source = <uint64_t *>calloc(LIMIT_RING, sizeof(uint64_t))
    cdef int err = 0
    if source == NULL:
        return 12
    j.elapsed_ns = limit_now()
    i = 0
    while True:
        if i < j.n and mine - seen < LIMIT_RING:
            a = &ring_acc[i]
            e = walk_find(w, a, &latch, &addr, &v)
            if e == NULL:
                ring_value[i] = v
                i += 1
            else:
                at = mine % LIMIT_RING
                rec = &s.ring[at]
                rec.word[0] = a.t_ns
                rec.word[1] = addr
                rec.word[2] = a.value
                rec.word[3] = <uint64_t>(e - w.entries) | <uint64_t>a.size << 32 | <uint64_t>a.dir << 40
                source[at] = i
                mine += 1
                i += 1
                if mine - shown < j.batch:
                    continue
        if mine != shown:
            shown = mine
            walk_release(&s.produced, mine)
        if i == j.n and seen == mine:
            s.ring[mine % LIMIT_RING].word[3] = LAST
            walk_release(&s.produced, mine + 1)
            break
        if mine - seen < LIMIT_RING // 2 and i < j.n:
            continue
        theirs = walk_acquire(&s.consumed)
        if theirs == seen:
            err = limit_spin(j, &spins)
            if err:
                break
            continue
        while seen != theirs:
            at = seen % LIMIT_RING
            if ring_answers[at].seq != <uint32_t>seen:
                err = EILSEQ
                break
            a = &ring_acc[source[at]]
            ring_value[source[at]] = a.value if a.dir else ring_answers[at].value
            seen += 1
    j.elapsed_ns = limit_now() - j.elapsed_ns
    free(source)
    return err


cdef int pair_helper(limit_job *j) noexcept nogil:
    return _pair_helper(<Walk>ring_walk, j)


cdef int _pair_helper(Walk w, limit_job *j) noexcept nogil:
    cdef limit_shared *s = j.shared
    cdef uint64_t mine = 0, shown = 0, theirs = 0, v, info
    cdef uint32_t spins = 0, size
    cdef uint64_t rec[4]
    cdef answer *out
    cdef PyObject *ex = w.executor
    cdef uint32_t k
    while True:
        if mine == theirs:
            if mine != shown:
                shown = mine
                walk_release(&s.consumed, mine)
            theirs = walk_acquire(&s.produced)
            if mine == theirs:
                if limit_spin(j, &spins):
                    return 1
                continue
        for k in range(4):
            rec[k] = s.ring[mine % LIMIT_RING].word[k]
        info = rec[3]
        if info == LAST:
            return 0
        size = <uint8_t>(info >> 32)
        v = rec[2]
        out = &ring_answers[mine % LIMIT_RING]
        out.status = walk_execute(w, &w.entries[<uint32_t>info], rec[0], rec[1], size, info >> 40 & 1, &v)
        if out.status & ~<uint32_t>IO_CONTENT:
            v = ~<uint64_t>0 >> (64 - 8 * size)
        out.value = v
        out.seq = <uint32_t>mine
        (<Executor>ex).fx.n = 0
        mine += 1
        if mine - shown >= j.batch:
            shown = mine
            walk_release(&s.consumed, mine)


cdef int oneway_caller(limit_job *j) noexcept nogil:
    return _oneway_caller(<Walk>ring_walk, j)


cdef int _oneway_caller(Walk w, limit_job *j) noexcept nogil:
    cdef limit_shared *s = j.shared
    cdef uint64_t mine = 0, theirs = 0
    cdef uint32_t spins = 0, k
    cdef int err
    cdef const uint64_t *source
    j.elapsed_ns = limit_now()
    while mine < j.n:
        while mine - theirs == LIMIT_RING:
            theirs = walk_acquire(&s.consumed)
            if mine - theirs == LIMIT_RING:
                err = limit_spin(j, &spins)
                if err:
                    return err
        source = <const uint64_t *>&ring_acc[mine]
        for k in range(4):
            s.ring[mine % LIMIT_RING].word[k] = source[k]
        mine += 1
        if mine % j.batch == 0:
            walk_release(&s.produced, mine)
    walk_release(&s.produced, mine)
    while walk_acquire(&s.consumed) != mine:
        err = limit_spin(j, &spins)
        if err:
            return err
    j.elapsed_ns = limit_now() - j.elapsed_ns
    return 0


cdef int oneway_helper(limit_job *j) noexcept nogil:
    return _oneway_helper(<Walk>ring_walk, j)


cdef int _oneway_helper(Walk w, limit_job *j) noexcept nogil:
    cdef limit_shared *s = j.shared
    cdef uint64_t mine = 0, theirs = 0, v, addr = 0
    cdef uint32_t latch = 0, spins = 0, k
    cdef uint64_t rec[4]
    cdef engine_acc *a = <engine_acc *>&rec[0]
    cdef walk_entry *e
    cdef PyObject *ex = w.executor
    while mine < j.n:
        while theirs == mine:
            theirs = walk_acquire(&s.produced)
            if theirs == mine and limit_spin(j, &spins):
                return 1
        for k in range(4):
            rec[k] = s.ring[mine % LIMIT_RING].word[k]
        e = walk_find(w, a, &latch, &addr, &v)
        if e != NULL:
            v = a.value
            walk_execute(w, e, a.t_ns, addr, a.size, a.dir, &v)
            (<Executor>ex).fx.n = 0
        mine += 1
        if mine == theirs or mine % 64 == 0:
            walk_release(&s.consumed, mine)
    return 0


cdef class Floor:
    """A compiled method with the arguments of Machine.read, that does nothing: what calling from Python costs."""

    def read(self, space, uint64_t addr, uint32_t size=1):
        """`size`, as an int."""
        return size
