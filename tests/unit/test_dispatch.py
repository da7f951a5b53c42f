"""The address map: what is seen where, what is refused, how versions are published, and that a million ranges fit."""

from __future__ import annotations

import gc
import mmap
import threading
import time

import numpy as np
import pytest

from engine._abi import ACC
from engine._dispatch import (
    ALIAS,
    BARRIER,
    HIT,
    HIT_OK,
    HIT_REFUSED,
    HIT_STRADDLE,
    HIT_UNCLAIMED,
    NO_REGION,
    NON_SMM_ONLY,
    POSTED,
    RANGE,
    REFUSED,
    SMM,
    SMM_ONLY,
    STRADDLE,
    UNCLAIMED,
    Counters,
    Dispatcher,
    Overlap,
    Reader,
    Table,
)
from engine.errors import MachineError, UsageError

PIO, MMIO, CONFIG = 0, 1, 2
MANY = 1 << 20


def regions(d: Dispatcher, space: int, addrs: list[int], size: int = 1, smm: bool = False) -> list[int | None]:
    """Region ids of one-line questions, None for nobody."""
    d.publish()
    many = d.lookup_many(space, np.array(addrs, np.uint64), size, smm)
    return [None if r == UNCLAIMED else int(r) for r in many]


def accesses(space: int, addr: object, size: object = 1) -> np.ndarray:
    """An ACC array of one space."""
    a = np.zeros(np.size(addr), ACC)
    a["space"], a["addr"], a["size"] = space, addr, size
    return a


# ---------------------------------------------------------------------- what is seen


def test_empty_map_has_nobody() -> None:
    d = Dispatcher()
    for space, last in ((PIO, 0xFFFF), (MMIO, (1 << 52) - 1), (CONFIG, 2**63 - 1)):
        assert regions(d, space, [0, 1, last, last + 1, 2**64 - 1]) == [None] * 5
        assert d.lookup(space, 0) is None


def test_first_and_last_byte() -> None:
    d = Dispatcher()
    d.map(PIO, 0x3F8, 8, 5, owner=2, flags=POSTED, accepts=1)
    assert regions(d, PIO, [0x3F7, 0x3F8, 0x3FF, 0x400]) == [None, 5, 5, None]
    e = d.lookup(PIO, 0x3FB)
    assert e is not None
    assert (e.region, e.owner, e.base, e.last, e.delta, e.flags, e.accepts) == (5, 2, 0x3F8, 0x3FF, 0, POSTED, 1)


def test_spaces_are_apart() -> None:
    d = Dispatcher()
    for space in (PIO, MMIO, CONFIG):
        d.map(space, 0x1000, 16, 10 + space)
    for space in (PIO, MMIO, CONFIG):
        assert regions(d, space, [0x1000]) == [10 + space]


def test_an_unknown_space_is_nobody_s() -> None:
    d = Dispatcher()
    for space in (PIO, MMIO, CONFIG):
        d.map(space, 0, 0x1000, space)
    d.publish()
    acc = accesses(0, np.zeros(256))
    acc["space"] = np.arange(256)
    hits = d.lookup_batch(acc)
    assert hits["status"].tolist() == [HIT_OK] * 3 + [HIT_UNCLAIMED] * 253
    acc["flags"] = 0xFF
    assert d.lookup_batch(acc)["status"].tolist() == [HIT_OK] * 3 + [HIT_UNCLAIMED] * 253


def test_whole_spaces() -> None:
    d = Dispatcher()
    d.map(PIO, 0, 1 << 16, 1)
    d.map(MMIO, 0, 1 << 52, 2)
    d.map(CONFIG, 0, 0x7FFFFFFF_00001000, 3)
    assert regions(d, PIO, [0, 0xFFFF, 0x10000]) == [1, 1, None]
    assert regions(d, MMIO, [0, (1 << 52) - 1, 1 << 52]) == [2, 2, None]
    assert regions(d, CONFIG, [0, 0x7FFFFFFF_00000FFF, 0x7FFFFFFF_00001000, 2**64 - 1]) == [3, 3, None, None]


def test_config_claims_a_function_or_registers_of_it() -> None:
    d = Dispatcher()
    function = (0 << 16 | 1 << 3 | 1) << 32  # 00:01.1
    d.map(CONFIG, function, 0x1000, 1)
    d.map(CONFIG, function | 0x40, 4, 2, priority=1, flags=BARRIER)
    assert regions(d, CONFIG, [function, function | 0x3F, function | 0x40, function | 0x44]) == [1, 1, 2, 1]
    assert regions(d, CONFIG, [function - 1, function + 0x1000, function + (1 << 32)]) == [None] * 3
    segment = (0x7FFF << 16 | 0xFFFF) << 32
    d.map(CONFIG, segment, 0x1000, 3)
    assert regions(d, CONFIG, [segment | 0xFFF, function]) == [3, 1]


