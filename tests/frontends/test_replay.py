"""Replaying recorded guests: what devices are fed, what is compared with the reference, and what is said of it."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from engine import EngineError, TraceError, UsageError, WorkerDied
from engine.frontends import replay
from engine.frontends import trace as traces
from engine.frontends.trace import DMA, EVT, IRQ, POISON
from engine.machine import Machine
from engine.machine.spec import load
from engine.sequencer import LINE_CHANGE
from tests.frontends.traces import accesses, records, write

REGIONS = [
    "pic|isa-i8259", "i8042-data|i8042", "i8042-cmd|i8042", "fwcfg|fw_cfg_io", "pci-conf-idx|i440FX-pcihost",
    "pci-conf-data|i440FX-pcihost", "tube|unheard-of", "apic-msi|apic",
]  # fmt: skip
PIC, KBD, CMD, FW, INDEX, DATA, TUBE, APIC = range(8)
# The local APIC lets the 8259s through; they take IRQ 1 at vector 31h; the keyboard interrupts; a key comes; its
# interrupt is taken; the guest reads the key.
GUEST = [
    (0xFEE000F0, 0x1FF, 1, APIC), (0xFEE00350, 0x700, 1, APIC),
    (0x20, 0x11, 1, PIC), (0x21, 0x30, 1, PIC), (0x21, 0x04, 1, PIC), (0x21, 0x01, 1, PIC), (0x21, 0xFD, 1, PIC),
    (0x64, 0x60, 1, CMD), (0x60, 0x41, 1, KBD),
    (0x64, 0, 0, CMD), (0x60, 0, 0, KBD), (0x20, 0x20, 1, PIC), (0x60, 0, 0, KBD),  # 9: after the key
    (0x510, 0x11, 1, FW), (0x511, 0, 0, FW), (0x511, 0, 0, FW),  # 14: content
    (0xCF8, 0x80001800, 1, INDEX), (0xCFC, 0, 0, DATA),  # 17: a function that is not modelled
    (0x300, 0, 0, TUBE), (0x301, 1, 1, TUBE), (0x302, 0, 0, TUBE),  # 18: no part at all
    (0x21, 0, 0, PIC),  # 21
]  # fmt: skip
KEY_AT, KEY_CODE, KERNEL = 9, 0x1C, (0x11, None, 2, True, False)


def recorded():
    """The guest as ACC records, 1 us apart."""
    out = []
    for n, (addr, value, way, region) in enumerate(GUEST):
        size = 4 if region in (INDEX, DATA, APIC) else 2 if addr == 0x510 else 1
        out.append((1000 * (n + 1), addr, value, size, region == APIC, way, region))
    acc = accesses(*out)
    acc["value"][acc["dir"] == 0] = 0xAB  # what the guest got; devices must not see it
    acc["value"][14:16] = list(b"ab")
    return acc


EVENTS = records(EVT, (9500, KEY_AT, 4, KEY_CODE), (9600, KEY_AT, 1, 0), (9600, KEY_AT, 2, 0x31), (21500, 21, 1, 0))


@pytest.fixture
def trace(tmp_path):
    path = write(
        tmp_path / "keys.npz",
        {"machine_args": ["-machine", "pc"]},
        acc=recorded(),
        regions=np.array(REGIONS),
        evt=EVENTS,
        dma=np.zeros(0, DMA),
        dma_data=np.zeros(0, np.uint8),
    )
    return traces.load(path)


def reference(trace, **changes):
    """A reference whose answers are written down here; changes: array -> {index: value}."""
    acc = trace.acc
    value = acc["value"].copy()
    status = np.where(acc["dir"] == 0, 1, 0).astype("u1")
    known = {9: 0x19, 10: KEY_CODE, 12: KEY_CODE, 14: ord("a"), 15: ord("b"), 21: 0xFD}
    for i, v in known.items():
        value[i] = v
    out = {
        "value": value,
        "status": status,
        "vector": np.array([0x31, 0x37], "<i8"),  # nothing is left: the 8259's spurious IRQ 7
        "irq": records(
            IRQ, *[(i, acc["t_ns"][i], 1, level, phase, 0) for i, level, phase in ((KEY_AT, 1, 0), (10, 0, 1))]
        ),
    }
    for name, items in changes.items():
        for i, v in items.items():
            out[name][i] = v
    return traces.Golden(trace.path, out["value"], out["status"], out["vector"], out["irq"])


def job_of(trace, golden=None, **more):
    """A job on the shipped board, with a function at 03.0 that is named and not modelled, and content of two bytes."""
    spec = load("i440fx").with_config("fwcfg", items=(KERNEL,))
    return replay.Job(trace, golden, spec, {}, [("a tube", "00:03.0")], **more)


def result_of(job, path="local", **more):
    return replay.replay(job, path, 0 if path == "local" else 2, **more).result


# ---------------------------------------------------------------------- inputs


def test_keys_and_acknowledges_become_inputs_of_their_devices(trace):
    with replay.running(job_of(trace), "local", 0) as machine:
        given = replay.machine_inputs(machine, trace)
        rank = machine.plan.rank
        assert given.records[["index", "t_ns", "kind", "target", "value"]].tolist() == [
            (9, 9500, 2, rank("kbc") << 8, KEY_CODE), (9, 9600, 1, rank("lapic0") << 8, 0),
            (21, 21500, 1, rank("lapic0") << 8, 0),
        ]  # fmt: skip
        assert given.vector_rows.tolist() == [1, 2] and given.skipped == 0


def test_without_a_local_apic_the_8259_acknowledges(trace):
    spec = load("i440fx").without("lapic0", "ioapic")
    with Machine.from_spec(spec) as machine:
        given = replay.machine_inputs(machine, trace)
        assert given.records["target"][1] >> 8 == machine.plan.rank("pic")
        got = replay.execute(machine, trace, replay.poisoned(trace))
        assert got.vectors.tolist()[0] == 0x31


def test_without_a_keyboard_its_keys_are_skipped(trace):
    with Machine.from_spec(load("i440fx").without("kbc")) as machine:
        given = replay.machine_inputs(machine, trace)
        assert given.skipped == 1 and given.records["kind"].tolist() == [1, 1]


def test_devices_never_see_what_the_guest_read(trace):
    acc = replay.poisoned(trace)
    reads = trace.acc["dir"] == 0
    assert (acc["value"][reads] == POISON).all() and (acc[~reads] == trace.acc[~reads]).all()
    assert (trace.acc["value"][reads] != POISON).all()  # the trace itself is as it was


@pytest.mark.parametrize("chunk", [1, 7, 9, 10, 1 << 16])
def test_chunks_do_not_show(trace, monkeypatch, chunk):
    """Values, vectors and the numbers of the accesses that lines changed at are those of one run."""
    seen = []
    monkeypatch.setattr(replay, "CHUNK", chunk)
    with replay.running(job_of(trace), "local", 0) as machine:
        got = replay.execute(machine, trace, replay.poisoned(trace), seen.append)
    assert sum(seen) == got.done == len(GUEST) and len(seen) == -(-len(GUEST) // chunk)
    assert got.value[[10, 12, 21]].tolist() == [KEY_CODE, KEY_CODE, 0xFD]
    assert got.vectors.tolist() == [0x31, 0x37]
    assert got.lines[["index", "line", "level", "phase"]].tolist() == [(9, 1, 1, 0), (10, 1, 0, 1)]


# ---------------------------------------------------------------------- the comparison


@pytest.mark.parametrize("path", ["local", "sync", "buffered", "batched"])
def test_a_run_that_matches(trace, path):
    job = job_of(trace, reference(trace))
    replay.learn(job)
    result = result_of(job, path)
    assert result["ok"] and result["mismatches"] == []
    assert (result["accesses"], result["done"], result["reads"]) == (22, 22, 9)
    assert (result["compared"], result["matching"], result["payload_reads"]) == (4, 4, 2)
    assert result["vectors"] == {"compared": 2, "matching": 2} and result["lines"] == {"compared": 2, "matching": 2}
    assert result["by_region"] == [
        {"region": "i8042-cmd|i8042", "reads": 1, "matching": 1},
        {"region": "i8042-data|i8042", "reads": 2, "matching": 2},
        {"region": "pic|isa-i8259", "reads": 1, "matching": 1},
    ]
    assert result["unmodelled"] == {"pci-conf-data|i440FX-pcihost": 1, "tube|unheard-of": 2}
    assert (result["path"], result["golden"], result["machine"]) == (path, True, "i440fx")
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"value": {10: 0x1D}}, {"kind": "read", "index": 10, "region": "i8042-data|i8042", "space": "pio",
                                 "addr": "0x60", "size": 1, "expected": "0x1d", "got": "0x1c"}),
        ({"vector": {0: 0x30}}, {"kind": "vector", "index": 9, "expected": 0x30, "got": 0x31}),
        ({"vector": {1: 5}}, {"kind": "vector", "index": 21, "expected": 5, "got": 0x37}),
        ({"irq": {0: (9, 10000, 1, 1, 1, 0)}}, {"kind": "line", "index": 9, "region": "line 1", "expected": [9, 1, 1],
                                               "got": [9, 1, 0]}),
        ({"irq": {1: (12, 13000, 1, 0, 1, 0)}}, {"kind": "line", "index": 12, "expected": [12, 0, 1],
                                                 "got": [10, 0, 1]}),
    ],
    ids=["a read", "a vector", "a vector of none", "a phase", "an index"],
)  # fmt: skip
def test_one_difference_is_found_and_said(trace, changes, row):
    result = result_of(job_of(trace, reference(trace, **changes)))
    assert not result["ok"]
    (found,) = result["mismatches"]
    assert {k: found[k] for k in row} == row


def test_functions_behind_bridges_that_are_not_modelled(tmp_path):
    """The guest numbers the buses: what answers to the reference only is one, if no part of ours is like it."""
    rows = []
    for devfn, value in ((0x18, 0x10001AF4), (0x18, 0x100), (0x20, 0x7000), (0x28, 0xFFFFFFFF)):
        register = 4 if value == 0x100 else 0
        rows += [(0xCF8, 0x80010000 | devfn << 8 | register, 1, INDEX), (0xCFC, value, 0, DATA)]
    rows[5:5] = [(0xCFC, 0x8086, 2, DATA)]  # a size of 2: the vendor of a part of ours, the ISA bridge
    rows[6] = (0xCFE, 0x7000, 2, DATA)
    acc = accesses(*[(1000 * n, addr, value, 2 if way == 2 else 4, 0, way & 1, region)
                     for n, (addr, value, way, region) in enumerate(rows)])  # fmt: skip
    path = write(tmp_path / "bridge.npz", acc=acc, regions=np.array(REGIONS), evt=EVENTS[:0], dma=np.zeros(0, DMA))
    trace = traces.load(path)
    status = (acc["dir"] == 0).astype("u1")
    golden = traces.Golden(path, acc["value"].copy(), status, np.zeros(0, "<i8"), np.zeros(0, IRQ))
    job = replay.Job(trace, golden, load("i440fx"), {}, unmodelled=[("virtio-net-pci", "")])
    result = result_of(job)
    assert result["unmodelled"] == {"pci-conf-data|i440FX-pcihost": 2}
    assert result["unmodelled_functions"] == [{"device": "1af4:1000", "function": "01:03.0", "config_reads": 2}]
    assert [m["index"] for m in result["mismatches"]] == [5, 6] and result["compared"] == 3
    job.unmodelled.clear()
    assert [m["index"] for m in result_of(job)["mismatches"]] == [1, 3, 5, 6]


def test_differences_where_nothing_is_compared(trace):
    """Content, functions and parts that are not modelled, reads that the reference could not answer."""
    golden = reference(trace, value={14: 1, 15: 2, 17: 3, 18: 4, 20: 5, 10: 6}, status={10: 0})
    job = job_of(trace, golden)
    replay.learn(job)
    result = result_of(job)
    assert result["ok"] and (result["compared"], result["payload_reads"]) == (3, 2)
    job.unmodelled.clear()  # the function at 03.0 is now one that is known to be empty
    result = result_of(job)
    assert not result["ok"] and [m["index"] for m in result["mismatches"]] == [17]
    assert result["mismatches"][0]["got"] == "0xffffffff"


def test_lines_and_vectors_that_the_reference_is_not_sure_of(trace):
    golden = reference(trace, vector={0: 1}, irq={0: (3, 0, 9, 1, 0, 0)})
    golden.side = {"line_changes_identical_in_all_runs": False, "vectors_identical_in_all_runs": False}
    result = result_of(job_of(trace, golden))
    assert result["ok"]
    assert result["vectors"] == result["lines"] == {"compared": 0, "matching": 0}


def test_regions_without_owners_are_modelled_where_a_part_answers(trace):
    """A recorder that reads QEMU's log knows the regions' names only."""
    trace.regions = [name.partition("|")[0] + "|" for name in trace.regions]
    job = job_of(trace, reference(trace))
    replay.learn(job)
    result = result_of(job)
    assert result["ok"] and (result["compared"], result["payload_reads"]) == (4, 2)
    assert result["unmodelled"] == {"pci-conf-data|": 1, "tube|": 2}


@pytest.mark.parametrize(("read", "vector", "right"), [(0xFD, 0x37, 2), (0xFE, 0x37, 1), (0xFD, 0x38, 1)])
def test_where_the_reference_is_not_as_recorded_either_is_right(trace, read, vector, right):
    """The recorded guest's disk was ready, that of the replay was not: what counts is that one of the two says so."""
    trace.acc, trace.evt = trace.acc.copy(), trace.evt.copy()
    trace.acc["value"][21] = read
    trace.evt["data"][trace.evt["kind"] == 1] = [0x31, vector]
    golden = reference(trace, value={21: 0x11}, vector={1: replay.NO_VECTOR})
    golden.side = {"vectors_as_recorded": 1}
    result = result_of(job_of(trace, golden))
    assert (result["ok"], result["as_recorded_only"]) == (right == 2, right)
    assert (
        result["compared"] - result["matching"] + result["vectors"]["compared"] - result["vectors"]["matching"]
        == 2 - right
    )


