"""Registers that show the time: on its way to a worker the router answers a read of one itself, and nobody can tell."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

import engine
from engine._abi import ACC
from engine._device import KEY
from engine.machine.spec import DeviceSpec, load
from engine.sequencer import INPUT
from engine.workers import pool

from .guests import Threads

LINKS = ("sync", "buffered", "batched")
# Of each board: the function with the PM timer, the registers that say where it is and whether it answers, how.
PM = {"i440fx": ((1 << 3 | 3) << 32, 0x40, 0x80, 0x01), "q35": ((31 << 3) << 32, 0x40, 0x44, 0x80)}
BASES = (0x600, 0x1200)
PM_TIMER = 8
HPET, GEN_CONF, COUNTER = 0xFED00000, 0xFED00010, 0xFED000F0


def batch(rows, rng=None):
    """ACC records of (t_ns, space, addr, size, direction, value); by random vCPUs of two, if there is an rng."""
    acc = np.zeros(len(rows), ACC)
    for record, row in zip(acc, rows, strict=True):
        for name, v in zip(("t_ns", "space", "addr", "size", "dir", "value"), row, strict=True):
            record[name] = v
        record["vcpu"] = rng.randrange(2) if rng else 0
    return acc


def where(board, base, on, t=0):
    """The accesses that put the PM timer's block somewhere, or away."""
    function, at, enable, bit = PM[board]
    return [(t, 2, function | at, 4, 1, base | 1), (t, 2, function | enable, 1, 1, bit if on else 0)]


def pm_guest(board, rng, steps, t):
    """A guest that looks at the timer in all widths while its range moves, its events fire, all is reset; its end."""
    rows = where(board, BASES[0], True, t)
    rows += [(t, 0, 0x64, 1, 1, 0x60), (t, 0, 0x60, 1, 1, 0x45)]  # the keyboard interrupts
    for _ in range(steps):
        t += rng.choice((0, 1, 140, 280, 5_000, 1_000_000, 60_000_000, 3_000_000_000))
        base = rng.choice(BASES)
        done = (
            where(board, base, rng.random() < 0.9, t),
            [(t, 0, base + 2, 2, 1, 1)],  # PM1_EN.TMR_EN: the timer interrupts
            [(t, 0, base, 2, 1, 1)],  # PM1_STS.TMR_STS
            [(t, 0, base + PM_TIMER, rng.choice((1, 2, 4)), 1, rng.getrandbits(32))],  # is read-only
            [(t, 0, 0x43, 1, 1, 0x34), (t, 0, 0x40, 1, 1, 0x80), (t, 0, 0x40, 1, 1, 0x10)],  # the 8254 counts 4096
            [(t, 0, 0x20, 1, 0, 0), (t, 0, base, 4, 0, 0), (t, 0, 0x64, 1, 0, 0), (t, 0, 0x60, 1, 0, 0)],
            [(t, 0, 0xCF9, 1, 1, 6), *where(board, BASES[0], True, t)],
        )
        weights = (2, 1, 1, 1, 1, 4, 0.2)
        if rng.random() < 0.2:
            rows += rng.choices(done, weights)[0]
        size = rng.choice((1, 2, 4, 4, 4, 4))
        at = PM_TIMER + (0 if size == 4 and rng.random() < 0.9 else rng.randrange(-2, 4))
        for _ in range(rng.randrange(1, 5)):
            rows.append((t, 0, base + at, size, 0, 0xDEAD))
            t += rng.choice((0, 1, 200, 90_000_000))
    return rows, t