def test_higher_priority_is_seen_and_comes_off_again() -> None:
    d = Dispatcher()
    d.map(MMIO, 0xA0000, 0x20000, 1)
    d.map(MMIO, 0xA8000, 0x1000, 2, priority=1)
    assert regions(d, MMIO, [0xA7FFF, 0xA8000, 0xA8FFF, 0xA9000]) == [1, 2, 2, 1]
    d.unmap(2)
    assert regions(d, MMIO, [0xA7FFF, 0xA8000, 0xA8FFF, 0xA9000]) == [1, 1, 1, 1]


def test_equal_priority_the_higher_region_id_is_seen_in_whatever_order_they_came() -> None:
    blocks = []
    for order in ([1, 2, 3], [3, 2, 1], [2, 3, 1]):
        d = Dispatcher()
        for region in order:
            d.map(MMIO, 0x1000 * region, 0x2000, region)
        assert regions(d, MMIO, [0x1000, 0x2000, 0x2FFF, 0x3000, 0x4FFF]) == [1, 2, 2, 3, 3]
        blocks.append(d.current.entries(MMIO).tobytes())
    assert len(set(blocks)) == 1


def test_a_hole_hides_its_priority_and_below() -> None:
    d = Dispatcher()
    d.map(MMIO, 0, 0x10000, 1)
    d.map(MMIO, 0x2000, 0x1000, 2, priority=2)
    hole = d.hole(MMIO, 0x1000, 0x3000, priority=0)
    assert regions(d, MMIO, [0xFFF, 0x1000, 0x2000, 0x3FFF, 0x4000]) == [1, None, 2, None, 1]
    d.remove(hole)
    assert regions(d, MMIO, [0x1000]) == [1]


def test_an_alias_delivers_at_the_region_s_own_addresses() -> None:
    d = Dispatcher()
    d.map(MMIO, 0xFFFC0000, 0x40000, 7, owner=3, flags=POSTED, accepts=3)
    d.alias(0xE0000, 0x20000, 7, offset=0x20000)
    d.publish()
    e = d.lookup(MMIO, 0xE0010)
    assert e is not None
    assert (e.region, e.owner, e.flags, e.accepts) == (7, 3, POSTED | ALIAS, 3)
    assert (0xE0010 + e.delta) % 2**64 == 0xFFFE0010
    hit = d.lookup_batch(accesses(MMIO, [0xE0010, 0xFFFE0010]))
    assert hit["addr"].tolist() == [0xFFFE0010, 0xFFFE0010]
    d.unmap(7)  # takes the alias with it
    assert regions(d, MMIO, [0xE0010, 0xFFFE0010]) == [None, None]
    assert len(d.ranges()) == 0


def test_aliases_side_by_side_of_neighbouring_bytes_are_one_piece() -> None:
    d = Dispatcher()
    d.map(MMIO, 0x100000, 0x2000, 1)
    d.alias(0x0, 0x1000, 1, 0)
    second = d.alias(0x1000, 0x1000, 1, 0x1000)
    d.publish()
    assert len(d.current.entries(MMIO)) == 2
    assert d.lookup_many(MMIO, [0xFFE], 4).tolist() == [1]
    d.remove(second)
    d.alias(0x1000, 0x1000, 1, 0x0)  # not the neighbour any more
    d.publish()
    assert d.lookup_many(MMIO, [0xFFE], 4).tolist() == [STRADDLE]


def test_smm_sees_what_others_do_not() -> None:
    d = Dispatcher()
    d.map(MMIO, 0xA0000, 0x20000, 1)
    d.hole(MMIO, 0xA0000, 0x20000, priority=1, flags=SMM_ONLY)  # SMRAM: memory there, no device
    d.map(MMIO, 0xFEDA0000, 16, 2, flags=NON_SMM_ONLY)
    assert regions(d, MMIO, [0xA0000, 0xFEDA0000]) == [1, 2]
    assert regions(d, MMIO, [0xA0000, 0xFEDA0000], smm=True) == [None, None]
    acc = accesses(MMIO, [0xA0000, 0xA0000])
    acc["flags"] = [0, SMM]
    assert d.lookup_batch(acc)["status"].tolist() == [HIT_OK, HIT_UNCLAIMED]


def test_views_without_differences_share_their_memory() -> None:
    d = Dispatcher()
    d.map(PIO, 0, 0x10000, 1)
    d.publish()
    one = d.current.nbytes
    d.map(MMIO, 0, 16, 2, flags=SMM_ONLY)
    d.publish()
    assert d.current.nbytes < one + 1024


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_an_access_has_to_lie_in_one_piece(size: int) -> None:
    d = Dispatcher()
    d.map(MMIO, 0x1000, 0x10, 1)
    d.map(MMIO, 0x1010, 0x10, 2)
    d.publish()
    for addr in range(0xFF0, 0x1030):
        parts = {
            1 if 0x1000 <= a < 0x1010 else 2 if 0x1010 <= a < 0x1020 else UNCLAIMED for a in range(addr, addr + size)
        }
        want = parts.pop() if len(parts) == 1 else STRADDLE
        assert d.lookup_many(MMIO, [addr], size).tolist() == [want], hex(addr)


