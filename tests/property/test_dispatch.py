"""The dispatcher against a list searched from end to end: any map, any changes, any addresses."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from engine._abi import ACC
from engine._dispatch import ALIAS, BARRIER, NO_OWNER, NO_REGION, NON_SMM_ONLY, POSTED, SMM, SMM_ONLY, Dispatcher, Table
from engine.testing.reference_dispatch import Mapped, ReferenceDispatch

LAST = (0xFFFF, (1 << 52) - 1, 0x7FFFFFFF_00000FFF)

# Addresses crowd around few places at every scale, so that ranges meet, nest and abut often.
near = st.one_of(
    st.integers(0, 40),
    st.integers(0xFFD0, 0x10010),
    st.builds(lambda p, d: (1 << p) + d, st.integers(4, 63), st.integers(-9, 9)),
    st.builds(lambda page, d: page * 4096 + d, st.integers(0xFEC00, 0xFEC04), st.integers(0, 40)),
    st.integers(0, 2**64 - 1),
)
lengths = st.one_of(
    st.integers(1, 20), st.sampled_from([1, 2, 4, 8, 64, 4096, 1 << 20, 1 << 32]), st.integers(1, 1 << 52)
)
priorities = st.sampled_from([-2, 0, 0, 0, 1, 5])
views = st.sampled_from([0, 0, 0, SMM_ONLY, NON_SMM_ONLY])
posting = st.sampled_from([0, POSTED, BARRIER])


@st.composite
def places(draw: st.DrawFn) -> tuple[int, int, int]:
    """(space, base, size) inside the space."""
    space = draw(st.integers(0, 2))
    base = min(draw(near), LAST[space])
    return space, base, min(draw(lengths), LAST[space] - base + 1)


def check(hit: np.void, want: tuple[int, Mapped | None], addr: int) -> None:
    """One answer of the dispatcher against the model's."""
    status, first = want
    assert hit["status"] == status
    if first is None:
        assert (hit["region"], hit["owner"], hit["addr"]) == (NO_REGION, NO_OWNER, addr)
    else:
        assert (hit["region"], hit["owner"]) == (first.region, first.owner)
        assert hit["addr"] == (addr + first.delta) % 2**64
        assert bool(hit["flags"] & ALIAS) == bool(first.delta)


class Map(RuleBasedStateMachine):
    """Ranges come and go; after each publication every interesting address answers as the model does."""

    handles = Bundle("handles")

    @initialize()
    def begin(self) -> None:
        self.d = Dispatcher()
        self.model = ReferenceDispatch()
        self.next = 0
        self.changed = False

    @rule(target=handles, place=places(), p=priorities, view=views, post=posting, owner=st.integers(0, 3),
          accepts=st.integers(0, 15), step=st.integers(1, 3))  # fmt: skip
    def map(self, place, p, view, post, owner, accepts, step):  # type: ignore[no-untyped-def]
        self.next += step
        handle = self.d.map(*place, self.next, p, view | post, owner, accepts)
        self.model.map(handle, *place, self.next, p, view, owner, accepts)
        self.changed = True
        return handle

    @rule(target=handles, place=places(), p=priorities, view=views)
    def hole(self, place, p, view):  # type: ignore[no-untyped-def]
        handle = self.d.hole(*place, p, view)
        self.model.hole(handle, *place, p, view)
        self.changed = True
        return handle

    @rule(target=handles, data=st.data(), at=near, p=priorities, view=views)
    def alias(self, data, at, p, view):  # type: ignore[no-untyped-def]
        regions = [r for r in self.model.ranges if r.region is not None and r.handle in self.primary()]
        if not regions:
            return multiple()
        of = data.draw(st.sampled_from(regions))
        offset = data.draw(st.integers(0, of.last - of.base))
        base = min(at, LAST[of.space])
        size = min(data.draw(lengths), of.last - of.base + 1 - offset, LAST[of.space] - base + 1)
        handle = self.d.alias(base, size, of.region, offset, p, view)
        self.model.alias(handle, base, size, of.region, offset, p, view)
        self.changed = True
        return handle

    def primary(self) -> set[int]:
        """Handles of the ranges that are no alias: the first of each region."""
        seen: dict[int | None, int] = {}
        for r in self.model.ranges:
            seen.setdefault(r.region, r.handle)
        return set(seen.values())

    @rule(handle=consumes(handles))
    def remove(self, handle: int) -> None:
        gone = [r for r in self.model.ranges if r.handle == handle]
        if not gone:  # went with its region
            return
        self.d.remove(handle)
        if gone[0].region is not None and handle in self.primary():
            self.model.unmap(gone[0].region)
        else:
            self.model.remove(handle)
        self.changed = True

    @rule(seed=st.integers(0, 2**32), n=st.integers(1, 40), wide=st.booleans())
    def map_many(self, seed: int, n: int, wide: bool) -> None:
        rng = np.random.default_rng(seed)
        base = rng.integers(0, (1 << 44) if wide else 4096, n)
        size = rng.integers(1, (1 << 40) if wide else 64, n)
        space = rng.integers(1, 3, n)
        many = np.zeros(n, [("space", "u1"), ("base", "u8"), ("size", "u8"), ("region", "u4"), ("priority", "i4")])
        many["space"], many["base"], many["size"] = space, base, size
        many["region"] = self.next + 1 + rng.permutation(n)
        many["priority"] = rng.integers(-1, 2, n)
        self.next += n
        self.d.map_many(many)
        by_region = {int(r["region"]): int(r["handle"]) for r in self.d.ranges() if r["kind"] == 0}
        for r in many:
            s, b, z, region, p = (int(x) for x in r)
            self.model.map(by_region[region], s, b, z, region, p)
        self.changed = True

    @invariant()
    def same_answers(self) -> None:
        if not hasattr(self, "d") or not self.changed:
            return
        self.changed = False
        self.d.publish()
        edges = {
            (r.space, x) for r in self.model.ranges for e in (r.base, r.last) for x in (e - 9, e - 3, e - 1, e, e + 1)
        }
        edges |= {(s, x) for s in range(3) for x in (0, LAST[s], LAST[s] + 1, 2**64 - 1)}
        rng = np.random.default_rng(len(self.model.ranges))
        keys = [(s, x % 2**64, smm) for s, x in sorted(edges) for smm in (0, 1)]
        keys = [keys[i] for i in rng.permutation(len(keys))[:150]]
        acc = np.zeros(len(keys), ACC)
        acc["space"], acc["addr"] = [k[0] for k in keys], [k[1] for k in keys]
        acc["flags"] = [k[2] * SMM for k in keys]
        acc["size"] = rng.choice([1, 2, 4, 8, 0, 3, 16], len(keys), p=[0.3, 0.2, 0.2, 0.2, 0.03, 0.04, 0.03])
        hits = self.d.lookup_batch(acc)
        for a, h in zip(acc, hits, strict=True):
            addr = int(a["addr"])
            check(h, self.model.resolve(int(a["space"]), addr, int(a["size"]), bool(a["flags"])), addr)
            one = self.d.lookup(int(a["space"]), addr, bool(a["flags"]))
            assert (NO_REGION if one is None else one.region) == h["region"]


