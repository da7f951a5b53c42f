"""Accesses in a row that a device makes at once (`string_until`, `read_string`): nobody can tell from one by one."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

import engine
from engine.machine.spec import load
from engine.workers import pool

from .guests import Threads
from .test_clocks import batch, keys

DRIVES = (
    {"channel": 0, "unit": 0, "size": 16 << 20},
    {"channel": 1, "unit": 0, "kind": "cdrom", "size": 1 << 20},
    {"channel": 1, "unit": 1, "size": 16 << 20},
)
READ_10, READ_CD = (0x28, 0, 0, 0, 0, 5, 0, 0, 3), (0xBE, 0, 0, 0, 0, 5, 0, 0, 3, 0xF8)  # raw: headers beside content
INQUIRY, MODE_SENSE = (0x12, 0, 0, 0), (0x5A, 0, 0x2A, 0, 0, 0, 0, 0)
# What is accessed in a row, and in which widths; None: a drive's data port.
PORTS = (
    *[(0x511, (1, 1, 1, 2)), (0x510, (1,)), (None, (2, 2, 4, 1))] * 3,
    *[
        (port, (1,))
        for port in (
            0x20,
            0x21,
            0xA1,
            0x4D0,
            0x71,
            0x71,
            0x70,
            0x80,
            0x3FF,
            0x3FE,
            0x3FD,
            0x3F9,
            0x3F9,
            0x3FB,
            0x3FA,
            0x3F8,
        )
    ],
)
WRITTEN = (0x80, 0x3FF, 0x21, 0x402, 0x3F9)


def guest(rng, steps, t):
    """Much of the configuration, of sectors and of packets is read, too little and too much, while a timer fires."""
    rows = []

    def do(*accesses):
        nonlocal t
        for way, port, size, value in accesses:
            t += rng.choice((0, 30, 1000, step))
            rows.append((t, 0, port, size, way, value))

    for _ in range(steps):
        step = rng.choice((0, 0, 5_000_000))
        ide = rng.choice((0x1F0, 0x170))
        drive = rng.choice((0xE0, 0xE0, 0xF0))
        packet = rng.choice((READ_10, READ_CD, (*INQUIRY, rng.randrange(1, 40)), (*MODE_SENSE, rng.randrange(1, 40))))
        packet = bytes(packet).ljust(12, b"\0")
        limit = rng.choice((8, 31, 512, 2048, 0xFFFE))
        taken = rng.randrange(10)
        if taken == 0:
            do((1, 0x510, 2, rng.choice((0, 1, 2, 5, 0x19, 0x8001, 0x4002, 0x7FFF))))
        elif taken == 1:
            do((1, ide + 6, 1, drive), (1, ide + 2, 1, rng.randrange(1, 4)), (1, ide + 3, 1, rng.randrange(256)))
            do((1, ide + 7, 1, rng.choice((0x20, 0x20, 0xC4, 0xEC, 0xA1))))
        elif taken == 2:
            do((1, ide + 6, 1, drive), (1, ide + 1, 1, 0), (1, ide + 4, 1, limit & 0xFF), (1, ide + 5, 1, limit >> 8))
            do((1, ide + 7, 1, 0xA0), *((1, ide, 2, packet[i] | packet[i + 1] << 8) for i in range(0, 12, 2)))
        elif taken == 3:
            do((1, 0x43, 1, 0x34), (1, 0x40, 1, rng.randrange(256)), (1, 0x40, 1, rng.randrange(3)))
        elif taken == 4:
            do((0, ide + 7, 1, 0), (0, 0x3F6, 1, 0), (0, 0x20, 1, 0), (1, ide + 6, 1, drive))
        elif taken == 5:
            do((1, 0x70, 1, rng.choice((0, 1, 4, 0x0A, 0x0B, 0x0C, 0x0D, 0x32, 0x37, 0x40))))
        elif taken == 6:
            do(
                (1, 0x3F9, 1, rng.randrange(16)),
                (1, 0x3FC, 1, rng.choice((0x0B, 0x1B))),
                (1, 0x3F8, 1, rng.randrange(256)),
            )
        elif taken == 7:
            do((1, 0x20, 1, rng.choice((0x0A, 0x0B, 0x0C, 0x20))), (1, 0x71, 1, rng.randrange(256)))
        elif taken == 8:
            do((1, 0x3FB, 1, rng.choice((3, 0x83))))
        port, sizes = rng.choice(PORTS)
        n, size, way = rng.choice((1, 2, 3, 40, 130, 256, 700)), rng.choice(sizes), rng.random() < 0.5
        if port in WRITTEN and way:
            do(*((1, port, size, rng.randrange(256)) for _ in range(n)))
        elif port is None:
            do(*[(0, ide, size, 0xDEAD)] * n)
        else:
            do(*[(0, port, size, 0xDEAD)] * n)
    return rows, t


@pytest.mark.parametrize("path", ["local", "buffered", "batched"])
@pytest.mark.parametrize("seed", range(3))
def test_strings_are_accesses_one_by_one(path, seed, monkeypatch):
    monkeypatch.setattr(pool, "Pool", Threads)
    rng = random.Random(f"{path} {seed}")
    spec = load("i440fx")
    drives = {"drives": list(DRIVES)}
    devices = (replace(d, config=d.config | drives) if d.id == "ide" else d for d in spec.devices)
    spec = replace(spec, devices=tuple(devices))
    workers = {} if path == "local" else {"workers": 3}
    with engine.Machine(spec) as alone, engine.Machine(spec, path=path, **workers) as machine:
        t, busy = 0, 0
        for turn in range(4):
            rows, t = guest(rng, 60, t)
            acc = batch(rows)
            pressed = keys(machine, rng, rows)
            want, j = [], 0
            for i in range(len(acc)):
                end = j
                while end < len(pressed) and pressed["index"][end] == i:
                    end += 1
                one = pressed[j:end].copy()
                one["index"] = 0
                want.append(alone.run(acc[i : i + 1], one))
                j = end
            got = machine.run(acc, pressed)
            for n, name in enumerate(("values", "statuses")):
                assert np.concatenate([w[n] for w in want]).tolist() == got[n].tolist(), (turn, name)
            assert alone.lines().tolist() == machine.lines().tolist(), turn
            busy += int(np.count_nonzero(got[0][acc["addr"] < 0x200]))
            assert alone.save()["devices"] == machine.save()["devices"]
        assert busy > 500  # drives and items had something to say


def test_a_line_that_changes_within_a_string_changes_there():
    rows = [
        (n, 0, *a) for n, a in enumerate(((0x43, 1, 1, 0x34), (0x40, 1, 1, 0), (0x40, 1, 1, 0x10), (0x510, 2, 1, 0x19)))
    ]
    acc = batch(rows + [(1_000_000 * n, 0, 0x511, 1, 0, 0) for n in range(1, 17)])
    with engine.Machine.from_file("i440fx") as alone, engine.Machine.from_file("i440fx") as machine:
        want = []
        for i in range(len(acc)):
            alone.submit(acc[i : i + 1])
            want += [(i, *list(x)[1:]) for x in alone.lines().tolist()]
        machine.submit(acc)
        assert machine.lines().tolist() == want and len(want) > 5


@pytest.mark.parametrize("path", ["local", "batched"])
@pytest.mark.parametrize("index", [0x00, 0x0A, 0x0B])
def test_a_row_of_reads_sees_the_clock_go_on(index, path, monkeypatch):
    """Two seconds, a read each 0.1 ms: a second passes, and the 244 us before it when the time may not be read."""
    monkeypatch.setattr(pool, "Pool", Threads)
    workers = {} if path == "local" else {"workers": 3}
    with (
        engine.Machine.from_file("i440fx") as alone,
        engine.Machine.from_file("i440fx", path=path, **workers) as machine,
    ):
        for m in (alone, machine):
            m.write("pio", 0x70, 1, index)
        acc = batch([(100_000 * (n + 1), 0, 0x71, 1, 0, 0) for n in range(20_000)])
        want = np.concatenate([alone.run(acc[i : i + 1])[0] for i in range(len(acc))])
        assert machine.run(acc)[0].tolist() == want.tolist()
        assert len(set(want.tolist())) == {0x00: 3, 0x0A: 2, 0x0B: 1}[index]
