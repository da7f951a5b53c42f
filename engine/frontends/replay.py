"""Replaying recorded guests: which machine, which inputs, how a run is scored against the reference.

A run's answers come from devices alone: the recorded read values are overwritten with POISON before submission.
Content (bytes of files and sectors, which a trace may carry but no device can compute) is learnt from the trace in one
local pass, unless files are given, and counted apart.  With files, what they hold is compared as everything else.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine._device import CONTENT, INTACK, UNCLAIMED
from engine.errors import EngineError, TraceError, UsageError, WorkerDied
from engine.frontends.outside import Outside, gsi, of_recording, records
from engine.frontends.trace import (
    EV_VECTOR,
    GOLD_AS_RECORDED,
    GOLD_MASK,
    GOLD_READ,
    POISON,
    Array,
    Golden,
    Inputs,
    Trace,
    check_file,
    inputs,
)
from engine.machine import Machine, build_devices
from engine.machine.build import Plan, plan
from engine.machine.derive import derive
from engine.machine.qemu_args import PCI_DEVICES, from_qemu
from engine.machine.spec import MachineSpec, load
from engine.sequencer import Sequencer

CHUNK = 1 << 16  # accesses between two looks at progress and signals
NO_VECTOR = 0xFFFFFFFF  # a reference's answer to an acknowledge cycle for which nothing was pending
SERIES = 160  # parts of a trace, for its accesses per device

Row = tuple[int, ...]  # a change of a line: index of an access, level, phase

# Region owners of the reference machine -> type of the device that models them here; "" is the router itself.
OWNERS = {
    "apic": "lapic",
    "ioapic": "ioapic",
    "mc146818rtc": "mc146818",
    "port92": "i8042",
    "i8042": "i8042",
    "isa-debugcon": "debugcon",
    "i440FX-pcihost": "",
    "q35-pcihost": "",
    "fw_cfg_io": "fw-cfg",
    "i8257": "i8237",
    "isa-i8259": "i8259",
    "PIIX4_PM": "piix4-pm",
    "ICH9-LPC": "ich9-lpc",
    "isa-pit": "i8254",
    "isa-pcspk": "i8254",
    "VGA": "vga",
    "isa-serial": "uart16550",
    "isa-parallel": "parallel",
    "isa-fdc": "fdc",
    "hpet": "hpet",
    "PIIX3": "piix3",
    "piix3-ide": "piix3-ide",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "ich9-ahci": "ich9-ahci",
    "ICH9-SMB": "ich9-smbus",
    "edu": "edu",
    "pvpanic": "pvpanic",
    "pvpanic-pci": "pvpanic-pci",
    "ib700": "ib700",
    "i6300esb": "i6300esb",
    "isa-debug-exit": "isa-debug-exit",
    "pc-testdev": "pc-testdev",
    "pci-testdev": "pci-testdev",
    "cfi.pflash01": "pflash",
    "pci-bridge": "pci-bridge",
    "pcie-root-port": "pcie-root-port",
    "ioh3420": "ioh3420",
}
# The same of regions without an owner.
NAMES = {
    "ide": "piix3-ide", "ioport80": "port80", "ioportF0": "port80",
    **dict.fromkeys(("io", "unassigned-mem", "pci-conf-idx", "pci-conf-data", "pcie-mmcfg-mmio"), ""),
}  # fmt: skip
# Owners that may look into guest RAM some time after the write that told them to.
MASTERS = ("ide", "piix3-ide", "ich9-ahci", "isa-fdc", "e1000", "e1000e", "nvme", "virtio", "xhci")
DISKS = ("piix3-ide", "ich9-ahci", "isa-fdc")  # owners whose back ends take host time in the reference
CONFIG_DATA = ("pci-conf-data|", "pcie-mmcfg-mmio|")


def device_type(region: str) -> str | None:
    """Type of the device that models a region "name|owner"; "" for the router, None if there is none."""
    name, _, owner = region.partition("|")
    return OWNERS.get(owner) if owner else NAMES.get(name)


@dataclass(slots=True)
class Job:
    """One trace with everything a replay of it needs."""

    trace: Trace
    golden: Golden | None
    spec: MachineSpec
    files: dict[str, str]
    unmodelled: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    contents: dict[str, Any] = field(default_factory=dict)
    learnt: set[str] = field(default_factory=set)  # device ids whose content came from the trace
    outside: Outside | None = None  # what devices that are not modelled do, once learnt

    def plan(self) -> Plan:
        """The machine's plan, for placements.  Raises MachineError."""
        return plan(derive(self.spec))

    def given(self) -> set[str]:
        """Ids of devices that hold a file of --file: nothing is learnt for them, and their content is compared."""
        return {d.id for d in self.spec.devices if any(path in repr(d.config) for path in self.files.values())}