def test_straddling_out_of_a_gap_with_a_byte_in_the_middle() -> None:
    d = Dispatcher()
    d.map(MMIO, 0x1003, 1, 1)
    d.publish()
    assert d.lookup_many(MMIO, [0x1000, 0x1000, 0xFFC, 0x1004], [4, 2, 4, 4]).tolist() == [STRADDLE] + [UNCLAIMED] * 3
    hit = d.lookup_batch(accesses(MMIO, [0x1000], 8))[0]
    assert (hit["status"], hit["region"], hit["addr"]) == (HIT_STRADDLE, NO_REGION, 0x1000)


def test_widths() -> None:
    d = Dispatcher()
    for accepts in range(16):
        d.map(MMIO, 0x100 * accepts, 0x100, accepts, accepts=accepts)
    d.publish()
    for accepts in range(16):
        got = d.lookup_many(MMIO, np.full(256, 0x100 * accepts), np.arange(256))
        want = [accepts if s in (1, 2, 4, 8) and accepts & s else REFUSED for s in range(256)]
        assert got.tolist() == want


def test_ports_end_at_64k() -> None:
    d = Dispatcher()
    d.map(PIO, 0xFFFE, 2, 1)
    d.publish()
    assert d.lookup_many(PIO, [0xFFFE, 0xFFFF, 0xFFFF, 0x10000], [2, 1, 2, 1]).tolist() == [1, 1, STRADDLE, UNCLAIMED]


def test_thousands_of_ranges_in_one_page() -> None:
    d = Dispatcher()
    for i in range(4096):
        if i % 3:
            d.map(MMIO, 0xFEB00000 + i, 1, i)
    got = regions(d, MMIO, [0xFEB00000 + i for i in range(4096)])
    assert got == [i if i % 3 else None for i in range(4096)]


def test_nested_ranges_a_thousand_deep() -> None:
    d = Dispatcher()
    for i in range(1000):
        d.map(MMIO, 1000 * i, 1 << 21, i, priority=i if i % 2 else -i)
    model = {i: i if i % 2 else -i for i in range(1000)}
    addrs = np.random.default_rng(1).integers(0, 1 << 22, 300).tolist()
    for addr, got in zip(addrs, regions(d, MMIO, addrs), strict=True):
        there = [i for i in model if 1000 * i <= addr < 1000 * i + (1 << 21)]
        assert got == max(there, key=lambda i: model[i], default=None)


def test_one_byte_at_every_power_of_two() -> None:
    d = Dispatcher()
    for p in range(52):
        d.map(MMIO, 1 << p, 1, p)
    powers = [1 << p for p in range(52)]
    assert regions(d, MMIO, powers) == list(range(52))
    assert regions(d, MMIO, [p + 1 for p in powers[1:]]) == [None] * 51


# ---------------------------------------------------------------------- a million


@pytest.fixture(scope="module")
def million() -> tuple[Dispatcher, np.ndarray]:
    """2^20 random ranges over 52 bits that do not overlap, in random order."""
    rng = np.random.default_rng(5)
    cuts = np.unique(rng.integers(0, 1 << 52, 2 * MANY + 1000, dtype=np.uint64))[: 2 * MANY]
    r = np.zeros(MANY, [("space", "u1"), ("base", "u8"), ("size", "u8"), ("region", "u4"), ("owner", "u2")])
    r["space"], r["base"], r["size"] = MMIO, cuts[::2], cuts[1::2] - cuts[::2]
    r["region"] = rng.permutation(MANY)
    r["owner"] = r["region"] % 7
    d = Dispatcher()
    d.map_many(r[rng.permutation(MANY)])
    d.publish()
    return d, r


def test_a_million_ranges_answer_like_a_sorted_list(million: tuple[Dispatcher, np.ndarray]) -> None:
    d, r = million
    rng = np.random.default_rng(6)
    edges = np.concatenate(
        [r["base"], r["base"] - np.uint64(1), r["base"] + r["size"], r["base"] + r["size"] - np.uint64(1)]
    )
    addrs = np.concatenate([rng.choice(edges, 300_000), rng.integers(0, 1 << 52, 300_000, dtype=np.uint64)])
    i = np.searchsorted(r["base"], addrs, side="right") - 1
    inside = (i >= 0) & (addrs - r["base"][i] < r["size"][i])
    got = d.lookup_batch(accesses(MMIO, addrs))
    assert np.array_equal(got["region"], np.where(inside, r["region"][i], NO_REGION))
    assert np.array_equal(got["owner"][inside], r["owner"][i][inside])
    assert np.array_equal(got["status"] == HIT_OK, inside)