def hpet_guest(board, rng, steps, t):
    """A guest that sets, starts, stops and reads the HPET's counter in all widths, uses its timers, resets; its end."""
    rows = [(t, 1, GEN_CONF, 4, 1, 1)]
    for _ in range(steps):
        t += rng.choice((0, 1, 9, 10, 280, 5_000, 1_000_000, 60_000_000, 3_000_000_000))
        value = rng.choice((0, (1 << 64) - 5, rng.getrandbits(64)))
        done = (
            [(t, 1, GEN_CONF, 4, 1, rng.randrange(4))],
            [(t, 1, GEN_CONF, 4, 1, 0), (t, 1, COUNTER, 8, 1, value), (t, 1, GEN_CONF, 8, 1, 1)],
            [(t, 1, COUNTER + 4 * (value & 1), 4, 1, value & 0xFFFFFFFF)],
            [(t, 1, HPET + 0x100, 4, 1, 0x14C), (t, 1, HPET + 0x108, 4, 1, 2_000_000), (t, 1, HPET + 0x20, 4, 1, 1)],
            [(t, 1, HPET + rng.randrange(0, 0x120, 4), 4, 0, 0), (t, 0, 0x40, 1, 0, 0)],
            [(t, 0, 0x20, 1, 0, 0), (t, 0, 0x64, 1, 0, 0), (t, 0, 0x60, 1, 0, 0)],
            [(t, 0, 0xCF9, 1, 1, 6)],
        )
        if rng.random() < 0.15:
            rows += rng.choices(done, (3, 1, 1, 1, 2, 2, 0.3))[0]
        at, size = rng.choice(((0, 4), (0, 8), (4, 4), (0, 8), (2, 4), (4, 8), (0, 2), (-4, 8)))
        for _ in range(rng.randrange(1, 5)):
            rows.append((t, 1, COUNTER + at, size, 0, 0xDEAD))
            t += rng.choice((0, 1, 200, 90_000_000))
    return rows, t


GUESTS = {"pm timer": pm_guest, "hpet": hpet_guest}