def open_job(trace: Trace, golden: Golden | None, machine: str | Path | MachineSpec, files: Mapping[str, str]) -> Job:
    """A job: machine "auto" takes the side file's QEMU command line.  Raises UsageError."""
    paths = {
        name: str(check_file(trace, name, path)) for name, path in files.items() if name in trace.side.get("files", {})
    }
    if isinstance(machine, MachineSpec):
        return Job(trace, golden, machine, paths)
    if str(machine) != "auto":
        return Job(trace, golden, load(machine), paths)
    args = trace.side.get("machine_args")
    if not isinstance(args, list):
        raise TraceError(f"{trace.path}: no side file {trace.stem}.json with machine_args; give --machine FILE")
    sizes = {name: int(f.get("bytes", 0)) for name, f in trace.side.get("files", {}).items()}
    got = from_qemu(["-serial", "null", *map(str, args)], paths, sizes)  # the recorder adds the serial port
    spec = got.spec(f"{trace.stem}.json")
    if got.once:  # the boot order that the recording began with
        spec = replace(spec, board=replace(spec.board, facts={**spec.board.facts, "boot_order": got.once}))
    return Job(trace, golden, spec, paths, got.unmodelled, got.remarks)


def machine_inputs(machine: Machine, trace: Trace, outside: Outside | None = None) -> Inputs:
    """The trace's events for this machine's devices, and what others do to them."""
    intack = {p.spec.vcpu: p.rank for p in machine.plan.devices if p.spec.vcpu is not None and p.spec.type == "lapic"}
    if not intack:
        pics = [p.rank for p in machine.plan.devices if p.spec.type == "i8259"]
        intack = dict(enumerate(pics[:1]))
    try:
        keyboard: int | None = machine.plan.rank(machine.spec.board.keyboard)
    except KeyError:
        keyboard = None
    given = inputs(trace, intack, keyboard, doorbells(trace))
    if outside is not None:
        given.records = records(outside, trace, machine.plan, given.records)
        given.vector_rows = np.flatnonzero(given.records["kind"] == INTACK)
    return given


def doorbells(trace: Trace) -> Array:
    """Indices of the writes that may make a device look into RAM later."""
    masters = np.array(
        [r.startswith("ide|") or r.partition("|")[2].startswith(MASTERS) for r in trace.regions] or [False]
    )
    return np.flatnonzero((trace.acc["dir"] == 1) & masters[trace.acc["region"]])


@dataclass(slots=True)
class Outcome:
    """What a run gave: per access, per vector, the line changes, and how long it took."""

    value: Array
    status: Array
    vectors: Array
    lines: Array
    seconds: float
    counters: dict[str, Any]
    histogram: Array
    worker_list: list[dict[str, Any]]
    done: int  # accesses whose answers came back