def test_a_million_ranges_take_less_than_200_bytes_each(million: tuple[Dispatcher, np.ndarray]) -> None:
    d, _ = million
    assert d.current.nbytes / MANY < 200
    assert d.current.shape(MMIO)["entries"] == MANY


def test_a_million_overlapping_ranges_with_priorities() -> None:
    rng = np.random.default_rng(7)
    r = np.zeros(MANY, RANGE)
    r["space"], r["accepts"], r["region"] = MMIO, 15, rng.permutation(MANY)
    r["base"] = rng.integers(0, 1 << 51, MANY)
    r["size"] = (2.0 ** rng.uniform(0, 36, MANY)).astype(np.uint64)
    r["priority"] = rng.integers(-5, 6, MANY)
    d = Dispatcher()
    d.map_many(r)
    d.publish()
    assert d.current.nbytes / MANY < 200
    picks = r[rng.integers(0, MANY, 200)]
    addrs = picks["base"] + (rng.random(200) * picks["size"]).astype(np.uint64)
    got = d.lookup_many(MMIO, addrs)
    for addr, region in zip(addrs, got, strict=True):
        there = r[(r["base"] <= addr) & (addr - r["base"] < r["size"])]
        assert region == max(there, key=lambda x: (x["priority"], x["region"]))["region"]


def test_a_million_ranges_at_every_scale() -> None:
    """Bases that crowd towards zero by powers of two: the worst for a radix of one fan-out."""
    rng = np.random.default_rng(8)
    base = np.unique((2.0 ** rng.uniform(8, 51.9, MANY)).astype(np.uint64))
    r = np.zeros(len(base), RANGE)
    r["space"], r["accepts"], r["base"], r["size"], r["region"] = MMIO, 15, base, 1, np.arange(len(base))
    d = Dispatcher()
    d.map_many(r)
    d.publish()
    assert d.current.nbytes / len(base) < 200
    assert np.array_equal(d.lookup_many(MMIO, base), np.arange(len(base)))


def test_batches_in_a_big_table_answer_like_single_look_ups() -> None:
    """Tables beyond half a megabyte are searched in another way (staged); so are their views, gaps and straddles."""
    rng = np.random.default_rng(10)
    n = 20_000
    r = np.zeros(n, RANGE)
    r["space"], r["accepts"] = rng.integers(1, 3, n), rng.choice([15, 15, 1, 6], n)
    r["base"] = (2.0 ** rng.uniform(3, 44, n)).astype(np.uint64)
    r["size"] = rng.integers(1, 100, n)
    r["region"], r["owner"] = rng.permutation(n), rng.integers(0, 9, n)
    r["flags"] = rng.choice([0, SMM_ONLY, NON_SMM_ONLY, POSTED], n)
    r["priority"] = rng.integers(0, 3, n)
    d = Dispatcher()
    d.map_many(r)
    d.publish()
    assert d.current.nbytes > 1 << 19 and d.current.shape(MMIO)["nodes"] > 10
    m = 10_000
    acc = accesses(0, r["base"][rng.integers(0, n, m)] + rng.integers(0, 110, m).astype(np.uint64) - np.uint64(5))
    acc["size"] = rng.choice([1, 2, 4, 8, 3], m)
    acc["space"] = rng.choice([0, 1, 2, 2, 1, 1, 7], m)
    acc["flags"] = rng.choice([0, SMM], m)
    hits = d.lookup_batch(acc)
    seen = set()
    for a, hit in zip(acc, hits, strict=True):
        addr, size = int(a["addr"]), int(a["size"])
        found = [d.lookup(int(a["space"]), addr + i, bool(a["flags"])) for i in range(size)]
        first = found[0]
        assert hit["region"] == (NO_REGION if first is None else first.region)
        if size == 3:
            want = HIT_REFUSED
        elif any(e != first for e in found):
            want = HIT_STRADDLE
        elif first is None:
            want = HIT_UNCLAIMED
        else:
            want = HIT_OK if first.accepts & size else HIT_REFUSED
        assert hit["status"] == want
        seen.add(want)
    assert len(seen) == 4


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((3, 0, 1, 1), "no space 3"),
        ((PIO, 0xFFFF, 2, 1), "the space ends at 0xffff"),
        ((MMIO, 1 << 52, 1, 1), "the space ends at"),
        ((MMIO, 0, 0, 1), "0x0 bytes"),
        ((MMIO, -1, 4, 1), "the space ends at"),
        ((MMIO, 0, 1, 0xFFFFFFF0), "no region id"),
        ((MMIO, 0, 1, 1, 0, 0x100), "flags"),
        ((MMIO, 0, 1, 1, 0, SMM_ONLY | NON_SMM_ONLY), "flags"),
        ((MMIO, 0, 1, 1, 0, 0, 0, 16), "widths"),
        ((MMIO, 0, 1, 9), "region 9 is mapped already, at MMIO 0x5000..0x5fff"),
    ],
)
def test_map_refuses(arguments: tuple[int, ...], says: str) -> None:
    d = Dispatcher()
    d.map(MMIO, 0x5000, 0x1000, 9)
    with pytest.raises(MachineError, match=says):
        d.map(*arguments)
    assert len(d.ranges()) == 1


