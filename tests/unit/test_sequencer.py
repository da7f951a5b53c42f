"""The sequencer by itself: what run, access, settle, next_event and reset take, do and count, on each path.

That all paths give one order is tested in tests/property/test_sequencer.py; here the answers are written down.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from engine import ACC, EngineError, Machine, MachineError, RingError, UsageError, WorkerDied
from engine._device import AUX, INTACK, KEY, LINE, MESSAGE, PACKET
from engine.machine.build import plan
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec, PlacementSpec, load
from engine.sequencer import INPUT, LINE_CHANGE, RAM, Sequencer
from engine.testing import probe
from engine.types import Bdf, Space
from tests.property.boards import FUNCTION, ODD, PROBE, PYTHON, Bench

LINKS = ("sync", "buffered", "batched")
PATHS = ("local", *LINKS)
PORT, MEM = 0x1000, 0x10000


def board(*kinds, wires=(), observe=(), sync=(), low_ram=1 << 20, **config):
    """Test devices d0, d1, ...; wires: (source, output pin, sink, input pin), named w0, w1, ..."""
    lines = [{} for _ in kinds]
    inputs = [{} for _ in kinds]
    for n, (source, pin, sink, to) in enumerate(wires):
        lines[source][pin] = f"w{n}"
        if sink is not None:
            inputs[sink][to] = f"w{n}"
    devices = []
    for n, kind in enumerate(kinds):
        if kind == FUNCTION:
            devices.append(DeviceSpec(f"d{n}", kind, Bdf(0, 1 + n, 0), {}, inputs[n], lines[n]))
            continue
        at = {"port": PORT + 16 * n, "reset": 0x2000 + 4 * n, "mem": MEM + 64 * n, "odd": ODD + 16 * n}
        devices.append(DeviceSpec(f"d{n}", kind, None, at, inputs[n], lines[n], config=config))
    names = tuple(f"w{n}" for n in range(len(wires)))
    spec = BoardSpec(name="small", ram=1 << 16, low_ram=low_ram, observe=observe or names)
    return MachineSpec(spec, tuple(devices), PlacementSpec(sync=tuple(sync)))


def bench(path, spec, **options):
    """The board on a path; each unit on a worker of its own."""
    return Bench(spec, None if path == "local" else list(range(len(plan(spec).units))), **options)


def batch(*rows):
    """ACC records from (t_ns, space, address, size, direction, value)."""
    out = np.zeros(len(rows), ACC)
    for i, (t, space, addr, size, way, value) in enumerate(rows):
        out[i] = (t, addr, value, 0, size, space, way, 0, 0)
    return out


def given(*rows):
    """INPUT records from (index, t_ns, kind, rank, pin, value)."""
    out = np.zeros(len(rows), INPUT)
    for i, (index, t, kind, rank, pin, value) in enumerate(rows):
        out[i] = (t, index, 0, value, kind, rank << 8 | pin)
    return out


def write(offset, value, t=0, device=0, size=1):
    return (t, 0, PORT + 16 * device + offset, size, 1, value)


def read(t=0, device=0, offset=0, size=4):
    return (t, 0, PORT + 16 * device + offset, size, 0, 0)


def rows(lines):
    return [(int(r["index"]), int(r["t_ns"]), int(r["line"]), int(r["level"]), int(r["phase"])) for r in lines]


EMPTY = np.zeros(0, ACC)


# ---------------------------------------------------------------------- what run takes


def test_a_path_must_fit_the_machine():
    with bench("local", board(PROBE)) as b:
        for path in LINKS:
            with pytest.raises(EngineError, match=f"path {path} does not fit a machine without workers"):
                b.sequencer.run(EMPTY, None, path)
        with pytest.raises(KeyError):
            b.sequencer.run(EMPTY, None, "fast")
    with (
        bench("sync", board(PROBE)) as b,
        pytest.raises(EngineError, match="local does not fit a machine with workers"),
    ):
        b.sequencer.run(EMPTY, None, "local")


@pytest.mark.parametrize("path", PATHS)
def test_nothing_to_do(path):
    with bench(path, board(PROBE)) as b:
        value, status, answers = b.sequencer.run(EMPTY, None, path)
        assert (value.dtype, status.dtype, answers.dtype) == (np.uint64, np.uint8, np.int64)
        assert len(value) == len(status) == len(answers) == 0
        assert b.sequencer.clock == 0 and rows(b.sequencer.take_lines()) == []
        assert b.sequencer.take_lines().dtype == LINE_CHANGE


BAD_INPUTS = [
    (given((0, 0, PACKET, 0, 0, 0)), "input 0 is impossible: kind 4 for device 0"),
    (given((0, 0, AUX + 1, 0, 0, 0)), "kind 6"),
    (given((0, 0, 254, 0, 0, 0)), "kind 254"),
    (given((0, 0, KEY, 2, 0, 0)), "for device 2"),
    (given((0, 0, KEY, 1, 0, 1), (1, 0, INTACK, 1 << 23, 0, 0)), "input 1 is impossible: kind 1 for device 8388608"),
    (given((0, 0, LINE, 1, 4, 1)), "pin 4"),
    (given((0, 0, LINE, 1, 255, 1)), "pin 255"),
    (given((0, 0, RAM, 0, 0, 4)), r"RAM bytes given: 3\)"),
    (given((0, 0, RAM, 0, 0, 2 << 32 | 2)), "input 0 is impossible: kind 255"),
    (given((0, 0, RAM, 0, 0, (1 << 64) - 1)), "input 0 is impossible: kind 255"),
    (given((3, 0, KEY, 0, 0, 1)), "before access 3 of 2"),
    (given((1, 0, KEY, 0, 0, 1), (0, 0, KEY, 0, 0, 1)), "not sorted"),
    (np.zeros(1, np.uint64), "sequencer.INPUT"),
]


@pytest.mark.parametrize(("inputs", "words"), BAD_INPUTS, ids=[w for _, w in BAD_INPUTS])
def test_inputs_that_name_what_is_not_there(inputs, words):
    for path in ("local", "batched"):
        with bench(path, board(PROBE, PROBE)) as b:
            before = {k: d.save() for k, d in b.devices.items()}
            with pytest.raises(UsageError, match=words) as e:
                b.sequencer.run(batch(read(), read()), inputs, path, b"abc")
            assert "\n" not in str(e.value)
            assert {k: d.save() for k, d in b.devices.items()} == before
            b.sequencer.run(batch(read()), None, path)  # nothing is broken


def test_more_inputs_before_one_access_than_can_be_numbered():
    many = np.zeros((1 << 20) + 4, INPUT)
    many["kind"] = KEY
    with bench("local", board(PROBE)) as b:
        with pytest.raises(UsageError, match="1048575 inputs or more before one access"):
            b.sequencer.run(EMPTY, many)
        b.sequencer.run(EMPTY, many[: (1 << 20) - 2])
        assert b.sequencer.counters["inputs"] == (1 << 20) - 2


@pytest.mark.parametrize("path", PATHS)
def test_inputs_and_their_answers(path):
    """Each comes before its access, at its own time; RAM bytes have no answer."""
    with bench(path, board(PROBE, PROBE)) as b:
        d = b.devices["d1"]
        value, status, answers = b.sequencer.run(
            batch(read(10, 1), read(20, 1)),
            given(
                (0, 5, KEY, 1, 0, 7), (1, 12, INTACK, 1, 0, 0), (1, 13, RAM, 0, 0, 1 << 32 | 2), (2, 30, LINE, 1, 3, 1)
            ),
            path,
            b"xyz",
        )
        assert answers[2] == -1 and len(set(answers.tolist())) == 4
        assert 0 <= answers[1] < 256  # a vector
        assert int(answers[3]) & (1 << 64) - 1 == d.save()["seen"]
        assert status.tolist() == [0, 0] and value[0] != value[1]
        assert bytes(b.view[:3]) == b"yz\0"
        assert b.sequencer.clock == 30
        assert b.sequencer.counters["inputs"] == 3


@pytest.mark.parametrize("path", PATHS)
def test_ram_bytes_below_and_above_the_hole(path):
    """The first low_ram bytes lie at 0, the rest from 4 GiB; what meets no RAM vanishes."""
    inputs = np.zeros(4, INPUT)
    inputs["kind"], inputs["value"] = RAM, [0 << 32 | 4, 4 << 32 | 4, 8 << 32 | 4, 8 << 32 | 4]
    inputs["addr"] = [0x7FFE, (1 << 32) - 2, (1 << 32) + 0x7FFE, 1 << 40]
    with bench(path, board(PROBE, low_ram=0x8000)) as b:
        b.sequencer.run(EMPTY, inputs, path, b"abcdefghijkl")
        ram = bytes(b.view)
        assert ram[0x7FFE:0x8002] == b"abgh" and ram[0xFFFE:] == b"ij"
        assert sum(map(bool, ram)) == 6


# ---------------------------------------------------------------------- what it counts


def test_counts_of_the_local_path():
    with bench("local", board(PROBE)) as b:
        b.sequencer.run(batch(read(), (0, 0, 0xCF8, 4, 0, 0), (0, 0, 0x9999, 1, 0, 0), (0, 1, MEM + 3, 4, 0, 0)))
        c = b.sequencer.counters
        assert (c["local"], c["router"], c["split"], c["resets"], c["mean_batch"]) == (2, 2, 1, 0, 0.0)
        assert not any(
            c[k] for k in ("sync", "buffered", "batched", "fallback", "posted_eligible", "batches", "settles")
        )


def test_counts_of_the_sync_path():
    with bench("sync", board(PROBE, PROBE, wires=[(0, "steady", 1, "i0")])) as b:
        start = b.sequencer.counters
        b.sequencer.run(batch(*[write(3, 1)] * 5, read(), (0, 0, 0xCFC, 4, 0, 0)), None, "sync")
        c = {k: v - start[k] for k, v in b.sequencer.counters.items()}
        assert (c["sync"], c["buffered"], c["posted_eligible"], c["batched"], c["router"], c["cuts"]) == (
            6,
            0,
            0,
            0,
            1,
            1,
        )


def test_counts_of_the_buffered_path():
    """Reads wait; writes to a posted region do not, unless the placement says that the device is never buffered."""
    accesses = batch(*[write(3, 1)] * 5, read(), *[write(3, 1, device=1)] * 4)
    for sync, eligible, waited in (((), 9, 1), (("d1",), 5, 5)):
        with bench("buffered", board(PROBE, PROBE, sync=sync)) as b:
            b.sequencer.run(accesses, None, "buffered")
            c = b.sequencer.counters
            assert (c["posted_eligible"], c["buffered"] + c["fallback"], c["sync"]) == (
                eligible,
                eligible,
                waited + c["fallback"],
            )
    with bench("buffered", board(PROBE, posted=False)) as b:
        b.sequencer.run(accesses[:6], None, "buffered")
        assert (b.sequencer.counters["sync"], b.sequencer.counters["posted_eligible"]) == (6, 0)


def test_a_full_ring_falls_back_to_waiting_and_drops_nothing():
    with bench("buffered", board(PROBE), requests=2) as b, bench("local", board(PROBE)) as other:
        accesses = batch(*[write(3, n & 0xFF) for n in range(500)], read())
        want = other.sequencer.run(accesses)[0].tolist()
        assert b.sequencer.run(accesses, None, "buffered")[0].tolist() == want
        c = b.sequencer.counters
        assert c["posted_eligible"] == 500 == c["buffered"] + c["fallback"] and c["sync"] == c["fallback"] + 1


def test_counts_of_the_batched_path():
    """A stretch of accesses goes out in pieces of 64; a barrier is waited for, and ends it if it moved or reset
    anything."""
    with bench("batched", board(PROBE), requests=4096) as b:
        before = b.sequencer.counters
        b.sequencer.run(batch(*[read(), read(offset=4)] * 50), None, "batched")
        c = {k: v - before[k] for k, v in b.sequencer.counters.items()}
        assert (c["batched"], c["batches"], c["batch_accesses"], c["cuts"]) == (100, 2, 100, 1)
        assert b.sequencer.counters["mean_batch"] == 50.0
        reset = (0, 0, 0x2000, 1, 1, 0)
        b.sequencer.run(batch(*[read()] * 3, reset, read(), reset), None, "batched")
        d = {k: v - before[k] - c[k] for k, v in b.sequencer.counters.items() if k in c}
        assert (d["batched"], d["batches"], d["batch_accesses"], d["cuts"], d["resets"]) == (6, 2, 6, 1, 0)


def test_a_string_is_one_record_and_what_follows_it():
    """The same access again and again takes half a slot each, in blocks of 64 slots: 127 accesses."""
    with bench("batched", board(PROBE), requests=4096) as b:
        before = b.sequencer.counters, b.links[0].indices["produced"] % 64
        assert before[1] < 8
        b.sequencer.run(batch(*[read(n) for n in range(1000)]), None, "batched")
        c = {k: v - before[0][k] for k, v in b.sequencer.counters.items()}
        first = 1 + 2 * (63 - before[1])
        assert (c["batched"], c["batch_accesses"], c["cuts"]) == (1000, 1000, 1)
        assert c["batches"] == 1 + -(-(1000 - first) // 127)
        assert b.loops[0].accesses == 1000


@pytest.mark.parametrize("path", PATHS)
def test_what_a_string_does_belongs_to_each_of_its_accesses(path):
    """Writes of a line's levels to one port; each that changes it is told with its own index and time."""
    with bench(path, board(PROBE, PROBE, wires=[(0, "steady", 1, "i0")], reaction="none")) as b:
        levels = [n % 3 == 0 for n in range(300)]
        b.sequencer.run(
            batch(*[write(probe.LINES, 0x10 | level, 10 * n) for n, level in enumerate(levels)]), None, path
        )
        changes = [(n, 10 * n, level) for n, level in enumerate(levels) if level != (n > 0 and levels[n - 1])]
        lines = b.sequencer.take_lines()
        assert [(int(r["index"]), int(r["t_ns"]), bool(r["level"])) for r in lines] == changes
        assert lines["phase"].all()