def keys(machine, rng, rows):
    """Keys that are pressed before some of the accesses."""
    before = sorted(rng.sample(range(len(rows)), len(rows) // 9))
    inputs = np.zeros(len(before), INPUT)
    inputs["index"], inputs["t_ns"] = before, [rows[i][0] for i in before]
    inputs["kind"], inputs["target"] = KEY, machine.plan.rank("kbc") << 8
    inputs["value"] = [rng.randrange(1, 0x60) for _ in before]
    return inputs


@pytest.mark.parametrize("path", LINKS)
@pytest.mark.parametrize("board", sorted(PM))
@pytest.mark.parametrize("kind", sorted(GUESTS))
def test_any_guest_sees_the_same_on_every_path(kind, board, path, monkeypatch):
    """With snapshots, saved states and resets from outside between its batches."""
    monkeypatch.setattr(pool, "Pool", Threads)
    rng = random.Random(f"{kind} {board} {path}")
    spec = load(board)
    spec = replace(spec, board=replace(spec.board, cpus=2))
    with engine.Machine(spec) as here, engine.Machine(spec, workers=3, path=path) as there:
        kept, t = [None, None], 0
        for turn in range(8):
            rows, t = GUESTS[kind](board, rng, 150, max(t, here.clock.now))
            acc = batch(rows, rng)
            what = rng.choice(("go on", "go on", "reset", "snapshot", "restore", "save and load", "one by one"))
            pressed, got = keys(here, rng, rows), []
            for n, machine in enumerate((here, there)):
                if what == "one by one":
                    one = [machine.run(acc[i : i + 1]) for i in range(len(acc))]
                    seen = [np.concatenate([o[k] for o in one]).tolist() for k in (0, 1)]
                else:
                    seen = [x.tolist() for x in machine.run(acc, pressed)[:2]]
                got.append((seen, machine.lines().tolist()))
                if what == "reset":
                    machine.reset()
                elif what == "snapshot" or (what == "restore" and kept[n] is None):
                    kept[n] = machine.snapshot()
                elif what == "restore":
                    machine.restore(kept[n])
                elif what == "save and load":
                    machine.load(machine.save())
                machine.lines()
            assert got[0] == got[1], (turn, what)
            assert here.clock.now == there.clock.now
            t = here.clock.now
        counts = there.sequencer.counters
        assert counts["router"] > 500, counts


@pytest.mark.parametrize("path", LINKS)
@pytest.mark.parametrize("board", sorted(PM))
def test_reading_the_pm_timer_asks_no_worker(board, path):
    with engine.Machine.from_file(board, workers=1, path=path) as machine:
        machine.run(batch(where(board, BASES[0], True)))
        before, executed = machine.sequencer.counters, machine.pool.command(0, "stats")["accesses"]
        values, status, _ = machine.run(batch([(1000 * n, 0, BASES[0] + PM_TIMER, 4, 0, 0) for n in range(1, 101)]))
        counts = {k: v - before[k] for k, v in machine.sequencer.counters.items()}
        assert values.tolist() == [1000 * n * 3579545 // 10**9 & 0xFFFFFF for n in range(1, 101)] and not status.any()
        assert counts["router"] == 100 and counts["sync"] == counts["batched"] == 0
        assert machine.pool.command(0, "stats")["accesses"] == executed


@pytest.mark.parametrize("path", LINKS)
@pytest.mark.parametrize("board", sorted(PM))
def test_reading_the_hpets_counter_asks_no_worker(board, path):
    """But in a batch behind a write that may set it, up to the next cut."""
    polls = [(1000 * n, 1, COUNTER, 8, 0, 0) for n in range(1, 101)]
    with engine.Machine.from_file(board, workers=1, path=path) as machine:
        machine.run(batch([(500, 1, COUNTER, 8, 1, 7), (500, 1, GEN_CONF, 4, 1, 1)]))
        before, executed = machine.sequencer.counters, machine.pool.command(0, "stats")["accesses"]
        values, status, _ = machine.run(batch(polls))
        counts = {k: v - before[k] for k, v in machine.sequencer.counters.items()}
        assert values.tolist() == [7 + 100 * n - 50 for n in range(1, 101)] and not status.any()
        assert counts["router"] == 100 and counts["sync"] == counts["batched"] == 0
        assert machine.pool.command(0, "stats")["accesses"] == executed
        t = machine.clock.now
        polls = [(t + 1000 * n, 1, COUNTER, 8, 0, 0) for n in range(1000)]
        polls[50:50] = [(polls[50][0], 1, GEN_CONF, 4, 1, 0)]
        polls[20:20] = [(polls[20][0], 1, HPET + 0x108, 4, 1, 7)]
        before = machine.sequencer.counters["router"]
        values = machine.run(batch(polls))[0].tolist()
        stopped = values[50] + 100
        assert values[52:] == [stopped] * 950
        assert machine.sequencer.counters["router"] - before == (50 if path == "batched" else 1000)
        before = machine.sequencer.counters["router"]
        assert machine.run(batch([(machine.clock.now, 1, COUNTER, 8, 0, 0)] * 100))[0].tolist() == [stopped] * 100
        assert machine.sequencer.counters["router"] - before == 100


@pytest.mark.parametrize("path", LINKS)
def test_a_worker_that_scribbles_over_the_counters_words_changes_its_values_only(path, monkeypatch):
    monkeypatch.setattr(pool, "Pool", Threads)
    rng = np.random.default_rng(5)
    with engine.Machine.from_file("q35", workers=2, path=path) as machine:
        arena, at = machine.pool.states[machine.plan.rank("hpet")]
        good = arena.copy()
        for _ in range(50):
            arena.restore(good[:at] + rng.bytes(200) + good[at + 200 :])
            values, status, _ = machine.run(batch([(machine.clock.now, 1, COUNTER, 8, 0, 0)]))
            assert len(values) == 1 and not status.any()
        arena.restore(good)
        assert machine.read("mmio", COUNTER, 8) == 0


@pytest.mark.parametrize("path", LINKS)
def test_a_watchdog_bites_between_two_polls(path, monkeypatch):
    """Its reset takes the timer's range away, in the middle of a row of equal reads."""
    monkeypatch.setattr(pool, "Pool", Threads)
    spec = load("i440fx")
    spec = replace(spec, devices=(*spec.devices, DeviceSpec("dog", "ib700", at={"ib700": 0x441})))
    rows = [*where("i440fx", BASES[0], True), (0, 0, 0x443, 1, 1, 14)]  # two seconds
    rows += [(n * 50_000_000, 0, BASES[0] + PM_TIMER, 4, 0, 0) for n in range(80)]
    with engine.Machine(spec, workers=2, path=path) as machine:
        values = machine.run(batch(rows))[0][3:].tolist()
    assert values == [n * 50_000_000 * 3579545 // 10**9 & 0xFFFFFF for n in range(40)] + [0xFFFFFFFF] * 40
