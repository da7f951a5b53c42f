"""The Machine API: scalars on every bus and path, the clock, states and what is none, two machines at once."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import sys
import threading
import time
import types
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from engine import ACC, EngineError, Machine, PyDevice, Region, Space, StateError, UsageError
from engine._device import KEY, LINE
from engine.machine._single import IN_USE
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec, load
from engine.sequencer import INPUT, RAM
from engine.testing import probe

PATHS = ("local", "sync", "buffered", "batched")
BOARDS = ("i440fx", "q35")
PROBE = "engine.testing._probe:Probe"
PYTHON = "engine.testing.probe:PyProbe"


def board(*types, ram=1 << 20, **config):
    """A board of test devices; a Probe answers ports, an unaligned MMIO range, and drives a wire into the next one."""
    devices = []
    for n, kind in enumerate(types):
        lines, inputs = {"steady": f"wire{n}"}, {"i0": f"wire{n - 1}"} if n else {}
        at = {"port": 0x1000 + 16 * n, "reset": 0x2000 + 4 * n, "mem": 0x10000 + 64 * n, "odd": 0x20000 + 16 * n}
        if kind != PROBE:
            lines, inputs, at = {}, {}, {"port": 0x1000 + 16 * n}
        devices.append(DeviceSpec(f"d{n}", kind, at=at, inputs=inputs, lines=lines, config=config))
    observed = tuple(f"wire{n}" for n, kind in enumerate(types) if kind == PROBE)
    return MachineSpec(BoardSpec(name="small", ram=ram, observe=observed), tuple(devices))


def options(path, workers=2):
    return {} if path == "local" else {"path": path, "workers": workers}


@pytest.fixture(scope="module", params=PATHS)
def used(request):
    """Three wired test devices on each path, and their state at power-on."""
    with Machine.from_spec(board(PROBE, PROBE, PROBE), **options(request.param)) as machine:
        yield machine, machine.save()


@pytest.fixture
def small(used):
    """The same for one test, as at power-on."""
    machine, new = used
    machine.load(new)
    machine.lines()
    return machine


@pytest.fixture(scope="module")
def pc():
    """The shipped PC, in this process, for tests that leave it as it was."""
    with Machine.from_file("i440fx") as machine:
        yield machine


def one_line(e):
    text = str(e.value)
    assert text and "\n" not in text and len(text) < 300, text
    return text


# ---------------------------------------------------------------------- one access


CONVERSATIONS = {
    "i440fx": [
        ("w", "pio", 0x70, 1, 0x0F), ("w", "pio", 0x71, 1, 0xA5), ("r", "pio", 0x71, 1, 0xA5),  # CMOS
        ("w", "pio", 0xCF8, 4, 0x80000000), ("r", "pio", 0xCFC, 4, 0x12378086), ("r", "pio", 0xCFE, 2, 0x1237),
        ("r", "pio", 0xCF8, 4, 0x80000000), ("r", "pio", 0xCFC, 1, 0x86),
        ("r", "config", 0, 4, 0x12378086), ("r", "config", 0x8 << 32 | 2, 2, 0x7000),
        ("r", "config", 0xFF << 32, 4, 0xFFFFFFFF),
        ("w", "config", 0x8 << 32 | 0x60, 1, 0x0B), ("r", "config", 0x8 << 32 | 0x60, 1, 0x0B),
        ("w", "mmio", 0xFEC00000, 4, 0), ("w", "mmio", 0xFEC00010, 4, 0x05000000),
        ("r", "mmio", 0xFEC00010, 4, 0x05000000),
        ("r", "mmio", 0xFED00000, 8, 0x009896808086A201), ("r", "mmio", 0xFED00004, 4, 0x00989680),
        ("r", "mmio", 0xC0000000, 8, 0), ("r", "pio", 0x2F8, 1, 0xFF), ("r", "pio", 0x2F8, 4, 0xFFFFFFFF),  # nobody
        ("w", "pio", 0x2F8, 2, 0x1234), ("w", "mmio", 0xC0000000, 8, (1 << 64) - 1),
        ("r", "pio", 0xFFFF, 4, 0xFFFFFFFF),  # the last port, and three behind it
    ],
    "q35": [
        ("r", "config", 0, 4, 0x29C08086),
        ("w", "pio", 0xCF8, 4, 0x80000064), ("w", "pio", 0xCFC, 4, 0), ("w", "pio", 0xCF8, 4, 0x80000060),
        ("w", "pio", 0xCFC, 4, 0xB0000001), ("r", "mmio", 0xB0000000, 4, 0x29C08086),  # PCIEXBAR: ECAM
        ("r", "mmio", 0xB0000002, 2, 0x29C0), ("r", "mmio", 0xB0000000 | 31 << 15, 4, 0x29188086),
        ("r", "mmio", 0xB0000000 | 30 << 15, 4, 0xFFFFFFFF),
        ("w", "mmio", 0xB0000000 | 31 << 15 | 0x60, 1, 0x8A), ("r", "config", 31 << 35 | 0x60, 1, 0x8A),
        ("w", "config", 0x60, 4, 0), ("r", "mmio", 0xB0000000, 4, 0),
        ("w", "mmio", 0xFEE000F0, 4, 0x1FF), ("r", "mmio", 0xFEE000F0, 4, 0x1FF),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("path", PATHS)
def test_scalars_on_every_bus(name, path):
    with Machine.from_file(name, **options(path)) as machine:
        for way, space, addr, size, value in CONVERSATIONS[name]:
            if way == "w":
                assert machine.write(space, addr, size, value) is None
            else:
                assert hex(machine.read(space, addr, size)) == hex(value), (space, hex(addr), size)


def test_spaces_have_three_names_each(pc):
    for names in ((0, "pio", "PIO", Space.PIO), (1, "mmio", "MMIO", Space.MMIO), (2, "config", "CONFIG", Space.CONFIG)):
        assert len({pc.read(name, 0, 2) for name in names}) == 1
    assert [pc.read(s, 0, 2) for s in Space] == [pc.read("pio", 0, 2), 0, 0x8086]


def test_a_value_is_cut_to_the_size(small):
    small.write("pio", 0x1003, 1, 0x1FF)
    first = small.read("pio", 0x1000, 4)
    assert first < 1 << 32
    with Machine.from_spec(small.spec) as other:
        other.write("pio", 0x1003, 1, 0xFF)
        assert other.read("pio", 0x1000, 4) == first


@pytest.mark.parametrize(
    "access",
    [
        ("cpu", 0, 1), (None, 0, 1), (3, 0, 1), ([], 0, 1), (1.5, 0, 1),
        ("pio", 0x10000, 1), ("pio", -1, 1), ("pio", "0", 1), ("pio", 0, 8), ("pio", 0, 3), ("pio", 0, 0),
        ("pio", 0, -1),
        ("mmio", 1 << 64, 1), ("mmio", 0, 16), ("mmio", 0, 5), ("mmio", None, 4), ("config", -1, 4), ("mmio", 0, "4"),
        ("mmio", 0, 1 << 40),
    ],
)  # fmt: skip
def test_an_access_that_no_guest_can_make(pc, access):
    before = pc.save()
    for call in (lambda: pc.read(*access), lambda: pc.write(*access, 0)):
        with pytest.raises(UsageError) as e:
            call()
        one_line(e)
    assert pc.save() == before


@pytest.mark.parametrize("value", [-1, 1 << 64, "1", None, b"1"])
def test_a_value_that_is_none(pc, value):
    with pytest.raises(UsageError, match="fit 64 bits"):
        pc.write("mmio", 0xA0000, 8, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 0), ("size", 3), ("size", 16), ("space", 3), ("dir", 2), ("addr", 0x10000), ("t_ns", 1 << 63)],
)
def test_a_batch_with_an_impossible_record_does_nothing(small, field, value):
    batch = np.zeros(3, ACC)
    batch["addr"], batch["size"], batch["dir"] = 0x1003, 1, 1
    batch[field][2] = value
    before = small.save()
    with pytest.raises(UsageError, match="access 2 is impossible") as e:
        small.submit(batch)
    one_line(e)
    assert small.save() == before


def test_a_batch_of_other_records(small):
    for bad in (np.zeros(3, np.uint64), np.zeros(1, INPUT), np.zeros((2, 2), ACC), [1, 2], None):
        with pytest.raises(UsageError, match=r"engine\.ACC"):
            small.submit(bad)
    for bad in (np.zeros(1, ACC), np.zeros((2, 2), INPUT), [1, 2]):
        with pytest.raises(UsageError, match="INPUT"):
            small.run(np.zeros(0, ACC), bad)


def test_an_empty_batch_and_a_strided_one(small):
    assert small.submit(np.zeros(0, ACC)).tolist() == []
    batch = np.zeros(8, ACC)
    batch["addr"] = 0x1000 + 4 * np.arange(8) % 16
    batch["size"] = 1
    with Machine.from_spec(small.spec) as other:
        assert small.submit(batch[::2]).tolist() == other.submit(batch[::2].copy()).tolist()


def test_times_that_go_back_are_raised_and_the_batch_stays_as_it_was(small):
    batch = np.zeros(4, ACC)
    batch["addr"], batch["size"], batch["t_ns"] = 0x1000, 4, [50, 20, 60, 10]
    given = batch.copy()
    got = small.submit(batch)
    assert (batch == given).all()
    batch["t_ns"] = [50, 50, 60, 60]
    with Machine.from_spec(small.spec) as other:
        assert other.submit(batch).tolist() == got.tolist()
    assert small.clock.now == 60


# ---------------------------------------------------------------------- clock, inputs, lines


def test_the_clock(small):
    assert (small.clock.now, small.clock.next()) == (0, None)
    small.write("pio", 0x1000 + probe.ARM, 2, 1000)
    assert small.clock.next() == 1000
    before = small.call("d0", "inspect")["pins"]["beat"]
    small.clock.step(999)
    assert (small.clock.now, small.clock.next(), small.call("d0", "inspect")["pins"]["beat"]) == (999, 1000, before)
    small.clock.step(1)
    assert (small.clock.now, small.clock.next(), small.call("d0", "inspect")["pins"]["beat"]) == (
        1000,
        None,
        not before,
    )
    for bad in (-1, 1 << 63, 1 << 64):
        with pytest.raises(UsageError) as e:
            small.clock.step(bad)
        one_line(e)
    assert small.clock.now == 1000
    small.clock.step((1 << 63) - 1001)
    assert small.clock.now == (1 << 63) - 1
    with pytest.raises(UsageError):
        small.clock.step(1)


def test_an_input_and_its_answer(small):
    with Machine.from_spec(small.spec) as other:
        for how in ((KEY, "d1", 7), (LINE, "d1", 1, "i3"), (LINE, "d1", 0, "i3")):
            assert small.input(*how) == other.input(*how)
        assert small.call("d1", "save")["seen"] == other.call("d1", "save")["seen"]
        assert small.call("d1", "inspect")["pins"]["keyed"] is True
    for bad in ((4, "d1"), (9, "d1")):
        with pytest.raises(UsageError, match="input 0 is impossible"):
            small.input(*bad)
    for bad in ((-1, "d1"), (1 << 32, "d1"), ("key", "d1"), (KEY, "d1", -1), (KEY, "d1", 1 << 64)):
        with pytest.raises(UsageError, match="numbers are not negative"):
            small.input(*bad)
    with pytest.raises(UsageError, match="no device 'nobody' in this machine; it has d0, d1"):
        small.input(KEY, "nobody", 7)
    with pytest.raises(UsageError, match="device 'd1' has no input pin 'i9'; it has i0, i1, i2, i3"):
        small.input(LINE, "d1", 1, "i9")
    with pytest.raises(UsageError, match="times end"):
        small.run(np.zeros(0, ACC), np.array([(1 << 63, 0, 0, 1, KEY, 0)], INPUT))


def test_line_changes_are_given_once_with_their_time(small):
    small.clock.step(500)
    small.write("pio", 0x1000, 1, 0x11)
    small.write("pio", 0x1000, 1, 0x11)  # no edge
    small.clock.step(500)
    small.write("pio", 0x1000, 1, 0x10)
    rows = small.lines()
    assert rows[["index", "t_ns", "line", "level", "phase"]].tolist() == [(0, 500, 0, 1, 1), (2, 1000, 0, 0, 1)]
    assert small.lines().tolist() == []


def test_bytes_appear_in_guest_ram(small):
    one = np.zeros(1, INPUT)
    one[0] = (0, 0, 0x8000, 2 << 32 | 3, RAM, 0)
    small.run(np.zeros(0, ACC), one, b"..abc")
    assert bytes(memoryview(small.ram)[0x7FFF:0x8004]) == b"\0abc\0"


# ---------------------------------------------------------------------- devices written in Python


class Rude(PyDevice):
    """Raises what it is told to."""

    CONFIG: ClassVar = {"what": ""}

    def regions(self):
        return (Region("port", Space.PIO, 4),)

    def read(self, region, offset, size):
        self.fail()

    def write(self, region, offset, size, value):
        self.fail()

    def on_input(self, kind, pin, addr, value):
        self.fail()

    def fail(self):
        raise {"error": ValueError, "exit": SystemExit, "generator": GeneratorExit, "user": KeyboardInterrupt}[
            self.config["what"]
        ]("rude")


@pytest.mark.parametrize("what", ["error", "exit", "generator"])
def test_whatever_a_python_device_raises_is_an_error_of_the_bus(what):
    with Machine.from_spec(board("tests.unit.test_machine:Rude", what=what)) as machine:
        assert machine.read("pio", 0x1000, 2) == 0xFFFF
        machine.write("pio", 0x1000, 1, 0)
        machine.input(KEY, "d0", 1)
        assert machine.devices["d0"].errors == 3


def test_ctrl_c_in_a_python_device_reaches_the_user():
    with Machine.from_spec(board("tests.unit.test_machine:Rude", what="user")) as machine:
        with pytest.raises(KeyboardInterrupt):
            machine.read("pio", 0x1000, 2)
            gc.collect()
        assert machine.devices["d0"].errors == 1


# ---------------------------------------------------------------------- life


@pytest.mark.parametrize("path", PATHS)
def test_one_at_a_time(path):
    """Threads that meet in a machine are told so, and harm nothing."""
    batch = np.zeros(50_000, ACC)
    batch["addr"], batch["size"] = 0x1000, 1
    with Machine.from_spec(board(PROBE, PROBE), **options(path)) as machine:
        refused = []

        def until_refused(call):
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    call()
                except EngineError as e:
                    refused.append(str(e))
                    return
                time.sleep(0)  # the others' turn, while nothing is under way

        calls = (lambda: machine.read("pio", 0x1000), lambda: machine.clock.step(1), machine.lines, machine.snapshot)
        others = [threading.Thread(target=until_refused, args=(call,)) for call in calls]
        for t in others:
            t.start()
        while any(t.is_alive() for t in others):
            with contextlib.suppress(EngineError):
                machine.submit(batch)
        assert refused == [IN_USE] * len(calls)
        assert len(machine.submit(batch)) == len(batch)


@pytest.fixture
def alone(monkeypatch):
    """A machine of one device, of a class that the test makes, at port 1000h."""

    def make(cls):
        module = types.ModuleType("alone")
        module.Own = cls
        monkeypatch.setitem(sys.modules, "alone", module)
        device = DeviceSpec("d", "alone:Own", at={"port": 0x1000})
        return Machine.from_spec(MachineSpec(BoardSpec(ram=1 << 20), (device,)))

    return make


def test_a_device_does_not_use_its_own_machine(alone):
    class Curious(PyDevice):
        def regions(self):
            return (Region("port", Space.PIO, 1),)

        def read(self, region, offset, size):
            try:
                machine.read("pio", 0x1000)
            except EngineError as e:
                said.append(str(e))
            return 7

    said = []
    with alone(Curious) as machine:
        assert machine.read("pio", 0x1000) == 7 and said == [IN_USE]


def test_behind_the_last_port_of_a_byte_each_is_nobody(alone):
    class Ports(PyDevice):
        def regions(self):
            return (Region("port", Space.PIO, 3, ports=True),)

        def read(self, region, offset, size):
            seen.append(("read", offset, size))
            return 0x10 + offset

        def write(self, region, offset, size, value):
            seen.append(("write", offset, size, value))

    seen = []
    with alone(Ports) as machine:
        machine.write("pio", 0x1000, 2, 0x2211)
        machine.write("pio", 0x1002, 2, 0x4433)
        assert seen == [("write", 0, 1, 0x11), ("write", 1, 1, 0x22), ("write", 2, 1, 0x33)]
        seen.clear()
        assert machine.read("pio", 0x1000, 2) == 0x1110
        assert machine.read("pio", 0x1002, 2) == 0xFF12
        assert seen == [("read", 0, 1), ("read", 1, 1), ("read", 2, 1)]


def test_the_block_ends_the_machine():
    machine = Machine.from_spec(board(PROBE))
    for call in (
        lambda: machine.read("pio", 0),
        lambda: machine.write("pio", 0, 1, 0),
        lambda: machine.submit(np.zeros(1, ACC)),
        lambda: machine.lines(),
        lambda: machine.save(),
        lambda: machine.snapshot(),
        lambda: machine.reset(),
        lambda: machine.inspect(),
        lambda: machine.clock.step(1),
        lambda: machine.clock.next(),
    ):
        for _ in range(2):
            with pytest.raises(EngineError, match="machine is not running"):
                call()
            with pytest.raises(ZeroDivisionError), machine as same:
                assert same is machine
                machine.read("pio", 0x1000)
                raise ZeroDivisionError
    memory = [n for n in os.listdir("/proc/self/fd") if "memfd:guest-ram" in _target(n)]
    assert memory == []


def _target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


@pytest.mark.parametrize("path", ["local", "batched"])
def test_a_machine_that_starts_again_is_as_new(path):
    with Machine.from_spec(board(PROBE, PROBE), **options(path, 1)) as machine:
        new = machine.save()
        machine.write("pio", 0x1003, 1, 1)
        machine.clock.step(77)
        memoryview(machine.ram)[100] = 1
        assert machine.save() != new
        machine.stop()
        machine.start()
        assert machine.save() == new and machine.clock.now == 0


@pytest.mark.parametrize("path", ["local", "batched"])
def test_two_machines_at_once_do_not_touch_each_other(path):
    spec = board(PROBE, PROBE)
    moves = [("pio", 0x1003, 1, 5), ("mmio", 0x10044, 4, 9), ("pio", 0x1010, 1, 0x11)]
    with Machine.from_spec(spec, **options(path)) as alone:
        want = []
        for move in moves:
            alone.write(*move)
            want.append(alone.read("pio", 0x1010, 4))
    with Machine.from_spec(spec, **options(path)) as a, Machine.from_spec(spec) as b:
        got = []
        for n, move in enumerate(moves):
            b.write("pio", 0x1003, 1, n)
            b.clock.step(1000)
            a.write(*move)
            memoryview(b.ram)[n] = 0xFF
            got.append(a.read("pio", 0x1010, 4))
        assert got == want and a.clock.now == 0
        assert not any(memoryview(a.ram)[:16])


@pytest.mark.parametrize(
    "bad",
    [
        {"path": "fast"},
        {"path": "batched", "workers": 0},
        {"path": "sync", "workers": 1025},
        {"workers": 2, "owners": [0]},
        {"workers": 2, "owners": [0, 0, 0]},
        {"workers": 2, "owners": [0, 2]},
        {"workers": 2, "owners": [-1, 0]},
        {"contents": {"nobody": b""}},
        {"contents": {"d0": b""}},
    ],
)
def test_impossible_options(bad):
    with pytest.raises(UsageError) as e:
        Machine.from_spec(board(PROBE, PROBE), **bad)
    one_line(e)


@pytest.mark.parametrize("path", ["local", "batched"])
def test_the_child_of_a_fork_does_not_touch_the_machine(path):
    with Machine.from_spec(board(PROBE, PROBE), **options(path)) as machine:
        machine.write("pio", 0x1003, 1, 1)
        before = machine.save()
        pid = os.fork()
        if pid == 0:
            refused = 0
            for call in (lambda: machine.write("pio", 0x1003, 1, 2), machine.save, lambda: machine.clock.step(1)):
                try:
                    call()
                except EngineError as e:
                    refused += "fork" in str(e)
            machine.stop()
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        assert machine.save() == before
        machine.write("pio", 0x1003, 1, 3)


def test_inspect_names_registers_and_pins(small):
    small.write("pio", 0x1010, 1, 0x22)
    seen = small.inspect()
    assert list(seen) == ["d0", "d1", "d2"]
    assert seen["d1"]["pins"] == {"steady": False, "beat": True, "react": False, "keyed": False}
    assert seen["d0"]["pins"]["beat"] is False and seen["d1"]["seen"] != seen["d0"]["seen"]
    assert set(seen["d1"]) == {"seen", "period", "left", "inputs", "now", "deadline", "pins"}


def test_reset_is_the_bus_and_cold_is_the_switch(small):
    at_power_on = small.save()["devices"]
    for cold in (False, True):
        small.write("pio", 0x1000, 1, 0x11)
        small.write("pio", 0x1000 + probe.TRAIN, 4, 5 << 16 | 9)
        small.input(KEY, "d2", 1)
        memoryview(small.ram)[0] = 9
        now = small.clock.now
        small.reset(cold)
        d = small.save()["devices"]
        assert small.clock.now == now and small.clock.next() is None and memoryview(small.ram)[0] == 9
        assert [x["state"]["levels"] for x in d.values()] == [0, 0, 0]
        assert d["d1"]["state"]["inputs"] == 0  # the wire from d0 fell with it
        assert (d["d2"]["state"]["seen"] == at_power_on["d2"]["state"]["seen"]) == cold
        own = [{k: v for k, v in x["state"].items() if k not in ("now", "seen")} for x in d.values()]
        assert own == [{k: v for k, v in x["state"].items() if k not in ("now", "seen")} for x in at_power_on.values()]


# ---------------------------------------------------------------------- states


SETUP = [
    (0x70, 0x0B), (0x71, 0x42), (0x43, 0x34), (0x40, 0x10), (0x40, 0x27), (0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 1),
    (0x21, 0xB8), (0x3FB, 3), (0x3F8, 65), (0x64, 0x60), (0x60, 0x47), (0x61, 1), (0x3D4, 0x0A),
]  # fmt: skip


PM = 0x0B << 32  # the i440FX board's power management function, in configuration space


def busy(machine):
    """Do something in every part of a shipped board that a few accesses reach; what the guest reads afterwards."""
    for port, value in SETUP:
        machine.write("pio", port, 1, value)
    machine.write("mmio", 0xFEE000F0, 4, 0x1FF)
    machine.write("mmio", 0xFEC00000, 4, 0x12)
    memoryview(machine.ram)[0x7C00:0x7C04] = b"boot"
    machine.clock.step(3_000_000)
    return look(machine)


def look(machine):
    """A hundred reads of registers that change and count, with time between them."""
    ports = [0x40, 0x61, 0x71, 0x20, 0x21, 0x3F8, 0x3FD, 0x64, 0x60, 0x1F7, 0x3DA, 0xCFC, 0x80, 0x402, 0x511, 0x378]
    acc = np.zeros(96, ACC)
    acc["size"], acc["addr"] = 1, np.resize(ports, 96)
    acc["t_ns"] = machine.clock.now + 12_345 * np.arange(96, dtype=np.uint64)
    return machine.submit(acc).tolist() + machine.lines().tolist()


@pytest.fixture(scope="module")
def states():
    """Board -> what save() gives of a machine that has been used."""
    out = {}
    for name in BOARDS:
        with Machine.from_file(name) as machine:
            busy(machine)
            out[name] = machine.save()
    return out


def test_a_state_is_plain_values_and_says_what_it_is_of(states):
    for name, saved in states.items():
        assert (saved["format"], saved["board"]) == (1, name)
        assert set(saved) == {"format", "board", "router", "ram", "devices"}
        types = {d.id: d.type for d in load(name).devices}
        assert {id: d["type"] for id, d in saved["devices"].items()} == types
        for id, d in saved["devices"].items():
            assert d["state"]["version"] >= 1 and d["state"]["part"], id
        assert saved["ram"] == {0x7000: bytes(0xC00) + b"boot" + bytes(0x3FC)}
        assert pickle.loads(pickle.dumps(saved)) == saved
        text = json.dumps(saved, default=bytes.hex)
        assert len(text) < 2_000_000


@pytest.mark.parametrize("name", BOARDS)
def test_a_state_loads_on_any_placement(states, name):
    answers = []
    for path in ("local", "batched"):
        with Machine.from_file(name, **options(path, 3)) as machine:
            machine.load(states[name])
            assert machine.save() == states[name]
            assert machine.lines().tolist() == []  # no edge
            answers.append(look(machine))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("path", ["local", "batched"])
def test_snapshot_and_restore_as_often_as_wanted(path):
    with Machine.from_file("i440fx", **options(path)) as machine:
        busy(machine)
        at = machine.snapshot()
        first, state = look(machine), machine.save()
        for _ in range(3):
            busy(machine)
            machine.reset()
            machine.lines()
            machine.restore(at)
            assert look(machine) == first
            assert machine.save() == state


def test_a_snapshot_of_another_machine_or_placement(pc):
    with Machine.from_file("i440fx", workers=1) as workers:
        with pytest.raises(StateError, match="another machine or placement") as e:
            workers.restore(pc.snapshot())
        one_line(e)
        with pytest.raises(StateError, match="another machine or placement"):
            pc.restore(workers.snapshot(ram=False))
    with Machine.from_file("q35") as other, pytest.raises(StateError, match="another machine"):
        other.restore(pc.snapshot())


@pytest.mark.parametrize("path", ["local", "batched"])
def test_a_snapshot_fits_every_machine_of_its_kind(path):
    """Also one whose regions have come by other names, and the same one after it was stopped."""
    with Machine.from_file("i440fx", **options(path)) as first:
        first.write("config", PM | 4, 2, 1)
        first.write("config", PM | 0x40, 4, 0xB000)
        first.write("config", PM | 0x80, 1, 1)
        assert first.read("pio", 0xB008, 4) != 0xFFFFFFFF
        busy(first)
        at = first.snapshot()
        want = look(first)
        with Machine.from_file("i440fx", **options(path)) as second:
            for base in (0xC000, 0xA000):
                second.write("config", PM | 0x40, 4, base)
                second.write("config", PM | 0x80, 1, 1)
            second.lines()
            second.restore(at)
            assert look(second) == want
            assert second.read("pio", 0xB008, 4) != 0xFFFFFFFF
            assert second.read("pio", 0xA008, 4) == 0xFFFFFFFF
    with first:
        first.restore(at)
        assert look(first) == want


@pytest.mark.parametrize("path", ["local", "batched"])
def test_a_snapshot_without_ram_leaves_ram_video_memory_and_media(path):
    with Machine.from_file("i440fx", **options(path)) as machine:
        busy(machine)
        at, before = machine.snapshot(ram=False), machine.save()
        disk = bytes(range(256)) * 5760
        busy(machine)
        ram = memoryview(machine.ram)
        ram[0x5000:0x5004] = b"ram!"
        machine.write("pio", 0x3C2, 1, 0x03)
        for port, word in ((0x3C4, 0x0F02), (0x3C4, 0x0604), (0x3CE, 0x0506), (0x3CE, 0xFF08)):
            machine.write("pio", port, 2, word)
        machine.write("mmio", 0xA0000, 1, 0x77)
        machine.call("fdc", "insert", 0, disk)
        machine.restore(at)
        after = machine.save()
        for id, device in before["devices"].items():
            assert after["devices"][id]["state"] == device["state"], id
        assert after["router"] == before["router"]
        assert bytes(ram[0x5000:0x5004]) == b"ram!"
        assert after["devices"]["vga"]["memory"] != before["devices"]["vga"]["memory"]
        assert after["devices"]["fdc"]["disks"][0] == disk


@pytest.mark.parametrize("path", ["local", "batched"])
def test_a_mapping_that_was_there_before_is_not_built_again(path):
    with Machine.from_file("i440fx", **options(path)) as machine:
        tables = [machine.sequencer.map.current]
        for base in (0xB000, 0xC000):
            machine.write("config", PM | 0x40, 4, base)
            machine.write("config", PM | 0x80, 1, 1)
            tables.append(machine.sequencer.map.current)
            assert machine.read("pio", base + 8, 4) != 0xFFFFFFFF
        at, saved = machine.snapshot(ram=False), machine.save()
        for back in (lambda: machine.restore(at), lambda: machine.load(saved)):
            machine.reset()
            assert machine.sequencer.map.current is tables[0]
            assert machine.read("pio", 0xC008, 4) == 0xFFFFFFFF
            back()
            assert machine.sequencer.map.current is tables[2]
            assert machine.read("pio", 0xC008, 4) != 0xFFFFFFFF
            assert machine.read("pio", 0xB008, 4) == 0xFFFFFFFF
        machine.write("config", PM | 0x40, 4, 0xB000)
        assert machine.sequencer.map.current is tables[1]
        for k in range(20):  # more than are remembered
            machine.write("config", PM | 0x40, 4, 0xD000 + 0x100 * k)
        machine.restore(at)
        assert machine.sequencer.map.current is tables[2]
        machine.write("config", PM | 0x40, 4, 0xB000)
        assert machine.sequencer.map.current is not tables[1]
        assert machine.read("pio", 0xB008, 4) != 0xFFFFFFFF


@pytest.mark.parametrize("path", ["local", "batched"])
def test_a_snapshot_holds_devices_written_in_python(path):
    with Machine.from_spec(board(PROBE, PROBE, PYTHON), **options(path)) as machine:
        seen = []
        for ram in (True, False):
            for n in range(3):
                machine.write("pio", 0x1000 + 16 * n, 1, 0x21)
            machine.write("pio", 0x1020 + probe.TRAIN, 4, 5 << 16 | 900)
            at, state = machine.snapshot(ram), machine.save()
            assert set(at.rest) == {"d2"}
            machine.clock.step(10_000)
            end = machine.save()
            assert end["devices"]["d2"] != state["devices"]["d2"]
            for _ in range(2):
                machine.write("pio", 0x1020, 1, 0x44)
                machine.restore(at)
                assert machine.save() == state
                machine.clock.step(10_000)
                assert machine.save() == end
            seen.append(end)
            machine.reset(cold=True)


@pytest.mark.parametrize("path", ["local", "batched"])
def test_a_snapshot_is_copied_and_not_shared(path):
    """What happens after it does not get into it, nor what happens after it was put back."""
    with Machine.from_file("q35", **options(path)) as machine:
        busy(machine)
        at = machine.snapshot(ram=False)
        states = [dict(machine.save()["devices"])]
        for k in range(200):
            machine.write("pio", 0x80, 1, k & 0xFF)
            machine.write("pio", 0x70, 1, k & 0x7F)
            if k % 50 == 0:
                machine.reset(cold=k % 100 == 0)
            machine.restore(at)
        states.append(dict(machine.save()["devices"]))
        assert states[0] == states[1]


def without(state, *path):
    out = pickle.loads(pickle.dumps(state))
    at = out
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    return out


def changed(state, *path, to):
    out = pickle.loads(pickle.dumps(state))
    at = out
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return out


DAMAGE = [
    (lambda s: None, "format 1"),
    (lambda s: [], "format 1"),
    (lambda s: {}, "format 1"),
    (lambda s: changed(s, "format", to=2), "format 1"),
    (lambda s: without(s, "devices"), "devices"),
    (lambda s: changed(s, "devices", to=7), "devices"),
    (lambda s: changed(s, "devices", "pit", to=None), "devices"),
    (lambda s: without(s, "devices", "pit"), "another machine .*pit"),
    (lambda s: changed(s, "devices", "tube", to={"type": "x"}), "another machine .*tube"),
    (lambda s: changed(s, "devices", "pit", "type", to="i8255"), "another machine .*pit"),
    (lambda s: changed(s, "devices", "x\ny", to={"type": "x" * 9999}), "another machine"),
    (lambda s: changed(without(s, "devices", "rtc"), "board", to="b\n" * 999), "rtc"),
    (lambda s: without(s, "router"), "router"),
    (lambda s: without(s, "ram"), "ram"),
    (lambda s: changed(s, "ram", to=5), "not the state"),
    (lambda s: changed(s, "ram", to={1 << 40: b"x"}), "guest RAM"),
    (lambda s: changed(s, "ram", to={-1: b"x"}), "guest RAM"),
    (lambda s: changed(s, "ram", to={0: "x"}), "guest RAM"),
    (lambda s: changed(s, "router", "now", to=1 << 63), "63 bits"),
    (lambda s: changed(s, "router", "now", to=-1), "63 bits"),
    (lambda s: changed(s, "router", "now", to=0), "do not lie around the clock"),
    (lambda s: changed(s, "router", "now", to=1 << 62), "do not lie around the clock"),
    (lambda s: changed(s, "router", "latch", to=1 << 32), "32 bits"),
    (lambda s: changed(s, "router", "latch", to=b"x" * 9999), "32 bits"),
    (lambda s: changed(s, "router", "mapped", to=[(1, 2)]), "not the state"),
    (lambda s: changed(s, "router", "mapped", to=[("nobody", 0, 0)]), "maps region 0 of 'nobody'"),
    (lambda s: changed(s, "router", "mapped", to=[("pit", 99, 0)]), "maps region 99 of 'pit'"),
    (lambda s: changed(s, "router", "mapped", to=[("pit", -1, 0)]), "maps region -1 of 'pit'"),
    (lambda s: changed(s, "router", "mapped", to=[("pit", 0, 0xFFFF)]), "where it cannot be"),
    (lambda s: changed(s, "router", "mapped", to=[("pit", 0, -1)]), "where it cannot be"),
    (lambda s: changed(s, "router", "mapped", to=[("pit", 0, 64.5)]), "where it cannot be"),
    (lambda s: changed(s, "router", "mapped", to=[("vga", 0, 1 << 52)]), "where it cannot be"),
    (lambda s: without(s, "devices", "pit", "state"), "not the state"),
    (lambda s: without(s, "devices", "pit", "state", "levels"), "levels"),
    (lambda s: changed(s, "devices", "pit", "state", "version", to=2), "pit: state of .*version 2 does not fit"),
    (lambda s: changed(s, "devices", "pit", "state", "part", to="x\ny"), "pit: state of"),
    (lambda s: changed(s, "devices", "pit", "state", "colour", to=1), "pit: fields missing or unknown: colour"),
    (lambda s: changed(s, "devices", "pit", "state", "levels", to=1 << 64), "levels: out of range"),
    (lambda s: changed(s, "devices", "pit", "state", "levels", to=-1), "levels: out of range"),
    (lambda s: changed(s, "devices", "pit", "state", "levels", to=1.0), "levels"),
    (lambda s: changed(s, "devices", "pit", "state", "levels", to=[1, 2]), "levels"),
    (lambda s: changed(s, "devices", "vga", "memory", to={1 << 40: b"x"}), "vga: pages"),
    (lambda s: changed(s, "devices", "vga", "memory", to={0: 7}), "vga: pages"),
    (lambda s: changed(s, "devices", "vga", "memory", to=3), "vga: not the state"),
]  # fmt: skip


@pytest.mark.parametrize("path", ["local", "sync"])
def test_a_damaged_state_is_refused_in_one_line_and_changes_nothing(states, path):
    with Machine.from_file("i440fx", **options(path)) as machine:
        machine.write("pio", 0x70, 1, 0x0F)
        machine.clock.step(1234)
        machine.lines()
        before = machine.save()
        for damage, words in DAMAGE if path == "local" else DAMAGE[::7]:
            with pytest.raises(StateError, match=words) as e:
                machine.load(damage(states["i440fx"]))
            one_line(e)
            assert machine.save() == before, words
        assert machine.lines().tolist() == []
        machine.load(states["i440fx"])
        assert machine.save() == states["i440fx"]


def test_a_state_with_random_damage_loads_or_is_refused(states):
    """One value of a state is replaced: StateError and nothing changed, or a machine that still answers."""

    def leaves(x, at=()):
        if isinstance(x, dict):
            for key in x:
                yield from leaves(x[key], (*at, key))
        elif isinstance(x, list):
            for i in range(min(len(x), 3)):
                yield from leaves(x[i], (*at, i))
        elif isinstance(x, (int, bytes, str)):
            yield at

    rng = np.random.default_rng(1)
    good = states["q35"]
    good = changed(good, "router", "mapped", to=[list(row) for row in good["router"]["mapped"]])
    places = list(leaves(good))
    others = [
        None,
        -1,
        0,
        1,
        255,
        1 << 16,
        1 << 32,
        (1 << 63) - 1,
        (1 << 64) - 1,
        1 << 64,
        "x",
        b"x",
        [],
        {},
        1.5,
        True,
    ]
    loaded = refused = 0
    with Machine.from_file("q35") as machine:
        machine.load(good)
        before = machine.save()
        for _ in range(80):
            bad = changed(good, *places[rng.integers(len(places))], to=others[rng.integers(len(others))])
            try:
                machine.load(bad)
            except StateError:
                refused += 1
                assert machine.save() == before
            else:
                loaded += 1
                look(machine)
                machine.load(machine.save())
                machine.load(good)
    assert loaded > 3 and refused > 30


def test_a_state_of_a_machine_with_other_ram_or_parts(states):
    with Machine.from_file("q35") as machine, pytest.raises(StateError, match="another machine") as e:
        machine.load(states["i440fx"])
    one_line(e)
    small_ram = replace(load("i440fx"), board=replace(load("i440fx").board, ram=1 << 20))
    with Machine.from_spec(small_ram) as machine:
        machine.load(states["i440fx"])  # what it holds fits
        with pytest.raises(StateError, match="guest RAM"):
            machine.load(changed(states["i440fx"], "ram", to={2 << 20: b"x"}))


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"workers": 1, "path": "buffered"}], ids=str)
def test_string_instructions(options: dict[str, Any]) -> None:
    with Machine.from_file("i440fx", **options) as m:
        m.write("pio", 0x510, 2, 0)
        assert m.read_string("pio", 0x511, 1, 4).tobytes() == b"QEMU"
        assert m.read_string(Space.PIO, 0x511, 1, 200).tolist() == [0] * 200  # behind the item
        for values in (b"\x05\x06", [5, 6], np.array([5, 6], np.int8)):
            m.write("pio", 0x3FF, 1, 0)
            m.write_string("pio", 0x3FF, 1, values)
            assert m.read("pio", 0x3FF) == 6
        m.write_string("mmio", 0xA0000, 2, b"\x34\x12" * 3)
        assert m.read_string("pio", 0x3FF, 1, 0).tolist() == []
        assert m.read_string("pio", 0x3FE, 2, 3).dtype == np.uint16


@pytest.mark.parametrize(
    ("call", "args", "why"),
    [
        ("read_string", ("pio", 0x80, 1, -1), "-1 accesses"),
        ("read_string", ("pio", 0x80, 1, 1 << 40), "accesses; give a number of 0 to"),
        ("read_string", ("here", 0x80, 1, 1), "spaces are pio, mmio and config"),
        ("read_string", ("pio", -1, 1, 1), "not negative"),
        ("read_string", ("pio", 0x80, 3, 1), "access 0 is impossible"),
        ("write_string", ("pio", 0x80, 2, b"abc"), "3 bytes are no whole number"),
        ("write_string", ("pio", 0x80, 1, [-1]), "values are bytes, or integers"),
        ("write_string", ("pio", 0x80, 1, [1.5]), "values are bytes, or integers"),
        ("write_string", ("pio", 0x80, 1, "text"), "values are bytes, or integers"),
    ],
)
def test_strings_that_no_guest_makes(call: str, args: tuple[Any, ...], why: str) -> None:
    with Machine.from_file("i440fx") as m, pytest.raises(UsageError, match=why):
        getattr(m, call)(*args)