def test_alias_unmap_remove_refuse() -> None:
    d = Dispatcher()
    handle = d.map(MMIO, 0x5000, 0x1000, 9)
    with pytest.raises(MachineError, match="not mapped"):
        d.alias(0, 1, 8)
    with pytest.raises(MachineError, match="not all inside"):
        d.alias(0, 0x11, 9, 0xFF0)
    with pytest.raises(MachineError, match="not mapped"):
        d.unmap(8)
    d.remove(handle)
    with pytest.raises(MachineError, match="no range"):
        d.remove(handle)


def test_map_many_is_all_or_none() -> None:
    d = Dispatcher()
    d.map(MMIO, 0, 1, 5)
    good = np.zeros(3, RANGE)
    good["space"], good["size"], good["region"], good["base"] = MMIO, 1, [1, 2, 3], [10, 20, 30]
    for field, value, says in (
        ("size", 0, "0x0 bytes"),
        ("region", 5, "region 5 is mapped already"),
        ("region", 2, "region 2 is mapped already, or twice"),
        ("base", 2**64 - 1, "the space ends"),
        ("space", 7, "no space 7"),
        ("accepts", 16, "widths"),
        ("flags", SMM_ONLY | NON_SMM_ONLY, "flags"),
    ):
        bad = good.copy()
        bad[field][2] = value
        with pytest.raises(MachineError, match=says):
            d.map_many(bad)
        assert len(d.ranges()) == 1
    with pytest.raises(UsageError, match="size"):
        d.map_many(good[["space", "base", "region"]])
    wide = [("space", "u1"), ("base", "u8"), ("size", "u8"), ("region", "u4"), ("owner", "u4")]
    with pytest.raises(UsageError, match="owner has values out of range"):
        d.map_many(np.array([(MMIO, 0, 1, 1, 70000)], wide))
    d.map_many(good)
    assert len(d.ranges()) == 4
    d.unmap_many([1, 3])
    assert d.ranges()["region"].tolist() == [5, 2]
    with pytest.raises(MachineError):
        d.unmap_many([2, 3])
    assert d.ranges()["region"].tolist() == [5, 2]


def test_freed_places_are_used_again() -> None:
    d = Dispatcher()
    r = np.zeros(100, RANGE)
    r["space"], r["size"], r["accepts"], r["base"] = MMIO, 1, 15, np.arange(100)
    for round in range(50):
        r["region"] = round * 100 + np.arange(100)
        d.map_many(r)
        assert regions(d, MMIO, [0, 99]) == [round * 100, round * 100 + 99]
        assert d.ranges()["handle"].max() < 100
        d.unmap_many(r["region"])


def test_lookup_batch_refuses_what_it_cannot_use() -> None:
    d = Dispatcher()
    acc = accesses(PIO, np.arange(4))
    with pytest.raises(UsageError, match="ACC"):
        d.lookup_batch(np.zeros(4, HIT))
    with pytest.raises(UsageError, match="side by side"):
        d.lookup_batch(acc[::2])
    with pytest.raises(UsageError, match="at least 4"):
        d.lookup_batch(acc, np.empty(3, HIT))
    frozen = np.empty(4, HIT)
    frozen.flags.writeable = False
    with pytest.raises(UsageError, match="writable"):
        d.lookup_batch(acc, frozen)
    with pytest.raises(TypeError):
        Table()
    assert len(d.lookup_batch(acc[:0])) == 0


# ---------------------------------------------------------------------- conflicts


def test_overlaps_name_both_parties() -> None:
    d = Dispatcher()
    d.map(PIO, 0x3F0, 8, 1, owner=10)
    d.map(PIO, 0x3F6, 1, 2, owner=11)
    d.map(PIO, 0x3F6, 2, 3, owner=12, priority=1)  # another priority: intended
    d.map(PIO, 0x3F0, 4, 4, owner=10)  # the same owner
    d.map(MMIO, 0x3F0, 8, 5, owner=12)  # another space
    d.hole(PIO, 0x300, 0x100)
    assert d.overlaps() == [Overlap(PIO, 0x3F6, 0x3F6, 0, 1, 10, 2, 11)]
    assert [(o.region_a, o.region_b) for o in d.overlaps(same_owner=True)] == [(1, 4), (1, 2)]


def test_overlaps_of_views_that_never_meet_are_none() -> None:
    d = Dispatcher()
    d.map(MMIO, 0, 16, 1, owner=1, flags=SMM_ONLY)
    d.map(MMIO, 0, 16, 2, owner=2, flags=NON_SMM_ONLY)
    assert d.overlaps() == []
    d.map(MMIO, 8, 16, 3, owner=3)
    assert {(o.region_a, o.region_b) for o in d.overlaps()} == {(1, 3), (2, 3)}
    assert len(d.overlaps(limit=1)) == 1


