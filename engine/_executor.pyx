"""Executes records on the devices of one owner.

The executor holds the owner's devices, grouped in units (devices that pull each other's values share one), the meaning
of each region id, and the wires that stay within a unit.  For one record it fires every deadline of the unit that is due,
makes the access or input, and delivers the unit's inner effects; effects for the outside stay in `fx`.  Order and time
are the caller's (the sequencer's) business.  DESIGN: docs/architecture.md, docs/ordering.md.
"""
from cpython.ref cimport PyObject
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from engine._abi cimport *
from engine._device cimport (INPUT_INTACK, INPUT_LINE, INPUT_MESSAGE, IO_BAD_SIZE, IO_CONTENT, IO_NO_REGISTER, IO_OK,
                             IO_UNCLAIMED, NEVER, Device, io_status, reset_kind)

from engine._device import PyDevice
from engine.errors import MachineError

cdef enum:
    FX_CAP = 1 << 14
    FX_ROOM = 256          # effects one call of a device may make before flush is asked


cdef class Executor:
    """`Executor(devices, units=None, wires=())`.

    devices: the Device objects this process owns.  units: lists of ranks that belong together (a device in none is its
    own unit).  wires: (source rank, kind, pin, sink rank, sink pin) within one unit.
    """

    def __cinit__(self):
        self.fx.items = <engine_effect *>calloc(FX_CAP, sizeof(engine_effect))
        if self.fx.items == NULL:
            raise MemoryError()
        self.fx.cap = FX_CAP

    def __init__(self, devices, units=None, wires=()):
        cdef Device d
        cdef region_entry *e
        cdef uint32_t i, at = 0
        self.keep = sorted(devices, key=lambda dev: dev.rank)
        self.n_devices = max([dev.rank for dev in self.keep], default=-1) + 1
        self.devices = <PyObject **>calloc(self.n_devices + 1, sizeof(PyObject *))
        self.unit_of = <uint32_t *>calloc(self.n_devices + 1, sizeof(uint32_t))
        ranks = {dev.rank: dev for dev in self.keep}
        if len(ranks) != len(self.keep):
            raise MachineError("two devices have one rank")
        groups = [sorted(r for r in unit if r in ranks) for unit in (units or ())]
        groups = [g for g in groups if g]
        taken = {r for g in groups for r in g}
        groups += [[r] for r in ranks if r not in taken]
        groups.sort()
        self.n_units = len(groups)
        self.units = <unit_entry *>calloc(self.n_units + 1, sizeof(unit_entry))
        self.members = <PyObject **>calloc(len(ranks) + 1, sizeof(PyObject *))
        self.wires = <wire_entry *>calloc(len(wires) + 1, sizeof(wire_entry))
        self.wires_from = <uint32_t *>calloc(self.n_devices + 1, sizeof(uint32_t))
        if not (self.devices and self.unit_of and self.units and self.members and self.wires and self.wires_from):
            raise MemoryError()
        for i, group in enumerate(groups):
            self.units[i].first = at
            self.units[i].n = len(group)
            self.units[i].next = 0
            for rank in group:
                d = ranks[rank]
                d.fx = &self.fx
                self.devices[rank] = <PyObject *>d
                self.unit_of[rank] = i
                self.members[at] = <PyObject *>d
                at += 1
        self.n_members = at
        self.templates = <region_entry *>calloc((self.n_devices + 1) << 8, sizeof(region_entry))
        if self.templates == NULL:
            raise MemoryError()
        for d in self.keep:
            for n, r in enumerate(d.regions()):
                e = &self.templates[d.rank << 8 | n]
                e.size = r.size
                e.index = n
                e.unit = &self.units[self.unit_of[d.rank]]
                e.core = d.core
                for width in r.accepts:
                    e.accepts |= <uint8_t>width       # widths are powers of two: each is its own bit
                e.impl_min, e.impl_max = r.implements
                e.ports = r.ports
                e.strings = r.strings
                for width in r.accepts:
                    if e.impl_min <= width <= e.impl_max:
                        e.direct |= <uint8_t>width
                e.dev = <PyObject *>d
        for source, kind, pin, sink, sink_pin in sorted(wires, key=lambda wire: wire[0]):
            if source not in ranks or sink not in ranks or self.unit_of[source] != self.unit_of[sink]:
                raise MachineError(f"wire from device {source} to {sink} leaves its unit")
            self.wires[self.n_wires].kind = kind
            self.wires[self.n_wires].pin = pin
            self.wires[self.n_wires].sink = sink
            self.wires[self.n_wires].sink_pin = sink_pin
            self.n_wires += 1
            self.wires_from[source + 1] = self.n_wires
        for i in range(self.n_devices):
            self.wires_from[i + 1] = max(self.wires_from[i], self.wires_from[i + 1])

    def __dealloc__(self):
        cdef uint32_t i
        if self.devices != NULL:
            for i in range(self.n_members):
                (<Device>self.members[i]).fx = NULL
        free(self.fx.items)
        free(self.regions)
        free(self.templates)
        free(self.devices)
        free(self.unit_of)
        free(self.units)
        free(self.members)
        free(self.wires)
        free(self.wires_from)

    cdef int set_region(self, uint32_t region, uint32_t rank, uint32_t index, uint64_t base) noexcept nogil:
        """Give region id a meaning.  -1 if the device is not here, or has no such region."""
        cdef region_entry *e
        cdef uint32_t cap = self.cap_regions
        if rank >= self.n_devices or index > 255 or self.templates[rank << 8 | index].dev == NULL or region > 1 << 28:
            return -1
        if region >= cap:
            cap = max(region + 1, cap * 2, <uint32_t>64)
            e = <region_entry *>realloc(self.regions, cap * sizeof(region_entry))
            if e == NULL:
                return -1
            memset(e + self.cap_regions, 0, (cap - self.cap_regions) * sizeof(region_entry))
            self.regions = e
            self.cap_regions = cap
        if region >= self.n_regions:
            self.n_regions = region + 1
        e = &self.regions[region]
        e[0] = self.templates[rank << 8 | index]
        e.base = base
        if self.learning:
            e.direct = 0
        return 0

    def map_region(self, uint32_t region, uint32_t rank, uint32_t index, uint64_t base):
        """Give region id the meaning (device, its region number, base).  Raises MachineError."""
        if self.set_region(region, rank, index, base):
            raise MachineError(f"region {region} cannot name region {index} of device {rank} at {base:#x}")

    cdef void _refresh(self, unit_entry *u) noexcept nogil:
        """Work out the unit's next deadline."""
        cdef uint64_t best = NEVER
        cdef uint32_t i
        for i in range(u.first, u.first + u.n):
            if (<Device>self.members[i]).core.deadline < best:
                best = (<Device>self.members[i]).core.deadline
        u.next = best

    cdef void _restored(self) noexcept:
        """The arena holds another state: work out what follows from it.  Devices written in Python have done so in their
        own restore()."""
        cdef uint32_t i
        for d in self.keep:
            if not isinstance(d, PyDevice):
                d.on_restore()
        for i in range(self.n_units):
            self._refresh(&self.units[i])

    cdef void _deliver(self, uint32_t mark) noexcept nogil:
        """Follow the effects from `mark` on along the inner wires, breadth first."""
        cdef uint32_t i = mark, w
        cdef engine_effect fx
        cdef PyObject *d
        while i < self.fx.n:
            fx = self.fx.items[i]                 # a copy: what a device emits may move the queue
            for w in range(self.wires_from[fx.device], self.wires_from[fx.device + 1]):
                if self.wires[w].kind == fx.kind and (fx.kind == ENGINE_EFFECT_MESSAGE or self.wires[w].pin == fx.pin):
                    d = self.devices[self.wires[w].sink]
                    (<Device>d).core.now = fx.t_ns
                    if fx.kind == ENGINE_EFFECT_MESSAGE:
                        (<Device>d).on_input(INPUT_MESSAGE, self.wires[w].sink_pin, fx.addr, fx.value)
                    else:
                        (<Device>d).on_input(INPUT_LINE, self.wires[w].sink_pin, 0, fx.value != 0)
            i += 1

    cdef void _fire(self, unit_entry *u, uint64_t t_ns) noexcept nogil:
        """Fire the unit's deadlines up to t_ns in order of (deadline, rank)."""
        cdef uint32_t i, first = u.first, last = first + u.n, mark
        cdef uint64_t cause = self.fx.cause, best
        cdef PyObject *next
        self.fx.cause |= ENGINE_CAUSE_TIMER
        while True:
            best = t_ns
            next = NULL
            for i in range(first, last):
                if (<Device>self.members[i]).core.deadline <= best and (
                        next == NULL or (<Device>self.members[i]).core.deadline < best):
                    next = self.members[i]
                    best = (<Device>next).core.deadline
            if next == NULL:
                break
            if self.fx.n + FX_ROOM > FX_CAP and self.flush != NULL and self.flush(self.flush_ctx):
                break
            mark = self.fx.n
            (<Device>next).core.now = best
            (<Device>next).core.deadline = NEVER
            (<Device>next).on_time()
            if self.fx.n > mark and u.n > 1:
                self._deliver(mark)
        self._refresh(u)
        self.fx.cause = cause

    cdef uint32_t _split(self, region_entry *e, uint32_t offset, uint32_t size, bint write,
                         uint64_t *value) noexcept nogil:
        """An access wider or narrower than the region's code implements.

        Wider: parts of impl_max, low address first.  Narrower: one access of impl_min at the same offset, value cut to
        size.  The status is the worst of the parts'; a part that fails reads as ones.
        """
        cdef uint32_t part = e.impl_max, i = 0, worst = IO_OK, st
        cdef uint64_t v, whole = 0, mask
        cdef PyObject *d = e.dev
        if size < e.impl_min:
            v = value[0]
            if write:
                st = (<Device>d).write(e.index, offset, e.impl_min, v)
            else:
                st = (<Device>d).read(e.index, offset, e.impl_min, &v)
            value[0] = v
            return st
        mask = (<uint64_t>1 << (part * 8)) - 1
        while i < size:
            if write:
                st = (<Device>d).write(e.index, offset + i, part, (value[0] >> (i * 8)) & mask)
            else:
                v = 0
                st = (<Device>d).read(e.index, offset + i, part, &v)
                if st & ~IO_CONTENT:
                    v = mask
                whole |= (v & mask) << (i * 8)
            if st & ~<uint32_t>IO_CONTENT:
                worst = st
            elif worst == IO_OK:
                worst = st
            i += part
        if not write:
            value[0] = whole
        return worst

    cdef uint32_t _two_ports(self, region_entry *e, uint32_t offset, uint32_t size, bint write,
                             uint64_t *value) noexcept nogil:
        """Two bytes at ports of a byte each: two ports, low one first; the one behind the region's last reads as ones.  What
        begins where no port is, and what is wider, is nobody's."""
        cdef uint64_t low = value[0] & 0xFF, high = value[0] >> 8 & 0xFF
        cdef uint32_t status, other = IO_OK
        cdef PyObject *d = e.dev
        if size != 2:
            return IO_NO_REGISTER
        if write:
            status = (<Device>d).write(e.index, offset, 1, low)
            if status == IO_OK and offset + 1 < e.size:
                (<Device>d).write(e.index, offset + 1, 1, high)
            return status
        status = (<Device>d).read(e.index, offset, 1, &low)
        high = 0xFF
        if not status & ~<uint32_t>IO_CONTENT and offset + 1 < e.size:
            other = (<Device>d).read(e.index, offset + 1, 1, &high)
            if other & ~<uint32_t>IO_CONTENT:
                other = IO_OK
                high = 0xFF
        value[0] = low & 0xFF | (high & 0xFF) << 8
        return status | other

    cdef uint32_t _narrow(self, region_entry *e, uint64_t t_ns, uint64_t addr, uint32_t size, bint write,
                          uint64_t *value) noexcept nogil:
        """An access wider than the region accepts: its halves, low address first.  A narrower one is refused."""
        cdef uint64_t low = value[0], high
        cdef uint32_t half = size // 2, bits = half * 8, status, other
        if not e.accepts & (size - 1):
            return IO_BAD_SIZE
        high = low >> bits
        if write:
            low &= (<uint64_t>1 << bits) - 1
        status = self.access(e, t_ns, addr, half, write, &low)
        other = self.access(e, t_ns, addr + half, half, write, &high)
        if status & ~<uint32_t>IO_CONTENT:
            low = (<uint64_t>1 << bits) - 1
        if other & ~<uint32_t>IO_CONTENT:
            high = (<uint64_t>1 << bits) - 1
        value[0] = low | high << bits
        return other if other & ~<uint32_t>IO_CONTENT else status

    cdef uint32_t access(self, region_entry *e, uint64_t t_ns, uint64_t addr, uint32_t size, bint write,
                         uint64_t *value) noexcept nogil:
        """One access that begins in region e.  value: in for a write, out for a read, cut to size."""
        cdef PyObject *d = e.dev
        cdef uint32_t offset = <uint32_t>(addr - e.base), status, mark
        if e.unit.next <= t_ns:
            self._fire(e.unit, t_ns)
        e.core.now = t_ns
        mark = self.fx.n
        if not e.accepts & size:
            return self._narrow(e, t_ns, addr, size, write, value)
        if write:
            value[0] &= ~<uint64_t>0 >> (64 - 8 * size)
        elif self.learning:
            (<Device>d).learn(e.index, offset, size, value[0])
        if e.ports and size > 1:
            status = self._two_ports(e, offset, size, write, value)
        elif size > e.impl_max or size < e.impl_min:
            status = self._split(e, offset, size, write, value)
        elif write:
            status = (<Device>d).write(e.index, offset, size, value[0])
        else:
            value[0] = 0
            status = (<Device>d).read(e.index, offset, size, value)
        if not write:
            value[0] &= ~<uint64_t>0 >> (64 - 8 * size)
        if e.unit.n == 1:
            e.unit.next = e.core.deadline
        else:
            if self.fx.n > mark:
                self._deliver(mark)
            self._refresh(e.unit)
        return status

    cdef uint32_t execute(self, const engine_rec *r, uint64_t *value) noexcept nogil:
        """One record that is no access to a region of this executor; see quick_execute."""
        cdef uint32_t kind = r.op & ENGINE_REC_KIND_MASK, rank, mark, unit, i
        cdef PyObject *d
        self.executed += 1
        value[0] = r.value
        if kind <= ENGINE_REC_CONFIG:
            self.accesses += 1
            return IO_UNCLAIMED
        if kind == ENGINE_REC_SETTLE:
            if r.region >= self.n_devices or self.devices[r.region] == NULL:
                return IO_UNCLAIMED
            self._fire(&self.units[self.unit_of[r.region]], r.t_ns)
            return IO_OK
        if kind == ENGINE_REC_MAP:
            if self.set_region(r.region, <uint32_t>(r.value >> 8) & 0xffff, <uint32_t>r.value & 0xff, r.addr):
                return IO_UNCLAIMED
            return IO_OK
        if kind == ENGINE_REC_INPUT or kind == ENGINE_REC_INTACK:
            rank = r.region >> 8
            if rank >= self.n_devices or self.devices[rank] == NULL:
                return IO_UNCLAIMED
            d = self.devices[rank]
            unit = self.unit_of[rank]
            if self.units[unit].next <= r.t_ns:
                self._fire(&self.units[unit], r.t_ns)
            (<Device>d).core.now = r.t_ns
            mark = self.fx.n
            if kind == ENGINE_REC_INTACK:
                value[0] = (<Device>d).on_input(INPUT_INTACK, 0, 0, r.vcpu)
            else:
                value[0] = (<Device>d).on_input(<uint32_t>r.addr & 0xff, r.region & 0xff, r.addr >> 8, r.value)
            if self.fx.n > mark and self.units[unit].n > 1:
                self._deliver(mark)
            self._refresh(&self.units[unit])
            return IO_OK
        if kind == ENGINE_REC_RESET:
            for i in range(self.n_units):         # what was due happened before
                self._fire(&self.units[i], r.t_ns)
            mark = self.fx.n
            for i in range(self.n_members):
                d = self.members[i]
                (<Device>d).core.now = r.t_ns
                (<Device>d).on_reset(<reset_kind>r.value)
            if self.fx.n > mark:
                self._deliver(mark)
            for i in range(self.n_units):
                self._refresh(&self.units[i])
            return IO_OK
        if kind == ENGINE_REC_SNAPSHOT:
            with gil:
                self._restored()
            return IO_OK
        return IO_UNCLAIMED

    # ------------------------------------------------------------------ what Python sees

    def refresh(self):
        """Look at every deadline again: after devices were restored from outside."""
        cdef uint32_t i
        for i in range(self.n_units):
            self._refresh(&self.units[i])

    def run_access(self, uint32_t region, uint64_t t_ns, uint64_t addr, uint32_t size, bint write, uint64_t value=0):
        """One access from Python: (status, value).  Its effects: take_effects."""
        cdef uint64_t v = value
        cdef uint32_t status = IO_UNCLAIMED
        if region < self.n_regions and self.regions[region].dev != NULL:
            status = self.access(&self.regions[region], t_ns, addr, size, write, &v)
        return status, v

    def run_input(self, uint32_t rank, uint32_t kind, uint64_t t_ns, uint32_t pin=0, uint64_t addr=0, uint64_t value=0):
        """One input from Python; the device's answer."""
        cdef engine_rec r
        cdef uint64_t v = 0
        memset(&r, 0, sizeof(r))
        r.t_ns = t_ns
        r.region = rank << 8 | pin
        r.value = value
        r.op = ENGINE_REC_INTACK if kind == INPUT_INTACK else ENGINE_REC_INPUT
        r.vcpu = <uint16_t>(value & 0xffff) if kind == INPUT_INTACK else 0
        r.addr = addr << 8 | kind
        self.execute(&r, &v)
        return v

    def run_settle(self, uint64_t t_ns):
        """Fire every unit's deadlines up to t_ns."""
        cdef uint32_t i
        for i in range(self.n_units):
            self._fire(&self.units[i], t_ns)

    def take_effects(self):
        """The effects since the last call: a list of (t_ns, rank, kind, pin, addr, value)."""
        cdef uint32_t i
        out = [(self.fx.items[i].t_ns, self.fx.items[i].device, self.fx.items[i].kind, self.fx.items[i].pin,
                self.fx.items[i].addr, self.fx.items[i].value) for i in range(self.fx.n)]
        self.fx.n = 0
        return out

    def run_reset(self, uint64_t t_ns, uint32_t kind):
        """Reset every device: 0 power-on, 1 bus."""
        cdef engine_rec r
        cdef uint64_t v
        memset(&r, 0, sizeof(r))
        r.t_ns = t_ns
        r.value = kind
        r.op = ENGINE_REC_RESET
        self.execute(&r, &v)

    def set_learning(self, bint on):
        """While on, reads carry the recorded value, from which content devices learn (Device.learn)."""
        cdef uint32_t i
        self.learning = on
        for i in range(self.n_regions):       # the short way knows nothing of learning: see set_region, too
            if on:
                self.regions[i].direct = 0
            elif self.regions[i].dev != NULL:
                self.regions[i].direct = self.templates[(<Device>self.regions[i].dev).rank << 8 | self.regions[i].index].direct
