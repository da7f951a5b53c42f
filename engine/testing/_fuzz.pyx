"""Random operations on the devices of one executor at the speed of C, with a look after each at what every device promises.

tests/fuzz makes the operations.  One thread uses a Fuzzer; a device that hangs hangs it.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from engine._abi cimport (ENGINE_EFFECT_LINE, ENGINE_EFFECT_MAP, ENGINE_EFFECT_RESET, ENGINE_REC_INPUT, ENGINE_REC_INTACK,
                          ENGINE_REC_RESET, engine_effect, engine_rec)
from engine._atomics cimport monotonic_ns, tsc
from engine._device cimport INPUT_INTACK, INPUT_PACKET, IO_CONTENT, IO_UNALIGNED, Device, device_core
from engine._executor cimport Executor

from engine.errors import UsageError

# One operation.  `step`: nanoseconds that pass before it.  READ, WRITE: target is a region id, addr an address, size in bytes.
# INPUT: target is a device's rank, size the kind of input, pin the input pin.  For a packet addr and value are place and length
# in the Fuzzer's packets.  POKE: size bytes of value at place addr of RAM.  RESET: size is the kind of reset.
OP = np.dtype([("step", "<u8"), ("addr", "<u8"), ("value", "<u8"), ("target", "<u4"), ("kind", "u1"), ("size", "u1"),
               ("pin", "u1"), ("pad", "u1")])
READ, WRITE, INPUT, POKE, RESET = range(5)

cdef enum:
    OP_READ = 0
    OP_WRITE = 1
    OP_INPUT = 2
    OP_POKE = 3
    OP_RESET = 4

cdef struct fuzz_op:
    uint64_t step, addr, value
    uint32_t target
    uint8_t kind, size, pin, pad

cdef enum:
    FINE
    BAD_STATUS
    BAD_DEADLINE
    BAD_NOW
    BAD_EFFECT
    LOST_EFFECTS
    BAD_LEVELS

PROBLEMS = {
    BAD_STATUS: "a status that no part may give",
    BAD_DEADLINE: "a deadline that is not after the device's time",
    BAD_NOW: "a device whose time is ahead of the clock",
    BAD_EFFECT: "an effect of a pin, region, kind or time that cannot be",
    LOST_EFFECTS: "more effects of one call than there can be",
    BAD_LEVELS: "the level of a pin that is not there",
}


cdef inline uint64_t mix(uint64_t a, uint64_t b) noexcept nogil:
    a = (a ^ b) * 0x9E3779B97F4A7C15ULL
    return a ^ a >> 29


cdef class Fuzzer:
    """`Fuzzer(executor, ram=None, packets=b"")`: over devices whose regions the executor knows by id.

    now: virtual time.  digest: of all that was answered and all effects.  slowest, slowest_at: nanoseconds of the longest
    operation of the last run, and its place.  statuses: how often each status came.
    """
    cdef Executor ex
    cdef uint8_t[::1] ram
    cdef const uint8_t[::1] packets
    cdef uint64_t[::1] pins, n_regions    # by rank: which pins there are, how many regions
    cdef uint32_t problem
    cdef readonly uint64_t now, digest, slowest, slowest_at, effects
    cdef uint64_t counts[8]

    def __init__(self, Executor executor not None, ram=None, packets=b"\0"):
        self.ex = executor
        self.ram = bytearray(8) if ram is None else ram
        self.packets = packets
        ranks = range(self.ex.n_devices)
        made = {d.rank: d for d in self.ex.keep}
        self.pins = np.array([(1 << len(made[r].OUT)) - 1 if r in made else 0 for r in ranks], np.uint64)
        self.n_regions = np.array([len(made[r].regions()) if r in made else 0 for r in ranks], np.uint64)
        self.ex.flush = _flush
        self.ex.flush_ctx = <void *>self

    def __dealloc__(self):
        if self.ex is not None:
            self.ex.flush = NULL

    @property
    def statuses(self):
        """Status -> how often."""
        return {i: self.counts[i] for i in range(8) if self.counts[i]}

    def run(self, ops, progress=None):
        """Carry out operations.  (how many were fine, what is wrong with the next or "").  progress: a writable buffer of one
        uint64_t, which holds the place of the operation that is carried out, for who looks after this process has died.
        Raises UsageError for operations that are none."""
        if not isinstance(ops, np.ndarray) or ops.dtype != OP or ops.ndim != 1:
            raise UsageError("a Fuzzer runs records of engine.testing._fuzz.OP in one row")
        self._vet(ops)
        cdef const uint8_t[::1] raw = np.ascontiguousarray(ops).view(np.uint8)
        cdef uint64_t own = 0
        cdef uint64_t *at = &own
        cdef uint64_t[::1] shared
        if progress is not None:
            shared = progress
            at = &shared[0]
        at[0] = 0
        if len(ops):
            with nogil:
                self._run(<const fuzz_op *>&raw[0], raw.shape[0] // sizeof(fuzz_op), at)
        return int(at[0]), PROBLEMS.get(self.problem, "")

    def _vet(self, ops):
        kind, target, size = ops["kind"], ops["target"].astype(np.int64), ops["size"]
        at, value = ops["addr"], ops["value"]
        access, put, given = kind <= WRITE, kind == POKE, kind == INPUT
        room = self.ram.shape[0]
        packet = given & (size == INPUT_PACKET)
        bad = (kind > RESET) | (access & ((target >= self.ex.n_regions) | ~np.isin(size, (1, 2, 4, 8))))
        bad |= put & ((size > 8) | (at > room) | (at + size > room)) | given & (target >= self.ex.n_devices)
        bad |= packet & ((at > <uint64_t>self.packets.shape[0]) | (value > <uint64_t>self.packets.shape[0])
                         | (at + value > <uint64_t>self.packets.shape[0]))
        if bad.any() or any(self.ex.devices[rank] == NULL for rank in set(target[given].tolist())) or any(
                self.ex.regions[id].dev == NULL for id in set(target[access].tolist())):
            raise UsageError("an operation names a region, device or place that is not there")

    cdef void _run(self, const fuzz_op *ops, uint64_t n, uint64_t *at) noexcept nogil:
        cdef uint64_t i, began, took, longest = 0, start = tsc(), start_ns = monotonic_ns()
        self.problem = FINE
        self.slowest_at = 0
        for i in range(n):
            at[0] = i
            began = tsc()
            self._one(&ops[i])
            took = tsc() - began
            if took > longest:
                longest = took
                self.slowest_at = i
            if self.problem == FINE:
                self._check()
            if self.problem != FINE:
                break
        else:
            at[0] = n
        took = tsc() - start
        self.slowest = <uint64_t>(<double>longest / took * (monotonic_ns() - start_ns)) if took else 0

    cdef void _one(self, const fuzz_op *op) noexcept nogil:
        cdef uint64_t value = op.value
        cdef uint32_t status
        self.now += op.step
        if op.kind <= OP_WRITE:
            status = self.ex.access(&self.ex.regions[op.target], self.now, op.addr, op.size, op.kind, &value)
            if (status & ~<uint32_t>IO_CONTENT) > IO_UNALIGNED:
                self.problem = BAD_STATUS
                return
            self.counts[status & 7] += 1
            self.digest = mix(self.digest, status if op.kind == OP_WRITE or status & ~<uint32_t>IO_CONTENT else value)
        elif op.kind == OP_POKE:
            memcpy(&self.ram[op.addr], &value, op.size)
        else:
            self._input(op)

    cdef void _input(self, const fuzz_op *op) noexcept nogil:
        """An input or a reset, as the record that an executor takes from a ring; a packet is handed over in a copy of just
        its length, so that a sanitizer sees what reads behind it."""
        cdef engine_rec r
        cdef uint64_t answer = 0
        cdef void *packet = NULL
        memset(&r, 0, sizeof(r))
        r.t_ns = self.now
        r.region = op.target << 8 | op.pin
        r.value = op.value
        r.addr = op.addr << 8 | op.size
        r.op = ENGINE_REC_INPUT
        if op.kind == OP_RESET:
            r.op = ENGINE_REC_RESET
            r.value = op.size
        elif op.size == INPUT_INTACK:
            r.op = ENGINE_REC_INTACK
            r.vcpu = <uint16_t>op.value
        elif op.size == INPUT_PACKET:
            packet = malloc(op.value + 1)
            if packet == NULL:
                return
            memcpy(packet, &self.packets[0] + op.addr, op.value)
            r.addr = <uint64_t>packet << 8 | op.size
        self.ex.execute(&r, &answer)
        free(packet)
        self.digest = mix(self.digest, answer)

    cdef void _check(self) noexcept nogil:
        """What holds for each device between two operations."""
        cdef uint32_t i
        cdef device_core *core
        self._effects()
        for i in range(self.ex.n_members):
            core = (<Device>self.ex.members[i]).core
            if core.deadline <= core.now:
                self.problem = BAD_DEADLINE
            elif core.now > self.now:
                self.problem = BAD_NOW
            elif core.levels & ~self.pins[(<Device>self.ex.members[i]).rank]:
                self.problem = BAD_LEVELS

    cdef void _effects(self) noexcept nogil:
        """Take the effects since the last look."""
        cdef uint32_t i
        cdef engine_effect *e
        for i in range(self.ex.fx.n):
            e = &self.ex.fx.items[i]
            if e.device >= self.ex.n_devices or self.ex.devices[e.device] == NULL or e.t_ns > self.now or (
                    e.kind > ENGINE_EFFECT_RESET or e.kind == ENGINE_EFFECT_LINE and not self.pins[e.device] >> e.pin & 1) or (
                    e.kind == ENGINE_EFFECT_MAP and e.pin >= self.n_regions[e.device]):
                self.problem = BAD_EFFECT
                break
            self.digest = mix(mix(self.digest, e.t_ns ^ <uint64_t>e.kind << 56 ^ <uint64_t>e.pin << 48), e.value ^ e.addr)
        self.effects += self.ex.fx.n
        self.ex.fx.n = 0
        if self.ex.fx.lost:
            self.problem = LOST_EFFECTS


cdef int _flush(void *ctx) noexcept nogil:
    """The executor wants room for effects in the middle of a long step of time."""
    (<Fuzzer>ctx)._effects()
    return (<Fuzzer>ctx).problem != FINE