def test_lines_that_only_one_side_changed(trace):
    golden = reference(trace)
    golden.irq = records(IRQ, (9, 10000, 1, 1, 0, 0), (10, 11000, 1, 0, 1, 0), (10, 11000, 4, 1, 1, 0))
    result = result_of(job_of(trace, golden))
    assert result["lines"] == {"compared": 3, "matching": 2}
    assert [(m["region"], m["expected"], m["got"]) for m in result["mismatches"]] == [("line 4", [10, 1, 1], None)]
    golden.irq = golden.irq[:1]
    result = result_of(job_of(trace, golden))
    assert result["lines"] == {"compared": 2, "matching": 1}
    assert [(m["region"], m["expected"], m["got"]) for m in result["mismatches"]] == [("line 1", None, [10, 0, 1])]


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ((0, 14, 1, 1), True), ((1, 14, 1, 0), True), ((2, 14, 1, 0), True),
        ((2, 14, 1, 1), False), ((3, 14, 1, 0), False), ((2, 14, 0, 0), False), ((0, 14, 1, 0), False),
    ],
)  # fmt: skip
def test_a_disks_interrupt_may_come_where_the_reference_waits_for_it(tmp_path, change, right):
    """A command ends at once here; there it may end later, but before the next read of a disk controller."""
    acc = accesses((1000, 0x1F7, 0xEC, 1, 0, 1, 1), (2000, 0x21, 0, 1, 0, 0, 0), (3000, 0x3F6, 0x58, 1, 0, 0, 1),
                   (4000, 0x3F6, 0x58, 1, 0, 0, 1))  # fmt: skip
    path = write(
        tmp_path / "disk.npz", acc=acc, regions=np.array([*REGIONS[:1], "ide|"]), evt=EVENTS[:0], dma=np.zeros(0, DMA)
    )
    trace = traces.load(path)
    index, line, level, phase = change
    irq = records(IRQ, (index, 1000 * (index + 1), line, level, phase, 0))
    golden = traces.Golden(path, acc["value"], (acc["dir"] == 0).astype("u1"), np.zeros(0, "<i8"), irq)
    spec = load("i440fx").with_config("ide", drives=[{"size": 1 << 20}])
    result = result_of(replay.Job(trace, golden, spec, {}))
    assert (result["lines"]["compared"], result["lines"]["matching"], result["ok"]) == (1, int(right), right)


