"""The contract of engine.Device, over every type in engine/registry.py: what holds for all parts.

ENGINE_DEVICES names other types instead, separated by blanks: a class of one's own is package.module:Class.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from engine._device import AUX, INTACK, KEY, LINE, MESSAGE, Device
from engine.errors import StateError
from engine.machine.state import in_arena
from engine.registry import TYPES, device_class
from engine.testing import FakeBus
from engine.types import RC, RO, RW, RW1C, WO, Register, Space

from .parts import NOTHING, PARTS, Index, Part

ACCESSES = (RO, WO, RW, RW1C, RC)
PURE = ("", "none")  # side effects that are none
OK, NO_REGISTER, BAD_SIZE, UNALIGNED, ERROR = range(5)

every_type = pytest.mark.parametrize("kind", os.environ.get("ENGINE_DEVICES", "").split() or sorted(TYPES))


def make(kind: str, **config: Any) -> FakeBus:
    return FakeBus(device_class(kind)(kind, 0, **config))


def part_of(kind: str) -> Part:
    return PARTS.get(kind, NOTHING)


def state(device: Device) -> dict[str, Any]:
    """The saved state without the clock, which moves by itself."""
    return {k: v for k, v in device.save().items() if k != "now"}


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))


# ---------------------------------------------------------------------- the register map


def bytes_of(r: Register) -> int:
    return r.width // 8


@every_type
def test_registers_are_well_formed(kind: str) -> None:
    cls = device_class(kind)
    regions = cls(kind).regions()
    names = [r.name for r in cls.REGISTERS]
    assert len(set(names)) == len(names), sorted(n for n in set(names) if names.count(n) > 1)
    assert cls.REGISTERS and cls.TITLE
    for r in cls.REGISTERS:
        full = (1 << r.width) - 1
        assert r.width in (8, 16, 32, 64), r
        assert r.access in ACCESSES, r
        assert 0 <= r.region < len(regions), r
        wide = bytes_of(r) if r.index is None else 1
        assert r.offset >= 0 and r.offset + wide <= regions[r.region].size, r
        assert r.reset is None or 0 <= r.reset <= full, r
        assert 0 <= r.wmask <= full and 0 <= r.w1c <= full, r
        assert not r.wmask & r.w1c or r.access == RW1C, r
        assert (r.access == RW1C) == bool(r.w1c), r
        assert r.access in (RW, RW1C, WO) or not r.wmask, r
        assert r.section, f"{r.name} cites no section"


@every_type
def test_regions_are_well_formed(kind: str) -> None:
    regions = device_class(kind)(kind).regions()
    names = [r.name for r in regions]
    assert len(set(names)) == len(names)
    for r in regions:
        assert r.size >= 0 and r.space in Space
        assert r.accepts and set(r.accepts) <= {1, 2, 4, 8}
        low, high = r.implements
        assert low in (1, 2, 4, 8) and high in (1, 2, 4, 8) and low <= high
        assert max(r.accepts) <= (4 if r.space == Space.CONFIG else 8)
        assert not (r.posted and r.barrier), "what can change the map or reset is never posted"
        if r.clock is not None:
            assert 0 < r.clock.hz < 1 << 32 and 0 < r.clock.bits <= 64
            assert r.clock.offset + r.clock.width <= r.size and r.implements[0] <= r.clock.width
            fields = device_class(kind).state_dtype()
            if r.clock.runs is not None:
                assert in_arena(device_class(kind)) and fields[r.clock.runs[0]] == "u4"
                assert fields[r.clock.ahead] == fields[r.clock.halted] == "u8"
                assert r.clock.offset + r.clock.width <= r.clock.set_by <= r.size


@every_type
def test_a_clock_shows_the_time(kind: str) -> None:
    """Whatever the part is told, in every width that it sees as it is.  What a settable one follows from is changed by
    writes to the bytes it names alone."""
    device = device_class(kind)(kind, 0)
    regions, rng = device.regions(), random.Random(kind)
    clocks = [(n, r, r.clock) for n, r in enumerate(regions) if r.clock is not None]
    bus = FakeBus(device)
    settable = [(n, c.set_by, (c.runs[0], c.ahead, c.halted)) for n, _, c in clocks if c.runs is not None]
    for _ in range(1000 if clocks else 0):
        before = device.save()
        bus.t_ns += rng.choice((0, 1, 279, 280, 4_000_000, 2_400_000_000))
        wrote, at = None, 0
        n = rng.randrange(len(regions))
        if regions[n].size and rng.random() < 0.3:
            known = [r.offset for r in type(device).REGISTERS if r.region == n and r.index is None]
            at = rng.choice([*known, rng.randrange(regions[n].size)])
            bus.write(n, at, rng.getrandbits(8), min(regions[n].accepts))
            wrote = n
        elif device.IN and rng.random() < 0.3:
            bus.set(rng.choice(device.IN), rng.randrange(2))
        else:
            bus.read(n, rng.randrange(max(regions[n].size, 1)), min(regions[n].accepts))
        state = device.save()
        for n, set_by, names in settable:
            assert (n == wrote and at < set_by) or all(state[name] == before[name] for name in names)
        for n, r, c in clocks:
            if c.runs is None or state[c.runs[0]] & c.runs[1]:
                shown = (bus.t_ns + (state[c.ahead] if c.runs else 0)) % 2**64 * c.hz // 10**9
            else:
                shown = state[c.halted]
            now = shown & (1 << c.bits) - 1
            for size in (s for s in r.accepts if r.implements[0] <= s <= c.width):
                for at in range(0, c.width, size):
                    assert bus.read(n, c.offset + at, size) == now >> 8 * at & (1 << 8 * size) - 1 and bus.status == 0


@every_type
def test_pins_and_settings_are_named_once(kind: str) -> None:
    cls = device_class(kind)
    assert len(set(cls.OUT)) == len(cls.OUT) <= 64
    assert len(set(cls.IN)) == len(cls.IN)
    assert all(isinstance(k, str) for k in cls.CONFIG)
    assert cls.__doc__


def reach(bus: FakeBus, part: Part, r: Register, write: bool) -> int:
    """Bring the index port to a register; the offset of its data."""
    if r.index is None:
        return r.offset
    index = part.indexes.get((r.region, r.offset), Index(r.region, r.offset - 1))
    if index.before:
        bus.read(*index.before)
    bus.write(index.region, index.at, r.index, index.size)
    at = index.write_at if write else index.read_at
    return r.offset if at is None else at


def get(bus: FakeBus, part: Part, r: Register) -> int:
    return bus.read(r.region, reach(bus, part, r, False), bytes_of(r))


def put(bus: FakeBus, part: Part, r: Register, value: int) -> None:
    bus.write(r.region, reach(bus, part, r, True), value, bytes_of(r))


@every_type
def test_reset_values(kind: str) -> None:
    cls, part = device_class(kind), part_of(kind)
    wrong = []
    for r in cls.REGISTERS:
        if r.access == WO or r.reset is None:
            continue
        bus = make(kind)
        got = get(bus, part, r)
        if (bus.status, got) != (OK, r.reset):
            wrong.append(f"{r.name}: status {bus.status}, {got:#x}, not {r.reset:#x}")
    assert not wrong


@every_type
def test_write_only_registers_are_not_read_back(kind: str) -> None:
    """A WO register's offset is either empty for reads, or a read-only register of the map stands there too."""
    cls = device_class(kind)
    readable = {(r.region, r.offset, r.index) for r in cls.REGISTERS if r.access != WO}
    for r in cls.REGISTERS:
        if r.access == WO and r.index is None and (r.region, r.offset, None) not in readable:
            bus = make(kind)
            bus.read(r.region, r.offset, bytes_of(r))
            assert bus.status in (OK, NO_REGISTER)


