"""The one order (docs/ordering.md): what devices see depends on no path, placement, cut or size of rings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine._abi import ACC
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec
from engine.sequencer import INPUT

from .boards import PROBE, SENDER, SINK, Bench, Model, Stream, boards, placements, same, streams

RELAXED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
LINKS = ("sync", "buffered", "batched")


@settings(max_examples=150, **RELAXED)
@given(st.data())
def test_local_is_the_order_of_the_page(data):
    spec = data.draw(boards(functions=False))
    stream = data.draw(streams(spec, simple=True))
    with Bench(spec) as bench:
        got = bench.run(stream)
    want = Model(spec).run(stream)
    got.states = want.states = {}
    same(got, want)


@settings(max_examples=100, **RELAXED)
@given(st.data())
def test_any_path_and_placement_is_local(data):
    spec = data.draw(boards())
    stream = data.draw(streams(spec))
    with Bench(spec) as bench:
        want = bench.run(stream)
    for path in LINKS:
        with Bench(
            spec,
            data.draw(placements(spec)),
            requests=data.draw(st.sampled_from([2, 16, 4096])),
            effects=data.draw(st.sampled_from([4, 64])),
        ) as bench:
            same(bench.run(stream, path=path), want)


@settings(max_examples=100, **RELAXED)
@given(st.data())
def test_runs_in_a_row_are_one_run(data):
    spec = data.draw(boards())
    stream = data.draw(streams(spec))
    with Bench(spec) as bench:
        want = bench.run(stream)
    sizes = st.sampled_from([1, 1, 1, 2, 5, 0])
    pieces = data.draw(st.lists(st.tuples(sizes, st.sampled_from(["local", "step"])), max_size=30))
    with Bench(spec) as bench:
        same(bench.run(stream, pieces), want)


@settings(max_examples=100, **RELAXED)
@given(st.data())
def test_runs_in_a_row_over_changing_paths_are_one_run(data):
    spec = data.draw(boards())
    stream = data.draw(streams(spec))
    with Bench(spec) as bench:
        want = bench.run(stream)
    sizes = st.sampled_from([1, 1, 1, 2, 5, 0])
    pieces = data.draw(st.lists(st.tuples(sizes, st.sampled_from([*LINKS, "step"])), max_size=30))
    with Bench(spec, data.draw(placements(spec))) as bench:
        same(bench.run(stream, pieces, data.draw(st.sampled_from(LINKS))), want)


@pytest.mark.parametrize("path", LINKS)
@pytest.mark.parametrize("owners", [[0, 0, 0], [0, 1, 2], [2, 1, 0]])
def test_what_a_part_of_a_straddling_access_did_is_heard_before_the_next_part(path, owners):
    """The low half goes to the device of the higher rank: parts come by address, effects of one part by rank."""
    at = {"mem": 0x10000, "odd": 0x20000, "reset": 0x2000}
    devices = [
        DeviceSpec("line", PROBE, at=at | {"port": 0x1010}, lines={"steady": "wire"}),
        DeviceSpec("message", SENDER, at={k: v + 64 for k, v in at.items()} | {"port": 0x1000}),
        DeviceSpec("both", SINK, at={k: v + 128 for k, v in at.items()} | {"port": 0x1020}, inputs={"i0": "wire"}),
    ]
    spec = MachineSpec(BoardSpec(ram=1 << 20, observe=("wire",), config_access="none"), tuple(devices))
    acc = np.zeros(1, ACC)
    acc[0] = (5, 0x100E, 0x00110007, 0, 4, 0, 1, 0, 0)  # a message, then a line
    stream = Stream(acc, np.zeros(0, INPUT), b"")
    with Bench(spec) as bench:
        want = bench.run(stream)
    with Bench(spec, owners) as bench:
        same(bench.run(stream, path=path), want)
