"""Every ring layout against a deque: whatever the interleaving of verbs, both agree."""

import mmap
import struct
from collections import deque

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine._abi import EFFECT, REC
from engine._foreign import ENTRIES, SLOTS, KvmCoalesced, XenBuffered
from engine._ring import WORKER, Link, Ring

COUNT = st.integers(0, 12)
TOP = 1 << 64


class RingMachine(RuleBasedStateMachine):
    """reserve/commit and peek/release, bulk and burst, partial commits, over every edge of the index."""

    @initialize(log2=st.integers(0, 3), words=st.integers(1, 5), start=st.sampled_from([0, TOP - 5, (1 << 32) - 5]))
    def build(self, log2, words, start):
        self.dtype = np.dtype(("V", 8 * words)) if words > 1 else np.dtype("<u8")
        self.words = words
        self.p = Ring.create(self.dtype, 1 << log2, start=start)
        self.c = Ring.attach(self.p.segment.fileno(), self.dtype)
        self.model = deque()
        self.next = 0

    def item(self):
        self.next += 1
        return np.arange(self.next, self.next + self.words, dtype="<u8").tobytes()

    @rule(n=COUNT, used=COUNT, bulk=st.booleans())
    def produce(self, n, used, bulk):
        room = self.p.capacity - len(self.model)
        views = self.p.reserve(n, bulk=bulk)
        got = sum(map(len, views))
        assert got == ((n if n <= room else 0) if bulk else min(n, room))
        items = [self.item() for _ in range(min(used, got))]
        places = [view[i : i + 1] for view in views for i in range(len(view))]
        for place, item in zip(places, items, strict=False):
            place.view("u1")[:] = np.frombuffer(item, "u1")
        self.p.commit(len(items))
        self.model.extend(items)

    @rule(n=COUNT, used=COUNT, bulk=st.booleans())
    def consume(self, n, used, bulk):
        views = self.c.peek(n, bulk=bulk)
        got = b"".join(v.tobytes() for v in views)
        size = 8 * self.words
        count = len(got) // size
        have = len(self.model)
        assert count == ((n if n <= have else 0) if bulk else min(n, have))
        assert got == b"".join(list(self.model)[:count])
        used = min(used, count)
        self.c.release(used)
        for _ in range(used):
            self.model.popleft()

    @invariant()
    def indices_agree(self):
        if hasattr(self, "p"):
            assert (self.p.index - self.c.index) % TOP == len(self.model)
            assert self.p.counters["bad"] == self.c.counters["bad"] == 0


class LinkMachine(RuleBasedStateMachine):
    """Records, completions, effects, slots and replay of one link against plain lists."""

    @initialize(log2=st.integers(0, 3), keep=st.booleans())
    def build(self, log2, keep):
        self.router = Link.create(requests=1 << log2, effects=4, n_vcpus=2)
        self.worker = Link.attach(self.router.segment.fileno(), WORKER)
        self.router.keep(keep)
        self.keep = keep
        self.sent = self.done = self.seen = self.kept = 0
        self.effects, self.n_effects = deque(), 0
        self.slots = {}  # vcpu -> [record, after, taken]
        self.values = 0

    @staticmethod
    def answer_of(index):
        return index * 0x9E3779B97F4A7C15 % TOP

    @rule(n=COUNT)
    def push(self, n):
        recs = np.zeros(n, REC)
        recs["t_ns"] = np.arange(self.sent, self.sent + n)
        got = self.router.push(recs)
        assert got == min(n, self.router.capacity - (self.sent - self.kept))
        self.sent += got

    @rule(n=COUNT, answered=COUNT)
    def execute(self, n, answered):
        recs = self.worker.take(n)
        assert list(recs["t_ns"]) == list(range(self.done, min(self.done + n, self.sent)))
        answered = min(answered, len(recs))
        values = np.array([self.answer_of(int(t)) for t in recs["t_ns"][:answered]], np.uint64)
        self.worker.answer(values)
        self.done += answered

    @rule(n=COUNT)
    def complete(self, n):
        done = self.router.completions(n)
        assert list(done["value"]) == [
            self.answer_of(i) for i in range(self.seen, min(self.seen + n, max(self.done, self.seen)))
        ]
        self.seen += len(done)
        if not self.keep:
            self.kept = self.seen

    @rule(n=COUNT)
    def checkpoint(self, n):
        self.kept = min(self.kept + n, self.seen)
        self.router.checkpoint(self.kept)

    @rule()
    def worker_dies_and_is_replaced(self):
        assert self.router.rewind() == self.kept
        self.worker = Link.attach(self.router.segment.fileno(), WORKER)
        self.done = self.kept
        self.effects.clear()
        for vcpu, slot in self.slots.items():
            if slot[2]:
                again = self.worker.take_posted(vcpu, again=True)
                assert again is not None and again[0]["t_ns"] == slot[0]

    @rule(n=COUNT)
    def emit(self, n):
        fx = np.zeros(n, EFFECT)
        fx["t_ns"] = np.arange(self.n_effects, self.n_effects + n)
        got = self.worker.emit(fx)
        assert got == min(n, 4 - len(self.effects))
        self.effects.extend(range(self.n_effects, self.n_effects + got))
        self.n_effects += got

    @rule(n=COUNT)
    def take_effects(self, n):
        got = list(self.router.effects(n)["t_ns"])
        assert got == [self.effects.popleft() for _ in range(len(got))]
        assert len(got) == n or not self.effects

    @rule(vcpu=st.integers(0, 1))
    def post(self, vcpu):
        if vcpu not in self.slots:
            self.values += 1
            rec = np.zeros(1, REC)
            rec["t_ns"] = self.values
            self.router.post(vcpu, rec)
            self.slots[vcpu] = [self.values, self.sent, False]
            assert self.worker.any_posted()

    @rule(vcpu=st.integers(0, 1))
    def take_posted(self, vcpu):
        got = self.worker.take_posted(vcpu)
        slot = self.slots.get(vcpu)
        if slot is None or slot[2]:
            assert got is None
        else:
            assert (got[0]["t_ns"], got[1]) == (slot[0], slot[1])
            slot[2] = True

    @rule(vcpu=st.integers(0, 1))
    def answer_posted(self, vcpu):
        slot = self.slots.get(vcpu)
        if slot and slot[2]:
            self.worker.answer_posted(vcpu, slot[0] * 3, 1)
            assert self.router.poll(vcpu) == (slot[0] * 3, 1)
            del self.slots[vcpu]
        elif slot:
            assert self.router.poll(vcpu) is None

    @invariant()
    def nothing_is_bad(self):
        if hasattr(self, "router"):
            assert self.router.counters["bad"] == self.worker.counters["bad"] == 0