@every_type
def test_writable_bits(kind: str) -> None:
    """Of a RW register exactly the bits of wmask take what is written, unless parts.py says why one does not."""
    cls, part = device_class(kind), part_of(kind)
    wrong = []
    for r in cls.REGISTERS:
        if r.access != RW or not r.wmask or r.name in part.skip:
            continue
        bus = make(kind, **part.config)
        before, full = get(bus, part, r), (1 << r.width) - 1
        for pattern in (full, 0, 0x5555555555555555 & full, 0xAAAAAAAAAAAAAAAA & full):
            put(bus, part, r, pattern)
            got, want = get(bus, part, r), pattern & r.wmask | before & ~r.wmask
            if got != want:
                wrong.append(f"{r.name}: wrote {pattern:#x}, read {got:#x}, not {want:#x}")
    assert not wrong
    assert set(part.skip) <= {r.name for r in cls.REGISTERS}


@every_type
def test_read_only_registers_ignore_writes(kind: str) -> None:
    cls, part = device_class(kind), part_of(kind)
    written = {(r.region, r.offset, r.index) for r in cls.REGISTERS if r.access not in (RO, RC)}
    wrong = []
    for r in cls.REGISTERS:
        if r.access != RO or r.side_effects not in PURE or (r.region, r.offset, r.index) in written:
            continue
        bus = make(kind)
        before = get(bus, part, r)
        for value in (0, (1 << r.width) - 1):
            put(bus, part, r, value)
            got = get(bus, part, r)
            if got != before:
                wrong.append(f"{r.name}: {before:#x} became {got:#x} after writing {value:#x}")
    assert not wrong