def test_a_reference_that_says_it_is_as_recorded_is_right_alone(trace):
    """What its arrays hold beside what its side file and its flags say is a difference."""
    trace.acc, trace.evt = trace.acc.copy(), trace.evt.copy()
    golden = reference(trace, value={21: 0x11}, status={21: 0x81}, vector={1: replay.NO_VECTOR})
    trace.acc["value"][21] = 0xFD
    trace.evt["data"][trace.evt["kind"] == 1] = [0x31, 0x37]
    golden.side = {"vectors_as_recorded": 2}
    result = result_of(job_of(trace, golden))
    assert [(m["kind"], m["index"]) for m in result["mismatches"]][:1] == [("read", 21)]
    assert (result["as_recorded_only"], len(result["mismatches"])) == (0, 2)


def test_only_the_first_twenty_differences_are_listed_and_all_are_counted(tmp_path):
    acc = accesses(*[(1000 * n, 0x21, 0xAB, 1, 0, 0, PIC) for n in range(50)])
    path = write(tmp_path / "many.npz", acc=acc, regions=np.array(REGIONS), evt=EVENTS[:0], dma=np.zeros(0, DMA))
    trace = traces.load(path)
    golden = traces.Golden(path, acc["value"].copy(), np.ones(50, "u1"), np.zeros(0, "<i8"), np.zeros(3, IRQ))
    golden.value[:10] = 0  # what the part gives
    result = result_of(job_of(trace, golden))
    assert (result["compared"], result["matching"], result["ok"]) == (50, 10, False)
    assert [m["index"] for m in result["mismatches"]] == list(range(10, 30))
    assert result["lines"] == {"compared": 3, "matching": 0}


