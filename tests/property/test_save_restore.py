"""A state put back is the moment it was taken: what follows is the same again, on every path and placement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine._abi import ACC
from engine.machine import Machine
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec, load
from engine.types import Bdf
from engine.workers import pool
from engine.workers.placement import shuffled

from .guests import Threads, random_stream, streams

# no shrinking: an example takes a second
RELAXED = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
}
BOARDS = ("i440fx", "q35")
LINKS = ("sync", "buffered", "batched")


@pytest.fixture
def threads(monkeypatch):
    """Workers are threads, so that a machine starts at once."""
    monkeypatch.setattr(pool, "Pool", Threads)


def cut(stream, at):
    """A stream in two: what comes before access `at`, and the rest."""
    acc, inputs = stream
    k = int(np.searchsorted(inputs["index"], at))
    rest = inputs[k:].copy()
    rest["index"] -= np.uint64(at)
    return (acc[:at], inputs[:k]), (acc[at:], rest)


def run(machine, part):
    """All that a guest and the wires' observer see of a part of a stream."""
    value, status, answers = machine.run(*part)
    return value.tolist(), status.tolist(), answers.tolist(), machine.lines().tolist()


def without_now(state):
    """A state without what nobody can see: when devices last looked at the clock, and in which order ranges were mapped
    (only where two overlap would it show; see test_what_follows_does_not_depend_on_the_life_before)."""
    devices = {
        id: {**d, "state": {k: v for k, v in d["state"].items() if k != "now"}} for id, d in state["devices"].items()
    }
    router = {**state["router"], "mapped": sorted(state["router"]["mapped"])}
    return {**state, "devices": devices, "router": router}


def same(a, b, what):
    """Assert that two runs or states are one, and show where not."""
    if isinstance(a, tuple):
        for name, x, y in zip(("values", "status", "answers", "lines"), a, b, strict=True):
            differ = [(i, p, q) for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q][:3]
            assert x == y, f"{what}: {name} {differ or (len(x), len(y))}"
        return
    for id in a["devices"]:
        p, q = a["devices"][id], b["devices"][id]
        differ = {k: (v, q["state"].get(k)) for k, v in p["state"].items() if v != q["state"].get(k)}
        assert p == q, f"{what}: {id} {differ}"
    for key in a["router"]:
        assert a["router"][key] == b["router"][key], f"{what}: {key} {a['router'][key]} and {b['router'][key]}"
    assert a == b, what


def there_and_back(machine, first, rest, noise):
    """Run on, go back, run on again; what was seen: (first part, state there, second part, state at the end)."""
    machine.load(there_and_back.new[machine.spec.board.name])
    machine.lines()
    one = run(machine, first)
    there = machine.save()
    snapshot, bare = machine.snapshot(), machine.snapshot(ram=False)
    assert machine.lines().tolist() == []
    two = run(machine, rest)
    end = machine.save()
    for put_back in (lambda: machine.load(there), lambda: machine.restore(snapshot)):
        run(machine, noise)
        machine.lines()
        put_back()
        assert machine.lines().tolist() == [], "putting a state back made an edge"
        same(machine.save(), there, "the state put back")
        assert machine.lines().tolist() == []
        same(run(machine, rest), two, "the run from a state put back")
        same(without_now(machine.save()), without_now(end), "the state after it")
    run(machine, noise)
    machine.restore(bare)
    got = machine.save()
    assert {id: d["state"] for id, d in got["devices"].items()} == {
        id: d["state"] for id, d in there["devices"].items()
    }
    assert got["router"] == there["router"]
    return one, without_now(there), two, without_now(end)


there_and_back.new = {}


@pytest.fixture(scope="module")
def locals_():
    """A machine of each board in this process."""
    machines = {name: Machine.from_file(name).start() for name in BOARDS}
    for name, machine in machines.items():
        there_and_back.new[name] = machine.save()
    yield machines
    for machine in machines.values():
        machine.stop()


