"""Trace files: what is read back is what was written; whatever is no trace is refused in one line."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from engine import TraceError, data
from engine._abi import ACC
from engine._device import INTACK, KEY
from engine.frontends import trace as traces
from engine.frontends.trace import DMA, EVT, IRQ
from engine.sequencer import RAM
from tests.frontends.traces import REGIONS, accesses, arrays, golden_arrays, records, write


def refused(call, *words):
    """The one line of a TraceError that says these words."""
    with pytest.raises(TraceError) as e:
        call()
    text = str(e.value)
    assert text and "\n" not in text and len(text) < 600, text
    assert all(w in text for w in words), text
    return text


# ---------------------------------------------------------------------- what is read is what was written


def test_round_trip(tmp_path):
    side = {"guest": "three accesses", "files": {"disk": {"name": "d.img", "bytes": 3, "sha256": "00"}}}
    path = write(tmp_path / "small.npz", side)
    for given in (path, str(path)):
        got = traces.load(given)
        for name, array in arrays().items():
            assert (np.asarray(getattr(got, name)) == array).all(), name
        assert (got.acc.dtype, got.evt.dtype, got.dma.dtype) == (ACC, EVT, DMA)
        assert (got.path, got.stem, got.side) == (path, "small", side)
    number, names = got.region_names()  # two regions of one name are one
    assert names == sorted(set(REGIONS)) and [names[n] for n in number] == [REGIONS[0], REGIONS[0], REGIONS[3]]
    assert traces.golden_path(got) == tmp_path / "small.golden.npz"


def test_a_trace_without_anything(tmp_path):
    empty = {"acc": np.zeros(0, ACC), "regions": np.array([], "U1"), "evt": np.zeros(0, EVT), "dma": np.zeros(0, DMA)}
    got = traces.load(write(tmp_path / "none.npz", **empty, dma_data=np.zeros(0, np.uint8)))
    assert len(got.acc) == 0 and got.side == {} and got.region_names()[1] == []
    assert len(traces.inputs(got, {0: 5}, 6).records) == 0


def test_the_shipped_traces_have_what_their_side_files_say():
    for name in data.traces():
        trace = traces.load(data.trace(name))
        golden = traces.load_golden(traces.golden_path(trace), trace)
        assert trace.stem == name and trace.side["machine_args"] and golden.side
        assert len(golden.value) == len(trace.acc) and golden.lines_stable and golden.vectors_stable


def test_reference_round_trip(tmp_path):
    trace = traces.load(write(tmp_path / "small.npz"))
    path = tmp_path / "small.golden.npz"
    np.savez(path, **golden_arrays())
    golden = traces.load_golden(path, trace)
    for name, array in golden_arrays().items():
        assert (getattr(golden, name) == array).all() and getattr(golden, name).dtype == array.dtype
    assert golden.lines_stable and golden.vectors_stable
    unstable = {"line_changes_identical_in_all_runs": False, "vectors_identical_in_all_runs": False}
    path.with_name("small.golden.json").write_text(json.dumps(unstable))
    golden = traces.load_golden(path, trace)
    assert not golden.lines_stable and not golden.vectors_stable


# ---------------------------------------------------------------------- files that are none


def test_a_file_that_is_not_there(tmp_path):
    refused(lambda: traces.load(tmp_path / "none.npz"), "none.npz", "no such file")
    refused(lambda: traces.load(tmp_path), "not a file")


def test_a_file_cut_short_anywhere(tmp_path):
    whole = write(tmp_path / "small.npz").read_bytes()
    cut = tmp_path / "cut.npz"
    for n in [*range(0, len(whole), 37), len(whole) - 1]:
        cut.write_bytes(whole[:n])
        refused(lambda: traces.load(cut), "cut.npz", "cannot be read as a trace", "truncated")


def test_a_file_with_any_byte_changed(tmp_path):
    """Refused, or as it was: the archive has checksums."""
    whole = write(tmp_path / "small.npz").read_bytes()
    rng = np.random.default_rng(2)
    other = tmp_path / "other.npz"
    refusals = 0
    for _ in range(200):
        broken = bytearray(whole)
        broken[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        other.write_bytes(broken)
        try:
            got = traces.load(other)
        except TraceError as e:
            refusals += 1
            assert "\n" not in str(e) and "other.npz" in str(e)
        else:
            assert (got.acc == arrays()["acc"]).all() and (got.evt == arrays()["evt"]).all()
    assert refusals > 50


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\necho no trace\n", b"PK\3\4", b"\x93NUMPY\1\0", b"\x89PNG\r\n\x1a\n" * 99, bytes(5000)]
)
def test_foreign_files(tmp_path, content):
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    refused(lambda: traces.load(path), "foreign.npz", "cannot be read as a trace")


def test_one_array_is_no_trace(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    refused(lambda: traces.load(tmp_path / "one.npy"), "cannot be read as a trace")


def test_objects_are_never_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "was-here").touch, ()

    np.savez(tmp_path / "evil.npz", acc=np.array([Evil()], object))
    refused(lambda: traces.load(tmp_path / "evil.npz"), "cannot be read as a trace")
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize("name", ["acc", "regions", "evt", "dma", "dma_data"])
def test_arrays_that_are_missing(tmp_path, name):
    path = write(tmp_path / "part.npz", **{name: None})
    refused(lambda: traces.load(path), f"arrays missing: {name}")


def test_versions(tmp_path):
    """1 or none is this format; more is newer; anything else is no version."""
    for version in (1, [1], np.uint8(1)):
        traces.load(write(tmp_path / "v.npz", version=np.asarray(version)))
    for version in (2, 1000, [3]):
        path = write(tmp_path / "v.npz", version=np.asarray(version))
        refused(lambda path=path: traces.load(path), "newer than this engine's 1", "update")
    for version in ("one", [], 0, -1, [1, 2], 1.5):
        path = write(tmp_path / "v.npz", version=np.asarray(version))
        refused(lambda path=path: traces.load(path), "version")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("acc", np.zeros(3, np.uint64)),
        ("acc", np.zeros(3, EVT)),
        ("acc", np.zeros(3, ACC.newbyteorder(">"))),
        ("acc", np.zeros((3, 1), ACC)),
        ("acc", np.array(5)),
        ("evt", np.zeros(1, DMA)),
        ("evt", np.zeros((1, 1), EVT)),
        ("dma", np.zeros(1, EVT)),
        ("dma_data", np.zeros(4, np.uint16)),
        ("dma_data", np.zeros((2, 2), np.uint8)),
        ("regions", np.array([["a", "b"]])),
        ("regions", np.array("a")),
    ],
)
def test_arrays_of_another_layout(tmp_path, name, array):
    path = write(tmp_path / "odd.npz", **{name: array})
    refused(lambda: traces.load(path), "odd.npz", f"array {name!r}")


ONE = (10, 0x70, 0x0F, 1, 0, 1, 0)


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (3, 0, "size 0"), (3, 3, "size 3"), (3, 16, "size 16"), (3, 255, "size 255"), (3, 8, "size 8"),
        (4, 2, "space 2"), (4, 255, "space 255"), (5, 2, "dir 2"), (1, 0x10000, "address 0x10000"),
        (6, 5, "region 5 of 5"), (6, 65535, "region 65535 of 5"), (0, 1 << 63, "at 9223372036854775808 ns"),
    ],
)  # fmt: skip
def test_accesses_that_no_guest_can_make(tmp_path, at, value, words):
    odd = list(ONE)
    odd[at] = value
    path = write(tmp_path / "odd.npz", acc=accesses(ONE, tuple(odd), ONE))
    refused(lambda: traces.load(path), "access 1 is impossible", words)


def test_time_that_goes_back(tmp_path):
    path = write(tmp_path / "back.npz", acc=accesses(ONE, (9, *ONE[1:]), ONE))
    refused(lambda: traces.load(path), "time goes back at access 1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evt": records(EVT, (0, 4, 1, 0))}, "evt names access 4, but there are 3"),
        ({"evt": records(EVT, (0, (1 << 64) - 1, 1, 0))}, "evt names access"),
        ({"dma": records(DMA, (4, 0, 0, 1, 1))}, "dma names access 4"),
        ({"dma": records(DMA, (0, 0, 0, 5, 1))}, "dma names bytes that dma_data does not have"),
        ({"dma": records(DMA, (0, 0, 4, 1, 1))}, "dma names bytes"),
        ({"dma": records(DMA, (0, 0, (1 << 64) - 1, 1, 1))}, "dma names bytes"),
        ({"dma": records(DMA, (0, 0, (1 << 64) - 4, 4, 1))}, "dma names bytes"),
        ({"dma": records(DMA, (0, 0, 1 << 40, 0, 1))}, "dma names bytes"),
    ],
)
def test_events_and_bytes_that_are_not_there(tmp_path, changes, words):
    path = write(tmp_path / "odd.npz", **changes)
    refused(lambda: traces.load(path), words)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '"x"', "\x00", '{"files": 5}', '{"files": {"disk": 5}}', '{"files": {"disk": {"bytes": "x"}}}',
     '{"files": {"disk": {"name": "x", "sha256": 5}}}', '{"files": []}', '{"files": {"disk": {"name": "x"}}}',
     '{"files": {"disk": {"name": "x", "sha256": "0", "bytes": "x"}}}'],
)  # fmt: skip
def test_side_files_that_are_none(tmp_path, text):
    path = write(tmp_path / "small.npz", text)
    refused(lambda: traces.load(path), "small.json", "not a side file")


def test_a_side_file_in_another_encoding(tmp_path):
    path = write(tmp_path / "small.npz")
    (tmp_path / "small.json").write_bytes(b'{"guest": "\xff"}')
    refused(lambda: traces.load(path), "small.json", "not a side file")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"value": None}, "arrays missing: value"),
        ({"value": np.zeros(3, "<u4")}, "array 'value'"),
        ({"value": np.zeros(2, "<u8")}, "reference of 2 accesses does not fit"),
        ({"value": np.zeros(4, "<u8"), "status": np.zeros(4, "u1")}, "reference of 4 accesses does not fit"),
        ({"status": np.zeros(2, "u1")}, "does not fit"),
        ({"vector": np.zeros(0, "<i8")}, "reference of 0 vectors does not fit"),
        ({"vector": np.zeros(1, "<u8")}, "array 'vector'"),
        ({"irq": np.zeros(1, EVT)}, "array 'irq'"),
        ({"irq": np.zeros((1, 1), IRQ)}, "array 'irq'"),
        ({"version": np.array(9)}, "version 9 is newer"),
    ],
)
def test_references_that_do_not_fit(tmp_path, changes, words):
    trace = traces.load(write(tmp_path / "small.npz"))
    np.savez(tmp_path / "g.npz", **golden_arrays(**changes))
    refused(lambda: traces.load_golden(tmp_path / "g.npz", trace), "g.npz", words)


def test_files_of_a_guest_are_the_recorded_ones(tmp_path):
    disk = tmp_path / "mine.img"
    disk.write_bytes(b"abc")
    names = {"disk": {"name": "d.img", "bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}}
    trace = traces.load(write(tmp_path / "small.npz", {"files": names}))
    assert traces.check_file(trace, "disk", disk) == disk
    refused(lambda: traces.check_file(trace, "cd", disk), "needs no such file; it names disk")
    refused(lambda: traces.check_file(trace, "disk", tmp_path / "none"), "no such file")
    disk.write_bytes(b"abd")
    refused(lambda: traces.check_file(trace, "disk", disk), "is not the recorded d.img", "SHA-256")
    trace = traces.load(write(tmp_path / "other.npz"))
    refused(lambda: traces.check_file(trace, "disk", disk), "it names none")


# ---------------------------------------------------------------------- events as inputs


def inputs(tmp_path, *more, **changes):
    return traces.inputs(traces.load(write(tmp_path / "t.npz", **changes)), *more)


def rows(given):
    return given.records[["index", "t_ns", "kind", "target", "value"]].tolist()


def test_interrupts_keys_and_bytes_in_their_order(tmp_path):
    """At one access: bytes, then events as recorded.  Kinds 2 and 3 are what a reference saw, no inputs."""
    evt = records(
        EVT, (11, 1, 4, 0x1C), (12, 1, 2, 9), (13, 1, 1, 0), (14, 1, 3, 0), (15, 1, 4, 0xFFFFFF9C), (40, 3, 1, 1 << 16)
    )
    dma = records(DMA, (1, 0x5000, 1, 3, 1), (1, 0x6000, 0, 4, 1), (0, 0x7000, 0, 1, 1))
    got = inputs(tmp_path, {0: 5, 1: 6}, 7, evt=evt, dma=dma)
    assert rows(got) == [
        (0, 0, RAM, 0, 1), (1, 10, RAM, 0, 1 << 32 | 3), (1, 10, RAM, 0, 4), (1, 11, KEY, 7 << 8, 0x1C),
        (1, 13, INTACK, 5 << 8, 0), (1, 15, KEY, 7 << 8, 0x9C), (3, 40, INTACK, 6 << 8, 1),
    ]  # fmt: skip
    assert got.records["addr"].tolist() == [0x7000, 0x5000, 0x6000, 0, 0, 0, 0]
    assert got.vector_rows.tolist() == [4, 6]
    assert bytes(got.ram_bytes) == b"boot" and got.skipped == 0


def test_events_of_parts_that_are_not_there_are_counted(tmp_path):
    evt = records(EVT, (11, 1, 1, 0), (12, 1, 1, 3 << 16), (13, 2, 4, 0x1C), (14, 2, 3, 0))
    got = inputs(tmp_path, {0: 5}, None, evt=evt, dma=np.zeros(0, DMA))
    assert rows(got) == [(1, 11, INTACK, 5 << 8, 0)] and got.skipped == 2 and got.vector_rows.tolist() == [0]


def test_times_of_events_lie_between_their_accesses(tmp_path):
    """And never go back: a recorder's clock may."""
    evt = records(EVT, (5, 1, 4, 1), (25, 1, 4, 2), (12, 1, 4, 3), (0, 2, 4, 4), (99, 3, 4, 5), (50, 3, 4, 6))
    got = inputs(tmp_path, {}, 7, evt=evt, dma=np.zeros(0, DMA))
    assert got.records["t_ns"].tolist() == [10, 20, 20, 20, 99, 99]


def test_bytes_that_are_looked_at_later_come_before_their_doorbell(tmp_path):
    dma = records(DMA, (3, 0x10, 0, 1, 0), (2, 0x20, 1, 1, 0), (2, 0x30, 2, 1, 1), (1, 0x40, 3, 1, 0))
    bells = np.array([1])  # access 1 rings; access 1's own bytes have no bell before them
    got = inputs(tmp_path, {}, None, bells, dma=dma, evt=np.zeros(0, EVT))
    assert list(zip(got.records["index"].tolist(), got.records["addr"].tolist(), strict=True)) == [
        (1, 0x10), (1, 0x20), (2, 0x30),
    ]  # fmt: skip
    got = inputs(tmp_path, {}, None, None, dma=dma, evt=np.zeros(0, EVT))
    assert got.records["addr"].tolist() == [0x40, 0x20, 0x30, 0x10]