# ---------------------------------------------------------------------- policy, counters


def test_policy_of_reads_that_nobody_answers() -> None:
    d = Dispatcher(mmio_fill=0)
    assert [d.current.fill(PIO, s) for s in (1, 2, 4, 8)] == [0xFF, 0xFFFF, 0xFFFFFFFF, 2**64 - 1]
    assert d.current.fill(CONFIG, 4) == 0xFFFFFFFF
    assert d.current.fill(MMIO, 4) == d.current.fill(MMIO, 4, smm=True) == 0
    version = d.current.version
    d.set_policy(MMIO, 2**64 - 1)
    assert d.current.fill(MMIO, 4) == 0
    assert d.publish() == version + 1
    assert d.current.fill(MMIO, 2) == d.current.fill(MMIO, 2, smm=True) == 0xFFFF
    with pytest.raises(MachineError):
        d.set_policy(3, 0)


def test_counters_count_what_goes_nowhere() -> None:
    d = Dispatcher()
    d.map(PIO, 0x60, 1, 1, accepts=1)
    d.map(PIO, 0x61, 1, 2, accepts=3)
    d.publish()
    counters = Counters()
    acc = accesses(PIO, [0x60, 0x60, 0x60, 0x80, 0x80, 0x61], [1, 2, 2, 1, 1, 2])
    acc["dir"] = [0, 0, 0, 1, 0, 1]
    d.lookup_batch(acc, counters=counters)
    assert counters.totals == {"unclaimed": 2, "straddle": 3, "refused": 0}
    assert counters.top() == {
        ("straddle", PIO, 0x60, 2, 0): (2, 0),
        ("unclaimed", PIO, 0x80, 1, 0): (1, 0),
        ("unclaimed", PIO, 0x80, 1, 1): (1, 0),
        ("straddle", PIO, 0x61, 2, 1): (1, 0),
    }
    d.lookup_batch(accesses(PIO, [0x60], 3), counters=counters)
    assert counters.totals["refused"] == 1
    counters.clear()
    assert counters.top() == {} and sum(counters.totals.values()) == 0