@pytest.mark.parametrize("path", ["batched", "buffered"])
def test_what_ends_a_string(path):
    """Another access, an input, a step of time that is cut; 8-byte accesses make none."""
    rows = [*[write(3, n, n) for n in range(5)], read(5, offset=3, size=1), *[write(3, n, 6) for n in range(70)]]
    rows += [(10**12, 1, MEM + 40, 8, 1, n << 40) for n in range(5)] + [(10**12, 1, MEM + 40, 8, 0, 0)] * 3
    rows += [write(3, n, 10**12 + n * 10**11) for n in range(5)]
    inputs = given((3, 3, KEY, 0, 0, 7), (40, 6, KEY, 0, 0, 9))
    with bench("local", board(PROBE)) as b:
        want = [x.tolist() for x in b.sequencer.run(batch(*rows), inputs)]
        state = b.devices["d0"].save()
    with bench(path, board(PROBE)) as b:
        assert [x.tolist() for x in b.sequencer.run(batch(*rows), inputs, path)] == want
        assert b.devices["d0"].save() | {"now": 0} == state | {"now": 0}


def test_a_string_ends_at_an_input_also_where_a_stretch_is_full():
    """16 383 accesses and an input fill a stretch; the next one begins a string with an input in it."""
    n = 16383
    rows = [*[read(0), read(0, offset=4)] * (n // 2), read(0), *[read(0, offset=8)] * 200]
    inputs = given((n, 0, KEY, 0, 0, 7), (n + 50, 0, KEY, 0, 0, 9))
    with bench("local", board(PROBE)) as b:
        want = b.sequencer.run(batch(*rows), inputs)[0].tolist()
    with bench("batched", board(PROBE), requests=4096) as b:
        assert b.sequencer.run(batch(*rows), inputs, "batched")[0].tolist() == want


@pytest.mark.parametrize("path", PATHS)
def test_a_reset_asked_for_by_a_device(path):
    with bench(path, board(PROBE)) as b:
        b.sequencer.run(batch(write(0, 0x11), (5, 0, 0x2000, 1, 1, 1), read(6)), None, path)
        assert b.sequencer.counters["resets"] == 1
        assert rows(b.sequencer.take_lines()) == []
        assert b.devices["d0"].save()["levels"] == 0


@pytest.mark.parametrize("path", PATHS)
def test_what_a_reset_changes_is_before_the_next_access(path):
    with bench(path, board(PROBE, wires=[(0, "steady", None, None)])) as b:
        b.sequencer.run(batch(write(0, 0x11), (5, 0, 0x2000, 1, 1, 1), read(6)), None, path)
        assert rows(b.sequencer.take_lines()) == [(0, 0, 0, 1, 1), (2, 5, 0, 0, 0)]


def test_the_latency_histogram():
    ticks = Sequencer.bucket_ticks()
    assert len(ticks) == 2048 and ticks[:65].tolist() == [*range(64), 64] and int(ticks[65]) == 66
    assert all(a < b for a, b in pairwise(ticks))
    for path, n in (("local", 640 // 64), ("sync", 640), ("batched", 10)):
        with bench(path, board(PROBE), requests=4096) as b:
            b.sequencer.clear_histogram()
            assert b.sequencer.histogram().sum() == 0
            b.sequencer.run(batch(*[read(), read(offset=4)] * 320), None, path)
            counts = b.sequencer.histogram()
            assert counts.sum() == n and len(counts) == 2048
            b.sequencer.clear_histogram()
            assert b.sequencer.histogram().sum() == 0


# ---------------------------------------------------------------------- time


CHAIN = board(PROBE, PROBE, PROBE, wires=[(0, "beat", 1, "i0"), (1, "react", 2, "i1")], reaction="follow")


@pytest.mark.parametrize("path", PATHS)
def test_next_event_is_the_nearest_deadline(path):
    with bench(path, CHAIN) as b:
        s = b.sequencer
        assert s.next_event() is None
        s.run(batch(write(probe.ARM, 50, 0, 2, 2), write(probe.ARM, 30, 10, 0, 2)), None, path)
        assert s.next_event() == 40
        s.settle(39)
        assert (s.next_event(), s.clock) == (40, 39)
        s.settle(40)
        assert (s.next_event(), s.clock) == (50, 40)
        assert rows(s.take_lines()) == [(2, 40, 0, 1, 0), (2, 40, 1, 1, 0)]
        s.run(batch(write(probe.CANCEL, 0, 45, 2)), None, path)
        assert s.next_event() is None


@pytest.mark.parametrize("path", PATHS)
def test_settle_moves_the_clock_and_never_back(path):
    with bench(path, CHAIN) as b:
        s = b.sequencer
        s.run(batch(write(probe.TRAIN, 2 << 16 | 9, 0, 0, 4)), None, path)  # three beats, 10 ns apart
        s.settle(25)
        s.settle(7)
        assert s.clock == 25
        s.settle(1000)
        assert rows(s.take_lines()) == [
            (1, 10, 0, 1, 0), (1, 10, 1, 1, 0), (1, 20, 0, 0, 0), (1, 20, 1, 0, 0), (1, 30, 0, 1, 0), (1, 30, 1, 1, 0),
        ]  # fmt: skip
        seen = b.devices["d2"].save()
        assert seen["inputs"] == 2 and seen["now"] >= 30
        assert s.next_event() is None
        with pytest.raises(OverflowError):
            s.settle(-1)


@pytest.mark.parametrize("path", PATHS)
def test_a_deadline_comes_before_the_access_at_its_time(path):
    with bench(path, CHAIN) as b:
        s = b.sequencer
        s.run(batch(write(probe.ARM, 5, 0, 0, 2), read(4, 1), read(5, 1), read(6, 1)), None, path)
        assert rows(s.take_lines()) == [(2, 5, 0, 1, 0), (2, 5, 1, 1, 0)]


@pytest.mark.parametrize("path", PATHS)
def test_a_timer_may_fire_as_often_as_it_likes_between_two_accesses(path):
    """Five million beats: three days of a PC's timer at 18.2 Hz."""
    with bench(path, board(PROBE), requests=4096, effects=4096) as b:
        trains = batch(*[write(probe.TRAIN, 0xFFFF << 16, n * 70000, 0, 4) for n in range(76)])
        b.sequencer.run(trains, None, path)
        if path == "sync":
            assert b.sequencer.counters["cuts"] > 4  # one behind each million of them, so that few are held
        b.sequencer.settle(76 * 70000)
        assert b.devices["d0"].save()["left"] == 0


@pytest.mark.parametrize("path", LINKS)
def test_a_long_step_is_taken_in_slices(path):
    """A train of 65,536 beats over four seconds is carried while it runs, in slices that grow while little happens."""
    with bench(path, board(PROBE), requests=4096, effects=4096) as b:
        s = b.sequencer
        s.run(batch(write(probe.TRAIN, 0xFFFF << 16 | 0xFFFF, 0, 0, 4)), None, path)
        before = s.counters["cuts"]
        s.settle(5_000_000_000)
        assert 3 < s.counters["cuts"] - before < 200
        assert b.devices["d0"].save()["left"] == 0


@pytest.mark.parametrize("path", LINKS)
@pytest.mark.parametrize("row", [(0, 0x9999, 1), (0, PORT, 4), (1, MEM, 8)], ids=["nobody", "strings", "accesses"])
def test_accesses_that_come_slowly_are_cut_by_time(path, row):
    """What a fast timer does between two cuts is little, however far apart the accesses are."""
    with bench(path, board(PROBE)) as b:
        before = b.sequencer.counters["cuts"]
        b.sequencer.run(batch(*[(n * 50_000_000, *row, 0, 0) for n in range(80)]), None, path)
        assert b.sequencer.counters["cuts"] - before == 6  # before those at 0.1, 0.25, 0.55, 1.15, 2.4 s; at the end


@pytest.mark.parametrize("path", LINKS)
def test_what_a_posted_write_does_is_heard_by_the_next_read_downstream(path):
    """The write is on its way to another worker while its device has no deadline."""
    spec = board(PROBE, PROBE, wires=[(0, "steady", 1, "i0")], reaction="toggle")
    rows = [row for n in range(40) for row in (write(0, 0x10 | n & 1, 10 * n), read(10 * n + 1, 1))]
    with bench(path, spec) as b, bench("local", spec) as local:
        got, want = b.sequencer.run(batch(*rows), None, path), local.sequencer.run(batch(*rows), None, "local")
        assert got[0].tolist() == want[0].tolist() and len(set(want[0][1::2].tolist())) == 40
        assert b.sequencer.counters["buffered"] == (40 if path == "buffered" else 0)


@pytest.mark.parametrize("path", LINKS)
def test_what_is_heard_between_two_writes_of_a_string_comes_between_them(path):
    """The same posted write again and again, while a timer upstream fires."""
    spec = board(PROBE, PROBE, wires=[(0, "beat", 1, "i0")], reaction="toggle")
    rows = [write(probe.ARM, 25, 0), *(write(3, 7, 10 * n, 1) for n in range(9)), read(90, 1)]
    with bench(path, spec) as b, bench("local", spec) as local:
        got, want = b.sequencer.run(batch(*rows), None, path), local.sequencer.run(batch(*rows), None, "local")
        assert got[0].tolist() == want[0].tolist()
        assert b.sequencer.counters["buffered"] == (10 if path == "buffered" else 0)


@pytest.mark.parametrize("path", LINKS)
def test_accesses_are_cut_by_time_after_the_clock_was_put_back(path):
    slow = batch(*[read(n * 50_000_000) for n in range(80)])
    with bench(path, board(PROBE)) as b:
        s = b.sequencer
        new = s.state()
        s.run(slow, None, path)
        s.set_state(new, [0])
        before = s.counters["cuts"]
        s.run(slow, None, path)
        assert s.counters["cuts"] - before > 1


@pytest.mark.parametrize("path", PATHS)
def test_lines_count_accesses_since_they_were_last_taken(path):
    with bench(path, board(PROBE, wires=[(0, "steady", None, None)])) as b:
        s = b.sequencer
        s.run(batch(read(), write(0, 0x11, 3)), None, path)
        s.run(batch(read(4), write(0, 0x10, 5)), None, path)
        assert s.n_pending_lines == 2
        assert rows(s.take_lines()) == [(1, 3, 0, 1, 1), (3, 5, 0, 0, 1)]
        assert s.n_pending_lines == 0
        s.run(batch(write(0, 0x11, 6)), None, path)
        assert rows(s.take_lines()) == [(0, 6, 0, 1, 1)]


@pytest.mark.parametrize("path", ["local", "batched"])
def test_lines_that_nobody_takes_make_room_for_later_ones(path):
    with bench(path, board(PROBE, wires=[(0, "beat", None, None)]), requests=4096, effects=4096) as b:
        s = b.sequencer
        s.run(batch(*[write(probe.TRAIN, 0xFFFF << 16, n * 70000, 0, 4) for n in range(65)]), None, path)
        s.settle(65 * 70000)
        lines, half = s.take_lines(), 1 << 21
        beats = (np.arange(65)[:, None] * 70000 + np.arange(1, 65537)).reshape(-1)
        assert s.counters["lines_dropped"] == half and s.n_pending_lines == 0
        assert np.array_equal(lines["t_ns"], beats[half:])
        assert np.array_equal(lines["level"], 1 - np.arange(len(lines)) % 2)


# ---------------------------------------------------------------------- single accesses


def test_accesses_that_wait_for_others_end_a_stretch():
    """They lie in memory meanwhile."""
    with bench("batched", board(PROBE, PROBE, wires=[(0, "steady", 1, "i0")])) as b:
        start = b.sequencer.counters["cuts"]
        b.sequencer.run(batch(*[read(device=1)] * 40_000), None, "batched")
        assert b.sequencer.counters["cuts"] - start == 3  # after 16,384, 32,768, and at the end


@pytest.mark.parametrize("path", ["local", "sync"])
def test_single_accesses_are_a_batch_of_one_each(path):
    """2500 of them: on a link the numbers of what is on the way are kept for 1024."""
    spec = board(PROBE, PROBE, wires=[(0, "steady", 1, "i0")], reaction="toggle")
    with bench(path, spec) as b, bench("local", spec) as other:
        want, accesses, s = [], [], b.sequencer
        for n in range(2500):
            t = 3 * n
            row = (write(0, 0x10 | n & 1, t), read(t, 1), (t, 1, MEM + 64, 8, 0, 0), (t, 0, 0xCF8, 4, 1, n))[n % 4]
            accesses.append(row)
            _, space, addr, size, way, value = row
            want.append(s.access(space, addr, size, bool(way), value, t))
        assert other.sequencer.run(batch(*accesses))[0].tolist() == want
        assert rows(other.sequencer.take_lines()) == rows(s.take_lines())
        assert s.counters["router"] == 625 and s.counters["resets"] == 0
        assert s.access(0, 0xCF8, 4) == 2499


@pytest.mark.parametrize("path", ["local", "sync"])
def test_a_single_access_at_its_time_or_at_the_clock(path):
    with bench(path, board(PROBE)) as b:
        s = b.sequencer
        s.access(0, PORT, 1, False, 0, 100)
        assert s.clock == 100
        s.access(0, PORT, 1, False, 0, 50)
        assert s.clock == 100 and b.devices["d0"].now == 100
        assert s.access(0, PORT, 1, True, 0x1FF) == 0x1FF  # what was written
        assert (
            s.access(0, 0x9998, 2) == 0xFFFF and s.access(1, 0x5000, 8) == 0 and s.access(2, 5 << 35, 4) == 0xFFFFFFFF
        )


@pytest.mark.parametrize(
    "access", [(3, 0, 1), (0, 0x10000, 1), (0, 0, 8), (0, 0, 3), (0, 0, 0), (1, 0, 16), (1, 0, 7), (2, 0, 9)]
)
@pytest.mark.parametrize("path", ["local", "sync"])
def test_a_single_access_that_no_guest_can_make(path, access):
    with bench(path, board(PROBE)) as b:
        before = b.devices["d0"].save()
        with pytest.raises(UsageError, match="access is impossible") as e:
            b.sequencer.access(*access)
        assert "\n" not in str(e.value) and b.devices["d0"].save() == before


# ---------------------------------------------------------------------- where accesses go


@pytest.mark.parametrize("path", PATHS)
def test_status_and_fill_of_what_nobody_answers(path):
    with bench(path, board(PROBE)) as b:
        value, status, _ = b.sequencer.run(
            batch(
                (0, 0, 0x9999, 2, 0, 7), (0, 0, 0x9999, 1, 1, 7), (0, 1, 0x5000, 4, 0, 7), (0, 2, 9 << 35, 4, 0, 7),
                (0, 0, 0xCFC, 4, 0, 7), (0, 1, ODD + 12, 2, 0, 7), (0, 1, ODD + 12, 2, 1, 7), (0, 1, ODD, 1, 0, 7),
                (0, 1, ODD + 8, 2, 0, 7),
            ),
            None,
            path,
        )  # fmt: skip
        assert status.tolist() == [5, 5, 5, 5, 5, 1, 1, 2, 0x80]
        assert value[:8].tolist() == [0xFFFF, 7, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0, 7, 0]


@pytest.mark.parametrize("path", PATHS)
def test_an_access_over_two_devices_and_over_an_end(path):
    """Aligned parts, low address first, each to whoever answers there."""
    with bench(path, board(PROBE, PROBE)) as b, bench("local", board(PROBE, PROBE)) as other:
        got, status, _ = b.sequencer.run(batch((0, 1, MEM + 62, 4, 0, 0), (1, 1, MEM + 126, 4, 0, 0)), None, path)
        parts = batch((0, 1, MEM + 62, 2, 0, 0), (0, 1, MEM + 64, 2, 0, 0), (1, 1, MEM + 126, 2, 0, 0))
        low, high, last = other.sequencer.run(parts)[0].tolist()
        assert got.tolist() == [low | high << 16, last] and status.tolist() == [0, 5]
        assert b.sequencer.counters["split"] == 2


@pytest.mark.parametrize("path", PATHS)
def test_a_bar_that_moves(path):
    """Memory at the new place answers the next access, and nobody at the old one."""
    bdf = 1 << 35
    with bench(path, board(FUNCTION)) as b:
        accesses = batch(
            (0, 1, 0xE0000400, 4, 0, 0), (1, 2, bdf | 0x10, 4, 1, 0xE0000000), (2, 2, bdf | 4, 2, 1, 2),
            (3, 1, 0xE000040C, 4, 0, 0), (4, 2, bdf | 0x10, 4, 1, 0xE0001000), (5, 1, 0xE000040C, 4, 0, 0),
            (6, 1, 0xE000140C, 4, 0, 0), (7, 2, bdf | 4, 2, 1, 0), (8, 1, 0xE000140C, 4, 0, 0),
            (9, 2, bdf | 0x10, 4, 1, 0xE0000000), (9, 2, bdf | 4, 2, 1, 2), (10, 1, 0xE000040C, 4, 0, 0),
        )  # fmt: skip
        status = b.sequencer.run(accesses, None, path)[1]
        assert status[accesses["space"] == 1].tolist() == [5, 0, 5, 0, 5, 0]
        state = b.sequencer.state()
        assert state["mapped"] == [(0, 7, bdf), (0, 0, 0xE0000000)]


@pytest.mark.parametrize("path", PATHS)
def test_the_configuration_latch(path):
    """CF8h keeps 32 bits; only its bit 31 opens the window (PCI 3.0, 3.2.2.3.2)."""
    with bench(path, board(FUNCTION)) as b:
        value, status, _ = b.sequencer.run(
            batch(
                (0, 0, 0xCF8, 4, 1, 0x80000800), (0, 0, 0xCFC, 4, 0, 0), (0, 0, 0xCFE, 2, 0, 0), (0, 0, 0xCFD, 2, 0, 0),
                (0, 0, 0xCF8, 2, 1, 0), (0, 0, 0xCF8, 4, 0, 0), (0, 0, 0xCF8, 4, 1, 0x800), (0, 0, 0xCFC, 4, 0, 0),
                (0, 0, 0xCFA, 4, 0, 0),
            ),
            None,
            path,
        )  # fmt: skip
        assert value[1:4].tolist() == [0x00011234, 0x0001, 0x0112]
        assert value[5] == 0x80000800 and (value[7], status[7]) == (0xFFFFFFFF, 5)
        assert b.sequencer.state()["latch"] == 0x800


ECAM = 0xB0000000


@pytest.mark.parametrize("path", PATHS)
def test_the_enhanced_configuration_window(path):
    """PCI Express 3.0, 7.2.2: bus 27:20, device 19:15, function 14:12, register 11:0; one function is not there."""
    with Machine.from_file("q35", path=path, workers=None if path == "local" else 2) as machine:
        value, status, _ = machine.run(
            batch(
                (0, 1, ECAM, 4, 0, 0), (0, 2, 0x60, 4, 1, ECAM | 1), (0, 1, ECAM, 4, 0, 0),
                (0, 1, ECAM | 31 << 15 | 2, 2, 0, 0), (0, 1, ECAM | 31 << 15 | 7 << 12, 4, 0, 0),
                (0, 1, ECAM | 0x100, 4, 0, 0), (0, 1, ECAM | 0xFFE, 4, 0, 0),
                (0, 1, ECAM | 31 << 15 | 0x60, 1, 1, 0x8B),
                (0, 2, 31 << 35 | 0x60, 1, 0, 0), (0, 1, ECAM + (1 << 28), 4, 0, 0),
                (0, 2, 0x60, 4, 1, 0xD2000005), (0, 1, ECAM, 4, 0, 0), (0, 1, 0xD2000000, 4, 0, 0),
                (0, 1, 0xD2000000 + (1 << 26), 4, 0, 0),
            )
        )  # fmt: skip
        # the last window is one of 64 MiB, at no multiple of 256: its address is no part of a bus number
        assert status[[0, 2, 3, 4, 8, 9, 11, 12, 13]].tolist() == [5, 0, 0, 5, 0, 5, 5, 0, 5]
        want = [0, 0x29C08086, 0x2918, 0xFFFFFFFF, 0x8B, 0, 0, 0x29C08086, 0]
        assert value[[0, 2, 3, 4, 8, 9, 11, 12, 13]].tolist() == want


@pytest.mark.parametrize("path", PATHS)
def test_each_vcpu_has_its_own_local_apic_at_one_address(path):
    spec = load("i440fx")
    lapic = spec.device("lapic0")
    second = replace(
        lapic, id="lapic1", vcpu=1, config={**lapic.config, "apic_id": 1} if "apic_id" in lapic.config else lapic.config
    )
    spec = replace(spec, board=replace(spec.board, cpus=2), devices=(*spec.devices, second))
    with Machine.from_spec(spec, path=path, workers=None if path == "local" else 2) as machine:
        tpr = batch(*[(0, 1, 0xFEE00080, 4, n < 2, 0x10 * (n + 1)) for n in range(5)])
        tpr["vcpu"] = [0, 1, 1, 0, 7]  # a vCPU that the board does not have reaches the first one's
        value = machine.run(tpr)[0]
        assert value[2:].tolist() == [0x20, 0x10, 0x10]
        assert machine.read("mmio", 0xFEE00080, 4) == 0x10


# ---------------------------------------------------------------------- reset and state


@pytest.mark.parametrize("path", PATHS)
def test_reset(path):
    with bench(path, CHAIN) as b:
        s = b.sequencer
        for cold in (False, True):
            s.run(batch(write(probe.TRAIN, 99 << 16 | 9, s.clock, 0, 4), (s.clock, 0, 0xCF8, 4, 1, 0x800)), None, path)
            s.settle(s.clock + 15)
            assert [lv for *_, lv, _ in rows(s.take_lines())] == [1, 1]
            at = s.clock
            s.reset(cold)
            assert s.clock == at and s.next_event() is None
            assert rows(s.take_lines()) == [(0, at, 0, 0, 0), (0, at, 1, 0, 0)]
            assert [d.save()["levels"] for d in b.devices.values()] == [0, 0, 0]
            assert s.state()["latch"] == (0 if cold else 0x800)


@pytest.mark.parametrize("path", PATHS)
def test_a_reset_is_counted_once(path):
    with bench(path, board(PROBE)) as b:
        b.sequencer.reset()
        assert b.sequencer.counters["resets"] == 1


@pytest.mark.parametrize("path", PATHS)
def test_wires_that_are_high_from_the_start_are_known_to_their_readers(path):
    spec = board(PROBE, PROBE, wires=[(0, "react", 1, "i2")], reaction="invert")
    with bench(path, spec) as b:
        assert b.devices["d1"].save()["inputs"] == 4
        assert rows(b.sequencer.take_lines()) == []  # a level, no edge
        b.sequencer.run(EMPTY, given((0, 9, LINE, 0, 0, 1)), path)
        assert rows(b.sequencer.take_lines()) == [(0, 9, 0, 0, 0)]
        assert b.devices["d1"].save()["inputs"] == 0


@pytest.mark.parametrize("path", PATHS)
def test_a_line_driven_high_again_is_heard_and_is_no_change(path):
    """The parallel port drives its line with each write; the I/O APIC takes each rise that it hears for an edge."""
    local, select, window, eoi = 0xFEE000F0, 0xFEC00000, 0xFEC00010, 0xFEE000B0
    stream = batch(
        *((0, 1, addr, 4, 1, value) for addr, value in ((local, 0x1FF), (select, 0x1E), (window, 0x27))),
        *((1, 0, 0x37A, 1, 1, value) for value in (0x1D, 0x1C)),  # a strobe; its end interrupts
        (2, 1, eoi, 4, 1, 0),
        (3, 0, 0x378, 1, 1, 0x41),  # still pending
        (4, 1, eoi, 4, 1, 0),
        (5, 0, 0x379, 1, 0, 0),
        (6, 0, 0x378, 1, 1, 0x42),
        (7, 1, local, 4, 0, 0),
    )
    with Machine.from_file("i440fx", path=path, workers=0 if path == "local" else 2) as pc:
        rank, isa7 = pc._rank("lapic0"), pc.spec.board.observe.index("isa7")
        pc.submit(stream[:0])
        pc.lines()
        taken = given(*((index, t, INTACK, rank, 0, 0) for index, t in ((5, 2), (7, 4), (10, 7))))
        assert pc.run(stream, taken)[2].tolist() == [0x27, 0x27, -1]
        assert [row for row in rows(pc.lines()) if row[2] == isa7] == [(4, 1, isa7, 1, 1), (8, 5, isa7, 0, 1)]


def test_state_says_what_the_router_knows():
    with bench("local", board(PROBE, FUNCTION)) as b:
        b.sequencer.run(batch((77, 0, 0xCF8, 4, 1, 0x1234)))
        state = b.sequencer.state()
        assert (state["now"], state["latch"]) == (77, 0x1234)
        assert state["mapped"] == [(0, 0, 0x1000), (0, 1, 0x2000), (0, 2, 0x10000), (0, 3, 0x20000), (1, 7, 2 << 35)]


def test_a_chain_of_wires_that_is_too_long():
    chain = board(*[PROBE] * 62, wires=[(n, "react", n + 1, "i0") for n in range(61)], reaction="follow")
    with pytest.raises(MachineError, match="62 devices hear of each other in one chain of wires; 60 are possible"):
        Bench(chain)


# ---------------------------------------------------------------------- the same device twice


@pytest.mark.parametrize("path", PATHS)
def test_a_python_device_is_the_compiled_one(path):
    """Only what it cannot do differs: refuse a write, mark content, reset the board, send messages."""
    wires = [(0, "steady", 1, "i0"), (0, "beat", 2, "i0"), (1, "react", 2, "i1")]
    rng = np.random.default_rng(3)
    accesses = []
    t = 0
    for _ in range(300):
        t += int(rng.choice([0, 0, 1, 5, 40, 1000]))
        offset = int(rng.choice([probe.LINES, probe.ARM, probe.BURST, probe.CANCEL, probe.DMA, probe.TRAIN, 3, 15]))
        size, v = (4, int(rng.integers(0, 1 << 20))) if offset == probe.TRAIN else (1, int(rng.integers(0, 64)))
        device, way = int(rng.integers(0, 3)), int(rng.integers(0, 2))
        accesses.append((t, 0, PORT + 16 * device + offset, size, way, v))
        accesses.append((t, 1, ODD + 16 * device + 4 * int(rng.integers(0, 4 - way)), 4, way, v))
    inputs = given(*[(n, 0, (KEY, INTACK, LINE)[n % 3], n % 3, 3, n & 1) for n in range(0, 600, 7)])
    accesses = batch(*accesses)
    inputs["t_ns"] = accesses["t_ns"][inputs["index"]]
    results = []
    for reaction in ("toggle", "delay"):
        for kind in (PROBE, PYTHON):
            with bench(path, board(kind, kind, kind, wires=wires, reaction=reaction)) as b:
                value, status, answers = b.sequencer.run(accesses, inputs, path)
                lines = rows(b.sequencer.take_lines())
                states = [
                    {k: d.save()[k] for k in ("seen", "period", "left", "inputs", "levels", "deadline")}
                    for d in b.devices.values()
                ]
                results.append((value.tolist(), (status & 0x7F).tolist(), answers.tolist(), lines, states))
        assert results[-2] == results[-1]
        assert len(results[-1][3]) > 50
    assert results[0] != results[2]


# ---------------------------------------------------------------------- workers that die or lie


@pytest.mark.parametrize("path", LINKS)
def test_a_worker_that_dies_ends_the_run_and_the_machine_says_so(path):
    with bench(path, board(PROBE, PROBE)) as b:
        s = b.sequencer
        s.run(batch(read()), None, path)

        def died():
            raise WorkerDied("worker 2 (pid 1; d1) ended: killed by SIGKILL")

        b.links[1].stop()
        b.threads[1].join(10)
        s.check = died
        with pytest.raises(WorkerDied, match="worker 2"):
            s.run(batch(read(), read(0, 1), read()), None, path)
        for call in (
            lambda: s.run(batch(read()), None, path), lambda: s.access(0, PORT, 1), lambda: s.settle(9),
            lambda: s.reset(), lambda: s.state(), lambda: s.next_event(), lambda: s.set_state({}, []),
        ):  # fmt: skip
            with pytest.raises(EngineError, match=r"stopped in the middle of a batch \(WorkerDied: worker 2"):
                call()
        s.take_lines()  # what was seen until then


@pytest.mark.parametrize("path", LINKS)
def test_a_worker_that_does_not_answer(path):
    with bench(path, board(PROBE, PROBE)) as b:
        s = b.sequencer
        b.links[1].stop()
        b.threads[1].join(10)
        s.patience = 0.1
        with pytest.raises(WorkerDied, match=r"worker 2 has not answered for 0\.1 seconds"):
            s.run(batch(read(0, 1)), None, path)


def test_an_error_of_the_local_path_leaves_the_machine_usable():
    """The check is asked each 65536 accesses; what was executed until then stays executed."""
    accesses = batch(read()).repeat(90000)
    accesses["t_ns"] = np.arange(90000)
    with bench("local", board(PROBE)) as b:

        def stop():
            raise KeyboardInterrupt

        b.sequencer.check = stop
        with pytest.raises(KeyboardInterrupt):
            b.sequencer.run(accesses)
        assert b.devices["d0"].now == b.sequencer.clock == 65535
        b.sequencer.check = None
        b.sequencer.run(accesses[65536:])
        assert b.devices["d0"].now == 89999


@pytest.mark.parametrize("path", ["sync", "batched"])
def test_impossible_words_are_an_error_and_not_an_answer(path):
    """tests/stress/test_hostile_worker.py tries them all; here is one of each kind."""
    with bench(path, board(PROBE, PROBE)) as b:
        s = b.sequencer
        s.run(batch(read()), None, path)
        words = np.frombuffer(b.links[0].segment, np.uint64)
        words[512 >> 3] += np.uint64(1 << 40)  # effects_produced
        with pytest.raises(RingError, match="worker 1: impossible words in its effect ring"):
            s.run(batch(read()), None, path)
        with pytest.raises(EngineError, match="in the middle of a batch"):
            s.run(batch(read()), None, path)


def test_messages_do_not_reach_what_takes_none():
    with bench("local", board(PROBE)) as b:
        b.sequencer.run(EMPTY, given((0, 0, MESSAGE, 0, 0, 5)))
        assert b.sequencer.counters["inputs"] == 1


@pytest.mark.parametrize(("path", "workers"), [("local", 1), ("batched", 2)])
def test_a_bar_that_moves_without_end_uses_region_ids_again(path: str, workers: int) -> None:
    function, bar2, display, n = 0x10 << 32, 0x18, 0xE0000000, 17000  # 00:02.0; a page of registers
    moves = np.zeros(n, ACC)
    moves["space"], moves["addr"], moves["size"], moves["dir"] = Space.CONFIG, function | bar2, 4, 1
    with Machine.from_file("i440fx", path=path, workers=workers) as m:
        m.write("config", function | 4, 2, 2)
        m.write("config", function | bar2, 4, display)
        reads = m.read("mmio", display, 4)
        assert reads
        before = m.snapshot(ram=False)
        highest = []
        for i in range(3):
            places = 0x80000000 + np.arange(i * n, (i + 1) * n) * 0x1000
            moves["value"] = places
            m.run(moves)
            last = int(places[-1])
            assert m.read("mmio", last, 4) == reads and m.read("mmio", last - 0x1000, 4) == 0
            highest.append(int(m.sequencer.map.ranges()["region"].max()))
        assert highest[1] < 1.2 * n and highest[2] < 1.2 * n
        m.restore(before)
        assert m.read("mmio", display, 4) == reads and m.read("mmio", last, 4) == 0
        assert m.sequencer.map.lookup(int(Space.MMIO), display) is not None
        assert m.sequencer.map.lookup(int(Space.MMIO), last) is None