@pytest.mark.parametrize("name", BOARDS)
@settings(max_examples=12, **RELAXED)
@given(data=st.data())
def test_run_save_run_load_run(threads, locals_, name, data):
    local = locals_[name]
    stream = data.draw(streams(local.plan, 40))
    first, rest = cut(stream, data.draw(st.integers(0, len(stream[0]))))
    noise = data.draw(streams(local.plan, 15))
    want = there_and_back(local, first, rest, noise)
    workers = data.draw(st.integers(1, 3))
    owners = shuffled(local.plan, workers, data.draw(st.integers(0, 1 << 16)))
    path = data.draw(st.sampled_from(LINKS))
    with Machine.from_spec(load(name), workers=workers, owners=owners, path=path) as machine:
        got = there_and_back(machine, first, rest, noise)
    for what, a, b in zip(("before", "the state", "after", "the end"), got, want, strict=True):
        same(a, b, f"{what}, {path} {owners}")


@pytest.mark.parametrize("name", BOARDS)
def test_a_state_moves_between_processes(locals_, name):
    """From this process to workers on one placement, on to workers on another, and back."""
    local = locals_[name]
    local.load(there_and_back.new[name])
    local.lines()
    stream = random_stream(local.plan, 400, 5)
    first, rest = cut(stream, len(stream[0]) // 2)
    run(local, first)
    state = local.save()
    want, end = run(local, rest), without_now(local.save())
    for seed, path in ((1, "batched"), (2, "buffered")):
        with Machine.from_file(name, workers=2, owners=shuffled(local.plan, 2, seed), path=path) as machine:
            machine.load(state)
            state = machine.save()
            same(run(machine, rest), want, path)
            same(without_now(machine.save()), end, path)
    local.load(state)
    local.lines()
    same(run(local, rest), want, "back")


def test_what_follows_does_not_depend_on_the_life_before():
    """Two functions' BARs at one address: the one that came last is seen, also where it was there in another life."""
    function = "engine.testing._function:InterruptFunction"
    spec = MachineSpec(
        BoardSpec(name="two", ram=1 << 20),
        (DeviceSpec("f0", function, Bdf(0, 1, 0)), DeviceSpec("f1", function, Bdf(0, 2, 0))),
    )
    place, other = 0xE0000000, 0xE0001000

    def bar(machine, n, base):
        machine.write("config", (n + 1) << 35 | 4, 2, 0)
        machine.write("config", (n + 1) << 35 | 0x10, 4, base)
        machine.write("config", (n + 1) << 35 | 4, 2, 2)

    def life(machine):
        bar(machine, 1, place)
        machine.write("mmio", place + 0x408, 4, 0x1111)
        bar(machine, 0, place)
        return machine.read("mmio", place + 0x408, 4)

    with Machine.from_spec(spec) as machine:
        new = machine.save()
        assert life(machine) == 0  # the first function's own register
    with Machine.from_spec(spec) as machine:
        bar(machine, 0, place)
        bar(machine, 0, other)
        machine.load(new)
        assert life(machine) == 0


def test_mappings_are_numbered_anew_without_a_change_of_order():
    """More moves than a priority has numbers for: the range that came last is still the one that is seen."""
    function = "engine.testing._function:InterruptFunction"
    spec = MachineSpec(
        BoardSpec(name="two", ram=1 << 20),
        (DeviceSpec("f0", function, Bdf(0, 1, 0)), DeviceSpec("f1", function, Bdf(0, 2, 0))),
    )
    place, n = 0xE0000000, 70_000
    acc = np.zeros(n, ACC)
    acc["space"], acc["addr"], acc["size"], acc["dir"] = 2, 1 << 35 | 0x10, 4, 1
    acc["value"] = place + 0x1000 * (np.arange(n) % 3)
    acc["value"][-2:] = place + 0x5000, place
    with Machine.from_spec(spec) as machine:
        for f in (1, 2):
            machine.write("config", f << 35 | 0x10, 4, place)
            machine.write("config", f << 35 | 4, 2, 2)
        machine.write("mmio", place + 0x408, 4, 0x2222)  # the second function's, which came last
        assert machine.read("mmio", place + 0x408, 4) == 0x2222
        machine.submit(acc[:-2])
        machine.submit(acc[-2:])
        assert machine.read("mmio", place + 0x408, 4) == 0
        machine.write("config", 1 << 35 | 0x10, 4, place + 0x5000)
        assert machine.read("mmio", place + 0x408, 4) == 0x2222