def test_without_a_reference_nothing_is_compared(trace):
    result = result_of(job_of(trace))
    assert result["ok"] and not result["golden"]
    assert (result["compared"], result["vectors"], result["lines"]["compared"]) == (
        0,
        {"compared": 0, "matching": 0},
        0,
    )
    assert result["digest"] == result_of(job_of(trace, reference(trace, value={10: 9})))["digest"]


def test_a_machine_without_the_controller_of_a_vector_is_said_once(trace):
    trace.evt = trace.evt.copy()
    trace.evt["data"][3] = 5 << 16  # taken by a vCPU that the board does not have
    result = result_of(job_of(trace, reference(trace)))
    assert not result["ok"] and result["vectors"] == {"compared": 2, "matching": 0}
    (found,) = result["mismatches"]
    assert found["expected"] == "2 vectors" and "no controller for some vCPU" in found["got"]


# A disk controller's interrupt: ours in access 0, a disk's; the next read of a disk's is access 3.
DISK_AT, OTHER, NEXT_READ = 0, 1, 3


@pytest.mark.parametrize(
    ("theirs", "ours", "right"),
    [
        pytest.param((OTHER, 2000, 1, 0), (DISK_AT, 1, 1), True, id="later, with the time of its access"),
        pytest.param((NEXT_READ, 4000, 1, 0), (DISK_AT, 1, 1), True, id="at the read that waits for it"),
        pytest.param((NEXT_READ, 4000, 1, 1), (DISK_AT, 1, 1), False, id="behind that read"),
        pytest.param((OTHER, 1999, 1, 0), (DISK_AT, 1, 1), False, id="with a time of its own"),
        pytest.param((OTHER, 2000, 0, 0), (DISK_AT, 0, 1), False, id="a fall"),
        pytest.param((OTHER, 2000, 0, 0), (DISK_AT, 1, 1), False, id="another level"),
        pytest.param((OTHER, 2000, 1, 0), (DISK_AT, 0, 1), False, id="a fall of ours"),
        pytest.param((OTHER, 2000, 1, 0), (DISK_AT, 1, 0), False, id="ours by a timer"),
        pytest.param((2, 3000, 1, 0), (OTHER, 1, 1), False, id="ours in an access to another part"),
        pytest.param((DISK_AT, 1000, 1, 0), (DISK_AT, 1, 1), False, id="earlier"),
    ],
)
def test_an_interrupt_of_a_disk_may_be_later_in_the_reference(trace, theirs, ours, right):
    """What its back end takes of the host's time is no difference of the machines; nothing else is excused."""
    trace.regions = ["ide|", "unheard-of"]
    trace.acc = accesses(
        *[(1000 * (n + 1), 0x1F7, 0, 1, 0, way, part) for n, (way, part) in enumerate([(1, 0), (1, 1), (0, 1), (0, 0)])]
    )
    trace.evt, vectors = EVENTS[:0], np.zeros(0, "<i8")
    index, t_ns, level, phase = theirs
    irq = records(IRQ, (index, t_ns, 14, level, phase, 0))
    job = job_of(trace, traces.Golden(trace.path, trace.acc["value"], np.zeros(4, "u1"), vectors, irq))
    with replay.running(job, "local", 0) as machine:
        got = replay.execute(machine, trace, trace.acc)
        got.lines = np.zeros(1, LINE_CHANGE)
        for name, value in zip(("index", "level", "phase"), ours, strict=True):
            got.lines[name] = value
        got.lines["line"] = machine.plan.observed.index("isa14")
        result = replay.score(job, machine, got)
    assert result["lines"] == {"compared": 1, "matching": int(right)}
    assert (result["later_in_reference"], result["ok"], len(result["mismatches"])) == (int(right), right, not right)