def test_counters_are_bounded_and_keep_the_offender() -> None:
    d = Dispatcher()
    counters = Counters()
    rng = np.random.default_rng(3)
    n = 400_000
    addr = rng.integers(0, 1 << 52, n, dtype=np.uint64)
    addr[rng.permutation(n)[: n // 100]] = 0xFEE1000
    d.lookup_batch(accesses(MMIO, addr, 4), counters=counters)
    assert counters.totals["unclaimed"] == n
    top = counters.top()
    assert len(top) == 4096
    key = ("unclaimed", MMIO, 0xFEE1000, 4, 0)
    assert next(iter(top)) == key
    count, error = top[key]
    assert count - error <= n // 100 <= count
    assert list(counters.top(3)) == list(top)[:3]
    assert sum(c for c, _ in top.values()) == n  # no access is counted twice or lost


# ---------------------------------------------------------------------- routing and splitting


def test_route_groups_by_owner_and_keeps_order() -> None:
    d = Dispatcher()
    for i in range(20):
        d.map(MMIO, 0x1000 * i, 0x800, i, owner=i % 5, accepts=7)
    d.publish()
    rng = np.random.default_rng(4)
    acc = accesses(MMIO, rng.integers(0, 0x16000, 5000), rng.choice([1, 2, 4, 8, 3], 5000))
    hits = d.lookup_batch(acc)
    order, starts = d.current.route(hits)
    assert starts[0] == 0 and starts[-1] == 5000 and len(starts) == 7
    where = np.where(hits["status"] == HIT_OK, hits["owner"], 5)
    for owner in range(6):
        assert np.array_equal(order[starts[owner] : starts[owner + 1]], np.flatnonzero(where == owner))
    order, starts = d.current.route(hits[:0])
    assert len(order) == 0 and starts.tolist() == [0] * 7


def test_split_cuts_a_dword_over_ide_and_floppy() -> None:
    d = Dispatcher()
    d.map(PIO, 0x3F6, 1, 1)  # IDE alternate status
    d.map(PIO, 0x3F7, 1, 2)  # floppy digital input register
    d.map(PIO, 0x3F1, 5, 3)
    d.publish()
    assert d.lookup_many(PIO, [0x3F4], 4).tolist() == [STRADDLE]
    assert d.current.split(PIO, 0x3F4, 4) == [
        (0, 2, HIT_OK, 3, 0x3F4),
        (2, 1, HIT_OK, 1, 0x3F6),
        (3, 1, HIT_OK, 2, 0x3F7),
    ]
    assert d.current.split(PIO, 0x3EF, 2) == [(0, 1, HIT_UNCLAIMED, None, 0x3EF), (1, 1, HIT_UNCLAIMED, None, 0x3F0)]
    assert d.current.split(PIO, 0x3F4, 3) == d.current.split(9, 0x3F4, 4) == []


def test_split_covers_every_byte_with_aligned_parts_that_do_not_straddle() -> None:
    rng = np.random.default_rng(9)
    for _ in range(100):
        d = Dispatcher()
        for i, (base, size) in enumerate(zip(rng.integers(0, 40, 8), rng.integers(1, 9, 8), strict=True)):
            d.map(MMIO, int(base), int(size), i, accepts=int(rng.integers(0, 16)))
        d.publish()
        for addr in range(40):
            for size in (1, 2, 4, 8):
                parts = d.current.split(MMIO, addr, size)
                assert [o for o, *_ in parts] == np.cumsum([0] + [s for _, s, *_ in parts[:-1]]).tolist()
                assert sum(s for _, s, *_ in parts) == size
                for offset, width, status, region, _ in parts:
                    assert (addr + offset) % width == 0 and status in (HIT_OK, HIT_REFUSED, HIT_UNCLAIMED)
                    for b in range(width):
                        e = d.lookup(MMIO, addr + offset + b)
                        assert region == (None if e is None else e.region)


# ---------------------------------------------------------------------- publication


def test_nothing_is_seen_before_publish_and_old_tables_stay_as_they_were() -> None:
    d = Dispatcher()
    old = d.current
    assert old.version == 1 == d.publish()
    d.map(PIO, 0x60, 1, 1)
    assert d.lookup(PIO, 0x60) is None
    assert d.publish() == 2
    assert d.lookup(PIO, 0x60) is not None
    assert old.lookup(PIO, 0x60) is None and old.version == 1


def test_a_table_is_one_block_that_may_lie_anywhere() -> None:
    d = Dispatcher()
    rng = np.random.default_rng(2)
    for i in range(500):
        d.map(i % 2, int(rng.integers(0, 60000)), int(rng.integers(1, 2000)), i, priority=int(rng.integers(3)))
    d.map(MMIO, 1 << 40, 1 << 30, 1000, flags=SMM_ONLY)
    d.publish()
    block = d.current.to_bytes()
    shared = mmap.mmap(-1, len(block) + 8192)
    shared[4096 + 8 : 4096 + 8 + len(block)] = block
    table = Table.over(memoryview(shared)[4096 + 8 :])
    acc = accesses(0, rng.integers(0, 70000, 20000), rng.choice([1, 2, 4], 20000))
    acc["space"] = rng.integers(0, 3, 20000)
    acc["flags"] = rng.choice([0, SMM], 20000)
    assert np.array_equal(table.lookup_batch(acc), d.lookup_batch(acc))
    assert table.version == d.current.version and table.to_bytes() == block


def test_a_damaged_block_is_refused_or_harmless() -> None:
    d = Dispatcher()
    rng = np.random.default_rng(11)
    for i in range(200):
        d.map(MMIO, int(rng.integers(0, 1 << 20)) << int(rng.integers(0, 30)), int(rng.integers(1, 5000)), i)
    d.publish()
    assert d.current.shape(MMIO)["nodes"] > 1
    block = bytearray(d.current.to_bytes())
    acc = accesses(MMIO, rng.integers(0, 1 << 51, 500, dtype=np.uint64))
    acc["addr"][:200] = d.current.entries(MMIO)["base"][rng.integers(0, 200, 200)]
    refused = 0
    for _ in range(3000):
        bad = bytearray(block)
        at = int(rng.choice([rng.integers(0, 576), rng.integers(0, len(bad))]))
        bad[at] ^= 1 << int(rng.integers(8))
        try:
            table = Table.over(bad)
        except UsageError:
            refused += 1
            continue
        table.lookup_batch(acc)
    assert refused > 100
    for cut in (0, 1, 575, 576, len(block) // 2, len(block) - 1):
        with pytest.raises(UsageError):
            Table.over(block[:cut])


def test_the_publisher_keeps_what_a_reader_holds() -> None:
    d = Dispatcher()
    d.map(MMIO, 0x1000, 16, 1)
    d.publish()
    reader = d.reader()
    acc = accesses(MMIO, [0x1000])
    with reader:
        held = reader.version
        for i in range(2, 30):
            d.unmap(i - 1)
            d.map(MMIO, 0x1000, 16, i)
            d.publish()
        gc.collect()
        assert d.retired_tables == 28
        assert reader.version == held
        assert reader.lookup_batch(acc)["region"].tolist() == [1]
        assert not d.wait_readers(0.01)
        reader.enter()  # passes to the current table
        assert reader.lookup_batch(acc)["region"].tolist() == [29]
        assert d.wait_readers(0)
    assert d.retired_tables == 0 and reader.version is None
    with pytest.raises(UsageError, match="outside"):
        reader.lookup_batch(acc)


def test_readers_are_counted_and_come_back() -> None:
    d = Dispatcher()
    some = [d.reader() for _ in range(64)]
    with pytest.raises(MachineError, match="64 readers"):
        Reader(d)
    some[10].enter()
    d.map(PIO, 0, 1, 1)
    d.publish()
    assert d.retired_tables == 1
    del some[10]
    gc.collect()
    assert d.retired_tables == 0
    assert d.reader().version is None


def test_a_thread_that_reads_sees_whole_versions_only() -> None:
    """Two maps take turns; the answers to one batch all come from one of them, and versions only rise."""
    d = Dispatcher()
    n = 3000  # a table big enough that building it anew recycles memory under the readers
    base = np.arange(n, dtype=np.uint64) * np.uint64(4096)
    maps = []
    for turn in (0, 1):
        r = np.zeros(n, RANGE)
        r["space"], r["base"], r["size"], r["accepts"] = MMIO, base, 64, 15
        r["region"] = np.arange(n) + turn * n
        maps.append(r)
    d.map_many(maps[0])
    d.publish()
    acc = accesses(MMIO, base)
    stop = threading.Event()
    mixed: list[str] = []
    rounds = [0, 0, 0]

    def read(me: int) -> None:
        reader, last = d.reader(), 0
        out = np.empty(n, HIT)
        while not stop.is_set():
            with reader:
                version = reader.enter()
                hits = reader.lookup_batch(acc, out)
            turn = int(hits["region"][0]) // n
            if version < last or not np.array_equal(hits["region"], maps[turn]["region"]):
                mixed.append(f"version {version} after {last}")
                return
            last = version
            rounds[me] += 1

    threads = [threading.Thread(target=read, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    end = time.monotonic() + 1.0
    published = 0
    while time.monotonic() < end or min(rounds) < 20:
        assert not mixed
        d.unmap_many(maps[published % 2]["region"])
        d.map_many(maps[(published + 1) % 2])
        d.publish()
        published += 1
        assert d.wait_readers(30)
        assert d.retired_tables == 0
        if time.monotonic() > end + 60:
            break
    stop.set()
    for t in threads:
        t.join()
    assert not mixed and min(rounds) >= 20 and published >= 10


# ---------------------------------------------------------------------- maps that come back


def look(d: Dispatcher) -> list[int]:
    """What is seen at a few addresses."""
    found: list[int] = d.lookup_many([0, 0, 0, 1, 1], [0x10, 0x18, 0x40, 0x1000, 0x2000]).tolist()
    return found


def test_a_kept_map_comes_back_with_its_table_as_often_as_wanted() -> None:
    d = Dispatcher()
    d.map(0, 0x10, 8, 1)
    d.map(1, 0x1000, 0x100, 2)
    d.alias(0x2000, 0x80, 2)
    kept, ranges, want, table = d.keep(), d.ranges(), look(d), d.current
    assert want == [1, UNCLAIMED, UNCLAIMED, 2, 2]
    many = np.zeros(1, RANGE)
    many["base"], many["size"], many["region"], many["accepts"] = 0x40, 4, 9, 15
    changes = (
        lambda: d.map(0, 0x18, 8, 3),
        lambda: d.hole(1, 0x1000, 16),
        lambda: d.alias(0x3000, 0x10, 2, priority=2),
        lambda: d.unmap(2),
        lambda: d.remove(d.map(0, 0x18, 8, 3)),
        lambda: d.unmap_many([1, 2]),
        lambda: d.map_many(many),
        lambda: d.set_policy(0, 0x55),
    )
    fills = [d.current.fill(space, 4) for space in (0, 1, 2)]
    for changed in (True, False):  # published, and not
        for change in changes:
            change()
            if changed:
                d.publish()
            d.put_back(kept)
            assert d.current is table and look(d) == want
            assert (d.ranges() == ranges).all()
            assert [d.current.fill(space, 4) for space in (0, 1, 2)] == fills
            assert d.publish() == table.version  # nothing is left to be published
    d.unmap(1)
    d.map(0, 0x10, 8, 1)
    d.publish()
    assert look(d) == want and d.current.version > table.version


def test_a_map_is_put_back_where_it_was_kept() -> None:
    with pytest.raises(UsageError, match="another one's"):
        Dispatcher().put_back(Dispatcher().keep())


def test_a_table_that_is_shown_again_is_kept_for_its_readers() -> None:
    d = Dispatcher()
    d.map(0, 0x10, 8, 1)
    kept = d.keep()
    for region in range(2, 9):
        d.map(0, 0x10 * region, 8, region)
        d.publish()
    assert d.retired_tables == 0
    d.put_back(kept)
    reader = d.reader()
    reader.enter()  # an old version, seen late
    d.map(0, 0x100, 8, 77)
    d.publish()
    assert d.retired_tables == 1
    reader.enter()
    assert d.retired_tables == 0
    reader.leave()
