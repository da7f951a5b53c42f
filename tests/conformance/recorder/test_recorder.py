"""The recorder: what it answers, what it keeps; a machine that has one."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from engine._abi import ACC
from engine.devices.recorder import Recorder
from engine.errors import MachineError, UsageError
from engine.frontends import trace
from engine.frontends.unknown import summary, take, with_recorder, write
from engine.machine import Machine
from engine.machine.spec import load
from engine.testing.bus import FakeBus

PIO, MMIO = 0, 1


def rows(acc):
    return [tuple(int(x) for x in r) for r in acc[["t_ns", "space", "addr", "size", "dir", "value"]].tolist()]


def test_answers_and_record():
    bus = FakeBus(Recorder(windows=2))
    assert [bus.read(0, 0x1234, n) for n in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    bus.step(7)
    assert bus.read(1, 0xFFFFFFF9, 2) == 0
    bus.write(2, 8, 0x1122334455667788, 8)
    bus.write(0, 0xFFFF, 0x5A)
    assert rows(bus.dut.accesses()) == [
        (0, PIO, 0x1234, 1, 0, 0xFF),
        (0, PIO, 0x1234, 2, 0, 0xFFFF),
        (0, PIO, 0x1234, 4, 0, 0xFFFFFFFF),
        (7, MMIO, 0xFFFFFFF9, 2, 0, 0),
        (7, MMIO, 0x1_00000008, 8, 1, 0x1122334455667788),
        (7, PIO, 0xFFFF, 1, 1, 0x5A),
    ]


def test_answers_are_settings():
    bus = FakeBus(Recorder(pio_answer=0x12345678, mmio_answer=-2))
    assert (bus.read(0, 0, 2), bus.read(1, 0, 4)) == (0x5678, 0xFFFFFFFE)


@pytest.mark.parametrize("n", [0, 1, 4, 5, 8, 11])
def test_the_last_accesses_are_kept(n):
    bus = FakeBus(Recorder(keep=5))
    for port in range(n):
        bus.read(0, port)
    assert [r[2] for r in rows(bus.dut.accesses())] == list(range(n))[-5:]
    bus.reset(1)
    assert len(bus.dut.accesses()) == min(n, 5)
    bus.dut.forget()
    assert len(bus.dut.accesses()) == 0


@pytest.mark.parametrize("odd", [{"keep": 0}, {"keep": 1 << 27}, {"windows": -1}, {"windows": 65}])
def test_impossible_settings_are_refused(odd):
    with pytest.raises(MachineError):
        Recorder(**odd)


@pytest.mark.parametrize(("path", "workers"), [("local", 0), ("sync", 2), ("batched", 2)])
def test_a_machine_s_unknown_accesses_and_no_others(path, workers):
    acc = np.zeros(7, ACC)
    for i, (space, addr, size, write_, value) in enumerate(
        [
            (PIO, 0x80, 1, 1, 0x55),  # a port that is there
            (PIO, 0x5678, 2, 0, 0),
            (MMIO, 0xFED00000, 4, 0, 0),  # the HPET
            (MMIO, 0xC0001000, 4, 1, 9),
            (PIO, 0x5678, 2, 0, 0),
            (MMIO, 0xC0001000, 8, 0, 0),
            (PIO, 0x71, 1, 0, 0),
        ]
    ):
        acc[i] = (i, addr, value, 0, size, space, write_, 0, 0)
    with Machine(load("i440fx"), path=path, workers=workers) as bare:
        want = bare.submit(acc).tolist()
    with Machine(with_recorder(load("i440fx")), path=path, workers=workers) as machine:
        assert machine.submit(acc).tolist() == want
        assert rows(take(machine)) == [
            (1, PIO, 0x5678, 2, 0, 0xFFFF),
            (3, MMIO, 0xC0001000, 4, 1, 9),
            (4, PIO, 0x5678, 2, 0, 0xFFFF),
            (5, MMIO, 0xC0001000, 8, 0, 0),
        ]


def test_files(tmp_path):
    bus = FakeBus(Recorder())
    for port in (1, 2, 2):
        bus.step(5)
        bus.read(0, port, 2)
    bus.write(1, 0x1000, 3, 4)
    acc = bus.dut.accesses()
    write(acc, tmp_path / "u.npz")
    got = trace.load(tmp_path / "u.npz")
    assert rows(got.acc) == rows(acc) and got.regions == ["ports|recorder", "memory|recorder"]
    write(acc, tmp_path / "u.json")
    data = json.loads((tmp_path / "u.json").read_text())
    assert data == {"accesses": 4, "unknown": summary(acc)}
    assert data["unknown"][0] == {
        "space": "pio",
        "addr": "0x2",
        "size": 2,
        "dir": "read",
        "count": 2,
        "first_ns": 10,
        "last_ns": 15,
        "value": "0xffff",
    }
    for odd in ("u.txt", "no/folder.json"):
        with pytest.raises(UsageError):
            write(acc, tmp_path / odd)


def test_a_machine_without_a_recorder_says_so():
    with Machine(load("i440fx")) as machine, pytest.raises(UsageError, match="with_recorder"):
        take(machine)


def test_engine_serve_writes_it(tmp_path):
    out = tmp_path / "unknown.json"
    command = [
        sys.executable,
        "-m",
        "engine",
        "serve",
        "qtest",
        "--unknown",
        str(out),
        "--",
        "-nodefaults",
        "-qtest",
        "stdio",
    ]
    requests = "inb 0x1234\ninb 0x80\nreadl 0xd0000000\n"
    done = subprocess.run(command, input=requests, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "OK 0x00ff\nOK 0x00ff\nOK 0x0000000000000000\n", done.stderr
    found = {(r["space"], r["addr"], r["dir"]) for r in json.loads(out.read_text())["unknown"]}
    assert found == {("pio", "0x1234", "read"), ("mmio", "0xd0000000", "read")}