# ---------------------------------------------------------------------- content


def test_content_is_learnt_from_the_guest_and_given_back(trace):
    """No device can compute it: without it the same reads give zeros, which are still content and not compared."""
    job = job_of(trace, reference(trace))
    bare = result_of(job)
    assert bare["payload_reads"] == 2 and bare["ok"]
    replay.learn(job)
    assert job.learnt == {"fwcfg"} and list(job.contents["fwcfg"].values()) == [b"ab"]
    with replay.running(job, "local", 0) as machine:
        got = replay.execute(machine, trace, replay.poisoned(trace))
    assert got.value[14:16].tolist() == list(b"ab") and got.status[14:16].tolist() == [0x80, 0x80]
    assert bare["digest"] != result_of(job)["digest"]


def test_content_of_given_files_is_compared(trace, monkeypatch):
    """The device could know the two bytes, and gives zeros."""
    monkeypatch.setattr(replay.Job, "given", lambda self: {"fwcfg"})
    bare, result = result_of(job_of(trace)), result_of(job_of(trace, reference(trace)))
    assert bare["payload_reads"] == result["payload_reads"] == 0
    assert not result["ok"] and [m["index"] for m in result["mismatches"]] == [14, 15]


# ---------------------------------------------------------------------- runs that end early


def test_a_run_that_fails_is_scored_as_far_as_it_came(trace, monkeypatch):
    monkeypatch.setattr(replay, "CHUNK", 11)
    run, calls = Machine.run, []

    def failing(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise WorkerDied("worker 1 (pid 1; pit) ended: killed by SIGKILL")
        return run(self, *args)

    monkeypatch.setattr(Machine, "run", failing)
    got = replay.replay(job_of(trace, reference(trace)), "local", 0)
    assert isinstance(got.failure, WorkerDied)
    result = got.result
    assert not result["ok"] and result["error"] == str(got.failure) and result["done"] == 11
    assert (result["compared"], result["matching"]) == (2, 2)
    assert result["vectors"] == {"compared": 1, "matching": 1} and result["mismatches"] == []
    assert result["lines"] == {"compared": 2, "matching": 2}


def test_a_user_error_in_a_run_is_none_of_its_results(trace, monkeypatch):
    def failing(self, *args):
        raise UsageError("no")

    monkeypatch.setattr(Machine, "run", failing)
    with pytest.raises(UsageError):
        replay.replay(job_of(trace), "local", 0)


def test_a_machine_that_does_not_start_is_the_users_to_mend(trace, monkeypatch):
    def failing(self):
        raise EngineError("guest-ram: no memory")

    monkeypatch.setattr(Machine, "start", failing)
    with pytest.raises(UsageError, match="the machine of keys cannot be started: guest-ram: no memory"):
        replay.replay(job_of(trace), "local", 0)


# ---------------------------------------------------------------------- jobs and small parts


def test_which_machine(trace, tmp_path):
    job = replay.open_job(trace, None, "auto", {})
    assert job.spec.board.chipset == "i440fx" and job.spec.path == "keys.json"
    assert replay.open_job(trace, None, "q35", {}).spec.board.name == "q35"
    assert replay.open_job(trace, None, load("q35"), {}).spec.board.name == "q35"
    for side in ({}, {"machine_args": "-M pc"}):
        trace.side = side
        with pytest.raises(TraceError, match=r"no side file keys\.json with machine_args; give --machine FILE"):
            replay.open_job(trace, None, "auto", {})


def test_files_that_are_given_are_compared_and_not_learnt(trace, tmp_path):
    disk = tmp_path / "d.img"
    disk.write_bytes(bytes(512))
    names = {"disk": {"name": "d.img", "bytes": 512, "sha256": hashlib.sha256(bytes(512)).hexdigest()}}
    trace.side = {"machine_args": ["-machine", "pc", "-drive", "file={disk},format=raw,if=ide"], "files": names}
    job = replay.open_job(trace, None, "auto", {"disk": disk, "other": tmp_path / "not-asked-for"})
    assert job.files == {"disk": str(disk)} and job.given() == {"ide"}
    assert replay.open_job(trace, None, "auto", {}).given() == set()
    disk.write_bytes(b"x" * 512)
    with pytest.raises(TraceError, match=r"not the recorded d\.img"):
        replay.open_job(trace, None, "auto", {"disk": disk})


def test_options_for_files(tmp_path):
    there = tmp_path / "a=b.img"
    there.touch()
    assert replay.parse_files([f"disk={there}"]) == {"disk": str(there)}
    for bad, words in (
        ("disk", "NAME=PATH"),
        ("=x", "NAME=PATH"),
        ("disk=", "NAME=PATH"),
        ("disk=/none/x", "no such file"),
    ):
        with pytest.raises(UsageError, match=words):
            replay.parse_files([bad])


@pytest.mark.parametrize(
    ("region", "part"),
    [("x|mc146818rtc", "mc146818"), ("pci-conf-idx|i440FX-pcihost", ""), ("ioportF0", "port80"), ("ide|", "piix3-ide"),
     ("io", ""), ("x|unheard-of", None), ("x", None), ("x|", None)],
)  # fmt: skip
def test_regions_name_their_parts(region, part):
    assert replay.device_type(region) == part


def test_series_counts_each_access_once(trace):
    labels, counts = replay.series(trace)
    assert labels == ["fw-cfg", "i8042", "i8259", "lapic", "not modelled", "router"]
    assert counts.shape == (6, replay.SERIES) and counts.sum(axis=1).tolist() == [3, 5, 7, 2, 3, 2]


def test_percentiles_are_upper_edges():
    counts = np.zeros(2048, np.uint64)
    assert replay.percentiles(counts) == {"p50": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}
    ns, _ = replay.curve(np.ones(2048, np.uint64))
    counts[10], counts[100], counts[2047] = 500, 499, 1
    got = replay.percentiles(counts)
    assert got == {
        "p50": round(ns[10], 1),
        "p99": round(ns[100], 1),
        "p999": round(ns[100], 1),
        "max": round(ns[2047], 1),
    }
    assert got["p50"] < got["p99"] < got["max"]