@every_type
def test_write_one_to_clear_bits(kind: str) -> None:
    """A written one clears its bit and no other; a written zero clears nothing."""
    cls, part = device_class(kind), part_of(kind)
    for r in cls.REGISTERS:
        if not r.w1c or r.name in part.skip:
            continue
        where = {"PCISTS": ("config", 6), **part.w1c}  # every PCI function keeps its configuration space in one field
        assert r.name in where, f"{r.name}: parts.py does not say which state field has its bits"
        name, at = where[r.name]
        for bit in (n for n in range(r.width) if r.w1c >> n & 1):
            bus = make(kind)
            fill(bus.dut, name, at, r)
            bus.executor.refresh()
            before = get(bus, part, r)
            put(bus, part, r, before & r.wmask)
            assert get(bus, part, r) & r.w1c == before & r.w1c, f"{r.name}: a written zero cleared a bit"
            put(bus, part, r, 1 << bit | before & r.wmask)
            assert get(bus, part, r) & r.w1c == before & r.w1c & ~(1 << bit), f"{r.name} bit {bit}"
            assert before >> bit & 1, f"{r.name} bit {bit} could not be set through state field {name}"


def fill(device: Device, name: str, at: int, r: Register) -> None:
    """Set every write-one-to-clear bit in the state."""
    s = device.save()
    if isinstance(s[name], list):
        item = 8
        for n in range(0, r.width, item):
            s[name][at + n // item] |= r.w1c >> n & 0xFF
    else:
        s[name] |= r.w1c
    device.restore(s)


# ---------------------------------------------------------------------- accesses of every kind


def offsets_of(size: int, rng: random.Random) -> list[int]:
    if size <= 4096:
        return list(range(size))
    return [*range(256), *range(size - 16, size), *sorted(rng.randrange(size) for _ in range(256))]


@every_type
def test_every_width_at_every_offset(kind: str) -> None:
    """Registers or none, aligned or not, wide or narrow: a status, never more."""
    bus, rng = make(kind), random.Random(kind)
    for number, region in enumerate(bus.dut.regions()):
        for size in (1, 2, 4, 8):
            for offset in offsets_of(region.size, rng):
                value = rng.getrandbits(8 * size)
                got = bus.read(number, offset, size)
                assert bus.status in (OK, NO_REGISTER, BAD_SIZE, UNALIGNED)
                assert 0 <= got < 1 << 8 * size
                assert bus.write(number, offset, value, size) in (OK, NO_REGISTER, BAD_SIZE, UNALIGNED)
        bus.take()
    assert getattr(bus.dut, "errors", 0) == 0  # no exception in a device written in Python


Op = tuple[str, tuple[int, ...]]


def operations(kind: str, seed: str, n: int, far: bool = False, content: bool = True) -> list[Op]:
    """Random accesses, inputs and jumps in time, with addresses and values that hit registers more often than not."""
    rng = random.Random(seed)
    cls = device_class(kind)
    regions = [
        (i, r) for i, r in enumerate(cls(kind).regions()) if r.size and (content or i not in part_of(kind).content)
    ]
    jumps = (0, 1, 10, 1000, 10**6, 10**9, 10**15)
    longest = part_of(kind).longest_ns if far else min(10**9, part_of(kind).longest_ns)
    out: list[Op] = []
    while len(out) < n:
        dice = rng.random()
        if dice < 0.10:
            out.append(("step", (rng.choice([ns for ns in jumps if ns <= longest]),)))
        elif dice < 0.16:
            what = rng.choice((LINE, INTACK, KEY, AUX, MESSAGE))
            if what == LINE and not cls.IN:
                continue
            pin = rng.randrange(len(cls.IN)) if what == LINE else 0
            value = rng.randrange(2) if what == LINE else 0 if what == INTACK else rng.getrandbits(8)
            out.append(("input", (what, pin, 0xFEE00000 + (rng.getrandbits(8) << 12), value)))
        else:
            number, region = rng.choice(regions)
            size = rng.choice(region.accepts)
            at = (
                rng.choice([r.offset for r in cls.REGISTERS if r.region == number] or [0])
                if rng.random() < 0.6
                else rng.randrange(region.size)
            )
            value = rng.choice((0, 1, (1 << 8 * size) - 1, rng.getrandbits(8 * size), rng.getrandbits(8)))
            out.append(("write" if rng.random() < 0.5 else "read", (number, at, size, value & (1 << 8 * size) - 1)))
    return out


def perform(bus: FakeBus, ops: list[Op], after: Callable[[FakeBus], None] = lambda bus: None) -> list[tuple[int, int]]:
    """What each operation answered."""
    out = []
    for what, args in ops:
        got = 0
        if what == "step":
            bus.step(args[0])
        elif what == "input":
            got = bus.input(*args)
        elif what == "write":
            bus.write(args[0], args[1], args[3], args[2])
        else:
            got = bus.read(*args[:3])
        out.append((got, bus.status if what in ("read", "write") else OK))
        after(bus)
    return out


@every_type
def test_deadlines_lie_after_now(kind: str) -> None:
    """Through random accesses and jumps of up to twelve days at once, which must not take long either."""

    def check(bus: FakeBus) -> None:
        assert bus.dut.now <= bus.t_ns
        assert bus.dut.deadline is None or bus.dut.deadline > bus.dut.now

    for seed in range(4):
        bus = make(kind)
        perform(bus, operations(kind, f"{kind} {seed}", 400, far=True), check)
        bus.step(part_of(kind).longest_ns)
        assert bus.dut.deadline is None or bus.dut.deadline > bus.t_ns
        assert getattr(bus.dut, "errors", 0) == 0


@every_type
def test_equal_accesses_give_equal_answers(kind: str) -> None:
    """Two fresh parts answer the same stream alike, effects and state included."""
    ops = operations(kind, f"twins {kind}", 1500, far=True)
    a, b = make(kind), make(kind)
    assert perform(a, ops) == perform(b, ops)
    assert a.take() == b.take()
    assert a.dut.save() == b.dut.save()


@every_type
def test_only_barriers_change_the_map_or_reset_the_machine(kind: str) -> None:
    """docs/ordering.md: a batch is cut behind writes to barrier regions, and where a TIMED_RESET part may reset."""
    timed = getattr(device_class(kind), "TIMED_RESET", False)
    for seed in range(3):
        bus = make(kind)
        bus.take()
        for what, args in operations(kind, f"barrier {kind} {seed}", 400):
            perform(bus, [(what, args)])
            behind = what == "write" and bus.dut.regions()[args[0]].barrier
            for e in bus.take():
                allowed = behind or (what == "step" and e.kind == "reset" and timed)
                assert e.kind in ("line", "message") or allowed, f"{e.kind} by {what} {args}"


# ---------------------------------------------------------------------- state


@every_type
def test_save_mutate_restore_save(kind: str) -> None:
    bus = make(kind)
    perform(bus, operations(kind, f"before {kind}", 300))
    saved = bus.dut.save()
    perform(bus, operations(kind, f"after {kind}", 300))
    bus.dut.restore(saved)
    assert differences(saved, bus.dut.save()) == []


@every_type
def test_restored_part_goes_on_as_the_saved_one(kind: str) -> None:
    """A fresh part given the state, and what was written to its medium, goes on as the first one does.  (Memory is
    saved elsewhere.)"""
    first, second = make(kind), make(kind)
    perform(first, operations(kind, f"before {kind}", 500, content=False))
    first.take()
    second.dut.restore(first.dut.save())
    if hasattr(first.dut, "written_sectors"):
        second.dut.set_written_sectors(first.dut.written_sectors())
    second.t_ns = first.t_ns
    second.executor.refresh()
    ops = operations(kind, f"after {kind}", 500, content=False)
    for n, (a, b) in enumerate(zip(perform(first, ops), perform(second, ops), strict=True)):
        assert a == b, f"operation {n}: {ops[n]}"
    assert first.take() == second.take()


@every_type
def test_restore_makes_no_effect(kind: str) -> None:
    bus = make(kind)
    fresh = bus.dut.save()
    perform(bus, operations(kind, f"noise {kind}", 300))
    mutated = bus.dut.save()
    bus.take()
    for s in (fresh, mutated, fresh):
        bus.dut.restore(s)
        bus._collect()
        assert bus.take() == []
        assert bus.dut.save() == s


def spoilt(s: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """States that no part may take, each with what is wrong with it; of a part with hundreds of fields, a sample."""
    keys = sorted(s) if len(s) <= 60 else ["part", "version", *random.Random(s["part"]).sample(sorted(s), 58)]
    out = [
        ("another part", s | {"part": "Nothing"}),
        ("another version", s | {"version": s["version"] + 1}),
        ("an unknown field", s | {"zzz": 0}),
    ]
    for key in keys:
        out.append((f"no {key}", {k: v for k, v in s.items() if k != key}))
    for key in keys:
        value = s[key]
        if key in ("part", "version"):
            continue
        for odd in (1 << 70, -(1 << 70), "text", None, 0.5):
            out.append((f"{key} = {odd!r}", s | {key: odd}))
        if isinstance(value, list):
            out.append((f"{key} too long", s | {key: [*value, 0, 0, 0]}))
            out.append((f"{key} is no list", s | {key: 7}))
            if value:
                out.append((f"{key}[0] too big", s | {key: [1 << 70, *value[1:]]}))
        else:
            out.append((f"{key} is a list", s | {key: [value, value]}))
    return out


@every_type
def test_restore_refuses_what_does_not_fit_and_changes_nothing(kind: str) -> None:
    bus = make(kind)
    perform(bus, operations(kind, f"state {kind}", 200))
    bus.take()
    saved = bus.dut.save()
    for what, bad in spoilt(saved):
        with pytest.raises(StateError) as caught:
            bus.dut.restore(bad)
            pytest.fail(f"{kind} took a state with {what}")
        assert "\n" not in str(caught.value)
        assert differences(saved, bus.dut.save()) == [], what
    bus._collect()
    assert bus.take() == []


@every_type
def test_any_state_that_restore_takes_is_safe(kind: str) -> None:
    """State files may come from anywhere: whatever is in range is refused or survives accesses, and time still ends."""
    rng = random.Random(f"hostile {kind}")
    cls = device_class(kind)
    for turn in range(24):
        bus = make(kind)
        s = bus.dut.save()
        dtype = cls.state_dtype()
        for name in dtype.names:
            if rng.random() < (0.9 if turn % 3 == 0 else 0.3):
                base, shape = dtype[name].base, dtype[name].shape
                top = 1 << base.itemsize * 8 - (base.kind == "i")
                values = [rng.choice((0, 1, top - 1, rng.randrange(top))) for _ in range(shape[0] if shape else 1)]
                s[name] = values if shape else values[0]
        s["now"] = rng.choice((0, 10**9, 10**18))
        s["deadline"] = rng.choice((s["now"] + 1, (1 << 64) - 1))
        try:
            bus.dut.restore(s)
        except StateError:
            continue
        bus.t_ns = s["now"]
        bus.executor.refresh()
        perform(bus, operations(kind, f"{kind} {turn}", 150, far=turn % 2 == 0))
        bus.dut.inspect()


@every_type
def test_inspect_is_plain_data(kind: str) -> None:
    bus = make(kind)
    perform(bus, operations(kind, f"look {kind}", 100))
    before = bus.dut.save()
    got = bus.dut.inspect()

    def plain(v: Any) -> bool:
        if isinstance(v, dict):
            return all(isinstance(k, str | int) and plain(x) for k, x in v.items())
        if isinstance(v, list | tuple):
            return all(map(plain, v))
        return v is None or type(v) in (bool, int, str, float)

    odd = {k: type(v).__name__ for k, v in got.items() if not plain(v)}
    assert not odd
    assert set(got["pins"]) == set(type(bus.dut).OUT)
    assert bus.dut.save() == before


# ---------------------------------------------------------------------- reset


@every_type
@pytest.mark.parametrize("which", [0, 1], ids=["power_on", "bus"])
def test_reset_is_idempotent(kind: str, which: int) -> None:
    bus = make(kind)
    perform(bus, operations(kind, f"reset {kind}", 500))
    for _ in range(part_of(kind).resets):
        bus.reset(which)
    once = state(bus.dut)
    bus.take()
    bus.reset(which)
    assert differences(once, state(bus.dut)) == []
    assert [e for e in bus.take() if e.kind == "line"] == []


@every_type
def test_power_on_reset_forgets_everything(kind: str) -> None:
    """What a power-on reset leaves is what a new part has, but for what a battery keeps."""
    bus, new = make(kind), make(kind)
    perform(bus, operations(kind, f"power {kind}", 500))
    bus.reset(0)
    new.step(bus.t_ns)
    new.reset(0)
    survives = set(part_of(kind).survives)
    assert [k for k in differences(state(bus.dut), state(new.dut)) if k not in survives] == []