TestMap = Map.TestCase
TestMap.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_long_histories_of_moves_leave_what_the_ranges_say(seed: int) -> None:
    """Ranges are mapped, moved and taken away for long, kept maps come back, and old tables stay as they were."""
    rng = np.random.default_rng(seed)
    d, model = Dispatcher(), ReferenceDispatch()
    handles: dict[int, int] = {}
    kept: list[tuple[tuple[Any, ...], ReferenceDispatch, dict[int, int], Table, bytes]] = []
    spans = ((0, 0x10000, 0x40), (1, 1 << 32, 1 << 20), (2, 32 << 32, 4096))
    region = 0
    for step in range(400):
        what = rng.integers(20)
        if what == 0 and kept:
            back, of, by_handle, _, _ = kept[int(rng.integers(len(kept)))]
            d.put_back(back)
            model.ranges, handles = list(of.ranges), dict(by_handle)
        elif what == 1:
            back = d.keep()
            copy = ReferenceDispatch()
            copy.ranges = list(model.ranges)
            kept.append((back, copy, dict(handles), d.current, d.current.to_bytes()))
        else:
            if handles and (len(handles) > 60 or rng.random() < 0.6):
                gone = int(rng.choice(list(handles)))
                del handles[gone]
                d.unmap(gone)
                model.unmap(gone)
            if rng.random() < 0.9:
                space, room, most = spans[rng.choice(3, p=[0.5, 0.4, 0.1])]
                base = int(rng.integers(room)) if rng.random() < 0.5 else int(rng.integers(min(room, 4 * most)))
                size = min(int(rng.integers(1, most + 1)), room - base)
                region += 1
                flags = int(rng.choice([0, 0, 0, SMM_ONLY, NON_SMM_ONLY]))
                p, owner = int(rng.integers(3)), int(rng.integers(4))
                handles[region] = d.map(space, base, size, region, p, flags, owner)
                model.map(handles[region], space, base, size, region, p, flags, owner)
        d.publish()
        edges = [(r.space, x) for r in model.ranges for x in (r.base - 1, r.base, r.last, r.last + 1) if x >= 0]
        edges += [(s, int(rng.integers(room))) for s, room, _ in spans]
        some = [edges[i] for i in rng.permutation(len(edges))[:12]]
        acc = np.zeros(len(some), ACC)
        acc["space"], acc["addr"] = [s for s, _ in some], [x for _, x in some]
        acc["size"] = rng.choice([1, 2, 4], len(some))
        acc["flags"] = rng.choice([0, SMM], len(some))
        for a, hit in zip(acc, d.lookup_batch(acc), strict=True):
            check(hit, model.resolve(int(a["space"]), int(a["addr"]), int(a["size"]), bool(a["flags"])), int(a["addr"]))
        if step % 50 == 49:
            copy_of_it = Table.over(d.current.to_bytes())
            assert np.array_equal(copy_of_it.lookup_batch(acc), d.lookup_batch(acc))
    for _, _, _, table, block in kept:
        assert table.to_bytes() == block