class XenMachine(RuleBasedStateMachine):
    """Xen's buffered page in both modes, entries of one and two slots, near every wrap."""

    @initialize(atomic=st.booleans(), start=st.sampled_from([0, 509, 510, 511, 1000]))
    def build(self, atomic, start):
        self.page = mmap.mmap(-1, 4096)
        struct.pack_into("<II", self.page, 0, start, start)
        self.xen = XenBuffered(self.page, producer=True, atomic=atomic)
        self.server = XenBuffered(self.page, atomic=atomic)
        self.atomic = atomic
        self.model = deque()  # (slots, addr, value)
        self.n = 0

    @property
    def depth(self):
        return sum(slots for slots, _, _ in self.model)

    @rule(sizes=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=300))
    def produce(self, sizes):
        for size in sizes:
            self.n += 0x0101010101010107
            value = self.n & ((1 << 8 * size) - 1)
            slots = 2 if size == 8 else 1
            ok = self.xen.push(0xA0000 + self.n % 0x20000, size, value)
            assert ok == (self.depth + slots <= SLOTS)
            if ok:
                self.model.append((slots, 0xA0000 + self.n % 0x20000, value))

    @rule(entries=st.integers(0, 300))
    def consume(self, entries):
        have = self.server.peek()
        assert have == self.depth
        k = 0
        for _ in range(min(entries, len(self.model))):
            slots, rec = self.server.take(k)
            assert (slots, rec["addr"], rec["value"]) == self.model.popleft()
            k += slots
        self.server.release(k)

    @invariant()
    def pointers_obey_the_mode(self):
        if hasattr(self, "page"):
            read, write = struct.unpack_from("<II", self.page)
            assert (write - read) % (1 << 32) == self.depth
            assert write == self.xen.index
            if self.atomic:
                assert write <= 3 * SLOTS  # renumbered at the producer's next entry at the latest


class KvmMachine(RuleBasedStateMachine):
    """KVM's coalesced page."""

    @initialize(start=st.sampled_from([0, ENTRIES - 1, ENTRIES // 2]))
    def build(self, start):
        self.page = mmap.mmap(-1, 4096)
        struct.pack_into("<II", self.page, 0, start, start)
        self.kvm, self.server = KvmCoalesced(self.page, producer=True), KvmCoalesced(self.page)
        self.model = deque()
        self.n = 0

    @rule(n=st.integers(0, 120))
    def produce(self, n):
        got = self.kvm.reserve(n)
        assert got == min(n, ENTRIES - 1 - len(self.model))
        for k in range(got):
            self.n += 1
            self.kvm.put(k, 0xE0000000 + self.n, 4, self.n, pio=self.n & 1)
            self.model.append(self.n)
        self.kvm.commit(got)

    @rule(n=st.integers(0, 120))
    def consume(self, n):
        got = self.server.peek(n)
        assert got == min(n, len(self.model))
        for k in range(got):
            (rec,) = self.server.take(k)
            want = self.model.popleft()
            assert (rec["addr"], rec["value"], rec["op"] & 1) == (0xE0000000 + want, want, 1 - (want & 1))
        self.server.release(got)


COMMON = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestRing = RingMachine.TestCase
TestRing.settings = COMMON
TestLink = LinkMachine.TestCase
TestLink.settings = COMMON
TestXen = XenMachine.TestCase
TestXen.settings = settings(COMMON, max_examples=25, stateful_step_count=20)
TestKvm = KvmMachine.TestCase
TestKvm.settings = settings(COMMON, max_examples=25, stateful_step_count=20)