def execute(
    machine: Machine,
    trace: Trace,
    acc: Array,
    progress: Callable[[int], None] | None = None,
    learn: bool = False,
    outside: Outside | None = None,
) -> Outcome:
    """Run a trace's accesses through a started machine, in chunks.

    If the engine fails in the middle, its exception carries `outcome`: what was executed until then.
    """
    given = machine_inputs(machine, trace, outside)
    n = len(acc)
    value, status = np.zeros(n, np.uint64), np.zeros(n, np.uint8)
    answers = np.full(len(given.records), -1, np.int64)
    lines = [machine.lines()]
    done = 0
    if learn:
        machine.executor.set_learning(True)

    def outcome(seconds: float, rows: list[dict[str, Any]]) -> Outcome:
        s = machine.sequencer
        return Outcome(
            value,
            status,
            answers[given.vector_rows],
            np.concatenate(lines),
            seconds,
            s.counters,
            s.histogram(),
            rows,
            done,
        )

    start = time.perf_counter()
    try:
        for at in range(0, max(n, 1), CHUNK):
            end = min(n, at + CHUNK)
            a, b = np.searchsorted(given.records["index"], [at, end])
            if end == n:
                b = len(given.records)
            part = given.records[a:b].copy()
            part["index"] -= np.uint64(at)
            value[at:end], status[at:end], answers[a:b] = machine.run(acc[at:end], part, given.ram_bytes)
            more = machine.lines()
            more["index"] += np.uint64(at)
            lines.append(more)
            done = end
            if progress:
                progress(end - at)
        seconds = time.perf_counter() - start
        return outcome(seconds, _workers(machine))
    except EngineError as e:
        rows = (
            [{"pid": w.pid, "devices": w.devices, "accesses": None} for w in machine.pool.workers]
            if machine.pool
            else []
        )
        e.outcome = outcome(time.perf_counter() - start, rows)  # type: ignore[attr-defined]
        raise


