"""Devices of a recording that are not modelled: what they do to the interrupt controllers of the machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.frontends import replay
from engine.frontends import trace as traces
from engine.frontends.outside import EV_MSI, Outside, of_recording, records
from engine.frontends.trace import DMA, EVT, IRQ
from engine.machine.spec import load
from engine.sequencer import INPUT
from tests.frontends.traces import accesses, write
from tests.frontends.traces import records as rows

REGIONS = ["pic|isa-i8259", "tube|unheard-of", "msix-table|unheard-of", "apic-msi|apic", "pci-conf-idx|i440FX-pcihost",
           "pci-conf-data|i440FX-pcihost"]  # fmt: skip
PIC, TUBE, TABLE, APIC, INDEX, DATA = range(6)
NO_CONFIG = tuple(np.zeros(0, np.uint64) for _ in range(3))


def trace_of(path: Any, guest: list[tuple[int, int, int, int, int]], events: Any = None) -> traces.Trace:
    """(address, value, size, write, region), 1 us apart."""
    acc = accesses(*[(1000 * (n + 1), a, v, size, int(region in (TABLE, APIC)), w, region)
                     for n, (a, v, size, w, region) in enumerate(guest)])  # fmt: skip
    evt = events if events is not None else np.zeros(0, EVT)
    return traces.load(write(path, acc=acc, regions=np.array(REGIONS), evt=evt, dma=np.zeros(0, DMA)))


def golden_of(trace: traces.Trace, *irq: tuple[int, int, int, int], vector: tuple[int, ...] = ()) -> traces.Golden:
    """irq: (index, line, level, phase)."""
    changes = rows(IRQ, *[(i, trace.acc["t_ns"][i], line, level, phase, 0) for i, line, level, phase in irq])
    status = (trace.acc["dir"] == 0).astype("u1")
    return traces.Golden(trace.path, trace.acc["value"].copy(), status, np.array(vector, "<i8"), changes)


# The 8259s take IRQ 11 at vector 73h; a device that is not modelled raises and lowers it; the guest takes it.
GUEST = [
    (0xFEE000F0, 0x1FF, 4, 1, APIC), (0xFEE00350, 0x700, 4, 1, APIC),
    (0x20, 0x11, 1, 1, PIC), (0x21, 0x30, 1, 1, PIC), (0x21, 0x04, 1, 1, PIC), (0x21, 0x01, 1, 1, PIC),
    (0x21, 0xFB, 1, 1, PIC),
    (0xA0, 0x11, 1, 1, PIC), (0xA1, 0x70, 1, 1, PIC), (0xA1, 0x02, 1, 1, PIC), (0xA1, 0x01, 1, 1, PIC),
    (0xA1, 0xF7, 1, 1, PIC),
    (0x300, 1, 1, 1, TUBE),  # 12: the line rises
    (0xA0, 0x0A, 1, 1, PIC), (0xA0, 0x08, 1, 0, PIC),  # 14: the request is seen
    (0x300, 0, 1, 1, TUBE),  # 15: taken before it; the line falls in it
    (0xA0, 0x0B, 1, 1, PIC), (0xA0, 0x08, 1, 0, PIC),  # 17: in service
]  # fmt: skip
TAKEN = rows(EVT, (15500, 15, 1, 0))


def test_a_line_of_a_device_that_is_not_modelled_is_fed_to_the_controllers(tmp_path: Any) -> None:
    trace = trace_of(tmp_path / "line.npz", GUEST, TAKEN)
    golden = golden_of(trace, (12, 11, 1, 1), (15, 11, 0, 1), vector=(0x73,))
    job = replay.Job(trace, golden, load("i440fx"), {})
    replay.learn(job)
    assert job.outside is not None and job.outside.gsis == [11] and "lines 11 are driven" in job.remarks[0]
    for path in ("local", "batched"):
        result = replay.replay(job, path, 2).result
        assert result["ok"], result["mismatches"]
        assert result["vectors"] == {"compared": 1, "matching": 1} and result["compared"] == 2
        assert result["lines"] == {"compared": 0, "matching": 0}
    job.outside = None
    assert not replay.replay(job, "local", 0).result["ok"]


def test_only_changes_that_modelled_devices_do_not_make_are_fed(tmp_path: Any) -> None:
    trace = trace_of(tmp_path / "shared.npz", GUEST)
    golden = golden_of(trace, (3, 11, 1, 1), (5, 11, 0, 0), (12, 11, 1, 1), (14, 11, 0, 0), (9, 4, 1, 1))
    foreign = trace.acc["region"] == TUBE
    got = of_recording(trace, golden, foreign, NO_CONFIG, {(3, 11, 1, 1), (5, 11, 0, 0)})
    assert got.lines == [(12, 11, 1, 1), (14, 11, 0, 0)] and got.gsis == [11]
    assert of_recording(trace, None, foreign, NO_CONFIG, set()).lines == []


def test_nothing_is_fed_where_everything_is_modelled(tmp_path: Any) -> None:
    trace = trace_of(tmp_path / "none.npz", GUEST[:12])
    golden = golden_of(trace, (3, 11, 1, 1))
    job = replay.Job(trace, golden, load("i440fx"), {})
    replay.learn(job)
    assert job.outside == Outside([], []) and not job.remarks
    assert replay.replay(job, "local", 0).result["lines"] == {"compared": 1, "matching": 0}


@pytest.mark.parametrize("how", ["table", "capability"])
def test_messages_that_were_programmed_into_such_devices(tmp_path: Any, how: str) -> None:
    """And no others: the I/O APIC's and those of modelled devices are in the recording, too."""
    address, data = 0xFEE01004, 0x4061
    if how == "table":
        guest = [(0xFEB00010, address, 4, 1, TABLE), (0xFEB00018, data, 4, 1, TABLE)]
    else:
        guest = [(0xCF8, 0x80001854, 4, 1, INDEX), (0xCFC, address, 4, 1, DATA),
                 (0xCF8, 0x8000185C, 4, 1, INDEX), (0xCFC, data, 2, 1, DATA)]  # fmt: skip
    events = rows(EVT, (9000, len(guest), EV_MSI, 1 << 16 | data), (9100, len(guest), EV_MSI, 1 << 16 | 0x31))
    trace = trace_of(tmp_path / "msi.npz", [*guest, (0x300, 0, 1, 0, TUBE)], events)
    foreign = np.isin(trace.acc["region"], [TABLE, TUBE, DATA])
    got = of_recording(trace, None, foreign, replay.config_accesses(trace), set())
    assert got.messages == [(9000, len(guest), address, data)]
    planned = replay.Job(trace, None, load("i440fx"), {}).plan()
    (row,) = records(got, trace, planned, np.zeros(0, INPUT))
    assert (row["addr"], row["value"], row["index"]) == (address, data, len(guest))