def series(trace: Trace) -> tuple[list[str], Array]:
    """(device types, accesses of each type in each SERIES-th part of the trace): what the guest did when."""
    number, names = trace.region_names()
    types = [device_type(n) for n in names]
    labels = sorted({"router" if t == "" else t or "not modelled" for t in types})
    row = np.array([labels.index("router" if t == "" else t or "not modelled") for t in types] or [0])
    out = np.zeros((len(labels), SERIES), np.int64)
    n = len(trace.acc)
    np.add.at(out, (row[number], np.arange(n) * SERIES // max(1, n)), 1)
    return labels, out


def _workers(machine: Machine) -> list[dict[str, Any]]:
    if machine.pool is None:
        return []
    return [
        {"pid": w.pid, "devices": w.devices, "accesses": machine.pool.command(w.number, "stats")["accesses"]}
        for w in machine.pool.workers
    ]


@contextmanager
def running(job: Job, path: str, workers: int, owners: list[int] | None = None) -> Iterator[Machine]:
    """The job's machine, started.  Raises UsageError if this host does not let it start."""
    options: dict[str, Any] = {"path": path, "contents": job.contents}
    if path != "local":
        options |= {"workers": workers, "owners": owners}
    machine = Machine(job.spec, **options)
    try:
        machine.start()
    except (UsageError, WorkerDied):
        raise
    except (EngineError, OSError, MemoryError) as e:
        raise UsageError(
            f"the machine of {job.trace.stem} cannot be started: {str(e) or 'not enough memory'}"
        ) from None
    try:
        yield machine
    finally:
        machine.stop()


def poisoned(trace: Trace) -> Array:
    """The accesses with every read's recorded value overwritten."""
    acc = trace.acc.copy()
    acc["value"][acc["dir"] == 0] = POISON
    return acc


def learn(job: Job, progress: Callable[[int], None] | None = None) -> None:
    """Fill job.contents from the trace: one local pass in which content devices keep what the guest read; and find out
    what devices that are not modelled do."""
    given = job.given()
    with running(job, "local", 0) as machine:
        got = execute(machine, job.trace, job.trace.acc, progress, learn=True)
        modelled, _ = _modelled(job, machine, got)
        job.outside = of_recording(
            job.trace, job.golden, ~modelled, config_accesses(job.trace), _line_changes(machine, got)
        )
        if job.outside.gsis:
            job.remarks.append(
                f"interrupt lines {', '.join(map(str, job.outside.gsis))} are driven by devices that are not modelled: "
                f"they come from the reference"
            )
        for id, d in machine.devices.items():
            if hasattr(d, "contents") and id not in given:
                got = d.contents()
                if got:
                    job.contents[id] = got
                    job.learnt.add(id)


def config_accesses(trace: Trace) -> tuple[Array, Array, Array]:
    """Accesses of PCI configuration space: (index in the trace, bus << 8 | device << 3 | function, register)."""
    acc = trace.acc
    ports = acc["space"] == 0
    latch_writes = np.flatnonzero(ports & (acc["addr"] == 0xCF8) & (acc["dir"] == 1) & (acc["size"] == 4))
    data = np.flatnonzero(ports & (acc["addr"] >= 0xCFC) & (acc["addr"] <= 0xCFF))
    before = np.searchsorted(latch_writes, data)
    data, before = data[before > 0], before[before > 0]
    latch = acc["value"][latch_writes[before - 1]]
    enabled = latch >> np.uint64(31) == 1
    data, latch = data[enabled], latch[enabled]
    number, names = trace.region_names()
    ecam = np.flatnonzero(np.isin(number, [i for i, n in enumerate(names) if n.startswith("pcie-mmcfg-mmio|")]))
    addr = acc["addr"][ecam]
    return (
        np.concatenate((data, ecam)),
        np.concatenate((latch >> np.uint64(8), addr >> np.uint64(12))) & np.uint64(0xFFFF),
        np.concatenate((latch & np.uint64(0xFC) | acc["addr"][data] & np.uint64(3), addr & np.uint64(0xFFF))),
    )


def unmodelled_functions(trace: Trace, unmodelled: list[tuple[str, str]]) -> Array:
    """Which accesses reach the configuration space of a PCI function on bus 0 that is not modelled."""
    index, target, _ = config_accesses(trace)
    slots = [int(slot[3:5], 16) << 3 | int(slot[6:]) for _, slot in unmodelled if slot]
    out = np.zeros(len(trace.acc), bool)
    out[index[np.isin(target, np.array(slots, np.uint64))]] = True
    return out


def _foreign_functions(job: Job, got: Outcome, reference: Array) -> tuple[Array, list[dict[str, Any]]]:
    """Which accesses reach the configuration space of PCI functions that are not modelled, and what those are.

    They are the functions that the command line's unmodelled devices are on bus 0; and, where it has such devices
    behind bridges, whose bus numbers the guest chooses, those that answer to the reference and not to us, if no part of
    this machine has their identity.
    """
    trace = job.trace
    index, target, register = config_accesses(trace)
    names = {int(slot[3:5], 16) << 3 | int(slot[6:]): name for name, slot in job.unmodelled if slot}
    if any(not slot for _, slot in job.unmodelled):
        ids = (register == 0) & (trace.acc["dir"][index] == 0) & (trace.acc["size"][index] >= 2)
        absent = got.value[index] & np.uint64(0xFFFF) == 0xFFFF
        there = ids & absent & (reference[index] & np.uint64(0xFFFF) != 0xFFFF) & (index < got.done)
        own = _identities(job) if there.any() else set()
        for bdf in np.unique(target[there]):
            mine = (target == bdf) & (register < 4)
            number = [0, 0]
            for at, size, value in zip(
                register[mine], trace.acc["size"][index[mine]], reference[index[mine]], strict=True
            ):
                for k in range(int(size)):
                    if at + k < 4 and int(value) >> 8 * k & 0xFF != 0xFF:
                        number[(int(at) + k) // 2] |= (int(value) >> 8 * k & 0xFF) << 8 * ((int(at) + k) % 2)
            if tuple(number) not in own:
                names.setdefault(int(bdf), f"{number[0]:04x}:{number[1]:04x}")
    out = np.zeros(len(trace.acc), bool)
    found = []
    for bdf, name in sorted(names.items()):
        mine = index[target == bdf]
        out[mine] = True
        where = f"{bdf >> 8:02x}:{bdf >> 3 & 31:02x}.{bdf & 7}"
        found.append({"device": name, "function": where, "config_reads": int((trace.acc["dir"][mine] == 0).sum())})
    return out, found


def _identities(job: Job) -> set[tuple[int, int]]:
    """(vendor, device) of each PCI function of the job's machine, but for those that are named as behind something that
    is not modelled, too."""
    planned = job.plan()
    beside = {PCI_DEVICES.get(name) for name, _ in job.unmodelled}
    ranks = [p.rank for p in planned.devices if p.spec.bdf is not None]
    devices, _arena = build_devices(planned, ranks)
    types = {p.id: p.spec.type for p in planned.devices}
    return {d.identity()[:2] for id, d in devices.items() if hasattr(d, "identity") and types[id] not in beside}


def _modelled(job: Job, machine: Machine, got: Outcome) -> tuple[Array, list[dict[str, Any]]]:
    """Which accesses reach what is modelled, and the PCI functions that are not."""
    number, names = job.trace.region_names()
    types = {p.spec.type for p in machine.plan.devices} | {""}
    reference = job.golden.value if job.golden is not None else job.trace.acc["value"]
    foreign, functions = _foreign_functions(job, got, reference)
    # Types of which some devices are modelled and some cannot be reached.
    beside = {PCI_DEVICES.get(name, "") for name, _ in job.unmodelled} - {""}
    twins = np.array([device_type(n) in beside for n in names] or [False])[number]
    foreign |= twins & (got.status == UNCLAIMED)
    named = np.array([device_type(n) in types for n in names] or [False])[number]
    # A recorder that only reads QEMU's log knows no owners: there what is modelled is what one of our parts claims.
    nobodys = np.array([n.endswith("|") and device_type(n) is None for n in names] or [False])[number]
    return (named | nobodys & (got.status != UNCLAIMED)) & ~foreign, functions


def _line_changes(machine: Machine, got: Outcome) -> set[tuple[int, ...]]:
    """The line changes of a run: (index, GSI, level, phase)."""
    names = machine.plan.observed
    return {(int(r["index"]), gsi(names[int(r["line"])]), int(r["level"]), int(r["phase"])) for r in got.lines}


def score(job: Job, machine: Machine, got: Outcome) -> dict[str, Any]:
    """One run as the JSON output has it; without a reference nothing is compared.

    Where the reference says that its replay and the recorded guest differ, because a disk's back end took other host
    time, both are answers of the reference machine, and either is right.
    """
    trace, golden = job.trace, job.golden
    number, names = trace.region_names()
    given = {machine.spec.device(id).type for id in job.given()}
    read = trace.acc["dir"] == 0
    reference = golden.value if golden is not None else trace.acc["value"]
    modelled, functions = _modelled(job, machine, got)
    want = read & modelled
    want[got.done :] = False
    if golden is not None:
        want &= (golden.status & GOLD_MASK) == GOLD_READ
    payload = (
        want & ((got.status & CONTENT) != 0) & ~np.array([device_type(n) in given for n in names] or [False])[number]
    )
    compared = want & ~payload if golden is not None else np.zeros(len(read), bool)
    same = got.value == reference
    recorded = compared & ~same & (got.value == trace.acc["value"])
    if golden is not None:
        recorded &= golden.status & GOLD_AS_RECORDED == 0
    same |= recorded
    by_region: list[dict[str, Any]] = []
    unmodelled: dict[str, int] = {}
    for i, name in enumerate(names):
        mine = compared & (number == i)
        if mine.any():
            by_region.append({"region": name, "reads": int(mine.sum()), "matching": int((mine & same).sum())})
        touched = ~modelled & (number == i)
        if touched.any():
            unmodelled[name] = int((touched & read).sum())
    mismatches: list[dict[str, Any]] = []
    for i in np.flatnonzero(compared & ~same)[:20]:
        a = trace.acc[i]
        mismatches.append(
            {
                "kind": "read",
                "index": int(i),
                "region": trace.regions[a["region"]],
                "space": ("pio", "mmio")[a["space"]],
                "addr": hex(int(a["addr"])),
                "size": int(a["size"]),
                "expected": hex(int(golden.value[i])) if golden else None,
                "got": hex(int(got.value[i])),
            }
        )
    vectors, taken = _vectors(job, got, mismatches)
    lines, later = _lines(job, machine, got, mismatches)
    c = got.counters
    counts = {k: int(c[k]) for k in ("local", "router", "sync", "buffered", "batched", "fallback", "posted_eligible")}
    return {
        "trace": trace.stem,
        "machine": machine.spec.board.name,
        "path": machine.path,
        "workers": len(got.worker_list),
        "worker_list": got.worker_list,
        "accesses": len(trace.acc),
        "done": got.done,
        "reads": int(read.sum()),
        "compared": int(compared.sum()),
        "matching": int((compared & same).sum()),
        "payload_reads": int(payload.sum()),
        "unmodelled": unmodelled,
        "unmodelled_functions": functions,
        "by_region": by_region,
        "vectors": vectors,
        "lines": lines,
        "as_recorded_only": int(recorded.sum()) + taken,
        "later_in_reference": later,
        "mismatches": mismatches[:20],
        "accesses_per_s": round(got.done / got.seconds) if got.seconds else 0,
        "latency_ns": percentiles(got.histogram),
        "counts": {**counts, "mean_batch": round(float(c["mean_batch"]), 2)},
        "digest": digest(trace, got),
        "golden": golden is not None,
        "remarks": job.remarks,
        "ok": bool(
            got.done == len(trace.acc)
            and (compared & same).sum() == compared.sum()
            and vectors["compared"] == vectors["matching"]
            and lines["compared"] == lines["matching"]
        ),
    }


def _vectors(job: Job, got: Outcome, mismatches: list[dict[str, Any]]) -> tuple[dict[str, int], int]:
    """How many vectors are compared and right; how many of these are not as in the reference, but as recorded."""
    if job.golden is None or not job.golden.vectors_stable:
        return {"compared": 0, "matching": 0}, 0
    want = np.where(job.golden.vector == NO_VECTOR, -1, job.golden.vector)
    events = job.trace.evt[job.trace.evt["kind"] == EV_VECTOR]
    if len(got.vectors) != len(want):
        mismatches.append(
            {
                "kind": "vector",
                "index": 0,
                "region": "",
                "space": "",
                "addr": "",
                "size": 0,
                "expected": f"{len(want)} vectors",
                "got": f"{len(got.vectors)}: the machine has no controller for some vCPU",
            }
        )
        return {"compared": len(want), "matching": 0}, 0
    live = events["data"] & 0xFFFF
    told = int((want == live).sum()) == job.golden.side.get("vectors_as_recorded")  # how many are not as recorded
    if got.done < len(job.trace.acc):
        reached = events["index"] < got.done
        want, events, live, vectors = want[reached], events[reached], live[reached], got.vectors[reached]
    else:
        vectors = got.vectors
    same = vectors == want
    recorded = ~same & told & (vectors == live)
    same |= recorded
    for i in np.flatnonzero(~same)[: 20 - len(mismatches)]:
        mismatches.append(
            {
                "kind": "vector",
                "index": int(events[i]["index"]),
                "region": "",
                "space": "",
                "addr": "",
                "size": 0,
                "expected": int(want[i]),
                "got": int(vectors[i]),
            }
        )
    return {"compared": len(want), "matching": int(same.sum())}, int(recorded.sum())


def _line_rows(lines: Array, names: list[str] | None) -> dict[int, list[Row]]:
    """Line number (a GSI) -> its (index, level, phase) rows."""
    out: dict[int, list[Row]] = {}
    for r in lines:
        line = int(r["line"])
        if names is not None:
            line = gsi(names[line])
        out.setdefault(line, []).append((int(r["index"]), int(r["level"]), int(r["phase"])))
    return out


def _waited_for(trace: Trace, irq: Array) -> Callable[[Row, Row], bool]:
    """Whether the reference's change of a line is ours, later: ours is an interrupt in an access of a disk controller,
    whose back end takes host time there and is waited for before the next read of a disk controller.  The reference's
    has the time of the access that it names."""
    inside = irq[irq["index"] < len(trace.acc)]
    dated = set(inside["index"][inside["t_ns"] == trace.acc["t_ns"][inside["index"].astype(np.int64)]].tolist())
    disks = np.array([r.startswith("ide|") or r.partition("|")[2].startswith(DISKS) for r in trace.regions] or [False])
    theirs = disks[trace.acc["region"]]
    reads = np.flatnonzero(theirs & (trace.acc["dir"] == 0))

    def same(reference: Row, ours: Row) -> bool:
        index, level, phase = ours
        n = int(np.searchsorted(reads, index, side="right"))
        end = (int(reads[n]), 0) if n < len(reads) else (index, 1)
        at = reference[0], reference[2]
        return bool(level and phase and theirs[index] and reference[1] and at[0] in dated and (index, 1) < at <= end)

    return same


def _lines(job: Job, machine: Machine, got: Outcome, mismatches: list[dict[str, Any]]) -> tuple[dict[str, int], int]:
    """How many changes of lines there are and how many are right; how many of these come later in the reference."""
    if job.golden is None or not job.golden.lines_stable:
        return {"compared": 0, "matching": 0}, 0
    partial = got.done < len(job.trace.acc)
    irq = job.golden.irq[job.golden.irq["index"] < got.done] if partial else job.golden.irq
    want = _line_rows(irq, None)
    have = _line_rows(got.lines[got.lines["index"] < got.done] if partial else got.lines, machine.plan.observed)
    waited_for = _waited_for(job.trace, irq)
    compared = matching = later = 0
    for line in sorted((set(want) | set(have)) - set(job.outside.gsis if job.outside else ())):
        a, b = want.get(line, []), have.get(line, [])
        compared += max(len(a), len(b))
        for k in range(max(len(a), len(b))):
            x, y = a[k] if k < len(a) else None, b[k] if k < len(b) else None
            if x == y:
                matching += 1
            elif x and y and waited_for(x, y):
                later += 1
            elif len(mismatches) < 20:
                index = (x or y or (0,))[0]
                mismatches.append(
                    {
                        "kind": "line",
                        "index": index,
                        "region": f"line {line}",
                        "space": "",
                        "addr": "",
                        "size": 0,
                        "expected": list(x) if x else None,
                        "got": list(y) if y else None,
                    }
                )
    return {"compared": compared, "matching": matching + later}, later


def digest(trace: Trace, got: Outcome) -> str:
    """SHA-256 of the reads, the vectors, and the lines: equal on every path and placement."""
    h = hashlib.sha256()
    h.update(got.value[trace.acc["dir"] == 0].astype("<u8").tobytes())
    h.update(got.vectors.astype("<i8").tobytes())
    order = np.lexsort((np.arange(len(got.lines)), got.lines["line"]))
    for name in ("index", "line", "level", "phase"):
        h.update(got.lines[name][order].astype("<u8").tobytes())
    return h.hexdigest()


def curve(histogram: Array) -> tuple[Array, Array]:
    """(ns, counts) of the used buckets of a latency histogram in TSC ticks; a bucket is named by its upper edge."""
    from engine.measure._limits import tsc_hz

    ticks = [float(x) for x in Sequencer.bucket_ticks()]
    edges = np.array([*ticks[1:], 2 * ticks[-1]])
    used = np.flatnonzero(histogram)
    return edges[used] * 1e9 / tsc_hz(), histogram[used].astype(np.int64)


def percentiles(histogram: Array) -> dict[str, float]:
    """p50, p99, p999 and max of a latency histogram in TSC ticks, in ns (upper edges of the buckets)."""
    ns, counts = curve(histogram)
    if not len(ns):
        return {"p50": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}
    up_to = np.cumsum(counts)
    out = {
        name: round(float(ns[int(np.searchsorted(up_to, np.ceil(q * up_to[-1])))]), 1)
        for name, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
    }
    out["max"] = round(float(ns[-1]), 1)
    return out


@dataclass(slots=True)
class Run:
    """One trace over one path: the scored result, the latency histogram, and the failure that ended it, if any."""

    job: Job
    result: dict[str, Any]
    histogram: Array
    failure: EngineError | None = None


def replay(
    job: Job, path: str, workers: int, owners: list[int] | None = None, progress: Callable[[int], None] | None = None
) -> Run:
    """One scored run.  Raises UsageError, and WorkerDied in the start; a failure after it is the Run's `failure`."""
    acc = poisoned(job.trace)
    with running(job, path, workers, owners) as machine:
        failure = None
        try:
            got = execute(machine, job.trace, acc, progress, outside=job.outside)
        except UsageError:
            raise
        except EngineError as e:
            failure, got = e, e.outcome  # type: ignore[attr-defined]
        result = score(job, machine, got)
    if failure is not None:
        result |= {"error": str(failure), "ok": False}
    return Run(job, result, got.histogram, failure)


def parse_files(pairs: list[str]) -> dict[str, str]:
    """--file NAME=PATH options.  Raises UsageError."""
    out = {}
    for text in pairs:
        name, eq, path = text.partition("=")
        if not eq or not name or not path:
            raise UsageError(f"--file {text}: write NAME=PATH")
        if not Path(path).is_file():
            raise UsageError(f"--file {name}: {path}: no such file")
        out[name] = path
    return out
